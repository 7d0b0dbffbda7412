"""The bundle that every part of the model is given: engine, trace, chance, metrics and the calendar.

Models the one clock: simulated nanoseconds since the epoch of the scenario.  Leaves out anything of a machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sim.core.engine import Engine, EngineLimits
from sim.core.metrics import Metrics
from sim.core.rng import Rng
from sim.core.trace import Trace, record

__all__ = ["EPOCH", "LOG_LINE", "Sim"]

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""The calendar time at which simulated time is zero, unless a scenario says otherwise."""

LOG_LINE = record("log.line", source=str, text=str, cpu=int, world=int)
"""A line that a real host would print: by firmware, boot loader, VMkernel, host agent or vCenter."""


class Sim:
    """One simulation: `seed` decides all chance, `epoch` what calendars show, `categories` what is traced."""

    def __init__(
        self,
        *,
        seed: int | bytes = 0,
        epoch: datetime = EPOCH,
        categories: Iterable[str] | None = None,
        limits: EngineLimits | None = None,
    ) -> None:
        self.engine = Engine(limits=limits)
        self.trace = Trace(self.engine, categories)
        self.rng = Rng(seed)
        self.metrics = Metrics()
        self.epoch = epoch

    @property
    def now(self) -> int:
        """Simulated time, ns."""
        return self.engine._now  # type: ignore[return-value]

    def utc_now(self) -> datetime:
        """Calendar time inside the simulation, to the microsecond (rounded down)."""
        return self.epoch + timedelta(microseconds=self.now // 1000)

    def log(self, source: str, text: str, *, cpu: int = 0, world: int = 0) -> None:
        """Write a log line of `source` ("firmware", "mboot", "vmkernel", ...)."""
        self.trace.emit(LOG_LINE, source, text, cpu, world)
