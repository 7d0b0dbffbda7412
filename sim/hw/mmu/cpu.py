"""A logical processor as memory sees it: control registers, TLB, and what its accesses cost.

Models: accesses one at a time or in batches, through the TLB and, on a miss, by a walk; INVLPG, INVPCID, loads of CR3
with and without the bit that keeps entries, and changes of CR4 that empty the TLB.  A translation whose leaf is not
dirty does not serve a write, which walks and sets D.  A cached right that denies an access faults at once and the entry
goes, so after a right is added one needless fault is possible; `rewalk_before_fault` walks first, as AMD does.  Only
granted walks are cached, so nothing absent, reserved or without A ever is.  Costs are counted in cycles and handed out
as ns; an access is never an event.

Leaves out: caches of data, speculation, and instructions themselves.

Sources: Intel Software Developer's Manual volume 3A, sections 2.5 (CR4), 4.10.2 to 4.10.4; volume 2, INVLPG, INVPCID,
MOV to control registers; AMD64 Architecture Programmer's Manual volume 2, section 5.5 (walk before a fault).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from attrs import evolve, field, frozen, validators

from sim.core.facts import fact
from sim.core.metrics import Metrics
from sim.core.units import SECOND
from sim.errors import SimBug
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu.classes import EXECUTE, KEY_SHIFT, KEYS, RIGHTS, ClassRules, class_rules
from sim.hw.mmu.many import Accesses, Translations
from sim.hw.mmu.paging import ACCESSED, DIRTY, GLOBAL, PRESENT, USER, WRITABLE, ControlState
from sim.hw.mmu.tlb import PCIDS, Cached, Tlb, TlbSpec
from sim.hw.mmu.walk import (
    FAULT_KEY,
    FAULT_PRESENT,
    VECTOR_PAGE_FAULT,
    VECTOR_PROTECTION,
    VECTOR_STACK,
    Access,
    GeneralProtection,
    Kind,
    Outcome,
    PageFault,
    StackFault,
    Translation,
    walk,
)

BATCH_ACCESSES = 4096
"""How many accesses of a batch are looked up in the first level together."""

_PAGE_SHIFT, _CLASS_BITS, _OFFSET_MASK = np.uint64(12), np.uint64(4), np.uint64(0xFFF)
_LEVEL_OF_BYTES = {1 << 12: 1, 1 << 21: 2, 1 << 30: 3}
_PCID_MASK = PCIDS - 1
_ACCESSES = tuple(
    Access(kind, user, implicit)
    for user, implicit in ((False, False), (True, True), (True, False))
    for kind in Kind
)
"""One access of each class, in the order of their numbers."""

SECOND_LEVEL_CYCLES = fact(
    "hw.tlb.second_level_hit_cycles",
    7,
    unit="cycle",
    source="order of published microbenchmarks",
    kind="assumed",
)
REFERENCE_CYCLES = fact(
    "hw.tlb.walk_reference_cycles",
    12,
    unit="cycle",
    source="a table entry found in the second-level cache",
    kind="assumed",
)
PAGE_CYCLES = fact(
    "hw.tlb.invalidate_page_cycles",
    150,
    unit="cycle",
    source="order of INVLPG on server processors",
    kind="assumed",
)
FLUSH_CYCLES = fact(
    "hw.tlb.flush_cycles",
    300,
    unit="cycle",
    source="order of a CR3 load without its later misses",
    kind="assumed",
)


@frozen(kw_only=True)
class TlbCosts:
    """What translations and invalidations cost, in cycles; a hit in the first level is free."""

    second_level_cycles: int = field(default=SECOND_LEVEL_CYCLES.value, validator=validators.ge(0))
    reference_cycles: int = field(default=REFERENCE_CYCLES.value, validator=validators.ge(0))
    page_cycles: int = field(default=PAGE_CYCLES.value, validator=validators.ge(0))
    flush_cycles: int = field(default=FLUSH_CYCLES.value, validator=validators.ge(0))
    core_hz: int = field(default=2_400_000_000, validator=validators.ge(1))


class Invpcid(IntEnum):
    """The types of INVPCID, by their numbers."""

    ADDRESS = 0
    CONTEXT = 1
    ALL_WITH_GLOBAL = 2
    ALL = 3


class LogicalCpu:
    """One logical processor; `control.cr3` holds the process-context identifier in its low bits when `pcide`."""

    def __init__(
        self,
        index: int,
        memory: PhysicalMemory,
        control: ControlState,
        *,
        pcide: bool = False,
        tlb: TlbSpec | None = None,
        costs: TlbCosts | None = None,
        rewalk_before_fault: bool = False,
        metrics: Metrics | None = None,
    ) -> None:
        self.index = index
        self.tlb = Tlb(tlb)
        self.costs = TlbCosts() if costs is None else costs
        self.rewalk_before_fault = rewalk_before_fault
        self.pcide = pcide
        self.pge = True
        self.cr2 = 0
        self.cycles = 0
        """Cycles spent and not yet taken."""
        self._rest = 0  # of a nanosecond, in units of 1 / core_hz
        self._memory = memory
        metrics = Metrics() if metrics is None else metrics
        name = f"hw.cpu{index}.tlb"
        self.first_hits = metrics.counter(f"{name}.first_hits", "1", "accesses served by the first level")
        self.second_hits = metrics.counter(f"{name}.second_hits", "1", "accesses served by the second level")
        self.walks = metrics.counter(f"{name}.walks", "1", "walks, granted or not")
        self.dirty_walks = metrics.counter(
            f"{name}.dirty_walks", "1", "walks of writes to pages cached as clean"
        )
        self.faults = metrics.counter(f"{name}.faults", "1", "accesses refused")
        self.stale_faults = metrics.counter(
            f"{name}.cached_faults", "1", "accesses refused by a cached right"
        )
        self.flushes = metrics.counter(f"{name}.flushes", "1", "invalidations of more than a page")
        self.pages_dropped = metrics.counter(f"{name}.pages_invalidated", "1", "pages invalidated one by one")
        self._set_control(control)

    # ------------------------------------------------------------------ registers

    @property
    def control(self) -> ControlState:
        """The control registers and flags, as a walk needs them."""
        return self._control

    @property
    def pcid(self) -> int:
        """The present process-context identifier; 0 when they are off."""
        return self._control.cr3 & _PCID_MASK if self.pcide else 0

    @property
    def root(self) -> int:
        """The physical address of the root table in use."""
        return self._control.cr3 & ~_PCID_MASK

    def load_cr3(self, value: int, *, keep: bool = False) -> None:
        """MOV to CR3; `keep` is bit 63 of the source, which needs `pcide`: entries of the new context stay."""
        if keep and not self.pcide:
            raise SimBug("CR3 bit 63 is reserved while process-context identifiers are off")
        self._set_control(evolve(self._control, cr3=value))
        if not keep:
            self._flush(self.pcid, with_global=False)

    def set_flags(self, **flags: Any) -> None:
        """Change `ControlState` fields other than cr3; setting SMEP empties this context, NXE and LA57 everything.

        AC, WP, SMAP and keys are looked at on every access, so changing them leaves the TLB alone.
        """
        before = self._control
        self._set_control(evolve(before, **flags))
        after = self._control
        if before.cr3 != after.cr3:
            raise SimBug("CR3 is changed by load_cr3")
        if (before.la57, before.nxe) != (after.la57, after.nxe):
            self._flush(None, with_global=True)
        elif after.smep and not before.smep:
            self._flush(self.pcid, with_global=False)

    def set_global_pages(self, *, enabled: bool) -> None:
        """Change CR4.PGE; a change empties the whole TLB."""
        if enabled != self.pge:
            self.pge = enabled
            self._flush(None, with_global=True)

    def set_pcide(self, *, enabled: bool) -> None:
        """Change CR4.PCIDE; clearing it empties the whole TLB.  Errors: `SimBug` where a processor gives #GP."""
        if enabled and self._control.cr3 & _PCID_MASK:
            raise SimBug("process-context identifiers can only be switched on in context 0")
        if self.pcide and not enabled:
            self._flush(None, with_global=True)
        self.pcide = enabled

    def invlpg(self, va: int) -> None:
        """Remove the translations of one page, in this context and global."""
        self.pages_dropped.add()
        self.cycles += self.costs.page_cycles
        self.tlb.drop_page(va, self.pcid, with_global=True)

    def invpcid(self, kind: Invpcid, pcid: int = 0, va: int = 0) -> None:
        """Remove by context.  Errors: `SimBug` for a descriptor that a processor refuses with #GP."""
        if not 0 <= pcid < PCIDS or (pcid and not self.pcide) or not self._control.canonical(va):
            raise SimBug(f"INVPCID of context {pcid}, address {va:#x}")
        if kind is Invpcid.ADDRESS:
            self.pages_dropped.add()
            self.cycles += self.costs.page_cycles
            self.tlb.drop_page(va, pcid, with_global=False)
        elif kind is Invpcid.CONTEXT:
            self._flush(pcid, with_global=False)
        else:
            self._flush(None, with_global=kind is Invpcid.ALL_WITH_GLOBAL)

    def _flush(self, pcid: int | None, *, with_global: bool) -> None:
        self.flushes.add()
        self.cycles += self.costs.flush_cycles
        self.tlb.drop(pcid, with_global=with_global)

    def _set_control(self, control: ControlState) -> None:
        self._control = control
        self._rules: ClassRules = class_rules(control)

    # ------------------------------------------------------------------ accesses

    def translate(self, va: int, access: Access) -> Outcome:
        """Make one access: by the TLB if it can, else by a walk; sets CR2 on a page fault."""
        control = self._control
        if not control.canonical(va):
            self.faults.count += 1
            return StackFault() if access.stack else GeneralProtection()
        fetch = access.kind is Kind.FETCH
        pcid = control.cr3 & _PCID_MASK if self.pcide else 0
        entry = self.tlb.find_first(va, pcid, fetch=fetch)
        second = False
        if entry is None:
            entry = self.tlb.find_second(va, pcid, fetch=fetch)
            second = entry is not None
        if entry is None:
            return self._walk(va, access)
        denied, wrong = self._judge(entry, access.number)
        if denied:
            return self._refuse_cached(va, access, denied)
        if wrong:
            self.dirty_walks.count += 1
            self.tlb.drop_page(va, pcid, with_global=True)
            return self._walk(va, access)
        if second:
            self.second_hits.count += 1
            self.cycles += self.costs.second_level_cycles
        else:
            self.first_hits.count += 1
        return Translation(
            pa=entry.pa | va & (entry.page_bytes - 1),
            page_bytes=entry.page_bytes,
            rights=entry.rights,
            global_page=entry.leaf & GLOBAL != 0,
            leaf=entry.leaf,
        )

    def translate_many(self, accesses: Accesses) -> Translations:
        """Make a batch of accesses one after another, as `translate` does; the outcomes as arrays.

        A part of the batch that the first level serves as a whole is served at once; the rest goes one by one.
        """
        result = Translations.empty(accesses.va.size)
        for start in range(0, accesses.va.size, BATCH_ACCESSES):
            part = accesses.part(slice(start, start + BATCH_ACCESSES))
            if not self._all_from_first(part, result, start):
                self._one_by_one(part, result, start)
        return result

    def _all_from_first(self, accesses: Accesses, result: Translations, start: int) -> bool:
        """Serve all accesses from the first level and return True, or change nothing and return False."""
        pages, back = np.unique(
            accesses.va >> _PAGE_SHIFT << _CLASS_BITS | np.asarray(accesses.classes).astype(np.uint64),
            return_inverse=True,
        )
        frames = np.empty(pages.size, np.uint64)
        pcid = self.pcid
        shapes = [(page >> 4 << 12, page & 15) for page in pages.tolist()]
        for number, (va, class_) in enumerate(shapes):
            entry = self.tlb.find_first(va, pcid, fetch=_ACCESSES[class_].kind is Kind.FETCH, use=False)
            if entry is None or any(self._judge(entry, class_)) or not self._control.canonical(va):
                return False
            frames[number] = entry.pa | va & (entry.page_bytes - 1)
        result.pa[start : start + back.size] = frames[back] | accesses.va & _OFFSET_MASK
        last = np.zeros(pages.size, np.int64)
        last[back] = np.arange(back.size)
        for number in np.argsort(last).tolist():
            va, class_ = shapes[number]
            self.tlb.find_first(va, pcid, fetch=_ACCESSES[class_].kind is Kind.FETCH)
        self.first_hits.add(back.size)
        return True

    def _one_by_one(self, accesses: Accesses, result: Translations, start: int) -> None:
        count = accesses.va.size
        classes = np.broadcast_to(accesses.classes, count).tolist()
        stack = np.broadcast_to(accesses.stack, count).tolist()
        for number, va in enumerate(accesses.va.tolist()):
            outcome = self.translate(va, _ACCESSES[classes[number]])
            if type(outcome) is Translation:
                result.pa[start + number] = outcome.pa
            elif isinstance(outcome, PageFault):
                result.vector[start + number] = VECTOR_PAGE_FAULT
                result.error_code[start + number] = outcome.error_code
                result.cr2[start + number] = va
            else:
                result.vector[start + number] = VECTOR_STACK if stack[number] else VECTOR_PROTECTION

    def take_ns(self) -> int:
        """Return the time of the cycles spent since the last call, in whole ns; the rest stays for the next."""
        spent_ns, self._rest = divmod(self.cycles * SECOND + self._rest, self.costs.core_hz)
        self.cycles = 0
        return spent_ns

    def _judge(self, entry: Cached, class_: int) -> tuple[int, int]:
        """Return the fault bits by which cached rights deny a class, and what is wrong with the entry at all."""
        rules = self._rules
        wrong = (entry.granted ^ rules.want[class_]) & rules.mask[class_]
        if entry.granted & USER and rules.key_denies[class_ * KEYS + entry.key]:
            return FAULT_PRESENT | FAULT_KEY, wrong
        return (FAULT_PRESENT if wrong & RIGHTS else 0), wrong

    def _refuse_cached(self, va: int, access: Access, denied: int) -> Outcome:
        """Fault by a cached right, or look again first; either way the entry goes."""
        self.tlb.drop_page(va, self.pcid, with_global=True)
        if self.rewalk_before_fault:
            return self._walk(va, access)
        self.stale_faults.count += 1
        self.faults.count += 1
        self.cr2 = va
        return PageFault(error_code=self._rules.code[access.number] | denied, cr2=va)

    def _walk(self, va: int, access: Access) -> Outcome:
        tables = self._memory.tables
        outcome = walk(tables.read, tables.write, self._control, va, access)
        self.walks.count += 1
        if type(outcome) is Translation:
            level = _LEVEL_OF_BYTES[outcome.page_bytes]
            self.cycles += (self._control.levels - level + 1) * self.costs.reference_cycles
            self.tlb.insert(self._cached(outcome, va, level), fetch=access.kind is Kind.FETCH)
            return outcome
        self.faults.count += 1
        if isinstance(outcome, PageFault):
            references = self._control.levels + 1 - max(outcome.level, 1)
            self.cycles += references * self.costs.reference_cycles
            self.cr2 = va
            self.tlb.drop_page(va, self.pcid, with_global=True)
        return outcome

    def _cached(self, outcome: Translation, va: int, level: int) -> Cached:
        rights = outcome.rights
        offset = outcome.page_bytes - 1
        return Cached(
            va=va & ~offset,
            pa=outcome.pa & ~offset,
            level=level,
            page_bytes=outcome.page_bytes,
            pcid=self.pcid,
            rights=rights,
            granted=ACCESSED
            | (outcome.leaf & DIRTY)
            | (WRITABLE if rights.write else 0)
            | (USER if rights.user else 0)
            | (EXECUTE if rights.execute else 0),
            key=outcome.leaf >> KEY_SHIFT & KEYS - 1,
            leaf=outcome.leaf,
            global_page=outcome.global_page and self.pge,
        )

    def check_invariants(self) -> None:
        """Raise `SimBug` unless the TLB is in order and holds only what may be cached."""
        self.tlb.check_invariants()
        for entry in self.tlb.entries():
            if not entry.granted & ACCESSED or not entry.leaf & PRESENT:
                raise SimBug(
                    f"the TLB of processor {self.index} holds {entry.va:#x}, which must not be cached"
                )
