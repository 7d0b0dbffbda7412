"""Chance: named random streams that all come from one seed.

Each subsystem draws from a stream of its own name, so that a new draw in one moves no other.  `Stream` is an
HMAC-DRBG with SHA-256 and serves keys, nonces and addresses; `FastStream` is SplitMix64 and serves workloads.  Both
give the same numbers in every process and Python version, and both pickle.

Leaves out entropy: nothing here is secret.  Sources: NIST SP 800-90A rev. 1, section 10.1.2 (HMAC_DRBG); Steele, Lea
and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (SplitMix64).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["FastStream", "RandomSource", "Rng", "Stream"]

T = TypeVar("T")
Octets = bytes  # inside the classes the name `bytes` means their method

_MASK64 = 2**64 - 1
_BLOCK_BYTES = 256
_GAMMA = 0x9E3779B97F4A7C15
_LN2_Q32 = 2_977_044_472  # ln 2 in units of 2**-32, rounded


class RandomSource:
    """What both generators offer, made from `u64` alone with integers only."""

    __slots__ = ()

    def u64(self) -> int:
        """Draw an integer of 64 uniform bits."""
        raise NotImplementedError

    def bytes(self, count: int) -> Octets:
        """Draw `count` uniform bytes."""
        words = (count + 7) // 8
        return b"".join(self.u64().to_bytes(8, "big") for _ in range(words))[:count]

    def below(self, bound: int) -> int:
        """Draw uniformly from 0 to `bound` - 1, by rejection, without bias; `bound` may be of any size."""
        if bound <= 0:
            raise ValueError(f"bound must be positive, got {bound}")
        bits = (bound - 1).bit_length()
        if bits <= 64:
            shift = 64 - bits
            while True:
                value = self.u64() >> shift
                if value < bound:
                    return value
        count = (bits + 7) // 8
        excess = count * 8 - bits
        while True:
            value = int.from_bytes(self.bytes(count), "big") >> excess
            if value < bound:
                return value

    def between(self, low: int, high: int) -> int:
        """Draw uniformly from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def chance(self, numerator: int, denominator: int) -> bool:
        """Return True with probability numerator / denominator."""
        return self.below(denominator) < numerator

    def choice(self, items: Sequence[T]) -> T:
        """Draw one item of a sequence that is not empty."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in a random order (Fisher and Yates)."""
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = self.below(last + 1)
            result[last], result[other] = result[other], result[last]
        return result

    def exponential_ns(self, mean_ns: int) -> int:
        """Draw from the exponential distribution with mean `mean_ns`, rounded down to whole ns.

        Computed as -ln(u) in 32-bit fixed point, so that no library's logarithm decides an event's time.
        """
        return (mean_ns * _minus_ln_q32(self.u64() | 1)) >> 32


