"""What `vmksim image` does with files: read them within limits, call the image tool, write the outcome whole.

Models nothing.  Keys come from PEM files or from the makers of the simulated world with a given seed, whose signatures
the hosts of a scenario with that seed accept.

Leaves out: making keys for real use.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from attrs import evolve

from sim.core.context import EPOCH
from sim.core.rng import Rng
from sim.errors import FormatError, ScenarioError, VerificationError
from sim.image.acceptance import AcceptanceLevel
from sim.image.bankcheck import BankReport, verify_bank
from sim.image.catalog import standard_image
from sim.image.inspection import BankInspection, VibInspection, inspect_bank, inspect_vib
from sim.image.issue import Signer
from sim.image.metadata import Descriptor
from sim.image.tool import (
    build_archive,
    module_entry,
    read_bank,
    read_crl,
    read_folder,
    read_signer,
    read_trust,
    sign_archive,
    verify_archive,
)
from sim.image.trust import LEVELS, RevocationPolicy, TrustStore
from sim.image.vib import VibIdentity, read_vib
from sim.scenario.inputs import read_input
from sim.scenario.output import make_folder
from sim.scenario.result import write_atomically
from sim.scenario.world import world_pki

__all__ = [
    "build_vib_file",
    "chosen_level",
    "chosen_moment",
    "chosen_trust",
    "inspect_path",
    "sign_vib_file",
    "verify_path",
    "write_bank",
]

ELF_MAGIC = b"\x7fELF"


def build_vib_file(
    folder: Path,
    out: Path,
    *,
    name: str,
    vib_version: str,
    vendor: str,
    summary: str = "",
    module: bool = False,
    level: str | None = None,
    moment: str | None = None,
    seed: int | None = None,
    provider: str | None = None,
    key: Path | None = None,
    certs: Path | None = None,
) -> str:
    """Write a VIB of the files below `folder` (with `module`: of that one ELF file) and return its id and level."""
    chosen = chosen_level(level) or AcceptanceLevel.COMMUNITY_SUPPORTED
    signer = None
    if chosen is not AcceptanceLevel.COMMUNITY_SUPPORTED:
        signer = _signer(chosen, seed, provider, key, certs)
    when = chosen_moment(moment)
    if module:
        data = read_input(folder, str(folder))
        if not data.startswith(ELF_MAGIC):
            raise ScenarioError(str(folder), "is not an ELF file", wanted="a kernel module, for --module")
        entries: Sequence[object] = (module_entry(name, data),)
    else:
        entries = _folder_entries(folder)
    spec = Descriptor(
        name=name, version=vib_version, vendor=vendor, level=chosen, summary=summary, release_date=when
    )
    return _write_vib(build_archive(spec, entries, when=when, signer=signer), out)  # type: ignore[arg-type]


def sign_vib_file(
    file: Path,
    out: Path,
    *,
    level: str | None = None,
    moment: str | None = None,
    seed: int | None = None,
    provider: str | None = None,
    key: Path | None = None,
    certs: Path | None = None,
) -> str:
    """Write the VIB of `file` with a new signature and return its id and level."""
    data = read_input(file, str(file))
    chosen = chosen_level(level)
    signer = _signer(chosen or read_vib(data).descriptor.level, seed, provider, key, certs)
    return _write_vib(sign_archive(data, signer, chosen_moment(moment), chosen), out)


def write_bank(folder: Path, modules: int, seed: int) -> int:
    """Write the boot bank of the standard image into `folder` and return how many files it has."""
    make_folder(folder)
    rng = Rng(seed)
    bank = standard_image(rng, world_pki(rng), epoch=EPOCH, modules=modules).bank
    for name, data in bank.files.items():
        write_atomically(folder / name, data)
    return len(bank.files)


def inspect_path(path: Path) -> VibInspection | BankInspection:
    """Return what is in a VIB file, or in a boot bank's folder."""
    if path.is_dir():
        return inspect_bank(read_bank(path).files)
    return inspect_vib(read_input(path, str(path)))


