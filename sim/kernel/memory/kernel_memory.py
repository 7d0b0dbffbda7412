"""The kernel's own memory: segments of frames mapped into its address space, never writable and executable.

Models: segments (frames of one owner, mapped at one base with one set of rights); a second mapping of the same frames;
W^X over the whole space, counted for every *frame*, so that no frame is writable through one address and executable
through another; an executable right that can be lost but never gained.  Text is filled through physical addresses
before its mapping exists, as a loader does that must not open a writable window on code.  What is taken away is
forgotten by every processor before its frames are free; several segments that go together share one shootdown, of the
range from the lowest to the highest address.

Leaves out: VM memory and the user worlds' spaces, demand paging, large-page breaking.  `read` and `write` walk anew;
only `access` goes through the TLB of a processor.

Sources: VMware's description of memory hardening (non-executable memory); PaX MPROTECT for the rule about gaining
the executable right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from attrs import evolve, frozen

from sim.core.context import Sim
from sim.core.trace import record
from sim.errors import SimBug, VmksimError
from sim.hw.memory import FRAME_BYTES, Extent, OutOfMemory, PhysicalMemory
from sim.hw.mmu import Access, AddressSpace, ControlState, GeneralProtection, MappingError, PageFault, Rights
from sim.hw.mmu.shootdown import Invalidation
from sim.hw.mmu.walk import Outcome, Translation
from sim.hw.processors import Processors

SEGMENT_MAP = record("memory.map", base=int, size_bytes=int, rights=str, owner=str)
SEGMENT_UNMAP = record("memory.unmap", base=int, size_bytes=int, owner=str)
SEGMENT_REFUSED = record("memory.refused", base=int, rights=str, owner=str, reason=str)
ACCESS_FAULT = record("memory.fault", va=int, kind=str, text=str)

SEGMENT_BYTES_MAX = 1 << 32
_LARGE_FRAMES = 512

_MAPPED, _WRITABLE, _EXECUTABLE = 1, 1 << 40, 1 << 80
"""What one mapping adds to a frame's use: three counts of 40 bits in one number."""
_COUNT = (1 << 40) - 1


class RightsRefused(VmksimError):  # noqa: N818 - a refusal is the normal answer here, not an error of ours
    """The rights asked for would let something be both written and executed."""


@frozen(kw_only=True)
class Segment:
    """Frames mapped at one base; `size_bytes` is a whole number of pages."""

    base: int
    size_bytes: int
    rights: Rights
    owner: str
    extents: tuple[Extent, ...]

    @property
    def end(self) -> int:
        """The first address behind the segment."""
        return self.base + self.size_bytes


Piece = tuple[int, bytes, Rights, int]
"""What becomes a segment: its base, its first bytes, its rights, and how many bytes it has."""