class Stream(RandomSource):
    """HMAC-DRBG with SHA-256 (SP 800-90A), seeded by bytes; draws are served from blocks of 256 bytes."""

    __slots__ = ("_block", "_key", "_offset", "_value")

    def __init__(self, seed: Octets) -> None:
        self._key = bytes(32)
        self._value = b"\x01" * 32
        self._block = b""
        self._offset = 0
        self._update(seed)

    def bytes(self, count: int) -> Octets:
        """Draw `count` uniform bytes."""
        end = self._offset + count
        while end > len(self._block):
            self._block = self._block[self._offset :] + self._generate(max(_BLOCK_BYTES, count))
            end -= self._offset
            self._offset = 0
        drawn = self._block[self._offset : end]
        self._offset = end
        return drawn

    def u64(self) -> int:
        """Draw an integer of 64 uniform bits."""
        return int.from_bytes(self.bytes(8), "big")

    def _update(self, data: Octets) -> None:
        self._key = hmac.digest(self._key, self._value + b"\x00" + data, "sha256")
        self._value = hmac.digest(self._key, self._value, "sha256")
        if data:
            self._key = hmac.digest(self._key, self._value + b"\x01" + data, "sha256")
            self._value = hmac.digest(self._key, self._value, "sha256")

    def _generate(self, count: int) -> Octets:
        blocks = []
        for _ in range((count + 31) // 32):
            self._value = hmac.digest(self._key, self._value, "sha256")
            blocks.append(self._value)
        self._update(b"")
        return b"".join(blocks)[:count]


class FastStream(RandomSource):
    """SplitMix64: 64 bits a step from a 64-bit state; for workloads, never for keys."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK64

    def u64(self) -> int:
        """Draw an integer of 64 uniform bits."""
        self._state = state = (self._state + _GAMMA) & _MASK64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK64
        return state ^ (state >> 31)

    def block(self, count: int) -> npt.NDArray[np.uint64]:
        """Draw `count` words at once: the same ones, in the same order, as so many calls of `u64`."""
        import numpy as np

        steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GAMMA)
        words: npt.NDArray[np.uint64] = steps + np.uint64(self._state)
        self._state = (self._state + count * _GAMMA) & _MASK64
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        words ^= words >> np.uint64(31)
        return words


class Rng:
    """The one root of chance: hands out streams by name.

    The same name gives the same object within one `Rng`, and the same numbers for one seed.  `child` prefixes the
    names, so that two hosts of one scenario draw apart.
    """

    def __init__(self, seed: int | bytes, prefix: str = "") -> None:
        if isinstance(seed, int):
            if not 0 <= seed < 2**256:
                raise ValueError(f"seed must be in 0 .. 2**256 - 1, got {seed}")
            seed = seed.to_bytes(32, "big")
        self._seed = seed
        self._prefix = prefix
        self._streams: dict[str, Stream] = {}
        self._fast: dict[str, FastStream] = {}

    def stream(self, name: str) -> Stream:
        """Return the cryptographic stream of that name."""
        found = self._streams.get(name)
        if found is None:
            found = self._streams[name] = Stream(self._material(name))
        return found

    def fast(self, name: str) -> FastStream:
        """Return the fast stream of that name (another one than `stream` of the same name)."""
        found = self._fast.get(name)
        if found is None:
            digest = sha256(self._material("fast:" + name)).digest()
            found = self._fast[name] = FastStream(int.from_bytes(digest[:8], "big"))
        return found

    def child(self, name: str) -> Rng:
        """Return a new `Rng` whose names all begin with `name` and a slash.

        Each call begins the streams anew: keep the `Rng` where a draw must not repeat, as with nonces.
        """
        return Rng(self._seed, f"{self._prefix}{name}/")

    def _material(self, name: str) -> bytes:
        return self._seed + b"|" + (self._prefix + name).encode()


def _minus_ln_q32(word: int) -> int:
    """Return -ln(word / 2**64) in units of 2**-32, for a positive 64-bit word, to within 64 units.

    The mantissa is split into a leading part of 9 bits, whose logarithm is in a table, and a rest below 1/256, whose
    logarithm is the start of its series; all in integers.
    """
    length = word.bit_length()
    mantissa = word << (64 - length)  # 2**63 .. 2**64 - 1 stands for 1.0 .. 2.0
    lead = mantissa >> 55
    rest = ((mantissa & 0x7F_FFFF_FFFF_FFFF) >> 23) // lead
    series = rest - (rest * rest >> 33) + (rest * rest * rest // 3 >> 64)
    return (65 - length) * _LN2_Q32 - _ln_table()[lead & 0xFF] - series


@lru_cache(maxsize=1)
def _ln_table() -> tuple[int, ...]:
    """Return ln(1 + i/256) in units of 2**-32 for i from 0 to 255, by repeated squaring."""
    return tuple(_log2_q32((256 + index) << 54) * _LN2_Q32 >> 32 for index in range(256))


def _log2_q32(mantissa: int) -> int:
    """Return the binary logarithm of mantissa / 2**62, from 1 to below 2, in units of 2**-32."""
    fraction = 0
    for _ in range(32):
        mantissa = mantissa * mantissa >> 62
        fraction <<= 1
        if mantissa >= 2**63:
            mantissa >>= 1
            fraction |= 1
    return fraction
