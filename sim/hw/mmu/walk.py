"""One page walk, exactly as the processor does it: the pure function `walk`.

Models: canonical check, walk from CR3, present and reserved bits, the rights of all levels together, WP, SMEP, SMAP,
protection keys, the page-fault error code with CR2, and the accessed and dirty bits.

Leaves out: the TLB, nested paging, supervisor keys and shadow stacks, accesses that cross a page (two walks), and the
choice of #SS instead of #GP for stack references.  On a fault no accessed bit is set, which the manual permits.

Sources: Intel Software Developer's Manual volume 3A, sections 4.5 to 4.8.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from attrs import frozen

from sim.hw.mmu.paging import (
    ACCESSED,
    DIRTY,
    GLOBAL,
    LARGE,
    LEVELS,
    NO_EXECUTE,
    PAGE_SHIFT,
    PRESENT,
    USER,
    WRITABLE,
    ControlState,
    Rights,
)

FAULT_PRESENT = 1 << 0
FAULT_WRITE = 1 << 1
FAULT_USER = 1 << 2
FAULT_RESERVED = 1 << 3
FAULT_FETCH = 1 << 4
FAULT_KEY = 1 << 5

ReadWord = Callable[[int], int]
WriteWord = Callable[[int, int], None]


class Kind(Enum):
    """What an access does."""

    READ = "r"
    WRITE = "w"
    FETCH = "x"


@frozen
class Access:
    """An access: what it does, whether it comes from CPL 3, and whether the processor makes it on its own behalf.

    An implicit access (descriptor tables, task state) counts as supervisor even at CPL 3, and AC never exempts it.
    """

    kind: Kind
    user: bool = False
    implicit: bool = False

    @property
    def user_mode(self) -> bool:
        """Whether the access counts as a user-mode access."""
        return self.user and not self.implicit


@frozen(kw_only=True)
class Translation:
    """A granted access: the physical address, the size of the page, and what the whole path permits."""

    pa: int
    page_bytes: int
    rights: Rights
    global_page: bool


@frozen(kw_only=True)
class PageFault:
    """#PF: the error code and CR2; `level` is that of the entry that stopped the walk (0: rights after a full walk)."""

    error_code: int
    cr2: int
    level: int = 0

    def __str__(self) -> str:
        where = f" at {LEVELS[self.level]}" if self.level else ""
        return f"#PF error code {self.error_code:#x} CR2 {self.cr2:#x}{where}"


@frozen(kw_only=True)
class GeneralProtection:
    """#GP(0): the address is not canonical; CR2 keeps its value."""

    error_code: int = 0

    def __str__(self) -> str:
        return f"#GP({self.error_code})"


Outcome = Translation | PageFault | GeneralProtection


def walk(read_u64: ReadWord, write_u64: WriteWord, control: ControlState, va: int, access: Access) -> Outcome:
    """Translate `va` for `access`; the tables are reached through the two functions, by physical address.

    Only a granted access writes: it sets the accessed bit in every entry used, and a write the dirty bit in the leaf.
    """
    if not control.canonical(va):
        return GeneralProtection()
    masks = control.masks
    path: list[tuple[int, int]] = []
    table = control.cr3 & masks.address
    level = control.levels
    while True:
        shift = PAGE_SHIFT + 9 * (level - 1)
        entry_pa = table | (va >> shift & 0x1FF) << 3
        entry = read_u64(entry_pa)
        if not entry & PRESENT:
            return PageFault(error_code=_error_code(control, access), cr2=va, level=level)
        leaf = level == 1 or (level <= 3 and entry & LARGE != 0)
        if entry & (masks.leaf_reserved if leaf else masks.table_reserved)[level]:
            code = _error_code(control, access) | FAULT_PRESENT | FAULT_RESERVED
            return PageFault(error_code=code, cr2=va, level=level)
        path.append((entry_pa, entry))
        if leaf:
            break
        table = entry & masks.address
        level -= 1
    denied = _denied(control, access, path)
    if denied:
        return PageFault(error_code=_error_code(control, access) | denied, cr2=va)
    _mark_used(write_u64, path, dirty=access.kind is Kind.WRITE)
    offset_mask = (1 << shift) - 1
    return Translation(
        pa=entry & masks.leaf_address[level] | va & offset_mask,
        page_bytes=offset_mask + 1,
        rights=_rights(path),
        global_page=entry & GLOBAL != 0,
    )


def _rights(path: list[tuple[int, int]]) -> Rights:
    """Return what all levels permit together."""
    every = any_of = path[0][1]
    for _, entry in path:
        every &= entry
        any_of |= entry
    return Rights(write=every & WRITABLE != 0, user=every & USER != 0, execute=any_of & NO_EXECUTE == 0)


def _denied(control: ControlState, access: Access, path: list[tuple[int, int]]) -> int:
    """Return 0 if the rights of the path permit the access, else the error-code bits P and, for a key, PK."""
    rights = _rights(path)
    key = 0
    if (
        control.pke
        and rights.user
        and access.kind is not Kind.FETCH
        and _key_denies(control, access, path[-1][1])
    ):
        key = FAULT_KEY
    permitted = _user_may(rights, access) if access.user_mode else _supervisor_may(control, rights, access)
    return 0 if permitted and not key else FAULT_PRESENT | key


def _user_may(rights: Rights, access: Access) -> bool:
    if not rights.user:
        return False
    if access.kind is Kind.WRITE:
        return rights.write
    return access.kind is Kind.READ or rights.execute


def _supervisor_may(control: ControlState, rights: Rights, access: Access) -> bool:
    if access.kind is Kind.FETCH:
        return rights.execute and not (rights.user and control.smep)
    if rights.user and control.smap and (access.implicit or not control.ac):
        return False
    return access.kind is Kind.READ or rights.write or not control.wp


def _key_denies(control: ControlState, access: Access, leaf: int) -> bool:
    """Apply the protection key of a user-mode address to a data access."""
    bits = control.pkru >> 2 * (leaf >> 59 & 0xF)
    if bits & 1:
        return True
    return bool(bits & 2) and access.kind is Kind.WRITE and (access.user_mode or control.wp)


def _error_code(control: ControlState, access: Access) -> int:
    """Return the bits of the error code that depend on the access alone."""
    code = 0
    if access.kind is Kind.WRITE:
        code |= FAULT_WRITE
    if access.user_mode:
        code |= FAULT_USER
    if access.kind is Kind.FETCH and (control.smep or control.nxe):
        code |= FAULT_FETCH
    return code


def _mark_used(write_u64: WriteWord, path: list[tuple[int, int]], *, dirty: bool) -> None:
    """Set A along the path and, if `dirty`, D in the leaf, writing only entries that change.

    An entry may stand at two levels of one walk; the leaf is written last, so that its D bit stays.
    """
    leaf_pa, leaf = path[-1]
    for entry_pa, entry in path[:-1]:
        if not entry & ACCESSED:
            write_u64(entry_pa, entry | ACCESSED)
    wanted = leaf | ACCESSED | (DIRTY if dirty else 0)
    if wanted != leaf:
        write_u64(leaf_pa, wanted)
