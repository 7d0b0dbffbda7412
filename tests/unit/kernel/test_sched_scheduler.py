"""The scheduler on small hosts: the published examples, and each mechanism by itself."""

import pickle

import pytest

from sim.core.context import Sim
from sim.core.units import MS, SECOND, US
from sim.errors import ScenarioError, SimBug
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import FOREVER_NS, Busy, Idle, OnOff, Run, Trace, Wait
from sim.kernel.world import WorldState

MHZ = 1_000_000


class Script:
    """A fixed list of steps, then sleep."""

    def __init__(self, *steps):
        self.steps = list(steps)

    def next(self, now_ns):
        return self.steps.pop(0) if self.steps else Wait(FOREVER_NS)


def host(cores=1, *, core_mhz=1000, threads=1, nodes=1, quantum_ms=10, switch_ns=0, **options):
    spec = CpuSpec(
        nodes_per_package=nodes, cores_per_node=cores, threads_per_core=threads, core_hz=core_mhz * MHZ
    )
    knobs = SchedOptions(quantum_ns=quantum_ms * MS, world_switch_ns=switch_ns, **options)
    return Scheduler(Sim(), Topology.of(spec), knobs)


def add(sched, workload, *, shares=1000, reservation_mhz=0, bucket=None, begin=True):
    world = sched.add(f"w{len(sched.worlds)}", workload)
    sched.allocate(world, shares=shares, reservation_hz=reservation_mhz * MHZ, bucket=bucket)
    if begin:
        sched.begin(world)
    return world


def run(sched, ms):
    sched.sim.engine.run(ms * MS)
    sched.check_invariants()


def run_ms(world):
    return world.times(world.sched.sim.now).run_ns / MS


def mhz(sched, world):
    return world.times(sched.sim.now).run_ns * sched.topology.core_hz / sched.sim.now / MHZ


@pytest.mark.parametrize(("demand", "wanted"), [(10_000, (500, 2250, 3250)), (3333, (500, 3500, 2000))])
def test_published_example_of_shares_and_reservation(demand, wanted):
    """A host of 6000 MHz; the third VM wants everything, or 2000 MHz."""
    sched = host(core_mhz=6000)
    slice_ns = 40 * MS
    worlds = (
        add(sched, Trace((833,), slice_ns, slice_ns=slice_ns)),
        add(sched, Busy(), reservation_mhz=2250),
        add(sched, Trace((demand,), slice_ns, slice_ns=slice_ns), shares=2000),
    )
    run(sched, 20_000)
    for world, expected in zip(worlds, wanted, strict=True):
        assert mhz(sched, world) == pytest.approx(expected, abs=12)


def test_four_vcpus_account_for_each_millisecond_of_a_sample():
    sched = host(2, switch_ns=2 * US)
    worlds = [add(sched, OnOff(7 * MS, 3 * MS, sched.sim.rng.fast(f"{index}"))) for index in range(4)]
    run(sched, 20_000)
    assert sum(world.times(sched.sim.now).total_ns for world in worlds) == 80_000 * MS


def test_limit_stops_usage_below_demand():
    """Four vCPUs at 2.7 GHz that want 6.6 GHz under a limit of 4 GHz: usage stops there, ready grows, nobody contends."""
    sched = host(4, core_mhz=2700)
    bucket = sched.bucket(4000 * MHZ)
    period_ns = 100 * MS
    worlds = [add(sched, Trace((6111,), period_ns), bucket=bucket) for _ in range(4)]
    run(sched, 20_000)
    assert sum(mhz(sched, world) for world in worlds) == pytest.approx(4000, rel=0.01)
    times = [world.times(sched.sim.now) for world in worlds]
    limited = sum(each.max_limited_ns for each in times) / sched.sim.now / 4
    assert 0.2 < limited < 0.7
    assert sum(each.ready_ns for each in times) == 0
    assert all(abs(mhz(sched, world) - 1000) < 20 for world in worlds), "siblings stand in line fairly"


