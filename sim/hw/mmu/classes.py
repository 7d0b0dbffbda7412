"""Classes of access, and what each needs of a path: the rules of rights as masks.

Models: for every class (who accesses, and how) one mask and one pattern over the bits that all levels of a path have
set, the constant bits of its error code, and whether a protection key denies it.  The walk of many and the TLB decide
by these; the walk for reading (`sim.hw.mmu.walk`) states the same rules in words and shares nothing with this module,
so that each can convict the other.

Leaves out: what a walk meets before it has the whole path.

Sources: Intel Software Developer's Manual volume 3A, sections 4.6 and 4.7.
"""

from __future__ import annotations

from functools import lru_cache

from attrs import frozen

from sim.hw.mmu.paging import ACCESSED, DIRTY, USER, WRITABLE, ControlState
from sim.hw.mmu.walk import FAULT_FETCH, FAULT_USER, FAULT_WRITE, Kind

READ, WRITE, FETCH = range(3)
KIND_CODES = {Kind.READ: READ, Kind.WRITE: WRITE, Kind.FETCH: FETCH}
SUPERVISOR, IMPLICIT, USER_MODE = range(3)
KINDS = 3
KEYS = 16
KEY_SHIFT = 59
EXECUTE = -(1 << 63)
"""Bit 63 of an entry with NX turned over, so that rights are what all levels have set."""
RIGHTS = WRITABLE | USER | EXECUTE


@frozen(kw_only=True)
class ClassRules:
    """The rules under one control state, by class of access (`Access.number`)."""

    mask: tuple[int, ...]
    """The bits of the path that matter: W, U, `EXECUTE`, and A and D, whose lack is no denial but asks for a walk."""
    want: tuple[int, ...]
    """How those bits must stand."""
    code: tuple[int, ...]
    """The bits of the error code that the access has anyway."""
    key_denies: tuple[bool, ...]
    """For class times 16 plus key: whether the key of a user-mode page denies the access."""


@lru_cache(maxsize=256)
def class_rules(control: ControlState) -> ClassRules:
    """Return the rules under a control state."""
    classes = [(mode, kind) for mode in range(3) for kind in range(KINDS)]
    wanted = [_rights_wanted(control, mode, kind) for mode, kind in classes]
    keys = [(mode, kind, key) for mode, kind in classes for key in range(KEYS)]
    return ClassRules(
        mask=tuple(mask for mask, _ in wanted),
        want=tuple(want for _, want in wanted),
        code=tuple(_code(control, mode, kind) for mode, kind in classes),
        key_denies=tuple(control.pke and _key_denies(control, mode, kind, key) for mode, kind, key in keys),
    )


def _rights_wanted(control: ControlState, mode: int, kind: int) -> tuple[int, int]:
    """Return which bits of the path matter to a class of access, and how they must stand."""
    mask = want = ACCESSED
    if kind == WRITE:
        mask, want = mask | DIRTY, want | DIRTY
    if mode == USER_MODE:
        needs = USER | (WRITABLE if kind == WRITE else 0) | (EXECUTE if kind == FETCH else 0)
        return mask | needs, want | needs
    if kind == FETCH:
        needs, shuns_user = EXECUTE, control.smep
    else:
        needs = WRITABLE if kind == WRITE and control.wp else 0
        shuns_user = control.smap and not (control.ac and mode == SUPERVISOR)
    return mask | needs | (USER if shuns_user else 0), want | needs


def _code(control: ControlState, mode: int, kind: int) -> int:
    """Return the bits of the error code that a class of access has anyway."""
    fetch = FAULT_FETCH if control.nxe or control.smep else 0
    return (0, FAULT_WRITE, fetch)[kind] | (FAULT_USER if mode == USER_MODE else 0)


def _key_denies(control: ControlState, mode: int, kind: int, key: int) -> bool:
    """Tell whether PKRU denies a class of data access by AD, or a write by WD."""
    access_disabled, write_disabled = control.pkru >> 2 * key & 1, control.pkru >> 2 * key & 2
    heeds_write_disable = kind == WRITE and (control.wp or mode == USER_MODE)
    return kind != FETCH and bool(access_disabled or (write_disabled and heeds_write_disable))
