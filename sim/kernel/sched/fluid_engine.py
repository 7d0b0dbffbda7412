"""The fluid engine: the same host, worlds and books as the scheduler, with CPU time divided without quanta.

Models: at every change of demand or of what somebody is entitled to (a burst begins or ends, a period of a recorded demand
begins, a VM comes, goes or is reconfigured, a pCPU goes offline) the capped entitlement is solved anew through the tree of
pools (`shares`), and every world goes on at the rate that this gives it.  Between two changes nothing happens, so
that a day with few changes takes seconds.  Rates are integers, rounded down to 1 / `UNIT` of a CPU; a solution is kept
for the next time that the same worlds want the same.

Leaves out: quanta, switches, queueing of demand that would fit on average, co-scheduling, affinity and
latency sensitivity (refused at admission), home nodes,
threads that share a core (a pCPU is a whole CPU here) and frequency.  All pCPUs are shown equally busy.

Source: the ideal of processor sharing with weights, floors and ceilings (`fluid`).
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from sim.core.context import Sim
from sim.core.trace import record
from sim.errors import SimBug
from sim.hw.topology import Topology
from sim.kernel.sched.fluid_world import UNIT, FluidWorld, Inflow
from sim.kernel.sched.limit import LimitBucket
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.pcpu import PcpuRunner, PcpuTimes
from sim.kernel.sched.policy import Policy
from sim.kernel.sched.pools import Pool
from sim.kernel.sched.scheduler import WORLDS_MAX, Scheduler
from sim.kernel.sched.shares import entitled
from sim.kernel.sched.steps import next_burst
from sim.kernel.workload import FOREVER_NS, Trace, Workload
from sim.kernel.world import World, WorldState

if TYPE_CHECKING:
    from sim.kernel.sched.fluid import Amount

__all__ = ["FluidScheduler", "make_scheduler"]

SCHED_RATE = record("sched.rate", world=int, cpu_ppb=int)
"""A world of the fluid engine runs at another rate from now on: billionths of a CPU."""

SOLUTIONS_MAX = 1024
"""The most solutions that are kept; then they are forgotten, and found anew."""

SOLVED_WORLDS_MAX = 200_000
"""The most rates in all solutions together."""

_S = WorldState
_Key = tuple[int, tuple[tuple[int, int], ...]]
_Rates = dict[int, tuple[int, bool]]


class _FluidPolicy(Policy):
    """Stands where a policy stands: the fluid engine has none, but must hear of changes."""

    name = "fluid"

    def reconfigured(self) -> None:
        """Solve anew."""
        host = self.host
        if isinstance(host, FluidScheduler):
            host.changed()

    def pick(self, pcpu: PcpuRunner, now_ns: int) -> World | None:
        """No pCPU runs anything."""
        return None

    def queued(self) -> int:
        """Nothing is queued."""
        return 0


class FluidPcpu(PcpuRunner):
    """A pCPU of the fluid engine: an equal part of all that runs."""

    __slots__ = ()

    def times(self, now_ns: int) -> PcpuTimes:
        """Return an equal part of the worlds' run time; of a remainder the first pCPUs have a nanosecond each."""
        sched = self.sched
        assert isinstance(sched, FluidScheduler)
        each_ns, rest_ns = divmod(sched.ran_ns(now_ns), len(sched.pcpus))
        busy_ns = each_ns + (self.index < rest_ns)
        return PcpuTimes(busy_ns=busy_ns, switch_ns=0, idle_ns=now_ns - sched.began_ns - busy_ns)


