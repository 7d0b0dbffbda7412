"""Invariants of the CPU scheduler over random small hosts, after the numbered list of its fact sheet (P1 ... P18)."""

import pickle
from fractions import Fraction
from itertools import pairwise
from math import ceil

from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st

from sim.core.context import Sim
from sim.core.rng import FastStream
from sim.core.units import MS
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.sched.advanced import default_of
from sim.kernel.sched.balance import LEVELS
from sim.kernel.sched.fluid import Claim, fluid_shares
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import Busy, Generator, Idle, OnOff, Run, Trace, Wait
from sim.kernel.world import EDGES, WorldState

HZ = 1_000_000_000
"""The speed of a core: reservations and limits in Hz are then parts per 10**9 of a CPU."""

BURST_QUANTA = 4


def steps_of(stream, longest_ns):
    """A user's generator: bursts and sleeps of random length."""
    while True:
        yield Run(stream.between(0, longest_ns))
        yield Wait(stream.between(1, longest_ns))


@frozen(kw_only=True)
class WorldPlan:
    name: str
    workload: tuple
    shares: int = 1000
    reservation: int = 0  # Hz, of HZ
    limit: int | None = None

    def make(self, scale):
        kind, *values = self.workload
        if kind == "busy":
            return Busy()
        if kind == "idle":
            return Idle()
        if kind == "onoff":
            return OnOff(values[0] * MS * scale, values[1] * MS * scale)
        if kind == "random":
            return OnOff(values[0] * MS, values[1] * MS, FastStream(values[2]))
        if kind == "generator":
            return Generator(steps_of, (values[0] * MS,), FastStream(values[1]))
        return Trace(tuple(values[0]), 20 * MS * scale, slice_ns=5 * MS * scale)


@frozen(kw_only=True)
class Plan:
    cores: int = 1
    threads: int = 1
    quantum_ms: int = 5
    switch_ns: int = 0
    worlds: tuple = ()
    actions: tuple = ()
    scale: int = 1

    @property
    def cpus(self):
        return self.cores * self.threads


def act(sched, worlds, action, index):
    """Change a world from outside, if it is in the state for it."""
    world = worlds[index % len(worlds)]
    if world.state is WorldState.ENDED:
        return
    if action == "suspend":
        sched.suspend(world)
    elif action == "end":
        sched.end(world)
    elif world.state is WorldState.WAIT_VM and action == "resume":
        sched.resume(world)
    elif action == "shares":
        was_waiting = world.state is WorldState.WAIT_VM
        sched.suspend(world)
        hz = world.reservation_hz
        sched.allocate(world, shares=world.weight % 1999 + 1, reservation_hz=hz, bucket=world.bucket)
        if not was_waiting:
            sched.resume(world)


def build(plan, *, categories=("sched",)):
    """Make the host of a plan; returns its scheduler and its worlds, all begun at time 0."""
    sim = Sim(categories=categories)
    quantum_ns = plan.quantum_ms * MS * plan.scale
    options = SchedOptions(
        quantum_ns=quantum_ns,
        world_switch_ns=plan.switch_ns * plan.scale,
        limit_burst_ns=BURST_QUANTA * quantum_ns,
        limit_slice_ns=quantum_ns,
        preempt_grain_ns=MS * plan.scale,
        advanced={name: min(5000, plan.scale * default_of(name, "8.0")) for name in LEVELS},
    )
    spec = CpuSpec(cores_per_node=plan.cores, threads_per_core=plan.threads, core_hz=HZ)
    sched = Scheduler(sim, Topology.of(spec), options)
    worlds = []
    for one in plan.worlds:
        world = sched.add(one.name, one.make(plan.scale))
        bucket = None if one.limit is None else sched.bucket(one.limit)
        sched.allocate(world, shares=one.shares, reservation_hz=one.reservation, bucket=bucket)
        worlds.append(world)
    for world in worlds:
        sched.begin(world)
    for time_ms, action, index in plan.actions:
        sim.engine.at(time_ms * MS, act, sched, worlds, action, index)
    return sched, worlds


milliseconds = st.integers(1, 30)
seeds = st.integers(0, 2**32)
workloads = st.one_of(
    st.just(("busy",)),
    st.just(("busy",)),
    st.just(("idle",)),
    st.tuples(st.just("onoff"), milliseconds, milliseconds),
    st.tuples(st.just("random"), milliseconds, milliseconds, seeds),
    st.tuples(st.just("generator"), milliseconds, seeds),
    st.tuples(st.just("trace"), st.lists(st.integers(0, 10_000), min_size=1, max_size=4)),
)
share_numbers = st.one_of(st.sampled_from((500, 1000, 2000)), st.integers(1, 20), st.integers(1, 5000))
actions = st.lists(
    st.tuples(
        st.integers(0, 200),
        st.sampled_from(("suspend", "resume", "resume", "end", "shares")),
        st.integers(0, 9),
    ),
    max_size=8,
)


