"""Where things lie in one address space: regions placed at random in the windows of a profile.

Models: a base drawn uniformly from all aligned places that do not touch an earlier region or its guard pages, or by
another method of `sim.kernel.layout.windows`; from how many places, and which draws it shares with other regions; a
fork, which keeps every address, and a fresh start (exec, reload, reboot), which keeps none.

Leaves out: re-randomisation while running, and physical placement, which is plain lowest-first.

Sources: none, a design of ours; the numbers are in `sim.kernel.layout.releases`.
"""

from __future__ import annotations

from bisect import bisect
from functools import lru_cache
from itertools import pairwise
from math import log2

from attrs import field, frozen

from sim.core.facts import Kind
from sim.core.rng import RandomSource
from sim.core.units import PAGE_BYTES
from sim.errors import SimBug
from sim.kernel.layout.entropy import (
    Draw,
    EntropyError,
    Spread,
    joint_bits,
    spread_of,
    trapezoid_within,
    uniform,
)
from sim.kernel.layout.gaps import Gaps
from sim.kernel.layout.windows import LayoutError, LayoutProfile, Offset, Window

__all__ = ["EntropyLine", "Layout", "Region"]

REGIONS_MAX = 100_000
REDRAWS_MAX = 1_000
"""How often a sum of offsets that hits an occupied place is drawn again."""


@frozen(kw_only=True, order=True)
class Region:
    """One placed region; `draws` are the independent draws of which its base is made, `guard_bytes` lie around it."""

    base: int
    size_bytes: int
    kind: str
    name: str
    guard_bytes: int = field(default=PAGE_BYTES, order=False)
    draws: tuple[Draw, ...] = field(default=(), order=False, repr=False)

    @property
    def end(self) -> int:
        """The first address behind the region."""
        return self.base + self.size_bytes

    @property
    def spread(self) -> Spread:
        """The distribution of the base, as it was when the region was placed."""
        return spread_of(self.draws)

    @property
    def places(self) -> int:
        """The number of bases that were possible when the region was placed."""
        return self.spread.slots


@frozen(kw_only=True)
class EntropyLine:
    """A row of the entropy report; `bits_min` is that of the region that had the fewest places."""

    kind: str
    window_base: int
    window_end: int
    align_bytes: int
    regions: int
    places_empty: int
    bits_empty: float
    bits_min: float | None
    evidence: Kind


