"""Hashing that can stop and go on: the state of a SHA digest as plain bytes, which `hashlib` does not give away.

Models: SHA-1, SHA-256, SHA-384 and SHA-512 over any number of pieces.  As long as all pieces fit into a small buffer,
`hashlib` does the work at the end; beyond it, whole blocks are compressed here and only the state is kept.
Leaves out: speed on long inputs (about 1 MB/s).
Source: FIPS 180-4, chapters 4 to 6; the constants are computed from their definition there.
"""

from __future__ import annotations

from math import isqrt

from attrs import evolve, frozen

from sim.tpm.constants import HASH_BYTES, TPM_ALG
from sim.tpm.hashing import hash_bytes

__all__ = ["HashState"]

BUFFER_BYTES_MAX = 4096
"""Pieces are kept as they are up to this size."""

_SHA1, _SHA256 = TPM_ALG.SHA1.value, TPM_ALG.SHA256.value
_M32, _M64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


@frozen(kw_only=True)
class HashState:
    """A digest under way: compressed words (empty before the first block), bytes compressed, bytes still waiting."""

    hash_alg: int
    words: tuple[int, ...] = ()
    count: int = 0
    pending: bytes = b""

    def update(self, data: bytes) -> HashState:
        """Return the state after more data."""
        grown = evolve(self, pending=self.pending + data)
        return grown.compact() if len(grown.pending) > BUFFER_BYTES_MAX else grown

    def compact(self) -> HashState:
        """Return the same state with less than a block waiting."""
        size = block_bytes(self.hash_alg)
        whole = len(self.pending) // size * size
        words = _absorb(self.hash_alg, self.words, self.pending[:whole]) if whole else self.words
        return evolve(self, words=words, count=self.count + whole, pending=self.pending[whole:])

    def digest(self) -> bytes:
        """Return the digest of all data so far."""
        if not self.words:
            return hash_bytes(self.hash_alg, self.pending)
        size = block_bytes(self.hash_alg)
        bits = (self.count + len(self.pending)) * 8
        tail = self.pending + b"\x80"
        tail += bytes((-len(tail) - size // 8) % size) + bits.to_bytes(size // 8, "big")
        words = _absorb(self.hash_alg, self.words, tail)
        width = word_bytes(self.hash_alg)
        return b"".join(word.to_bytes(width, "big") for word in words)[: HASH_BYTES[self.hash_alg]]


def block_bytes(hash_alg: int) -> int:
    """Return the size of a block of a hash."""
    return 64 if hash_alg in (_SHA1, _SHA256) else 128


def word_bytes(hash_alg: int) -> int:
    """Return the size of a word of a hash's state."""
    return block_bytes(hash_alg) // 16


def _absorb(hash_alg: int, words: tuple[int, ...], data: bytes) -> tuple[int, ...]:
    size, width = block_bytes(hash_alg), word_bytes(hash_alg)
    state = words or _INITIAL[hash_alg]
    for at in range(0, len(data), size):
        schedule = [int.from_bytes(data[i : i + width], "big") for i in range(at, at + size, width)]
        if hash_alg == _SHA1:
            state = _compress_sha1(state, schedule)
        else:
            state = _compress_sha2(state, schedule, *(_SHA2_32 if width == 4 else _SHA2_64))
    return state


def _compress_sha1(state: tuple[int, ...], schedule: list[int]) -> tuple[int, ...]:
    for i in range(16, 80):
        word = schedule[i - 3] ^ schedule[i - 8] ^ schedule[i - 14] ^ schedule[i - 16]
        schedule.append((word << 1 | word >> 31) & _M32)
    a, b, c, d, e = state
    for i, word in enumerate(schedule):
        if i < 20:
            f, k = b & c | ~b & d, 0x5A827999
        elif i < 40:
            f, k = b ^ c ^ d, 0x6ED9EBA1
        elif i < 60:
            f, k = b & c | b & d | c & d, 0x8F1BBCDC
        else:
            f, k = b ^ c ^ d, 0xCA62C1D6
        new = (a << 5 | a >> 27) + (f & _M32) + e + k + word & _M32
        a, b, c, d, e = new, a, (b << 30 | b >> 2) & _M32, c, d
    return tuple(x + y & _M32 for x, y in zip(state, (a, b, c, d, e), strict=True))


_Rotations = tuple[tuple[int, int, int], ...]


def _compress_sha2(  # noqa: PLR0917 - the two word sizes differ in the last four
    state: tuple[int, ...],
    schedule: list[int],
    width: int,
    mask: int,
    constants: tuple[int, ...],
    rotations: _Rotations,
) -> tuple[int, ...]:
    (p0, q0, s0), (p1, q1, s1), (u0, v0, w0), (u1, v1, w1) = rotations
    for i in range(16, len(constants)):
        x, y = schedule[i - 15], schedule[i - 2]
        low = (x >> p0 | x << width - p0) ^ (x >> q0 | x << width - q0) ^ x >> s0
        high = (y >> p1 | y << width - p1) ^ (y >> q1 | y << width - q1) ^ y >> s1
        schedule.append((low & mask) + (high & mask) + schedule[i - 16] + schedule[i - 7] & mask)
    a, b, c, d, e, f, g, h = state
    for constant, word in zip(constants, schedule, strict=True):
        big = (e >> u1 | e << width - u1) ^ (e >> v1 | e << width - v1) ^ (e >> w1 | e << width - w1)
        first = h + (big & mask) + (e & f ^ ~e & g) + constant + word
        big = (a >> u0 | a << width - u0) ^ (a >> v0 | a << width - v0) ^ (a >> w0 | a << width - w0)
        second = (big & mask) + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = first + second & mask, a, b, c, d + first & mask, e, f, g
    return tuple(x + y & mask for x, y in zip(state, (a, b, c, d, e, f, g, h), strict=True))


def _primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found


def _cube_root(number: int) -> int:
    root = 1 << (number.bit_length() + 2) // 3
    while True:
        better = (2 * root + number // (root * root)) // 3
        if better >= root:
            return root
        root = better


_PRIMES = _primes(80)
_ROOTS = tuple(isqrt(prime << 128) & _M64 for prime in _PRIMES[:16])
_K64 = tuple(_cube_root(prime << 192) & _M64 for prime in _PRIMES)
_SHA2_32 = (
    32,
    _M32,
    tuple(k >> 32 for k in _K64[:64]),
    ((7, 18, 3), (17, 19, 10), (2, 13, 22), (6, 11, 25)),
)
_SHA2_64 = (64, _M64, _K64, ((1, 8, 7), (19, 61, 6), (28, 34, 39), (14, 18, 41)))
_INITIAL = {
    _SHA1: (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0),
    _SHA256: tuple(root >> 32 for root in _ROOTS[:8]),
    TPM_ALG.SHA384.value: _ROOTS[8:],
    TPM_ALG.SHA512.value: _ROOTS[:8],
}
