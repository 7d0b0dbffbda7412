"""The process that runs one point of a sweep: reads it from a file, writes the outcome into another, and ends.

Models nothing.  The outcome appears whole or not at all, so that a process that dies leaves none.  Both files are
pickles that the executor and this process write for each other in a folder of their own.
"""

from __future__ import annotations

import pickle
import resource
import sys
from pathlib import Path

from sim.errors import VmksimError
from sim.scenario.entry import simulate
from sim.scenario.result import write_atomically
from sim.sweep.points import DONE, FAILED, Outcome, Point

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Run the point in the first file, and write the outcome into the second; the third argument bounds memory, bytes."""
    source, target, memory_bytes_max = Path(arguments[0]), Path(arguments[1]), int(arguments[2])
    point: Point = pickle.loads(source.read_bytes())  # noqa: S301 - the executor wrote it
    if memory_bytes_max:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes_max, memory_bytes_max))
    write_atomically(target, pickle.dumps(_run(point)))
    return 0


def _run(point: Point) -> Outcome:
    try:
        result = simulate(point.scenario, point.seed)
    except MemoryError:
        return _failed(point, "out of memory")
    except VmksimError as error:
        return _failed(point, f"{type(error).__name__}: {error}")
    return Outcome(key=point.key, seed=point.seed, state=DONE, result=result)


def _failed(point: Point, why: str) -> Outcome:
    return Outcome(key=point.key, seed=point.seed, state=FAILED, error=" ".join(why.split()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
