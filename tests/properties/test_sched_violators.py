"""Each of the 18 scheduling invariants is broken by a scheduler that is known to break it, and its check says so."""

from fractions import Fraction
from random import Random

import pytest
from attrs import evolve

from sim.core.rng import FastStream
from sim.core.units import MS
from sim.kernel.counters import PcpuRow
from sim.kernel.sched.cosched_narrow import NarrowGroup
from sim.kernel.sched.pcpu import PcpuTimes
from sim.kernel.sched.policies.esxi import EsxiPolicy
from sim.kernel.sched.policies.round_robin import RoundRobin
from sim.kernel.workload import FOREVER_NS
from sim.kernel.world import WorldTimes
from sim.testing.plain_stride import PlainStride
from sim.testing.scheduling import ACTIONS, LOADS, MACHINE_ACTIONS, seeded_plan
from sim.testing.scheduling_audit import COSTOP, ENDED, MAX_LIMITED, READY, RUN, WAITING_STATES
from sim.testing.scheduling_books import (
    check_audit,
    check_charge,
    check_time_conservation,
    check_transitions,
)
from sim.testing.scheduling_checks import CHECKS, find_scheduling_violation, judge
from sim.testing.scheduling_host import books_of, play
from sim.testing.scheduling_plan import HZ, Action, Load, SchedPlan, VmPlan
from sim.testing.scheduling_violation import SchedulingViolation


class Lottery(RoundRobin):
    """Draws the next world by its shares: right on average, further off the longer it goes."""

    def attach(self, host):
        super().attach(host)
        self.chance = FastStream(1)

    def pick(self, pcpu, now_ns):
        able = [world for world in self._queue.values() if world.may_run_on(pcpu)]
        if not able:
            return None
        ticket = self.chance.between(1, sum(world.weight for world in able))
        for world in able:
            ticket -= world.weight
            if ticket <= 0:
                self.dequeue(world)
                return world
        raise AssertionError


class Partitioned(RoundRobin):
    """Each world belongs to one pCPU for good."""

    def _home(self, world):
        return self.host.pcpus[world.world_id % len(self.host.pcpus)]

    def place(self, world, now_ns):
        home = self._home(world)
        return home if home.world is None else None

    def pick(self, pcpu, now_ns):
        for world in self._queue.values():
            if self._home(world) is pcpu:
                self.dequeue(world)
                return world
        return None


class Raw(PlainStride):
    """Leaves weights as they are, even those that nobody can be given."""

    def readjust(self):
        self.weights = {number: Fraction(world.weight) for number, world in self.competing.items()}


class TickCharging(PlainStride):
    """Charges a whole tick to whoever runs at the tick, and nobody else."""

    def charge(self, world, ran_ns):
        tick_ns = self.host.options.quantum_ns
        ticks = self.host.sim.now // tick_ns - (self.host.sim.now - ran_ns) // tick_ns
        if self.host.sim.now % tick_ns == 0 or ran_ns >= tick_ns:
            self.times[world.world_id] += ticks * tick_ns / self.weights[world.world_id]


class Fifo(RoundRobin):
    """Lets everybody run for as long as it likes."""

    def quantum_ns(self, world):
        return FOREVER_NS


class Uncapped(RoundRobin):
    """Takes limits on itself, and forgets them: no CPU shall be idle."""

    limits = False


