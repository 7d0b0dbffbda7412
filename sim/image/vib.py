"""The VIB: an ar archive of descriptor.xml, sig.pkcs7 and the payload files, in this order.

Models reading (every checksum of every payload is checked), building, and the rule that gives a VIB its identity:

* The signature is a detached CMS over the bytes of descriptor.xml, which hold a SHA-256 of every payload file; so it
  covers all that is installed.
* A VIB at PartnerSupported, VMwareAccepted or VMwareCertified needs a signature that verifies and whose issuer stands
  for that level **or a higher one**.  An empty signature beside such a level is a forgery.
* A signed descriptor has a SHA-256 of what each packed payload unpacks to.  Real community VIBs have a SHA-1 of it alone.
* A CommunitySupported VIB may come without signature.  If it has one, that one must verify too: a signature is never
  ignored.

Leaves out the archive's copy in a depot.  The exact attributes of VMware's own signatures are not public.

Sources: real VIBs; VMware's acceptance levels; Mandiant's report on UNC3886 (levels forged beside empty signatures).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import attrs

from sim.errors import FormatError, LimitError, VerificationError
from sim.image.acceptance import AcceptanceLevel
from sim.image.ar import ArMember, read_ar, write_ar
from sim.image.cms import SignerIdentity, sign_detached, verify_detached
from sim.image.descriptor import parse_descriptor
from sim.image.descriptor_writer import write_descriptor
from sim.image.growth import check_packed
from sim.image.issue import Signer
from sim.image.metadata import Descriptor
from sim.image.payload import check_payload, describe_payload
from sim.image.trust import TrustStore

__all__ = [
    "SIGNATURE_BYTES_MAX",
    "VIB_CONTENT_BYTES_MAX",
    "Payload",
    "Vib",
    "VibError",
    "VibIdentity",
    "build_vib",
    "check_contents",
    "parse_vib",
    "read_vib",
    "verify_record",
    "verify_vib",
    "write_vib",
]

SIGNATURE_BYTES_MAX = 1 << 16
VIB_CONTENT_BYTES_MAX = 256 << 20
"""The largest content of all payloads of a VIB together, after unpacking."""

_WHAT = "VIB archive"
_FIXED_MEMBERS = ("descriptor.xml", "sig.pkcs7")


class VibError(VerificationError):
    """A VIB is not what it claims to be."""


@attrs.frozen(kw_only=True)
class Payload:
    """One payload file: its name in the archive, its type (vgz, tgz, boot, ..) and its bytes as stored."""

    name: str
    kind: str
    data: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Vib:
    """A VIB in memory; `descriptor` is always what `descriptor_xml` says."""

    descriptor_xml: bytes = attrs.field(repr=False)
    signature: bytes = attrs.field(repr=False)
    payloads: tuple[Payload, ...]
    descriptor: Descriptor = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "descriptor", parse_descriptor(self.descriptor_xml))

    @property
    def vib_id(self) -> str:
        """The identity that esxcli prints."""
        return self.descriptor.vib_id


@attrs.frozen(kw_only=True)
class VibIdentity:
    """What a verified VIB is: its id and level, and the signer, whose provider the chain proves."""

    vib_id: str
    level: AcceptanceLevel
    signer: SignerIdentity | None = None

    @property
    def provider(self) -> str | None:
        """The organization that signed, or None for an unsigned community VIB."""
        return self.signer.provider if self.signer is not None else None


def read_vib(data: bytes) -> Vib:
    """Return the VIB in an archive with all checksums verified; who made it is `verify_vib`'s question."""
    vib = parse_vib(data)
    _check_payloads(vib)
    return vib


def parse_vib(data: bytes) -> Vib:
    """Return the VIB in an archive: members in order, none missing, none unlisted; no checksum is looked at."""
    members = read_ar(data)
    names = tuple(member.name for member in members)
    if names[:2] != _FIXED_MEMBERS:
        raise FormatError(_WHAT, "members", "the first two are not descriptor.xml and sig.pkcs7")
    if len(members[1].data) > SIGNATURE_BYTES_MAX:
        raise LimitError(_WHAT, "sig.pkcs7", f"more than {SIGNATURE_BYTES_MAX} bytes")
    entries = parse_descriptor(members[0].data).payloads
    for position, entry in enumerate(entries):
        found = names[position + 2] if position + 2 < len(names) else None
        if found != entry.name:
            raise FormatError(
                _WHAT, f"member {position + 2}", f"is {found!r}, the descriptor lists {entry.name!r}"
            )
    if len(names) > len(entries) + 2:
        raise FormatError(
            _WHAT, f"member {len(entries) + 2}", f"{names[len(entries) + 2]!r} is not in the descriptor"
        )
    payloads = (
        Payload(name=entry.name, kind=entry.kind, data=member.data)
        for entry, member in zip(entries, members[2:], strict=True)
    )
    return Vib(descriptor_xml=members[0].data, signature=members[1].data, payloads=tuple(payloads))


