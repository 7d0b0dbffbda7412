"""An audit of a scheduler: all CPU counters recomputed from its trace records alone.

Models: an outsider who has the records `sched.dispatch`, `sched.state`, `sched.idle` and `sched.interrupt`, the shape of
the host, and the changes of frequency that he has ordered himself.  From these follow each world's time in every state,
its pieces of run time, dispatches and migrations, what a busy sibling thread and the frequency made of its time, system
time and overlap; and each pCPU's busy, switching and idle time.  None of it uses code of the scheduler's accounting.

Leaves out: wake-ups that lead to no burst.

Sources: the meaning of the records, docs/trace-records.md; 62.5 % for a thread beside a busy one, the scheduler's facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise

from attrs import define, field, frozen

from sim.core.trace import Trace
from sim.testing.scheduling_violation import SchedulingViolation

__all__ = ["Audit", "AuditedPcpu", "AuditedWorld", "Entry", "Piece", "audit", "entries_of", "overlap_ns"]

RUN, READY, MAX_LIMITED, COSTOP, IDLE, VM_WAIT, SWAP_WAIT, ENDED, SWITCHING = range(9)
STATES = ("run", "ready", "max_limited", "costop", "idle", "vm_wait", "swap_wait", "ended")
"""The states by the numbers that the records use; SWITCHING is ready, with a pCPU that still switches to the world."""

WAITING_STATES = (IDLE, VM_WAIT, SWAP_WAIT)

Interval = tuple[int, int]
Entry = tuple[int, str, tuple[int, ...]]
"""Time, "dispatch", "state", "idle" or "interrupt", and the record's values."""

_KINDS = {
    "dispatch": ("pcpu", "world", "switch_ns"),
    "state": ("world", "old", "new"),
    "idle": ("pcpu",),
    "interrupt": ("world", "pcpu", "cost_ns"),
}


@frozen
class Piece:
    """A piece of time during which a world ran on a pCPU."""

    pcpu: int
    begin_ns: int
    end_ns: int


@define(eq=False)
class AuditedWorld:
    """What the trace tells about one world; `spans` are its states with begin and end, in order, none empty."""

    world_id: int
    born_ns: int
    state: int = VM_WAIT
    dispatches: int = 0
    migrations: int = 0
    spans: list[tuple[int, int, int]] = field(factory=list)
    pieces: list[Piece] = field(factory=list)
    shared_ns: int = 0
    overclock_units: int = 0
    system_ns: int = 0
    overlap_ns: int = 0
    used_ns: Fraction = Fraction(0)
    since_ns: int = 0
    pcpu: int = -1
    last_pcpu: int = -1

    def time_ns(self, *states: int) -> int:
        """Return how long it has been in some states; READY includes SWITCHING."""
        if READY in states:
            states = (*states, SWITCHING)
        return sum(end - begin for state, begin, end in self.spans if state in states)

    def enter(self, state: int, now_ns: int) -> None:
        """Close the present state; a run that was still being switched in counts as ready."""
        if self.state == RUN and self.since_ns > now_ns:
            self.cut(now_ns)
        elif self.state != ENDED and now_ns > self.since_ns:
            self.spans.append((self.state, self.since_ns, now_ns))
            if self.state == RUN:
                self.pieces.append(Piece(self.pcpu, self.since_ns, now_ns))
        self.state, self.since_ns = state, now_ns

    def cut(self, now_ns: int) -> None:
        """Let a switch that has not ended end now."""
        _, begin_ns, _ = self.spans.pop()
        if begin_ns < now_ns:
            self.spans.append((SWITCHING, begin_ns, now_ns))


