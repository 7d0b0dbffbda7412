"""The table of facts: every number from outside the project, where it is from and how sure it is.

Models nothing.  Leaves out our own limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from sim.core.facts import Fact, Kind, all_facts
from sim.errors import ScenarioError
from sim.report.table import Column, Section, Table

__all__ = ["facts_section", "select_facts"]


def select_facts(kind: str | None = None) -> list[Fact]:
    """Return all facts, or those of one kind, sorted by name.

    Errors: `ScenarioError` for a kind that does not exist.
    """
    kinds = get_args(Kind)
    if kind is not None and kind not in kinds:
        raise ScenarioError("--kind", "wrong value", got=kind, wanted="one of " + ", ".join(kinds))
    return [fact for fact in all_facts() if kind in (None, fact.kind)]


def facts_section(facts: Sequence[Fact]) -> Section:
    """Return the facts as a table."""
    columns = (Column("NAME"), Column("VALUE", right=True), Column("UNIT"), Column("KIND"), Column("SOURCE"))
    rows = tuple((fact.name, str(fact.value), fact.unit, fact.kind, fact.source) for fact in facts)
    return Section(title=f"{len(rows)} facts", table=Table(columns=columns, rows=rows))
