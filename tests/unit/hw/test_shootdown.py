"""Shootdowns: who is interrupted, when entries and frames go, what it costs, and what shows when one is left out."""

import pickle

import pytest

from sim.core.context import Sim
from sim.core.units import MIB
from sim.errors import SimBug
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import Access, AddressSpace, Kind, PageFault, Permission, Translation
from sim.hw.mmu.cpu import LogicalCpu, TlbCosts
from sim.hw.mmu.invariants import check_no_stale_grant
from sim.hw.mmu.shootdown import Invalidation, ShootdownSpec, ShootdownUnit

VA = 0x4180_0000_0000
READ = Access(Kind.READ)
COSTS = TlbCosts(page_cycles=100, flush_cycles=400, core_hz=10**9)
TIMES = {"send_ns": 10, "delivery_ns": 1000, "handler_ns": 500, "acknowledge_ns": 50}


class Host:
    """Four processors that all run one space of four pages."""

    def __init__(self, *, pcide=False, **spec):
        self.sim = Sim()
        self.memory = PhysicalMemory(16 * MIB)
        self.space = AddressSpace(self.memory, "space")
        self.other = AddressSpace(self.memory, "other")
        self.extents = self.memory.allocate(4, "data")
        first = self.extents[0].first_mpn
        for page in range(4):
            self.space.map(VA + page * 4096, first + page, Permission.DATA)
        control = self.space.control
        self.cpus = [
            LogicalCpu(number, self.memory, control, costs=COSTS, pcide=pcide) for number in range(4)
        ]
        self.unit = ShootdownUnit(self.sim, self.memory, self.cpus, ShootdownSpec(**{**TIMES, **spec}))
        self.log = []

    def note(self, shootdown):
        self.log.append((self.sim.now, shootdown.number))

    def touch(self, *cpus):
        for number in cpus:
            for page in range(4):
                self.cpus[number].translate(VA + page * 4096, READ)

    def grants(self):
        """Which processors still translate the first page."""
        root = self.space.control.cr3
        holders = [cpu for cpu in self.cpus if any(entry.va == VA for entry in cpu.tlb.entries())]
        return [cpu.index for cpu in holders if cpu.control.cr3 == root]

    def unmap(self, pages=1, **arguments):
        for page in range(pages):
            self.space.unmap(VA + page * 4096)
        what = Invalidation(root=self.space.control.cr3 & ~0xFFF, va=VA, pages=pages)
        return self.unit.request(0, what, frees=self.extents, done=self.note, **arguments)

    def check(self):
        root = self.space.control.cr3 & ~0xFFF
        check_no_stale_grant(self.cpus, self.memory.read_u64, [VA], root=root)
        self.unit.check_invariants()


@pytest.fixture
def host():
    host = Host()
    host.touch(0, 1, 2, 3)
    return host


def test_a_missing_shootdown_shows_as_a_stale_grant(host):
    host.space.unmap(VA)
    host.cpus[0].invlpg(VA)
    assert isinstance(host.cpus[0].translate(VA, READ), PageFault)
    assert isinstance(host.cpus[1].translate(VA, READ), Translation)
    with pytest.raises(SimBug, match="processor 1 still translates"):
        host.check()


def test_entries_go_one_processor_after_another_and_the_caller_is_told_last(host):
    host.unmap()
    assert host.grants() == [1, 2, 3]
    taken = [100 + place * 10 + 1000 + 500 + 100 for place in (1, 2, 3)]
    for when, left in zip(taken, ([2, 3], [3], []), strict=True):
        host.sim.engine.run(when - 1)
        assert host.grants() != left
        host.sim.engine.run(when)
        assert host.grants() == left
    assert host.log == []
    host.sim.engine.run()
    assert host.log == [(taken[-1] + 50, 0)]
    host.check()
    assert host.unit.in_flight == 0


def test_freed_frames_are_nobody_elses_before_the_last_acknowledgement(host):
    first = host.extents[0].first_mpn
    host.unmap()
    host.sim.engine.run(1729)
    assert host.unit.holds(first)
    assert host.memory.owner_of(first) == "data"
    host.unit.check_invariants()
    host.sim.engine.run()
    assert not host.unit.holds(first)
    assert host.memory.owner_of(first) is None


def test_frames_freed_too_early_are_noticed(host):
    host.unmap()
    for extent in host.extents:
        host.memory.free(extent)
    with pytest.raises(SimBug, match="freed before it was complete"):
        host.unit.check_invariants()


def test_many_pages_are_invalidated_by_emptying_the_context():
    host = Host(pages_max=2)
    host.touch(0, 1, 2, 3)
    host.unmap(pages=3)
    host.sim.engine.run()
    assert host.log == [(400 + 30 + 1000 + 500 + 400 + 50, 0)]
    assert [cpu.flushes.count for cpu in host.cpus] == [1] * 4
    assert [list(cpu.tlb.entries()) for cpu in host.cpus] == [[]] * 4


def test_pages_are_invalidated_one_by_one_up_to_the_limit(host):
    host.unmap(pages=3)
    host.sim.engine.run()
    assert [cpu.pages_dropped.count for cpu in host.cpus] == [3] * 4
    assert {entry.va for entry in host.cpus[3].tlb.entries()} == {VA + 3 * 4096}


