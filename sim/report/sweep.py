"""The outcomes of a sweep as a table and as CSV; they come as rows of plain values.

Models nothing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from sim.report.table import Column, Section, Table

__all__ = ["sweep_csv", "sweep_section"]

Row = Mapping[str, str | int]

_COLUMNS = ("SEED", "STATE", "BOOT", "ATTESTATION", "AS EXPECTED", "DIGEST", "WHY NOT")
_DIGEST_SHOWN = 16


def sweep_section(rows: Sequence[Row], title: str) -> Section:
    """Return a line for each point, and how many ended as expected."""
    cells = tuple(
        (
            str(row["seed"]),
            str(row["state"]),
            str(row["boot"]),
            str(row["attestation"]),
            "yes" if row["met"] else "no",
            str(row["digest"])[:_DIGEST_SHOWN],
            str(row["why"]),
        )
        for row in rows
    )
    met = sum(int(row["met"]) for row in rows)
    return Section(
        title=f"Sweep of {title}",
        table=Table(columns=tuple(Column(name, right=name == "SEED") for name in _COLUMNS), rows=cells),
        notes=(f"{met} of {len(rows)} runs ended as expected",),
        mood="good" if met == len(rows) else "bad",
    )


def sweep_csv(rows: Sequence[Row]) -> str:
    """Return a line for each point, headings first."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
