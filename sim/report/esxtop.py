r"""The samples of a run as `esxtop -b` writes them: a CSV that perfmon, spreadsheets and pandas read.

Models: the first cell "(PDH-CSV 4.0) (UTC)(0)", then one column a counter, `\\host\Group Cpu(ID:NAME)\% Used` and
so on, all cells quoted; a line a sample, its first cell the calendar time at its end.  Groups are VMs and resource
pools; `Vcpu(GROUP:NAME:WORLD:NAME)` are worlds; `Physical Cpu(N)` shows PCPU USED, UTIL and, with two threads a core,
CORE UTIL.  A cell is empty where what it is about was not there.  The trace is read twice, in bounded memory.

Leaves out: panels other than CPU; load averages.

Sources: headings of batch files as public descriptions of esxtop show them ("Interpreting esxtop Statistics", and scripts
that read such files); the percentages are `sim.kernel.counters`'.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from fractions import Fraction
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, TextIO

import attrs

from sim.core.tracestream import stream_rows
from sim.errors import ScenarioError
from sim.kernel.counters import COUNTERS, CpuRow
from sim.kernel.sampling import FREQUENCY_UNITS
from sim.kernel.world import WorldTimes

__all__ = ["COLUMNS_MAX", "write_esxtop"]

COLUMNS_MAX = 1_000_000
"""The most columns of one file."""

_TIMES = (
    *("run_ns", "ready_ns", "max_limited_ns", "costop_ns", "idle_ns", "vm_wait_ns", "swap_wait_ns"),
    *("shared_ns", "overclock_ns", "system_ns", "overlap_ns"),
)
_RECORDS = {
    "sample.taken": ("begin_ns", "core_hz", "threads_per_core"),
    "sample.pcpu": ("pcpu", "core", "busy_ns", "switch_ns", "shared_ns"),
    "sample.pool": ("pool", "parent", "number"),
    "sample.vm": ("vm", "pool", "group"),
    "sample.world": ("group", "world", "name", *_TIMES),
}

_POOL_GROUPS = 1_000_000
"""Group ids of resource pools begin here, those of VMs are world ids."""


@attrs.define(kw_only=True)
class _Sample:
    """The records of one sample."""

    end_ns: int
    begin_ns: int
    core_hz: int
    threads_per_core: int
    pcpus: list[tuple[int, int, int, int, int]] = attrs.field(factory=list)
    pools: dict[str, tuple[str, int]] = attrs.field(factory=dict)
    vms: dict[int, tuple[str, str]] = attrs.field(factory=dict)
    worlds: dict[int, list[tuple[int, CpuRow]]] = attrs.field(factory=dict)

    @property
    def span_ns(self) -> int:
        return self.end_ns - self.begin_ns

    def add_world(self, group: int, world: int, name: str, *spans: int) -> None:
        values = dict(zip(_TIMES, spans, strict=True))
        units = values.pop("overclock_ns") * FREQUENCY_UNITS * self.core_hz
        times = WorldTimes(**values, overclock_units=units)
        row = CpuRow(name=name, nworld=1, span_ns=self.span_ns, times=times, core_hz=self.core_hz)
        self.worlds.setdefault(group, []).append((world, row))

    def sum_of(self, groups: list[int]) -> tuple[int, CpuRow]:
        """Return how many worlds some VMs have, and the sum of their rows."""
        rows = [row for group in groups for _, row in self.worlds.get(group, [])]
        times = reduce(add, (row.times for row in rows), WorldTimes())
        total = CpuRow(name="", nworld=len(rows), span_ns=self.span_ns, times=times, core_hz=self.core_hz)
        return len(rows), total

    def groups_below(self, pool: str) -> list[int]:
        """Return the VMs in a pool and in those below it."""
        found = []
        for group, (_, name) in self.vms.items():
            above = name
            while above and above != pool:
                above = self.pools[above][0]
            if above:
                found.append(group)
        return found


def write_esxtop(trace: Path, host: str, epoch: datetime, out: TextIO) -> int:
    """Write the samples in a trace file as esxtop's batch CSV; returns how many there were.

    Errors: `FormatError`; `ScenarioError` if the run took no sample, or a file would have too many columns.
    """
    columns: dict[str, int] = {}
    for sample in _samples(trace):
        for name, _ in _cells(sample):
            columns.setdefault(name, len(columns))
        if len(columns) > COLUMNS_MAX:
            raise ScenarioError("--esxtop", "too many worlds", wanted=f"at most {COLUMNS_MAX} columns")
    if not columns:
        wanted = "a run longer than trace.sample_every, with the category sample in its trace"
        raise ScenarioError("--esxtop", "the run took no samples", wanted=wanted)
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(["(PDH-CSV 4.0) (UTC)(0)", *(f"\\\\{host}\\{name}" for name in columns)])
    count = 0
    for sample in _samples(trace):
        line = [""] * len(columns)
        for name, value in _cells(sample):
            line[columns[name]] = value
        moment = epoch + timedelta(microseconds=sample.end_ns // 1000)
        writer.writerow([moment.strftime("%m/%d/%Y %H:%M:%S"), *line])
        count += 1
    return count


def _samples(trace: Path) -> Iterator[_Sample]:
    """Yield the samples of a trace file one by one."""
    sample: _Sample | None = None
    for _, kind, time_ns, values in stream_rows(trace, _RECORDS):
        if kind == "sample.taken":
            if sample is not None:
                yield sample
            begin_ns, core_hz, threads = values
            sample = _Sample(end_ns=time_ns, begin_ns=begin_ns, core_hz=core_hz, threads_per_core=threads)
        elif sample is not None:
            _TAKE[kind](sample, *values)
    if sample is not None:
        yield sample


_TAKE: dict[str, Callable[..., Any]] = {
    "sample.pcpu": lambda sample, *values: sample.pcpus.append(values),
    "sample.pool": lambda sample, pool, parent, number: sample.pools.update({pool: (parent, number)}),
    "sample.vm": lambda sample, vm, pool, group: sample.vms.update({group: (vm, pool)}),
    "sample.world": _Sample.add_world,
}


def _cells(sample: _Sample) -> Iterator[tuple[str, str]]:
    """Yield every counter of a sample by its column's name: pCPUs, groups, worlds."""
    yield from _pcpu_cells(sample)
    for pool, (_, number) in sample.pools.items():
        yield from _group_cells(sample, _POOL_GROUPS + number, pool, sample.groups_below(pool))
    for group, (vm, _) in sample.vms.items():
        yield from _group_cells(sample, group, vm, [group])
    for group, (vm, _) in sample.vms.items():
        for world, row in sample.worlds.get(group, []):
            yield from _row_cells(f"Vcpu({group}:{vm}:{world}:{row.name})", row)


