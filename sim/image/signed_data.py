"""The SignedData structure of CMS: read strictly, written canonically, its one signer checked.

Models: the profile that module signatures and Authenticode share.  Version 1 throughout, one signer named by issuer
and serial number, one digest algorithm in both places, certificates in the bag, signed attributes, and nothing else:
no CRLs, no unsigned attributes, no attribute beyond an allow-list.  Every byte of the file is either compared with
what it must be, covered by the signature, or part of a certificate that the chain check judges.

Leaves out: signing without attributes, several signers, subject key identifiers, countersignatures, time stamps.

Sources: RFC 5652, section 5 (CMS), RFC 2315, section 9 (the version that Authenticode keeps), RFC 8551 (attributes).
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from attrs import field, frozen

from sim.errors import FormatError
from sim.image import der
from sim.image.algorithms import (
    DIGEST_ALGORITHMS,
    SIGNATURE_ALGORITHMS,
    digest_identifier,
    key_type,
    signature_identifier,
    verify,
)
from sim.image.certificate import Certificate, load_certificate
from sim.image.signature_layout import (
    CONTENT_TYPE,
    DATA,
    MESSAGE_DIGEST,
    SIGNED_DATA,
    SIGNING_TIME,
    usual_attributes,
    usual_layout,
)
from sim.image.trust import SignatureError

if TYPE_CHECKING:
    from sim.image.issue import Signer

__all__ = ["DATA", "SignedData", "build_signed_data", "check_signer", "parse_signed_data", "read_bag"]

SIGNATURE_FILE_BYTES_MAX = 64 * 1024
BAG_CERTIFICATES_MAX = 8

_WHAT = "signature"
_VERSION_1 = der.encode_integer(1)
_CONTENT, _BAG, _CRLS = 0xA0, 0xA0, 0xA1
_SIGNED, _UNSIGNED = 0xA0, 0xA1

_CAPABILITIES = der.encode_oid("1.2.840.113549.1.9.15")
_PUBLISHER = der.encode_oid("1.3.6.1.4.1.311.2.1.12")
_STATEMENT = der.encode_oid("1.3.6.1.4.1.311.2.1.11")
_REQUIRED = (CONTENT_TYPE, MESSAGE_DIGEST, SIGNING_TIME)
_NEEDED = frozenset(_REQUIRED)
_ALLOWED = (*_REQUIRED, _CAPABILITIES, _PUBLISHER, _STATEMENT)  # the last three are signed and decide nothing

_SHA256 = digest_identifier("sha256")
_DIGESTS = {
    "sha256": (b"\x04\x20", hashlib.sha256),
    "sha384": (b"\x04\x30", hashlib.sha384),
    "sha512": (b"\x04\x40", hashlib.sha512),
}
"""Name -> tag and length of a digest in its OCTET STRING, and the function."""


@frozen(kw_only=True, slots=False)  # one is made for each file: this is the faster kind
class SignedData:
    """A SignedData with one signer, taken apart but not yet believed; all fields are untrusted bytes."""

    content_type: bytes
    content: bytes | None
    bag: bytes = field(repr=False)
    signer_id: bytes = field(repr=False)
    digest: str
    signature_key: str
    attributes: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse_signed_data(data: bytes) -> SignedData:
    """Take a signature file apart; raises SignatureError with the name of the rule it breaks."""
    if len(data) > SIGNATURE_FILE_BYTES_MAX:
        raise SignatureError(
            "size", f"a signature of {len(data)} bytes, at most {SIGNATURE_FILE_BYTES_MAX} are read"
        )
    usual = usual_layout(data)
    if usual is not None:
        return _usual(*usual)
    try:
        return _parse(data)
    except FormatError as error:
        raise SignatureError("der", str(error)) from error


def check_signer(signed: SignedData, content: bytes, certificate: Certificate) -> datetime:
    """Check that `certificate` signed exactly this content; return the claimed signing time.

    Raises SignatureError: attributes, content-type, message-digest, signing-time, signature-algorithm, signature.
    """
    try:
        content_type, time, message_digest = _read_attributes(signed.attributes)
        when = der.read_time(time, _WHAT)
    except FormatError as error:
        raise SignatureError("attributes", str(error)) from error
    check_content_type(signed, content_type)
    check_message_digest(signed, message_digest, content)
    check_signing_time(when, certificate)
    check_signature(signed, certificate)
    return when


def check_content_type(signed: SignedData, attribute: bytes) -> None:
    """Demand that the signed content type is the one the structure carries."""
    if attribute != signed.content_type:
        raise SignatureError("content-type", "the signed content type is not that of the signature")


def check_message_digest(signed: SignedData, attribute: bytes, content: bytes) -> None:
    """Demand that the signed digest is the digest of the content."""
    header, digest = _DIGESTS[signed.digest]
    if attribute != header + digest(content).digest():
        raise SignatureError("message-digest", "the signature belongs to other data (message digest differs)")


def check_signing_time(when: datetime, certificate: Certificate) -> None:
    """Demand that the signer claims a time at which its certificate was valid."""
    if not certificate.not_before <= when <= certificate.not_after:
        raise SignatureError(
            "signing-time", f"{certificate.title} claims to have signed outside its validity"
        )


def check_signature(signed: SignedData, certificate: Certificate) -> None:
    """Demand that the signature over the attributes is the certificate's, with the agreed algorithms."""
    if signed.signature_key != key_type(certificate.public_key):
        raise SignatureError(
            "signature-algorithm", f"the signature algorithm does not fit the key of {certificate.title}"
        )
    covered = der.tlv(der.SET, signed.attributes)
    if not verify(certificate.public_key, signed.signature, covered, signed.digest):
        raise SignatureError("signature", f"the signature was not made by the key of {certificate.title}")


