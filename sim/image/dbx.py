"""What dbx forbids: images by their digest, certificates whole or by the digest of what their issuer signed.

Models: the forms in which UEFI revokes.  An image digest forbids one image, whoever signed it; a certificate, whole or by
digest, forbids every image whose chain it is part of, at any place.  An entry by digest carries the time from which the
certificate is revoked, and only an authenticated time stamp could show that an image was signed before: the clock of
the machine and the time that a signer states prove nothing, and so an image without time stamp is refused whatever that
time is.

Leaves out: time stamps and the variable dbt, whose certificates would vouch for them, so that an entry with a time
forbids no less than one without.  An entry of a type that is not understood forbids every image, since nobody can say what
it was put there against.

Sources: UEFI Specification 2.10, sections 32.4.1 (EFI_CERT_X509_SHA256 and TimeOfRevocation), 32.5.3.3 (authorization
process) and 8.3 (EFI_TIME); EDK2, SecurityPkg DxeImageVerificationLib (which certificates are looked up, what a time
means without time stamp).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from datetime import UTC, datetime

from sim.errors import FormatError
from sim.image.certificate import Certificate, load_certificate
from sim.image.efi_lists import CERTIFICATE_DIGESTS, IMAGE_DIGESTS, TIME_BYTES, ListEntry
from sim.image.pe import authenticode_digest
from sim.image.trust import SignatureError

__all__ = ["check_image_not_forbidden", "check_path_not_forbidden", "forbid_certificate", "forbid_image"]

_TIME = struct.Struct("<HBBBBBBIhBB")
"""EFI_TIME: year, month, day, hour, minute, second, padding, nanosecond, time zone, daylight saving, padding."""


def forbid_image(image: bytes, digest: str = "sha256") -> ListEntry:
    """Return the entry that forbids one image."""
    return ListEntry(kind=digest, data=authenticode_digest(image, digest))


def forbid_certificate(
    certificate_der: bytes, digest: str | None = None, *, since: datetime | None = None
) -> ListEntry:
    """Return the entry that forbids a certificate: the whole of it, or by digest and, if given, revoked `since`."""
    if digest is None:
        return ListEntry(kind="certificate", data=certificate_der)
    body = load_certificate(certificate_der).body
    return ListEntry(
        kind=f"certificate-{digest}", data=hashlib.new(digest, body).digest() + _encode_time(since)
    )


def check_image_not_forbidden(image: bytes, dbx: Sequence[ListEntry]) -> None:
    """Demand that no entry forbids this image by its digest, and that every entry is of a known type.

    Raises SignatureError "dbx-image", or "dbx-type" for an entry that nobody understands.
    """
    kinds = dict.fromkeys(entry.kind for entry in dbx)
    if "other" in kinds:
        raise SignatureError("dbx-type", "dbx has an entry of a type that is not understood")
    digests = {kind: authenticode_digest(image, kind) for kind in kinds if kind in IMAGE_DIGESTS}
    for entry in dbx:
        if digests.get(entry.kind) == entry.data:
            raise SignatureError("dbx-image", "the image's digest is in dbx")


def check_path_not_forbidden(path: Sequence[Certificate], dbx: Sequence[ListEntry]) -> None:
    """Demand that no certificate of the path is forbidden.

    Raises SignatureError "revoked" for one that stands in dbx as a whole, "dbx-certificate" for one whose digest does,
    and "dbx-time" for an entry whose time is none.
    """
    for entry in dbx:
        since = ""
        if entry.kind in CERTIFICATE_DIGESTS:
            revoked_at = _read_time(entry.data[-TIME_BYTES:])
            since = f" since {revoked_at.isoformat()}" if revoked_at is not None else ""
        for certificate in path:
            if entry.kind == "certificate" and _is_same(entry.data, certificate):
                raise SignatureError("revoked", f"the certificate of {certificate.title} is revoked")
            if _has_digest(entry, certificate):
                without = ", and no time stamp shows that the image is older" if since else ""
                raise SignatureError(
                    "dbx-certificate",
                    f"the digest of the certificate of {certificate.title} is in dbx{since}{without}",
                )


def _is_same(forbidden: bytes, certificate: Certificate) -> bool:
    """Whether these bytes are the certificate, perhaps with its ECDSA signature written another way."""
    if forbidden == certificate.der:
        return True
    try:
        return load_certificate(forbidden).body == certificate.body
    except (FormatError, SignatureError):
        return False  # no certificate at all, so it is none of the path


def _has_digest(entry: ListEntry, certificate: Certificate) -> bool:
    if entry.kind not in CERTIFICATE_DIGESTS:
        return False
    name, length = CERTIFICATE_DIGESTS[entry.kind]
    return hashlib.new(name, certificate.body).digest() == entry.data[:length]


def _encode_time(moment: datetime | None) -> bytes:
    """EFI_TIME in UTC; all zero for a certificate that was never good."""
    if moment is None:
        return bytes(TIME_BYTES)
    at = moment.astimezone(UTC)
    return _TIME.pack(at.year, at.month, at.day, at.hour, at.minute, at.second, 0, 0, 0, 0, 0)


def _read_time(data: bytes) -> datetime | None:
    """Return the time of an entry, None for all zero; whole seconds of UTC, as authenticated variables have them."""
    if not any(data):
        return None
    year, month, day, hour, minute, second, *rest = _TIME.unpack(data)
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        raise SignatureError("dbx-time", f"an entry of dbx is of no time ({data.hex()})") from None
    if any(rest):
        raise SignatureError(
            "dbx-time", f"an entry of dbx has a time that is not whole seconds of UTC ({data.hex()})"
        )
    return moment
