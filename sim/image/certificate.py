"""Reads one X.509 certificate of a signature chain into plain values, strictly.

Models: version 3 certificates in canonical DER with an allowed signature algorithm, an allowed key, and the
extensions that code signing turns on: basic constraints, key usage, extended key usage.  The names that link a chain
are compared as bytes, so they are taken from the encoding itself.

Leaves out: name constraints, policies and alternative names.  Where one of these is critical the certificate is
refused; where not, it has no say.

Sources: RFC 5280, sections 4.1 and 4.2.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import TypeVar

from attrs import field, frozen
from cryptography import x509
from cryptography.x509.oid import NameOID

from sim.errors import FormatError
from sim.image import algorithms, der
from sim.image.trust import SignatureError

__all__ = ["CERTIFICATE_BYTES_MAX", "CODE_SIGNING", "Certificate", "load_certificate"]

CERTIFICATE_BYTES_MAX = 8192
CODE_SIGNING = "1.3.6.1.5.5.7.3.3"

_WHAT = "certificate"
_VERSION_3 = der.tlv(0xA0, der.encode_integer(2))
_TBS_TAGS = [0xA0, der.INTEGER, der.SEQUENCE, der.SEQUENCE, der.SEQUENCE, der.SEQUENCE, der.SEQUENCE, 0xA3]
_CRITICAL_KNOWN = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage)
_E = TypeVar("_E", bound=x509.ExtensionType)


@frozen(kw_only=True)
class Certificate:
    """What a chain check needs of one certificate; `subject` and `issuer` are encoded names."""

    der: bytes = field(repr=False)
    subject: bytes
    issuer: bytes
    serial: int
    organization: str
    common_name: str
    not_before: datetime
    not_after: datetime
    is_ca: bool
    path_length: int | None
    digital_signature: bool
    key_cert_sign: bool
    crl_sign: bool
    extended_usages: tuple[str, ...]
    public_key: algorithms.PublicKey = field(repr=False, eq=False)
    parsed: x509.Certificate = field(repr=False, eq=False)
    fingerprint: bytes = field(repr=False)

    @property
    def title(self) -> str:
        """Return the name for messages."""
        return self.common_name or self.organization or f"serial {self.serial:x}"

    @property
    def signer_id(self) -> bytes:
        """Return the encoded IssuerAndSerialNumber by which a signature names this certificate."""
        return der.tlv(der.SEQUENCE, self.issuer, der.encode_integer(self.serial))

    def is_issued_by(self, issuer: Certificate) -> bool:
        """Tell whether names match as bytes and the issuer's key made this certificate's signature."""
        if self.issuer != issuer.subject:
            return False
        try:
            self.parsed.verify_directly_issued_by(issuer.parsed)
        except Exception:  # whatever the library has against it, this is no issuer
            return False
        return True


@lru_cache(maxsize=1024)
def load_certificate(data: bytes) -> Certificate:
    """Read a certificate; raises SignatureError with check "certificate", "certificate-algorithm" or "key"."""
    if len(data) > CERTIFICATE_BYTES_MAX:
        raise SignatureError(
            "certificate", f"a certificate of {len(data)} bytes, at most {CERTIFICATE_BYTES_MAX} are read"
        )
    try:
        issuer, subject, serial = _read_frame(data)
    except FormatError as error:
        raise SignatureError("certificate", str(error)) from error
    try:
        return _read_fields(data, issuer, subject, serial)
    except SignatureError:
        raise
    except Exception as error:  # the library reads lazily and raises many types: each means refusal
        raise SignatureError("certificate", f"a certificate that cannot be read: {error}") from error


def _read_frame(data: bytes) -> tuple[bytes, bytes, int]:
    """Check version, canonical form and algorithm; return encoded issuer, encoded subject and serial."""
    der.check_canonical(data, _WHAT)
    frame = der.elements(der.only(data, der.SEQUENCE, _WHAT), _WHAT)
    if [element[0] for element in frame] != [der.SEQUENCE, der.SEQUENCE, der.BIT_STRING]:
        raise FormatError(_WHAT, "", "expected contents, algorithm and signature")
    body = der.elements(frame[0][1], _WHAT)
    if [element[0] for element in body] != _TBS_TAGS or body[0][2] != _VERSION_3:
        raise FormatError(_WHAT, "contents", "expected the fields of a version 3 certificate with extensions")
    if frame[1][2] != body[2][2] or not algorithms.SIGNATURE_ALGORITHMS.get(frame[1][2], ("", ""))[1]:
        raise SignatureError(
            "certificate-algorithm", "a certificate is signed with an algorithm that is not allowed"
        )
    serial = der.read_integer(body[1][1], _WHAT)
    if serial <= 0:
        raise FormatError(_WHAT, "serial", "expected a positive number")
    return body[3][2], body[5][2], serial


def _read_fields(data: bytes, issuer: bytes, subject: bytes, serial: int) -> Certificate:
    parsed = x509.load_der_x509_certificate(data)
    key = parsed.public_key()
    problem = algorithms.key_problem(key)
    if problem is not None:
        raise SignatureError("key", f"a certificate carries {problem}")
    for extension in parsed.extensions:
        if extension.critical and not isinstance(extension.value, _CRITICAL_KNOWN):
            oid = extension.oid.dotted_string
            raise SignatureError(
                "critical-extension", f"a certificate has the critical extension {oid}, not understood here"
            )
    constraints = _extension(parsed, x509.BasicConstraints)
    usage = _extension(parsed, x509.KeyUsage)
    extended = _extension(parsed, x509.ExtendedKeyUsage)
    return Certificate(
        der=data,
        subject=subject,
        issuer=issuer,
        serial=serial,
        organization=_name(parsed.subject, NameOID.ORGANIZATION_NAME),
        common_name=_name(parsed.subject, NameOID.COMMON_NAME),
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
        is_ca=constraints is not None and constraints.ca,
        path_length=constraints.path_length if constraints is not None else None,
        digital_signature=usage is not None and usage.digital_signature,
        key_cert_sign=usage is not None and usage.key_cert_sign,
        crl_sign=usage is not None and usage.crl_sign,
        extended_usages=tuple(oid.dotted_string for oid in extended) if extended is not None else (),
        public_key=key,  # type: ignore[arg-type]  # key_problem lets only these types pass
        parsed=parsed,
        fingerprint=sha256(data).digest(),
    )


def _extension(parsed: x509.Certificate, kind: type[_E]) -> _E | None:
    try:
        return parsed.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _name(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    values = name.get_attributes_for_oid(oid)
    return str(values[0].value) if values else ""
