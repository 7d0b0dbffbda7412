"""The ESXi model: proportional share by consumed over entitled CPU time, with guarantees served first.

Models: READY worlds in order of virtual time (CPU time per share), in one queue for each last-level cache, each pCPU,
or the whole host (`sched.queues`); prices that follow the entitlement through reservations and pools (`weights`);
reservations that fall due go first (`reservation`); preemption when a world that is far behind wakes; a bound on what a
sleeper may catch up (`Cpu.BoundLagQuanta`); co-scheduling and limits, which the mechanism does.

Leaves out: the goodness of a placement as ESXi computes it, and what `Cpu.CreditAgePeriod` ages: neither is public.

Sources: proportional share by consumed time over shares as VMware describes its scheduler; start-time fair queueing,
Goyal, Vin and Cheng, SIGCOMM 1996; option names of ESXi.  Queue structure and wake-up rule are our own.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sim.core.engine import NEVER
from sim.errors import SimBug
from sim.kernel.sched.policies.esxi_queues import FIRST, EsxiQueues
from sim.kernel.sched.reservation import TURNS_WITH_RESERVATION, Guarantee, Reservation
from sim.kernel.world import COMPETING, WorldState

if TYPE_CHECKING:
    from sim.kernel.sched.pcpu import PcpuRunner
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["EsxiPolicy"]

_SPREAD_BITS = 16


def _spread(number: int) -> int:
    """Return the `number`-th point of a sequence that fills 0 to 2**16 evenly: the bits of the number, reversed.

    Worlds begin at such points of their first turn, so that many small shares do not all fall due together.
    """
    return int(f"{number & 0xFFFF:016b}"[::-1], 2)


def _spare(world: World, now_ns: int) -> int:
    """Return how well a reservation lets a running world stop: 3, none; 2, ahead; 1, can make up for it; 0, never can."""
    if world.reservation is None:
        return 3
    return 0 if world.reservation.guarantee.whole else 1 + world.reservation.ahead(now_ns)


class EsxiPolicy(EsxiQueues):
    """Shares, reservations and pools; see the module."""

    name = "esxi"
    coscheduling = True
    numa = True

    def attach(self, host: Scheduler) -> None:
        """Begin with empty queues."""
        super().attach(host)
        now_ns = host.sim.now
        self.pinned = 0  # competing worlds with an affinity
        self._vtime, self._vtime_at_ns = 0, now_ns
        self._alone_ns = (now_ns, now_ns)  # when all last had a pCPU each
        self._level_timer = host.sim.engine.timer(self._find_level)
        self._level_found_ns = now_ns - max(host.options.quantum_ns, host.options.entitlement_ns)
        self._begun = 0
        self._set_turn()
        self._claims: dict[tuple[object, ...], int] = {}  # what worlds are entitled to, numbered
        self._guarantees = 0  # how many reservations have been made for VMs of several vCPUs

    # -- time and price

    def quantum_ns(self, world: World) -> int:
        """Return a quantum, or half of one while a world with a reservation competes."""
        return self._turn_ns

    def charge(self, world: World, ran_ns: int) -> None:
        """Move the world's virtual time on; nobody pays for a pCPU that nobody else wants."""
        if self.contended or world.affinity != -1:
            world.vtime += ran_ns * world.price
        if world.reservation is not None:
            world.reservation.charge(ran_ns, self.host.sim.now)

    def vtime(self, now_ns: int) -> int:
        """Return the common virtual time: that of a world which has had its exact share, always."""
        if self.contended:
            return self._vtime + self.level * (now_ns - self._vtime_at_ns)
        return self._vtime

    # -- coming and going

    def allocated(self, world: World) -> None:
        """Note what the world is entitled to."""
        host, siblings = self.host, world.siblings
        total_hz = sum(each.reservation_hz for each in siblings)
        floor = None
        if len(siblings) > 1:
            held = (each.floor for each in siblings)
            floor = next((each for each in held if each is not None and each.number), None)
        if floor is not None:
            floor.set_total(total_hz, host.options.quantum_ns, host.sim.now)
        elif total_hz:
            self._guarantees += 1
            number = self._guarantees if len(siblings) > 1 else 0
            floor = Guarantee(total_hz, host.topology.core_hz, host.options.quantum_ns, number)
        if not total_hz:
            floor = None
        self._hold(world, floor)
        for each in siblings:
            if each.floor is not floor and each.state is WorldState.WAIT_VM:
                self._hold(each, floor)

    def _hold(self, world: World, floor: Guarantee | None) -> None:
        """Let a world at rest hold its part of its VM's reservation, and note what else it is entitled to."""
        world.floor = floor
        world.reservation = None if floor is None else Reservation(floor, self.host.sim.now)
        world.special = floor is not None or world.bucket is not None
        bucket = -1 if world.bucket is None else world.bucket.number
        pool = 0 if world.pool is None else world.pool.number
        part = None if floor is None else (floor.number or (floor.numerator, floor.denominator))
        claim = (world.weight, part, bucket, pool)
        world.claim = self._claims.setdefault(claim, len(self._claims))

    def join(self, world: World, now_ns: int, *, fresh: bool) -> None:
        """Count a world in, and bound what it may catch up."""
        weights = self.weights
        if world.weight not in weights.counts:
            self._learn(world.weight, now_ns)
        self._count(world, 1, now_ns)
        vtime, level = self._vtime, self.level
        if self.contended:
            vtime += level * (now_ns - self._vtime_at_ns)
        if world.affinity != -1:
            vtime = self._vtime_of_pinned(world, vtime)
        if fresh:
            world.price = weights.price(world, level)
            world.vtime = vtime
            if not self.host.idle.idle:
                self._begun += 1
                spread = self.host.options.quantum_ns * world.price * _spread(self._begun)
                world.vtime += spread >> _SPREAD_BITS
        else:
            price, old = weights.price(world, level), world.price
            if price != old:
                world.price = price
                world.vtime = vtime + (world.vtime - vtime) * price // old
        least = vtime - self._lag_ns * world.price  # what `_bound_lag` does
        if world.vtime < least:
            world.vtime = least
        if world.reservation is not None:
            world.reservation.wake(now_ns)

    def _vtime_of_pinned(self, world: World, vtime: int) -> int:
        """Return where a world with an affinity begins: level with those it shares pCPUs with, if they lag behind."""
        near = [other.vtime for other in self._pinned_worlds() if other.affinity & world.affinity]
        return min([vtime, *near])

    def _pinned_worlds(self) -> list[World]:
        return [each for each in self.host.competing() if each.affinity != -1]

    def leave(self, world: World, now_ns: int) -> None:
        """Count a world out."""
        self._count(world, -1, now_ns)

    def unlimited(self, world: World, now_ns: int) -> None:
        """Bound what a world may catch up that has stood in line."""
        self._bound_lag(world, self.vtime(now_ns), now_ns)

    def reconfigured(self) -> None:
        """Options, pools or pCPUs have changed: take in what follows from them."""
        host, now_ns = self.host, self.host.sim.now
        competing = host.competing()
        self._close_books(now_ns)
        self.weights.regroup(competing, pooled=bool(host.pools.pools))
        self.weights.cpus = sum(pcpu.online for pcpu in host.pcpus)
        self._set_turn()
        self.balancer.configure()
        if self.split:
            self._requeue_stranded(now_ns)
        contended = self.weights.contended or self.split
        if contended != self.contended:
            self._turn_contended(now_ns)
        if contended:
            self._level_timer.arm(now_ns)

    def _bound_lag(self, world: World, vtime: int, now_ns: int) -> None:
        """Forget all but a few quanta of what a world has missed while it did not compete."""
        least = vtime - self._lag_ns * world.price
        if world.vtime < least:
            world.vtime = least
        if world.reservation is not None:
            world.reservation.wake(now_ns)

    # -- preemption

    def victim(self, world: World, now_ns: int) -> PcpuRunner | None:
        """Of the pCPUs that may be looked at, return that whose world is furthest ahead, if it is ahead enough.

        What it has run of its present turn counts even if nobody else wanted the pCPU then.
        """
        found = None
        host, level = self.host, self.level
        plain, contended = self.plain_keys, self.contended
        furthest = world.vtime if plain or world.price > level else FIRST
        furthest += host.options.preempt_grain_ns * world.price
        begun_ns, ended_ns = self._alone_ns
        for pcpu in host.wakeup_candidates(world):
            runner = pcpu.world
            if runner is None or (runner.price <= level and not plain):
                continue
            reached = runner.vtime
            ran_ns = now_ns - runner.since_ns
            if ran_ns > 0 and (contended or runner.affinity != -1):
                reached += ran_ns * runner.price
            if ended_ns > pcpu.turn_from_ns:
                reached += (ended_ns - max(begun_ns, pcpu.turn_from_ns)) * runner.price
            if reached > furthest and runner.remaining_ns > ran_ns:
                found, furthest = pcpu, reached
        return found

    def makes_way(self, world: World, laggard: World) -> PcpuRunner | None:
        """Return the pCPU for a laggard: not that of a sibling which its reservation needs, if another can be had."""
        pcpu, held = world.pcpu, world.reservation
        if held is None or pcpu is None:
            return pcpu
        host, now_ns = self.host, self.host.sim.now
        pcpu.settle(now_ns)
        whole = held.guarantee.whole
        if not whole and held.ahead(now_ns):
            return pcpu
        least, furthest = 1 if whole else 2, None
        for other in host.pcpus:
            runner = other.world
            if runner is None or runner.exclusive is not None or runner.floor is held.guarantee:
                continue
            if other.online and host.fits(laggard, other):
                other.settle(now_ns)
                lead = (_spare(runner, now_ns), runner.vtime)
                better = lead[0] >= least and (furthest is None or lead > furthest)
                if better and runner.remaining_ns > 0:
                    pcpu, furthest = other, lead
        return pcpu

    # -- the level

    def _count(self, world: World, by: int, now_ns: int) -> None:
        """Count a world in or out of those that compete; the new level is found soon, once for all changes."""
        weights = self.weights
        weights.change(world, by)
        if (
            self._level_timer.due_ns == NEVER
            or self.contended is not (weights.count > weights.cpus)
            or self.reserved != weights.reserved
            or world.affinity != -1
        ):
            self._counted(world, by, now_ns)

    def _counted(self, world: World, by: int, now_ns: int) -> None:
        """Take in what follows from a world that has been counted in or out."""
        weights = self.weights
        if world.affinity != -1:
            self._close_books(now_ns)
            self.pinned += by
            self.plain_keys = self.split or self.pinned > 0
            self._compact()  # keys depend on whether there are any
        if self.reserved != weights.reserved:
            self.reserved = weights.reserved
            self._set_turn()
            self._divide(world, by, now_ns)
        contended = (
            weights.count > weights.cpus or self.split
        )  # of several queues one may be full, others empty
        if contended != self.contended:
            self._turn_contended(now_ns)
        if contended and self._level_timer.due_ns == NEVER:
            pause_ns = self.host.options.quantum_ns
            if weights.pooled:
                pause_ns = max(pause_ns, self.host.options.entitlement_ns)
            self._level_timer.arm(max(now_ns, self._level_found_ns + pause_ns))

    def _divide(self, world: World, by: int, now_ns: int) -> None:
        """Divide a VM's reservation anew over the vCPUs that compete: at once, not only when the level is found anew."""
        floor = world.floor
        if floor is None or not floor.number:
            return
        floor.count(by, now_ns)
        vtime = self.vtime(now_ns)
        for each in world.siblings:
            if each is world or each.floor is not floor or each.state not in COMPETING:
                continue
            if each.pcpu is not None:
                each.pcpu.settle(now_ns)
            self._reprice(each, vtime)
            if each.seq:
                self._renew(each)

    def _turn_contended(self, now_ns: int) -> None:
        """Go over to prices by entitlement, or back to a host that has CPUs enough."""
        contended = not self.contended
        self._close_books(now_ns)
        self._alone_ns = (self._alone_ns[0], now_ns) if contended else (now_ns, now_ns)
        self.contended = contended
        if contended and self.pinned:
            self._anchor_pinned()

    def _anchor_pinned(self) -> None:
        """Bring worlds with an affinity, which are charged always, back to the virtual time that has stood still."""
        worlds = self._pinned_worlds()
        ahead = min((world.vtime for world in worlds), default=0) - self._vtime
        if ahead > 0:
            for world in worlds:
                world.vtime -= ahead
            self._compact()

    def _set_turn(self) -> None:
        quantum_ns = self.host.options.quantum_ns
        self._lag_ns = self.host.options.bound_lag_quanta * quantum_ns
        self._turn_ns = max(1, quantum_ns // TURNS_WITH_RESERVATION) if self.reserved else quantum_ns

    def _find_level(self) -> None:
        """Timer: find the level and all prices that hang on it, at most once in a quantum."""
        if not self.contended:
            return
        now_ns = self._level_found_ns = self.host.sim.now
        self._close_books(now_ns)
        self.level = self.weights.find_level()
        changed = False
        for world in self.host.competing():
            changed |= self._reprice(world, self._vtime)
        if changed:
            self._compact()

    def _reprice(self, world: World, vtime: int) -> bool:
        """Give a world its present price; it stays ahead or behind by as much CPU time as it was."""
        price = self.weights.price(world, self.level)
        old, world.price = world.price, price
        if price == old:
            return False
        world.vtime = vtime + (world.vtime - vtime) * price // old
        return True

    def _close_books(self, now_ns: int) -> None:
        """Charge all that has run up to now, and move virtual time on, before rates change."""
        for pcpu in self.host.pcpus:
            pcpu.settle(now_ns)
        self._vtime = self.vtime(now_ns)
        self._vtime_at_ns = now_ns

    def _learn(self, weight: int, now_ns: int) -> None:
        """Make virtual time fine enough for a new weight."""
        self._close_books(now_ns)
        new, old = self.weights.learn(weight)
        self._vtime = self._vtime * new // old
        self.level = self.level * new // old
        for world in self.host.worlds.values():
            world.vtime = world.vtime * new // old
            world.price = max(1, world.price * new // old)
        self._compact()

    def check_invariants(self) -> None:
        """Raise `SimBug` unless queue and counts agree with the worlds."""
        queued = {seq: world for heap in self.heaps for _, seq, world in heap if world.seq == seq}
        counts = [sum(world.seq == seq for _, seq, world in heap) for heap in self.heaps]
        if counts != self.balancer.waiting:
            raise SimBug(f"{counts} worlds wait in the queues, {self.balancer.waiting} are counted")
        competing = self.host.competing()
        for world in self.host.worlds.values():
            if self.host.is_queued(world) != (world.seq in queued and queued[world.seq] is world):
                raise SimBug(f"world {world.world_id} is {world.state.name}, queue number {world.seq}")
        if len(competing) != self.weights.count:
            raise SimBug(f"{len(competing)} worlds compete, {self.weights.count} are counted")
        holders = Counter(world.floor.number for world in competing if world.floor is not None)
        for world in competing:
            floor = world.floor
            if floor is not None and floor.number and floor.competing != (count := holders[floor.number]):
                raise SimBug(f"world {world.world_id}: {floor.competing} vCPUs hold what {count} compete for")
        self.weights.check_invariants()
