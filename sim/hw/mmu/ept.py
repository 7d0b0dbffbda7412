"""One walk of extended page tables, exactly as the processor does it: the pure function `ept_walk`.

Models: the walk from the EPT pointer; misconfigurations (exit reason 49), which come before violations (exit reason 48)
at each entry; the rights of all levels together; the exit qualification; accessed and dirty flags where they are on.

Leaves out: the translation of linear addresses (`sim.hw.mmu.nested`), cached translations, virtualization exceptions
and page-modification logging.  On an exit no flag is set, which the manual permits for accessed flags.

Sources: Intel Software Developer's Manual volume 3C, sections 28.2.1 (exit qualification), 29.3.2 to 29.3.5.  A
guest-physical address of more bits than the levels translate ends in a violation without rights, as the 5-level paging
white paper has it.
"""

from __future__ import annotations

from attrs import frozen

from sim.hw.mmu.ept_entries import (
    EPT_ACCESSED,
    EPT_DIRTY,
    EPT_EXECUTE,
    EPT_EXECUTE_USER,
    EPT_LARGE,
    EPT_LEVELS,
    EPT_READ,
    EPT_TYPE_SHIFT,
    EPT_WRITE,
    MEMORY_TYPES,
    EptControl,
    EptRights,
)
from sim.hw.mmu.paging import INDEX_BITS, PAGE_SHIFT, Rights
from sim.hw.mmu.walk import Kind, ReadWord, WriteWord

EXIT_EPT_VIOLATION = 48
EXIT_EPT_MISCONFIGURATION = 49

QUALIFY_READ = 1 << 0
QUALIFY_WRITE = 1 << 1
QUALIFY_FETCH = 1 << 2
QUALIFY_RIGHTS_SHIFT = 3
QUALIFY_EXECUTABLE_USER = 1 << 6
QUALIFY_LINEAR = 1 << 7
QUALIFY_FINAL = 1 << 8
QUALIFY_GUEST_USER = 1 << 9
QUALIFY_GUEST_WRITABLE = 1 << 10
QUALIFY_GUEST_NO_EXECUTE = 1 << 11
QUALIFY_NMI_UNBLOCKING = 1 << 12

_RIGHTS = EPT_READ | EPT_WRITE | EPT_EXECUTE


@frozen(kw_only=True)
class EptAccess:
    """An access to a guest-physical address.

    `linear` is the guest linear address it came from, None where there is none (a device, the processor's own use).
    `final` tells the access to the translated address from one to a guest paging-structure entry; `guest_rights` is
    what the guest's own tables permit at the final address.
    """

    read: bool = False
    write: bool = False
    fetch: bool = False
    linear: int | None = None
    final: bool = False
    guest_rights: Rights | None = None
    nmi_unblocking: bool = False

    @classmethod
    def of(cls, kind: Kind, *, linear: int | None = None, guest_rights: Rights | None = None) -> EptAccess:
        """Return the access to the final address of a translation."""
        return cls(
            read=kind is Kind.READ,
            write=kind is Kind.WRITE,
            fetch=kind is Kind.FETCH,
            linear=linear,
            final=linear is not None,
            guest_rights=guest_rights,
        )

    @property
    def user_address(self) -> bool:
        """Whether a fetch is from a user-mode linear address; without guest paging every address is one."""
        return self.guest_rights is None or self.guest_rights.user

    def qualification(self, control: EptControl) -> int:
        """Return the bits of the exit qualification that do not depend on the EPT entries."""
        bits = QUALIFY_READ if self.read else 0
        bits |= QUALIFY_WRITE if self.write else 0
        bits |= QUALIFY_FETCH if self.fetch else 0
        bits |= QUALIFY_NMI_UNBLOCKING if self.nmi_unblocking else 0
        if self.linear is None:
            return bits
        bits |= QUALIFY_LINEAR
        if not self.final:
            return bits
        bits |= QUALIFY_FINAL
        if control.advanced_info and self.guest_rights is not None:
            bits |= QUALIFY_GUEST_USER if self.guest_rights.user else 0
            bits |= QUALIFY_GUEST_WRITABLE if self.guest_rights.write else 0
            bits |= 0 if self.guest_rights.execute else QUALIFY_GUEST_NO_EXECUTE
        return bits


@frozen(kw_only=True)
class EptTranslation:
    """A granted access: the host-physical address, and the leaf's page size, memory type and the path's rights."""

    pa: int
    page_bytes: int
    rights: EptRights
    memory_type: int


