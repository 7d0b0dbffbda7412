"""What it takes to refuse each bomb of `tests/campaigns/bombs.py`: seconds of CPU, and memory of a whole process.

Bombs are gzip and zip files that unpack to much, bundles, VIBs and boot banks of many such members, XML entities, deep
nesting, streams without end and huge counts; each parser of untrusted bytes gets those of its format.  A bomb is made in
one process and refused in others, which do nothing else: seconds are CPU time, the best of three, without what it takes
to make the bomb; memory is by how much the refusal raises the peak of the process's resident memory, so it counts what
C libraries take, too.
"""

from __future__ import annotations

import importlib
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sim.errors import FormatError, VerificationError

TRIES = 3
MIB = 1 << 20
CAMPAIGNS = Path(__file__).resolve().parent.parent / "tests" / "campaigns"


def in_child(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `work` returns in a child process of its own."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(there, work, arguments))
    child.start()
    there.close()
    try:
        answer = here.recv()
    except EOFError:
        raise AssertionError(f"the child that did {work.__name__} ended without an answer") from None
    finally:
        child.join()
    return answer


def _answer(pipe: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    pipe.send(work(*arguments))


def make(bomb: Any, path: Path) -> None:
    """Write a bomb into a file."""
    path.write_bytes(bomb.make())


def refuse(bomb: Any, path: Path) -> tuple[float, int]:
    """Return the CPU seconds of a refusal, and by how many bytes it raised the peak of resident memory."""
    arguments = bomb.arguments(path.read_bytes())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    try:
        bomb.read(*arguments)
    except (FormatError, VerificationError):
        seconds = time.process_time() - start
    else:
        raise AssertionError(f"{bomb.title} was taken for a good file")
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def cost(bomb: Any, folder: Path) -> tuple[float, int]:
    """Return the least CPU time and the least memory of some refusals."""
    path = folder / "bomb"
    in_child(make, bomb, path)
    tries = [in_child(refuse, bomb, path) for _ in range(TRIES)]
    return min(seconds for seconds, _ in tries), min(memory for _, memory in tries)


def run() -> list[dict[str, Any]]:
    """Measure all bombs; the figures are those of the slowest and of the largest."""
    sys.path.insert(0, str(CAMPAIGNS))
    bombs = importlib.import_module("bombs").BOMBS
    with TemporaryDirectory() as folder:
        costs = [(bomb.title, *cost(bomb, Path(folder))) for bomb in bombs]
    slowest = max(costs, key=lambda row: row[1])
    largest = max(costs, key=lambda row: row[2])
    return [
        {
            "name": f"slowest of {len(bombs)} bombs to refuse ({slowest[0]})",
            "value": slowest[1],
            "unit": "s",
            "against": "one second",
            "bar": 1.0,
            "sense": "<=",
            "wording": f"CPU time to refuse the slowest of {len(bombs)} bombs, over every parser of untrusted bytes "
            "(aim: under a second)",
        },
        {
            "name": f"largest of {len(bombs)} bombs to refuse ({largest[0]})",
            "value": round(largest[2] / MIB, 1),
            "unit": "MiB",
            "against": "64 MiB",
            "bar": 64.0,
            "sense": "<=",
            "wording": f"peak of resident memory that refusing the largest of {len(bombs)} bombs adds to a process "
            "(aim: under 64 MiB)",
        },
    ]
