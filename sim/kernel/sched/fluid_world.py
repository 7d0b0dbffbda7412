"""A world of the fluid engine: it runs all the time, at a rate between nothing and one CPU.

Models: run time as the integral of the rate, in integers, with a remainder that is carried on; what it wanted and did
not get is ready or max-limited time, so that the states add up to its age exactly as ever.  A recorded demand flows in
evenly over each of its periods; work that was not served stays as a backlog.

Leaves out: on which pCPU it runs.  Sources: none, a design of ours.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from attrs import evolve

from sim.errors import SimBug
from sim.kernel.workload import FOREVER_NS, FULL_DEMAND, Trace, Workload
from sim.kernel.world import World, WorldState, WorldTimes

if TYPE_CHECKING:
    from sim.kernel.sched.scheduler import Scheduler

__all__ = ["UNIT", "FluidWorld", "Inflow"]

UNIT = FULL_DEMAND << 50
"""Work is counted in parts of a nanosecond of CPU: a whole CPU does so many a ns; hundredths of a percent are exact."""


class Inflow:
    """The work of a recorded demand that has arrived since `start_ns`, in units."""

    __slots__ = ("_before", "served", "start_ns", "trace")

    def __init__(self, trace: Trace, start_ns: int) -> None:
        self.trace = trace
        self.start_ns = start_ns
        self.served = 0
        self._before = [0, *accumulate(trace.demand)]

    def rate(self, now_ns: int) -> int:
        """Return the units that arrive in a nanosecond from now on."""
        period = (now_ns - self.start_ns) // self.trace.period_ns
        count = len(self.trace.demand)
        if period >= count and not self.trace.repeat:
            return 0
        return self.trace.demand[period % count] * (UNIT // FULL_DEMAND)

    def next_edge_ns(self, now_ns: int) -> int:
        """Return when the next period begins (never after the last, if the demand does not repeat)."""
        trace = self.trace
        period = (now_ns - self.start_ns) // trace.period_ns
        if period >= len(trace.demand) and not trace.repeat:
            return FOREVER_NS
        return self.start_ns + (period + 1) * trace.period_ns

    def backlog(self, now_ns: int) -> int:
        """Return the units that have arrived and not been served."""
        trace = self.trace
        period, offset_ns = divmod(now_ns - self.start_ns, trace.period_ns)
        count = len(trace.demand)
        if period >= count and not trace.repeat:
            period, offset_ns = count, 0
        rounds, rest = divmod(period, count)
        full = rounds * self._before[-1] + self._before[rest]
        partly = trace.demand[rest] * offset_ns if offset_ns else 0
        return (full * trace.period_ns + partly) * (UNIT // FULL_DEMAND) - self.served


class FluidWorld(World):
    """A world with a rate; while it `flows` it is in the state RUN, whatever the rate is.

    `rate`: units a nanosecond; `hungry`: whether it wanted more than it gets; `bound`: whether a limit keeps that from it;
    `left`: units of its burst that have not been served.
    """

    __slots__ = ("bound", "carry", "flows", "hungry", "inflow", "left", "rate")

    def __init__(
        self, sched: Scheduler, world_id: int, name: str, workload: Workload, *, kind: str, now_ns: int
    ) -> None:
        super().__init__(sched, world_id, name, workload, kind=kind, now_ns=now_ns)
        self.flows = False
        self.rate = self.carry = self.left = 0
        self.hungry = self.bound = False
        self.inflow: Inflow | None = None

    def settle(self, now_ns: int) -> None:
        """Account for the time since the last change of the rate."""
        elapsed_ns = now_ns - self.since_ns
        if not self.flows or elapsed_ns <= 0:
            return
        self.since_ns = now_ns
        served = self.rate * elapsed_ns
        ran_ns, self.carry = divmod(self.carry + served, UNIT)
        self.run_ns += ran_ns
        if not self.hungry:
            self.idle_ns += elapsed_ns - ran_ns
        elif self.bound:
            self.max_limited_ns += elapsed_ns - ran_ns
        else:
            self.ready_ns += elapsed_ns - ran_ns
        if self.inflow is not None:
            self.inflow.served += served
        elif self.remaining_ns < FOREVER_NS:
            self.left = max(0, self.left - served)
            self.remaining_ns = -(-self.left // UNIT)

    def times(self, now_ns: int) -> WorldTimes:
        """Return the times up to now; asking changes nothing."""
        elapsed_ns = now_ns - self.since_ns
        if not self.flows or elapsed_ns <= 0:
            return super().times(now_ns)
        found = super().times(self.since_ns)
        ran_ns = (self.carry + self.rate * elapsed_ns) // UNIT
        rest_ns = elapsed_ns - ran_ns
        if not self.hungry:
            return evolve(found, run_ns=found.run_ns + ran_ns, idle_ns=found.idle_ns + rest_ns)
        if self.bound:
            limited_ns = found.max_limited_ns + rest_ns
            return evolve(found, run_ns=found.run_ns + ran_ns, max_limited_ns=limited_ns)
        return evolve(found, run_ns=found.run_ns + ran_ns, ready_ns=found.ready_ns + rest_ns)

    def check_invariants(self, now_ns: int) -> None:
        """Raise `SimBug` unless the states add up to the world's age and the rate is one."""
        age_ns = (self.since_ns if self.state is WorldState.ENDED else now_ns) - self.began_ns
        times = self.times(now_ns)
        if times.total_ns != age_ns or min(times.run_ns, times.ready_ns, times.idle_ns) < 0:
            raise SimBug(f"world {self.world_id}: {times} do not add up to {age_ns} ns")
        if not 0 <= self.rate <= UNIT or not 0 <= self.carry < UNIT or (self.rate and not self.flows):
            raise SimBug(f"world {self.world_id} flows at {self.rate}, carries {self.carry}")
        if self.flows != (self.state is WorldState.RUN):
            raise SimBug(f"world {self.world_id}: state {self.state.name}, flows: {self.flows}")
