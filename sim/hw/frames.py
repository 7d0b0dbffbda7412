"""Who owns which frame of physical memory: the books of allocation.

Models: NUMA nodes of equal size; ownership at the grain of 2 MiB blocks, with 4 KiB detail only in blocks that were
broken; lowest-first placement, which is deterministic.  The books of a 1 TiB host take a few megabytes.

Leaves out: contents (`sim.hw.memory`), references and retired frames (`sim.hw.frame_counts`).
"""

from __future__ import annotations

from array import array

from attrs import frozen

from sim.core.structure import FieldError
from sim.core.units import PAGE_BYTES
from sim.errors import SimBug, VmksimError
from sim.hw.blocks import BLOCK_FRAMES, FREE, BrokenBlock, FreeRuns

FRAME_BYTES = PAGE_BYTES
OWNERS_MAX = 1_000_000

_BROKEN = 1


class OutOfMemory(VmksimError):  # noqa: N818 - the usual name of this condition
    """There are not enough free frames for the request, or no run that is long enough."""


@frozen(kw_only=True)
class Extent:
    """A run of `count` frames beginning at machine page number `first_mpn`."""

    first_mpn: int
    count: int

    def __attrs_post_init__(self) -> None:
        if self.first_mpn < 0 or self.count < 1:
            raise FieldError("extent", (self.first_mpn, self.count), "one frame or more, from 0 on")

    @property
    def end_mpn(self) -> int:
        """The first machine page number behind the run."""
        return self.first_mpn + self.count

    def mpns(self) -> range:
        """Return the machine page numbers of the run."""
        return range(self.first_mpn, self.first_mpn + self.count)


