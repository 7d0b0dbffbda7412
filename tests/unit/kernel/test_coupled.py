"""Workloads whose vCPUs wait for each other, for a clock or for a device."""

import pickle

import pytest

from sim.core.context import Sim
from sim.core.rng import FastStream
from sim.core.units import MS, US
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.coupled import Barrier, BarrierLoop, IoLoop, Lock, LockLoop, Periodic
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import Busy, WorkloadSpec
from sim.kernel.world import WorldState


def host(cores=2, **options):
    knobs = {"quantum_ns": 10 * MS, "world_switch_ns": 0, **options}
    return Scheduler(Sim(), Topology.of(CpuSpec(cores_per_node=cores, core_hz=10**9)), SchedOptions(**knobs))


def start(sched, *workloads, affinity=-1):
    worlds = []
    for workload in workloads:
        world = sched.add("w", workload)
        sched.allocate(world, shares=1000, affinity=affinity)
        worlds.append(world)
    sched.group(worlds)
    for world in worlds:
        sched.begin(world)
    return worlds


def run(sched, ms):
    sched.sim.engine.run(ms * MS)
    sched.check_invariants()


@pytest.mark.parametrize("spin", [False, True])
def test_a_barrier_opens_when_the_last_has_come(spin):
    sched = host()
    barrier = Barrier(2)
    worlds = start(sched, BarrierLoop(barrier, MS, spin=spin), BarrierLoop(barrier, 3 * MS, spin=spin))
    run(sched, 301)
    assert barrier.rounds == 100
    fast, slow = (world.times(sched.sim.now) for world in worlds)
    assert slow.run_ns == pytest.approx(301 * MS, abs=1000)
    if spin:
        assert fast.run_ns == pytest.approx(301 * MS, abs=1000), "waiting burns CPU"
    else:
        assert fast.idle_ns == pytest.approx(200 * MS, abs=MS)


def test_a_preempted_sibling_holds_the_barrier_back():
    """Two vCPUs and a busy neighbour on one of two pCPUs: rounds go at the pace of the slower one."""
    alone, crowded = host(), host()
    for sched in (alone, crowded):
        barrier = Barrier(2)
        start(sched, *(BarrierLoop(barrier, MS, spin=True) for _ in range(2)))
        if sched is crowded:
            start(sched, Busy())
            start(sched, Busy())
        run(sched, 1000)
        if sched is alone:
            assert barrier.rounds >= 999
        else:
            assert barrier.rounds < 700


def test_a_lock_is_handed_on_in_the_order_of_arrival_and_never_held_twice():
    sched = host(cores=4)
    lock = Lock()
    worlds = start(sched, *(LockLoop(lock, 30 * US, 70 * US, spin=True) for _ in range(4)))
    run(sched, 100)
    assert lock.handed == pytest.approx(100 * MS / (70 * US), rel=0.01)
    assert sum(world.times(sched.sim.now).run_ns for world in worlds) == 400 * MS


def test_halting_at_a_lock_leaves_the_pcpu_to_others():
    sched = host(cores=4)
    lock = Lock()
    worlds = start(sched, *(LockLoop(lock, 30 * US, 70 * US, spin=False) for _ in range(4)))
    run(sched, 100)
    ran = sum(world.times(sched.sim.now).run_ns for world in worlds)
    assert ran == pytest.approx(lock.handed * 100 * US, rel=0.02)
    assert lock.handed == pytest.approx(100 * MS / (70 * US), rel=0.01)


@pytest.mark.parametrize("spin", [False, True])
def test_a_machine_suspended_at_a_gate_goes_on_after_it(spin):
    sched = host()
    barrier = Barrier(2)
    worlds = start(sched, BarrierLoop(barrier, MS, spin=spin), BarrierLoop(barrier, 5 * MS, spin=spin))
    run(sched, 3)
    for world in worlds:
        sched.suspend(world)
    run(sched, 50)
    for world in worlds:
        sched.resume(world)
    run(sched, 56)
    assert barrier.rounds == 1
    sched.suspend(worlds[0])
    run(sched, 70)
    assert barrier.rounds == 2, "it had come to the gate before; its sibling goes round once more, and waits"
    sched.resume(worlds[0])
    run(sched, 100)
    assert barrier.rounds >= 5


def test_a_periodic_job_is_released_by_the_clock():
    sched = host(cores=1)
    job = Periodic(4 * MS, 10 * MS)
    start(sched, job)
    run(sched, 1000)
    assert (job.jobs, job.late) == (100, 0)
    start(sched, Busy())
    start(sched, Busy())
    run(sched, 2000)
    assert 150 < job.jobs < 200
    assert job.late > 40


def test_an_interrupt_is_system_time_of_one_and_overlap_of_another():
    sched = host(cores=1)
    loop = IoLoop(MS, 10 * MS, 200 * US)
    (server,) = start(sched, loop)
    (neighbour,) = start(sched, Busy())
    run(sched, 1000)
    now = sched.sim.now
    assert server.times(now).system_ns == 200 * US * (
        loop.requests - 1 + (server.state is not WorldState.WAIT_IDLE)
    )
    assert neighbour.times(now).overlap_ns + server.times(now).overlap_ns == server.times(now).system_ns
    assert neighbour.times(now).run_ns + server.times(now).run_ns == 1000 * MS


def test_what_an_interrupt_takes_delays_the_burst_that_it_interrupts():
    sched = host(cores=1)
    (world,) = start(sched, Periodic(5 * MS, 100 * MS))
    sched.sim.engine.at(2 * MS, sched.interrupt, world, MS)
    run(sched, 50)
    assert world.times(sched.sim.now).run_ns == 6 * MS
    assert world.times(sched.sim.now).overlap_ns == MS


@pytest.mark.parametrize(
    ("kind", "spin"),
    [
        ("periodic", False),
        ("barrier", False),
        ("barrier", True),
        ("spinlock", False),
        ("spinlock", True),
        ("io", False),
    ],
)
def test_every_kind_pickles_in_the_middle_of_a_run(kind, spin):
    random = kind != "periodic"
    spec = WorkloadSpec(kind=kind, run_ns=700 * US, period_ns=2 * MS, spin=spin, random=random)
    digests = []
    for cut in (False, True):
        sched = host()
        start(sched, *spec.build_all([FastStream(7), FastStream(8), FastStream(9)]))
        if cut:
            sched.sim.engine.run(33 * MS + 5)
            sched = pickle.loads(pickle.dumps(sched))
        run(sched, 100)
        digests.append(sched.sim.trace.digest())
    assert digests[0] == digests[1]
