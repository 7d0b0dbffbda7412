"""Plans: whole runs of a CPU scheduler as values, which print as a readable scenario.

Models a host with its options, VMs, pools, and what is done to them when.  Leaves out coupled workloads and interrupts.
Sources: none, a design of ours.
"""

from __future__ import annotations

from attrs import frozen

from sim.core.rng import FastStream
from sim.core.units import MS, US
from sim.kernel.workload import Busy, Idle, OnOff, Workload

__all__ = ["HZ", "Action", "Load", "PoolPlan", "SchedPlan", "VmPlan"]

HZ = 1_000_000_000
"""The speed of a core in plans: reservations and limits in Hz are then parts per 10**9 of a CPU."""


@frozen(kw_only=True)
class Load:
    """What one vCPU wants: busy, idle, onoff (fixed lengths) or random (exponential, from `seed`); lengths in us."""

    kind: str = "busy"
    run_us: int = 0
    wait_us: int = 0
    seed: int = 0

    def make(self, scale: int = 1) -> Workload:
        """Return the workload, with its times `scale` times as long."""
        if self.kind == "busy":
            return Busy()
        if self.kind == "idle":
            return Idle()
        stream = FastStream(self.seed) if self.kind == "random" else None
        return OnOff(self.run_us * US * scale, self.wait_us * US * scale, stream)

    def __str__(self) -> str:
        if self.kind in ("busy", "idle"):
            return self.kind
        return f"{self.kind} {self.run_us} us, sleeps {self.wait_us} us"


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
        lines = [host]
        lines += [f"pool p{number}: {pool}" for number, pool in enumerate(self.pools)]
        return "\n".join([*lines, *map(str, self.vms), *map(str, self.actions)])
