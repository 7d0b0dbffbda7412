"""CPU counters as esxtop shows them: per world, per VM and per physical CPU, between two moments.

Models: exact times from the scheduler's books.  For every row `%RUN + %RDY + %CSTP + %WAIT` is 100 % for each world
of the row, `%RDY` includes `%MLMTD`, `%WAIT` includes `%IDLE` and `%SWPWT`, `%VMWAIT = %WAIT - %IDLE`, and
`%USED = %RUN + %SYS - %OVRLP` with one thread a core at nominal frequency.

`%USED` counts run time by frequency and by what the other thread of the core left of it (62.5 % when both were busy), while
PCPU USED splits such time half and half: both are published conventions (`sched.cores`).

Leaves out: power states, memory counters.

Sources: names and identities of esxtop's interactive and batch mode (`-b`), as public descriptions give them; VMware's
operations guide, VM CPU metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from operator import add

import attrs

from sim.core.metrics import Metrics
from sim.kernel.sched.cores import used_ns
from sim.kernel.sched.pcpu import PcpuTimes
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.vm import VmManager
from sim.kernel.world import World, WorldTimes

__all__ = ["COUNTERS", "Counter", "CpuRow", "PcpuRow", "Snapshot", "Usage", "publish", "snapshot", "usage"]


@attrs.frozen(kw_only=True)
class Snapshot:
    """All books at one moment: times of each world by id, of each pCPU, and which worlds belong to which VM."""

    time_ns: int
    worlds: dict[int, WorldTimes]
    names: dict[int, str]
    vms: dict[str, tuple[int, ...]]
    pcpus: tuple[PcpuTimes, ...]
    core_hz: int


def snapshot(manager: VmManager) -> Snapshot:
    """Read the books of a host's VMs and pCPUs now; asking changes nothing."""
    now_ns = manager.sim.now
    worlds: list[World] = [world for vm in manager.vms.values() for world in vm.worlds]
    return Snapshot(
        time_ns=now_ns,
        worlds={world.world_id: world.times(now_ns) for world in worlds},
        names={world.world_id: world.name for world in worlds},
        vms={vm.name: tuple(world.world_id for world in vm.worlds) for vm in manager.vms.values()},
        pcpus=tuple(pcpu.times(now_ns) for pcpu in manager.scheduler.pcpus),
        core_hz=manager.scheduler.topology.core_hz,
    )


@attrs.frozen(kw_only=True)
class Counter:
    """One counter: esxtop's heading, its name in batch files, and how it follows from a row's times, in ns."""

    heading: str
    batch_name: str
    of: Callable[[CpuRow], int | Fraction]


def _used(row: CpuRow) -> Fraction:
    """Run time at what it was worth, and system time instead of what interrupts took."""
    times = row.times
    worth = used_ns(times.run_ns, times.shared_ns, times.overclock_units, row.core_hz)
    return worth + times.system_ns - times.overlap_ns


def _run(row: CpuRow) -> int:
    return row.times.run_ns


def _system(row: CpuRow) -> int:
    return row.times.system_ns


def _ready(row: CpuRow) -> int:
    return row.times.ready_ns + row.times.max_limited_ns


def _vm_wait(row: CpuRow) -> int:
    return row.times.wait_ns - row.times.idle_ns


def _wait(row: CpuRow) -> int:
    return row.times.wait_ns


def _idle(row: CpuRow) -> int:
    return row.times.idle_ns


def _overlap(row: CpuRow) -> int:
    return row.times.overlap_ns


def _costop(row: CpuRow) -> int:
    return row.times.costop_ns


def _max_limited(row: CpuRow) -> int:
    return row.times.max_limited_ns


def _swap_wait(row: CpuRow) -> int:
    return row.times.swap_wait_ns


def _latency(row: CpuRow) -> Fraction:
    """Time lost to others: ready and co-stop, and what a busy sibling thread took; not what a limit stopped."""
    times = row.times
    lost = times.run_ns - used_ns(times.run_ns, times.shared_ns, 0, row.core_hz)
    return times.ready_ns + times.costop_ns + lost


def _demand(row: CpuRow) -> Fraction:
    """Time wanted: run time by frequency but not by threads, and all waiting for it."""
    times = row.times
    run = used_ns(times.run_ns, 0, times.overclock_units, row.core_hz)
    return run + times.ready_ns + times.max_limited_ns + times.costop_ns


