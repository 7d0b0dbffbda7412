"""Limits: a VM or a resource pool draws its CPU time from a bucket that fills at the rate of its limit.

Models: a VM's bucket stands below that of its pool, and a turn is taken out of all of them.  Before a vCPU runs it
takes the time of its turn out of the bucket; what it does not use goes back.  A vCPU that finds too little stands in line,
max-limited, until enough has come in; the line is served by shares (`limit_line`).  What is in the bucket and what has
been taken but not used is never more than the burst, so that in every window of length T the VM runs at most
`limit * T + burst`, whatever the window's start.  A burst holds at least the turns of those whom the limit lets run
together, and no turn is shorter than `TURN_NS_MIN`: without any slack time would stand still.

Leaves out: ESXi's own enforcement, of which only the name and the default threshold are public.

Source: token bucket; `Cpu.LimitEnforcementThreshold` as its depth.
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

from sim.errors import SimBug
from sim.kernel.sched.limit_line import ShareNode, Step, steps_below, steps_of
from sim.kernel.sched.options import TURN_NS_MIN

if TYPE_CHECKING:
    from sim.core.engine import Timer
    from sim.kernel.sched.pools import Pool
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["LimitBucket"]

TURNS_MIN = 8
"""A bucket holds at least so many turns, so that what some have taken and not used does not keep it from filling."""


class LimitBucket:
    """The CPU time that the vCPUs of one VM, or the VMs of one pool, may still use; `numerator / denominator` CPUs flow in.

    Amounts are in units of ns / denominator.
    """

    __slots__ = (
        "_bound_ns",
        "_filled_ns",
        "_level",
        "_out",
        "_scheduler",
        "_turns",
        "burst_ns",
        "competing",
        "denominator",
        "node",
        "number",
        "numerator",
        "parent",
        "parked",
        "pool",
        "slice_ns",
        "timer",
        "width",
    )

    def __init__(
        self,
        scheduler: Scheduler,
        number: int,
        limit_hz: int,
        core_hz: int,
        *,
        parent: LimitBucket | None = None,
        pool: Pool | None = None,
    ) -> None:
        self.number = number
        self.competing = 0  # worlds of this VM or pool that are running, ready or in line
        self.width = 1  # how many they were when prices were found
        self.parent = parent
        self.pool = pool  # whose limit it is; None: a VM's
        self.node = ShareNode() if pool is None else pool.node
        common = gcd(limit_hz, core_hz)
        self.numerator = limit_hz // common
        self.denominator = core_hz // common
        cpus = min(-(-limit_hz // core_hz), len(scheduler.topology.pcpus))
        # all whom the limit lets run together take a turn from half of it
        self._turns = max(TURNS_MIN, 2 * (cpus + 1))
        self._scheduler = scheduler
        self._tune()
        self._level = self.burst_ns * self.denominator // 2  # room to err to both sides
        self._out = 0
        self._filled_ns = scheduler.sim.now
        self.parked = 0
        self.timer: Timer = scheduler.sim.engine.timer(self.release)

    def _tune(self) -> None:
        options = self._scheduler.options
        longest_ns = min(options.limit_slice_ns, options.quantum_ns, options.limit_burst_ns // self._turns)
        self.slice_ns = max(TURN_NS_MIN.value, longest_ns)
        self.burst_ns = max(options.limit_burst_ns, self._turns * self.slice_ns)
        self._bound_ns = options.bound_lag_quanta * self.slice_ns
        if self.parent is not None:
            self.slice_ns = min(self.slice_ns, self.parent.slice_ns)

    def retune(self) -> None:
        """Take in the options as they are now, while nobody holds a turn or waits for one."""
        if self._out or self.parked:
            raise SimBug("a limit's thresholds change only while its worlds are suspended")
        self._fill(self._scheduler.sim.now)
        self._tune()
        self._level = min(self._level, self.burst_ns * self.denominator)

    def admit(self, world: World, now_ns: int, ahead: LimitBucket | None = None) -> LimitBucket | None:
        """Take a turn for `world` out of this bucket and those above it, unless it holds one.

        Returns None, or the bucket in whose line it must wait; in that of `ahead` it is the first.
        """
        if world.grant_ns:
            return None
        turn_ns = min(self.slice_ns, world.remaining_ns)
        steps = steps_of(world)
        bucket: LimitBucket | None = self
        while bucket is not None:
            if bucket.parked and bucket is not ahead and not bucket._goes_first(steps):
                return bucket
            bucket._fill(now_ns)
            if bucket._needed(turn_ns, steps) > bucket._level:
                return bucket
            bucket = bucket.parent
        bucket = self
        while bucket is not None:
            bucket._level -= turn_ns * bucket.denominator
            bucket._out += turn_ns * bucket.denominator
            bucket = bucket.parent
        for step in steps:
            step.node.charge(step, turn_ns, self._bound_ns)
        world.grant_ns = world.grant_left_ns = turn_ns
        world.grant_steps = steps
        return None

    def give_back(self, world: World, now_ns: int) -> None:
        """Put back what `world` took and did not use, here and above."""
        if not world.grant_ns:
            return
        for step in world.grant_steps:
            step.node.refund(step.child, step.price, world.grant_left_ns)
        bucket: LimitBucket | None = self
        while bucket is not None:
            bucket._fill(now_ns)
            bucket._level += world.grant_left_ns * bucket.denominator
            bucket._out -= world.grant_ns * bucket.denominator
            if bucket.parked:
                bucket._arm(now_ns)
            bucket = bucket.parent
        world.grant_ns = world.grant_left_ns = 0
        world.grant_steps = []

    def park(self, world: World, now_ns: int) -> None:
        """Let `world` wait in line for its turn."""
        self._fill(now_ns)
        world.parked = self
        self.parked += 1
        what: World | ShareNode = world
        for step in reversed(steps_below(steps_of(world), self.node)):
            if not step.node.wait(self.number, step, what, self._bound_ns):
                break
            what = step.node
        self._arm(now_ns)

    def unpark(self, world: World) -> None:
        """Take `world` out of the line without a turn (it is suspended or powered off)."""
        self._leave_line(world)
        if self.parked:
            self._arm(self._scheduler.sim.now)
        else:
            self.timer.cancel()

    def release(self) -> None:
        """Timer: give turns to the worlds in line as far as the buckets go, and let them compete again."""
        now_ns = self._scheduler.sim.now
        while self.parked:
            self._fill(now_ns)
            world = self._first()
            assert world.bucket is not None
            blocked = world.bucket.admit(world, now_ns, ahead=self)
            if blocked is self:
                self._arm(now_ns)
                return
            self._leave_line(world)
            if blocked is not None:
                blocked.park(world, now_ns)
            else:
                self._scheduler.unlimit(world, now_ns)
        self.timer.cancel()

    def _first(self) -> World:
        """Return the world in line that is served next."""
        what: World | ShareNode = self.node
        while isinstance(what, ShareNode):
            what = what.first(self.number)[2]
        return what

    def _goes_first(self, steps: list[Step]) -> bool:
        """Whether a world that is not in line is to be served before all that are."""
        for step in steps_below(steps, self.node):
            place, child, _ = step.node.first(self.number)
            if child != step.child:
                tag = step.node.tag(step.child, step.price, self._bound_ns)
                return step.node.place(step.child, tag) < place
        return False

    def _needed(self, turn_ns: int, steps: list[Step]) -> int:
        """Return what must be in the bucket before a turn is taken out.

        Whoever is ahead of one that runs just now leaves a turn for it: it will be back soon.  But nothing overflows.
        """
        needed = turn_ns * self.denominator
        for step in steps_below(steps, self.node):
            if step.node.leaves_room(step, self._bound_ns):
                depth = self.burst_ns * self.denominator - self._out
                return max(needed, min(needed + self.slice_ns * self.denominator, depth))
        return needed

    def _leave_line(self, world: World) -> None:
        world.parked = None
        self.parked -= 1
        for step in reversed(steps_below(steps_of(world), self.node)):
            if not step.node.stop_waiting(self.number, step.child):
                break

    def _arm(self, now_ns: int) -> None:
        """Set the timer for the moment when the first in line can have a turn, or shall be looked at again.

        The bucket is filled up to now.
        """
        first = self._first()
        assert first.bucket is not None
        turn_ns = min(first.bucket.slice_ns, first.remaining_ns)
        missing = turn_ns * self.denominator - self._level
        if missing <= 0:
            missing = self._needed(turn_ns, steps_of(first)) - self._level
        due_ns = now_ns + max(0, -(-missing // self.numerator))
        if due_ns != self.timer.due_ns:
            self.timer.arm(due_ns)

    def _fill(self, now_ns: int) -> None:
        depth = self.burst_ns * self.denominator - self._out
        level = self._level + (now_ns - self._filled_ns) * self.numerator
        self._level = level if level < depth else depth
        self._filled_ns = now_ns

    def check_invariants(self) -> None:
        """Raise `SimBug` unless the bucket holds between nothing and the burst."""
        if not 0 <= self._level <= self.burst_ns * self.denominator - self._out or self._out < 0:
            raise SimBug(f"limit bucket out of bounds: level {self._level}, out {self._out}")
        if bool(self.parked) != (self.number in self.node.lines):
            raise SimBug(f"limit bucket: {self.parked} worlds wait, and the line says otherwise")
        if bool(self.parked) != self.timer.armed:
            raise SimBug("limit bucket: worlds wait without a timer, or a timer runs for nobody")
