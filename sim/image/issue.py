"""Issues X.509 certificates and their keys from a random stream, repeatably.

Models: a certificate authority's desk.  Serial number and key come from the stream, validity from the caller, and the
signature is made without a random source, so one stream gives one certificate.  Any field can be asked for, wrong
ones too: the tests of the verifier need certificates that no honest authority would issue.

Leaves out: requests, policies, revocation lists.  The keys made here are test keys and nothing else.

Sources: RFC 5280, section 4.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier

from sim.core.keys import ec_private_key, rsa_private_key
from sim.core.rng import RandomSource, Stream
from sim.image.algorithms import PrivateKey, load_private_key, sign
from sim.image.certificate import CODE_SIGNING

__all__ = [
    "AUTHORITY_USAGE",
    "KEY_ALGORITHMS",
    "SIGNER_USAGE",
    "CertificateSpec",
    "Identity",
    "Signer",
    "issue",
    "make_private_key",
]

KEY_ALGORITHMS = ("ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096")
AUTHORITY_USAGE = ("key_cert_sign", "crl_sign")
SIGNER_USAGE = ("digital_signature",)

_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
_HASHES: dict[str, hashes.SHA256 | hashes.SHA384 | hashes.SHA512] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_SERIAL_BYTES = 16


@frozen(kw_only=True)
class CertificateSpec:
    """What to write into a certificate; the defaults describe a code signer.

    An authority sets `is_authority` and `key_usage=AUTHORITY_USAGE`; `extra` holds (object identifier, critical,
    encoded value) of further extensions.
    """

    organization: str
    common_name: str
    not_before: datetime
    not_after: datetime
    is_authority: bool = False
    path_length: int | None = None
    key_usage: tuple[str, ...] = SIGNER_USAGE
    extended_usages: tuple[str, ...] = (CODE_SIGNING,)
    digest: str = "sha256"
    extra: tuple[tuple[str, bool, bytes], ...] = ()


@frozen(kw_only=True)
class Identity:
    """A certificate with its private key (PKCS #8), both encoded, so that it can be pickled."""

    certificate_der: bytes = field(repr=False)
    private_key_der: bytes = field(repr=False)

    @property
    def private_key(self) -> PrivateKey:
        """Return the loaded key."""
        return load_private_key(self.private_key_der)

    def sign(self, data: bytes, digest: str = "sha256") -> bytes:
        """Sign bytes repeatably: RSA PKCS #1 v1.5, or ECDSA as in RFC 6979."""
        return sign(self.private_key, data, digest)


@frozen(kw_only=True)
class Signer(Identity):
    """Somebody who signs modules: provider and level as the certificates say, and the authorities up to the root."""

    provider: str
    level: str
    chain: tuple[bytes, ...] = field(default=(), repr=False)
    digest: str = "sha256"


def issue(
    spec: CertificateSpec, *, source: RandomSource, issuer: Identity | None = None, algorithm: str = "ec-p256"
) -> Identity:
    """Draw a key and issue its certificate, signed by `issuer`, or by itself without one."""
    key = make_private_key(source, algorithm)
    serial = int.from_bytes(source.bytes(_SERIAL_BYTES), "big") >> 1 | 1 << (8 * _SERIAL_BYTES - 2)
    subject = _name(spec)
    issuer_name, issuer_key = subject, key
    if issuer is not None:
        issuer_name = x509.load_der_x509_certificate(issuer.certificate_der).subject
        issuer_key = issuer.private_key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(spec.not_before.replace(microsecond=0))
        .not_valid_after(spec.not_after.replace(microsecond=0))
    )
    builder = _with_extensions(builder, spec, key, issuer_key)
    deterministic = True if isinstance(issuer_key, ec.EllipticCurvePrivateKey) else None
    certificate = builder.sign(issuer_key, _HASHES[spec.digest], ecdsa_deterministic=deterministic)
    return Identity(
        certificate_der=certificate.public_bytes(serialization.Encoding.DER), private_key_der=_encoded(key)
    )


def make_private_key(source: RandomSource, algorithm: str) -> PrivateKey:
    """Draw a private key of one of KEY_ALGORITHMS; RSA keys are searched once per process and then remembered."""
    if algorithm == "ec-p256":
        return ec_private_key(source, ec.SECP256R1())
    if algorithm == "ec-p384":
        return ec_private_key(source, ec.SECP384R1())
    kind, _, bits = algorithm.partition("-")
    if kind != "rsa" or not bits.isdigit():
        raise ValueError(f"unknown key algorithm {algorithm!r}, wanted one of {', '.join(KEY_ALGORITHMS)}")
    return load_private_key(_searched_rsa_key(source.bytes(32), int(bits)))


@lru_cache(maxsize=256)
def _searched_rsa_key(seed: bytes, bits: int) -> bytes:
    return _encoded(rsa_private_key(Stream(seed), bits))


def _encoded(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(spec: CertificateSpec) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, spec.organization),
            x509.NameAttribute(NameOID.COMMON_NAME, spec.common_name),
        ]
    )


def _with_extensions(
    builder: x509.CertificateBuilder, spec: CertificateSpec, key: PrivateKey, issuer_key: PrivateKey
) -> x509.CertificateBuilder:
    constraints = x509.BasicConstraints(ca=spec.is_authority, path_length=spec.path_length)
    builder = builder.add_extension(constraints, critical=True)
    if spec.key_usage:
        flags = {usage: usage in spec.key_usage for usage in _USAGES}
        builder = builder.add_extension(x509.KeyUsage(**flags), critical=True)
    if spec.extended_usages:
        usages = [ObjectIdentifier(oid) for oid in spec.extended_usages]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    own, issuers = key.public_key(), issuer_key.public_key()
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(own), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuers), critical=False
    )
    for oid, critical, value in spec.extra:
        extension = x509.UnrecognizedExtension(ObjectIdentifier(oid), value)
        builder = builder.add_extension(extension, critical=critical)
    return builder
