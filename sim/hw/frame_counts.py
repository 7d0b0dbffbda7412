"""Frames that several hold at once, that change hands with their bytes, or that are taken out of use.

Models: a reference count for each frame, kept only where it is above one; handing frames on without scrubbing, which is
the one way in which bytes of one owner reach another and is therefore always a declared act; large pages formed again
of frames that have one owner; frames retired for good because their memory cells fail.

Leaves out: why frames are shared (`sim.kernel.memory`), and who maps them where.

Sources: reference counts and copy-on-write as in Waldspurger, "Memory Resource Management in VMware ESX Server", OSDI
2002; that retired frames stay so through resets is an assumption of ours.
"""

from __future__ import annotations

from sim.errors import SimBug
from sim.hw.blocks import BLOCK_FRAMES, FREE
from sim.hw.frames import Extent, FrameBooks

SHARED_OWNER = "shared"
"""The owner of frames that several guests read: mapped writable by nobody."""

RETIRED_OWNER = "retired"
"""The owner of frames that are never allocated again."""


class CountedFrames(FrameBooks):
    """The books of allocation with reference counts and retirement."""

    def __init__(self, frames: int, nodes: int = 1) -> None:
        self._references: dict[int, int] = {}
        self._retired: dict[int, None] = {}
        super().__init__(frames, nodes)

    @property
    def blocks_broken(self) -> int:
        """The number of 2 MiB blocks whose frames have owners of their own."""
        return len(self._broken)

    @property
    def frames_retired(self) -> int:
        """The number of frames that were taken out of use."""
        return len(self._retired)

    def references(self, mpn: int) -> int:
        """Return how many hold a frame: 0 if it is free, 1 unless more were counted."""
        if self.owner_of(mpn) is None:
            return 0
        return self._references.get(mpn, 1)

    def owns_all(self, extent: Extent, owner: str) -> bool:
        """Tell whether every frame of an extent belongs to `owner`, at a cost of one look a 2 MiB block."""
        self._check_mpn(extent.end_mpn - 1)
        owner_id = self._id_of(owner)
        mpn = extent.first_mpn
        while mpn < extent.end_mpn:
            block, offset = divmod(mpn, BLOCK_FRAMES)
            count = min(BLOCK_FRAMES - offset, extent.end_mpn - mpn)
            detail = self._broken.get(block)
            if detail is None:
                if self._block_owner[block] != owner_id:
                    return False
            elif detail.owners[offset : offset + count].count(owner_id) != count:
                return False
            mpn += count
        return True

    def add_reference(self, mpn: int) -> int:
        """Count one more holder of an owned frame; return how many there are now."""
        held = self.references(mpn)
        if not held or mpn in self._retired:
            raise SimBug(f"a reference to frame {mpn:#x}, which is free or retired")
        self._references[mpn] = held + 1
        return held + 1

    def drop_reference(self, mpn: int) -> int:
        """Count one holder less, and free the frame with the last one; return how many are left."""
        left = self.references(mpn) - 1
        if left > 1:
            self._references[mpn] = left
        else:
            self._references.pop(mpn, None)
            if left < 1:
                self.free(Extent(first_mpn=mpn, count=1))
        return left

    def free(self, extent: Extent) -> None:
        """Take frames back as `FrameBooks.free` does; none of them may have several holders or be retired."""
        for special in (self._references, self._retired):
            if special and any(mpn in special for mpn in _smaller(extent, special)):
                raise SimBug(f"frames from {extent.first_mpn:#x} are freed, but some are shared or retired")
        super().free(extent)

    def transfer(self, extent: Extent, owner: str) -> None:
        """Give owned frames to another owner with all their bytes: what sharing, and nothing else, does."""
        self._check_mpn(extent.end_mpn - 1)
        if self._retired and any(mpn in self._retired for mpn in _smaller(extent, self._retired)):
            raise SimBug(f"frames from {extent.first_mpn:#x} are handed on, but some are retired")
        new = self._id_of(owner)
        mpn = extent.first_mpn
        while mpn < extent.end_mpn:
            block, offset = divmod(mpn, BLOCK_FRAMES)
            count = min(BLOCK_FRAMES - offset, extent.end_mpn - mpn)
            self._hand_on(block, offset, count, new)
            mpn += count

    def form(self, mpn: int) -> bool:
        """Drop the 4 KiB detail of the block around `mpn` if all its frames have one owner; return whether it is whole."""
        block = mpn // BLOCK_FRAMES
        detail = self._broken.get(block)
        if detail is None:
            return True
        owner = detail.sole_owner
        if owner == FREE:
            return False
        del self._broken[block]
        self._block_owner[block] = owner
        return True

    def retire(self, mpn: int) -> None:
        """Take a frame out of use for good, whether it is free or owned by one holder; a second time changes nothing."""
        owner = self.owner_of(mpn)
        if mpn in self._retired:
            return
        if mpn in self._references:
            raise SimBug(f"frame {mpn:#x} is retired while several hold it")
        if owner is None:
            self._retire_free(mpn)
        else:
            self.transfer(Extent(first_mpn=mpn, count=1), RETIRED_OWNER)
        self._retired[mpn] = None

    def release_all(self) -> None:
        """Take every frame back from every owner but the retired ones, which stay out of use."""
        self._references.clear()
        super().release_all()
        for mpn in self._retired:
            self._retire_free(mpn)

    def check_invariants(self) -> None:
        """Raise `SimBug` unless the books agree, counts are above one, and retired frames are nobody else's."""
        super().check_invariants()
        for mpn, held in self._references.items():
            if held < 2 or self.owner_of(mpn) is None:
                raise SimBug(f"frame {mpn:#x} has {held} references in the books")
        if self.frames_of(RETIRED_OWNER) != len(self._retired):
            raise SimBug("retired frames are miscounted")
        if any(self.owner_of(mpn) != RETIRED_OWNER for mpn in self._retired):
            raise SimBug("a retired frame has an owner")

    def _hand_on(self, block: int, offset: int, count: int, new: int) -> None:
        owner = self._block_owner[block]
        if owner == FREE:
            raise SimBug(f"frames of block {block}, which nobody owns, are handed on")
        if count == BLOCK_FRAMES and block not in self._broken:
            self._block_owner[block] = new
            self._owned[owner] -= count
        else:
            if block not in self._broken:
                self._break(block, owner, self._node_of_block(block))
            for former in self._broken[block].hand_on(offset, count, new):
                self._owned[former] -= 1
        self._owned[new] += count

    def _retire_free(self, mpn: int) -> None:
        block, offset = divmod(mpn, BLOCK_FRAMES)
        node = self._node_of_block(block)
        owner_id = self._id_of(RETIRED_OWNER)
        if self._block_owner[block] == FREE:
            self._runs[node].take(block)
            self._break(block, FREE, node)
        self._own_frames(block, offset, 1, owner_id, node)
        self._owned[owner_id] += 1


def _smaller(extent: Extent, special: dict[int, int] | dict[int, None]) -> list[int] | range:
    """Return the members of an extent that may be special: the extent itself, or those of the dict that lie in it."""
    if extent.count < len(special):
        return extent.mpns()
    return [mpn for mpn in special if extent.first_mpn <= mpn < extent.end_mpn]
