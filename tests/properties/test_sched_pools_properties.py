"""Invariants of resource pools over random trees: the fluid ideal, isolation, and limits of pools."""

from fractions import Fraction
from itertools import pairwise

from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st

from sim.core.context import Sim
from sim.core.units import MS
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.sched.entitlement import Party, divide
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.pools import PoolSpec
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import Busy, OnOff
from sim.kernel.world import WorldState

HZ = 10**9
QUANTUM_NS = 4 * MS
BURST_QUANTA = 4


@frozen(kw_only=True)
class Tree:
    """Pools as (parent, shares, limit in Hz); worlds as (pool, shares, idle share or none)."""

    cores: int
    pools: tuple
    worlds: tuple

    def above(self, index):
        """The pools on the way up from a pool, itself first."""
        while index is not None:
            yield index
            index = self.pools[index][0]


@st.composite
def trees(draw, *, limits=True, most=9):
    count = draw(st.integers(1, 4))
    pools = []
    for index in range(count):
        parent = draw(st.sampled_from((None, *range(index))))
        limit = draw(st.one_of(st.none(), st.integers(HZ // 10, 3 * HZ))) if limits else None
        pools.append((parent, draw(st.integers(1, 9000)), limit))
    worlds = draw(
        st.lists(
            st.tuples(st.sampled_from((None, *range(count))), st.integers(1, 3000)), min_size=1, max_size=most
        )
    )
    return Tree(cores=draw(st.integers(1, 3)), pools=tuple(pools), worlds=tuple(worlds))


def build(tree, make=Busy, categories=()):
    options = SchedOptions(
        quantum_ns=QUANTUM_NS,
        entitlement_ns=QUANTUM_NS,
        world_switch_ns=0,
        limit_burst_ns=BURST_QUANTA * QUANTUM_NS,
        limit_slice_ns=QUANTUM_NS,
    )
    topology = Topology.of(CpuSpec(cores_per_node=tree.cores, core_hz=HZ))
    sched = Scheduler(Sim(categories=categories), topology, options)
    made = []
    for index, (parent, shares, limit) in enumerate(tree.pools):
        above = "" if parent is None else f"p{parent}"
        made.append(sched.pools.add(PoolSpec(name=f"p{index}", parent=above, shares=shares, limit_hz=limit)))
    worlds = []
    for pool, shares in tree.worlds:
        world = sched.add("w", make())
        sched.allocate(world, shares=shares, pool=None if pool is None else made[pool])
        worlds.append(world)
    for world in worlds:
        sched.begin(world)
    return sched, worlds


def ideal(tree):
    """The fluid share of each world when all are busy, through the tree."""

    def party(index):
        _, shares, limit = tree.pools[index]
        return Party(
            name=f"p{index}",
            weight=shares,
            ceiling=None if limit is None else Fraction(limit, HZ),
            children=children(index),
        )

    def children(parent):
        inner = [party(each) for each, pool in enumerate(tree.pools) if pool[0] == parent and used(each)]
        leaves = [
            Party(name=f"w{index}", weight=shares, ceiling=1)
            for index, (pool, shares) in enumerate(tree.worlds)
            if pool == parent
        ]
        return tuple(inner + leaves)

    def used(index):
        return any(pool is not None and index in tree.above(pool) for pool, _ in tree.worlds)

    found = divide(Party(name="", weight=1, children=children(None)), tree.cores)
    return [found[f"w{index}"][0] for index in range(len(tree.worlds))]


@given(trees())
def test_shares_through_the_tree_add_up_and_stay_within_their_bounds(tree):
    """Exact: no world above one CPU, no pool above its limit, and nothing left over that somebody could use."""
    shares = ideal(tree)
    assert all(0 <= share <= 1 for share in shares)
    for index, (_, _, limit) in enumerate(tree.pools):
        inside = [
            share
            for share, (pool, _) in zip(shares, tree.worlds, strict=True)
            if pool is not None and index in tree.above(pool)
        ]
        assert limit is None or sum(inside) <= Fraction(limit, HZ)
    if sum(shares) < tree.cores:
        for share, (pool, _) in zip(shares, tree.worlds, strict=True):
            stopped = pool is not None and any(tree.pools[each][2] is not None for each in tree.above(pool))
            assert share == 1 or stopped


@given(trees(limits=False))
def test_busy_worlds_in_pools_stay_within_four_quanta_of_the_ideal(tree):
    """P17 with pools (three quanta, and one for a level deeper): shares are divided pool by pool."""
    sched, worlds = build(tree)
    shares = ideal(tree)
    for count in range(1, 30):
        sched.sim.engine.run(count * 5 * QUANTUM_NS)
        for world, share in zip(worlds, shares, strict=True):
            assert abs(world.times(sched.sim.now).run_ns - share * sched.sim.now) <= 4 * QUANTUM_NS
    sched.check_invariants()


@given(trees(limits=False, most=6), st.lists(st.integers(1, 3000), min_size=1, max_size=6))
def test_what_a_pool_holds_inside_does_not_change_the_others(tree, newcomers):
    """P8: with one CPU all are backlogged; the first pool's total, and each world outside, stay where they were."""
    tree = evolve(tree, cores=1, worlds=(*tree.worlds, (0, 100), (None, 100)))
    more = evolve(tree, worlds=(*tree.worlds, *((0, shares) for shares in newcomers)))
    end_ns = 200 * QUANTUM_NS
    outside = [
        index
        for index, (pool, _) in enumerate(tree.worlds)
        if pool is None or 0 not in tuple(tree.above(pool))
    ]
    ran = []
    for each in (tree, more):
        sched, worlds = build(each)
        sched.sim.engine.run(end_ns)
        ran.append([worlds[index].times(end_ns).run_ns for index in outside])
    depth = len(tree.pools) + 1
    assert abs(sum(ran[0]) - sum(ran[1])) <= 4 * depth * QUANTUM_NS
    assert [ideal(tree)[index] for index in outside] == [ideal(more)[index] for index in outside]


@given(trees())
def test_the_limit_of_a_pool_holds_in_every_window(tree):
    """P5: the worlds below a limited pool never run more together than limit * T + burst, by the trace alone."""
    sched, worlds = build(tree, make=lambda: OnOff(30 * MS, 3 * MS), categories=("sched",))
    sched.sim.engine.run(100 * QUANTUM_NS)
    steps = running_steps(sched)
    for index, (_, _, limit) in enumerate(tree.pools):
        if limit is None:
            continue
        inside = {
            world.world_id
            for world, (pool, _) in zip(worlds, tree.worlds, strict=True)
            if pool is not None and index in tree.above(pool)
        }
        rate, served, least = Fraction(limit, HZ), Fraction(0), Fraction(0)
        for (begin_ns, running), (end_ns, _) in pairwise(steps):
            ahead = served - rate * begin_ns
            least = min(least, ahead)
            served += len(running & inside) * (end_ns - begin_ns)
            assert served - rate * end_ns - least <= BURST_QUANTA * QUANTUM_NS


def running_steps(sched):
    """Moments, and which worlds run from there to the next."""
    rows = []
    for name in ("sched.dispatch", "sched.state"):
        table = sched.sim.trace.sink().tables.get(name)
        if table is not None:
            rows += [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    steps, running = [(0, frozenset())], set()
    for row in sorted(rows, key=lambda each: each["seq"]):
        if "pcpu" in row:
            running.add(row["world"])
        elif row["old"] == WorldState.RUN:
            running.discard(row["world"])
        steps.append((row["time_ns"], frozenset(running)))
    return [*steps, (sched.sim.now, frozenset(running))]
