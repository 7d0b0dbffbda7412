"""One physical processor: runs a world until its turn, its burst or its allowance ends, and accounts for it.

Models: turns of at most one quantum (half of one while a world with a reservation competes); the cost of switching to another world; busy, idle and switching time that add
up to the elapsed time exactly.  `expire` is the hot path of the whole simulator: it is written out flat.

Leaves out: threads that slow each other down, frequency, interrupts and system time.
"""

from __future__ import annotations

from heapq import heappush, heappushpop
from typing import TYPE_CHECKING

import attrs

from sim.core.trace import record
from sim.errors import SimBug
from sim.kernel.sched.reservation import TURNS_WITH_RESERVATION
from sim.kernel.world import SCHED_STATE, World, WorldState

if TYPE_CHECKING:
    from sim.kernel.sched.scheduler import Scheduler

__all__ = ["SCHED_DISPATCH", "PcpuRunner", "PcpuTimes"]

SCHED_DISPATCH = record("sched.dispatch", pcpu=int, world=int, switch_ns=int, turn_ns=int)
"""A READY world got a pCPU: it runs after `switch_ns`, for at most `turn_ns`."""

SCHED_IDLE = record("sched.idle", pcpu=int)
"""A pCPU found nothing to run."""

_RUN = WorldState.RUN
_READY = WorldState.READY


@attrs.frozen(kw_only=True)
class PcpuTimes:
    """Nanoseconds a pCPU has spent, which add up to its age exactly."""

    busy_ns: int
    switch_ns: int
    idle_ns: int

    def __sub__(self, other: PcpuTimes) -> PcpuTimes:
        return PcpuTimes(
            busy_ns=self.busy_ns - other.busy_ns,
            switch_ns=self.switch_ns - other.switch_ns,
            idle_ns=self.idle_ns - other.idle_ns,
        )


