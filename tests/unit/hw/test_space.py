"""Address spaces: mapping, rights, table frames."""

import pytest

from sim.core.units import MIB
from sim.errors import SimBug
from sim.hw.memory import OutOfMemory, PhysicalMemory
from sim.hw.mmu import (
    Access,
    AddressSpace,
    ControlState,
    Kind,
    Mapping,
    MappingError,
    PageFault,
    Permission,
    Rights,
)

VA = 0x4180_0000_0000
LARGE = 2 * MIB


@pytest.fixture
def memory():
    return PhysicalMemory(16 * MIB)


@pytest.fixture
def space(memory):
    return AddressSpace(memory, "kernel")


def test_a_mapping_is_reached_through_tables_in_memory(memory, space):
    (frame,) = memory.allocate(1, "data")
    space.map(VA, frame.first_mpn, Permission.DATA)
    assert space.store(VA + 0xFFC, b"abcd") is None
    assert memory.read((frame.first_mpn << 12) + 0xFFC, 4) == b"abcd"
    assert space.load(VA + 0xFFC, 4) == b"abcd"
    assert memory.frames_of("kernel/page tables") == space.table_frames == 4


def test_rights_are_enforced_and_reported(memory, space):
    (frame,) = memory.allocate(1, "text")
    space.map(VA, frame.first_mpn, Permission.TEXT)
    assert space.store(VA, b"x") == PageFault(error_code=3, cr2=VA)
    assert isinstance(space.translate(VA, Access(Kind.READ, user=True)), PageFault)
    space.protect(VA, Permission.DATA)
    assert space.store(VA, b"x") is None
    assert space.translate(VA, Access(Kind.FETCH)) == PageFault(error_code=17, cr2=VA)


def test_a_load_across_an_unmapped_page_is_a_fault_at_that_page(memory, space):
    (frame,) = memory.allocate(1, "data")
    space.map(VA, frame.first_mpn, Permission.DATA)
    assert space.load(VA + 4090, 12) == PageFault(error_code=0, cr2=VA + 4096, level=1)


def test_large_and_small_pages_live_side_by_side(memory, space):
    (block,) = memory.allocate(512, "big", contiguous=True, align_frames=512)
    (frame,) = memory.allocate(1, "small")
    space.map(VA, block.first_mpn, Permission.TEXT, large=True)
    space.map(VA + LARGE, frame.first_mpn, Permission.RODATA)
    found = list(space.mappings())
    assert found == [
        Mapping(va=VA, mpn=block.first_mpn, page_bytes=LARGE, rights=Permission.TEXT),
        Mapping(va=VA + LARGE, mpn=frame.first_mpn, page_bytes=4096, rights=Permission.RODATA),
    ]
    assert len(found[0].frames) == 512
    assert space.mapping_at(VA + 12345) == found[0]
    assert space.mapping_at(VA + LARGE + 4096) is None
    assert space.load(VA + 12345, 3) == bytes(3)


def test_addresses_of_the_upper_half_keep_their_sign(memory, space):
    (frame,) = memory.allocate(1, "data")
    high = 0xFFFF_FFFF_8000_0000
    space.map(high, frame.first_mpn, Permission.DATA)
    assert [each.va for each in space.mappings()] == [high]


def test_five_level_spaces_map_too(memory):
    space = AddressSpace(memory, "kernel", control=ControlState(cr3=0, la57=True))
    (frame,) = memory.allocate(1, "data")
    space.map(1 << 55, frame.first_mpn, Rights(write=True, user=True))
    assert space.table_frames == 5
    assert [each.va for each in space.mappings()] == [1 << 55]
    assert space.store(1 << 55, b"x", user=True) is None


def test_unmapping_frees_the_tables_that_became_empty(memory, space):
    (frames,) = memory.allocate(2, "data")
    space.map(VA, frames.first_mpn, Permission.DATA)
    space.map(VA + LARGE, frames.first_mpn + 1, Permission.DATA)
    assert space.table_frames == 5
    assert space.unmap(VA).mpn == frames.first_mpn
    assert space.table_frames == 4
    space.check_invariants()
    space.unmap(VA + LARGE)
    assert space.table_frames == 1
    assert isinstance(space.load(VA, 1), PageFault)
    assert memory.frames_of("data") == 2


