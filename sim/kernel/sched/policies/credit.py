"""Xen's credit scheduler (credit1): credits by weight every 30 ms, spent while running; UNDER before OVER.

Models: accounting every 30 ms, which gives all pCPUs' credits of that time to the active vCPUs by weight; debit by the
time that really ran; a vCPU with credit left is UNDER, one without OVER, and one that wakes while UNDER is BOOST until
the next tick, and takes a pCPU from a lower one; turns of 30 ms; caps, by which a VM earns at most its limit and is
parked while it has overdrawn; a vCPU that has saved more than one turn's credit earns no more until a tick finds it running or it has spent
what it had (without the latter a sleeper in step with the ticks would never earn again).
A turn lasts at least the rate limit of 1 ms before a wake-up ends it (`sched.preempt_grain`, whose default is the same).

The weights are shares of single vCPUs (Xen's are of domains, split over their active vCPUs); one queue for the host (Xen
has one a pCPU, and idle or OVER pCPUs steal better work); one tick for all pCPUs (Xen's are staggered).  A parked vCPU
counts as READY, so that a limit shows in %RDY and not in %MLMTD.  What caps leave is not given out as credit to others,
who still may run as OVER.

Leaves out: credit2's runqueues and load balance (only its rate limit is public enough to use); NUMA; reservations, which
Xen has none of; of a capped VM below a limited pool the cap is the pool's bucket, not Xen's.

Sources: Xen's documentation of the credit scheduler (weight, cap, 30 ms, UNDER and OVER); Cherkasova, Gupta and Vahdat,
"Comparison of the three CPU schedulers in Xen", 2007 (10 ms ticks, boost).  Both recalled, not read again: see the kinds
of the facts.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import attrs

from sim.core.facts import fact
from sim.core.units import MS
from sim.errors import SimBug
from sim.kernel.sched.policy import Policy

if TYPE_CHECKING:
    from sim.kernel.sched.limit import LimitBucket
    from sim.kernel.sched.pcpu import PcpuRunner
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["Credit"]

_XEN = "Xen credit scheduler, as documented by the Xen project; recalled"
SLICE_NS = fact("credit.slice_ns", 30 * MS, unit="ns", source=_XEN, kind="inferred")
TICK_NS = fact("credit.tick_ns", 10 * MS, unit="ns", source=_XEN, kind="inferred")

BOOST, UNDER, OVER, PARKED = range(4)


@attrs.define(slots=True)
class Account:
    """A vCPU's credit, in ns of CPU time; whether it earns, and its priority."""

    credit_ns: int = 0
    active: bool = False
    priority: int = UNDER
    cap: LimitBucket | None = None


