"""A run as a Gantt chart (PNG, SVG, PDF): which world each pCPU ran when, and what each world did meanwhile.

Models: two panels over one time axis.  Above, a lane a pCPU, coloured by VM; below, a lane a world, coloured by state.
Pieces are added up by columns of the picture, so that memory depends on the picture and not on the run; a column is
coloured by what filled most of it.

Leaves out: worlds that never wanted CPU in the window; more than `LANES_MAX` of either, the busiest of which are shown.

Sources: none.  Matplotlib draws it (the extra `plot`); it is loaded only here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs

from sim.errors import ScenarioError
from sim.kernel.world import WorldState
from sim.report.timeline import Event, Piece

__all__ = ["COLUMNS", "LANES_MAX", "Chart", "collect_chart", "draw_gantt"]

COLUMNS = 2400
"""Columns of a lane: no picture shows more."""

LANES_MAX = 96
"""The most pCPUs, and the most worlds, in one picture."""

_S = WorldState
_WAITING = frozenset((_S.WAIT_IDLE, _S.WAIT_VM, _S.WAIT_SWAP))
_STATE_COLOURS = {
    "run": "#2a7f3f",
    "ready": "#e08214",
    "max-limited": "#8073ac",
    "co-stop": "#c0392b",
}
_STATE_NAMES = {_S.RUN: "run", _S.READY: "ready", _S.MAX_LIMITED: "max-limited", _S.COSTOP: "co-stop"}
_OTHER_COLOUR = "#9e9e9e"
_LEGEND_MAX = 18


class _Lane:
    """One lane: for each column how long each label filled it; `total_ns` of what was put in."""

    __slots__ = ("columns", "total_ns")

    def __init__(self) -> None:
        self.columns: dict[int, dict[str, int]] = {}
        self.total_ns = 0

    def put(self, label: str, begin_ns: int, end_ns: int, column_ns: int) -> None:
        """Add a piece, given from the window's begin on."""
        self.total_ns += end_ns - begin_ns
        for column in range(begin_ns // column_ns, (end_ns - 1) // column_ns + 1):
            part_ns = min(end_ns, (column + 1) * column_ns) - max(begin_ns, column * column_ns)
            filled = self.columns.setdefault(column, {})
            filled[label] = filled.get(label, 0) + part_ns

    def bars(self, column_ns: int) -> Iterator[tuple[str, int, int]]:
        """Yield (label, begin, width in columns), neighbours of one colour together.

        Of columns that are filled in part so many are drawn that the lane's darkness is right (error diffusion).
        """
        begin = width = credit_ns = 0
        present = ""
        for column in sorted(self.columns):
            filled = self.columns[column]
            label = max(sorted(filled), key=lambda name: filled[name])
            credit_ns += sum(filled.values())
            if 2 * credit_ns < column_ns:
                continue
            credit_ns -= column_ns
            if label == present and column == begin + width:
                width += 1
                continue
            if width:
                yield present, begin, width
            present, begin, width = label, column, 1
        if width:
            yield present, begin, width


@attrs.frozen(kw_only=True)
class Chart:
    """What is drawn: bars (label, begin, width in columns) for each lane, by the lane's name."""

    begin_ns: int
    column_ns: int
    pcpus: dict[str, list[tuple[str, int, int]]]
    worlds: dict[str, list[tuple[str, int, int]]]
    left_out: int
    fluid: bool = False


def collect_chart(events: Iterable[Event], begin_ns: int, end_ns: int, count: int = 0) -> Chart:
    """Put the pieces between two moments into lanes, one for each of `count` pCPUs, also those that were idle.

    In a run of the fluid engine, which puts no world on a pCPU, there are lanes of worlds alone.

    Errors: `ScenarioError` when nothing ran then.
    """
    column_ns = max(1, -(-(end_ns - begin_ns) // COLUMNS))
    pcpus: dict[int, _Lane] = {}
    fluid = False
    worlds: dict[tuple[str, str, int], _Lane] = {}
    for event in events:
        if not isinstance(event, Piece) or event.state in _WAITING:
            continue
        first_ns, last_ns = max(event.begin_ns, begin_ns) - begin_ns, min(event.end_ns, end_ns) - begin_ns
        if last_ns <= first_ns:
            continue
        track = event.track
        fluid |= event.pcpu < 0 and event.state is _S.RUN
        if event.pcpu >= 0:
            lane = pcpus.setdefault(event.pcpu, _Lane())
            lane.put(track.vm or track.name, first_ns, last_ns, column_ns)
        lane = worlds.setdefault((track.vm, track.name, track.number), _Lane())
        lane.put(_STATE_NAMES[event.state], first_ns, last_ns, column_ns)
    if not worlds:
        raise ScenarioError("--gantt", "no world wanted CPU then", wanted="a trace with the category sched")
    for index in range(0 if fluid else count):
        pcpus.setdefault(index, _Lane())
    busiest = sorted(worlds, key=lambda key: (-worlds[key].total_ns, key))[:LANES_MAX]
    busiest_pcpus = sorted(pcpus, key=lambda key: (-pcpus[key].total_ns, key))[:LANES_MAX]
    return Chart(
        begin_ns=begin_ns,
        column_ns=column_ns,
        pcpus={f"pCPU {index}": list(pcpus[index].bars(column_ns)) for index in sorted(busiest_pcpus)},
        worlds={_lane_name(key, busiest): list(worlds[key].bars(column_ns)) for key in sorted(busiest)},
        fluid=fluid,
        left_out=len(worlds) - len(busiest) + len(pcpus) - len(busiest_pcpus),
    )


def _lane_name(key: tuple[str, str, int], others: list[tuple[str, str, int]]) -> str:
    """Return a world's name, with a number if it lived in several boots."""
    vm, name, number = key
    return name if sum(other[:2] == (vm, name) for other in others) == 1 else f"{name} #{number}"


def draw_gantt(chart: Chart, path: Path, *, title: str = "") -> None:
    """Draw a chart into a file whose ending says the format (png, svg, pdf).

    Errors: `ScenarioError` for another ending, or when Matplotlib is not installed.
    """
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ScenarioError(
            "--gantt", "unknown format", got=path.name, wanted="a name ending in .png, .svg or .pdf"
        )
    figure_class, patch_class = _matplotlib()
    lanes = len(chart.pcpus) + len(chart.worlds)
    figure = figure_class(figsize=(13, 2.2 + 0.24 * lanes), dpi=120, layout="constrained")
    heights = [max(1, len(chart.pcpus)), max(1, len(chart.worlds))]
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=heights)
    labels = list(dict.fromkeys(label for bars in chart.pcpus.values() for label, _, _ in bars))
    vm_colours = _palette(sorted(labels))
    _draw_lanes(above, chart, chart.pcpus, vm_colours)
    _draw_lanes(below, chart, chart.worlds, _STATE_COLOURS)
    note = "; no pCPUs: the fluid engine puts no world on one" if chart.fluid else ""
    above.set_title((title or "CPU schedule") + note, loc="left")
    below.set_xlabel(_axis_label(chart))
    _legend(above, vm_colours, patch_class)
    _legend(below, _STATE_COLOURS, patch_class)
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
    figure.savefig(path, metadata=metadata)


def _matplotlib() -> tuple[Any, Any]:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError as error:
        wanted = "Matplotlib: pip install 'vmkernel-sim[plot]'"
        raise ScenarioError("--gantt", "cannot draw", got=str(error), wanted=wanted) from error
    mpl.rcParams["svg.hashsalt"] = "vmkernel-sim"
    return Figure, Patch


def _palette(labels: list[str]) -> dict[str, str]:
    """Give the first twenty labels a colour each, the rest grey."""
    colours = (
        *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf"),
        *("#aec7e8", "#ffbb78", "#98df8a", "#ff9896", "#c5b0d5", "#c49c94", "#f7b6d2", "#dbdb8d", "#9edae5"),
    )
    found = dict(zip(labels, colours, strict=False))
    return {label: found.get(label, _OTHER_COLOUR) for label in labels}


def _scale(chart: Chart) -> tuple[int, str]:
    """Return the unit of the time axis, in ns, and its name."""
    span_ns = chart.column_ns * COLUMNS
    for unit_ns, name in ((10**9, "s"), (10**6, "ms"), (10**3, "us")):
        if span_ns >= 2 * unit_ns:
            return unit_ns, name
    return 1, "ns"


def _axis_label(chart: Chart) -> str:
    unit_ns, name = _scale(chart)
    text = f"time from {chart.begin_ns / unit_ns:g} {name} on, {name}"
    return text + (f" ({chart.left_out} lanes are not shown)" if chart.left_out else "")


def _draw_lanes(
    axes: Any, chart: Chart, lanes: dict[str, list[tuple[str, int, int]]], colours: dict[str, str]
) -> None:
    """Draw the lanes from top to bottom."""
    unit_ns, _ = _scale(chart)
    width = chart.column_ns / unit_ns
    for place, bars in enumerate(lanes.values()):
        spans = [(begin * width, count * width) for _, begin, count in bars]
        paint = [colours[label] for label, _, _ in bars]
        axes.broken_barh(spans, (place - 0.4, 0.8), facecolors=paint, linewidth=0)
    axes.set_yticks(range(len(lanes)), list(lanes), fontsize=8)
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_xlim(0, COLUMNS * width)
    axes.grid(axis="x", linewidth=0.3)
    axes.set_axisbelow(True)


def _legend(axes: Any, colours: dict[str, str], patch_class: Any) -> None:
    shown = list(colours.items())[:_LEGEND_MAX]
    if len(colours) > _LEGEND_MAX:
        shown.append((f"{len(colours) - _LEGEND_MAX} others", _OTHER_COLOUR))
    handles = [patch_class(color=colour, label=label) for label, colour in shown]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