def verify_path(
    path: Path,
    *,
    seed: int | None = None,
    roots: Path | None = None,
    issuers: Sequence[str] = (),
    moment: str | None = None,
    crls: Sequence[Path] = (),
    revocation: RevocationPolicy | None = None,
) -> VibIdentity | BankReport:
    """Return who a VIB file is from (raises what refuses it), or what the verifier says of a boot bank's folder."""
    trust, now = chosen_trust(seed, roots, issuers), chosen_moment(moment)
    trust = trust.with_crls(map(_crl, crls), revocation)
    if path.is_dir():
        bank = read_bank(path)
        try:
            level = bank.database.level
        except FormatError:
            level = AcceptanceLevel.PARTNER_SUPPORTED
        return verify_bank(bank.files, trust, now, level, secure_boot=True)
    return verify_archive(read_input(path, str(path)), trust, now)


def _folder_entries(folder: Path) -> Sequence[object]:
    if not folder.is_dir():
        raise ScenarioError(str(folder), "is not a folder")
    return read_folder(folder)


def _write_vib(data: bytes, out: Path) -> str:
    try:
        write_atomically(out, data)
    except OSError as error:
        raise ScenarioError("--out", f"cannot write {str(out)!r}: {error.strerror}") from None
    vib = read_vib(data)
    return f"{vib.vib_id}, {vib.descriptor.level.title}, {len(data)} bytes"


def _signer(
    level: AcceptanceLevel, seed: int | None, provider: str | None, key: Path | None, certs: Path | None
) -> Signer:
    if key is not None and certs is not None and seed is None:
        try:
            signer = read_signer(read_input(key, "--key"), read_input(certs, "--certs"))
        except FormatError as error:
            raise ScenarioError("--key, --certs", str(error)) from None
        return evolve(signer, level=level.xml_name)
    if seed is None or key is not None or certs is not None:
        raise ScenarioError("--seed", "say who signs", wanted="either --seed N, or --key and --certs")
    if level is AcceptanceLevel.COMMUNITY_SUPPORTED:
        raise ScenarioError("--level", "nobody signs at CommunitySupported", wanted="a higher level")
    return world_pki(Rng(seed)).signer(level.xml_name, provider)


def chosen_trust(seed: int | None, roots: Path | None, issuers: Sequence[str]) -> TrustStore:
    """Return the trust that --seed, or --roots and --issuer, stand for."""
    if (seed is None) == (roots is None):
        raise ScenarioError("--seed", "say whom to trust", wanted="either --seed N, or --roots and --issuer")
    if seed is not None:
        return world_pki(Rng(seed)).trust
    assert roots is not None
    files: dict[str, bytes] = {}
    for text in issuers:
        level, equals, name = text.partition("=")
        if not equals or level not in LEVELS:
            wanted = f"LEVEL=FILE with a level of {', '.join(LEVELS)}"
            raise ScenarioError("--issuer", "wrong value", got=text, wanted=wanted)
        files[level] = read_input(Path(name), "--issuer")
    try:
        return read_trust(read_input(roots, "--roots"), files)
    except FormatError as error:
        raise ScenarioError("--roots, --issuer", str(error)) from None


def _crl(file: Path) -> bytes:
    try:
        return read_crl(read_input(file, "--crl"))
    except (FormatError, VerificationError) as error:
        raise ScenarioError("--crl", str(error)) from None


def chosen_level(title: str | None) -> AcceptanceLevel | None:
    """Return the level that --level names, if it was given."""
    if title is None:
        return None
    titles = [level.title for level in AcceptanceLevel]
    if title not in titles:
        raise ScenarioError("--level", "wrong value", got=title, wanted="one of " + ", ".join(titles))
    return AcceptanceLevel.from_title(title)


def chosen_moment(text: str | None) -> datetime:
    """Return the calendar time that --time names, or the one at which worlds begin."""
    if text is None:
        return EPOCH
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ScenarioError(
            "--time", "wrong value", got=text, wanted="such as 2026-01-01T00:00:00Z"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
