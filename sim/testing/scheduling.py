"""Strategies for CPU scheduling: hosts, VM sets, pools, workloads, and whole plans of runs.

`sched_plans` is a Hypothesis strategy for `SchedPlan`s, `seeded_plan` makes the same kinds from a number, for campaigns.
A family of plans is what a group of invariants needs: see `FAMILIES`.

Models nothing.  Leaves out more than three pools, and devices.  Sources: ranges chosen to run
quickly, and to meet the corners of the scheduler's fact sheet: one pCPU, idle VMs, wide VMs, shares of any ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from hypothesis import strategies as st

from sim.core.rng import FastStream
from sim.testing.scheduling_plan import COUPLED, HZ, Action, Load, PoolPlan, SchedPlan, VmPlan

__all__ = [
    "FAMILIES",
    "sched_hosts",
    "sched_loads",
    "sched_plans",
    "sched_pools",
    "sched_vms",
    "seeded_plan",
]

T = TypeVar("T")

FAMILIES = {
    "any": "everything: VMs that wait at barriers and for locks, interrupts, threads, nodes, queues, pools, wide VMs, limits, affinity, and changes while it runs",
    "crowd": "as any, on up to 24 pCPUs with a few vCPUs more than that, of which half sleep for long; turns longer than the periods of rebalancing",
    "plain": "VMs of one vCPU without reservation, limit or pool, on one node; threads, and changes while it runs",
    "steady": "as plain, without changes, and with loads that scale: busy, on and off for fixed times, I/O, recorded",
    "busy": "busy VMs of one vCPU with any shares on one queue, at no cost of switching",
    "bounded": "as busy, with reservations that fit and limits",
    "mixed": "as bounded, with loads that sleep, and VMs of up to three vCPUs",
    "pools": "two pools of busy VMs, each with more of them than there are CPUs, and a change inside the first",
    "sleep": "busy VMs, of which the last is suspended for a while",
}
"""Families of plans, and what is in them."""

ACTIONS = (
    "add",
    "remove",
    "resize",
    "plug",
    "demand",
    "shares",
    "reservation",
    "limit",
    "move",
    "suspend",
    "resume",
)
MACHINE_ACTIONS = ("offline", "online", "frequency", "quantum")


class Chooser(Protocol):
    """Where a plan's numbers come from."""

    def integer(self, low: int, high: int) -> int:
        """Choose from `low` to `high`, both included."""

    def of(self, values: Sequence[T]) -> T:
        """Choose one of some values."""


class _Drawn:
    """Chooses by Hypothesis."""

    def __init__(self, draw: Any) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        """Draw."""
        return int(self._draw(st.integers(low, high)))

    def of(self, values: Sequence[T]) -> T:
        """Draw."""
        chosen: T = self._draw(st.sampled_from(values))
        return chosen


