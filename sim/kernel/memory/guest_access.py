"""What a guest does with its memory: loads and stores through its own page tables, and those of its virtual devices.

Models: accesses by guest linear address, where the guest's page tables lie in its own memory and are whatever it wrote
there; accesses by guest-physical address.  Pages that are touched for the first time get frames on the way; what else
stops an access is returned as data.

Leaves out: instructions, and what the guest does about a fault.

Sources: Intel Software Developer's Manual volume 3C, chapter 29.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from sim.errors import SimBug
from sim.hw.mca import MachineCheck, MceRecord
from sim.hw.memory import FRAME_BYTES
from sim.hw.mmu.ept import EptAccess, EptMisconfiguration, EptTranslation, EptViolation
from sim.hw.mmu.nested import NestedControl, NestedOutcome, NestedTranslation, walk_nested
from sim.hw.mmu.paging import ControlState
from sim.hw.mmu.walk import Access, GeneralProtection, Kind, PageFault
from sim.kernel.memory.guest_space import GuestSpace

__all__ = ["GuestAccess", "GuestStop"]

RETRIES_MAX = 64
"""Violations resolved for one access: every page of a 5-level walk can be missing, then shared, then in need of W."""

EptStop = EptViolation | EptMisconfiguration | MceRecord
"""What can stop an access by guest-physical address: no memory there, or bytes that a memory error destroyed."""

GuestStop = PageFault | GeneralProtection | EptStop
"""What can stop a guest's access: the first two are the guest's own business."""

_Stop = TypeVar("_Stop")
_Reach = Callable[[int], int | _Stop]


class GuestAccess:
    """The accesses of one VM to its memory.

    `on_machine_check(record)` is told of an error that the guest met, before the access returns it.
    """

    def __init__(
        self, space: GuestSpace, on_machine_check: Callable[[MceRecord], object] | None = None
    ) -> None:
        self.space = space
        self._on_machine_check = on_machine_check
        self._memory = space.memory

    def translate(self, control: ControlState, va: int, access: Access) -> NestedOutcome | MceRecord:
        """Translate one access of a virtual processor, giving frames to pages that are touched for the first time.

        `control` is the guest's, with a guest-physical CR3.  Errors: `OutOfMemory` of the pager.
        """
        try:
            return self._translate(control, va, access)
        except MachineCheck as error:
            return self._met(error)

    def load(
        self, control: ControlState, va: int, size: int, access: Access | None = None
    ) -> bytes | GuestStop:
        """Return `size` bytes as the guest reads them at linear address `va`, or what stopped it."""
        return self._read(va, size, self._linear(control, access or Access(Kind.READ)))

    def store(
        self, control: ControlState, va: int, data: bytes, access: Access | None = None
    ) -> GuestStop | None:
        """Write `data` as the guest does at linear address `va`; returns what stopped it, after whole pages perhaps."""
        return self._write(va, data, self._linear(control, access or Access(Kind.WRITE)))

    def load_physical(self, gpa: int, size: int) -> bytes | EptStop:
        """Return bytes at a guest-physical address, as a virtual device or a guest without paging reads them."""
        return self._read(gpa, size, self._physical(Kind.READ))

    def store_physical(self, gpa: int, data: bytes) -> EptStop | None:
        """Write bytes at a guest-physical address; see `load_physical`."""
        return self._write(gpa, data, self._physical(Kind.WRITE))

    def _read(self, address: int, size: int, reach: _Reach[_Stop]) -> bytes | _Stop | MceRecord:
        parts = []
        try:
            for at, count in _pieces(address, size):
                pa = reach(at)
                if not isinstance(pa, int):
                    return pa
                parts.append(self._memory.read(pa, count))
        except MachineCheck as error:
            return self._met(error)
        return b"".join(parts)

    def _write(self, address: int, data: bytes, reach: _Reach[_Stop]) -> _Stop | MceRecord | None:
        done = 0
        try:
            for at, count in _pieces(address, len(data)):
                pa = reach(at)
                if not isinstance(pa, int):
                    return pa
                self._memory.write(pa, data[done : done + count])
                done += count
        except MachineCheck as error:
            return self._met(error)
        return None

    def _linear(self, control: ControlState, access: Access) -> _Reach[GuestStop]:
        """Return a function from a linear address to the machine's, or to what stops the access."""

        def reach(at: int) -> int | GuestStop:
            outcome = self._translate(control, at, access)
            return outcome.pa if isinstance(outcome, NestedTranslation) else outcome

        return reach

    def _physical(self, kind: Kind) -> _Reach[EptStop]:
        """Return a function from a guest-physical address to the machine's, or to what stops the access."""

        def reach(at: int) -> int | EptStop:
            for _ in range(RETRIES_MAX):
                outcome = self.space.tables.walk(at, EptAccess.of(kind))
                if isinstance(outcome, EptTranslation):
                    return outcome.pa
                if not isinstance(outcome, EptViolation) or not self.space.resolve(outcome):
                    return outcome
            raise SimBug(f"{self.space.owner}: {RETRIES_MAX} EPT violations for one access to {at:#x}")

        return reach

    def _translate(self, control: ControlState, va: int, access: Access) -> NestedOutcome:
        nested = NestedControl(guest=control, ept=self.space.tables.control)
        for _ in range(RETRIES_MAX):
            walked = walk_nested(self._memory.read_u64, self._memory.write_u64, nested, va, access)
            if not isinstance(walked.outcome, EptViolation) or not self.space.resolve(walked.outcome):
                return walked.outcome
        raise SimBug(f"{self.space.owner}: {RETRIES_MAX} EPT violations for one access at {va:#x}")

    def _met(self, error: MachineCheck) -> MceRecord:
        if self._on_machine_check is not None:
            self._on_machine_check(error.record)
        return error.record


def _pieces(address: int, size: int) -> Iterator[tuple[int, int]]:
    """Return (address, bytes) of the parts of a range that lie in one 4 KiB page each."""
    while size > 0:
        count = min(size, FRAME_BYTES - address % FRAME_BYTES)
        yield address, count
        address += count
        size -= count
