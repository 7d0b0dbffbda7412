"""The points of a sweep, and what came of each.

Models nothing.  A point is a scenario with a seed; an outcome is a result, or why there is none, with the seed that
runs it again.  Leaves out designs: a list of points can be made in any way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import frozen

from sim.errors import ScenarioError
from sim.scenario.result import RunResult
from sim.scenario.spec import SEED_MAX, Scenario

__all__ = ["DONE", "FAILED", "Outcome", "Point", "outcome_row", "parse_seeds", "seed_points"]

DONE, FAILED = "done", "failed"

POINTS_MAX = 100_000
"""The most points of one sweep."""

_SEEDS = re.compile(r"(\d{1,19})(?:-(\d{1,19}))?", re.ASCII)


@frozen(kw_only=True)
class Point:
    """One run: a scenario and its seed; `key` names the point in reports."""

    key: str
    scenario: Scenario
    seed: int


@frozen(kw_only=True)
class Outcome:
    """What came of a point: `state` is done, with the result, or failed, with the reason in one line."""

    key: str
    seed: int
    state: str
    result: RunResult | None = None
    error: str = ""

    @property
    def met(self) -> bool:
        """Whether the run ended, and as its scenario expects."""
        return self.result is not None and self.result.expectation.met


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read seeds such as "1-8,20": numbers and ranges, both ends included.

    Errors: `ScenarioError` at `--seeds`.
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = _SEEDS.fullmatch(part.strip())
        first = int(found[1]) if found else 0
        last = int(found[2] or found[1]) if found else -1
        if not first <= last <= SEED_MAX or len(seeds) + last - first >= POINTS_MAX:
            wanted = f"numbers and ranges such as 1-8,20: up to {POINTS_MAX} seeds, none over {SEED_MAX}"
            raise ScenarioError("--seeds", "wrong value", got=text, wanted=wanted)
        seeds += range(first, last + 1)
    if len(dict.fromkeys(seeds)) < len(seeds):
        raise ScenarioError("--seeds", "wrong value", got=text, wanted="each seed once")
    return tuple(seeds)


def seed_points(scenario: Scenario, seeds: Iterable[int]) -> list[Point]:
    """Return one point for each seed."""
    return [Point(key=f"seed {seed}", scenario=scenario, seed=seed) for seed in seeds]


def outcome_row(outcome: Outcome) -> dict[str, str | int]:
    """Return an outcome as a row of a table: what a report shows of it."""
    result = outcome.result
    why = outcome.error if result is None else "; ".join(result.expectation.differences)
    return {
        "point": outcome.key,
        "seed": outcome.seed,
        "state": outcome.state,
        "boot": "" if result is None else result.boot.state,
        "attestation": "" if result is None else result.attestation.status,
        "met": int(outcome.met),
        "digest": "" if result is None else result.digest,
        "why": why,
    }