class KernelMemory:
    """The kernel's address space over the host's physical memory.

    `processors` are those that may have translations cached (None: nobody has), `everywhere` says that every space
    shows this one's mappings, as all show the kernel's.
    """

    def __init__(
        self,
        sim: Sim,
        memory: PhysicalMemory,
        *,
        name: str = "vmkernel",
        control: ControlState | None = None,
        processors: Processors | None = None,
        everywhere: bool = False,
    ) -> None:
        self.name = name
        self.space = AddressSpace(memory, name, control=control)
        self._sim = sim
        self._memory = memory
        self._processors = processors
        self._everywhere = everywhere
        self._segments: dict[int, Segment] = {}
        self._uses: dict[int, int] = {}  # how often a frame is mapped at all, writable, and executable

    def map_segment(
        self, base: int, data: bytes, rights: Rights, *, owner: str, size_bytes: int | None = None
    ) -> Segment:
        """Allocate frames for `owner`, fill them with `data` and then zeros up to `size_bytes`, and map them at `base`.

        Raises `RightsRefused` for W with X, `MappingError` where something is mapped, `OutOfMemory`; then nothing has
        changed.
        """
        size = _whole_pages(max(len(data), size_bytes or 0))
        self._check_rights(base, rights, owner)
        frames = size // FRAME_BYTES
        large = frames >= _LARGE_FRAMES and base % (_LARGE_FRAMES * FRAME_BYTES) == 0
        extents = self._allocate(frames, owner, large=large)
        self._fill(extents, data)
        try:
            return self.map_frames(base, extents, rights, owner=owner)
        except VmksimError:
            for extent in extents:
                self._memory.free(extent)
            raise

    def map_segments(self, pieces: Sequence[Piece], *, owner: str) -> tuple[Segment, ...]:
        """Map segments as `map_segment` does, all or none; small ones get frames and page-table entries together."""
        for base, _, rights, _ in pieces:
            self._check_rights(base, rights, owner)
        sizes = [_whole_pages(max(len(data), size)) for _, data, _, size in pieces]
        frames = sum(sizes) // FRAME_BYTES
        if not 0 < frames < _LARGE_FRAMES:
            return self._map_one_by_one(pieces, owner)
        extents = self._memory.allocate(frames, owner)
        made = [
            Segment(base=base, size_bytes=size, rights=rights, owner=owner, extents=own)
            for (base, _, rights, _), size, own in zip(pieces, sizes, _dealt(extents, sizes), strict=True)
        ]
        for (_, data, _, _), segment in zip(pieces, made, strict=True):
            self._fill(segment.extents, data)
        try:
            for one in made:
                self._check_aliases(one.base, one.extents, one.rights, owner)
            self.space.map_runs(
                [(va, mpn, n, one.rights) for one in made for va, mpn, n, _ in _runs(one.base, one.extents)]
            )
        except VmksimError:
            for extent in extents:
                self._memory.free(extent)
            raise
        for segment in made:
            self._enter(segment)
        return tuple(made)

    def _map_one_by_one(self, pieces: Sequence[Piece], owner: str) -> tuple[Segment, ...]:
        made: list[Segment] = []
        try:
            for base, data, rights, size in pieces:
                made.append(self.map_segment(base, data, rights, owner=owner, size_bytes=size))
        except VmksimError:
            for done in made:
                self.unmap_segment(done.base, used=False)
            raise
        return tuple(made)

    def _fill(self, extents: Sequence[Extent], data: bytes) -> None:
        """Store `data` in new frames, from the first on; what it does not reach reads as zeros."""
        done = 0
        for extent in extents:
            piece = data[done : done + extent.count * FRAME_BYTES]
            self._memory.write(extent.first_mpn * FRAME_BYTES, piece)
            done += extent.count * FRAME_BYTES

    def map_frames(self, base: int, extents: Sequence[Extent], rights: Rights, *, owner: str) -> Segment:
        """Map frames that are owned already, perhaps mapped elsewhere too; errors as in `map_segment`."""
        self._check_rights(base, rights, owner)
        self._check_aliases(base, extents, rights, owner)
        size = sum([extent.count for extent in extents]) * FRAME_BYTES
        segment = Segment(base=base, size_bytes=size, rights=rights, owner=owner, extents=tuple(extents))
        self._map_leaves(segment)
        self._enter(segment)
        return segment

    def _enter(self, segment: Segment) -> None:
        """Enter a segment that is mapped into the books."""
        self._segments[segment.base] = segment
        self._count(segment, 1)
        self._sim.trace.emit(
            SEGMENT_MAP, _signed(segment.base), segment.size_bytes, str(segment.rights), segment.owner
        )

    def unmap_segment(self, base: int, *, used: bool = True) -> None:
        """Unmap the segment at `base`, and free those of its frames that are mapped nowhere else.

        When it was never `used`, because it was mapped at this same instant, no processor can have cached it.
        """
        self.unmap_segments([base], used=used)

    def unmap_segments(
        self, bases: Sequence[int], *, used: bool = True, done: Callable[[], object] | None = None
    ) -> None:
        """Unmap segments together; call `done()`, which must be picklable, when all processors have forgotten them."""
        segments = [self._segment(base) for base in bases]
        frees: list[Extent] = []
        for segment in segments:
            for va, _, _ in _leaves(segment.base, segment.extents):
                self.space.unmap(va)
            del self._segments[segment.base]
            self._count(segment, -1)
            for extent in segment.extents:
                frees.extend(self._unused_runs(extent))
            self._sim.trace.emit(SEGMENT_UNMAP, _signed(segment.base), segment.size_bytes, segment.owner)
        if self._processors is not None and used and segments:
            self._processors.forget(self._invalidation(segments), frees=tuple(frees), done=done)
            return
        for each in frees:
            self._memory.free(each)
        if done is not None:
            done()

    def protect(self, base: int, rights: Rights) -> Segment:
        """Change the rights of the segment at `base`; raises `RightsRefused` if X would be gained, or W beside X."""
        old = self._segment(base)
        self._check_rights(base, rights, old.owner)
        if rights.execute and not old.rights.execute:
            raise self._refuse(
                base, rights, old.owner, "the executable right is given when a segment is mapped, never later"
            )
        if rights.write and old.rights.execute:
            raise self._refuse(base, rights, old.owner, "code does not become writable")
        self._count(old, -1)
        try:
            self._check_aliases(base, old.extents, rights, old.owner)
        except RightsRefused:
            self._count(old, 1)
            raise
        for va, _, _ in _leaves(base, old.extents):
            self.space.protect(va, rights)
        new = self._segments[base] = evolve(old, rights=rights)
        self._count(new, 1)
        self._sim.trace.emit(SEGMENT_MAP, _signed(base), new.size_bytes, str(rights), new.owner)
        if self._processors is not None and new.rights != old.rights:
            self._processors.forget(self._invalidation([new]))
        return new

    def access(self, pcpu: int, va: int, access: Access) -> Outcome:
        """Make one access by a processor, through its TLB; a fault is returned and traced."""
        if self._processors is None:
            raise SimBug(f"no processor runs the space {self.name}")
        outcome = self._processors.cpu(pcpu).translate(va, access)
        if not isinstance(outcome, Translation):
            self._sim.trace.emit(ACCESS_FAULT, _signed(va), access.kind.value, str(outcome))
        return outcome

    def read(self, va: int, size: int, access: Access | None = None) -> bytes | PageFault | GeneralProtection:
        """Load through the MMU as the kernel does; a fault is returned and traced."""
        result = self.space.load(va, size, access)
        if not isinstance(result, bytes):
            self._sim.trace.emit(ACCESS_FAULT, _signed(va), "r", str(result))
        return result

    def write(self, va: int, data: bytes) -> PageFault | GeneralProtection | None:
        """Store through the MMU as the kernel does; a fault is returned and traced."""
        fault = self.space.store(va, data)
        if fault is not None:
            self._sim.trace.emit(ACCESS_FAULT, _signed(va), "w", str(fault))
        return fault

    def segments(self) -> tuple[Segment, ...]:
        """Return all segments in rising order of their bases."""
        return tuple(self._segments[base] for base in sorted(self._segments))

    def check_invariants(self) -> None:
        """Raise `SimBug` unless tables, segments and frame counts agree and W^X holds for every page and frame."""
        uses: dict[int, list[bool]] = {}
        leaves = {}
        for mapping in self.space.mappings():
            leaves[mapping.va] = (mapping.mpn, mapping.page_bytes, mapping.rights)
            for mpn in mapping.frames:
                seen = uses.setdefault(mpn, [False, False])
                seen[0] |= mapping.rights.write
                seen[1] |= mapping.rights.execute
                if all(seen):
                    raise SimBug(f"frame {mpn:#x} is writable and executable")
        if uses.keys() != self._uses.keys():
            raise SimBug("mapped frames are miscounted")
        wanted = {}
        for segment in self._segments.values():
            for va, mpn, large in _leaves(segment.base, segment.extents):
                wanted[va] = (mpn, (_LARGE_FRAMES if large else 1) * FRAME_BYTES, segment.rights)
        if leaves != wanted:
            raise SimBug("page tables and segments differ")
        if any(self._memory.owner_of(mpn) is None for mpn in uses):
            raise SimBug("a mapped frame has no owner")
        self.space.check_invariants()

    def _invalidation(self, segments: Sequence[Segment]) -> Invalidation:
        """Return the range from the lowest to the highest address of what has changed."""
        low = min(segment.base for segment in segments)
        high = max(segment.end for segment in segments)
        return Invalidation(
            root=self.space.control.cr3,
            va=low,
            pages=(high - low) // FRAME_BYTES,
            everywhere=self._everywhere,
        )

    def _segment(self, base: int) -> Segment:
        if base not in self._segments:
            raise MappingError(f"no segment begins at {base:#x}")
        return self._segments[base]

    def _allocate(self, frames: int, owner: str, *, large: bool) -> tuple[Extent, ...]:
        if large:
            try:
                return self._memory.allocate(frames, owner, contiguous=True, align_frames=_LARGE_FRAMES)
            except OutOfMemory:
                pass  # scattered frames do as well
        return self._memory.allocate(frames, owner)

    def _map_leaves(self, segment: Segment) -> None:
        """Enter a segment in the page tables, all of it or nothing."""
        va = segment.base
        try:
            for va, mpn, count, large in _runs(segment.base, segment.extents):
                if large:
                    self.space.map(va, mpn, segment.rights, large=True)
                else:
                    self.space.map_run(va, mpn, count, segment.rights)
        except (MappingError, OutOfMemory):
            for leaf, _, _ in _leaves(segment.base, segment.extents):
                if leaf >= va:
                    break
                self.space.unmap(leaf)
            raise

    def _check_rights(self, base: int, rights: Rights, owner: str) -> None:
        if rights.write and rights.execute:
            raise self._refuse(base, rights, owner, "writable and executable in one mapping")

    def _check_aliases(self, base: int, extents: Sequence[Extent], rights: Rights, owner: str) -> None:
        if not (rights.write or rights.execute):
            return
        uses = self._uses
        for extent in extents:
            mpns = extent.mpns()
            if uses.keys().isdisjoint(mpns):
                continue
            for mpn in mpns:
                use = uses.get(mpn, 0)
                if (rights.write and use // _EXECUTABLE) or (rights.execute and use // _WRITABLE & _COUNT):
                    reason = (
                        f"frame {mpn:#x} would be writable through one mapping and executable through another"
                    )
                    raise self._refuse(base, rights, owner, reason)

    def _refuse(self, base: int, rights: Rights, owner: str, reason: str) -> RightsRefused:
        self._sim.trace.emit(SEGMENT_REFUSED, _signed(base), str(rights), owner, reason)
        return RightsRefused(f"{owner} at {base:#x} ({rights}): {reason}")

    def _count(self, segment: Segment, change: int) -> None:
        rights = segment.rights
        added = _MAPPED + (_WRITABLE if rights.write else 0) + (_EXECUTABLE if rights.execute else 0)
        uses = self._uses
        for extent in segment.extents:
            mpns = extent.mpns()
            if uses.keys().isdisjoint(mpns):
                uses.update(dict.fromkeys(mpns, change * added))
                continue
            for mpn in mpns:
                uses[mpn] = uses.get(mpn, 0) + change * added

    def _unused_runs(self, extent: Extent) -> Iterator[Extent]:
        """Drop the counters of frames that are mapped nowhere and return those frames in runs."""
        first = count = 0
        for mpn in extent.mpns():
            if self._uses[mpn] & _COUNT == 0:
                del self._uses[mpn]
                first, count = (first, count + 1) if count else (mpn, 1)
            elif count:
                yield Extent(first_mpn=first, count=count)
                count = 0
        if count:
            yield Extent(first_mpn=first, count=count)


def _dealt(extents: Sequence[Extent], sizes: Sequence[int]) -> Iterator[tuple[Extent, ...]]:
    """Deal frames out in order: for each size, which is a whole number of pages, the extents that make it up."""
    rest = iter(extents)
    mpn = end = 0
    for size in sizes:
        wanted = size // FRAME_BYTES
        own = []
        while wanted:
            if mpn == end:
                extent = next(rest)
                mpn, end = extent.first_mpn, extent.end_mpn
            count = min(wanted, end - mpn)
            own.append(Extent(first_mpn=mpn, count=count))
            mpn += count
            wanted -= count
        yield tuple(own)


def _leaves(base: int, extents: Sequence[Extent]) -> Iterator[tuple[int, int, bool]]:
    """Return (address, frame, is 2 MiB) of the leaves that map `extents` in a row at `base`, large where aligned."""
    for va, mpn, count, large in _runs(base, extents):
        if large:
            yield va, mpn, True
        else:
            for page in range(count):
                yield va + page * FRAME_BYTES, mpn + page, False


def _runs(base: int, extents: Sequence[Extent]) -> Iterator[tuple[int, int, int, bool]]:
    """Return (address, frame, frames, is 2 MiB): a large leaf where aligned, or a run of small ones."""
    va = base
    for extent in extents:
        mpn = extent.first_mpn
        end = extent.end_mpn
        while mpn < end:
            count, large = end - mpn, False
            if count >= _LARGE_FRAMES and (va // FRAME_BYTES - mpn) % _LARGE_FRAMES == 0:
                large = mpn % _LARGE_FRAMES == 0
                count = _LARGE_FRAMES if large else _LARGE_FRAMES - mpn % _LARGE_FRAMES
            yield va, mpn, count, large
            va += count * FRAME_BYTES
            mpn += count


def _whole_pages(size_bytes: int) -> int:
    if not 0 < size_bytes <= SEGMENT_BYTES_MAX:
        raise MappingError(f"a segment has 1 to {SEGMENT_BYTES_MAX} bytes, got {size_bytes}")
    return -(-size_bytes // FRAME_BYTES) * FRAME_BYTES


def _signed(va: int) -> int:
    """Return a virtual address as the signed 64-bit number that a trace record holds."""
    return va - (1 << 64) if va >> 63 else va