class _Seeded:
    """Chooses by a stream of ours, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._stream = FastStream(seed)

    def integer(self, low: int, high: int) -> int:
        """Choose."""
        return self._stream.between(low, high)

    def of(self, values: Sequence[T]) -> T:
        """Choose."""
        return values[self._stream.between(0, len(values) - 1)]


def sched_plans(family: str = "any") -> st.SearchStrategy[SchedPlan]:
    """Strategy: plans of a family; they shrink to one core, one busy VM, nothing done."""

    @st.composite
    def plans(draw: Any) -> SchedPlan:
        return _plan(_Drawn(draw), family)

    return plans()


def seeded_plan(family: str, seed: int) -> SchedPlan:
    """Return the plan of a family that belongs to a number."""
    return _plan(_Seeded(seed), family)


LOADS = ("busy", "onoff", "random", "idle", "io", "trace", "barrier", "lock")
"""The kinds of load that there are."""


def sched_loads(kinds: Sequence[str] = LOADS) -> st.SearchStrategy[Load]:
    """Strategy: what one vCPU wants."""

    @st.composite
    def loads(draw: Any) -> Load:
        return _load(_Drawn(draw), kinds)

    return loads()


def sched_hosts() -> st.SearchStrategy[SchedPlan]:
    """Strategy: a host without VMs: cores, threads, nodes, quantum, cost of switching, queues."""

    @st.composite
    def hosts(draw: Any) -> SchedPlan:
        return SchedPlan(**_host(_Drawn(draw), "any"))

    return hosts()


def sched_pools(count_max: int = 3) -> st.SearchStrategy[tuple[PoolPlan, ...]]:
    """Strategy: a tree of resource pools."""

    @st.composite
    def pools(draw: Any) -> tuple[PoolPlan, ...]:
        return _pools(_Drawn(draw), count_max)

    return pools()


def sched_vms(count_max: int = 5, *, vcpus_max: int = 4) -> st.SearchStrategy[tuple[VmPlan, ...]]:
    """Strategy: a set of VMs with any loads and allocations, whose reservations fit one CPU."""

    @st.composite
    def vms(draw: Any) -> tuple[VmPlan, ...]:
        return _any_vms(_Drawn(draw), count_max, vcpus_max, pools=0)

    return vms()


def _plan(chooser: Chooser, family: str) -> SchedPlan:
    if family not in FAMILIES:
        raise ValueError(f"no family {family!r} of plans; there are {', '.join(FAMILIES)}")
    host = _host(chooser, family)
    if family in ("any", "crowd"):
        pools = _pools(chooser, 3)
        vms = _any_vms(chooser, 5 if family == "any" else 2, 4, pools=len(pools))
        if family == "crowd":
            cpus = host["cores"] * host["nodes"] * host["threads"]
            vms = (*_crowd(chooser, cpus + chooser.integer(1, 3)), *vms)
        return SchedPlan(
            **host, pools=pools, vms=vms, actions=_actions(chooser, (*ACTIONS, *MACHINE_ACTIONS))
        )
    if family == "pools":
        return _pools_plan(chooser, host)
    vms = _few_vms(chooser, family, host["cores"])
    actions: tuple[Action, ...] = ()
    if family == "plain":
        actions = _actions(chooser, ("suspend", "resume", "resume", "remove"))
    elif family == "sleep":
        vms = (*vms, *(VmPlan(name=f"w{len(vms) + each}") for each in range(host["cores"])))
        begin_us, sleep_us = 1000, 1000 * chooser.integer(0, 1500)
        last = len(vms) - 1
        actions = (
            Action(time_us=begin_us, what="suspend", who=last),
            Action(time_us=begin_us + sleep_us, what="resume", who=last),
        )
        host["span_ms"] = (begin_us + sleep_us) // 1000 + 240
    return SchedPlan(**host, vms=vms, actions=actions)


def _host(chooser: Chooser, family: str) -> dict[str, Any]:
    if family == "crowd":
        nodes = chooser.integer(1, 2)
        return {
            "cores": chooser.integer(1, 6),
            "nodes": nodes,
            "threads": chooser.integer(1, 2),
            "quantum_ms": chooser.of((10, 50, 100, 200)),  # most are longer than the periods
            "switch_ns": chooser.of((0, 2000)),
            "queues": chooser.of(("pcpu", "pcpu", "llc", "host")),
            "release": "7.0" if nodes > 1 else "8.0",  # later ones look over nodes every 2 s only
            "span_ms": 240,
        }
    if family == "any":
        return {
            "cores": chooser.integer(1, 3),
            "nodes": chooser.integer(1, 2),
            "threads": chooser.integer(1, 2),
            "quantum_ms": chooser.integer(1, 20),
            "switch_ns": chooser.of((0, 2000, 100_000)),
            "queues": chooser.of(("host", "llc", "pcpu")),
            "polling": chooser.of((False, False, True)),
        }
    threads = chooser.integer(1, 2) if family in ("plain", "steady") else 1
    switch_ns = chooser.of((0, 2000)) if family in ("plain", "steady") else 0
    quantum_ms = 5 if family == "sleep" else chooser.integer(1, 10)
    span_ms = {"plain": 120, "steady": 120, "mixed": 400}.get(family, 200 * quantum_ms)
    return {
        "cores": chooser.integer(1, 4),
        "threads": threads,
        "quantum_ms": quantum_ms,
        "switch_ns": switch_ns,
        "span_ms": span_ms,
    }


def _load(chooser: Chooser, kinds: Sequence[str]) -> Load:
    kind = chooser.of(kinds)
    if kind in ("busy", "idle"):
        return Load(kind=kind)
    if kind == "trace":
        count = chooser.integer(1, 4)
        demand = tuple(chooser.integer(0, 100) for _ in range(count))
        return Load(kind=kind, run_us=1000 * chooser.integer(1, 40), demand=demand)
    run_us, wait_us = chooser.integer(50, 20_000), chooser.integer(50, 20_000)
    return Load(
        kind=kind,
        run_us=run_us,
        wait_us=0 if kind == "barrier" else wait_us,
        seed=chooser.integer(0, 2**31) if kind == "random" else 0,
        interrupt_us=chooser.integer(1, 200) if kind == "io" else 0,
        spin=kind in COUPLED and chooser.of((False, True)),
    )


def _loads(chooser: Chooser, vcpus: int) -> tuple[Load, ...]:
    """Choose what the vCPUs of a VM want: each something of its own, or all to compute in step."""
    if chooser.integer(0, 3) == 3:
        return (_load(chooser, COUPLED),) * vcpus
    kinds = ("busy", "busy", "onoff", "random", "idle", "io", "trace")
    return tuple(_load(chooser, kinds) for _ in range(vcpus))


def _shares(chooser: Chooser) -> int:
    return chooser.of((1000, 500, 2000, chooser.integer(1, 20), chooser.integer(1, 5000)))


def _pools(chooser: Chooser, count_max: int) -> tuple[PoolPlan, ...]:
    pools = []
    for number in range(chooser.integer(0, count_max)):
        limit_hz = chooser.of((None, None, HZ, 3 * HZ))
        parent = chooser.integer(-1, number - 1) if number else -1
        pools.append(PoolPlan(shares=chooser.integer(1, 9000), limit_hz=limit_hz, parent=parent))
    return tuple(pools)


def _any_vms(chooser: Chooser, count_max: int, vcpus_max: int, *, pools: int) -> tuple[VmPlan, ...]:
    left_hz = HZ  # so that every reservation can be kept by the last pCPU
    vms = []
    for number in range(chooser.integer(1, count_max)):
        loads = _loads(chooser, chooser.integer(1, vcpus_max))
        reservation_hz = chooser.of((0, 0, 0, left_hz // (4 * len(loads))))
        left_hz -= reservation_hz * len(loads)
        limit_hz = chooser.of((None, None, None, HZ // 3, 2 * HZ))
        vms.append(
            VmPlan(
                name=f"w{number}",
                loads=loads,
                shares=_shares(chooser),
                reservation_hz=reservation_hz if limit_hz is None else 0,
                limit_hz=limit_hz,
                affinity=chooser.of((-1, -1, -1, chooser.integer(1, 255))),
                pool=chooser.integer(-1, pools - 1) if pools else -1,
            )
        )
    return tuple(vms)


def _crowd(chooser: Chooser, count: int) -> tuple[VmPlan, ...]:
    """Choose VMs of one vCPU, busy or asleep for long, so that pCPUs become idle while others have a queue."""
    vms = []
    for number in range(count):
        run_us, wait_us = 1000 * chooser.integer(1, 80), 1000 * chooser.integer(20, 400)
        load = chooser.of((Load(), Load(kind="onoff", run_us=run_us, wait_us=wait_us)))
        vms.append(VmPlan(name=f"c{number}", loads=(load,)))
    return tuple(vms)


def _few_vms(chooser: Chooser, family: str, cores: int) -> tuple[VmPlan, ...]:
    kinds = {
        "plain": ("busy", "busy", "idle", "onoff", "random", "io", "trace"),
        "steady": ("busy", "onoff", "io", "trace"),
        "mixed": ("busy", "busy", "onoff", "random", "idle", "io", "trace"),
    }.get(family, ("busy",))
    left_hz = cores * HZ
    vms = []
    for number in range(chooser.integer(1, 8)):
        reservation_hz, limit_hz = 0, None
        width = chooser.of((1, 1, chooser.integer(1, min(3, cores)))) if family == "mixed" else 1
        if family in ("bounded", "mixed"):
            part = chooser.of((1, 2, 3, 4, 7, 10))
            reservation_hz = min(left_hz // width, HZ) * chooser.integer(0, part) // part
            reservation_hz *= chooser.of((0, 1))
            left_hz -= reservation_hz * width
            if chooser.integer(0, 2) == 2:
                limit_hz = max(reservation_hz * width, chooser.integer(HZ // 50, HZ))
        vms.append(
            VmPlan(
                name=f"w{number}",
                loads=tuple(_load(chooser, kinds) for _ in range(width)),
                shares=_shares(chooser),
                reservation_hz=reservation_hz,
                limit_hz=limit_hz,
            )
        )
    return tuple(vms)


def _pools_plan(chooser: Chooser, host: dict[str, Any]) -> SchedPlan:
    pools = tuple(PoolPlan(shares=chooser.integer(1000, 9000)) for _ in range(2))
    vms: list[VmPlan] = []
    for pool in range(2):
        for _ in range(host["cores"] + chooser.integer(1, 3)):
            vms.append(VmPlan(name=f"w{len(vms)}", shares=chooser.of((1000, 500, 2000)), pool=pool))
    what = chooser.of(("shares", "add", "suspend"))
    host["span_ms"] = 400 * host["quantum_ms"]
    half_us = host["span_ms"] * 1000 // 2
    action = Action(time_us=half_us, what=what, who=0, value=chooser.integer(1, 5000))
    return SchedPlan(**host, pools=pools, vms=tuple(vms), actions=(action,))


def _actions(chooser: Chooser, names: Sequence[str]) -> tuple[Action, ...]:
    made = [
        Action(
            time_us=chooser.integer(0, 120_000),
            what=chooser.of(names),
            who=chooser.integer(0, 9),
            value=chooser.integer(0, 1000),
        )
        for _ in range(chooser.integer(0, 8))
    ]
    return tuple(sorted(made, key=lambda action: action.time_us))
