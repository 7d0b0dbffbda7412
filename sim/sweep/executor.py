"""Runs the points of a sweep in processes, as many at a time as wanted, and loses none of them.

Models nothing.  Each point has a process of its own, so that one that exits, is killed or runs out of memory takes no
other with it: its point is marked as failed, with its seed, and the others go on.  Outcomes come back in the order of
the points, whoever was ready first, so that the number of workers changes nothing.

Leaves out: points that never end (the event limit of a run ends those that spin), other machines, threads.
"""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from attrs import frozen

from sim.errors import ScenarioError
from sim.sweep.points import FAILED, Outcome, Point

__all__ = ["WORKERS_MAX", "run_sweep"]

WORKERS_MAX = 256
ERROR_CHARS_MAX = 200

MEMORY_BYTES_MIN = 1 << 28
"""The least a worker can begin with."""


@frozen(kw_only=True, eq=False)
class _Job:
    """A process at work on one point."""

    index: int
    process: subprocess.Popen[bytes]
    target: Path
    errors: IO[bytes]


def run_sweep(
    points: Sequence[Point],
    *,
    workers: int = 1,
    memory_bytes_max: int = 0,
    on_outcome: Callable[[Outcome], object] | None = None,
) -> list[Outcome]:
    """Run every point, `workers` at a time, and return the outcomes in the order of the points.

    `memory_bytes_max` bounds the address space of each process (0: no bound); `on_outcome` is told of each outcome when
    it comes.  Errors: `ScenarioError` for numbers out of range; what goes wrong in a point is its outcome.
    """
    if not 1 <= workers <= WORKERS_MAX:
        raise ScenarioError("--workers", "wrong value", got=workers, wanted=f"1 to {WORKERS_MAX}")
    if memory_bytes_max and memory_bytes_max < MEMORY_BYTES_MIN:
        wanted = f"0 or at least {MEMORY_BYTES_MIN} bytes"
        raise ScenarioError("--memory", "wrong value", got=memory_bytes_max, wanted=wanted)
    outcomes: dict[int, Outcome] = {}
    waiting = list(enumerate(points))[::-1]
    running: list[_Job] = []
    with TemporaryDirectory(prefix="vmksim-sweep-") as name, selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    index, point = waiting.pop()
                    job = _start(index, point, Path(name), memory_bytes_max)
                    running.append(job)
                    selector.register(job.process.stdout, selectors.EVENT_READ, job)  # type: ignore[arg-type]
                for key, _ in selector.select():
                    if os.read(key.fd, 65536):
                        continue  # what a policy of the user's may print
                    job = key.data
                    selector.unregister(key.fileobj)
                    running.remove(job)
                    outcomes[job.index] = _finish(job, points[job.index])
                    if on_outcome is not None:
                        on_outcome(outcomes[job.index])
        finally:
            for job in running:
                job.process.kill()
                _close(job)
    return [outcomes[index] for index in range(len(points))]


def _start(index: int, point: Point, folder: Path, memory_bytes_max: int) -> _Job:
    source, target = folder / f"{index}.point", folder / f"{index}.outcome"
    source.write_bytes(pickle.dumps(point))
    errors = (folder / f"{index}.errors").open("w+b")
    command = [sys.executable, "-m", "sim.sweep.worker", str(source), str(target), str(memory_bytes_max)]
    process = subprocess.Popen(  # noqa: S603 - this interpreter, and file names of our own
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
    )
    return _Job(index=index, process=process, target=target, errors=errors)


def _finish(job: _Job, point: Point) -> Outcome:
    """Return the outcome that a process left, or say how it ended without one."""
    status = job.process.wait()
    job.errors.seek(0)
    said = job.errors.read()[-65536:].decode("utf-8", "replace").split("\n")
    _close(job)
    if status == 0 and job.target.exists():
        outcome: Outcome = pickle.loads(job.target.read_bytes())  # noqa: S301 - our own worker wrote it
        return outcome
    why = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    last = next((line for line in reversed(said) if line.strip()), "")
    error = f"the process was {why}" if status < 0 else f"the process {why}"
    return Outcome(
        key=point.key,
        seed=point.seed,
        state=FAILED,
        error=(f"{error}: {last.strip()}" if last else error)[:ERROR_CHARS_MAX],
    )


def _close(job: _Job) -> None:
    job.process.wait()
    if job.process.stdout is not None:
        job.process.stdout.close()
    job.errors.close()
