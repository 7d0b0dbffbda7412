"""The report of one run: boot, PCRs, modules, CPU, memory, attestation and whether it ended as expected.

Models the columns of esxtop's CPU panel and of `esxcli system module` loosely.  Leaves out plots and batch exports.

Sources: "Interpreting esxtop Statistics" (percentages of a group add up over its worlds; %MLMTD is part of %RDY, %IDLE
of %WAIT).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from sim.core.trace import ColumnarSink
from sim.core.units import format_bytes, format_ns
from sim.report.loglines import log_lines
from sim.report.memory import memory_section
from sim.report.table import Column, Section, Table
from sim.report.txt import txt_section
from sim.scenario.result import CpuRow, PoolRow, RunResult

__all__ = [
    "attestation_section",
    "boot_section",
    "call_section",
    "cpu_section",
    "expectation_section",
    "log_section",
    "module_section",
    "pcr_section",
    "pool_section",
    "run_sections",
]

_TROUBLE = re.compile("fail|refus|error|warning|violation", re.IGNORECASE)

PREFERRED_BANKS = ("sha256", "sha384", "sha512", "sha1")


def run_sections(
    result: RunResult, sink: ColumnarSink | None, *, log_lines_max: int | None = None
) -> Iterator[Section]:
    """Yield the whole report; without a trace, the log lines are left out."""
    if sink is not None:
        yield log_section(result, sink, log_lines_max)
    yield boot_section(result)
    if result.pcrs:
        yield pcr_section(result)
    if result.txt is not None:
        yield txt_section(result.txt)
    if result.modules:
        yield module_section(result)
    if result.vms:
        yield cpu_section(result)
    if result.pools:
        yield pool_section(result)
    if result.calls:
        yield call_section(result)
    if result.host_memory is not None:
        yield memory_section(result, result.host_memory)
    yield attestation_section(result)
    yield expectation_section(result)


def log_section(result: RunResult, sink: ColumnarSink, lines_max: int | None = None) -> Section:
    """Return the log; of more than `lines_max` lines the middle is left out, but for lines that tell of trouble."""
    lines = list(log_lines(sink, result.epoch))
    if lines_max is not None and len(lines) > lines_max:
        lines = list(_abridged(lines, lines_max))
    return Section(title=f"Log of {result.boot.host}", lines=tuple(lines))


def _abridged(lines: list[str], lines_max: int) -> Iterator[str]:
    """Yield head and tail of the log, and in between the lines of trouble and how many others were left out."""
    head = lines_max * 2 // 3
    tail = lines_max - head
    yield from lines[:head]
    hidden = 0
    for line in lines[head : len(lines) - tail]:
        if _TROUBLE.search(line) is None:
            hidden += 1
            continue
        if hidden:
            yield _gap(hidden)
            hidden = 0
        yield line
    if hidden:
        yield _gap(hidden)
    yield from lines[len(lines) - tail :]


def _gap(hidden: int) -> str:
    return f"  ... {hidden} more lines ..."


def boot_section(result: RunResult) -> Section:
    """Return how the boot ended."""
    boot = result.boot
    switches = f"Secure Boot {_on(boot.secure_boot)}, TPM {boot.tpm}, dynamic launch {_on(boot.drtm)}, boots: {boot.boots}"
    if boot.state == "ok":
        took = format_ns(boot.finished_ns - boot.started_ns)
        return Section(title="Boot", lines=(f"ok, in {took} of simulated time", switches), mood="good")
    if boot.state == "refused":
        lines = (f"refused at {boot.stage}: {boot.component}", boot.message, switches)
    else:
        lines = (f"{boot.state} when the run ended", "", switches)
    return Section(title="Boot", lines=tuple(line for line in lines if line), mood="bad")


def pcr_section(result: RunResult) -> Section:
    """Return the PCR values of the strongest common bank; neighbours of equal value share a line."""
    banks = [bank for bank in PREFERRED_BANKS if bank in result.pcrs] or sorted(result.pcrs)
    bank = banks[0]
    values = sorted((int(number), value) for number, value in result.pcrs[bank].items())
    rows = tuple((_span(first, last), value) for first, last, value in _runs(values))
    table = Table(columns=(Column("PCR", right=True), Column(f"value ({bank})")), rows=rows)
    others = ", ".join(sorted(name for name in result.pcrs if name != bank))
    notes = (f"also in result.json: {others}",) if others else ()
    return Section(title="PCRs", table=table, notes=notes)


def module_section(result: RunResult) -> Section:
    """Return the loaded modules with place, provider and acceptance level."""
    columns = (
        Column("ID", right=True),
        Column("MODULE"),
        Column("VERSION"),
        Column("BASE"),
        Column("SIZE", right=True),
        Column("PROVIDER"),
        Column("ACCEPTANCE LEVEL"),
        Column("SIGNED"),
    )
    rows = tuple(
        (
            str(module.id),
            module.name,
            module.version,
            f"{module.base:#018x}",
            format_bytes(module.size_bytes),
            module.provider or "-",
            module.acceptance_level or "-",
            module.signed_status,
        )
        for module in result.modules
    )
    notes = tuple(f"refused: {name}" for name in result.modules_refused)
    return Section(title="Modules", table=Table(columns=columns, rows=rows), notes=notes)


def cpu_section(result: RunResult) -> Section:
    """Return the CPU panel: a line a virtual machine, percentages summed over its virtual CPUs."""
    columns = (Column("NAME"), *(Column(name, right=True) for name in _CPU_HEADINGS))
    table = Table(columns=columns, rows=tuple(_cpu_row(vm) for vm in result.vms))
    return Section(title="CPU", table=table, notes=tuple(_pcpu_notes(result)))


def pool_section(result: RunResult) -> Section:
    """Return the CPU panel of resource pools: each with all virtual machines in it and below it."""
    columns = (Column("POOL"), Column("BELOW"), *(Column(name, right=True) for name in _CPU_HEADINGS))
    rows = tuple((pool.name, pool.parent or "-", *_cpu_cells(pool, pool.shares)) for pool in result.pools)
    return Section(title="Resource pools", table=Table(columns=columns, rows=rows))


def call_section(result: RunResult) -> Section:
    """Return the management calls that the scenario made."""
    columns = (Column("SINCE POWER-ON", right=True), Column("CALL"), Column("OUTCOME"))
    rows = []
    for call in result.calls:
        outcome = f"{call.outcome}: {call.message}" if call.message else call.outcome
        rows.append((format_ns(call.time_ns), call.method, outcome))
    return Section(title="Management calls", table=Table(columns=columns, rows=tuple(rows)))


def attestation_section(result: RunResult) -> Section:
    """Return the verifier's word with its reasons."""
    verdict = result.attestation
    lines = [verdict.status]
    if verdict.message:
        lines[0] += f": {verdict.message}"
    lines += [
        f"  {reason.code}: {reason.message}"
        for reason in verdict.reasons
        if reason.message != verdict.message
    ]
    if verdict.connection not in ("", "connected"):
        lines.append(f"  vCenter sees the host as {verdict.connection}: this is its last verdict")
    lines += [
        f"  policy {row.engine}: {'trusted' if row.trusted else row.message}" for row in verdict.policies
    ]
    if verdict.quarantined or verdict.key_withheld:
        done = (("in quarantine", verdict.quarantined), ("key withheld", verdict.key_withheld))
        lines.append(f"  the host is {', '.join(what for what, is_so in done if is_so)}")
    if verdict.stale:
        lines.append(f"  the verdict is stale: {verdict.stale}")
    mood = {"accepted": "good", "notAccepted": "bad"}.get(verdict.status, "plain")
    return Section(title="Attestation", lines=tuple(lines), mood=mood)


