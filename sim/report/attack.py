"""The table of attacks: what each needs, what stops it, and how the measured rate compares with the formula.

Models nothing.  Leaves out single attempts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

from sim.report.table import Column, Section, Table

__all__ = ["attack_plain", "attack_section"]

_COLUMNS = (
    Column("ATTACK"),
    Column("NEEDS"),
    Column("STOPPED BY"),
    Column("DEFENCE"),
    Column("SEEN FIRST"),
    Column("SUCCESSES", right=True),
    Column("MEASURED", right=True),
    Column("EXPECTED", right=True),
    Column("TRIES", right=True),
    Column("EXPECTED", right=True),
    Column("VERDICT"),
)


def attack_section(rows: Iterable[Mapping[str, object]], *, title: str) -> Section:
    """Return the table; a row holds what `attack_plain` takes, with fractions as they are."""
    return Section(title=title, table=Table(columns=_COLUMNS, rows=tuple(map(_cells, rows))))


def attack_plain(row: Mapping[str, object]) -> dict[str, object]:
    """Return a row as plain data: fractions as "numerator/denominator", exactly."""
    return {
        key: f"{value.numerator}/{value.denominator}" if isinstance(value, Fraction) else value
        for key, value in row.items()
    }


def _cells(row: Mapping[str, object]) -> tuple[str, ...]:
    return (
        str(row["name"]),
        str(row["needs"]),
        str(row["stopped_by"]),
        "on" if row["defended"] else "off",
        str(row["seen"]),
        f"{row['successes']} of {row['trials']}",
        _number(row["measured"]),
        _number(row["expected"]),
        _number(row["tries_mean"]),
        _number(row["tries_expected"]),
        "as expected" if row["agrees"] else "DIFFERS",
    )


def _number(value: object) -> str:
    return f"{float(value):.4g}" if isinstance(value, Fraction) else "-"
