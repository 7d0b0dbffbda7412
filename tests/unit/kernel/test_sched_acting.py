"""Every advanced option that claims to act changes the trace of some scenario, and no other option is read."""

import re
from contextlib import nullcontext
from pathlib import Path

import pytest

import sim.kernel.sched
from sim.core.context import Sim
from sim.core.units import MS
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.sched.admission import AdmissionError, admit_cpu
from sim.kernel.sched.advanced import OPTIONS, USED, WHERE
from sim.kernel.sched.numa import set_home
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import Busy, OnOff

HZ = 10**9
PLAIN = {"cores_per_node": 4}
THREADS = {"cores_per_node": 8, "threads_per_core": 2}
CACHES = {"cores_per_node": 8, "cores_per_llc": 2}
PACKAGES = {"packages": 2, "cores_per_node": 2}
NODES = {"packages": 2, "cores_per_node": 4}
NO_HOMES = {"Numa.RebalanceEnable": 0}
OFF = 0


def crowd(sched):
    """VMs of one to three vCPUs, busy or on and off, one with a limit; in all more than the host has pCPUs."""
    width = len(sched.pcpus) + 4
    worlds, number = [], 0
    while len(worlds) < width:
        made = []
        for index in range(1 + number % 3):
            busy = (number + index) % 2
            load = Busy() if busy else OnOff((3 + 2 * number) * MS, (2 + 3 * index + number % 4) * MS)
            made.append(sched.add(f"vm{number}-{index}", load))
        sched.group(made, pages=20_000)
        bucket = sched.bucket(HZ // 2) if number == 1 else None
        for world in made:
            sched.allocate(world, shares=1000 + 500 * (number % 2), bucket=bucket)
        worlds += made
        number += 1
    return worlds


def sleepers(sched):
    """Half as many worlds as there are pCPUs and two more; each sleeps often, so that cores become idle."""
    worlds = []
    for index in range(len(sched.pcpus) // 2 + 2):
        worlds.append(sched.add(f"w{index}", OnOff((20 + 7 * index) * MS, (5 + 11 * (index % 5)) * MS)))
        sched.allocate(worlds[-1], shares=1000)
    return worlds


def lopsided(sched):
    """Every machine's home is node 0, on which some are twice as wide as others."""
    worlds = []
    for index in range(8):
        load = Busy() if index % 3 else OnOff(30 * MS, 40 * MS)
        made = [sched.add(f"vm{index}-{each}", load) for each in range(1 + index % 2)]
        sched.group(made, pages=200_000)
        for world in made:
            sched.allocate(world, shares=1000)
        client = sched.numa.client_of(made[0])
        if client is not None:
            client.node = 0
            for world in made:
                set_home(sched, world, 0)
        worlds += made
    return worlds


def swappers(sched):
    """Wide machines on node 0, narrow ones on node 1, such that no single move helps."""
    worlds = []
    for index in range(4):
        load = Busy if index < 2 else lambda: OnOff(6 * MS, 4 * MS)
        made = [sched.add(f"vm{index}-{each}", load()) for each in range(2)]
        sched.group(made)
        for world in made:
            sched.allocate(world, shares=1000)
            set_home(sched, world, index // 2)
        sched.numa.client_of(made[0]).node = index // 2
        worlds += made
    return worlds


def unequal(sched):
    """Two busy machines on node 0 and one on node 1 that is busy half of the time."""
    worlds = []
    for index in range(3):
        world = sched.add(f"vm{index}", Busy() if index < 2 else OnOff(5 * MS, 5 * MS))
        sched.group([world])
        sched.allocate(world, shares=1000)
        set_home(sched, world, index // 2)
        sched.numa.client_of(world).node = index // 2
        worlds.append(world)
    return worlds


def wide(sched):
    """A machine wider than a node, whose vCPUs do not do the same."""
    made = [sched.add(f"vm-{each}", Busy() if each < 3 else OnOff(5 * MS, 9 * MS)) for each in range(6)]
    others = [sched.add(f"other{each}", OnOff(8 * MS, 9 * MS)) for each in range(6)]
    sched.group(made)
    for world in others:
        sched.group([world])
    for world in made + others:
        sched.allocate(world, shares=1000)
    return made + others


def trace(cpu, load, advanced, ms, queues="llc"):
    options = SchedOptions(advanced={"Cpu.Quantum": 20, **advanced}, queues=queues)
    sched = Scheduler(Sim(categories=("sched", "numa")), Topology.of(CpuSpec(core_hz=HZ, **cpu)), options)
    for world in load(sched):
        sched.begin(world)
    sched.sim.engine.run(ms * MS)
    sched.check_invariants()
    return sched.sim.trace.digest()


CASES = {
    "Cpu.BoundLagQuanta": (PLAIN, crowd, 1, {}),
    "Cpu.CoschedCostartThreshold": (PLAIN, crowd, 500, {}),
    "Cpu.CoschedCostopThreshold": (PLAIN, crowd, 1000, {}),
    "Cpu.CoschedHandoffSkip": (PLAIN, crowd, 1000, {}),
    "Cpu.FairnessRebalancePcpus": (CACHES, crowd, OFF, {"Cpu.PackageRebalancePeriod": 20}),
    "Cpu.HTRebalancePeriod": (THREADS, crowd, OFF, {"queues": "pcpu"}),
    "Cpu.HostRebalancePeriod": (PACKAGES, crowd, 20, NO_HOMES),
    "Cpu.L3RebalancePeriod": (THREADS, sleepers, OFF, {"Cpu.PcpuMigrateIdlePcpus": 0}),
    "Cpu.LimitEnforcementThreshold": (PLAIN, crowd, 20, {}),
    "Cpu.PackageRebalancePeriod": (CACHES, crowd, 20, {}),
    "Cpu.PcpuMigrateIdlePcpus": (THREADS, sleepers, OFF, {}),
    "Cpu.Quantum": (PLAIN, crowd, 50, {}),
    "Cpu.WakeupMigrateIdlePcpus": (PLAIN, crowd, 1, {}),
    "Numa.CostopSkewAdjust": (NODES, wide, OFF, {}),
    "Numa.MigImbalanceThreshold": (NODES, lopsided, 200, {}),
    "Numa.MigThrashThreshold": (PACKAGES, unequal, 1, {}),
    "Numa.MigThreshold": (NODES, lopsided, 100, {}),
    "Numa.PageMigEnable": (NODES, lopsided, OFF, {}),
    "Numa.PageMigRateMax": (NODES, lopsided, 1, {}),
    "Numa.PreferHT": ({**NODES, "threads_per_core": 2}, wide, 1, {}),
    "Numa.RebalanceCoresNode": (NODES, lopsided, 8, {}),
    "Numa.RebalanceCoresTotal": (NODES, lopsided, 32, {}),
    "Numa.RebalanceEnable": (NODES, lopsided, OFF, {}),
    "Numa.RebalancePeriod": (NODES, lopsided, 500, {}),
    "Numa.SwapInterval": (PACKAGES, swappers, 1, {}),
    "Numa.SwapLoadEnable": (PACKAGES, swappers, OFF, {}),
}
AT_ADMISSION = {"Cpu.AllowWideVsmp", "Cpu.VMAdmitCheckPerVcpuMin"}


@pytest.mark.parametrize("name", CASES)
def test_an_option_that_acts_changes_the_schedule(name):
    cpu, load, value, others = CASES[name]
    advanced = dict(others)
    queues = advanced.pop("queues", "llc")
    ms = 9000 if name.startswith("Numa.") else 1000
    plain = trace(cpu, load, advanced, ms, queues)
    assert plain == trace(cpu, load, advanced, ms, queues)
    assert plain != trace(cpu, load, {**advanced, name: value}, ms, queues)


def test_the_period_between_looks_at_the_skew_acts_where_skew_is_polled():
    def digest(poll_us):
        options = SchedOptions(cosched_polling=True, advanced={"Cpu.CoschedPollUsec": poll_us})
        sched = Scheduler(Sim(), Topology.of(CpuSpec(cores_per_node=2)), options)
        worlds = [sched.add(f"w{index}", Busy()) for index in range(3)]
        sched.group(worlds)
        for world in worlds:
            sched.allocate(world, shares=1000)
        for world in worlds:
            sched.begin(world)
        sched.sim.engine.run(100 * MS)
        return sched.sim.trace.digest()

    assert digest(1000) != digest(5000)


@pytest.mark.parametrize(
    ("name", "refuses", "vcpus", "reservation_hz"),
    [("Cpu.AllowWideVsmp", 0, 3, 0), ("Cpu.VMAdmitCheckPerVcpuMin", 1, 1, 2 * HZ)],
)
def test_an_option_of_admission_decides_who_is_admitted(name, refuses, vcpus, reservation_hz):
    topology = Topology.of(CpuSpec(cores_per_node=2, core_hz=HZ))
    for value in (0, 1):
        options = SchedOptions(advanced={name: value})
        refusal = pytest.raises(AdmissionError) if value == refuses else nullcontext()
        with refusal:
            admit_cpu("vm", vcpus, reservation_hz, reserved_hz=0, topology=topology, options=options)


def test_every_option_that_acts_has_a_scenario():
    assert {*CASES, *AT_ADMISSION, "Cpu.CoschedPollUsec"} == USED
    assert WHERE.keys() <= USED < OPTIONS.keys()


def test_no_other_option_is_read():
    folder = Path(sim.kernel.sched.__file__).parent
    sources = [path for path in folder.rglob("*.py") if path.parent.name != "advanced"]
    found = {
        name for path in sources for name in re.findall(r'"((?:Cpu|Numa)\.[A-Za-z0-9]+)"', path.read_text())
    }
    assert found == USED
