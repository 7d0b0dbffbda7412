"""The Secure Boot VIB verifier: every file of a boot bank must be what a signed descriptor says.

Models the check that the early environment makes before the VMkernel loads drivers: each VIB of the image database has
a valid signature and a level that the host takes, each of its bank files has the SHA-256 of the signed descriptor, no
file is in the bank or in the load order that no VIB owns, and the few files without owner have the one spelling that
this system gives them.  All faults are collected; the text is that of the purple screen.

With Secure Boot on, CommunitySupported VIBs fail whatever the host's level, since nothing proves them.

Leaves out boot modules' own signatures, which the boot loader checks (`sim.image.trailer`), and the content of options
and saved state, which is measured but signed by nobody.

Sources: VMware, "UEFI Secure Boot for ESXi Hosts"; VMware KB 414701 for the text.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime

import attrs

from sim.errors import FormatError, VerificationError
from sim.image.acceptance import AcceptanceLevel
from sim.image.bootbank import SYSTEM_FILES, BootBank, config_settings
from sim.image.bootcfg import CONFIG_FILE
from sim.image.imgdb import DATABASE_FILE, ImageDatabase, VibRecord
from sim.image.metadata import Descriptor
from sim.image.payload import check_canonical_gzip
from sim.image.trust import TrustStore
from sim.image.vib import VibIdentity, verify_record

__all__ = ["BankFailure", "BankReport", "BankVerificationError", "VerifiedVib", "verify_bank"]


class BankVerificationError(VerificationError):
    """A boot bank holds something that no signature vouches for."""


@attrs.frozen(kw_only=True)
class BankFailure:
    """One fault: the VIB (empty when none owns the file), the bank file, the check that failed, and a sentence."""

    vib: str
    tardisk: str
    check: str
    message: str


@attrs.frozen(kw_only=True)
class VerifiedVib:
    """A VIB of the bank: its record, and who it is from when everything about it holds."""

    record: VibRecord
    identity: VibIdentity | None

    @property
    def descriptor(self) -> Descriptor:
        """What the VIB's descriptor says."""
        return self.record.descriptor


