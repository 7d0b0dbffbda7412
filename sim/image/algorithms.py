"""The signature and digest algorithms that signed objects may use, and nothing else.

Models: the algorithm policy as tables of exact AlgorithmIdentifier encodings, so that an unknown algorithm, SHA-1,
MD5, or a known one with odd parameters is simply not in the table; limits on public keys; one way to sign and one
to verify with an RSA (PKCS #1 v1.5) or EC key.

Leaves out: RSA-PSS, EdDSA and DSA, which no format modelled here uses; secrecy of private keys, which are test keys.

Sources: RFC 4055 and RFC 5758 (identifiers and their parameters), RFC 6979 (ECDSA without a random source).
"""

from __future__ import annotations

from functools import lru_cache
from typing import cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from sim.image.der import NULL, SEQUENCE, encode_oid, tlv

__all__ = [
    "DIGEST_ALGORITHMS",
    "RSA_BITS_MIN",
    "SIGNATURE_ALGORITHMS",
    "PrivateKey",
    "PublicKey",
    "digest_identifier",
    "key_problem",
    "key_type",
    "load_private_key",
    "sign",
    "signature_identifier",
    "verify",
    "verify_pss",
]

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

RSA_BITS_MIN = 2048
RSA_BITS_MAX = 4096
RSA_EXPONENT = 65537

_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_NULL = tlv(NULL)
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_ECDSA = {name: ec.ECDSA(algorithm, deterministic_signing=True) for name, algorithm in _HASHES.items()}
_PKCS1 = padding.PKCS1v15()

_DIGEST_OIDS = {
    "sha256": "2.16.840.1.101.3.4.2.1",
    "sha384": "2.16.840.1.101.3.4.2.2",
    "sha512": "2.16.840.1.101.3.4.2.3",
}
_RSA_OID = "1.2.840.113549.1.1.1"
_RSA_OIDS = {
    "sha256": "1.2.840.113549.1.1.11",
    "sha384": "1.2.840.113549.1.1.12",
    "sha512": "1.2.840.113549.1.1.13",
}
_ECDSA_OIDS = {
    "sha256": "1.2.840.10045.4.3.2",
    "sha384": "1.2.840.10045.4.3.3",
    "sha512": "1.2.840.10045.4.3.4",
}


def _identifier(oid: str, parameters: bytes) -> bytes:
    return tlv(SEQUENCE, encode_oid(oid), parameters)


DIGEST_ALGORITHMS: dict[bytes, str] = {
    _identifier(oid, parameters): name for name, oid in _DIGEST_OIDS.items() for parameters in (b"", _NULL)
}
"""Encoded digest AlgorithmIdentifier -> hashlib name; parameters absent or NULL, as RFC 5754 wants both accepted."""

SIGNATURE_ALGORITHMS: dict[bytes, tuple[str, str]] = {
    **{_identifier(oid, _NULL): ("rsa", name) for name, oid in _RSA_OIDS.items()},
    **{_identifier(oid, b""): ("ec", name) for name, oid in _ECDSA_OIDS.items()},
    _identifier(_RSA_OID, _NULL): ("rsa", ""),
}
"""Encoded signature AlgorithmIdentifier -> key type and digest ("": the digest is named elsewhere)."""


def digest_identifier(digest: str) -> bytes:
    """Return the encoded AlgorithmIdentifier of a digest, without parameters."""
    return _identifier(_DIGEST_OIDS[digest], b"")


def signature_identifier(key: str, digest: str) -> bytes:
    """Return the encoded AlgorithmIdentifier for a key type ("rsa" or "ec") with a digest."""
    return _identifier(_RSA_OIDS[digest], _NULL) if key == "rsa" else _identifier(_ECDSA_OIDS[digest], b"")


def key_type(key: PublicKey | PrivateKey) -> str:
    """Return "rsa" or "ec"."""
    return _kind_of(type(key))


@lru_cache(maxsize=16)
def _kind_of(key_class: type) -> str:
    """Remember what a class of the library is: asking its abstract bases costs as much as reading a name."""
    return "rsa" if issubclass(key_class, (rsa.RSAPublicKey, rsa.RSAPrivateKey)) else "ec"


def key_problem(key: object) -> str | None:
    """Say what the policy has against a public key, or return None."""
    if isinstance(key, rsa.RSAPublicKey):
        if not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
            return f"an RSA key of {key.key_size} bits, wanted {RSA_BITS_MIN} to {RSA_BITS_MAX}"
        exponent = key.public_numbers().e
        return None if exponent == RSA_EXPONENT else f"an RSA key with exponent {exponent}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return None if key.curve.name in _CURVES else f"an EC key on curve {key.curve.name}"
    return f"a key of type {type(key).__name__}"


def sign(private_key: PrivateKey, data: bytes, digest: str = "sha256") -> bytes:
    """Sign deterministically: RSA PKCS #1 v1.5, or ECDSA as in RFC 6979."""
    if isinstance(private_key, rsa.RSAPrivateKey):
        return private_key.sign(data, _PKCS1, _HASHES[digest])
    return private_key.sign(data, _ECDSA[digest])


def verify(public_key: PublicKey, signature: bytes, data: bytes, digest: str) -> bool:
    """Tell whether a signature over `data` is good; callers turn False into their own refusal at once."""
    try:
        if key_type(public_key) == "rsa":
            cast("rsa.RSAPublicKey", public_key).verify(signature, data, _PKCS1, _HASHES[digest])
        else:
            cast("ec.EllipticCurvePublicKey", public_key).verify(signature, data, _ECDSA[digest])
    except InvalidSignature:
        return False
    return True


def verify_pss(public_key: rsa.RSAPublicKey, signature: bytes, data: bytes, digest: str) -> bool:
    """Tell whether an RSAPSS signature is good, with MGF1 of the same hash and a salt of any length."""
    scheme = padding.PSS(padding.MGF1(_HASHES[digest]), padding.PSS.AUTO)
    try:
        public_key.verify(signature, data, scheme, _HASHES[digest])
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=256)
def load_private_key(der: bytes) -> PrivateKey:
    """Load an unencrypted PKCS #8 key; loaded keys are kept outside objects, since they cannot be pickled."""
    return cast("PrivateKey", serialization.load_der_private_key(der, password=None))
