"""A host under test: it plays a plan under any policy, and keeps what happened for the invariants to judge.

Models a tester's hand: VMs come and go, get other shares, reservations, limits and pools, are suspended and resumed;
pCPUs go offline and come (back) online; frequencies and the quantum change.  A VM gets another number of vCPUs while it
is on ("plug"), or is powered off and on with another number ("resize") or another load ("demand").  What cannot be done, such as taking away the last pCPU that a VM may use, is not done.

Leaves out admission control, which stands above the scheduler: plans promise no more than there is.

Sources: none, a design of ours.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve, field, frozen

from sim.core.context import Sim
from sim.core.units import MS, US
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.coupled import leave_gate
from sim.kernel.sched.advanced import default_of
from sim.kernel.sched.balance import LEVELS
from sim.kernel.sched.limit import LimitBucket
from sim.kernel.sched.machine import set_frequency, set_online
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.pcpu import PcpuTimes
from sim.kernel.sched.policies.esxi import EsxiPolicy
from sim.kernel.sched.policy import Policy
from sim.kernel.sched.pools import Pool, PoolSpec
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.sched.siblings import join_siblings, part_siblings
from sim.kernel.sched.steps import open_gate
from sim.kernel.world import World, WorldTimes
from sim.testing.scheduling_audit import Audit, audit, entries_of
from sim.testing.scheduling_plan import HZ, Action, Load, SchedPlan, Shared, VmPlan

__all__ = ["BURST_QUANTA", "Books", "Machine", "MakePolicy", "Permit", "TestHost", "books_of", "play"]

MakePolicy = Callable[[], Policy]

BURST_QUANTA = 4
"""How many quanta a limited VM of a plan may use at once."""

VMS_MAX = 12

DEMANDS = (
    Load(),
    Load(kind="onoff", run_us=3000, wait_us=5000),
    Load(kind="io", run_us=200, wait_us=900, interrupt_us=20),
    Load(kind="trace", run_us=10_000, demand=(30, 90, 0)),
    Load(kind="barrier", run_us=700),
    Load(kind="barrier", run_us=1500, spin=True),
    Load(kind="lock", run_us=100, wait_us=300, spin=True),
    Load(kind="idle"),
)
"""What a VM may want from now on."""


@frozen(kw_only=True)
class Books:
    """The counters of a host at one moment, as its own accounting, or anybody else's, gives them."""

    worlds: dict[int, WorldTimes]
    dispatches: dict[int, int]
    migrations: dict[int, int]
    ended_run_ns: int
    pcpus: tuple[PcpuTimes, ...]


def books_of(sched: Scheduler) -> Books:
    """Read the counters of a scheduler now."""
    now_ns, worlds = sched.sim.now, sched.worlds
    return Books(
        worlds={number: world.times(now_ns) for number, world in worlds.items()},
        dispatches={number: world.dispatches for number, world in worlds.items()},
        migrations={number: world.migrations for number, world in worlds.items()},
        ended_run_ns=sched.ended_run_ns,
        pcpus=tuple(pcpu.times(now_ns) for pcpu in sched.pcpus),
    )


@define(eq=False)
class Machine:
    """A VM of the host: its present plan, its worlds, and since when which plan has held (None: it is off)."""

    plan: VmPlan
    shared: Shared = field(factory=lambda: Shared(()))
    worlds: tuple[World, ...] = ()
    suspended: bool = False
    history: list[tuple[int, VmPlan | None, tuple[int, ...]]] = field(factory=list)

    @property
    def ids(self) -> tuple[int, ...]:
        """Its worlds' numbers."""
        return tuple(world.world_id for world in self.worlds)


@frozen
class Permit:
    """From `time_ns` on a world may run on the pCPUs of `mask` that are on its node `home` (-1: on any)."""

    time_ns: int
    world: int
    mask: int
    home: int


