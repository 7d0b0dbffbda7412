"""Reads one X.509 certificate of a signature chain into plain values, strictly.

Models: version 3 certificates in DER with an allowed signature algorithm, an allowed key, and the extensions that
code signing turns on: basic constraints, key usage, extended key usage.  The names that link a chain are compared as
bytes, so they are kept in their encoding.  Only the key itself is loaded by a library; all else is read here, so that
a certificate means the same with every version of that library.

Leaves out: name constraints and policies.  Where one of these is critical the certificate is refused; where not, it
has no say.  The same holds for alternative names, unless the caller judges them.

Sources: RFC 5280, sections 4.1 and 4.2.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import cast

from attrs import field, frozen
from cryptography.hazmat.primitives.serialization import load_der_public_key

from sim.errors import FormatError
from sim.image import algorithms, der
from sim.image.trust import SignatureError

__all__ = ["CERTIFICATE_BYTES_MAX", "CODE_SIGNING", "Certificate", "load_certificate", "read_directory_name"]

CERTIFICATE_BYTES_MAX = 8192
CODE_SIGNING = "1.3.6.1.5.5.7.3.3"

_WHAT = "certificate"
_VERSION_3 = der.tlv(0xA0, der.encode_integer(2))
_BODY_TAGS = [0xA0, der.INTEGER, der.SEQUENCE, der.SEQUENCE, der.SEQUENCE, der.SEQUENCE, der.SEQUENCE, 0xA3]
_TRUE = der.tlv(der.BOOLEAN, b"\xff")
_TEXT_TAGS = (der.UTF8_STRING, der.PRINTABLE_STRING, der.IA5_STRING)
_ORGANIZATION, _COMMON_NAME = der.encode_oid("2.5.4.10"), der.encode_oid("2.5.4.3")
_BASIC_CONSTRAINTS = der.encode_oid("2.5.29.19")
_KEY_USAGE = der.encode_oid("2.5.29.15")
_EXTENDED_USAGE = der.encode_oid("2.5.29.37")
_ALTERNATIVE_NAME = der.encode_oid("2.5.29.17")
_COMMON_ATTRIBUTE = _COMMON_NAME[:-1]  # all that is under 2.5.4
_COMMON_EXTENSION = _KEY_USAGE[:-1]  # all that is under 2.5.29
_USAGES = {
    der.encode_oid(dotted)[2:]: dotted
    for dotted in (CODE_SIGNING, *(f"1.3.6.1.5.5.7.3.{number}" for number in (1, 2, 4, 8, 9)))
}
"""Content of the usual extended key usages -> dotted numbers."""
_UNDERSTOOD = (_BASIC_CONSTRAINTS, _KEY_USAGE, _EXTENDED_USAGE)
_DIRECTORY_NAME = 0xA4
_USAGE_BITS = range(16)
_DIGITAL_SIGNATURE, _KEY_ENCIPHERMENT, _KEY_AGREEMENT, _KEY_CERT_SIGN, _CRL_SIGN = 0, 2, 4, 5, 6


@frozen(kw_only=True)
class Certificate:
    """What a chain check needs of one certificate; `subject` and `issuer` are encoded names."""

    der: bytes = field(repr=False)
    subject: bytes
    issuer: bytes
    serial: int
    signer_id: bytes = field(repr=False)
    """The encoded IssuerAndSerialNumber by which a signature names this certificate."""
    organization: str
    common_name: str
    not_before: datetime
    not_after: datetime
    is_ca: bool
    path_length: int | None
    digital_signature: bool
    key_encipherment: bool
    key_agreement: bool
    key_cert_sign: bool
    crl_sign: bool
    extended_usages: tuple[str, ...]
    alternative_name: bytes = field(repr=False)
    public_key: algorithms.PublicKey = field(repr=False, eq=False)
    body: bytes = field(repr=False)
    signature_algorithm: tuple[str, str]
    signature: bytes = field(repr=False)

    @property
    def title(self) -> str:
        """Return the name for messages."""
        return self.common_name or self.organization or f"serial {self.serial:x}"

    @property
    def fingerprint(self) -> bytes:
        """Return the SHA-256 of the certificate."""
        return sha256(self.der).digest()

    def is_issued_by(self, issuer: Certificate) -> bool:
        """Tell whether names match as bytes and the issuer's key made this certificate's signature."""
        kind, digest = self.signature_algorithm
        return (
            self.issuer == issuer.subject
            and kind == algorithms.key_type(issuer.public_key)
            and algorithms.verify(issuer.public_key, self.signature, self.body, digest)
        )


@lru_cache(maxsize=1024)
def load_certificate(data: bytes, *, alternative_names: bool = False) -> Certificate:
    """Read a certificate; with `alternative_names` its caller judges them, and they may then be critical.

    Raises SignatureError with check "certificate", "certificate-algorithm", "key" or "critical-extension".
    """
    if len(data) > CERTIFICATE_BYTES_MAX:
        raise SignatureError(
            "certificate", f"{len(data)} bytes in a certificate, at most {CERTIFICATE_BYTES_MAX} are read"
        )
    try:
        return _read(data, (*_UNDERSTOOD, _ALTERNATIVE_NAME) if alternative_names else _UNDERSTOOD)
    except FormatError as error:
        raise SignatureError("certificate", str(error)) from error


def read_directory_name(alternative_name: bytes, oid: str) -> str:
    """Return the first text of one attribute type in the directory names of an alternative name, or an empty text."""
    for tag, content, _ in der.elements(der.only(alternative_name, der.SEQUENCE, _WHAT), _WHAT):
        if tag == _DIRECTORY_NAME:
            found = _read_names(der.only(content, der.SEQUENCE, _WHAT)).get(der.encode_oid(oid), "")
            if found:
                return found
    return ""


def _read(data: bytes, understood: tuple[bytes, ...]) -> Certificate:
    outer = der.elements(der.only(data, der.SEQUENCE, _WHAT), _WHAT)
    if [element[0] for element in outer] != [der.SEQUENCE, der.SEQUENCE, der.BIT_STRING]:
        raise FormatError(_WHAT, "", "expected contents, algorithm and signature")
    body = der.elements(outer[0][1], _WHAT)
    if [element[0] for element in body] != _BODY_TAGS or body[0][2] != _VERSION_3:
        raise FormatError(_WHAT, "contents", "expected the fields of a version 3 certificate with extensions")
    algorithm = algorithms.SIGNATURE_ALGORITHMS.get(outer[1][2], ("", ""))
    if outer[1][2] != body[2][2] or not algorithm[1]:
        raise SignatureError(
            "certificate-algorithm", "a certificate is signed with an algorithm that is not allowed"
        )
    serial = der.read_integer(body[1][1], _WHAT)
    if serial <= 0:
        raise FormatError(_WHAT, "serial", "expected a positive number")
    not_before, not_after = _read_validity(body[4][1])
    extensions = _read_extensions(body[7][1], understood)
    names = _read_names(body[5][1])
    is_ca, path_length = _read_constraints(extensions.get(_BASIC_CONSTRAINTS))
    usage = _read_usage(extensions.get(_KEY_USAGE))
    return Certificate(
        der=data,
        subject=body[5][2],
        issuer=body[3][2],
        serial=serial,
        signer_id=der.tlv(der.SEQUENCE, body[3][2], body[1][2]),
        organization=names.get(_ORGANIZATION, ""),
        common_name=names.get(_COMMON_NAME, ""),
        not_before=not_before,
        not_after=not_after,
        is_ca=is_ca,
        path_length=path_length,
        digital_signature=_DIGITAL_SIGNATURE in usage,
        key_encipherment=_KEY_ENCIPHERMENT in usage,
        key_agreement=_KEY_AGREEMENT in usage,
        key_cert_sign=_KEY_CERT_SIGN in usage,
        crl_sign=_CRL_SIGN in usage,
        extended_usages=_read_extended(extensions.get(_EXTENDED_USAGE)),
        alternative_name=extensions.get(_ALTERNATIVE_NAME, b""),
        public_key=_read_key(body[6][2]),
        body=outer[0][2],
        signature_algorithm=algorithm,
        signature=_read_bits(outer[2][1]),
    )


def _read_validity(data: bytes) -> tuple[datetime, datetime]:
    times = der.elements(data, _WHAT)
    if len(times) != 2:
        raise FormatError(_WHAT, "validity", "expected two times")
    return der.read_time(times[0], _WHAT), der.read_time(times[1], _WHAT)


def _read_names(data: bytes) -> dict[bytes, str]:
    """Return encoded attribute type -> its first value in a name, as far as values are texts."""
    found: dict[bytes, str] = {}
    for group in der.elements(data, _WHAT):
        content = der.tagged(group, der.SET, _WHAT)
        if _is_common_name(content):
            text = der.read_text((content[7], content[9:], content[7:]), _WHAT)
            found.setdefault(content[2:7], text)
            continue
        for element in der.elements(content, _WHAT):
            pair = der.elements(der.tagged(element, der.SEQUENCE, _WHAT), _WHAT)
            if len(pair) != 2 or pair[0][0] != der.OBJECT_IDENTIFIER:
                raise FormatError(_WHAT, "name", "expected pairs of type and value")
            if pair[1][0] in _TEXT_TAGS:
                found.setdefault(pair[0][2], der.read_text(pair[1], _WHAT))
    return found


def _is_common_name(content: bytes) -> bool:
    """Tell whether part of a name has the usual shape: one short text of a usual type, everything at fixed places."""
    size = len(content)
    return (
        9 <= size < 0x80
        and content[:2] == bytes((der.SEQUENCE, size - 2))
        and content[2:6] == _COMMON_ATTRIBUTE
        and content[7] in _TEXT_TAGS
        and content[8] == size - 9
    )


def _read_key(data: bytes) -> algorithms.PublicKey:
    try:
        key = load_der_public_key(data)
    except Exception as error:  # the library raises many types: each means that this is no key
        raise SignatureError("key", "a certificate carries a key that cannot be read") from error
    problem = algorithms.key_problem(key)
    if problem is not None:
        raise SignatureError("key", f"a certificate carries {problem}")
    return cast("algorithms.PublicKey", key)


def _read_extensions(data: bytes, understood: tuple[bytes, ...]) -> dict[bytes, bytes]:
    """Return encoded identifier -> value; refuse a critical extension that is not understood, and any one twice."""
    values: dict[bytes, bytes] = {}
    for element in der.elements(der.only(data, der.SEQUENCE, _WHAT), _WHAT):
        content = der.tagged(element, der.SEQUENCE, _WHAT)
        kind, value = _common_extension(content, understood)
        if value is not None and kind not in values:
            values[kind] = value
            continue
        fields = der.elements(content, _WHAT)
        critical = len(fields) == 3 and fields[1][2] == _TRUE
        if len(fields) != 2 + critical or fields[0][0] != der.OBJECT_IDENTIFIER or fields[0][2] in values:
            raise FormatError(_WHAT, "extensions", "expected each extension once, with identifier and value")
        if critical and fields[0][2] not in understood:
            oid = der.read_oid(fields[0][1], _WHAT)
            raise SignatureError(
                "critical-extension", f"a certificate has the critical extension {oid}, not understood here"
            )
        values[fields[0][2]] = der.tagged(fields[-1], der.OCTET_STRING, _WHAT)
    return values


def _common_extension(content: bytes, understood: tuple[bytes, ...]) -> tuple[bytes, bytes | None]:
    """Split an extension of the usual shape at fixed places; without a value it has another, or is not acceptable."""
    kind = content[:5]
    critical = content[5:8] == _TRUE
    begin = 10 if critical else 7
    size = len(content) - begin
    if (
        kind[:4] != _COMMON_EXTENSION
        or (critical and kind not in understood)
        or not 0 <= size < 0x80
        or content[begin - 2] != der.OCTET_STRING
        or content[begin - 1] != size
    ):
        return kind, None
    return kind, content[begin:]


def _read_constraints(value: bytes | None) -> tuple[bool, int | None]:
    if value is None:
        return False, None
    fields = der.elements(der.only(value, der.SEQUENCE, _WHAT), _WHAT)
    if not fields:
        return False, None
    if fields[0][2] != _TRUE or len(fields) > 2:
        raise FormatError(
            _WHAT, "basic constraints", "expected an authority's mark and perhaps a path length"
        )
    if len(fields) == 1:
        return True, None
    length = der.read_integer(der.tagged(fields[1], der.INTEGER, _WHAT), _WHAT)
    if length < 0:
        raise FormatError(_WHAT, "basic constraints", "a negative path length")
    return True, length


def _read_usage(value: bytes | None) -> tuple[int, ...]:
    """Return the numbers of the bits that are set in a key usage."""
    if value is None:
        return ()
    content = der.only(value, der.BIT_STRING, _WHAT)
    if len(content) not in (2, 3) or content[0] > 7 or content[-1] & -content[-1] != 1 << content[0]:
        raise FormatError(_WHAT, "key usage", "expected a bit string in its shortest form")
    bits = int.from_bytes(content[1:], "big")
    highest = 8 * len(content) - 9
    return tuple([bit for bit in _USAGE_BITS if bit <= highest and bits >> (highest - bit) & 1])


def _read_extended(value: bytes | None) -> tuple[str, ...]:
    if value is None:
        return ()
    purposes = [
        der.tagged(purpose, der.OBJECT_IDENTIFIER, _WHAT)
        for purpose in der.elements(der.only(value, der.SEQUENCE, _WHAT), _WHAT)
    ]
    return tuple([_USAGES.get(purpose) or der.read_oid(purpose, _WHAT) for purpose in purposes])


def _read_bits(content: bytes) -> bytes:
    if content[:1] != b"\0":
        raise FormatError(_WHAT, "signature", "expected whole bytes")
    return content[1:]
