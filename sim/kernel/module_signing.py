"""Who a kernel module is from: the check that runs on the very bytes that are about to be loaded.

Models: the way from module bytes to an identity.  The VIB's descriptor carries a signature; the descriptor names a
SHA-256 of each payload; the payload, hashed here as it lies in memory, holds the module; and the bytes to load must
equal those of the module in it.  Any break in that chain refuses, and so does an acceptance level below the host's.

Leaves out: a list of revoked modules, and signatures attached to the module file itself.

Sources: VMware's description of module signing and acceptance levels; `sim.image.vib` for the rules of the signature.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Protocol

from attrs import field, frozen

from sim.boot.costs import charge_hash, charge_signatures
from sim.core.context import Sim
from sim.core.procedure import CostMeter
from sim.errors import FormatError, VerificationError
from sim.image.acceptance import AcceptanceLevel
from sim.image.contents import kernel_modules
from sim.image.descriptor import parse_descriptor
from sim.image.metadata import Descriptor
from sim.image.trust import TrustStore
from sim.image.vib import VibIdentity, verify_record

__all__ = ["ImageModuleVerifier", "ModuleIdentity", "ModuleOrigin", "ModuleRefused", "ModuleVerifier"]

CHAIN_SIGNATURES = 3
"""Signatures checked for one VIB: the descriptor's, the signer's certificate, its issuer's certificate."""

RECORDS_MAX = 4_096


class ModuleRefused(VerificationError):  # noqa: N818 - a refusal is the normal answer here, not an error of ours
    """A module is not what a trusted VIB holds, or its level is too low for the host."""


@frozen(kw_only=True)
class ModuleOrigin:
    """Where module bytes come from: the VIB's signed record, and the unpacked payload that lies in memory."""

    vib_id: str
    descriptor_xml: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    content: bytes = field(repr=False)


@frozen(kw_only=True)
class ModuleIdentity:
    """What was proven about a module; `provider` is None and `certified` False for an unsigned community VIB."""

    provider: str | None
    level: AcceptanceLevel
    certified: bool
    vib_id: str = ""
    vib_version: str = ""
    issuer: str = ""
    fingerprint: str = ""
    digest: bytes = field(default=b"", repr=False)
    """SHA-256 of the payload that was verified; empty for a module that was not."""

    @property
    def signed_status(self) -> str:
        """The words of the module table: who signed, or that nobody did."""
        return f"{self.provider} Signed" if self.provider is not None else "Unsigned"


class ModuleVerifier(Protocol):
    """What a loader asks before it loads."""

    def verify(self, name: str, data: bytes, vib: ModuleOrigin | None) -> ModuleIdentity:
        """Return who module `name` with exactly these bytes is from; raises a `VerificationError` to refuse."""


class ImageModuleVerifier:
    """Verifies modules against the VIBs they came in, under a trust store and the host's acceptance level."""

    def __init__(self, sim: Sim, trust: TrustStore, host_level: AcceptanceLevel, meter: CostMeter) -> None:
        self.trust = trust
        self.host_level = host_level
        self._sim = sim
        self._meter = meter
        self._records: dict[tuple[bytes, bytes], tuple[VibIdentity, Descriptor]] = {}

    def verify(self, name: str, data: bytes, vib: ModuleOrigin | None) -> ModuleIdentity:
        """Return who the module is from; see `ModuleVerifier.verify`."""
        if vib is None:
            raise ModuleRefused("module.unowned", f"module {name} belongs to no VIB")
        identity, descriptor = self._proven(vib)
        if not identity.level.allowed_on(self.host_level):
            text = (
                f"VIB {identity.vib_id} is {identity.level.title}, the host demands {self.host_level.title}"
            )
            raise ModuleRefused("module.level", f"module {name}: {text}")
        digest = self._check_payload(name, descriptor, vib)
        if not _holds(vib.content, name, data):
            text = f"module {name} is not, with these bytes, in the payload of VIB {identity.vib_id}"
            raise ModuleRefused("module.bytes", text)
        return _module_identity(identity, descriptor, digest)

    def _proven(self, vib: ModuleOrigin) -> tuple[VibIdentity, Descriptor]:
        """Verify the VIB's record, or remember that exactly this record was verified earlier in this boot.

        Remembering is right: certificates do not expire under a running host.
        """
        key = (vib.signature, vib.descriptor_xml)
        known = self._records.get(key)
        if known is None:
            charge_hash(self._meter, "sha256", len(vib.descriptor_xml))
            charge_signatures(self._meter, CHAIN_SIGNATURES if vib.signature else 0)
            descriptor = parse_descriptor(vib.descriptor_xml)
            now = self._sim.utc_now()
            identity = verify_record(
                vib.descriptor_xml, vib.signature, self.trust, now, descriptor=descriptor
            )
            if len(self._records) >= RECORDS_MAX:
                self._records.clear()
            known = self._records[key] = (identity, descriptor)
        return known

    def _check_payload(self, name: str, descriptor: Descriptor, vib: ModuleOrigin) -> bytes:
        """Return the digest of the payload, which must be one that the descriptor lists."""
        charge_hash(self._meter, "sha256", len(vib.content))
        digest = sha256(vib.content).digest()
        for payload in descriptor.payloads:
            for checksum in payload.checksums:
                if checksum.algorithm == "sha-256" and checksum.digest == digest:
                    return digest
        raise ModuleRefused(
            "module.payload",
            f"module {name}: the payload in memory has a digest that VIB {descriptor.vib_id} does not list",
        )


def _holds(content: bytes, name: str, data: bytes) -> bool:
    """Tell whether the payload holds the module, as a file of an archive or as the whole payload."""
    try:
        modules = kernel_modules(content)
    except FormatError as error:
        raise ModuleRefused("module.archive", f"module {name}: {error}") from error
    return data == content or any(path == name and held == data for path, held in modules)


def _module_identity(identity: VibIdentity, descriptor: Descriptor, digest: bytes) -> ModuleIdentity:
    signer = identity.signer
    return ModuleIdentity(
        provider=identity.provider,
        level=identity.level,
        certified=signer is not None,
        vib_id=identity.vib_id,
        vib_version=descriptor.version,
        issuer=signer.issuer if signer is not None else "",
        fingerprint=sha256(signer.certificate_der).hexdigest() if signer is not None else "",
        digest=digest,
    )
