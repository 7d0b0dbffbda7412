"""The kernel's memory: segments, W^X for pages and frames, conservation."""

import pickle

import pytest

from sim.core.context import Sim
from sim.core.units import MIB
from sim.errors import SimBug
from sim.hw.memory import Extent, OutOfMemory, PhysicalMemory
from sim.hw.mmu import Access, Kind, MappingError, PageFault, Permission, Rights
from sim.kernel.memory import KernelMemory, RightsRefused

BASE = 0x4180_4020_0000
TEXT, RODATA, DATA = Permission.TEXT, Permission.RODATA, Permission.DATA


@pytest.fixture
def frames():
    return PhysicalMemory(32 * MIB)


@pytest.fixture
def memory(frames):
    return KernelMemory(Sim(seed=1), frames)


def test_a_segment_holds_its_bytes_then_zeros(memory, frames):
    code = bytes(range(256)) * 20
    segment = memory.map_segment(BASE, code, TEXT, owner="module:a", size_bytes=9000)
    assert segment.size_bytes == 12288
    assert memory.read(BASE, 12288) == code + bytes(12288 - len(code))
    assert frames.frames_of("module:a") == 3
    memory.check_invariants()


def test_code_cannot_be_written_and_data_cannot_be_fetched(memory):
    memory.map_segment(BASE, b"\xc3", TEXT, owner="a")
    memory.map_segment(BASE + 0x2000, b"\xc3", DATA, owner="a")
    assert memory.write(BASE, b"\x90") == PageFault(error_code=3, cr2=BASE)
    fetched = memory.space.translate(BASE + 0x2000, Access(Kind.FETCH))
    assert fetched == PageFault(error_code=17, cr2=BASE + 0x2000)
    assert memory.write(BASE + 0x2000, b"\x90") is None
    assert memory.read(BASE, 1) == b"\xc3"


def test_faults_are_traced_as_data(memory):
    memory.map_segment(BASE, b"\xc3", TEXT, owner="a")
    memory.write(BASE, b"\x90")
    assert isinstance(memory.read(BASE + 0x1000, 1), PageFault)
    traced = memory._sim.trace.select("memory.fault")
    assert [(each["kind"], each["va"]) for each in traced] == [("w", BASE), ("r", BASE + 0x1000)]


def test_writable_and_executable_in_one_mapping_is_refused(memory, frames):
    with pytest.raises(RightsRefused):
        memory.map_segment(BASE, b"\xc3", Rights(write=True, execute=True), owner="a")
    assert frames.frames_of("a") == 0
    assert [each["owner"] for each in memory._sim.trace.select("memory.refused")] == ["a"]


@pytest.mark.parametrize(("first", "second"), [(TEXT, DATA), (DATA, TEXT)])
def test_one_frame_is_never_writable_here_and_executable_there(memory, first, second):
    segment = memory.map_segment(BASE, b"\xc3", first, owner="a")
    with pytest.raises(RightsRefused, match="another"):
        memory.map_frames(BASE + MIB, segment.extents, second, owner="a")
    memory.map_frames(BASE + MIB, segment.extents, RODATA, owner="a")
    with pytest.raises(RightsRefused):
        memory.protect(BASE + MIB, second)
    memory.check_invariants()


def test_the_executable_right_can_be_lost_but_never_gained(memory):
    memory.map_segment(BASE, b"\xc3", DATA, owner="jit")
    memory.protect(BASE, RODATA)
    with pytest.raises(RightsRefused, match="never later"):
        memory.protect(BASE, TEXT)
    memory.map_segment(BASE + MIB, b"\xc3", TEXT, owner="a")
    with pytest.raises(RightsRefused, match="does not become writable"):
        memory.protect(BASE + MIB, DATA)
    assert memory.protect(BASE + MIB, RODATA).rights == RODATA
    memory.check_invariants()


