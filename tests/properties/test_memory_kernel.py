"""W^X and conservation in the kernel's memory under any sequence of operations."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sim.core.context import Sim
from sim.core.units import MIB
from sim.hw.memory import OutOfMemory, PhysicalMemory
from sim.hw.mmu import MappingError, PageFault, Rights
from sim.kernel.memory import KernelMemory, RightsRefused

RIGHTS = st.builds(Rights, write=st.booleans(), execute=st.booleans())
BASES = st.integers(0, 11).map(lambda page: 0x4180_0000_0000 + page * 0x3000)


class KernelMemoryMachine(RuleBasedStateMachine):
    """Keeps the bytes that each segment must hold, and what each frame may be."""

    def __init__(self):
        super().__init__()
        self.frames = PhysicalMemory(4 * MIB)
        self.memory = KernelMemory(Sim(seed=1, categories=()), self.frames)
        self.rights = {}
        self.content = {}

    def free_at(self, base, size):
        return all(segment.end <= base or base + size <= segment.base for segment in self.memory.segments())

    @rule(base=BASES, rights=RIGHTS, data=st.binary(min_size=1, max_size=20), pages=st.integers(1, 6))
    def map_new(self, base, rights, data, pages):
        try:
            segment = self.memory.map_segment(base, data, rights, owner="m", size_bytes=pages * 4096)
        except RightsRefused:
            assert rights.write
            assert rights.execute
        except MappingError:
            assert not self.free_at(base, pages * 4096)
        except OutOfMemory:
            assert self.frames.frames_free < pages + 4
        else:
            self.rights[base] = rights
            for mpn in segment.extents[0].mpns():
                self.content[mpn] = bytes(4096)
            self.content[segment.extents[0].first_mpn] = data + bytes(4096 - len(data))

    @precondition(lambda self: self.rights)
    @rule(which=st.integers(0, 1000), base=BASES, rights=RIGHTS)
    def alias(self, which, base, rights):
        source = self.memory.segments()[which % len(self.rights)]
        try:
            self.memory.map_frames(base, source.extents, rights, owner="m")
        except RightsRefused:
            shared = [each for each in self.memory.segments() if each.extents == source.extents]
            assert (
                (rights.write and rights.execute)
                or (rights.write and any(each.rights.execute for each in shared))
                or (rights.execute and any(each.rights.write for each in shared))
            )
        except MappingError:
            assert not self.free_at(base, source.size_bytes)
        else:
            self.rights[base] = rights

    @precondition(lambda self: self.rights)
    @rule(which=st.integers(0, 1000), rights=RIGHTS)
    def protect(self, which, rights):
        segment = self.memory.segments()[which % len(self.rights)]
        try:
            self.memory.protect(segment.base, rights)
        except RightsRefused:
            assert rights.write or rights.execute
        else:
            assert not (rights.execute and not segment.rights.execute)
            self.rights[segment.base] = rights

    @precondition(lambda self: self.rights)
    @rule(which=st.integers(0, 1000))
    def unmap(self, which):
        segment = self.memory.segments()[which % len(self.rights)]
        self.memory.unmap_segment(segment.base)
        del self.rights[segment.base]
        if not any(each.extents == segment.extents for each in self.memory.segments()):
            assert all(self.frames.owner_of(mpn) is None for mpn in segment.extents[0].mpns())

    @precondition(lambda self: self.rights)
    @rule(which=st.integers(0, 1000), offset=st.integers(0, 4090), data=st.binary(min_size=1, max_size=6))
    def write(self, which, offset, data):
        segment = self.memory.segments()[which % len(self.rights)]
        fault = self.memory.write(segment.base + offset, data)
        if segment.rights.write:
            assert fault is None
            mpn = segment.extents[0].first_mpn
            old = self.content[mpn]
            self.content[mpn] = old[:offset] + data + old[offset + len(data) :]
        else:
            assert fault == PageFault(error_code=3, cr2=segment.base + offset)

    @invariant()
    def the_books_and_bytes_agree(self):
        self.memory.check_invariants()
        self.frames.check_invariants()
        assert {each.base: each.rights for each in self.memory.segments()} == self.rights
        mapped = dict.fromkeys(
            mpn for each in self.memory.segments() for run in each.extents for mpn in run.mpns()
        )
        assert self.frames.frames_used == len(mapped) + self.memory.space.table_frames
        for segment in self.memory.segments():
            if len(segment.extents) == 1:
                assert self.memory.read(segment.base, 4096) == self.content[segment.extents[0].first_mpn]


KernelMemoryMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=25)
TestKernelMemory = KernelMemoryMachine.TestCase
