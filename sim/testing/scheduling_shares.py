"""Invariants of who gets how much: lag, reservation, starvation, sleep credit, the fluid ideal (P3 4 6 14 17).

Each function takes a host that has played a plan of the family that `sim.testing.scheduling_checks` names for it, under
any policy, and looks at its trace alone.  Bounds are in quanta, and the service is compared at every moment at which
it could be worst: the ends of runs.

Leaves out several queues, and threads that share a core: the bounds are stated for one queue of equal CPUs.

Sources: the numbers and tolerances are those of the scheduler's fact sheet; docs/testing-schedulers.md tells them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from fractions import Fraction
from itertools import accumulate, pairwise
from math import ceil

from sim.kernel.sched.fluid import Claim, fluid_shares
from sim.testing.scheduling_audit import ENDED, READY, RUN, SWITCHING, WAITING_STATES, AuditedWorld
from sim.testing.scheduling_host import TestHost
from sim.testing.scheduling_plan import HZ, SchedPlan
from sim.testing.scheduling_violation import SchedulingViolation

__all__ = [
    "check_fluid",
    "check_lag",
    "check_no_starvation",
    "check_reservation",
    "check_sleep_credit",
    "fluid_ideal",
]


def fluid_ideal(plan: SchedPlan) -> tuple[Fraction, ...]:
    """Return the CPUs that each one-vCPU VM of a plan is entitled to while all of them are busy."""
    claims = []
    for vm in plan.vms:
        ceiling = Fraction(1) if vm.limit_hz is None else min(Fraction(1), Fraction(vm.limit_hz, HZ))
        claims.append(Claim(weight=vm.shares, floor=Fraction(vm.reservation_hz, HZ), ceiling=ceiling))
    return fluid_shares(plan.cpus, claims).shares


def _worlds(host: TestHost) -> list[AuditedWorld]:
    """Return what the trace tells about the only vCPU of each VM."""
    found = host.audit()
    return [found.worlds[machine.history[0][2][0]] for machine in host.machines]


def _worst_error(world: AuditedWorld, share: Fraction, now_ns: int) -> tuple[Fraction, int, Fraction, int]:
    """Return the most that a world was behind its share and ahead of it, in ns, and when."""
    behind, ahead = Fraction(0), Fraction(0)
    behind_at = ahead_at = 0
    served = 0
    for begin_ns, end_ns in [*((piece.begin_ns, piece.end_ns) for piece in world.pieces), (now_ns, now_ns)]:
        lag = share * begin_ns - served
        if lag > behind:
            behind, behind_at = lag, begin_ns
        served += end_ns - begin_ns
        lead = served - share * end_ns
        if lead > ahead:
            ahead, ahead_at = lead, end_ns
    return behind, behind_at, ahead, ahead_at


def _check_error(host: TestHost, number: int, quanta: int) -> None:
    plan = host.plan
    for world, share in zip(_worlds(host), fluid_ideal(plan), strict=True):
        behind, behind_at, ahead, ahead_at = _worst_error(world, share, host.now_ns)
        for error, time_ns, word in ((behind, behind_at, "behind"), (ahead, ahead_at, "ahead of")):
            if error > quanta * plan.quantum_ns:
                text = (
                    f"{host.describe(world.world_id)} is {float(error) / plan.quantum_ns:.2f} quanta {word}"
                    f" its fluid share of {float(share):.4f} CPU at {time_ns} ns; the bound is {quanta}"
                )
                raise SchedulingViolation(number, text)


def check_lag(host: TestHost, quanta: int = 3) -> None:
    """P3: with busy worlds and shares alone, |fluid share - service| never exceeds so many quanta.

    Tolerance: 1 quantum for EEVDF on one CPU; c quanta on several, of which 2.05 have been seen; we keep 3.
    """
    _check_error(host, 3, quanta)


def check_fluid(host: TestHost, quanta: int = 3) -> None:
    """P17: with steady demand, shares, reservations and limits, service keeps to the fluid ideal; tolerance 3 quanta."""
    _check_error(host, 17, quanta)


def check_reservation(host: TestHost, quanta: int = 2) -> None:
    """P4: in every interval in which a world is RUN or READY throughout, it runs at least reservation x T - 2 quanta.

    Each vCPU of a VM is judged by itself: by an equal part of its reservation, and by its part as it was at each moment,
    for the vCPUs that compete divide it, none holding over one CPU.  A part that grows with every sleep of a sibling may
    leave nothing by which to make up for a turn: there one quantum more is allowed.  Co-stop ends an interval.
    """
    found = host.audit()
    for machine, vm in zip(host.machines, host.plan.vms, strict=True):
        worlds = [found.worlds[number] for number in machine.history[0][2]]
        rate = Fraction(vm.reservation_hz, HZ)
        for world in worlds if rate else ():
            _check_reserved(host, world, [(*span, rate) for span in world.spans], quanta)
            if len(worlds) > 1:
                _check_reserved(host, world, _parts(world, worlds, rate * len(worlds)), quanta + 1)


def _parts(
    world: AuditedWorld, siblings: list[AuditedWorld], total: Fraction
) -> list[tuple[int, int, int, Fraction]]:
    """Return the spans in which a world competes, cut where another number of siblings competes, each with its part of `total`."""
    changes: dict[int, int] = {}
    for each in siblings:
        for state, begin_ns, end_ns in each.spans:
            if state not in WAITING_STATES and state != ENDED:
                changes[begin_ns] = changes.get(begin_ns, 0) + 1
                changes[end_ns] = changes.get(end_ns, 0) - 1
    times = sorted(changes)
    counts = list(accumulate(changes[time_ns] for time_ns in times))
    parts = []
    for state, begin_ns, end_ns in world.spans:
        if state in WAITING_STATES or state == ENDED:
            continue
        cuts = [begin_ns, *times[bisect_right(times, begin_ns) : bisect_left(times, end_ns)], end_ns]
        for index, (since_ns, until_ns) in enumerate(pairwise(cuts), bisect_right(times, begin_ns) - 1):
            parts.append((state, since_ns, until_ns, min(Fraction(1), total / counts[index])))
    return parts


def _check_reserved(
    host: TestHost, world: AuditedWorld, parts: list[tuple[int, int, int, Fraction]], quanta: int
) -> None:
    """Follow what a world is owed, and the least that it was owed since it became runnable."""
    owed, least, least_ns = Fraction(0), Fraction(0), 0
    before_ns = -1
    for state, begin_ns, end_ns, rate in parts:
        if state not in (RUN, READY, SWITCHING) or begin_ns != before_ns:
            owed, least, least_ns = Fraction(0), Fraction(0), begin_ns
        if state not in (RUN, READY, SWITCHING):
            before_ns = -1
            continue
        before_ns = end_ns
        owed += rate * (end_ns - begin_ns) - (end_ns - begin_ns if state == RUN else 0)
        if owed < least:
            least, least_ns = owed, end_ns
        if owed - least > quanta * host.plan.quantum_ns:
            text = (
                f"{host.describe(world.world_id)} was runnable from {least_ns} to {end_ns} ns and got"
                f" {float(owed - least) / host.plan.quantum_ns:.2f} quanta less than its reservation of"
                f" {float(rate):.4f} CPU; the bound is {quanta}"
            )
            raise SchedulingViolation(4, text)


def check_no_starvation(host: TestHost) -> None:
    """P6: a READY world with shares w of W runs within (ceil(W / w) + n) quanta over the number of CPUs."""
    plan = host.plan
    total, count = sum(vm.shares for vm in plan.vms), len(plan.vms)
    for world, vm in zip(_worlds(host), plan.vms, strict=True):
        turns = ceil(Fraction(total, vm.shares)) + count
        bound_ns = Fraction(turns * plan.quantum_ns, plan.cpus)
        for state, begin_ns, end_ns in world.spans:
            if state == READY and end_ns - begin_ns > bound_ns:
                text = (
                    f"{host.describe(world.world_id)} with {vm.shares} of {total} shares waits from {begin_ns} to"
                    f" {end_ns} ns; the bound is {float(bound_ns):.0f} ns"
                )
                raise SchedulingViolation(6, text)


def check_sleep_credit(host: TestHost, quanta: int = 8) -> None:
    """P14: after a sleep, service beyond the fair share is at most 8 quanta, and 2 of ordinary error."""
    plan = host.plan
    resumed_ns = max(action.time_us * 1000 * plan.scale for action in plan.actions)
    world, share = _worlds(host)[-1], fluid_ideal(plan)[-1]
    gained = 0
    for piece in world.pieces:
        if piece.end_ns <= resumed_ns:
            continue
        gained += piece.end_ns - max(piece.begin_ns, resumed_ns)
        extra = gained - share * (piece.end_ns - resumed_ns)
        if extra > (quanta + 2) * plan.quantum_ns:
            text = (
                f"{host.describe(world.world_id)} slept until {resumed_ns} ns and has by {piece.end_ns} ns run"
                f" {float(extra) / plan.quantum_ns:.2f} quanta more than its share; the bound is {quanta} + 2"
            )
            raise SchedulingViolation(14, text)
