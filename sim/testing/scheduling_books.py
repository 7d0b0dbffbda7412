"""Invariants of one run's books: time, limits, skew, charges, transitions and the audit (P1 5 9 10 15 18).

Each function takes a host that has played a plan under any policy, and looks at nothing but its trace, its counters and
what was asked of it.  `books` stands in for the host's own counters where somebody else's are to be judged.

Leaves out idle pCPUs: `scheduling_idle`.

Sources: the numbers and tolerances are those of `sim.testing.scheduling_violation` and docs/testing-schedulers.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

from sim.core.units import US
from sim.kernel.sched.cores import used_ns
from sim.kernel.world import EDGES, WorldState, WorldTimes
from sim.testing.scheduling_audit import (
    COSTOP,
    ENDED,
    IDLE,
    MAX_LIMITED,
    READY,
    RUN,
    STATES,
    SWAP_WAIT,
    VM_WAIT,
    Audit,
    AuditedWorld,
    common,
)
from sim.testing.scheduling_host import BURST_QUANTA, Books, TestHost, books_of
from sim.testing.scheduling_plan import HZ, VmPlan
from sim.testing.scheduling_violation import SchedulingViolation

__all__ = [
    "check_audit",
    "check_charge",
    "check_limit",
    "check_skew",
    "check_time_conservation",
    "check_transitions",
]

COSTOP_NS = 3000 * US
POLL_NS = 1000 * US
_MOVING = (RUN, IDLE, VM_WAIT)


def check_time_conservation(host: TestHost, books: Books | None = None) -> None:
    """P1: states add up to each world's age, busy + switch + idle to each pCPU's, all run time to all busy time; exact."""
    books = books if books is not None else books_of(host.sched)
    now_ns, began_ns = host.now_ns, host.sched.began_ns
    born = {number: world.born_ns for number, world in host.audit().worlds.items()}
    for number, times in books.worlds.items():
        age_ns = now_ns - born.get(number, now_ns)
        if times.total_ns != age_ns:
            text = f"{host.describe(number)} at {now_ns} ns: states add up to {times.total_ns}, its age is {age_ns}: {times}"
            raise SchedulingViolation(1, text)
    for index, pcpu in enumerate(books.pcpus):
        total_ns = pcpu.busy_ns + pcpu.switch_ns + pcpu.idle_ns
        if total_ns != now_ns - began_ns:
            text = f"pCPU {index} at {now_ns} ns: {pcpu} add up to {total_ns}"
            raise SchedulingViolation(1, text)
    ran_ns = sum(times.run_ns for times in books.worlds.values()) + books.ended_run_ns
    busy_ns = sum(pcpu.busy_ns for pcpu in books.pcpus)
    if ran_ns != busy_ns:
        raise SchedulingViolation(
            1, f"at {now_ns} ns worlds have run {ran_ns} ns, pCPUs were busy {busy_ns} ns"
        )


def check_limit(host: TestHost, burst_ns: int | None = None) -> None:
    """P5: in no window of any length T does a VM, or a pool, run longer than limit x T + burst.

    A window does not span a change of the allocation: each begins with a bucket of its own.
    """
    burst_ns = BURST_QUANTA * host.plan.quantum_ns if burst_ns is None else burst_ns
    found = host.audit()
    epochs = [epoch for machine in host.machines for epoch in _epochs(machine.history, host.now_ns)]
    for begin_ns, end_ns, plan, ids in epochs:
        if plan.limit_hz is not None:
            runs = _runs(found, ids, begin_ns, end_ns)
            _check_window(runs, plan.limit_hz, burst_ns, f"VM {plan.name} (worlds {list(ids)})")
    for number, pool in enumerate(host.plan.pools):
        if pool.limit_hz is not None:
            runs = [
                run
                for begin_ns, end_ns, plan, ids in epochs
                if _is_below(host, plan.pool, number)
                for run in _runs(found, ids, begin_ns, end_ns)
            ]
            _check_window(runs, pool.limit_hz, burst_ns, f"pool p{number}")


def _epochs(
    history: list[tuple[int, VmPlan | None, tuple[int, ...]]], now_ns: int
) -> Iterator[tuple[int, int, VmPlan, tuple[int, ...]]]:
    for (begin_ns, plan, ids), (end_ns, _, _) in pairwise([*history, (now_ns, None, ())]):
        if plan is not None:
            yield begin_ns, end_ns, plan, ids


def _is_below(host: TestHost, pool: int, above: int) -> bool:
    while pool >= 0 and pool != above:
        pool = host.plan.pools[pool].parent
    return pool == above


def _runs(found: Audit, ids: tuple[int, ...], begin_ns: int, end_ns: int) -> list[tuple[int, int]]:
    pieces = [piece for number in ids if number in found.worlds for piece in found.worlds[number].pieces]
    cut = [(max(piece.begin_ns, begin_ns), min(piece.end_ns, end_ns)) for piece in pieces]
    return [(begin, end) for begin, end in cut if begin < end]


def _check_window(runs: list[tuple[int, int]], limit_hz: int, burst_ns: int, who: str) -> None:
    """Sweep over the beginnings and ends of runs, where alone the worst windows begin and end."""
    changes = sorted([(begin, 1) for begin, _ in runs] + [(end, -1) for _, end in runs])
    served = level = before_ns = 0
    least: int | None = None  # no window has begun
    least_ns = 0
    for time_ns, change in changes:
        served += level * (time_ns - before_ns)
        before_ns = time_ns
        level += change
        credit = served * HZ - limit_hz * time_ns
        if change > 0 and (least is None or credit < least):
            least, least_ns = credit, time_ns
        if least is not None and credit - least > burst_ns * HZ:
            over_ns = (credit - least) // HZ
            text = (
                f"{who} ran {over_ns} ns more than its limit of {limit_hz / HZ:.3f} CPU gives from {least_ns}"
                f" to {time_ns} ns; the burst is {burst_ns} ns"
            )
            raise SchedulingViolation(5, text)


def check_skew(host: TestHost, bound_ns: int | None = None) -> None:
    """P9: no running vCPU is further ahead of its slowest sibling than the co-stop threshold, and one poll if polled.

    Progress goes on while a vCPU runs or halts; one that wakes is no further ahead than when it halted, or level with the
    slowest of the others.  Tolerance: 3000 us, polled 4000 us.
    """
    bound_ns = COSTOP_NS + (POLL_NS if host.plan.polling else 0) if bound_ns is None else bound_ns
    found = host.audit()
    for machine in host.machines:
        for first, others in _lives(machine.history):
            worlds = [found.worlds[number] for number in (*first, *others) if number in found.worlds]
            if len(worlds) > 1:
                _check_group(host, worlds, set(first), bound_ns)


def _lives(history: list[tuple[int, VmPlan | None, tuple[int, ...]]]) -> list[tuple[list[int], list[int]]]:
    """Return for each time that a VM was on the vCPUs that it began with, and those that came later."""
    lives: list[tuple[list[int], list[int]]] = []
    off = True
    for _, plan, ids in history:
        if plan is not None and off:
            lives.append((list(ids), []))
        elif plan is not None:
            first, others = lives[-1]
            others += [number for number in ids if number not in first and number not in others]
        off = plan is None
    return lives


def _check_group(host: TestHost, worlds: list[AuditedWorld], first: set[int], bound_ns: int) -> None:
    """Follow the progress of a VM's vCPUs; one that comes later begins level with the slowest."""
    progress = {world.world_id: 0 for world in worlds if world.world_id in first}
    asleep, state = dict(progress), {world.world_id: VM_WAIT for world in worlds}
    changes = [
        (begin, number, world.world_id, kind)
        for number, world in enumerate(worlds)
        for kind, begin, _ in world.spans
    ]
    ends = {
        world.world_id: world.spans[-1][2] if world.state == ENDED and world.spans else -1 for world in worlds
    }
    changes += [
        (end, number, world.world_id, ENDED)
        for number, world in enumerate(worlds)
        if (end := ends[world.world_id]) >= 0
    ]
    before_ns = 0
    for time_ns, _, who, new in [*sorted(changes), (host.now_ns, -1, -1, -1)]:
        for each in progress:
            progress[each] += time_ns - before_ns if state[each] in _MOVING else 0
        before_ns = time_ns
        slowest = min(progress.values())
        for each, reached in progress.items():
            skew_ns = reached - slowest
            if state[each] == RUN and skew_ns > bound_ns:
                text = f"{host.describe(each)} runs {skew_ns} ns ahead of its slowest sibling at {time_ns} ns"
                raise SchedulingViolation(9, f"{text}; the bound is {bound_ns} ns")
        if who < 0:
            return
        if who not in asleep:
            progress[who] = asleep[who] = slowest
        old, state[who] = state[who], new
        if new == ENDED:
            del progress[who]
        elif new in (IDLE, VM_WAIT) and old not in (IDLE, VM_WAIT):
            asleep[who] = progress[who]
        elif old in (IDLE, VM_WAIT) and new not in (IDLE, VM_WAIT):
            others = [progress[each] for each in progress if each != who]
            level = min(others) if others else progress[who]
            progress[who] = min(progress[who], max(asleep[who], level))
        if not progress:
            return


