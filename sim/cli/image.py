"""The commands `vmksim image ...`: make, sign, inspect and verify VIBs and boot banks.

Models nothing.  Leaves out anything that a script could not do too: every command calls public functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sim.cli.common import EXIT_NOT_AS_WANTED, SEEDS, about, json_option, print_json


@click.group()
def image() -> None:
    """Signed VIBs and boot banks.

    Keys and roots are PEM files, or those of the simulated world with --seed.
    """


_signing_options = (
    click.option("--seed", type=SEEDS, help="Sign with the makers of the world with this seed."),
    click.option(
        "--provider",
        help="Which maker of that world signs (default: the first of the level; an unknown one joins it).",
    ),
    click.option("--key", type=click.Path(path_type=Path), help="Unencrypted PEM key."),
    click.option("--certs", type=click.Path(path_type=Path), help="PEM certificates: the key's own first."),
)
_level_option = click.option("--level", default=None, help="Acceptance level, such as PartnerSupported.")
_time_option = click.option(
    "--time", "moment", help="Calendar time of the action, ISO 8601 (default: 2026-01-01, as worlds begin)."
)
_target_option = click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The file to write."
)


def _signing(command: Any) -> Any:
    for option in reversed(_signing_options):
        command = option(command)
    return command


@image.command("build")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", required=True)
@click.option("--version", "vib_version", required=True, help='Such as "1.0-1".')
@click.option("--vendor", required=True)
@click.option("--summary", default="", help="One line.")
@click.option(
    "--module", is_flag=True, help="FOLDER is one ELF file: make it the kernel module of that name."
)
@_level_option
@_signing
@_time_option
@_target_option
def image_build(folder: Path, *, moment: str | None, out: Path, level: str | None, **options: Any) -> None:
    """Pack the files below FOLDER into a VIB; above CommunitySupported it is signed too."""
    from sim.scenario.imagework import build_vib_file

    identity = build_vib_file(folder, out, level=level, moment=moment, **options)
    click.echo(f"{out}: {identity}")


@image.command("bank")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--modules", type=click.IntRange(1, 400), default=24, help="How many drivers.")
@click.option("--seed", type=SEEDS, default=0, help="The world whose makers sign.")
def image_bank(folder: Path, modules: int, seed: int) -> None:
    """Write the boot bank of the standard image into FOLDER."""
    from sim.scenario.imagework import write_bank

    click.echo(f"{folder}: {write_bank(folder, modules, seed)} files")


@image.command("sign")
@click.argument("file", type=click.Path(path_type=Path))
@_level_option
@_signing
@_time_option
@_target_option
def image_sign(file: Path, *, moment: str | None, out: Path, level: str | None, **options: Any) -> None:
    """Sign the VIB in FILE anew, at another level if one is given."""
    from sim.scenario.imagework import sign_vib_file

    with about(file):
        identity = sign_vib_file(file, out, level=level, moment=moment, **options)
    click.echo(f"{out}: {identity}")


@image.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@json_option
def image_inspect(path: Path, *, as_json: bool) -> int:
    """Show what is in the VIB file or the boot bank folder PATH; exit status 1 if a checksum is wrong."""
    from sim.core.structure import plain
    from sim.image.inspection import VibInspection
    from sim.report.console import print_sections
    from sim.report.image import bank_sections, vib_sections
    from sim.scenario.imagework import inspect_path

    with about(path):
        found = inspect_path(path)
    if as_json:
        print_json(plain(found))
    else:
        print_sections(vib_sections(found) if isinstance(found, VibInspection) else bank_sections(found))
    return EXIT_NOT_AS_WANTED if found.problems else 0


@image.command("verify")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--seed", type=SEEDS, help="Trust the makers of the world with this seed.")
@click.option("--roots", type=click.Path(path_type=Path), help="Trust these PEM root certificates.")
@click.option("--issuer", "issuers", multiple=True, help="LEVEL=FILE: who signs for a level (with --roots).")
@click.option("--crl", "crls", multiple=True, type=click.Path(path_type=Path), help="A revocation list.")
@click.option("--stale-crl", is_flag=True, help="Use a revocation list after it expired (default: refuse).")
@click.option("--need-crl", is_flag=True, help="Refuse an authority without a revocation list.")
@_time_option
def image_verify(
    path: Path,
    *,
    seed: int | None,
    roots: Path | None,
    issuers: tuple[str, ...],
    moment: str | None,
    crls: tuple[Path, ...],
    stale_crl: bool,
    need_crl: bool,
) -> int:
    """Check the signature of the VIB file, or everything in the boot bank folder, PATH; exit status 1 if refused."""
    from sim.image.bankcheck import BankReport
    from sim.image.trust import RevocationPolicy
    from sim.report.console import print_sections
    from sim.report.image import bank_check_sections, identity_section
    from sim.scenario.imagework import verify_path

    policy = RevocationPolicy(
        stale="use" if stale_crl else "refuse", missing="refuse" if need_crl else "allow"
    )
    with about(path):
        found = verify_path(
            path,
            seed=seed,
            roots=roots,
            issuers=issuers,
            moment=moment,
            crls=crls,
            revocation=policy,
        )
    if isinstance(found, BankReport):
        print_sections(bank_check_sections(found))
        return 0 if found.ok else EXIT_NOT_AS_WANTED
    print_sections([identity_section(found)])
    return 0


_trust_options = (
    click.option("--seed", type=SEEDS, help="Trust the makers of the world with this seed."),
    click.option("--roots", type=click.Path(path_type=Path), help="Trust these PEM root certificates."),
    click.option(
        "--issuer", "issuers", multiple=True, help="LEVEL=FILE: who signs for a level (with --roots)."
    ),
)
_age_option = click.option(
    "--age-max", "age_max_days", type=click.IntRange(0), help="Refuse metadata that is older, in days."
)


@image.group("bundle")
def image_bundle() -> None:
    """Offline bundles: depots of VIBs and image profiles in one file."""


@image_bundle.command("make")
@click.argument("vibs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--vendor", required=True)
@click.option("--profile", default=None, help="Name of an image profile of all the VIBs.")
@_level_option
@_time_option
@_target_option
def image_bundle_make(vibs: tuple[Path, ...], *, out: Path, **options: Any) -> None:
    """Put VIB files into a bundle."""
    from sim.scenario.depotwork import make_bundle

    with about(out):
        depot = make_bundle(vibs, out, **options)
    click.echo(f"{out}: {len(depot.vibs)} VIBs, {len(depot.profiles)} image profiles")


@image_bundle.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@_age_option
@_time_option
def image_bundle_inspect(file: Path, *, age_max_days: int | None, moment: str | None) -> None:
    """Show what is in a bundle; one that is not what its metadata says, or too old, is refused."""
    from sim.report.console import print_sections
    from sim.report.image import depot_sections
    from sim.scenario.depotwork import load_depot

    with about(file):
        depot = load_depot(file, age_max_days=age_max_days, moment=moment)
    print_sections(depot_sections(depot))


@image.command("profile")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("name")
@click.argument("bank", type=click.Path(path_type=Path))
@click.option(
    "--allow-downgrades", "downgrades", is_flag=True, help="Take VIBs older than the installed ones."
)
@click.option(
    "--allow-vendor-change", "vendor_changes", is_flag=True, help="Let other makers take the place of VIBs."
)
@click.option("--ok-to-remove", "removals", is_flag=True, help="Let VIBs go that the profile does not name.")
@_age_option
@_time_option
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder of the new bank.")
@_trust_options[0]
@_trust_options[1]
@_trust_options[2]
def image_profile(bundle: Path, name: str, bank: Path, *, out: Path, **options: Any) -> None:
    """Put the image profile NAME of BUNDLE on the boot bank in the folder BANK; all of it or nothing."""
    from sim.scenario.depotwork import apply_profile_file

    with about(bundle):
        result = apply_profile_file(bundle, name, bank, out, **options)
    click.echo(
        f"{out}: {len(result.installed)} installed, {len(result.removed)} removed, {len(result.skipped)} kept"
    )