def read_bag(bag: bytes) -> list[Certificate]:
    """Read the certificates that came along; in DER they stand in ascending order, each once."""
    try:
        found = der.elements(bag, _WHAT)
    except FormatError as error:
        raise SignatureError("certificates", str(error)) from error
    encoded = [element[2] for element in found]
    if not encoded or len(encoded) > BAG_CERTIFICATES_MAX:
        raise SignatureError(
            "certificates", f"expected 1 to {BAG_CERTIFICATES_MAX} certificates, found {len(encoded)}"
        )
    if any(one >= other for one, other in pairwise(encoded)):
        raise SignatureError("certificates", "the certificates are not in ascending order, each once")
    return [load_certificate(one) for one in encoded]


def build_signed_data(
    signer: Signer, when: datetime, *, content: bytes, content_type: bytes = DATA, embedded: bytes = b""
) -> bytes:
    """Sign `content` at the simulated time `when`; `embedded` is the encoded element to carry inside, if any."""
    certificate = load_certificate(signer.certificate_der)
    digest = digest_identifier(signer.digest)
    header, digest_of = _DIGESTS[signer.digest]
    members = (
        _attribute(CONTENT_TYPE, content_type),
        _attribute(SIGNING_TIME, der.encode_time(when)),
        _attribute(MESSAGE_DIGEST, header + digest_of(content).digest()),
    )
    signer_info = der.tlv(
        der.SEQUENCE,
        _VERSION_1,
        certificate.signer_id,
        digest,
        der.encode_set_of(members, _SIGNED),
        signature_identifier(key_type(certificate.public_key), signer.digest),
        der.tlv(der.OCTET_STRING, signer.sign(der.encode_set_of(members), signer.digest)),
    )
    signed_data = der.tlv(
        der.SEQUENCE,
        _VERSION_1,
        der.encode_set_of((digest,)),
        der.tlv(der.SEQUENCE, content_type, der.tlv(_CONTENT, embedded) if embedded else b""),
        der.encode_set_of((signer.certificate_der, *signer.chain), _BAG),
        der.encode_set_of((signer_info,)),
    )
    return der.tlv(der.SEQUENCE, SIGNED_DATA, der.tlv(_CONTENT, signed_data))


def _usual(
    bag: bytes, signer_id: bytes, attributes: bytes, signature_id: bytes, signature: bytes
) -> SignedData:
    digest, key = _algorithms(_SHA256, _SHA256, signature_id)
    return SignedData(
        content_type=DATA,
        content=None,
        bag=bag,
        signer_id=signer_id,
        digest=digest,
        signature_key=key,
        attributes=attributes,
        signature=signature,
    )


