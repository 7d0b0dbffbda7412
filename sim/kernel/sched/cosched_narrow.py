"""Co-scheduling of VMs with a few vCPUs: bounds that are cheap to keep spare most looks at all of them.

Models nothing of its own; see `cosched`.  A transition of one vCPU only tightens or loosens three bounds; the vCPUs are
looked at one by one only where the bounds allow that something is due sooner than the timer says.  A timer that comes
too soon finds nothing to do and is set anew.  Leaves out wide VMs (`cosched_wide`).

Sources: none, a data structure of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.core.engine import NEVER
from sim.errors import SimBug
from sim.kernel.sched.cosched import MOVING, Extremes, VcpuGroup
from sim.kernel.world import WorldState

if TYPE_CHECKING:
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["NarrowGroup"]

_S = WorldState
_RUN, _READY, _IDLE, _VM, _COSTOP, _ENDED = (
    _S.RUN,
    _S.READY,
    _S.WAIT_IDLE,
    _S.WAIT_VM,
    _S.COSTOP,
    _S.ENDED,
)
_FAR = 1 << 63  # beyond every progress and offset


class NarrowGroup(VcpuGroup):
    """The vCPUs of one VM, fewer than `WIDE_VCPUS_MIN`.

    `_standing` is at most the least progress of those that stand, `_offset` at least the largest offset of those that
    move, `_leading` at most the smallest offset of those that run; `_runners` counts those that run, `_standers` those that
    stand, `_stopped` those of them that are co-stopped.
    """

    __slots__ = ("_leading", "_offset", "_runners", "_standers", "_standing", "_stopped")

    def __init__(self, host: Scheduler) -> None:
        super().__init__(host)
        self._standing, self._offset, self._leading = _FAR, -_FAR, _FAR
        self._runners = self._standers = self._stopped = 0

    def may_start(self, world: World, now_ns: int) -> bool:
        """Whether a READY world may run now; if not, it is to be co-stopped."""
        behind = now_ns - self._offset
        if self._standing < behind:
            behind = self._standing
        if world.progress - behind < self.costop_ns:
            return True
        return world.progress - self.slowest(now_ns) < self.costop_ns

    def started(self, world: World, now_ns: int) -> None:
        """Learn that a READY world runs from its `since_ns` on."""
        world.progress = offset = world.since_ns - world.progress
        if offset > self._offset:
            self._offset = offset
        if offset < self._leading:
            self._leading = offset
        self._runners += 1
        self._standers -= 1
        if not self._standers:
            self._standing = _FAR
            self.timer.due_ns = NEVER  # nobody is left who could fall behind
        if self._stopped or self._offset - self._leading > self.highest_ns or self.poll_ns:
            self._arm(now_ns)
            return
        due_ns = self._standing + self._leading + self.handoff_ns
        if due_ns < self.timer.due_ns or (self.timer.due_ns == NEVER and due_ns < _FAR):
            self._sooner(due_ns, now_ns)

    def stopped(self, world: World, begun_ns: int, now_ns: int) -> None:
        """Learn that a world that has run since `begun_ns` stands still from now on (its new state is set)."""
        world.progress = progress = (now_ns if now_ns > begun_ns else begun_ns) - world.progress
        self._standers += 1
        self._runners -= 1
        if not self._runners:
            self._leading = _FAR
            if not self._stopped:
                self.timer.due_ns = NEVER
        if progress < self._standing:
            self._standing = progress
        if world.state is _COSTOP:
            self._stopped += 1
            self._arm(now_ns)
        elif self.poll_ns:
            self._arm(now_ns)
        else:
            due_ns = self._standing + self._leading + self.handoff_ns
            if due_ns < self.timer.due_ns or (self.timer.due_ns == NEVER and due_ns < _FAR):
                self._sooner(due_ns, now_ns)

    def slept(self, world: World, begun_ns: int, now_ns: int) -> None:
        """Learn that a world sleeps from now on that has run since `begun_ns`, or stood still (-1)."""
        undone = begun_ns > now_ns or begun_ns < 0  # it moves from now on, not from when it was to begin
        if begun_ns >= 0:
            world.progress_asleep = (now_ns if now_ns > begun_ns else begun_ns) - world.progress
            self._runners -= 1
            if not self._runners:
                self._leading = _FAR
                if not self._stopped:
                    self.timer.due_ns = NEVER
        else:
            world.progress_asleep = world.progress
            self._standers -= 1
        world.progress = offset = now_ns - world.progress_asleep
        if offset > self._offset:
            self._offset = offset
        if undone or self._offset - self._leading > self.highest_ns or self.poll_ns:
            self._arm(now_ns)
        elif self._runners:  # the next that leads can perhaps make way where this one could not
            due_ns = self._standing + self._leading + self.handoff_ns
            if due_ns < self.timer.due_ns or (self.timer.due_ns == NEVER and due_ns < _FAR):
                self._sooner(due_ns, now_ns)

    def woke(self, world: World, now_ns: int) -> None:
        """Learn that a sleeping world is READY from now on."""
        asleep = world.progress_asleep
        progress = now_ns - world.progress
        for other in self.worlds:
            if other is world:
                continue
            state = other.state
            others = other.progress
            if state is _RUN:  # it may be that it is only being switched in
                others = (now_ns if now_ns > other.since_ns else other.since_ns) - others
            elif state is _IDLE or state is _VM:
                others = now_ns - others
            if others < progress:
                progress = others
                if others <= asleep:
                    progress = asleep  # it is no further than where it fell asleep, whoever is slower still
                    break
        world.progress = progress
        self._standers += 1
        if self.poll_ns:
            self._arm(now_ns)
        elif progress < self._standing:
            self._standing = progress
            due_ns = progress + self._leading + self.handoff_ns
            if due_ns < self.timer.due_ns or (self.timer.due_ns == NEVER and due_ns < _FAR):
                self._sooner(due_ns, now_ns)

    def _sooner(self, due_ns: int, now_ns: int) -> None:
        """Let the timer, which would come later, fire by `due_ns`: before it nothing is due that the timer is not set for."""
        if due_ns > now_ns:
            self.timer.arm(due_ns)
        elif not self._looking:
            self._set_timer(now_ns, self._extremes())

    def moved(self, world: World, old: WorldState, begun_ns: int, now_ns: int) -> None:
        """Learn that a world has gone from `old` to another state but RUN; if that was RUN it ran since `begun_ns`."""
        new = world.state
        if old is _RUN and new is not _ENDED:
            if new is _IDLE or new is _VM:
                self.slept(world, begun_ns, now_ns)
            else:
                self.stopped(world, begun_ns, now_ns)
        elif old is _IDLE and new is _READY:
            self.woke(world, now_ns)
        elif old is _COSTOP:
            self._stopped -= 1
            if new is _ENDED:
                self._standers -= 1
            super().moved(world, old, begun_ns, now_ns)
        else:
            if new is _COSTOP:
                self._stopped += 1
            elif new is _ENDED:
                if old is _RUN:
                    self._runners -= 1
                elif old not in MOVING:
                    self._standers -= 1
            super().moved(world, old, begun_ns, now_ns)

    def restood(self, world: World, now_ns: int) -> None:
        """Learn that a world stands still for another reason (READY, COSTOP, MAX_LIMITED)."""
        if world.state is _COSTOP or world.state is _READY or self.poll_ns:
            self._arm(now_ns)

    def _changed(self, world: World) -> None:
        """Take in that a world's progress or state is another: bounds follow from the look that comes next."""

    def _forget(self, world: World) -> None:
        """Take in that a world is no longer of the group: bounds may stay."""

    def _extremes(self, but: World | None = None) -> Extremes:
        standing, offset, leading = _FAR, -_FAR, _FAR
        fastest = stopped = laggard = None
        for world in self.worlds:
            state = world.state
            progress = world.progress
            if state is _RUN:
                if progress < leading:
                    leading, fastest = progress, world
            elif state is not _IDLE and state is not _VM:
                if world is but:
                    continue
                if progress < standing:
                    standing = progress
                    laggard = world if state is _READY else None
                elif progress == standing and laggard is None and state is _READY:
                    laggard = world
                if state is _COSTOP and (stopped is None or progress < stopped.progress):
                    stopped = world
                continue
            if progress > offset and world is not but:
                offset = progress
        if but is None:
            self._standing, self._offset, self._leading = standing, offset, leading
        return (
            None if standing == _FAR else standing,
            None if offset == -_FAR else offset,
            fastest,
            stopped,
            laggard,
        )

    def check_invariants(self, now_ns: int) -> None:
        """Raise `SimBug` unless the bounds hold, the counts agree and no vCPU has run too far ahead."""
        super().check_invariants(now_ns)
        bounds = (self._standing, self._offset, self._leading)
        found = self._extremes()
        exact = (self._standing, self._offset, self._leading)
        self._standing, self._offset, self._leading = bounds
        if bounds[0] > exact[0] or bounds[1] < exact[1] or bounds[2] > exact[2]:
            raise SimBug(f"bounds {bounds} of a VM's vCPUs, which are at {exact}")
        standing = [world.state for world in self.worlds if world.state not in MOVING]
        if sum(world.state is _RUN for world in self.worlds) != self._runners:
            raise SimBug(f"{self._runners} vCPUs of a VM are counted as running")
        if len(standing) != self._standers or standing.count(_COSTOP) != self._stopped:
            raise SimBug(
                f"{standing} stand, {self._standers} are counted, {self._stopped} of them as co-stopped"
            )
        # a hand-off may come late: who may run where changes without a word to the group
        due_ns = NEVER if self.poll_ns else self._due(now_ns, (*found[:4], None))
        if due_ns != NEVER and (self.timer.due_ns == NEVER or self.timer.due_ns > max(due_ns, now_ns)):
            raise SimBug(
                f"siblings are to be looked at at {due_ns} ns, the timer is set to {self.timer.due_ns}"
            )
