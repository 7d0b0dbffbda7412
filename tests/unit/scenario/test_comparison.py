"""What a comparison says of each policy: counts and waits from the trace, ideal shares by arithmetic."""

from fractions import Fraction

import pytest
from attrs import evolve

from sim.core.context import Sim
from sim.core.trace import ColumnarSink
from sim.core.units import MS, SECOND
from sim.errors import ScenarioError
from sim.hw.spec import CpuSpec, HostSpec
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.pools import PoolSpec
from sim.kernel.vm import CpuAllocation
from sim.kernel.vmspec import VmSpec
from sim.kernel.workload import WorkloadSpec
from sim.kernel.world import WorldState
from sim.report.compare import compare_csv, compare_sections
from sim.report.table import plain_section
from sim.scenario.comparison import Candidate, candidates, compare_policies, run_policy
from sim.scenario.faults import FaultSpec
from sim.scenario.ideal import DEMANDS_MAX, Ideal, declared_demand
from sim.scenario.run import Simulation
from sim.scenario.schedule import read_schedule
from sim.scenario.spec import ImageSpec, Scenario, VmEntry

MHZ = 1_000_000
ONOFF = WorkloadSpec(kind="onoff", run_ns=3 * MS, wait_ns=9 * MS, random=True)

SCENARIO = Scenario(
    duration_ns=2 * SECOND,
    host=HostSpec(cpu=CpuSpec(cores_per_node=2, core_hz=1000 * MHZ)),
    image=ImageSpec(modules=1, module_size_bytes=2048),
    sched=SchedOptions(quantum_ns=10 * MS, world_switch_ns=0),
    vms=(
        VmEntry(name="wide", vcpus=2),
        VmEntry(name="one", cpu=CpuAllocation(shares=2000)),
        VmEntry(name="web", workload=ONOFF, count=2),
    ),
)


def test_counts_are_those_of_the_books_and_waits_those_of_a_plain_reading():
    simulation = Simulation(evolve(SCENARIO, sched=evolve(SCENARIO.sched, world_switch_ns=50_000)))
    simulation.run()
    kernel = simulation.host.kernel
    found = read_schedule(simulation.sim.trace.sink(), simulation.sim.now, 2)
    assert sorted(found.vms) == ["one", "web-1", "web-2", "wide"]
    for name, vm in kernel.vms.vms.items():
        assert found.vms[name].dispatches == sum(world.dispatches for world in vm.vcpus)
        assert found.vms[name].migrations == sum(world.migrations for world in vm.vcpus)
        waits = [wait for world in vm.vcpus for wait in plain_waits(simulation, world.world_id)]
        assert found.vms[name].worst_wait_ns == max(waits) > 0
    assert found.stranded_ns == 0


def plain_waits(simulation, world):
    """Each stretch without running between wanting and running, for one world."""
    rows = [
        (row["seq"], row)
        for name in ("sched.dispatch", "sched.state")
        for row in (
            dict(zip(table, values, strict=True))
            for table in [simulation.sim.trace.sink().tables[name]]
            for values in zip(*table.values(), strict=True)
        )
        if row["world"] == world
    ]
    since = None
    for _, row in sorted(rows, key=lambda each: each[0]):
        if "pcpu" in row:
            yield row["time_ns"] + row["switch_ns"] - since
            since = None
        elif row["new"] in (WorldState.READY, WorldState.COSTOP):
            since = row["time_ns"] if since is None else since
    if since is not None:
        yield simulation.sim.now - since


def test_strict_gangs_strand_pcpus_and_others_do_not():
    """Two and one vCPU on two pCPUs, and two that sleep: the gang leaves one idle beside the ready."""
    stride, gang = compare_policies(SCENARIO, candidates(["stride", "gang"]))
    assert stride.stranded_ns == 0
    assert gang.stranded_ns > SECOND // 10
    assert stride.busy_ns > gang.busy_ns
    assert [vm.name for vm in gang.vms] == ["wide", "one", "web-1", "web-2"]


def test_the_same_run_twice_is_the_same_and_seeds_differ():
    first, again = (run_policy(SCENARIO, candidates(["lottery"])[0], seed=3) for _ in range(2))
    other = run_policy(SCENARIO, candidates(["lottery"])[0], seed=4)
    assert first == again
    assert first.digest != other.digest


def test_every_policy_spends_the_time_of_all_pcpus():
    runs = list(
        compare_policies(evolve(SCENARIO, duration_ns=SECOND), candidates(["esxi", "eevdf", "credit"]))
    )
    for run in runs:
        assert run.busy_ns == sum(vm.run_ns for vm in run.vms)
        assert all(vm.run_ns <= vm.used_ns + 1 for vm in run.vms)
        for vm in run.vms:
            assert vm.alive_ns == SECOND
    assert len({run.busy_ns + run.switch_ns + run.idle_ns for run in runs}) == 1