@define(eq=False)
class AuditedPcpu:
    """What the trace tells about one pCPU; `idle` and `occupied` are disjoint intervals that cover its life."""

    index: int
    busy_ns: int = 0
    switch_ns: int = 0
    idle_ns: int = 0
    shared_ns: int = 0
    idle: list[Interval] = field(factory=list)
    occupied: list[Interval] = field(factory=list)
    switching: Interval = (0, 0)
    since_ns: int = 0
    is_idle: bool = True
    world: int = 0

    def turn(self, *, idle: bool, now_ns: int) -> None:
        """Become idle or occupied."""
        if idle == self.is_idle:
            return
        if now_ns > self.since_ns:
            (self.idle if self.is_idle else self.occupied).append((self.since_ns, now_ns))
        self.is_idle, self.since_ns = idle, now_ns


@define(eq=False)
class Audit:
    """Everything that an audit has found."""

    began_ns: int
    now_ns: int
    worlds: dict[int, AuditedWorld]
    pcpus: list[AuditedPcpu]
    edges: list[tuple[int, int, int, int]]  # time, world, old state, new state


def entries_of(trace: Trace) -> list[Entry]:
    """Return the records of a trace that concern CPU scheduling, in their order."""
    tables = trace.sink().tables
    rows: list[tuple[int, Entry]] = []
    for kind, names in _KINDS.items():
        table = tables.get(f"sched.{kind}")
        if table is not None:
            values = zip(*(table[name] for name in names), strict=True)
            for seq, time_ns, row in zip(table["seq"], table["time_ns"], values, strict=True):
                rows.append((seq, (time_ns, kind, row)))
    rows.sort()
    return [entry for _, entry in rows]


def audit(
    entries: Iterable[Entry],
    *,
    pcpus: int,
    threads: int,
    began_ns: int,
    now_ns: int,
    nominal_hz: int,
    frequencies: Sequence[tuple[int, int, int]] = (),
) -> Audit:
    """Recompute all counters up to now.

    `frequencies` are changes of a core's frequency: time, core, Hz.  Raises `SchedulingViolation` 18 when the records
    contradict each other.
    """
    made = [AuditedPcpu(index=index, since_ns=began_ns) for index in range(pcpus)]
    found = Audit(began_ns=began_ns, now_ns=now_ns, worlds={}, pcpus=made, edges=[])
    for time_ns, kind, values in entries:
        if kind == "idle":
            made[values[0]].turn(idle=True, now_ns=time_ns)
        elif kind == "state":
            _change(found, time_ns, *values)
        elif kind == "interrupt":
            _interrupt(found, time_ns, *values)
        else:
            _dispatch(found, time_ns, *values)
    _close(found)
    for pcpu in made:
        pcpu.idle_ns = sum(end - begin for begin, end in pcpu.idle)
    if threads > 1:
        for pcpu in made:
            first = pcpu.index - pcpu.index % threads
            others = [made[index] for index in range(first, first + threads) if index != pcpu.index]
            pcpu.shared_ns = sum(overlap_ns(pcpu.occupied, other.occupied) for other in others)
    for world in found.worlds.values():
        _value(world, made, threads, nominal_hz, frequencies)
    return found


def overlap_ns(one: Sequence[Interval], other: Sequence[Interval]) -> int:
    """Return for how long both of two sequences of disjoint intervals in rising order hold."""
    return sum(end - begin for begin, end in common(one, other))


def common(one: Sequence[Interval], other: Sequence[Interval]) -> Iterator[Interval]:
    """Yield the intervals in which both hold."""
    first = second = 0
    while first < len(one) and second < len(other):
        begin = max(one[first][0], other[second][0])
        end = min(one[first][1], other[second][1])
        if begin < end:
            yield begin, end
        if one[first][1] < other[second][1]:
            first += 1
        else:
            second += 1


def _world(found: Audit, number: int, time_ns: int) -> AuditedWorld:
    world = found.worlds.get(number)
    if world is None:
        world = found.worlds[number] = AuditedWorld(world_id=number, born_ns=time_ns, since_ns=time_ns)
    return world