@attrs.frozen(kw_only=True)
class BankReport:
    """What the verifier found: the VIBs in order of installation, and every fault."""

    vibs: tuple[VerifiedVib, ...]
    failures: tuple[BankFailure, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.failures

    @property
    def message(self) -> str:
        """The text of the purple screen; empty when all is well."""
        if self.ok:
            return ""
        vibs = dict.fromkeys(failure.vib for failure in self.failures if failure.vib)
        tardisks = dict.fromkeys(
            failure.tardisk for failure in self.failures if failure.tardisk and not failure.vib
        )
        return (
            "UEFI Secure Boot failed: Failed to verify signatures of the following vib(s): "
            f"[{', '.join(vibs)}]. Unrecognized tardisks: [{', '.join(tardisks)}]"
        )

    def owner(self, file_name: str) -> VerifiedVib | None:
        """Return the VIB that a bank file belongs to."""
        return next((vib for vib in self.vibs if file_name in vib.record.files), None)

    def raise_for_failures(self) -> None:
        """Raise `BankVerificationError` with the screen's text and the first fault, if there is any."""
        if self.failures:
            first = self.failures[0]
            raise BankVerificationError(first.check, f"{self.message} ({first.message})")


def verify_bank(
    files: Mapping[str, bytes],
    trust: TrustStore,
    now: datetime,
    host_level: AcceptanceLevel,
    *,
    secure_boot: bool = False,
    bootstate: int = 0,
) -> BankReport:
    """Check every file of a bank and return what was found; no content of the bank makes this raise.

    `bootstate` is the one that boot.cfg must have: 0, or that of an update which the loader is trying.
    """
    bank = BootBank(files=files)
    try:
        database = bank.database
    except FormatError as error:
        broken = BankFailure(vib="", tardisk=DATABASE_FILE, check="bank.database", message=str(error))
        return BankReport(vibs=(), failures=(broken,))
    lowest = max(host_level, AcceptanceLevel.PARTNER_SUPPORTED) if secure_boot else host_level
    owned = {name for record in database.records for name in record.files}
    digests = {name: hashlib.sha256(data).digest() for name, data in files.items() if name in owned}
    vibs = []
    failures: list[BankFailure] = []
    for record in database.records:
        identity, faults = _check_vib(record, digests, trust, now, lowest)
        failures += faults
        vibs.append(VerifiedVib(record=record, identity=identity if not faults else None))
    failures += _check_ownership(database, files)
    failures += _check_config(bank, database, bootstate)
    failures += _check_system_files(files)
    return BankReport(vibs=tuple(vibs), failures=tuple(failures))


def _check_vib(
    record: VibRecord, digests: Mapping[str, bytes], trust: TrustStore, now: datetime, lowest: AcceptanceLevel
) -> tuple[VibIdentity | None, list[BankFailure]]:
    """Check one VIB; `digests` are the SHA-256 of the bank's files, all made at once before."""
    descriptor = record.descriptor
    identity = None
    faults = []
    try:
        identity = verify_record(record.descriptor_xml, record.signature, trust, now, descriptor=descriptor)
    except (VerificationError, FormatError) as error:
        faults.append(_fault(descriptor, "", getattr(error, "check", "vib.signature-format"), str(error)))
    if not descriptor.level.allowed_on(lowest):
        text = f"its acceptance level {descriptor.level.title} is below {lowest.title}"
        faults.append(_fault(descriptor, "", "vib.host-level", text))
    for entry, name in zip(descriptor.payloads, record.files, strict=True):
        digest = digests.get(name)
        if digest is None:
            faults.append(
                _fault(descriptor, name, "bank.file-missing", f"payload {entry.name} is not in the bank")
            )
        elif digest != entry.sha256:
            text = f"payload {entry.name} has another sha-256 than the descriptor says"
            faults.append(_fault(descriptor, name, "bank.digest", text))
    return identity, faults


def _fault(descriptor: Descriptor, tardisk: str, check: str, text: str) -> BankFailure:
    where = f"VIB {descriptor.vib_id}" + (f", file {tardisk}" if tardisk else "")
    return BankFailure(vib=descriptor.name, tardisk=tardisk, check=check, message=f"{where}: {text}")


def _check_ownership(database: ImageDatabase, files: Mapping[str, bytes]) -> Iterator[BankFailure]:
    """Every file has exactly one owner, and every VIB name stands once."""
    owned: set[str] = set()
    names: set[str] = set()
    for record in database.records:
        descriptor = record.descriptor
        if descriptor.name in names:
            yield _fault(descriptor, "", "bank.vib-twice", "a VIB of this name is installed twice")
        names.add(descriptor.name)
        for name in record.files:
            if name in owned or name in SYSTEM_FILES:
                yield _fault(descriptor, name, "bank.file-shared", "the file belongs to somebody else too")
            owned.add(name)
    for name in sorted(files):
        if name not in owned and name not in SYSTEM_FILES:
            text = f"file {name} belongs to no installed VIB"
            yield BankFailure(vib="", tardisk=name, check="bank.unrecognized", message=text)


def _check_config(bank: BootBank, database: ImageDatabase, bootstate: int) -> Iterator[BankFailure]:
    """boot.cfg loads exactly the bank's files, in a good bank, with the settings that the database repeats."""

    def fault(check: str, text: str) -> BankFailure:
        return BankFailure(vib="", tardisk=CONFIG_FILE, check=check, message=f"{CONFIG_FILE}: {text}")

    try:
        config = bank.config
    except FormatError as error:
        yield fault("bank.config", str(error))
        return
    if config_settings(config) != database.settings:
        yield fault("bank.config-settings", "its settings are not those of the image database")
    if config.bootstate != bootstate:
        yield fault("bank.config-state", f"bootstate is {config.bootstate}, not {bootstate}")
    order = Counter(config.load_order)
    for name in sorted([name for name, count in order.items() if count > 1]):
        yield fault("bank.config-twice", f"loads {name} twice")
    loadable = {name for record in database.records for name in record.files} | set(SYSTEM_FILES) - {
        CONFIG_FILE
    }
    for name in sorted(loadable - set(order)):
        yield fault("bank.config-omits", f"does not load {name}")
    for name in sorted(set(order) - set(bank.files)):
        yield fault("bank.config-missing", f"loads {name}, which is not in the bank")


def _check_system_files(files: Mapping[str, bytes]) -> Iterator[BankFailure]:
    """Files without owner are measured by content, so their packing must leave no room for a second spelling."""
    for name in SYSTEM_FILES:
        if name == CONFIG_FILE or name not in files:
            continue
        try:
            check_canonical_gzip(files[name], name)
        except FormatError as error:
            yield BankFailure(vib="", tardisk=name, check="bank.spelling", message=str(error))
