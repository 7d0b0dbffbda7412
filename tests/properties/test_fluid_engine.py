"""The fluid engine: its books, its ideal, and the quantum engine against it (P17)."""

import pickle
from fractions import Fraction

from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.context import Sim
from sim.core.rng import FastStream
from sim.core.units import MS
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.coupled import Barrier, BarrierLoop
from sim.kernel.sched.fluid_engine import FluidScheduler
from sim.kernel.sched.fluid_world import UNIT
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.pools import PoolSpec
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import Busy, Idle, OnOff, Trace
from sim.kernel.world import WorldState

HZ = 1_000_000_000
QUANTUM_NS = 5 * MS

TOLERANCES = {"onoff": (Fraction(1, 4), Fraction(1, 4)), "trace": (Fraction(2, 5), Fraction(1, 20))}
"""Of the elapsed time: how far the engines may be apart in one world's and in a pCPU's run time (docs/why.md)."""

FEW = settings(max_examples=40)


@frozen(kw_only=True)
class One:
    workload: tuple
    shares: int
    reservation: int = 0
    limit: int | None = None
    pool: int = -1

    def make(self):
        kind, *values = self.workload
        if kind == "busy":
            return Busy()
        if kind == "idle":
            return Idle()
        if kind == "onoff":
            return OnOff(values[0] * MS, values[1] * MS)
        if kind == "random":
            return OnOff(values[0] * MS, values[1] * MS, FastStream(values[2]))
        return Trace(tuple(values[0]), 40 * MS)


@frozen(kw_only=True)
class Plan:
    cpus: int
    pools: tuple = ()
    worlds: tuple = ()


def build(plan, engine):
    """A host of either engine with the pools and worlds of a plan, all begun at time 0."""
    options = SchedOptions(
        quantum_ns=QUANTUM_NS,
        world_switch_ns=0,
        limit_burst_ns=4 * QUANTUM_NS,
        limit_slice_ns=QUANTUM_NS,
        queues="host",
    )
    topology = Topology.of(CpuSpec(cores_per_node=plan.cpus, core_hz=HZ))
    sched = engine(Sim(categories=("sched",)), topology, options)
    pools = [sched.pools.add(spec) for spec in plan.pools]
    worlds = []
    for index, one in enumerate(plan.worlds):
        pool = pools[one.pool] if one.pool >= 0 else None
        world = sched.add(f"w{index}", one.make())
        bucket = None if one.limit is None else sched.bucket(one.limit, pool)
        sched.allocate(world, shares=one.shares, reservation_hz=one.reservation, bucket=bucket, pool=pool)
        worlds.append(world)
    for world in worlds:
        sched.begin(world)
    return sched, worlds


milliseconds = st.integers(1, 30)
steady = st.sampled_from((("busy",), ("busy",), ("busy",), ("idle",)))
on_off = st.one_of(
    st.tuples(st.just("onoff"), milliseconds, milliseconds),
    st.tuples(st.just("random"), milliseconds, milliseconds, st.integers(0, 2**32)),
)
recorded = st.tuples(st.just("trace"), st.lists(st.integers(0, 10_000), min_size=1, max_size=4))
changing = st.one_of(st.just(("busy",)), on_off, recorded)


