"""What a guest does with its memory: loads and stores through its own page tables, and those of its virtual devices.

Models: accesses by guest linear address, where the guest's page tables lie in its own memory and are whatever it wrote
there; accesses by guest-physical address.  Pages that are touched for the first time get frames on the way; what else
stops an access is returned as data.

Leaves out: instructions, and what the guest does about a fault.

Sources: Intel Software Developer's Manual volume 3C, chapter 29.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.errors import SimBug
from sim.hw.memory import FRAME_BYTES
from sim.hw.mmu.ept import EptAccess, EptMisconfiguration, EptTranslation, EptViolation
from sim.hw.mmu.nested import NestedControl, NestedOutcome, NestedTranslation, walk_nested
from sim.hw.mmu.paging import ControlState
from sim.hw.mmu.walk import Access, GeneralProtection, Kind, PageFault
from sim.kernel.memory.guest_space import GuestSpace

__all__ = ["GuestAccess", "GuestStop"]

RETRIES_MAX = 64
"""Violations resolved for one access: every page of a 5-level walk can be missing, then shared, then in need of W."""

GuestStop = PageFault | GeneralProtection | EptViolation | EptMisconfiguration
"""What can stop a guest's access: the first two are the guest's own business."""


class GuestAccess:
    """The accesses of one VM to its memory."""

    def __init__(self, space: GuestSpace) -> None:
        self.space = space
        self._memory = space.memory

    def translate(self, control: ControlState, va: int, access: Access) -> NestedOutcome:
        """Translate one access of a virtual processor, giving frames to pages that are touched for the first time.

        `control` is the guest's, with a guest-physical CR3.  Errors: `OutOfMemory` of the pager.
        """
        nested = NestedControl(guest=control, ept=self.space.tables.control)
        for _ in range(RETRIES_MAX):
            walked = walk_nested(self._memory.read_u64, self._memory.write_u64, nested, va, access)
            if not isinstance(walked.outcome, EptViolation) or not self.space.resolve(walked.outcome):
                return walked.outcome
        raise SimBug(f"{self.space.owner}: {RETRIES_MAX} EPT violations for one access at {va:#x}")

    def load(
        self, control: ControlState, va: int, size: int, access: Access | None = None
    ) -> bytes | GuestStop:
        """Return `size` bytes as the guest reads them at linear address `va`, or what stopped it."""
        wanted = access if access is not None else Access(Kind.READ)
        parts = []
        for at, count in _pieces(va, size):
            outcome = self.translate(control, at, wanted)
            if not isinstance(outcome, NestedTranslation):
                return outcome
            parts.append(self._memory.read(outcome.pa, count))
        return b"".join(parts)

    def store(
        self, control: ControlState, va: int, data: bytes, access: Access | None = None
    ) -> GuestStop | None:
        """Write `data` as the guest does at linear address `va`; returns what stopped it, after whole pages perhaps."""
        wanted = access if access is not None else Access(Kind.WRITE)
        done = 0
        for at, count in _pieces(va, len(data)):
            outcome = self.translate(control, at, wanted)
            if not isinstance(outcome, NestedTranslation):
                return outcome
            self._memory.write(outcome.pa, data[done : done + count])
            done += count
        return None

    def load_physical(self, gpa: int, size: int) -> bytes | EptViolation | EptMisconfiguration:
        """Return bytes at a guest-physical address, as a virtual device or a guest without paging reads them."""
        parts = []
        for at, count in _pieces(gpa, size):
            outcome = self._reach(at, Kind.READ)
            if not isinstance(outcome, EptTranslation):
                return outcome
            parts.append(self._memory.read(outcome.pa, count))
        return b"".join(parts)

    def store_physical(self, gpa: int, data: bytes) -> EptViolation | EptMisconfiguration | None:
        """Write bytes at a guest-physical address; see `load_physical`."""
        done = 0
        for at, count in _pieces(gpa, len(data)):
            outcome = self._reach(at, Kind.WRITE)
            if not isinstance(outcome, EptTranslation):
                return outcome
            self._memory.write(outcome.pa, data[done : done + count])
            done += count
        return None

    def _reach(self, gpa: int, kind: Kind) -> EptTranslation | EptViolation | EptMisconfiguration:
        for _ in range(RETRIES_MAX):
            outcome = self.space.tables.walk(gpa, EptAccess.of(kind))
            if not isinstance(outcome, EptViolation) or not self.space.resolve(outcome):
                return outcome
        raise SimBug(f"{self.space.owner}: {RETRIES_MAX} EPT violations for one access to {gpa:#x}")


def _pieces(address: int, size: int) -> Iterator[tuple[int, int]]:
    """Return (address, bytes) of the parts of a range that lie in one 4 KiB page each."""
    while size > 0:
        count = min(size, FRAME_BYTES - address % FRAME_BYTES)
        yield address, count
        address += count
        size -= count
