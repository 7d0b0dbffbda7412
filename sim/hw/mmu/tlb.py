"""The translation look-aside buffers of one logical processor.

Models: first-level buffers for instructions and data, one for each size of page; a second level that both share; sets
and ways; replacement of the least recently used entry or the oldest; tags of process-context identifiers and global
entries.  What may be cached, and what each way of invalidating removes, follows the manual: an entry keeps the rights
of the whole path, and lives until it is displaced or invalidated, whatever becomes of the tables.

Leaves out: paging-structure caches (a miss always walks from the root), large pages cached in fragments, prefetch, and
the rest of the processor (`sim.hw.mmu.cpu`).

Sources: Intel Software Developer's Manual volume 3A, section 4.10; sizes from Intel's Optimization Reference Manual
(248966), table of TLB parameters of the Skylake microarchitecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from attrs import field, frozen, validators

from sim.core.facts import fact
from sim.errors import SimBug
from sim.hw.mmu.paging import PAGE_SHIFT, Rights, page_shift

_SOURCE = "Intel Optimization Reference Manual 248966, TLB parameters of Skylake (recalled)"
PCIDS = 4096
_GLOBAL = PCIDS
_TAG_BITS = 13
_LEVEL_BITS = 2


def _sizes(name: str, entries: int, ways: int) -> Geometry:
    return Geometry(
        entries=fact(f"hw.tlb.{name}_entries", entries, unit="1", source=_SOURCE, kind="vendor").value,
        ways=fact(f"hw.tlb.{name}_ways", ways, unit="1", source=_SOURCE, kind="vendor").value,
    )


@frozen(kw_only=True)
class Geometry:
    """The size of one buffer; `ways` divides `entries`."""

    entries: int = field(validator=[validators.ge(1), validators.le(1 << 16)])
    ways: int = field(validator=validators.ge(1))

    def __attrs_post_init__(self) -> None:
        if self.entries % self.ways:
            raise SimBug(f"a TLB of {self.entries} entries cannot have {self.ways} ways")


_INSTRUCTION_4K = _sizes("instruction_4k", 128, 8)
_INSTRUCTION_2M = _sizes("instruction_2m", 8, 8)
_DATA_4K = _sizes("data_4k", 64, 4)
_DATA_2M = _sizes("data_2m", 32, 4)
_DATA_1G = _sizes("data_1g", 4, 4)
_SECOND_LEVEL = _sizes("second_level", 1536, 12)
_SECOND_LEVEL_1G = _sizes("second_level_1g", 16, 4)


@frozen(kw_only=True)
class TlbSpec:
    """The buffers of a logical processor, and how a full set makes room."""

    instruction_4k: Geometry = _INSTRUCTION_4K
    instruction_2m: Geometry = _INSTRUCTION_2M
    data_4k: Geometry = _DATA_4K
    data_2m: Geometry = _DATA_2M
    data_1g: Geometry = _DATA_1G
    second_level: Geometry = _SECOND_LEVEL
    """For pages of 4 KiB and 2 MiB."""
    second_level_1g: Geometry = _SECOND_LEVEL_1G
    replacement: Literal["least recently used", "first in first out"] = "least recently used"


@frozen(kw_only=True)
class Cached:
    """A translation in a buffer.

    `granted` holds what all levels had set when it was walked, in the bits of `sim.hw.mmu.classes`, with D of the leaf;
    `key` is its protection key, `leaf` the entry itself.
    """

    va: int
    pa: int
    level: int
    page_bytes: int
    pcid: int
    rights: Rights
    granted: int
    key: int
    leaf: int
    global_page: bool


class Buffer:
    """One set-associative buffer for pages of one or more levels."""

    __slots__ = ("_lru", "_sets", "levels", "ways")

    def __init__(self, geometry: Geometry, levels: tuple[int, ...], *, lru: bool) -> None:
        self.ways = geometry.ways
        self.levels = levels
        self._lru = lru
        self._sets: list[dict[int, Cached]] = [{} for _ in range(geometry.entries // geometry.ways)]

    def find(self, va: int, pcid: int, *, use: bool = True) -> Cached | None:
        """Return the entry that translates `va` for this process context, and note its use unless told not to."""
        sets = self._sets
        for level in self.levels:
            page = va >> PAGE_SHIFT + 9 * (level - 1)
            chosen = sets[page % len(sets)]
            if not chosen:
                continue
            tagged = (page << _LEVEL_BITS | level) << _TAG_BITS
            for key in (tagged | pcid, tagged | _GLOBAL):
                entry = chosen.get(key)
                if entry is not None:
                    if self._lru and use:
                        del chosen[key]
                        chosen[key] = entry
                    return entry
        return None

    def insert(self, entry: Cached) -> None:
        """Put an entry in, in place of one with the same tag or, in a full set, of the first in its order."""
        page = entry.va >> page_shift(entry.level)
        chosen = self._sets[page % len(self._sets)]
        tag = _GLOBAL if entry.global_page else entry.pcid
        key = (page << _LEVEL_BITS | entry.level) << _TAG_BITS | tag
        if chosen.pop(key, None) is None and len(chosen) >= self.ways:
            del chosen[next(iter(chosen))]
        chosen[key] = entry

    def drop_page(self, va: int, pcid: int, *, with_global: bool) -> None:
        """Remove the entries, of any size, that translate `va` for this process context."""
        for level in self.levels:
            page = va >> page_shift(level)
            chosen = self._sets[page % len(self._sets)]
            tagged = (page << _LEVEL_BITS | level) << _TAG_BITS
            chosen.pop(tagged | pcid, None)
            if with_global:
                chosen.pop(tagged | _GLOBAL, None)

    def drop(self, pcid: int | None, *, with_global: bool) -> None:
        """Remove the entries of a process context (None: of all), global ones only `with_global`."""
        tag_mask = (1 << _TAG_BITS) - 1
        for chosen in self._sets:
            if not chosen:
                continue
            if pcid is None and with_global:
                chosen.clear()
                continue
            for key in list(chosen):
                tag = key & tag_mask
                if with_global if tag == _GLOBAL else pcid in (None, tag):
                    del chosen[key]

    def entries(self) -> Iterator[Cached]:
        """Return the entries, set by set, the next to be displaced first."""
        for chosen in self._sets:
            yield from chosen.values()

    def check_invariants(self) -> None:
        """Raise `SimBug` if a set holds more than its ways or an entry is in the wrong set."""
        for number, chosen in enumerate(self._sets):
            if len(chosen) > self.ways:
                raise SimBug(f"a set of a TLB holds {len(chosen)} entries in {self.ways} ways")
            for entry in chosen.values():
                wrong_set = (entry.va >> page_shift(entry.level)) % len(self._sets) != number
                if wrong_set or entry.level not in self.levels:
                    raise SimBug(f"the entry for {entry.va:#x} is in the wrong place")


class Tlb:
    """All buffers of a logical processor."""

    def __init__(self, spec: TlbSpec | None = None) -> None:
        spec = TlbSpec() if spec is None else spec
        lru = spec.replacement == "least recently used"
        self.data = [
            Buffer(spec.data_4k, (1,), lru=lru),
            Buffer(spec.data_2m, (2,), lru=lru),
            Buffer(spec.data_1g, (3,), lru=lru),
        ]
        self.instruction = [
            Buffer(spec.instruction_4k, (1,), lru=lru),
            Buffer(spec.instruction_2m, (2,), lru=lru),
        ]
        self.second = [
            Buffer(spec.second_level, (1, 2), lru=lru),
            Buffer(spec.second_level_1g, (3,), lru=lru),
        ]
        self._all = (*self.data, *self.instruction, *self.second)

    def find_first(self, va: int, pcid: int, *, fetch: bool, use: bool = True) -> Cached | None:
        """Look in the first level; the use is noted for the replacement unless not `use`."""
        for buffer in self.instruction if fetch else self.data:
            entry = buffer.find(va, pcid, use=use)
            if entry is not None:
                return entry
        return None

    def find_second(self, va: int, pcid: int, *, fetch: bool) -> Cached | None:
        """Look in the second level, and copy what is found into the first."""
        for buffer in self.second:
            entry = buffer.find(va, pcid)
            if entry is not None:
                self._insert_first(entry, fetch=fetch)
                return entry
        return None

    def insert(self, entry: Cached, *, fetch: bool) -> None:
        """Put a walked translation into both levels."""
        self._insert_first(entry, fetch=fetch)
        self.second[0 if entry.level < 3 else 1].insert(entry)

    def _insert_first(self, entry: Cached, *, fetch: bool) -> None:
        buffers = self.instruction if fetch else self.data
        if entry.level <= len(buffers):
            buffers[entry.level - 1].insert(entry)

    def drop_page(self, va: int, pcid: int, *, with_global: bool) -> None:
        """Remove what translates `va` for a process context, from every buffer."""
        for buffer in self._all:
            buffer.drop_page(va, pcid, with_global=with_global)

    def drop(self, pcid: int | None = None, *, with_global: bool) -> None:
        """Remove the entries of a process context (None: of all), global ones only `with_global`."""
        for buffer in self._all:
            buffer.drop(pcid, with_global=with_global)

    def entries(self) -> Iterator[Cached]:
        """Return every entry of every buffer; a translation in two levels comes twice."""
        for buffer in self._all:
            yield from buffer.entries()

    def check_invariants(self) -> None:
        """Raise `SimBug` unless every buffer is in order."""
        for buffer in self._all:
            buffer.check_invariants()
