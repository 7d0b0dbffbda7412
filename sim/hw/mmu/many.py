"""Page walks for millions of accesses at once: `translate_many`, in NumPy.

Models: what `sim.hw.mmu.walk.walk` models, as if the accesses had been made one after another in the order given.
Accessed and dirty bits never decide a walk and are only ever set, so marking after a walk leaves the same tables as
marking in between, in tables that map themselves too.

How: accesses go through the levels together, 16,384 at a time so that the arrays stay in the cache.  At each level one
comparison separates the entries that simply lead on from those that need a look: absent, reserved, or a large page.
Levels at which all accesses of a chunk use one entry are walked once.  The rights are decided by one mask and one
pattern for each class of access (`sim.hw.mmu.classes`), without the functions of `walk`, so that each implementation
can convict the other.

Leaves out: what `walk` leaves out; the level at which a walk stopped.

Sources: Intel Software Developer's Manual volume 3A, sections 4.5 to 4.8.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from sim.errors import SimBug
from sim.hw.mmu.classes import (
    EXECUTE,
    FETCH,
    IMPLICIT,
    KEY_SHIFT,
    KEYS,
    KIND_CODES,
    KINDS,
    RIGHTS,
    SUPERVISOR,
    USER_MODE,
    WRITE,
    class_rules,
)
from sim.hw.mmu.paging import (
    ACCESSED,
    DIRTY,
    INDEX_BITS,
    INDEX_MASK,
    LEAF_IF,
    PAGE_SHIFT,
    PRESENT,
    USER,
    ControlState,
    page_shift,
)
from sim.hw.mmu.walk import (
    FAULT_KEY,
    FAULT_PRESENT,
    FAULT_RESERVED,
    VECTOR_PAGE_FAULT,
    VECTOR_PROTECTION,
    VECTOR_STACK,
    Kind,
)

if TYPE_CHECKING:
    from sim.hw.tablestore import TableStore

CHUNK_ACCESSES = 1 << 14

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@frozen(kw_only=True, eq=False)
class Accesses:
    """A batch of accesses in the order in which they are made.

    `va` holds the addresses; `kind` is one kind for all or an array of READ, WRITE and FETCH; the flags mean what they
    mean in `walk.Access`, and are one for all or an array.  Errors: `SimBug` for arrays of different lengths, an
    unknown kind, or addresses that are no unsigned words.
    """

    va: NDArray[np.uint64]
    kind: Kind | NDArray[np.uint8] = Kind.READ
    user: bool | Flags = False
    implicit: bool | Flags = False
    stack: bool | Flags = False
    classes: int | NDArray[np.intp] = field(init=False)
    """Of each access, or of all: 3 times who accesses (supervisor, implicitly, user mode), plus the kind."""

    @classes.default
    def _classes(self) -> int | NDArray[np.intp]:
        mode = np.where(self.implicit, IMPLICIT, np.where(self.user, USER_MODE, SUPERVISOR)).astype(np.intp)
        codes = np.asarray(KIND_CODES[self.kind] if isinstance(self.kind, Kind) else self.kind)
        if codes.size and codes.max() > FETCH:
            raise SimBug(f"{codes.max()} is no kind of access")
        both: NDArray[np.intp] = mode * KINDS + codes
        return both if both.ndim else int(both)

    def part(self, which: slice) -> Accesses:
        """Return some of the accesses, as a batch."""
        flags = {name: _pick(getattr(self, name), which) for name in ("kind", "user", "implicit", "stack")}
        return Accesses(va=self.va[which], **flags)

    def __attrs_post_init__(self) -> None:
        if self.va.dtype != np.uint64 or self.va.ndim != 1:
            raise SimBug("addresses must be a plain array of unsigned 64-bit words")
        for given in (self.classes, self.stack):
            if isinstance(given, np.ndarray) and given.shape != self.va.shape:
                raise SimBug(f"{given.size} kinds or flags for {self.va.size} addresses")


@frozen(kw_only=True, eq=False)
class Translations:
    """What became of each access, in order; all arrays have the length of the batch.

    `vector` is 0 for a granted access, else 12, 13 or 14; `pa` is 0 unless granted; `error_code` and `cr2` are 0 unless
    it is 14 (the others have error code 0 and leave CR2 alone).
    """

    pa: NDArray[np.uint64]
    vector: NDArray[np.uint8]
    error_code: NDArray[np.uint16]
    cr2: NDArray[np.uint64]

    @classmethod
    def empty(cls, count: int) -> Translations:
        """Return room for the outcomes of `count` accesses."""
        return cls(
            pa=np.zeros(count, np.uint64),
            vector=np.zeros(count, np.uint8),
            error_code=np.zeros(count, np.uint16),
            cr2=np.zeros(count, np.uint64),
        )


def translate_many(tables: TableStore, control: ControlState, accesses: Accesses) -> Translations:
    """Translate the accesses one after another under one control state, through the words of `tables`."""
    result = Translations.empty(accesses.va.size)
    plan = _plan(control)
    for start in range(0, accesses.va.size, CHUNK_ACCESSES):
        _Chunk(tables, plan, accesses, result, start).run()
    return result


def _pick(given: Any, which: slice | Ints) -> Any:
    """Return a part of an array, or the value that all share."""
    return given[which] if isinstance(given, np.ndarray) and given.ndim else given


# ---------------------------------------------------------------- the control state as masks


@frozen(kw_only=True, eq=False)
class _Plan:
    """A control state as masks over signed words; lists are indexed by level or by class of access."""

    control: ControlState
    address: int
    plain: list[int]
    """By level: the bits that read as P alone in an entry that needs no look."""
    table_reserved: list[int]
    leaf_reserved: list[int]
    leaf_address: list[int]
    mask: Ints
    want: Ints
    code: NDArray[np.uint16]
    key_denies: Flags


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


@lru_cache(maxsize=64)
def _plan(control: ControlState) -> _Plan:
    masks = control.masks
    rules = class_rules(control)
    plain = [0, PRESENT | masks.leaf_reserved[1]]
    plain += [PRESENT | LEAF_IF[level] | masks.table_reserved[level] for level in range(2, 6)]
    return _Plan(
        control=control,
        address=masks.address,
        plain=[_signed(each) for each in plain],
        table_reserved=[_signed(each) for each in masks.table_reserved],
        leaf_reserved=[_signed(each) for each in masks.leaf_reserved],
        leaf_address=[_signed(each) for each in masks.leaf_address],
        mask=np.array(rules.mask, np.int64),
        want=np.array(rules.want, np.int64),
        code=np.array(rules.code, np.uint16),
        key_denies=np.array(rules.key_denies, np.bool_),
    )


# ---------------------------------------------------------------- one chunk


@frozen(kw_only=True)
class _Front:
    """Accesses on their way down: who they are (None: the whole chunk), and the table that each has come to.

    `granted` is what all levels so far have set; it and `slot` may be one for all.
    """

    who: Ints | None
    va: Ints
    granted: Ints | int
    slot: NDArray[np.int32] | int

    def part(self, which: Ints) -> _Front:
        """Return the accesses at these places."""
        return _Front(
            who=which if self.who is None else self.who[which],
            va=self.va[which],
            granted=_pick(self.granted, which),
            slot=_pick(self.slot, which),
        )


class _Chunk:
    """The accesses of one chunk and where their results go."""

    def __init__(
        self, tables: TableStore, plan: _Plan, accesses: Accesses, result: Translations, start: int
    ) -> None:
        part = slice(start, start + CHUNK_ACCESSES)
        self.tables = tables
        self.plan = plan
        self.va: Ints = np.ascontiguousarray(accesses.va[part]).view(np.int64)
        self.classes: int | NDArray[np.intp] = _pick(accesses.classes, part)
        self.stack: bool | Flags = _pick(accesses.stack, part)
        self.result = result
        self.start = start

    def run(self) -> None:
        """Translate all of them."""
        levels = self.plan.control.levels
        sign = self.va >> self.plan.control.sign_shift
        broken = np.flatnonzero(sign.view(np.uint64) + np.uint64(1) > 1)
        root = self.tables.slots(np.array([(self.plan.control.cr3 & self.plan.address) >> PAGE_SHIFT]))
        front = _Front(who=None, va=self.va, granted=-1, slot=int(root[0]))
        if broken.size:
            vector = np.where(_pick(self.stack, broken), VECTOR_STACK, VECTOR_PROTECTION)
            self.result.vector[self.start + broken] = vector
            front = front.part(np.flatnonzero(sign.view(np.uint64) + np.uint64(1) <= 1))
        if front.va.size:
            self._walk(*self._walk_what_is_shared(front, levels))

    def _walk_what_is_shared(self, front: _Front, level: int) -> tuple[_Front, int]:
        """Go down, once for all, while all accesses use one entry and it simply leads on."""
        low, high = int(front.va.min()), int(front.va.max())
        granted, slot = -1, int(front.slot)
        while level > 1 and low >> page_shift(level) == high >> page_shift(level):
            entry = int(self.tables.words[(slot << INDEX_BITS) + (low >> page_shift(level) & INDEX_MASK)])
            if entry & self.plan.plain[level] != PRESENT:
                break
            granted &= entry ^ EXECUTE
            slot = int(self.tables.slots(np.array([(entry & self.plan.address) >> PAGE_SHIFT]))[0])
            level -= 1
        return _Front(who=front.who, va=front.va, granted=granted, slot=slot), level

    def _walk(self, front: _Front, level: int) -> None:
        """Walk from `level` down to the pages."""
        while level:
            entry = self.tables.words.take(self._places(front, level), mode="clip")
            odd = np.flatnonzero((entry & self.plan.plain[level]) != PRESENT)
            if odd.size:
                self._look_at(front.part(odd), entry[odd], level)
                even = np.flatnonzero((entry & self.plan.plain[level]) == PRESENT)
                if not even.size:
                    return
                front, entry = front.part(even), entry[even]
            if level == 1:
                self._decide(front, entry, level)
                return
            front = _Front(
                who=front.who,
                va=front.va,
                granted=(entry ^ EXECUTE) & front.granted,
                slot=self.tables.slots((entry & self.plan.address) >> PAGE_SHIFT),
            )
            level -= 1

    @staticmethod
    def _places(front: _Front, level: int) -> Ints:
        """Return where in the words the entries of a level are."""
        places = front.va >> page_shift(level)
        places &= INDEX_MASK
        places += np.asarray(front.slot, np.int64) << INDEX_BITS
        return places

    def _look_at(self, front: _Front, entry: Ints, level: int) -> None:
        """Settle entries that do not simply lead on: absent, reserved bits set, or a large page."""
        present = (entry & PRESENT) != 0
        leaf = (entry & LEAF_IF[level]) != 0
        must_be_zero = np.where(leaf, self.plan.leaf_reserved[min(level, 3)], self.plan.table_reserved[level])
        reserved = present & ((entry & must_be_zero) != 0)
        self._fault(front.part(np.flatnonzero(~present)), 0)
        self._fault(front.part(np.flatnonzero(reserved)), FAULT_PRESENT | FAULT_RESERVED)
        large = np.flatnonzero(present & ~reserved)
        if large.size:
            self._decide(front.part(large), entry[large], level)

    def _decide(self, front: _Front, leaf: Ints, level: int) -> None:
        """Grant or deny accesses whose walk has come to a page, and mark what a granted one used."""
        classes = self._classes_of(front)
        granted = (leaf ^ EXECUTE) & (front.granted | DIRTY)
        wrong = (granted ^ self.plan.want[classes]) & self.plan.mask[classes]
        if self.plan.control.pke:
            keys = classes * KEYS + (leaf >> KEY_SHIFT & KEYS - 1)
            keyed = self.plan.key_denies[keys] & ((granted & USER) != 0)
        else:
            keyed = None
        if wrong.any() or (keyed is not None and keyed.any()):
            denied = (wrong & RIGHTS) != 0
            if keyed is not None:
                denied |= keyed
                self._fault(front.part(np.flatnonzero(keyed)), FAULT_PRESENT | FAULT_KEY)
                self._fault(front.part(np.flatnonzero(denied & ~keyed)), FAULT_PRESENT)
            else:
                self._fault(front.part(np.flatnonzero(denied)), FAULT_PRESENT)
            unmarked = front.part(np.flatnonzero(~denied & (wrong != 0)))
            if unmarked.va.size:
                self._mark(unmarked, level)
            good = np.flatnonzero(~denied)
            front, leaf = front.part(good), leaf[good]
        pa = leaf & self.plan.leaf_address[level]
        pa |= front.va & ((1 << page_shift(level)) - 1)
        self.result.pa[self._where(front)] = pa.view(np.uint64)

    def _mark(self, front: _Front, leaf_level: int) -> None:
        """Set A in every entry of these granted walks, and D in the leaves that are written."""
        tables, control = self.tables, self.plan.control
        writes = np.flatnonzero(np.broadcast_to(self._classes_of(front) % KINDS == WRITE, front.va.shape))
        mpn = np.array([(control.cr3 & self.plan.address) >> PAGE_SHIFT])
        for level in range(control.levels, leaf_level - 1, -1):
            places = self._places(_Front(who=None, va=front.va, granted=-1, slot=tables.slots(mpn)), level)
            mpn = (tables.words[places] & self.plan.address) >> PAGE_SHIFT
            tables.words[places] |= ACCESSED
        tables.words[places[writes]] |= DIRTY

    def _fault(self, front: _Front, bits: int) -> None:
        """Report a page fault with these bits beside those of the access itself."""
        if front.va.size:
            where = self._where(front)
            self.result.vector[where] = VECTOR_PAGE_FAULT
            self.result.error_code[where] = self.plan.code[self._classes_of(front)] | bits
            self.result.cr2[where] = front.va.view(np.uint64)

    def _classes_of(self, front: _Front) -> int | NDArray[np.intp]:
        classes: int | NDArray[np.intp] = self.classes
        return classes if front.who is None else _pick(classes, front.who)

    def _where(self, front: _Front) -> slice | Ints:
        if front.who is None:
            return slice(self.start, self.start + front.va.size)
        return self.start + front.who
