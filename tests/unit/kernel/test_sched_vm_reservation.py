"""A VM's reservation: held by the VM, and used by those of its vCPUs that want CPU."""

import pytest

from sim.core.context import Sim
from sim.core.units import MS
from sim.hw.topology import CpuSpec, Topology
from sim.kernel.sched.fluid_engine import FluidScheduler
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import FOREVER_NS, Busy, Idle, Run, Wait

MHZ = 1_000_000
CORE_MHZ = 2000


class After:
    """Sleeps until `at_ns`, then wants a whole CPU."""

    def __init__(self, at_ns):
        self.at_ns = at_ns

    def next(self, now_ns):
        return Wait(self.at_ns) if now_ns < self.at_ns else Run(FOREVER_NS)


@pytest.fixture(params=[Scheduler, FluidScheduler], ids=["quantum", "fluid"])
def sched(request):
    spec = CpuSpec(cores_per_node=2, core_hz=CORE_MHZ * MHZ)
    return request.param(Sim(), Topology.of(spec), SchedOptions(quantum_ns=10 * MS, world_switch_ns=0))


def vm(sched, workloads, *, shares=1000, reservation_mhz=0):
    """Make a VM; its vCPUs hold equal parts of shares and reservation."""
    worlds = [
        sched.add(f"w{len(sched.worlds) + index}", workload) for index, workload in enumerate(workloads)
    ]
    sched.group(worlds)
    for world in worlds:
        hz = reservation_mhz * MHZ // len(worlds)
        sched.allocate(world, shares=max(1, shares // len(worlds)), reservation_hz=hz)
    for world in worlds:
        sched.begin(world)
    return worlds


def crowd(sched):
    for _ in range(8):
        vm(sched, [Busy()], shares=100_000)


def mhz_between(sched, worlds, since_ms, until_ms):
    sched.sim.engine.run(since_ms * MS)
    before = [world.times(sched.sim.now).run_ns for world in worlds]
    sched.sim.engine.run(until_ms * MS)
    sched.check_invariants()
    return [
        (world.times(sched.sim.now).run_ns - past) * CORE_MHZ / ((until_ms - since_ms) * MS)
        for world, past in zip(worlds, before, strict=True)
    ]


def near(mhz):
    return pytest.approx(mhz, abs=25)  # two quanta in two seconds are 20 MHz


@pytest.mark.parametrize(
    ("workloads", "reserved", "expected"),
    [
        ((Busy, Idle), 1600, (1600, 0)),
        ((Busy, Busy), 1600, (800, 800)),
        ((Busy, Busy, Idle, Idle), 1600, (800, 800, 0, 0)),
        ((Busy, Idle), 3000, (2000, 0)),  # a vCPU runs on one CPU at a time
    ],
)
def test_busy_vcpus_use_what_is_reserved_for_their_vm(sched, workloads, reserved, expected):
    worlds = vm(sched, [make() for make in workloads], shares=4, reservation_mhz=reserved)
    crowd(sched)
    assert mhz_between(sched, worlds, 1000, 3000) == [near(each) for each in expected]


def test_a_sibling_that_wakes_gets_its_part(sched):
    worlds = vm(sched, [Busy(), After(2000 * MS)], shares=2, reservation_mhz=1600)
    crowd(sched)
    assert mhz_between(sched, worlds, 0, 2000) == [near(1600), near(0)]
    woken = mhz_between(sched, worlds, 2000, 3000)  # it may catch up a few quanta (`Cpu.BoundLagQuanta`)
    assert min(woken) >= 800 - 25
    assert mhz_between(sched, worlds, 3000, 5000) == [near(800), near(800)]


def test_the_reservation_of_a_vm_that_sleeps_goes_to_nobody_in_particular(sched):
    sleeper = vm(sched, [Idle(), Idle()], shares=2, reservation_mhz=1600)
    first, second, third, fourth = (vm(sched, [Busy()])[0] for _ in range(4))
    found = mhz_between(sched, [*sleeper, first, second, third, fourth], 0, 2000)
    assert found == [near(each) for each in (0, 0, 1000, 1000, 1000, 1000)]


def test_another_reservation_is_divided_anew(sched):
    worlds = vm(sched, [Busy(), Idle()], shares=2, reservation_mhz=1600)
    crowd(sched)
    assert mhz_between(sched, worlds, 0, 2000) == [near(1600), near(0)]
    for world in worlds:
        sched.suspend(world)
    for world in worlds:
        sched.allocate(world, shares=1, reservation_hz=200 * MHZ)
    for world in worlds:
        sched.resume(world)
    assert mhz_between(sched, worlds, 2000, 4000) == [near(400), near(0)]
