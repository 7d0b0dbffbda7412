"""Frames: placement, ownership, scrubbing, conservation, and the price of a big host."""

import pickle
import subprocess
import sys

import pytest

from sim.core.units import GIB, MIB, TIB
from sim.errors import SimBug
from sim.hw.memory import Extent, OutOfMemory, PhysicalMemory

BLOCK = 512


@pytest.fixture
def memory():
    return PhysicalMemory(16 * MIB, nodes=2)


def test_small_requests_share_one_broken_block(memory):
    first = memory.allocate(3, "a")
    second = memory.allocate(2, "b")
    assert first == (Extent(first_mpn=0, count=3),)
    assert second == (Extent(first_mpn=3, count=2),)
    assert [memory.owner_of(mpn) for mpn in range(6)] == ["a", "a", "a", "b", "b", None]
    memory.check_invariants()


def test_a_big_request_takes_whole_blocks_and_one_remainder(memory):
    extents = memory.allocate(2 * BLOCK + 5, "vm")
    assert sum(extent.count for extent in extents) == 2 * BLOCK + 5
    assert extents == (Extent(first_mpn=0, count=2 * BLOCK + 5),)
    assert memory.frames_of("vm") == 2 * BLOCK + 5


def test_a_node_is_respected_and_never_overdrawn(memory):
    (extent,) = memory.allocate(4 * BLOCK, "vm", node=1)
    assert {memory.node_of(mpn) for mpn in extent.mpns()} == {1}
    assert memory.frames_free_of_node(1) == 0
    with pytest.raises(OutOfMemory):
        memory.allocate(1, "vm", node=1)
    assert memory.frames_free_of_node(0) == 4 * BLOCK


def test_contiguous_runs_are_aligned(memory):
    memory.allocate(1, "a")
    (large,) = memory.allocate(BLOCK, "b", contiguous=True, align_frames=BLOCK)
    (small,) = memory.allocate(8, "c", contiguous=True, align_frames=8)
    assert large.first_mpn % BLOCK == 0
    assert small.first_mpn == 8
    memory.check_invariants()


def test_a_contiguous_run_longer_than_a_block_leaves_its_tail_free(memory):
    (run,) = memory.allocate(BLOCK + 1, "a", contiguous=True)
    assert memory.owner_of(run.end_mpn) is None
    assert memory.frames_used == BLOCK + 1
    memory.check_invariants()


def test_a_failed_request_changes_nothing(memory):
    memory.allocate(5 * BLOCK, "a")
    before = pickle.dumps(memory.owners()), memory.frames_free
    with pytest.raises(OutOfMemory):
        memory.allocate(4 * BLOCK, "b")
    with pytest.raises(OutOfMemory):
        memory.allocate(3 * BLOCK + 1, "b", contiguous=True)
    assert (pickle.dumps(memory.owners()), memory.frames_free) == before


def test_freed_frames_heal_into_whole_blocks(memory):
    pieces = [memory.allocate(100, "a")[0] for _ in range(8)]
    for piece in pieces:
        memory.free(piece)
    assert memory.frames_used == 0
    assert memory.allocate(4 * BLOCK, "b", node=0, contiguous=True) == (Extent(first_mpn=0, count=4 * BLOCK),)


def test_a_part_of_a_whole_block_can_be_freed(memory):
    memory.allocate(BLOCK, "a")
    memory.free(Extent(first_mpn=10, count=20))
    assert memory.frames_of("a") == BLOCK - 20
    assert memory.owner_of(9) == "a"
    assert memory.owner_of(10) is None
    memory.check_invariants()


def test_a_request_that_spans_nodes_is_all_whole_blocks_but_for_its_rest(memory):
    memory.allocate(7, "first")  # breaks a block of the first node
    extents = memory.allocate(5 * BLOCK + 3, "big")
    assert [(extent.first_mpn % BLOCK, extent.count % BLOCK) for extent in extents[:-1]] == [(0, 0)]
    assert sum(extent.count for extent in extents) == 5 * BLOCK + 3
    assert extents[-1].count == 3


def test_one_call_frees_across_nodes_and_owners(memory):
    memory.allocate(4 * BLOCK, "a")
    memory.allocate(2 * BLOCK + 7, "b")
    memory.free(Extent(first_mpn=0, count=memory.frames_total - 2 * BLOCK + 7))
    assert memory.owners() == {}
    memory.check_invariants()


@pytest.mark.parametrize("extent", [Extent(first_mpn=0, count=1), Extent(first_mpn=BLOCK, count=2 * BLOCK)])
def test_freeing_a_free_frame_is_a_bug(memory, extent):
    with pytest.raises(SimBug):
        memory.free(extent)


def test_bytes_cross_frames_and_words_are_little_endian(memory):
    memory.allocate(4, "a")
    memory.write(4090, b"0123456789")
    assert memory.read(4088, 14) == b"\0\x000123456789\0\0"
    memory.write_u64(8, 0x1122334455667788)
    assert memory.read(8, 8) == bytes.fromhex("8877665544332211")
    assert memory.read_u64(8) == 0x1122334455667788
    assert memory.read_u64(3 * 4096) == 0


