"""What a scheduling policy is: the few decisions that the mechanism leaves open.

The mechanism (`scheduler`, `pcpu`) keeps worlds, states, timers and books.  It asks a policy who is next, for how
long, and whom a waking world may interrupt.  A policy is a plain object that pickles; it may keep what it likes in
`world.vtime`, `world.price`, `world.seq` and `world.note`.  To write one, derive from `Policy`, give it a name and
define `enqueue`, `dequeue` and `pick`; everything else has a default.

Models nothing by itself.  Leaves out accounting, limits, co-stop and affinity: the mechanism does those for every
policy (a policy can decline the first two by its class attributes).

Sources: none, a design of ours; `policies/round_robin.py` is the shortest example.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sim.errors import ScenarioError, SimBug

if TYPE_CHECKING:
    from sim.kernel.sched.pcpu import PcpuRunner
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["POLICIES", "Policy", "make_policy"]


class Policy:
    """One way to schedule; `host` is the scheduler it decides for.

    `coscheduling`: whether the host stops vCPUs that run ahead of their siblings.  `limits`: whether the host holds
    the limits of VMs and pools.  `numa`: whether VMs get home nodes.  `spreads`: whether the host may move a running world
    from a core whose threads are all busy to a wholly idle one.  Every method is called by the host at the time `now_ns`.

    A policy never hears of a world that has a pCPU of its own (latency sensitivity High), except by `allocated`: no queue
    knows it, and what it runs is charged to nobody.
    """

    name = "policy"
    coscheduling = False
    limits = True
    numa = False
    spreads = True
    host: Scheduler

    def attach(self, host: Scheduler) -> None:
        """Begin to decide for a host; it has no worlds yet."""
        self.host = host

    # -- the three that every policy defines

    def enqueue(self, world: World, now_ns: int) -> None:
        """Put a READY world into the queue."""
        raise NotImplementedError

    def dequeue(self, world: World) -> None:
        """Take a READY world out of the queue: it is suspended, ends, or goes to a pCPU by another way."""
        raise NotImplementedError

    def pick(self, pcpu: PcpuRunner, now_ns: int) -> World | None:
        """Take the world that `pcpu` runs next out of the queue; it must satisfy `world.may_run_on(pcpu)`.

        None leaves the pCPU idle until a world is placed on it or `host.kick` is called.
        """
        raise NotImplementedError

    # -- the rest has defaults

    def quantum_ns(self, world: World) -> int:
        """Return the longest turn of `world`."""
        return self.host.options.quantum_ns

    def charge(self, world: World, ran_ns: int) -> None:
        """Learn that `world` has run for `ran_ns`: at the end of a turn, and when books are closed.

        It competes: `join` came before, and `leave` comes later.
        """

    def swap(self, pcpu: PcpuRunner, world: World, now_ns: int) -> World | None:
        """End the turn of `world`, which wants more: put it back and take the next, which may be the same one.

        While the host calls this the world is still in the state RUN, and its charge has been made.
        """
        self.enqueue(world, now_ns)
        return self.pick(pcpu, now_ns)

    def moved(self, world: World, pcpu: PcpuRunner) -> None:
        """Learn that a running world goes on with its turn on `pcpu`, which was idle."""

    def preempts(self, candidate: World, running: World, now_ns: int) -> bool:
        """Whether a world that wakes takes the pCPU from the one that runs there."""
        return False

    def place(self, world: World, now_ns: int) -> PcpuRunner | None:
        """Return the idle pCPU on which a world that has become READY starts at once, or None."""
        return self.host.idle_pcpu(world)

    def victim(self, world: World, now_ns: int) -> PcpuRunner | None:
        """Return the busy pCPU that a waking world takes, or None: the first that `preempts` allows."""
        for pcpu in self.host.wakeup_candidates(world):
            if pcpu.world is not None and self.preempts(world, pcpu.world, now_ns):
                return pcpu
        return None

    def makes_way(self, world: World, laggard: World) -> PcpuRunner | None:
        """Return the busy pCPU that the slowest sibling of a running vCPU, which is too far ahead, gets: its own."""
        return world.pcpu

    def allocated(self, world: World) -> None:
        """Learn that a world at rest has been given other shares, another reservation, pool or affinity."""

    def join(self, world: World, now_ns: int, *, fresh: bool) -> None:
        """Learn that a world begins to compete: it wakes or is resumed, or (`fresh`) has just been made."""

    def leave(self, world: World, now_ns: int) -> None:
        """Learn that a world competes no more: it sleeps, is suspended or ends."""

    def unlimited(self, world: World, now_ns: int) -> None:
        """Learn that a world that its limit had stopped, or its siblings' lag, may compete again."""

    def reconfigured(self) -> None:
        """Learn that options, pools or pCPUs of the host have changed."""

    def patience_ns(self) -> int:
        """Return how long a pCPU may be idle while a world is READY that it may run; for `check_invariants`."""
        return 0

    def queued(self) -> int:
        """Return how many READY worlds are in the queue; for `check_invariants`."""
        raise NotImplementedError

    def check_invariants(self) -> None:
        """Raise `SimBug` unless the policy's own books agree."""


POLICIES = {
    "esxi": "sim.kernel.sched.policies.esxi:EsxiPolicy",
    "lottery": "sim.kernel.sched.policies.lottery:Lottery",
    "lotterycomp": "sim.kernel.sched.policies.lottery:CompensatedLottery",
    "stride": "sim.kernel.sched.policies.stride:Stride",
    "stridefeasible": "sim.kernel.sched.policies.stride:FeasibleStride",
    "eevdf": "sim.kernel.sched.policies.eevdf:Eevdf",
    "credit": "sim.kernel.sched.policies.credit:Credit",
    "gang": "sim.kernel.sched.policies.gang:Gang",
    "roundrobin": "sim.kernel.sched.policies.round_robin:RoundRobin",
}
"""The policies that ship, by name; any other is named "module:Class", or in a scenario file "./file.py:Class"."""


def make_policy(name: str) -> Policy:
    """Make a policy by its name, or from "module:Class" (which imports and runs that module).

    Errors: `ScenarioError` when it cannot be found or is none.
    """
    module, _, attribute = POLICIES.get(name, name).partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
        if isinstance(found, type) and issubclass(found, Policy):
            return found()
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        wanted = f"{', '.join(POLICIES)} or module:Class"
        raise ScenarioError("sched.policy", f"cannot be found: {error}", got=name, wanted=wanted) from error
    raise ScenarioError("sched.policy", "is not a Policy", got=name, wanted="a class derived from Policy")


def refuse_foreign(world: World, pcpu: PcpuRunner, policy: Policy) -> None:
    """Raise `SimBug`: a policy has chosen a world for a pCPU that its affinity forbids."""
    raise SimBug(
        f"policy {policy.name} puts world {world.world_id} on pCPU {pcpu.index}, which it may not use"
    )
