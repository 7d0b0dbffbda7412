"""The free stretches of one window, and how many places they have for a region.

Models: stretches in rising order, each from the lowest base that the window allows to the first address that is not
free; the places of a region of some size in all of them together, from sums that are kept, without a look at each.

Leaves out: which place is taken, which is the layout's draw.  Sources: none, a design of ours.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from sim.errors import SimBug

__all__ = ["Gaps"]


class Gaps:
    """Free stretches between `base` and `end`, in which bases are multiples of `align_bytes`."""

    def __init__(self, base: int, end: int, align_bytes: int) -> None:
        self.bounds = [(base, end)]
        """(lowest base, first address that is not free); where regions lie close, the second may be the lower one."""
        self._align = align_bytes
        self._steps = [(end - base) // align_bytes]
        """The whole alignments in each stretch, the smallest first."""
        self._steps_total = self._steps[0]

    def copy(self) -> Gaps:
        """Return stretches that are split and joined on their own."""
        other = Gaps(0, 0, self._align)
        other.bounds = list(self.bounds)
        other._steps = list(self._steps)
        other._steps_total = self._steps_total
        return other

    def split(self, index: int, stop: int, first: int) -> None:
        """End a stretch at `stop`, and begin another at `first` with the rest of it."""
        low, high = self.bounds[index]
        self._replace(index, 1, [(low, stop), (first, high)])

    def join(self, index: int) -> None:
        """Make one stretch of this one, the next one, and what lies between."""
        self._replace(index, 2, [(self.bounds[index][0], self.bounds[index + 1][1])])

    def places(self, size_bytes: int) -> int:
        """Return how many bases there are for a region of `size_bytes`, whole pages."""
        steps, rest = divmod(size_bytes, self._align)
        if rest:
            return sum([count for _, count in self.with_room(size_bytes)])
        small = bisect_left(self._steps, steps)
        return self._steps_total - sum(self._steps[:small]) - (len(self._steps) - small) * (steps - 1)

    def place(self, number: int, size_bytes: int) -> int:
        """Return base `number`, counted from 0, of those that `places` counts."""
        align = self._align
        for first, stop in self.bounds:
            room = stop - first - size_bytes
            if room >= 0:
                count = room // align + 1
                if number < count:
                    return first + number * align
                number -= count
        raise SimBug("a place beyond the last gap")

    def with_room(self, size_bytes: int) -> list[tuple[int, int]]:
        """Return (first base, number of bases) of each stretch that has room, in rising order."""
        align = self._align
        return [
            (first, (stop - size_bytes - first) // align + 1)
            for first, stop in self.bounds
            if stop - first >= size_bytes
        ]

    def check_invariants(self) -> None:
        """Raise `SimBug` unless the sums are those of the stretches."""
        steps = sorted([(stop - first) // self._align for first, stop in self.bounds])
        if steps != self._steps or sum(steps) != self._steps_total:
            raise SimBug("the places between regions are miscounted")

    def _replace(self, index: int, count: int, bounds: list[tuple[int, int]]) -> None:
        for first, stop in self.bounds[index : index + count]:
            steps = (stop - first) // self._align
            del self._steps[bisect_left(self._steps, steps)]
            self._steps_total -= steps
        for first, stop in bounds:
            steps = (stop - first) // self._align
            insort(self._steps, steps)
            self._steps_total += steps
        self.bounds[index : index + count] = bounds
