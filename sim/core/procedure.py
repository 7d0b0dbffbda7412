"""Finite procedures as a queue of steps, and the meter of what a step costs in simulated time.

A boot, an attestation, a module load: each has a first and a last step, and reads best from top to bottom.  Written
as a generator it could not be pickled in the middle; written as a `Procedure` it can, because its state is a queue of
bound methods.

Models: one engine event a step; what a step charged to the meter elapses before the next one.  Leaves out
parallelism inside a procedure.  Sources: none, a design of ours (see docs/why.md).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sim.core.engine import Engine
from sim.errors import SimBug, VmksimError

__all__ = ["STEPS_MAX", "CostMeter", "Procedure"]

STEPS_MAX = 1_000_000
"""The most steps a procedure may have waiting: more is a runaway."""

Step = Callable[..., object]


class CostMeter:
    """Simulated time that has been spent but has not elapsed yet, in ns, with totals for each kind of work."""

    def __init__(self) -> None:
        self.pending_ns = 0
        self.totals_ns: dict[str, int] = {}

    def charge(self, cost_ns: int, what: str = "work") -> None:
        """Add `cost_ns` of work of the kind `what`."""
        if cost_ns < 0:
            raise SimBug(f"negative cost of {cost_ns} ns for {what}")
        self.pending_ns += cost_ns
        self.totals_ns[what] = self.totals_ns.get(what, 0) + cost_ns

    def take(self) -> int:
        """Return what is pending and set it to zero."""
        cost_ns, self.pending_ns = self.pending_ns, 0
        return cost_ns


class Procedure:
    """A finite procedure: steps run one after another, each followed by the time it charged to `meter`.

    `then` appends a step; `next`, inside a running step, puts steps directly after that step, in the order of the
    calls.  `on_done()` is called when no step is left, after the last step's time.  A `VmksimError` raised by a step
    ends the procedure and goes to `on_error(error)` if there is one.
    """

    def __init__(
        self,
        engine: Engine,
        meter: CostMeter,
        on_done: Callable[[], object] | None = None,
        on_error: Callable[[VmksimError], object] | None = None,
    ) -> None:
        self._engine = engine
        self._meter = meter
        self._on_done = on_done
        self._on_error = on_error
        self._steps: deque[tuple[Step, tuple[object, ...]]] = deque()
        self._inserted: list[tuple[Step, tuple[object, ...]]] = []
        self.running = False
        self.steps_done = 0

    def then(self, step: Step, *arguments: object) -> Procedure:
        """Append a step; returns the procedure, so that calls chain."""
        self._steps.append((step, arguments))
        return self

    def next(self, step: Step, *arguments: object) -> None:
        """Put a step directly after the running one, behind those put there before."""
        self._inserted.append((step, arguments))

    def start(self) -> Procedure:
        """Schedule the first step at the present instant."""
        if self.running or self.steps_done:
            raise SimBug("a procedure starts once")
        self.running = True
        self._engine.after(0, self._run_step)
        return self

    def stop(self) -> None:
        """Drop all waiting steps without calling `on_done` (a power cut); the procedure cannot start again."""
        self._steps.clear()
        self._inserted.clear()
        self.running = False

    def _run_step(self) -> None:
        if not self.running:
            return
        if not self._steps:
            self.running = False
            if self._on_done is not None:
                self._on_done()
            return
        step, arguments = self._steps.popleft()
        self.steps_done += 1
        try:
            step(*arguments)
        except VmksimError as error:
            self.stop()
            self._meter.take()
            if self._on_error is None:
                raise
            self._on_error(error)
            return
        self._steps.extendleft(reversed(self._inserted))
        self._inserted.clear()
        if len(self._steps) > STEPS_MAX:
            raise SimBug(f"a procedure has over {STEPS_MAX} steps waiting")
        self._engine.after(self._meter.take(), self._run_step)
