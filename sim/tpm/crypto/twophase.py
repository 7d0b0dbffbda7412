"""Key exchange in which each party has a static and an ephemeral key.

Models: full unified model (two Diffie-Hellman secrets) MQV and SM2 (one secret of all four keys).
Leaves out: the derivation of keys from the secrets.
Sources: TPM 2.0 Library part 1, annex C.6; SP 800-56A rev. 3, 5.7.2.3 (MQV); GM/T 0003.3 (SM2).
"""

from __future__ import annotations

from sim.tpm.crypto.ecc import Curve, Point, add, multiply, public_point

__all__ = ["exchange_ecdh", "exchange_mqv", "exchange_sm2"]


def exchange_ecdh(
    curve: Curve, static: int, ephemeral: int, other_static: Point, other_ephemeral: Point
) -> tuple[Point | None, Point | None]:
    """Return the secret of the static keys and that of the ephemeral keys."""
    return multiply(curve, static, other_static), multiply(curve, ephemeral, other_ephemeral)


def exchange_mqv(
    curve: Curve, static: int, ephemeral: int, other_static: Point, other_ephemeral: Point
) -> Point | None:
    """Return the MQV secret."""
    own = _associate(curve, public_point(curve, ephemeral)[0])
    signature = (ephemeral + own * static) % curve.n
    other = _associate(curve, other_ephemeral[0])
    return multiply(curve, signature, add(curve, other_ephemeral, multiply(curve, other, other_static)))


def exchange_sm2(
    curve: Curve, static: int, ephemeral: int, other_static: Point, other_ephemeral: Point
) -> Point | None:
    """Return the secret of the SM2 exchange: like MQV, but the associate value weighs the ephemeral keys."""
    own = _associate(curve, public_point(curve, ephemeral)[0], 1)
    signature = (static + own * ephemeral) % curve.n
    other = _associate(curve, other_ephemeral[0], 1)
    return multiply(curve, signature, add(curve, other_static, multiply(curve, other, other_ephemeral)))


def _associate(curve: Curve, x: int, shorter: int = 0) -> int:
    """Return the half of an x coordinate that stands for its point, with the bit above it set."""
    half = (curve.n.bit_length() + 1) // 2 - shorter
    return x % (1 << half) + (1 << half)
