"""Private keys made from a random stream, which `cryptography` cannot do by itself.

Models key generation with a seeded source: P-256, P-384 and P-521 scalars by rejection, RSA by a prime search with
Miller-Rabin tests whose bases come from the stream too.  Leaves out secrecy: a key made here is a test key.

Sources: FIPS 186-5, appendices A.1.3, A.2.2 and B.3 (the tests); SP 800-90A for the stream behind them.
"""

from __future__ import annotations

from math import gcd

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sim.core.rng import RandomSource

__all__ = ["ec_private_key", "rsa_private_key"]

_ORDERS = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": int(
        "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16
    ),
}
_EXPONENT = 65537
_SIEVE_LIMIT = 2000
_ROUNDS = 5


def ec_private_key(source: RandomSource, curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    """Draw an EC private key (default P-256; P-384 too)."""
    curve = curve if curve is not None else ec.SECP256R1()
    return ec.derive_private_key(1 + source.below(_ORDERS[curve.name] - 1), curve)


def rsa_private_key(source: RandomSource, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Search two primes from the stream and return the RSA key of `bits` bits with exponent 65537.

    Takes 0.2 to 1 s of real time for 2048 bits.
    """
    half = bits // 2
    p = _prime(source, half)
    while True:
        q = _prime(source, half)
        if abs(p - q) >> (half - 100):
            break
    p, q = max(p, q), min(p, q)
    d = pow(_EXPONENT, -1, (p - 1) * (q - 1) // gcd(p - 1, q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=d % (p - 1),
        dmq1=d % (q - 1),
        iqmp=pow(q, -1, p),
        public_numbers=rsa.RSAPublicNumbers(_EXPONENT, p * q),
    )
    return numbers.private_key()


def _prime(source: RandomSource, bits: int) -> int:
    while True:
        candidate = int.from_bytes(source.bytes(bits // 8), "big")
        candidate |= (3 << (bits - 2)) | 1
        if any(candidate % small == 0 for small in _SMALL_PRIMES):
            continue
        if (candidate - 1) % _EXPONENT and _probably_prime(candidate, source):
            return candidate


def _probably_prime(number: int, source: RandomSource) -> bool:
    odd = number - 1
    twos = (odd & -odd).bit_length() - 1
    odd >>= twos
    for round_index in range(_ROUNDS):
        base = 2 if round_index == 0 else source.between(2, number - 2)
        power = pow(base, odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


def _sieve(limit: int) -> tuple[int, ...]:
    flags = bytearray([1]) * limit
    for number in range(2, int(limit**0.5) + 1):
        if flags[number]:
            flags[number * number :: number] = bytes(len(range(number * number, limit, number)))
    return tuple(number for number in range(3, limit) if flags[number])


_SMALL_PRIMES = _sieve(_SIEVE_LIMIT)
