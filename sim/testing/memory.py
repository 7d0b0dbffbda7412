"""Strategies for memory: page tables, mappings, layouts, access patterns, and the memory of VMs.

Every strategy gives small values, and shrinks to the plainest one: one page, read-only, nothing odd.

Models nothing.  Leaves out 5-level tables, which differ by one more entry.  Sources: Intel SDM volume 3A, section 4.5,
for the bits of entries; the ranges are chosen to run quickly.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from attrs import frozen
from hypothesis import strategies as st

from sim.core.units import MIB
from sim.hw.mmu import Kind, Rights
from sim.hw.mmu.paging import ACCESSED, DIRTY, GLOBAL, LARGE, NO_EXECUTE, PRESENT, USER, WRITABLE
from sim.kernel.layout import Layout, LayoutProfile
from sim.kernel.memory.options import RELEASES, MemOptions
from sim.kernel.memory.protocol import Claim
from sim.kernel.memory.spec import MemorySpec, MemoryWorkload
from sim.testing.invariants import PlacedRegion

__all__ = [
    "MappingPlan",
    "TableImage",
    "access_patterns",
    "claims",
    "layout_requests",
    "mappings",
    "mem_options",
    "memory_specs",
    "page_tables",
    "placed_regions",
    "rights",
    "table_entries",
]

TABLES_AT = 0x100000
"""Where the tables of `page_tables` lie, a page each."""

_LARGE_PAGES = 512
_BITS = (PRESENT, WRITABLE, USER, ACCESSED, DIRTY, LARGE, GLOBAL, NO_EXECUTE)


@frozen(kw_only=True)
class MappingPlan:
    """One mapping to be made: first page, rights, and whether it is 2 MiB."""

    page: int
    rights: Rights
    large: bool = False

    @property
    def pages(self) -> range:
        """The pages that it covers."""
        return range(self.page, self.page + (_LARGE_PAGES if self.large else 1))


@frozen(kw_only=True)
class TableImage:
    """Page tables as they lie in memory: the root, an address that walks through them, and entries by their address."""

    cr3: int
    va: int
    entries: dict[int, int]


def rights(*, execute_with_write: bool = False) -> st.SearchStrategy[Rights]:
    """Strategy: rights of a mapping; writable and executable ones only on request."""
    every = st.builds(Rights, write=st.booleans(), user=st.booleans(), execute=st.booleans())
    return every if execute_with_write else every.filter(lambda one: not (one.write and one.execute))


def mappings(count_max: int = 8, *, large: bool = True) -> st.SearchStrategy[tuple[MappingPlan, ...]]:
    """Strategy: mappings of 4 KiB and 2 MiB that do not overlap, in rising order."""

    def build(parts: Sequence[tuple[int, Rights, bool, int]]) -> tuple[MappingPlan, ...]:
        made = []
        for region, right, is_large, offset in sorted(parts, key=_first):
            page = region * _LARGE_PAGES + (0 if is_large else offset)
            made.append(MappingPlan(page=page, rights=right, large=is_large))
        return tuple(made)

    wide = st.booleans() if large else st.just(False)
    one = st.tuples(st.integers(0, 63), rights(), wide, st.integers(0, _LARGE_PAGES - 1))
    return st.lists(one, max_size=count_max, unique_by=_first).map(build)


def table_entries(frames: int = 16, *, maxphyaddr: int = 40) -> st.SearchStrategy[int]:
    """Strategy: paging entries with any bits: most point at one of `frames` frames behind `TABLES_AT`, some anywhere."""
    flags = st.lists(st.sampled_from(_BITS), max_size=len(_BITS), unique=True).map(sum)
    target = st.integers(0, frames - 1).map(lambda frame: TABLES_AT + frame * 4096)
    sane = st.builds(lambda bits, pa: bits | PRESENT | pa, flags, target)
    reserved = st.builds(lambda entry, bit: entry | 1 << bit, sane, st.integers(maxphyaddr, 62))
    return st.one_of(sane, sane, flags, reserved, st.integers(0, 2**64 - 1))


def page_tables(levels: int = 4, **arguments: int) -> st.SearchStrategy[TableImage]:
    """Strategy: tables in which one address walks through one entry a level, with any bits, beside a few others."""

    def build(indices: list[int], path: list[int], decoys: list[tuple[int, int, int]]) -> TableImage:
        entries, table, va = {}, TABLES_AT, 0
        for depth, (index, entry) in enumerate(zip(indices, path, strict=True)):
            va |= index << 12 + 9 * (levels - 1 - depth)
            entries[table | index << 3] = entry
            table = entry & 0x000F_FFFF_FFFF_F000
        for frame, index, entry in decoys:
            entries.setdefault(TABLES_AT + frame * 4096 + index * 8, entry)
        if va >> 47:
            va |= 0xFFFF << 48
        return TableImage(cr3=TABLES_AT, va=va, entries=entries)

    entry = table_entries(**arguments)
    index = st.integers(0, _LARGE_PAGES - 1)
    return st.builds(
        build,
        st.lists(index, min_size=levels, max_size=levels),
        st.lists(entry, min_size=levels, max_size=levels),
        st.lists(st.tuples(st.integers(0, 15), index, entry), max_size=4),
    )


def layout_requests(profile: LayoutProfile, count_max: int = 12) -> st.SearchStrategy[list[tuple[str, int]]]:
    """Strategy: what to place in the windows of a profile: kind and size in bytes of each region."""
    kinds = st.sampled_from([window.kind for window in profile.windows])
    return st.lists(st.tuples(kinds, st.integers(1, 64).map(lambda pages: pages * 4096)), max_size=count_max)


def placed_regions(layout: Layout) -> tuple[PlacedRegion, ...]:
    """Return the regions of our own layout as `check_layout` takes them."""
    made = []
    for region in layout.regions():
        window = layout.profile.window(region.kind)
        made.append(
            PlacedRegion(
                name=region.name or region.kind,
                base=region.base,
                size_bytes=region.size_bytes,
                window_first=window.base,
                window_end=window.end,
                align_bytes=window.align_bytes,
                guard_bytes=window.guard_bytes,
                reachable=prod(offset.slots for offset in window.offsets) if window.offsets else None,
            )
        )
    return tuple(made)


def access_patterns(pages: int, length_max: int = 200) -> st.SearchStrategy[list[tuple[int, Kind]]]:
    """Strategy: accesses to `pages` pages: one page over and over, in a row, in strides, at random, or a few hot pages."""
    kinds = st.sampled_from(Kind)
    length = st.integers(0, length_max)

    def strided(first: int, stride: int, count: int, kind: Kind) -> list[tuple[int, Kind]]:
        return [((first + number * stride) % pages, kind) for number in range(count)]

    anywhere = st.integers(0, pages - 1)
    hot = st.one_of(st.integers(0, max(0, pages // 10)), anywhere)
    return st.one_of(
        st.builds(strided, anywhere, st.integers(0, max(1, pages // 2)), length, kinds),
        st.lists(st.tuples(anywhere, kinds), max_size=length_max),
        st.lists(st.tuples(hot, kinds), max_size=length_max),
    )


def claims(count_max: int = 6, pages_max: int = 10_000) -> st.SearchStrategy[list[Claim]]:
    """Strategy: what VMs bring to the division of memory; some idle, some busy, some with reservation or limit."""

    def build(shares: int, touched: int, active: int, reservation: int, limit: int | None) -> Claim:
        return Claim(
            shares=shares,
            touched=touched,
            active=min(active, touched),
            reservation=reservation if limit is None else min(reservation, limit),
            limit=limit,
        )

    pages = st.integers(0, pages_max)
    one = st.builds(
        build,
        st.one_of(st.sampled_from((1000, 1, 500, 2000)), st.integers(1, 1 << 30)),
        pages,
        pages,
        st.one_of(st.just(0), pages),
        st.one_of(st.none(), pages),
    )
    return st.lists(one, min_size=1, max_size=count_max)


def mem_options() -> st.SearchStrategy[MemOptions]:
    """Strategy: settings of the knobs of memory management, of both releases."""
    return st.builds(
        MemOptions,
        release=st.sampled_from(RELEASES[::-1]),
        idle_tax_percent=st.sampled_from((75, 0, 99, 50)),
        ctl_max_percent=st.sampled_from((65, 0, 75)),
        zip_max_percent=st.sampled_from((10, 0, 50)),
        hysteresis_percent=st.sampled_from((5, 0, 50)),
        force_salting=st.sampled_from((2, 1, 0)),
        large_pages=st.booleans(),
    )


def memory_specs(megabytes: int = 64) -> st.SearchStrategy[MemorySpec]:
    """Strategy: the memory of a VM of so many megabytes: allocation and workload, from idle to busy."""

    def build(
        shares: int | str, reservation: int, limit: int | None, salt: str, workload: MemoryWorkload
    ) -> MemorySpec:
        return MemorySpec(
            shares=shares,
            reservation_bytes=reservation * MIB,
            limit_bytes=None if limit is None else max(limit, reservation, 1) * MIB,
            salt=salt,
            workload=workload,
        )

    size = st.integers(0, megabytes).map(lambda count: count * MIB)
    percent = st.sampled_from((0, 50, 100))
    half = st.integers(0, 50)
    workload = st.builds(
        MemoryWorkload,
        used_bytes=size,
        working_set_bytes=size,
        fill=st.sampled_from((100_000, 1, 5_000)),
        rate=st.sampled_from((2_000, 0, 10_000)),
        write_percent=percent,
        zero_percent=half,
        common_percent=half,
        compressible_percent=percent,
        copies=st.integers(1, 3),
    )
    return st.builds(
        build,
        st.sampled_from(("normal", "low", "high", 1)),
        st.one_of(st.just(0), st.integers(0, megabytes // 2)),
        st.one_of(st.none(), st.integers(1, megabytes)),
        st.sampled_from(("", "salt")),
        workload,
    )


def _first(part: tuple[int, Rights, bool, int]) -> int:
    return part[0]
