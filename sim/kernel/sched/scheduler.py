"""The mechanism of CPU scheduling on one host: worlds, pCPUs, states, timers and books.

Models: a world's life from `add` to `end`; bursts and sleeps as its workload asks; starting worlds on idle pCPUs and
interrupting busy ones; limits of VMs and pools (`limit`); co-stop (`cosched`); affinity; threads and frequency
(`cores`); options that change while the host runs.  Who is next, for how long,
and who interrupts whom is the policy's (`policy`).

Leaves out: NUMA home nodes; interrupts and system time; that a busy sibling thread makes a burst take longer (a burst is
CPU time, so that times scale exactly; what it is worth is `cores`').

Sources: the states, ESXi's; structure, costs and what happens at one instant in which order are our own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sim.core.context import Sim
from sim.errors import SimBug
from sim.hw.topology import Topology
from sim.kernel.sched import machine, retuning
from sim.kernel.sched.checks import check_scheduler
from sim.kernel.sched.cores import CoreClock
from sim.kernel.sched.limit import LimitBucket
from sim.kernel.sched.numa import NumaBalancer
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.pcpu import SCHED_DISPATCH, PcpuRunner
from sim.kernel.sched.placement import IdleMasks, bits
from sim.kernel.sched.policy import Policy, make_policy, refuse_foreign
from sim.kernel.sched.pools import Pool, PoolTree
from sim.kernel.sched.siblings import make_group
from sim.kernel.sched.spread import Spreader
from sim.kernel.sched.steps import next_burst, sleep
from sim.kernel.workload import FOREVER_NS, Workload
from sim.kernel.world import COMPETING, SCHED_INTERRUPT, SCHED_STATE, World, WorldState

__all__ = ["Scheduler"]

WORLDS_MAX = 65_536
"""The most worlds at one time."""

# plain names: looking a member up in an enumeration costs ten times as much
_RUN, _READY, _MAX_LIMITED, _COSTOP, _WAIT_IDLE, _WAIT_VM, _WAIT_SWAP, _ENDED = WorldState


class Scheduler:
    """Shares the pCPUs of one host among its worlds.

    A world is made by `add`, given its due by `allocate`, set going by `begin`, and ended by `end`.
    """

    def __init__(
        self,
        sim: Sim,
        topology: Topology,
        options: SchedOptions | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.sim = sim
        self.topology = topology
        self.options = options if options is not None else SchedOptions()
        self.began_ns = sim.now
        self.worlds: dict[int, World] = {}
        self.idle = IdleMasks(topology)
        self.ended_run_ns = 0  # run time of worlds that have ended
        self.dispatch_channel = sim.trace.channel(SCHED_DISPATCH)
        self.state_channel = sim.trace.channel(SCHED_STATE)
        cores = len(topology.pcpus) // topology.threads_per_core
        self.pools = PoolTree(self, cores * topology.core_hz)
        self.policy = policy if policy is not None else make_policy(self.options.policy)
        self.migration_costs = topology.llcs > 1 and self.options.migrate_llc_ns > 0
        clocks = [
            CoreClock(topology.core_hz) if topology.threads_per_core > 1 else None for _ in range(cores)
        ]
        self.pcpus = tuple(PcpuRunner(self, each, clocks[each.core]) for each in topology.pcpus)
        for pcpu in self.pcpus:
            self.idle.set_idle(pcpu.index)
            if pcpu.core is not None:
                pcpu.core.threads.append(pcpu)
        self.online = self._every = (1 << len(self.pcpus)) - 1  # pCPUs in use, as bits
        self.node_masks = tuple(
            bits(each.index for each in topology.of_node(node)) for node in range(topology.nodes)
        )
        self._next_id = self._next_bucket = 1
        self._begun = 0  # how many worlds have been set going
        self.numa = NumaBalancer(self)
        self.policy.attach(self)
        self.spreader = Spreader(self)
        for clock in clocks if self.policy.spreads else ():
            if clock is not None:
                clock.spreader = self.spreader

    # -- worlds, and what they are entitled to

    def add(self, name: str, workload: Workload, *, kind: str = "vcpu") -> World:
        """Make a world; it waits until `allocate` and `begin`."""
        if len(self.worlds) >= WORLDS_MAX:
            raise SimBug(f"over {WORLDS_MAX} worlds")
        world = World(self, self._next_id, name, workload, kind=kind, now_ns=self.sim.now)
        self._next_id += 1
        self.worlds[world.world_id] = world
        return world

    def group(self, worlds: Iterable[World], *, pages: int = 0) -> None:
        """Make siblings of waiting worlds, the vCPUs of one VM with so many pages of memory.

        They are co-scheduled, and get home nodes, if the policy wants that.
        """
        worlds = tuple(worlds)
        self.numa.add(worlds, pages)
        for world in worlds:
            world.siblings = worlds
        if len(worlds) < 2 or not self.policy.coscheduling or not self.options.costop_ns:
            return
        group = make_group(self, len(worlds))
        for world in worlds:
            group.add(world, self.sim.now)

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
        """Set what a waiting world is entitled to; a world that runs must be suspended first.

        `bucket` holds its VM's limit (its pool's is found by itself); `affinity` are the pCPUs it may use, as bits.
        """
        if world.state is not _WAIT_VM:
            raise SimBug(
                f"world {world.world_id} is {world.state.name} and cannot be given another allocation"
            )
        if shares <= 0 or not 0 <= reservation_hz <= self.topology.core_hz:
            raise SimBug(
                f"world {world.world_id}: shares {shares}, reservation {reservation_hz} Hz are impossible"
            )
        every = self._every
        if affinity != -1 and not affinity & every:
            raise SimBug(f"world {world.world_id}: affinity {affinity:#x} allows no pCPU of this host")
        if bucket is None and pool is not None:
            bucket = pool.nearest_bucket()
        world.bucket = bucket if self.policy.limits and world.exclusive is None else None
        world.gated = world.bucket is not None or world.group is not None
        world.pool = pool
        world.affinity = -1 if affinity & every == every else affinity
        if world.affinity != -1 and world.home >= 0:
            self.numa.release(world)
        world.weight = shares
        world.reservation_hz = reservation_hz
        self.policy.allocated(world)

    def bucket(self, limit_hz: int, pool: Pool | None = None, *, of: Pool | None = None) -> LimitBucket:
        """Make the bucket that the vCPUs of one VM share, or the VMs in the pool `of`, below that of `pool`."""
        self._next_bucket += 1
        above = None if pool is None else pool.nearest_bucket()
        core_hz = self.topology.core_hz
        return LimitBucket(self, self._next_bucket, limit_hz, core_hz, parent=above, pool=of)

    # -- lives

    def begin(self, world: World) -> None:
        """Set a new world going: it asks its workload what to do."""
        now_ns = self.sim.now
        self._begun += 1
        world.begun = self._begun
        if next_burst(world, now_ns):
            self._compete(world, now_ns, fresh=True)
        else:
            self.move(world, _WAIT_IDLE, now_ns)

    def end(self, world: World) -> None:
        """End a world for good."""
        self._take_away(world, _ENDED)
        if world.exclusive is not None:
            machine.give_back(self, world)
        self.ended_run_ns += world.run_ns
        if world.home >= 0:
            self.numa.release(world)
        del self.worlds[world.world_id]

    def halt(self) -> None:
        """End every world at once, as a crash or reset of the host does: no timer of this scheduler stays armed."""
        for world in tuple(self.worlds.values()):
            self.end(world)
        self.spreader.timer.cancel()

    def suspend(self, world: World) -> None:
        """Stop a world where it stands; `resume` lets it go on with the rest of its burst or sleep."""
        if world.state is not _WAIT_VM:
            self._take_away(world, _WAIT_VM)

    def resume(self, world: World) -> None:
        """Let a suspended world go on."""
        now_ns = self.sim.now
        if world.remaining_ns > 0:
            self._compete(world, now_ns)
            return
        self.move(world, _WAIT_IDLE, now_ns)
        sleep(world, world.sleep_left_ns, now_ns)

    def wake(self, world: World) -> None:
        """End a sleep: ask the workload what comes next."""
        now_ns = self.sim.now
        world.wakeups += 1
        if world.interrupt_ns:
            cost_ns, world.interrupt_ns = world.interrupt_ns, 0
            self.interrupt(world, cost_ns)
        if next_burst(world, now_ns):
            self._compete(world, now_ns)

    def block(self, world: World) -> None:
        """Let a running world wait for swap; its burst goes on after `unblock`."""
        now_ns = self.sim.now
        pcpu = world.pcpu
        if pcpu is None:
            raise SimBug(f"world {world.world_id} is {world.state.name} and cannot wait for swap")
        pcpu.stop(_WAIT_SWAP, now_ns)
        world.remaining_ns = max(
            1, world.remaining_ns
        )  # it was about to end: what woke it goes on afterwards
        self.withdraw(world, now_ns)
        pcpu.run_next(now_ns)

    def unblock(self, world: World) -> None:
        """End a wait for swap."""
        if world.state is not _WAIT_SWAP:
            raise SimBug(f"world {world.world_id} is {world.state.name}, not waiting for swap")
        world.remaining_ns = max(1, world.remaining_ns)
        self._compete(world, self.sim.now)

    def end_spin(self, world: World, now_ns: int) -> None:
        """Let a world that spins see that its gate is open: its burst ends after one more nanosecond."""
        pcpu = world.pcpu
        if pcpu is not None:
            pcpu.settle(now_ns)
        world.remaining_ns = 1
        if pcpu is not None:
            pcpu.retime(now_ns)

    def interrupt(self, world: World, cost_ns: int) -> None:
        """Serve an interrupt for `world` where it ran last: system time to it, overlap to whoever runs there.

        On an idle pCPU it delays nobody.
        """
        world.system_ns += cost_ns
        pcpu = world.last_pcpu
        self.sim.trace.emit(SCHED_INTERRUPT, world.world_id, -1 if pcpu is None else pcpu.index, cost_ns)
        if pcpu is not None and pcpu.world is not None:
            pcpu.steal(cost_ns, self.sim.now)

    def move(self, world: World, state: WorldState, now_ns: int, begun_ns: int = 0) -> None:
        """Put a world into a state other than RUN, with its record; it has run since `begun_ns` if it ran."""
        old = world.state
        if self.state_channel is not None:
            self.state_channel.three(world.world_id, old, state)
        world.enter(state, now_ns)
        if world.group is not None:
            world.group.moved(world, old, begun_ns, now_ns)

    # -- decisions

    def pick(self, pcpu: PcpuRunner, now_ns: int) -> World | None:
        """Take the world out of the queue that `pcpu` runs next; those that may not run are put where they wait."""
        while True:
            world = self.policy.pick(pcpu, now_ns)
            if world is None:
                return None
            if world.affinity != -1 and not world.affinity >> pcpu.index & 1:
                refuse_foreign(world, pcpu, self.policy)
            if not world.gated or self.admit(world, now_ns):
                return world

    def admit(self, world: World, now_ns: int) -> bool:
        """Whether a world out of the queue may run; if not, it is co-stopped or max-limited from now on."""
        if world.state is _MAX_LIMITED:  # it was queued, but had had its limit's worth
            self.move(world, _READY, now_ns)
        if world.group is not None and not world.group.may_start(world, now_ns):
            self.move(world, _COSTOP, now_ns)
            return False
        if world.bucket is not None:
            blocked = world.bucket.admit(world, now_ns)
            if blocked is not None:
                self.move(world, _MAX_LIMITED, now_ns)
                blocked.park(world, now_ns)
                return False
        return True

    def withdraw(self, world: World, now_ns: int) -> None:
        """Tell the policy that a world competes no more."""
        if world.bucket is not None and world.pool is not None:
            world.pool.want(-world.weight)
        if world.exclusive is None:
            self.policy.leave(world, now_ns)

    def competing(self) -> list[World]:
        """Return the worlds that compete for pCPUs: they run, are ready, co-stopped or max-limited."""
        return [each for each in self.worlds.values() if each.state in COMPETING and each.exclusive is None]

    def unlimit(self, world: World, now_ns: int) -> None:
        """Make a max-limited world READY: its buckets have given it a turn."""
        if world.exclusive is None:
            self.policy.unlimited(world, now_ns)
        self.move(world, _READY, now_ns)
        self.place(world, now_ns)

    def costop(self, world: World) -> None:
        """Stop a running vCPU that is too far ahead; its pCPU goes to the slowest sibling, if that waits for one."""
        now_ns, pcpu, group = self.sim.now, world.pcpu, world.group
        assert pcpu is not None
        assert group is not None
        turn_from_ns = pcpu.turn_from_ns
        pcpu.stop(_COSTOP, now_ns)
        laggard = group.laggard()
        if (
            laggard is not None
            and pcpu.online
            and self.fits(laggard, pcpu)
            and now_ns - laggard.since_ns >= self.options.handoff_skip_ns
        ):
            self._run_laggard(laggard, pcpu, turn_from_ns, now_ns)
        else:
            pcpu.run_next(now_ns)

    def can_hand_off(self, world: World, laggard: World) -> bool:
        """Whether a running vCPU can make way for a READY sibling."""
        pcpu = world.pcpu
        return pcpu is not None and pcpu.online and world.exclusive is None and self.fits(laggard, pcpu)

    def hand_off(self, world: World, laggard: World) -> None:
        """Let a running vCPU that is ahead make way for its slowest sibling, which waits, before it must be stopped."""
        now_ns, pcpu = self.sim.now, self.policy.makes_way(world, laggard)
        assert pcpu is not None
        turn_from_ns = pcpu.turn_from_ns
        stopped = pcpu.put_back(now_ns)
        self._run_laggard(laggard, pcpu, turn_from_ns, now_ns)
        if self.idle.idle:
            self.rescue(stopped, now_ns)

    def _run_laggard(self, laggard: World, pcpu: PcpuRunner, turn_from_ns: int, now_ns: int) -> None:
        """Give a pCPU to a READY world, and the rest of the turn that another began there.

        A whole new turn for each hand-off would give the VM more than its share.
        """
        self.policy.dequeue(laggard)
        if self.admit(laggard, now_ns):
            pcpu.start(laggard, now_ns, turn_from_ns)
        else:
            pcpu.run_next(now_ns)

    def costart(self, world: World) -> None:
        """Let a co-stopped vCPU compete again."""
        now_ns = self.sim.now
        if world.exclusive is None:
            self.policy.unlimited(world, now_ns)
        self.move(world, _READY, now_ns)
        self.place(world, now_ns)

    def allowed(self, world: World) -> int:
        """Return the pCPUs that are online and that affinity and home node allow, as bits."""
        allowed = world.affinity & self.online
        return allowed if world.home < 0 else allowed & self.node_masks[world.home]

    def fits(self, world: World, pcpu: PcpuRunner) -> bool:
        """Whether affinity and home node allow a pCPU."""
        if world.affinity == -1 and world.home < 0:
            return True
        return bool(world.affinity >> pcpu.index & 1) and (world.home < 0 or world.home == pcpu.place.node)

    def idle_pcpu(self, world: World) -> PcpuRunner | None:
        """Return the best idle pCPU for a world: where it ran, a whole core near by, any thread near by."""
        last = world.last_pcpu.index if world.last_pcpu is not None else 0
        index = self.idle.choose(last, self.allowed(world))
        return None if index < 0 else self.pcpus[index]

    def wakeup_candidates(self, world: World) -> Sequence[PcpuRunner]:
        """Return the pCPUs that a waking world may look at (`Cpu.WakeupMigrateIdlePcpus`), from its last one on."""
        pcpus = self.pcpus
        first = world.last_pcpu.index if world.last_pcpu is not None else 0
        most = self.options.wakeup_pcpus
        if world.affinity == -1 and world.home < 0 and self.online == self._every:
            end = first + most
            if end <= len(pcpus):
                return pcpus[first:end]
            return pcpus[first:] + pcpus[: min(end, first + len(pcpus)) - len(pcpus)]
        found: list[PcpuRunner] = []
        for pcpu in pcpus[first:] + pcpus[:first]:
            if len(found) == most:
                break
            if pcpu.online and self.fits(world, pcpu):
                found.append(pcpu)
        return found

    def switch_cost_ns(self, pcpu: PcpuRunner, world: World) -> int:
        """Return the time that `pcpu` loses before `world` runs there."""
        if pcpu.last is world:
            return 0
        last = world.last_pcpu
        if last is None or last.place.llc == pcpu.place.llc:
            return self.options.world_switch_ns
        return self.options.world_switch_ns + self.options.migrate_llc_ns

    def is_queued(self, world: World) -> bool:
        """Whether a world is in the policy's queue: READY, or max-limited but in no bucket's line."""
        return world.state is _READY or (world.state is _MAX_LIMITED and world.parked is None)

    def limit(self, world: World, now_ns: int) -> None:
        """Let a READY world with a limit that the policy has queued count as max-limited until it is picked."""
        if world.state is _READY and world.bucket is not None:
            self.move(world, _MAX_LIMITED, now_ns)

    def rescue(self, world: World, now_ns: int) -> None:
        """Start a world that has lost its pCPU on an idle one: those that took its place could perhaps not run there."""
        if self.idle.idle and self.is_queued(world) and self.idle_pcpu(world) is not None:
            self.policy.dequeue(world)
            self.place(world, now_ns)

    @property
    def switch_ns_max(self) -> int:
        """The longest time that a pCPU needs to switch a world in."""
        return self.options.world_switch_ns + (self.options.migrate_llc_ns if self.migration_costs else 0)

    def kick(self, pcpu: PcpuRunner) -> None:
        """Let a pCPU decide anew at once: its world goes back to the queue, or an idle pCPU asks the policy."""
        if not pcpu.online:
            return
        if pcpu.world is None:
            pcpu.run_next(self.sim.now)
        elif pcpu.world.remaining_ns > 0:
            pcpu.requeue(self.sim.now)

    def configure(self, options: SchedOptions) -> None:
        """Change options while the host runs; groups and buckets that exist take in their thresholds."""
        retuning.configure(self, options)

    # -- how a world comes to compete, and how it stops

    def _compete(self, world: World, now_ns: int, *, fresh: bool = False) -> None:
        """Make a world READY, and find it a place."""
        if world.bucket is not None and world.pool is not None:
            world.pool.want(world.weight)
        if world.exclusive is None:
            self.policy.join(world, now_ns, fresh=fresh)
        if world.state is _WAIT_IDLE:  # nearly always: what `move` does, written out
            if self.state_channel is not None:
                self.state_channel.three(world.world_id, _WAIT_IDLE, _READY)
            world.idle_ns += now_ns - world.since_ns
            world.since_ns = now_ns
            world.state = _READY
            if world.group is not None:
                world.group.woke(world, now_ns)
        else:
            self.move(world, _READY, now_ns)
        self.place(world, now_ns)

    def place(self, world: World, now_ns: int) -> None:
        """Start a READY world on an idle pCPU, or queue it and perhaps interrupt another."""
        policy = self.policy
        pcpu = policy.place(world, now_ns) if world.exclusive is None else world.exclusive
        if pcpu is not None:
            if not world.gated or self.admit(world, now_ns):
                pcpu.start(world, now_ns)
            return
        victim = policy.victim(world, now_ns)
        policy.enqueue(world, now_ns)
        if victim is not None:
            victim.cut_turn(now_ns, self.options.preempt_grain_ns)

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
            if old is _READY or (old is _MAX_LIMITED and world.parked is None):
                self.policy.dequeue(world)
            if world.bucket is not None:
                if world.parked is not None:
                    world.parked.unpark(world)
                world.bucket.give_back(world, now_ns)
            self.move(world, state, now_ns)
        if old in COMPETING:
            self.withdraw(world, now_ns)
        if pcpu is not None:
            pcpu.run_next(now_ns)

    def check_invariants(self) -> None:
        """Raise `SimBug` unless books and queues agree and no pCPU is idle while a world is ready for it."""
        check_scheduler(self)
