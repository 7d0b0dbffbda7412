"""The screen of paxtest: one line a row, as the real program prints them.

Models nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from sim.report.table import Section

__all__ = ["paxtest_section"]

_NAME_CHARS = 41


def paxtest_section(rows: Iterable[tuple[str, str]], *, title: str) -> Section:
    """Return (name, answer) pairs in paxtest's columns."""
    return Section(
        title="",
        lines=(title, "Test results:", *(f"{name:<{_NAME_CHARS}}: {answer}" for name, answer in rows)),
    )
