"""The guest-physical memory of one VM: what it may reach, and how it comes to have frames.

Models: extended page tables that map guest pages to frames of the VM; frames given on the first touch, zeroed, as 2 MiB
pages where a free one and an untouched range are there; pages given back (balloon), shared read-only between VMs and
copied on the first write.  A VM that touches nothing has one frame: its root table.

The guarantee: a leaf of these tables names a frame that the VM owns, or one that is declared shared, and that one never
writable.  `map` refuses anything else, so no sequence of guest actions leads outside.

Leaves out: the guest's accesses (`sim.kernel.memory.guest_access`); which pages to take from whom (the pager and the memory scheduler decide), device memory: an access beyond
the VM's memory ends in the EPT violation as data.  What exits and scrubbing take is counted, for `take_cost_ns`, and waited
for by nobody: a vCPU's workload says how long it computes, not what it touches.  VMs with managed memory (`mem`) have no
such space, since their pages have no frame numbers (`sim.kernel.memory.scheduler`).

Sources: Waldspurger, "Memory Resource Management in VMware ESX Server", OSDI 2002 (pmap, balloon, sharing); large pages
for guests as the option Mem.AllocGuestLargePage has them.  `ppn` is a guest page number, `mpn` a machine page number.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.core.facts import fact
from sim.core.units import SECOND
from sim.errors import SimBug, VmksimError
from sim.hw.frame_counts import SHARED_OWNER
from sim.hw.mca import MachineCheck, consumed
from sim.hw.memory import FRAME_BYTES, Extent, PhysicalMemory
from sim.hw.mmu.ept import QUALIFY_WRITE, EptViolation
from sim.hw.mmu.ept_entries import EptControl, EptRights
from sim.hw.mmu.ept_tables import EptLeaf, EptTables
from sim.hw.mmu.space import MappingError
from sim.kernel.memory.pager import LARGE_FRAMES, DemandZero, Pager

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

_READ_ONLY = EptRights(write=False)
_ALL = EptRights()


class GuestSpace:
    """The guest-physical memory of the VM `name`: `pages` pages from guest-physical address 0.

    `poisoned` maps pages whose bytes a memory error destroyed to the frames they had.  `scrub_bytes_per_s` is how fast
    frames are zeroed; what that and the exits take is collected for `take_cost_ns`.
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
        self.poisoned: dict[int, int] = {}
        self.memory = memory
        self._scrub_bytes_per_s = scrub_bytes_per_s
        self._cost_ns = 0

    # ------------------------------------------------------- what the kernel does

    @property
    def resident_pages(self) -> int:
        """The number of guest pages that have a frame, shared ones included."""
        return self.memory.frames_of(self.owner) + self.shared_pages

    def map(self, ppn: int, mpn: int, count: int = 1, rights: EptRights = _ALL) -> None:
        """Map frames of the VM as large as alignment allows, or among them shared ones, without the right to write.

        Each shared frame must have had its reference counted for this mapping (`map_shared` does both).  Errors:
        `MappingError` for a frame that is neither, a page outside or mapped already; then nothing has changed.
        """
        self._check_pages(ppn, count)
        shared = self._shared_among(Extent(first_mpn=mpn, count=count))
        if shared and rights.write:
            raise MappingError(f"a shared frame from {mpn:#x} on would be writable")
        self.tables.map(ppn, mpn, count, rights, large=not shared)
        self.shared_pages += shared
        self._heal(ppn, count)

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
        whole = self.memory.allocate(LARGE_FRAMES, self.owner, contiguous=True, align_frames=LARGE_FRAMES)
        self._back(ppn, whole)

    def break_large(self, ppn: int) -> int:
        """Break the large leaf around a page into the next smaller size, and return that size in pages; 1 if none is there.

        Errors: `OutOfMemory` when there is no frame for the table; then nothing has changed.
        """
        leaf = self._leaf(ppn)
        return self.tables.split(ppn) if leaf.count > 1 else 1

    def form_large(self, ppn: int) -> bool:
        """Form a large leaf around a page if its frames lie in a row and are the VM's own; return whether there is one.

        The books of the frames drop their 4 KiB detail as well.
        """
        leaf = self._leaf(ppn)
        if leaf.count > 1:
            return True
        first = leaf.mpn - ppn % LARGE_FRAMES
        if first < 0 or not self.memory.owns_all(Extent(first_mpn=first, count=LARGE_FRAMES), self.owner):
            return False
        if not self.tables.form(ppn):
            return False
        self.memory.form(first)
        return True

    def untouched(self, ppn: int, count: int) -> bool:
        """Tell whether a range lies within the VM's memory and none of it has a frame."""
        if ppn + count > self.pages or any(ppn <= each < ppn + count for each in self.poisoned):
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

    def poison(self, mpn: int) -> tuple[int, ...]:
        """Unmap a frame whose bytes are lost, and return the pages that had it: touching one is a machine check.

        References of the pages are dropped but for the last holder's, so that the frame can be retired.
        """
        pages = tuple(
            leaf.ppn + mpn - leaf.mpn
            for leaf in list(self.tables.leaves())
            if leaf.mpn <= mpn < leaf.mpn + leaf.count
        )
        for ppn in pages:
            self.unmap(ppn)
            self.poisoned[ppn] = mpn
            if self.memory.references(mpn) > 1:
                self.memory.drop_reference(mpn)
        return pages

    def take_cost_ns(self) -> int:
        """Return the simulated time that exits and scrubbing took since the last call, for whoever runs the guest."""
        taken, self._cost_ns = self._cost_ns, 0
        return taken

    def destroy(self) -> None:
        """Give every frame and every table back."""
        self.release(0, self.pages)
        self.tables.destroy()

    def resolve(self, violation: EptViolation) -> bool:
        """Handle an EPT violation of the guest; return whether its access can be tried again.

        Errors: of the pager; `MachineCheck` where the bytes of the page are lost.
        """
        ppn = violation.gpa // FRAME_BYTES
        if ppn >= self.pages:
            return False
        if ppn in self.poisoned:
            raise MachineCheck(consumed(self.poisoned[ppn] * FRAME_BYTES))
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

    def _heal(self, ppn: int, count: int) -> None:
        for each in [each for each in self.poisoned if ppn <= each < ppn + count]:
            del self.poisoned[each]

    def _leaves(self, ppn: int, count: int) -> Iterator[EptLeaf]:
        return self.tables.leaves(ppn, ppn + count)

    def _gaps(self, ppn: int, count: int) -> Iterator[tuple[int, int]]:
        """Return (first page, pages) of the parts of a range that have no frame and lost none."""
        at = ppn
        taken = [(leaf.ppn, leaf.end_ppn) for leaf in self._leaves(ppn, count)]
        taken += [(each, each + 1) for each in self.poisoned if ppn <= each < ppn + count]
        for first, end in sorted(taken):
            if first > at:
                yield at, first - at
            at = end
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
    low = min(end, -(-ppn // LARGE_FRAMES) * LARGE_FRAMES)
    high = max(low, end // LARGE_FRAMES * LARGE_FRAMES)
    for first, last in ((ppn, low), (low, high), (high, end)):
        if first < last:
            yield first, last - first
