"""Relaxed co-scheduling: no vCPU runs far ahead of its slowest sibling."""

import pytest

from sim.core.context import Sim
from sim.core.units import MS, US
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import FOREVER_NS, Busy, OnOff, Run, Wait
from sim.kernel.world import WorldState


class Script:
    """A fixed list of steps, then sleep."""

    def __init__(self, *steps):
        self.steps = list(steps)

    def next(self, now_ns):
        return self.steps.pop(0) if self.steps else Wait(FOREVER_NS)


def host(cores=2, **options):
    spec = CpuSpec(cores_per_node=cores, core_hz=10**9)
    return Scheduler(Sim(), Topology.of(spec), SchedOptions(**{"quantum_ns": 50 * MS, **options}))


def add(sched, workload, *, affinity=-1, shares=1000):
    world = sched.add(f"w{len(sched.worlds)}", workload)
    sched.allocate(world, shares=shares, affinity=affinity)
    return world


def vm(sched, *workloads, affinity=None):
    worlds = [
        add(sched, workload, affinity=-1 if affinity is None else affinity[index])
        for index, workload in enumerate(workloads)
    ]
    sched.group(worlds)
    return worlds


def skews(worlds, now_ns):
    """From run time alone: how far each vCPU is ahead of the slowest (they never halt)."""
    ran = [world.times(now_ns).run_ns for world in worlds]
    return [each - min(ran) for each in ran]


@pytest.mark.parametrize(("poll", "bound_us"), [(False, 3000), (True, 4000)])
@pytest.mark.parametrize("switch_ns", [0, 2000, 500_000])
def test_a_running_vcpu_is_never_further_ahead_than_the_threshold(poll, bound_us, switch_ns):
    """Two vCPUs, the second on a pCPU it shares with three others."""
    sched = host(cosched_polling=poll, world_switch_ns=switch_ns)
    worlds = vm(sched, Busy(), Busy(), affinity=[1, 2])
    others = [add(sched, Busy(), affinity=2) for _ in range(3)]
    for world in worlds + others:
        sched.begin(world)
    worst = 0
    for step in range(1, 4001):
        sched.sim.engine.run(step * 250 * US)
        skew = skews(worlds, sched.sim.now)
        if worlds[0].state is WorldState.RUN and worlds[0].since_ns <= sched.sim.now:
            worst = max(worst, skew[0])
        if step % 50 == 0:
            sched.check_invariants()
    assert 2700 * US - switch_ns <= worst <= bound_us * US
    assert worlds[0].times(sched.sim.now).costop_ns > 300 * MS
    assert worlds[1].times(sched.sim.now).costop_ns == 0


def test_the_moment_of_co_stop_is_exact():
    """The laggard cannot use the leader's pCPU, and its own is taken until 12 ms."""
    sched = host(world_switch_ns=0, quantum_ns=12 * MS)
    first, second = vm(sched, Busy(), Busy(), affinity=[1, 2])
    other = add(sched, Busy(), affinity=2)
    for world in (other, first, second):
        sched.begin(world)
    sched.sim.engine.run(3 * MS - 1)
    assert first.state is WorldState.RUN
    sched.sim.engine.run(3 * MS)
    assert first.state is WorldState.COSTOP
    sched.sim.engine.run(13 * MS - 1)
    assert second.state is WorldState.RUN
    assert first.state is WorldState.COSTOP
    sched.sim.engine.run(13 * MS)
    assert first.state is WorldState.RUN, "co-start once it is no more than 2 ms ahead"


def test_the_leader_makes_way_before_it_must_be_stopped():
    """Its pCPU is handed to the sibling that lags, when it is as far ahead as one may be that starts."""
    sched = host(cores=1, world_switch_ns=0)
    first, second = vm(sched, Busy(), Busy())
    sched.begin(first)
    sched.begin(second)
    sched.sim.engine.run(2 * MS - 1)
    assert first.state is WorldState.RUN
    sched.sim.engine.run(2 * MS)
    assert (first.state, second.state) == (WorldState.READY, WorldState.RUN)
    sched.sim.engine.run(6 * MS)
    assert (first.state, second.state) == (WorldState.RUN, WorldState.READY)
    sched.sim.engine.run(100 * MS)
    assert first.times(sched.sim.now).costop_ns == second.times(sched.sim.now).costop_ns == 0
    assert max(skews([first, second], sched.sim.now)) <= 2 * MS


def test_siblings_as_far_ahead_as_the_stopped_one_go_on_beside_the_laggard():
    """They are no further ahead once it runs; so one pCPU goes to it, not three."""
    sched = host(cores=4, world_switch_ns=2000)
    worlds = vm(sched, *(Busy() for _ in range(4)))
    other = add(sched, Busy(), shares=4000)
    for world in (*worlds, other):
        sched.begin(world)
    sched.sim.engine.run(2000 * MS)
    sched.check_invariants()
    assert sum(pcpu.times(sched.sim.now).idle_ns for pcpu in sched.pcpus) == 0
    ran = [world.times(sched.sim.now).run_ns for world in worlds]
    assert sum(ran) == pytest.approx(3 * 2000 * MS, rel=0.01)
    assert max(ran) - min(ran) <= 3 * MS
    assert sum(world.times(sched.sim.now).costop_ns for world in worlds) == 0