@pytest.mark.parametrize("lazy", [True, False])
def test_a_processor_in_another_space_pays_at_its_next_switch_or_is_interrupted(lazy):
    host = Host(pcide=True, lazy=lazy)
    host.touch(0, 1, 2)
    root = host.space.control.cr3
    host.unit.switch(2, host.other.control.cr3 | 7, keep=True)
    host.unit.switch(3, host.other.control.cr3 | 7, keep=True)
    shootdown = host.unmap()
    assert len(shootdown.waiting_for) == (1 if lazy else 3)
    host.sim.engine.run()
    stale = [entry for entry in host.cpus[2].tlb.entries() if entry.va == VA]
    assert bool(stale) == lazy
    flushes = host.cpus[2].flushes.count
    host.unit.switch(2, root, keep=True)
    assert host.cpus[2].flushes.count == flushes + lazy
    host.check()
    assert isinstance(host.cpus[2].translate(VA, READ), PageFault)
    host.unit.switch(2, host.other.control.cr3 | 7, keep=True)
    host.unit.switch(2, root, keep=True)
    assert host.cpus[2].flushes.count == flushes + lazy
    report = host.sim.metrics.report()
    assert report["mmu.shootdown.deferred"]["count"] == (2 if lazy else 0)
    assert report["mmu.shootdown.deferred_paid"]["count"] == (1 if lazy else 0)


def test_without_the_payment_at_the_switch_the_stale_grant_is_noticed():
    host = Host(pcide=True)
    host.touch(0, 1, 2)
    host.unit.switch(2, host.other.control.cr3 | 7, keep=True)
    host.unmap()
    host.sim.engine.run()
    host.cpus[2].load_cr3(host.space.control.cr3, keep=True)
    with pytest.raises(SimBug, match="processor 2 still translates"):
        host.check()


def test_a_global_page_is_taken_from_every_processor():
    host = Host(pcide=True)
    host.space.map(VA + 5 * 4096, 9, Permission.DATA, global_page=True)
    for cpu in host.cpus:
        cpu.translate(VA + 5 * 4096, READ)
    host.unit.switch(2, host.other.control.cr3 | 7, keep=True)
    assert isinstance(host.cpus[2].translate(VA + 5 * 4096, READ), Translation)
    host.space.unmap(VA + 5 * 4096)
    what = Invalidation(root=host.space.control.cr3, va=VA + 5 * 4096, everywhere=True)
    host.unit.request(1, what)
    host.sim.engine.run()
    assert [list(cpu.tlb.entries()) for cpu in host.cpus] == [[]] * 4


def test_another_context_loses_the_page_of_the_space_alone():
    host = Host(pcide=True, lazy=False)
    host.other.map(VA, 9, Permission.DATA)
    host.touch(2)
    host.unit.switch(2, host.other.control.cr3 | 7, keep=True)
    host.cpus[2].translate(VA, READ)
    host.unmap()
    host.sim.engine.run()
    assert {(entry.pcid, entry.va) for entry in host.cpus[2].tlb.entries() if entry.va == VA} == {(7, VA)}


def test_a_processor_that_holds_interrupts_off_delays_the_end(host):
    host.unit.hold_interrupts(2)
    host.unmap()
    host.sim.engine.run(1_000_000)
    assert host.grants() == [2]
    assert host.unit.in_flight == 1
    host.unit.allow_interrupts(2)
    host.sim.engine.run()
    assert host.log == [(1_000_000 + 500 + 100 + 50, 0)]
    host.check()


def test_a_single_processor_is_done_after_its_own_work():
    host = Host()
    unit = ShootdownUnit(host.sim, host.memory, host.cpus[:1], ShootdownSpec(**TIMES))
    host.touch(0)
    host.space.unmap(VA)
    unit.request(0, Invalidation(root=host.space.control.cr3, va=VA), done=host.note)
    host.sim.engine.run()
    assert host.log == [(100, 0)]


def test_the_time_of_a_shootdown_is_in_its_events_and_not_charged_again(host):
    before = [cpu.cycles for cpu in host.cpus]
    host.unmap()
    host.sim.engine.run()
    assert [cpu.cycles for cpu in host.cpus] == before


def test_trace_and_metrics_tell_of_it(host):
    host.unmap()
    host.space.unmap(VA + 4096)
    host.unit.request(1, Invalidation(root=host.space.control.cr3, va=VA + 4096))
    host.sim.engine.run()
    sink = host.sim.trace.sink()
    rows = list(sink.rows("mmu.shootdown"))
    assert [
        (row["number"], row["initiator"], row["pages"], row["targets"], row["deferred"]) for row in rows
    ] == [
        (0, 0, 1, 3, 0),
        (1, 1, 1, 3, 0),
    ]
    assert [row["cpu"] for row in sink.rows("mmu.shootdown_taken") if row["number"] == 1] == [0, 2, 3]
    done = list(sink.rows("mmu.shootdown_done"))
    assert [(row["number"], row["latency_ns"], row["frames_freed"]) for row in done] == [
        (0, 1780, 4),
        (1, 1780, 0),
    ]
    report = host.sim.metrics.report()
    assert report["mmu.shootdown.interrupts"]["count"] == 6
    assert report["mmu.shootdown.latency"]["total"] == 2 * 1780


def test_a_run_saved_in_the_middle_of_a_shootdown_ends_the_same(host):
    host.unmap()
    host.sim.engine.run(1650)
    other = pickle.loads(pickle.dumps(host))
    for each in (host, other):
        each.sim.engine.run()
        each.check()
    assert other.log == host.log
    assert other.sim.trace.digest() == host.sim.trace.digest()
    assert other.memory.owner_of(other.extents[0].first_mpn) is None


def test_a_root_with_a_context_in_it_and_processors_out_of_order_are_refused(host):
    with pytest.raises(SimBug, match="goes into pcid"):
        Invalidation(root=0x1007, va=VA)
    with pytest.raises(SimBug, match="numbered from 0"):
        ShootdownUnit(host.sim, host.memory, host.cpus[1:])
    with pytest.raises(ValueError, match="pages"):
        Invalidation(root=0x1000, va=VA, pages=0)
