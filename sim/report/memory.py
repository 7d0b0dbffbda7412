"""The memory part of a run's report: esxtop's memory panel, a line a VM, megabytes.

Models the columns of esxtop.  Leaves out NUMA and rates.

Sources: "Interpreting esxtop Statistics", memory panel.
"""

from __future__ import annotations

from sim.core.units import MIB, format_bytes, format_ns
from sim.report.table import Column, Section, Table
from sim.scenario.result import HostMemoryResult, MemoryRow, RunResult

__all__ = ["memory_section"]

_HEADINGS = (
    *("MEMSZ", "GRANT", "CNSM", "SZTGT", "TCHD", "%ACTV", "MCTLSZ", "MCTLTGT", "MCTLMAX"),
    *("SWCUR", "SWTGT", "ZIPPED", "CACHESZ", "SHRD", "ZERO", "COWH", "OVHD", "OVHDMAX"),
)


def memory_section(result: RunResult, host: HostMemoryResult) -> Section:
    """Return the memory panel of a run in which memory was managed."""
    columns = (Column("NAME"), *(Column(name, right=True) for name in _HEADINGS))
    percent = host.free_bytes * 100 // host.min_free_bytes if host.min_free_bytes else 0
    free = (
        f"{format_bytes(host.free_bytes)} free, {percent} % of minFree ({format_bytes(host.min_free_bytes)})"
    )
    shared, common = format_bytes(host.shared_bytes), format_bytes(host.common_bytes)
    notes = [
        f"{host.state} state: {free}",
        f"PSHARE: {shared} shared, {common} common, {format_bytes(host.saving_bytes)} saving",
    ]
    notes += [
        f"{row.name} would have waited {format_ns(row.stall_ns)} for its memory"
        + (f", and was refused {row.refused_pages} pages" if row.refused_pages else "")
        for row in result.memory
        if row.swapped_in_bytes or row.unzip_pages or row.refused_pages
    ]
    rows = tuple(_row(row) for row in result.memory)
    return Section(title="Memory (MB)", table=Table(columns=columns, rows=rows), notes=tuple(notes))


def _row(row: MemoryRow) -> tuple[str, ...]:
    before = (row.memory_bytes, row.granted_bytes, row.consumed_bytes, row.target_bytes, row.touched_bytes)
    after = (
        *(row.balloon_bytes, row.balloon_target_bytes, row.balloon_max_bytes),
        *(row.swapped_bytes, row.swap_target_bytes, row.zipped_bytes, row.zip_cache_bytes),
        *(
            row.shared_bytes,
            row.zero_bytes,
            row.hint_pages * 4096,
            row.overhead_bytes,
            row.overhead_max_bytes,
        ),
    )
    active = (row.active_percent_hundredths + 50) // 100
    return (row.name, *(_megabytes(one) for one in before), str(active), *(_megabytes(one) for one in after))


def _megabytes(count: int) -> str:
    """Return megabytes of 2**20 bytes, rounded half up."""
    return str((2 * count + MIB) // (2 * MIB))
