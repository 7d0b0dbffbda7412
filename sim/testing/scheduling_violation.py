"""What a broken invariant of CPU scheduling raises, and the names of all eighteen."""

from __future__ import annotations

__all__ = ["NAMES", "SchedulingViolation"]

NAMES = {
    1: "time conservation",
    2: "work conservation",
    3: "lag",
    4: "reservation",
    5: "limit",
    6: "no starvation",
    7: "monotone",
    8: "hierarchical isolation",
    9: "skew",
    10: "charge",
    11: "determinism",
    12: "scaling",
    13: "idle irrelevance",
    14: "bounded sleep credit",
    15: "legal transitions",
    16: "splitting and growing",
    17: "fluid cross-check",
    18: "audit",
}
"""The invariants by number."""


class SchedulingViolation(AssertionError):  # noqa: N818 - the name of the event, as AssertionError's users see it
    """An invariant does not hold: `number` is that of `NAMES`, `text` names world, time and figures."""

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self.text = text
        super().__init__(number, text)

    def __str__(self) -> str:
        return f"P{self.number} ({NAMES[self.number]}): {self.text}"
