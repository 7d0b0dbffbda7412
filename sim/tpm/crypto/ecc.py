"""Elliptic curves: points, keys from seed material, and ECDSA with deterministic nonces.

Models: addition and multiplication of points on every curve of `sim.tpm.crypto.curves`, in Jacobian coordinates; key
pairs as a function of material; ECDSA after RFC 6979.  For the NIST curves a library does the work where it can.
Leaves out: resistance to side channels; the schemes of more than one message (ECDAA, two-phase exchange).
Sources: SEC 1, chapters 2 to 4; FIPS 186-5, A.2.1 (extra bits) and 6; RFC 6979; TPM 2.0 Library part 1, annex C.
"""

from __future__ import annotations

import hmac
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)

from sim.tpm.constants import HASH_BYTES, TPM_ALG, TPM_ECC
from sim.tpm.crypto.curves import CURVES, Curve
from sim.tpm.crypto.kdf import HASH_NAMES

__all__ = [
    "CURVES",
    "EXTRA_BITS",
    "Curve",
    "Point",
    "add",
    "is_on_curve",
    "multiply",
    "negative",
    "nonce_rfc6979",
    "private_scalar",
    "public_point",
    "shared_x",
    "sign_ecdsa",
    "verify_ecdsa",
]

Point = tuple[int, int]
"""Affine coordinates; the point at infinity is None."""

EXTRA_BITS = 64
"""Bits of key material beyond those of the order, so that the reduction has no bias to speak of."""

_LIBRARY_CURVES: dict[int, ec.EllipticCurve] = {
    TPM_ECC.NIST_P192.value: ec.SECP192R1(),
    TPM_ECC.NIST_P224.value: ec.SECP224R1(),
    TPM_ECC.NIST_P256.value: ec.SECP256R1(),
    TPM_ECC.NIST_P384.value: ec.SECP384R1(),
    TPM_ECC.NIST_P521.value: ec.SECP521R1(),
}
_LIBRARY_HASHES: dict[int, hashes.HashAlgorithm] = {
    TPM_ALG.SHA1.value: hashes.SHA1(),  # noqa: S303 - a scheme of the TPM
    TPM_ALG.SHA256.value: hashes.SHA256(),
    TPM_ALG.SHA384.value: hashes.SHA384(),
    TPM_ALG.SHA512.value: hashes.SHA512(),
}
_WINDOW_BITS = 4
_Jacobian = tuple[int, int, int]
_INFINITY: _Jacobian = (1, 1, 0)


def private_scalar(curve: Curve, material: bytes) -> int:
    """Return the private scalar, 1 to n - 1, that belongs to `material` (`EXTRA_BITS` more than the order has)."""
    return int.from_bytes(material, "big") % (curve.n - 1) + 1


@lru_cache(maxsize=1024)
def public_point(curve: Curve, private: int) -> Point:
    """Return the public point of a private scalar in 1 to n - 1."""
    if curve.curve_id in _LIBRARY_CURVES:
        numbers = _library_key(curve.curve_id, private).public_key().public_numbers()
        return numbers.x, numbers.y
    point = multiply(curve, private, (curve.gx, curve.gy))
    assert point is not None
    return point


def is_on_curve(curve: Curve, point: Point) -> bool:
    """Tell whether both coordinates are in the field and satisfy the equation of the curve."""
    x, y = point
    inside = 0 <= x < curve.p and 0 <= y < curve.p
    return inside and (y * y - (x * x + curve.a) * x - curve.b) % curve.p == 0


def negative(curve: Curve, point: Point | None) -> Point | None:
    """Return the point with which `point` adds to infinity."""
    return None if point is None else (point[0], -point[1] % curve.p)


def add(curve: Curve, left: Point | None, right: Point | None) -> Point | None:
    """Return the sum of two points of the curve."""
    return _affine(curve, _add(curve, _jacobian(left), _jacobian(right)))


