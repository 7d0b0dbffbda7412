"""Printing reports: with rich on a terminal, as plain aligned text everywhere else, and progress on standard error.

Models nothing.  Leaves out HTML and plots.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from sim.report.table import Section, plain_section, plain_table

__all__ = ["Progress", "print_sections", "printable"]

_STYLES = {"good": "green", "bad": "bold red", "plain": ""}


def print_sections(sections: Iterable[Section]) -> None:
    """Print a report to standard output; what cannot be printed there is escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stdout.isatty():
        _print_rich(sections)
        return
    for section in sections:
        for line in plain_section(section):
            sys.stdout.write(printable(line) + "\n")


def printable(text: str) -> str:
    """Return `text` with control characters escaped: file names and the like must not reach a terminal's ears."""
    return text if text.isprintable() else "".join(map(_printable_char, text))


def _printable_char(char: str) -> str:
    return char if char.isprintable() else ascii(char)[1:-1]


def _print_rich(sections: Iterable[Section]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for section in sections:
        if section.title:
            console.rule(Text(printable(section.title), style="bold"), align="left")
        for line in section.lines:
            console.print(printable(line), style=_STYLES[section.mood], markup=False, soft_wrap=True)
        if section.table is not None:
            for number, line in enumerate(plain_table(section.table)):
                console.print(printable(line), style="" if number else "bold", markup=False, soft_wrap=True)
        for note in section.notes:
            console.print(printable(note), style="dim", markup=False, soft_wrap=True)


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
