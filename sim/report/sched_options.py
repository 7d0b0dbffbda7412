"""The table of ESXi's advanced options of scheduling.

Models nothing.  Leaves out values that were set.
"""

from __future__ import annotations

from sim.errors import ScenarioError
from sim.kernel.sched.advanced import OPTIONS, RELEASES, USED, WHERE
from sim.report.table import Column, Section, Table

__all__ = ["options_section"]


def options_section(release: str) -> Section:
    """Return the options of a release as a table.

    Errors: `ScenarioError` for a release that is not known.
    """
    if release not in RELEASES:
        raise ScenarioError("--release", "wrong value", got=release, wanted="one of " + ", ".join(RELEASES))
    columns = (
        Column("OPTION"),
        Column("DEFAULT", right=True),
        Column("FROM", right=True),
        Column("TO", right=True),
        Column("UNIT"),
        Column("ACTS"),
        Column("MEANING"),
    )
    rows = []
    for name, option in OPTIONS.items():
        setting = option.at(release)
        if setting is not None:
            acts = WHERE.get(name, "yes") if name in USED else "-"
            numbers = (str(setting.default), str(setting.low), str(setting.high))
            rows.append((name, *numbers, option.unit, acts, option.meaning))
    title = f"{len(rows)} advanced options of ESXi {release}"
    return Section(title=title, table=Table(columns=columns, rows=tuple(rows)))