def expectation_section(result: RunResult) -> Section:
    """Return whether the run ended as its scenario says."""
    if result.expectation.met:
        return Section(title="Expectation", lines=("met",), mood="good")
    return Section(title="Expectation", lines=("not met:", *result.expectation.differences), mood="bad")


_CPU_HEADINGS = (
    *("NWLD", "SHARES", "RES MHz", "LIM MHz"),
    *("%USED", "%RUN", "%WAIT", "%RDY", "%IDLE", "%CSTP", "%MLMTD"),
)


def _cpu_row(vm: CpuRow) -> tuple[str, ...]:
    return (vm.name, *_cpu_cells(vm, vm.shares_per_vcpu * vm.vcpus))


def _cpu_cells(row: CpuRow | PoolRow, shares: int) -> tuple[str, ...]:
    spans_ns = (
        row.used_ns,
        row.run_ns,
        row.wait_ns,
        row.ready_ns + row.max_limited_ns,
        row.idle_ns,
        row.costop_ns,
        row.max_limited_ns,
    )
    return (
        str(row.worlds),
        str(shares),
        str(row.reservation_hz // 1_000_000),
        "-" if row.limit_hz is None else str(row.limit_hz // 1_000_000),
        *(_percent(span_ns, row.alive_ns) for span_ns in spans_ns),
    )


def _pcpu_notes(result: RunResult) -> Iterator[str]:
    if result.pcpus:
        busy_ns = sum(pcpu.busy_ns for pcpu in result.pcpus)
        whole_ns = busy_ns + sum(pcpu.switch_ns + pcpu.idle_ns for pcpu in result.pcpus)
        yield f"{len(result.pcpus)} pCPUs, {_percent(busy_ns, whole_ns)} % busy on average"


def _percent(part_ns: int, whole_ns: int) -> str:
    """Return a percentage with two decimals, rounded half up."""
    if whole_ns <= 0:
        return "0.00"
    hundredths = (part_ns * 20_000 + whole_ns) // (2 * whole_ns)
    return f"{hundredths // 100}.{hundredths % 100:02d}"


def _runs(values: Iterable[tuple[int, str]]) -> Iterator[tuple[int, int, str]]:
    """Yield (first, last, value) for neighbours of equal value."""
    run: tuple[int, int, str] | None = None
    for number, value in values:
        if run is not None and run[2] == value and run[1] == number - 1:
            run = (run[0], number, value)
            continue
        if run is not None:
            yield run
        run = (number, number, value)
    if run is not None:
        yield run


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _on(switch: bool) -> str:  # noqa: FBT001 - a value to be shown
    return "on" if switch else "off"
