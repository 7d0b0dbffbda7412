"""One page walk, exactly as the processor does it: the pure function `walk`.

Models: canonical check, walk from CR3, present and reserved bits, the rights of all levels together, WP, SMEP, SMAP,
protection keys, the page-fault error code with CR2, and the accessed and dirty bits.

Leaves out: the TLB (`sim.hw.mmu.tlb`), nested paging, supervisor keys and shadow stacks, and accesses that cross a page
(two walks).  On a fault no accessed bit is set, which the manual permits.

`sim.hw.mmu.many` does the same for millions of accesses; this one is for reading.

Sources: Intel Software Developer's Manual volume 3A, sections 4.5 to 4.8; volume 1, section 3.3.7.1 (canonical form).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from attrs import field, frozen

from sim.hw.mmu.paging import (
    ACCESSED,
    DIRTY,
    GLOBAL,
    INDEX_MASK,
    LEVELS,
    NO_EXECUTE,
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

VECTOR_STACK = 12
VECTOR_PROTECTION = 13
VECTOR_PAGE_FAULT = 14

ReadWord = Callable[[int], int]
WriteWord = Callable[[int, int], None]


class Kind(Enum):
    """What an access does."""

    READ = "r"
    WRITE = "w"
    FETCH = "x"


_WRITE = Kind.WRITE
_FETCH = Kind.FETCH
_KINDS = {Kind.READ: 0, Kind.WRITE: 1, Kind.FETCH: 2}
_WHO = {(False, False): 0, (False, True): 1, (True, True): 1, (True, False): 2}


@frozen
class Access:
    """An access: what it does, whether it comes from CPL 3, and whether the processor makes it on its own behalf.

    An implicit access (descriptor tables, task state) counts as supervisor even at CPL 3, and AC never exempts it.
    `stack` marks a reference through the stack segment, which decides only how a non-canonical address is reported.
    """

    kind: Kind
    user: bool = False
    implicit: bool = False
    stack: bool = False
    user_mode: bool = field(init=False, eq=False, repr=False)
    """Whether the access counts as a user-mode access."""

    number: int = field(init=False, eq=False, repr=False)
    """The class of the access (`sim.hw.mmu.classes`): 3 times who makes it, plus the place of its kind."""

    @number.default
    def _number(self) -> int:
        return _WHO[self.user, self.implicit] * 3 + _KINDS[self.kind]

    @user_mode.default
    def _user_mode(self) -> bool:
        return self.user and not self.implicit


@frozen(
    kw_only=True, slots=False
)  # without slots a frozen object is made in half the time, and walks make millions
class Translation:
    """A granted access: the physical address, the size of the page, and what the whole path permits."""

    pa: int
    page_bytes: int
    rights: Rights
    global_page: bool
    leaf: int = field(default=0, eq=False, repr=False)
    """The entry that maps the page, as the walk has left it: what a TLB takes key and D from."""


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


@frozen(kw_only=True)
class StackFault(GeneralProtection):
    """#SS(0): what #GP(0) is called when the address came through the stack segment."""

    def __str__(self) -> str:
        return f"#SS({self.error_code})"


Outcome = Translation | PageFault | GeneralProtection


