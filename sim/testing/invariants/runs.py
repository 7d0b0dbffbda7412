"""Invariants of placement and of whole runs.

Models nothing.  Leaves out the statistics of placement: one layout cannot show them.

Sources: the numbers are those of `sim.testing.invariants`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import log2

from attrs import frozen

from sim.testing.invariants.violation import InvariantViolation

__all__ = ["PlacedRegion", "check_determinism", "check_layout"]

_BITS_TOLERANCE = 1e-6
_HALF = 1 << 63


@frozen(kw_only=True)
class PlacedRegion:
    """A region that was placed at random: where, with which guards around it, and from which window.

    `entropy_bits` is what its maker claims, `half` ("lower" or "upper") where its ring has to be; None claims nothing.
    `reachable` is the number of bases that its maker draws from, where that is fewer than the window has.
    """

    name: str
    base: int
    size_bytes: int
    window_first: int
    window_end: int
    align_bytes: int = 4096
    guard_bytes: int = 0
    half: str | None = None
    entropy_bits: float | None = None
    reachable: int | None = None

    @property
    def slots(self) -> int:
        """The number of bases at which it could be."""
        return self.room if self.reachable is None else self.reachable

    @property
    def room(self) -> int:
        """The number of bases that its window has."""
        first = -(-self.window_first // self.align_bytes)
        last = (self.window_end - self.size_bytes) // self.align_bytes
        return max(0, last - first + 1)


def check_layout(
    regions: Sequence[PlacedRegion], again: Sequence[PlacedRegion] | None = None, *, address_bits: int = 48
) -> None:
    """Invariant 17: regions and their guards are disjoint, aligned, canonical, inside their window and in their half.

    A claimed entropy is the logarithm of the reachable bases; `again`, a layout from the same seed, is the same.
    """
    for region in regions:
        end = region.base + region.size_bytes
        where = f"{region.name} at {region.base:#x}, {region.size_bytes:#x} bytes,"
        if region.base % region.align_bytes:
            raise InvariantViolation(17, f"{where} is not aligned to {region.align_bytes:#x}")
        if not region.window_first <= region.base or end > region.window_end:
            window = f"{region.window_first:#x} to {region.window_end:#x}"
            raise InvariantViolation(17, f"{where} is outside its window {window}")
        if not _canonical(region.base, address_bits) or not _canonical(end - 1, address_bits):
            raise InvariantViolation(17, f"{where} is not canonical")
        if region.half is not None and region.half != ("upper" if region.base >= _HALF else "lower"):
            raise InvariantViolation(17, f"{where} is not in the {region.half} half, which is its ring's")
        if region.entropy_bits is not None:
            _check_entropy(region, where)
    for low, high in pairwise(sorted(regions, key=_base_of)):
        if low.base + low.size_bytes + max(low.guard_bytes, high.guard_bytes) > high.base:
            raise InvariantViolation(
                17, f"{low.name} at {low.base:#x} and {high.name} at {high.base:#x} overlap"
            )
    if again is not None and list(again) != list(regions):
        raise InvariantViolation(17, "the same seed gave another layout")


def check_determinism(
    run: Callable[[], object], other: Callable[[], object] | None = None, *, times: int = 2
) -> None:
    """Invariant 22: the same seed and script give the same digest each time, and `other`, a second way, gives it too."""
    first = run()
    for _ in range(times - 1):
        found = run()
        if found != first:
            raise InvariantViolation(
                22, f"one run gave {first!r:.80}, another of the same seed {found!r:.80}"
            )
    if other is not None:
        found = other()
        if found != first:
            raise InvariantViolation(22, f"one way gives {first!r:.80}, the other {found!r:.80}")


def _check_entropy(region: PlacedRegion, where: str) -> None:
    if not region.slots or region.entropy_bits is None:
        raise InvariantViolation(17, f"{where} fits nowhere in its window")
    if region.slots > region.room:
        text = f"{where} is drawn from {region.slots} bases, and its window has {region.room}"
        raise InvariantViolation(17, text)
    if abs(region.entropy_bits - log2(region.slots)) > _BITS_TOLERANCE:
        text = f"{where} claims {region.entropy_bits} bits, and has {region.slots} bases"
        raise InvariantViolation(17, text)


def _canonical(address: int, address_bits: int) -> bool:
    upper = address >> (address_bits - 1)
    return upper in (0, (1 << (65 - address_bits)) - 1)


def _base_of(region: PlacedRegion) -> int:
    return region.base
