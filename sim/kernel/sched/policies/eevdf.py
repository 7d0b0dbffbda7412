"""EEVDF: of the worlds that have not had more than their due, the one with the earliest virtual deadline runs.

Models: virtual time V, which moves on by 1/W for each unit of service (W: the weights of all competing worlds), kept as
the weighted mean of the worlds' own virtual times, which is the same; a request of one quantum, whose eligible time is
the world's virtual time and whose deadline is that plus the quantum over its weight; lag kept over a sleep, up to one
quantum.  On one CPU the lag of a busy world stays within one quantum, both ways.

With several CPUs there is one queue; weights that ask for more than one CPU are cut to it; and if no world is eligible
the one that is nearest to it runs, for no pCPU shall idle.  Between the ends of turns V does not know of service that
is under way on other pCPUs.  Those rules are ours, the paper has one CPU.

Leaves out: requests of other lengths than the quantum; reservations, pools, and preemption when a world wakes.

Source: Stoica and Abdel-Wahab, "Earliest eligible virtual deadline first", Old Dominion University TR-95-22, 1995.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from sim.errors import SimBug
from sim.kernel.sched.policies.virtual_time import VirtualTimePolicy, Weight

if TYPE_CHECKING:
    from sim.kernel.sched.pcpu import PcpuRunner
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["Eevdf"]

Entry = tuple[int, int, "World"]


class Eevdf(VirtualTimePolicy):
    """Eligible worlds by deadline; see the module.  `world.note` is the deadline of the request, or of a sleeping world its lag in ns."""

    name = "eevdf"

    def __init__(self) -> None:
        super().__init__(readjust=True)

    def attach(self, host: Scheduler) -> None:
        """Begin with empty queues."""
        super().attach(host)
        self._eligible: list[Entry] = []  # by deadline; an entry counts while its seq is the world's
        self._early: list[Entry] = []  # by eligible time: those that have had more than their due
        self._seq = 0
        self._moment: Weight = 0  # the sum of weight times virtual time over competing worlds: V times W

    def lag_ns(self, world: World) -> int:
        """Return how much CPU time a competing world is behind its due, in ns, rounded down; ahead is negative."""
        behind = self._moment - world.vtime * self.total
        return int(behind * self.weight_of(world) // (self.total * self.unit))

    def join(self, world: World, now_ns: int, *, fresh: bool) -> None:
        """Begin at V less the lag that was kept, with a new request."""
        self.settle(now_ns)
        kept_ns = 0 if fresh or world.note is None else world.note
        others = self.total
        world.vtime = world.note = int(self._moment // others) if others else 0
        self.enter(world)
        if others:  # its coming moves V, after which the lag shall be what was kept
            world.vtime -= int(kept_ns * world.price * self.total // others)
        self._moment += self.weight_of(world) * world.vtime
        self._request(world)
        self.rebalance()

    def leave(self, world: World, now_ns: int) -> None:
        """Keep the lag, up to one quantum; what the world owes or is owed is the others' from now on."""
        self.settle(now_ns)
        bound_ns = self.host.options.quantum_ns
        world.note = max(-bound_ns, min(bound_ns, self.lag_ns(world)))
        self._moment -= self.weight_of(world) * world.vtime
        self.depart(world)
        self.rebalance()

    def unlimited(self, world: World, now_ns: int) -> None:
        """Forget what a world is owed beyond one quantum since its limit had stopped it."""
        self.settle(now_ns)
        excess_ns = self.lag_ns(world) - self.host.options.quantum_ns
        if excess_ns > 0:
            world.vtime += excess_ns * world.price
            self._moment += excess_ns * world.price * self.weight_of(world)
            self._request(world)

    def charge(self, world: World, ran_ns: int) -> None:
        """Move the world's virtual time on, and V."""
        world.vtime += ran_ns * world.price
        self._moment += ran_ns * world.price * self.weight_of(world)

    def enqueue(self, world: World, now_ns: int) -> None:
        """Queue the present request, or a new one if that has been served."""
        if world.vtime >= world.note:
            self._request(world)
        self._seq += 1
        world.seq = self._seq
        self._put(world)

    def dequeue(self, world: World) -> None:
        """Let the world's entry no longer count."""
        world.seq = 0

    def pick(self, pcpu: PcpuRunner, now_ns: int) -> World | None:
        """Take the earliest deadline of the eligible, or who becomes eligible first."""
        early = self._early
        while early and (early[0][2].seq != early[0][1] or self._is_eligible(early[0][2])):
            _, seq, world = heappop(early)
            if world.seq == seq:
                heappush(self._eligible, (world.note, seq, world))
        found = self._take(self._eligible, pcpu, eligible=True)
        return found if found is not None else self._take(early, pcpu, eligible=False)

    def queued(self) -> int:
        """Count the entries that count."""
        return sum(world.seq == seq for heap in (self._eligible, self._early) for _, seq, world in heap)

    def reweighed(self, world: World, old: Weight, new: Weight) -> None:
        """Keep the lag of a world whose weight is readjusted, and V."""
        behind = self._moment - world.vtime * self.total  # V less its virtual time, times W
        place = int((self._moment - behind * old / new) // self.total)
        self._moment += new * place - old * world.vtime
        world.note = place + int((world.note - world.vtime) * old // new)
        world.vtime = place

    def stretched(self, factor: int) -> None:
        """Measure virtual time in the finer unit."""
        self._moment *= factor
        for world in self.competing.values():
            world.note *= factor
        self.reordered()

    def reordered(self) -> None:
        """Sort the queue again."""
        waiting = [
            world for heap in (self._eligible, self._early) for _, seq, world in heap if world.seq == seq
        ]
        self._eligible, self._early = [], []
        for world in waiting:
            self._put(world)

    def check_invariants(self) -> None:
        """Raise `SimBug` unless V follows from the worlds' own virtual times."""
        super().check_invariants()
        if self._moment != sum(self.weight_of(each) * each.vtime for each in self.competing.values()):
            raise SimBug("policy eevdf: the virtual time of the host is not the mean of the worlds'")

    def _request(self, world: World) -> None:
        world.note = world.vtime + self.host.options.quantum_ns * world.price

    def _is_eligible(self, world: World) -> bool:
        return world.vtime * self.total <= self._moment

    def _put(self, world: World) -> None:
        if self._is_eligible(world):
            heappush(self._eligible, (world.note, world.seq, world))
        else:
            heappush(self._early, (world.vtime, world.seq, world))

    def _take(self, heap: list[Entry], pcpu: PcpuRunner, *, eligible: bool) -> World | None:
        """Take the first entry that counts and may run here; V can go back, and then some are no longer eligible."""
        passed = []
        found = None
        while heap and found is None:
            entry = heappop(heap)
            world = entry[2]
            if world.seq != entry[1]:
                continue
            if eligible and not self._is_eligible(world):
                heappush(self._early, (world.vtime, world.seq, world))
            elif world.may_run_on(pcpu):
                found = world
                world.seq = 0
            else:
                passed.append(entry)
        for entry in passed:
            heappush(heap, entry)
        return found
