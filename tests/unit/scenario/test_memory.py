"""Memory in a scenario: an overcommitted host reclaims in the run, and the report shows it; others pay nothing."""

import pytest

from sim import Scenario, simulate
from sim.core.units import GIB, MIB, PAGE_BYTES, SECOND
from sim.errors import ScenarioError
from sim.hw.spec import HostSpec
from sim.kernel.memory.options import MemOptions
from sim.kernel.memory.spec import MemorySpec, MemoryWorkload
from sim.kernel.workload import WorkloadSpec
from sim.report.memory import memory_section
from sim.report.run_report import run_sections
from sim.scenario.faults import FaultSpec
from sim.scenario.load import parse_scenario
from sim.scenario.result import RunResult
from sim.scenario.run import Simulation
from sim.scenario.spec import ExpectSpec, ImageSpec, VmEntry

TEXT = """
duration = "90s"
[host]
memory = "4GiB"
[image]
modules = 1
module_size = "2KiB"
[mem]
share_scan = "1min"
force_salting = 0
[[vms]]
name = "idle"
count = 3
memory = "1GiB"
workload.kind = "idle"
mem.workload.used = "1GiB"
mem.workload.working_set = "32MiB"
mem.workload.fill = 50000
[[vms]]
name = "busy"
memory = "2GiB"
workload.kind = "idle"
mem.shares = "high"
mem.reservation = "1GiB"
mem.workload.used = "1800MiB"
mem.workload.working_set = "1GiB"
mem.workload.fill = 50000
"""
IMAGE = ImageSpec(modules=1, module_size_bytes=2048)


@pytest.fixture(scope="module")
def overcommitted():
    simulation = Simulation(parse_scenario(TEXT))
    simulation.run()
    simulation.check_invariants()
    return simulation, simulation.finish()


def test_an_overcommitted_host_reclaims_and_keeps_the_reservation(overcommitted):
    _, result = overcommitted
    rows = {row.name: row for row in result.memory}
    assert list(rows) == ["idle-1", "idle-2", "idle-3", "busy"]
    assert rows["busy"].granted_bytes >= GIB
    assert sum(row.balloon_bytes + row.swapped_bytes + row.zipped_bytes for row in result.memory) > 300 * MIB
    assert rows["busy"].shares == 2 * 2 * rows["idle-1"].shares
    assert result.host_memory.state in ("clear", "soft", "hard", "low")
    assert result.metrics["mem.free"]["level"] == result.host_memory.free_bytes


def test_the_books_of_each_vm_add_up_in_the_result(overcommitted):
    _, result = overcommitted
    for row in result.memory:
        elsewhere = row.balloon_bytes + row.swapped_bytes + row.zipped_bytes + row.untouched_bytes
        assert row.granted_bytes + elsewhere == row.memory_bytes
        assert row.consumed_bytes <= row.granted_bytes
        assert row.overhead_bytes == 32 * MIB
    assert result.host_memory.saving_bytes >= 0


def test_the_report_shows_the_panel_and_the_log_the_states(overcommitted):
    simulation, result = overcommitted
    section = memory_section(result, result.host_memory)
    assert section.title == "Memory (MB)"
    assert [row[0] for row in section.table.rows] == ["idle-1", "idle-2", "idle-3", "busy"]
    assert [column.name for column in section.table.columns][:5] == [
        "NAME",
        "MEMSZ",
        "GRANT",
        "CNSM",
        "SZTGT",
    ]
    assert section.table.rows[3][1] == "2048"
    assert any("% of minFree" in note for note in section.notes)
    assert any(one.title == "Memory (MB)" for one in run_sections(result, None))
    states = list(simulation.sim.trace.select("mem.state"))
    assert states[0]["old"] == "high"
    assert len(list(simulation.sim.trace.select("mem.order"))) > 0
    assert len(list(simulation.sim.trace.select("mem.reclaim"))) > 0


def test_the_result_can_be_written_and_the_run_repeated(overcommitted):
    _, result = overcommitted
    again = simulate(parse_scenario(TEXT))
    assert again.digest == result.digest
    assert again.to_json() == result.to_json()


def test_a_checkpoint_while_memory_is_short_changes_nothing(overcommitted, tmp_path):
    _, result = overcommitted
    simulation = Simulation(parse_scenario(TEXT))
    simulation.run(simulation.sim.now + 1)
    for seconds in (25, 47):
        simulation.run(seconds * SECOND)
        simulation.save(tmp_path / "saved")
        simulation = Simulation.restore(tmp_path / "saved")
        simulation.check_invariants()
    assert simulation.finish().digest == result.digest


