"""The CPU scheduler: shares, reservations and limits of worlds over all pCPUs of a host.

Models: one queue of READY worlds for the whole host, ordered by virtual time (CPU time per share), so that no pCPU
is idle while a world is ready; weights that stay feasible on several CPUs; guarantees served first (`reservation`);
limits (`limit`); preemption when a world that is far behind wakes; a bound on what a sleeper may catch up.

Leaves out: co-scheduling, resource pools, hyper-threading's loss, NUMA, affinity, per-pCPU queues and rebalancing.

Sources: proportional share by consumed time over shares as VMware describes its scheduler; start-time fair queueing,
Goyal, Vin and Cheng, SIGCOMM 1996; option names of ESXi (`options`).  Queue structure and wake-up rule are our own.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from sim.core.context import Sim
from sim.errors import ScenarioError, SimBug
from sim.hw.topology import Topology
from sim.kernel.sched.limit import LimitBucket
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.pcpu import SCHED_DISPATCH, PcpuRunner
from sim.kernel.sched.placement import IdleMasks
from sim.kernel.sched.reservation import DueQueue, Reservation
from sim.kernel.sched.weights import ActiveWeights
from sim.kernel.workload import FOREVER_NS, Run, Workload
from sim.kernel.world import SCHED_STATE, World, WorldState

__all__ = ["Scheduler"]

WORLDS_MAX = 65_536
"""The most worlds at one time."""

STEPS_MAX = 1000
"""The most steps without length that a workload may give in a row."""

_S = WorldState
_COMPETING = (_S.RUN, _S.READY, _S.MAX_LIMITED)

_SPREAD_BITS = 16
_FIRST = -(1 << 256)  # before any virtual time


def _spread(number: int) -> int:
    """Return the `number`-th point of a sequence that fills 0 to 2**16 evenly: the bits of the number, reversed.

    Worlds begin at such points of their first turn, so that many small shares do not all fall due together.
    """
    return int(f"{number & 0xFFFF:016b}"[::-1], 2)


class Scheduler:
    """Shares the pCPUs of one host among its worlds.

    A world is made by `add`, set going by `begin`, and ended by `end`.
    """

    def __init__(self, sim: Sim, topology: Topology, options: SchedOptions | None = None) -> None:
        self.sim = sim
        self.topology = topology
        self.options = options if options is not None else SchedOptions()
        self.began_ns = sim.now
        self.worlds: dict[int, World] = {}
        self.ready: list[tuple[int, int, World]] = []  # (virtual time, queue number, world); never replaced
        self.due = DueQueue()
        self.idle = IdleMasks(topology)
        self.weights = ActiveWeights(len(topology.pcpus))
        self.lag_ns = self.options.bound_lag_quanta * self.options.quantum_ns
        self.seq = 0
        self.ended_run_ns = 0  # run time of worlds that have ended
        self.reserved = 0  # competing worlds with a reservation
        self.contended = False
        self.level = 0  # the price of a whole CPU (see `weights`), at which virtual time goes on
        self._vtime, self._vtime_at_ns = 0, sim.now
        self._alone_ns = (sim.now, sim.now)  # when all last had a pCPU each
        self._level_timer = sim.engine.timer(self._find_level)
        self._level_found_ns = sim.now - self.options.quantum_ns
        self.tracing = sim.trace.enabled(SCHED_DISPATCH)
        self.pcpus = tuple(PcpuRunner(self, each.index) for each in topology.pcpus)
        for pcpu in self.pcpus:
            self.idle.set_idle(pcpu.index)
        self._next_id = self._next_bucket = 1
        self._begun = 0

    def add(self, name: str, workload: Workload, *, kind: str = "vcpu") -> World:
        """Make a world; it waits until `allocate` and `begin`."""
        if len(self.worlds) >= WORLDS_MAX:
            raise SimBug(f"over {WORLDS_MAX} worlds")
        world = World(self, self._next_id, name, workload, kind=kind, now_ns=self.sim.now)
        self._next_id += 1
        self.worlds[world.world_id] = world
        return world

    def allocate(
        self, world: World, *, shares: int, reservation_hz: int = 0, bucket: LimitBucket | None = None
    ) -> None:
        """Set what a waiting world is entitled to; a world that runs must be suspended first."""
        if world.state is not _S.WAIT_VM:
            raise SimBug(
                f"world {world.world_id} is {world.state.name} and cannot be given another allocation"
            )
        if shares <= 0 or not 0 <= reservation_hz <= self.topology.core_hz:
            raise SimBug(
                f"world {world.world_id}: shares {shares}, reservation {reservation_hz} Hz are impossible"
            )
        world.reservation, world.floor = None, None
        if reservation_hz:
            quantum_ns = self.options.quantum_ns
            world.reservation = Reservation(reservation_hz, self.topology.core_hz, quantum_ns, self.sim.now)
            world.floor = (world.reservation.numerator, world.reservation.denominator)
        world.bucket = bucket
        world.special = reservation_hz > 0 or bucket is not None
        world.weight = shares

    def bucket(self, limit_hz: int) -> LimitBucket:
        """Make the bucket that the vCPUs of one VM share."""
        self._next_bucket += 1
        return LimitBucket(self, self._next_bucket, limit_hz, self.topology.core_hz)

    def begin(self, world: World) -> None:
        """Set a new world going: it asks its workload what to do."""
        now_ns = self.sim.now
        if self.next_burst(world, now_ns):
            self._compete(world, now_ns, fresh=True)
        else:
            self.move(world, _S.WAIT_IDLE, now_ns)

    def end(self, world: World) -> None:
        """End a world for good."""
        self._take_away(world, _S.ENDED)
        self.ended_run_ns += world.run_ns
        del self.worlds[world.world_id]

    def halt(self) -> None:
        """End every world at once, as a crash or reset of the host does: no timer of this scheduler stays armed."""
        for world in tuple(self.worlds.values()):
            self.end(world)

    def suspend(self, world: World) -> None:
        """Stop a world where it stands; `resume` lets it go on with the rest of its burst or sleep."""
        if world.state is not _S.WAIT_VM:
            self._take_away(world, _S.WAIT_VM)

    def resume(self, world: World) -> None:
        """Let a suspended world go on."""
        now_ns = self.sim.now
        if world.remaining_ns > 0:
            self._compete(world, now_ns)
            return
        self.move(world, _S.WAIT_IDLE, now_ns)
        self._sleep(world, world.sleep_left_ns, now_ns)

    def wake(self, world: World) -> None:
        """End a sleep: ask the workload what comes next."""
        now_ns = self.sim.now
        world.wakeups += 1
        if self.next_burst(world, now_ns):
            self._compete(world, now_ns)

    def next_burst(self, world: World, now_ns: int) -> bool:
        """Ask the workload for its next step; True: it wants CPU, False: it sleeps and its timer is set."""
        for _ in range(STEPS_MAX):
            step = world.workload.next(now_ns)
            if step.ns == 0:
                continue
            if isinstance(step, Run):
                world.remaining_ns = step.ns
                return True
            world.remaining_ns = 0
            self._sleep(world, step.ns, now_ns)
            return False
        raise ScenarioError("workload", f"{world.name} gave {STEPS_MAX} steps of no length in a row")

    def move(self, world: World, state: WorldState, now_ns: int) -> None:
        """Put a world into a state, with its record."""
        if self.tracing:
            self.sim.trace.emit(SCHED_STATE, world.world_id, world.state, state)
        world.enter(state, now_ns)

    def enqueue(self, world: World) -> None:
        """Put a READY world into the queue."""
        self.seq += 1
        world.seq = self.seq
        heappush(self.ready, (self._key(world), self.seq, world))
        if world.reservation is not None:
            self.due.push(world, self.seq)
        if len(self.ready) > 4 * self.weights.count + 256:
            self._compact()

    def pick(self, now_ns: int) -> World | None:
        """Take the world that runs next out of the queue: one whose reservation is due, or the first by shares."""
        while True:
            world = self.due.pop(now_ns) if self.reserved else None
            if world is None:
                world = self._pop()
            if world is None:
                return None
            world.seq = 0
            if world.bucket is None or world.bucket.admit(world, now_ns):
                return world
            self._park(world, now_ns)

    def unlimit(self, world: World, now_ns: int) -> None:
        """Make a max-limited world READY: its bucket has given it a turn."""
        self._bound_lag(world, self.vtime(now_ns), now_ns)
        self.move(world, _S.READY, now_ns)
        self._place(world, now_ns)

    def withdraw(self, world: World, now_ns: int) -> None:
        """Count a world out: it competes no more."""
        self._count(world, -1, now_ns)

    def vtime(self, now_ns: int) -> int:
        """Return the common virtual time: that of a world which has had its exact share, always."""
        if self.contended:
            return self._vtime + self.level * (now_ns - self._vtime_at_ns)
        return self._vtime

    def _compete(self, world: World, now_ns: int, *, fresh: bool = False) -> None:
        """Make a world READY: bound what it may catch up, and find it a place."""
        if not self.weights.knows(world.weight):
            self._learn(world.weight, now_ns)
        self._count(world, 1, now_ns)
        vtime = self.vtime(now_ns)
        if fresh:
            world.price = self.weights.price(world, self.level)
            world.vtime = vtime
            if not self.idle.idle:
                self._begun += 1
                world.vtime += self.options.quantum_ns * world.price * _spread(self._begun) >> _SPREAD_BITS
        else:
            self._reprice(world, vtime)
        self._bound_lag(world, vtime, now_ns)
        self.move(world, _S.READY, now_ns)
        self._place(world, now_ns)

    def _bound_lag(self, world: World, vtime: int, now_ns: int) -> None:
        """Forget all but a few quanta of what a world has missed while it did not compete."""
        world.vtime = max(world.vtime, vtime - self.lag_ns * world.price)
        if world.reservation is not None:
            world.reservation.wake(now_ns)

    def _place(self, world: World, now_ns: int) -> None:
        """Start a READY world on an idle pCPU, or queue it and perhaps preempt another."""
        index = self.idle.choose(world.last_pcpu.index if world.last_pcpu is not None else 0)
        if index < 0:
            victim = self._victim(world, now_ns)
            self.enqueue(world)
            if victim is not None:
                victim.cut_turn(now_ns, self.options.preempt_grain_ns)
        elif world.bucket is None or world.bucket.admit(world, now_ns):
            self.pcpus[index].start(world, now_ns)
        else:
            self._park(world, now_ns)

    def _victim(self, world: World, now_ns: int) -> PcpuRunner | None:
        """Of the pCPUs that may be looked at, return that whose world is furthest ahead, if it is ahead enough.

        What it has run of its present turn counts even if nobody else wanted the pCPU then.
        """
        first = world.last_pcpu.index if world.last_pcpu is not None else 0
        found = None
        furthest = self._key(world) + self.options.preempt_grain_ns * world.price
        for offset in range(min(self.options.wakeup_pcpus, len(self.pcpus))):
            pcpu = self.pcpus[(first + offset) % len(self.pcpus)]
            runner = pcpu.world
            if runner is None or runner.price <= self.level:
                continue
            pcpu.settle(now_ns)
            free_ns = max(0, self._alone_ns[1] - max(self._alone_ns[0], pcpu.turn_from_ns))
            reached = runner.vtime + free_ns * runner.price
            if reached > furthest and runner.remaining_ns > 0:
                found, furthest = pcpu, reached
        return found

    def _key(self, world: World) -> int:
        """Return a world's place in the queue: one that is entitled to a whole CPU goes before all others."""
        return _FIRST if world.price <= self.level else world.vtime

    def _park(self, world: World, now_ns: int) -> None:
        self.move(world, _S.MAX_LIMITED, now_ns)
        assert world.bucket is not None
        world.bucket.park(world, now_ns)

    def _take_away(self, world: World, state: WorldState) -> None:
        """Take a world out of wherever it is, into a state in which it does nothing."""
        now_ns = self.sim.now
        old, pcpu = world.state, world.pcpu
        if world.timer.armed:
            world.sleep_left_ns = world.timer.due_ns - now_ns
            world.timer.cancel()
        elif world.remaining_ns <= 0:
            world.sleep_left_ns = FOREVER_NS
        if pcpu is not None:
            pcpu.stop(state, now_ns)
            if world.remaining_ns <= 0:
                world.sleep_left_ns = 0  # its burst ended at this very moment
        else:
            world.seq = 0
            if world.bucket is not None:
                if old is _S.MAX_LIMITED:
                    world.bucket.unpark(world)
                world.bucket.give_back(world, now_ns)
            self.move(world, state, now_ns)
        if old in _COMPETING:
            self.withdraw(world, now_ns)
        if pcpu is not None:
            pcpu.run_next(now_ns)

    def _sleep(self, world: World, ns: int, now_ns: int) -> None:
        if ns < FOREVER_NS:
            world.timer.arm(now_ns + ns)

    def _pop(self) -> World | None:
        ready = self.ready
        while ready:
            _, seq, world = heappop(ready)
            if world.seq == seq:
                return world
        return None

    def _count(self, world: World, by: int, now_ns: int) -> None:
        """Count a world in or out of those that compete; the new level is found soon, once for all changes."""
        if by > 0:
            self.weights.add(world)
        else:
            self.weights.remove(world)
        self.reserved = self.weights.reserved
        if self.weights.contended != self.contended:
            self._close_books(now_ns)
            self._alone_ns = (self._alone_ns[0], now_ns) if self.weights.contended else (now_ns, now_ns)
            self.contended = self.weights.contended
        if self.contended and not self._level_timer.armed:
            self._level_timer.arm(max(now_ns, self._level_found_ns + self.options.quantum_ns))

    def _find_level(self) -> None:
        """Timer: find the level and all prices that hang on it, at most once in a quantum."""
        if not self.contended:
            return
        now_ns = self._level_found_ns = self.sim.now
        self._close_books(now_ns)
        self.level = self.weights.find_level()
        changed = False
        for world in self.worlds.values():
            if world.state in _COMPETING:
                changed |= self._reprice(world, self._vtime)
        if changed:
            self._compact()

    def _reprice(self, world: World, vtime: int) -> bool:
        """Give a world its present price; it stays ahead or behind by as much CPU time as it was."""
        price = self.weights.price(world, self.level)
        old, world.price = world.price, price
        if price == old:
            return False
        world.vtime = vtime + (world.vtime - vtime) * price // old
        return True

    def _close_books(self, now_ns: int) -> None:
        """Charge all that has run up to now, and move virtual time on, before rates change."""
        for pcpu in self.pcpus:
            pcpu.settle(now_ns)
        self._vtime = self.vtime(now_ns)
        self._vtime_at_ns = now_ns

    def _learn(self, weight: int, now_ns: int) -> None:
        """Make virtual time fine enough for a new weight."""
        self._close_books(now_ns)
        new, old = self.weights.learn(weight)
        self._vtime = self._vtime * new // old
        self.level = self.level * new // old
        for world in self.worlds.values():
            world.vtime = world.vtime * new // old
            world.price = max(1, world.price * new // old)
        self._compact()

    def _compact(self) -> None:
        """Rebuild the queues without the entries that no longer count."""
        self.ready[:] = [(self._key(world), seq, world) for _, seq, world in self.ready if world.seq == seq]
        heapify(self.ready)
        self.due.compact()

    def check_invariants(self) -> None:
        """Raise `SimBug` unless books and queues agree and no pCPU is idle while a world is ready."""
        now_ns = self.sim.now
        for pcpu in self.pcpus:
            pcpu.check_invariants(now_ns, self.began_ns)
        queued = {seq: world for _, seq, world in self.ready if world.seq == seq}
        for world in self.worlds.values():
            world.check_invariants(now_ns)
            if (world.state is _S.READY) != (world.seq in queued and queued[world.seq] is world):
                raise SimBug(f"world {world.world_id} is {world.state.name}, queue number {world.seq}")
            if world.bucket is not None:
                world.bucket.check_invariants()
        if sum(world.times(now_ns).run_ns for world in self.worlds.values()) + self.ended_run_ns != sum(
            pcpu.times(now_ns).busy_ns for pcpu in self.pcpus
        ):
            raise SimBug("the worlds' run time is not the pCPUs' busy time")
        competing = [world for world in self.worlds.values() if world.state in _COMPETING]
        if len(competing) != self.weights.count:
            raise SimBug(f"{len(competing)} worlds compete, {self.weights.count} are counted")
        if queued and self.idle.idle:
            raise SimBug(f"pCPUs {self.idle.idle:#x} are idle while {len(queued)} worlds are ready")
        if sum(pcpu.world is None for pcpu in self.pcpus) != self.idle.idle.bit_count():
            raise SimBug(f"the mask of idle pCPUs {self.idle.idle:#x} is wrong")
        self.idle.check_invariants()
        self.weights.check_invariants()