class FrameBooks:
    """All frames of a host and their owners, which are named by strings."""

    def __init__(self, frames: int, nodes: int = 1) -> None:
        blocks = frames // BLOCK_FRAMES
        if frames % BLOCK_FRAMES or not 1 <= nodes <= blocks:
            raise SimBug(f"{frames} frames in {nodes} nodes: want whole 2 MiB blocks, at least one a node")
        self.frames_total = frames
        share = blocks // nodes
        self._node_starts = tuple(node * share for node in range(nodes))
        self._node_ends = (*self._node_starts[1:], blocks)
        self._owner_ids: dict[str, int] = {}
        self._owner_names: list[str] = ["(free)", "(broken)"]
        self._set_all_free()

    @property
    def nodes(self) -> int:
        """The number of NUMA nodes."""
        return len(self._node_starts)

    @property
    def frames_used(self) -> int:
        """The number of frames that have an owner."""
        return self.frames_total - self.frames_free

    def allocate(
        self,
        frames: int,
        owner: str,
        *,
        node: int | None = None,
        contiguous: bool = False,
        align_frames: int = 1,
    ) -> tuple[Extent, ...]:
        """Give `frames` free frames to `owner` and return them as few extents in rising order.

        `node` restricts the search to one NUMA node; otherwise nodes are tried in order and may be mixed unless
        `contiguous`.  `contiguous` asks for one extent, whose first frame is a multiple of `align_frames` (a power of
        two).  Raises `OutOfMemory`, and then nothing has changed.
        """
        if node is None and not contiguous and align_frames == 1 and 0 < frames < BLOCK_FRAMES:
            extent = self._take_at_once(frames, owner)
            if extent is not None:
                return (extent,)
        self._check_request(frames, node, contiguous=contiguous, align_frames=align_frames)
        nodes = range(self.nodes) if node is None else range(node, node + 1)
        owner_id = self._id_of(owner)
        if contiguous:
            extents = [self._take_contiguous(frames, owner_id, nodes, align_frames)]
        else:
            free = self._frames_free
            if frames > free[nodes.start] and frames > sum([free[each] for each in nodes]):
                raise OutOfMemory(f"{owner} wants {frames} frames, fewer are free")
            extents = self._take_scattered(frames, owner_id, nodes)
        self._owned[owner_id] += frames
        return tuple(extents)

    def free(self, extent: Extent) -> None:
        """Take the frames of `extent` back; their bytes stay until the frames are handed over again."""
        self._check_mpn(extent.end_mpn - 1)
        mpn = extent.first_mpn
        while mpn < extent.end_mpn:
            block, offset = divmod(mpn, BLOCK_FRAMES)
            blocks = self._whole_blocks(block, (extent.end_mpn - mpn) // BLOCK_FRAMES) if not offset else 0
            if blocks:
                self._free_blocks(block, blocks)
                mpn += blocks * BLOCK_FRAMES
            else:
                count = min(BLOCK_FRAMES - offset, extent.end_mpn - mpn)
                self._free_frames(block, offset, count)
                mpn += count

    def release_all(self) -> None:
        """Take every frame back from every owner, as a platform reset does; bytes stay until handed over."""
        self._set_all_free()

    def owner_of(self, mpn: int) -> str | None:
        """Return the owner of a frame, or None if it is free."""
        self._check_mpn(mpn)
        block, offset = divmod(mpn, BLOCK_FRAMES)
        owner = self._block_owner[block]
        if owner == _BROKEN:
            owner = self._broken[block].owners[offset]
        return None if owner == FREE else self._owner_names[owner]

    def all_owned(self, first: int, end: int) -> bool:
        """Tell whether each frame from `first` up to `end` has an owner, at a cost of one look a 2 MiB block."""
        if not 0 <= first < end <= self.frames_total:
            raise SimBug(f"frames {first:#x} to {end - 1:#x} are none, or beyond the installed memory")
        while first < end:
            block, offset = divmod(first, BLOCK_FRAMES)
            count = min(BLOCK_FRAMES - offset, end - first)
            owner = self._block_owner[block]
            if owner == FREE or (owner == _BROKEN and not self._broken[block].owned(offset, count)):
                return False
            first += count
        return True

    def frames_of(self, owner: str) -> int:
        """Return how many frames `owner` has."""
        owner_id = self._owner_ids.get(owner)
        return 0 if owner_id is None else self._owned[owner_id]

    def owners(self) -> dict[str, int]:
        """Return the number of frames of each owner that has any, in the order in which owners first appeared."""
        return {name: self._owned[number] for name, number in self._owner_ids.items() if self._owned[number]}

    def frames_free_of_node(self, node: int) -> int:
        """Return the number of free frames of one NUMA node."""
        return self._frames_free[node]

    @property
    def frames_free(self) -> int:
        """The number of frames without an owner."""
        return sum(self._frames_free)

    def node_of(self, mpn: int) -> int:
        """Return the NUMA node of a frame."""
        self._check_mpn(mpn)
        return min(mpn // BLOCK_FRAMES // self._node_starts[1], self.nodes - 1) if self.nodes > 1 else 0

    def check_invariants(self) -> None:
        """Raise `SimBug` unless frames are conserved and all the books agree."""
        blocks_free = sum(runs.total for runs in self._runs)
        if self._block_owner.count(FREE) != blocks_free:
            raise SimBug(
                f"{blocks_free} blocks are in free runs, {self._block_owner.count(FREE)} are marked free"
            )
        if self._block_owner.count(_BROKEN) != len(self._broken):
            raise SimBug("broken blocks are miscounted")
        for block, detail in self._broken.items():
            detail.check_invariants(block)
        broken_free = sum(detail.free.bit_count() for detail in self._broken.values())
        if self.frames_free != blocks_free * BLOCK_FRAMES + broken_free:
            raise SimBug("free frames are miscounted")
        if sum(self._owned) != self.frames_used:
            raise SimBug("owned frames and used frames differ")
        for runs in self._runs:
            runs.check_invariants()

    # ------------------------------------------------------------------ books

    def _set_all_free(self) -> None:
        blocks = self._node_ends[-1]
        self._block_owner = array("I", [FREE]) * blocks
        self._broken: dict[int, BrokenBlock] = {}
        self._runs = [
            FreeRuns(start, end) for start, end in zip(self._node_starts, self._node_ends, strict=True)
        ]
        self._partial: list[dict[int, None]] = [{} for _ in self._node_starts]
        self._frames_free = [runs.total * BLOCK_FRAMES for runs in self._runs]
        self._owned = [0] * len(self._owner_names)

    def _id_of(self, owner: str) -> int:
        found = self._owner_ids.get(owner)
        if found is None:
            if len(self._owner_names) >= OWNERS_MAX:
                raise SimBug(f"more than {OWNERS_MAX} owners of memory")
            found = self._owner_ids[owner] = len(self._owner_names)
            self._owner_names.append(owner)
            self._owned.append(0)
        return found

    def _node_of_block(self, block: int) -> int:
        return min(block // self._node_starts[1], self.nodes - 1) if self.nodes > 1 else 0

    # ------------------------------------------------------------- allocation

    def _take_at_once(self, frames: int, owner: str) -> Extent | None:
        """Take what `_take_scattered` would, if that is a part of one broken block of the first node; None if not."""
        block = next(iter(self._partial[0]), None)
        if block is None:
            return None
        detail = self._broken[block]
        offset, count = detail.first_run(frames)
        if count < frames:
            return None
        owner_id = self._id_of(owner)
        self._own_frames(block, offset, count, owner_id, 0)
        self._owned[owner_id] += count
        return Extent(first_mpn=block * BLOCK_FRAMES + offset, count=count)

    def _take_scattered(self, frames: int, owner: int, nodes: range) -> list[Extent]:
        """Take whole blocks, of all nodes if need be, and then single frames for the rest; the blocks come first.

        So a large page is found wherever there is one, and everything behind the blocks keeps their alignment.
        """
        blocks: list[Extent] = []
        for node in nodes:
            if frames >= BLOCK_FRAMES:
                frames -= self._take_blocks(frames // BLOCK_FRAMES, owner, node, blocks) * BLOCK_FRAMES
        taken: list[Extent] = []
        for node in nodes:
            while frames and (block := self._open_block(node)) is not None:
                frames -= self._take_from_block(block, frames, owner, node, taken)
        return _joined([*_merged(blocks), *_merged(taken)])

    def _take_blocks(self, wanted: int, owner: int, node: int, taken: list[Extent]) -> int:
        """Take up to `wanted` whole blocks of a node and return how many."""
        got = 0
        while got < wanted and (run := self._runs[node].take_first(wanted - got)) is not None:
            self._own_blocks(run[0], run[1], owner, node)
            taken.append(Extent(first_mpn=run[0] * BLOCK_FRAMES, count=run[1] * BLOCK_FRAMES))
            got += run[1]
        return got

    def _open_block(self, node: int) -> int | None:
        """Return a broken block of the node with free frames, breaking a free one if need be."""
        for block in self._partial[node]:
            return block
        run = self._runs[node].take_first(1)
        if run is None:
            return None
        self._break(run[0], FREE, node)
        return run[0]

    def _take_from_block(self, block: int, frames: int, owner: int, node: int, taken: list[Extent]) -> int:
        detail = self._broken[block]
        offset, count = detail.first_run(frames)
        self._own_frames(block, offset, count, owner, node)
        taken.append(Extent(first_mpn=block * BLOCK_FRAMES + offset, count=count))
        return count

    def _take_contiguous(self, frames: int, owner: int, nodes: range, align_frames: int) -> Extent:
        for node in nodes:
            if frames < BLOCK_FRAMES:
                found = self._fit_in_broken(frames, owner, node, align_frames)
                if found is not None:
                    return found
            blocks = -(-frames // BLOCK_FRAMES)
            first = self._runs[node].take_aligned(blocks, max(1, align_frames // BLOCK_FRAMES))
            if first is not None:
                return self._take_run(first, blocks, frames, owner, node)
        raise OutOfMemory(f"no run of {frames} free frames aligned to {align_frames}")

    def _take_run(self, first: int, blocks: int, frames: int, owner: int, node: int) -> Extent:
        """Own the first `frames` frames of free blocks that were just taken out of the runs."""
        whole, rest = divmod(frames, BLOCK_FRAMES)
        if whole:
            self._own_blocks(first, whole, owner, node)
        if rest:
            self._break(first + blocks - 1, FREE, node)
            self._own_frames(first + blocks - 1, 0, rest, owner, node)
        return Extent(first_mpn=first * BLOCK_FRAMES, count=frames)

    def _fit_in_broken(self, frames: int, owner: int, node: int, align_frames: int) -> Extent | None:
        for block in self._partial[node]:
            offset = self._broken[block].fit(frames, min(align_frames, BLOCK_FRAMES))
            if offset is not None and not (block * BLOCK_FRAMES + offset) % align_frames:
                self._own_frames(block, offset, frames, owner, node)
                return Extent(first_mpn=block * BLOCK_FRAMES + offset, count=frames)
        return None

    def _own_blocks(self, first: int, blocks: int, owner: int, node: int) -> None:
        self._block_owner[first : first + blocks] = array("I", [owner]) * blocks
        self._frames_free[node] -= blocks * BLOCK_FRAMES

    def _own_frames(self, block: int, offset: int, count: int, owner: int, node: int) -> None:
        detail = self._broken[block]
        detail.own(offset, count, owner)
        self._frames_free[node] -= count
        if not detail.free:
            del self._partial[node][block]

    def _break(self, block: int, owner: int, node: int) -> None:
        """Give a block 4 KiB detail, all frames with the same owner."""
        self._block_owner[block] = _BROKEN
        detail = self._broken[block] = BrokenBlock(owner)
        if detail.free:
            self._partial[node][block] = None

    # ---------------------------------------------------------------- freeing

    def _whole_blocks(self, first: int, blocks_max: int) -> int:
        """Return how many blocks from `first` on are whole, of one node and of one owner, at most `blocks_max`."""
        owner = self._block_owner[first]
        if owner in (FREE, _BROKEN):
            return 0
        end = min(first + blocks_max, self._node_ends[self._node_of_block(first)])
        block = first
        while block < end and self._block_owner[block] == owner:
            block += 1
        return block - first

    def _free_blocks(self, first: int, blocks: int) -> None:
        node = self._node_of_block(first)
        self._owned[self._block_owner[first]] -= blocks * BLOCK_FRAMES
        self._block_owner[first : first + blocks] = array("I", [FREE]) * blocks
        self._runs[node].add(first, blocks)
        self._frames_free[node] += blocks * BLOCK_FRAMES

    def _free_frames(self, block: int, offset: int, count: int) -> None:
        node = self._node_of_block(block)
        owner = self._block_owner[block]
        if owner == FREE:
            raise SimBug(f"frames of block {block} are freed twice")
        if owner != _BROKEN:
            self._break(block, owner, node)
        detail = self._broken[block]
        for released in detail.release(offset, count):
            self._owned[released] -= 1
        self._frames_free[node] += count
        self._partial[node][block] = None
        if detail.all_free:
            del self._broken[block], self._partial[node][block]
            self._block_owner[block] = FREE
            self._runs[node].add(block)

    def _check_request(self, frames: int, node: int | None, *, contiguous: bool, align_frames: int) -> None:
        if frames < 1:
            raise SimBug(f"a request for {frames} frames")
        if node is not None and not 0 <= node < self.nodes:
            raise SimBug(f"there is no NUMA node {node}")
        if align_frames < 1 or align_frames & (align_frames - 1) or (align_frames > 1 and not contiguous):
            raise SimBug(
                f"an alignment of {align_frames} frames: want a power of two, and a contiguous request"
            )

    def _check_mpn(self, mpn: int) -> None:
        if not 0 <= mpn < self.frames_total:
            raise SimBug(f"frame {mpn:#x} is beyond the installed memory")


def _merged(extents: list[Extent]) -> list[Extent]:
    """Return the extents in rising order, neighbours joined."""
    return _joined(sorted(extents, key=_first_mpn))


def _joined(extents: list[Extent]) -> list[Extent]:
    """Return the extents in their order, each joined to the one before if that ends where it begins."""
    joined: list[Extent] = []
    for extent in extents:
        if joined and joined[-1].end_mpn == extent.first_mpn:
            last = joined.pop()
            joined.append(Extent(first_mpn=last.first_mpn, count=last.count + extent.count))
        else:
            joined.append(extent)
    return joined


def _first_mpn(extent: Extent) -> int:
    return extent.first_mpn
