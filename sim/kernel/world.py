"""Worlds: what the VMkernel schedules, with exact accounting of every nanosecond of their lives.

Models: a world's state and the time spent in each state, added up at transitions only; its place in the scheduler's
books.  A vCPU is a world; so are a VM's helpers.

Leaves out: swap-wait is a state that the scheduler offers (`Scheduler.block`) and only paging enters; priorities
within the VMkernel itself.

Sources: the states Run, Ready, Co-Stop and Wait, with max-limited as a part of Ready and idle, VM-wait and swap-wait
as parts of Wait, are ESXi's (Broadcom KB 382249; esxtop manual).  The legal transitions are this model's own.
"""

from __future__ import annotations

from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from sim.core.trace import record
from sim.errors import SimBug

if TYPE_CHECKING:
    from sim.core.engine import Timer
    from sim.kernel.sched.cosched import VcpuGroup
    from sim.kernel.sched.limit import LimitBucket
    from sim.kernel.sched.limit_line import Step
    from sim.kernel.sched.pcpu import PcpuRunner
    from sim.kernel.sched.pools import Pool
    from sim.kernel.sched.reservation import Guarantee, Reservation
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.workload import Workload

__all__ = ["COMPETING", "EDGES", "SCHED_INTERRUPT", "SCHED_STATE", "World", "WorldState", "WorldTimes"]

SCHED_INTERRUPT = record("sched.interrupt", world=int, pcpu=int, cost_ns=int)
"""A system service for a world took `cost_ns`, on the pCPU where it ran last (-1: nowhere yet); who runs there is delayed."""

SCHED_STATE = record("sched.state", world=int, old=int, new=int)
"""A world changed its state (other than by a `sched.dispatch`): numbers of `WorldState`."""


class WorldState(IntEnum):
    """What a world is doing; exactly one at any time."""

    RUN = 0
    READY = 1
    MAX_LIMITED = 2
    COSTOP = 3
    WAIT_IDLE = 4
    WAIT_VM = 5
    WAIT_SWAP = 6
    ENDED = 7


_S = WorldState
_WAITS = (_S.WAIT_IDLE, _S.WAIT_VM, _S.WAIT_SWAP)

COMPETING = frozenset((_S.RUN, _S.READY, _S.MAX_LIMITED, _S.COSTOP))
"""The states in which a world wants a pCPU."""

EDGES = frozenset(
    [
        (_S.READY, _S.RUN),
        (_S.RUN, _S.READY),
        (_S.RUN, _S.COSTOP),
        (_S.READY, _S.COSTOP),
        (_S.COSTOP, _S.READY),
    ]
    + [(_S.READY, _S.MAX_LIMITED), (_S.MAX_LIMITED, _S.READY), (_S.WAIT_VM, _S.WAIT_IDLE)]
    + [(_S.RUN, wait) for wait in _WAITS]
    + [(wait, _S.READY) for wait in _WAITS]
    + [(state, _S.WAIT_VM) for state in _S if state not in (_S.ENDED, _S.WAIT_VM)]
    + [(state, _S.ENDED) for state in _S if state is not _S.ENDED]
)
"""The transitions that may happen: suspending leads to WAIT_VM and powering off to ENDED from everywhere."""


_NEXT = tuple(sum(1 << new for old, new in EDGES if old is state) for state in _S)  # as bits
_READY, _IDLE = _S.READY, _S.WAIT_IDLE


@attrs.frozen(kw_only=True)
class WorldTimes:
    """Nanoseconds in each state since the world began; they add up to its age exactly.

    Besides: `shared_ns` of its run time the core's other thread was busy too; `overclock_units` is what other
    frequencies than the nominal one made of it (`cores`); `system_ns` were spent on services for it, wherever;
    interrupts took `overlap_ns` of its run time.
    """

    run_ns: int = 0
    ready_ns: int = 0
    max_limited_ns: int = 0
    costop_ns: int = 0
    idle_ns: int = 0
    vm_wait_ns: int = 0
    swap_wait_ns: int = 0
    shared_ns: int = 0
    overclock_units: int = 0
    system_ns: int = 0
    overlap_ns: int = 0

    @property
    def total_ns(self) -> int:
        """The sum of all states."""
        return self.run_ns + self.ready_ns + self.max_limited_ns + self.costop_ns + self.wait_ns

    @property
    def wait_ns(self) -> int:
        """All of Wait: idle, VM-wait and swap-wait."""
        return self.idle_ns + self.vm_wait_ns + self.swap_wait_ns

    def __add__(self, other: WorldTimes) -> WorldTimes:
        return WorldTimes(**{name: getattr(self, name) + getattr(other, name) for name in _FIELDS})

    def __sub__(self, other: WorldTimes) -> WorldTimes:
        return WorldTimes(**{name: getattr(self, name) - getattr(other, name) for name in _FIELDS})


_FIELDS = tuple(field.name for field in attrs.fields(WorldTimes))  # in the order of WorldState


