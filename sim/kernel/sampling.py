"""Samples of the CPU counters at a fixed interval, as vCenter takes them: every 20 s, of worlds, VMs, pools and pCPUs.

Models: a timer reads the books and keeps what happened since the last time; the newest samples stay in memory, up to an
hour of them and a limit of rows, and each sample is written into the trace, so that yesterday's run can still be
shown as esxtop would (`sim.report.esxtop`).  Times are exact: the states of a vCPU add up to 20,000 ms in each sample.

Leaves out: roll-ups to minutes and hours, as vCenter's database keeps; worlds that belong to no VM.

Sources: interval and hour of real-time samples, vSphere Performance documentation (`QueryPerf`, refresh rate 20 s).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from fractions import Fraction
from functools import reduce
from operator import add

import attrs

from sim.core.trace import record
from sim.kernel.counters import CpuRow, PcpuRow, Snapshot, Usage, snapshot, usage
from sim.kernel.perf import SAMPLE_EVERY_NS, SAMPLES_KEPT
from sim.kernel.vm import VmManager
from sim.kernel.world import WorldTimes

__all__ = ["CpuSample", "CpuSampler", "summations_ms"]

ROWS_KEPT_MAX = 100_000
"""The most rows in all samples that are kept; the oldest samples go first."""

SAMPLE_TAKEN = record("sample.taken", begin_ns=int, core_hz=int, threads_per_core=int)
"""A sample of what happened since `begin_ns`; the rows of its pCPUs, pools, VMs and worlds follow."""

SAMPLE_PCPU = record(
    "sample.pcpu", pcpu=int, core=int, busy_ns=int, switch_ns=int, idle_ns=int, shared_ns=int
)
SAMPLE_POOL = record("sample.pool", pool=str, parent=str, number=int)
SAMPLE_VM = record("sample.vm", vm=str, pool=str, group=int)
"""A VM of the sample: `group` is the id of its first world, by which its worlds name it."""

SAMPLE_WORLD = record(
    "sample.world",
    group=int,
    world=int,
    name=str,
    run_ns=int,
    ready_ns=int,
    max_limited_ns=int,
    costop_ns=int,
    idle_ns=int,
    vm_wait_ns=int,
    swap_wait_ns=int,
    shared_ns=int,
    overclock_ns=int,
    system_ns=int,
    overlap_ns=int,
)
"""A world's times in the sample; `overclock_ns` is what other frequencies added to its run time, rounded down."""

FREQUENCY_UNITS = 1000
"""`WorldTimes.overclock_units` are thousandths of a ns at one Hz."""


@attrs.frozen(kw_only=True)
class CpuSample:
    """One sample: the usage of VMs, worlds and pCPUs, and of pools as the sum of the VMs in and below them."""

    usage: Usage
    pools: tuple[CpuRow, ...]

    @property
    def rows(self) -> int:
        """How many rows it has."""
        found = self.usage
        return len(found.worlds) + len(found.vms) + len(found.pcpus) + len(self.pools)


def summations_ms(row: CpuRow) -> dict[str, Fraction]:
    """Return a row as vCenter's summation counters, in ms: run, ready, co-stop and wait make up the whole sample."""
    times = row.times
    spans_ns: dict[str, int | Fraction] = {
        "cpu.run.summation": times.run_ns,
        "cpu.ready.summation": times.ready_ns + times.max_limited_ns,
        "cpu.costop.summation": times.costop_ns,
        "cpu.wait.summation": times.wait_ns,
        "cpu.idle.summation": times.idle_ns,
        "cpu.swapwait.summation": times.swap_wait_ns,
        "cpu.maxlimited.summation": times.max_limited_ns,
        "cpu.system.summation": times.system_ns,
        "cpu.overlap.summation": times.overlap_ns,
        "cpu.used.summation": row.percent("%USED") * row.span_ns / 100,
    }
    return {name: Fraction(span_ns) / 1_000_000 for name, span_ns in spans_ns.items()}


