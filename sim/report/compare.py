"""Policies side by side: a table a virtual machine and one for the host, and the same as CSV.

Models nothing.  Percentages are of one CPU, as esxtop's.  Leaves out plots.

Sources: headings as esxtop's where there are such.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

import attrs

from sim.core.units import format_ns
from sim.report.table import Column, Section, Table
from sim.scenario.comparison import PolicyRun, VmRun

__all__ = ["compare_csv", "compare_sections"]

_VM_HEADINGS = ("%USED", "%RDY", "%CSTP", "FAIR ERR", "GPS ERR", "WORST WAIT", "SWITCHES", "MIGRATIONS")
_HOST_HEADINGS = ("BUSY", "SWITCHING", "IDLE", "STRANDED", "UNFAIR")


def compare_sections(runs: Sequence[PolicyRun]) -> Iterator[Section]:
    """Yield a section for each virtual machine, a line a policy, and one for the host."""
    names = dict.fromkeys(vm.name for run in runs for vm in run.vms)
    for name in names:
        rows = tuple((run.policy, *_vm_cells(vm)) for run in runs for vm in run.vms if vm.name == name)
        yield Section(title=f"VM {name}", table=Table(columns=_columns(_VM_HEADINGS), rows=rows))
    yield Section(
        title="Host",
        table=Table(
            columns=_columns(_HOST_HEADINGS), rows=tuple((run.policy, *_host_cells(run)) for run in runs)
        ),
        notes=(
            "FAIR ERR: run time less the capped fluid share by declared demand.  GPS ERR: less that from moment to moment,",
            "which gives no credit for sleep.  UNFAIR: the largest FAIR ERR, without sign.  BUSY: the total throughput.",
            "STRANDED: pCPUs idle while vCPUs are ready.  WORST WAIT: longest time ready or co-stopped at a stretch.",
        ),
    )


def compare_csv(runs: Sequence[PolicyRun]) -> str:
    """Return a line for each policy and virtual machine, times in ns, and one for each policy's host (no VM)."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    fields = tuple(field.name for field in attrs.fields(VmRun) if field.name != "name")
    host = ("busy_ns", "switch_ns", "idle_ns", "stranded_ns")
    writer.writerow(("policy", "vm", *fields, *host))
    for run in runs:
        for vm in run.vms:
            writer.writerow((run.policy, vm.name, *(getattr(vm, one) for one in fields), *[""] * len(host)))
        writer.writerow((run.policy, "", *[""] * len(fields), *(getattr(run, one) for one in host)))
    return stream.getvalue()


def _columns(headings: Sequence[str]) -> tuple[Column, ...]:
    return (Column("POLICY"), *(Column(heading, right=True) for heading in headings))


def _vm_cells(vm: VmRun) -> tuple[str, ...]:
    return (
        _percent(vm.used_ns, vm.alive_ns),
        _percent(vm.ready_ns, vm.alive_ns),
        _percent(vm.costop_ns, vm.alive_ns),
        _percent(vm.run_ns - vm.ideal_ns, vm.alive_ns, sign=True),
        "-" if vm.gps_ns is None else _percent(vm.run_ns - vm.gps_ns, vm.alive_ns, sign=True),
        format_ns(vm.worst_wait_ns),
        str(vm.dispatches),
        str(vm.migrations),
    )


def _host_cells(run: PolicyRun) -> tuple[str, ...]:
    whole_ns = run.busy_ns + run.switch_ns + run.idle_ns
    errors = [(abs(vm.run_ns - vm.ideal_ns), vm.alive_ns) for vm in run.vms if vm.alive_ns]
    part_ns, alive_ns = max(errors, key=lambda one: one[0] / one[1], default=(0, 1))
    spans = (run.busy_ns, run.switch_ns, run.idle_ns, run.stranded_ns)
    return (*(_percent(span, whole_ns) for span in spans), _percent(part_ns, alive_ns))


def _percent(part: int, whole: int, *, sign: bool = False) -> str:
    """Return a percentage with two decimals, rounded half up (away from zero)."""
    hundredths = (abs(part) * 20_000 + whole) // (2 * whole) if whole > 0 else 0
    minus = "-" if part < 0 and hundredths else "+" if sign and hundredths else ""
    return f"{minus}{hundredths // 100}.{hundredths % 100:02d}"