class CappedByPeriods(RoundRobin):
    """Lets the VM "limited" run for a whole burst in each period, also at the end of one and at the beginning of the next."""

    limits = False
    period_ns = 200 * MS
    budget_ns = 20 * MS

    def attach(self, host):
        super().attach(host)
        self.ran_ns = {}

    def charge(self, world, ran_ns):
        period = (self.host.sim.now - ran_ns) // self.period_ns
        if world.name == "limited-0":
            self.ran_ns[period] = self.ran_ns.get(period, 0) + ran_ns

    def is_stopped(self, world, now_ns):
        used_up = self.ran_ns.get(now_ns // self.period_ns, 0) >= self.budget_ns
        return used_up and world.name == "limited-0"

    def pick(self, pcpu, now_ns):
        for world in self._queue.values():
            if not self.is_stopped(world, now_ns):
                self.dequeue(world)
                return world
        return None

    def place(self, world, now_ns):
        return None if self.is_stopped(world, now_ns) else super().place(world, now_ns)


class FiveQuantaAtOnce(CappedByPeriods):
    """Gives a quantum more than the burst, at the very beginning, and then no more."""

    period_ns = 10_000 * MS
    budget_ns = 25 * MS


class Inverted(PlainStride):
    """Takes shares for a nice value: more is less."""

    def weight(self, world):
        return Fraction(1, world.weight)


class Hoarding(PlainStride):
    """Lets a sleeper keep all that it has missed."""

    def start_time(self, world, least, *, fresh):
        return least if fresh else self.times[world.world_id]


class Nondeterministic(RoundRobin):
    """Draws from a stream of the process, not of the simulation."""

    stream = Random(7)

    def quantum_ns(self, world):
        return self.host.options.quantum_ns - self.stream.randrange(1000)


class Alphabetic(PlainStride):
    """Breaks ties by name."""

    def pick(self, pcpu, now_ns):
        self.waiting = dict(sorted(self.waiting.items(), key=lambda item: item[1].name))
        return super().pick(pcpu, now_ns)


class ByNumber(PlainStride):
    """Breaks ties by the number that a world got when it was made."""

    def pick(self, pcpu, now_ns):
        self.waiting = dict(sorted(self.waiting.items()))
        return super().pick(pcpu, now_ns)


class CountsIdle(RoundRobin):
    """Turns of a length by share, of all shares there are, asleep or not."""

    def quantum_ns(self, world):
        total = sum(each.weight for each in self.host.worlds.values())
        return max(1, 2 * self.host.options.quantum_ns * world.weight // total)


class PerVm(PlainStride):
    """Gives shares to VMs, however many vCPUs they have."""

    def weight(self, world):
        return Fraction(world.weight, len(world.siblings))


SEARCHED = [
    (3, Lottery),
    (4, PlainStride),
    (5, Uncapped),
    (6, Fifo),
    (7, Inverted),
    (8, PlainStride),
    (9, RoundRobin),
    (11, ByNumber),
    (12, Alphabetic),
    (13, CountsIdle),
    (14, Hoarding),
    (16, PerVm),
    (17, RoundRobin),
]


@pytest.mark.parametrize(
    ("number", "make"), SEARCHED, ids=[f"P{number}-{make.__name__}" for number, make in SEARCHED]
)
def test_known_violator_is_found(number, make):
    plan = first_broken(number, make)
    assert plan is not None
    assert f"P{number} (" in str(broken(number, plan, make))


@pytest.mark.parametrize("number", [1, 2, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 18])
def test_plain_stride_keeps_what_it_promises(number):
    """The reference that the violators derive from breaks none of these: it is their change that does.

    Its lag grows with the number of worlds, as stride's does.
    """
    for seed in range(8):
        judge(seeded_plan(CHECKS[number].family, seed), PlainStride, numbers=(number,))


YIELDER = Load(kind="onoff", run_us=4100, wait_us=50)


def broken(number, plan, make):
    """The violation of an invariant by a policy under a plan, or None."""
    try:
        judge(plan, make, numbers=(number,))
    except SchedulingViolation as violation:
        return violation if violation.number == number else None
    return None


def first_broken(number, make, count=40):
    for seed in range(count):
        plan = seeded_plan(CHECKS[number].family, seed)
        if broken(number, plan, make) is not None:
            return plan
    return None


def test_idle_pcpu_beside_a_ready_world_is_found():
    plan = SchedPlan(
        cores=2, vms=(VmPlan(name="a"), VmPlan(name="idle", loads=(Load(kind="idle"),)), VmPlan(name="b"))
    )
    assert "pCPU 0 is idle" in str(broken(2, plan, Partitioned))
    assert broken(2, plan, RoundRobin) is None


BESIDE = VmPlan(name="beside")


def test_cap_by_periods_lets_twice_as_much_through_at_the_border():
    plan = SchedPlan(
        vms=(VmPlan(name="limited", limit_hz=HZ // 10), BESIDE),
        actions=(
            Action(time_us=0, what="suspend", who=0),
            Action(time_us=160_000, what="resume", who=0),
        ),
        span_ms=300,
    )
    assert "VM limited (worlds [1]) ran" in str(broken(5, plan, CappedByPeriods))
    host = play(plan, CappedByPeriods)
    assert host.sched.policy.ran_ns == {0: 20 * MS, 1: 20 * MS}  # by periods nothing is wrong
    assert broken(5, plan, EsxiPolicy) is None


def test_a_window_that_begins_with_the_run_counts():
    plan = SchedPlan(vms=(VmPlan(name="limited", limit_hz=HZ // 1000), BESIDE), span_ms=200)
    assert "gives from 0 to 45000000 ns" in str(broken(5, plan, FiveQuantaAtOnce))
    assert broken(5, plan, EsxiPolicy) is None


def test_chance_from_outside_the_simulation_is_found():
    assert broken(11, SchedPlan(vms=(VmPlan(name="a"), VmPlan(name="b"))), Nondeterministic) is not None


def test_infeasible_weights_starve_who_was_there_before_a_newcomer():
    """The case of Chandra et al.: weights 1 and 10 from the beginning, 1 that comes later at the smallest tag."""
    plan = SchedPlan(
        cores=2,
        span_ms=1000,
        vms=(VmPlan(name="a", shares=1), VmPlan(name="b", shares=10), VmPlan(name="late", shares=1)),
        actions=(
            Action(time_us=0, what="suspend", who=2),
            Action(time_us=500_000, what="resume", who=2),
        ),
    )
    assert "vCPU 0 of a" in str(broken(6, plan, Raw))
    assert broken(6, plan, PlainStride) is None


def test_early_yielder_robs_others_where_ticks_are_charged():
    plan = SchedPlan(
        vms=(VmPlan(name="busy"), *(VmPlan(name=name, loads=(YIELDER,)) for name in ("one", "other"))),
        span_ms=400,
    )
    assert "vCPU 0 of busy" in str(broken(6, plan, TickCharging))
    assert broken(6, plan, PlainStride) is None


def test_skew_is_found_where_siblings_are_not_looked_at_again(monkeypatch):
    """A vCPU that stops makes its siblings run ahead, and their moments of co-stop must be found anew."""
    assert first_broken(9, EsxiPolicy) is None

    def stopped(self, world, begun_ns, now_ns):
        world.progress = max(now_ns, begun_ns) - world.progress

    monkeypatch.setattr(NarrowGroup, "stopped", stopped)
    assert first_broken(9, EsxiPolicy) is not None


def busy(count):
    return tuple(VmPlan(name=f"busy{number}") for number in range(count))


def sampled(host, tick_ns=10 * MS):
    """The books of an accounting that looks at each tick who runs, and gives it the whole tick."""
    found, books = host.audit(), books_of(host.sched)
    ticks = range(0, host.now_ns, tick_ns)
    worlds = {}
    for number, times in books.worlds.items():
        spans = found.worlds[number].spans
        seen = dict.fromkeys(range(ENDED + 2), 0)
        for tick in ticks:
            for state, begin, end in spans:
                seen[state] += tick_ns if begin <= tick < end else 0
        worlds[number] = WorldTimes(
            run_ns=seen[RUN], ready_ns=seen[READY], idle_ns=sum(seen[each] for each in WAITING_STATES)
        )
        assert times.total_ns == found.worlds[number].time_ns(*range(ENDED))
    return evolve(books, worlds=worlds)


@pytest.mark.parametrize("check", [check_time_conservation, check_charge, check_audit])
def test_tick_sampled_books_are_refused(check):
    plan = SchedPlan(
        vms=(VmPlan(name="busy"), VmPlan(name="yielder", loads=(YIELDER,))),
        span_ms=125,
    )
    host = play(plan)
    check(host)
    with pytest.raises(SchedulingViolation):
        check(host, sampled(host))


def interrupted():
    """A host on which a busy VM and one that does I/O share a pCPU."""
    io = Load(kind="io", run_us=300, wait_us=400, interrupt_us=70)
    return play(SchedPlan(vms=(VmPlan(name="io", loads=(io,)), VmPlan(name="busy")), span_ms=100))


@pytest.mark.parametrize("check", [check_charge, check_audit])
@pytest.mark.parametrize("field", ["system_ns", "overlap_ns"])
def test_services_that_are_not_counted_are_refused(check, field):
    host = interrupted()
    check(host)
    books = books_of(host.sched)
    number, times = next((number, each) for number, each in books.worlds.items() if getattr(each, field))
    worlds = {**books.worlds, number: evolve(times, **{field: 0})}
    with pytest.raises(SchedulingViolation):
        check(host, evolve(books, worlds=worlds))


def test_pcpu_used_is_never_negative_and_adds_up_to_the_core_where_switching_takes_long():
    """Two threads that switch for most of the time, beside each other."""
    vms = tuple(VmPlan(name=f"busy{number}") for number in range(4))
    host = play(SchedPlan(threads=2, quantum_ms=1, switch_ns=5 * MS, vms=vms, span_ms=400))
    check_charge(host)
    times = [pcpu.times(host.now_ns) for pcpu in host.sched.pcpus]
    assert all(2 * each.busy_ns < each.shared_ns and each.used_ns > 0 for each in times)
    rows = [PcpuRow(index=index, span_ns=host.now_ns, times=each) for index, each in enumerate(times)]
    assert sum(row.used_percent for row in rows) == 100
    books = books_of(host.sched)
    with pytest.raises(SchedulingViolation, match="USED"):
        check_charge(host, evolve(books, pcpus=tuple(evolve(each, switch_ns=0) for each in books.pcpus)))


class StarvesSecond(PlainStride):
    """Gives the first vCPU of each VM all that it is promised, and the second nearly nothing."""

    def weight(self, world):
        return Fraction(1, 1000) if world.name == "wide-1" else Fraction(world.weight)


def test_reservation_of_every_vcpu_of_a_vm_counts():
    wide = VmPlan(name="wide", loads=(Load(), Load()), reservation_hz=HZ // 4)
    plan = SchedPlan(cores=2, vms=(wide, *busy(4)), span_ms=400)
    assert "vCPU 1 of wide" in str(broken(4, plan, StarvesSecond))
    assert broken(4, plan, EsxiPolicy) is None
    plans = [seeded_plan("mixed", seed) for seed in range(40)]
    assert any(len(vm.loads) > 1 and vm.reservation_hz for each in plans for vm in each.vms)


def test_services_charged_to_another_vm_are_refused():
    host = interrupted()
    books = books_of(host.sched)
    (one, first), (other, second) = books.worlds.items()
    swapped = {
        one: evolve(first, system_ns=second.system_ns),
        other: evolve(second, system_ns=first.system_ns),
    }
    with pytest.raises(SchedulingViolation, match="Used is"):
        check_charge(host, evolve(books, worlds=swapped))


def test_plans_have_every_load_and_every_action():
    plans = [seeded_plan("any", seed) for seed in range(300)]
    loads = {(load.kind, load.spin) for plan in plans for vm in plan.vms for load in vm.loads}
    assert loads >= {(kind, False) for kind in LOADS} | {("barrier", True), ("lock", True)}
    assert {action.what for plan in plans for action in plan.actions} == {*ACTIONS, *MACHINE_ACTIONS}
    hosts = [play(plan) for plan in plans[:40]]
    worlds = [world for host in hosts for world in host.audit().worlds.values()]
    assert sum(world.overlap_ns > 0 for world in worlds) >= 5


def test_time_of_a_pcpu_that_goes_missing_is_refused():
    host = play(SchedPlan(vms=busy(2)))
    books = books_of(host.sched)
    with pytest.raises(SchedulingViolation, match="pCPU 0"):
        check_time_conservation(host, evolve(books, pcpus=(PcpuTimes(busy_ns=1, switch_ns=0, idle_ns=0),)))
    with pytest.raises(SchedulingViolation, match="dispatches"):
        check_audit(host, evolve(books, dispatches=dict.fromkeys(books.dispatches, 1)))


@pytest.mark.parametrize(
    ("edge", "text"),
    [
        ((RUN, MAX_LIMITED), "RUN to MAX_LIMITED"),
        ((READY, MAX_LIMITED), "has no limit"),
        ((READY, COSTOP), "has no sibling"),
    ],
)
def test_planted_transitions_are_refused(edge, text):
    host = play(SchedPlan(vms=busy(2)))
    found = host.audit()
    check_transitions(host, found)
    found.edges.append((MS, 1, *edge))
    with pytest.raises(SchedulingViolation, match=text):
        check_transitions(host, found)


def test_search_shrinks_to_a_readable_scenario():
    found = find_scheduling_violation(RoundRobin, 17, examples=60)
    assert len(found.plan.vms) <= 3
    assert "quanta" in str(found)
    assert find_scheduling_violation(EsxiPolicy, 15, examples=5) is None