class World:
    """One schedulable context.  The mechanism owns all attributes but `world_id`, `name`, `kind` and `workload`.

    `since_ns` is when the present state began; it lies in the future while a pCPU is still switching to this world,
    and until then the world counts as READY.  `vtime`, `price`, `seq` and `note` belong to the policy.
    """

    __slots__ = (
        "affinity",
        "began_ns",
        "begun",
        "bucket",
        "claim",
        "cosched_stamp",
        "costop_ns",
        "dispatches",
        "exclusive",
        "floor",
        "gated",
        "grant_left_ns",
        "grant_ns",
        "grant_steps",
        "group",
        "home",
        "idle_ns",
        "interrupt_ns",
        "kind",
        "last_pcpu",
        "max_limited_ns",
        "migrations",
        "name",
        "note",
        "overclock_units",
        "overlap_ns",
        "parked",
        "pcpu",
        "pool",
        "price",
        "progress",
        "progress_asleep",
        "queue",
        "ready_ns",
        "remaining_ns",
        "reservation",
        "reservation_hz",
        "run_ns",
        "sched",
        "seq",
        "shared_mark_ns",
        "shared_ns",
        "siblings",
        "since_ns",
        "sleep_left_ns",
        "special",
        "spinning",
        "state",
        "swap_wait_ns",
        "system_ns",
        "timer",
        "vm_wait_ns",
        "vtime",
        "wakeups",
        "weight",
        "workload",
        "world_id",
    )

    def __init__(
        self, sched: Scheduler, world_id: int, name: str, workload: Workload, *, kind: str, now_ns: int
    ) -> None:
        self.sched = sched
        self.world_id = world_id
        self.name = name
        self.kind = kind
        self.workload = workload
        self.state = WorldState.WAIT_VM
        self.began_ns = self.since_ns = now_ns
        self.begun = 0  # its place among those that were set going; 0: not yet
        self.run_ns = self.ready_ns = self.max_limited_ns = self.costop_ns = 0
        self.idle_ns = self.vm_wait_ns = self.swap_wait_ns = 0
        self.dispatches = self.migrations = self.wakeups = 0
        self.remaining_ns = 0  # of the present burst, in CPU time
        self.interrupt_ns = 0  # what the interrupt costs that ends the present sleep
        self.spinning = False  # its present burst has no end but that of a gate
        self.system_ns = self.overlap_ns = 0  # system services for it, and what interrupts took from it
        self.sleep_left_ns = 0  # of a sleep that a suspension interrupted
        self.weight = 0  # shares
        self.affinity = -1  # the pCPUs it may use, as bits
        self.exclusive: PcpuRunner | None = (
            None  # the pCPU that is its alone; the policy does not see it then
        )
        self.home = -1  # the NUMA node that it is confined to; -1: none
        self.queue = -1  # the queue that it belongs to, if the policy has several
        self.pool: Pool | None = None  # None: directly under the host
        self.reservation_hz = 0
        self.floor: Guarantee | None = None
        self.reservation: Reservation | None = None
        self.claim = 0  # worlds with equal claims are entitled to the same
        self.price = 1  # virtual time of one nanosecond of CPU
        self.vtime = 0
        self.seq = 0  # of the queue entry that counts; 0: in no queue
        self.note: Any = None
        self.bucket: LimitBucket | None = None
        self.parked: LimitBucket | None = None  # in whose line it stands
        self.grant_ns = self.grant_left_ns = 0  # the turn taken out of the bucket, and what is left of it
        self.grant_steps: list[Step] = []  # where it was charged
        self.special = False  # has a reservation or a bucket
        self.gated = False  # must ask its bucket or its siblings before it runs
        self.siblings: tuple[World, ...] = (self,)  # the vCPUs of its VM
        self.group: VcpuGroup | None = None
        self.progress = self.progress_asleep = self.cosched_stamp = 0  # see `cosched`
        self.shared_ns = self.shared_mark_ns = 0  # run time beside a busy thread of the same core
        self.overclock_units = 0  # see `cores`
        self.pcpu: PcpuRunner | None = None
        self.last_pcpu: PcpuRunner | None = None
        self.timer: Timer = sched.sim.engine.timer(partial(sched.wake, self))  # the end of a sleep

    def may_run_on(self, pcpu: PcpuRunner) -> bool:
        """Whether its affinity allows `pcpu`."""
        return bool(self.affinity >> pcpu.index & 1)

    def enter(self, state: WorldState, now_ns: int) -> None:
        """Close the books of the present state and begin another."""
        old = self.state
        if not _NEXT[old] >> state & 1:
            raise SimBug(f"world {self.world_id} ({self.name}): {old.name} -> {state.name} is no transition")
        if old is _READY:
            self.ready_ns += now_ns - self.since_ns
        elif old is _IDLE:
            self.idle_ns += now_ns - self.since_ns
        else:
            field = _FIELDS[old]
            setattr(self, field, getattr(self, field) + now_ns - self.since_ns)
        self.since_ns = now_ns
        self.state = state

    def times(self, now_ns: int) -> WorldTimes:
        """Return the times up to now; asking changes nothing."""
        found = {name: getattr(self, name) for name in _FIELDS}
        if self.state is not WorldState.ENDED:
            elapsed = now_ns - self.since_ns
            found["ready_ns" if elapsed < 0 else _FIELDS[self.state]] += elapsed
            if elapsed > 0 and self.pcpu is not None and self.pcpu.core is not None:
                shared_ns, units = self.pcpu.core.unsettled(self, elapsed, now_ns)
                found["shared_ns"] += shared_ns
                found["overclock_units"] += units
        return WorldTimes(**found)

    def check_invariants(self, now_ns: int) -> None:
        """Raise `SimBug` unless the states add up to the world's age and fit the books."""
        age_ns = (self.since_ns if self.state is WorldState.ENDED else now_ns) - self.began_ns
        times = self.times(now_ns)
        if times.total_ns != age_ns or min(getattr(times, name) for name in _FIELDS[: WorldState.ENDED]) < 0:
            raise SimBug(f"world {self.world_id}: {times} do not add up to {age_ns} ns")
        if (self.state is WorldState.RUN) != (self.pcpu is not None):
            raise SimBug(f"world {self.world_id}: state {self.state.name} with pCPU {self.pcpu}")
        if self.state is WorldState.RUN and self.remaining_ns <= 0 and self.since_ns < now_ns:
            raise SimBug(f"world {self.world_id} runs without anything to do")
