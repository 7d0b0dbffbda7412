"""Latency sensitivity High: a core of its own for each vCPU, and what that takes."""

import pickle

import pytest

from sim.core.context import Sim
from sim.core.units import GIB, MIB, MS
from sim.hw.board import Board
from sim.hw.spec import CpuSpec, HostSpec
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.policies.round_robin import RoundRobin
from sim.kernel.sched.policy import POLICIES, make_policy
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.vm import AdmissionError, CpuAllocation, VmManager, VmSpec
from sim.kernel.workload import WorkloadSpec

GHZ = 10**9


def manager(cores=4, threads=2, policy=None):
    sim = Sim(seed=3)
    cpu = CpuSpec(cores_per_node=cores, threads_per_core=threads, core_hz=GHZ)
    board = Board(sim, HostSpec(cpu=cpu, memory_bytes=4 * GIB, tpm_present=False))
    board.power_on()
    options = SchedOptions(quantum_ns=10 * MS, world_switch_ns=0)
    return VmManager(sim, board, Scheduler(sim, board.topology, options, policy))


def vm(vms, name, vcpus=1, workload="busy", **cpu):
    spec = VmSpec(
        name=name,
        vcpus=vcpus,
        memory_bytes=16 * MIB,
        cpu=CpuAllocation(**cpu),
        workload=WorkloadSpec(kind=workload),
    )
    return vms.power_on(spec)


def run(vms, ms):
    vms.sim.engine.run(vms.sim.now + ms * MS)
    vms.check_invariants()


def test_it_runs_alone_on_its_core_and_never_waits():
    vms = manager()
    for number in range(20):
        vm(vms, f"busy{number}", workload="busy" if number % 2 else "onoff")
    quick = vm(vms, "quick", vcpus=2, workload="onoff", latency="high", reservation_hz=2 * GHZ)
    run(vms, 2000)
    for world in quick.vcpus:
        times = world.times(vms.sim.now)
        assert times.ready_ns == times.costop_ns == times.shared_ns == 0
        assert world.migrations == 0
        assert times.run_ns == pytest.approx(1000 * MS, abs=20 * MS)
    own = {world.exclusive.place.core for world in quick.vcpus}
    assert len(own) == 2
    others = [pcpu for pcpu in vms.scheduler.pcpus if pcpu.place.core in own]
    assert sum(pcpu.times(vms.sim.now).busy_ns for pcpu in others) == sum(w.run_ns for w in quick.vcpus)


def test_the_core_goes_back_to_all_when_it_ends_or_is_no_longer_sensitive():
    vms = manager(cores=2, threads=1)
    vm(vms, "quick", latency="high", reservation_hz=GHZ)
    first, second = vm(vms, "a"), vm(vms, "b")
    run(vms, 1000)
    assert first.vcpus[0].run_ns + second.vcpus[0].run_ns <= 1000 * MS
    vms.reconfigure("quick", cpu=CpuAllocation())
    run(vms, 1000)
    assert sum(pcpu.online for pcpu in vms.scheduler.pcpus) == 2
    vms.reconfigure("quick", cpu=CpuAllocation(latency="high", reservation_hz=GHZ))
    run(vms, 100)
    vms.suspend("quick")
    run(vms, 100)
    vms.resume("quick")
    run(vms, 100)
    vms.power_off("quick")
    run(vms, 100)
    assert sum(pcpu.online for pcpu in vms.scheduler.pcpus) == 2


@pytest.mark.parametrize(
    ("cpu", "wanted"),
    [
        ({"latency": "high"}, "must reserve 2000 MHz without a limit"),
        ({"latency": "high", "reservation_hz": GHZ}, "must reserve 2000 MHz"),
        ({"latency": "high", "reservation_hz": 2 * GHZ, "limit_hz": 2 * GHZ}, "without a limit"),
        ({"latency": "high", "reservation_hz": 2 * GHZ}, "wants 2 cores of its own, and 1 can be spared"),
    ],
)
def test_it_is_refused_without_a_full_reservation_and_spare_cores(cpu, wanted):
    vms = manager(cores=2)
    with pytest.raises(AdmissionError, match=wanted):
        vm(vms, "quick", vcpus=2, **cpu)
    assert not vms.vms


def test_it_pickles():
    digests = []
    for cut in (False, True):
        vms = manager()
        vm(vms, "quick", vcpus=2, workload="onoff", latency="high", reservation_hz=2 * GHZ)
        for number in range(20):
            vm(vms, f"b{number}", workload="onoff")
        if cut:
            vms.sim.engine.run(77 * MS)
            vms = pickle.loads(pickle.dumps(vms))
        run(vms, 300 - (77 if cut else 0))
        digests.append(vms.sim.trace.digest())
    assert digests[0] == digests[1]


class Strict(RoundRobin):
    """Knows only who competes, and has no guards."""

    def attach(self, host):
        super().attach(host)
        self.ran_ns = {}

    def join(self, world, now_ns, *, fresh):
        self.ran_ns[world.world_id] = 0

    def leave(self, world, now_ns):
        del self.ran_ns[world.world_id]

    def charge(self, world, ran_ns):
        self.ran_ns[world.world_id] += ran_ns

    def quantum_ns(self, world):
        return super().quantum_ns(world) - self.ran_ns[world.world_id] % 3


@pytest.mark.parametrize("make", [Strict, *(lambda name=name: make_policy(name) for name in POLICIES)])
def test_policy_is_not_asked_about_a_world_with_a_pcpu_of_its_own(make):
    vms = manager(policy=make())
    for number in range(20):
        vm(vms, f"other{number}", workload="busy" if number % 4 else "onoff")
    quick = vm(vms, "quick", latency="high", reservation_hz=GHZ)
    charge = type(vms.scheduler.policy).charge
    pcpu = quick.vcpus[0].exclusive
    run(vms, 500)
    assert pcpu._charge.__name__ == "_charge_nobody"
    assert quick.vcpus[0].times(vms.sim.now).run_ns == 500 * MS
    vms.suspend("quick")
    vms.resume("quick")
    vms.reconfigure("quick", cpu=CpuAllocation())
    run(vms, 500)
    assert pcpu._charge.__func__ is charge
    assert 0 < quick.vcpus[0].times(vms.sim.now).run_ns < 1000 * MS