class Layout:
    """The address layout of one space, drawn from `stream`."""

    def __init__(self, stream: RandomSource, profile: LayoutProfile) -> None:
        self.profile = profile
        self._stream = stream
        self._regions: dict[str, list[Region]] = {window.kind: [] for window in profile.windows}
        self._gaps: dict[str, Gaps] = {
            window.kind: Gaps(window.base, window.end, window.align_bytes) for window in profile.windows
        }
        self._displacements: dict[str, int] = {}
        self._count = 0

    def place(self, kind: str, size_bytes: int, name: str = "") -> int:
        """Choose a base for a region of `size_bytes` (rounded up to whole pages) and return it."""
        return self.place_region(kind, size_bytes, name).base

    def place_region(self, kind: str, size_bytes: int, name: str = "") -> Region:
        """Place a region of `size_bytes` (rounded up to whole pages) and return it.

        Errors: `LayoutError` when there is no window of that kind, or no room in it.
        """
        size = _whole_pages(size_bytes)
        window = self.profile.window(kind)
        if sum(map(len, self._regions.values())) >= REGIONS_MAX:
            raise LayoutError(f"more than {REGIONS_MAX} regions")
        if window.method == "scatter":
            base, draws = self._scattered(window, kind, size)
        else:
            base, draws = self._in_row(window, size), self._draws_of(window)
        self._count += 1
        region = Region(
            base=base, size_bytes=size, kind=kind, name=name, guard_bytes=window.guard_bytes, draws=draws
        )
        self._enter(window, region)
        return region

    def release(self, base: int) -> Region:
        """Forget the region that begins at `base` and return it."""
        kind, index = self._find(base)
        self._gaps[kind].join(index)
        return self._regions[kind].pop(index)

    def fork(self) -> Layout:
        """Return the layout of a forked child: the same regions, and later ones drawn from the same stream."""
        child = Layout(self._stream, self.profile)
        child._regions = {kind: list(regions) for kind, regions in self._regions.items()}
        child._gaps = {kind: gaps.copy() for kind, gaps in self._gaps.items()}
        child._displacements = dict(self._displacements)
        child._count = self._count
        return child

    def renewed(self) -> Layout:
        """Return an empty layout that goes on with the same stream: every base is drawn anew, as by exec or reload."""
        return Layout(self._stream, self.profile)

    def displacement(self, key: str, offsets: tuple[Offset, ...]) -> int:
        """Return the sum of `offsets` in bytes: drawn the first time that `key` is asked for, kept from then on."""
        found = self._displacements.get(key)
        if found is None:
            found = 0
            for offset in offsets:
                if offset.slots > 1:
                    found += self._stream.below(offset.slots) * offset.step_bytes
            self._displacements[key] = found
        return found

    def region(self, base: int) -> Region:
        """Return the region that begins at `base`."""
        kind, index = self._find(base)
        return self._regions[kind][index]

    def regions(self) -> tuple[Region, ...]:
        """Return all regions in rising order of their bases."""
        every = (region for regions in self._regions.values() for region in regions)
        return tuple(sorted(every, key=_region_base))

    def places(self, kind: str, size_bytes: int = PAGE_BYTES) -> int:
        """Return how many bases are possible for the next region of that size."""
        window = self.profile.window(kind)
        size = _whole_pages(size_bytes)
        if window.method == "scatter":
            gaps = self._gaps[window.kind]
            try:
                return _scatter_spread(window, gaps, size).slots
            except EntropyError:
                return 0
        return spread_of(self._draws_of(window)).slots

    def entropy_bits(self, kind: str, size_bytes: int = PAGE_BYTES) -> float:
        """Return log2 of `places`."""
        return _bits(self.places(kind, size_bytes))

    def joint_bits(self) -> float:
        """Return the entropy of the whole map: each independent draw once, however many regions share it."""
        return joint_bits(draw for region in self.regions() for draw in region.draws)

    def report(self) -> tuple[EntropyLine, ...]:
        """Return the entropy of each window: when empty, and of the worst region placed so far."""
        lines = []
        for window in self.profile.windows:
            regions = self._regions[window.kind]
            empty = _empty_places(window)
            lines.append(
                EntropyLine(
                    kind=window.kind,
                    window_base=window.base,
                    window_end=window.end,
                    align_bytes=window.align_bytes,
                    regions=len(regions),
                    places_empty=empty,
                    bits_empty=_bits(empty),
                    bits_min=_bits(min(region.places for region in regions)) if regions else None,
                    evidence=window.evidence,
                )
            )
        return tuple(lines)

    def check_invariants(self) -> None:
        """Raise `SimBug` unless regions are aligned, inside their windows and apart, guards included."""
        for window in self.profile.windows:
            for region in self._regions[window.kind]:
                if (
                    region.base % window.align_bytes
                    or not window.base <= region.base < region.end <= window.end
                ):
                    raise SimBug(f"region {region} does not fit its window")
        for low, high in pairwise(self.regions()):
            if high.base < low.end + max(low.guard_bytes, high.guard_bytes):
                raise SimBug(f"region {high} touches its neighbour")
        for window in self.profile.windows:
            regions = self._regions[window.kind]
            firsts = [window.base, *(_first_behind(window, region) for region in regions)]
            stops = [*(region.base - window.guard_bytes for region in regions), window.end]
            if self._gaps[window.kind].bounds != list(zip(firsts, stops, strict=True)):
                raise SimBug(f"regions and gaps of the window for {window.kind} differ")
            self._gaps[window.kind].check_invariants()

    # ------------------------------------------------------------ regions on their own

    def _scattered(self, window: Window, kind: str, size: int) -> tuple[int, tuple[Draw, ...]]:
        gaps = self._gaps[window.kind]
        try:
            spread = _scatter_spread(window, gaps, size)
        except EntropyError:
            raise LayoutError(f"no room for {size} bytes in the window for {kind!r}") from None
        if window.offsets:
            base = self._summed(window, gaps.with_room(size))
        else:
            base = gaps.place(self._stream.below(spread.slots), size)
        return base, (Draw(name=f"{kind}#{self._count}", spread=spread, step_bytes=window.align_bytes),)

    def _summed(self, window: Window, gaps: list[tuple[int, int]]) -> int:
        """Draw the sum of the window's offsets until it hits a free place."""
        for _ in range(REDRAWS_MAX):
            base = window.base + sum(
                self._stream.below(offset.slots) * offset.step_bytes for offset in window.offsets
            )
            if any(first <= base <= first + (count - 1) * window.align_bytes for first, count in gaps):
                return base
        raise LayoutError(f"{REDRAWS_MAX} draws for {window.kind!r} hit no free place")

    def _enter(self, window: Window, region: Region) -> None:
        """Put a region in its order, and split the gap in which it lies."""
        regions, gaps = self._regions[window.kind], self._gaps[window.kind]
        index = bisect(regions, region.base, key=_region_base)
        gaps.split(index, region.base - window.guard_bytes, _first_behind(window, region))
        regions.insert(index, region)

    def _find(self, base: int) -> tuple[str, int]:
        """Return the window's kind and the place in its order of the region that begins at `base`."""
        for kind, regions in self._regions.items():
            index = bisect(regions, base, key=_region_base) - 1
            if index >= 0 and regions[index].base == base:
                return kind, index
        raise LayoutError(f"no region begins at {base:#x}")

    # ------------------------------------------------------------ regions in a row

    def _in_row(self, window: Window, size: int) -> int:
        """Return the next base in the row that begins where the window's one draw says."""
        regions = self._in_the_way(window)
        displacement = self.displacement(window.kind, window.offsets)
        if window.method == "down":
            base = _highest_below(regions, window.end - displacement, size, window)
        else:
            followed = self._followed(window)
            start = window.base
            if followed is not None:
                start = followed.end + max(window.guard_bytes, followed.guard_bytes)
            base = _lowest_above(regions, start + displacement, size, window)
        if base < window.base or base + size > window.end:
            raise LayoutError(f"no room for {size} bytes in the window for {window.kind!r}")
        return base

    def _in_the_way(self, window: Window) -> list[Region]:
        """Return what a row has to keep off: its own regions, and those of a window that it follows or is followed by."""
        own = self._regions[window.kind]
        linked = [
            region
            for other in self.profile.windows
            if other.follows in window.kinds or window.follows in other.kinds
            for region in self._regions[other.kind]
        ]
        return sorted((*own, *linked), key=_region_base) if linked else own

    def _followed(self, window: Window) -> Region | None:
        """Return the highest region that the window's regions lie behind; None if there is none, as with ET_EXEC."""
        if not window.follows:
            return None
        rows = self._regions[self.profile.window(window.follows).kind]
        return next((each for each in reversed(rows) if each.kind == window.follows), None)

    def _draws_of(self, window: Window) -> tuple[Draw, ...]:
        """Return the draws that make up any base in a row of this window."""
        followed = self._followed(window)
        inherited = followed.draws if followed is not None else ()
        return (*inherited, *draws_of(window.kind, window.offsets))


