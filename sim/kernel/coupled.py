"""Workloads whose vCPUs wait for each other, for a clock or for a device: what SMP guests and servers do.

Models: a barrier that opens when all vCPUs have come; a lock that is handed on in the order of arrival; waiting for either
by halting or by spinning (which burns CPU, also while the holder of the lock is not running); a periodic job that is
released by the clock and not by its own end; an I/O loop whose completions interrupt a pCPU.

Leaves out: adaptive spinning, pause-loop exits, priority inheritance, devices with queues.

Sources: none; the shapes are this project's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sim.core.rng import FastStream
from sim.kernel.workload import Enter, Leave, Run, Step, Wait

if TYPE_CHECKING:
    from sim.kernel.workload import Workload, WorkloadSpec
    from sim.kernel.world import World

__all__ = ["Barrier", "BarrierLoop", "IoLoop", "Lock", "LockLoop", "Periodic", "leave_gate", "more_workloads"]


class Barrier:
    """Opens when `parties` worlds have come, and closes behind them."""

    def __init__(self, parties: int) -> None:
        self.parties = parties
        self.rounds = 0
        self._waiting: list[World] = []

    def enter(self, world: World) -> list[World] | None:
        """Return the worlds that go on besides this one, or None if it must wait."""
        if len(self._waiting) + 1 < self.parties:
            self._waiting.append(world)
            return None
        self.rounds += 1
        woken, self._waiting = self._waiting, []
        return woken

    def leave(self, _world: World) -> list[World]:
        """Nobody holds a barrier."""
        return []

    def quit(self, world: World) -> list[World]:
        """Wait for a world no more, for good; return those that go on because nobody else is waited for."""
        self.parties -= 1
        if world in self._waiting:
            self._waiting.remove(world)
        if not self._waiting or len(self._waiting) < self.parties:
            return []
        self.rounds += 1
        woken, self._waiting = self._waiting, []
        return woken


class Lock:
    """Held by one world at a time, handed on in the order of arrival; `handed` counts how often."""

    def __init__(self) -> None:
        self.handed = 0
        self._holder: World | None = None
        self._waiting: list[World] = []

    def enter(self, world: World) -> list[World] | None:
        """Take the lock, or wait for it."""
        if self._holder is not None:
            self._waiting.append(world)
            return None
        self._holder = world
        return []

    def leave(self, world: World) -> list[World]:
        """Give the lock to the next in line."""
        assert self._holder is world
        self.handed += 1
        self._holder = self._waiting.pop(0) if self._waiting else None
        return [] if self._holder is None else [self._holder]

    def quit(self, world: World) -> list[World]:
        """Take a world out of the line, for good, or the lock from it."""
        if self._holder is world:
            return self.leave(world)
        if world in self._waiting:
            self._waiting.remove(world)
        return []


def more_workloads(spec: WorkloadSpec, streams: Sequence[FastStream], sibling: Workload) -> list[Workload]:
    """Make workloads for vCPUs that come to a VM: they take part in what the `sibling` does."""
    drawn = [stream if spec.random else None for stream in streams]
    if isinstance(sibling, BarrierLoop):
        sibling.gate.parties += len(streams)
        return [BarrierLoop(sibling.gate, spec.run_ns, spin=spec.spin, stream=each) for each in drawn]
    if isinstance(sibling, LockLoop):
        return [
            LockLoop(sibling.gate, spec.outside_ns, spec.run_ns, spin=spec.spin, stream=each)
            for each in drawn
        ]
    return spec.build_all(streams)


def leave_gate(world: World) -> list[World]:
    """Let a vCPU that goes for good leave its siblings' barrier or lock; return those that go on because of it."""
    workload = world.workload
    return workload.gate.quit(world) if isinstance(workload, (BarrierLoop, LockLoop)) else []


def _drawn(ns: int, stream: FastStream | None) -> int:
    return ns if stream is None else max(1, stream.exponential_ns(ns))


class BarrierLoop:
    """Computes for `run_ns`, then waits for its siblings, again and again."""

    def __init__(
        self, barrier: Barrier, run_ns: int, *, spin: bool, stream: FastStream | None = None
    ) -> None:
        self.gate = barrier
        self.run_ns = run_ns
        self.spin = spin
        self.stream = stream
        self._ran = False

    def next(self, now_ns: int) -> Step:
        """Return the burst and the barrier in turn."""
        self._ran = not self._ran
        if self._ran:
            return Run(_drawn(self.run_ns, self.stream))
        return Enter(self.gate, spin=self.spin)


class LockLoop:
    """Computes for `outside_ns`, takes the lock, computes for `inside_ns`, gives the lock back, again and again."""

    def __init__(
        self, lock: Lock, outside_ns: int, inside_ns: int, *, spin: bool, stream: FastStream | None = None
    ) -> None:
        self.gate = lock
        self.outside_ns = outside_ns
        self.inside_ns = inside_ns
        self.spin = spin
        self.stream = stream
        self._place = -1

    def next(self, now_ns: int) -> Step:
        """Return the four steps in turn."""
        self._place = (self._place + 1) % 4
        if self._place == 0:
            return Run(_drawn(self.outside_ns, self.stream))
        if self._place == 1:
            return Enter(self.gate, spin=self.spin)
        if self._place == 2:
            return Run(_drawn(self.inside_ns, self.stream))
        return Leave(self.gate)


class Periodic:
    """Wants `run_ns` of CPU in every period, from its begin on; a job that ends after its period is `late`."""

    def __init__(self, run_ns: int, period_ns: int) -> None:
        self.run_ns = run_ns
        self.period_ns = period_ns
        self.jobs = self.late = 0
        self._begin_ns: int | None = None
        self._running = False

    def next(self, now_ns: int) -> Step:
        """Return the job of the next period, or a sleep until that begins."""
        if self._begin_ns is None:
            self._begin_ns = now_ns
        if self._running:
            self._running = False
            self.jobs += 1
            self._begin_ns += self.period_ns
            self.late += now_ns > self._begin_ns
        if now_ns < self._begin_ns:
            return Wait(self._begin_ns - now_ns)
        self._running = True
        return Run(self.run_ns)


class IoLoop:
    """Computes for `run_ns`, then waits `latency_ns` for a device, whose interrupt costs the host `interrupt_ns`."""

    def __init__(
        self, run_ns: int, latency_ns: int, interrupt_ns: int, stream: FastStream | None = None
    ) -> None:
        self.run_ns = run_ns
        self.latency_ns = latency_ns
        self.interrupt_ns = interrupt_ns
        self.stream = stream
        self.requests = 0
        self._on = False

    def next(self, now_ns: int) -> Step:
        """Return burst and wait in turn."""
        self._on = not self._on
        if self._on:
            return Run(_drawn(self.run_ns, self.stream))
        self.requests += 1
        return Wait(_drawn(self.latency_ns, self.stream), interrupt_ns=self.interrupt_ns)
