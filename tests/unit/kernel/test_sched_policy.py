"""The protocol of scheduling policies: what a policy may leave to the host, and what the host does not let pass."""

import pytest

from sim.core.context import Sim
from sim.core.units import MS
from sim.errors import ScenarioError, SimBug
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.policies.round_robin import RoundRobin
from sim.kernel.sched.policy import POLICIES, Policy, make_policy
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import Busy, OnOff


class YoungestFirst(Policy):
    """A user's policy: the youngest world goes first, and interrupts whoever runs."""

    name = "youngest"

    def attach(self, host):
        super().attach(host)
        self.waiting = []

    def enqueue(self, world, now_ns):
        self.waiting.append(world)

    def dequeue(self, world):
        self.waiting.remove(world)

    def pick(self, pcpu, now_ns):
        if not self.waiting:
            return None
        world = max(self.waiting, key=lambda each: each.world_id)
        self.waiting.remove(world)
        return world

    def preempts(self, candidate, running, now_ns):
        return candidate.world_id > running.world_id

    def queued(self):
        return len(self.waiting)


def host(policy, cores=1):
    options = SchedOptions(quantum_ns=10 * MS, world_switch_ns=0, preempt_grain_ns=0)
    return Scheduler(Sim(), Topology.of(CpuSpec(cores_per_node=cores, core_hz=10**9)), options, policy)


def start(sched, workload, **allocation):
    world = sched.add("w", workload)
    sched.allocate(world, **{"shares": 1000, **allocation})
    sched.begin(world)
    return world


def run_ms(world):
    return world.times(world.sched.sim.now).run_ns / MS


def test_round_robin_gives_equal_turns_whatever_the_shares():
    sched = host(RoundRobin())
    worlds = [start(sched, Busy(), shares=shares) for shares in (1, 10, 1000)]
    sched.sim.engine.run(300 * MS)
    sched.check_invariants()
    assert [run_ms(world) for world in worlds] == [100, 100, 100]


def test_limits_and_affinity_are_the_hosts_for_every_policy():
    sched = host(RoundRobin(), cores=2)
    limited = start(sched, Busy(), bucket=sched.bucket(10**8))
    pinned = [start(sched, Busy(), affinity=2) for _ in range(2)]
    sched.sim.engine.run(4000 * MS)
    sched.check_invariants()
    assert run_ms(limited) == pytest.approx(400, abs=200)
    assert all(world.last_pcpu.index == 1 for world in pinned)
    assert sum(run_ms(world) for world in pinned) == 4000


def test_a_policy_of_ones_own_is_six_small_methods():
    sched = host(YoungestFirst())
    first = start(sched, Busy())
    late = start(sched, OnOff(5 * MS, 15 * MS))
    sched.sim.engine.run(200 * MS)
    sched.check_invariants()
    assert late.times(sched.sim.now).ready_ns == 0, "it interrupts at once"
    assert run_ms(first) + run_ms(late) == 200


def test_a_policy_that_ignores_affinity_is_found_out():
    sched = host(YoungestFirst(), cores=2)
    start(sched, Busy(), affinity=1)
    start(sched, Busy(), affinity=1)
    with pytest.raises(SimBug, match="policy youngest puts world 1 on pCPU 1, which it may not use"):
        sched.kick(sched.pcpus[1])


def test_policies_are_found_by_name_or_place():
    assert {make_policy(name).name for name in POLICIES} == set(POLICIES)
    assert type(make_policy("sim.kernel.sched.policies.round_robin:RoundRobin")) is RoundRobin
    with pytest.raises(ScenarioError, match="is not a Policy"):
        make_policy("sim.kernel.workload:Busy")
