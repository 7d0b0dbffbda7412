"""RSA: keys that are a function of their seed material, the raw operations, and the paddings of the TPM.

Models: key search (an interval of odd numbers from a drawn start, sieved, then Fermat and Miller-Rabin tests with
drawn bases), private operations with the Chinese remainder theorem, PKCS #1 v1.5, OAEP and PSS.
Leaves out: secrecy (keys made here are test keys) and resistance to side channels.  A prime found by walking on from a
random start is slightly likelier behind a long gap, which does not matter here and halves the cost.
Sources: RFC 8017; FIPS 186-5, A.1.3 and B.3; TPM 2.0 Library part 1, annex B.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from math import gcd, isqrt

from attrs import frozen
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric import rsa as crypto_rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from sim.core.rng import Stream
from sim.errors import SimBug
from sim.tpm.constants import HASH_BYTES, TPM_ALG
from sim.tpm.crypto.kdf import mgf1, xor_bytes
from sim.tpm.hashing import hash_bytes

__all__ = [
    "DEFAULT_EXPONENT",
    "RsaKey",
    "generate_primes",
    "is_usable_exponent",
    "need_key",
    "oaep_decode",
    "oaep_encode",
    "pkcs1_decode",
    "pkcs1_encode",
    "private_operation",
    "pss_encode",
    "pss_fits",
    "public_operation",
    "rsa_key",
    "rsassa_encode",
]

DEFAULT_EXPONENT = 65537
_SIEVE_LIMIT = 1 << 17
_WINDOW = 1 << 12
"""Odd numbers that are sieved at once; an interval of 8192 numbers holds about 11 primes of 1024 bits."""
_ROUNDS = 4
_BASE_DIGEST = bytes(32)
_DIGEST_INFO = {
    TPM_ALG.SHA1.value: bytes.fromhex("3021300906052b0e03021a05000414"),
    TPM_ALG.SHA256.value: bytes.fromhex("3031300d060960864801650304020105000420"),
    TPM_ALG.SHA384.value: bytes.fromhex("3041300d060960864801650304020205000430"),
    TPM_ALG.SHA512.value: bytes.fromhex("3051300d060960864801650304020305000440"),
}


@frozen(kw_only=True)
class RsaKey:
    """A private key: modulus, exponents and primes, with what the Chinese remainder theorem needs."""

    n: int
    e: int
    d: int
    p: int
    q: int
    d_p: int
    d_q: int
    q_inverse: int

    @property
    def size(self) -> int:
        """Bytes of the modulus."""
        return (self.n.bit_length() + 7) // 8


@lru_cache(maxsize=256)
def rsa_key(n: int, e: int, p: int) -> RsaKey | None:
    """Return the key that has the modulus `n`, the public exponent `e` and the prime `p`, or None if there is none."""
    if p < 3 or n % p:
        return None
    q = n // p
    order = (p - 1) * (q - 1) // gcd(p - 1, q - 1) if q > 1 else 0
    if q < 3 or p == q or gcd(e, order) != 1 or gcd(p, q) != 1:
        return None
    d = pow(e, -1, order)
    return RsaKey(n=n, e=e, d=d, p=p, q=q, d_p=d % (p - 1), d_q=d % (q - 1), q_inverse=pow(q, -1, p))


def is_usable_exponent(e: int) -> bool:
    """Tell whether a key may be made with an exponent: 65537 or a larger prime of 32 bits."""
    return e >= DEFAULT_EXPONENT and all(e % small for small in _primes_to(isqrt(e)))


@lru_cache(maxsize=256)
def generate_primes(material: bytes, bits: int, e: int = DEFAULT_EXPONENT) -> tuple[int, int]:
    """Return the primes p > q of the key of `bits` bits that belongs to `material`; p * q has exactly `bits` bits.

    Takes some 50 ms of real time for 2048 bits, once: the keys that were asked for lately are remembered.
    """
    source = Stream(material)
    half = bits // 2
    p = _prime(source, half, e)
    while True:
        q = _prime(source, half, e)
        if abs(p - q) >> (half - 100):
            return max(p, q), min(p, q)


def _prime(source: Stream, bits: int, e: int) -> int:
    while True:
        start = int.from_bytes(source.bytes(bits // 8), "big") | 3 << (bits - 2) | 1
        for candidate in _unsieved(start):
            if candidate >> bits:
                break
            if (
                gcd(candidate - 1, e) == 1
                and _passes_fermat(candidate)
                and _is_probable_prime(candidate, source)
            ):
                return candidate


def _passes_fermat(number: int) -> bool:
    """Tell whether a ** (number - 1) is 1 modulo `number` for the base a that is a padded digest.

    A public-key operation of the library with the exponent number - 2 computes it: it turns the inverse of a into a
    again, as a signature check demands, exactly when the power is 1.  That is some six times as fast as `pow`, which
    decides the same where the library declines such a key.
    """
    size = (number.bit_length() + 7) // 8
    base = int.from_bytes(rsassa_encode(TPM_ALG.SHA256.value, _BASE_DIGEST, size) or b"\2", "big")
    try:
        key = crypto_rsa.RSAPublicNumbers(number - 2, number).public_key()
        inverse = pow(base, -1, number).to_bytes(size, "big")
        key.verify(inverse, _BASE_DIGEST, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
    except InvalidSignature:
        return False
    except (ValueError, UnsupportedAlgorithm):
        return pow(base, number - 1, number) == 1
    return True


def _unsieved(start: int) -> list[int]:
    """Return the numbers start, start + 2, ... of a window that no small prime divides."""
    flags = bytearray(b"\1") * _WINDOW
    for group, primes in _GROUPS:
        rest = start % group
        for prime in primes:
            # start + 2 * at is divisible where at = -start / 2 (modulo the prime)
            at = -rest * ((prime + 1) >> 1) % prime
            if at < _WINDOW:
                flags[at::prime] = bytes((_WINDOW - 1 - at) // prime + 1)
    found, at = [], flags.find(1)
    while at >= 0:
        found.append(start + 2 * at)
        at = flags.find(1, at + 1)
    return found


def _is_probable_prime(number: int, source: Stream) -> bool:
    """Run Miller-Rabin rounds with drawn bases."""
    odd = number - 1
    twos = (odd & -odd).bit_length() - 1
    odd >>= twos
    for _ in range(_ROUNDS):
        power = pow(source.between(2, number - 2), odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


def _small_primes() -> list[int]:
    flags = bytearray([1]) * _SIEVE_LIMIT
    for number in range(2, isqrt(_SIEVE_LIMIT) + 1):
        if flags[number]:
            flags[number * number :: number] = bytes(len(range(number * number, _SIEVE_LIMIT, number)))
    return [number for number in range(3, _SIEVE_LIMIT) if flags[number]]


def _grouped(primes: list[int]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Put primes together whose product still is a short integer, so that long division happens seldom."""
    groups: list[tuple[int, tuple[int, ...]]] = []
    product = 1
    members: list[int] = []
    for prime in primes:
        if product * prime >> 60:
            groups.append((product, tuple(members)))
            product, members = 1, []
        product *= prime
        members.append(prime)
    return (*groups, (product, tuple(members)))