def walk(read_u64: ReadWord, write_u64: WriteWord, control: ControlState, va: int, access: Access) -> Outcome:
    """Translate `va` for `access`; the tables are reached through the two functions, by physical address.

    Only a granted access writes: it sets the accessed bit in every entry used, and a write the dirty bit in the leaf.
    """
    if not control.canonical(va):
        return StackFault() if access.stack else GeneralProtection()
    masks = control.masks
    table = control.cr3 & masks.address
    every, some = -1, 0
    path: list[tuple[int, int]] = []
    for level, shift, leaf_if, table_reserved, leaf_reserved in control.steps:
        entry_pa = table | (va >> shift & INDEX_MASK) << 3
        entry = read_u64(entry_pa)
        if not entry & PRESENT:
            return PageFault(error_code=_error_code(control, access), cr2=va, level=level)
        leaf = entry & leaf_if
        if entry & (leaf_reserved if leaf else table_reserved):
            code = _error_code(control, access) | FAULT_PRESENT | FAULT_RESERVED
            return PageFault(error_code=code, cr2=va, level=level)
        path.append((entry_pa, entry))
        every &= entry
        some |= entry
        if leaf:
            break
        table = entry & masks.address
    rights = _RIGHTS[every & (WRITABLE | USER)] if some & NO_EXECUTE else _RIGHTS_X[every & (WRITABLE | USER)]
    denied = _denied(control, access, rights, entry)
    if denied:
        return PageFault(error_code=_error_code(control, access) | denied, cr2=va)
    write = access.kind is _WRITE
    if not every & ACCESSED or (write and not entry & DIRTY):
        entry = _mark_used(write_u64, path, dirty=write)
    page_bytes = 1 << shift
    return Translation(
        pa=entry & masks.leaf_address[level] | va & (page_bytes - 1),
        page_bytes=page_bytes,
        rights=rights,
        global_page=entry & GLOBAL != 0,
        leaf=entry,
    )


def _rights_of(bits: int, *, execute: bool) -> Rights:
    return Rights(write=bits & WRITABLE != 0, user=bits & USER != 0, execute=execute)


_RIGHTS = tuple(_rights_of(bits, execute=False) for bits in range(8))
_RIGHTS_X = tuple(_rights_of(bits, execute=True) for bits in range(8))


def _denied(control: ControlState, access: Access, rights: Rights, leaf: int) -> int:
    """Return 0 if the rights of the path permit the access, else the error-code bits P and, for a key, PK."""
    permitted = _user_may(rights, access) if access.user_mode else _supervisor_may(control, rights, access)
    if control.pke and rights.user and access.kind is not _FETCH and _key_denies(control, access, leaf):
        return FAULT_PRESENT | FAULT_KEY
    return 0 if permitted else FAULT_PRESENT


def _user_may(rights: Rights, access: Access) -> bool:
    if not rights.user:
        return False
    if access.kind is _WRITE:
        return rights.write
    return rights.execute or access.kind is not _FETCH


def _supervisor_may(control: ControlState, rights: Rights, access: Access) -> bool:
    if access.kind is _FETCH:
        return rights.execute and not (rights.user and control.smep)
    if rights.user and control.smap and (access.implicit or not control.ac):
        return False
    return rights.write or access.kind is not _WRITE or not control.wp


def _key_denies(control: ControlState, access: Access, leaf: int) -> bool:
    """Apply the protection key of a user-mode address to a data access."""
    bits = control.pkru >> 2 * (leaf >> 59 & 0xF)
    if bits & 1:
        return True
    return bool(bits & 2) and access.kind is _WRITE and (access.user_mode or control.wp)


def _error_code(control: ControlState, access: Access) -> int:
    """Return the bits of the error code that depend on the access alone."""
    code = 0
    if access.kind is _WRITE:
        code |= FAULT_WRITE
    if access.user_mode:
        code |= FAULT_USER
    if access.kind is _FETCH and (control.smep or control.nxe):
        code |= FAULT_FETCH
    return code


def _mark_used(write_u64: WriteWord, path: list[tuple[int, int]], *, dirty: bool) -> int:
    """Set A along the path and, if `dirty`, D in the leaf, writing only entries that change; return the leaf.

    An entry may stand at two levels of one walk; the leaf is written last, so that its D bit stays.
    """
    leaf_pa, leaf = path[-1]
    for entry_pa, entry in path[:-1]:
        if not entry & ACCESSED:
            write_u64(entry_pa, entry | ACCESSED)
    wanted = leaf | ACCESSED | (DIRTY if dirty else 0)
    if wanted != leaf:
        write_u64(leaf_pa, wanted)
    return wanted
