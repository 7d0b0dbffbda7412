"""Virtual machines: admission, memory, power states and reconfiguration."""

import pickle
from fractions import Fraction

import pytest

from sim.core.context import Sim
from sim.core.structure import structure
from sim.core.units import GIB, MIB, MS, PAGE_BYTES
from sim.errors import ScenarioError
from sim.hw.board import Board
from sim.hw.spec import CpuSpec, HostSpec
from sim.kernel.sched.fluid_engine import make_scheduler
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.pools import PoolSpec
from sim.kernel.vm import (
    OVERHEAD_BYTES,
    AdmissionError,
    CpuAllocation,
    PowerState,
    VmManager,
    VmSpec,
    VmStateError,
)
from sim.kernel.workload import Busy, Idle, WorkloadSpec

MHZ = 1_000_000


def manager(cores=4, threads=1, memory_bytes=GIB, **options):
    sim = Sim(seed=3)
    cpu = CpuSpec(cores_per_node=cores, threads_per_core=threads, core_hz=1000 * MHZ)
    board = Board(sim, HostSpec(cpu=cpu, memory_bytes=memory_bytes, tpm_present=False))
    board.power_on()
    knobs = {"quantum_ns": 10 * MS, "world_switch_ns": 0, **options}
    return VmManager(sim, board, make_scheduler(sim, board.topology, SchedOptions(**knobs)))


def spec(name="a", vcpus=1, memory_bytes=64 * MIB, workload="busy", **cpu):
    return VmSpec(
        name=name,
        vcpus=vcpus,
        memory_bytes=memory_bytes,
        cpu=CpuAllocation(**cpu),
        workload=WorkloadSpec(kind=workload),
    )


def run(vms, ms):
    vms.sim.engine.run(ms * MS)
    vms.check_invariants()


def used_ms(vm):
    return sum(world.times(world.sched.sim.now).run_ns for world in vm.vcpus) / MS


def test_a_vm_is_a_group_of_vcpu_worlds_and_a_helper():
    vms = manager()
    vm = vms.power_on(spec(vcpus=3))
    assert [world.kind for world in vm.worlds] == ["vcpu"] * 3 + ["vmx"]
    run(vms, 50)
    assert used_ms(vm) == 150
    assert vm.vmx.times(vms.sim.now).idle_ns == 50 * MS
    rows = vms.sim.trace.select("vm.world")
    assert [row["name"] for row in rows] == ["vmx-vcpu-0:a", "vmx-vcpu-1:a", "vmx-vcpu-2:a", "vmx:a"]


def test_who_is_refused_leaves_nothing_behind():
    vms = manager()
    incomplete = WorkloadSpec(kind="trace", file="demand.csv")
    unknown = WorkloadSpec(kind="generator", function="nowhere:nothing")
    sizes = []
    for _ in range(3):
        for number in range(20):
            with pytest.raises(AdmissionError):
                vms.power_on(spec(name=f"big{number}", memory_bytes=4 * GIB))
            for workload in (incomplete, unknown):
                with pytest.raises(ScenarioError):
                    vms.power_on(VmSpec(name=f"odd{number}", memory_bytes=64 * MIB, workload=workload))
        sizes.append((len(vms._rng._fast), len(vms.vms)))
    assert sizes == [(0, 0)] * 3


def test_memory_is_taken_as_the_guest_touches_it_and_given_back():
    vms = manager()
    memory = vms._memory
    free = memory.frames_free
    vm = vms.power_on(spec(memory_bytes=96 * MIB))
    assert (vm.configured_bytes, vm.granted_bytes) == (96 * MIB, 0)
    assert free - memory.frames_free == OVERHEAD_BYTES.value // PAGE_BYTES + 1, "the root of its EPT tables"
    assert vm.guest.store_physical(5 * MIB, b"touched") is None
    assert vm.guest.load_physical(90 * MIB, 4) == bytes(4)
    assert vm.granted_bytes == memory.frames_of("vm:a") * PAGE_BYTES == 4 * MIB
    vms.check_invariants()
    vms.power_off("a")
    assert memory.frames_free == free
    assert vm.granted_bytes == 0
    vms.check_invariants()


