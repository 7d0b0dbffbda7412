"""Taking pages from VMs: the balloon, compression, swap, and the sharing scan.

Models: a balloon that gets idle pages of the guest first, at its pace and within its bound, or nothing from a driver that
does not answer; random pages compressed, or swapped where they do not shrink to half; the oldest pages of a full cache
swapped; pages of equal content merged; shared pages swapped where a VM that was admitted needs the frames at once.

Leaves out: which guest pages a real guest would give up; the time of the scan.

Sources: as `sim.kernel.memory.scheduler`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sim.core.trace import record
from sim.kernel.memory.guest_pages import (
    BALLOONED,
    COMPRESSED,
    RESIDENT,
    SHARED,
    SWAPPED,
    UNIQUE,
    UNTOUCHED,
)
from sim.kernel.memory.options import MemOptions
from sim.kernel.memory.reclaim_rules import balloon_step, cache_frames, cache_frames_max, swap_file_pages
from sim.kernel.memory.sharing import find_duplicates
from sim.kernel.memory.states import actions_of

if TYPE_CHECKING:
    from sim.kernel.memory.scheduler import Guest, MemoryScheduler

__all__ = ["Reclaiming"]

MEM_RECLAIM = record("mem.reclaim", vm=str, ballooned=int, compressed=int, swapped=int)
"""Pages were taken from a VM in one poll (ballooned below 0: given back)."""

Ints = npt.NDArray[np.int64]


class Reclaiming:
    """The VMkernel's side: carries out the orders of the balance."""

    def __init__(self, host: MemoryScheduler) -> None:
        self._host = host

    @property
    def _options(self) -> MemOptions:
        return self._host.options

    def run(self, guest: Guest) -> None:
        """Move the balloon of a VM one step, and swap what is owed, as far as one poll gets."""
        columns, counts = self._host.table.columns, guest.pages.counts
        before = counts.copy()
        step = balloon_step(int(counts[BALLOONED]), int(columns["balloon"][guest.row]), self._options)
        if step > 0:
            self._inflate(guest, step)
        elif step < 0:
            self._deflate(guest, -step)
        owed = int(columns["swap"][guest.row])
        if owed:
            zip_too = actions_of(self._host.state).compress
            self.swap(guest, min(owed, self._options.swap_pages), zip_too=zip_too)
            columns["swap"][guest.row] = max(0, owed - self._options.swap_pages)
        moved = (counts - before)[[BALLOONED, COMPRESSED, SWAPPED]].tolist()
        if any(moved):
            self._host.sim.trace.emit(MEM_RECLAIM, guest.name, *moved)

    def swap(self, guest: Guest, wanted: int, *, zip_too: bool) -> int:
        """Take up to `wanted` pages of a VM, drawn at random, into its cache or swap file; return how many."""
        own = guest.pages
        wanted = min(wanted, self._spare(guest), len(own))
        candidates = np.flatnonzero(own.place == RESIDENT)
        wanted = min(wanted, len(candidates))
        if wanted <= 0:
            return 0
        draws = guest.stream.block(len(candidates))
        chosen = np.sort(candidates[np.argsort(draws, kind="stable")[:wanted]])
        own.whole[chosen // 512] = False
        classes = own.slot_classes(chosen)
        zipped = self._zip(guest, chosen[classes > 0], classes[classes > 0]) if zip_too else chosen[:0]
        rest = np.setdiff1d(chosen, zipped, assume_unique=True)[: self._swap_room(guest)]
        own.move(rest, SWAPPED)
        guest.swapped_out += len(rest)
        guest.frames.give_back(len(rest))
        return len(rest) + len(zipped)

    def take_the_rest(self, wanted: int) -> None:
        """Swap what no balance takes, compressed pages and shared ones, until `wanted` frames are free.

        Sharers of a content lose it together, since only the last one frees the frame; what is reserved stays.
        """
        guests = list(self._host.guests.values())
        for guest in guests:
            self._empty_cache(guest, wanted - self._host.free)
        moved = 1
        while moved and self._host.free < wanted:
            short = wanted - self._host.free
            moved = sum(self._swap_shared(guest, short) for guest in guests)

    def _empty_cache(self, guest: Guest, frames: int) -> None:
        """Swap the oldest compressed pages, so that up to `frames` frames of the cache are free."""
        own = guest.pages
        old = own.oldest_zipped(max(0, own.cache_frames - max(0, frames)))[: self._swap_room(guest)]
        own.zip_out(old)
        own.move(old, SWAPPED)
        guest.swapped_out += len(old)
        guest.cache.give_back(guest.cache.count - own.cache_frames)

    def _swap_shared(self, guest: Guest, wanted: int) -> int:
        """Swap up to `wanted` shared pages of a VM, those with the highest content numbers; return how many."""
        own = guest.pages
        pages = np.flatnonzero(own.place == SHARED)
        wanted = max(0, min(wanted, len(pages), self._spare(guest), self._swap_room(guest)))
        order = np.argsort(own.content[pages], kind="stable")
        chosen = np.sort(pages[order[len(pages) - wanted :]])
        self._host.release_shared(guest, chosen)
        own.move(chosen, SWAPPED)
        guest.swapped_out += len(chosen)
        return len(chosen)

    def _zip(self, guest: Guest, pages: Ints, classes: Ints) -> Ints:
        """Compress pages into the cache, of which the oldest pages are swapped where it is full; return those that went in."""
        own, most = guest.pages, cache_frames_max(len(guest.pages), self._options)
        fits = np.cumsum(classes)
        count = int(np.searchsorted(fits, most * 4, side="right"))
        pages, classes = pages[:count], classes[:count]
        room = most - cache_frames(int(np.count_nonzero(classes == 1)), int(np.count_nonzero(classes == 2)))
        old = own.oldest_zipped(max(0, room))
        if room < 0 or not len(pages) or len(old) > self._swap_room(guest):
            return pages[:0]
        own.zip_out(old)
        own.move(old, SWAPPED)
        guest.swapped_out += len(old)
        own.move(pages, COMPRESSED)
        own.zip_in(pages.tolist(), classes.tolist())
        guest.frames.give_back(len(pages))
        change = own.cache_frames - guest.cache.count
        if change > 0:
            guest.cache.take(change)
        else:
            guest.cache.give_back(-change)
        guest.zipped += len(pages)
        return pages

    def _swap_room(self, guest: Guest) -> int:
        reservation = int(self._host.table.columns["reservation"][guest.row])
        return swap_file_pages(len(guest.pages), reservation) - int(guest.pages.counts[SWAPPED])

    def _spare(self, guest: Guest) -> int:
        """Return how many pages may be taken from a VM before it is at its reservation."""
        counts = guest.pages.counts
        held = int(counts[RESIDENT] + counts[SHARED])
        touched = len(guest.pages) - int(counts[UNTOUCHED])
        return held - min(int(self._host.table.columns["reservation"][guest.row]), touched)

    def _inflate(self, guest: Guest, wanted: int) -> None:
        """Let the guest give pages up: first those behind its working set, from the end."""
        own = guest.pages
        if not guest.spec.workload.balloon_driver:
            return
        held = np.flatnonzero((own.place == RESIDENT) | (own.place == SHARED))
        pages = held[max(0, len(held) - min(wanted, self._spare(guest))) :]
        own.whole[pages // 512] = False
        self._host.release_shared(guest, pages[own.place[pages] == SHARED])
        guest.frames.give_back(int(np.count_nonzero(own.place[pages] == RESIDENT)))
        own.move(pages, BALLOONED)
        own.content[pages] = UNIQUE

    def _deflate(self, guest: Guest, wanted: int) -> None:
        """Give pages back to the guest, which has not used them yet."""
        own = guest.pages
        own.move(np.flatnonzero(own.place == BALLOONED)[:wanted], UNTOUCHED)

    # ------------------------------------------------------------------ sharing

    def scan(self, guest: Guest, count: int) -> int:
        """Look at the next `count` pages of a VM, and merge what can be; return how many frames that freed."""
        own = guest.pages
        count = min(count, len(own))
        pages = np.arange(guest.scanned, guest.scanned + count, dtype=np.int64) % len(own)
        guest.scanned = (guest.scanned + count) % len(own)
        eligible = (own.place[pages] == RESIDENT) & (own.content[pages] >= 0) & ~own.whole[pages // 512]
        pages = pages[eligible]
        if not len(pages):
            return 0
        runs = find_duplicates(own.content[pages])
        known = guest.group.references[runs.contents] > 0
        hinted = self._hinted(guest, runs.contents, pages) & ~known
        merge = known | hinted | (runs.counts > 1)
        free_before = self._host.memory.frames_free
        self._merge(guest, pages[merge[runs.place]])
        for row in np.unique(guest.group.hint_vm[runs.contents[hinted]]).tolist():
            other = list(self._host.guests.values())[row]
            named = runs.contents[hinted & (guest.group.hint_vm[runs.contents] == row)]
            self._merge(other, guest.group.hint_page[named])
        alone = pages[~merge[runs.place]]
        guest.group.hint_vm[own.content[alone]] = guest.row
        guest.group.hint_page[own.content[alone]] = alone
        return self._host.memory.frames_free - free_before

    def _hinted(self, guest: Guest, contents: Ints, pages: Ints) -> npt.NDArray[np.bool_]:
        """Tell for which contents the hint names a page outside the batch that still holds them."""
        rows, places = guest.group.hint_vm[contents], guest.group.hint_page[contents]
        good = np.zeros(len(contents), dtype=np.bool_)
        in_batch = np.zeros(len(guest.pages), dtype=np.bool_)
        in_batch[pages] = True
        guests = list(self._host.guests.values())
        for row in np.unique(rows[rows >= 0]).tolist():
            mine, other = rows == row, guests[row].pages
            at = places[mine]
            valid = (
                (other.place[at] == RESIDENT)
                & (other.content[at] == contents[mine])
                & ~other.whole[at // 512]
            )
            if row == guest.row:
                valid &= ~in_batch[at]
            good[mine] = valid
        return good

    def _merge(self, guest: Guest, pages: Ints) -> None:
        """Let resident pages use the frames of their contents; a content that has none gets one of theirs."""
        if not len(pages):
            return
        runs = find_duplicates(guest.pages.content[pages])
        new = guest.group.join(runs.contents, runs.counts)
        guest.frames.hand_on(new, self._host.shared)
        guest.frames.give_back(len(pages) - new)
        guest.pages.move(pages, SHARED)
