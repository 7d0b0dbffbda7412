"""Work conservation (P2): no pCPU idles for long while a world is READY that may run there.

Models: the whole run, by its records alone: when a pCPU was idle and a world READY.  Which pCPUs a world may use is what
the tester has asked for (affinity, pCPUs taken offline and back), and the home node that its VM was given, which no
record tells.  How long is long is computed here from the periods of rebalancing, not asked of the scheduler: 0 with one
queue; with several the shortest period of a level (thread, last-level cache, package, host) that covers the idle pCPU
and every pCPU on which the world may wait.  A policy that promises 0 is held to 0, and one that promises nothing (a
patience longer than any period, such as a gang's) to what it says.

Leaves out: worlds with a home node after a review of NUMA balance (`Numa.RebalancePeriod`, 2 s), as their homes may have
changed at any time since; COSTOP and MLMTD, which are other states.

Sources: the claim and its tolerance, the scheduler's fact sheet; names of periods, ESXi's options.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from sim.core.units import MS
from sim.kernel.sched.balance import LEVELS
from sim.testing.scheduling_audit import READY, AuditedPcpu, Interval, common
from sim.testing.scheduling_host import TestHost
from sim.testing.scheduling_violation import SchedulingViolation

__all__ = ["check_work_conservation", "patience_ns", "spread"]


@frozen
class _Wait:
    """A world was READY, and might have run on these pCPUs (bits, whether online or not)."""

    world: int
    begin_ns: int
    end_ns: int
    mask: int


def check_work_conservation(host: TestHost, bound_ns: int | None = None) -> None:
    """P2: no pCPU is idle for longer than the shortest period that covers it while there is a READY world for it.

    That may be one world after another: where two take turns on one pCPU, each is READY for a short time only, and a third
    of the host is wasted all the same.
    """
    waits = list(_waits(host))
    for pcpu in host.audit().pcpus:
        found = [wait for wait in waits if wait.mask >> pcpu.index & 1]
        masks = {wait.mask for wait in found}
        bounds = {
            mask: patience_ns(host, pcpu.index, mask) if bound_ns is None else bound_ns for mask in masks
        }
        idle = _online_only(host, pcpu)
        for bound in sorted(set(bounds.values())):
            ready = [wait for wait in found if bounds[wait.mask] <= bound]
            _check_idle(host, pcpu.index, idle, ready, bound)


def _check_idle(host: TestHost, index: int, idle: list[Interval], ready: list[_Wait], bound_ns: int) -> None:
    """Look for a time longer than the bound during which a pCPU is idle and somebody is READY."""
    for begin_ns, end_ns in common(_union(ready), idle):
        if end_ns - begin_ns > bound_ns:
            who = next(wait.world for wait in ready if wait.begin_ns < end_ns and wait.end_ns > begin_ns)
            text = (
                f"pCPU {index} is idle from {begin_ns} to {end_ns} ns while {host.describe(who)}, and perhaps"
                f" others after it, is ready; the bound is {bound_ns} ns"
            )
            raise SchedulingViolation(2, text)


def _union(waits: list[_Wait]) -> list[Interval]:
    """Return when at least one of some worlds was READY, as disjoint intervals in order."""
    merged: list[Interval] = []
    for begin_ns, end_ns in sorted((wait.begin_ns, wait.end_ns) for wait in waits):
        if merged and begin_ns <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end_ns))
        else:
            merged.append((begin_ns, end_ns))
    return merged


def spread(host: TestHost, index: int, mask: int) -> int:
    """Return the nearest level at which a pCPU has all of some others with it: 0 a core, 1 a cache, 2 a package, 3 the host."""
    place = host.sched.topology.pcpus[index]
    others = [each for each in host.sched.topology.pcpus if mask >> each.index & 1]
    for level, key in enumerate(("core", "llc", "package")):
        if all(getattr(each, key) == getattr(place, key) for each in others):
            return level
    return 3


def patience_ns(host: TestHost, index: int, mask: int) -> int:
    """Return how long a pCPU may be idle beside a world that may wait on any of the pCPUs of a mask."""
    promised_ns = host.sched.policy.patience_ns()
    periods_ns = [MS * host.sched.options.get(name) for name in LEVELS]
    if host.plan.queues == "host" or promised_ns == 0 or promised_ns > max(*periods_ns, MS):
        return promised_ns
    covering = [period for period in periods_ns[spread(host, index, mask) :] if period]
    return min(covering, default=promised_ns)


def _waits(host: TestHost) -> Iterator[_Wait]:
    """Yield when which world was READY, and where it might have run."""
    reviewed = host.sched.numa.reviews > 0
    found = host.audit()
    for number, world in found.worlds.items():
        permits = [permit for permit in host.permits if permit.world == number]
        for state, begin_ns, end_ns in world.spans:
            if state != READY:
                continue
            before = [permit for permit in permits if permit.time_ns <= begin_ns][-1:]
            during = [permit for permit in permits if begin_ns < permit.time_ns < end_ns]
            cuts = [begin_ns, *(permit.time_ns for permit in during), end_ns]
            for permit, begin, end in zip([*before, *during], cuts, cuts[1:], strict=False):
                if permit.home < 0 or not reviewed:
                    yield _Wait(number, begin, end, permit.mask & _node(host, permit.home))


def _node(host: TestHost, home: int) -> int:
    """Return the pCPUs of a node as bits; of no node in particular: all."""
    return sum(1 << each.index for each in host.sched.topology.pcpus if home in (-1, each.node))


def _online_only(host: TestHost, pcpu: AuditedPcpu) -> list[Interval]:
    """Return when a pCPU was idle and online."""
    online: list[Interval] = []
    since_ns = 0
    for time_ns, index, now_online in [*host.switched, (host.now_ns, pcpu.index, False)]:
        if index != pcpu.index:
            continue
        if not now_online and since_ns >= 0:
            online.append((since_ns, time_ns))
        since_ns = time_ns if now_online else -1
    return list(common(pcpu.idle, online))
