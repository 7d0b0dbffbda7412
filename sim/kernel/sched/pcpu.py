"""One physical processor: runs a world until its turn, its burst or its allowance ends, and accounts for it.

Models: turns of at most what the policy says; the cost of switching to another world, and of a world's move from
another last-level cache or node; busy, idle and switching time that add up to the elapsed time exactly; the time
during which the core's other thread was busy too.  One timer a pCPU, armed at the earliest of the ends of quantum,
burst and grant (the end by skew is the vCPUs' group's: `cosched`).  `expire` is the hot path of the whole simulator:
it is written out flat.

Leaves out: interrupts and system time.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import attrs

from sim.core.trace import record
from sim.errors import SimBug
from sim.kernel.sched.steps import next_burst
from sim.kernel.workload import FOREVER_NS
from sim.kernel.world import World, WorldState

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.hw.topology import Pcpu
    from sim.kernel.sched.cores import CoreClock
    from sim.kernel.sched.policy import Policy
    from sim.kernel.sched.scheduler import Scheduler

__all__ = ["SCHED_DISPATCH", "PcpuRunner", "PcpuTimes"]

SCHED_DISPATCH = record("sched.dispatch", pcpu=int, world=int, switch_ns=int, turn_ns=int)
"""A READY world got a pCPU: it runs after `switch_ns`, for at most `turn_ns`."""

SCHED_IDLE = record("sched.idle", pcpu=int)
"""A pCPU found nothing to run."""

_RUN = WorldState.RUN
_READY = WorldState.READY
_WAIT_IDLE = WorldState.WAIT_IDLE


def _charge_nobody(_world: World, _ran_ns: int) -> None:
    """Charge nothing: a world with a pCPU of its own takes none from others."""


def _plain_quantum_ns(world: World) -> int:
    return world.sched.options.quantum_ns


@attrs.frozen(kw_only=True)
class PcpuTimes:
    """Nanoseconds a pCPU has spent; busy, switching and idle add up to its age exactly.

    `shared_ns`: the part of its busy and switching time in which the other thread of its core was busy too.
    """

    busy_ns: int
    switch_ns: int
    idle_ns: int
    shared_ns: int = 0

    @property
    def used_ns(self) -> Fraction:
        """What PCPU USED counts: time not idle, and half of it while the core's other thread was not idle either.

        The threads of a core add up to the time in which any of them was not idle.
        """
        return self.busy_ns + self.switch_ns - Fraction(self.shared_ns, 2)

    def __sub__(self, other: PcpuTimes) -> PcpuTimes:
        return PcpuTimes(
            busy_ns=self.busy_ns - other.busy_ns,
            switch_ns=self.switch_ns - other.switch_ns,
            idle_ns=self.idle_ns - other.idle_ns,
            shared_ns=self.shared_ns - other.shared_ns,
        )


class PcpuRunner:
    """A physical processor as the scheduler sees it; `place` is where it stands in the topology."""

    __slots__ = (
        "_charge",
        "_quantum_ns",
        "_swap",
        "busy_ns",
        "core",
        "due_ns",
        "idle_ns",
        "idle_since_ns",
        "index",
        "last",
        "online",
        "place",
        "queue",
        "sched",
        "switch_cost_ns",
        "switch_ns",
        "timer",
        "turn_from_ns",
        "world",
    )

    def __init__(self, sched: Scheduler, place: Pcpu, core: CoreClock | None) -> None:
        self.sched = sched
        self.index = place.index
        self.place = place
        self.core = core  # None: one thread at nominal frequency, nothing to account for
        self.online = True
        self.queue = 0  # whose worlds it runs, if the policy has several queues
        self.switch_cost_ns = sched.options.world_switch_ns
        self.timer = sched.sim.engine.timer(self.expire)
        self._swap = sched.policy.swap
        self.follow(sched.policy)
        self.world: World | None = None
        self.last: World | None = None  # whose state the processor holds
        self.due_ns = 0  # when the present turn ends
        self.turn_from_ns = 0
        self.busy_ns = self.switch_ns = self.idle_ns = 0
        self.idle_since_ns = sched.sim.now

    def follow(self, policy: Policy | None) -> None:
        """Let a policy say how long turns are, and hear of what was run; None while one world has this pCPU to itself."""
        self._charge: Callable[[World, int], None] = _charge_nobody if policy is None else policy.charge
        self._quantum_ns: Callable[[World], int] = _plain_quantum_ns if policy is None else policy.quantum_ns

    def expire(self) -> None:
        """Timer: the turn is over.  The policy says who is next, which may be the same world."""
        sched = self.sched
        world: World = self.world  # type: ignore[assignment]  # the timer runs only while a world does
        now_ns = self.due_ns
        ran_ns = now_ns - world.since_ns
        world.since_ns = now_ns
        world.run_ns += ran_ns
        self.busy_ns += ran_ns
        world.remaining_ns -= ran_ns
        if self.core is not None:
            self.core.settle(world, ran_ns, now_ns)
        charge = self._charge  # a call of what a slot holds is quicker by way of a local name
        charge(world, ran_ns)
        if world.remaining_ns <= 0 or world.bucket is not None or not self.online:
            world.grant_left_ns -= ran_ns if world.grant_ns else 0
            self._expire_slowly(world, now_ns)
            return
        swap = self._swap
        following = swap(self, world, now_ns)
        if (
            following is None
            or following.gated
            or self.core is not None
            or sched.migration_costs
            or sched.idle.idle
        ):
            self._change_to(following, world, now_ns)
            return
        start_ns = now_ns
        if following is not world:
            world.state = _READY
            world.pcpu = None
            if world.group is not None:
                world.group.stopped(world, now_ns, now_ns)
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
        quantum_ns = self._quantum_ns
        turn_ns = quantum_ns(following)
        if turn_ns > following.remaining_ns:
            turn_ns = following.remaining_ns
        self.due_ns = due_ns = start_ns + turn_ns
        self.timer.arm(due_ns)
        states, dispatches = sched.state_channel, sched.dispatch_channel
        if states is not None and dispatches is not None and following is not world:
            states.three(world.world_id, _RUN, _READY)
            dispatches.four(self.index, following.world_id, start_ns - now_ns, turn_ns)

    def start(self, world: World, now_ns: int, turn_from_ns: int = -1) -> None:
        """Give this pCPU, which runs nothing, to a READY world that is in no queue and has been admitted.

        It has a turn, or the rest of one that another world began here at `turn_from_ns`.
        """
        assert self.world is None
        assert world.state is _READY
        sched = self.sched
        if self.last is world:
            switch_ns = 0
        elif sched.migration_costs:
            switch_ns = sched.switch_cost_ns(self, world)
        else:
            switch_ns = self.switch_cost_ns
        self.switch_ns += switch_ns
        start_ns = now_ns + switch_ns
        world.ready_ns += start_ns - world.since_ns
        world.since_ns = start_ns
        world.state = _RUN
        world.dispatches += 1
        world.pcpu = self
        self.world = self.last = world
        if self.idle_since_ns >= 0:
            self.idle_ns += now_ns - self.idle_since_ns
            self.idle_since_ns = -1
            sched.idle.set_busy(self.index)
            if self.core is not None:
                self.core.change(1, now_ns)
        if self.core is not None:
            self.core.begin(world, now_ns)
        if world.last_pcpu is not self:
            world.migrations += world.last_pcpu is not None
            world.last_pcpu = self
        if world.group is not None:
            world.group.started(world, now_ns)
        self.turn_from_ns = start_ns if turn_from_ns < 0 else turn_from_ns
        quantum_ns = self._quantum_ns
        turn_ns = quantum_ns(world) - (start_ns - turn_from_ns if turn_from_ns >= 0 else 0)
        turn_ns = turn_ns if turn_ns > 0 else 0
        turn_ns = turn_ns if turn_ns < world.remaining_ns else world.remaining_ns
        if world.grant_ns and 0 < world.grant_left_ns < turn_ns:
            turn_ns = world.grant_left_ns
        self.due_ns = due_ns = start_ns + turn_ns
        self.timer.arm(due_ns)
        if sched.dispatch_channel is not None:
            sched.dispatch_channel.four(self.index, world.world_id, switch_ns, turn_ns)

    def settle(self, now_ns: int) -> None:
        """Account for what the present world has run up to now, without taking it off the pCPU."""
        world = self.world
        if world is None or world.since_ns >= now_ns:
            return
        ran_ns = now_ns - world.since_ns
        world.since_ns = now_ns
        world.run_ns += ran_ns
        self.busy_ns += ran_ns
        world.remaining_ns -= ran_ns
        if self.core is not None:
            self.core.settle(world, ran_ns, now_ns)
        if world.grant_ns:
            world.grant_left_ns -= ran_ns
        charge = self._charge
        charge(world, ran_ns)

    def stop(self, state: WorldState, now_ns: int) -> None:
        """Take the present world off this pCPU and into `state`, which is not READY; the pCPU runs nothing then."""
        self.settle(now_ns)
        self._leave(state, now_ns)

    def requeue(self, now_ns: int) -> None:
        """End the present turn early or in time: the world goes back to the queue, and the next one runs."""
        world = self.put_back(now_ns)
        self.run_next(now_ns)
        self.sched.rescue(world, now_ns)

    def go_on_at(self, target: PcpuRunner, now_ns: int) -> None:
        """Let the present world have the rest of its turn on another pCPU, which is idle."""
        self.settle(now_ns)
        world, turn_from_ns = self.world, self.turn_from_ns
        assert world is not None
        self._leave(_READY, now_ns, done=False)
        self.sched.policy.moved(world, target)
        target.start(world, now_ns, turn_from_ns)
        self.run_next(now_ns)

    def put_back(self, now_ns: int) -> World:
        """Let the present world go back to the queue, and return it; the pCPU runs nothing then."""
        self.settle(now_ns)
        world = self.world
        assert world is not None
        self._leave(_READY, now_ns)
        self.sched.policy.enqueue(world, now_ns)
        return world

    def steal(self, ns: int, now_ns: int) -> None:
        """Let a system service interrupt the present world for `ns`: it stays in RUN, and its burst ends later."""
        self.settle(now_ns)
        world = self.world
        assert world is not None
        if 0 < world.remaining_ns < FOREVER_NS:
            world.remaining_ns += ns
        world.overlap_ns += ns
        self.retime(now_ns)

    def retime(self, now_ns: int) -> None:
        """Set the end of the present turn anew, after its burst has become longer or shorter."""
        world = self.world
        assert world is not None
        start_ns = max(now_ns, world.since_ns)
        end_ns = start_ns + max(0, min(world.remaining_ns, world.grant_left_ns or world.remaining_ns))
        self.due_ns = max(start_ns, min(end_ns, self.turn_from_ns + self._quantum_ns(world)))
        self.timer.arm(self.due_ns)

    def cut_turn(self, now_ns: int, grain_ns: int) -> None:
        """End the present turn for the sake of another world: now, or when it has lasted `grain_ns`.

        A world that is only being switched in, for the rest of a turn, is switched in first.
        """
        end_ns = self.turn_from_ns + grain_ns
        if end_ns <= now_ns:
            self.requeue(now_ns)
        elif end_ns < self.due_ns:
            world = self.world
            assert world is not None
            self.due_ns = max(end_ns, world.since_ns)
            self.timer.arm(self.due_ns)

    def vacate(self, now_ns: int) -> None:
        """Let the present world go back to the queue, or on with its life, and run nothing more (it goes offline)."""
        self.settle(now_ns)
        world = self.world
        if world is not None:
            self._expire_slowly(world, now_ns)

    def run_next(self, now_ns: int) -> None:
        """Run the first world that may run, or become idle."""
        world = self.sched.pick(self, now_ns) if self.online else None
        if world is not None:
            self.start(world, now_ns)
            return
        if self.idle_since_ns >= 0:
            return
        self.timer.cancel()
        self.idle_since_ns = now_ns
        if self.online:
            self.sched.idle.set_idle(self.index)
        if self.core is not None:
            self.core.change(-1, now_ns)
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
        shared_ns = 0 if self.core is None else self.core.both_ns(now_ns)
        return PcpuTimes(busy_ns=busy_ns, switch_ns=switch_ns, idle_ns=idle_ns, shared_ns=shared_ns)

    def _change_to(self, following: World | None, world: World, now_ns: int) -> None:
        """Go on with `following` where more is to be looked at than the queue; `world` is queued unless it is that."""
        if following is world:
            self._go_on(now_ns)
            return
        self._leave(_READY, now_ns)
        if following is not None and self.sched.admit(following, now_ns):
            self.start(following, now_ns)
        else:
            self.run_next(now_ns)
        self.sched.rescue(world, now_ns)

    def _expire_slowly(self, world: World, now_ns: int) -> None:
        """End a turn at the end of a burst, or of a world with a limit, which must draw on its bucket again."""
        if world.remaining_ns > 0 or next_burst(world, now_ns):
            if world.exclusive is self:
                self._go_on(now_ns)
                return
            self._leave(_READY, now_ns)
            self.sched.policy.enqueue(world, now_ns)
        else:
            self._leave(_WAIT_IDLE, now_ns)
            if world.bucket is None and world.exclusive is None:
                self.sched.policy.leave(world, now_ns)
            else:
                self.sched.withdraw(world, now_ns)
        self.run_next(now_ns)
        if self.sched.idle.idle:
            self.sched.rescue(world, now_ns)

    def _go_on(self, now_ns: int) -> None:
        """Let the present world have another turn."""
        self.turn_from_ns = now_ns
        self.retime(now_ns)

    def _leave(self, state: WorldState, now_ns: int, *, done: bool = True) -> None:
        """Take the settled world off; a switch that has not ended is undone as far as it has not happened.

        If its turn is not `done` it keeps what its buckets have granted for it.
        """
        world = self.world
        assert world is not None
        begun_ns = world.since_ns
        if begun_ns > now_ns:
            early_ns = begun_ns - now_ns
            self.switch_ns -= early_ns
            world.ready_ns -= early_ns
        if done and world.bucket is not None:
            world.bucket.give_back(world, now_ns)
        self.world = None
        world.pcpu = None
        states = self.sched.state_channel
        if states is not None:
            states.three(world.world_id, _RUN, state)
        world.since_ns = now_ns  # its run time has been added
        world.state = state
        group = world.group
        if group is not None:
            if state is _READY:
                group.stopped(world, begun_ns, now_ns)
            elif state is _WAIT_IDLE:
                group.slept(world, begun_ns, now_ns)
            else:
                group.moved(world, _RUN, begun_ns, now_ns)

    def check_invariants(self, now_ns: int, since_ns: int) -> None:
        """Raise `SimBug` unless the times add up to the pCPU's age and the turn is timed."""
        times = self.times(now_ns)
        if times.busy_ns + times.switch_ns + times.idle_ns != now_ns - since_ns:
            raise SimBug(f"pCPU {self.index}: {times} do not add up to {now_ns - since_ns} ns")
        if times.shared_ns > times.busy_ns + times.switch_ns:
            raise SimBug(f"pCPU {self.index}: {times}, more shared than busy")
        if (self.world is not None) != self.timer.armed or (self.world is None) != (self.idle_since_ns >= 0):
            raise SimBug(f"pCPU {self.index} runs {self.world} with its timer at {self.timer.due_ns}")
        if self.world is not None and (self.world.pcpu is not self or self.timer.due_ns != self.due_ns):
            raise SimBug(f"pCPU {self.index} and its world {self.world.world_id} disagree")
