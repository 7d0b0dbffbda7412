"""Metrics: counters, gauges, time-weighted means and histograms, each with a unit and a description.

Metrics are for people and reports: nothing in the model reads them back.  All arithmetic is in integers; a mean is
handed out as an exact pair (sum, weight).  Leaves out export formats, which belong to `sim.report`.
"""

from __future__ import annotations

from typing import TypeVar

from sim.errors import SimBug

__all__ = ["Counter", "Gauge", "Histogram", "Mean", "Metric", "Metrics"]

METRICS_MAX = 100_000
"""The most metrics one simulation may have."""


M = TypeVar("M", bound="Metric")


class Metric:
    """What all metrics share: name, unit, description."""

    __slots__ = ("description", "name", "unit")
    kind = "metric"

    def __init__(self, name: str, unit: str, description: str) -> None:
        self.name = name
        self.unit = unit
        self.description = description

    def value(self) -> dict[str, int]:
        """Return the present value as named integers."""
        raise NotImplementedError


class Counter(Metric):
    """A count that only grows."""

    __slots__ = ("count",)
    kind = "counter"

    def __init__(self, name: str, unit: str, description: str) -> None:
        super().__init__(name, unit, description)
        self.count = 0

    def add(self, amount: int = 1) -> None:
        """Add `amount`, which is not negative."""
        if amount < 0:
            raise SimBug(f"counter {self.name} cannot go down by {-amount}")
        self.count += amount

    def value(self) -> dict[str, int]:
        """Return the count."""
        return {"count": self.count}


class Gauge(Metric):
    """A level that goes up and down; remembers its extremes."""

    __slots__ = ("highest", "level", "lowest")
    kind = "gauge"

    def __init__(self, name: str, unit: str, description: str) -> None:
        super().__init__(name, unit, description)
        self.level = self.lowest = self.highest = 0

    def set(self, level: int) -> None:
        """Set the level."""
        self.level = level
        self.lowest = min(self.lowest, level)
        self.highest = max(self.highest, level)

    def value(self) -> dict[str, int]:
        """Return level and extremes."""
        return {"level": self.level, "lowest": self.lowest, "highest": self.highest}


class Mean(Metric):
    """A level weighted by how long it lasted: sum of level x ns, and ns."""

    __slots__ = ("_level", "_since_ns", "level_ns", "span_ns")
    kind = "mean"

    def __init__(self, name: str, unit: str, description: str) -> None:
        super().__init__(name, unit, description)
        self._level = 0
        self._since_ns = 0
        self.level_ns = 0
        self.span_ns = 0

    def set(self, level: int, now_ns: int) -> None:
        """Close the old level at `now_ns` and start the new one."""
        elapsed = now_ns - self._since_ns
        if elapsed < 0:
            raise SimBug(f"mean {self.name} went back in time by {-elapsed} ns")
        self.level_ns += self._level * elapsed
        self.span_ns += elapsed
        self._level = level
        self._since_ns = now_ns

    def value(self) -> dict[str, int]:
        """Return the sum of level x ns and the ns it covers."""
        return {"level_ns": self.level_ns, "span_ns": self.span_ns}


class Histogram(Metric):
    """Counts of values in buckets of powers of two: bucket b holds values with b significant bits."""

    __slots__ = ("buckets", "count", "total")
    kind = "histogram"

    def __init__(self, name: str, unit: str, description: str) -> None:
        super().__init__(name, unit, description)
        self.buckets = [0] * 65
        self.count = 0
        self.total = 0

    def observe(self, value: int) -> None:
        """Count one value from 0 to 2**64 - 1."""
        self.buckets[value.bit_length()] += 1
        self.count += 1
        self.total += value

    def value(self) -> dict[str, int]:
        """Return count, total and the buckets that are not empty, keyed by their upper bound."""
        found = {"count": self.count, "total": self.total}
        for bits, amount in enumerate(self.buckets):
            if amount:
                found[f"below_{1 << bits}"] = amount
        return found


class Metrics:
    """The list of all metrics of one simulation; asking for a known name gives the same object."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}

    def counter(self, name: str, unit: str, description: str) -> Counter:
        """Return the counter of that name."""
        return self._get(Counter, name, unit, description)

    def gauge(self, name: str, unit: str, description: str) -> Gauge:
        """Return the gauge of that name."""
        return self._get(Gauge, name, unit, description)

    def mean(self, name: str, unit: str, description: str) -> Mean:
        """Return the time-weighted mean of that name."""
        return self._get(Mean, name, unit, description)

    def histogram(self, name: str, unit: str, description: str) -> Histogram:
        """Return the histogram of that name."""
        return self._get(Histogram, name, unit, description)

    def report(self) -> dict[str, dict[str, object]]:
        """Return every metric, sorted by name: kind, unit, description and values."""
        return {
            name: {
                "kind": metric.kind,
                "unit": metric.unit,
                "description": metric.description,
                **metric.value(),
            }
            for name, metric in sorted(self._metrics.items())
        }

    def _get(self, cls: type[M], name: str, unit: str, description: str) -> M:
        known = self._metrics.get(name)
        if known is None:
            if len(self._metrics) >= METRICS_MAX:
                raise SimBug(f"over {METRICS_MAX} metrics")
            known = self._metrics[name] = cls(name, unit, description)
        if not isinstance(known, cls) or known.unit != unit:
            raise SimBug(f"metric {name} is a {known.kind} in {known.unit} already")
        return known