def test_infeasible_weights_starve_nobody():
    """One CPU's worth of weight more than fits: the newcomer does not lock the light world out."""
    sched = host(2, quantum_ms=1)
    light, heavy = add(sched, Busy(), shares=1), add(sched, Busy(), shares=10)
    run(sched, 1000)
    add(sched, Busy(), shares=1)
    for ms in range(1001, 2500, 7):
        before = run_ms(light)
        run(sched, ms + 6)
        assert run_ms(light) > before
    assert run_ms(heavy) == sched.sim.now / MS
    assert run_ms(light) == pytest.approx(1000 + (sched.sim.now / MS - 1000) / 2, abs=3)


def test_switching_worlds_costs_the_pcpu_and_not_the_world():
    sched = host(switch_ns=50 * US)
    first, second = add(sched, Busy()), add(sched, Busy())
    run(sched, 1005)
    times = sched.pcpus[0].times(sched.sim.now)
    assert times.switch_ns == 100 * 50 * US
    assert times.busy_ns == 1005 * MS - times.switch_ns
    assert run_ms(first) + run_ms(second) == times.busy_ns / MS


def test_a_world_alone_switches_once():
    sched = host(switch_ns=50 * US)
    world = add(sched, Busy())
    run(sched, 500)
    assert run_ms(world) == 500 - 0.05
    assert world.dispatches == 1


def test_times_are_right_in_the_middle_of_a_switch():
    sched = host(switch_ns=1 * MS)
    world = add(sched, Busy())
    sched.sim.engine.run(400_000)
    assert world.times(400_000).ready_ns == 400_000
    assert sched.pcpus[0].times(400_000).switch_ns == 400_000
    sched.suspend(world)
    sched.check_invariants()
    assert world.times(400_000).run_ns == 0
    assert sched.pcpus[0].switch_ns == 400_000


def test_worlds_spread_over_whole_cores_first():
    sched = host(4, threads=2)
    worlds = [add(sched, Busy()) for _ in range(6)]
    assert [world.pcpu.index for world in worlds] == [0, 2, 4, 6, 1, 3]


def test_a_waking_world_prefers_where_it_ran_then_near():
    """Two nodes of two cores of two threads: pCPUs 0 to 3 and 4 to 7."""
    sched = host(2, threads=2, nodes=2)
    mover = add(sched, Script(Run(MS), Wait(MS), Run(MS), Wait(MS), Run(MS)))
    run(sched, 2)
    assert mover.pcpu.index == 0
    run(sched, 3)
    blockers = [add(sched, Busy()) for _ in range(2)]
    assert [blocker.pcpu.index for blocker in blockers] == [0, 2]
    mover.last_pcpu = sched.pcpus[6]
    run(sched, 4)
    assert mover.pcpu.index == 6
    late = add(sched, Busy(), begin=False)
    late.last_pcpu = sched.pcpus[2]
    sched.begin(late)
    assert late.pcpu.index == 4, "a whole core elsewhere before half a core near by"


def test_a_waking_world_preempts_one_that_is_ahead():
    sched = host(quantum_ms=200)
    add(sched, Busy())
    sleeper = add(sched, Script(Wait(500 * MS), Run(MS)))
    run(sched, 499)
    assert sleeper.state is WorldState.WAIT_IDLE
    run(sched, 502)
    assert sleeper.times(502 * MS).run_ns == MS
    assert sleeper.times(502 * MS).ready_ns <= 1 * MS


def test_preemption_can_be_switched_off():
    sched = host(quantum_ms=200, wakeup_pcpus=0)
    add(sched, Busy())
    sleeper = add(sched, Script(Wait(500 * MS), Run(MS)))
    run(sched, 700)
    assert sleeper.times(sched.sim.now).ready_ns == 100 * MS


def test_suspended_worlds_go_on_where_they_stood():
    sched = host(2)
    runner = add(sched, Script(Run(50 * MS), Wait(10 * MS), Run(5 * MS)))
    sleeper = add(sched, Script(Wait(50 * MS), Run(5 * MS)))
    run(sched, 20)
    for world in (runner, sleeper):
        sched.suspend(world)
        sched.suspend(world)
    run(sched, 120)
    assert run_ms(runner) == 20
    assert sched.idle.idle.bit_count() == 2
    for world in (runner, sleeper):
        sched.resume(world)
    run(sched, 200)
    assert run_ms(runner) == 55
    assert runner.times(sched.sim.now).vm_wait_ns == 100 * MS
    assert sleeper.times(sched.sim.now).idle_ns == 50 * MS + 45 * MS, "asleep for 50 ms, and after its burst"