_SMALL_PRIMES = _small_primes()
_GROUPS = _grouped(_SMALL_PRIMES)


def _primes_to(limit: int) -> list[int]:
    """Return the odd primes up to `limit`, at most 2 ** 16, and 2."""
    return [2, *_SMALL_PRIMES[: bisect_right(_SMALL_PRIMES, limit)]]


def public_operation(n: int, e: int, value: bytes) -> bytes:
    """Return value ** e modulo n, as many bytes as n has."""
    return pow(int.from_bytes(value, "big"), e, n).to_bytes((n.bit_length() + 7) // 8, "big")


def private_operation(key: RsaKey, value: bytes) -> bytes:
    """Return value ** d modulo n, as many bytes as n has; `value` is below n."""
    number = int.from_bytes(value, "big")
    first, second = pow(number, key.d_p, key.p), pow(number, key.d_q, key.q)
    result = second + (first - second) * key.q_inverse % key.p * key.q
    return result.to_bytes(key.size, "big")


def pkcs1_encode(data: bytes, size: int, chance: Stream) -> bytes | None:
    """Pad for RSAES-PKCS1-v1_5; None if `data` is too long."""
    fill = size - len(data) - 3
    if fill < 8:
        return None
    padding = bytearray()
    while len(padding) < fill:
        padding += chance.bytes(fill - len(padding)).replace(b"\0", b"")
    return b"\0\2" + bytes(padding) + b"\0" + data


def pkcs1_decode(padded: bytes) -> bytes | None:
    """Take the padding of RSAES-PKCS1-v1_5 off; None if it is wrong."""
    end = padded.find(b"\0", 2)
    return padded[end + 1 :] if padded[:2] == b"\0\2" and end >= 10 else None


def rsassa_encode(hash_alg: int, digest: bytes, size: int) -> bytes | None:
    """Return the padded DigestInfo of RSASSA-PKCS1-v1_5; None if it does not fit into `size` bytes."""
    info = _DIGEST_INFO[hash_alg] + digest
    fill = size - len(info) - 3
    return b"\0\1" + b"\xff" * fill + b"\0" + info if fill >= 8 else None


def oaep_encode(hash_alg: int, label: bytes, data: bytes, size: int, chance: Stream) -> bytes | None:
    """Pad for RSAES-OAEP with MGF1 over the same hash; `label` comes with its NUL; None if `data` is too long."""
    length = HASH_BYTES[hash_alg]
    fill = size - len(data) - 2 * length - 2
    if fill < 0:
        return None
    block = hash_bytes(hash_alg, label) + bytes(fill) + b"\1" + data
    seed = chance.bytes(length)
    masked = xor_bytes(block, mgf1(hash_alg, seed, len(block)))
    return b"\0" + xor_bytes(seed, mgf1(hash_alg, masked, length)) + masked


def oaep_decode(hash_alg: int, label: bytes, padded: bytes) -> bytes | None:
    """Take the padding of RSAES-OAEP off; None if it is wrong."""
    length = HASH_BYTES[hash_alg]
    masked = padded[1 + length :]
    if len(masked) < length + 1:
        return None
    seed = xor_bytes(padded[1 : 1 + length], mgf1(hash_alg, masked, length))
    block = xor_bytes(masked, mgf1(hash_alg, seed, len(masked)))
    data = block[length:].lstrip(b"\0")
    if padded[0] or block[:length] != hash_bytes(hash_alg, label) or data[:1] != b"\1":
        return None
    return data[1:]


def pss_encode(hash_alg: int, digest: bytes, bits: int, salt: bytes) -> bytes | None:
    """Return the EMSA-PSS encoding for a modulus of `bits` bits; None if the key is too short for hash and salt."""
    size = (bits + 6) // 8
    fill = size - HASH_BYTES[hash_alg] - len(salt) - 2
    if fill < 0:
        return None
    check = hash_bytes(hash_alg, bytes(8) + digest + salt)
    block = bytes(fill) + b"\1" + salt
    masked = xor_bytes(block, mgf1(hash_alg, check, len(block)))
    top = masked[0] & (0xFF >> (8 * size - (bits - 1)))
    return (bytes([top]) + masked[1:] + check + b"\xbc").rjust((bits + 7) // 8, b"\0")


def pss_fits(hash_alg: int, digest: bytes, bits: int, encoded: bytes) -> bool:
    """Tell whether `encoded` is an EMSA-PSS encoding of `digest` with a salt of any length."""
    length, size = HASH_BYTES[hash_alg], (bits + 6) // 8
    encoded, surplus = encoded[len(encoded) - size :], encoded[: len(encoded) - size]
    if size < length + 2 or encoded[-1] != 0xBC or any(surplus):
        return False
    masked, check = encoded[: size - length - 1], encoded[size - length - 1 : -1]
    mask = 0xFF >> (8 * size - (bits - 1))
    if masked[0] & ~mask & 0xFF:
        return False
    block = xor_bytes(masked, mgf1(hash_alg, check, len(masked)))
    block = bytes([block[0] & mask]) + block[1:]
    salted = block.lstrip(b"\0")
    return salted[:1] == b"\1" and check == hash_bytes(hash_alg, bytes(8) + digest + salted[1:])


def need_key(key: RsaKey | None) -> RsaKey:
    """Return a key that was checked when its object was loaded."""
    if key is None:
        raise SimBug("a loaded RSA object has no matching private key")
    return key