def test_an_alias_sees_the_same_bytes_and_frames_live_until_the_last_one_goes(memory, frames):
    segment = memory.map_segment(BASE, b"one", DATA, owner="a")
    memory.map_frames(BASE + MIB, segment.extents, DATA, owner="a")
    memory.write(BASE + MIB, b"two")
    assert memory.read(BASE, 3) == b"two"
    memory.unmap_segment(BASE)
    assert frames.frames_of("a") == 1
    assert memory.read(BASE + MIB, 3) == b"two"
    memory.unmap_segment(BASE + MIB)
    assert frames.owners() == {"vmkernel/page tables": 1}


def test_a_large_aligned_segment_uses_large_pages(memory):
    base = 0x4180_0000_0000
    memory.map_segment(base, b"kernel", TEXT, owner="kernel", size_bytes=4 * MIB + 4096)
    sizes = [mapping.page_bytes for mapping in memory.space.mappings()]
    assert sizes == [2 * MIB, 2 * MIB, 4096]
    assert memory.read(base + 4 * MIB, 4) == bytes(4)
    memory.check_invariants()
    memory.unmap_segment(base)
    memory.check_invariants()


def test_a_segment_on_a_taken_address_is_refused_and_leaves_nothing(memory, frames):
    memory.map_segment(BASE + 0x2000, b"x", DATA, owner="a")
    before = frames.owners(), memory.segments()
    with pytest.raises(MappingError):
        memory.map_segment(BASE, bytes(0x3000), DATA, owner="b")
    assert (frames.owners(), memory.segments()) == before
    memory.check_invariants()


def test_running_out_of_frames_leaves_nothing(memory, frames):
    before = frames.owners()
    with pytest.raises(OutOfMemory):
        memory.map_segment(BASE, b"", DATA, owner="big", size_bytes=64 * MIB)
    assert frames.owners() == before


def pieces_at(base, *, pages=3):
    """A module's pieces: text, a gap, constants and data with zeros behind."""
    return [
        (base, b"\xc3" * 5000, TEXT, 0),
        (base + 0x3000, b"const", RODATA, 4096),
        (base + 0x5000, b"data" * 1500, DATA, pages * 4096),
    ]


def scatter(frames):
    """Leave free frames only in runs of one and two, and enough of them."""
    extents = frames.allocate(512, "holes")
    first = extents[0].first_mpn
    frames.allocate(frames.frames_free, "rest")
    for start in range(0, 60, 5):
        frames.free(Extent(first_mpn=first + start, count=1))
        frames.free(Extent(first_mpn=first + start + 2, count=2))


@pytest.mark.parametrize("pages", [3, 600])
@pytest.mark.parametrize("base", [BASE, 0x4180_4040_0000 - 0x4000])
def test_segments_mapped_together_are_as_those_mapped_one_by_one(base, pages):
    made = []
    for together in (True, False):
        memory = KernelMemory(Sim(seed=1), PhysicalMemory(32 * MIB))
        pieces = pieces_at(base, pages=pages)
        if together:
            segments = memory.map_segments(pieces, owner="module:a")
        else:
            segments = tuple(
                memory.map_segment(at, data, rights, owner="module:a", size_bytes=size)
                for at, data, rights, size in pieces
            )
        assert segments == memory.segments()
        memory.check_invariants()
        sizes = [(each.base, each.size_bytes, each.rights, each.owner) for each in segments]
        made.append(
            (
                sizes,
                memory._sim.trace.digest(),
                [memory.read(each.base, each.size_bytes) for each in segments],
            )
        )
    assert made[0] == made[1]


def test_segments_mapped_together_find_room_in_scattered_frames(memory, frames):
    memory.map_segment(BASE - 0x1000, b"x", RODATA, owner="before")
    scatter(frames)
    scrubbed = frames.frames_scrubbed - memory.space.table_frames
    segments = memory.map_segments(pieces_at(BASE), owner="module:a")
    assert max(len(segment.extents) for segment in segments) > 1
    assert frames.frames_of("module:a") == frames.frames_scrubbed - memory.space.table_frames - scrubbed == 6
    assert memory.read(BASE, 8192) == b"\xc3" * 5000 + bytes(3192)
    assert memory.read(BASE + 0x5000, 12288) == b"data" * 1500 + bytes(6288)
    memory.check_invariants()
    memory.unmap_segments([segment.base for segment in segments], used=False)
    assert frames.frames_of("module:a") == 0
    memory.check_invariants()