def _change(found: Audit, time_ns: int, number: int, old: int, new: int) -> None:
    world = _world(found, number, time_ns)
    if world.state != old:
        text = f"world {number} leaves {STATES[old]} at {time_ns} ns, but the records put it in {STATES[world.state]}"
        raise SchedulingViolation(18, text)
    if old == RUN:
        pcpu = found.pcpus[world.pcpu]
        _settle(pcpu, world, time_ns)
    found.edges.append((time_ns, number, old, new))
    world.enter(new, time_ns)


def _settle(pcpu: AuditedPcpu, world: AuditedWorld, now_ns: int) -> None:
    """Count the switch to the world that leaves, and its run."""
    begin_ns, end_ns = pcpu.switching
    pcpu.switch_ns += max(0, min(end_ns, now_ns) - begin_ns)
    pcpu.busy_ns += max(0, now_ns - world.since_ns)
    pcpu.world = 0


def _dispatch(found: Audit, time_ns: int, index: int, number: int, switch_ns: int) -> None:
    world, pcpu = _world(found, number, time_ns), found.pcpus[index]
    if world.state != READY:
        text = (
            f"world {number} is dispatched at {time_ns} ns, but the records put it in {STATES[world.state]}"
        )
        raise SchedulingViolation(18, text)
    if pcpu.world:
        raise SchedulingViolation(
            18, f"worlds {pcpu.world} and {number} are both on pCPU {index} at {time_ns} ns"
        )
    pcpu.world = number
    found.edges.append((time_ns, number, READY, RUN))
    pcpu.turn(idle=False, now_ns=time_ns)
    pcpu.switching = (time_ns, time_ns + switch_ns)
    world.enter(SWITCHING, time_ns)
    world.enter(RUN, time_ns + switch_ns)
    world.pcpu = index
    world.dispatches += 1
    world.migrations += world.last_pcpu not in (-1, index)
    world.last_pcpu = index


def _interrupt(found: Audit, time_ns: int, number: int, index: int, cost_ns: int) -> None:
    """Count a service for a world, and whom it delays."""
    _world(found, number, time_ns).system_ns += cost_ns
    if index >= 0 and found.pcpus[index].world:
        found.worlds[found.pcpus[index].world].overlap_ns += cost_ns


def _close(found: Audit) -> None:
    """End everything that is going on at the end of the trace."""
    now_ns = found.now_ns
    for world in found.worlds.values():
        if world.state == RUN:
            _settle(found.pcpus[world.pcpu], world, now_ns)
        state, since_ns = world.state, world.since_ns
        world.enter(state, now_ns)
        world.since_ns = since_ns
    for pcpu in found.pcpus:
        if now_ns > pcpu.since_ns:
            (pcpu.idle if pcpu.is_idle else pcpu.occupied).append((pcpu.since_ns, now_ns))


def _value(
    world: AuditedWorld,
    pcpus: Sequence[AuditedPcpu],
    threads: int,
    nominal_hz: int,
    frequencies: Sequence[tuple[int, int, int]],
) -> None:
    """Find what the run time of a world was worth: beside a busy thread, and at each frequency."""
    for piece in world.pieces:
        core, thread = divmod(piece.pcpu, threads)
        busy = [
            interval
            for other in range(threads)
            if other != thread
            for interval in pcpus[core * threads + other].occupied
        ]
        changes = [(time_ns, hz) for time_ns, where, hz in frequencies if where == core]
        edges = [(0, nominal_hz), *changes, (piece.end_ns, 0)]
        for (begin_ns, hz), (end_ns, _) in pairwise(edges):
            part = (max(begin_ns, piece.begin_ns), min(end_ns, piece.end_ns))
            if part[0] >= part[1]:
                continue
            shared_ns = overlap_ns([part], busy)
            worth = Fraction(part[1] - part[0]) - Fraction(375, 1000) * shared_ns
            world.shared_ns += shared_ns
            world.used_ns += worth * Fraction(hz, nominal_hz)
            world.overclock_units += int(worth * 1000 * (hz - nominal_hz))