def test_co_stop_caused_by_a_limit_is_counted():
    """A max-limited laggard cannot be helped: its siblings are stopped."""
    sched = host(cores=4, world_switch_ns=0)
    bucket = sched.bucket(10**9)
    worlds = [sched.add(f"v{number}", Busy()) for number in range(4)]
    for world in worlds:
        sched.allocate(world, shares=1000, bucket=bucket)
    sched.group(worlds)
    for world in worlds:
        sched.begin(world)
    sched.sim.engine.run(2000 * MS)
    sched.check_invariants()
    assert sum(world.times(sched.sim.now).run_ns for world in worlds) == pytest.approx(
        2000 * MS, abs=200 * MS
    )
    assert sum(world.times(sched.sim.now).costop_ns for world in worlds) > 20 * MS


def test_a_halted_sibling_stops_nobody_and_gathers_no_skew():
    sched = host(world_switch_ns=0)
    busy, halted = vm(sched, Busy(), Script(Wait(500 * MS), Run(100 * MS)))
    other = add(sched, Busy())
    for world in (busy, halted, other):
        sched.begin(world)
    sched.sim.engine.run(500 * MS - 1)
    assert busy.times(sched.sim.now).costop_ns == 0
    sched.sim.engine.run(800 * MS)
    sched.check_invariants()
    assert halted.times(sched.sim.now).costop_ns < 100 * MS


def test_a_machine_with_one_vcpu_is_never_co_stopped():
    sched = host()
    worlds = vm(sched, Busy())
    assert worlds[0].group is None


def test_a_threshold_of_zero_switches_co_scheduling_off():
    sched = host(cores=1, costop_ns=0, world_switch_ns=0)
    worlds = vm(sched, Busy(), Busy())
    for world in worlds:
        sched.begin(world)
    sched.sim.engine.run(50 * MS)
    assert max(skews(worlds, sched.sim.now)) == 50 * MS


def test_round_robin_lets_siblings_drift_apart():
    """A known violator: skew grows to a whole turn without co-scheduling."""
    sched = host(cores=1, policy="roundrobin", world_switch_ns=0)
    worlds = vm(sched, Busy(), Busy())
    for world in worlds:
        sched.begin(world)
    sched.sim.engine.run(50 * MS)
    assert max(skews(worlds, sched.sim.now)) == 50 * MS


def test_a_vcpu_that_waits_for_swap_holds_its_siblings_back():
    sched = host(cores=2, world_switch_ns=0)
    first, second = vm(sched, Busy(), Busy())
    for world in (first, second):
        sched.begin(world)
    sched.sim.engine.run(10 * MS)
    sched.block(first)
    sched.sim.engine.run(20 * MS)
    assert second.state is WorldState.COSTOP
    assert second.times(sched.sim.now).run_ns == 13 * MS
    sched.unblock(first)
    sched.sim.engine.run(40 * MS)
    sched.check_invariants()
    assert first.times(sched.sim.now).swap_wait_ns == 10 * MS
    assert max(skews([first, second], sched.sim.now)) <= 3 * MS


def test_wide_machines_share_one_pcpu_without_drifting():
    sched = host(cores=2, world_switch_ns=2000)
    wide = vm(sched, *(Busy() for _ in range(64)))
    narrow = vm(sched, Busy(), Busy())
    for world in wide + narrow:
        sched.begin(world)
    for step in range(1, 200):
        sched.sim.engine.run(step * 7 * MS)
        sched.check_invariants()
    assert max(skews(wide, sched.sim.now)) <= 3 * MS
    assert max(skews(narrow, sched.sim.now)) <= 3 * MS


def test_one_that_is_switched_in_again_and_again_is_not_left_behind():
    """Each short burst of the second vCPU costs it a switch, in which it does not progress."""
    sched = host(cores=2, world_switch_ns=100 * US)
    first, second = vm(sched, Busy(), OnOff(50 * US, 50 * US), affinity=[1, 2])
    other = add(sched, OnOff(50 * US, 50 * US), affinity=2)
    for world in (first, second, other):
        sched.begin(world)
    for step in range(1, 2000):
        sched.sim.engine.run(step * 77 * US)
        sched.check_invariants()
    assert first.times(sched.sim.now).costop_ns > 10 * MS


@pytest.mark.parametrize("costop_us", [1, 10, 3000])
@pytest.mark.parametrize("costart_us", [0, 1, 100_000])
@pytest.mark.parametrize("poll", [False, True])
def test_a_vm_wider_than_its_host_works_whatever_the_thresholds(costop_us, costart_us, poll):
    advanced = {"Cpu.CoschedCostopThreshold": costop_us, "Cpu.CoschedCostartThreshold": costart_us}
    sched = host(cores=1, advanced=advanced, cosched_polling=poll)
    worlds = vm(sched, *[Busy() for _ in range(4)])
    for world in worlds:
        sched.begin(world)
    sched.sim.engine.run(200 * MS)
    sched.check_invariants()
    assert sum(world.times(sched.sim.now).run_ns for world in worlds) > 190 * MS
    assert sched.sim.engine.events_done < 10_000


def test_a_vcpu_that_starts_again_is_not_stopped_at_once_whatever_the_thresholds():
    """A stopped vCPU between both thresholds would start and stop without end."""
    sched = host(advanced={"Cpu.CoschedCostopThreshold": 1, "Cpu.CoschedCostartThreshold": 2000})
    group = vm(sched, Busy(), Busy())[0].group
    assert group.costart_ns < group.costop_ns <= group.highest_ns
