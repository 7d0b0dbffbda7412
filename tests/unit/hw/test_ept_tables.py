"""EPT tables in frames: leaves of three sizes, broken and formed, changed in runs, all or nothing."""

import pytest

from sim.core.units import GIB, MIB
from sim.errors import SimBug
from sim.hw.memory import Extent, OutOfMemory, PhysicalMemory
from sim.hw.mmu.ept import EptAccess, EptTranslation
from sim.hw.mmu.ept_entries import EptControl, EptRights
from sim.hw.mmu.ept_tables import EptTables, table_frames_max
from sim.hw.mmu.space import MappingError

READ_ONLY = EptRights(write=False)


@pytest.fixture
def memory():
    return PhysicalMemory(4 * GIB)


@pytest.fixture
def tables(memory):
    return EptTables(memory, "ept")


def sizes(tables):
    return [(leaf.ppn, leaf.count) for leaf in tables.leaves()]


def test_an_empty_guest_costs_one_frame(memory, tables):
    assert memory.frames_used == tables.table_frames == 1
    assert tables.control.eptp & 0x7F == 6 | 3 << 3 | 1 << 6
    tables.destroy()
    assert memory.frames_used == 0


def test_leaves_are_as_large_as_number_and_alignment_allow(tables):
    tables.map(0, 0, 2 * 262_144)
    assert sizes(tables) == [(0, 262_144), (262_144, 262_144)]
    tables.unmap(0, 2 * 262_144)
    tables.map(510, 510, 2 + 1024 + 3)
    assert [count for _, count in sizes(tables)] == [1, 1, 512, 512, 1, 1, 1]
    tables.unmap(510, 1029)
    tables.map(512, 1, 512)
    assert len(sizes(tables)) == 512, "guest page and frame must be aligned alike"
    tables.check_invariants()


def test_small_leaves_are_made_on_request_and_when_the_processor_has_no_large_ones(memory, tables):
    tables.map(0, 0, 512, large=False)
    assert len(sizes(tables)) == 512
    plain = EptTables(memory, "plain", features=EptControl(root=0, large_pages=False, gigabyte_pages=False))
    plain.map(0, 0, 1024)
    assert len(sizes(plain)) == 1024
    no_giant = EptTables(memory, "mid", features=EptControl(root=0, gigabyte_pages=False))
    no_giant.map(0, 0, 262_144)
    assert sizes(no_giant) == [(512 * each, 512) for each in range(512)]
    for each in (tables, plain, no_giant):
        each.check_invariants()


def test_a_1_gib_leaf_is_broken_in_two_steps_with_all_its_bits(tables):
    tables.map(0, 262_144, 262_144, READ_ONLY)
    entry_pa, entry, level = tables._find(0)
    kept = entry | 1 << 6 | 1 << 8 | 1 << 9 | 1 << 63
    tables._memory.write_u64(entry_pa, kept)
    assert tables.split(700) == 512
    assert tables.split(700) == 1
    assert len(sizes(tables)) == 511 + 512
    for leaf in tables.leaves():
        assert leaf.mpn == leaf.ppn + 262_144
        assert (leaf.rights, leaf.accessed, leaf.dirty) == (READ_ONLY, True, True)
        _, part, _ = tables._find(leaf.ppn)
        assert part & (1 << 6 | 1 << 63 | 7 << 3) == kept & (1 << 6 | 1 << 63 | 7 << 3)
    assert level == 3
    assert tables.form(700)
    assert tables.form(700)
    assert tables._find(0)[1] == kept
    assert tables.table_frames == 2
    tables.unmap(0, 262_144)
    with pytest.raises(MappingError):
        tables.split(5)


@pytest.mark.parametrize("spoil", ["hole", "rights", "order", "alignment"])
def test_no_large_leaf_is_formed_of_leaves_that_are_not_one(tables, spoil):
    first = 1 if spoil == "alignment" else 0
    tables.map(0, first, 512, large=False)
    if spoil == "hole":
        tables.unmap(9)
    elif spoil == "rights":
        tables.protect(9, 1, READ_ONLY)
    elif spoil == "order":
        tables.unmap(9)
        tables.map(9, 4000)
    before = sizes(tables)
    assert not tables.form(3)
    assert sizes(tables) == before
    tables.check_invariants()


def test_a_formed_leaf_is_used_if_one_of_its_parts_was(tables):
    tables.map(0, 512, 512, large=False)
    tables.walk(7 << 12, EptAccess(write=True))
    assert tables.form(0)
    leaf = tables.leaf_at(300)
    assert (leaf.count, leaf.accessed, leaf.dirty) == (512, True, True)


def test_a_change_of_a_part_breaks_only_the_leaves_at_its_ends(tables):
    tables.map(0, 512, 2048)
    assert tables.protect(100, 1024, READ_ONLY) == 1024
    assert [count for _, count in sizes(tables)].count(512) == 2
    writable = [leaf for leaf in tables.leaves() if leaf.rights.write]
    assert sum(leaf.count for leaf in writable) == 1024
    assert tables.unmap(512, 512) == (Extent(first_mpn=1024, count=512),)
    assert tables.leaf_at(511).mpn == 1023
    assert tables.leaf_at(512) is None
    tables.check_invariants()