@frozen(kw_only=True)
class EptViolation:
    """An EPT violation: exit reason 48, with what the VMCS then holds.

    `level` is that of the entry that was not present, or 0 where the rights of the whole path denied the access.
    """

    gpa: int
    qualification: int
    linear: int | None
    level: int = 0
    exit_reason: int = EXIT_EPT_VIOLATION

    def __str__(self) -> str:
        where = f" at {EPT_LEVELS[self.level]}" if self.level in EPT_LEVELS else ""
        return f"EPT violation at {self.gpa:#x}, qualification {self.qualification:#x}{where}"


@frozen(kw_only=True)
class EptMisconfiguration:
    """An EPT misconfiguration: exit reason 49; the qualification and the linear address are undefined then."""

    gpa: int
    level: int
    entry: int
    exit_reason: int = EXIT_EPT_MISCONFIGURATION

    def __str__(self) -> str:
        return f"EPT misconfiguration at {self.gpa:#x}, {EPT_LEVELS[self.level]} entry {self.entry:#x}"


EptOutcome = EptTranslation | EptViolation | EptMisconfiguration


def ept_walk(
    read_u64: ReadWord, write_u64: WriteWord, control: EptControl, gpa: int, access: EptAccess
) -> EptOutcome:
    """Translate guest-physical address `gpa` for `access`; tables are reached through the two functions.

    Only a granted access writes, and only where accessed and dirty flags are on: the accessed flag of every entry
    used, and for a write the dirty flag of the leaf.
    """
    if gpa >> (PAGE_SHIFT + INDEX_BITS * control.levels):
        return EptViolation(gpa=gpa, qualification=access.qualification(control), linear=access.linear)
    masks = control.masks
    path: list[tuple[int, int]] = []
    table = control.root
    rights = _RIGHTS | EPT_EXECUTE_USER
    level = control.levels
    while True:
        shift = PAGE_SHIFT + INDEX_BITS * (level - 1)
        entry_pa = table | (gpa >> shift & 0x1FF) << 3
        entry = read_u64(entry_pa)
        if not entry & control.present_bits:
            bits = access.qualification(control)
            return EptViolation(gpa=gpa, qualification=bits, linear=access.linear, level=level)
        leaf = level == 1 or (level <= 3 and entry & EPT_LARGE != 0)
        if misconfigured(control, entry, level, leaf=leaf):
            return EptMisconfiguration(gpa=gpa, level=level, entry=entry)
        path.append((entry_pa, entry))
        rights &= entry
        if leaf:
            break
        table = entry & masks.address
        level -= 1
    if not _permits(control, rights, access):
        bits = access.qualification(control) | _rights_seen(control, rights)
        return EptViolation(gpa=gpa, qualification=bits, linear=access.linear)
    if control.accessed_dirty:
        _mark_used(write_u64, path, dirty=access.write)
    offset_mask = (1 << shift) - 1
    return EptTranslation(
        pa=entry & masks.leaf_address[level] | gpa & offset_mask,
        page_bytes=offset_mask + 1,
        rights=EptRights.of(rights),
        memory_type=entry >> EPT_TYPE_SHIFT & 7,
    )


def misconfigured(control: EptControl, entry: int, level: int, *, leaf: bool) -> bool:
    """Tell whether a present entry of that level is one that the processor refuses to use."""
    masks = control.masks
    if entry & (masks.leaf_reserved if leaf else masks.table_reserved)[level]:
        return True
    if not entry & EPT_READ:
        if entry & EPT_WRITE:
            return True
        if not control.execute_only and entry & control.present_bits:
            return True
    return leaf and (entry >> EPT_TYPE_SHIFT & 7) not in MEMORY_TYPES


def _permits(control: EptControl, rights: int, access: EptAccess) -> bool:
    needed = EPT_READ if access.read else 0
    needed |= EPT_WRITE if access.write else 0
    if access.fetch:
        needed |= EPT_EXECUTE_USER if control.mbec and access.user_address else EPT_EXECUTE
    return rights & needed == needed


def _rights_seen(control: EptControl, rights: int) -> int:
    """Return bits 5:3 of the qualification, and bit 6 under mode-based execute control."""
    bits = (rights & _RIGHTS) << QUALIFY_RIGHTS_SHIFT
    if control.mbec and rights & EPT_EXECUTE_USER:
        bits |= QUALIFY_EXECUTABLE_USER
    return bits


def _mark_used(write_u64: WriteWord, path: list[tuple[int, int]], *, dirty: bool) -> None:
    """Set the accessed flag along the path and, if `dirty`, the leaf's dirty flag, writing only what changes."""
    last = len(path) - 1
    for number, (entry_pa, entry) in enumerate(path):
        wanted = entry | EPT_ACCESSED | (EPT_DIRTY if dirty and number == last else 0)
        if wanted != entry:
            write_u64(entry_pa, wanted)