def build_vib(spec: Descriptor, payloads: Iterable[Payload], signer: Signer | None, when: datetime) -> bytes:
    """Return the archive of a new VIB; the payload entries of `spec` are replaced by those of the files given.

    Without a signer the signature member is empty, as in a community VIB.
    """
    files = tuple(payloads)
    entries = tuple(describe_payload(file.name, file.kind, file.data) for file in files)
    descriptor_xml = write_descriptor(attrs.evolve(spec, payloads=entries))
    signature = sign_detached(descriptor_xml, signer, when) if signer is not None else b""
    return write_vib(Vib(descriptor_xml=descriptor_xml, signature=signature, payloads=files))


def write_vib(vib: Vib) -> bytes:
    """Return the archive of a VIB."""
    members = [
        ArMember(name=_FIXED_MEMBERS[0], data=vib.descriptor_xml),
        ArMember(name=_FIXED_MEMBERS[1], data=vib.signature),
        *(ArMember(name=payload.name, data=payload.data) for payload in vib.payloads),
    ]
    return write_ar(members)


def verify_vib(vib: Vib, trust: TrustStore, now: datetime) -> VibIdentity:
    """Return who a VIB is from, after checking signature, level and every payload; raises what refuses it."""
    identity = verify_record(vib.descriptor_xml, vib.signature, trust, now, descriptor=vib.descriptor)
    _check_payloads(vib)
    return identity


def verify_record(
    descriptor_xml: bytes,
    signature: bytes,
    trust: TrustStore,
    now: datetime,
    *,
    descriptor: Descriptor | None = None,
) -> VibIdentity:
    """Return the identity that descriptor and signature prove, without payloads.

    `descriptor` saves reading the XML again; it must come from these bytes.
    """
    known = descriptor if descriptor is not None else parse_descriptor(descriptor_xml)
    if not signature:
        _demand_no_signature(known)
        return VibIdentity(vib_id=known.vib_id, level=known.level)
    signer = verify_detached(descriptor_xml, signature, trust, now)
    proven = AcceptanceLevel.from_xml(signer.level)
    if proven < known.level:
        raise VibError(
            "vib.level",
            f"VIB {known.vib_id} claims {known.level.title}, its signature by {signer.provider} gives {proven.title}",
        )
    _demand_strong_digests(known)
    return VibIdentity(vib_id=known.vib_id, level=known.level, signer=signer)


def _demand_no_signature(descriptor: Descriptor) -> None:
    if descriptor.level is not AcceptanceLevel.COMMUNITY_SUPPORTED:
        raise VibError(
            "vib.signature-missing",
            f"VIB {descriptor.vib_id} claims {descriptor.level.title} and has no signature",
        )


def _demand_strong_digests(descriptor: Descriptor) -> None:
    """Demand a SHA-256 of what each packed payload of a signed VIB unpacks to: a kernel knows its modules by that."""
    for entry in descriptor.payloads:
        unpacked = [checksum.algorithm for checksum in entry.checksums if checksum.process]
        if unpacked and "sha-256" not in unpacked:
            text = f"VIB {descriptor.vib_id}: payload {entry.name} has only a sha-1 checksum of its unpacked content"
            raise VibError("vib.content-digest", text)


def check_contents(vib: Vib) -> None:
    """Refuse payloads that declare more content, all together, than a VIB may have; nothing is unpacked for that."""
    check_packed((payload.data for payload in vib.payloads), VIB_CONTENT_BYTES_MAX, _WHAT, vib.vib_id)


def _check_payloads(vib: Vib) -> None:
    entries = vib.descriptor.payloads
    if [entry.name for entry in entries] != [payload.name for payload in vib.payloads]:
        raise VibError(
            "vib.payloads", f"VIB {vib.vib_id} does not hold the payloads that its descriptor lists"
        )
    check_contents(vib)
    for entry, payload in zip(entries, vib.payloads, strict=True):
        check_payload(entry, payload.data)