def check_charge(host: TestHost, books: Books | None = None) -> None:
    """P10: Used is Run at 62.5 % beside a busy thread and by frequency, plus SYS less OVRLP; exact, per vCPU, VM and host.

    What it should be follows from the trace alone: its pieces of run time, changes of frequency, and interrupts.

    A pCPU's share of its core is half of the time in which both threads are not idle: PCPU USED is never negative, and
    that of a core's threads adds up to the time in which any of them was not idle.
    """
    books = books if books is not None else books_of(host.sched)
    found = host.audit()
    vms = {number: machine.plan.name for machine in host.machines for number in machine.ids}
    totals: dict[str, list[Fraction]] = {}
    for number, times in books.worlds.items():
        used = used_ns(times.run_ns, times.shared_ns, times.overclock_units, HZ)
        used += times.system_ns - times.overlap_ns
        expected, world = Fraction(0), found.worlds.get(number)
        if world is not None:
            expected = world.used_ns + world.system_ns - world.overlap_ns
        for who in (host.describe(number), f"VM {vms[number]}", "the host"):
            both = totals.setdefault(who, [Fraction(0), Fraction(0)])
            both[0] += used
            both[1] += expected
    for who, (used, expected) in totals.items():
        if used != expected:
            text = f"{who} at {host.now_ns} ns: Used is {used} ns, its run time and services are worth {expected} ns"
            raise SchedulingViolation(10, text)
    for pcpu, audited in zip(books.pcpus, found.pcpus, strict=True):
        if pcpu.shared_ns != audited.shared_ns:
            text = f"pCPU {audited.index}: both threads busy {pcpu.shared_ns} ns, by the trace {audited.shared_ns}"
            raise SchedulingViolation(10, text)
    _check_cores(host, books, found)


