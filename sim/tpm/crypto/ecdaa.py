"""The rarer signatures: the two halves of ECDAA, EC-Schnorr, and SM2.

Models: the points that Commit computes, the second half of an ECDAA signature, EC-Schnorr and SM2.
Leaves out: the credentials of an anonymous attestation scheme, which live outside the TPM.
Sources: TPM 2.0 Library part 1, annex C.4 (split signing), C.8 (ECDAA), C.4.3 (EC-Schnorr); GM/T 0003.2 (SM2).
"""

from __future__ import annotations

from sim.tpm.crypto.ecc import Curve, Point, add, multiply, negative, nonce_rfc6979, public_point
from sim.tpm.hashing import hash_bytes

__all__ = ["commit_points", "sign_ecdaa", "sign_schnorr", "sign_sm2", "verify_schnorr", "verify_sm2"]


def commit_points(
    curve: Curve, private: int, nonce: int, first: Point | None, second: Point | None
) -> tuple[Point | None, Point | None, Point | None]:
    """Return K = [private]second, L = [nonce]second and E = [nonce]first (the base point if both are absent)."""
    k = multiply(curve, private, second) if second is not None else None
    ell = multiply(curve, nonce, second) if second is not None else None
    if first is not None:
        return k, ell, multiply(curve, nonce, first)
    return k, ell, public_point(curve, nonce) if second is None else None


def sign_ecdaa(  # noqa: PLR0917 - what the scheme takes
    curve: Curve, private: int, nonce: int, salt: bytes, hash_alg: int, digest: bytes
) -> int:
    """Return s = nonce + T * private, T being the digest of `salt` and `digest`."""
    t = int.from_bytes(hash_bytes(hash_alg, salt + digest), "big") % curve.n
    return (nonce + t * private) % curve.n


def sign_schnorr(curve: Curve, private: int, hash_alg: int, digest: bytes) -> tuple[int, int]:
    """Sign a digest by EC-Schnorr, with a nonce that key and digest decide."""
    nonce = nonce_rfc6979(curve, private, hash_alg, digest, b"ECSCHNORR")
    r = _challenge(curve, public_point(curve, nonce), hash_alg, digest)
    return r, (nonce + r * private) % curve.n


def verify_schnorr(  # noqa: PLR0917 - what the scheme takes
    curve: Curve, public: Point, hash_alg: int, digest: bytes, r: int, s: int
) -> bool:
    """Tell whether (r, s) signs `digest` by EC-Schnorr."""
    if not (0 < r < curve.n and 0 < s < curve.n):
        return False
    found = add(curve, multiply(curve, s, (curve.gx, curve.gy)), negative(curve, multiply(curve, r, public)))
    return found is not None and _challenge(curve, found, hash_alg, digest) == r


def sign_sm2(curve: Curve, private: int, hash_alg: int, digest: bytes) -> tuple[int, int]:
    """Sign a digest by SM2, with a nonce that key and digest decide."""
    nonce = nonce_rfc6979(curve, private, hash_alg, digest, b"SM2")
    r = (int.from_bytes(digest, "big") + public_point(curve, nonce)[0]) % curve.n
    s = pow(1 + private, -1, curve.n) * (nonce - r * private) % curve.n
    return r, s


def verify_sm2(curve: Curve, public: Point, digest: bytes, r: int, s: int) -> bool:
    """Tell whether (r, s) signs `digest` by SM2."""
    t = (r + s) % curve.n
    if not (0 < r < curve.n and 0 < s < curve.n and t):
        return False
    found = add(curve, multiply(curve, s, (curve.gx, curve.gy)), multiply(curve, t, public))
    return found is not None and (int.from_bytes(digest, "big") + found[0]) % curve.n == r


def _challenge(curve: Curve, point: Point, hash_alg: int, digest: bytes) -> int:
    return int.from_bytes(hash_bytes(hash_alg, curve.encode(point[0]) + digest), "big") % curve.n