def _parse(data: bytes) -> SignedData:
    outer = _fields(der.only(data, der.SEQUENCE, _WHAT), (der.OBJECT_IDENTIFIER, _CONTENT))
    if outer[0][2] != SIGNED_DATA:
        raise SignatureError("content-info", "the file is no SignedData")
    body = der.elements(der.only(outer[1][1], der.SEQUENCE, _WHAT), _WHAT)
    if len(body) == 6 and body[4][0] == _CRLS:
        raise SignatureError("crls", "the signature carries CRLs")
    if [element[0] for element in body] != [der.INTEGER, der.SET, der.SEQUENCE, _BAG, der.SET]:
        raise SignatureError(
            "structure", "expected version, digest algorithm, content, certificates and signers"
        )
    if body[0][2] != _VERSION_1:
        raise SignatureError("version", "the version of the SignedData is not 1")
    content_type, content = _parse_content(body[2][1])
    infos = der.elements(body[4][1], _WHAT)
    if len(infos) != 1:
        raise SignatureError("one-signer", f"expected exactly one signer, found {len(infos)}")
    info = _parse_signer_info(der.tagged(infos[0], der.SEQUENCE, _WHAT))
    digest, key = _algorithms(body[1][1], info[2][2], info[4][2])
    return SignedData(
        content_type=content_type,
        content=content,
        bag=body[3][1],
        signer_id=info[1][2],
        digest=digest,
        signature_key=key,
        attributes=info[3][1],
        signature=info[5][1],
    )


def _parse_content(data: bytes) -> tuple[bytes, bytes | None]:
    found = der.elements(data, _WHAT)
    tags = [element[0] for element in found]
    if tags == [der.OBJECT_IDENTIFIER]:
        return found[0][2], None
    if tags == [der.OBJECT_IDENTIFIER, _CONTENT]:
        return found[0][2], found[1][1]
    raise SignatureError("structure", "expected a content type and perhaps content")


def _parse_signer_info(data: bytes) -> list[der.Element]:
    info = der.elements(data, _WHAT)
    if len(info) == 7 and info[6][0] == _UNSIGNED:
        raise SignatureError("unsigned-attributes", "the signature carries attributes that nothing covers")
    if [element[0] for element in info] != [
        der.INTEGER,
        der.SEQUENCE,
        der.SEQUENCE,
        _SIGNED,
        der.SEQUENCE,
        der.OCTET_STRING,
    ]:
        raise SignatureError(
            "structure", "expected a signer by issuer and serial number, with signed attributes"
        )
    if info[0][2] != _VERSION_1:
        raise SignatureError("version", "the version of the signer is not 1")
    return info


def _algorithms(listed: bytes, digest_id: bytes, signature_id: bytes) -> tuple[str, str]:
    """Return digest and key type of the signature algorithm, both allowed and in agreement."""
    digest = DIGEST_ALGORITHMS.get(digest_id)
    if digest is None:
        raise SignatureError(
            "digest-algorithm", "the digest algorithm is not one of SHA-256, SHA-384, SHA-512"
        )
    if listed != digest_id:
        raise SignatureError("digest-agreement", "the listed digest algorithm is not the signer's")
    key, signature_digest = SIGNATURE_ALGORITHMS.get(signature_id, ("", ""))
    if not key:
        raise SignatureError("signature-algorithm", "the signature algorithm is not allowed")
    if signature_digest not in ("", digest):
        raise SignatureError(
            "signature-algorithm", "the signature algorithm uses another digest than the signer names"
        )
    return digest, key


def _read_attributes(data: bytes) -> tuple[bytes, der.Element, bytes]:
    """Return encoded content type, signing time and encoded message digest.

    Demands allowed attributes, sorted, each once and with one value.
    """
    usual = usual_attributes(data)
    if usual is not None:
        return usual
    found = der.elements(data, _WHAT)
    if any(one[2] >= other[2] for one, other in pairwise(found)):
        raise FormatError(_WHAT, "attributes", "not in ascending order")
    values: dict[bytes, bytes] = {}
    for element in found:
        kind, value = _fields(der.tagged(element, der.SEQUENCE, _WHAT), (der.OBJECT_IDENTIFIER, der.SET))
        if kind[2] not in _ALLOWED or kind[2] in values:
            raise FormatError(_WHAT, "attributes", "an attribute that is not allowed, or one twice")
        if len(der.elements(value[1], _WHAT)) != 1:
            raise FormatError(_WHAT, "attributes", "an attribute without exactly one value")
        values[kind[2]] = value[1]
    if not values.keys() >= _NEEDED:
        raise FormatError(_WHAT, "attributes", "content type, message digest or signing time is missing")
    return values[CONTENT_TYPE], der.elements(values[SIGNING_TIME], _WHAT)[0], values[MESSAGE_DIGEST]


def _fields(data: bytes, tags: tuple[int, ...]) -> list[der.Element]:
    found = der.elements(data, _WHAT)
    if tuple([element[0] for element in found]) != tags:  # a list: this runs for every field of a signature
        raise FormatError(_WHAT, "", "not the expected fields")
    return found


def _attribute(kind: bytes, value: bytes) -> bytes:
    return der.tlv(der.SEQUENCE, kind, der.encode_set_of((value,)))
