"""Frames under any sequence of requests: conserved, owned by one, scrubbed on hand-over; their bytes as written."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sim.core.units import MIB
from sim.hw.memory import Extent, OutOfMemory, PhysicalMemory

OWNERS = st.sampled_from(["vmkernel", "vm1", "vm2"])


class FrameMachine(RuleBasedStateMachine):
    """Compares `PhysicalMemory` with a plain list of owners, one a frame."""

    def __init__(self):
        super().__init__()
        self.memory = PhysicalMemory(8 * MIB, nodes=2)
        self.owner = [None] * self.memory.frames_total
        self.held = []

    def accept(self, extents, frames, owner):
        assert sum(extent.count for extent in extents) == frames
        for extent in extents:
            for mpn in extent.mpns():
                assert self.owner[mpn] is None
                self.owner[mpn] = owner
            assert self.memory.read(extent.first_mpn << 12, extent.count << 12).count(0) == extent.count << 12
            self.memory.write((extent.first_mpn << 12) + 8, owner.encode())
            self.memory.write(((extent.end_mpn - 1) << 12) + 4000, owner.encode())
            self.held.append(extent)

    @rule(
        frames=st.one_of(st.integers(1, 40), st.integers(500, 1100)),
        owner=OWNERS,
        node=st.none() | st.integers(0, 1),
    )
    def allocate(self, frames, owner, node):
        try:
            extents = self.memory.allocate(frames, owner, node=node)
        except OutOfMemory:
            nodes = range(2) if node is None else [node]
            assert sum(self.memory.frames_free_of_node(each) for each in nodes) < frames
            return
        if node is not None:
            assert {self.memory.node_of(mpn) for extent in extents for mpn in extent.mpns()} == {node}
        self.accept(extents, frames, owner)

    @rule(frames=st.integers(1, 600), owner=OWNERS, shift=st.integers(0, 10))
    def allocate_run(self, frames, owner, shift):
        try:
            extents = self.memory.allocate(frames, owner, contiguous=True, align_frames=1 << shift)
        except OutOfMemory:
            return
        assert len(extents) == 1
        assert extents[0].first_mpn % (1 << shift) == 0
        self.accept(extents, frames, owner)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def free_a_part(self, data):
        extent = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        low = data.draw(st.integers(0, extent.count - 1))
        high = data.draw(st.integers(low + 1, extent.count))
        self.memory.free(Extent(first_mpn=extent.first_mpn + low, count=high - low))
        for mpn in range(extent.first_mpn + low, extent.first_mpn + high):
            self.owner[mpn] = None
        if low:
            self.held.append(Extent(first_mpn=extent.first_mpn, count=low))
        if high < extent.count:
            self.held.append(Extent(first_mpn=extent.first_mpn + high, count=extent.count - high))

    @rule()
    def reset(self):
        self.memory.release_all()
        self.owner = [None] * self.memory.frames_total
        self.held = []

    @invariant()
    def the_books_agree(self):
        self.memory.check_invariants()
        assert self.memory.frames_free == self.owner.count(None)
        for mpn in range(0, len(self.owner), 7):
            assert self.memory.owner_of(mpn) == self.owner[mpn]
        for first in range(0, len(self.owner), 97):
            for end in (first + 1, first + 13, min(first + 600, len(self.owner))):
                owned = None not in self.owner[first:end]
                assert self.memory.all_owned(first, min(end, len(self.owner))) == owned


FrameMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25)
TestFrames = FrameMachine.TestCase


SPAN = 6 * 4096
PLACES = st.integers(0, SPAN) | st.sampled_from(range(0, SPAN + 1, 4096))
ACTIONS = st.one_of(
    st.tuples(st.just("write"), PLACES, PLACES, st.integers(0, 255)),
    st.tuples(st.just("word"), st.integers(0, SPAN // 8 - 1), st.integers(0, 2**64 - 1)),
    st.tuples(st.just("walk"), st.integers(0, SPAN // 8 - 1)),
    st.tuples(st.just("again"), st.integers(0, 5)),
)


@given(st.lists(ACTIONS, max_size=30))
def test_memory_reads_as_a_plain_row_of_bytes_after_any_writes(actions):
    memory = PhysicalMemory(8 * MIB)
    memory.allocate(6, "a")
    plain = bytearray(SPAN)
    for kind, *numbers in actions:
        if kind == "write":
            low, high = sorted(numbers[:2])
            data = bytes((numbers[2] + each) & 0xFF for each in range(high - low))
            memory.write(low, data)
            plain[low:high] = data
        elif kind == "word":
            memory.write_u64(8 * numbers[0], numbers[1])
            plain[8 * numbers[0] : 8 * numbers[0] + 8] = numbers[1].to_bytes(8, "little")
        elif kind == "walk":
            assert memory.tables.read(8 * numbers[0]).to_bytes(8, "little") == plain[8 * numbers[0] :][:8]
        else:
            frame = Extent(first_mpn=numbers[0], count=1)
            memory.free(frame)
            assert memory.allocate(1, "b") == (frame,)
            plain[4096 * numbers[0] : 4096 * numbers[0] + 4096] = bytes(4096)
    assert memory.read(0, SPAN) == plain
    assert all(
        memory.read_u64(at) == int.from_bytes(plain[at : at + 8], "little") for at in range(0, SPAN, 8)
    )
    memory.tables.check_invariants()
