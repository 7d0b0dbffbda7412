"""Where paging entries lie: the frames that walks have read, gathered into one array of 64-bit words.

Models: the same bytes as `sim.hw.memory`.  A frame that a walk reads is moved once into the array, and from then on
memory's own view of the frame is a slice of that array: reads, stores, and both walks see one copy, so nothing has to
be invalidated.  A word beyond the installed memory reads as all ones, and stores there are lost, which is what a
processor sees at an address that nothing on the bus claims.

Leaves out: ownership (`sim.hw.frames`), and any meaning of the words (`sim.hw.mmu`).

Sources: all ones from unclaimed addresses is the habit of PC chip sets, not a rule of the architecture.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from sim.errors import SimBug
from sim.hw.frames import FRAME_BYTES, Extent

FRAME_WORDS = FRAME_BYTES // 8
ALL_ONES = (1 << 64) - 1

_UNKNOWN, _ZEROS, _ONES, _FIRST = 0, 1, 2, 3
"""Slots with a meaning: not looked up yet, a frame never written, an address beyond memory; then real frames."""
_SLOTS_AT_FIRST = 64
_FRAME_SHIFT = 12

Page = bytearray | memoryview
"""The bytes of a frame: its own, a slice of the array below, or (read-only) one of somebody's constant bytes."""
Words = NDArray[np.int64]


class TableStore:
    """The frames of `contents` that walks read, as words; `frames` is the number of frames installed."""

    def __init__(self, contents: dict[int, Page], frames: int) -> None:
        if sys.byteorder != "little":
            raise SimBug("page tables are read as words of the machine, which must be little-endian")
        self._contents = contents
        self._frames = frames
        self._views: dict[int, memoryview] = {}
        self._slots_free: list[int] = []
        self._slots_used = _FIRST
        self._slot_of: NDArray[np.int32] = np.zeros(frames + 1, np.int32)
        self.words: Words = np.zeros(_SLOTS_AT_FIRST * FRAME_WORDS, np.int64)
        """All slots of 512 words each, signed: bit 63 is the sign."""
        self.words[_ONES * FRAME_WORDS : (_ONES + 1) * FRAME_WORDS] = -1

    @property
    def frames_held(self) -> int:
        """The number of frames in the array."""
        return len(self._views)

    def read(self, pa: int) -> int:
        """Return the 64-bit word at the aligned physical address `pa`."""
        words = self._views.get(pa >> _FRAME_SHIFT)
        if words is None:
            words = self._look_up(pa >> _FRAME_SHIFT)
            if words is None:
                return 0 if pa >> _FRAME_SHIFT < self._frames else ALL_ONES
        return words[pa >> 3 & (FRAME_WORDS - 1)]

    def write(self, pa: int, value: int) -> None:
        """Store a word that a walk has read and marks; one beyond memory is lost.

        Errors: `SimBug` for a frame without bytes, in which no walk can have found an entry.
        """
        words = self._views.get(pa >> _FRAME_SHIFT)
        if words is None:
            if pa >> _FRAME_SHIFT < self._frames:
                raise SimBug(f"a walk marked an entry at {pa:#x}, where it read none")
            return
        words[pa >> 3 & (FRAME_WORDS - 1)] = value

    def slots(self, mpns: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return for each frame number the slot of its words; slots stay valid until the memory changes owner.

        `words` may be another array afterwards, so it is to be looked up after this call.
        """
        slots = self._slot_of.take(mpns, mode="clip")
        if slots.size and not slots.all():
            unknown = np.flatnonzero(slots == _UNKNOWN)
            wanted, back = np.unique(mpns[unknown], return_inverse=True)
            found = [self._slot(mpn) for mpn in wanted.tolist()]
            slots[unknown] = np.array(found, np.int32)[back]
        return slots

    def drop(self, extent: Extent) -> None:
        """Forget frames whose bytes are about to go; cheap when the extent holds no table."""
        if extent.count < len(self._views):
            mpns = [mpn for mpn in extent.mpns() if mpn in self._views]
        else:
            mpns = [mpn for mpn in self._views if extent.first_mpn <= mpn < extent.end_mpn]
        for mpn in mpns:
            self._let_go(mpn)

    def clear(self) -> None:
        """Forget every frame."""
        for mpn in list(self._views):
            self._let_go(mpn)

    def _let_go(self, mpn: int) -> None:
        del self._views[mpn]
        self._slots_free.append(int(self._slot_of[mpn]))
        self._slot_of[mpn] = _UNKNOWN

    def _slot(self, mpn: int) -> int:
        if not 0 <= mpn < self._frames:
            return _ONES
        return _ZEROS if self._look_up(mpn) is None else int(self._slot_of[mpn])

    def _look_up(self, mpn: int) -> memoryview | None:
        """Return the words of a frame, which is moved into the array now if it has bytes."""
        words = self._views.get(mpn)
        if words is None and mpn in self._contents:
            if self._slots_free:
                slot = self._slots_free.pop()
            else:
                if (self._slots_used + 1) * FRAME_WORDS > self.words.size:
                    self._grow()
                slot = self._slots_used
                self._slots_used += 1
            words = self._place(mpn, slot, self._contents[mpn])
        return words

    def _place(self, mpn: int, slot: int, data: Page) -> memoryview:
        """Copy a frame into its slot, and let memory see the copy."""
        page = self.words[slot * FRAME_WORDS : (slot + 1) * FRAME_WORDS].data.cast("B")
        page[:] = data
        self._contents[mpn] = page
        self._slot_of[mpn] = slot
        words = self._views[mpn] = page.cast("Q")
        return words

    def _grow(self) -> None:
        old = self.words
        self.words = np.zeros(2 * old.size, np.int64)
        self.words[: old.size] = old
        for mpn in self._views:
            self._place(mpn, int(self._slot_of[mpn]), self._contents[mpn])

    def check_invariants(self) -> None:
        """Raise `SimBug` unless each frame held is in one slot and memory reads the very same words."""
        slots = [int(self._slot_of[mpn]) for mpn in self._views]
        if sorted(slots + self._slots_free) != list(range(_FIRST, self._slots_used)):
            raise SimBug("slots of table frames are lost or used twice")
        for mpn, slot in zip(self._views, slots, strict=True):
            page = self._contents.get(mpn)
            where = self.words[slot * FRAME_WORDS : (slot + 1) * FRAME_WORDS]
            if page is None or not np.shares_memory(np.frombuffer(page, np.int64), where):
                raise SimBug(f"memory and walks read frame {mpn:#x} in two places")
