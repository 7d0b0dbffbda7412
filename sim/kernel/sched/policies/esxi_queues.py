"""The queues of the ESXi model: READY worlds by virtual time, for each last-level cache, each pCPU or the whole host.

Models: who is first in a queue, whose reservation is due, and where a pCPU looks whose queue is empty, or whose level's
period is over (`balance`).  Leaves out what virtual time costs (`esxi`).

Sources: structure is our own; it is not public.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heappushpop
from typing import TYPE_CHECKING

from sim.kernel.sched.balance import Balancer
from sim.kernel.sched.policy import Policy
from sim.kernel.sched.reservation import DueQueue
from sim.kernel.sched.weights import ActiveWeights

if TYPE_CHECKING:
    from sim.kernel.sched.pcpu import PcpuRunner
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["FIRST", "EsxiQueues"]

Entry = tuple[int, int, "World"]

FIRST = -(1 << 256)
"""A place in the queue before any virtual time."""


class EsxiQueues(Policy):
    """READY worlds in order; what they are ordered by is the policy's that derives from this."""

    def attach(self, host: Scheduler) -> None:
        """Begin with empty queues."""
        super().attach(host)
        self.balancer = Balancer(host)
        count = len(self.balancer.members)
        self.heaps: list[list[Entry]] = [
            [] for _ in range(count)
        ]  # READY worlds by virtual time; never replaced
        self.dues = [DueQueue() for _ in range(count)]
        self.split = count > 1
        self.plain_keys = (
            self.split
        )  # whether even a world that is entitled to a whole CPU waits by virtual time
        self.weights = ActiveWeights(len(host.topology.pcpus))
        self.seq = 0
        self.reserved = 0  # competing worlds with a reservation
        self.contended = False
        self.level = 0  # the price of a whole CPU (see `weights`), at which virtual time goes on
        self._search_timer = host.sim.engine.timer(self._search)
        self._turn_ns = host.options.quantum_ns

    def vtime(self, now_ns: int) -> int:
        """Return the common virtual time."""
        raise NotImplementedError

    def place(self, world: World, now_ns: int) -> PcpuRunner | None:
        """Return an idle pCPU; if there is none, the world goes to the shortest of the nearest queues."""
        pcpu = self.host.idle_pcpu(world) if self.host.idle.idle else None
        if pcpu is None and self.split:
            world.queue = self.balancer.choose(world, self.host.options.wakeup_pcpus)
        return pcpu

    def enqueue(self, world: World, now_ns: int) -> None:
        """Put a world in by its virtual time: where it was queued last, if it may still run there."""
        number = 0
        balancer = self.balancer
        if self.split:
            number = world.queue
            if number < 0 or not balancer.masks[number] & self.host.allowed(world):
                number = world.queue = balancer.choose(world, 1)
        self.seq = world.seq = seq = self.seq + 1
        heap = self.heaps[number]
        first = world.price <= self.level and not self.plain_keys
        heappush(heap, (FIRST if first else world.vtime, seq, world))
        balancer.waiting[number] += 1
        if world.reservation is not None:
            self.dues[number].push(world, seq)
        if (
            world.bucket is not None
            and world.vtime > self.vtime(now_ns)
            and self.weights.is_bound(world, self.level)
        ):
            self.host.limit(world, now_ns)
        if len(heap) > 4 * self.weights.count + 256:
            self._compact()

    def dequeue(self, world: World) -> None:
        """Let the world's entry no longer count."""
        world.seq = 0
        self.balancer.waiting[max(world.queue, 0)] -= 1

    def pick(self, pcpu: PcpuRunner, now_ns: int) -> World | None:
        """Take the world that runs next: one whose reservation is due, or the first by shares; here or near by."""
        if not self.plain_keys and not self.reserved:  # the hot path: one queue, and anybody may run here
            heap = self.heaps[0]
            while heap:
                _, seq, world = heappop(heap)
                if world.seq == seq:
                    world.seq = 0
                    self.balancer.waiting[0] -= 1
                    return world
            return None
        return self._pick_slowly(pcpu, now_ns)

    def _pick_slowly(self, pcpu: PcpuRunner, now_ns: int) -> World | None:
        """Take the next world where there are several queues, affinities or reservations."""
        world = self._take(pcpu.queue, pcpu, now_ns)
        if not self.split:
            return world
        balancer = self.balancer
        if world is None:
            for number in balancer.nearest(pcpu.queue)[: balancer.pull_max]:
                if balancer.waiting[number] and (found := self._take(number, pcpu, now_ns)) is not None:
                    return self._adopt(found, pcpu)
            if any(balancer.waiting):
                self._search_soon(now_ns)
            return None
        for number in balancer.looks(pcpu, now_ns):
            other = self._first(number, pcpu)
            if other is not None and other.vtime < world.vtime - self._turn_ns * world.price:
                self.enqueue(world, now_ns)
                self.dequeue(other)
                return self._adopt(other, pcpu)
        return self._adopt(world, pcpu)

    def swap(self, pcpu: PcpuRunner, world: World, now_ns: int) -> World | None:
        """End a turn; the same world goes on if it is entitled to a whole CPU, and could never make up for a lost turn."""
        if self.plain_keys:
            if self.split and not self.balancer.waiting[pcpu.queue] and not any(self.balancer.waiting):
                return world
            self.enqueue(world, now_ns)
            return self.pick(pcpu, now_ns)
        if world.price <= self.level or not self.contended:
            return world
        if self.reserved:
            self.enqueue(world, now_ns)
            return self.pick(pcpu, now_ns)
        world.seq = self.seq = seq = self.seq + 1
        heap = self.heaps[0]
        entry = heappushpop(heap, (world.vtime, seq, world))
        while entry[2].seq != entry[1]:
            entry = heappop(heap)
        following = entry[2]
        following.seq = 0
        return following

    def moved(self, world: World, pcpu: PcpuRunner) -> None:
        """Let the world belong to the queue of its new pCPU."""
        world.queue = pcpu.queue

    def queued(self) -> int:
        """Count the entries that count."""
        return sum(world.seq == seq for heap in self.heaps for _, seq, world in heap)

    def patience_ns(self) -> int:
        """Return the longest rebalance period, if there are several queues."""
        return self.balancer.patience_ns if self.split else 0

    def _take(self, number: int, pcpu: PcpuRunner, now_ns: int) -> World | None:
        """Take the first world of a queue that may run on `pcpu`."""
        world = self.dues[number].pop(now_ns, pcpu) if self.reserved else None
        if world is None:
            world = self._first(number, pcpu)
        if world is not None:
            world.seq = 0
            self.balancer.waiting[number] -= 1
        return world

    def _first(self, number: int, pcpu: PcpuRunner) -> World | None:
        """Return the first world of a queue that may run on `pcpu`; entries that no longer count are dropped."""
        heap = self.heaps[number]
        passed = []
        found = None
        while heap:
            _, seq, world = heap[0]
            if world.seq != seq:
                heappop(heap)
            elif self.plain_keys and not self.host.fits(world, pcpu):
                passed.append(heappop(heap))
            else:
                found = world
                break
        for entry in passed:
            heappush(heap, entry)
        return found

    def _adopt(self, world: World, pcpu: PcpuRunner) -> World:
        world.queue = pcpu.queue
        return world

    def _search_soon(self, now_ns: int) -> None:
        if not self._search_timer.armed:
            self._search_timer.arm(self.balancer.search_begins(now_ns))

    def _search(self) -> None:
        """Timer: pCPUs that are idle look into every queue of a level whose period is over."""
        now_ns = self.host.sim.now
        levels = self.balancer.search_levels(now_ns)
        for pcpu in self.host.pcpus:
            if pcpu.world is not None or not pcpu.online:
                continue
            for number in self.balancer.within(pcpu.queue, levels):
                if self.balancer.waiting[number] and (world := self._first(number, pcpu)) is not None:
                    self.dequeue(world)
                    self._adopt(world, pcpu)
                    if self.host.admit(world, now_ns):
                        pcpu.start(world, now_ns)
                    break
        idle = any(pcpu.world is None and pcpu.online for pcpu in self.host.pcpus)
        if idle and any(self.balancer.waiting):
            self._search_timer.arm(self.balancer.search_begins(now_ns))

    def _key(self, world: World) -> int:
        """Return a world's place in the queue: one that is entitled to a whole CPU goes before all others."""
        return FIRST if world.price <= self.level and not self.plain_keys else world.vtime

    def _renew(self, world: World) -> None:
        """Let a queued world wait by its present price and reservation; its old entries count no more."""
        number = max(world.queue, 0)
        self.seq = world.seq = seq = self.seq + 1
        heappush(self.heaps[number], (self._key(world), seq, world))
        self.dues[number].push(world, seq)

    def _requeue_stranded(self, now_ns: int) -> None:
        """Move the worlds out of queues of which no pCPU is left for them, in the order in which they were queued."""
        queued = [world for world in self.host.worlds.values() if self.host.is_queued(world)]
        for world in sorted(queued, key=lambda each: each.seq):
            if self.host.is_queued(world) and not self.balancer.masks[world.queue] & self.host.allowed(world):
                self.dequeue(world)
                self.host.place(world, now_ns)

    def _compact(self) -> None:
        """Rebuild the queues without the entries that no longer count."""
        for heap, due in zip(self.heaps, self.dues, strict=True):
            heap[:] = [(self._key(world), seq, world) for _, seq, world in heap if world.seq == seq]
            heapify(heap)
            due.compact()
