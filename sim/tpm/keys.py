"""Keys of the TPM: primaries derived from a hierarchy's seed, object names, and signatures.

Models: P-256 primary keys as a function of seed, template and sensitive data alone; names and qualified names;
ECDSA signatures, made deterministic (RFC 6979) so that a run repeats bit for bit.
Leaves out: RSA, keyed-hash and symmetric primaries, other curves, child keys.  The derivation is the library's KDFa
over the template's name; real vendors each have their own, so the same seed gives other keys on other makes.
Sources: TPM 2.0 Library part 1, 11.4.10 (KDFa), 16 (names), 27.6 (primary keys); FIPS 186-5 A.2.1 (scalars).
"""

from __future__ import annotations

from functools import lru_cache

import attrs
from attrs import frozen
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from sim.tpm.constants import TPM_ALG
from sim.tpm.crypto.kdf import kdf_a
from sim.tpm.hashing import hash_bytes
from sim.tpm.wire import TPMS_ECC_POINT, TPMS_SIGNATURE_ECC, TPMT_PUBLIC, TPMT_SIGNATURE

__all__ = ["LoadedObject", "derive_primary", "kdf_a", "name_of", "qualified_name", "sign_ecdsa"]

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_P256_BYTES = 32
_EXTRA_BITS = 64  # of FIPS 186-5 A.2.1, so that the reduction has no bias to speak of
_HASHES: dict[int, hashes.HashAlgorithm] = {
    TPM_ALG.SHA1.value: hashes.SHA1(),  # noqa: S303 - a bank and scheme of the TPM
    TPM_ALG.SHA256.value: hashes.SHA256(),
    TPM_ALG.SHA384.value: hashes.SHA384(),
    TPM_ALG.SHA512.value: hashes.SHA512(),
}


@frozen(kw_only=True)
class LoadedObject:
    """An object in a transient slot; `private` is the scalar of its key."""

    public: TPMT_PUBLIC
    name: bytes
    qualified_name: bytes
    hierarchy: int
    auth: bytes
    private: bytes


def derive_primary(seed: bytes, template: TPMT_PUBLIC, data: bytes) -> tuple[TPMT_PUBLIC, bytes]:
    """Return the public area and the private scalar of the P-256 primary that belongs to seed, template and data."""
    context = name_of(template) + hash_bytes(TPM_ALG.SHA256, data)
    private, x, y = _p256_key(kdf_a(TPM_ALG.SHA256, seed, b"PRIMARY", context, _P256_BYTES * 8 + _EXTRA_BITS))
    return attrs.evolve(template, unique=TPMS_ECC_POINT(x=x, y=y)), private


def name_of(public: TPMT_PUBLIC) -> bytes:
    """Return the name of an object: its name algorithm and the digest of its public area."""
    return public.nameAlg.to_bytes(2, "big") + hash_bytes(public.nameAlg, public.encode())


def qualified_name(parent: bytes, name: bytes) -> bytes:
    """Return the qualified name of an object under `parent` (a hierarchy's handle, or a qualified name)."""
    hash_alg = int.from_bytes(name[:2], "big")
    return name[:2] + hash_bytes(hash_alg, parent + name)


def sign_ecdsa(private: bytes, hash_alg: int, message: bytes) -> TPMT_SIGNATURE:
    """Sign `message` with a P-256 scalar."""
    scheme = ec.ECDSA(_HASHES[hash_alg], deterministic_signing=True)
    r, s = decode_dss_signature(_private_key(private).sign(message, scheme))
    return TPMT_SIGNATURE(
        sigAlg=TPM_ALG.ECDSA.value,
        signature=TPMS_SIGNATURE_ECC(
            hash=hash_alg,
            signatureR=r.to_bytes(_P256_BYTES, "big"),
            signatureS=s.to_bytes(_P256_BYTES, "big"),
        ),
    )


@lru_cache(maxsize=256)
def _p256_key(material: bytes) -> tuple[bytes, bytes, bytes]:
    scalar = int.from_bytes(material, "big") % (_P256_ORDER - 1) + 1
    private = scalar.to_bytes(_P256_BYTES, "big")
    point = _private_key(private).public_key().public_numbers()
    return private, point.x.to_bytes(_P256_BYTES, "big"), point.y.to_bytes(_P256_BYTES, "big")


@lru_cache(maxsize=256)
def _private_key(private: bytes) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(private, "big"), ec.SECP256R1())
