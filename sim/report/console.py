"""Printing reports: with rich on a terminal, as plain aligned text everywhere else, and progress on standard error.

Models nothing.  Leaves out HTML and plots.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sim.report.table import Section, plain_section

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Progress", "print_sections"]

_STYLES = {"good": "green", "bad": "bold red", "plain": ""}


def print_sections(sections: Iterable[Section]) -> None:
    """Print a report to standard output."""
    if sys.stdout.isatty():
        _print_rich(sections)
        return
    for section in sections:
        for line in plain_section(section):
            print(line)  # noqa: T201 - this is the printer


def _print_rich(sections: Iterable[Section]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for section in sections:
        if section.title:
            console.rule(f"[bold]{section.title}[/bold]", align="left")
        for line in section.lines:
            console.print(line, style=_STYLES[section.mood], markup=False, soft_wrap=True)
        if section.table is not None:
            _print_table(console, section)
        for note in section.notes:
            console.print(note, style="dim", markup=False)


def _print_table(console: Console, section: Section) -> None:
    from rich.table import Table
    from rich.text import Text

    assert section.table is not None
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in section.table.columns:
        table.add_column(column.name, justify="right" if column.right else "left", no_wrap=True)
    for row in section.table.rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table, soft_wrap=True)


class Progress:
    """A line on standard error while something works, only where that is a terminal."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as RichProgress

            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            self._bar = RichProgress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._text, total=None)
            self._bar.start()
        return self

    def update(self, text: str, done: int, total: int) -> None:
        """Show what is being done and how far it is."""
        if self._bar is not None:
            self._bar.update(self._task, description=text, completed=done, total=total)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
