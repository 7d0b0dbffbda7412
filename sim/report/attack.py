"""The table of attacks: what each needs, what stops it, and how the measured rate compares with the formula.

Models nothing.  Leaves out single attempts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

from sim.report.table import Column, Section, Table

__all__ = ["attack_plain", "attack_sections"]

_COLUMNS = (
    Column("ATTACK"),
    Column("DEFENCE"),
    Column("SEEN FIRST"),
    Column("SUCCESSES", right=True),
    Column("EXPECTED", right=True),
    Column("VERDICT"),
)
_ABOUT_COLUMNS = (Column("ATTACK"), Column("NEEDS"), Column("STOPPED BY"))


def attack_sections(rows: Sequence[Mapping[str, object]], *, title: str) -> Iterator[Section]:
    """Yield what each attack is, and the table; a row holds what `attack_plain` takes, with fractions as they are."""
    about = {str(row["name"]): (str(row["needs"]), str(row["stopped_by"])) for row in rows}
    yield Section(
        title="What each attack needs, and what stops it",
        table=Table(columns=_ABOUT_COLUMNS, rows=tuple((name, *texts) for name, texts in about.items())),
    )
    yield Section(
        title=title, table=Table(columns=_COLUMNS, rows=tuple(map(_cells, rows))), notes=tuple(_tries(rows))
    )


def _tries(rows: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """Yield a line for each row in which tries until success were counted."""
    for row in rows:
        if row["tries_mean"] is not None:
            mean, expected = _number(row["tries_mean"]), _number(row["tries_expected"])
            yield f"{row['name']}: {mean} tries on average, {expected} expected"


def attack_plain(row: Mapping[str, object]) -> dict[str, object]:
    """Return a row as plain data: fractions as "numerator/denominator", exactly."""
    return {
        key: f"{value.numerator}/{value.denominator}" if isinstance(value, Fraction) else value
        for key, value in row.items()
    }


def _cells(row: Mapping[str, object]) -> tuple[str, ...]:
    return (
        str(row["name"]),
        "on" if row["defended"] else "off",
        str(row["seen"]),
        f"{row['successes']} of {row['trials']}",
        _chance(row["expected"]),
        "agrees" if row["agrees"] else "DIFFERS",
    )


def _chance(value: object) -> str:
    """Return a probability as a share of 1, short."""
    return f"{float(value):.3g}" if isinstance(value, Fraction) else "-"


def _number(value: object) -> str:
    return f"{float(value):.4g}" if isinstance(value, Fraction) else "-"
