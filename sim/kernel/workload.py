"""Workloads: what a world wants from the CPU, as a sequence of bursts and sleeps.

Models: always busy, never busy, on/off (fixed or exponentially distributed), a recorded demand, and a generator
function of the user's.  A workload is one plain object with one method, `next`; the scheduler asks it whenever the
last burst has been served or the last sleep is over.  All of them pickle in the middle of a run; a generator is
restored by replaying as many steps as it had given.

Leaves out: memory and device accesses; workloads whose vCPUs wait for each other, for a clock or for a device stand in
`sim.kernel.coupled`.

Sources: none; the shapes are this project's own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from sim.core.rng import FastStream
from sim.core.structure import FieldError, between, in_choices, quantity
from sim.core.units import MS, SECOND, US
from sim.errors import ScenarioError

if TYPE_CHECKING:
    from sim.kernel.world import World

__all__ = [
    "FOREVER_NS",
    "Busy",
    "Enter",
    "Gate",
    "Generator",
    "Idle",
    "Leave",
    "OnOff",
    "Run",
    "Step",
    "Trace",
    "Wait",
    "Workload",
    "WorkloadSpec",
    "parse_demand_csv",
]

FOREVER_NS = 1 << 62
"""As a length: without end."""

DEMAND_SAMPLES_MAX = 1_000_000
"""The most samples of a recorded demand."""

FULL_DEMAND = 10_000
"""One CPU, in hundredths of a percent."""


@attrs.frozen
class Run:
    """Use `ns` of CPU time, however long that takes."""

    ns: int = attrs.field(validator=between(0, FOREVER_NS))


@attrs.frozen
class Wait:
    """Halt for `ns` of simulated time; an interrupt ends it, which costs the host `interrupt_ns`."""

    ns: int = attrs.field(validator=between(0, FOREVER_NS))
    interrupt_ns: int = attrs.field(default=0, validator=between(0, SECOND))


class Gate(Protocol):
    """What worlds wait at: `enter` returns None to make one wait, both return the others that go on now."""

    def enter(self, world: World) -> list[World] | None:
        """Come to the gate."""

    def leave(self, world: World) -> list[World]:
        """Give back what `enter` gave."""


@attrs.frozen
class Enter:
    """Come to a gate (`sim.kernel.coupled`); who must wait halts, or spins: runs without an end until it may go on."""

    gate: Gate
    spin: bool = attrs.field(default=False, kw_only=True)


@attrs.frozen
class Leave:
    """Leave a gate; takes no time."""

    gate: Gate


Step = Run | Wait | Enter | Leave


class Workload(Protocol):
    """What a world does; objects must pickle, and take chance only from a stream they were given."""

    def next(self, now_ns: int) -> Step:
        """Return what comes after the step that has just ended (at the start: the first step)."""
        ...


class Busy:
    """Wants a whole CPU, always."""

    def next(self, now_ns: int) -> Step:
        """Return an endless burst."""
        return Run(FOREVER_NS)


class Idle:
    """Never wants CPU."""

    def next(self, now_ns: int) -> Step:
        """Return an endless sleep."""
        return Wait(FOREVER_NS)


class OnOff:
    """Runs `run_ns` of CPU, then halts for `wait_ns`, again and again.

    With a stream both are means of exponential distributions (at least 1 ns each).
    """

    def __init__(self, run_ns: int, wait_ns: int, stream: FastStream | None = None) -> None:
        self.run_ns = run_ns
        self.wait_ns = wait_ns
        self.stream = stream
        self._on = False
        self._fixed: tuple[Step, Step] = (Wait(wait_ns), Run(run_ns))

    def next(self, now_ns: int) -> Step:
        """Return burst and sleep in turn."""
        self._on = not self._on
        if self.stream is None:
            return self._fixed[self._on]
        ns = max(1, self.stream.exponential_ns(self.run_ns if self._on else self.wait_ns))
        return Run(ns) if self._on else Wait(ns)


class Trace:
    """Demand over time: during each period of `period_ns` the world wants that many hundredths of a percent of a CPU.

    Each period is cut into slices of `slice_ns`, and each slice begins with its burst.  Work that could not be
    served in its slice is not dropped: it delays what follows.  After the last sample it starts again, or sleeps for
    good.
    """

    def __init__(
        self, demand: tuple[int, ...], period_ns: int, *, slice_ns: int = 10 * MS, repeat: bool = True
    ) -> None:
        if (
            not demand
            or not 0 < slice_ns <= period_ns
            or any(not 0 <= each <= FULL_DEMAND for each in demand)
        ):
            raise ValueError("want demands from 0 to 10000 and 0 < slice_ns <= period_ns")
        self.demand = demand
        self.period_ns = period_ns
        self.slice_ns = slice_ns
        self.repeat = repeat
        self._period = 0
        self._offset_ns = 0  # within the period, where the next slice begins
        self._start_ns: int | None = None

    def next(self, now_ns: int) -> Step:
        """Return the burst of the next slice, or a sleep until that begins."""
        if self._start_ns is None:
            self._start_ns = now_ns
        burst_ns = 0
        while not burst_ns:
            if self._period >= len(self.demand) and not self.repeat:
                return Wait(FOREVER_NS)
            begin_ns = self._start_ns + self._period * self.period_ns + self._offset_ns
            if now_ns < begin_ns:
                return Wait(begin_ns - now_ns)
            burst_ns = self._next_slice()
        return Run(burst_ns)

    def _next_slice(self) -> int:
        """Move on by one slice; returns its burst.  The bursts of a period add up to its demand, rounded down."""
        demand = self.demand[self._period % len(self.demand)]
        before_ns = demand * self._offset_ns // FULL_DEMAND
        self._offset_ns = min(self._offset_ns + self.slice_ns, self.period_ns)
        burst_ns = demand * self._offset_ns // FULL_DEMAND - before_ns
        if self._offset_ns == self.period_ns:
            self._period += 1
            self._offset_ns = 0
        return burst_ns


class Generator:
    """Steps from a generator function of the user's: `factory(*arguments)` yields `Run` and `Wait`.

    With a stream, a copy of it is the first argument.  The factory must be a module-level function, and must yield
    the same steps each time it is called with the same arguments: a checkpoint stores only how many were taken.  When
    the generator ends, the world sleeps for good.
    """

    def __init__(
        self,
        factory: Callable[..., Iterator[Step]],
        arguments: tuple[Any, ...] = (),
        stream: FastStream | None = None,
    ) -> None:
        self.factory = factory
        self.arguments = arguments
        self.stream = stream
        self.taken = 0
        self._steps: Iterator[Step] | None = None

    def next(self, now_ns: int) -> Step:
        """Return the generator's next step; errors: `ScenarioError` when it fails or yields something else."""
        name = getattr(self.factory, "__name__", "generator")
        try:
            if self._steps is None:
                self._steps = self._replay()
            step = next(self._steps, None)
        except Exception as error:
            raise ScenarioError("workload", f"the generator {name} failed: {error!r}") from error
        if step is None:
            return Wait(FOREVER_NS)
        if not isinstance(step, (Run, Wait, Enter, Leave)):
            raise ScenarioError(
                "workload", f"the generator {name} gave a wrong step", got=step, wanted="Run or Wait"
            )
        self.taken += 1
        return step

    def _replay(self) -> Iterator[Step]:
        first = () if self.stream is None else (copy(self.stream),)
        steps = self.factory(*first, *self.arguments)
        for _ in range(self.taken):
            next(steps, None)
        return steps

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_steps": None}