class TestHost:
    """A scheduler with the VMs of a plan, all begun at time 0 in the order of the plan.

    Its worlds are made in the same order, or the other way round if `backwards`.
    """

    __test__ = False  # not a test, whatever pytest makes of its name

    def __init__(
        self,
        plan: SchedPlan,
        make: MakePolicy = EsxiPolicy,
        categories: tuple[str, ...] = ("sched",),
        *,
        backwards: bool = False,
    ) -> None:
        self.plan = plan
        sim = Sim(categories=categories)
        spec = CpuSpec(
            cores_per_node=plan.cores,
            nodes_per_package=plan.nodes,
            threads_per_core=plan.threads,
            core_hz=HZ,
        )
        quantum_ns = plan.quantum_ns
        options = SchedOptions(
            release=plan.release,
            quantum_ns=quantum_ns,
            queues=plan.queues,
            world_switch_ns=plan.switch_ns * plan.scale,
            migrate_llc_ns=2 * plan.switch_ns * plan.scale,
            limit_burst_ns=BURST_QUANTA * quantum_ns,
            limit_slice_ns=quantum_ns,
            entitlement_ns=quantum_ns,
            preempt_grain_ns=MS * plan.scale,
            cosched_polling=plan.polling,
            advanced={name: min(5000, plan.scale * default_of(name, plan.release)) for name in LEVELS},
        )
        self.sched = Scheduler(sim, Topology.of(spec), options, make())
        self.frequencies: list[tuple[int, int, int]] = []  # time, core, Hz
        self.switched: list[tuple[int, int, bool]] = []  # time, pCPU, whether it is online from now on
        self.permits: list[Permit] = []
        self.pools: list[Pool] = []
        for number, pool in enumerate(plan.pools):
            parent = f"p{pool.parent}" if pool.parent >= 0 else ""
            made = PoolSpec(name=f"p{number}", parent=parent, shares=pool.shares, limit_hz=pool.limit_hz)
            self.pools.append(self.sched.pools.add(made))
        self.machines = [Machine(plan=vm) for vm in plan.vms]
        order = self.machines[::-1] if backwards else self.machines
        for machine in order:
            self._add_worlds(machine)
        for machine in self.machines:
            self.sched.group(machine.worlds)
        for machine in order:
            self._allocate(machine)
        for machine in self.machines:
            self._begin(machine)
        self._note_permits()
        for action in plan.actions:
            sim.engine.at(action.time_us * US * plan.scale, self.act, action)

    @property
    def now_ns(self) -> int:
        """The time."""
        return self.sched.sim.now

    def run(self, until_ns: int) -> None:
        """Let time pass."""
        self.sched.sim.engine.run(until_ns)

    def audit(self) -> Audit:
        """Return what the trace alone tells."""
        return audit(
            entries_of(self.sched.sim.trace),
            pcpus=len(self.sched.pcpus),
            threads=self.sched.topology.threads_per_core,
            began_ns=self.sched.began_ns,
            now_ns=self.now_ns,
            nominal_hz=self.sched.topology.core_hz,
            frequencies=self.frequencies,
        )

    def describe(self, world_id: int) -> str:
        """Name a world for a message."""
        for machine in self.machines:
            for time_ns, _, ids in machine.history:
                if world_id in ids:
                    return f"world {world_id} (vCPU {ids.index(world_id)} of {machine.plan.name}, on since {time_ns} ns)"
        return f"world {world_id}"

    def act(self, action: Action) -> bool:
        """Do something; tell whether it could be done."""
        done = self._act(action)
        self._note_permits()
        return done

    def _note_permits(self) -> None:
        """Note where worlds may run from now on, if that is new."""
        last = {permit.world: (permit.mask, permit.home) for permit in self.permits}
        for number, world in self.sched.worlds.items():
            if last.get(number) != (world.affinity, world.home):
                self.permits.append(Permit(self.now_ns, number, world.affinity, world.home))

    def _act(self, action: Action) -> bool:
        if action.what in ("offline", "online", "frequency", "quantum"):
            return self._change_host(action)
        if action.what == "add":
            if len(self.machines) >= VMS_MAX:
                return False
            machine = Machine(plan=VmPlan(name=f"w{len(self.machines)}", shares=1 + action.value))
            if self.pools and action.who % (len(self.pools) + 1):
                machine.plan = evolve(machine.plan, pool=action.who % len(self.pools))
            elif self.pools:
                machine.plan = evolve(machine.plan, pool=0)
            self.machines.append(machine)
            self._make_worlds(machine)
            self._begin(machine)
            return True
        if not self.machines:
            return False
        machine = self.machines[action.who % len(self.machines)]
        return bool(machine.worlds) and self._change_vm(machine, action)

    def _change_vm(self, machine: Machine, action: Action) -> bool:
        sched, value = self.sched, action.value
        if action.what in ("suspend", "resume"):
            if machine.suspended == (action.what == "suspend"):
                return False
            machine.suspended = not machine.suspended
            for world in machine.worlds:
                (sched.suspend if machine.suspended else sched.resume)(world)
            return True
        if action.what == "plug":
            return self._plug(machine, 1 + value % 5)
        if action.what in ("remove", "resize", "demand"):
            for world in machine.worlds:
                sched.end(world)
            machine.worlds, machine.suspended = (), False
            machine.history.append((self.now_ns, None, ()))
            if action.what != "remove":
                plan = machine.plan
                width = 1 + value % 4 if action.what == "resize" else len(plan.loads)
                loads = plan.loads if action.what == "resize" else (DEMANDS[value % len(DEMANDS)],)
                machine.plan = evolve(plan, loads=(loads * width)[:width], reservation_hz=0)
                self._make_worlds(machine)
                self._begin(machine)
            return True
        return self._reallocate(machine, action)

    def _plug(self, machine: Machine, width: int) -> bool:
        sched, plan, old = self.sched, machine.plan, machine.worlds
        if machine.suspended or width == len(old) or plan.reservation_hz:
            return False
        loads = (plan.loads * width)[:width]
        for world in old:
            sched.suspend(world)
        present = old[:width]
        added: tuple[World, ...] = ()
        if width < len(old):
            for world in old[width:]:
                open_gate(leave_gate(world), self.now_ns)
            part_siblings(sched, present, old[width:])
        else:
            machine.shared.barrier.parties += sum(load.kind == "barrier" for load in loads[len(old) :])
            workloads = [load.make(self.plan.scale, machine.shared) for load in loads[len(old) :]]
            added = tuple(sched.add(f"{plan.name}-plugged", workload) for workload in workloads)
            join_siblings(sched, present, added)
        machine.plan, machine.worlds = evolve(plan, loads=loads), (*present, *added)
        self._allocate(machine)
        for world in present:
            sched.resume(world)
        for world in added:
            sched.begin(world)
        return True

    def _reallocate(self, machine: Machine, action: Action) -> bool:
        plan, value = machine.plan, action.value
        if action.what == "shares":
            plan = evolve(plan, shares=1 + value)
        elif action.what == "reservation":
            others_hz = sum(
                each.plan.reservation_hz * len(each.worlds) for each in self.machines if each is not machine
            )
            room_hz = max(0, HZ - others_hz) // len(machine.worlds)
            if plan.limit_hz is not None:
                return False
            plan = evolve(plan, reservation_hz=room_hz * (value % 5) // 4)
        elif action.what == "limit":
            limit_hz = None if value % 3 == 0 or plan.reservation_hz else HZ * (1 + value % 20) // 10
            plan = evolve(plan, limit_hz=limit_hz)
        elif self.pools:
            plan = evolve(plan, pool=value % (len(self.pools) + 1) - 1)
        if plan == machine.plan:
            return False
        machine.plan = plan
        for world in machine.worlds:
            self.sched.suspend(world)
        self._allocate(machine)
        if not machine.suspended:
            for world in machine.worlds:
                self.sched.resume(world)
        return True

    def _change_host(self, action: Action) -> bool:
        sched = self.sched
        index = action.who % len(sched.pcpus)
        if action.what == "quantum":
            sched.configure(evolve(sched.options, quantum_ns=MS * (1 + action.value % 20)))
        elif action.what == "frequency":
            hz = HZ * (1 + action.value % 3) // 2
            set_frequency(sched, index, hz)
            self.frequencies.append((self.now_ns, sched.pcpus[index].place.core, hz))
        else:
            online = action.what == "online"
            rest = sched.online & ~(1 << index)
            if not online and not all(rest & world.affinity for world in sched.worlds.values()):
                return False
            if (not online and not rest) or sched.pcpus[index].online == online:
                return False
            set_online(sched, index, online=online)
            self.switched.append((self.now_ns, index, online))
        return True

    def _make_worlds(self, machine: Machine) -> None:
        self._add_worlds(machine)
        self.sched.group(machine.worlds)
        self._allocate(machine)

    def _add_worlds(self, machine: Machine) -> None:
        plan = machine.plan
        machine.shared = Shared(plan.loads)
        machine.worlds = tuple(
            self.sched.add(f"{plan.name}-{number}", workload)
            for number, workload in enumerate(plan.make(self.plan.scale, machine.shared))
        )

    def _begin(self, machine: Machine) -> None:
        for world in machine.worlds:
            self.sched.begin(world)

    def _allocate(self, machine: Machine) -> None:
        plan, sched = machine.plan, self.sched
        pool = self.pools[plan.pool] if plan.pool >= 0 else None
        bucket: LimitBucket | None = None
        if plan.limit_hz is not None:
            bucket = sched.bucket(plan.limit_hz, pool)
        mask = plan.affinity & (1 << len(sched.pcpus)) - 1
        if not mask & sched.online:
            mask = -1
        for world in machine.worlds:
            sched.allocate(
                world,
                shares=plan.shares,
                reservation_hz=plan.reservation_hz,
                bucket=bucket,
                pool=pool,
                affinity=mask,
            )
        machine.history.append((self.now_ns, plan, machine.ids))

    def check_invariants(self) -> None:
        """Raise `SimBug` unless the scheduler's own books agree."""
        self.sched.check_invariants()


def play(plan: SchedPlan, make: MakePolicy = EsxiPolicy, *, parts: int = 1) -> TestHost:
    """Run a plan to its end under a policy, in so many pieces of time, and return the host as it stands."""
    host = TestHost(plan, make)
    for part in range(1, parts + 1):
        host.run(plan.span_ns * part // parts)
    return host