def _scatter_spread(window: Window, gaps: Gaps, size: int) -> Spread:
    """Return the distribution of the next base among `gaps`; raises `EntropyError` when there is none."""
    if not window.offsets:
        places = gaps.places(size)
        if not places:
            raise EntropyError("no place is free")
        return uniform(places)
    one, two = (*(offset.slots for offset in window.offsets), 1)[:2]
    ranges = []
    for first, count in gaps.with_room(size):
        at = (first - window.base) // window.align_bytes
        ranges.append(range(at, at + count))
    return trapezoid_within(one, two, ranges)


def _first_behind(window: Window, region: Region) -> int:
    """Return the lowest base that the window allows behind a region."""
    return _up(region.end + window.guard_bytes, window.align_bytes)


@lru_cache(maxsize=256)
def draws_of(key: str, offsets: tuple[Offset, ...]) -> tuple[Draw, ...]:
    """Return the draws that `Layout.displacement(key, offsets)` is the sum of."""
    return tuple(
        Draw(name=f"{key}.{offset.name}", spread=uniform(offset.slots), step_bytes=offset.step_bytes)
        for offset in offsets
    )


def _highest_below(regions: list[Region], top: int, size: int, window: Window) -> int:
    """Return the highest aligned base whose region ends at `top` or lower, apart from the others."""
    for region in reversed(regions):
        base = (top - size) // window.align_bytes * window.align_bytes
        if base >= region.end + window.guard_bytes:
            return base
        top = min(top, region.base - window.guard_bytes)
    return (top - size) // window.align_bytes * window.align_bytes


def _lowest_above(regions: list[Region], bottom: int, size: int, window: Window) -> int:
    """Return the lowest aligned base at `bottom` or higher, apart from the others."""
    for region in regions:
        base = _up(bottom, window.align_bytes)
        if base + size + window.guard_bytes <= region.base:
            return base
        bottom = max(bottom, region.end + window.guard_bytes)
    return _up(bottom, window.align_bytes)


def _empty_places(window: Window) -> int:
    if window.method == "first":
        return 1
    if window.offsets:
        return spread_of(draws_of(window.kind, window.offsets)).slots
    return (window.span_bytes - PAGE_BYTES) // window.align_bytes + 1


def _whole_pages(size_bytes: int) -> int:
    if size_bytes < 1:
        raise SimBug(f"a region of {size_bytes} bytes")
    return _up(size_bytes, PAGE_BYTES)


def _up(address: int, align: int) -> int:
    return -(-address // align) * align


def _bits(places: int) -> float:
    return log2(places) if places else 0.0


def _region_base(region: Region) -> int:
    return region.base