@st.composite
def plans(
    draw, *, kinds=workloads, bounds=True, with_actions=True, most=9, switches=(0, 2000), threads=(1, 2)
):
    """A host with worlds whose reservations fit it."""
    cores, per_core = draw(st.integers(1, 4)), draw(st.sampled_from(threads))
    left = cores * HZ
    worlds = []
    for index in range(draw(st.integers(1, most))):
        reservation, limit = 0, None
        if bounds and draw(st.booleans()):
            part = draw(st.sampled_from((1, 2, 3, 4, 7, 10)))
            reservation = min(left, HZ) * draw(st.integers(0, part)) // part
            left -= reservation
        if bounds and draw(st.integers(0, 2)) == 0:
            limit = max(reservation, draw(st.integers(HZ // 50, HZ)))
        worlds.append(
            WorldPlan(
                name=f"w{index}",
                workload=draw(kinds),
                shares=draw(share_numbers),
                reservation=reservation,
                limit=limit,
            )
        )
    return Plan(
        cores=cores,
        threads=per_core,
        quantum_ms=draw(st.integers(1, 10)),
        switch_ns=draw(st.sampled_from(switches)),
        worlds=tuple(worlds),
        actions=tuple(draw(actions)) if with_actions else (),
    )


busy_plans = plans(kinds=st.just(("busy",)), with_actions=False, switches=(0,))


def run_segments(sched):
    """From the trace alone: for each world the pieces of time during which it ran."""
    trace, now_ns = sched.sim.trace, sched.sim.now
    begun, pieces = {}, {}
    rows = [(row["seq"], row) for row in ordered(trace)]
    for _, row in sorted(rows, key=lambda each: each[0]):
        world, time_ns = row["world"], row["time_ns"]
        if "pcpu" in row:
            begun[world] = time_ns + row["switch_ns"]
        elif row["old"] == WorldState.RUN:
            if time_ns > begun[world]:
                pieces.setdefault(world, []).append((begun[world], time_ns))
            del begun[world]
    for world, begin_ns in begun.items():
        if now_ns > begin_ns:
            pieces.setdefault(world, []).append((begin_ns, now_ns))
    return pieces


def ordered(trace):
    """All records of dispatches and changes of state, with their place in the trace."""
    sink = trace.sink()
    for name in ("sched.dispatch", "sched.state"):
        table = sink.tables.get(name)
        if table is not None:
            for values in zip(*table.values(), strict=True):
                yield dict(zip(table, values, strict=True))


# P1, P2, P15, P18: the books


@given(plans(), st.lists(st.integers(0, 250), min_size=1, max_size=4))
def test_books_add_up_and_no_pcpu_idles_while_a_world_is_ready(plan, stops):
    """P1 (exact time conservation) and P2 (work conservation without delay) at random moments."""
    sched, worlds = build(plan)
    for stop in sorted(stops):
        sched.sim.engine.run(stop * MS + stop % 3)
        sched.check_invariants()
        for world in worlds:
            world.check_invariants(sched.sim.now)


@given(plans())
def test_counters_follow_from_the_trace_alone(plan):
    """P18: an audit that sees only trace records finds the same times and counts; P15: only legal transitions."""
    sched, worlds = build(plan)
    sched.sim.engine.run(200 * MS)
    pieces = run_segments(sched)
    for world in worlds:
        found = sum(end - begin for begin, end in pieces.get(world.world_id, ()))
        assert found == world.times(sched.sim.now).run_ns
        places = [
            row["pcpu"] for row in sched.sim.trace.select("sched.dispatch") if row["world"] == world.world_id
        ]
        assert world.dispatches == len(places)
        assert world.migrations == sum(old != new for old, new in pairwise(places))
    limited = {world.world_id for world in worlds if world.bucket is not None}
    for row in sched.sim.trace.select("sched.state"):
        old, new = WorldState(row["old"]), WorldState(row["new"])
        assert (old, new) in EDGES
        assert WorldState.MAX_LIMITED not in (old, new) or row["world"] in limited
        assert new is not WorldState.COSTOP


@given(plans(), st.integers(1, 5))
def test_two_worlds_never_share_a_pcpu(plan, part):
    """Segments of one pCPU do not overlap, and a world runs on one pCPU at a time."""
    sched, _ = build(plan)
    sched.sim.engine.run(40 * part * MS)
    pieces = run_segments(sched)
    edges = sorted(
        edge for each in pieces.values() for begin, end in each for edge in ((begin, 1), (end, -1))
    )
    level = 0
    for _, change in sorted(edges, key=lambda edge: (edge[0], edge[1])):
        level += change
        assert 0 <= level <= plan.cpus
    for each in pieces.values():
        assert all(first[1] <= second[0] for first, second in pairwise(each))


# P3, P17: shares against the fluid ideal


def ideal(plan):
    """The fluid shares of a plan whose worlds are all busy."""
    claims = [
        Claim(
            weight=one.shares,
            floor=Fraction(one.reservation, HZ),
            ceiling=min(Fraction(1), Fraction(one.limit, HZ)) if one.limit else Fraction(1),
        )
        for one in plan.worlds
    ]
    return fluid_shares(plan.cpus, claims).shares


@given(busy_plans)
def test_busy_worlds_stay_within_three_quanta_of_the_fluid_ideal(plan):
    """P3 and P17: at every moment looked at, with shares, reservations and limits of any size."""
    sched, worlds = build(plan, categories=())
    shares = ideal(plan)
    quantum_ns = plan.quantum_ms * MS
    for count in range(1, 40):
        sched.sim.engine.run(count * 5 * quantum_ns)
        for world, share in zip(worlds, shares, strict=True):
            error_ns = world.times(sched.sim.now).run_ns - share * sched.sim.now
            assert abs(error_ns) <= 3 * quantum_ns


@given(st.integers(1, 4), st.lists(share_numbers, min_size=1, max_size=9))
def test_equal_shares_get_equal_time_within_two_quanta(cores, shares):
    """P3, pairwise: two worlds with the same shares never differ by more than two quanta."""
    worlds = tuple(
        WorldPlan(name=f"w{index}", workload=("busy",), shares=number)
        for index, number in enumerate(shares * 2)
    )
    sched, made = build(Plan(cores=cores, worlds=worlds), categories=())
    for count in range(1, 30):
        sched.sim.engine.run(count * 11 * MS)
        for first, second in zip(made[: len(shares)], made[len(shares) :], strict=True):
            apart_ns = first.times(sched.sim.now).run_ns - second.times(sched.sim.now).run_ns
            assert abs(apart_ns) <= 2 * 5 * MS


# P4, P5: reservations and limits


@given(plans(switches=(0,), with_actions=False))
def test_reservation_is_met_in_every_interval_without_sleep(plan):
    """P4: while a world is ready or running, it gets its reservation less at most two quanta."""
    sched, worlds = build(plan)
    sched.sim.engine.run(400 * MS)
    pieces = run_segments(sched)
    quantum_ns = plan.quantum_ms * MS
    for world, one in zip(worlds, plan.worlds, strict=True):
        if not one.reservation:
            continue
        rate = Fraction(one.reservation, HZ)
        for begin_ns, end_ns in runnable(sched, world):
            served, least = 0, Fraction(0)
            for piece_begin, piece_end in [*pieces.get(world.world_id, ()), (end_ns, end_ns)]:
                if not begin_ns <= piece_begin <= end_ns:
                    continue
                owed = rate * (piece_begin - begin_ns) - served
                assert owed - least <= 2 * quantum_ns
                served += min(piece_end, end_ns) - piece_begin
                least = min(least, rate * (min(piece_end, end_ns) - begin_ns) - served)


def runnable(sched, world):
    """The intervals during which a world was ready or running without a break."""
    inside = (WorldState.RUN, WorldState.READY)
    begin, found = None, []
    for row in sched.sim.trace.select("sched.state"):
        if row["world"] != world.world_id:
            continue
        if row["new"] in inside and row["old"] not in inside:
            begin = row["time_ns"]
        elif row["old"] in inside and row["new"] not in inside:
            found.append((begin, row["time_ns"]))
            begin = None
    if begin is not None:
        found.append((begin, sched.sim.now))
    return found


@given(plans())
def test_limit_holds_in_every_sliding_window(plan):
    """P5: in no window of length T does a world run more than limit * T + burst."""
    sched, worlds = build(plan)
    sched.sim.engine.run(400 * MS)
    pieces = run_segments(sched)
    burst_ns = BURST_QUANTA * plan.quantum_ms * MS
    for world, one in zip(worlds, plan.worlds, strict=True):
        if one.limit is None:
            continue
        rate = Fraction(one.limit, HZ)
        served, least = 0, Fraction(0)
        for begin_ns, end_ns in pieces.get(world.world_id, ()):
            least = min(least, served - rate * begin_ns)
            served += end_ns - begin_ns
            assert served - rate * end_ns - least <= burst_ns


# P6, P14: nobody starves, and nobody saves up


@given(plans(kinds=st.just(("busy",)), bounds=False, with_actions=False, switches=(0,)))
def test_a_ready_world_runs_within_the_bound(plan):
    """P6: the longest wait is at most (ceil(W / w) + n) quanta over the number of CPUs."""
    sched, worlds = build(plan)
    sched.sim.engine.run(300 * plan.quantum_ms * MS)
    pieces = run_segments(sched)
    total, count = sum(one.shares for one in plan.worlds), len(worlds)
    for world, one in zip(worlds, plan.worlds, strict=True):
        bound_ns = Fraction((ceil(Fraction(total, one.shares)) + count) * plan.quantum_ms * MS, plan.cpus)
        edges = [0, *(edge for piece in pieces.get(world.world_id, ()) for edge in piece), sched.sim.now]
        assert all(edges[place + 1] - edges[place] <= bound_ns for place in range(0, len(edges), 2))


@given(st.integers(1, 4), st.integers(1, 8), st.integers(0, 3000), share_numbers)
def test_a_sleeper_catches_up_at_most_the_bound_lag(cores, others, sleep_ms, shares):
    """P14: after any sleep, service beyond the fair share is at most eight quanta (and two of normal error)."""
    worlds = [WorldPlan(name=f"w{index}", workload=("busy",)) for index in range(cores + others)]
    worlds.append(WorldPlan(name="sleeper", workload=("busy",), shares=shares))
    plan = Plan(
        cores=cores,
        worlds=tuple(worlds),
        actions=((1, "suspend", len(worlds) - 1), (1 + sleep_ms, "resume", len(worlds) - 1)),
    )
    sched, made = build(plan, categories=())
    begin_ns = (1 + sleep_ms) * MS
    sched.sim.engine.run(begin_ns)
    before_ns = made[-1].times(begin_ns).run_ns
    share = ideal(plan)[-1]
    for count in range(1, 25):
        sched.sim.engine.run(begin_ns + count * 10 * MS)
        gained_ns = made[-1].times(sched.sim.now).run_ns - before_ns
        assert gained_ns - share * count * 10 * MS <= (8 + 2) * plan.quantum_ms * MS


# P11: determinism and checkpoints


@given(plans(), st.integers(1, 199), st.integers(1, 199))
def test_a_cut_or_a_checkpoint_changes_nothing(plan, cut, other_cut):
    """P11: run(t1) then run(t2) is run(t2), and so is pickling in between and going on with the copy."""
    whole, _ = build(plan)
    whole.sim.engine.run(200 * MS)
    parts, _ = build(plan)
    for stop in sorted((cut, other_cut)):
        parts.sim.engine.run(stop * MS)
        parts = pickle.loads(pickle.dumps(parts))
    parts.sim.engine.run(200 * MS)
    parts.check_invariants()
    assert parts.sim.trace.digest() == whole.sim.trace.digest()
    assert parts.sim.engine.events_done == whole.sim.engine.events_done


# P12, P13: what must make no difference


deterministic = st.one_of(
    st.just(("busy",)),
    st.tuples(st.just("onoff"), milliseconds, milliseconds),
    st.tuples(
        st.just("trace"), st.lists(st.integers(0, 100).map(lambda each: each * 100), min_size=1, max_size=4)
    ),
)


@given(plans(bounds=False), st.integers(2, 50))
def test_scaling_all_shares_changes_nothing(plan, factor):
    """P12: shares are relative."""
    plan = evolve(plan, actions=tuple(one for one in plan.actions if one[1] != "shares"))
    more = tuple(evolve(one, shares=one.shares * factor) for one in plan.worlds)
    assert digest(plan) == digest(evolve(plan, worlds=more))


@given(plans(kinds=deterministic, bounds=False, with_actions=False), st.integers(2, 7))
def test_scaling_all_times_scales_the_schedule(plan, factor):
    """P12: quantum, costs and workloads k times as long give the same schedule, k times as long."""
    normal, _ = build(plan)
    normal.sim.engine.run(150 * MS)
    scaled, _ = build(evolve(plan, scale=factor))
    scaled.sim.engine.run(150 * MS * factor)
    wanted = {
        world: [(begin * factor, end * factor) for begin, end in pieces]
        for world, pieces in run_segments(normal).items()
    }
    assert run_segments(scaled) == wanted


@given(plans(), st.lists(st.tuples(share_numbers, st.sampled_from((0, HZ // 2))), min_size=1, max_size=3))
def test_worlds_without_demand_change_nobody(plan, idle):
    """P13: exact, whatever shares and reservations the idle ones hold."""
    sleepers = tuple(
        WorldPlan(name=f"idle{index}", workload=("idle",), shares=shares, reservation=reservation)
        for index, (shares, reservation) in enumerate(idle)
    )
    plan = evolve(
        plan, actions=tuple((when, what, who % len(plan.worlds)) for when, what, who in plan.actions)
    )
    alone, _ = build(plan)
    crowd, _ = build(evolve(plan, worlds=plan.worlds + sleepers))
    for sched in (alone, crowd):
        sched.sim.engine.run(200 * MS)
    assert run_segments(alone) == run_segments(crowd)


def digest(plan):
    sched, _ = build(plan)
    sched.sim.engine.run(150 * MS)
    return sched.sim.trace.digest()
