"""Reference counts, handing on, forming blocks, retirement."""

import pytest

from sim.core.units import MIB
from sim.errors import SimBug
from sim.hw.frame_counts import RETIRED_OWNER, SHARED_OWNER
from sim.hw.memory import Extent, PhysicalMemory

BLOCK = 512


@pytest.fixture
def memory():
    return PhysicalMemory(8 * MIB, nodes=2)


def one(mpn):
    return Extent(first_mpn=mpn, count=1)


def test_references_are_one_unless_more_were_counted(memory):
    (frame,) = memory.allocate(1, "a")
    mpn = frame.first_mpn
    assert memory.references(mpn + 1) == 0
    assert memory.references(mpn) == 1
    assert memory.add_reference(mpn) == 2
    assert memory.add_reference(mpn) == 3
    assert [memory.drop_reference(mpn) for _ in range(3)] == [2, 1, 0]
    assert memory.owner_of(mpn) is None
    memory.check_invariants()


def test_a_frame_with_two_holders_cannot_be_freed_and_a_free_one_not_held(memory):
    (frames,) = memory.allocate(600, "a")
    memory.add_reference(frames.first_mpn + 7)
    with pytest.raises(SimBug, match="shared or retired"):
        memory.free(frames)
    memory.drop_reference(frames.first_mpn + 7)
    memory.free(frames)
    with pytest.raises(SimBug, match="free or retired"):
        memory.add_reference(frames.first_mpn)


def test_handing_on_keeps_the_bytes_and_allocating_anew_does_not(memory):
    (frames,) = memory.allocate(BLOCK + 3, "a", contiguous=True)
    memory.write(frames.first_mpn << 12, b"secret")
    memory.transfer(frames, "b")
    assert memory.owners() == {"b": BLOCK + 3}
    assert memory.read(frames.first_mpn << 12, 6) == b"secret"
    assert memory.blocks_broken == 1, "a whole block is handed on whole"
    memory.transfer(one(frames.first_mpn + 9), SHARED_OWNER)
    assert memory.owners() == {"b": BLOCK + 2, SHARED_OWNER: 1}
    assert memory.blocks_broken == 2
    memory.check_invariants()
    memory.free(one(frames.first_mpn))
    memory.allocate(memory.frames_free, "c")
    assert memory.owner_of(frames.first_mpn) == "c"
    assert memory.read(frames.first_mpn << 12, 6) == bytes(6)


def test_what_nobody_owns_is_not_handed_on(memory):
    memory.allocate(1, "a")
    for mpn in (5, 3 * BLOCK):
        with pytest.raises(SimBug, match="nobody"):
            memory.transfer(one(mpn), "b")


def test_a_block_is_formed_again_when_all_its_frames_have_one_owner(memory):
    (block,) = memory.allocate(BLOCK, "a", contiguous=True, align_frames=BLOCK)
    assert memory.form(block.first_mpn)
    memory.free(one(block.first_mpn + 5))
    assert memory.blocks_broken == 1
    assert not memory.form(block.first_mpn)
    memory.allocate(1, "b")
    assert not memory.form(block.first_mpn)
    memory.transfer(one(block.first_mpn + 5), "a")
    assert memory.form(block.first_mpn + 17)
    assert memory.blocks_broken == 0
    memory.check_invariants()
    memory.free(block)
    memory.check_invariants()


def test_ownership_of_a_range_is_told_with_a_look_a_block(memory):
    memory.allocate(2 * BLOCK, "a", node=0)
    whole = Extent(first_mpn=0, count=2 * BLOCK)
    assert memory.owns_all(whole, "a")
    assert not memory.owns_all(whole, "b")
    memory.transfer(one(BLOCK + 3), "b")
    assert not memory.owns_all(whole, "a")
    assert memory.owns_all(Extent(first_mpn=0, count=BLOCK + 3), "a")
    assert memory.owns_all(one(BLOCK + 3), "b")
    assert not memory.owns_all(Extent(first_mpn=2 * BLOCK, count=1), "nobody")


@pytest.mark.parametrize("how", ["free block", "broken block", "owned", "owned whole"])
def test_a_retired_frame_is_never_allocated_again(memory, how):
    memory.allocate(10, "a")
    owned = how.startswith("owned")
    mpn = {"free block": 3 * BLOCK + 5, "broken block": 100, "owned": 4, "owned whole": BLOCK + 4}[how]
    if how == "owned whole":
        memory.allocate(BLOCK, "b", contiguous=True, align_frames=BLOCK)
    memory.retire(mpn)
    memory.retire(mpn)
    assert (memory.owner_of(mpn), memory.frames_retired) == (RETIRED_OWNER, 1)
    memory.check_invariants()
    with pytest.raises(SimBug, match="retired"):
        memory.free(one(mpn))
    with pytest.raises(SimBug, match="retired"):
        memory.transfer(one(mpn), "b")
    for renew in (memory.release_all, memory.power_cycle):
        taken = memory.allocate(memory.frames_free, "all")
        assert sum(extent.count for extent in taken) <= memory.frames_total - 1
        assert not any(extent.first_mpn <= mpn < extent.end_mpn for extent in taken)
        renew()
        memory.check_invariants()
    assert memory.frames_free == memory.frames_total - 1
    assert owned or memory.frames_of("b") == 0


def test_a_shared_frame_is_not_retired_under_its_holders(memory):
    memory.allocate(1, "a")
    memory.add_reference(0)
    with pytest.raises(SimBug, match="several"):
        memory.retire(0)


def test_scrubbed_frames_are_counted(memory):
    memory.allocate(3, "a")
    memory.allocate(BLOCK, "b")
    assert memory.frames_scrubbed == BLOCK + 3