class Credit(Policy):
    """Credits, ticks and priorities; see the module.  `world.note` is its account."""

    name = "credit"

    def attach(self, host: Scheduler) -> None:
        """Begin with empty queues."""
        super().attach(host)
        self._queues: list[OrderedDict[int, World]] = [OrderedDict() for _ in range(4)]
        self._competing: dict[int, World] = {}
        self._ticks = 0
        self._timer = host.sim.engine.timer(self._tick)

    def quantum_ns(self, world: World) -> int:
        """Return Xen's 30 ms, whatever the quantum of ESXi's options."""
        return SLICE_NS.value

    def allocated(self, world: World) -> None:
        """Open an account; a VM's own limit becomes its cap."""
        if not isinstance(world.note, Account):
            world.note = Account()
        bucket = world.bucket
        world.note.cap = None
        if bucket is not None and bucket.parent is None:
            world.note.cap = bucket
            world.bucket = None
            world.gated = world.group is not None

    def join(self, world: World, now_ns: int, *, fresh: bool) -> None:
        """Boost a vCPU that wakes with credit left; a fresh one is UNDER."""
        account: Account = world.note
        self._competing[world.world_id] = world
        if account.priority == UNDER and not fresh:
            account.priority = BOOST
        if fresh:
            account.active = True
        if not self._timer.armed:
            self._timer.arm((now_ns // TICK_NS.value + 1) * TICK_NS.value)

    def leave(self, world: World, now_ns: int) -> None:
        """Keep the account as it is."""
        del self._competing[world.world_id]

    def charge(self, world: World, ran_ns: int) -> None:
        """Pay for what has run."""
        account: Account = world.note
        account.credit_ns -= ran_ns
        if account.credit_ns < 0:
            account.active = True

    def preempts(self, candidate: World, running: World, now_ns: int) -> bool:
        """Let a better priority take the pCPU."""
        mine: Account = candidate.note
        return bool(mine.priority < running.note.priority)

    def place(self, world: World, now_ns: int) -> PcpuRunner | None:
        """Start on an idle pCPU, unless parked."""
        return None if world.note.priority == PARKED else super().place(world, now_ns)

    def enqueue(self, world: World, now_ns: int) -> None:
        """Go to the end of those of the same priority."""
        world.seq = world.note.priority + 1
        self._queues[world.note.priority][world.world_id] = world

    def dequeue(self, world: World) -> None:
        """Leave the queue."""
        del self._queues[world.seq - 1][world.world_id]
        world.seq = 0

    def pick(self, pcpu: PcpuRunner, now_ns: int) -> World | None:
        """Take the first of the best priority that may run here; never a parked one."""
        for queue in self._queues[:PARKED]:
            for world in queue.values():
                if world.may_run_on(pcpu):
                    self.dequeue(world)
                    return world
        return None

    def patience_ns(self) -> int:
        """Return no bound while any is parked: it waits beside an idle pCPU until its debt is paid."""
        return 1 << 62 if self._queues[PARKED] else 0

    def queued(self) -> int:
        """Count the queues, parked vCPUs too."""
        return sum(map(len, self._queues))

    # -- time

    def _tick(self) -> None:
        """Timer, every 10 ms: boosts end, sleepers found running earn again; every third time credit is given out."""
        now_ns = self.host.sim.now
        for pcpu in self.host.pcpus:
            pcpu.settle(now_ns)
            if pcpu.world is not None and pcpu.world.exclusive is None:
                account: Account = pcpu.world.note
                account.active = True
                if account.priority == BOOST:
                    account.priority = UNDER
        self._ticks += 1
        if self._ticks % (SLICE_NS.value // TICK_NS.value) == 0:
            self._give_out(now_ns)
        if self._competing:
            self._timer.arm(now_ns + TICK_NS.value)

    def _give_out(self, now_ns: int) -> None:
        """Give the credit of one accounting period to the active vCPUs by weight, capped, and set priorities."""
        worlds = [world for world in self.host.worlds.values() if world.note.active]
        total = sum(world.weight for world in worlds)
        supply_ns = SLICE_NS.value * self.host.online.bit_count()
        capped: dict[int, int] = {}
        for world in worlds:
            if world.note.cap is not None:
                capped[world.note.cap.number] = capped.get(world.note.cap.number, 0) + 1
        for world in worlds:
            account: Account = world.note
            earned_ns = supply_ns * world.weight // total
            floor_ns = -SLICE_NS.value
            if account.cap is not None:
                cap, sharers = account.cap, capped[account.cap.number]
                cap_ns = SLICE_NS.value * cap.numerator // (cap.denominator * sharers)
                earned_ns, floor_ns = min(earned_ns, cap_ns), -(1 << 62)
            account.credit_ns = max(floor_ns, account.credit_ns + earned_ns)
            self._judge(world, account)
        self._wake_idle()

    def _judge(self, world: World, account: Account) -> None:
        """Set a vCPU's priority by its credit; a running one that must be parked goes off its pCPU."""
        if account.credit_ns < 0:
            wanted = PARKED if account.cap is not None else OVER
        else:
            wanted = UNDER if account.priority != BOOST else BOOST
            if account.credit_ns > SLICE_NS.value:
                account.credit_ns //= 2
                account.active = False
        if wanted == account.priority:
            return
        queued = world.seq > 0
        if queued:
            self.dequeue(world)
        account.priority = wanted
        if queued:
            self.enqueue(world, self.host.sim.now)
        elif wanted == PARKED and world.pcpu is not None:
            self.host.kick(world.pcpu)

    def _wake_idle(self) -> None:
        """Let idle pCPUs look at those that are no longer parked."""
        if sum(map(len, self._queues[:PARKED])):
            for pcpu in self.host.pcpus:
                if pcpu.online and pcpu.world is None:
                    self.host.kick(pcpu)

    def check_invariants(self) -> None:
        """Raise `SimBug` unless every queued vCPU stands with its priority."""
        for priority, queue in enumerate(self._queues):
            for world in queue.values():
                if world.note.priority != priority or world.seq != priority + 1:
                    raise SimBug(f"world {world.world_id} is queued with priority {priority}")
                if priority == PARKED and not world.note.active:
                    raise SimBug(f"world {world.world_id} is parked and earns nothing")