def test_destroying_a_space_frees_its_tables_only(memory, space):
    (frame,) = memory.allocate(1, "data")
    space.map(VA, frame.first_mpn, Permission.DATA)
    space.destroy()
    assert memory.owners() == {"data": 1}


@pytest.mark.parametrize(
    ("va", "mpn", "large"),
    [
        (VA, 0, False),
        (VA + 1, 1, False),
        (1 << 47, 1, False),
        (VA + 4096, 512, True),
        (VA + LARGE, 1, True),
        (0, -1, False),
        (0, 1 << 40, False),
    ],
)
def test_a_mapping_that_cannot_be_is_refused_and_leaves_no_table(memory, space, va, mpn, large):
    space.map(VA, 1, Permission.DATA)
    before = memory.owners(), list(space.mappings())
    with pytest.raises(MappingError):
        space.map(va, mpn, Permission.DATA, large=large)
    assert (memory.owners(), list(space.mappings())) == before


def test_a_small_page_cannot_be_mapped_inside_a_large_one(space):
    space.map(VA, 512, Permission.DATA, large=True)
    with pytest.raises(MappingError, match="mapped already"):
        space.map(VA + 4096, 1, Permission.DATA)
    with pytest.raises(MappingError, match="inside"):
        space.unmap(VA + 4096)


def test_what_is_not_mapped_cannot_be_unmapped_or_protected(space):
    with pytest.raises(MappingError):
        space.unmap(VA)
    with pytest.raises(MappingError):
        space.protect(VA, Permission.DATA)


def test_running_out_of_frames_for_tables_changes_nothing(memory, space):
    memory.allocate(memory.frames_free - 2, "hog")
    with pytest.raises(OutOfMemory):
        space.map(VA, 1, Permission.DATA)
    assert space.table_frames == 1
    space.check_invariants()


def test_a_lost_table_is_noticed(memory, space):
    space.map(VA, 1, Permission.DATA)
    memory.write_u64(space.control.cr3 | (VA >> 39 & 511) << 3, 0)
    with pytest.raises(SimBug):
        space.check_invariants()


def test_rights_print_as_people_write_them():
    assert [str(each) for each in (Permission.TEXT, Permission.RODATA, Permission.DATA)] == [
        "r-x",
        "r--",
        "rw-",
    ]
    assert str(Rights(write=True, user=True)) == "rw-u"


def test_a_run_of_pages_is_mapped_as_page_by_page_or_not_at_all():
    memory = PhysicalMemory(64 << 20)
    one, many = AddressSpace(memory, "one"), AddressSpace(memory, "many")
    base = 0x418000000000 + 500 * 4096
    for page in range(1100):
        one.map(base + page * 4096, 2000 + page, Permission.DATA)
    many.map_run(base, 2000, 1100, Permission.DATA)
    assert list(many.mappings()) == list(one.mappings())
    before = list(many.mappings())
    tables = many.table_frames
    with pytest.raises(MappingError, match="mapped already"):
        many.map_run(base - 700 * 4096, 5000, 800, Permission.DATA)
    assert list(many.mappings()) == before
    assert many.table_frames == tables
    many.check_invariants()


TABLE_END = VA + LARGE
RUNS = {
    "with gaps in one table": [
        (VA + 0x3000, 100, 2, Permission.TEXT),
        (VA + 0x5000, 300, 1, Permission.RODATA),
        (VA + 0x9000, 200, 3, Permission.DATA),
    ],
    "a whole table": [(VA, 100, 500, Permission.DATA), (VA + 500 * 4096, 900, 12, Permission.RODATA)],
    "over the end of a table": [
        (TABLE_END - 0x3000, 100, 1, Permission.TEXT),
        (TABLE_END - 0x1000, 200, 4, Permission.DATA),
    ],
    "in falling order": [(VA + 0x3000, 100, 2, Permission.TEXT), (VA, 300, 3, Permission.DATA)],
    "far apart": [(VA, 100, 2, Permission.TEXT), ((1 << 64) - 4096, 300, 1, Permission.DATA)],
    "none": [],
}


