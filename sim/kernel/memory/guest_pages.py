"""The pages of one VM as arrays: where each is, what it holds, whether it was touched.

Models: six places of a page; a content number for each; large pages of 2 MiB that have to be broken before a page of
theirs is shared, compressed or swapped; a compression cache of slots, the oldest page first out.

Leaves out: which frame backs a page (only how many), bytes.

Sources: as `sim.kernel.memory.scheduler`, whose books these are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sim.errors import SimBug
from sim.hw.memory import Extent, PhysicalMemory
from sim.kernel.memory.reclaim_rules import cache_frames
from sim.kernel.memory.spec import MemoryWorkload

__all__ = [
    "BALLOONED",
    "COMPRESSED",
    "LARGE_PAGES",
    "PLACES",
    "RESIDENT",
    "SHARED",
    "SWAPPED",
    "UNTOUCHED",
    "FramePool",
    "GuestPages",
]

UNTOUCHED, RESIDENT, SHARED, BALLOONED, COMPRESSED, SWAPPED = range(6)
PLACES = ("untouched", "resident", "shared", "ballooned", "compressed", "swapped")
LARGE_PAGES = 512
UNIQUE = -1
"""The content number of a page that is like no other."""

Ints = npt.NDArray[np.int64]

_MIX = 0x9E3779B1


class FramePool:
    """So many frames of one owner, taken from the host's books and given back to them."""

    def __init__(self, memory: PhysicalMemory, owner: str) -> None:
        self.owner = owner
        self.count = 0
        self._memory = memory
        self._extents: list[Extent] = []

    def take(self, frames: int) -> None:
        """Allocate frames.  Errors: `OutOfMemory`, and then nothing has changed."""
        if frames:
            self._extents.extend(self._memory.allocate(frames, self.owner))
            self.count += frames

    def give_back(self, frames: int) -> None:
        """Free frames, the latest first."""
        for extent in self._pop(frames):
            self._memory.free(extent)

    def hand_on(self, frames: int, other: FramePool) -> None:
        """Give frames with their bytes to another pool."""
        for extent in self._pop(frames):
            self._memory.transfer(extent, other.owner)
            other._extents.append(extent)
            other.count += extent.count

    def _pop(self, frames: int) -> list[Extent]:
        if not 0 <= frames <= self.count:
            raise SimBug(f"{self.owner} gives {frames} of {self.count} frames")
        self.count -= frames
        popped = []
        while frames:
            last = self._extents.pop()
            if last.count > frames:
                kept = last.count - frames
                self._extents.append(Extent(first_mpn=last.first_mpn, count=kept))
                last = Extent(first_mpn=last.first_mpn + kept, count=frames)
            popped.append(last)
            frames -= last.count
        return popped


class GuestPages:
    """All pages of one VM; `counts` is a row of the scheduler's table, by place, and is kept up to date.

    `base` is the first content number of the VM's image.
    """

    def __init__(self, pages: int, counts: Ints, workload: MemoryWorkload, base: int) -> None:
        self.counts = counts
        self.place = np.zeros(pages, dtype=np.uint8)
        self.content = np.zeros(pages, dtype=np.int32)
        self.touched = np.zeros(pages, dtype=np.bool_)
        self.whole = np.zeros(-(-pages // LARGE_PAGES), dtype=np.bool_)
        self.small_slots = self.large_slots = 0
        self._zipped: dict[int, None] = {}
        self._workload = workload
        self._base = base
        counts[:] = 0
        counts[UNTOUCHED] = pages

    def __len__(self) -> int:
        return len(self.place)

    @property
    def cache_frames(self) -> int:
        """The frames that the compression cache takes."""
        return cache_frames(self.small_slots, self.large_slots)

    def move(self, pages: Ints, to: int) -> None:
        """Put pages, each named once, into another place."""
        self.counts -= np.bincount(self.place[pages], minlength=len(PLACES))
        self.counts[to] += len(pages)
        self.place[pages] = to

    def first_contents(self, pages: Ints) -> npt.NDArray[np.int32]:
        """Return what pages hold when they are touched first: zeros, the image's, or their own."""
        share = _percentile(pages)
        content = np.where(share < self._workload.zero_percent, 0, UNIQUE)
        common = (share >= self._workload.zero_percent) & (
            share < self._workload.zero_percent + self._workload.common_percent
        )
        numbers = self._base + pages // self._workload.copies
        return np.where(common, numbers, content).astype(np.int32)

    def slot_classes(self, pages: Ints) -> Ints:
        """Return 1 for pages that fit a quarter, 2 for half a page, and 0 for those that do not compress."""
        if not len(pages):
            return np.zeros(0, dtype=np.int64)
        share = _percentile(pages * 3 + 1)
        limit = self._workload.compressible_percent
        return np.where(share < limit // 2, 1, np.where(share < limit, 2, 0)).astype(np.int64)

    def break_large(self) -> int:
        """Break all large pages; return how many that were."""
        broken = int(np.count_nonzero(self.whole))
        self.whole[:] = False
        return broken

    def zip_in(self, pages: Sequence[int], classes: Sequence[int]) -> None:
        """Put pages into the cache, as the newest."""
        self._zipped.update(dict.fromkeys(pages))
        small = sum(one == 1 for one in classes)
        self.small_slots += small
        self.large_slots += len(classes) - small

    def zip_out(self, pages: Ints) -> None:
        """Take pages out of the cache that were in it."""
        for page in pages.tolist():
            del self._zipped[page]
        classes = self.slot_classes(pages)
        self.small_slots -= int(np.count_nonzero(classes == 1))
        self.large_slots -= int(np.count_nonzero(classes == 2))

    def oldest_zipped(self, frames_max: int) -> Ints:
        """Return the oldest pages of the cache, without which it fits `frames_max` frames; they are still in it."""
        small, large = self.small_slots, self.large_slots
        old: list[int] = []
        for page in self._zipped:
            if cache_frames(small, large) <= frames_max:
                break
            old.append(page)
            is_small = int(self.slot_classes(np.array([page], dtype=np.int64))[0]) == 1
            small, large = small - is_small, large - (not is_small)
        return np.array(old, dtype=np.int64)

    def check_invariants(self) -> None:
        """Raise `SimBug` unless the counts are those of the pages, and the slots those of the compressed ones."""
        found = np.bincount(self.place, minlength=len(PLACES))
        if found.tolist() != self.counts.tolist():
            raise SimBug(f"pages by place {found.tolist()}, counted {self.counts.tolist()}")
        classes = self.slot_classes(np.flatnonzero(self.place == COMPRESSED))
        slots = [int(np.count_nonzero(classes == one)) for one in (0, 1, 2)]
        if slots != [0, self.small_slots, self.large_slots]:
            raise SimBug(f"slots {slots} are in use, counted {self.small_slots}, {self.large_slots}")


def _percentile(pages: Ints) -> Ints:
    """Return a fixed number from 0 to 99 for each page, which is spread evenly."""
    mixed = (pages * _MIX & 0xFFFFFFFF) ^ (pages >> 7)
    return (mixed * 0x85EBCA6B >> 13) % 100
