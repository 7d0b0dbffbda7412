"""How a guest page comes to have a frame: the pager that a guest space asks, and the simplest one.

Models: what happens at the first touch of a page, and at an access that the kernel has forbidden on purpose.

Leaves out: swapped, compressed and ballooned pages, which are the memory manager's: its pager has the same two methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sim.hw.memory import OutOfMemory

if TYPE_CHECKING:
    from sim.kernel.memory.guest_space import GuestSpace

__all__ = ["LARGE_FRAMES", "DemandZero", "Pager"]

LARGE_FRAMES = 512
"""Frames of a large page of 2 MiB."""


class Pager(Protocol):
    """Decides how a guest page gets a frame."""

    def fill(self, space: GuestSpace, ppn: int) -> bool:
        """Back the page, which has no frame, and return True; or leave it and return False.  May raise `OutOfMemory`."""
        ...

    def unprotect(self, space: GuestSpace, ppn: int) -> bool:
        """Allow what was denied at a page that has a frame of the VM, and return True; or return False."""
        ...


class DemandZero:
    """The simplest pager: zeroed frames on the first touch, a large page where that is possible."""

    def __init__(self, *, large_pages: bool = True) -> None:
        self.large_pages = large_pages

    def fill(self, space: GuestSpace, ppn: int) -> bool:
        """Give the page, or the untouched 2 MiB around it, zeroed frames."""
        first = ppn & -LARGE_FRAMES
        if self.large_pages and space.untouched(first, LARGE_FRAMES):
            try:
                space.back_large(first)
                return True
            except OutOfMemory:
                pass  # no whole 2 MiB is free: one frame does as well
        space.populate(ppn, 1)
        return True

    def unprotect(self, space: GuestSpace, ppn: int) -> bool:
        """Deny: nobody protected the page but on purpose."""
        return False
