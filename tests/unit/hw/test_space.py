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
