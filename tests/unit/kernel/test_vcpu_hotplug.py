"""Hot-plugging of vCPUs: who may, what is admitted, and that books, shares and siblings go on."""

import pickle

import pytest

from sim.core.context import Sim
from sim.core.structure import FieldError
from sim.core.units import GIB, MIB, MS
from sim.hw.board import Board
from sim.hw.spec import CpuSpec, HostSpec
from sim.kernel.sched.cosched_wide import WideGroup
from sim.kernel.sched.fluid_engine import make_scheduler
from sim.kernel.sched.options import SchedOptions
from sim.kernel.vm import AdmissionError, CpuAllocation, VmManager, VmSpec, VmStateError
from sim.kernel.workload import WorkloadSpec

GHZ = 10**9


def manager(cores=4, nodes=1, **options):
    sim = Sim(seed=3, categories=("sched", "vm"))
    cpu = CpuSpec(cores_per_node=cores, nodes_per_package=nodes, core_hz=GHZ)
    board = Board(sim, HostSpec(cpu=cpu, memory_bytes=4 * GIB, tpm_present=False))
    board.power_on()
    chosen = SchedOptions(quantum_ns=10 * MS, world_switch_ns=0, **options)
    return VmManager(sim, board, make_scheduler(sim, board.topology, chosen))


def vm(vms, name, vcpus=1, kind="busy", *, add=True, remove=True, **cpu):
    spec = VmSpec(
        name=name,
        vcpus=vcpus,
        memory_bytes=16 * MIB,
        cpu=CpuAllocation(**cpu),
        workload=WorkloadSpec(kind=kind, run_ns=MS),
        cpu_hot_add=add,
        cpu_hot_remove=remove,
    )
    return vms.power_on(spec)


def run(vms, ms):
    vms.sim.engine.run(vms.sim.now + ms * MS)
    vms.check_invariants()


def runs(machine, vms):
    return [world.times(vms.sim.now).run_ns for world in machine.vcpus]


def test_each_vcpu_of_a_list_does_its_own_work_and_newcomers_that_of_the_last():
    vms = manager(cores=6)
    loads = (WorkloadSpec(), WorkloadSpec(kind="idle"), WorkloadSpec(kind="onoff", run_ns=MS, wait_ns=3 * MS))
    spec = VmSpec(name="a", vcpus=3, memory_bytes=16 * MIB, vcpu_workloads=loads, cpu_hot_add=True)
    a = vms.power_on(spec)
    run(vms, 100)
    assert runs(a, vms) == [100 * MS, 0, 25 * MS]
    vms.reconfigure("a", vcpus=4)
    run(vms, 100)
    assert runs(a, vms) == [200 * MS, 0, 50 * MS, 25 * MS]


def test_vcpus_with_one_coupled_workload_in_a_list_wait_for_each_other_alone():
    vms = manager(cores=6)
    step = WorkloadSpec(kind="barrier", run_ns=MS)
    slow = WorkloadSpec(kind="barrier", run_ns=5 * MS)
    spec = VmSpec(
        name="a",
        vcpus=4,
        memory_bytes=16 * MIB,
        vcpu_workloads=(step, slow, step, WorkloadSpec(kind="idle")),
        cpu_hot_add=True,
    )
    a = vms.power_on(spec)
    gates = [vcpu.workload.gate for vcpu in a.vcpus[:3]]
    assert gates[0] is gates[2] is not gates[1]
    assert [gate.parties for gate in gates] == [2, 1, 2]
    vms.reconfigure("a", vcpus=5)
    run(vms, 100)
    assert runs(a, vms)[4] == 0  # the list's last is idle


@pytest.mark.parametrize("engine", ["quantum", "fluid"])
def test_more_vcpus_run_more_and_fewer_run_less(engine):
    vms = manager(engine=engine)
    a = vm(vms, "a")
    run(vms, 100)
    assert runs(a, vms) == [100 * MS]
    vms.reconfigure("a", vcpus=3)
    run(vms, 100)
    assert runs(a, vms) == [200 * MS, 100 * MS, 100 * MS]
    assert a.spec.vcpus == len(a.vcpus) == 3
    gone = a.vcpus[1:]
    vms.reconfigure("a", vcpus=1)
    run(vms, 100)
    assert runs(a, vms) == [300 * MS]
    assert [world.run_ns for world in gone] == [100 * MS, 100 * MS]
    assert not set(gone) & set(vms.scheduler.worlds.values())