COUNTERS = (
    Counter(heading="%USED", batch_name="% Used", of=_used),
    Counter(heading="%RUN", batch_name="% Run", of=_run),
    Counter(heading="%SYS", batch_name="% System", of=_system),
    Counter(heading="%WAIT", batch_name="% Wait", of=_wait),
    Counter(heading="%VMWAIT", batch_name="% VmWait", of=_vm_wait),
    Counter(heading="%RDY", batch_name="% Ready", of=_ready),
    Counter(heading="%IDLE", batch_name="% Idle", of=_idle),
    Counter(heading="%OVRLP", batch_name="% Overlap", of=_overlap),
    Counter(heading="%CSTP", batch_name="% CoStop", of=_costop),
    Counter(heading="%MLMTD", batch_name="% Max Limited", of=_max_limited),
    Counter(heading="%SWPWT", batch_name="% Swap Wait", of=_swap_wait),
    Counter(heading="%LAT_C", batch_name="% CPU Latency", of=_latency),
    Counter(heading="%DMD", batch_name="% Demand", of=_demand),
)
"""esxtop's CPU counters in its order."""

_BY_HEADING = {counter.heading: counter for counter in COUNTERS}


@attrs.frozen(kw_only=True)
class CpuRow:
    """A line of the CPU table: a world, or a VM as the sum of its worlds, over `span_ns`."""

    name: str
    nworld: int
    span_ns: int
    times: WorldTimes
    core_hz: int

    def percent(self, heading: str) -> Fraction:
        """Return a counter such as "%RDY", in percent of one CPU, exactly."""
        return Fraction(100 * _BY_HEADING[heading].of(self), self.span_ns or 1)


@attrs.frozen(kw_only=True)
class PcpuRow:
    """A physical CPU over `span_ns`."""

    index: int
    span_ns: int
    times: PcpuTimes

    @property
    def used_percent(self) -> Fraction:
        """PCPU USED: time not idle; of time in which both threads of the core were not idle, half is each thread's."""
        return 100 * self.times.used_ns / (self.span_ns or 1)

    @property
    def util_percent(self) -> Fraction:
        """PCPU UTIL: time not idle, including the switches between worlds."""
        return Fraction(100 * (self.times.busy_ns + self.times.switch_ns), self.span_ns or 1)


@attrs.frozen(kw_only=True)
class Usage:
    """What happened between two snapshots."""

    begin_ns: int
    end_ns: int
    vms: tuple[CpuRow, ...]
    worlds: tuple[CpuRow, ...]
    pcpus: tuple[PcpuRow, ...]


def usage(before: Snapshot, after: Snapshot) -> Usage:
    """Subtract two snapshots of one host; worlds that came or went in between count as far as they lived."""
    span_ns = after.time_ns - before.time_ns
    none = WorldTimes()
    delta = {key: times - before.worlds.get(key, none) for key, times in after.worlds.items()}
    worlds = [
        CpuRow(name=after.names[key], nworld=1, span_ns=span_ns, times=times, core_hz=after.core_hz)
        for key, times in delta.items()
    ]
    vms = [
        CpuRow(
            name=name,
            nworld=len(keys),
            span_ns=span_ns,
            core_hz=after.core_hz,
            times=reduce(add, (delta[key] for key in keys), none),
        )
        for name, keys in after.vms.items()
    ]
    pcpus = [
        PcpuRow(index=index, span_ns=span_ns, times=end - begin)
        for index, (begin, end) in enumerate(zip(before.pcpus, after.pcpus, strict=True))
    ]
    return Usage(
        begin_ns=before.time_ns,
        end_ns=after.time_ns,
        vms=tuple(vms),
        worlds=tuple(worlds),
        pcpus=tuple(pcpus),
    )


def publish(scheduler: Scheduler, metrics: Metrics) -> None:
    """Set the host's scheduler metrics to their values now."""
    now_ns = scheduler.sim.now
    times = [pcpu.times(now_ns) for pcpu in scheduler.pcpus]
    worlds = scheduler.worlds.values()
    values = (
        ("sched.busy", "ns", "time pCPUs ran worlds", sum(each.busy_ns for each in times)),
        ("sched.switch", "ns", "time pCPUs switched between worlds", sum(each.switch_ns for each in times)),
        ("sched.idle", "ns", "time pCPUs were idle", sum(each.idle_ns for each in times)),
        ("sched.worlds", "1", "worlds that exist", len(worlds)),
        ("sched.dispatches", "1", "dispatches of these worlds", sum(each.dispatches for each in worlds)),
        ("sched.migrations", "1", "of these, to another pCPU", sum(each.migrations for each in worlds)),
    )
    for name, unit, description, value in values:
        metrics.gauge(name, unit, description).set(value)
