"""The views of a run's CPU schedule that `vmksim report` makes from its trace: esxtop's CSV, a Gantt chart, Perfetto's JSON.

Models nothing.  Leaves out anything that a script could not do too: every command calls public functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from sim.errors import ScenarioError

if TYPE_CHECKING:
    from sim.scenario.result import RunResult

__all__ = ["view_options", "write_views"]

_FILE = click.Path(path_type=Path, dir_okay=False)

_OPTIONS = (
    click.option("--esxtop", type=_FILE, help="Write the samples as esxtop -b does (CSV) into this file."),
    click.option("--gantt", type=_FILE, help="Draw who ran where into this file (png, svg or pdf)."),
    click.option("--perfetto", type=_FILE, help="Write a trace for ui.perfetto.dev (JSON) into this file."),
    click.option("--from", "begin", help="Where chart and JSON begin: simulated time, such as 15s."),
    click.option("--until", "end", help="Where chart and JSON end."),
)


def view_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of the views."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def write_views(
    folder: Path,
    result: RunResult,
    *,
    esxtop: Path | None,
    gantt: Path | None,
    perfetto: Path | None,
    begin: str | None,
    end: str | None,
) -> bool:
    """Write the views that are asked for, and say so; False: none was.  Errors: `ScenarioError`, `FormatError`."""
    from sim.scenario.result import TRACE_FILE

    last_ns = result.simulated_ns
    window = (_moment("--from", begin, 0), min(last_ns, _moment("--until", end, last_ns)))
    if esxtop is None and gantt is None and perfetto is None:
        if begin is not None or end is not None:
            raise ScenarioError("--from", "says nothing", wanted="--gantt or --perfetto")
        return False
    if window[1] <= window[0]:
        wanted = "--from < --until, and --from before the end of the run"
        raise ScenarioError(
            "--from", "nothing is left to show", got=f"{window[0]} to {window[1]} ns", wanted=wanted
        )
    trace = folder / TRACE_FILE
    if esxtop is not None:
        _write_esxtop(trace, result, esxtop)
    if perfetto is not None:
        _write_perfetto(trace, result, perfetto, window)
    if gantt is not None:
        _draw_gantt(trace, result, gantt, window)
    return True


def _write_esxtop(trace: Path, result: RunResult, path: Path) -> None:
    from sim.report.esxtop import write_esxtop

    with _writing("--esxtop", path) as out:
        count = write_esxtop(trace, result.boot.host, datetime.fromisoformat(result.epoch), out)
    click.echo(f"{path}: {count} samples")


def _write_perfetto(trace: Path, result: RunResult, path: Path, window: tuple[int, int]) -> None:
    from sim.report.perfetto import write_perfetto
    from sim.report.timeline import events_of

    with _writing("--perfetto", path) as out:
        events = events_of(trace, end_ns=result.simulated_ns)
        count = write_perfetto(events, out, begin_ns=window[0], end_ns=window[1], pcpus=len(result.pcpus))
    click.echo(f"{path}: {count} trace events")


def _draw_gantt(trace: Path, result: RunResult, path: Path, window: tuple[int, int]) -> None:
    from sim.report.gantt import collect_chart, draw_gantt
    from sim.report.timeline import events_of

    chart = collect_chart(events_of(trace, end_ns=result.simulated_ns), *window, len(result.pcpus))
    draw_gantt(chart, path, title=f"{result.name} on {result.boot.host}, seed {result.seed}")
    note = " (the fluid engine puts no world on a pCPU)" if chart.fluid else ""
    click.echo(f"{path}: {len(chart.pcpus)} pCPUs{note}, {len(chart.worlds)} worlds")


def _moment(option: str, text: str | None, default_ns: int) -> int:
    from sim.core.units import parse_ns

    if text is None:
        return default_ns
    try:
        return parse_ns(text)
    except ValueError as error:
        raise ScenarioError(option, "wrong value", got=text, wanted=str(error)) from None


@contextmanager
def _writing(option: str, path: Path) -> Iterator[TextIO]:
    """Open a text file that appears only when it is whole.  Errors: `ScenarioError` when the disk refuses."""
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as out:
            yield out
        temporary.replace(path)
    except OSError as error:
        raise ScenarioError(option, f"cannot write {str(path)!r}: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
