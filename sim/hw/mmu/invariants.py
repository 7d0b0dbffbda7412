"""Laws of translation as plain checks, for property tests of this MMU or of another one.

Models: what must hold between tables, walks, TLBs and shootdowns.  Each check takes values, changes nothing, and raises
`SimBug` saying what is wrong.

Leaves out: ownership of frames and policies of rights, which are the kernel's.

Sources: Intel Software Developer's Manual volume 3A, sections 4.6 to 4.10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sim.errors import SimBug
from sim.hw.mmu.cpu import LogicalCpu
from sim.hw.mmu.paging import ACCESSED, DIRTY, NO_EXECUTE, PRESENT, USER, WRITABLE, ControlState
from sim.hw.mmu.walk import Access, Kind, Outcome, PageFault, Translation, walk

Entries = Mapping[int, int]
"""Paging entries by physical address; what is not there reads as 0."""


def dry_walk(read_u64: Callable[[int], int], control: ControlState, va: int, access: Access) -> Outcome:
    """Return what a walk gives, without marking anything."""
    return walk(read_u64, _forget, control, va, access)


def _forget(_pa: int, _entry: int) -> None:
    """Take a mark and lose it."""


def check_agrees_with_walk(outcome: Outcome, fresh: Outcome) -> None:
    """Demand that with an empty TLB an access gives exactly what a fresh walk gives: address, error code and CR2."""
    if outcome != fresh:
        raise SimBug(f"the access gave {outcome}, a fresh walk gives {fresh}")


def check_was_true_once(outcome: Outcome, since_invalidated: Iterable[Outcome]) -> None:
    """Demand that with a TLB an access gives what some walk gave since its page was last invalidated."""
    if not any(_same(outcome, each) for each in since_invalidated):
        raise SimBug(f"the access gave {outcome}, which the tables never said since the page was invalidated")


def _same(one: Outcome, other: Outcome) -> bool:
    if isinstance(one, PageFault) and isinstance(other, PageFault):
        return (one.error_code, one.cr2) == (other.error_code, other.cr2)
    if isinstance(one, Translation) and isinstance(other, Translation):
        return one.pa == other.pa
    return type(one) is type(other)


def check_no_stale_grant(
    cpus: Iterable[LogicalCpu],
    read_u64: Callable[[int], int],
    addresses: Iterable[int],
    *,
    root: int,
    pcid: int = 0,
    global_page: bool = False,
) -> None:
    """Demand that after a complete shootdown no processor that runs the space holds what the tables do not say.

    Processors in another space are looked at only for a `global_page`, which they can use.
    """
    vas = list(addresses)
    for cpu in cpus:
        if cpu.root != root and not global_page:
            continue
        for entry in cpu.tlb.entries():
            if entry.pcid != pcid and not (entry.global_page and global_page):
                continue
            for va in vas:
                if entry.va <= va < entry.va + entry.page_bytes:
                    _check_entry(cpu, read_u64, va, entry.pa + va - entry.va, entry.granted)


def _check_entry(cpu: LogicalCpu, read_u64: Callable[[int], int], va: int, pa: int, granted: int) -> None:
    kind = Kind.WRITE if granted & WRITABLE and granted & DIRTY else Kind.READ
    user = bool(granted & USER)
    fresh = dry_walk(read_u64, cpu.control, va, Access(kind, user))
    lenient = isinstance(fresh, PageFault) and cpu.control.pke and fresh.error_code & 32
    if not lenient and (not isinstance(fresh, Translation) or fresh.pa != pa):
        raise SimBug(f"processor {cpu.index} still translates {va:#x} to {pa:#x}; the tables say {fresh}")


def check_rights_only_shrink(before: Outcome, after: Outcome) -> None:
    """Demand that taking P, W or U away or setting NX never turns a denied user-mode access into a granted one."""
    if isinstance(after, Translation) and not isinstance(before, Translation):
        raise SimBug(f"less right granted an access: before {before}, after {after}")


WEAKER: tuple[tuple[int, int], ...] = ((PRESENT, 0), (WRITABLE, 0), (USER, 0), (0, NO_EXECUTE))
"""The ways to take a right away: (bits to clear, bits to set)."""


def check_marks(before: Entries, after: Entries, outcome: Outcome, access: Access) -> None:
    """Demand that an access changes only A and D in the tables: neither on a fault, D by granted writes alone."""
    changed = {at: after[at] ^ before.get(at, 0) for at in after if after[at] != before.get(at, 0)}
    allowed = 0
    if isinstance(outcome, Translation):
        allowed = ACCESSED | (DIRTY if access.kind is Kind.WRITE else 0)
        if not outcome.leaf & ACCESSED or (access.kind is Kind.WRITE and not outcome.leaf & DIRTY):
            raise SimBug(f"a granted access left its leaf as {outcome.leaf:#x}")
    for at, bits in changed.items():
        if bits & ~allowed or after[at] & bits != bits:
            raise SimBug(f"the access changed bits {bits:#x} of the entry at {at:#x}")
        if bits & DIRTY and not after[at] & ACCESSED:
            raise SimBug(f"the entry at {at:#x} is dirty and not accessed")
