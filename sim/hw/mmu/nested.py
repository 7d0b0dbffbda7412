"""The two-dimensional walk of a guest's access: guest page tables in guest-physical memory, and EPT under them.

Models: each entry of the guest's walk fetched through EPT, as a write where EPT's accessed and dirty flags are on; the
guest's own accessed and dirty bits written through EPT; the order of things (whatever the guest's tables decide comes
before an EPT violation of the final page); the number of memory references, (n+1)(m+1)-1 for a full walk of n guest and
m EPT levels; guests with paging off.

The guest's half is `sim.hw.mmu.walk.walk` itself, given functions that reach guest-physical memory; this module only
composes it with `ept_walk`.  An exit in the middle of the guest's walk leaves it as an exception that is caught here.

Leaves out: cached translations (`sim.hw.mmu.tlb` where there is one), PAE paging of guests.

Sources: Intel Software Developer's Manual volume 3C, sections 28.2.1 and 29.3.3 to 29.3.5.
"""

from __future__ import annotations

from attrs import frozen

from sim.hw.mmu.ept import (
    EptAccess,
    EptMisconfiguration,
    EptOutcome,
    EptTranslation,
    EptViolation,
    ept_walk,
)
from sim.hw.mmu.ept_entries import EptControl, EptRights
from sim.hw.mmu.paging import ControlState, Rights
from sim.hw.mmu.walk import Access, GeneralProtection, Kind, PageFault, ReadWord, Translation, WriteWord, walk

_ALL = Rights(write=True, user=True, execute=True)
_UNPAGED_BYTES = 1 << 52


@frozen(kw_only=True)
class NestedTranslation:
    """A granted access: guest-physical and host-physical address, and what both dimensions permit together.

    `page_bytes` is the smaller of the two pages: how far the translation holds around the address.  `rights` is what
    a TLB may cache; reading may be missing from it only under `ept_rights`.
    """

    pa: int
    gpa: int
    page_bytes: int
    rights: Rights
    ept_rights: EptRights
    global_page: bool
    memory_type: int


NestedOutcome = NestedTranslation | PageFault | GeneralProtection | EptViolation | EptMisconfiguration


@frozen(kw_only=True)
class NestedWalk:
    """What became of an access, and how many entries, guest's and EPT's, were read for it."""

    outcome: NestedOutcome
    references: int


@frozen(kw_only=True)
class NestedControl:
    """The state of the virtual processor, whose CR3 holds a guest-physical address, and that of EPT under it."""

    guest: ControlState
    ept: EptControl


def walk_nested(
    read_u64: ReadWord, write_u64: WriteWord, control: NestedControl, va: int, access: Access
) -> NestedWalk:
    """Translate guest linear address `va`; both functions take host-physical addresses."""
    guest, ept = control.guest, control.ept
    guest_memory = _GuestEntries(read_u64, write_u64, ept, va)
    try:
        outcome = walk(guest_memory.read, guest_memory.write, guest, va, access)
    except _EptExitError as stopped:
        return NestedWalk(outcome=stopped.outcome, references=guest_memory.references)
    if isinstance(outcome, PageFault | GeneralProtection):
        return NestedWalk(outcome=outcome, references=guest_memory.references)
    final = EptAccess.of(access.kind, linear=va, guest_rights=outcome.rights)
    found = ept_walk(guest_memory.read_ept, write_u64, ept, outcome.pa, final)
    return NestedWalk(
        outcome=_joined(ept, found, outcome),
        references=guest_memory.references,
    )


def walk_unpaged(
    read_u64: ReadWord, write_u64: WriteWord, ept: EptControl, va: int, kind: Kind
) -> NestedWalk:
    """Translate an address of a guest that has paging off: linear is guest-physical, and EPT alone decides."""
    entries = _GuestEntries(read_u64, write_u64, ept, va)
    final = EptAccess.of(kind, linear=va, guest_rights=_ALL)
    found = ept_walk(entries.read_ept, write_u64, ept, va, final)
    whole = Translation(pa=va, page_bytes=_UNPAGED_BYTES, rights=_ALL, global_page=False)
    return NestedWalk(outcome=_joined(ept, found, whole), references=entries.references)


class _EptExitError(Exception):
    """An access to a guest paging-structure entry ended in an EPT exit."""

    def __init__(self, outcome: EptViolation | EptMisconfiguration) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome


class _GuestEntries:
    """The guest's paging-structure entries for one walk, reached through EPT, and counted."""

    def __init__(self, read_u64: ReadWord, write_u64: WriteWord, ept: EptControl, va: int) -> None:
        self.references = 0
        self._read_u64 = read_u64
        self._write_u64 = write_u64
        self._ept = ept
        self._reading = EptAccess(read=True, write=ept.accessed_dirty, linear=va)
        self._updating = EptAccess(read=True, write=True, linear=va)

    def read_ept(self, pa: int) -> int:
        """Read an EPT entry."""
        self.references += 1
        return self._read_u64(pa)

    def read(self, gpa: int) -> int:
        """Read the guest entry at `gpa`."""
        pa = _granted(ept_walk(self.read_ept, self._write_u64, self._ept, gpa, self._reading))
        self.references += 1
        return self._read_u64(pa)

    def write(self, gpa: int, entry: int) -> None:
        """Set accessed or dirty bits in the guest entry at `gpa`: the translation is at hand, but needs W now."""
        pa = _granted(ept_walk(self._read_u64, self._write_u64, self._ept, gpa, self._updating))
        self._write_u64(pa, entry)


def _granted(outcome: EptOutcome) -> int:
    if isinstance(outcome, EptTranslation):
        return outcome.pa
    raise _EptExitError(outcome)


def _joined(ept: EptControl, found: EptOutcome, guest: Translation) -> NestedOutcome:
    """Put the guest's translation and that of its result together."""
    if not isinstance(found, EptTranslation):
        return found
    for_user = ept.mbec and guest.rights.user
    executable = found.rights.execute_user if for_user else found.rights.execute
    return NestedTranslation(
        pa=found.pa,
        gpa=guest.pa,
        page_bytes=min(guest.page_bytes, found.page_bytes),
        rights=Rights(
            write=guest.rights.write and found.rights.write,
            user=guest.rights.user,
            execute=guest.rights.execute and executable,
        ),
        ept_rights=found.rights,
        global_page=guest.global_page,
        memory_type=found.memory_type,
    )
