"""P2 over whole runs: with pCPUs that come and go, home nodes and several queues, and how soon an idle pCPU must help."""

import pytest
from attrs import evolve

from sim.core.units import MS
from sim.kernel.sched.policies.esxi import EsxiPolicy
from sim.kernel.sched.policies.round_robin import RoundRobin
from sim.testing.scheduling import seeded_plan
from sim.testing.scheduling_audit import READY
from sim.testing.scheduling_host import play
from sim.testing.scheduling_idle import check_work_conservation, patience_ns
from sim.testing.scheduling_plan import Action, Load, SchedPlan, VmPlan
from sim.testing.scheduling_violation import SchedulingViolation


class Unhelpful(EsxiPolicy):
    """Leaves other queues alone when its own is empty."""

    def _pick_slowly(self, pcpu, now_ns):
        world = self._take(pcpu.queue, pcpu, now_ns)
        return self._adopt(world, pcpu) if world is not None else None


class Bound(RoundRobin):
    """Each world belongs to one pCPU for good."""

    def place(self, world, now_ns):
        home = self.host.pcpus[world.world_id % len(self.host.pcpus)]
        return home if home.world is None else None

    def pick(self, pcpu, now_ns):
        for world in self._queue.values():
            if world.world_id % len(self.host.pcpus) == pcpu.index:
                self.dequeue(world)
                return world
        return None


def violation(plan, make):
    try:
        check_work_conservation(play(plan, make))
    except SchedulingViolation as found:
        return str(found)
    return ""


def at_ms(time_ms, what, who):
    return Action(time_us=1000 * time_ms, what=what, who=who)


TWO_ON_ONE = SchedPlan(
    cores=3,
    vms=(
        VmPlan(name="a"),
        VmPlan(name="idle", loads=(Load(kind="idle"),)),
        VmPlan(name="c"),
        VmPlan(name="b"),
    ),
    actions=(at_ms(60, "suspend", 3),),
)


def test_waste_that_is_over_before_the_end_is_found():
    assert "is idle from 0 to 60000000 ns" in violation(TWO_ON_ONE, Bound)
    assert violation(TWO_ON_ONE, RoundRobin) == ""


def test_waste_is_found_on_a_host_whose_pcpus_come_and_go():
    changed = evolve(
        TWO_ON_ONE, actions=(*TWO_ON_ONE.actions, at_ms(80, "offline", 2), at_ms(100, "online", 2))
    )
    assert "is idle from 0 to 60000000 ns" in violation(changed, Bound)
    assert violation(changed, RoundRobin) == ""


def test_a_pcpu_that_is_offline_wastes_nothing():
    plan = SchedPlan(
        cores=2,
        vms=(VmPlan(name="a"), VmPlan(name="b")),
        actions=(at_ms(20, "offline", 1), at_ms(80, "online", 1)),
    )
    host = play(plan, RoundRobin)
    check_work_conservation(host)
    waited_ns = [world.time_ns(READY) for world in host.audit().worlds.values()]
    assert sum(waited_ns) == 60 * MS
    host.switched.clear()  # a tester who does not know that it was offline
    with pytest.raises(SchedulingViolation, match="pCPU 1 is idle"):
        check_work_conservation(host)


def test_turns_of_two_beside_an_idle_pcpu_are_waste_though_each_waits_for_a_short_time_only():
    assert "is idle from 0 to 60000000 ns" in violation(evolve(TWO_ON_ONE, quantum_ms=1), Bound)


def test_pcpus_that_look_into_their_own_queue_only_are_found_on_hosts_with_one_node_and_with_two():
    plans = [seeded_plan("crowd", seed) for seed in range(40)]
    found = {plan.nodes for plan in plans if plan.queues == "pcpu" and violation(plan, Unhelpful)}
    assert found == {1, 2}


def test_a_home_node_bounds_where_a_world_may_run():
    plan = SchedPlan(
        cores=2,
        nodes=2,
        queues="llc",
        span_ms=100,
        vms=(
            VmPlan(name="a"),
            VmPlan(name="sleeps", loads=(Load(kind="idle"),) * 2),
            VmPlan(name="b", loads=(Load(),) * 2),
        ),
    )
    host = play(plan)
    check_work_conservation(host)
    homes = {permit.home for permit in host.permits}
    assert homes == {0, 1}
    host.permits = [evolve(permit, home=-1) for permit in host.permits]
    with pytest.raises(SchedulingViolation, match="is idle"):
        check_work_conservation(host, 0)


def test_most_crowds_can_break_it():
    able = 0
    for seed in range(60):
        host = play(seeded_plan("crowd", seed))
        pcpus = range(len(host.sched.pcpus))
        bound_ns = min(patience_ns(host, index, permit.mask) for index in pcpus for permit in host.permits)
        waited = any(world.time_ns(READY) > bound_ns for world in host.audit().worlds.values())
        able += waited and 4 * bound_ns < host.plan.span_ns
    assert able >= 54


SPREAD = SchedPlan(
    cores=16,
    quantum_ms=200,
    queues="pcpu",
    span_ms=400,
    vms=(
        *(
            VmPlan(name=f"w{number}", loads=(Load(kind="onoff", run_us=100_000, wait_us=10_000_000),))
            if 5 <= number < 8
            else VmPlan(name=f"w{number}")
            for number in range(16)
        ),
        *(VmPlan(name=f"x{number}") for number in range(4)),
    ),
)


def test_idle_pcpu_finds_a_far_queue_when_the_shortest_period_that_covers_both_is_over():
    """16 pCPUs below one cache, `Cpu.L3RebalancePeriod` 20 ms: four queues have two worlds, three pCPUs become idle."""
    host = play(SPREAD)
    assert patience_ns(host, 6, -1) == 20 * MS
    check_work_conservation(host)
    with pytest.raises(SchedulingViolation, match="pCPU 5 is idle from 100"):
        check_work_conservation(host, 15 * MS)