@pytest.mark.parametrize("pages", [3, 600])
@pytest.mark.parametrize("taken", [BASE, BASE + 0x3000, BASE + 0x7000])
def test_segments_of_which_one_is_on_a_taken_address_leave_nothing(memory, frames, taken, pages):
    memory.map_segment(taken, b"x", DATA, owner="a")
    before = frames.owners(), memory.segments()
    with pytest.raises(MappingError):
        memory.map_segments(pieces_at(BASE, pages=pages), owner="b")
    assert (frames.owners(), memory.segments()) == before
    memory.check_invariants()


def test_segments_of_which_one_is_writable_and_executable_leave_nothing(memory, frames):
    before = frames.owners()
    wrong = (BASE + 0x9000, b"\xc3", Rights(write=True, execute=True), 4096)
    with pytest.raises(RightsRefused):
        memory.map_segments([*pieces_at(BASE), wrong], owner="b")
    assert (frames.owners(), memory.segments()) == (before, ())
    assert [each["base"] for each in memory._sim.trace.select("memory.refused")] == [BASE + 0x9000]


def test_a_frame_that_is_executable_elsewhere_does_not_become_a_piece_of_data(memory, frames):
    code = memory.map_segment(BASE + MIB, b"\xc3", TEXT, owner="a")
    frames.free(code.extents[0])  # behind the books: the allocator hands out a frame that is mapped
    before = frames.owners()
    with pytest.raises(RightsRefused, match="another"):
        memory.map_segments([(BASE, b"x", DATA, 8192)], owner="b")
    assert frames.owners() == before
    assert memory.space.mapping_at(BASE) is None


@pytest.mark.parametrize("left", [0, 5, 6, 7, 8])
def test_segments_mapped_together_without_enough_frames_leave_nothing(memory, frames, left):
    frames.allocate(frames.frames_free - left, "rest")
    before = frames.owners()
    with pytest.raises(OutOfMemory):
        memory.map_segments(pieces_at(BASE), owner="b")
    assert (frames.owners(), memory.segments()) == (before, ())
    memory.check_invariants()


@pytest.mark.parametrize("size", [0, (1 << 32) + 1])
def test_a_segment_has_a_sensible_size(memory, size):
    with pytest.raises(MappingError):
        memory.map_segment(BASE, b"", DATA, owner="a", size_bytes=size)


def test_only_a_segment_that_exists_can_be_changed(memory):
    with pytest.raises(MappingError):
        memory.unmap_segment(BASE)
    with pytest.raises(MappingError):
        memory.protect(BASE, RODATA)


def test_addresses_of_the_upper_half_can_be_traced(memory):
    high = 0xFFFF_8000_0000_0000
    memory.map_segment(high, b"x", DATA, owner="a")
    assert memory._sim.trace.select("memory.map")[0]["base"] == high - (1 << 64)


def test_a_right_given_behind_the_books_is_noticed(memory):
    memory.map_segment(BASE, b"\xc3", TEXT, owner="a")
    memory.check_invariants()
    memory.space.protect(BASE, Rights(write=True, execute=True))
    with pytest.raises(SimBug, match="writable and executable"):
        memory.check_invariants()


def test_an_alias_made_behind_the_books_is_noticed(memory):
    segment = memory.map_segment(BASE, b"\xc3", TEXT, owner="a")
    memory.space.map(BASE + MIB, segment.extents[0].first_mpn, DATA)
    with pytest.raises(SimBug, match="writable and executable"):
        memory.check_invariants()


def test_kernel_memory_pickles(memory):
    memory.map_segment(BASE, b"kept", DATA, owner="a")
    copy = pickle.loads(pickle.dumps(memory))
    copy.check_invariants()
    assert copy.read(BASE, 4) == b"kept"
