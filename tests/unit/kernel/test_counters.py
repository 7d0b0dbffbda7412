"""esxtop's counters and their identities."""

import pytest

from sim.core.context import Sim
from sim.core.metrics import Metrics
from sim.core.units import GIB, MIB, MS, US
from sim.hw.board import Board
from sim.hw.spec import CpuSpec, HostSpec
from sim.kernel.counters import COUNTERS, publish, snapshot, usage
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.vm import CpuAllocation, VmManager, VmSpec
from sim.kernel.workload import WorkloadSpec


@pytest.fixture
def vms():
    sim = Sim(seed=9)
    board = Board(
        sim,
        HostSpec(cpu=CpuSpec(cores_per_node=2, core_hz=10**9), memory_bytes=GIB, tpm_present=False),
    )
    board.power_on()
    options = SchedOptions(quantum_ns=10 * MS, world_switch_ns=20 * US, limit_burst_ns=20 * MS)
    made = VmManager(sim, board, Scheduler(sim, board.topology, options))
    for name, limit_hz, workload in (
        ("busy", None, WorkloadSpec()),
        ("limited", 3 * 10**8, WorkloadSpec()),
        ("random", None, WorkloadSpec(kind="onoff", random=True)),
    ):
        cpu = CpuAllocation(limit_hz=limit_hz)
        made.power_on(VmSpec(name=name, vcpus=2, memory_bytes=16 * MIB, cpu=cpu, workload=workload))
    return made


def window(vms, begin_ms, end_ms):
    vms.sim.engine.run(begin_ms * MS + 7)
    before = snapshot(vms)
    vms.sim.engine.run(end_ms * MS + 11)
    return usage(before, snapshot(vms))


def test_states_are_a_hundred_percent_of_each_world_exactly(vms):
    found = window(vms, 100, 733)
    for row in (*found.vms, *found.worlds):
        total = sum(row.percent(name) for name in ("%RUN", "%RDY", "%CSTP", "%WAIT"))
        assert total == 100 * row.nworld
        assert row.percent("%MLMTD") <= row.percent("%RDY")
        assert row.percent("%IDLE") + row.percent("%VMWAIT") == row.percent("%WAIT")
        assert row.percent("%SWPWT") <= row.percent("%VMWAIT")
        assert row.percent("%USED") == row.percent("%RUN") + row.percent("%SYS") - row.percent("%OVRLP")


def test_run_of_the_vms_is_busy_of_the_pcpus(vms):
    found = window(vms, 50, 450)
    assert sum(row.times.run_ns for row in found.vms) == sum(row.times.busy_ns for row in found.pcpus)
    for row in found.pcpus:
        assert row.times.busy_ns + row.times.switch_ns + row.times.idle_ns == row.span_ns
        assert row.used_percent == row.util_percent <= 100


def test_a_limited_vm_shows_it_and_the_others_do_not(vms):
    found = {row.name: row for row in window(vms, 500, 2500).vms}
    assert found["limited"].percent("%RUN") == pytest.approx(30, abs=2)
    assert found["limited"].percent("%MLMTD") > 1
    assert found["busy"].percent("%MLMTD") == 0


def test_a_vm_that_appears_later_counts_as_far_as_it_lived(vms):
    vms.sim.engine.run(100 * MS)
    before = snapshot(vms)
    vms.sim.engine.run(150 * MS)
    vms.power_on(VmSpec(name="late", memory_bytes=4 * MIB))
    vms.sim.engine.run(200 * MS)
    late = {row.name: row for row in usage(before, snapshot(vms)).vms}["late"]
    assert late.times.total_ns == late.nworld * 50 * MS


def test_headings_and_batch_names_are_esxtops():
    assert [counter.heading for counter in COUNTERS[:4]] == ["%USED", "%RUN", "%SYS", "%WAIT"]
    assert {counter.batch_name for counter in COUNTERS} >= {"% Max Limited", "% CoStop", "% Swap Wait"}


def test_metrics_follow_the_books(vms):
    vms.sim.engine.run(300 * MS)
    metrics = Metrics()
    publish(vms.scheduler, metrics)
    report = metrics.report()
    spent = [report[f"sched.{name}"]["level"] for name in ("busy", "switch", "idle")]
    assert sum(spent) == 2 * 300 * MS
    assert report["sched.worlds"]["level"] == 9


def test_a_limited_vm_waits_as_max_limited_on_a_contended_host_too():
    """Its shares would give it half of the one pCPU, its limit a fifth: most of its waiting is the limit's."""
    sim = Sim(seed=9)
    board = Board(
        sim, HostSpec(cpu=CpuSpec(cores_per_node=1, core_hz=10**9), memory_bytes=GIB, tpm_present=False)
    )
    board.power_on()
    made = VmManager(sim, board, Scheduler(sim, board.topology, SchedOptions(quantum_ns=10 * MS)))
    for name, limit_hz in (("busy", None), ("limited", 2 * 10**8)):
        made.power_on(VmSpec(name=name, memory_bytes=16 * MIB, cpu=CpuAllocation(limit_hz=limit_hz)))
    found = {row.name: row for row in window(made, 1000, 5000).vms}
    assert found["limited"].percent("%RUN") == pytest.approx(20, abs=1)
    assert found["limited"].percent("%MLMTD") > 50
    assert found["limited"].percent("%RDY") == pytest.approx(80, abs=1)
    assert found["busy"].percent("%MLMTD") == 0
