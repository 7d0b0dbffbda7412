"""Laws of translation: agreement with a fresh walk, stale grants, shrinking rights, marks, large pages, determinism."""

import pickle

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sim.core.context import Sim
from sim.core.units import MIB
from sim.hw.memory import Extent, PhysicalMemory
from sim.hw.mmu import Access, AddressSpace, Kind, MappingError, PageFault, Rights, Translation
from sim.hw.mmu.cpu import LogicalCpu
from sim.hw.mmu.invariants import (
    WEAKER,
    check_agrees_with_walk,
    check_marks,
    check_no_stale_grant,
    check_rights_only_shrink,
    check_was_true_once,
    dry_walk,
)
from sim.hw.mmu.shootdown import Invalidation, ShootdownSpec, ShootdownUnit
from sim.hw.mmu.tlb import Geometry, TlbSpec

from .test_mmu_many import INDICES, addresses, controls, memories

RIGHTS = st.builds(Rights, write=st.booleans(), user=st.booleans(), execute=st.booleans())
KERNEL_RIGHTS = st.builds(
    Rights, write=st.booleans(), user=st.sampled_from([False, False, True]), execute=st.booleans()
)
ACCESSES = st.builds(Access, st.sampled_from(Kind), st.booleans(), st.booleans(), st.booleans())
TABLES = [table << 12 | index << 3 for table in range(4) for index in INDICES]
BASE = 1 << 39
LARGE = 2 * MIB
SMALL_TLB = TlbSpec(data_4k=Geometry(entries=4, ways=2), second_level=Geometry(entries=8, ways=4))


def entries(memory):
    return {at: memory.read_u64(at) for at in TABLES}


@settings(max_examples=300)
@given(memories(), controls(), st.lists(st.tuples(addresses(), ACCESSES), min_size=1, max_size=8))
def test_with_an_empty_tlb_an_access_is_a_fresh_walk_and_marks_what_it_may(memory, control, accesses):
    cpu = LogicalCpu(0, memory, control, tlb=SMALL_TLB)
    for va, access in accesses:
        cpu.tlb.drop(with_global=True)
        before = entries(memory)
        fresh = dry_walk(memory.tables.read, control, va, access)
        outcome = cpu.translate(va, access)
        check_agrees_with_walk(outcome, fresh)
        if isinstance(outcome, PageFault):
            assert cpu.cr2 == va
        check_marks(before, entries(memory), outcome, access)
        cpu.check_invariants()


@settings(max_examples=300)
@given(memories(), controls(), addresses(), ACCESSES, st.sampled_from(TABLES), st.sampled_from(WEAKER))
def test_taking_a_right_away_and_invalidating_grants_no_user_more(memory, control, va, access, at, weaker):
    access = Access(access.kind, user=True)
    cpu = LogicalCpu(0, memory, control)
    before = cpu.translate(va, access)
    clear, put = weaker
    memory.write_u64(at, memory.read_u64(at) & ~clear | put)
    cpu.tlb.drop(with_global=True)
    check_rights_only_shrink(before, cpu.translate(va, access))


@settings(max_examples=60)
@given(
    st.sampled_from([(LARGE, 512), (1 << 30, 1 << 18)]),
    RIGHTS,
    st.booleans(),
    st.integers(0, 15),
    st.lists(st.tuples(st.integers(0, (1 << 30) - 1), ACCESSES), min_size=1, max_size=12),
    st.booleans(),
    controls(),
)
def test_a_large_page_and_its_pieces_translate_alike(size, rights, is_global, key, probes, joined, control):
    page_bytes, mpn = size
    spaces = []
    for _ in range(2):
        space = AddressSpace(PhysicalMemory(8 * MIB), "space", control=control)
        try:
            space.map(BASE, mpn, rights, page_bytes=page_bytes, global_page=is_global, key=key)
        except MappingError:
            assert mpn << 12 >= 1 << control.maxphyaddr
            return
        spaces.append(space)
    pieces = spaces[1]
    pieces.split(BASE)
    if joined:
        pieces.join(BASE)
    for offset, access in probes:
        one, other = (space.translate(BASE + offset % page_bytes, access) for space in spaces)
        if control.gigabyte_pages or page_bytes < 1 << 30 or joined:
            check_was_true_once(one, [other])
            check_was_true_once(other, [one])
    pieces.check_invariants()


