"""A host with everything, saved in the middle of its run, goes on as if nothing had been."""

import pickle

import pytest
from attrs import evolve

from sim.core.units import MS
from sim.testing.scheduling_audit import COSTOP, MAX_LIMITED
from sim.testing.scheduling_host import TestHost, books_of
from sim.testing.scheduling_plan import HZ, Action, Load, PoolPlan, SchedPlan, VmPlan

ONOFF = Load(kind="onoff", run_us=3000, wait_us=4000)
RANDOM = Load(kind="random", run_us=5000, wait_us=2000, seed=7)
IO = Load(kind="io", run_us=400, wait_us=900, interrupt_us=30)
BARRIER = Load(kind="barrier", run_us=700)
LOCK = Load(kind="lock", run_us=100, wait_us=300, spin=True)

EVERYTHING = SchedPlan(
    cores=4,
    nodes=2,
    threads=2,
    quantum_ms=4,
    switch_ns=2000,
    queues="pcpu",
    pools=(PoolPlan(shares=8000), PoolPlan(shares=2000, limit_hz=3 * HZ), PoolPlan(shares=4000, parent=0)),
    vms=(
        VmPlan(name="wide", loads=(Load(),) * 6, pool=0),
        VmPlan(name="uneven", loads=(Load(), ONOFF, RANDOM), shares=3000, pool=2),
        VmPlan(name="barrier", loads=(BARRIER,) * 4, pool=1),
        VmPlan(name="lock", loads=(LOCK,) * 3, shares=500),
        VmPlan(name="limited", loads=(Load(), IO), limit_hz=HZ // 2),
        VmPlan(name="reserved", loads=(Load(), ONOFF), reservation_hz=HZ // 3),
        VmPlan(name="bound", affinity=0b1010),
        *(VmPlan(name=f"busy{number}", shares=1 + 700 * number, pool=number % 3) for number in range(6)),
    ),
    actions=(
        Action(time_us=20_000, what="offline", who=3),
        Action(time_us=70_000, what="frequency", who=5, value=2),
        Action(time_us=130_000, what="online", who=3),
        Action(time_us=150_000, what="plug", who=1, value=4),
        Action(time_us=160_000, what="limit", who=4, value=7),
    ),
    span_ms=240,
)


@pytest.mark.parametrize("queues", ["pcpu", "llc", "host"])
@pytest.mark.parametrize("polling", [False, True])
def test_host_with_everything_goes_on_identically_from_checkpoints(queues, polling):
    plan = evolve(EVERYTHING, queues=queues, polling=polling)
    whole = TestHost(plan)
    whole.run(plan.span_ns)
    host = TestHost(plan)
    for saved_ns in (1_234_567, 21 * MS + 1, 99 * MS, 131 * MS + 777, 200 * MS):
        host.run(saved_ns)
        host = pickle.loads(pickle.dumps(host))  # our own bytes
        host.check_invariants()
    host.run(plan.span_ns)
    assert host.sched.sim.trace.digest() == whole.sched.sim.trace.digest()
    assert books_of(host.sched) == books_of(whole.sched)
    worlds = whole.audit().worlds.values()
    assert sum(world.time_ns(COSTOP) for world in worlds) > 0
    assert sum(world.time_ns(MAX_LIMITED) for world in worlds) > 0
    assert all(
        sum(getattr(world, name) for world in worlds) > 0
        for name in ("shared_ns", "overlap_ns", "migrations")
    )
    assert {permit.home for permit in whole.permits} == ({-1} if queues == "host" else {-1, 0, 1})
