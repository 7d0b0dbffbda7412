"""Worlds: states, books and the transitions that may happen."""

import pytest

from sim.core.context import Sim
from sim.errors import SimBug
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import Busy
from sim.kernel.world import EDGES, World, WorldState, WorldTimes


def a_world():
    sched = Scheduler(Sim(), Topology.of(CpuSpec(cores_per_node=1)))
    return World(sched, 7, "vmx-vcpu-0:a", Busy(), kind="vcpu", now_ns=100)


def test_states_add_up_to_the_age():
    world = a_world()
    world.enter(WorldState.READY, 110)
    world.enter(WorldState.MAX_LIMITED, 115)
    world.enter(WorldState.READY, 135)
    world.enter(WorldState.WAIT_VM, 150)
    times = world.times(200)
    assert times == WorldTimes(ready_ns=20, max_limited_ns=20, vm_wait_ns=60)
    assert times.total_ns == 100
    world.check_invariants(200)


def test_asking_for_times_changes_nothing():
    world = a_world()
    assert world.times(500) == world.times(500)
    assert world.vm_wait_ns == 0


def test_an_illegal_transition_is_a_bug():
    world = a_world()
    world.enter(WorldState.READY, 110)
    with pytest.raises(SimBug, match="READY -> WAIT_IDLE is no transition"):
        world.enter(WorldState.WAIT_IDLE, 120)


def test_ended_worlds_never_come_back():
    assert not any(old is WorldState.ENDED for old, _ in EDGES)
    world = a_world()
    world.enter(WorldState.ENDED, 130)
    assert world.times(10_000).total_ns == 30
    world.check_invariants(10_000)


def test_lost_time_is_found():
    world = a_world()
    world.run_ns = 1
    with pytest.raises(SimBug, match="do not add up"):
        world.check_invariants(200)