def multiply(curve: Curve, factor: int, point: Point | None) -> Point | None:
    """Return `factor` times a point of the curve."""
    factor %= curve.n
    table = [_INFINITY, _jacobian(point)]
    while len(table) < 1 << _WINDOW_BITS:
        table.append(_add(curve, table[-1], table[1]))
    result = _INFINITY
    for shift in range((curve.n.bit_length() - 1) // _WINDOW_BITS * _WINDOW_BITS, -1, -_WINDOW_BITS):
        for _ in range(_WINDOW_BITS):
            result = _double(curve, result)
        result = _add(curve, result, table[factor >> shift & ((1 << _WINDOW_BITS) - 1)])
    return _affine(curve, result)


def shared_x(curve: Curve, factor: int, point: Point) -> int | None:
    """Return the first coordinate of `factor` times a point, all that an exchange of keys needs; None at infinity."""
    factor %= curve.n
    if curve.curve_id in _LIBRARY_CURVES and factor and is_on_curve(curve, point):
        theirs = ec.EllipticCurvePublicNumbers(*point, _LIBRARY_CURVES[curve.curve_id]).public_key()
        return int.from_bytes(_library_key(curve.curve_id, factor).exchange(ec.ECDH(), theirs), "big")
    common = multiply(curve, factor, point)
    return None if common is None else common[0]


def _jacobian(point: Point | None) -> _Jacobian:
    return _INFINITY if point is None else (*point, 1)


def _affine(curve: Curve, point: _Jacobian) -> Point | None:
    x, y, z = point
    if z == 0:
        return None
    inverse = pow(z, -1, curve.p)
    square = inverse * inverse % curve.p
    return x * square % curve.p, y * square * inverse % curve.p


def _double(curve: Curve, point: _Jacobian) -> _Jacobian:
    x, y, z = point
    p = curve.p
    if z == 0 or y == 0:
        return _INFINITY
    y2 = y * y % p
    s = 4 * x * y2 % p
    m = (3 * x * x + curve.a * pow(z, 4, p)) % p
    x3 = (m * m - 2 * s) % p
    return x3, (m * (s - x3) - 8 * y2 * y2) % p, 2 * y * z % p


def _add(curve: Curve, left: _Jacobian, right: _Jacobian) -> _Jacobian:
    if left[2] == 0:
        return right
    if right[2] == 0:
        return left
    p = curve.p
    (x1, y1, z1), (x2, y2, z2) = left, right
    z1_2, z2_2 = z1 * z1 % p, z2 * z2 % p
    u1, u2 = x1 * z2_2 % p, x2 * z1_2 % p
    s1, s2 = y1 * z2_2 * z2 % p, y2 * z1_2 * z1 % p
    if u1 == u2:
        return _double(curve, left) if s1 == s2 else _INFINITY
    h, r = u2 - u1, s2 - s1
    h2 = h * h % p
    h3, v = h * h2 % p, u1 * h2 % p
    x3 = (r * r - h3 - 2 * v) % p
    return x3, (r * (v - x3) - s1 * h3) % p, h * z1 * z2 % p


def nonce_rfc6979(curve: Curve, private: int, hash_alg: int, digest: bytes, extra: bytes = b"") -> int:
    """Return the nonce of RFC 6979 for a signature; `extra` separates nonces of other uses (3.6 there)."""
    name = HASH_NAMES[hash_alg]
    width = (curve.n.bit_length() + 7) // 8
    seed = (
        private.to_bytes(width, "big") + (_truncated(curve, digest) % curve.n).to_bytes(width, "big") + extra
    )
    value, key = b"\1" * HASH_BYTES[hash_alg], bytes(HASH_BYTES[hash_alg])
    for step in (b"\0", b"\1"):
        key = hmac.digest(key, value + step + seed, name)
        value = hmac.digest(key, value, name)
    while True:
        stream = b""
        while len(stream) < width:
            value = hmac.digest(key, value, name)
            stream += value
        nonce = int.from_bytes(stream[:width], "big") >> (8 * width - curve.n.bit_length())
        if 1 <= nonce < curve.n:
            return nonce
        key = hmac.digest(key, value + b"\0", name)
        value = hmac.digest(key, value, name)


def sign_ecdsa(curve: Curve, private: int, hash_alg: int, digest: bytes) -> tuple[int, int]:
    """Sign a digest of `hash_alg`; the same input gives the same signature."""
    if curve.curve_id in _LIBRARY_CURVES:
        scheme = ec.ECDSA(Prehashed(_LIBRARY_HASHES[hash_alg]), deterministic_signing=True)
        return decode_dss_signature(_library_key(curve.curve_id, private).sign(digest, scheme))
    nonce = nonce_rfc6979(curve, private, hash_alg, digest)
    r = public_point(curve, nonce)[0] % curve.n
    s = pow(nonce, -1, curve.n) * (_truncated(curve, digest) + r * private) % curve.n
    return r, s


def verify_ecdsa(curve: Curve, point: Point, digest: bytes, r: int, s: int) -> bool:
    """Tell whether (r, s) signs `digest` (of any size) under a point of the curve."""
    if not (0 < r < curve.n and 0 < s < curve.n):
        return False
    hash_alg = next((alg for alg, size in HASH_BYTES.items() if size == len(digest)), None)
    if hash_alg is not None and curve.curve_id in _LIBRARY_CURVES:
        return _library_verifies(curve, point, hash_alg, digest, encode_dss_signature(r, s))
    inverse = pow(s, -1, curve.n)
    found = add(
        curve,
        multiply(curve, _truncated(curve, digest) * inverse, (curve.gx, curve.gy)),
        multiply(curve, r * inverse, point),
    )
    return found is not None and found[0] % curve.n == r


def _library_verifies(curve: Curve, point: Point, hash_alg: int, digest: bytes, signature: bytes) -> bool:
    try:
        key = ec.EllipticCurvePublicNumbers(*point, _LIBRARY_CURVES[curve.curve_id]).public_key()
        key.verify(signature, digest, ec.ECDSA(Prehashed(_LIBRARY_HASHES[hash_alg])))
    except (InvalidSignature, ValueError):  # the second: no point of the curve
        return False
    return True


def _truncated(curve: Curve, digest: bytes) -> int:
    """Return the leftmost bits of a digest, as many as the order has."""
    return int.from_bytes(digest, "big") >> max(0, len(digest) * 8 - curve.n.bit_length())


@lru_cache(maxsize=512)
def _library_key(curve_id: int, private: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(private, _LIBRARY_CURVES[curve_id])
