"""The table of published examples: expected beside found.

Models nothing.  Leaves out how the examples are run.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

from sim.report.table import Column, Section, Table

__all__ = ["fixtures_section"]


DIGITS_MAX = 9


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
    """Return the examples as a table; values with three decimals, or as many more as the tolerance needs."""
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
            _decimal(row.expected, _digits(row)),
            _decimal(row.found, _digits(row)),
            _decimal(row.tolerance, _digits(row)) if row.tolerance else "exact",
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


def _digits(row: Row) -> int:
    """Return how many decimals a row has: enough that its tolerance is not printed as nothing."""
    digits = 3
    while row.tolerance and row.tolerance * 10**digits < 1 and digits < DIGITS_MAX:
        digits += 1
    return digits


def _decimal(value: Fraction, digits: int = 3) -> str:
    whole, part = divmod(abs(round(value * 10**digits)), 10**digits)
    sign = "-" if round(value * 10**digits) < 0 else ""
    return sign + f"{whole}.{part:0{digits}d}".rstrip("0").rstrip(".")