def test_a_world_suspended_at_the_end_of_its_burst_asks_again_when_resumed():
    sched = host()
    world = add(sched, Script(Run(10 * MS), Run(7 * MS)), begin=False)
    sched.sim.engine.at(10 * MS, sched.suspend, world)  # before the timer of the pCPU
    sched.sim.engine.at(15 * MS, sched.resume, world)
    sched.begin(world)
    run(sched, 30)
    assert run_ms(world) == 17


def test_a_limited_world_in_line_can_be_suspended_and_ended():
    sched = host(2, limit_burst_ns=20 * MS)
    bucket = sched.bucket(100 * MHZ)
    first, second = (add(sched, Busy(), bucket=bucket) for _ in range(2))
    run(sched, 40)
    assert {first.state, second.state} == {WorldState.MAX_LIMITED}
    sched.suspend(first)
    sched.check_invariants()
    sched.end(second)
    sched.check_invariants()
    sched.resume(first)
    run(sched, 2000)
    assert mhz(sched, first) == pytest.approx(100, rel=0.02)


def test_another_allocation_needs_a_world_at_rest():
    sched = host()
    world = add(sched, Busy())
    with pytest.raises(SimBug, match="cannot be given another allocation"):
        sched.allocate(world, shares=5)
    sched.suspend(world)
    for shares, reservation_hz in ((0, 0), (1, -1), (1, 2000 * MHZ)):
        with pytest.raises(SimBug, match="impossible"):
            sched.allocate(world, shares=shares, reservation_hz=reservation_hz)


def test_new_shares_take_effect_at_once():
    sched = host()
    first, second = add(sched, Busy()), add(sched, Busy())
    run(sched, 1000)
    sched.suspend(first)
    sched.allocate(first, shares=3000)
    sched.resume(first)
    before = run_ms(first), run_ms(second)
    run(sched, 2000)
    assert run_ms(first) - before[0] == pytest.approx(750, abs=15)
    assert run_ms(second) - before[1] == pytest.approx(250, abs=15)


def test_a_workload_that_does_not_advance_is_the_users_mistake():
    class Stuck:
        def next(self, now_ns):
            return Run(0)

    with pytest.raises(ScenarioError, match="1000 steps of no length"):
        add(host(), Stuck())


def test_halt_leaves_no_timer_behind():
    sched = host(2, limit_burst_ns=20 * MS)
    bucket = sched.bucket(100 * MHZ)
    for workload in (Busy(), Idle(), OnOff(MS, MS)):
        add(sched, workload, bucket=bucket)
    run(sched, 333)
    sched.halt()
    sched.check_invariants()
    assert not sched.worlds
    done = sched.sim.engine.events_done
    sched.sim.engine.run(sched.sim.now + SECOND)
    assert sched.sim.engine.idle
    assert sched.sim.engine.events_done - done < 10, "only overtaken entries of timers were dropped"


def test_a_hundred_and_twenty_eight_worlds_share_one_cpu():
    sched = host(quantum_ms=1)
    worlds = [add(sched, Busy()) for _ in range(128)]
    run(sched, 1280)
    assert {run_ms(world) for world in worlds} == {10.0}


def test_a_very_large_host_runs():
    sched = Scheduler(Sim(categories=()), Topology.of(CpuSpec(cores_per_node=128, threads_per_core=2)))
    for index in range(4096):
        add(sched, Busy(), shares=(500, 1000, 2000)[index % 3])
    run(sched, 3000)
    assert sum(pcpu.times(sched.sim.now).idle_ns for pcpu in sched.pcpus) == 0


