"""Walks over tables with wrong bits: what ECC corrects is as it was, what it cannot is a machine check, in every walk."""

import numpy as np
import pytest

from sim.hw.mca import MachineCheck
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import Access, Accesses, AddressSpace, Kind, PageFault, Rights, Translation
from sim.hw.mmu.cpu import LogicalCpu

VA = 0x7F00_0000_0000


@pytest.fixture
def space():
    memory = PhysicalMemory(64 << 20)
    space = AddressSpace(memory, "world")
    frame = memory.allocate(4, "world")[0].first_mpn
    space.map_run(VA, frame, 4, Rights(write=True, user=True))
    space.memory = memory
    space.frame = frame
    return space


def leaf_pa(space):
    """The physical address of the leaf entry of VA."""
    table = space.control.cr3
    for shift in (39, 30, 21):
        table = space.memory.read_u64(table | (VA >> shift & 0x1FF) << 3) & space.control.masks.address
    return table | (VA >> 12 & 0x1FF) << 3


def one_by_one(space):
    return space.translate(VA, Access(Kind.WRITE, user=True))


def by_cpu(space):
    return LogicalCpu(0, space.memory, space.control).translate(VA, Access(Kind.WRITE, user=True))


def many(space):
    addresses = np.array([VA, VA + 4096], np.uint64)
    found = space.translate_many(Accesses(va=addresses, kind=Kind.WRITE, user=True))
    return [(int(pa), int(vector)) for pa, vector in zip(found.pa, found.vector, strict=True)]


@pytest.mark.parametrize("walk", [one_by_one, by_cpu])
def test_a_walk_reads_an_entry_with_one_wrong_bit_as_it_was(space, walk):
    space.memory.errors.inject(leaf_pa(space), [1])
    outcome = walk(space)
    assert isinstance(outcome, Translation)
    assert outcome.pa == space.frame << 12
    assert not space.memory.has_errors
    assert space.memory.machine_checks.logged == 1


def test_many_walks_read_an_entry_with_one_wrong_bit_as_it_was(space):
    space.memory.errors.inject(leaf_pa(space), [1])
    expected = [(space.frame << 12, 0), (space.frame + 1 << 12, 0)]
    assert many(space) == expected
    assert not space.memory.has_errors
    assert many(space) == expected  # and again, now without the way of ECC


@pytest.mark.parametrize("walk", [one_by_one, by_cpu, many])
def test_no_walk_uses_an_entry_with_two_wrong_bits(space, walk):
    walk(space)  # the tables are where walks read them
    space.memory.errors.inject(leaf_pa(space), [1, 2])
    with pytest.raises(MachineCheck):
        walk(space)
    assert space.memory.has_errors


@pytest.mark.parametrize("walk", [one_by_one, by_cpu, many])
def test_wrong_bits_elsewhere_change_no_walk(space, walk):
    before = walk(space)
    space.memory.errors.inject(63 << 20, [3, 4])
    assert walk(space) == before


def test_an_entry_that_points_beyond_memory_faults_alike_with_and_without_errors(space):
    memory = space.memory
    pa = leaf_pa(space)
    table = pa & -4096
    upper = space.control.cr3
    for shift in (39, 30):
        upper = memory.read_u64(upper | (VA >> shift & 0x1FF) << 3) & space.control.masks.address
    entry_pa = upper | (VA >> 21 & 0x1FF) << 3
    entry = memory.read_u64(entry_pa)
    memory.write_u64(entry_pa, entry - table + (1 << 34))
    before = one_by_one(space)
    assert isinstance(before, PageFault)
    memory.errors.inject(63 << 20, [3, 4])
    assert one_by_one(space) == before
