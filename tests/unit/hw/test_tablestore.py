"""The words that walks read are the bytes that memory holds, whatever happens to the frames."""

import copy
import pickle

import numpy as np
import pytest

from sim.core.units import MIB
from sim.errors import SimBug
from sim.hw.frames import Extent
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import Accesses, AddressSpace, ControlState, Permission, translate_many
from sim.hw.tablestore import ALL_ONES

BASE = 0x4180_0000_0000


@pytest.fixture
def memory():
    made = PhysicalMemory(8 * MIB)
    made.allocate(made.frames_total, "anyone")
    return made


def words_of(memory, *mpns):
    slots = memory.tables.slots(np.array(mpns, np.int64))
    return [int(memory.tables.words[slot * 512]) for slot in slots.tolist()]


def test_a_store_to_memory_is_seen_by_walks_and_the_other_way_round(memory):
    memory.write_u64(0x5000, 7)
    assert memory.tables.read(0x5000) == 7
    memory.write(0x5000, b"\x09")
    assert memory.tables.read(0x5000) == 9
    assert words_of(memory, 5) == [9]
    memory.tables.write(0x5000, 11)
    assert memory.read(0x5000, 8) == (11).to_bytes(8, "little")
    assert memory.read_u64(0x5000) == 11
    memory.tables.check_invariants()


def test_a_frame_written_after_a_walk_found_it_empty_is_seen(memory):
    assert words_of(memory, 6, 6) == [0, 0]
    assert memory.tables.read(0x6000) == 0
    memory.write_u64(0x6000, 3)
    assert words_of(memory, 6) == [3]
    assert memory.tables.read(0x6000) == 3


def test_addresses_without_memory_read_as_ones_and_lose_what_is_stored(memory):
    beyond = memory.size_bytes
    assert memory.tables.read(beyond) == ALL_ONES
    memory.tables.write(beyond, 5)
    assert memory.tables.read(beyond) == ALL_ONES
    assert words_of(memory, beyond >> 12, 1 << 40, 0) == [-1, -1, 0]


def test_marking_an_entry_where_no_walk_can_have_found_one_is_our_bug(memory):
    with pytest.raises(SimBug, match="read none"):
        memory.tables.write(0x7000, 1)


def test_many_tables_outgrow_the_array_and_stay_the_same_bytes(memory):
    for mpn in range(300):
        memory.write_u64(mpn << 12, mpn + 1)
    assert words_of(memory, *range(300)) == list(range(1, 301))
    assert memory.tables.frames_held == 300
    memory.write_u64(0, 77)
    assert memory.tables.read(0) == 77
    memory.tables.check_invariants()


def test_a_frame_handed_over_reads_zero_for_walks_too(memory):
    memory.write_u64(0x5000, 7)
    assert words_of(memory, 5) == [7]
    memory.free(Extent(first_mpn=5, count=1))
    memory.allocate(1, "next")
    assert memory.owner_of(5) == "next"
    assert memory.tables.read(0x5000) == 0
    assert words_of(memory, 5) == [0]
    memory.write_u64(0x5000, 8)
    assert words_of(memory, 5) == [8]
    memory.tables.check_invariants()


def test_handing_over_a_large_extent_lets_go_of_the_tables_in_it(memory):
    for mpn in (3, 4, 900):
        memory.write_u64(mpn << 12, 1)
    words_of(memory, 3, 4, 900)
    memory.free(Extent(first_mpn=0, count=900))
    memory.allocate(900, "next")
    assert memory.tables.frames_held == 1
    assert words_of(memory, 3, 4, 900) == [0, 0, 1]
    memory.tables.check_invariants()


def test_a_power_cut_empties_the_tables(memory):
    memory.write_u64(0x5000, 7)
    words_of(memory, 5)
    memory.power_cycle()
    assert memory.tables.read(0x5000) == 0
    assert memory.tables.frames_held == 0


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory))])
def test_a_copy_of_memory_has_tables_of_its_own(memory, clone):
    memory.write_u64(0x5000, 7)
    words_of(memory, 5)
    other = clone(memory)
    assert words_of(other, 5) == [7]
    other.tables.write(0x5000, 8)
    assert (memory.read_u64(0x5000), other.read_u64(0x5000)) == (7, 8)
    other.tables.check_invariants()


def test_a_space_changed_between_two_batches_is_walked_as_it_stands(memory):
    memory.free(Extent(first_mpn=100, count=50))
    space = AddressSpace(memory, "kernel")
    accesses = Accesses(va=np.array([BASE, BASE + 4096, BASE + (2 << 20)], np.uint64))
    space.map(BASE, 5, Permission.DATA)
    assert translate_many(memory.tables, space.control, accesses).pa.tolist() == [0x5000, 0, 0]
    space.map(BASE + 4096, 6, Permission.DATA)
    space.map(BASE + (2 << 20), 7, Permission.DATA)
    assert translate_many(memory.tables, space.control, accesses).pa.tolist() == [0x5000, 0x6000, 0x7000]
    space.unmap(BASE)
    out = translate_many(memory.tables, space.control, accesses)
    assert out.pa.tolist() == [0, 0x6000, 0x7000]
    assert out.vector.tolist() == [14, 0, 0]


def test_malformed_batches_are_refused(memory):
    for bad in (
        {"va": np.zeros(2, np.int64)},
        {"va": np.zeros((2, 2), np.uint64)},
        {"va": np.zeros(2, np.uint64), "kind": np.zeros(3, np.uint8)},
        {"va": np.zeros(2, np.uint64), "kind": np.full(2, 3, np.uint8)},
        {"va": np.zeros(2, np.uint64), "stack": np.zeros(1, np.bool_)},
        {"va": np.zeros(2, np.uint64), "user": np.zeros(3, np.bool_)},
    ):
        with pytest.raises(SimBug):
            Accesses(**bad)
    empty = Accesses(va=np.zeros(0, np.uint64))
    assert translate_many(memory.tables, ControlState(cr3=0), empty).pa.size == 0
