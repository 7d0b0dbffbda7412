"""The bits of extended page tables: entries, the EPT pointer, and the processor features that decide what they mean.

Models: EPT entries of four or five levels with leaves of 4 KiB, 2 MiB and 1 GiB; which bits are reserved; execute-only
translations, accessed and dirty flags and mode-based execute control as features that a processor may have.

Leaves out: virtualization exceptions (bit 63 is kept, never acted on), sub-page permissions, shadow-stack and
paging-write control, hypervisor-managed linear-address translation: with those features off their bits are ignored.

Sources: Intel Software Developer's Manual volume 3C, sections 25.6.11 (EPT pointer), 29.3.2 and 29.3.3 (entries and
misconfigurations), appendix A.10 (features).
"""

from __future__ import annotations

from functools import lru_cache

from attrs import evolve, field, frozen, validators

from sim.errors import VmksimError

EPT_READ = 1 << 0
EPT_WRITE = 1 << 1
EPT_EXECUTE = 1 << 2
EPT_IGNORE_PAT = 1 << 6
EPT_LARGE = 1 << 7
EPT_ACCESSED = 1 << 8
EPT_DIRTY = 1 << 9
EPT_EXECUTE_USER = 1 << 10
EPT_SUPPRESS_VE = 1 << 63

EPT_TYPE_SHIFT = 3
MEMORY_UC = 0
MEMORY_WB = 6
MEMORY_TYPES = (0, 1, 4, 5, 6)
"""Uncacheable, write-combining, write-through, write-protected, write-back; 2, 3 and 7 are reserved."""

EPT_LEVELS = {5: "EPT PML5", 4: "EPT PML4", 3: "EPT PDPT", 2: "EPT PD", 1: "EPT PT"}
"""The EPT paging structures, numbered from the leaf up."""

EPTP_AD = 1 << 6

_PHYSICAL_FIELD = ((1 << 52) - 1) & ~0xFFF
_TYPE_BITS = 7 << EPT_TYPE_SHIFT
_TABLE_LOW_RESERVED = _TYPE_BITS | EPT_IGNORE_PAT
_LEAF_LOW_RESERVED = {1: 0, 2: 0x1FF000, 3: 0x3FFFF000}


class EptpInvalid(VmksimError):  # noqa: N818 - what the processor calls it: a VM entry with an invalid control field
    """An EPT pointer that a VM entry refuses."""


@frozen(kw_only=True)
class EptRights:
    """What an EPT entry permits; `execute_user` counts only under mode-based execute control."""

    read: bool = True
    write: bool = True
    execute: bool = True
    execute_user: bool = True

    @property
    def bits(self) -> int:
        """The rights as bits of an entry."""
        bits = EPT_READ if self.read else 0
        bits |= EPT_WRITE if self.write else 0
        bits |= EPT_EXECUTE if self.execute else 0
        return bits | (EPT_EXECUTE_USER if self.execute_user else 0)

    @classmethod
    def of(cls, entry: int) -> EptRights:
        """Read the rights of an entry."""
        return cls(
            read=entry & EPT_READ != 0,
            write=entry & EPT_WRITE != 0,
            execute=entry & EPT_EXECUTE != 0,
            execute_user=entry & EPT_EXECUTE_USER != 0,
        )


@frozen(kw_only=True)
class EptControl:
    """The EPT pointer's content, and the features of the processor that an EPT walk depends on.

    `root` is the physical address of the top table, `accessed_dirty` bit 6 of the pointer, `mbec` the VM-execution
    control of mode-based execute control; `advanced_info` says whether a violation reports the guest page's rights.
    """

    root: int
    levels: int = field(default=4, validator=validators.in_((4, 5)))
    accessed_dirty: bool = True
    mbec: bool = False
    execute_only: bool = True
    large_pages: bool = True
    gigabyte_pages: bool = True
    advanced_info: bool = False
    memory_type: int = field(default=MEMORY_WB, validator=validators.in_((MEMORY_UC, MEMORY_WB)))
    maxphyaddr: int = field(default=46, validator=[validators.ge(32), validators.le(52)])

    @property
    def eptp(self) -> int:
        """The EPT pointer as the VMCS holds it."""
        return self.root | self.memory_type | (self.levels - 1) << 3 | (EPTP_AD if self.accessed_dirty else 0)

    @property
    def masks(self) -> EptMasks:
        """The reserved bits under these features."""
        return ept_masks(
            self.maxphyaddr,
            large_pages=self.large_pages,
            gigabyte_pages=self.gigabyte_pages,
        )

    @property
    def present_bits(self) -> int:
        """An entry is present if any of these is set."""
        rights = EPT_READ | EPT_WRITE | EPT_EXECUTE
        return rights | EPT_EXECUTE_USER if self.mbec else rights


def control_of(
    eptp: int, *, features: EptControl, five_levels: bool = True, accessed_dirty: bool = True
) -> EptControl:
    """Read an EPT pointer on a processor with these features; errors: `EptpInvalid`, as a VM entry would fail.

    `five_levels` and `accessed_dirty` say whether the processor knows those two; the rest is taken from `features`.
    """
    memory_type, levels = eptp & 7, (eptp >> 3 & 7) + 1
    if memory_type not in (MEMORY_UC, MEMORY_WB):
        raise EptpInvalid(f"EPT pointer {eptp:#x}: memory type {memory_type} is not 0 or 6")
    if levels not in ((4, 5) if five_levels else (4,)):
        raise EptpInvalid(f"EPT pointer {eptp:#x}: {levels} levels")
    if eptp & EPTP_AD and not accessed_dirty:
        raise EptpInvalid(f"EPT pointer {eptp:#x}: this processor has no accessed and dirty flags for EPT")
    root = eptp & _PHYSICAL_FIELD & ((1 << features.maxphyaddr) - 1)
    if eptp & ~(root | 0x7F):
        raise EptpInvalid(f"EPT pointer {eptp:#x}: a reserved bit is set")
    return evolve(
        features,
        root=root,
        levels=levels,
        memory_type=memory_type,
        accessed_dirty=eptp & EPTP_AD != 0,
    )


@frozen(kw_only=True)
class EptMasks:
    """Bit masks over an EPT entry; the tuples are indexed by level, and entry 0 is unused."""

    address: int
    table_reserved: tuple[int, ...]
    leaf_reserved: tuple[int, ...]
    leaf_address: tuple[int, ...]


@lru_cache(maxsize=64)
def ept_masks(maxphyaddr: int, *, large_pages: bool, gigabyte_pages: bool) -> EptMasks:
    """Return the masks for one processor model."""
    address = _PHYSICAL_FIELD & ((1 << maxphyaddr) - 1)
    beyond = _PHYSICAL_FIELD & ~address
    table = beyond | _TABLE_LOW_RESERVED
    leaf = [0] + [beyond | _LEAF_LOW_RESERVED[level] for level in (1, 2, 3)]
    leaf[2] |= 0 if large_pages else EPT_LARGE
    leaf[3] |= 0 if gigabyte_pages else EPT_LARGE
    return EptMasks(
        address=address,
        table_reserved=(0, 0, table, table, table | EPT_LARGE, table | EPT_LARGE),
        leaf_reserved=tuple(leaf),
        leaf_address=tuple([0] + [address & -(1 << (12 + 9 * (level - 1))) for level in (1, 2, 3)]),
    )