def test_what_running_vms_may_still_touch_is_kept_free_for_them():
    vms = manager()
    first = vms.power_on(spec(memory_bytes=512 * MIB))
    with pytest.raises(AdmissionError):
        vms.power_on(spec("b", memory_bytes=448 * MIB))
    second = vms.power_on(spec("b", memory_bytes=400 * MIB))
    for vm in (first, second):
        vm.space.pager.large_pages = False
        for ppn in range(0, vm.space.pages, 511):
            assert vm.guest.load_physical(ppn * PAGE_BYTES, 1) == b"\0"
        vm.space.populate(0, vm.space.pages)
        assert vm.granted_bytes == vm.configured_bytes
    vms.check_invariants()


def test_a_killed_vm_is_off_and_the_others_run_on():
    vms = manager()
    vms.power_on(spec("a"))
    other = vms.power_on(spec("b"))
    vms.kill("a", "its memory is lost")
    assert vms.get("a").state is PowerState.POWERED_OFF
    assert other.state is PowerState.POWERED_ON
    assert vms.sim.trace.select("vm.killed")[0]["reason"] == "its memory is lost"
    vms.check_invariants()


def test_memory_that_does_not_fit_is_refused_with_the_apis_fault():
    vms = manager()
    first = vms.power_on(spec(memory_bytes=512 * MIB))
    free = vms._memory.frames_free
    with pytest.raises(AdmissionError) as refusal:
        vms.power_on(spec("b", memory_bytes=512 * MIB))
    assert refusal.value.fault == "InsufficientMemoryResourcesFault"
    assert str(refusal.value).startswith(
        "InsufficientMemoryResourcesFault: the host's memory resources do not suffice"
    )
    tables = 256 + 1 + 1 + 1
    assert refusal.value.requested == 512 * MIB + OVERHEAD_BYTES.value + tables * PAGE_BYTES
    assert first.untouched_bytes == 512 * MIB + (tables - 1) * PAGE_BYTES
    assert refusal.value.unreserved == free * PAGE_BYTES - first.untouched_bytes
    assert vms._memory.frames_free == free
    assert "b" not in vms.vms
    assert vms.sim.trace.select("vm.refused")[0]["fault"] == "InsufficientMemoryResourcesFault"


def test_cpu_reservations_are_admitted_up_to_the_host_and_no_further():
    vms = manager(cores=2)
    vms.power_on(spec("a", vcpus=2, reservation_hz=1500 * MHZ))
    with pytest.raises(
        AdmissionError, match=r"InsufficientCpuResourcesFault.*600 MHz requested, 500 MHz unreserved"
    ):
        vms.power_on(spec("b", reservation_hz=600 * MHZ))
    vms.power_on(spec("b", reservation_hz=500 * MHZ))
    assert vms.unreserved_hz == 0
    vms.power_off("a")
    assert vms.unreserved_hz == 1500 * MHZ


def test_a_second_thread_cannot_be_reserved():
    vms = manager(cores=1, threads=2)
    with pytest.raises(AdmissionError, match="InsufficientCpuResourcesFault"):
        vms.power_on(spec(vcpus=2, reservation_hz=1001 * MHZ))


def test_one_vcpu_cannot_reserve_more_than_a_core():
    with pytest.raises(AdmissionError, match="one vCPU cannot have more than 1000 MHz"):
        manager().power_on(spec(reservation_hz=1001 * MHZ))
    vms = manager(admit_check_per_vcpu=False)
    vm = vms.power_on(spec(reservation_hz=1001 * MHZ))
    run(vms, 20)
    assert used_ms(vm) == 20


def test_a_vm_wider_than_the_host_is_refused_unless_allowed():
    with pytest.raises(
        AdmissionError, match="NotEnoughLogicalCpus: the host has 1 logical processors, a needs 128"
    ):
        manager(cores=1).power_on(spec(vcpus=128))
    vms = manager(cores=1, allow_wide_vsmp=True)
    vm = vms.power_on(spec(vcpus=128))
    run(vms, 2560)
    ran = [world.times(vms.sim.now).run_ns for world in vm.vcpus]
    assert sum(ran) == 2560 * MS
    assert max(ran) - min(ran) <= 3 * MS, "co-scheduling keeps siblings within its threshold"


