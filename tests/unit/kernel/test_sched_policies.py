"""Each policy on small hosts: what it is known for, and what it is known to get wrong."""

import pytest

from sim.core.context import Sim
from sim.core.units import MS, SECOND, US
from sim.errors import SimBug
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.policies.credit import BOOST, OVER, PARKED, UNDER
from sim.kernel.sched.policies.lottery import Lottery
from sim.kernel.sched.policy import POLICIES, make_policy
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import FOREVER_NS, Busy, Idle, OnOff, Run, Wait
from sim.kernel.world import WorldState

HZ = 1_000_000_000


class Script:
    """A fixed list of steps, then sleep."""

    def __init__(self, *steps):
        self.steps = list(steps)

    def next(self, now_ns):
        return self.steps.pop(0) if self.steps else Wait(FOREVER_NS)


class Yielding:
    """Gives the rest of each turn back after two milliseconds, and wants more at once."""

    def next(self, now_ns):
        return Run(2 * MS)


def host(policy, cores=1, *, seed=0, categories=(), policy_object=None, **options):
    knobs = SchedOptions(**{"quantum_ns": 10 * MS, "world_switch_ns": 0, **options}, policy=policy)
    topology = Topology.of(CpuSpec(cores_per_node=cores, core_hz=HZ))
    return Scheduler(Sim(seed=seed, categories=categories), topology, knobs, policy_object)


def vm(sched, *workloads, shares=1000, limit_hz=None, affinity=-1):
    worlds = [sched.add(f"w{index}", workload) for index, workload in enumerate(workloads)]
    sched.group(worlds)
    bucket = None if limit_hz is None else sched.bucket(limit_hz)
    for world in worlds:
        sched.allocate(world, shares=shares, bucket=bucket, affinity=affinity)
    for world in worlds:
        sched.begin(world)
    return worlds


def run(sched, ms):
    sched.sim.engine.run(ms * MS)
    sched.check_invariants()


def ran(*worlds):
    """The part of all time so far that worlds ran, in percent of one CPU."""
    now_ns = worlds[0].sched.sim.now
    return sum(100 * world.times(now_ns).run_ns / now_ns for world in worlds)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_policy_knows_the_name_that_it_ships_under(name):
    assert make_policy(name).name == name


@pytest.mark.parametrize("name", ["esxi", "stride", "stridefeasible", "eevdf", "credit", "gang", "lottery"])
def test_shares_divide_a_busy_host(name):
    sched = host(name)
    worlds = [vm(sched, Busy(), shares=shares)[0] for shares in (1000, 2000, 1000)]
    run(sched, 30_000)
    assert [ran(world) for world in worlds] == [
        pytest.approx(25, abs=2.5),
        pytest.approx(50, abs=2.5),
        pytest.approx(25, abs=2.5),
    ]


@pytest.mark.parametrize("name", ["stride", "stridefeasible", "eevdf"])
def test_a_sleeper_cannot_save_up_service(name):
    """After a second of sleep a world takes back no more than the bound of eight quanta."""
    sched = host(name)
    vm(sched, Busy())
    (sleeper,) = vm(sched, Script(Run(MS), Wait(SECOND), Run(FOREVER_NS)))
    run(sched, 1100)
    before = sleeper.times(sched.sim.now).run_ns
    run(sched, 1500)
    assert 200 * MS <= sleeper.times(sched.sim.now).run_ns - before <= (200 + 80) * MS


