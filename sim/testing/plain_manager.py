"""The plainest memory manager that keeps the protocol: dicts for tables, bytes for frames, no processor's cache.

Models: address spaces of leaves, frames that are never used twice, demand for nothing.  It shares no page: a class that
inherits from it adds its own sharing, or replaces what it likes.  It is a reference to read and a start for one's own.

Leaves out: page tables, TLBs, limits, taking memory back: `sim.kernel.memory.paged` has all that.

Sources: none, a design of ours.
"""

from __future__ import annotations

from sim.hw.mmu import Kind, MappingError, Rights
from sim.kernel.memory.protocol import Leaf, MemoryManager, MemoryPicture, Page, permits, picture_of

__all__ = ["PlainManager"]


class PlainManager(MemoryManager):
    """Owners of spaces, leaves by (space, page), and what each frame holds, by its number."""

    def __init__(self) -> None:
        self.owners: list[tuple[str, str]] = []
        self.leaves: dict[Page, Leaf] = {}
        self.frames: list[bytes] = []

    def add_space(self, owner: str, salt: str = "") -> int:
        """Make a space."""
        self.owners.append((owner, salt))
        return len(self.owners) - 1

    def map(self, space: int, page: int, rights: Rights) -> None:
        """Give a page a new frame; errors: `MappingError`."""
        if (space, page) in self.leaves or (rights.write and rights.execute):
            raise MappingError(f"page {page:#x} is in use, or would be writable and executable")
        self.give_frame((space, page), rights, b"")

    def give_frame(self, page: Page, rights: Rights, content: bytes) -> None:
        """Let a page use a new frame with that content."""
        self.leaves[page] = Leaf(frame=len(self.frames), rights=rights)
        self.frames.append(content)

    def unmap(self, space: int, page: int) -> None:
        """Take a page away; errors: `MappingError`."""
        if self.leaves.pop((space, page), None) is None:
            raise MappingError(f"page {page:#x} is not mapped")

    def share(self, one: Page, other: Page) -> bool:
        """Share nothing."""
        return False

    def access(self, pcpu: int, space: int, page: int, kind: Kind, data: bytes = b"") -> bytes | None:
        """Read, write or execute a page as its leaf permits."""
        leaf = self.leaves.get((space, page))
        if leaf is None or not permits(leaf.rights, kind):
            return None
        if kind is Kind.WRITE:
            self.frames[leaf.frame] = data + self.frames[leaf.frame][len(data) :]
        return self.frames[leaf.frame]

    def fault(self, space: int, page: int, kind: Kind) -> bool:
        """Handle no fault."""
        return False

    def shootdown(self, space: int, page: int) -> None:
        """Forget nothing, as nothing is cached."""

    def picture(self) -> MemoryPicture:
        """Return everything that an outsider may look at."""
        return picture_of(self.owners, self.leaves, self.frames)
