"""The seconds that it takes to refuse each bomb of `tests/campaigns/bombs.py`, the longest of all against a second.

Bombs are gzip and zip files that unpack to much, XML entities, deep nesting, streams without end and huge counts; each
parser of untrusted bytes gets those of its format.  That little memory is used is a test, not a figure here.  Seconds are
CPU time, the best of three, without what it takes to make the bomb.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import Any

from sim.errors import FormatError, VerificationError

TRIES = 3
CAMPAIGNS = Path(__file__).resolve().parent.parent / "tests" / "campaigns"


def seconds(bomb: Any) -> float:
    """Return the least CPU time of a refusal."""
    data = bomb.make()
    best = float("inf")
    for _ in range(TRIES):
        start = time.process_time()
        try:
            bomb.read(data)
        except (FormatError, VerificationError):
            best = min(best, time.process_time() - start)
        else:
            raise AssertionError(f"{bomb.title} was taken for a good file")
    return best


def run() -> list[dict[str, Any]]:
    """Measure all bombs; the figure is that of the slowest."""
    sys.path.insert(0, str(CAMPAIGNS))
    bombs = importlib.import_module("bombs").BOMBS
    worst, title = max((seconds(bomb), bomb.title) for bomb in bombs)
    return [
        {
            "name": f"slowest of {len(bombs)} bombs to refuse ({title})",
            "value": worst,
            "unit": "s",
            "against": "one second",
            "bar": 1.0,
            "sense": "<=",
            "wording": f"CPU time to refuse the slowest of {len(bombs)} bombs, over every parser of untrusted bytes "
            "(aim: under a second)",
        }
    ]
