"""An address space: page tables in simulated frames, and the operations that a kernel needs on them.

Models: a root table and the tables below it, each one frame of physical memory; mappings of 4 KiB, 2 MiB and 1 GiB,
which can be split into 512 smaller ones and joined again; loads and stores that go through the walk page by page.
Upper entries permit everything, so the leaf alone decides the rights.

Leaves out: sharing of tables between spaces, the TLB (each access walks anew; `sim.hw.mmu.cpu` has one), and any policy
about which rights go together (`sim.kernel.memory`).

Sources: Intel Software Developer's Manual volume 3A, section 4.5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from attrs import evolve, frozen

from sim.errors import SimBug, VmksimError
from sim.hw.memory import FRAME_BYTES, Extent, PhysicalMemory
from sim.hw.mmu.many import Accesses, Translations, translate_each, translate_many
from sim.hw.mmu.paging import (
    ACCESSED,
    DIRTY,
    GLOBAL,
    INDEX_BITS,
    LARGE,
    NO_EXECUTE,
    PAGE_SHIFT,
    PRESENT,
    USER,
    WRITABLE,
    ControlState,
    Rights,
    page_shift,
)
from sim.hw.mmu.walk import Access, GeneralProtection, Kind, Outcome, PageFault, Translation, walk

LARGE_PAGE_BYTES = 2 << 20
HUGE_PAGE_BYTES = 1 << 30
_LEAF_LEVELS = {FRAME_BYTES: 1, LARGE_PAGE_BYTES: 2, HUGE_PAGE_BYTES: 3}
_PAGE_BYTES = (0, FRAME_BYTES, LARGE_PAGE_BYTES, HUGE_PAGE_BYTES)
_KEYS = 16
_KEY_SHIFT = 59
_LARGE_PAT = 1 << 12
_ENTRIES = 1 << INDEX_BITS
_TABLE_ENTRY = PRESENT | WRITABLE | USER
_ADDRESS_BITS = 64
_SHIFTS = tuple([page_shift(level) for level in range(6)])
_TABLE_SHIFT = page_shift(2)


class MappingError(VmksimError):
    """A mapping cannot be made or changed: the address is taken, empty, misaligned or not canonical."""


@frozen(kw_only=True)
class Mapping:
    """One leaf: virtual address, first frame, size and rights."""

    va: int
    mpn: int
    page_bytes: int
    rights: Rights

    @property
    def frames(self) -> range:
        """The frames that the leaf maps."""
        return range(self.mpn, self.mpn + self.page_bytes // FRAME_BYTES)


class AddressSpace:
    """The page tables of one space; `control` is the processor state under which it is used."""

    def __init__(self, memory: PhysicalMemory, owner: str, *, control: ControlState | None = None) -> None:
        self.owner = f"{owner}/page tables"
        self._memory = memory
        self._tables: dict[int, Extent] = {}
        self._last_table = (-1, 0)  # (address bits above the lowest table, that table): where `map` was last
        root = self._new_tables(1)[0]
        template = control if control is not None else ControlState(cr3=0)
        self.control = evolve(template, cr3=root << PAGE_SHIFT)

    @property
    def table_frames(self) -> int:
        """The number of frames that hold page tables."""
        return len(self._tables)

    def map(
        self,
        va: int,
        mpn: int,
        rights: Rights,
        *,
        large: bool = False,
        page_bytes: int = FRAME_BYTES,
        global_page: bool = False,
        key: int = 0,
    ) -> None:
        """Map the page at `va` to frame `mpn`; nothing may be mapped there yet.

        `page_bytes` is 4 KiB, 2 MiB (`large` is short for it) or 1 GiB; `key` is a protection key from 0 to 15.
        """
        leaf_level = _LEAF_LEVELS.get(LARGE_PAGE_BYTES if large else page_bytes)
        if leaf_level is None or not 0 <= key < _KEYS:
            raise MappingError(f"there are no pages of {page_bytes} bytes with key {key}")
        self._check_page(va, mpn, leaf_level)
        table, level = self._lowest_table(va, leaf_level)
        if self._memory.read_u64(_entry_pa(table, va, level)) & PRESENT:
            raise MappingError(f"{va:#x} is mapped already")
        table = self._extend(table, va, level, leaf_level)
        leaf = _leaf(mpn, rights, leaf_level) | (GLOBAL if global_page else 0) | key << _KEY_SHIFT
        self._memory.write_u64(_entry_pa(table, va, leaf_level), leaf)

    def map_run(self, va: int, mpn: int, count: int, rights: Rights) -> None:
        """Map `count` pages of 4 KiB at `va` to the frames from `mpn` on, all or none; errors as in `map`."""
        done = 0
        try:
            while done < count:
                done += self._map_in_one_table(va + done * FRAME_BYTES, mpn + done, count - done, rights)
        except VmksimError:
            for page in range(done):
                self.unmap(va + page * FRAME_BYTES)
            raise

    def map_runs(self, runs: Sequence[tuple[int, int, int, Rights]]) -> None:
        """Map runs (address, first frame, pages, rights) as `map_run` does, all or none."""
        if self._map_at_once(runs):
            return
        done: list[tuple[int, int]] = []
        try:
            for va, mpn, count, rights in runs:
                self.map_run(va, mpn, count, rights)
                done.append((va, count))
        except VmksimError:
            for va, count in done:
                for page in range(count):
                    self.unmap(va + page * FRAME_BYTES)
            raise

    def _map_at_once(self, runs: Sequence[tuple[int, int, int, Rights]]) -> bool:
        """Map runs that lie in rising order in one table where nothing is mapped yet; else do nothing, return False."""
        low = at = runs[0][0] if runs else 0
        table_end = (low >> _TABLE_SHIFT) + 1 << _TABLE_SHIFT
        mpn_end = (self.control.masks.address >> PAGE_SHIFT) + 1
        entries = []
        for va, mpn, count, rights in runs:
            end = va + count * FRAME_BYTES
            if not at <= va <= end <= table_end or va % FRAME_BYTES or not 0 <= mpn <= mpn_end - count:
                return False
            entries.append(bytes((va - at) // FRAME_BYTES * 8))
            entries.append(_leaves_in_a_row(_leaf(mpn, rights, 1), count))
            at = end
        if at == low or not self.control.canonical(low):
            return False
        table, level = self._lowest_table(low, 1)
        packed = b"".join(entries)
        first = _entry_pa(table, low, level)
        if self._memory.read(first, len(packed) if level == 1 else 8).strip(b"\0"):
            return False
        table = self._extend(table, low, level, 1)
        self._memory.write_words(_entry_pa(table, low, 1), packed)
        return True

    def _map_in_one_table(self, va: int, mpn: int, count: int, rights: Rights) -> int:
        """Map as many pages as lie in the table of the first one, all or none, and return how many."""
        count = min(count, _ENTRIES - (va >> PAGE_SHIFT & _ENTRIES - 1))
        self._check_page(va, mpn, 1)
        if count > 1:
            self._check_page(va + (count - 1) * FRAME_BYTES, mpn + count - 1, 1)
        table, level = self._lowest_table(va, 1)
        at = _entry_pa(table, va, level)
        if self._memory.read_u64(at) & PRESENT:
            raise MappingError(f"{va:#x} is mapped already")
        behind = 8 * (count - 1)
        if level == 1 and behind and self._memory.read(at + 8, behind).count(0) != behind:
            raise MappingError(f"a page behind {va:#x} is mapped already")
        at = _entry_pa(self._extend(table, va, level, 1), va, 1)
        leaf = _leaf(mpn, rights, 1)
        if count == 1:
            self._memory.write_u64(at, leaf)
        else:
            self._memory.write_words(at, _leaves_in_a_row(leaf, count))
        return count

    def unmap(self, va: int) -> Mapping:
        """Remove the mapping that begins at `va`, free tables that became empty, and return what it was."""
        path, mapping = self._leaf_at(va)
        self._last_table = (-1, 0)
        self._memory.write_u64(path[-1], 0)
        for depth in range(len(path) - 1, 0, -1):
            table = path[depth] >> PAGE_SHIFT
            if self._memory.read(table << PAGE_SHIFT, FRAME_BYTES).count(0) != FRAME_BYTES:
                break
            self._memory.write_u64(path[depth - 1], 0)
            self._memory.free(self._tables.pop(table))
        return mapping

    def protect(self, va: int, rights: Rights) -> None:
        """Give the mapping that begins at `va` other rights; accessed and dirty bits stay."""
        path, _ = self._leaf_at(va)
        entry = self._memory.read_u64(path[-1])
        kept = entry & ~(WRITABLE | USER | NO_EXECUTE)
        self._memory.write_u64(path[-1], kept | _right_bits(rights))

    def split(self, va: int) -> None:
        """Break the large mapping that begins at `va` into 512 smaller ones that translate and permit the same.

        Errors: `MappingError` if it is not a large one, `OutOfMemory` without a frame for the table; nothing changes.
        """
        path, mapping = self._leaf_at(va)
        level = _LEAF_LEVELS[mapping.page_bytes] - 1
        if not level:
            raise MappingError(f"the page at {va:#x} is of the smallest size")
        entry = self._memory.read_u64(path[-1])
        bits = entry & ~self.control.masks.address
        if level == 1:
            bits = bits & ~LARGE | (LARGE if entry & _LARGE_PAT else 0)
        else:
            bits |= entry & _LARGE_PAT
        step = FRAME_BYTES << INDEX_BITS * (level - 1)
        (table,) = self._new_tables(1)
        leaves = [bits | (mapping.mpn << PAGE_SHIFT) + each * step for each in range(_ENTRIES)]
        self._memory.write(table << PAGE_SHIFT, struct.pack(f"<{_ENTRIES}Q", *leaves))
        self._memory.write_u64(path[-1], table << PAGE_SHIFT | _TABLE_ENTRY | ACCESSED & entry)
        self._last_table = (-1, 0)

    def join(self, va: int) -> None:
        """Form one large mapping out of the 512 that begin at `va` and are equal but for their addresses.

        The large one counts as accessed and dirty if any of them was.  Errors: `MappingError` when they are not a
        full table of one right on frames in a row, aligned; nothing changes.
        """
        path, mapping = self._leaf_at(va)
        level = _LEAF_LEVELS[mapping.page_bytes]
        step = mapping.page_bytes
        if level == max(_LEAF_LEVELS.values()) or (va | mapping.mpn << PAGE_SHIFT) % (step << INDEX_BITS):
            raise MappingError(f"no larger page can begin at {va:#x} on frame {mapping.mpn:#x}")
        entries = self._entries(path[-1] & -FRAME_BYTES).tolist()
        used = ACCESSED | DIRTY
        marks = 0
        for number, entry in enumerate(entries):
            if (entry ^ entries[0] + number * step) & ~used:
                raise MappingError(f"the page at {va + number * step:#x} differs from the one at {va:#x}")
            marks |= entry & used
        pat = LARGE if level == 1 else _LARGE_PAT
        bits = entries[0] & ~(self.control.masks.address | pat | used) | (
            _LARGE_PAT if entries[0] & pat else 0
        )
        self._memory.write_u64(path[-2], mapping.mpn << PAGE_SHIFT | bits | LARGE | marks)
        self._memory.free(self._tables.pop(path[-1] >> PAGE_SHIFT))
        self._last_table = (-1, 0)

    def mapping_at(self, va: int) -> Mapping | None:
        """Return the mapping that covers `va`, or None; touches no accessed bit."""
        table, level = self._descend(va, 1)
        entry = self._memory.read_u64(_entry_pa(table, va, level))
        if not entry & PRESENT:
            return None
        return self._mapping(va & -(1 << page_shift(level)), entry, level)

    def mappings(self) -> Iterator[Mapping]:
        """Return all mappings in rising order of their addresses."""
        return self._mappings_below(self.control.cr3, self.control.levels, 0)

    def translate(self, va: int, access: Access) -> Outcome:
        """Walk the tables for one access; see `sim.hw.mmu.walk`."""
        return walk(*self._memory.entry_access(), self.control, va, access)

    def translate_many(self, accesses: Accesses) -> Translations:
        """Walk the tables for a batch of accesses; see `sim.hw.mmu.many`.

        While words of the memory are wrong, the walks are made one by one, by the way of ECC.
        """
        if self._memory.has_errors:
            return translate_each(self.translate, accesses)
        return translate_many(self._memory.tables, self.control, accesses)

    def load(self, va: int, size: int, access: Access | None = None) -> bytes | PageFault | GeneralProtection:
        """Return `size` bytes read at `va` through the MMU, or the fault that stopped the access."""
        parts = []
        for at, count in _page_pieces(va, size):
            outcome = self.translate(at, access if access is not None else Access(Kind.READ))
            if not isinstance(outcome, Translation):
                return outcome
            parts.append(self._memory.read(outcome.pa, count))
        return b"".join(parts)

    def store(self, va: int, data: bytes, *, user: bool = False) -> PageFault | GeneralProtection | None:
        """Write `data` at `va` through the MMU; returns the fault, if any, before which whole pages may be written."""
        done = 0
        for at, count in _page_pieces(va, len(data)):
            outcome = self.translate(at, Access(Kind.WRITE, user))
            if not isinstance(outcome, Translation):
                return outcome
            self._memory.write(outcome.pa, data[done : done + count])
            done += count
        return None

    def destroy(self) -> None:
        """Free all page tables; the frames that were mapped belong to their owners still."""
        for extent in self._tables.values():
            self._memory.free(extent)
        self._tables.clear()
        self._last_table = (-1, 0)

    def check_invariants(self) -> None:
        """Raise `SimBug` unless exactly the tables that the root reaches are owned, and none but the root is empty."""
        reached = [self.control.cr3 >> PAGE_SHIFT]
        for table, level in self._tables_below(self.control.cr3, self.control.levels):
            reached.append(table >> PAGE_SHIFT)
            if not any(self._entries(table)):
                raise SimBug(f"an empty table of level {level} was kept")
        if sorted(reached) != sorted(self._tables):
            raise SimBug("page-table frames and reachable tables differ")

    # --------------------------------------------------------------- the tables

    def _new_tables(self, count: int) -> list[int]:
        """Allocate `count` zeroed table frames, all or none."""
        mpns = [mpn for extent in self._memory.allocate(count, self.owner) for mpn in extent.mpns()]
        for mpn in mpns:
            self._tables[mpn] = Extent(first_mpn=mpn, count=1)
        return mpns

    def _extend(self, table: int, va: int, level: int, leaf_level: int) -> int:
        """Hang new tables below the free entry for `va` in a table of `level`; return the one of `leaf_level`."""
        if level > leaf_level:
            for new in self._new_tables(level - leaf_level):
                self._memory.write_u64(_entry_pa(table, va, level), new << PAGE_SHIFT | _TABLE_ENTRY)
                table = new << PAGE_SHIFT
                level -= 1
        if leaf_level == 1:
            self._last_table = (va >> _TABLE_SHIFT, table)
        return table

    def _lowest_table(self, va: int, leaf_level: int) -> tuple[int, int]:
        """Return what `_descend` does, at once where a page of 4 KiB follows another in the same table."""
        if leaf_level == 1 and self._last_table[0] == va >> _TABLE_SHIFT:
            return self._last_table[1], 1
        return self._descend(va, leaf_level)

    def _descend(self, va: int, leaf_level: int) -> tuple[int, int]:
        """Follow tables toward `va`; return the lowest one there is, and its level, not below `leaf_level`."""
        table = self.control.cr3
        level = self.control.levels
        while level > leaf_level:
            entry = self._memory.read_u64(_entry_pa(table, va, level))
            if not entry & PRESENT or (level <= 3 and entry & LARGE):
                break
            table = entry & self.control.masks.address
            level -= 1
        return table, level

    def _leaf_at(self, va: int) -> tuple[list[int], Mapping]:
        """Return the entry addresses from the root to the leaf that begins at `va`, and the leaf's meaning."""
        path = []
        table = self.control.cr3
        for level in range(self.control.levels, 0, -1):
            path.append(_entry_pa(table, va, level))
            entry = self._memory.read_u64(path[-1])
            if not entry & PRESENT:
                raise MappingError(f"{va:#x} is not mapped")
            if level == 1 or (level <= 3 and entry & LARGE):
                if va & ((1 << page_shift(level)) - 1):
                    raise MappingError(f"{va:#x} is inside a mapping, not at its beginning")
                return path, self._mapping(va, entry, level)
            table = entry & self.control.masks.address
        raise SimBug("a walk passed the last level")

    def _mappings_below(self, table: int, level: int, prefix: int) -> Iterator[Mapping]:
        for index, entry in enumerate(self._entries(table)):
            if not entry & PRESENT:
                continue
            va = prefix | index << page_shift(level)
            if level == 1 or (level <= 3 and entry & LARGE):
                yield self._mapping(va, entry, level)
            else:
                yield from self._mappings_below(entry & self.control.masks.address, level - 1, va)

    def _tables_below(self, table: int, level: int) -> Iterator[tuple[int, int]]:
        for entry in self._entries(table):
            if entry & PRESENT and level > 1 and not (level <= 3 and entry & LARGE):
                below = entry & self.control.masks.address
                yield below, level - 1
                yield from self._tables_below(below, level - 1)

    def _entries(self, table: int) -> memoryview:
        return memoryview(self._memory.read(table, FRAME_BYTES)).cast("Q")

    def _mapping(self, va: int, entry: int, level: int) -> Mapping:
        bits = page_shift(self.control.levels + 1)
        if va >> (bits - 1) & 1:
            va |= ((1 << _ADDRESS_BITS) - 1) & -(1 << bits)
        rights = Rights(write=entry & WRITABLE != 0, user=entry & USER != 0, execute=entry & NO_EXECUTE == 0)
        mpn = (entry & self.control.masks.leaf_address[level]) >> PAGE_SHIFT
        return Mapping(va=va, mpn=mpn, page_bytes=1 << page_shift(level), rights=rights)

    def _check_page(self, va: int, mpn: int, leaf_level: int) -> None:
        page_bytes = _PAGE_BYTES[leaf_level]
        if not self.control.canonical(va):
            raise MappingError(f"{va:#x} is not canonical")
        if va % page_bytes or (leaf_level > 1 and mpn % (page_bytes // FRAME_BYTES)):
            raise MappingError(
                f"{va:#x} or frame {mpn:#x} is not a multiple of the page of {page_bytes} bytes"
            )
        if not 0 <= mpn <= self.control.masks.address >> PAGE_SHIFT:
            raise MappingError(f"frame {mpn:#x} has no physical address")


def _entry_pa(table: int, va: int, level: int) -> int:
    return table | (va >> _SHIFTS[level] & (_ENTRIES - 1)) << 3


def _right_bits(rights: Rights) -> int:
    bits = WRITABLE if rights.write else 0
    bits |= USER if rights.user else 0
    return bits | (0 if rights.execute else NO_EXECUTE)


def _leaf(mpn: int, rights: Rights, level: int) -> int:
    return mpn << PAGE_SHIFT | PRESENT | _right_bits(rights) | (LARGE if level > 1 else 0)


def _leaves_in_a_row(leaf: int, count: int) -> bytes:
    """Return `count` entries of the lowest level, the first of them given, for frames in a row."""
    return struct.pack(f"<{count}Q", *range(leaf, leaf + count * FRAME_BYTES, FRAME_BYTES))


def _page_pieces(va: int, size: int) -> Iterator[tuple[int, int]]:
    """Return (address, bytes) of the parts of a range that lie in one 4 KiB page each."""
    while size > 0:
        count = min(size, FRAME_BYTES - va % FRAME_BYTES)
        yield va, count
        va += count
        size -= count