@pytest.mark.parametrize("wrong_bits", [[], [5]])
@pytest.mark.parametrize("beside", [None, VA + 0x2000, VA + (1 << 30), VA + (1 << 40)])
@pytest.mark.parametrize("runs", RUNS.values(), ids=RUNS)
def test_runs_are_mapped_together_as_one_after_the_other(runs, beside, wrong_bits):
    spaces = []
    for _ in range(2):
        memory = PhysicalMemory(16 * MIB)
        if wrong_bits:
            memory.errors.inject(15 * MIB, wrong_bits)
        spaces.append(AddressSpace(memory, "kernel"))
        covered = any(va <= (beside or 0) < va + count * 4096 for va, _, count, _ in runs)
        if beside is not None and not covered:
            spaces[-1].map(beside, 50, Permission.DATA)
    together, each = spaces
    together.map_runs(runs)
    for va, mpn, count, rights in runs:
        each.map_run(va, mpn, count, rights)
    assert list(together.mappings()) == list(each.mappings())
    assert together.table_frames == each.table_frames
    together.check_invariants()


@pytest.mark.parametrize("taken", [VA + 0x3000, VA + 0x4000, VA + 0xB000])
@pytest.mark.parametrize("large", [False, True])
def test_runs_of_which_one_page_is_taken_are_refused_together(space, taken, large):
    space.map(VA if large else taken, 512, Permission.DATA, large=large)
    before = list(space.mappings()), space.table_frames
    with pytest.raises(MappingError, match="mapped already"):
        space.map_runs(RUNS["with gaps in one table"])
    assert (list(space.mappings()), space.table_frames) == before
    space.check_invariants()


@pytest.mark.parametrize(
    "wrong",
    [
        (VA + 0x9001, 200, 1, Permission.DATA),
        (VA + 0x9000, -1, 1, Permission.DATA),
        (VA + 0x9000, (1 << 40) - 1, 2, Permission.DATA),
        (VA + 0x4000, 200, 1, Permission.DATA),
        (1 << 47, 200, 1, Permission.DATA),
    ],
)
def test_runs_of_which_one_is_wrong_are_refused_together(space, wrong):
    with pytest.raises(MappingError):
        space.map_runs([(VA + 0x3000, 100, 2, Permission.TEXT), wrong])
    with pytest.raises(MappingError):
        space.map_runs([wrong, (VA + 0x4000, 100, 2, Permission.TEXT)])
    assert list(space.mappings()) == []
    assert space.table_frames == 1


def test_runs_without_frames_for_their_tables_are_refused_together():
    memory = PhysicalMemory(16 * MIB)
    space = AddressSpace(memory, "kernel")
    memory.allocate(memory.frames_free - 2, "rest")
    with pytest.raises(OutOfMemory):
        space.map_runs(RUNS["with gaps in one table"])
    assert list(space.mappings()) == []
    assert space.table_frames == 1
    space.check_invariants()


HUGE = 1 << 30


def outcomes(space, *addresses):
    """What each kind of access by kernel and user at some addresses gives, without the size of the page."""
    found = []
    for va in addresses:
        for kind in Kind:
            for user in (False, True):
                outcome = space.translate(va, Access(kind, user))
                if isinstance(outcome, PageFault):
                    found.append((outcome.error_code, outcome.cr2))
                else:
                    found.append((outcome.pa, outcome.rights, outcome.global_page))
    return found