def test_a_frame_handed_over_reads_as_zeros(memory):
    (extent,) = memory.allocate(600, "a")
    memory.write(0, b"secret" * 1000)
    memory.free(extent)
    memory.allocate(600, "b")
    assert memory.read(0, 6000) == bytes(6000)


def test_bytes_survive_a_reset_until_handed_over_but_not_a_power_cut(memory):
    memory.allocate(1, "a")
    memory.write(0, b"key")
    memory.release_all()
    assert memory.owner_of(0) is None
    assert memory.read(0, 3) == b"key"
    memory.power_cycle()
    assert memory.read(0, 3) == bytes(3)


def test_a_write_needs_an_owner_and_an_address_in_range(memory):
    with pytest.raises(SimBug, match="nobody owns"):
        memory.write(0, b"x")
    with pytest.raises(SimBug, match="nobody owns"):
        memory.write_u64(0, 1)
    with pytest.raises(SimBug, match="beyond"):
        memory.read(16 * MIB - 1, 2)
    with pytest.raises(SimBug, match="beyond"):
        memory.read_u64(16 * MIB)


def test_a_write_to_frames_of_which_one_is_free_stores_nothing(memory):
    memory.allocate(3, "a")
    memory.free(Extent(first_mpn=1, count=1))
    with pytest.raises(SimBug, match="nobody owns"):
        memory.write(100, bytes([1]) * 3 * 4096)
    assert memory.read(0, 3 * 4096) == bytes(3 * 4096)
    memory.write(0, b"")
    memory.write(4096, b"")


@pytest.mark.parametrize("before", [b"", b"x", b"x" * 3 * 4096])
@pytest.mark.parametrize(("pa", "count"), [(0, 512), (4096 + 8, 3), (8192 - 8, 1)])
def test_words_in_a_row_are_stored_as_one_by_one(before, pa, count):
    together, each = PhysicalMemory(16 * MIB), PhysicalMemory(16 * MIB)
    words = [0x0102_0304_0506_0708 * (number + 1) % (1 << 64) for number in range(count)]
    for memory in (together, each):
        memory.allocate(4, "a")
        memory.write(0, before)
    together.write_words(pa, b"".join(word.to_bytes(8, "little") for word in words))
    for number, word in enumerate(words):
        each.write_u64(pa + 8 * number, word)
    assert together.read(0, 4 * 4096) == each.read(0, 4 * 4096)
    assert together.read_u64(pa + 8 * (count - 1)) == words[-1]


def test_words_in_a_row_need_an_owner_and_make_wrong_ones_good(memory):
    with pytest.raises(SimBug, match="nobody owns"):
        memory.write_words(0, bytes(8))
    memory.allocate(1, "a")
    memory.write(0, b"x")
    memory.errors.inject(16, [1, 2])
    memory.errors.inject(32, [1, 2])
    memory.write_words(8, b"y" * 16)
    assert list(memory.errors.words) == [32 // 8]
    assert memory.read(8, 24) == b"y" * 16 + bytes(8)


def test_frames_filled_from_the_same_bytes_change_each_on_its_own(memory):
    memory.allocate(4, "a")
    data = bytes(range(256)) * 32
    memory.write(0, data)
    memory.write(8192, data)
    memory.write(10, b"new")
    memory.write_u64(4096 + 16, 7)
    changed = bytearray(data)
    changed[10:13] = b"new"
    changed[4096 + 16 : 4096 + 24] = (7).to_bytes(8, "little")
    copy = pickle.loads(pickle.dumps(memory))
    for each in (memory, copy):
        assert each.read(0, 8192) == changed
        assert each.read(8192, 8192) == bytes(range(256)) * 32
        each.write_u64(8192, 9)
        assert each.read_u64(8192) == 9
        each.write_u64(8192, int.from_bytes(data[:8], "little"))


def test_bytes_that_the_caller_changes_afterwards_stay_as_they_were_written(memory):
    memory.allocate(3, "a")
    data = bytearray(b"x" * 3 * 4096)
    memory.write(0, data)
    data[:] = bytes(len(data))
    assert memory.read(0, 3 * 4096) == b"x" * 3 * 4096


def test_unequal_blocks_per_node_go_to_the_last_node():
    memory = PhysicalMemory(14 * MIB, nodes=2)
    assert [memory.frames_free_of_node(node) for node in (0, 1)] == [3 * BLOCK, 4 * BLOCK]
    assert memory.node_of(7 * BLOCK - 1) == 1


def test_memory_pickles_with_owners_and_bytes(memory):
    memory.allocate(700, "a")
    memory.write(4096, b"kept")
    copy = pickle.loads(pickle.dumps(memory))
    copy.check_invariants()
    assert copy.read(4096, 4) == b"kept"
    assert copy.owners() == {"a": 700}
    assert copy.allocate(1, "b") == memory.allocate(1, "b")


def test_a_vm_of_many_gibibytes_is_allocated_in_few_extents():
    memory = PhysicalMemory(1 * TIB)
    assert len(memory.allocate(300 * GIB // 4096, "vm")) == 1


def test_a_host_of_one_tebibyte_costs_under_100_mib_of_real_memory():
    script = (
        "from sim.hw.memory import PhysicalMemory\n"
        "memory = PhysicalMemory(1 << 40, nodes=8); memory.allocate(1 << 27, 'vm'); memory.check_invariants()\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100 * 1024
