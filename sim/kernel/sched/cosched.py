"""Relaxed co-scheduling: a vCPU that has run ahead of its slowest sibling is stopped by itself until that catches up.

Models: progress of each vCPU of a VM, which moves on while the vCPU runs in the guest or halts, and stands still while
it is ready, co-stopped, max-limited or waits for swap.  Skew is a vCPU's progress less that of its slowest sibling.
In analytic mode the moment at which a running vCPU's skew will reach the threshold is computed, and one timer of the
VM fires then; in polling mode a timer looks at all of them every `CoschedPollUsec`.  A stopped vCPU starts again when
its skew is down to the co-start threshold.  Before that comes the hand-off: a vCPU that is ahead by the co-start threshold
of a sibling that waits for a pCPU gives it its own, and is ready, not stopped.  So co-stop is left for siblings that no
pCPU can help: max-limited, waiting for swap, or confined to pCPUs that others have.  A halted vCPU gathers no skew: when
it wakes it is at most as far ahead as when it halted, or level with its slowest sibling.

The bound holds exactly: the analytic threshold is lower by the longest time that switching a laggard in takes, in which
the laggard falls further behind.  Once the laggard runs nobody's skew grows, and siblings within the bound go on beside it.  Thresholds that leave no
time between switches of worlds are raised (`skew_floor_ns`).

Leaves out: time in the hypervisor on a vCPU's own behalf, and the hand-off within a last-level cache
(`CoschedHandoffLLC` is stored only).

Sources: thresholds and poll period are ESXi's options; that progress is guest time or halted time, that skew is measured
against the slowest sibling and that the leading vCPU alone stops, VMware's white paper on the CPU scheduler, as
quoted; the rules for halted vCPUs, for the hand-off and for co-start are ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.core.engine import NEVER
from sim.errors import SimBug
from sim.kernel.sched.options import SWITCHES_MIN, TURN_NS_MIN
from sim.kernel.world import WorldState

if TYPE_CHECKING:
    from sim.core.engine import Timer
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["MOVING", "Extremes", "VcpuGroup"]

# plain names: looking a member up in an enumeration costs ten times as much
_RUN, _COSTOP, _WAIT_IDLE, _WAIT_VM, _ENDED = (
    WorldState.RUN,
    WorldState.COSTOP,
    WorldState.WAIT_IDLE,
    WorldState.WAIT_VM,
    WorldState.ENDED,
)

MOVING = frozenset((_RUN, _WAIT_IDLE, _WAIT_VM))
"""The states in which progress moves on with time."""

Extremes = tuple[int | None, int | None, "World | None", "World | None", "World | None"]
"""What decides: the least progress of those that stand, the largest offset of those that move; then the world with the
smallest offset of those that run, the co-stopped one with the least progress, and, if that waits for a pCPU, the one with
the least progress of those that stand."""


class VcpuGroup:
    """The vCPUs of one VM as co-scheduling sees them; `cosched_narrow` and `cosched_wide` answer what decides.

    Of a moving world `progress` is an offset: its progress is the time less the offset.  Of one that stands still it is
    the progress itself.
    """

    __slots__ = (
        "_host",
        "_looking",
        "_polled_ns",
        "costart_ns",
        "costop_ns",
        "costops",
        "handoff_ns",
        "highest_ns",
        "poll_ns",
        "timer",
        "worlds",
    )

    def __init__(self, host: Scheduler) -> None:
        self._host = host
        self.worlds: list[World] = []
        self.costops = 0
        self._looking = False
        self._polled_ns = -1  # when it looked last
        self.timer: Timer = host.sim.engine.timer(self.look)
        self._tune()

    def _tune(self) -> None:
        host, options = self._host, self._host.options
        floor_ns = skew_floor_ns(host)
        self.poll_ns = options.cosched_poll_ns if options.cosched_polling else 0
        margin_ns = 0 if self.poll_ns else host.switch_ns_max
        self.highest_ns = max(options.costop_ns, floor_ns + margin_ns)
        self.costop_ns = self.highest_ns - margin_ns
        self.costart_ns = min(
            options.costart_ns, self.costop_ns - 1
        )  # else who starts would be stopped at once
        self.handoff_ns = min(max(self.costart_ns, floor_ns), self.costop_ns)

    def retune(self, now_ns: int) -> None:
        """Take in the options as they are now; whoever competes is suspended meanwhile."""
        self._tune()
        self._arm(now_ns)

    def add(self, world: World, now_ns: int) -> None:
        """Take in a world that waits, level with the slowest sibling."""
        world.progress_asleep = self.slowest(now_ns)
        world.progress = now_ns - world.progress_asleep
        self.worlds.append(world)
        world.group = self
        world.gated = True
        self._changed(world)
        self._arm(now_ns)

    def take_over(self, other: VcpuGroup, now_ns: int) -> None:
        """Go on for another group, all of whose worlds are suspended, with their progress as it is."""
        other.timer.cancel()
        self.costops += other.costops
        for world in other.worlds:
            self.worlds.append(world)
            world.group = self
            self._changed(world)
        self._arm(now_ns)

    def remove(self, world: World, now_ns: int) -> None:
        """Let a world go that has ended."""
        self.worlds.remove(world)
        self._forget(world)
        world.group = None
        self._arm(now_ns)

    def slowest(self, now_ns: int, but: World | None = None) -> int:
        """Return the progress of the slowest vCPU, of all `but` one (0 if there is none)."""
        standing, offset, *_ = self._extremes(but)
        return _slowest(standing, offset, now_ns)

    def _slowest_but(self, world: World, now_ns: int) -> int:
        """Return the progress of the slowest of the others; one that is being switched in stands where it stood."""
        return min(self.progress(each, now_ns) for each in self.worlds if each is not world)

    def progress(self, world: World, now_ns: int) -> int:
        """Return how far a vCPU has come, in ns."""
        if world.state in MOVING:
            return max(now_ns, world.since_ns) - world.progress
        return world.progress

    def may_start(self, world: World, now_ns: int) -> bool:
        """Whether a READY world may run now; if not, it is to be co-stopped."""
        return world.progress - self.slowest(now_ns) < self.costop_ns

    def started(self, world: World, now_ns: int) -> None:
        """Learn that a READY world runs from its `since_ns` on."""
        world.progress = world.since_ns - world.progress
        self._changed(world)
        self._arm(now_ns)

    def stopped(self, world: World, begun_ns: int, now_ns: int) -> None:
        """Learn that a world that has run since `begun_ns` stands still from now on (its new state is set)."""
        world.progress = (now_ns if now_ns > begun_ns else begun_ns) - world.progress
        self._changed(world)
        self._arm(now_ns)

    def slept(self, world: World, begun_ns: int, now_ns: int) -> None:
        """Learn that a world sleeps from now on that has run since `begun_ns`, or stood still (-1)."""
        if begun_ns >= 0:
            world.progress_asleep = (now_ns if now_ns > begun_ns else begun_ns) - world.progress
        else:
            world.progress_asleep = world.progress
        world.progress = now_ns - world.progress_asleep
        self._changed(world)
        self._arm(now_ns)

    def woke(self, world: World, now_ns: int) -> None:
        """Learn that a sleeping world is READY from now on."""
        counted = now_ns - world.progress
        others = self._slowest_but(world, now_ns) if len(self.worlds) > 1 else counted
        world.progress = min(counted, max(world.progress_asleep, others))
        self._changed(world)
        self._arm(now_ns)

    def restood(self, world: World, now_ns: int) -> None:
        """Learn that a world stands still for another reason (READY, COSTOP, MAX_LIMITED)."""
        self._changed(world)
        self._arm(now_ns)

    def moved(self, world: World, old: WorldState, begun_ns: int, now_ns: int) -> None:
        """Learn that a world has gone from `old` to another state but RUN; if that was RUN it ran since `begun_ns`."""
        new = world.state
        if new is _ENDED:
            self.remove(world, now_ns)
        elif new in MOVING:
            if old is _RUN:
                self.slept(world, begun_ns, now_ns)
            elif old not in MOVING:
                self.slept(world, -1, now_ns)
        elif old is _RUN:
            self.stopped(world, begun_ns, now_ns)
        elif old in MOVING:
            self.woke(world, now_ns)
        else:
            self.restood(world, now_ns)

    def look(self) -> None:
        """Timer: stop those that are too far ahead, start those that no longer are."""
        now_ns = self._polled_ns = self._host.sim.now
        self._looking = True
        while True:
            found = self._extremes()
            standing, offset, fastest, stopped, laggard = found
            slowest_ns = now_ns if offset is None else now_ns - offset
            if standing is not None and (offset is None or standing < slowest_ns):
                slowest_ns = standing
            if fastest is not None:
                skew_ns = now_ns - fastest.progress - slowest_ns
                grows = standing == slowest_ns
                if skew_ns > (self.costop_ns - (not self.poll_ns) if grows else self.highest_ns):
                    self.costops += 1
                    self._host.costop(fastest)
                    continue
                if laggard is not None and self._makes_way(found, now_ns):
                    self._host.hand_off(fastest, laggard)
                    continue
            if stopped is None or stopped.progress - slowest_ns > self.costart_ns:
                break
            self._host.costart(stopped)
        self._looking = False
        self._set_timer(now_ns, found)

    def laggard(self) -> World | None:
        """Return the slowest vCPU if it waits for a pCPU."""
        return self._extremes()[4]

    def _makes_way(self, found: Extremes, now_ns: int) -> bool:
        """Whether the fastest vCPU is to make way now for the slowest, which stands and waits for a pCPU."""
        standing, offset, fastest, _, laggard = found
        if laggard is None or fastest is None or standing is None:
            return False
        if standing + fastest.progress + self.handoff_ns > now_ns:
            return False
        if offset is not None and standing + offset > now_ns:
            return False
        if laggard.since_ns + self._host.options.handoff_skip_ns > now_ns:
            return False
        return self._host.can_hand_off(fastest, laggard)

    def _arm(self, now_ns: int) -> None:
        """Set the timer to the next moment at which something must be done."""
        if not self._looking:
            self._set_timer(now_ns, self._extremes())

    def _set_timer(self, now_ns: int, found: Extremes) -> None:
        """Set the timer to the next moment at which, by the extremes, something must be done."""
        timer = self.timer
        if found[2] is None and found[3] is None:  # nobody runs, nobody is stopped
            timer.due_ns = NEVER
        elif self.poll_ns:
            if timer.due_ns == NEVER:
                due_ns = -(-now_ns // self.poll_ns) * self.poll_ns  # perhaps now
                timer.arm(due_ns if due_ns != self._polled_ns else due_ns + self.poll_ns)
        else:
            due_ns = self._due(now_ns, found)
            if due_ns == NEVER:
                timer.due_ns = NEVER
            elif due_ns != timer.due_ns:
                timer.arm(due_ns if due_ns > now_ns else now_ns)

    def _due(self, now_ns: int, found: Extremes) -> int:
        """Return the next moment at which a vCPU is too far ahead, or no longer is; it may have passed."""
        standing, offset, fastest, stopped, laggard = found
        due_ns = NEVER
        if fastest is not None:
            if offset is not None and offset - fastest.progress > self.highest_ns:
                due_ns = now_ns  # while a laggard is being switched in it falls behind: it would be too far in the end
            elif standing is not None:
                level_ns = standing + fastest.progress
                due_ns = level_ns + self.costop_ns
                if (
                    laggard is not None
                    and self.handoff_ns < self.costop_ns
                    and self._host.can_hand_off(fastest, laggard)
                ):
                    handoff_ns = level_ns + self.handoff_ns
                    soonest_ns = laggard.since_ns + self._host.options.handoff_skip_ns
                    handoff_ns = handoff_ns if handoff_ns > soonest_ns else soonest_ns
                    due_ns = due_ns if due_ns < handoff_ns else handoff_ns
                if offset is not None and standing + offset > due_ns:
                    due_ns = standing + offset  # until then another is slower, and the skew stays as it is
        if stopped is not None and standing is not None and standing >= stopped.progress - self.costart_ns:
            start_ns = now_ns if offset is None else stopped.progress - self.costart_ns + offset
            if due_ns == NEVER or start_ns < due_ns:
                due_ns = start_ns
        return due_ns

    # -- what is kept to answer quickly

    def _changed(self, world: World) -> None:
        """Take in that a world's progress or state is another."""
        raise NotImplementedError

    def _forget(self, world: World) -> None:
        """Take in that a world is no longer of the group."""
        raise NotImplementedError

    def _extremes(self, but: World | None = None) -> Extremes:
        """Return what decides, of all `but` one."""
        raise NotImplementedError

    def check_invariants(self, now_ns: int) -> None:
        """Raise `SimBug` unless the heaps agree with the worlds and no vCPU has run too far ahead."""
        found = {world.world_id: self.progress(world, now_ns) for world in self.worlds}
        if self.worlds and min(found.values()) != self.slowest(now_ns):
            late = any(world.since_ns > now_ns for world in self.worlds)  # still being switched in
            if not late:
                raise SimBug(f"the slowest vCPU is at {min(found.values())}, not {self.slowest(now_ns)}")
        bound_ns = self.highest_ns + self.poll_ns
        for world in self.worlds:
            skew_ns = found[world.world_id] - min(found.values())
            if world.state is _RUN and skew_ns > bound_ns:
                raise SimBug(f"world {world.world_id} runs {skew_ns} ns ahead of its slowest sibling")
            if world.state is _COSTOP and len(self.worlds) == 1:
                raise SimBug(f"world {world.world_id} is co-stopped and has no sibling")


def skew_floor_ns(host: Scheduler) -> int:
    """Return the lowest threshold of skew that acts: below it vCPUs would do nothing but make way for each other."""
    return max(TURN_NS_MIN.value, SWITCHES_MIN * host.switch_ns_max)


def _slowest(standing: int | None, offset: int | None, now_ns: int) -> int:
    """Return the lesser of the least progress of those that stand and of those that move; 0 if there is nobody."""
    if standing is None:
        return 0 if offset is None else now_ns - offset
    return standing if offset is None or standing < now_ns - offset else now_ns - offset
