"""Signed EFI images: Authenticode signatures made and verified against the firmware's db and dbx.

Models: the CMS signature over SpcIndirectDataContent that holds an image's Authenticode digest; the firmware's
decision: an image whose digest or chain is in dbx (`sim.image.dbx`) is refused, one whose digest is in db is allowed, and
so is one whose chain ends in a certificate of db; the entry of db that allowed it is the authority that gets measured.

Leaves out: time stamps (the simulated time is checked instead, which real firmware does not do), several signatures,
page hashes.  Stricter than firmware: the PE checksum must be right, and unused certificates are refused, so that no
bit of a signed image can change unseen.

Sources: Windows Authenticode Portable Executable Signature Format (2008); UEFI Specification 2.10, section 32.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sim.errors import FormatError
from sim.image import der
from sim.image.algorithms import DIGEST_ALGORITHMS, digest_identifier
from sim.image.chain import check_path, check_validity, find_path, named_signer
from sim.image.dbx import check_image_not_forbidden, check_path_not_forbidden
from sim.image.efi_lists import IMAGE_DIGESTS, ListEntry, as_entry
from sim.image.issue import Signer
from sim.image.pe import PeImage, attach_certificate, authenticode_digest, build_pe, checksum, read_pe
from sim.image.signed_data import build_signed_data, check_signer, parse_signed_data, read_bag
from sim.image.trust import SignatureError

__all__ = ["authenticode_digest", "build_efi", "sign_efi", "verify_efi"]

_WHAT = "Authenticode content"
_INDIRECT_DATA = der.encode_oid("1.3.6.1.4.1.311.2.1.4")
_PE_IMAGE_DATA = der.encode_oid("1.3.6.1.4.1.311.2.1.15")
_NO_FILE = der.tlv(0xA0, der.tlv(0xA2, der.tlv(0x80, "<<<Obsolete>>>".encode("utf-16-be"))))
_IMAGE_ATTRIBUTE = der.tlv(
    der.SEQUENCE, _PE_IMAGE_DATA, der.tlv(der.SEQUENCE, der.tlv(der.BIT_STRING, b"\0"), _NO_FILE)
)


def build_efi(
    code: bytes, signer: Signer | None = None, *, when: datetime | None = None, data: bytes = b""
) -> bytes:
    """Build an EFI application, signed at the simulated time `when` if there is a signer."""
    image = build_pe(code, data)
    if signer is None:
        return image
    if when is None:
        raise ValueError("a signed image needs the time of its signature")
    return sign_efi(image, signer, when)


def sign_efi(image: bytes, signer: Signer, when: datetime) -> bytes:
    """Add an Authenticode signature to an unsigned image."""
    digest = der.tlv(der.OCTET_STRING, authenticode_digest(image, signer.digest))
    content = _IMAGE_ATTRIBUTE + der.tlv(der.SEQUENCE, digest_identifier(signer.digest), digest)
    signature = build_signed_data(
        signer, when, content=content, content_type=_INDIRECT_DATA, embedded=der.tlv(der.SEQUENCE, content)
    )
    return attach_certificate(image, signature)


def verify_efi(
    image: bytes, db: Sequence[bytes | ListEntry], dbx: Sequence[bytes | ListEntry], now: datetime
) -> bytes:
    """Return the data of the entry of `db` that allows an image to run; raises SignatureError otherwise.

    Bare bytes in db or dbx are a certificate in DER, or the SHA-256 Authenticode digest of one image.  What else db may
    hold allows nothing.
    """
    try:
        parts = read_pe(image)
        signature = parts.certificate
    except FormatError as error:
        raise SignatureError("image-format", str(error)) from error
    allowed, forbidden = [as_entry(one) for one in db], [as_entry(one) for one in dbx]
    check_image_not_forbidden(image, forbidden)
    for entry in allowed:
        if entry.kind in IMAGE_DIGESTS and entry.data == authenticode_digest(image, entry.kind):
            return entry.data
    if signature is None:
        raise SignatureError("no-signature", "the image is not signed and its digest is not in db")
    pinned = tuple(entry.data for entry in allowed if entry.kind == "certificate")
    authority = _verify_signature(image, signature, pinned, forbidden, now)
    check_checksum(parts)
    return authority


def check_checksum(image: PeImage) -> None:
    """Demand that the checksum field, which no digest covers, is right."""
    if image.stated_checksum != checksum(image):
        raise SignatureError("checksum", "the image's checksum is wrong")


def _verify_signature(
    image: bytes, signature: bytes, pinned: tuple[bytes, ...], dbx: Sequence[ListEntry], now: datetime
) -> bytes:
    signed = parse_signed_data(_without_padding(signature))
    if signed.content_type != _INDIRECT_DATA or signed.content is None:
        raise SignatureError("content-type", "the signature is not over an image digest")
    content, algorithm, digest = _read_content(signed.content)
    if digest != authenticode_digest(image, algorithm):
        raise SignatureError("image-digest", "the image is not the one that was signed (digest differs)")
    bag = read_bag(signed.bag)
    path = find_path(named_signer(bag, signed.signer_id), bag, pinned)
    check_path(path)
    check_path_not_forbidden(path, dbx)
    check_validity(path, now)
    check_signer(signed, content, path[0])
    return path[-1].der


def _read_content(data: bytes) -> tuple[bytes, str, bytes]:
    """Return the bytes that are signed, the digest's name, and the digest."""
    try:
        content = der.only(data, der.SEQUENCE, _WHAT)
        found = der.elements(content, _WHAT)
        if [element[0] for element in found] != [der.SEQUENCE, der.SEQUENCE]:
            raise FormatError(_WHAT, "", "expected an attribute and a digest")
        der.check_canonical(found[0][1], _WHAT)
        info = der.elements(found[1][1], _WHAT)
        if [element[0] for element in info] != [der.SEQUENCE, der.OCTET_STRING]:
            raise FormatError(_WHAT, "digest", "expected an algorithm and a digest")
        if not found[0][1].startswith(_PE_IMAGE_DATA):
            raise FormatError(_WHAT, "attribute", "expected the data of a PE image")
    except FormatError as error:
        raise SignatureError("content", str(error)) from error
    algorithm = DIGEST_ALGORITHMS.get(info[0][2])
    if algorithm is None:
        raise SignatureError("digest-algorithm", "the image's digest is not one of SHA-256, SHA-384, SHA-512")
    return content, algorithm, info[1][1]


def _without_padding(signature: bytes) -> bytes:
    """Cut up to seven zero bytes that some signers count into the certificate's length."""
    end = len(signature)
    if len(signature) > 4 and signature[:2] == b"\x30\x82":
        end = min(end, 4 + int.from_bytes(signature[2:4], "big"))
    if len(signature) - end >= 8 or any(signature[end:]):
        raise SignatureError("der", "the signature is followed by other bytes")
    return signature[:end]
