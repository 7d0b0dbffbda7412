"""Running worlds leave shared cores for idle ones."""

import pickle

import pytest

from sim.core.context import Sim
from sim.core.units import MS, SECOND, US
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.sched.machine import dedicate, set_online
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import FOREVER_NS, Busy, Run, Wait

END_NS = 200 * MS
PUSH_ONLY = {"Cpu.PcpuMigrateIdlePcpus": 0}
NO_CHANCE = {"Cpu.L3RebalancePeriod": 0, "Cpu.PackageRebalancePeriod": 0, "Cpu.HostRebalancePeriod": 0}


class Once:
    """One burst, then sleep."""

    def __init__(self, ns):
        self.steps = [Run(ns)]

    def next(self, now_ns):
        return self.steps.pop() if self.steps else Wait(FOREVER_NS)


def host(cores=2, threads=2, *, packages=1, nodes=1, categories=("sched",), **options):
    spec = CpuSpec(
        packages=packages,
        nodes_per_package=nodes,
        cores_per_node=cores,
        threads_per_core=threads,
        core_hz=10**9,
    )
    knobs = {"quantum_ns": 50 * MS, **options}
    return Scheduler(Sim(categories=categories), Topology.of(spec), SchedOptions(**knobs))


def begin(sched, workload, *, affinity=-1, hz=0, own_core=False):
    world = sched.add(f"w{len(sched.worlds)}", workload)
    bucket = sched.bucket(hz) if hz else None
    sched.allocate(world, shares=1000, affinity=affinity, bucket=bucket)
    if own_core:
        dedicate(sched, world)
    sched.begin(world)
    return world


