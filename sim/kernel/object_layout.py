"""Which sections of a relocatable object lie together, and where in their area.

Models: three areas, placed apart: code (with the linkage table behind it); constants, which include what only
relocation writes to (`.data.rel.ro`, arrays of constructors) and the global offset table; data, with the
zero-initialised sections and common symbols behind.  Within an area sections keep the order of the file.

Leaves out: freeing what is needed only to start (`.init.*`), as Linux does; a module keeps all of its sections.

Sources: the order of areas is that of Linux's module loader; VMkernel's own is not public.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from sim.hw.mmu import Rights
from sim.image import elf_format as f
from sim.image.elf import ElfObject, Section
from sim.kernel.object_relocation import (
    GOT_SLOT_BYTES,
    PLT_ENTRY_BYTES,
    ObjectPlaces,
    RelocatedObject,
    Tables,
)
from sim.kernel.segment_buffers import RelocatedSegment

__all__ = ["Area", "ObjectLayout"]


@frozen(kw_only=True)
class Area:
    """Sections that have one base: their offsets by index, those of common symbols, and of a table at the end."""

    name: str
    rights: Rights
    size_bytes: int
    sections: Mapping[int, int]
    commons: Mapping[int, int] = field(factory=dict)
    table: int = 0


class ObjectLayout:
    """The areas of one object."""

    def __init__(self, module: ElfObject) -> None:
        self.tables = Tables.of(module)
        text = [section for section in module.sections if section.executable]
        constant = [one for one in module.sections if not one.executable and one.read_only_after_relocation]
        rest = [one for one in module.sections if not one.executable and not one.read_only_after_relocation]
        data = [one for one in rest if one.kind != f.SHT_NOBITS]
        zero = [one for one in rest if one.kind == f.SHT_NOBITS]
        areas = (
            _area("text", Rights(execute=True), text, len(self.tables.entries) * PLT_ENTRY_BYTES),
            _area("rodata", Rights(), constant, len(self.tables.slots) * GOT_SLOT_BYTES),
            _data_area([*data, *zero], module),
        )
        self.areas = tuple(area for area in areas if area.size_bytes)

    @property
    def memory_bytes(self) -> int:
        """Return the bytes of all areas."""
        return sum(area.size_bytes for area in self.areas)

    def places(self, bases: Mapping[str, int]) -> ObjectPlaces:
        """Return the addresses of everything when each area lies at its base."""
        sections: dict[int, int] = {}
        commons: dict[int, int] = {}
        tables = {}
        for area in self.areas:
            base = bases[area.name]
            sections |= {index: base + offset for index, offset in area.sections.items()}
            commons |= {index: base + offset for index, offset in area.commons.items()}
            tables[area.name] = base + area.table
        got = tables.get("rodata", 0)
        return ObjectPlaces(
            sections=sections, commons=commons, got=got, plt=tables.get("text", 0), got_symbol=got
        )

    def segments(self, bases: Mapping[str, int], made: RelocatedObject) -> tuple[RelocatedSegment, ...]:
        """Return what is to be mapped."""
        tables = {"text": made.plt, "rodata": made.got}
        return tuple(
            _segment(area, bases[area.name], made.sections, tables.get(area.name, b"")) for area in self.areas
        )


def _segment(area: Area, base: int, sections: Mapping[int, bytes], table: bytes) -> RelocatedSegment:
    data = bytearray()
    for index, offset in area.sections.items():
        content = sections.get(index)
        if content:
            data.extend(bytes(offset - len(data)))
            data += content
    if table:
        data.extend(bytes(area.table - len(data)))
        data += table
    return RelocatedSegment(
        name=area.name, base=base, data=bytes(data), size_bytes=area.size_bytes, rights=area.rights
    )


def _area(name: str, rights: Rights, sections: Iterable[Section], table_bytes: int) -> Area:
    offsets, end = _stack((section.index, section.size_bytes, section.alignment) for section in sections)
    table = -(-end // GOT_SLOT_BYTES) * GOT_SLOT_BYTES
    size = table + table_bytes if table_bytes else end
    return Area(name=name, rights=rights, size_bytes=size, sections=offsets, table=table)


def _data_area(sections: Iterable[Section], module: ElfObject) -> Area:
    offsets, end = _stack((section.index, section.size_bytes, section.alignment) for section in sections)
    commons, end = _stack(
        (
            (index, symbol.size_bytes, symbol.value)
            for index, symbol in enumerate(module.symbols)
            if symbol.section == f.SHN_COMMON
        ),
        end,
    )
    return Area(name="data", rights=Rights(write=True), size_bytes=end, sections=offsets, commons=commons)


def _stack(parts: Iterable[tuple[int, int, int]], end: int = 0) -> tuple[dict[int, int], int]:
    """Put (key, size, alignment) one behind the other; return their offsets and the end."""
    offsets = {}
    for key, size, alignment in parts:
        offsets[key] = -(-end // alignment) * alignment
        end = offsets[key] + size
    return offsets, end