class Processors(RuleBasedStateMachine):
    """Two processors, their space and its changes, each followed by a shootdown that may still be on its way.

    For every page the outcomes that walks could have given since its last complete shootdown are kept.
    """

    PAGES = 4

    def __init__(self):
        super().__init__()
        self.sim = Sim()
        self.memory = PhysicalMemory(8 * MIB)
        self.space = AddressSpace(self.memory, "space")
        self.cpus = [
            LogicalCpu(number, self.memory, self.space.control, tlb=SMALL_TLB) for number in range(2)
        ]
        self.unit = ShootdownUnit(self.sim, self.memory, self.cpus, ShootdownSpec(lazy=False))
        (self.frames,) = self.memory.allocate(self.PAGES, "data")
        self.space.map_run(BASE, self.frames.first_mpn, self.PAGES, Rights(write=True))
        self.tables = [self.snapshot()]
        self.since = [0] * self.PAGES

    def snapshot(self):
        return pickle.loads(pickle.dumps(self.memory))

    def changed(self, page, cpu, frees=()):
        """Ask for a shootdown; until it is complete, walks before it may still be in force."""
        self.tables.append(self.snapshot())
        what = Invalidation(root=self.space.control.cr3, va=BASE + page * 4096)
        self.unit.request(cpu, what, frees=frees, done=self.complete)

    def complete(self, shootdown):
        page = (shootdown.invalidation.va - BASE) // 4096
        self.since[page] = max(self.since[page], shootdown.number + 1)

    @rule(page=st.integers(0, PAGES - 1), rights=KERNEL_RIGHTS, cpu=st.integers(0, 1))
    def map(self, page, rights, cpu):
        if self.space.mapping_at(BASE + page * 4096) is None:
            (extent,) = self.memory.allocate(1, "data")
            assert not self.unit.holds(extent.first_mpn)
            self.space.map(BASE + page * 4096, extent.first_mpn, rights)
            self.changed(page, cpu)

    @rule(cpu=st.integers(0, 1))
    def write_protect_the_first(self, cpu):
        self.protect(0, Rights(), cpu)

    @rule(page=st.integers(0, PAGES - 1), cpu=st.integers(0, 1))
    def unmap(self, page, cpu):
        mapping = self.space.mapping_at(BASE + page * 4096)
        others = any(self.space.mapping_at(BASE + each * 4096) for each in range(self.PAGES) if each != page)
        if (
            mapping is not None and others
        ):  # tables stay, so that no table frame is reused while entries are stale
            self.space.unmap(BASE + page * 4096)
            self.changed(page, cpu, frees=(Extent(first_mpn=mapping.mpn, count=1),))

    @rule(page=st.integers(0, PAGES - 1), rights=KERNEL_RIGHTS, cpu=st.integers(0, 1))
    def protect(self, page, rights, cpu):
        if self.space.mapping_at(BASE + page * 4096) is not None:
            self.space.protect(BASE + page * 4096, rights)
            self.changed(page, cpu)

    @rule(cpu=st.integers(0, 1), kind=st.sampled_from([Kind.READ, Kind.WRITE]))
    def touch_all(self, cpu, kind):
        for page in range(self.PAGES):
            self.access(page, cpu, Access(kind))

    @rule()
    def all_goes_quiet(self):
        self.sim.engine.run()

    @rule(ns=st.integers(1, 3000))
    def time_passes(self, ns):
        self.sim.engine.run(self.sim.now + ns)

    @rule(page=st.integers(0, PAGES - 1), cpu=st.integers(0, 1), access=ACCESSES)
    def access(self, page, cpu, access):
        va = BASE + page * 4096 + 5
        outcome = self.cpus[cpu].translate(va, access)
        possible = self.tables[self.since[page] :]
        control = self.space.control
        check_was_true_once(
            outcome, [dry_walk(memory.tables.read, control, va, access) for memory in possible]
        )
        if isinstance(outcome, Translation) and access.kind is Kind.WRITE and not self.unit.in_flight:
            path, _ = self.space._leaf_at(va - 5)
            assert self.memory.read_u64(path[-1]) & 0x60 == 0x60

    @invariant()
    def nothing_is_stale_when_all_is_quiet(self):
        self.unit.check_invariants()
        self.memory.tables.check_invariants()
        if not self.unit.in_flight:
            pages = [BASE + page * 4096 for page in range(self.PAGES)]
            check_no_stale_grant(self.cpus, self.memory.tables.read, pages, root=self.space.control.cr3)


Processors.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestProcessors = Processors.TestCase


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 5), ACCESSES, st.integers(0, 1)), min_size=1, max_size=30))
def test_the_same_script_ends_in_the_same_digest(script):
    digests = []
    for _ in range(2):
        sim = Sim()
        memory = PhysicalMemory(8 * MIB)
        space = AddressSpace(memory, "space")
        cpus = [LogicalCpu(number, memory, space.control, metrics=sim.metrics) for number in range(2)]
        unit = ShootdownUnit(sim, memory, cpus)
        for page, access, cpu in script:
            va = BASE + page * 4096
            if space.mapping_at(va) is None:
                space.map(va, 100 + page, Rights(write=True))
            else:
                space.unmap(va)
                unit.request(cpu, Invalidation(root=space.control.cr3, va=va))
            cpus[cpu].translate(va, access)
        sim.engine.run()
        digests.append((sim.trace.digest(), sim.metrics.report()))
    assert digests[0] == digests[1]
