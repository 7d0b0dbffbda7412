"""Invariants of translation: walks, rights, accessed and dirty bits, large pages, nested tables, hostile guests.

Each check takes functions or values of whoever translates, and raises `InvariantViolation`.  `Grants` tells whether a
user-mode access is granted, `Translate` where it ends (None: a fault).

Models nothing.  Leaves out supervisor accesses in invariant 3: taking U away can grant one, under SMEP or SMAP.

Sources: the numbers are those of `sim.testing.invariants`; Intel SDM volume 3A 4.5 to 4.10, volume 3C on EPT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from attrs import frozen

from sim.hw.mmu import Kind
from sim.kernel.memory.protocol import Leaf
from sim.testing.invariants.violation import InvariantViolation

__all__ = [
    "NestedOutcome",
    "check_accessed_dirty",
    "check_ept_composition",
    "check_isolation",
    "check_large_page_equivalence",
    "check_monotone_rights",
    "check_translation_agrees",
    "violation_qualification",
]

A = TypeVar("A")

Grants = Callable[[int, Kind], bool]
Translate = Callable[[int, Kind], object]

NESTED_REFERENCES_MAX = 24
"""The memory references of a two-dimensional walk over four and four levels: (4 + 1) * (4 + 1) - 1."""


def check_translation_agrees(got: object, walks: Sequence[object], what: str = "") -> None:
    """Invariant 1: what a translation gives is what a fresh walk gives, or gave since the entry was last invalidated.

    `walks` are those outcomes, the present one last; where nothing may be cached, it is the only one.
    """
    if got not in walks:
        raise InvariantViolation(
            1, f"{what or 'a translation'} gave {got!r:.120}, a walk gives {walks[-1]!r:.120}"
        )


def check_monotone_rights(before: Grants, after: Grants, addresses: Iterable[int]) -> None:
    """Invariant 3: when rights are only taken away and the entry is invalidated, no user-mode access becomes granted."""
    for address in addresses:
        for kind in Kind:
            if after(address, kind) and not before(address, kind):
                text = f"a user-mode {kind.name.lower()} at {address:#x} was denied, and is granted with fewer rights"
                raise InvariantViolation(3, text)


def check_accessed_dirty(
    before: Leaf, after: Leaf, kind: Kind, *, granted: bool, large: bool = False
) -> None:
    """Invariant 16: a granted access leaves A set, a granted write D; a faulting one sets neither; D implies A.

    In a large leaf A may be set by a faulting access.  Software may have cleared A, and left D, before.
    """
    what = f"a {'granted' if granted else 'faulting'} {kind.name.lower()} left {after} of {before}"
    if after.dirty and not after.accessed and not (before.dirty and not before.accessed and not granted):
        raise InvariantViolation(16, f"{what}: dirty, and not accessed")
    if granted and not after.accessed:
        raise InvariantViolation(16, f"{what}: not accessed")
    if granted and kind is Kind.WRITE and not after.dirty:
        raise InvariantViolation(16, f"{what}: not dirty")
    if after.dirty and not before.dirty and not (granted and kind is Kind.WRITE):
        raise InvariantViolation(16, f"{what}: dirty without a write")
    if not granted and not large and after.accessed and not before.accessed:
        raise InvariantViolation(16, f"{what}: accessed by a fault")


def check_large_page_equivalence(large: Translate, small: Translate, addresses: Iterable[int]) -> None:
    """Invariant 18: a large mapping and its pieces of 4 KiB with the same bits translate every access alike."""
    for address in addresses:
        for kind in Kind:
            whole, broken = large(address, kind), small(address, kind)
            if whole != broken:
                text = f"{kind.name.lower()} at {address:#x}: {whole!r} in the large page, {broken!r} in its pieces"
                raise InvariantViolation(18, text)


@frozen(kw_only=True)
class NestedOutcome:
    """What a nested translation gives: a machine address, or who refused ("guest" or "ept", with its qualification)."""

    address: int | None = None
    refused: str = ""
    qualification: int = 0
    references: int = 0


def violation_qualification(kind: Kind, *, read: bool, write: bool, execute: bool) -> int:
    """Return bits 5:0 of the exit qualification of an EPT violation by an access to memory with these EPT rights."""
    access = {Kind.READ: 1, Kind.WRITE: 2, Kind.FETCH: 4}[kind]
    return access | read << 3 | write << 4 | execute << 5


def check_ept_composition(
    nested: Callable[[int, Kind], NestedOutcome],
    guest: Callable[[int, Kind], int | None],
    host: Callable[[int], tuple[int | None, tuple[bool, bool, bool]]],
    addresses: Iterable[int],
    owned: Callable[[int], bool],
    *,
    references_max: int = NESTED_REFERENCES_MAX,
) -> None:
    """Invariant 19: a nested translation is the guest's, then the host's, with the rights of both, in frames of the VM.

    `guest` gives the guest-physical address or None, `host` the machine address of one and its rights (read, write,
    execute), `owned` tells whether a machine address belongs to the VM or is shared to it.
    """
    for address in addresses:
        for kind in Kind:
            got = nested(address, kind)
            expected = _composed(guest(address, kind), host, kind)
            where = f"{kind.name.lower()} at guest address {address:#x} gave {got}"
            if (got.address, got.refused) != (expected.address, expected.refused):
                raise InvariantViolation(19, f"{where}, composed it is {expected}")
            if got.refused == "ept" and got.qualification & 0x3F != expected.qualification:
                raise InvariantViolation(
                    19, f"{where}, the qualification should be {expected.qualification:#x}"
                )
            if got.address is not None and not owned(got.address):
                raise InvariantViolation(19, f"{where}, in a frame that is not the VM's")
            if got.references > references_max:
                raise InvariantViolation(19, f"{where}, after more than {references_max} references")


def check_isolation(
    actions: Iterable[A], reached: Callable[[A], Iterable[int]], permitted: Callable[[int], bool]
) -> None:
    """Invariant 20: whatever a guest does, its own tables included, it reaches only frames of its VM or shared to it.

    `reached` carries an action out and gives the frames that the guest could read or write by it.
    """
    for action in actions:
        for frame in reached(action):
            if not permitted(frame):
                raise InvariantViolation(
                    20, f"by {action!r:.200} the guest reached frame {frame:#x}, which is not its own"
                )


def _composed(
    guest_address: int | None, host: Callable[[int], tuple[int | None, tuple[bool, bool, bool]]], kind: Kind
) -> NestedOutcome:
    if guest_address is None:
        return NestedOutcome(refused="guest")
    address, (read, write, execute) = host(guest_address)
    if address is None or not {Kind.READ: read, Kind.WRITE: write, Kind.FETCH: execute}[kind]:
        rights = (read, write, execute) if address is not None else (False, False, False)
        bits = violation_qualification(kind, read=rights[0], write=rights[1], execute=rights[2])
        return NestedOutcome(refused="ept", qualification=bits)
    return NestedOutcome(address=address)
