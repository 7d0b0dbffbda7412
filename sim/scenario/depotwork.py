"""What `vmksim image bundle` and `vmksim image profile` do with files.

Models nothing.  Leaves out depots on web servers.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from sim.errors import ScenarioError
from sim.image.acceptance import AcceptanceLevel
from sim.image.bootbank import BootBank
from sim.image.bundle import Depot, DepotPolicy, check_depot, depot_of, read_bundle, write_bundle
from sim.image.install import InstallResult
from sim.image.profile import ImageProfile, apply_profile
from sim.image.tool import read_bank
from sim.image.vib import read_vib
from sim.scenario.imagework import chosen_level, chosen_moment, chosen_trust
from sim.scenario.inputs import read_input
from sim.scenario.output import make_folder
from sim.scenario.result import write_atomically

__all__ = ["apply_profile_file", "load_depot", "make_bundle"]


def make_bundle(
    files: Sequence[Path],
    out: Path,
    *,
    vendor: str,
    profile: str | None = None,
    level: str | None = None,
    moment: str | None = None,
) -> Depot:
    """Write the bundle of some VIB files, with an image profile of them all if it is given a name."""
    vibs = [read_vib(read_input(file, str(file))) for file in files]
    ids = [vib.vib_id for vib in vibs]
    if len(set(ids)) != len(ids):
        raise ScenarioError("VIBS", "one VIB is given twice")
    profiles = []
    if profile is not None:
        lowest = min(vib.descriptor.level for vib in vibs)
        chosen = chosen_level(level) or AcceptanceLevel(lowest)
        profiles.append(ImageProfile(name=profile, vendor=vendor, level=chosen, vib_ids=tuple(ids)))
    depot = depot_of(vibs, vendor=vendor, made_at=chosen_moment(moment), profiles=profiles)
    data = write_bundle(depot)
    read_bundle(data)
    write_atomically(out, data)
    return depot


def load_depot(file: Path, *, age_max_days: int | None = None, moment: str | None = None) -> Depot:
    """Return the depot in a bundle file; raises what refuses it, its age among that."""
    depot = read_bundle(read_input(file, str(file)))
    age = timedelta(days=age_max_days) if age_max_days is not None else None
    if age is not None:
        check_depot(depot, DepotPolicy(age_max=age), chosen_moment(moment))
    return depot


def apply_profile_file(
    bundle: Path,
    name: str,
    bank: Path,
    out: Path,
    *,
    seed: int | None = None,
    roots: Path | None = None,
    issuers: Sequence[str] = (),
    moment: str | None = None,
    downgrades: bool = False,
    vendor_changes: bool = False,
    removals: bool = False,
    age_max_days: int | None = None,
) -> InstallResult:
    """Write the bank of a folder with a profile of a bundle on it into another folder."""
    depot = load_depot(bundle, age_max_days=age_max_days, moment=moment)
    before: BootBank = read_bank(bank)
    result = apply_profile(
        before,
        depot.profile(name),
        depot.vibs,
        chosen_trust(seed, roots, issuers),
        chosen_moment(moment),
        downgrades=downgrades,
        vendor_changes=vendor_changes,
        removals=removals,
    )
    make_folder(out)
    for file, data in result.bank.files.items():
        write_atomically(out / file, data)
    return result