def test_a_very_large_host_runs_wide_vms_that_sleep():
    """128 cores with two threads each, a queue for each pCPU: VMs of up to 64 vCPUs, idle ones, busy ones, on and off."""
    options = SchedOptions(queues="pcpu", quantum_ns=10 * MS)
    sched = Scheduler(
        Sim(categories=()), Topology.of(CpuSpec(cores_per_node=128, threads_per_core=2)), options
    )
    groups = []
    for number in range(96):
        width = (64, 8, 1, 16)[number % 4]
        kinds = (Busy, Idle, lambda: OnOff(3 * MS, 7 * MS), lambda: OnOff(20 * MS, 90 * MS))
        worlds = [sched.add(f"vm{number}-{each}", kinds[(number + each) % 4]()) for each in range(width)]
        sched.group(worlds)
        for world in worlds:
            sched.allocate(world, shares=(500, 1000, 2000)[number % 3])
        for world in worlds:
            sched.begin(world)
        groups.append(worlds)
    for step in range(1, 4):
        run(sched, 80 * step)
        sched.check_invariants()
    ran = [[world.times(sched.sim.now).run_ns for world in worlds] for worlds in groups]
    assert sum(map(sum, ran)) == sum(pcpu.times(sched.sim.now).busy_ns for pcpu in sched.pcpus)
    assert sum(world.times(sched.sim.now).ready_ns for worlds in groups for world in worlds) > SECOND
    assert all(max(times) > 0 for times in ran if len(times) == 64)


def test_many_odd_weights_keep_proportion():
    """Weights without a small common multiple are priced with rounding that does not show."""
    sched = host(quantum_ms=1)
    weights = [997 * index + 1009 for index in range(1, 24)]
    worlds = [add(sched, Busy(), shares=weight) for weight in weights]
    run(sched, 20_000)
    total = sum(weights)
    for world, weight in zip(worlds, weights, strict=True):
        assert run_ms(world) == pytest.approx(20_000 * weight / total, abs=3)


def test_memory_does_not_grow_with_time():
    """The queues of a host with reservations and limits stay as small as its set of worlds."""
    sched = host(2)
    for index in range(6):
        bucket = sched.bucket(300 * MHZ) if index % 2 else None
        add(sched, OnOff(3 * MS, 2 * MS), shares=10 + 700 * index, reservation_mhz=200, bucket=bucket)
    sizes = []
    for second in range(1, 21):
        sched.sim.engine.run(second * SECOND)
        sizes.append((len(sched.policy.heaps[0]), len(sched.policy.dues[0]), len(sched.sim.engine._queue)))
    assert max(ready for ready, _, _ in sizes) < 400
    assert max(due for _, due, _ in sizes) < 400
    assert max(queue for _, _, queue in sizes) < 400


def test_a_pickled_scheduler_is_independent_of_the_original():
    sched = host(2)
    for _ in range(3):
        add(sched, Busy())
    run(sched, 100)
    copy = pickle.loads(pickle.dumps(sched))
    run(sched, 200)
    assert copy.sim.now == 100 * MS
    run(copy, 200)
    assert [world.run_ns for world in copy.worlds.values()] == [
        world.run_ns for world in sched.worlds.values()
    ]


@pytest.mark.parametrize("cores", [1, 8])
@pytest.mark.parametrize("threshold_ms", [0, 1, 200])
def test_every_slack_of_a_limit_lets_time_pass_and_keeps_the_limit(threshold_ms, cores):
    advanced = {"Cpu.LimitEnforcementThreshold": threshold_ms}
    sched = host(cores, quantum_ms=200, switch_ns=2 * US, advanced=advanced)
    limit_mhz = 500 * cores
    bucket = sched.bucket(limit_mhz * MHZ)
    worlds = [add(sched, Busy(), bucket=bucket) for _ in range(cores)]
    run(sched, 200)
    got = sum(mhz(sched, world) for world in worlds)
    burst_mhz = 1 + 1000 * bucket.burst_ns // (200 * MS)  # what one burst is worth over this time
    assert limit_mhz * 95 // 100 - burst_mhz <= got <= limit_mhz + burst_mhz
    assert bucket.burst_ns <= max(threshold_ms, 14) * MS
    assert sched.sim.engine.events_done < 20_000 * cores  # of a nanosecond each they would be 500 million
