"""Stride scheduling: the world with the smallest pass runs, and its pass moves on by its stride for each quantum.

Models: one queue for the host; pass and stride as virtual time (`virtual_time`), charged for the time that really ran,
so that an early end of a turn costs its part; a first pass of one stride; a global pass, and the distance to it that a
world keeps while it sleeps, at most `Cpu.BoundLagQuanta` quanta.  As an option, start tags (first pass 0, and a newcomer
begins at the smallest pass), and readjustment of weights that ask for more than one CPU.

On one CPU any two busy worlds are within one quantum of their ratio; the error against the ideal share is not bounded by
that, it grows with the number of worlds.  With several CPUs and infeasible weights a newcomer locks others out for a time
without bound, unless weights are readjusted: policy `stridefeasible`.

Leaves out: the hierarchical variant; tickets lent; reservations, pools, and preemption when a world wakes.

Sources: Waldspurger and Weihl, "Stride scheduling", MIT/LCS/TM-528, 1995; Chandra et al., OSDI 2000.  One queue for
several CPUs, and ties for the older world, are ours.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from sim.kernel.sched.policies.virtual_time import VirtualTimePolicy, Weight
from sim.kernel.world import WorldState

if TYPE_CHECKING:
    from sim.kernel.sched.pcpu import PcpuRunner
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["FeasibleStride", "Stride"]

Entry = tuple[int, int, int, "World"]


class Stride(VirtualTimePolicy):
    """The smallest pass runs; see the module.  `start_tags`: newcomers begin at the smallest pass there is."""

    name = "stride"

    def __init__(self, *, readjust: bool = False, start_tags: bool = False) -> None:
        super().__init__(readjust=readjust)
        self.start_tags = start_tags

    def attach(self, host: Scheduler) -> None:
        """Begin with an empty queue."""
        super().attach(host)
        self._heap: list[
            Entry
        ] = []  # READY worlds by pass, the older first; an entry counts while its seq does
        self._seq = 0
        self._pass = 0  # the global one
        self._served_ns = 0  # to all worlds since the global pass was moved

    def join(self, world: World, now_ns: int, *, fresh: bool) -> None:
        """Begin at the global pass, as far from it as when the world went to sleep (at first: one stride)."""
        self.settle(now_ns)
        kept_ns = self.host.options.quantum_ns if fresh or world.note is None else world.note
        self.enter(world)
        self.rebalance()
        if self.start_tags:
            others = (other.vtime for other in self.competing.values() if other is not world)
            world.vtime = max(world.vtime, min(others, default=0))
        else:
            world.vtime = self._pass + kept_ns * world.price

    def leave(self, world: World, now_ns: int) -> None:
        """Keep the distance to the global pass, as CPU time."""
        self.settle(now_ns)
        bound_ns = self.host.options.bound_lag_quanta * self.host.options.quantum_ns
        kept_ns = (world.vtime - self._pass) // world.price
        world.note = max(-bound_ns, min(bound_ns, kept_ns))
        self.depart(world)
        self.rebalance()

    def unlimited(self, world: World, now_ns: int) -> None:
        """Let a world that its limit had stopped catch up no more than one that slept."""
        self.settle(now_ns)
        bound_ns = self.host.options.bound_lag_quanta * self.host.options.quantum_ns
        world.vtime = max(world.vtime, self._pass - bound_ns * world.price)

    def charge(self, world: World, ran_ns: int) -> None:
        """Move the world's pass on."""
        world.vtime += ran_ns * world.price
        self._served_ns += ran_ns

    def enqueue(self, world: World, now_ns: int) -> None:
        """Put a world in by its pass."""
        self._seq += 1
        world.seq = self._seq
        heappush(self._heap, (world.vtime, world.world_id, world.seq, world))

    def dequeue(self, world: World) -> None:
        """Let the world's entry no longer count."""
        world.seq = 0

    def pick(self, pcpu: PcpuRunner, now_ns: int) -> World | None:
        """Take the smallest pass that may run here."""
        passed = []
        found = None
        while self._heap and found is None:
            entry = heappop(self._heap)
            world = entry[3]
            if world.seq != entry[2]:
                continue
            if world.may_run_on(pcpu):
                found = world
                self.dequeue(world)
            else:
                passed.append(entry)
        for entry in passed:
            heappush(self._heap, entry)
        return found

    def queued(self) -> int:
        """Count the entries that count."""
        return sum(world.seq == seq for _, _, seq, world in self._heap)

    def stretched(self, factor: int) -> None:
        """Measure passes in the finer unit."""
        self._pass *= factor
        self.reordered()

    def reweighed(self, world: World, old: Weight, new: Weight) -> None:
        """Keep the distance to the global pass, as CPU time; start tags stay as they are."""
        if not self.start_tags:
            world.vtime = self._pass + int((world.vtime - self._pass) * old // new)

    def reordered(self) -> None:
        """Sort the queue again."""
        self._heap = [
            (world.vtime, world.world_id, seq, world) for _, _, seq, world in self._heap if world.seq == seq
        ]
        heapify(self._heap)

    def settle(self, now_ns: int) -> None:
        """Bring all charges up to now, and move the global pass by what was served over the weights."""
        super().settle(now_ns)
        if self.total:
            self._pass += int(self._served_ns * self.unit // self.total)
        self._served_ns = 0
        if any(world.bucket is not None for world in self.competing.values()):
            self._overtake()

    def _overtake(self) -> None:
        """Move the global pass up to those who compete: what limits have left to them is no debt."""
        quantum_ns = self.host.options.quantum_ns
        least = min(
            (
                world.vtime - quantum_ns * world.price
                for world in self.competing.values()
                if world.state is not WorldState.MAX_LIMITED
            ),
            default=self._pass,
        )
        self._pass = max(self._pass, least)


class FeasibleStride(Stride):
    """Stride with weights cut to shares of at most one CPU."""

    name = "stridefeasible"

    def __init__(self) -> None:
        super().__init__(readjust=True)