def test_a_page_of_one_gigabyte_is_mapped_walked_and_unmapped(space):
    space.map(HUGE, 1 << 18, Permission.DATA, page_bytes=HUGE)
    assert space.table_frames == 2
    assert list(space.mappings()) == [Mapping(va=HUGE, mpn=1 << 18, page_bytes=HUGE, rights=Permission.DATA)]
    assert space.translate(HUGE + 0x1234_5678, Access(Kind.WRITE)).pa == HUGE + 0x1234_5678
    with pytest.raises(MappingError, match="mapped already"):
        space.map(HUGE + LARGE, 512, Permission.DATA, large=True)
    for va, mpn in ((HUGE + LARGE, 0), (2 * HUGE, 512)):
        with pytest.raises(MappingError, match="multiple"):
            space.map(va, mpn, Permission.DATA, page_bytes=HUGE)
    with pytest.raises(MappingError, match="no pages of 8192 bytes"):
        space.map(0, 0, Permission.DATA, page_bytes=8192)
    space.unmap(HUGE)
    assert space.table_frames == 1


@pytest.mark.parametrize(("page_bytes", "frame"), [(LARGE, 512), (HUGE, 1 << 18)])
@pytest.mark.parametrize("rights", [Permission.TEXT, Rights(write=True, user=True)])
def test_splitting_changes_no_translation_and_joining_brings_the_page_back(
    memory, space, page_bytes, frame, rights
):
    va = 4 * HUGE
    space.map(va, frame, rights, page_bytes=page_bytes, global_page=True, key=3)
    probes = [va, va + 4096 + 7, va + page_bytes // 2, va + page_bytes - 1]
    before = outcomes(space, *probes)
    tables = space.table_frames
    whole = list(space.mappings())
    space.split(va)
    assert outcomes(space, *probes) == before
    assert space.table_frames == tables + 1
    assert [each.page_bytes for each in space.mappings()] == [page_bytes // 512] * 512
    space.check_invariants()
    space.join(va)
    assert outcomes(space, *probes) == before
    assert list(space.mappings()) == whole
    assert space.table_frames == tables
    space.check_invariants()


def test_splitting_keeps_the_page_attribute_bit_and_joining_the_marks(memory, space):
    space.map(0, 512, Permission.DATA, large=True)
    entry = space.control.cr3
    for _ in range(2):
        entry = memory.read_u64(entry) & space.control.masks.address
    memory.write_u64(entry, memory.read_u64(entry) | 1 << 12)
    space.split(0)
    table = memory.read_u64(entry) & space.control.masks.address
    assert {memory.read_u64(table + 8 * each) & 0x80 for each in range(512)} == {0x80}
    assert space.translate(5 * 4096, Access(Kind.WRITE)).pa == 517 << 12
    space.join(0)
    assert memory.read_u64(entry) & (1 << 12 | 0xE0) == 1 << 12 | 0xE0


def test_pages_that_differ_or_lie_apart_are_not_joined(memory, space):
    space.map(0, 1, Permission.DATA)
    with pytest.raises(MappingError, match="smallest"):
        space.split(0)
    space.unmap(0)
    space.map(0, 512, Permission.DATA, large=True)
    space.split(0)
    space.protect(9 * 4096, Permission.RODATA)
    before = list(space.mappings())
    with pytest.raises(MappingError, match="0x9000 differs"):
        space.join(0)
    with pytest.raises(MappingError, match="no larger page"):
        space.join(4096)
    space.protect(9 * 4096, Permission.DATA)
    space.unmap(511 * 4096)
    with pytest.raises(MappingError, match="0x1ff000 differs"):
        space.join(0)
    writable = Mapping(va=0x9000, mpn=521, page_bytes=4096, rights=Permission.DATA)
    assert list(space.mappings()) == [*before[:9], writable, *before[10:511]]
    space.check_invariants()


def test_a_split_without_a_frame_for_the_table_changes_nothing(memory, space):
    space.map(0, 512, Permission.DATA, large=True)
    memory.allocate(memory.frames_free, "hog")
    before = list(space.mappings())
    with pytest.raises(OutOfMemory):
        space.split(0)
    assert list(space.mappings()) == before
