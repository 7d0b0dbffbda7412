"""The page-sharing scan on content numbers: millions of pages at once, without their bytes.

Models: pages of equal content number within one salt group share a frame; a content that was seen once leaves a hint,
and the second page that has it shares with the first.  Numbers stand for bytes that were compared: equal numbers are
equal pages, and a negative number is like no other.

Leaves out: false hints, which cost time and change nothing (`sim.kernel.memory.paged` has them).

Sources: Waldspurger, OSDI 2002, section 4.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from attrs import frozen

__all__ = ["DuplicateRuns", "ShareGroup", "find_duplicates"]

Ints = npt.NDArray[np.int64]


@frozen(kw_only=True)
class DuplicateRuns:
    """The contents of a batch: each once, how often it was found, and which of the batch's contents each page has."""

    contents: Ints
    counts: Ints
    place: Ints


def find_duplicates(contents: npt.NDArray[np.integer]) -> DuplicateRuns:
    """Sort a batch of pages by content; negative contents must have been left out."""
    found, place, counts = np.unique(contents, return_inverse=True, return_counts=True)
    return DuplicateRuns(contents=found.astype(np.int64), counts=counts, place=place.reshape(-1))


class ShareGroup:
    """What the VMs of one salt group share: for each content the pages that use its frame, and the last hint."""

    def __init__(self) -> None:
        self.references = np.zeros(1, dtype=np.int32)
        self.hint_vm = np.full(1, -1, dtype=np.int32)
        self.hint_page = np.zeros(1, dtype=np.int64)
        self.pages = 0
        self.frames = 0

    def reserve(self, content_max: int) -> None:
        """Make room for contents up to `content_max`."""
        more = content_max + 1 - len(self.references)
        if more > 0:
            self.references = np.append(self.references, np.zeros(more, dtype=np.int32))
            self.hint_vm = np.append(self.hint_vm, np.full(more, -1, dtype=np.int32))
            self.hint_page = np.append(self.hint_page, np.zeros(more, dtype=np.int64))

    def join(self, contents: Ints, counts: Ints) -> int:
        """Let so many pages use the frames of these contents (each once); return how many frames are new."""
        new = int(np.count_nonzero(self.references[contents] == 0))
        self.references[contents] += counts.astype(np.int32)
        self.pages += int(counts.sum())
        self.frames += new
        return new

    def leave(self, contents: npt.NDArray[np.integer]) -> int:
        """Take one page of each content (which may repeat) off its frame; return how many frames nobody uses now."""
        if not len(contents):
            return 0
        runs = find_duplicates(contents)
        self.references[runs.contents] -= runs.counts.astype(np.int32)
        empty = int(np.count_nonzero(self.references[runs.contents] == 0))
        self.pages -= len(contents)
        self.frames -= empty
        return empty
