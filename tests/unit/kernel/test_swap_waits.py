"""vCPUs whose guest brings pages in from swap wait for them, as %SWPWT shows."""

import pickle

import pytest

from sim.core.context import Sim
from sim.core.units import GIB, MIB, SECOND
from sim.hw.board import Board
from sim.hw.spec import CpuSpec, HostSpec
from sim.kernel.memory.spec import MemorySpec, MemoryWorkload
from sim.kernel.memory.touching import SWAP_IN_NS
from sim.kernel.sched.fluid_engine import make_scheduler
from sim.kernel.sched.options import SchedOptions
from sim.kernel.vm import VmManager, VmSpec
from sim.kernel.world import WorldState


def thrashing(engine="quantum", cores=2, rate=50, vcpus=2):
    """A VM whose limit is far below its working set, so that it swaps, and a busy one without managed memory."""
    sim = Sim(seed=2, categories=("sched",))
    board = Board(sim, HostSpec(cpu=CpuSpec(cores_per_node=cores), memory_bytes=4 * GIB, tpm_present=False))
    board.power_on()
    vms = VmManager(sim, board, make_scheduler(sim, board.topology, SchedOptions(engine=engine)))
    workload = MemoryWorkload(
        used_bytes=256 * MIB,
        working_set_bytes=256 * MIB,
        fill=20_000,
        rate=rate,
        balloon_driver=False,
        compressible_percent=0,
    )
    mem = MemorySpec(limit_bytes=128 * MIB, workload=workload)
    vms.power_on(VmSpec(name="a", vcpus=vcpus, memory_bytes=256 * MIB, mem=mem))
    vms.power_on(VmSpec(name="b", memory_bytes=64 * MIB))
    return vms


def waited(vms, name="a"):
    return sum(world.times(vms.sim.now).swap_wait_ns for world in vms.get(name).vcpus)


@pytest.mark.parametrize("engine", ["quantum", "fluid"])
def test_vcpus_wait_as_long_as_their_pages_need_from_swap(engine):
    vms = thrashing(engine, cores=4)
    vms.sim.engine.run(30 * SECOND)  # the guest has been filled
    before, pages = waited(vms), vms.mem.guests["a"].swapped_in
    vms.sim.engine.run(90 * SECOND)
    vms.check_invariants()
    brought = vms.mem.guests["a"].swapped_in - pages
    assert brought > 500
    due_ns = brought * SWAP_IN_NS.value
    assert due_ns - SECOND <= waited(vms) - before <= due_ns + SECOND  # the last poll's may be still to come
    assert waited(vms, "b") == 0


def test_a_vm_whose_memory_is_there_waits_for_no_swap():
    vms = thrashing(rate=0)
    vms.sim.engine.run(30 * SECOND)
    before = waited(vms)
    vms.sim.engine.run(60 * SECOND)
    assert waited(vms) == before


def test_a_vcpu_that_waits_for_swap_is_suspended_resumed_and_ended_like_any_other():
    vms = thrashing(rate=2000)
    vms.sim.engine.run(40 * SECOND)
    for second in range(41, 52):
        vms.sim.engine.run(second * SECOND + 1)
        states = [world.state for world in vms.get("a").vcpus]
        assert second % 2 or WorldState.WAIT_SWAP in states or vms.mem.guests["a"].swap_wait_ns
        copy = pickle.loads(pickle.dumps(vms))
        vms.suspend("a")
        vms.sim.engine.run(vms.sim.now + SECOND // 4)
        vms.resume("a")
        vms.check_invariants()
        copy.power_off("a")
        copy.sim.engine.run(copy.sim.now + 2 * SECOND)
        copy.check_invariants()
    assert waited(vms) > SECOND


def test_a_checkpoint_with_waits_goes_on_to_the_same_digest():
    vms = thrashing(rate=500)
    vms.sim.engine.run(33 * SECOND + SECOND // 3)
    copy = pickle.loads(pickle.dumps(vms))
    for each in (vms, copy):
        each.sim.engine.run(45 * SECOND)
    assert copy.sim.trace.digest() == vms.sim.trace.digest()