def test_after_a_reboot_only_the_last_run_counts():
    reboot = FaultSpec(kind="reboot", at_ns=SECOND // 2)
    long = evolve(SCENARIO, duration_ns=60 * SECOND, faults=(reboot,))
    run = run_policy(long, candidates(["stride"])[0])
    assert all(vm.alive_ns < 60 * SECOND for vm in run.vms)
    assert all(vm.worst_wait_ns < SECOND for vm in run.vms)
    assert all(abs(vm.run_ns - vm.gps_ns) < SECOND // 10 for vm in run.vms)


# ideal shares


def spec(name, shares=1000, vcpus=1, *, reservation=0, limit=None, pool="", workload=None):
    allocation = CpuAllocation(
        shares=shares, reservation_hz=reservation * MHZ, limit_hz=None if limit is None else limit * MHZ
    )
    return VmSpec(name=name, vcpus=vcpus, cpu=allocation, pool=pool, workload=workload or WorkloadSpec())


def trace(percent_hundredths):
    return WorkloadSpec(kind="trace", demand_hundredths=(percent_hundredths,))


def test_declared_demand_gives_the_published_division():
    """A host of 6000 MHz: 500 MHz wanted; a reservation of 2250; 2000 shares."""
    vms = [spec("a", workload=trace(833)), spec("b", reservation=2250), spec("c", 2000)]
    found = Ideal(vms, (), 1, 6000 * MHZ).declared(6000)
    assert {name: round(share) for name, share in found.items()} == {"a": 500, "b": 2250, "c": 3250}


def test_pools_divide_before_their_machines():
    pools = (PoolSpec(name="high", shares="high"), PoolSpec(name="low", shares="normal", limit_hz=500 * MHZ))
    vms = [spec("a", pool="high"), spec("b", pool="high"), spec("c", pool="low")]
    ideal = Ideal(vms, pools, 2, 1000 * MHZ)
    assert ideal.declared(1000) == {"a": 750, "b": 750, "c": 500}
    assert ideal.momentary({(("a", 1), ("c", 1)): 10, (("c", 1),): 4, (): 7}) == {"a": 10, "c": 7}


def test_limits_and_vcpus_are_ceilings():
    vms = [spec("wide", 9000, 2, limit=500), spec("one", 9000), spec("rest", 1, vcpus=4)]
    found = Ideal(vms, (), 4, 1000 * MHZ).declared(1000)
    assert found == {"wide": 500, "one": 1000, "rest": 2500}


@pytest.mark.parametrize(
    ("workload", "each"),
    [
        (WorkloadSpec(), Fraction(1)),
        (WorkloadSpec(kind="idle"), Fraction(0)),
        (WorkloadSpec(kind="onoff", run_ns=1, wait_ns=3), Fraction(1, 4)),
        (WorkloadSpec(kind="io", run_ns=1, wait_ns=1, interrupt_ns=0), Fraction(1, 2)),
        (WorkloadSpec(kind="periodic", run_ns=1, period_ns=10), Fraction(1, 10)),
        (WorkloadSpec(kind="periodic", run_ns=20, period_ns=10), Fraction(1)),
        (WorkloadSpec(kind="trace", demand=(100, 50)), Fraction(3, 4)),
        (WorkloadSpec(kind="trace", demand=(100, 50), period_ns=10, repeat=False), Fraction(3, 20)),
        (WorkloadSpec(kind="barrier"), Fraction(1)),
    ],
)
def test_demand_of_each_workload(workload, each):
    assert declared_demand(spec("a", vcpus=3, workload=workload), 100) == 3 * each


def test_too_many_shapes_of_demand_are_not_solved():
    ideal = Ideal([spec("a")], (), 1, MHZ)
    assert ideal.momentary({(("a", number),): 1 for number in range(DEMANDS_MAX + 1)}) is None


# what is refused


def test_a_trace_that_was_cut_is_refused():
    sink = ColumnarSink()
    sink.dropped = 1
    with pytest.raises(ScenarioError, match="too long to be compared"):
        read_schedule(sink, 1, 1)
    assert read_schedule(Sim().trace.sink(), 1, 1).vms == {}


def test_nothing_to_schedule_is_refused():
    with pytest.raises(ScenarioError, match="nothing to schedule"):
        list(compare_policies(evolve(SCENARIO, vms=()), candidates(["esxi"])))


@pytest.mark.parametrize("names", [[], ["esxi", "esxi"], ["best"], [f"m:C{index}" for index in range(33)]])
def test_policies_must_exist_be_few_and_differ(names):
    with pytest.raises(ScenarioError) as caught:
        candidates(names)
    assert caught.value.path == "--policies"


# the table


def test_table_and_csv_tell_the_same():
    runs = list(compare_policies(evolve(SCENARIO, duration_ns=SECOND), candidates(["esxi", "gang"])))
    sections = list(compare_sections(runs))
    assert [section.title for section in sections] == ["VM wide", "VM one", "VM web-1", "VM web-2", "Host"]
    assert all([row[0] for row in section.table.rows] == ["esxi", "gang"] for section in sections)
    lines = compare_csv(runs).splitlines()
    assert len(lines) == 1 + 2 * (4 + 1)
    heading = lines[0].split(",")
    first = dict(zip(heading, lines[1].split(","), strict=True))
    assert int(first["run_ns"]) == runs[0].vms[0].run_ns
    used = sections[0].table.rows[0][1]
    assert float(used) == pytest.approx(int(first["used_ns"]) / int(first["alive_ns"]) * 100, abs=0.006)
    errors = [float(section.table.rows[1][4]) for section in sections[:-1]]
    assert float(sections[-1].table.rows[1][5]) == max(map(abs, errors))
    assert "%USED" in "\n".join(plain_section(sections[0]))


def test_an_own_policy_is_compared_under_its_label():
    own = Candidate(label="mine", policy="sim.kernel.sched.policies.round_robin:RoundRobin")
    (run,) = compare_policies(evolve(SCENARIO, duration_ns=SECOND // 4), [own])
    assert run.policy == "mine"


def test_policies_are_not_compared_on_the_fluid_engine():
    fluid = evolve(SCENARIO, sched=SchedOptions(engine="fluid"))
    with pytest.raises(ScenarioError, match=r"sched\.engine: knows no policies, got 'fluid', wanted quantum"):
        run_policy(fluid, candidates(["stride"])[0])