def _group_cells(sample: _Sample, group: int, name: str, groups: list[int]) -> Iterator[tuple[str, str]]:
    members, row = sample.sum_of(groups)
    label = f"Group Cpu({group}:{name})"
    yield f"{label}\\Members", str(members)
    yield from _row_cells(label, row)


def _row_cells(label: str, row: CpuRow) -> Iterator[tuple[str, str]]:
    for counter in COUNTERS:
        yield f"{label}\\{counter.batch_name}", _two_decimals(row.percent(counter.heading))


def _pcpu_cells(sample: _Sample) -> Iterator[tuple[str, str]]:
    """Yield PCPU USED (% Processor Time), UTIL (% Util Time) and CORE UTIL, each pCPU's and the mean."""
    whole, two_threads = sample.span_ns, sample.threads_per_core > 1
    cores: dict[int, Fraction] = {}
    used: dict[int, Fraction] = {}
    for pcpu, core, busy_ns, switch_ns, shared_ns in sample.pcpus:
        used[pcpu] = busy_ns + switch_ns - Fraction(shared_ns, 2)
        cores[core] = cores.get(core, Fraction(0)) + used[pcpu]
    rows = {
        str(pcpu): (used[pcpu] / whole, Fraction(busy_ns + switch_ns, whole), cores[core] / whole)
        for pcpu, core, busy_ns, switch_ns, _ in sample.pcpus
    }
    sums = [sum(values, Fraction(0)) / len(rows) for values in zip(*rows.values(), strict=True)]
    names = ("% Processor Time", "% Util Time", "% Core Util Time")
    for label, values in [*rows.items(), ("_Total", tuple(sums))]:
        for name, value in zip(names if two_threads else names[:2], values, strict=False):
            yield f"Physical Cpu({label})\\{name}", _two_decimals(100 * value)


def _two_decimals(value: Fraction) -> str:
    """Return a percentage as esxtop prints it, rounded half up."""
    hundredths = (200 * value.numerator + value.denominator) // (2 * value.denominator)
    sign = "-" if hundredths < 0 else ""
    return f"{sign}{abs(hundredths) // 100}.{abs(hundredths) % 100:02d}"
