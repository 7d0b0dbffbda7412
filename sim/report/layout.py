"""The report of address maps: every region with its rights and guard, and how uncertain its base is.

Models nothing.  Leaves out windows in which nothing lies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sim.core.units import format_bytes
from sim.report.table import Column, Section, Table
from sim.scenario.addressmaps import AddressMap, AddressRow

__all__ = ["layout_plain", "layout_sections"]

_MAP_COLUMNS = (
    Column("BASE"),
    Column("END"),
    Column("SIZE", right=True),
    Column("RIGHTS"),
    Column("GUARD", right=True),
    Column("KIND"),
    Column("NAME"),
)
_ENTROPY_COLUMNS = (
    Column("KIND"),
    Column("NAME"),
    Column("PLACES", right=True),
    Column("BITS", right=True),
    Column("MIN", right=True),
    Column("EVIDENCE"),
    Column("LEAK OF"),
    Column("LEAVES", right=True),
)
_ROWS_SHOWN_MAX = 200


def layout_sections(maps: Sequence[AddressMap]) -> Iterator[Section]:
    """Yield two tables for each map, where things lie and how uncertain that is, and the entropy of the whole."""
    for one in maps:
        shown = one.rows[:_ROWS_SHOWN_MAX]
        hidden = len(one.rows) - len(shown)
        notes = (
            f"{one.independent_draws} independent draws, {one.joint_bits:.2f} bits together",
            *((f"{hidden} more rows: use --json",) if hidden else ()),
        )
        yield Section(
            title=f"Address map of {one.space}, profile {one.profile}",
            table=Table(columns=_MAP_COLUMNS, rows=tuple(map(_map_cells, shown))),
        )
        yield Section(
            title=f"Entropy of {one.space}, profile {one.profile}",
            table=Table(columns=_ENTROPY_COLUMNS, rows=tuple(map(_entropy_cells, shown))),
            notes=notes,
        )


def layout_plain(maps: Sequence[AddressMap]) -> list[dict[str, object]]:
    """Return the maps as plain data; bits are rounded to four places."""
    return [
        {
            "space": one.space,
            "profile": one.profile,
            "independent_draws": one.independent_draws,
            "joint_bits": round(one.joint_bits, 4),
            "rows": [_row_plain(row) for row in one.rows],
        }
        for one in maps
    ]


def _map_cells(row: AddressRow) -> tuple[str, ...]:
    return (
        f"{row.base:#014x}",
        f"{row.end:#014x}" if row.end > row.base else "-",
        format_bytes(row.end - row.base) if row.end > row.base else "-",
        " ".join(row.rights) or "-",
        format_bytes(row.guard_bytes) if row.guard_bytes else "-",
        row.kind,
        row.name,
    )


def _entropy_cells(row: AddressRow) -> tuple[str, ...]:
    return (
        row.kind,
        row.name,
        str(row.places),
        f"{row.shannon_bits:.2f}",
        f"{row.min_entropy_bits:.2f}",
        row.evidence,
        row.shares or "-",
        "-" if row.leak_leaves_bits is None else f"{row.leak_leaves_bits:.2f}",
    )


def _row_plain(row: AddressRow) -> dict[str, object]:
    return {
        "base": row.base,
        "end": row.end,
        "kind": row.kind,
        "name": row.name,
        "rights": list(row.rights),
        "guard_bytes": row.guard_bytes,
        "places": row.places,
        "shannon_bits": round(row.shannon_bits, 4),
        "min_entropy_bits": round(row.min_entropy_bits, 4),
        "evidence": row.evidence,
        "shares": row.shares or None,
        "leak_leaves_bits": None if row.leak_leaves_bits is None else round(row.leak_leaves_bits, 4),
    }
