"""The plainest policy that shares fairly: stride scheduling with one queue, feasible weights and a bound on catching up.

Models: each world's virtual time grows by CPU time over its weight; the least runs.  Weights of more than a CPU are cut to
one, and a world that begins to compete starts no more than a few quanta behind the others.  It is a reference to read
and a start for one's own: a class that inherits from it replaces what it likes.

Leaves out: reservations, pools, co-scheduling, several queues, preemption; `policies/esxi.py` has all that.

Sources: Waldspurger and Weihl 1995; readjustment of weights, Chandra et al., OSDI 2000.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from sim.kernel.sched.fluid import feasible_weights
from sim.kernel.sched.policy import Policy

if TYPE_CHECKING:
    from sim.kernel.sched.pcpu import PcpuRunner
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["PlainStride"]


class PlainStride(Policy):
    """Worlds by virtual time, exact, searched one by one."""

    name = "plainstride"

    def attach(self, host: Scheduler) -> None:
        """Begin with nobody."""
        super().attach(host)
        self.waiting: dict[int, World] = {}  # READY worlds in the order of arrival
        self.competing: dict[int, World] = {}
        self.times: dict[int, Fraction] = {}
        self.weights: dict[int, Fraction] = {}

    def join(self, world: World, now_ns: int, *, fresh: bool) -> None:
        """Count a world in, no further behind the others than the bound."""
        others = [self.times[number] for number in self.competing]
        self.competing[world.world_id] = world
        self.readjust()
        if others:
            self.times[world.world_id] = self.start_time(world, min(others), fresh=fresh)
        self.times.setdefault(world.world_id, Fraction(0))

    def start_time(self, world: World, least: Fraction, *, fresh: bool) -> Fraction:
        """Return where a world begins that comes to others, of which the one most behind is at `least`."""
        if fresh:
            return least
        lag_ns = self.host.options.bound_lag_quanta * self.host.options.quantum_ns
        return max(self.times[world.world_id], least - lag_ns / self.weights[world.world_id])

    def leave(self, world: World, now_ns: int) -> None:
        """Count a world out."""
        del self.competing[world.world_id]
        self.readjust()

    def readjust(self) -> None:
        """Cut weights to what can be delivered."""
        raw = [self.weight(world) for world in self.competing.values()]
        cut = feasible_weights(raw, len(self.host.pcpus)) if raw else ()
        self.weights = dict(zip(self.competing, cut, strict=True))

    def weight(self, world: World) -> Fraction:
        """Return what a world weighs."""
        return Fraction(world.weight)

    def charge(self, world: World, ran_ns: int) -> None:
        """Move virtual time on."""
        self.times[world.world_id] += ran_ns / self.weights[world.world_id]

    def enqueue(self, world: World, now_ns: int) -> None:
        """Wait."""
        self.waiting[world.world_id] = world

    def dequeue(self, world: World) -> None:
        """Wait no longer."""
        del self.waiting[world.world_id]

    def pick(self, pcpu: PcpuRunner, now_ns: int) -> World | None:
        """Take the world most behind of those that may run here."""
        able = [number for number, world in self.waiting.items() if world.may_run_on(pcpu)]
        return self.waiting.pop(min(able, key=self.times.__getitem__)) if able else None

    def queued(self) -> int:
        """Count those that wait."""
        return len(self.waiting)