def parse_demand_csv(text: str, where: str = "demand") -> tuple[int, ...]:
    """Return the demands of a CSV text, whose last column is percent of one CPU, as hundredths of a percent.

    A first line without a number is taken as a heading.  Errors: `ScenarioError` naming the line.
    """
    samples: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        cell = line.rpartition(",")[2].strip().strip('"')
        if not cell:
            continue
        try:
            value = Decimal(cell) * 100
            wrong = not value.is_finite() or value != int(value) or not 0 <= value <= FULL_DEMAND
        except InvalidOperation:
            if number == 1:
                continue
            wrong = True
        if wrong or len(samples) >= DEMAND_SAMPLES_MAX:
            raise ScenarioError(
                f"{where}, line {number}", "wrong demand", got=cell, wanted="0 to 100, two decimals"
            )
        samples.append(int(value))
    if not samples:
        raise ScenarioError(where, "no demand in this file")
    return tuple(samples)


KINDS = ("busy", "idle", "onoff", "periodic", "barrier", "spinlock", "io", "trace", "generator")
"""The kinds of workload that a scenario can name."""


_SWITCHES = {
    "random": ("onoff", "barrier", "spinlock", "io", "generator"),
    "spin": ("barrier", "spinlock"),
}
"""Which kinds a switch means something for."""


