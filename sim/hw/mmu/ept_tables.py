"""Extended page tables in simulated frames, and the operations that a hypervisor needs on them.

Models: a root table and the tables below it, each one frame; leaves of 4 KiB, 2 MiB and 1 GiB, as large as number and
alignment of the frames allow; large leaves broken where a part of them changes, and formed again on request, with
rights, memory type and flags kept; accessed and dirty flags collected.  A run of pages is changed a table at a time.
Upper entries permit everything, so the leaf alone decides.

`ppn` is a guest-physical page number, `mpn` a machine page number.

Leaves out: who may map what (`sim.kernel.memory.guest_space`), and the invalidation of cached translations: whoever
caches them compares `generation`, which moves whenever something cached may have become wrong.

Sources: Intel Software Developer's Manual volume 3C, section 29.3.2.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from attrs import evolve, frozen

from sim.errors import SimBug, VmksimError
from sim.hw.memory import FRAME_BYTES, Extent, PhysicalMemory
from sim.hw.mmu.ept import EptAccess, EptOutcome, ept_walk, misconfigured
from sim.hw.mmu.ept_entries import (
    EPT_ACCESSED,
    EPT_DIRTY,
    EPT_EXECUTE_USER,
    EPT_LARGE,
    EPT_TYPE_SHIFT,
    MEMORY_WB,
    EptControl,
    EptRights,
)
from sim.hw.mmu.paging import INDEX_BITS, PAGE_SHIFT
from sim.hw.mmu.space import MappingError

TABLE_ENTRIES = 1 << INDEX_BITS
_ALL = EptRights()
_RIGHT_BITS = _ALL.bits
_FLAGS = EPT_ACCESSED | EPT_DIRTY

_Change = Callable[[int, int], int]


@frozen(kw_only=True)
class EptLeaf:
    """One leaf: `count` pages from guest page `ppn` on, in the frames from `mpn` on."""

    ppn: int
    mpn: int
    count: int
    rights: EptRights
    accessed: bool
    dirty: bool

    @property
    def end_ppn(self) -> int:
        """The first guest page behind the leaf."""
        return self.ppn + self.count


class EptTables:
    """The extended page tables of one guest; `control` is what its EPT pointer says."""

    def __init__(self, memory: PhysicalMemory, owner: str, *, features: EptControl | None = None) -> None:
        self.owner = owner
        self.generation = 0
        self._memory = memory
        self._tables: dict[int, None] = {}
        template = features if features is not None else EptControl(root=0)
        self.control = evolve(template, root=self._new_table(bytes(FRAME_BYTES)))
        self._levels_max = 3 if template.gigabyte_pages else 2
        if not template.large_pages:
            self._levels_max = 1

    @property
    def pages_max(self) -> int:
        """The number of guest pages that the levels can translate."""
        return 1 << INDEX_BITS * self.control.levels

    @property
    def table_frames(self) -> int:
        """The number of frames that hold tables."""
        return len(self._tables)

    def walk(self, gpa: int, access: EptAccess) -> EptOutcome:
        """Translate one access to guest-physical memory; see `sim.hw.mmu.ept`."""
        return ept_walk(self._memory.read_u64, self._memory.write_u64, self.control, gpa, access)

    def map(
        self, ppn: int, mpn: int, count: int = 1, rights: EptRights = _ALL, *, large: bool = True
    ) -> None:
        """Map `count` guest pages to the frames from `mpn` on, with leaves as large as fit unless `large` is off.

        Errors: `MappingError` where a page is mapped or outside, or rights are no rights; `OutOfMemory` when there is
        no frame for a table.  Then nothing has changed.
        """
        self._check(ppn, count, rights)
        if mpn < 0 or (mpn + count - 1) << PAGE_SHIFT > self.control.masks.address:
            raise MappingError(f"frame {mpn:#x} and {count - 1} behind it have no physical address")
        if any(True for _ in self.leaves(ppn, ppn + count)):
            raise MappingError(f"a guest page from {ppn:#x} to {ppn + count - 1:#x} is mapped already")
        done = 0
        try:
            while done < count:
                done += self._map_in_one_table(ppn + done, mpn + done, count - done, rights, large=large)
        except VmksimError:
            if done:
                self.unmap(ppn, done)
            self._prune(self.control.root, self.control.levels, 0, range(ppn, ppn + count))
            raise

    def unmap(self, ppn: int, count: int = 1) -> tuple[Extent, ...]:
        """Remove whatever of the `count` guest pages is mapped; return the frames in the order of the guest pages.

        Large leaves that reach beyond are broken; tables that became empty are freed.
        """
        self._check(ppn, count, _ALL)
        pages = range(ppn, ppn + count)
        self._isolate(ppn, ppn + count)
        frames: list[Extent] = []

        def clear(entry: int, level: int) -> int:
            _append_run(frames, self._leaf_mpn(entry, level), _span(level))
            return 0

        self._change(self.control.root, self.control.levels, 0, pages, clear)
        if frames:
            self.generation += 1
            self._prune(self.control.root, self.control.levels, 0, range(ppn, ppn + count))
        return tuple(frames)

    def protect(self, ppn: int, count: int, rights: EptRights) -> int:
        """Give whatever of the `count` guest pages is mapped these rights; return how many pages that were."""
        self._check(ppn, count, rights)
        self._isolate(ppn, ppn + count)
        changed = 0

        def set_rights(entry: int, level: int) -> int:
            nonlocal changed
            changed += _span(level)
            return entry & ~_RIGHT_BITS | rights.bits

        self._change(self.control.root, self.control.levels, 0, range(ppn, ppn + count), set_rights)
        self.generation += bool(changed)
        return changed

    def collect(self, ppn: int = 0, count: int | None = None, *, clear: bool = True) -> tuple[EptLeaf, ...]:
        """Return the leaves of a range whose accessed or dirty flag is set, as they were, and clear those flags.

        Leaves are not broken: one that reaches beyond the range is returned, and cleared, as a whole.
        """
        end = self.pages_max if count is None else ppn + count
        used = tuple(leaf for leaf in self.leaves(ppn, end) if leaf.accessed or leaf.dirty)
        if clear and used:
            self._change(self.control.root, self.control.levels, 0, range(ppn, end), _without_flags)
            self.generation += 1
        return used

    def split(self, ppn: int) -> int:
        """Break the large leaf that covers `ppn` into 512 of the next size, all with its bits; return their size.

        Errors: `MappingError` unless a large leaf is there; `OutOfMemory`, and then nothing has changed.
        """
        entry_pa, entry, level = self._find(ppn)
        if not entry or level == 1:
            raise MappingError(f"guest page {ppn:#x} is not part of a large leaf")
        first = entry if level == 3 else entry & ~EPT_LARGE
        step = _span(level - 1) << PAGE_SHIFT
        parts = struct.pack(f"<{TABLE_ENTRIES}Q", *(first + number * step for number in range(TABLE_ENTRIES)))
        table = self._new_table(parts)
        self._memory.write_u64(entry_pa, table | _RIGHT_BITS | entry & EPT_ACCESSED)
        self.generation += 1
        return _span(level - 1)

    def form(self, ppn: int) -> bool:
        """Form one large leaf of the 512 leaves of the table that covers `ppn`, if they are one but for their flags.

        The frames must lie in a row from an aligned one, with equal rights and memory type; the large leaf is accessed
        or dirty if one of them was.  Returns whether it was formed.
        """
        entry_pa, table, level = self._table_over(ppn)
        if level > self._levels_max:
            return False
        entries = self._entries(table)
        flags, below = 0, level - 1
        for entry in entries:
            flags |= entry & _FLAGS
        first = entries[0] & ~_FLAGS
        if not first or (below > 1 and not first & EPT_LARGE):
            return False
        mpn, step = self._leaf_mpn(first, below), _span(below) << PAGE_SHIFT
        if mpn % _span(level):
            return False
        if any(entry & ~_FLAGS != first + number * step for number, entry in enumerate(entries)):
            return False
        self._memory.write_u64(entry_pa, first | EPT_LARGE | flags)
        self._free_table(table)
        self.generation += 1
        return True

    def leaf_at(self, ppn: int) -> EptLeaf | None:
        """Return the leaf that covers `ppn`, or None; touches no flag."""
        _, entry, level = self._find(ppn)
        return self._leaf(ppn & -_span(level), entry, level) if entry else None

    def leaves(self, first_ppn: int = 0, end_ppn: int | None = None) -> Iterator[EptLeaf]:
        """Return all leaves that touch a range, in rising order."""
        end = self.pages_max if end_ppn is None else end_ppn
        return self._leaves_below(self.control.root, self.control.levels, 0, range(first_ppn, end))

    def destroy(self) -> None:
        """Free all tables; the frames that were mapped belong to their owners still."""
        for table in self._tables:
            self._memory.free(Extent(first_mpn=table, count=1))
        self._tables.clear()
        self.generation += 1

    def check_invariants(self) -> None:
        """Raise `SimBug` unless exactly the owned tables are reached, none but the root is empty, no entry is wrong."""
        reached = [self.control.root >> PAGE_SHIFT]
        self._check_below(self.control.root, self.control.levels, reached)
        if sorted(reached) != sorted(self._tables):
            raise SimBug(f"the EPT tables of {self.owner} and those that are reachable differ")

    # --------------------------------------------------------------- the tables

    def _new_table(self, content: bytes) -> int:
        (extent,) = self._memory.allocate(1, self.owner)
        self._tables[extent.first_mpn] = None
        table = extent.first_mpn << PAGE_SHIFT
        if content.count(0) != FRAME_BYTES:
            self._memory.write(table, content)
        return table

    def _free_table(self, table: int) -> None:
        mpn = table >> PAGE_SHIFT
        del self._tables[mpn]
        self._memory.free(Extent(first_mpn=mpn, count=1))

    def _entries(self, table: int) -> memoryview:
        return memoryview(self._memory.read(table, FRAME_BYTES)).cast("Q")

    def _is_leaf(self, entry: int, level: int) -> bool:
        return level == 1 or (level <= 3 and entry & EPT_LARGE != 0)

    def _leaf_mpn(self, entry: int, level: int) -> int:
        return (entry & self.control.masks.leaf_address[level]) >> PAGE_SHIFT

    def _leaf(self, ppn: int, entry: int, level: int) -> EptLeaf:
        return EptLeaf(
            ppn=ppn,
            mpn=self._leaf_mpn(entry, level),
            count=_span(level),
            rights=EptRights.of(entry),
            accessed=entry & EPT_ACCESSED != 0,
            dirty=entry & EPT_DIRTY != 0,
        )

    def _find(self, ppn: int) -> tuple[int, int, int]:
        """Return address, value and level of the entry that decides about `ppn`: a leaf, or an absent one."""
        table, level = self.control.root, self.control.levels
        while True:
            entry_pa = table | (ppn // _span(level) & (TABLE_ENTRIES - 1)) << 3
            entry = self._memory.read_u64(entry_pa)
            if not entry or self._is_leaf(entry, level):
                return entry_pa, entry, level
            table = entry & self.control.masks.address
            level -= 1

    def _table_over(self, ppn: int) -> tuple[int, int, int]:
        """Return the entry that points to the lowest table over `ppn`, that table, and the entry's level."""
        table, level = self.control.root, self.control.levels
        above = 0
        while True:
            entry_pa = table | (ppn // _span(level) & (TABLE_ENTRIES - 1)) << 3
            entry = self._memory.read_u64(entry_pa)
            if not entry or self._is_leaf(entry, level):
                return above, table, level + 1
            above, table = entry_pa, entry & self.control.masks.address
            level -= 1

    def _map_in_one_table(self, ppn: int, mpn: int, count: int, rights: EptRights, *, large: bool) -> int:
        """Map as many pages as one table holds with leaves of one size, and return how many."""
        level = self._leaf_level(ppn, mpn, count) if large else 1
        table = self._table_for(ppn, level)
        span = _span(level)
        index = ppn // span & (TABLE_ENTRIES - 1)
        leaves = min(count // span, TABLE_ENTRIES - index)
        first = (
            mpn << PAGE_SHIFT | rights.bits | MEMORY_WB << EPT_TYPE_SHIFT | (EPT_LARGE if level > 1 else 0)
        )
        step = span << PAGE_SHIFT
        entries = struct.pack(f"<{leaves}Q", *range(first, first + leaves * step, step))
        self._memory.write(table | index << 3, entries)
        return leaves * span

    def _leaf_level(self, ppn: int, mpn: int, count: int) -> int:
        for level in range(self._levels_max, 1, -1):
            span = _span(level)
            if ppn % span == 0 and mpn % span == 0 and count >= span:
                return level
        return 1

    def _table_for(self, ppn: int, leaf_level: int) -> int:
        """Return the table of `leaf_level` over `ppn`, making what is missing above it."""
        table, level = self.control.root, self.control.levels
        while level > leaf_level:
            entry_pa = table | (ppn // _span(level) & (TABLE_ENTRIES - 1)) << 3
            entry = self._memory.read_u64(entry_pa)
            if not entry:
                entry = self._new_table(bytes(FRAME_BYTES)) | _RIGHT_BITS
                self._memory.write_u64(entry_pa, entry)
            table = entry & self.control.masks.address
            level -= 1
        return table

    def _isolate(self, first: int, end: int) -> None:
        """Break large leaves until none reaches across either end of the range."""
        for edge in (first, end):
            while edge < self.pages_max:
                leaf = self.leaf_at(edge)
                if leaf is None or leaf.ppn == edge:
                    break
                self.split(edge)

    def _change(self, table: int, level: int, base: int, pages: range, change: _Change) -> None:
        """Replace each leaf that touches the range by `change(entry, level)`, one write a table."""
        span, entries = _span(level), self._entries(table)
        low, high = _indices(base, span, pages)
        new = entries[low:high].tolist()
        for at, entry in enumerate(new):
            if not entry:
                continue
            if self._is_leaf(entry, level):
                new[at] = change(entry, level)
            else:
                below = entry & self.control.masks.address
                self._change(below, level - 1, base + (low + at) * span, pages, change)
        if new != entries[low:high].tolist():
            self._memory.write(table | low << 3, struct.pack(f"<{len(new)}Q", *new))

    def _prune(self, table: int, level: int, base: int, pages: range) -> bool:
        """Free the empty tables over a range, and return whether `table` itself is empty."""
        span, entries = _span(level), self._entries(table)
        low, high = _indices(base, span, pages)
        kept = any(entries[:low]) or any(entries[high:])
        for index in range(low, high):
            entry = entries[index]
            if not entry or level == 1 or self._is_leaf(entry, level):
                kept = kept or entry != 0
                continue
            below = entry & self.control.masks.address
            if self._prune(below, level - 1, base + index * span, pages):
                self._memory.write_u64(table | index << 3, 0)
                self._free_table(below)
            else:
                kept = True
        return not kept

    def _leaves_below(self, table: int, level: int, base: int, pages: range) -> Iterator[EptLeaf]:
        span, entries = _span(level), self._entries(table)
        low, high = _indices(base, span, pages)
        for index in range(low, high):
            entry = entries[index]
            if not entry:
                continue
            ppn = base + index * span
            if self._is_leaf(entry, level):
                yield self._leaf(ppn, entry, level)
            else:
                yield from self._leaves_below(entry & self.control.masks.address, level - 1, ppn, pages)

    def _check_below(self, table: int, level: int, reached: list[int]) -> None:
        entries = self._entries(table)
        if table != self.control.root and not any(entries):
            raise SimBug(f"an empty EPT table of level {level} was kept")
        for entry in entries:
            if not entry:
                continue
            leaf = self._is_leaf(entry, level)
            if misconfigured(self.control, entry, level, leaf=leaf) or not entry & self.control.present_bits:
                raise SimBug(f"EPT entry {entry:#x} of level {level} is one that a processor refuses")
            if not leaf:
                reached.append((entry & self.control.masks.address) >> PAGE_SHIFT)
                self._check_below(entry & self.control.masks.address, level - 1, reached)

    def _check(self, ppn: int, count: int, rights: EptRights) -> None:
        if ppn < 0 or count < 1 or ppn + count > self.pages_max:
            raise MappingError(f"{count} guest pages from {ppn:#x}: not within {self.pages_max:#x} pages")
        bits = rights.bits & (_RIGHT_BITS if self.control.mbec else ~EPT_EXECUTE_USER)
        if not bits or misconfigured(self.control, bits, 1, leaf=True):
            raise MappingError(f"rights {rights} would leave nothing, or be a misconfiguration")


def _span(level: int) -> int:
    """Return how many pages an entry of that level covers."""
    return 1 << INDEX_BITS * (level - 1)


def _without_flags(entry: int, _level: int) -> int:
    return entry & ~_FLAGS


def _indices(base: int, span: int, pages: range) -> tuple[int, int]:
    """Return the range of entries of a table, which begins at page `base`, that touch `pages`."""
    return max(0, (pages.start - base) // span), min(TABLE_ENTRIES, -(-(pages.stop - base) // span))


def _append_run(runs: list[Extent], mpn: int, count: int) -> None:
    if runs and runs[-1].end_mpn == mpn:
        runs[-1] = Extent(first_mpn=runs[-1].first_mpn, count=runs[-1].count + count)
    else:
        runs.append(Extent(first_mpn=mpn, count=count))
