"""Tables as values, and how they become aligned plain text.

Models nothing.  Leaves out colours and terminal widths, which `sim.report.console` adds where there is a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

__all__ = ["Column", "Section", "Table", "plain_section", "plain_table"]

_GAP = "  "


@frozen
class Column:
    """A column's heading, and whether its cells stand at the right."""

    name: str
    right: bool = False


@frozen(kw_only=True)
class Table:
    """Headings and rows of text."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]


@frozen(kw_only=True)
class Section:
    """A part of a report: a heading, lines of text, perhaps a table, and a mark for how good the news is."""

    title: str
    lines: tuple[str, ...] = ()
    table: Table | None = None
    notes: tuple[str, ...] = ()
    mood: str = "plain"
    """"good", "bad" or "plain": what colour the lines get on a terminal."""


def plain_table(table: Table) -> Iterator[str]:
    """Yield the lines of a table, headings first, cells aligned, no trailing blanks."""
    headings = tuple(column.name for column in table.columns)
    widths = [max(map(len, cells)) for cells in zip(headings, *table.rows, strict=True)]
    for row in (headings, *table.rows):
        cells = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, widths, table.columns, strict=True)
        )
        yield _GAP.join(cells).rstrip()


def plain_section(section: Section) -> Iterator[str]:
    """Yield the lines of a section: its title underlined, lines, table, notes, and an empty line."""
    if section.title:
        yield section.title
        yield "-" * len(section.title)
    yield from section.lines
    if section.table is not None:
        yield from plain_table(section.table)
    yield from section.notes
    yield ""