class FluidScheduler(Scheduler):
    """Shares the CPU time of one host without quanta; made, used and asked like a `Scheduler`."""

    def __init__(self, sim: Sim, topology: Topology, options: SchedOptions | None = None) -> None:
        super().__init__(sim, topology, options, _FluidPolicy())
        self.pcpus = tuple(FluidPcpu(self, place, None) for place in topology.pcpus)
        self._flowing: dict[int, FluidWorld] = {}
        self._mask = 0  # the flowing worlds that want a whole CPU, as bits
        self._partial: dict[int, int] = {}  # what the others want, in units
        self._solutions: dict[_Key, _Rates] = {}
        self._solved_worlds = 0
        self._ran = (sim.now, 0)
        self._timer = sim.engine.timer(self.solve)

    def add(self, name: str, workload: Workload, *, kind: str = "vcpu") -> World:
        """Make a world; it waits until `allocate` and `begin`."""
        if len(self.worlds) >= WORLDS_MAX:
            raise SimBug(f"over {WORLDS_MAX} worlds")
        world = FluidWorld(self, self._next_id, name, workload, kind=kind, now_ns=self.sim.now)
        self._next_id += 1
        self.worlds[world.world_id] = world
        return world

    def allocate(
        self,
        world: World,
        *,
        shares: int,
        reservation_hz: int = 0,
        bucket: LimitBucket | None = None,
        pool: Pool | None = None,
        affinity: int = -1,
    ) -> None:
        """Set what a waiting world is entitled to, as in `Scheduler`; admission has refused any affinity."""
        super().allocate(
            world, shares=shares, reservation_hz=reservation_hz, bucket=bucket, pool=pool, affinity=affinity
        )
        if world.affinity != -1:
            raise SimBug(f"world {world.world_id}: the fluid engine knows no affinity")
        self.changed()

    # -- lives

    def begin(self, world: World) -> None:
        """Set a new world going."""
        found = _fluid(world)
        if isinstance(world.workload, Trace):
            found.inflow = Inflow(world.workload, self.sim.now)
            self._follow(found, self.sim.now)
        else:
            super().begin(world)

    def end(self, world: World) -> None:
        """End a world for good."""
        super().end(world)
        self._forget()

    def resume(self, world: World) -> None:
        """Let a suspended world go on; a recorded demand has gone on meanwhile."""
        found = _fluid(world)
        if found.inflow is not None:
            self._follow(found, self.sim.now)
        else:
            super().resume(world)

    def wake(self, world: World) -> None:
        """Timer: a sleep or a burst is over, or a recorded demand changes."""
        found, now_ns = _fluid(world), self.sim.now
        if found.inflow is not None:
            self._follow(found, now_ns)
        elif not found.flows:
            super().wake(world)
        else:
            found.settle(now_ns)
            if found.remaining_ns <= 0 and not next_burst(world, now_ns):
                self._stop(found, _S.WAIT_IDLE, now_ns)
            else:
                self._begin_burst(found)
                self._time(found, now_ns)

    def block(self, world: World) -> None:
        """Let a running world wait for swap; its burst goes on after `unblock`."""
        found = _fluid(world)
        if not found.flows or found.inflow is not None:
            raise SimBug(f"world {world.world_id} is {world.state.name} and cannot wait for swap")
        world.timer.cancel()
        self._stop(found, _S.WAIT_SWAP, self.sim.now)
        world.remaining_ns = max(1, world.remaining_ns)

    def _compete(self, world: World, now_ns: int, *, fresh: bool = False) -> None:
        """Let a world flow that wants a whole CPU."""
        found = _fluid(world)
        self._begin_burst(found)
        self._flow(found, UNIT, now_ns)

    def _begin_burst(self, world: FluidWorld) -> None:
        """Count the burst in units, unless it is the rest of one that has been counted."""
        if -(-world.left // UNIT) != world.remaining_ns:
            world.left = world.remaining_ns * UNIT

    def _take_away(self, world: World, state: WorldState) -> None:
        """Take a world out of wherever it is, into a state in which it does nothing."""
        found = _fluid(world)
        flowed = found.flows
        self._leave(found, self.sim.now)
        super()._take_away(world, state)
        if flowed and world.remaining_ns <= 0:
            world.sleep_left_ns = 0  # its burst ended at this very moment

    def end_spin(self, world: World, now_ns: int) -> None:
        """Let a world that spins see that its gate is open: its burst ends after one more nanosecond."""
        found = _fluid(world)
        found.settle(now_ns)
        world.remaining_ns, found.left = 1, UNIT
        if found.flows:
            self._time(found, now_ns)

    # -- what a world wants

    def _follow(self, world: FluidWorld, now_ns: int) -> None:
        """Let a world want what its recorded demand wants now, all it can while there is a backlog."""
        inflow = world.inflow
        assert inflow is not None
        world.settle(now_ns)
        backlog = inflow.backlog(now_ns)
        if backlog < 0 or (world.flows and backlog < UNIT and world.rate >= inflow.rate(now_ns)):
            inflow.served += backlog  # a part of a nanosecond: rounding of the moment
            backlog = 0
        wanted = UNIT if backlog else inflow.rate(now_ns)
        if wanted:
            self._flow(world, wanted, now_ns)
        elif world.flows:
            self._stop(world, _S.WAIT_IDLE, now_ns)
        elif world.state is not _S.WAIT_IDLE:
            self.move(world, _S.WAIT_IDLE, now_ns)
        self._time(world, now_ns)

    def _flow(self, world: FluidWorld, wanted: int, now_ns: int) -> None:
        """Let a world want so many units a nanosecond; it gets what the next solution gives it."""
        number = world.world_id
        if not world.flows:
            if world.state is not _S.READY:
                self.move(world, _S.READY, now_ns)
            self.move(world, _S.RUN, now_ns)
            world.flows = world.hungry = True
            world.bound = False
            self._flowing[number] = world
        if wanted == UNIT:
            self._mask |= 1 << number
            self._partial.pop(number, None)
        else:
            self._mask &= ~(1 << number)
            self._partial[number] = wanted
        self._timer.arm(now_ns)

    def _leave(self, world: FluidWorld, now_ns: int) -> None:
        """Let a world flow no more; it is still in RUN."""
        if not world.flows:
            return
        world.settle(now_ns)
        world.flows, world.rate = False, 0
        del self._flowing[world.world_id]
        self._mask &= ~(1 << world.world_id)
        self._partial.pop(world.world_id, None)
        self._timer.arm(now_ns)

    def _stop(self, world: FluidWorld, state: WorldState, now_ns: int) -> None:
        self._leave(world, now_ns)
        self.move(world, state, now_ns)

    def _time(self, world: FluidWorld, now_ns: int) -> None:
        """Set the timer of a settled world for its next change."""
        rate, inflow = world.rate, world.inflow
        if inflow is not None:
            due_ns = inflow.next_edge_ns(now_ns)
            backlog, more = inflow.backlog(now_ns), rate - inflow.rate(now_ns)
            if backlog > 0 and more > 0:
                due_ns = min(due_ns, now_ns - (-backlog // more))
        elif not rate or world.remaining_ns >= FOREVER_NS:
            due_ns = FOREVER_NS
        else:
            due_ns = now_ns - (-world.left // rate)
        if due_ns < FOREVER_NS:
            world.timer.arm(due_ns)
        else:
            world.timer.cancel()

    # -- solving

    def changed(self) -> None:
        """Learn that somebody's entitlement or the machine has changed: kept solutions are worth nothing."""
        self._forget()
        self._timer.arm(self.sim.now)

    def _forget(self) -> None:
        self._solutions.clear()
        self._solved_worlds = 0

    def solve(self) -> None:
        """Timer: give every flowing world its rate."""
        now_ns = self.sim.now
        key = (self._mask, tuple(sorted(self._partial.items())))
        rates = self._solutions.get(key)
        if rates is None:
            rates = self._rates()
            if len(self._solutions) >= SOLUTIONS_MAX or self._solved_worlds > SOLVED_WORLDS_MAX:
                self._forget()
            self._solutions[key] = rates
            self._solved_worlds += len(rates)
        tracing = self.sim.trace.enabled(SCHED_RATE)
        for number, world in self._flowing.items():
            rate, bound = rates[number]
            hungry = rate < self._partial.get(number, UNIT) or (number not in self._partial)
            if rate != world.rate or hungry != world.hungry or bound != world.bound:
                world.settle(now_ns)
                if tracing and rate != world.rate:
                    self.sim.trace.emit(SCHED_RATE, number, rate * 10**9 // UNIT)
                world.rate, world.hungry, world.bound = rate, hungry, bound
                self._time(world, now_ns)
            if (
                hungry and number in self._partial
            ):  # a backlog grows: it wants all it can get, which changes no rate now
                del self._partial[number]
                self._mask |= 1 << number

    def _rates(self) -> _Rates:
        """Return rate, and whether a limit binds, for every flowing world."""
        cpus = self.online.bit_count()
        worlds = [self._flowing[number] for number in sorted(self._flowing)]
        wants = [self._partial.get(world.world_id, UNIT) for world in worlds]
        if sum(wants) <= cpus * UNIT and all(world.bucket is None and world.pool is None for world in worlds):
            return {world.world_id: (want, False) for world, want in zip(worlds, wants, strict=True)}
        wanted: dict[World, Amount] = {
            world: Fraction(want, UNIT) for world, want in zip(worlds, wants, strict=True)
        }
        found = entitled(wanted, cpus, self.topology.core_hz)
        return {
            world.world_id: (share.numerator * UNIT // share.denominator, bound)
            for world, (share, bound) in found.items()
        }

    def ran_ns(self, now_ns: int) -> int:
        """Return the run time of all worlds up to now, of those that have ended too."""
        if self._ran[0] != now_ns:
            ran_ns = sum(world.times(now_ns).run_ns for world in self.worlds.values())
            self._ran = (now_ns, ran_ns + self.ended_run_ns)
        return self._ran[1]

    def check_invariants(self) -> None:
        """Raise `SimBug` unless times add up, and no more flows than there is."""
        now_ns = self.sim.now
        for world in self.worlds.values():
            world.check_invariants(now_ns)
        busy_ns = sum(pcpu.times(now_ns).busy_ns for pcpu in self.pcpus)
        if busy_ns != self.ran_ns(now_ns) or any(pcpu.times(now_ns).idle_ns < 0 for pcpu in self.pcpus):
            raise SimBug("the worlds' run time is not the pCPUs' busy time")
        flow = sum(world.rate for world in self._flowing.values())
        if not self._timer.armed and flow > self.online.bit_count() * UNIT:
            raise SimBug(f"the worlds flow at {flow / UNIT} CPUs, the host has {self.online.bit_count()}")
        if list(self._flowing.values()) != [
            each for each in map(_fluid, self._flowing.values()) if each.flows
        ]:
            raise SimBug("a world is counted that does not flow")


def _fluid(world: World) -> FluidWorld:
    assert isinstance(world, FluidWorld)
    return world


def make_scheduler(sim: Sim, topology: Topology, options: SchedOptions) -> Scheduler:
    """Make the scheduler that `options.engine` names."""
    if options.engine == "fluid":
        return FluidScheduler(sim, topology, options)
    return Scheduler(sim, topology, options)
