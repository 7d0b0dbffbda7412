"""Invariants over random hosts with SMP machines, threads, affinity, pools, and a machine that changes."""

import pickle
from itertools import pairwise

from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from sim.core.context import Sim
from sim.core.rng import FastStream
from sim.core.units import MS, US
from sim.errors import SimBug
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.sched.machine import dedicate, free_cores, give_back, set_frequency, set_online
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.policy import POLICIES
from sim.kernel.sched.pools import PoolSpec
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import Busy, Idle, OnOff
from sim.kernel.world import EDGES, WorldState

HZ = 1_000_000_000
END_NS = 120 * MS


@frozen(kw_only=True)
class Machine:
    workloads: tuple
    shares: int = 1000
    limit: int | None = None
    reservation: int = 0
    affinity: int = -1
    pool: int = -1


@frozen(kw_only=True)
class Plan:
    cores: int
    nodes: int
    threads: int
    quantum_ms: int
    switch_ns: int
    policy: str
    polling: bool
    queues: str
    pools: tuple
    machines: tuple
    actions: tuple

    @property
    def pcpus(self):
        return self.cores * self.nodes * self.threads


def workload(kind, values):
    if kind == "busy":
        return Busy()
    if kind == "idle":
        return Idle()
    return OnOff(values[0] * US, values[1] * US, FastStream(values[2]) if values[2] else None)


def build(plan, categories=("sched",)):
    options = SchedOptions(
        quantum_ns=plan.quantum_ms * MS,
        world_switch_ns=plan.switch_ns,
        migrate_llc_ns=2 * plan.switch_ns,
        cosched_polling=plan.polling,
        policy=plan.policy,
        queues=plan.queues,
    )
    spec = CpuSpec(
        cores_per_node=plan.cores, nodes_per_package=plan.nodes, threads_per_core=plan.threads, core_hz=HZ
    )
    sched = Scheduler(Sim(categories=categories), Topology.of(spec), options)
    pools = []
    for index, (shares, limit, parent) in enumerate(plan.pools):
        above = f"p{parent}" if parent < index else ""
        pools.append(sched.pools.add(PoolSpec(name=f"p{index}", parent=above, shares=shares, limit_hz=limit)))
    vms = []
    for machine in plan.machines:
        pool = pools[machine.pool] if 0 <= machine.pool < len(pools) else None
        worlds = [sched.add("w", workload(*each)) for each in machine.workloads]
        sched.group(worlds)
        give(sched, worlds, machine, pool)
        vms.append((worlds, machine, pool))
    for worlds, _, _ in vms:
        for world in worlds:
            sched.begin(world)
    for time_us, action, index in plan.actions:
        sched.sim.engine.at(time_us * US, act, sched, vms, action, index)
    return sched, vms


def give(sched, worlds, machine, pool):
    bucket = None if machine.limit is None else sched.bucket(machine.limit, pool)
    mask = machine.affinity & (1 << len(sched.pcpus)) - 1
    for world in worlds:
        sched.allocate(
            world,
            shares=machine.shares,
            reservation_hz=machine.reservation,
            bucket=bucket,
            pool=pool,
            affinity=mask or -1,
        )


