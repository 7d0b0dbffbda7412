"""The line of a limit: by shares, through nested pools, and fair to those who come and go."""

import pytest

from sim.core.context import Sim
from sim.core.units import MS, SECOND
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.pools import PoolSpec
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import Busy, OnOff

HZ = 10**9
QUANTUM_NS = 5 * MS


def host(cores, *pools, policy="esxi"):
    options = SchedOptions(
        quantum_ns=QUANTUM_NS,
        world_switch_ns=0,
        limit_burst_ns=4 * QUANTUM_NS,
        limit_slice_ns=QUANTUM_NS,
        policy=policy,
    )
    topology = Topology.of(CpuSpec(cores_per_node=cores, core_hz=HZ))
    sched = Scheduler(Sim(categories=("sched",)), topology, options)
    for spec in pools:
        sched.pools.add(spec)
    return sched


def world(sched, shares, pool="", limit_hz=None, workload=None):
    above = sched.pools.pools[pool] if pool else None
    made = sched.add(f"w{shares}", workload if workload is not None else Busy())
    bucket = None if limit_hz is None else sched.bucket(limit_hz, above)
    sched.allocate(made, shares=shares, bucket=bucket, pool=above)
    return made


def runs(sched, worlds, until_ns):
    sched.sim.engine.run(until_ns)
    sched.check_invariants()
    return [each.times(until_ns).run_ns for each in worlds]


def shared(sched, worlds, until_ns=2 * SECOND):
    for each in worlds:
        sched.begin(each)
    return runs(sched, worlds, until_ns)


def near(ran_ns, quanta=3):
    return pytest.approx(ran_ns, abs=quanta * QUANTUM_NS)