def test_shares_go_with_the_vcpus():
    vms = manager(cores=2)
    a, b = vm(vms, "a", 2), vm(vms, "b", 2)
    vms.reconfigure("a", vcpus=1, cpu=CpuAllocation(shares=2000))
    run(vms, 1000)
    assert runs(a, vms)[0] == pytest.approx(1000 * MS, abs=20 * MS)
    assert sum(runs(b, vms)) == pytest.approx(1000 * MS, abs=20 * MS)


def test_siblings_stay_within_the_threshold_through_every_width():
    vms = manager(cores=2)
    a, _ = vm(vms, "a", 2, kind="busy"), vm(vms, "b", 2)
    for width in (4, 1, 2, 3):
        run(vms, 77)
        if width > 2:
            with pytest.raises(AdmissionError, match="NotEnoughLogicalCpus"):
                vms.reconfigure("a", vcpus=width)
            continue
        vms.reconfigure("a", vcpus=width)
        assert (a.vcpus[0].group is None) == (width == 1)
        assert all(world.siblings == a.vcpus for world in a.vcpus)


def test_progress_is_kept_when_a_vm_becomes_wide():
    vms = manager(cores=16)
    a, other = vm(vms, "a", 8), [vm(vms, f"b{number}", 4) for number in range(4)]
    for width in (11, 12, 16, 3):
        run(vms, 33)
        before = [world.group.progress(world, vms.sim.now) for world in a.vcpus]
        vms.reconfigure("a", vcpus=width)
        after = [world.group.progress(world, vms.sim.now) for world in a.vcpus]
        assert after[: len(before)] == before[:width]
        assert set(after[len(before) :]) <= {min(before)}
        assert isinstance(a.vcpus[0].group, WideGroup) == (width != 11)
    run(vms, 100)
    assert sum(runs(a, vms)) + sum(sum(runs(each, vms)) for each in other) <= 16 * vms.sim.now


@pytest.mark.parametrize("kind", ["barrier", "spinlock", "io", "onoff", "periodic"])
def test_coupled_guests_go_on_with_more_and_fewer_vcpus(kind):
    vms = manager()
    a = vm(vms, "a", 2, kind=kind)
    for width in (4, 3, 1, 2):
        run(vms, 55)
        vms.reconfigure("a", vcpus=width)
        before = runs(a, vms)
        run(vms, 1200)
        assert all(new > old for old, new in zip(before, runs(a, vms), strict=True))
    copy = pickle.loads(pickle.dumps(vms))
    for each in (vms, copy):
        run(each, 50)
    assert copy.sim.trace.digest() == vms.sim.trace.digest()


def test_newcomers_live_where_there_is_room_on_the_vms_nodes():
    vms = manager(cores=4, nodes=2)
    a = vm(vms, "a", 3)
    home = a.vcpus[0].home
    vms.reconfigure("a", vcpus=6)
    assert [world.home for world in a.vcpus] == [home] * 4 + [1 - home] * 2
    run(vms, 50)
    vms.reconfigure("a", vcpus=2)
    run(vms, 50)
    assert sum(len(client.worlds) for client in vms.scheduler.numa.clients) == 2


def test_what_is_not_allowed_changes_nothing():
    vms = manager()
    a = vm(vms, "a", 2, add=False, remove=False)
    for width in (1, 3):
        with pytest.raises(AdmissionError, match="CpuHotPlugNotSupported"):
            vms.reconfigure("a", vcpus=width)
    b = vm(vms, "b", 2, reservation_hz=2 * GHZ)
    with pytest.raises(AdmissionError, match="InsufficientCpuResources"):
        vms.reconfigure("b", vcpus=1)
    with pytest.raises(FieldError, match="vcpus"):
        vms.reconfigure("b", vcpus=0)
    vms.suspend("b")
    with pytest.raises(VmStateError, match="suspended"):
        vms.reconfigure("b", vcpus=3)
    vms.resume("b")
    run(vms, 10)
    assert (len(a.vcpus), len(b.vcpus)) == (2, 2)
    vms.power_off("a")
    vms.reconfigure("a", vcpus=3)
    assert vms.get("a").spec.vcpus == 3


def test_latency_sensitive_vm_gets_and_gives_back_cores():
    vms = manager(cores=4)
    quick = vm(vms, "quick", latency="high", reservation_hz=GHZ)
    vm(vms, "busy", 4)
    vms.reconfigure("quick", vcpus=2, cpu=CpuAllocation(latency="high", reservation_hz=2 * GHZ))
    run(vms, 100)
    assert runs(quick, vms) == [100 * MS] * 2
    vms.reconfigure("quick", vcpus=1, cpu=CpuAllocation(latency="high", reservation_hz=GHZ))
    run(vms, 100)
    assert vms.scheduler.online.bit_count() == 3