def shared_pair(sched, *, affinity=-1, hz=0, burst_ns=END_NS):
    """Two busy worlds on core 0; each other core has one that ends after a burst."""
    first = [begin(sched, Busy(), affinity=affinity, hz=hz)]
    short = [
        begin(sched, Once(burst_ns)) for _ in range(len(sched.pcpus) // sched.topology.threads_per_core - 1)
    ]
    return first + [begin(sched, Busy(), affinity=affinity, hz=hz)], short


def run(sched, ns):
    sched.sim.engine.run(ns)
    sched.check_invariants()


def cores_of(worlds):
    return [world.pcpu.place.core for world in worlds]


@pytest.mark.parametrize("policy", ["esxi", "stride", "eevdf", "credit", "lottery", "roundrobin"])
@pytest.mark.parametrize("queues", ["host", "llc", "pcpu"])
def test_a_world_moves_at_once_to_a_core_that_becomes_idle(policy, queues):
    sched = host(policy=policy, queues=queues)
    pair, _ = shared_pair(sched)
    run(sched, 100 * MS)
    assert cores_of(pair) == [0, 0]
    run(sched, SECOND)
    assert sorted(cores_of(pair)) == [0, 1]
    assert sched.spreader.moves == 1
    moved = pair[0] if pair[0].migrations else pair[1]
    assert moved.migrations == 1
    shared_ns = [world.times(SECOND).shared_ns for world in pair]
    assert all(END_NS - 10 * US <= each <= END_NS + 10 * US for each in shared_ns)
    assert sum(world.times(SECOND).ready_ns for world in pair) <= 4 * sched.options.world_switch_ns


def test_a_move_is_in_the_trace_as_a_dispatch_and_costs_a_switch():
    sched = host()
    pair, _ = shared_pair(sched)
    run(sched, SECOND)
    moved = pair[0] if pair[0].migrations else pair[1]
    rows = [row for row in sched.sim.trace.select("sched.dispatch") if row["world"] == moved.world_id]
    move = next(row for row in rows if row["pcpu"] == moved.pcpu.index)
    assert (move["time_ns"], move["switch_ns"]) == (END_NS + 2 * US, 2 * US)
    assert moved.pcpu.switch_ns == 4 * US


def test_what_no_core_may_leave_or_take_stays_and_needs_no_timer():
    for affinity in (1, 3):
        sched = host()
        pinned = [
            begin(sched, Busy(), affinity=1),
            begin(sched, Busy(), affinity=affinity if affinity == 3 else 2),
        ]
        run(sched, 10 * SECOND)
        assert cores_of(pinned) == [0, 0]
        assert not sched.spreader.timer.armed
        assert sched.spreader.moves == 0


def test_a_host_with_one_thread_a_core_has_no_such_timer():
    sched = host(cores=4, threads=1)
    shared_pair(sched)
    run(sched, SECOND)
    assert not sched.spreader.shared
    assert not sched.spreader.timer.armed


def test_a_pinned_sibling_lets_the_other_one_go():
    """The free world was alone on its core when the pinned one came: no core has become idle since."""
    sched = host()
    free = begin(sched, Busy())
    pinned = begin(sched, Busy(), affinity=2)
    assert cores_of([free, pinned]) == [0, 0]
    run(sched, SECOND)
    assert cores_of([free, pinned]) == [1, 0]


@pytest.mark.parametrize(
    ("level", "packages", "nodes", "affinity"),
    [("L3", 1, 1, -1), ("Package", 1, 2, 0xFF), ("Host", 2, 1, 0xFF)],
)
def test_each_level_has_its_chance_once_in_its_period(level, packages, nodes, affinity):
    """An affinity keeps home nodes away."""
    name = f"Cpu.{level}RebalancePeriod"
    for period_ms, wanted in ((0, 0), (300, 1), (5000, 1)):
        cores = 2 if level == "L3" else 1
        advanced = {**PUSH_ONLY, **NO_CHANCE, name: period_ms, "Numa.RebalanceEnable": 0}
        sched = host(cores, packages=packages, nodes=nodes, advanced=advanced)
        shared_pair(sched)
        run(sched, 199 * MS)
        assert sched.spreader.moves == 0
        run(sched, 5200 * MS)
        assert sched.spreader.moves == wanted


def test_a_home_node_is_not_left():
    sched = host(cores=2, nodes=2)
    worlds = [sched.add(f"w{index}", Busy()) for index in range(3)]
    for world in worlds:
        sched.allocate(world, shares=1000)
        world.home = 0
    for world in worlds:
        sched.begin(world)
    run(sched, SECOND)
    assert sched.spreader.moves == 0
    assert {world.pcpu.place.node for world in worlds} == {0}


def test_a_core_of_ones_own_takes_nobody():
    sched = host(cores=3)
    own = begin(sched, Once(100 * MS), own_core=True)
    pair, _ = shared_pair(sched, burst_ns=END_NS)
    run(sched, SECOND)
    assert all(world.pcpu.place.core != own.exclusive.place.core for world in pair)


def test_a_pcpu_that_comes_back_is_used():
    sched = host()
    for index in (2, 3):
        set_online(sched, index, online=False)
    pair = [begin(sched, Busy()), begin(sched, Busy())]
    run(sched, SECOND)
    assert cores_of(pair) == [0, 0]
    for index in (2, 3):
        set_online(sched, index, online=True)
    run(sched, 2 * SECOND)
    assert sorted(cores_of(pair)) == [0, 1]


def test_a_limit_holds_over_a_move():
    sched = host()
    pair, _ = shared_pair(sched, hz=700_000_000)
    run(sched, 3 * SECOND)
    for world in pair:
        got_ns = world.times(3 * SECOND).run_ns
        assert 2 * SECOND <= got_ns <= 7 * 3 * SECOND // 10 + world.bucket.burst_ns


def test_moves_are_the_same_after_a_checkpoint():
    def digest(saved):
        sched = host(4)
        for index in range(12):
            begin(sched, Once((50 + 37 * index) * MS))
        for _ in range(3):
            begin(sched, Busy())
        run(sched, 100 * MS)
        if saved:
            sched = pickle.loads(pickle.dumps(sched))
        run(sched, SECOND)
        assert sched.spreader.moves > 0
        return sched.sim.trace.digest()

    assert digest(saved=False) == digest(saved=True)


def test_a_gang_stays_where_its_slot_is():
    sched = host(policy="gang")
    shared_pair(sched)
    run(sched, SECOND)
    assert sched.spreader.moves == 0


def test_a_host_that_halts_leaves_no_timer_for_moves():
    sched = host(cores=4)
    for _ in range(4):
        begin(sched, Busy())
    begin(sched, Busy(), affinity=1 << 7)
    run(sched, 100 * MS)
    sched.halt()
    assert not sched.spreader.timer.armed


@pytest.mark.parametrize(("period_ms", "wanted_ms"), [(20, 215), (300, 495)])
def test_a_chance_comes_when_the_period_of_its_level_is_over(period_ms, wanted_ms):
    """Core 1 is left at 195 ms, at once taken; core 2 at 200 ms, and its next chance is one period after the last."""
    sched = host(cores=4, advanced={**PUSH_ONLY, **NO_CHANCE, "Cpu.L3RebalancePeriod": period_ms})
    for load in (Busy(), Once(195 * MS), Once(200 * MS), Busy()):
        begin(sched, load)
    for affinity in (1 << 1, 1 << 7):
        begin(sched, Busy(), affinity=affinity)
    run(sched, 199 * MS)
    assert sched.spreader.moves == 1
    run(sched, (wanted_ms - 1) * MS)
    assert sched.spreader.moves == 1
    run(sched, (wanted_ms + 1) * MS)
    assert sched.spreader.moves == 2
