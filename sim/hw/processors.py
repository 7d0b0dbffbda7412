"""The logical processors of a board as memory sees them, one for each pCPU, and what makes them forget translations.

Models: processors that come into being when something first uses one, all together, each with an empty TLB; the
shootdown after a change of page tables; what a reset does to both; and a kernel that leaves shootdowns out, whose other
processors go on granting what the tables deny.

Leaves out: what the processors execute (`sim.kernel.sched`), and the paging-structure caches, so that table frames are
freed with the change.

Sources: Intel Software Developer's Manual volume 3A, sections 4.10.4 and 4.10.5; table 10-1 (a reset invalidates TLBs).
"""

from __future__ import annotations

from collections.abc import Callable

from sim.core.context import Sim
from sim.errors import SimBug
from sim.hw.memory import Extent, PhysicalMemory
from sim.hw.mmu.cpu import LogicalCpu, TlbCosts
from sim.hw.mmu.paging import ControlState
from sim.hw.mmu.shootdown import Invalidation, Shootdown, ShootdownUnit

__all__ = ["BOOT_PROCESSOR", "Processors"]

BOOT_PROCESSOR = 0
"""Who begins the shootdowns of the kernel's own memory: its loader runs there."""


class Processors:
    """The `count` logical processors of a board, at `core_hz`; nothing is made before `start` and a first use."""

    def __init__(self, sim: Sim, memory: PhysicalMemory, count: int, core_hz: int) -> None:
        self.count = count
        self._sim = sim
        self._memory = memory
        self._costs = TlbCosts(core_hz=core_hz)
        self._control: ControlState | None = None
        self._shoot = True
        self._unit: ShootdownUnit | None = None

    @property
    def made(self) -> bool:
        """Whether anything has used a processor since the last reset."""
        return self._unit is not None

    def start(self, control: ControlState, *, shootdowns: bool = True) -> None:
        """Begin with the kernel's tables and flags; a kernel without `shootdowns` tells no other processor of a change."""
        self.reset()
        self._control = control
        self._shoot = shootdowns

    def reset(self) -> None:
        """Forget everything: TLBs, registers, and the shootdowns that were on their way."""
        if self._unit is not None:
            self._unit.abandon()
        self._unit = None
        self._control = None

    @property
    def unit(self) -> ShootdownUnit:
        """The processors with the interrupts between them.  Errors: `SimBug` before `start`."""
        if self._unit is None:
            control = self._control
            if control is None:
                raise SimBug("the processors of a board have not been started")
            cpus = [
                LogicalCpu(number, self._memory, control, costs=self._costs) for number in range(self.count)
            ]
            self._unit = ShootdownUnit(self._sim, self._memory, cpus)
        return self._unit

    def cpu(self, index: int) -> LogicalCpu:
        """Return a logical processor."""
        return self.unit.cpus[index]

    def forget(
        self,
        invalidation: Invalidation,
        *,
        frees: tuple[Extent, ...] = (),
        done: Callable[[], object] | None = None,
    ) -> None:
        """Have every processor forget what the tables no longer say, free `frees` when all have, then call `done()`.

        `done` must be picklable.  Without shootdowns only the processor that made the change forgets, and the frames
        are free at once: the bug.
        """
        if self._shoot:
            self.unit.request(
                BOOT_PROCESSOR, invalidation, frees=frees, done=None if done is None else _Then(done)
            )
            return
        invalidation.apply(self.cpu(BOOT_PROCESSOR), self.unit.spec.pages_max)
        for extent in frees:
            self._memory.free(extent)
        if done is not None:
            done()

    def check_invariants(self) -> None:
        """Raise `SimBug` unless TLBs and waiting shootdowns are in order."""
        if self._unit is not None:
            self._unit.check_invariants()


class _Then:
    """Calls `done()` with no arguments when a shootdown is complete."""

    def __init__(self, done: Callable[[], object]) -> None:
        self._done = done

    def __call__(self, _shootdown: Shootdown) -> None:
        self._done()