def test_shares_divide_the_host_per_vcpu():
    vms = manager(cores=1)
    made = [vms.power_on(spec(level, shares=level)) for level in ("low", "normal", "high")]
    made.append(vms.power_on(spec("custom", shares=500)))
    run(vms, 4000)
    assert [round(used_ms(vm), -2) for vm in made] == [500, 1000, 2000, 500]


def test_entitlements_are_the_fluid_shares_of_present_demand():
    vms = manager(cores=2)
    vms.power_on(spec("res", reservation_hz=750 * MHZ, shares="low"))
    vms.power_on(spec("lim", vcpus=2, limit_hz=500 * MHZ))
    vms.power_on(spec("plain"))
    vms.power_on(spec("idle", shares=1_000_000, workload="idle"))
    run(vms, 30)
    found = vms.entitlements()
    assert {name: float(share) for name, share in found.items()} == {"res": 0.75, "lim": 0.5, "plain": 0.75}
    run(vms, 5000)
    for name, share in found.items():
        assert used_ms(vms.get(name)) == pytest.approx(float(share) * 5000, abs=130)


def test_power_states_follow_the_api():
    vms = manager()
    vm = vms.power_on(spec())
    for refused in (lambda: vms.power_on(spec()), lambda: vms.resume("a"), lambda: vms.get("b")):
        with pytest.raises(VmStateError):
            refused()
    vms.suspend("a")
    run(vms, 30)
    assert vm.state is PowerState.SUSPENDED
    assert used_ms(vm) == 0
    with pytest.raises(VmStateError, match="a is suspended"):
        vms.suspend("a")
    vms.resume("a")
    run(vms, 50)
    assert used_ms(vm) == 20
    vms.power_off("a")
    assert used_ms(vm) == 20, "the counters of the last run can still be read"
    with pytest.raises(VmStateError, match="a is poweredOff"):
        vms.power_off("a")
    again = vms.power_on(spec(vcpus=2))
    assert vms.get("a") is again
    changes = [(row["old"], row["new"]) for row in vms.sim.trace.select("vm.power")]
    assert changes[0] == ("poweredOff", "poweredOn")
    assert changes[-2:] == [("poweredOn", "poweredOff"), ("poweredOff", "poweredOn")]


def test_a_suspended_vm_keeps_its_reservation():
    vms = manager(cores=1)
    vms.power_on(spec(reservation_hz=800 * MHZ))
    vms.suspend("a")
    with pytest.raises(AdmissionError):
        vms.power_on(spec("b", reservation_hz=800 * MHZ))


def test_reconfiguration_takes_effect_at_once():
    vms = manager(cores=1)
    first, second = vms.power_on(spec("a")), vms.power_on(spec("b"))
    run(vms, 1000)
    vms.reconfigure("a", cpu=CpuAllocation(limit_hz=200 * MHZ))
    before = used_ms(first), used_ms(second)
    run(vms, 3000)
    assert used_ms(first) - before[0] == pytest.approx(400, abs=110)
    assert used_ms(second) - before[1] == pytest.approx(1600, abs=110)
    vms.reconfigure("a", cpu=CpuAllocation(shares="low", reservation_hz=900 * MHZ))
    before = used_ms(first), used_ms(second)
    run(vms, 5000)
    assert used_ms(first) - before[0] == pytest.approx(1800, abs=30)
    with pytest.raises(AdmissionError):
        vms.reconfigure("b", cpu=CpuAllocation(reservation_hz=200 * MHZ))
    assert vms.get("b").spec.cpu == CpuAllocation()


def test_reconfiguring_a_vm_that_is_off_or_suspended_waits():
    vms = manager(cores=1)
    vm = vms.power_on(spec())
    vms.suspend("a")
    vms.reconfigure("a", cpu=CpuAllocation(limit_hz=100 * MHZ))
    run(vms, 100)
    assert used_ms(vm) == 0
    vms.power_off("a")
    vms.reconfigure("a", cpu=CpuAllocation(shares="high"))
    assert vms.get("a").spec.cpu.shares == "high"


def test_workloads_can_be_given_per_vcpu():
    vms = manager()
    vm = vms.power_on(spec(vcpus=2), lambda index, _stream: Busy() if index else Idle())
    run(vms, 40)
    assert [world.run_ns + (world.pcpu is not None) for world in vm.vcpus] == [
        0,
        40 * MS - 10 * MS + 10 * MS + 1,
    ]