@st.composite
def plans(draw, kinds, *, pooled=True):
    """A small host; reservations fit, pools have shares and perhaps limits."""
    cpus = draw(st.integers(1, 4))
    pools = []
    for index in range(draw(st.integers(0, 2)) if pooled else 0):
        limit = draw(st.one_of(st.none(), st.integers(HZ // 4, cpus * HZ)))
        parent = draw(st.sampled_from(("", *(pool.name for pool in pools))))
        shares = draw(st.sampled_from(("low", "normal", "high")))
        scalable = draw(st.booleans())
        pools.append(
            PoolSpec(name=f"p{index}", parent=parent, shares=shares, limit_hz=limit, scalable=scalable)
        )
    left, worlds = cpus * HZ, []
    for _ in range(draw(st.integers(1, 8))):
        pool = draw(st.integers(-1, len(pools) - 1))
        reservation, limit = 0, None
        if pool < 0 and draw(st.booleans()):
            reservation = min(left, HZ) * draw(st.integers(0, 3)) // 4
            left -= reservation
        if draw(st.integers(0, 2)) == 0:
            limit = max(reservation, draw(st.integers(HZ // 20, HZ)))
        worlds.append(
            One(
                workload=draw(kinds),
                shares=draw(st.sampled_from((500, 1000, 2000, 7, 333))),
                reservation=reservation,
                limit=limit,
                pool=pool,
            )
        )
    return Plan(cpus=cpus, pools=tuple(pools), worlds=tuple(worlds))


@FEW
@given(plans(steady))
def test_with_steady_demand_the_engines_differ_by_three_quanta_and_two_for_each_limit_below_a_pools(plan):
    """P17, through pools, limits of pools and VMs, and reservations.

    A VM with a limit begins with half of its burst in hand, two quanta, which those beside it below the limit of a pool
    may never get back.
    """
    limited = any(pool.limit_hz is not None for pool in plan.pools)
    quanta = 3 + 2 * limited * sum(one.limit is not None and one.pool >= 0 for one in plan.worlds)
    fluid, ideal = build(plan, FluidScheduler)
    quantum, found = build(plan, Scheduler)
    for count in range(1, 20):
        for sched in (fluid, quantum):
            sched.sim.engine.run(count * 7 * QUANTUM_NS)
        now_ns = fluid.sim.now
        for one, other in zip(ideal, found, strict=True):
            assert abs(one.times(now_ns).run_ns - other.times(now_ns).run_ns) <= quanta * QUANTUM_NS


def test_worlds_in_a_pool_at_its_limit_share_it_by_their_shares():
    """P17 where a pool's limit binds and the host has time to spare."""
    pool = PoolSpec(name="p", limit_hz=HZ // 4)
    worlds = tuple(One(workload=("busy",), shares=shares, pool=0) for shares in (500, 1000))
    plan = Plan(
        cpus=1, pools=(pool,), worlds=(*worlds, One(workload=("busy",), shares=500, limit=HZ // 20, pool=0))
    )
    runs = []
    for engine in (FluidScheduler, Scheduler):
        sched, made = build(plan, engine)
        sched.sim.engine.run(5000 * MS)
        runs.append([world.times(5000 * MS).run_ns for world in made])
    assert all(abs(one - two) <= 3 * QUANTUM_NS for one, two in zip(*runs, strict=True))


@FEW
@given(st.sampled_from(("onoff", "trace")), st.data())
def test_with_changing_demand_the_engines_agree_within_the_documented_part(kind, data):
    """P17 for on/off and recorded demand beside busy worlds."""
    kinds = st.one_of(st.just(("busy",)), on_off if kind == "onoff" else recorded)
    plan = data.draw(plans(kinds, pooled=False))
    runs = []
    for engine in (FluidScheduler, Scheduler):
        sched, worlds = build(plan, engine)
        sched.sim.engine.run(2000 * MS)
        runs.append([world.times(2000 * MS).run_ns for world in worlds])
    each, together = TOLERANCES[kind]
    apart = [one - two for one, two in zip(*runs, strict=True)]
    assert max(map(abs, apart)) <= each * 2000 * MS
    assert abs(sum(apart)) <= together * 2000 * MS * plan.cpus


@FEW
@given(st.lists(on_off, min_size=1, max_size=4), st.integers(0, 300))
def test_without_contention_the_engines_run_everybody_alike(workloads, stop):
    """With a CPU for each world there is nothing to divide: times are equal to the nanosecond."""
    plan = Plan(cpus=4, worlds=tuple(One(workload=each, shares=1000) for each in workloads))
    runs = []
    for engine in (FluidScheduler, Scheduler):
        sched, worlds = build(plan, engine)
        sched.sim.engine.run(stop * MS)
        runs.append([world.times(sched.sim.now) for world in worlds])
    assert runs[0] == runs[1]


@FEW
@given(plans(changing), st.lists(st.integers(0, 300), min_size=1, max_size=4))
def test_books_add_up_and_no_more_flows_than_there_is(plan, stops):
    """P1 in integers, P5: nobody passes a limit, P15: legal states, at any moment."""
    sched, worlds = build(plan, FluidScheduler)
    for stop in sorted(stops):
        sched.sim.engine.run(stop * MS + stop % 7)
        sched.check_invariants()
        for world, one in zip(worlds, plan.worlds, strict=True):
            times = world.times(sched.sim.now)
            assert times.total_ns == sched.sim.now
            if one.limit is not None:
                assert times.run_ns <= Fraction(one.limit, HZ) * sched.sim.now
            elif one.pool < 0:
                assert times.max_limited_ns == 0


@FEW
@given(plans(changing), st.integers(0, 200), st.integers(0, 200))
def test_a_checkpoint_goes_on_to_the_same_digest(plan, first, second):
    """P11: split and pickled runs equal a run in one go."""
    whole, _ = build(plan, FluidScheduler)
    whole.sim.engine.run((first + second) * MS)
    part, _ = build(plan, FluidScheduler)
    part.sim.engine.run(first * MS)
    part = pickle.loads(pickle.dumps(part))
    part.sim.engine.run((first + second) * MS)
    assert part.sim.trace.digest() == whole.sim.trace.digest()
    assert [each.times(part.sim.now) for each in part.worlds.values()] == [
        each.times(whole.sim.now) for each in whole.worlds.values()
    ]


@FEW
@given(
    plans(changing), st.lists(st.tuples(st.integers(1, 200), st.integers(0, 7), st.booleans()), max_size=6)
)
def test_suspended_and_ended_worlds_keep_the_books(plan, actions):
    """Suspending, resuming and ending at any moment leaves exact books."""
    sched, worlds = build(plan, FluidScheduler)
    for when, who, ends in sorted(actions):
        sched.sim.engine.run(when * MS)
        world = worlds[who % len(worlds)]
        if world.state is WorldState.ENDED:
            continue
        if ends:
            sched.end(world)
        elif world.state is WorldState.WAIT_VM:
            sched.resume(world)
        else:
            sched.suspend(world)
        sched.check_invariants()
    sched.sim.engine.run(300 * MS)
    sched.check_invariants()


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=6), st.integers(1, 3), st.booleans())
def test_a_recorded_demand_that_fits_is_served_to_the_nanosecond(demand, rounds, repeat):
    """Alone on a CPU a world runs exactly its demand, and idles for the rest."""
    sim = Sim(categories=())
    sched = FluidScheduler(sim, Topology.of(CpuSpec(cores_per_node=1, core_hz=HZ)), SchedOptions())
    world = sched.add("w", Trace(tuple(demand), 40 * MS, repeat=repeat))
    sched.allocate(world, shares=1000)
    sched.begin(world)
    sim.engine.run(rounds * len(demand) * 40 * MS)
    times = world.times(sim.now)
    turns = rounds if repeat else 1
    assert times.run_ns == turns * sum(demand) * 40 * MS // 10_000
    assert times.ready_ns == 0


@FEW
@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=5), st.integers(2, 4))
def test_demand_that_does_not_fit_is_served_later(demand, crowd):
    """A backlog is worked off, at the whole of what is free: nothing that was demanded is lost."""
    sim = Sim(categories=())
    sched = FluidScheduler(sim, Topology.of(CpuSpec(cores_per_node=1, core_hz=HZ)), SchedOptions())
    for index in range(crowd):
        world = sched.add(f"w{index}", Trace(tuple(demand), 40 * MS, repeat=False))
        sched.allocate(world, shares=1000 + index)
        sched.begin(world)
    wanted_ns = sum(demand) * 40 * MS // 10_000
    sim.engine.run(len(demand) * 40 * MS + crowd * wanted_ns)
    for world in sched.worlds.values():
        assert wanted_ns - 8 <= world.times(sim.now).run_ns <= wanted_ns + 8
        assert world.state is WorldState.WAIT_IDLE


def test_units_divide_hundredths_of_a_percent():
    assert UNIT % 10_000 == 0


def test_spinning_and_halting_worlds_meet_at_a_barrier():
    """Coupled workloads run on the fluid engine too: whoever comes first spins, or idles, until the last has come."""
    for spin in (True, False):
        sim = Sim(categories=())
        sched = FluidScheduler(sim, Topology.of(CpuSpec(cores_per_node=2, core_hz=HZ)), SchedOptions())
        barrier = Barrier(2)
        for index in (1, 2):
            world = sched.add(f"w{index}", BarrierLoop(barrier, index * MS, spin=spin))
            sched.allocate(world, shares=1000)
            sched.begin(world)
        sim.engine.run(101 * MS)
        sched.check_invariants()
        assert 48 <= barrier.rounds <= 51
        fast, slow = (world.times(sim.now) for world in sched.worlds.values())
        assert slow.run_ns >= 99 * MS
        assert (fast.run_ns >= 99 * MS) if spin else (49 * MS <= fast.run_ns <= 52 * MS)
