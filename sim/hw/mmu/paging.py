"""The bits of x86-64 paging: entries, reserved bits, and the control registers that decide what they mean.

Models: IA-32e paging with four or five levels, for any physical address width, with or without 1 GiB pages, for Intel
and AMD where they differ.

Leaves out: 32-bit and PAE paging, supervisor protection keys, shadow stacks, memory types.

Sources: Intel Software Developer's Manual volume 3A, sections 4.1, 4.5, 4.6; AMD64 Architecture Programmer's Manual
volume 2, section 5.3.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from attrs import field, frozen, validators

PRESENT = 1 << 0
WRITABLE = 1 << 1
USER = 1 << 2
ACCESSED = 1 << 5
DIRTY = 1 << 6
LARGE = 1 << 7
GLOBAL = 1 << 8
NO_EXECUTE = 1 << 63

INDEX_BITS = 9
PAGE_SHIFT = 12
_ALL_BITS = (1 << 64) - 1
LEAF_IF = (0, PRESENT, LARGE, LARGE, 0, 0)
"""By level, the bit that makes a present entry map a page: every PTE does, and a PDE or PDPTE with PS."""
LEVELS = {5: "PML5", 4: "PML4", 3: "PDPT", 2: "PD", 1: "PT"}
"""The paging structures, numbered from the leaf up."""

INDEX_MASK = (1 << INDEX_BITS) - 1

_PHYSICAL_FIELD = ((1 << 52) - 1) & ~0xFFF
_LARGE_LOW_BITS = {3: 0x3FFFE000, 2: 0x1FE000}


@frozen(kw_only=True)
class Rights:
    """What a mapping permits beyond supervisor reads."""

    write: bool = False
    user: bool = False
    execute: bool = False

    def __str__(self) -> str:
        text = "r" + ("w" if self.write else "-") + ("x" if self.execute else "-")
        return text + ("u" if self.user else "")


class Permission:
    """The usual rights of kernel mappings, by name."""

    TEXT = Rights(execute=True)
    RODATA = Rights()
    DATA = Rights(write=True)


@frozen(kw_only=True)
class ControlState:
    """The processor state that a walk depends on; the defaults are what a hardened kernel sets.

    `maxphyaddr` is the width of physical addresses; `amd` makes bit 8 of a PML4 entry reserved, as AMD does.
    """

    cr3: int
    la57: bool = False
    wp: bool = True
    nxe: bool = True
    smep: bool = True
    smap: bool = True
    ac: bool = False
    pke: bool = False
    pkru: int = 0
    maxphyaddr: int = field(default=46, validator=[validators.ge(32), validators.le(52)])
    gigabyte_pages: bool = True
    amd: bool = False
    masks: PagingMasks = field(init=False, eq=False, repr=False)
    """The bits of entries under this state."""
    steps: tuple[Step, ...] = field(init=False, eq=False, repr=False)
    """What a walk does at each level, from the root down."""
    sign_shift: int = field(init=False, eq=False, repr=False)
    """The number of the highest address bit that is translated; those above repeat it."""

    @masks.default
    def _masks(self) -> PagingMasks:
        return paging_masks(self.maxphyaddr, nxe=self.nxe, gigabyte_pages=self.gigabyte_pages, amd=self.amd)

    @steps.default
    def _steps(self) -> tuple[Step, ...]:
        return self.masks.steps[-self.levels :]

    @sign_shift.default
    def _sign_shift(self) -> int:
        return page_shift(self.levels + 1) - 1

    @property
    def levels(self) -> int:
        """The number of paging levels."""
        return 5 if self.la57 else 4

    def canonical(self, va: int) -> bool:
        """Tell whether all bits of `va` above the translated ones are equal."""
        upper = va >> self.sign_shift
        return not upper or upper == _ALL_BITS >> self.sign_shift


@frozen(kw_only=True)
class PagingMasks:
    """Bit masks over a paging entry; the tuples are indexed by level, and entry 0 is unused."""

    address: int
    table_reserved: tuple[int, ...]
    leaf_reserved: tuple[int, ...]
    leaf_address: tuple[int, ...]
    steps: tuple[Step, ...] = field(init=False, eq=False, repr=False)
    """The same for a walk from level 5 down."""

    @steps.default
    def _steps(self) -> tuple[Step, ...]:
        levels = range(5, 0, -1)
        return tuple(
            Step(
                level=level,
                shift=page_shift(level),
                leaf_if=LEAF_IF[level],
                table_reserved=self.table_reserved[level],
                leaf_reserved=self.leaf_reserved[level] if level <= 3 else 0,
            )
            for level in levels
        )


class Step(NamedTuple):
    """One level of a walk: where its index lies in the address, what makes an entry a leaf, what must be zero."""

    level: int
    shift: int
    leaf_if: int
    table_reserved: int
    leaf_reserved: int


def page_shift(level: int) -> int:
    """Return the number of address bits below the index of a level, which is the size of its leaves."""
    return PAGE_SHIFT + INDEX_BITS * (level - 1)


@lru_cache(maxsize=64)
def paging_masks(maxphyaddr: int, *, nxe: bool, gigabyte_pages: bool, amd: bool) -> PagingMasks:
    """Return the masks for one processor model and EFER.NXE."""
    address = _PHYSICAL_FIELD & ((1 << maxphyaddr) - 1)
    common = _PHYSICAL_FIELD & ~address | (0 if nxe else NO_EXECUTE)
    leaf_address = [0] + [address & -(1 << (PAGE_SHIFT + INDEX_BITS * (level - 1))) for level in range(1, 4)]
    return PagingMasks(
        address=address,
        table_reserved=(
            0,
            common,
            common,
            common if gigabyte_pages else common | LARGE,
            common | LARGE | (GLOBAL if amd else 0),
            common | LARGE,
        ),
        leaf_reserved=(
            0,
            common,
            common | _LARGE_LOW_BITS[2],
            common | _LARGE_LOW_BITS[3] if gigabyte_pages else common | LARGE,
        ),
        leaf_address=tuple(leaf_address),
    )