@pytest.mark.parametrize("policy", ["esxi", "roundrobin", "stride", "eevdf"])
def test_worlds_share_a_limit_by_their_shares_on_a_host_with_time_to_spare(policy):
    sched = host(4, PoolSpec(name="p", limit_hz=HZ // 2), policy=policy)
    worlds = [world(sched, shares, "p") for shares in (500, 1000, 3000)]
    found = shared(sched, worlds)
    assert found == [near(SECOND * part // 9) for part in (1, 2, 6)]


def test_world_that_needs_a_whole_cpu_of_the_limit_gets_it():
    """The limit is more than one CPU: who is ahead leaves the tokens that another will want as soon as its turn ends."""
    sched = host(4, PoolSpec(name="p", limit_hz=3 * HZ // 2))
    found = shared(sched, [world(sched, 1000, "p"), world(sched, 2000, "p")])
    assert found == [near(SECOND), near(2 * SECOND)]


def test_pools_without_a_limit_below_one_with_a_limit_share_by_their_own_shares():
    """However many worlds one of them has."""
    sched = host(
        8,
        PoolSpec(name="top", limit_hz=HZ),
        PoolSpec(name="low", parent="top", shares="low"),
        PoolSpec(name="high", parent="top", shares="high"),
    )
    worlds = [world(sched, 1000, "low") for _ in range(4)] + [
        world(sched, 1000, "high"),
        world(sched, 3000, "high"),
    ]
    found = shared(sched, worlds, 5 * SECOND)
    assert sum(found[:4]) == near(SECOND)
    assert found[4:] == [near(SECOND), near(3 * SECOND)]


def test_what_a_pool_at_its_own_limit_leaves_goes_to_the_others():
    sched = host(
        4,
        PoolSpec(name="top", limit_hz=HZ),
        PoolSpec(name="tight", parent="top", shares="high", limit_hz=HZ // 10),
        PoolSpec(name="free", parent="top", shares="low"),
    )
    worlds = [world(sched, 1000, "tight"), world(sched, 1000, "free"), world(sched, 1000, "top")]
    found = shared(sched, worlds)
    assert found[0] == near(SECOND // 5)
    # 0.9 CPU between 2000 shares of the pool and 1000 of the VM beside it
    assert found[1:] == [near(1200 * MS), near(600 * MS)]


@pytest.mark.parametrize("level", ["low", "normal", "high"])
def test_scalable_pool_counts_as_its_children_do_at_its_ratio(level):
    sched = host(
        8, PoolSpec(name="top", limit_hz=HZ), PoolSpec(name="s", parent="top", shares=level, scalable=True)
    )
    worlds = [world(sched, 1000, "s"), world(sched, 500, "s"), world(sched, 1500, "top")]
    found = shared(sched, worlds)
    ratio = {"low": 1, "normal": 2, "high": 4}[level]
    whole = 1500 * ratio + 3000
    assert found == [near(2 * SECOND * each // whole) for each in (1000 * ratio, 500 * ratio, 3000)]


def test_vcpus_of_a_limited_vm_are_served_by_shares_too():
    sched = host(4)
    bucket = sched.bucket(HZ)
    worlds = []
    for shares in (1000, 1000, 2000):
        each = sched.add("vcpu", Busy())
        sched.allocate(each, shares=shares, bucket=bucket)
        worlds.append(each)
    assert shared(sched, worlds) == [near(SECOND // 2), near(SECOND // 2), near(SECOND)]


def trace_of(factor):
    sched = host(3, PoolSpec(name="p", limit_hz=HZ), PoolSpec(name="q", parent="p", shares=700 * factor))
    worlds = [world(sched, shares * factor, "p") for shares in (7, 333, 90)]
    worlds += [world(sched, 13 * factor, "q", workload=OnOff(3 * MS, 5 * MS))]
    shared(sched, worlds, SECOND)
    return sched.sim.trace.digest()


def test_shares_times_a_constant_give_the_same_schedule():
    assert trace_of(1) == trace_of(3) == trace_of(1000)


def test_sleeper_and_newcomer_catch_up_no_more_than_the_bound():
    sched = host(4, PoolSpec(name="p", limit_hz=HZ // 2))
    worlds = [world(sched, 1000, "p") for _ in range(3)]
    late = world(sched, 1000, "p")
    before = shared(sched, worlds, 3 * SECOND)
    sched.suspend(worlds[0])
    rested = runs(sched, worlds, 6 * SECOND)
    assert rested[0] - before[0] == 0
    sched.resume(worlds[0])
    sched.begin(late)
    after = runs(sched, [*worlds, late], 8 * SECOND)
    assert after[3] == near(SECOND // 4, 4)
    assert after[0] - rested[0] <= SECOND // 4 + 8 * QUANTUM_NS
    for index in (1, 2):
        assert after[index] - rested[index] >= SECOND // 4 - 8 * QUANTUM_NS


def test_worlds_that_leave_the_line_leave_it_to_the_others():
    sched = host(2, PoolSpec(name="p", limit_hz=HZ // 4), PoolSpec(name="q", parent="p"))
    worlds = [world(sched, 1000, "q") for _ in range(3)] + [world(sched, 1000, "p")]
    shared(sched, worlds, 200 * MS)
    for each in worlds[:2]:
        sched.suspend(each)
        sched.check_invariants()
    sched.end(worlds[2])
    before = worlds[3].times(200 * MS).run_ns
    assert runs(sched, worlds[3:], 1200 * MS)[0] - before == near(SECOND // 4, 4)
    for each in worlds[:2]:
        sched.resume(each)
    runs(sched, worlds[:2], SECOND * 3 // 2)


def test_limit_of_many_cpus_is_reached():
    """Though no more than the burst may be taken at once, and ten default turns are as much."""
    sched = Scheduler(Sim(categories=()), Topology.of(CpuSpec(cores_per_node=16, core_hz=HZ)), SchedOptions())
    sched.pools.add(PoolSpec(name="p", limit_hz=14 * HZ))
    found = shared(sched, [world(sched, 1000, "p") for _ in range(16)], 4 * SECOND)
    assert 14 * 4 * SECOND * 99 // 100 <= sum(found) <= 14 * 4 * SECOND + 200 * MS
