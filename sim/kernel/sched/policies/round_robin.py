"""Round robin: one queue, first come, first served, equal turns for everybody.

Models: a host-wide queue in the order of arrival.  Leaves out shares and reservations altogether, and preemption.
Source: the textbook.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from sim.kernel.sched.policy import Policy

if TYPE_CHECKING:
    from sim.kernel.sched.pcpu import PcpuRunner
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["RoundRobin"]


class RoundRobin(Policy):
    """Everybody in turn, a quantum each."""

    name = "roundrobin"

    def attach(self, host: Scheduler) -> None:
        """Begin with an empty queue."""
        super().attach(host)
        self._queue: OrderedDict[int, World] = OrderedDict()

    def enqueue(self, world: World, now_ns: int) -> None:
        """Go to the end."""
        self._queue[world.world_id] = world

    def dequeue(self, world: World) -> None:
        """Leave the queue."""
        del self._queue[world.world_id]

    def pick(self, pcpu: PcpuRunner, now_ns: int) -> World | None:
        """Take the first that may run here."""
        for world in self._queue.values():
            if world.may_run_on(pcpu):
                del self._queue[world.world_id]
                return world
        return None

    def queued(self) -> int:
        """Count the queue."""
        return len(self._queue)