class CpuSampler:
    """Takes samples of a host's VMs from `start` to `stop`; `samples` are the newest, oldest first.

    While no VM is on there is nothing to sample, and nothing is.
    """

    def __init__(self, vms: VmManager, every_ns: int = SAMPLE_EVERY_NS.value) -> None:
        if every_ns <= 0:
            raise ValueError(f"want an interval of at least 1 ns, got {every_ns}")
        self.every_ns = every_ns
        self.samples: deque[CpuSample] = deque()
        self._vms = vms
        self._rows = 0
        self._start_ns = vms.sim.now
        self._before: Snapshot | None = None
        self._timer = vms.sim.engine.timer(self.take)

    def start(self) -> None:
        """Begin the first interval now, and sample from the next on in which a VM is on."""
        self._start_ns = self._vms.sim.now
        self._vms.watchers.append(self._vms_changed)
        self._vms_changed()

    def stop(self) -> None:
        """Take no more samples; those that there are stay."""
        self._timer.cancel()
        self._vms.watchers.remove(self._vms_changed)

    def _vms_changed(self) -> None:
        """Begin to sample with the first VM."""
        if not self._timer.armed and self._vms.admitted():
            self._before = snapshot(self._vms)
            self._arm()

    def _arm(self) -> None:
        """Set the timer for the end of the present interval."""
        passed = (self._vms.sim.now - self._start_ns) // self.every_ns
        self._timer.arm(self._start_ns + (passed + 1) * self.every_ns)

    def take(self) -> None:
        """Timer: an interval is over."""
        assert self._before is not None
        after = snapshot(self._vms)
        found = usage(self._before, after)
        sample = CpuSample(usage=found, pools=tuple(self._pools(found)))
        self._keep(sample)
        if self._vms.sim.trace.enabled(SAMPLE_TAKEN):
            self._write(found, after)
        self._before = after
        if self._vms.admitted():
            self._arm()

    def _keep(self, sample: CpuSample) -> None:
        self.samples.append(sample)
        self._rows += sample.rows
        while len(self.samples) > 1 and (
            len(self.samples) > SAMPLES_KEPT.value or self._rows > ROWS_KEPT_MAX
        ):
            self._rows -= self.samples.popleft().rows

    def _pools(self, found: Usage) -> Iterable[CpuRow]:
        """Return a row for each pool: all worlds of the VMs in it and in the pools below it."""
        tree = self._vms.scheduler.pools.pools
        inside: dict[str, list[CpuRow]] = {name: [] for name in tree}
        for row in found.vms:
            pool = tree.get(self._vms.vms[row.name].spec.pool)
            while pool is not None:
                inside[pool.spec.name].append(row)
                pool = pool.parent
        for name, rows in inside.items():
            yield CpuRow(
                name=name,
                nworld=sum(row.nworld for row in rows),
                span_ns=found.end_ns - found.begin_ns,
                core_hz=self._vms.scheduler.topology.core_hz,
                times=reduce(add, (row.times for row in rows), WorldTimes()),
            )

    def _write(self, found: Usage, after: Snapshot) -> None:
        trace, scheduler = self._vms.sim.trace, self._vms.scheduler
        trace.emit(SAMPLE_TAKEN, found.begin_ns, after.core_hz, scheduler.topology.threads_per_core)
        for row in found.pcpus:
            self._write_pcpu(row)
        for name, pool in scheduler.pools.pools.items():
            trace.emit(SAMPLE_POOL, name, pool.spec.parent, pool.number)
        worlds = dict(zip(after.worlds, found.worlds, strict=True))
        for name, keys in after.vms.items():
            trace.emit(SAMPLE_VM, name, self._vms.vms[name].spec.pool, keys[0])
            for key in keys:
                self._write_world(keys[0], key, worlds[key])

    def _write_pcpu(self, row: PcpuRow) -> None:
        times, place = row.times, self._vms.scheduler.pcpus[row.index].place
        self._vms.sim.trace.emit(
            SAMPLE_PCPU, row.index, place.core, times.busy_ns, times.switch_ns, times.idle_ns, times.shared_ns
        )

    def _write_world(self, group: int, world: int, row: CpuRow) -> None:
        times = row.times
        self._vms.sim.trace.emit(
            SAMPLE_WORLD,
            group,
            world,
            row.name,
            times.run_ns,
            times.ready_ns,
            times.max_limited_ns,
            times.costop_ns,
            times.idle_ns,
            times.vm_wait_ns,
            times.swap_wait_ns,
            times.shared_ns,
            times.overclock_units // (FREQUENCY_UNITS * row.core_hz),
            times.system_ns,
            times.overlap_ns,
        )
