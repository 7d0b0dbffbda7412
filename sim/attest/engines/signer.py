"""The engine that knows signers: what was booted must be in VIBs that trusted providers signed, in any version.

Models: the host offers its image database as inventory.  The database is itself a measured file, so the log proves that
these are the bytes that were booted; in it stand the signed descriptors of all installed VIBs.  Each signature is
verified up to pinned roots, and each measured file must have a digest that a verified descriptor gives, from a
provider and at a level that the policy takes.  A signed update changes no rule here.

Leaves out: files that no VIB holds (state.tgz, option files): the policy names them, and each may be there once; with
Secure Boot off nothing keeps one of them from being something else, so that state is a finding.

Sources: vmware/esx-boot (the digest of a module is over what it unpacks to); VMware's documentation of VIB acceptance
levels; the safe way to believe an inventory, by its digest in the log, is this project's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from attrs import field, frozen

from sim.attest.engines.boot_path import about_authorities
from sim.attest.engines.case import (
    ALGORITHM,
    Case,
    Decision,
    Finding,
    decision,
    measured_files,
    unproven,
    unreadable,
)
from sim.attest.esx_events import Measurement
from sim.attest.verdict import AttestationError
from sim.errors import FormatError, VerificationError
from sim.image.acceptance import AcceptanceLevel
from sim.image.cms import verify_detached
from sim.image.imgdb import DATABASE_FILE, ImageDatabase, VibRecord, read_database
from sim.image.manifest import measured_digests
from sim.image.trust import TrustStore
from sim.tpm.hashing import hash_bytes

__all__ = ["SignerEngine"]

HOST_UNIQUE: Final = ("state.tgz", "onetime.tgz", "jumpstrt.gz", "useropts.gz", "features.gz")
"""Files of a boot bank that belong to the host and not to a VIB."""


@frozen(kw_only=True)
class SignerEngine:
    """Trusts a host on which only signed VIBs of `providers` (empty: any) at `level` or better were booted.

    `boot_signers` are the certificates (DER) by which Secure Boot may let boot loaders in; they count as long as
    `require_secure_boot` is on.  `now` is the calendar time at which signatures are judged, None the time of each
    appraisal.
    """

    trust: TrustStore = field(repr=False)
    boot_signers: tuple[bytes, ...] = field(repr=False)
    now: datetime | None = None
    providers: tuple[str, ...] = ()
    level: AcceptanceLevel = AcceptanceLevel.PARTNER_SUPPORTED
    host_unique: tuple[str, ...] = HOST_UNIQUE
    require_secure_boot: bool = True
    name: str = "signer"

    def decide(self, case: Case) -> Decision:
        """Decide about one host; every file and every VIB that nobody vouches for is a finding of its own."""
        missing = unproven(case)
        if missing is not None:
            return decision(self.name, [missing])
        now = self.now if self.now is not None else case.now
        if now is None:
            return decision(
                self.name, [Finding(rule="no_time", message="nobody knows when this was appraised")]
            )
        findings: list[Finding] = []
        try:
            files = measured_files(case)
            database = _proven_database(case, files)
            if self.require_secure_boot and case.verdict.secure_boot:
                findings.extend(about_authorities(case, self.boot_signers))
        except (AttestationError, FormatError) as error:
            return decision(self.name, [unreadable(error)])
        if self.require_secure_boot and not case.verdict.secure_boot:
            findings.append(
                Finding(rule="secure_boot", message="Secure Boot was off when the files were loaded")
            )
        vouched: dict[bytes, None] = {}
        for record in database.records:
            refused = self._about_vib(record, now)
            if refused is None:
                vouched.update(dict.fromkeys(_digests(record)))
            else:
                findings.append(refused)
        findings.extend(self._about_files(files, vouched))
        return decision(self.name, findings)

    def _about_vib(self, record: VibRecord, now: datetime) -> Finding | None:
        """Return what is wrong with one installed VIB, or None: its provider, proven by the signature, is trusted."""
        descriptor = record.descriptor
        try:
            signer = verify_detached(record.descriptor_xml, record.signature, self.trust, now)
        except (VerificationError, FormatError) as error:
            return Finding(
                rule="vib_signature",
                message=f"{descriptor.name} is signed by nobody who is trusted",
                component=descriptor.name,
                evidence=str(error),
            )
        level = AcceptanceLevel.from_xml(signer.level)
        if level < self.level or (self.providers and signer.provider not in self.providers):
            return Finding(
                rule="vib_provider",
                message=f"{descriptor.name} is of {signer.provider} at {level.title}, which is not taken",
                component=descriptor.name,
            )
        return None

    def _about_files(self, files: tuple[Measurement, ...], vouched: dict[bytes, None]) -> Iterator[Finding]:
        seen: dict[str, None] = {}
        for each in files:
            digest = each.digests.get(ALGORITHM, b"")
            if digest in vouched or each.title == DATABASE_FILE:
                continue
            if each.title in self.host_unique and each.title not in seen:
                seen[each.title] = None
                continue
            yield Finding(
                rule="unsigned",
                message=f"{each.title} is in no VIB that somebody trusted has signed",
                component=each.title,
                evidence=f"PCR {each.pcr}, digest {digest.hex()}",
            )


def _proven_database(case: Case, files: tuple[Measurement, ...]) -> ImageDatabase:
    """Return the database that was booted: the one offered, if its digest is the measured one, measured once."""
    measured = [each for each in files if each.title == DATABASE_FILE]
    offered = measured_digests(DATABASE_FILE, case.image_database) if case.image_database else ()
    if len(measured) != 1 or measured[0].digests.get(ALGORITHM) not in offered:
        raise AttestationError("inventory", "the image database offered is not the one that was booted")
    return read_database(case.image_database)


def _digests(record: VibRecord) -> Iterator[bytes]:
    """Yield what the loader measures for each payload of a verified descriptor."""
    for payload in record.descriptor.payloads:
        unpacked = [each.digest for each in payload.checksums if each.process and each.algorithm == "sha-256"]
        yield from unpacked or (payload.sha256,)
        if payload.size == 0:
            yield hash_bytes(ALGORITHM, b"\0")