@attrs.frozen(kw_only=True)
class WorkloadSpec:
    """A workload as a scenario declares it, the same for each vCPU of a VM.

    `kind` is busy, idle, onoff, periodic, barrier, spinlock, io, trace or generator.  `run`, `wait` and `random`
    belong to onoff; periodic runs `run` in each `period`; barrier runs `run` and waits for its siblings; spinlock runs
    `outside` and then `run` with the lock held; both spin if `spin`; io runs `run`, waits `wait` and takes an
    interrupt that costs `interrupt`, no longer than the time between two (system time of the VM wherever it is served, and
    delay for whoever runs there; an idle pCPU that serves it counts as idle all the same); `demand` (percent of
    one CPU) or `file` (a CSV, read by whoever loads the scenario) with `period` to trace; `function`
    ("module:name") to generator, which imports and runs that module: trust whoever wrote the scenario.
    """

    kind: str = attrs.field(default="busy", validator=in_choices(*KINDS))
    run_ns: int = attrs.field(default=10 * MS, metadata=quantity("ns"), validator=between(1, 10**6 * SECOND))
    wait_ns: int = attrs.field(default=10 * MS, metadata=quantity("ns"), validator=between(1, 10**6 * SECOND))
    random: bool = attrs.field(default=False, validator=attrs.validators.instance_of(bool))
    outside_ns: int = attrs.field(
        default=90 * US, metadata=quantity("ns"), validator=between(1, 10**6 * SECOND)
    )
    spin: bool = attrs.field(default=False, validator=attrs.validators.instance_of(bool))
    interrupt_ns: int = attrs.field(default=5 * US, metadata=quantity("ns"), validator=between(0, SECOND))
    demand: tuple[int, ...] = ()
    demand_hundredths: tuple[int, ...] = ()
    file: str = ""
    period_ns: int = attrs.field(
        default=SECOND, metadata=quantity("ns"), validator=between(1, 10**6 * SECOND)
    )
    repeat: bool = attrs.field(default=True, validator=attrs.validators.instance_of(bool))
    function: str = ""

    def __attrs_post_init__(self) -> None:
        for name, highest in (("demand", 100), ("demand_hundredths", FULL_DEMAND)):
            if any(not 0 <= each <= highest for each in getattr(self, name)):
                raise FieldError(name, getattr(self, name), f"integers from 0 to {highest}")
        sources = sum(1 for source in (self.demand, self.demand_hundredths, self.file) if source)
        if self.kind == "trace" and sources != 1:
            raise FieldError("demand", self.demand, "either demand or file, for a workload of kind trace")
        for name, kinds in _SWITCHES.items():
            if getattr(self, name) and self.kind not in kinds:
                raise FieldError(name, True, f"no {name} for {self.kind}, but for {', '.join(kinds)}")
        if self.kind == "io" and self.interrupt_ns > self.run_ns + self.wait_ns:
            wanted = f"at most run and wait together, {self.run_ns + self.wait_ns} ns: the time between two"
            raise FieldError("interrupt_ns", self.interrupt_ns, wanted)
        if self.kind == "generator" and self.function.count(":") != 1:
            raise FieldError("function", self.function, "module:name, for a workload of kind generator")

    def with_demand(self, text: str) -> WorkloadSpec:
        """Return this spec with the demand of the CSV `text` in place of its `file`."""
        return attrs.evolve(self, demand_hundredths=parse_demand_csv(text, self.file or "demand"), file="")

    @property
    def names_code(self) -> bool:
        """Whether it names a Python function."""
        return self.kind == "generator" or bool(self.function)

    @property
    def cycle_ns(self) -> int | None:
        """The shortest time between two steps of the workload, or None if it has no fixed one."""
        cycles = {
            "onoff": self.run_ns + self.wait_ns,
            "io": self.run_ns + self.wait_ns,
            "periodic": self.period_ns,
            "barrier": self.run_ns,
            "spinlock": self.run_ns + self.outside_ns,
            "trace": self.period_ns,
        }
        return cycles.get(self.kind)

    def check_complete(self) -> None:
        """Raise `ScenarioError` when it cannot be built: a generator's function is not found, a file was not read."""
        if self.kind == "trace" and self.file:
            raise ScenarioError("workload.file", "the demand was not read", got=self.file)
        if self.kind == "generator":
            _find(self.function)

    def build_all(self, streams: Sequence[FastStream]) -> list[Workload]:
        """Make the workloads of all vCPUs of a VM, each with its stream.  Errors: as `build`."""
        from sim.kernel.coupled import Barrier, BarrierLoop, IoLoop, Lock, LockLoop, Periodic

        barrier, lock = Barrier(len(streams)), Lock()
        made: list[Workload] = []
        for stream in streams:
            drawn = stream if self.random else None
            if self.kind == "barrier":
                made.append(BarrierLoop(barrier, self.run_ns, spin=self.spin, stream=drawn))
            elif self.kind == "spinlock":
                made.append(LockLoop(lock, self.outside_ns, self.run_ns, spin=self.spin, stream=drawn))
            elif self.kind == "periodic":
                made.append(Periodic(self.run_ns, self.period_ns))
            elif self.kind == "io":
                made.append(IoLoop(self.run_ns, self.wait_ns, self.interrupt_ns, drawn))
            else:
                made.append(self.build(stream))
        return made

    def build(self, stream: FastStream) -> Workload:
        """Make the workload of one vCPU, of a kind that is not coupled; it draws from `stream` if it draws at all.

        Errors: as `check_complete`.
        """
        self.check_complete()
        if self.kind == "onoff":
            return OnOff(self.run_ns, self.wait_ns, stream if self.random else None)
        if self.kind == "trace":
            demand = self.demand_hundredths or tuple(100 * each for each in self.demand)
            slice_ns = min(10 * MS, self.period_ns)
            return Trace(demand, self.period_ns, slice_ns=slice_ns, repeat=self.repeat)
        if self.kind == "generator":
            return Generator(_find(self.function), (), stream if self.random else None)
        return Busy() if self.kind == "busy" else Idle()


def _find(function: str) -> Callable[..., Iterator[Step]]:
    module, _, name = function.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        raise ScenarioError("workload.function", f"cannot be found: {error}", got=function) from error
    if not callable(found):
        raise ScenarioError("workload.function", "is not a function", got=function)
    result: Callable[..., Iterator[Step]] = found
    return result