def test_unmapping_returns_frames_in_order_and_frees_the_tables(memory, tables):
    tables.map(0, 2000, 3)
    tables.map(3, 100, 2)
    tables.map(9, 102)
    assert tables.unmap(0, 512) == (
        Extent(first_mpn=2000, count=3),
        Extent(first_mpn=100, count=3),
    )
    assert (memory.frames_used, list(tables.leaves())) == (1, [])
    assert tables.unmap(0, 512) == ()


def test_used_leaves_are_collected_and_their_flags_cleared(tables):
    tables.map(0, 512, 1024)
    tables.split(0)
    tables.walk(5 << 12, EptAccess(read=True))
    tables.walk(600 << 12, EptAccess(write=True))
    generation = tables.generation
    used = tables.collect(clear=False)
    assert [(leaf.ppn, leaf.accessed, leaf.dirty) for leaf in used] == [(5, True, False), (512, True, True)]
    assert tables.generation == generation
    assert tables.collect(0, 512) == used[:1]
    assert tables.collect() == used[1:]
    assert tables.collect() == ()
    assert tables.generation > generation


@pytest.mark.parametrize(
    ("ppn", "mpn", "count", "rights"),
    [
        (5, 0, 1, EptRights()),
        (0, 9, 6, EptRights()),
        (600, 0, 200, EptRights()),
        (-1, 0, 1, EptRights()),
        (1 << 36, 0, 1, EptRights()),
        (0, -1, 1, EptRights()),
        (0, 1 << 34, 1, EptRights()),
        (0, 0, 0, EptRights()),
        (0, 0, 1, EptRights(read=False)),
        (0, 0, 1, EptRights(read=False, write=False, execute=False)),
    ],
)
def test_what_cannot_be_mapped_is_refused_and_nothing_changes(memory, tables, ppn, mpn, count, rights):
    tables.map(5, 77)
    tables.map(700, 88)
    before = (list(tables.leaves()), memory.frames_used, tables.generation)
    with pytest.raises(MappingError):
        tables.map(ppn, mpn, count, rights)
    assert (list(tables.leaves()), memory.frames_used, tables.generation) == before


def test_execute_only_rights_depend_on_the_processor(memory, tables):
    only = EptRights(read=False, write=False)
    tables.map(0, 0, 1, only)
    old = EptTables(memory, "old", features=EptControl(root=0, execute_only=False))
    with pytest.raises(MappingError):
        old.map(0, 0, 1, only)


def test_without_a_frame_for_a_table_nothing_is_mapped(memory, tables):
    memory.allocate(memory.frames_free - 4, "hog")
    with pytest.raises(OutOfMemory):
        tables.map(511, 0, 2 * 512, large=False)
    assert (list(tables.leaves()), tables.table_frames, memory.frames_free) == ([], 1, 4)
    tables.map(0, 0, 600, large=False)
    tables.check_invariants()


def test_generation_moves_when_something_cached_may_be_wrong_and_not_for_a_new_mapping(tables):
    tables.map(0, 512, 512)
    assert tables.generation == 0
    seen = [0]
    for change in (
        lambda: tables.protect(0, 512, READ_ONLY),
        lambda: tables.split(0),
        lambda: tables.form(0),
        lambda: tables.unmap(3),
        tables.destroy,
    ):
        change()
        assert tables.generation > seen[-1]
        seen.append(tables.generation)


def test_the_checks_find_a_spoiled_table(memory, tables):
    tables.map(0, 0)
    at = tables._find(0)[0]
    memory.write_u64(at, memory.read_u64(at) & ~1)
    with pytest.raises(SimBug, match="refuses"):
        tables.check_invariants()
    memory.write_u64(at, 0)
    with pytest.raises(SimBug, match="empty"):
        tables.check_invariants()


def test_tables_never_take_more_than_said():
    assert table_frames_max(1) == 4
    assert table_frames_max(512) == 4
    assert table_frames_max(513) == 5
    memory = PhysicalMemory(64 * MIB)
    tables = EptTables(memory, "ept")
    for ppn in range(4096):
        tables.map(ppn, ppn)
    assert tables.table_frames == table_frames_max(4096)


def test_a_tebibyte_is_mapped_with_three_tables_and_walked():
    memory = PhysicalMemory(2 << 40)
    tables = EptTables(memory, "ept")
    (extent,) = memory.allocate(1 << 28, "vm", contiguous=True, align_frames=1 << 18)
    tables.map(0, extent.first_mpn, extent.count)
    assert tables.table_frames == 3
    outcome = tables.walk((1 << 40) - 1, EptAccess(write=True))
    assert isinstance(outcome, EptTranslation)
    assert outcome.pa == (extent.end_mpn << 12) - 1
