"""The guest-physical memory of one VM: what it may reach, and how it comes to have frames.

Models: extended page tables that map guest pages to frames of the VM; frames given on the first touch, zeroed, as 2 MiB
pages where a free one and an untouched range are there; pages given back (balloon), shared read-only between VMs and
copied on the first write.  A VM that touches nothing has one frame: its root table.

The guarantee: a leaf of these tables names a frame that the VM owns, or one that is declared shared, and that one never
writable.  `map` refuses anything else, so no sequence of guest actions leads outside.

Leaves out: the guest's accesses (`sim.kernel.memory.guest_access`); which pages to take from whom (the pager and the memory scheduler decide), device memory: an access beyond
the VM's memory ends in the EPT violation as data.

Sources: Waldspurger, "Memory Resource Management in VMware ESX Server", OSDI 2002 (pmap, balloon, sharing); large pages
for guests as the option Mem.AllocGuestLargePage has them.  `ppn` is a guest page number, `mpn` a machine page number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from sim.core.facts import fact
from sim.core.units import SECOND
from sim.errors import SimBug, VmksimError
from sim.hw.frame_counts import SHARED_OWNER
from sim.hw.memory import FRAME_BYTES, Extent, OutOfMemory, PhysicalMemory
from sim.hw.mmu.ept import QUALIFY_WRITE, EptViolation
from sim.hw.mmu.ept_entries import EptControl, EptRights
from sim.hw.mmu.ept_tables import EptLeaf, EptTables
from sim.hw.mmu.space import MappingError

__all__ = ["DemandZero", "GuestSpace", "Pager"]

SCRUB_BYTES_PER_S = fact(
    "memory.scrub_rate",
    10_000_000_000,
    unit="byte/s",
    source="one core zeroing memory with streaming stores",
    kind="assumed",
)
EPT_VIOLATION_NS = fact(
    "vm.ept_violation",
    1_500,
    unit="ns",
    source="an exit, the allocation of a frame and the entry, without the zeroing",
    kind="assumed",
)

_LARGE_FRAMES = 512
_READ_ONLY = EptRights(write=False)
_ALL = EptRights()


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
        first = ppn & -_LARGE_FRAMES
        if self.large_pages and space.untouched(first, _LARGE_FRAMES):
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


class GuestSpace:
    """The guest-physical memory of the VM `name`: `pages` pages from guest-physical address 0.

    `scrub_bytes_per_s` is how fast frames are zeroed; what that and the exits take is collected for `take_cost_ns`.
    """

    def __init__(
        self,
        memory: PhysicalMemory,
        name: str,
        pages: int,
        *,
        features: EptControl | None = None,
        pager: Pager | None = None,
        scrub_bytes_per_s: int = SCRUB_BYTES_PER_S.value,
    ) -> None:
        self.owner = f"vm:{name}"
        self.pages = pages
        self.tables = EptTables(memory, f"{self.owner}/ept", features=features)
        if not 0 < pages <= self.tables.pages_max:
            raise SimBug(f"a VM of {pages} pages: EPT translates {self.tables.pages_max}")
        self.pager: Pager = pager if pager is not None else DemandZero()
        self.violations = 0
        self.frames_scrubbed = 0
        self.shared_pages = 0
        self.memory = memory
        self._scrub_bytes_per_s = scrub_bytes_per_s
        self._cost_ns = 0

    # ------------------------------------------------------- what the kernel does

    @property
    def resident_pages(self) -> int:
        """The number of guest pages that have a frame, shared ones included."""
        return self.memory.frames_of(self.owner) + self.shared_pages

    def map(self, ppn: int, mpn: int, count: int = 1, rights: EptRights = _ALL) -> None:
        """Map frames of the VM, or shared ones without the right to write, as large as alignment allows.

        Each shared frame must have had its reference counted for this mapping (`map_shared` does both).  Errors:
        `MappingError` for a frame that is neither, a page outside or mapped already; then nothing has changed.
        """
        self._check_pages(ppn, count)
        shared = self._shared_among(Extent(first_mpn=mpn, count=count))
        if shared and rights.write:
            raise MappingError(f"a shared frame from {mpn:#x} on would be writable")
        self.tables.map(ppn, mpn, count, rights)
        self.shared_pages += shared

    def unmap(self, ppn: int, count: int = 1) -> tuple[Extent, ...]:
        """Remove whatever is mapped in a range; the frames, which are returned in order, keep owner and references."""
        self._check_pages(ppn, count)
        frames = self.tables.unmap(ppn, count)
        self.shared_pages -= sum(self._shared_among(extent) for extent in frames)
        return frames

    def release(self, ppn: int, count: int = 1) -> int:
        """Unmap a range and give its frames back, as the balloon does; return how many pages had one."""
        released = 0
        for extent in self.unmap(ppn, count):
            released += extent.count
            if not self._shared_among(extent):
                self.memory.free(extent)
                continue
            for mpn in extent.mpns():
                self.memory.drop_reference(mpn)
        return released

    def protect(self, ppn: int, count: int, rights: EptRights) -> int:
        """Give what is mapped in a range other rights; return how many pages that were.

        Errors: `MappingError` if a shared frame would be writable; then nothing has changed.
        """
        self._check_pages(ppn, count)
        if (
            rights.write
            and self.shared_pages
            and any(self._is_shared(leaf) for leaf in self._leaves(ppn, count))
        ):
            raise MappingError(f"a shared frame among the pages from {ppn:#x} on would be writable")
        return self.tables.protect(ppn, count, rights)

    def collect(self, ppn: int = 0, count: int | None = None, *, clear: bool = True) -> tuple[EptLeaf, ...]:
        """Return the leaves that were used since the flags were cleared, and clear them; see `EptTables.collect`."""
        return self.tables.collect(ppn, count if count is not None else self.pages - ppn, clear=clear)

    def populate(self, ppn: int, count: int) -> int:
        """Back every page of a range that has no frame; return how many that were.

        Frames are zeroed, and whole 2 MiB blocks as far as there are any.  Errors: `OutOfMemory`, `MappingError`; then
        nothing has changed.
        """
        self._check_pages(ppn, count)
        done: list[tuple[int, int]] = []
        try:
            for first, pages in list(self._gaps(ppn, count)):
                for low, size in _aligned_parts(first, pages):
                    self._back(low, self.memory.allocate(size, self.owner))
                    done.append((low, size))
        except VmksimError:
            for low, size in done:
                self.release(low, size)
            raise
        return sum(size for _, size in done)

    def back_large(self, ppn: int) -> None:
        """Back 512 untouched pages from a multiple of 512 on by one large page.

        Errors: `OutOfMemory` if no 2 MiB block is free; then nothing has changed.
        """
        whole = self.memory.allocate(_LARGE_FRAMES, self.owner, contiguous=True, align_frames=_LARGE_FRAMES)
        self._back(ppn, whole)

    def untouched(self, ppn: int, count: int) -> bool:
        """Tell whether a range lies within the VM's memory and none of it has a frame."""
        if ppn + count > self.pages:
            return False
        return next(self._leaves(ppn, count), None) is None

    def share(self, ppn: int) -> int:
        """Declare the frame of a page shared and return it: it becomes read-only, and other VMs may map it.

        Errors: `MappingError` if the page has no frame of the VM.
        """
        leaf = self._leaf(ppn)
        if self._is_shared(leaf):
            raise MappingError(f"guest page {ppn:#x} is shared already")
        self.tables.protect(ppn, 1, _READ_ONLY)
        mpn = leaf.mpn + ppn - leaf.ppn
        self.memory.transfer(Extent(first_mpn=mpn, count=1), SHARED_OWNER)
        self.shared_pages += 1
        return mpn

    def map_shared(self, ppn: int, mpn: int) -> None:
        """Map a shared frame read-only at a page that has none, and count the reference; errors as in `map`."""
        if self.memory.owner_of(mpn) != SHARED_OWNER:
            raise MappingError(f"frame {mpn:#x} is not declared shared")
        self.map(ppn, mpn, 1, _READ_ONLY)
        self.memory.add_reference(mpn)

    def unshare(self, ppn: int) -> int:
        """Give a page a frame of its own with the same bytes, as the first write to a shared one does; return it.

        The last holder keeps the frame itself.  Errors: `MappingError` if the page is not shared; `OutOfMemory`; then
        nothing has changed.
        """
        leaf = self._leaf(ppn)
        if not self._is_shared(leaf):
            raise MappingError(f"guest page {ppn:#x} is not shared")
        if self.memory.references(leaf.mpn) == 1:
            self.memory.transfer(Extent(first_mpn=leaf.mpn, count=1), self.owner)
            self.shared_pages -= 1
            self.tables.protect(ppn, 1, _ALL)
            return leaf.mpn
        (copy,) = self.memory.allocate(1, self.owner)
        self.memory.write(copy.first_mpn * FRAME_BYTES, self.memory.read(leaf.mpn * FRAME_BYTES, FRAME_BYTES))
        self.release(ppn)
        self.map(ppn, copy.first_mpn)
        return copy.first_mpn

    def take_cost_ns(self) -> int:
        """Return the simulated time that exits and scrubbing took since the last call, for whoever runs the guest."""
        taken, self._cost_ns = self._cost_ns, 0
        return taken

    def destroy(self) -> None:
        """Give every frame and every table back."""
        self.release(0, self.pages)
        self.tables.destroy()

    def resolve(self, violation: EptViolation) -> bool:
        """Handle an EPT violation of the guest; return whether its access can be tried again.  Errors: of the pager."""
        ppn = violation.gpa // FRAME_BYTES
        if ppn >= self.pages:
            return False
        self.violations += 1
        self._cost_ns += EPT_VIOLATION_NS.value
        leaf = self.tables.leaf_at(ppn)
        if leaf is None:
            return self.pager.fill(self, ppn)
        if self._is_shared(leaf) and violation.qualification & QUALIFY_WRITE:
            self.unshare(ppn)
            return True
        return self.pager.unprotect(self, ppn)

    def check_invariants(self) -> None:
        """Raise `SimBug` unless every leaf names the VM's own frames, or a shared one without the right to write."""
        own = shared = 0
        for leaf in self.tables.leaves():
            if leaf.end_ppn > self.pages:
                raise SimBug(f"{self.owner}: a leaf at {leaf.ppn:#x} is beyond the VM's memory")
            frames = Extent(first_mpn=leaf.mpn, count=leaf.count)
            if self.memory.owns_all(frames, self.owner):
                own += leaf.count
            elif self.memory.owns_all(frames, SHARED_OWNER) and not leaf.rights.write:
                shared += leaf.count
            else:
                raise SimBug(f"{self.owner} reaches frames that are not its own at {leaf.ppn:#x}")
        if own != self.memory.frames_of(self.owner) or shared != self.shared_pages:
            raise SimBug(f"{self.owner}: {own} own and {shared} shared pages are mapped, the books differ")
        self.tables.check_invariants()

    # ------------------------------------------------------------------- the rest

    def _back(self, ppn: int, extents: tuple[Extent, ...]) -> None:
        """Map frames that were just allocated in a row from `ppn` on; all or none, and then they are free again."""
        done = 0
        try:
            for extent in extents:
                self.tables.map(ppn + done, extent.first_mpn, extent.count)
                done += extent.count
        except VmksimError:
            if done:
                self.tables.unmap(ppn, done)
            for extent in extents:
                self.memory.free(extent)
            raise
        self.frames_scrubbed += done
        self._cost_ns += done * FRAME_BYTES * SECOND // self._scrub_bytes_per_s

    def _leaves(self, ppn: int, count: int) -> Iterator[EptLeaf]:
        return self.tables.leaves(ppn, ppn + count)

    def _gaps(self, ppn: int, count: int) -> Iterator[tuple[int, int]]:
        """Return (first page, pages) of the parts of a range that have no frame."""
        at = ppn
        for leaf in self._leaves(ppn, count):
            if leaf.ppn > at:
                yield at, leaf.ppn - at
            at = leaf.end_ppn
        if at < ppn + count:
            yield at, ppn + count - at

    def _leaf(self, ppn: int) -> EptLeaf:
        self._check_pages(ppn, 1)
        leaf = self.tables.leaf_at(ppn)
        if leaf is None:
            raise MappingError(f"guest page {ppn:#x} has no frame")
        return leaf

    def _is_shared(self, leaf: EptLeaf) -> bool:
        return leaf.count == 1 and self.memory.owner_of(leaf.mpn) == SHARED_OWNER

    def _shared_among(self, extent: Extent) -> int:
        """Return how many frames of an extent are shared; raise `MappingError` for one that is not the VM's either."""
        if self.memory.owns_all(extent, self.owner):
            return 0
        shared = 0
        for mpn in extent.mpns():
            owner = self.memory.owner_of(mpn)
            if owner == SHARED_OWNER:
                shared += 1
            elif owner != self.owner:
                raise MappingError(f"frame {mpn:#x} belongs to {owner}, not to {self.owner}")
        return shared

    def _check_pages(self, ppn: int, count: int) -> None:
        if ppn < 0 or count < 1 or ppn + count > self.pages:
            raise MappingError(f"{count} pages from {ppn:#x}: {self.owner} has {self.pages:#x}")


def _aligned_parts(ppn: int, pages: int) -> Iterator[tuple[int, int]]:
    """Cut a range so that its middle part begins and ends at multiples of 512."""
    end = ppn + pages
    low = min(end, -(-ppn // _LARGE_FRAMES) * _LARGE_FRAMES)
    high = max(low, end // _LARGE_FRAMES * _LARGE_FRAMES)
    for first, last in ((ppn, low), (low, high), (high, end)):
        if first < last:
            yield first, last - first