def act(sched, vms, action, index):
    worlds, machine, pool = vms[index % len(vms)]
    if action in ("offline", "online"):
        try:
            set_online(sched, index % len(sched.pcpus), online=action == "online")
        except SimBug:
            return
    elif action == "frequency":
        set_frequency(sched, index % len(sched.pcpus), HZ * (1 + index % 3) // 2)
    elif action == "quantum":
        sched.configure(sched.options.with_advanced("Cpu.Quantum", 1 + index))
    elif worlds[0].state is WorldState.ENDED:
        return
    elif action == "end":
        for world in worlds:
            sched.end(world)
    elif action == "suspend":
        for world in worlds:
            sched.suspend(world)
    elif action == "resume":
        for world in worlds:
            if world.state is WorldState.WAIT_VM:
                sched.resume(world)
    elif action == "stall":
        for world in worlds[:1]:
            if world.state is WorldState.RUN:
                sched.block(world)
                sched.sim.engine.after(5 * MS, unstall, sched, world)
    elif action == "alone":
        for world in worlds:
            sched.suspend(world)
        if worlds[0].exclusive is not None:
            give_back(sched, worlds[0])
        elif machine.limit is None and len(free_cores(sched)) > 1 and spare(sched, worlds[0]):
            dedicate(sched, worlds[0])
        for world in worlds:
            sched.resume(world)
    elif action == "again":
        for world in worlds:
            sched.suspend(world)
        give(sched, worlds, machine, None if index % 2 else pool)
        for world in worlds:
            sched.resume(world)


def spare(sched, world):
    """Whether a core can go to a world without stranding another by its affinity."""
    core = next((core for core in free_cores(sched) if world.affinity >> core[0] & 1), None)
    if core is None:
        return False
    rest = sched.online & ~sum(1 << index for index in core)
    return all(other.affinity & rest for other in sched.worlds.values())


def unstall(sched, world):
    if world.state is WorldState.WAIT_SWAP:
        sched.unblock(world)


micros = st.integers(50, 20_000)
kinds = st.one_of(
    st.just(("busy", ())),
    st.just(("busy", ())),
    st.just(("idle", ())),
    st.tuples(st.just("onoff"), st.tuples(micros, micros, st.integers(0, 2**31))),
)
machines = st.builds(
    Machine,
    workloads=st.lists(kinds, min_size=1, max_size=5).map(tuple),
    shares=st.sampled_from((500, 1000, 2000, 7)),
    limit=st.sampled_from((None, None, None, HZ // 3, 2 * HZ)),
    reservation=st.sampled_from((0, 0, 0, HZ // 40)),
    affinity=st.one_of(st.just(-1), st.just(-1), st.integers(1, 255)),
    pool=st.integers(-1, 2),
)
actions = st.lists(
    st.tuples(
        st.integers(0, 120_000),
        st.sampled_from(
            [
                "offline",
                "online",
                "frequency",
                "quantum",
                "end",
                "suspend",
                "resume",
                "resume",
                "stall",
                "alone",
                "again",
            ],
        ),
        st.integers(0, 9),
    ),
    max_size=10,
)
plans = st.builds(
    Plan,
    cores=st.integers(1, 3),
    nodes=st.integers(1, 2),
    threads=st.sampled_from((1, 2)),
    quantum_ms=st.integers(1, 20),
    switch_ns=st.sampled_from((0, 2000, 100_000)),
    policy=st.sampled_from(("esxi",) * (len(POLICIES) + 1) + tuple(POLICIES)),
    polling=st.sampled_from((False, False, True)),
    queues=st.sampled_from(("host", "llc", "pcpu")),
    pools=st.lists(
        st.tuples(st.integers(1, 9000), st.sampled_from((None, HZ, 3 * HZ)), st.integers(0, 3)), max_size=3
    ).map(tuple),
    machines=st.lists(machines, min_size=1, max_size=5).map(tuple),
    actions=actions.map(tuple),
)


@given(plans, st.lists(st.integers(0, 120_000), min_size=1, max_size=5))
def test_books_queues_and_skew_are_right_at_any_moment(plan, stops):
    """P1, P2 and P9 by the scheduler's own checks: siblings never run further apart than the threshold allows."""
    sched, _ = build(plan, categories=())
    for stop in sorted(stops):
        sched.sim.engine.run(stop * US + stop % 7)
        sched.check_invariants()


@given(plans)
def test_only_legal_edges_are_walked_and_states_fit_their_cause(plan):
    """P15: co-stop needs a sibling, max-limited a limit; and after all that nothing is left when all ends."""
    sched, vms = build(plan)
    single = {worlds[0].world_id for worlds, _, _ in vms if len(worlds) == 1}
    sched.sim.engine.run(END_NS)
    for row in sched.sim.trace.select("sched.state"):
        old, new = WorldState(row["old"]), WorldState(row["new"])
        assert (old, new) in EDGES
        assert WorldState.COSTOP not in (old, new) or row["world"] not in single
    sched.halt()
    sched.check_invariants()
    sched.sim.engine.run(END_NS + 1000 * MS)
    assert not sched.worlds


@given(plans, st.integers(1, 119_000))
def test_a_checkpoint_goes_on_to_the_same_end(plan, cut_us):
    """P11."""
    whole, _ = build(plan)
    whole.sim.engine.run(END_NS)
    part, _ = build(plan)
    part.sim.engine.run(cut_us * US)
    part = pickle.loads(pickle.dumps(part))
    part.sim.engine.run(END_NS)
    part.check_invariants()
    assert part.sim.trace.digest() == whole.sim.trace.digest()


@given(plans)
def test_skew_recomputed_from_the_trace_keeps_its_bound(plan):
    """P9 and P18: run pieces and waits of the trace alone give each running vCPU's lead over its siblings."""
    plan_options = 4000 * US if plan.polling else 3000 * US
    sched, vms = build(plan)
    if plan.policy != "esxi":
        return
    sched.sim.engine.run(END_NS)
    never_halting = [
        worlds for worlds, machine, _ in vms if all(kind == "busy" for kind, _ in machine.workloads)
    ]
    touched = any(action in ("end", "suspend", "resume", "again", "alone") for _, action, _ in plan.actions)
    if touched:
        return
    for worlds in never_halting:
        if len(worlds) > 1:
            assert worst_skew(sched, worlds) <= plan_options


def worst_skew(sched, worlds):
    """The largest lead that a running vCPU of a VM that never halts had over its slowest sibling."""
    ids = {world.world_id for world in worlds}
    sink = sched.sim.trace.sink()
    events = []
    for name in ("sched.dispatch", "sched.state"):
        table = sink.tables.get(name)
        if table is not None:
            events += [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    changes = []
    for row in sorted(events, key=lambda each: each["seq"]):
        if row["world"] not in ids:
            continue
        if "pcpu" in row:
            changes.append((row["time_ns"] + row["switch_ns"], row["world"], True))
        elif row["old"] == WorldState.RUN:
            changes = [one for one in changes if not (one[1] == row["world"] and one[0] > row["time_ns"])]
            changes.append((row["time_ns"], row["world"], False))
    changes.append((sched.sim.now, None, False))
    changes.sort(key=lambda one: one[0])
    ran, running, worst = dict.fromkeys(ids, 0), set(), 0
    for (begin, world, starts), (end, _, _) in pairwise([(0, None, False), *changes]):
        if world is not None:
            (running.add if starts else running.discard)(world)
        for each in running:
            ran[each] += end - begin
        if running and end > begin:
            worst = max(worst, *(ran[each] - min(ran.values()) for each in running))
    return worst
