"""What a broken invariant raises."""

from __future__ import annotations

__all__ = ["InvariantViolation"]


class InvariantViolation(AssertionError):  # noqa: N818 - the name of the event, as AssertionError's users see it
    """An invariant does not hold: `number` is that of the list in `sim.testing.invariants`, `text` names the state."""

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self.text = text
        super().__init__(number, text)

    def __str__(self) -> str:
        return f"invariant {self.number}: {self.text}"