def test_power_off_all_ends_every_world():
    vms = manager()
    for name in "abc":
        vms.power_on(spec(name))
    vms.suspend("b")
    vms.power_off_all()
    assert not vms.scheduler.worlds
    assert vms._memory.frames_of("vm:b") == 0
    vms.check_invariants()


def test_a_host_of_vms_pickles_in_the_middle():
    vms = manager(cores=2)
    vms.power_on(spec("a", vcpus=2, limit_hz=700 * MHZ))
    vms.power_on(
        VmSpec(name="b", memory_bytes=4 * MIB, workload=WorkloadSpec(kind="onoff", random=True), vcpus=2)
    )
    run(vms, 77)
    copy = pickle.loads(pickle.dumps(vms))
    for one in (vms, copy):
        one.power_on(spec("c"))
        run(one, 300)
        one.power_off("a")
        run(one, 400)
    assert copy.sim.trace.digest() == vms.sim.trace.digest()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "vms.name: this key is missing"),
        ({"name": "a/b"}, "vms.name: wrong value, got 'a/b', wanted a VM name"),
        ({"name": "a", "vcpus": 0}, "vms.vcpus: wrong value, got 0, wanted an integer from 1 to 768"),
        ({"name": "a", "memory": "1"}, "vms.memory"),
        ({"name": "a", "memory": 4097}, "vms.memory: wrong value, got 4097, wanted a multiple of 4 KiB"),
        ({"name": "a", "cpu": {"shares": "lots"}}, "vms.cpu.shares: wrong value, got 'lots'"),
        ({"name": "a", "cpu": {"shares": 0}}, "vms.cpu.shares: wrong value, got 0"),
        (
            {"name": "a", "cpu": {"limit": "1MHz", "reservation": "2MHz"}},
            "vms.cpu.limit: wrong value, got 1000000",
        ),
        ({"name": "a", "cpu": {"share": 5}}, "vms.cpu.share: unknown key; did you mean 'shares'?"),
    ],
)
def test_wrong_specs_name_the_key(table, message):
    with pytest.raises(ScenarioError) as error:
        structure(table, VmSpec, "vms")
    assert str(error.value).startswith(message)


def test_specs_read_units():
    table = {"name": "web 1", "vcpus": 2, "memory": "2GiB", "cpu": {"reservation": "1.2GHz", "limit": "2GHz"}}
    found = structure(table, VmSpec, "vms")
    assert found.memory_bytes == 2 * GIB
    assert found.cpu == CpuAllocation(reservation_hz=1200 * MHZ, limit_hz=2000 * MHZ)
    assert found.cpu.shares_per_vcpu == 1000


def test_entitlements_go_through_the_pools_and_their_limits():
    """One CPU: a pool at a quarter shares it 1 : 2 among its VMs, and the VM outside has the rest up to its limit."""
    vms = manager(cores=1)
    vms.pools.create(PoolSpec(name="small", limit_hz=vms.scheduler.topology.core_hz // 4))
    half_hz = vms.scheduler.topology.core_hz // 2
    for name, pool, shares, limit_hz in (
        ("one", "small", 1000, None),
        ("two", "small", 2000, None),
        ("out", "", 1000, half_hz),
    ):
        cpu = CpuAllocation(shares=shares, limit_hz=limit_hz)
        vms.power_on(VmSpec(name=name, memory_bytes=16 * MIB, pool=pool, cpu=cpu))
    found = vms.entitlements()
    assert found == {"one": Fraction(1, 12), "two": Fraction(1, 6), "out": Fraction(1, 2)}


def test_the_fluid_engine_refuses_an_affinity_before_anything_has_changed():
    vms = manager(cores=2, engine="fluid")
    free = vms._memory.frames_free
    with pytest.raises(AdmissionError, match="affinity"):
        vms.power_on(VmSpec(name="a", memory_bytes=16 * MIB, cpu=CpuAllocation(affinity=(1,))))
    assert vms._memory.frames_free == free
    assert vms.vms == {}
    vms.power_on(VmSpec(name="a", memory_bytes=16 * MIB, cpu=CpuAllocation(affinity=(0, 1))))