def _check_cores(host: TestHost, books: Books, found: Audit) -> None:
    """Compare PCPU USED of the threads of each core with the time in which, by the trace, any of them was not idle."""
    threads = host.plan.threads
    for first in range(0, len(books.pcpus), threads):
        members = range(first, first + threads)
        for index in members:
            used, util_ns = (
                books.pcpus[index].used_ns,
                books.pcpus[index].busy_ns + books.pcpus[index].switch_ns,
            )
            if not 0 <= used <= util_ns:
                text = f"pCPU {index}: USED is {used} ns, and it was not idle for {util_ns} ns"
                raise SchedulingViolation(10, text)
        all_idle = found.pcpus[first].idle
        for index in members[1:]:
            all_idle = list(common(all_idle, found.pcpus[index].idle))
        core_ns = found.now_ns - found.began_ns - sum(end - begin for begin, end in all_idle)
        total = sum(books.pcpus[index].used_ns for index in members)
        if total != core_ns:
            text = (
                f"pCPUs {list(members)}: USED adds up to {total} ns, the core was not idle for {core_ns} ns"
            )
            raise SchedulingViolation(10, text)


def check_transitions(host: TestHost, found: Audit | None = None) -> None:
    """P15: only edges of the state machine; COSTOP only with siblings, MAX_LIMITED only below a limit; exact."""
    found = found if found is not None else host.audit()
    epochs = [epoch for machine in host.machines for epoch in _epochs(machine.history, host.now_ns)]
    for time_ns, number, old, new in found.edges:
        where = f"{host.describe(number)} goes from {STATES[old].upper()} to {STATES[new].upper()} at {time_ns} ns"
        if (WorldState(old), WorldState(new)) not in EDGES:
            raise SchedulingViolation(15, where)
        if COSTOP in (old, new) and not any(number in ids and len(ids) > 1 for _, _, _, ids in epochs):
            raise SchedulingViolation(15, f"{where}, and has no sibling")
        if new == MAX_LIMITED and not any(
            number in ids and begin <= time_ns <= end and _is_limited(host, plan)
            for begin, end, plan, ids in epochs
        ):
            raise SchedulingViolation(15, f"{where}, and has no limit")


