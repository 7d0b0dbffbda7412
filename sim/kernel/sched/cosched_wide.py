"""Co-scheduling of wide VMs: heaps answer which vCPUs decide in O(log n).

Models nothing of its own; see `cosched`.  Leaves out what a handful of vCPUs can do faster (`cosched_narrow`).

Sources: none, a data structure of ours.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from sim.kernel.sched.cosched import MOVING, Extremes, VcpuGroup
from sim.kernel.world import WorldState

if TYPE_CHECKING:
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["WIDE_VCPUS_MIN", "WideGroup"]

WIDE_VCPUS_MIN = 12
"""From this number of vCPUs on heaps are faster than looking at each."""

# plain names: looking a member up in an enumeration costs ten times as much
_RUN, _READY, _COSTOP = WorldState.RUN, WorldState.READY, WorldState.COSTOP
_SLACK = 64

Entry = tuple[int, int, "World"]


class WideGroup(VcpuGroup):
    """The vCPUs of a wide VM: heaps answer in O(log n).  An entry of a heap counts while its stamp is the world's."""

    __slots__ = ("_fastest", "_seq", "_slowest", "_standing", "_stopped")

    def __init__(self, host: Scheduler) -> None:
        super().__init__(host)
        self._seq = 0
        self._standing: list[Entry] = []  # by progress
        self._slowest: list[Entry] = []  # moving, by falling offset
        self._fastest: list[Entry] = []  # running, by offset
        self._stopped: list[Entry] = []  # by progress

    def _slowest_but(self, world: World, now_ns: int) -> int:
        slowest_ns = self.slowest(now_ns, world)
        first = self._first(self._slowest)
        if first is not None and first[2].since_ns > now_ns:
            return super()._slowest_but(world, now_ns)
        return slowest_ns

    def _changed(self, world: World) -> None:
        self._forget(world)
        if world.state in MOVING:
            heappush(self._slowest, (-world.progress, self._seq, world))
            if world.state is _RUN:
                heappush(self._fastest, (world.progress, self._seq, world))
            return
        entry = (world.progress, self._seq, world)
        heappush(self._standing, entry)
        if world.state is _COSTOP:
            heappush(self._stopped, entry)

    def _forget(self, world: World) -> None:
        self._seq += 1
        world.cosched_stamp = self._seq
        if self._seq % (_SLACK + 8 * len(self.worlds)) == 0:
            for heap in (self._standing, self._slowest, self._fastest, self._stopped):
                heap[:] = [entry for entry in heap if entry[2].cosched_stamp == entry[1]]
                heapify(heap)

    def _extremes(self, but: World | None = None) -> Extremes:
        if but is not None:
            self._forget(but)  # it is entered again at once, by `_changed`
        standing, slowest = self._first(self._standing), self._first(self._slowest)
        fastest, stopped = self._first(self._fastest), self._first(self._stopped)
        return (
            None if standing is None else standing[0],
            None if slowest is None else -slowest[0],
            None if fastest is None else fastest[2],
            None if stopped is None else stopped[2],
            standing[2] if standing is not None and standing[2].state is _READY else None,
        )

    @staticmethod
    def _first(heap: list[Entry]) -> Entry | None:
        while heap:
            first = heap[0]
            if first[2].cosched_stamp == first[1]:
                return first
            heappop(heap)
        return None