class PcpuRunner:
    """A physical processor as the scheduler sees it."""

    __slots__ = (
        "_arm",
        "_ready",
        "busy_ns",
        "due_ns",
        "idle_ns",
        "idle_since_ns",
        "index",
        "last",
        "quantum_ns",
        "sched",
        "switch_cost_ns",
        "switch_ns",
        "timer",
        "turn_from_ns",
        "world",
    )

    def __init__(self, sched: Scheduler, index: int) -> None:
        self.sched = sched
        self.index = index
        self.quantum_ns = sched.options.quantum_ns
        self.switch_cost_ns = sched.options.world_switch_ns
        self.timer = sched.sim.engine.timer(self.expire)
        self._arm = self.timer.arm
        self._ready = sched.ready
        self.world: World | None = None
        self.last: World | None = None  # whose state the processor holds
        self.due_ns = 0  # when the present turn ends
        self.turn_from_ns = 0
        self.busy_ns = self.switch_ns = self.idle_ns = 0
        self.idle_since_ns = sched.sim.now

    def expire(self) -> None:
        """Timer: the turn is over.  The next world is the first in the queue, which may be the same one."""
        sched = self.sched
        world: World = self.world  # type: ignore[assignment]  # the timer runs only while a world does
        now_ns = self.due_ns
        if world.special or sched.reserved or not sched.contended:
            self._expire_slowly(world, now_ns)
            return
        ran_ns = now_ns - world.since_ns
        world.since_ns = now_ns
        world.run_ns += ran_ns
        self.busy_ns += ran_ns
        world.remaining_ns -= ran_ns
        world.vtime = vtime = world.vtime + ran_ns * world.price
        if world.remaining_ns <= 0:
            self._burst_over(world, now_ns)
            return
        if (
            world.price <= sched.level
        ):  # it is entitled to a whole CPU, and could never make up for a lost turn
            self._begin_turn(world, now_ns)
            return
        world.seq = sched.seq = seq = sched.seq + 1
        ready = self._ready
        first = heappushpop(ready, (vtime, seq, world))
        following = first[2]
        if following.seq != first[1] or following.special:
            heappush(ready, first)  # an entry that no longer counts, or a world with a limit
            self._leave(_READY, now_ns)
            self.run_next(now_ns)
            return
        start_ns = now_ns
        if following is not world:
            world.state = _READY
            world.pcpu = None
            start_ns += self.switch_cost_ns
            self.switch_ns += self.switch_cost_ns
            following.ready_ns += start_ns - following.since_ns
            following.since_ns = start_ns
            following.state = _RUN
            following.dispatches += 1
            following.pcpu = self
            self.world = self.last = following
            if following.last_pcpu is not self:
                following.migrations += following.last_pcpu is not None
                following.last_pcpu = self
        self.turn_from_ns = start_ns
        quantum_ns = self.quantum_ns
        turn_ns = following.remaining_ns
        if turn_ns > quantum_ns:  # noqa: PLR1730 - a call of min() costs more than this
            turn_ns = quantum_ns
        self.due_ns = due_ns = start_ns + turn_ns
        self._arm(due_ns)
        if sched.tracing and following is not world:
            sched.sim.trace.emit(SCHED_STATE, world.world_id, _RUN, _READY)
            sched.sim.trace.emit(SCHED_DISPATCH, self.index, following.world_id, start_ns - now_ns, turn_ns)

    def start(self, world: World, now_ns: int) -> None:
        """Give this pCPU, which runs nothing, to a READY world that is in no queue."""
        assert self.world is None
        assert world.state is _READY
        if self.idle_since_ns >= 0:
            self.idle_ns += now_ns - self.idle_since_ns
            self.idle_since_ns = -1
            self.sched.idle.set_busy(self.index)
        switch_ns = self.switch_cost_ns if self.last is not world else 0
        self.switch_ns += switch_ns
        start_ns = now_ns + switch_ns
        world.ready_ns += start_ns - world.since_ns
        world.since_ns = start_ns
        world.state = _RUN
        world.dispatches += 1
        world.pcpu = self
        self.world = self.last = world
        if world.last_pcpu is not self:
            world.migrations += world.last_pcpu is not None
            world.last_pcpu = self
        turn_ns = self._begin_turn(world, start_ns)
        if self.sched.tracing:
            self.sched.sim.trace.emit(SCHED_DISPATCH, self.index, world.world_id, switch_ns, turn_ns)

    def settle(self, now_ns: int) -> None:
        """Account for what the present world has run up to now, without taking it off the pCPU."""
        world = self.world
        if world is None or world.since_ns >= now_ns:
            return
        sched = self.sched
        ran_ns = now_ns - world.since_ns
        world.since_ns = now_ns
        world.run_ns += ran_ns
        self.busy_ns += ran_ns
        world.remaining_ns -= ran_ns
        if sched.contended:
            world.vtime += ran_ns * world.price
        if world.special:
            if world.grant_ns:
                world.grant_left_ns -= ran_ns
            if world.reservation is not None:
                world.reservation.charge(ran_ns, now_ns)

    def stop(self, state: WorldState, now_ns: int) -> None:
        """Take the present world off this pCPU and into `state`, which is not READY; the pCPU runs nothing then."""
        self.settle(now_ns)
        self._leave(state, now_ns)

    def requeue(self, now_ns: int) -> None:
        """End the present turn early or in time: the world goes back to the queue, and the next one runs."""
        self.settle(now_ns)
        world = self.world
        assert world is not None
        self._leave(_READY, now_ns)
        self.sched.enqueue(world)
        self.run_next(now_ns)

    def cut_turn(self, now_ns: int, grain_ns: int) -> None:
        """End the present turn for the sake of another world: now, or when it has lasted `grain_ns`."""
        end_ns = self.turn_from_ns + grain_ns
        if end_ns <= now_ns:
            self.requeue(now_ns)
        elif end_ns < self.due_ns:
            self.due_ns = end_ns
            self.timer.arm(end_ns)

    def run_next(self, now_ns: int) -> None:
        """Run the first world that may run, or become idle."""
        world = self.sched.pick(now_ns)
        if world is not None:
            self.start(world, now_ns)
            return
        self.timer.cancel()
        self.idle_since_ns = now_ns
        self.sched.idle.set_idle(self.index)
        if self.sched.tracing:
            self.sched.sim.trace.emit(SCHED_IDLE, self.index)

    def times(self, now_ns: int) -> PcpuTimes:
        """Return the times up to now; asking changes nothing."""
        busy_ns, switch_ns, idle_ns = self.busy_ns, self.switch_ns, self.idle_ns
        if self.world is None:
            idle_ns += now_ns - self.idle_since_ns
        elif self.world.since_ns > now_ns:
            switch_ns -= self.world.since_ns - now_ns
        else:
            busy_ns += now_ns - self.world.since_ns
        return PcpuTimes(busy_ns=busy_ns, switch_ns=switch_ns, idle_ns=idle_ns)

    def _expire_slowly(self, world: World, now_ns: int) -> None:
        """End a turn where there is more to look at than the queue, or no queue at all."""
        self.settle(now_ns)
        if world.remaining_ns <= 0:
            self._burst_over(world, now_ns)
        elif world.bucket is not None or (self.sched.contended and world.price > self.sched.level):
            self.requeue(now_ns)
        else:
            self._begin_turn(world, now_ns)

    def _burst_over(self, world: World, now_ns: int) -> None:
        """End a burst: the world asks for more, or sleeps."""
        sched = self.sched
        if sched.next_burst(world, now_ns):
            self.requeue(now_ns)
            return
        self._leave(WorldState.WAIT_IDLE, now_ns)
        sched.withdraw(world, now_ns)
        self.run_next(now_ns)

    def _begin_turn(self, world: World, start_ns: int) -> int:
        longest_ns = self.quantum_ns // TURNS_WITH_RESERVATION if self.sched.reserved else self.quantum_ns
        turn_ns = min(max(1, longest_ns), world.grant_left_ns or world.remaining_ns)
        self.turn_from_ns = start_ns
        self.due_ns = start_ns + turn_ns
        self.timer.arm(self.due_ns)
        return turn_ns

    def _leave(self, state: WorldState, now_ns: int) -> None:
        """Take the settled world off; a switch that has not ended is undone as far as it has not happened."""
        world = self.world
        assert world is not None
        early_ns = world.since_ns - now_ns
        if early_ns > 0:
            self.switch_ns -= early_ns
            world.ready_ns -= early_ns
            world.since_ns = now_ns
        if world.bucket is not None:
            world.bucket.give_back(world, now_ns)
        self.world = None
        world.pcpu = None
        self.sched.move(world, state, now_ns)

    def check_invariants(self, now_ns: int, since_ns: int) -> None:
        """Raise `SimBug` unless the times add up to the pCPU's age and the turn is timed."""
        times = self.times(now_ns)
        if times.busy_ns + times.switch_ns + times.idle_ns != now_ns - since_ns:
            raise SimBug(f"pCPU {self.index}: {times} do not add up to {now_ns - since_ns} ns")
        if (self.world is not None) != self.timer.armed or (self.world is None) != (self.idle_since_ns >= 0):
            raise SimBug(f"pCPU {self.index} runs {self.world} with its timer at {self.timer.due_ns}")
        if self.world is not None and (self.world.pcpu is not self or self.timer.due_ns != self.due_ns):
            raise SimBug(f"pCPU {self.index} and its world {self.world.world_id} disagree")