def test_without_managed_memory_nothing_is_there():
    result = simulate(Scenario(duration_ns=SECOND, image=IMAGE, vms=(VmEntry(name="a"),)))
    assert isinstance(result, RunResult)
    assert result.memory == ()
    assert result.host_memory is None
    assert not [name for name in result.metrics if name.startswith("mem.")]


def vm(name, gib, **mem):
    return VmEntry(
        name=name,
        memory_bytes=gib * GIB,
        workload=WorkloadSpec(kind="idle"),
        mem=MemorySpec(**mem) if mem else None,
    )


def test_admission_asks_for_reservation_and_overhead_only():
    host = HostSpec(memory_bytes=4 * GIB)
    result = simulate(
        Scenario(
            duration_ns=SECOND,
            image=IMAGE,
            host=host,
            vms=(
                vm("a", 3, shares=1),
                vm("b", 3, reservation_bytes=3 * GIB),
                vm("c", 1, reservation_bytes=GIB),
            ),
            expect=ExpectSpec(vms_refused=("c",)),
        )
    )
    assert result.expectation.met, result.expectation.differences


def test_a_vm_that_gets_its_memory_whole_makes_the_others_pay():
    load = MemoryWorkload(used_bytes=3 * GIB, fill=1_000_000, zero_percent=0, common_percent=0)
    simulation = Simulation(
        Scenario(
            duration_ns=30 * SECOND,
            image=IMAGE,
            host=HostSpec(memory_bytes=4 * GIB),
            mem=MemOptions(large_pages=False),
            vms=(vm("a", 3, workload=load),),
        )
    )
    simulation.run()
    vms = simulation.host.kernel.vms
    held = vms.get("a").granted_bytes
    from sim.kernel.vmspec import VmSpec

    vms.power_on(VmSpec(name="whole", memory_bytes=2 * GIB, workload=WorkloadSpec(kind="idle")))
    simulation.check_invariants()
    whole = vms.get("whole")
    simulation.sim.engine.run(simulation.sim.now + 20 * SECOND)  # what is kept for it nobody else gets
    whole.space.populate(0, 2 * GIB // PAGE_BYTES)
    simulation.check_invariants()
    assert whole.granted_bytes == 2 * GIB
    assert vms.get("a").granted_bytes < held - GIB
    vms.power_off("a")
    assert vms.get("a").granted_bytes == 0
    simulation.check_invariants()


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ('mem.shares = "much"', "mem.shares"),
        ("mem.shares = 0", "mem.shares"),
        ('mem.reservation = "9GiB"', "mem"),
        ('mem.limit = "1MiB"\nmem.reservation = "2MiB"', "mem.limit"),
        ("mem.workload.zero_percent = 60\nmem.workload.common_percent = 60", "common_percent"),
        ("mem.workload.zeros = 1", "zeros"),
        ('mem.salt = "a b"', "mem.salt"),
    ],
)
def test_wrong_memory_is_named(line, where):
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(f'[[vms]]\nname = "a"\n{line}\n')
    assert where in str(caught.value)


@pytest.mark.parametrize(
    "line", ['release = "4.0"', "idle_tax_percent = 100", "force_salting = 3", 'poll = "1ms"']
)
def test_wrong_options_are_named(line):
    with pytest.raises(ScenarioError, match=r"mem\."):
        parse_scenario(f"[mem]\n{line}\n")


def test_an_error_in_managed_memory_is_refused_by_name():
    faults = (FaultSpec(kind="memory_error", target="vm/a", at_ns=SECOND),)
    scenario = Scenario(duration_ns=2 * SECOND, image=IMAGE, vms=(vm("a", 1, shares=1),), faults=faults)
    with pytest.raises(ScenarioError, match="managed"):
        simulate(scenario)


def test_more_images_than_there_are_numbers_for_are_refused():
    vms = tuple(
        VmEntry(
            name=f"vm{number}",
            memory_bytes=256 * GIB,
            mem=MemorySpec(workload=MemoryWorkload(image=f"i{number}")),
        )
        for number in range(32)
    )
    assert Scenario(vms=vms[:31]).vms == vms[:31]
    with pytest.raises(ValueError, match="images"):
        Scenario(vms=vms)


def test_a_vm_too_large_to_be_managed_is_refused():
    with pytest.raises(ValueError, match="at most"):
        VmEntry(name="a", memory_bytes=257 * GIB, mem=MemorySpec())
