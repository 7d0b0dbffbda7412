"""The bookkeeping below `PhysicalMemory`: runs of free 2 MiB blocks, and blocks broken into frames.

Models: which blocks of a NUMA node are free, as sorted intervals that never touch; owner and freeness of each of the
512 frames of a broken block.  Leaves out best-fit and buddy policies: the lowest run that fits wins, which is
deterministic and easy to predict in an exercise.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise

from sim.errors import SimBug

BLOCK_FRAMES = 512
"""Frames in a block of 2 MiB."""

FREE = 0
"""The owner number of a frame that nobody has."""

_ALL_FREE = (1 << BLOCK_FRAMES) - 1


class FreeRuns:
    """A set of integers from `start` to `end` - 1, all present at first."""

    def __init__(self, start: int, end: int) -> None:
        self.total = end - start
        self._starts = [start] if end > start else []
        self._ends = [end] if end > start else []

    def runs(self) -> tuple[tuple[int, int], ...]:
        """Return (first, length) of each run in rising order."""
        return tuple((start, end - start) for start, end in zip(self._starts, self._ends, strict=True))

    def take_first(self, wanted: int) -> tuple[int, int] | None:
        """Take up to `wanted` from the lowest run; return (first, taken), or None if nothing is free."""
        if not self._starts:
            return None
        start = self._starts[0]
        taken = min(wanted, self._ends[0] - start)
        self._cut(0, start, start + taken)
        return start, taken

    def take_aligned(self, wanted: int, align: int) -> int | None:
        """Take `wanted` in a row from a multiple of `align`; return the first, or None if no run is long enough."""
        for index, (start, end) in enumerate(zip(self._starts, self._ends, strict=True)):
            first = -(-start // align) * align
            if first + wanted <= end:
                self._cut(index, first, first + wanted)
                return first
        return None

    def take(self, number: int) -> None:
        """Take one number that is there."""
        index = bisect_right(self._starts, number) - 1
        if index < 0 or self._ends[index] <= number:
            raise SimBug(f"{number} is not free")
        self._cut(index, number, number + 1)

    def add(self, first: int, count: int = 1) -> None:
        """Put `count` numbers from `first` back."""
        end = first + count
        index = bisect_right(self._starts, first)
        if (index and self._ends[index - 1] > first) or (
            index < len(self._starts) and self._starts[index] < end
        ):
            raise SimBug(f"some of {first} to {end - 1} are free already")
        low = index - 1 if index and self._ends[index - 1] == first else index
        high = index + 1 if index < len(self._starts) and self._starts[index] == end else index
        start = self._starts[low] if low < index else first
        stop = self._ends[index] if high > index else end
        self._starts[low:high] = [start]
        self._ends[low:high] = [stop]
        self.total += count

    def check_invariants(self) -> None:
        """Raise `SimBug` unless the runs are sorted, apart, and add up."""
        flat = [bound for pair in zip(self._starts, self._ends, strict=True) for bound in pair]
        if any(low >= high for low, high in pairwise(flat)):
            raise SimBug("free runs overlap or touch")
        if sum(length for _, length in self.runs()) != self.total:
            raise SimBug("free runs do not add up")

    def _cut(self, index: int, first: int, end: int) -> None:
        """Remove first..end-1, which lies in run `index`."""
        start, stop = self._starts[index], self._ends[index]
        kept = [(low, high) for low, high in ((start, first), (end, stop)) if low < high]
        self._starts[index : index + 1] = [low for low, _ in kept]
        self._ends[index : index + 1] = [high for _, high in kept]
        self.total -= end - first


class BrokenBlock:
    """A 2 MiB block whose frames have owners of their own: a bitmap of free frames and an owner for each."""

    __slots__ = ("free", "owners")

    def __init__(self, owner: int) -> None:
        self.owners = array("I", [owner]) * BLOCK_FRAMES
        self.free = _ALL_FREE if owner == FREE else 0

    @property
    def all_free(self) -> bool:
        """Whether no frame of the block has an owner."""
        return self.free == _ALL_FREE

    def first_run(self, limit: int) -> tuple[int, int]:
        """Return offset and length of the first run of free frames, cut to `limit`; there must be one."""
        offset = (self.free & -self.free).bit_length() - 1
        rest = ~(self.free >> offset)
        return offset, min(limit, (rest & -rest).bit_length() - 1)

    def fit(self, frames: int, align: int) -> int | None:
        """Return the first aligned offset of `frames` free frames in a row, or None."""
        wanted = (1 << frames) - 1
        for offset in range(0, BLOCK_FRAMES - frames + 1, align):
            if (self.free >> offset) & wanted == wanted:
                return offset
        return None

    def owned(self, offset: int, count: int) -> bool:
        """Whether each of `count` frames has an owner."""
        return not self.free >> offset & (1 << count) - 1

    def own(self, offset: int, count: int, owner: int) -> None:
        """Mark free frames as owned."""
        self.free &= ~(((1 << count) - 1) << offset)
        self.owners[offset : offset + count] = array("I", [owner]) * count

    def release(self, offset: int, count: int) -> Iterator[int]:
        """Mark frames as free and return their former owners."""
        mask = ((1 << count) - 1) << offset
        if self.free & mask:
            raise SimBug("frames are freed twice")
        former = self.owners[offset : offset + count]
        self.free |= mask
        self.owners[offset : offset + count] = array("I", [FREE]) * count
        return iter(former)

    def hand_on(self, offset: int, count: int, owner: int) -> Iterator[int]:
        """Give owned frames another owner and return their former owners."""
        if self.free & (((1 << count) - 1) << offset):
            raise SimBug("frames that nobody owns are handed on")
        former = self.owners[offset : offset + count]
        self.owners[offset : offset + count] = array("I", [owner]) * count
        return iter(former)

    @property
    def sole_owner(self) -> int:
        """The owner of all 512 frames, or `FREE` if there is no such owner."""
        first = self.owners[0]
        return first if self.owners.count(first) == BLOCK_FRAMES else FREE

    def check_invariants(self, block: int) -> None:
        """Raise `SimBug` unless the bitmap and the owners agree and the block needs its detail."""
        bitmap = sum(1 << offset for offset, owner in enumerate(self.owners) if owner == FREE)
        if bitmap != self.free or self.free == _ALL_FREE:
            raise SimBug(f"the frames of block {block} are miscounted")
