"""Plans: whole runs of a CPU scheduler as values, which print as a readable scenario.

Models a host with its options, VMs, pools, and what is done to them when; loads that sleep, wait for their siblings at a
barrier or for a lock, cause interrupts, or follow a recorded demand.  Leaves out devices with queues.
Sources: none, a design of ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from sim.core.rng import FastStream
from sim.core.units import MS, US
from sim.kernel.coupled import Barrier, BarrierLoop, IoLoop, Lock, LockLoop
from sim.kernel.workload import Busy, Idle, OnOff, Trace, Workload

__all__ = ["COUPLED", "HZ", "Action", "Load", "PoolPlan", "SchedPlan", "Shared", "VmPlan"]

HZ = 1_000_000_000
"""The speed of a core in plans: reservations and limits in Hz are then parts per 10**9 of a CPU."""


@frozen(kw_only=True)
class Load:
    """What one vCPU wants; lengths in us.

    `kind`: busy; idle; onoff (fixed lengths) or random (exponential, from `seed`); io: as onoff, but an interrupt of
    `interrupt_us` ends each sleep; trace: `demand` in percent, each for `run_us`; barrier: runs, then waits until all its
    siblings of this kind have come; lock: runs `wait_us`, then `run_us` with the lock of its VM.  The last two wait by
    spinning if `spin`.
    """

    kind: str = "busy"
    run_us: int = 0
    wait_us: int = 0
    seed: int = 0
    interrupt_us: int = 0
    demand: tuple[int, ...] = ()
    spin: bool = False

    def make(self, scale: int = 1, shared: Shared | None = None) -> Workload:
        """Return the workload, with its times `scale` times as long; `shared` is what it has in common with siblings."""
        if self.kind == "busy":
            return Busy()
        if self.kind == "idle":
            return Idle()
        run_ns, wait_ns = self.run_us * US * scale, self.wait_us * US * scale
        if self.kind == "io":
            return IoLoop(run_ns, wait_ns, self.interrupt_us * US * scale)
        if self.kind == "trace":
            demand = tuple(100 * each for each in self.demand)
            return Trace(demand, run_ns, slice_ns=min(10 * MS * scale, run_ns))
        if self.kind in COUPLED:
            shared = shared if shared is not None else Shared((self,))
            if self.kind == "barrier":
                return BarrierLoop(shared.barrier, run_ns, spin=self.spin)
            return LockLoop(shared.lock, wait_ns, run_ns, spin=self.spin)
        return OnOff(run_ns, wait_ns, FastStream(self.seed) if self.kind == "random" else None)

    def __str__(self) -> str:
        if self.kind in ("busy", "idle"):
            return self.kind
        how = ", spinning" if self.spin else ""
        if self.kind == "trace":
            return f"trace of {', '.join(map(str, self.demand))} %, each for {self.run_us} us"
        if self.kind == "barrier":
            return f"barrier each {self.run_us} us{how}"
        if self.kind == "lock":
            return f"lock for {self.run_us} us after {self.wait_us} us{how}"
        interrupt = f", interrupt {self.interrupt_us} us" if self.kind == "io" else ""
        return f"{self.kind} {self.run_us} us, sleeps {self.wait_us} us{interrupt}"


COUPLED = ("barrier", "lock")
"""The kinds of load by which the vCPUs of a VM depend on each other."""


class Shared:
    """The barrier and the lock of one VM with these loads."""

    def __init__(self, loads: Sequence[Load]) -> None:
        self.barrier = Barrier(sum(load.kind == "barrier" for load in loads))
        self.lock = Lock()


@frozen(kw_only=True)
class VmPlan:
    """A VM: a load for each vCPU, shares and reservation (Hz of `HZ`) of each vCPU, limit (Hz), affinity (bits), pool."""

    name: str
    loads: tuple[Load, ...] = (Load(),)
    shares: int = 1000
    reservation_hz: int = 0
    limit_hz: int | None = None
    affinity: int = -1
    pool: int = -1

    @property
    def always_busy(self) -> bool:
        """Whether no vCPU ever sleeps."""
        return all(load.kind == "busy" for load in self.loads)

    def make(self, scale: int, shared: Shared) -> list[Workload]:
        """Return the workload of each vCPU."""
        return [load.make(scale, shared) for load in self.loads]

    def __str__(self) -> str:
        text = f"VM {self.name}: {'; '.join(map(str, self.loads))}; {self.shares} shares"
        text += f", reservation {self.reservation_hz / HZ:.3f} CPU" if self.reservation_hz else ""
        text += "" if self.limit_hz is None else f", limit {self.limit_hz / HZ:.3f} CPU"
        text += "" if self.affinity == -1 else f", affinity {self.affinity:#b}"
        return text + ("" if self.pool < 0 else f", in pool p{self.pool}")


@frozen(kw_only=True)
class PoolPlan:
    """A resource pool; `parent` is the number of an earlier one, or -1."""

    shares: int = 4000
    limit_hz: int | None = None
    parent: int = -1

    def levels(self, pools: Sequence[PoolPlan]) -> int:
        """Return how many pools there are from the host down to this one, itself included."""
        return 1 if self.parent < 0 else 1 + pools[self.parent].levels(pools)

    def __str__(self) -> str:
        text = f"{self.shares} shares" + (f", below p{self.parent}" if self.parent >= 0 else "")
        return text if self.limit_hz is None else f"{text}, limit {self.limit_hz / HZ:.3f} CPU"


@frozen(kw_only=True)
class Action:
    """Something done at `time_us` to VM or pCPU number `who`; what `value` means depends on `what`."""

    time_us: int
    what: str
    who: int
    value: int = 0

    def __str__(self) -> str:
        return f"at {self.time_us} us: {self.what} {self.who} ({self.value})"


@frozen(kw_only=True)
class SchedPlan:
    """A run: a host of `cores` a node, its options, pools and VMs, what is done when, and how long it lasts.

    `scale` multiplies every time of it.
    """

    cores: int = 1
    nodes: int = 1
    threads: int = 1
    quantum_ms: int = 5
    switch_ns: int = 0
    queues: str = "host"
    release: str = "8.0"
    polling: bool = False
    pools: tuple[PoolPlan, ...] = ()
    vms: tuple[VmPlan, ...] = ()
    actions: tuple[Action, ...] = ()
    span_ms: int = 120
    scale: int = 1

    @property
    def cpus(self) -> int:
        """Logical processors."""
        return self.cores * self.nodes * self.threads

    @property
    def quantum_ns(self) -> int:
        """The quantum, ns."""
        return self.quantum_ms * MS * self.scale

    @property
    def span_ns(self) -> int:
        """How long it lasts, ns."""
        return self.span_ms * MS * self.scale

    def __str__(self) -> str:
        host = (
            f"host: {self.nodes} x {self.cores} cores x {self.threads} threads, quantum {self.quantum_ms} ms"
        )
        host += f", switch {self.switch_ns} ns, a queue per {self.queues}, {self.span_ms} ms"
        host += f", periods of release {self.release}" if self.release != "8.0" else ""
        lines = [host]
        lines += [f"pool p{number}: {pool}" for number, pool in enumerate(self.pools)]
        return "\n".join([*lines, *map(str, self.vms), *map(str, self.actions)])