@pytest.mark.parametrize("name", ["stridefeasible", "eevdf", "credit", "gang"])
def test_a_limit_that_is_lifted_leaves_no_claim_on_the_past(name):
    sched = host(name)
    (other,) = vm(sched, Busy())
    (limited,) = vm(sched, Busy(), limit_hz=HZ // 10)
    run(sched, 3000)
    assert ran(limited) == pytest.approx(10, abs=8)
    sched.suspend(limited)
    sched.allocate(limited, shares=1000)
    sched.resume(limited)
    before = limited.times(sched.sim.now).run_ns
    run(sched, 4000)
    assert limited.times(sched.sim.now).run_ns - before == pytest.approx(500 * MS, abs=90 * MS)
    assert other.state in (WorldState.RUN, WorldState.READY)


# lottery


def test_lottery_draws_from_the_seed():
    def dispatches(seed):
        sched = host("lottery", seed=seed, categories=("sched",))
        for _ in range(3):
            vm(sched, Busy())
        run(sched, 1000)
        return sched.sim.trace.digest()

    assert dispatches(1) == dispatches(1)
    assert dispatches(1) != dispatches(2)


@pytest.mark.parametrize(("compensation", "part"), [(False, 100 / 6), (True, 50)])
def test_compensation_tickets_repay_a_world_that_yields_early(compensation, part):
    """One uses its whole quantum, the other a fifth: 5 to 1 in time, unless it is compensated."""
    sched = host("lottery", policy_object=Lottery(compensation=compensation))
    vm(sched, Busy())
    (yielder,) = vm(sched, Yielding())
    run(sched, 30_000)
    assert ran(yielder) == pytest.approx(part, abs=4)


def test_a_damaged_urn_is_noticed():
    sched = host("lottery")
    for _ in range(5):
        vm(sched, Busy())
    sched.policy.check_invariants()
    sched.policy._urn._sums[1] += 1
    with pytest.raises(SimBug, match="partial sum"):
        sched.policy.check_invariants()


# EEVDF


def test_eevdf_keeps_the_lag_of_a_sleeper_up_to_one_quantum():
    """A world that sleeps while it is owed half a quantum is owed it still when it wakes."""
    sched = host("eevdf")
    vm(sched, Busy())
    (world,) = vm(sched, Script(Run(5 * MS), Wait(100 * MS), Run(FOREVER_NS)))
    run(sched, 14)
    lag_ns = sched.policy.lag_ns(world)
    sched.sim.engine.run(15 * MS)
    assert world.state is WorldState.WAIT_IDLE
    assert world.note == pytest.approx(2.5 * MS, abs=2 * US)
    assert lag_ns > world.note
    sched.sim.engine.run(115 * MS)
    assert sched.policy.lag_ns(world) == pytest.approx(2.5 * MS, abs=2 * US)


def test_eevdf_keeps_the_deadline_of_a_request_that_is_not_yet_served():
    """Bursts of two milliseconds in a row are one request of ten."""
    sched = host("eevdf")
    (yielder,), _ = vm(sched, Yielding()), vm(sched, Busy())
    deadlines = []
    for ms in range(1, 60):
        run(sched, ms)
        deadlines.append(yielder.note)
    served = yielder.times(sched.sim.now).run_ns
    assert served == pytest.approx(30 * MS, abs=6 * MS)
    assert len(set(deadlines)) == pytest.approx(served // (10 * MS), abs=1)


def test_a_wrong_sum_of_virtual_times_is_noticed():
    sched = host("eevdf")
    vm(sched, Busy())
    sched.policy._moment += 1
    with pytest.raises(SimBug, match="is not the mean"):
        sched.check_invariants()


# Xen credit


def test_credit_puts_those_who_have_spent_behind_those_who_have_not():
    sched = host("credit")
    (rich,), (poor,) = vm(sched, OnOff(MS, 9 * MS)), vm(sched, Busy())
    run(sched, 1000)
    assert rich.note.priority in (UNDER, BOOST)
    assert rich.note.credit_ns > 0
    assert poor.note.credit_ns < rich.note.credit_ns
    assert ran(rich) == pytest.approx(10, abs=1)


def test_credit_boosts_a_waking_vcpu_but_keeps_the_rate_limit():
    """It takes the pCPU after the running one has had its millisecond, not at the end of its 30."""
    sched = host("credit")
    vm(sched, Busy())
    (waker,) = vm(sched, Script(Run(100 * US), Wait(100 * MS), Run(MS)))
    run(sched, 500)
    assert waker.times(sched.sim.now).ready_ns <= 31 * MS
    assert waker.dispatches == 2
    long = host("credit", preempt_grain_ns=SECOND)
    vm(long, Busy())
    (later,) = vm(long, Script(Run(100 * US), Wait(100 * MS), Run(MS)))
    run(long, 500)
    assert later.times(long.sim.now).ready_ns > waker.times(sched.sim.now).ready_ns


def test_credit_boosts_over_a_vcpu_that_has_credit_too():
    """Before the first accounting both are UNDER: only the boost ends the other's turn of 30 ms."""
    sched = host("credit")
    (waker,) = vm(sched, Script(Run(100 * US), Wait(5 * MS), Run(MS)))
    (other,) = vm(sched, Busy())
    run(sched, 20)
    assert other.note.priority == UNDER
    assert waker.times(sched.sim.now).run_ns == 1100 * US
    assert waker.times(sched.sim.now).ready_ns == 0


def test_credit_parks_a_capped_vm_even_beside_an_idle_pcpu():
    sched = host("credit", 2)
    worlds = vm(sched, Busy(), Busy(), limit_hz=HZ // 2)
    run(sched, 6000)
    assert ran(*worlds) == pytest.approx(50, abs=1.5)
    seen = set()
    for ms in range(6000, 6060):
        run(sched, ms)
        seen |= {world.note.priority for world in worlds}
    assert PARKED in seen
    assert sum(world.times(sched.sim.now).max_limited_ns for world in worlds) == 0


def test_credit_lets_vcpus_without_credit_use_what_is_left():
    sched = host("credit", 2)
    worlds = [vm(sched, Busy(), shares=shares)[0] for shares in (100, 100, 1000)]
    run(sched, 3000)
    assert ran(worlds[2]) == pytest.approx(100, abs=2)
    assert ran(*worlds) == pytest.approx(200, abs=0.1)
    assert worlds[0].note.priority in (OVER, UNDER)


# strict gangs


def gang_together(sched, worlds):
    """Whether no vCPU of a VM waits while a sibling runs, at any moment of the trace that is longer than nothing."""
    ids = {world.world_id for world in worlds}
    sink = sched.sim.trace.sink()
    rows = []
    for name in ("sched.dispatch", "sched.state"):
        table = sink.tables[name]
        rows += [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    state, last_ns = {}, 0
    for row in sorted(rows, key=lambda each: each["seq"]):
        if row["world"] not in ids:
            continue
        if row["time_ns"] > last_ns and {WorldState.RUN, WorldState.READY} <= set(state.values()):
            return False
        last_ns = row["time_ns"]
        state[row["world"]] = WorldState.RUN if "pcpu" in row else row["new"]
    return True


@pytest.mark.parametrize(("policy", "together"), [("gang", True), ("stride", False)])
def test_a_gang_runs_as_a_whole_or_not_at_all(policy, together):
    sched = host(policy, 4, categories=("sched",))
    vms = [vm(sched, *[OnOff(7 * MS, 3 * MS) for _ in range(count)]) for count in (3, 2, 2, 4)]
    run(sched, 2000)
    assert all(gang_together(sched, worlds) for worlds in vms) == together


def test_gangs_that_do_not_fit_together_leave_pcpus_idle():
    """Three and two vCPUs on four pCPUs: each VM has half the time, and three of eight pCPU slots stay empty."""
    sched = host("gang", 4)
    wide, narrow = vm(sched, *[Busy()] * 3), vm(sched, *[Busy()] * 2)
    run(sched, 10_000)
    assert ran(*wide) == pytest.approx(150, abs=1)
    assert ran(*narrow) == pytest.approx(100, abs=1)
    idle = sum(pcpu.times(sched.sim.now).idle_ns for pcpu in sched.pcpus)
    assert idle / (4 * sched.sim.now) == pytest.approx(3 / 8, abs=0.01)


def test_a_small_vm_fills_the_gap_beside_a_wide_one():
    sched = host("gang", 4)
    wide, small = vm(sched, *[Busy()] * 3), vm(sched, Busy())
    run(sched, 1000)
    assert ran(*wide) == pytest.approx(300)
    assert ran(*small) == pytest.approx(100)


def test_a_sleeping_vcpu_of_a_gang_keeps_its_pcpu():
    """What a VM holds it pays for: the idle vCPU costs the other VM half of the host."""
    sched = host("gang", 2)
    half_idle, others = vm(sched, Busy(), Idle()), vm(sched, Busy(), Busy())
    run(sched, 4000)
    assert ran(*half_idle) == pytest.approx(50, abs=1)
    assert ran(*others) == pytest.approx(100, abs=2)


def test_a_gang_wider_than_the_host_takes_turns_on_all_of_it():
    sched = host("gang", 2)
    worlds = vm(sched, *[Busy()] * 3)
    run(sched, 6000)
    assert ran(*worlds) == pytest.approx(200)
    assert all(ran(world) == pytest.approx(66.7, abs=1) for world in worlds)


def test_affinity_moves_a_gang_so_that_all_have_a_pcpu():
    """The first vCPU may use both pCPUs and ran on pCPU 0 last, which is all that the second may use."""
    sched = host("gang", 2)
    free, pinned = (sched.add("w", Busy()) for _ in range(2))
    sched.group([free, pinned])
    sched.allocate(free, shares=1000)
    sched.allocate(pinned, shares=1000, affinity=1)
    sched.begin(free)
    run(sched, 5)
    assert free.pcpu.index == 0
    sched.begin(pinned)
    run(sched, 6)
    assert (free.pcpu.index, pinned.pcpu.index) == (1, 0)