def _is_limited(host: TestHost, plan: VmPlan) -> bool:
    pool, limited = plan.pool, plan.limit_hz is not None
    while pool >= 0:
        limited |= host.plan.pools[pool].limit_hz is not None
        pool = host.plan.pools[pool].parent
    return limited


def check_audit(host: TestHost, books: Books | None = None) -> None:
    """P18: every counter of every world and pCPU is what an audit of the trace alone finds; exact."""
    books = books if books is not None else books_of(host.sched)
    found = host.audit()
    for number, times in books.worlds.items():
        world = found.worlds.get(number)
        expected = _times_of(world) if world is not None else WorldTimes()
        if times != expected:
            raise SchedulingViolation(
                18, f"{host.describe(number)} at {host.now_ns} ns: {times}, the trace says {expected}"
            )
        counts = (books.dispatches[number], books.migrations[number])
        if world is not None and counts != (world.dispatches, world.migrations):
            text = f"{host.describe(number)}: dispatches, migrations {counts}, the trace says"
            raise SchedulingViolation(18, f"{text} {(world.dispatches, world.migrations)}")
    ended_ns = sum(world.time_ns(RUN) for number, world in found.worlds.items() if number not in books.worlds)
    if ended_ns != books.ended_run_ns:
        raise SchedulingViolation(
            18, f"ended worlds ran {books.ended_run_ns} ns, the trace says {ended_ns} ns"
        )
    for pcpu, audited in zip(books.pcpus, found.pcpus, strict=True):
        got_pcpu = (pcpu.busy_ns, pcpu.switch_ns, pcpu.idle_ns, pcpu.shared_ns)
        if got_pcpu != (audited.busy_ns, audited.switch_ns, audited.idle_ns, audited.shared_ns):
            text = f"pCPU {audited.index}: busy, switch, idle, shared {got_pcpu}, the trace says"
            found_pcpu = (audited.busy_ns, audited.switch_ns, audited.idle_ns, audited.shared_ns)
            raise SchedulingViolation(18, f"{text} {found_pcpu}")


_AUDITED = (
    "run_ns",
    "ready_ns",
    "max_limited_ns",
    "costop_ns",
    "idle_ns",
    "vm_wait_ns",
    "swap_wait_ns",
    "shared_ns",
    "overclock_units",
    "system_ns",
    "overlap_ns",
)


def _times_of(world: AuditedWorld) -> WorldTimes:
    states = (RUN, READY, MAX_LIMITED, COSTOP, IDLE, VM_WAIT, SWAP_WAIT)
    spent = [world.time_ns(state) for state in states]
    rest = [world.shared_ns, world.overclock_units, world.system_ns, world.overlap_ns]
    return WorldTimes(**dict(zip(_AUDITED, [*spent, *rest], strict=True)))
