"""The table of published examples: expected beside found.

Models nothing.  Leaves out how the examples are run.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

from sim.report.table import Column, Section, Table

__all__ = ["fixtures_section"]


class Row(Protocol):
    """What a row must say."""

    @property
    def name(self) -> str: ...
    @property
    def case(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def expected(self) -> Fraction: ...
    @property
    def found(self) -> Fraction: ...
    @property
    def tolerance(self) -> Fraction: ...
    @property
    def published(self) -> str: ...
    @property
    def met(self) -> bool: ...


def fixtures_section(rows: Sequence[Row]) -> Section:
    """Return the examples as a table; values with three decimals."""
    columns = (
        Column("EXAMPLE"),
        Column("CASE"),
        Column("EXPECTED", right=True),
        Column("FOUND", right=True),
        Column("WITHIN", right=True),
        Column("UNIT"),
        Column("PUBLISHED"),
        Column("MET"),
    )
    cells = tuple(
        (
            row.name,
            row.case,
            _decimal(row.expected),
            _decimal(row.found),
            _decimal(row.tolerance) if row.tolerance else "exact",
            row.unit,
            row.published or "-",
            "yes" if row.met else "NO",
        )
        for row in rows
    )
    met = sum(row.met for row in rows)
    title = f"{met} of {len(rows)} values as expected"
    return Section(
        title=title, table=Table(columns=columns, rows=cells), mood="good" if met == len(rows) else "bad"
    )


def _decimal(value: Fraction) -> str:
    thousandths = round(value * 1000)
    return f"{thousandths // 1000}.{thousandths % 1000:03d}".rstrip("0").rstrip(".")
