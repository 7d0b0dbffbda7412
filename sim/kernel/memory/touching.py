"""Guests that touch their memory: which pages, and what the VMkernel does for each touch.

Models: a guest that fills its memory once and works on a part of it at random; frames for first touches, whole large
pages while there is plenty; shared pages copied at a write; compressed and swapped pages brought back; touches refused
while a VM is blocked or no frame is free; the time for which all that would stall the guest.

Leaves out: the guest's waits themselves (stalls are counted; those for swap are `sim.kernel.swap_waits`'), locality within the working set.

Sources: as `sim.kernel.memory.scheduler`; the latencies are our choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sim.core.facts import fact
from sim.core.units import PAGE_BYTES, SECOND, US
from sim.kernel.memory.guest_pages import (
    BALLOONED,
    COMPRESSED,
    LARGE_PAGES,
    RESIDENT,
    SHARED,
    SWAPPED,
    UNIQUE,
    UNTOUCHED,
)
from sim.kernel.memory.salting import write_latency_ns
from sim.kernel.memory.states import breaks_large

if TYPE_CHECKING:
    from sim.kernel.memory.scheduler import Guest, MemoryScheduler

__all__ = ["Touching"]

_OURS = "our choice: order of magnitude"
FIRST_TOUCH_NS = fact("mem.first_touch_ns", 2 * US, unit="ns", source=_OURS, kind="assumed")
DECOMPRESS_NS = fact("mem.decompress_ns", 20 * US, unit="ns", source=_OURS, kind="assumed")
SWAP_IN_NS = fact("mem.swap_in_ns", 5_000 * US, unit="ns", source=_OURS, kind="assumed")

TOUCHES_MAX = 1 << 20
"""The most touches of a guest in one poll; more would change nothing that is counted."""

Ints = npt.NDArray[np.int64]


class Touching:
    """The guests' side of a host's memory."""

    def __init__(self, host: MemoryScheduler) -> None:
        self._host = host

    def run(self, guest: Guest) -> None:
        """Let a guest touch what it touches between two polls."""
        self._fill(guest)
        workload, poll_ns = guest.spec.workload, self._host.options.poll_ns
        working = min(workload.working_set_bytes // PAGE_BYTES, len(guest.pages))
        guest.touches_left += workload.rate * poll_ns
        touches = min(guest.touches_left // SECOND, TOUCHES_MAX)
        guest.touches_left %= SECOND
        if not working or not touches:
            return
        draws = guest.stream.block(touches)
        pages = ((draws >> np.uint64(32)) * np.uint64(working) >> np.uint64(32)).astype(np.int64)
        writes = (draws & np.uint64(0xFFFF)) * np.uint64(100) < np.uint64(workload.write_percent << 16)
        written = np.zeros(working, dtype=np.bool_)
        written[pages[writes]] = True
        pages = np.unique(pages)
        self._touch(guest, pages, written[pages])

    def _fill(self, guest: Guest) -> None:
        """Touch the next pages of what the guest uses at all, in a row; it waits at the first that is refused."""
        workload, place = guest.spec.workload, guest.pages.place
        used = min(workload.used_bytes // PAGE_BYTES, len(guest.pages))
        if guest.filled < used:
            count = max(1, workload.fill * self._host.options.poll_ns // SECOND)
            end = min(used, guest.filled + count)
            pages, refused = np.arange(guest.filled, end, dtype=np.int64), guest.refused
            self._touch(guest, pages, np.zeros(len(pages), dtype=np.bool_))
            missing = np.flatnonzero(place[guest.filled : end] == UNTOUCHED)
            guest.filled = guest.filled + int(missing[0]) if len(missing) else end
            guest.refused = refused + bool(len(missing))  # the pages behind it were not asked for

    def _touch(self, guest: Guest, pages: Ints, written: npt.NDArray[np.bool_]) -> None:
        """Touch pages, each once, and write some of them."""
        place = guest.pages.place
        there = place[pages] != BALLOONED
        guest.pages.touched[pages[there]] = True
        for where, latency_ns in (
            (UNTOUCHED, FIRST_TOUCH_NS.value),
            (COMPRESSED, DECOMPRESS_NS.value),
            (SWAPPED, SWAP_IN_NS.value),
        ):
            self._bring(guest, pages[place[pages] == where], where, latency_ns)
        self._write(guest, pages[written & there])

    def _bring(self, guest: Guest, pages: Ints, place: int, latency_ns: int) -> None:
        """Give pages that have none frames, as many as there may be."""
        if not len(pages):
            return
        if place == UNTOUCHED:
            pages = self._with_whole_blocks(guest, pages)
        granted = self._grant(guest, len(pages))
        guest.refused += len(pages) - granted
        pages = pages[guest.pages.place[pages] == place][:granted]  # to make room some may have been swapped
        granted = len(pages)
        if place == COMPRESSED:
            guest.pages.zip_out(pages)
            guest.unzipped += granted
        elif place == SWAPPED:
            guest.swapped_in += granted
            guest.swap_wait_ns += granted * latency_ns
        else:
            guest.pages.content[pages] = guest.pages.first_contents(pages)
        guest.pages.move(pages, RESIDENT)
        if place == COMPRESSED:
            guest.cache.give_back(guest.cache.count - guest.pages.cache_frames)
        guest.frames.take(granted)
        guest.stall_ns += granted * latency_ns

    def _grant(self, guest: Guest, wanted: int) -> int:
        """Return how many frames a VM may have now: none if it is blocked, and within its limit by swapping its own."""
        host, row = self._host, guest.row
        if host.table.columns["blocked"][row]:
            return 0
        counts = guest.pages.counts
        room = int(host.table.columns["limit"][row] - counts[RESIDENT] - counts[SHARED])
        if room < wanted:
            room += host.reclaiming.swap(guest, wanted - room, zip_too=True)
        return max(0, min(wanted, room, host.free - host.reserve))

    def _with_whole_blocks(self, guest: Guest, pages: Ints) -> Ints:
        """Add the rest of each untouched 2 MiB block, while large pages are made at all; they are whole then."""
        host, own = self._host, guest.pages
        if not host.options.large_pages or breaks_large(host.free, host.min_free, host.options.release):
            return pages
        blocks = np.unique(pages // LARGE_PAGES)
        blocks = blocks[(blocks + 1) * LARGE_PAGES <= len(own)]
        inside = blocks[:, None] * LARGE_PAGES + np.arange(LARGE_PAGES)
        free = (own.place[inside] == UNTOUCHED).all(axis=1)
        whole = inside[free].reshape(-1)
        counts = own.counts
        room = host.table.columns["limit"][guest.row] - counts[RESIDENT] - counts[SHARED]
        if len(whole) + len(pages) > min(int(room), host.free - 4 * host.min_free):
            return pages
        own.whole[blocks[free]] = True
        return np.union1d(pages, whole)

    def _write(self, guest: Guest, pages: Ints) -> None:
        """Write pages: a shared one is copied first, if a frame is free, and each becomes like no other."""
        own = guest.pages
        shared = pages[own.place[pages] == SHARED]
        guest.stall_ns += len(shared) * write_latency_ns(copied=True)
        if len(shared):
            granted = max(0, min(len(shared), self._host.free - self._host.reserve))
            guest.refused += len(shared) - granted
            shared = shared[:granted]
            self._host.release_shared(guest, shared)
            guest.frames.take(len(shared))
            own.move(shared, RESIDENT)
        own.content[pages[own.place[pages] == RESIDENT]] = UNIQUE
