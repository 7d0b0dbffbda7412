"""Interrupt vectors of one VMkernel: who owns each, and what becomes of an interrupt that nobody owns.

Models: the 256 vectors of a processor, of which the first 32 are exceptions and the rest belong to whoever claims them.
An interrupt at a claimed vector is counted for its owner.  One at any other vector, from a device that was left
programmed or from bad luck, is acknowledged and counted; it is told in log and trace, but at most once a second, and
changes nothing else.

Leaves out: what handlers do (devices complete by events of their own here), priorities, remapping of interrupts, and
the time that they take.

Sources: Intel Software Developer's Manual volume 3A, 6.2 (vectors) and 6.4 (interrupts that software handles).  Which
vectors the kernel claims, and how often it tells of stray ones, are our choice.
"""

from __future__ import annotations

from sim.core.context import Sim
from sim.core.facts import fact
from sim.core.trace import record
from sim.core.units import SECOND
from sim.errors import SimBug, VmksimError

__all__ = ["KERNEL_OWNER", "VECTORS", "InterruptTable", "VectorRefused"]

UNOWNED = record("interrupt.unowned", pcpu=int, vector=int, count=int)
"""Interrupts that nobody owns: the last one's processor and vector, and how many since the last such record."""

_SDM = "Intel Software Developer's Manual volume 3A, 6.2"
VECTORS = fact("interrupt.vectors", 256, unit="1", source=_SDM, kind="spec")
EXCEPTIONS = fact("interrupt.exceptions", 32, unit="1", source=f"{_SDM}: vectors 0 to 31", kind="spec")
TELL_NS = fact("interrupt.tell_every_ns", SECOND, unit="ns", source="our choice", kind="assumed")

KERNEL_OWNER = "vmkernel"
KERNEL_VECTORS = (0xEF, 0xFD)
"""What the kernel claims at its start: the timer, and the shootdown of translations."""


class VectorRefused(VmksimError):  # noqa: N818 - a refusal, not an error of ours
    """A vector is no interrupt's, or has an owner already."""


class InterruptTable:
    """Who owns which vector on a host, and how often each was used."""

    def __init__(self, sim: Sim, pcpus: int) -> None:
        self._sim = sim
        self._pcpus = pcpus
        self._owners = dict.fromkeys(KERNEL_VECTORS, KERNEL_OWNER)
        self.taken: dict[str, int] = {}
        """How many interrupts each owner was given."""

        self.unowned: dict[int, int] = {}
        """How many came at each vector while nobody owned it."""

        self._untold = 0
        self._told_ns: int | None = None

    def claim(self, vector: int, owner: str) -> None:
        """Let `owner` have a vector; errors: `VectorRefused`."""
        if not EXCEPTIONS.value <= vector < VECTORS.value:
            last = VECTORS.value - 1
            raise VectorRefused(f"vector {vector} is no interrupt's, which are {EXCEPTIONS.value} to {last}")
        if vector in self._owners:
            raise VectorRefused(f"vector {vector:#x} belongs to {self._owners[vector]}")
        self._owners[vector] = owner

    def release(self, owner: str) -> None:
        """Take back all vectors of an owner, as when its module is unloaded."""
        self._owners = {vector: name for vector, name in self._owners.items() if name != owner}

    def owner_of(self, vector: int) -> str | None:
        """Return who owns a vector, or None."""
        return self._owners.get(vector)

    def deliver(self, pcpu: int, vector: int) -> str | None:
        """Take an interrupt on a processor and return whose it was; None: nobody's, and it is forgotten but for the count."""
        if not 0 <= pcpu < self._pcpus or not EXCEPTIONS.value <= vector < VECTORS.value:
            raise SimBug(f"an interrupt at vector {vector} of pCPU {pcpu}")
        owner = self._owners.get(vector)
        if owner is None:
            self.unowned[vector] = self.unowned.get(vector, 0) + 1
            self._untold += 1
            self._tell(pcpu, vector)
        else:
            self.taken[owner] = self.taken.get(owner, 0) + 1
        return owner

    def _tell(self, pcpu: int, vector: int) -> None:
        now_ns = self._sim.now
        if self._told_ns is not None and now_ns - self._told_ns < TELL_NS.value:
            return
        self._sim.trace.emit(UNOWNED, pcpu, vector, self._untold)
        text = f"cpu{pcpu}: interrupt at vector {vector:#x}, which nobody owns ({self._untold} since the last line)"
        self._sim.log("vmkernel", f"Intr: {text}")
        self._told_ns, self._untold = now_ns, 0
