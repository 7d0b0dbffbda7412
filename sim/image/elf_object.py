"""Reads relocatable objects (ET_REL), which kernel modules are, and refuses what a loader must not place.

Models: the sections that go into memory with their relocations, the symbol table, section groups: of the groups of one
signature the first is kept, the sections of the others are left out and their symbols become undefined, so that
they bind to the kept ones by name.  Refused: another class, machine or type; a section that is writable and
executable, or compressed; relocations of unknown type, outside their section, or without addend; symbols outside their
section; numbers and names that point outside; counts and sizes above the limits.

Leaves out: merging of equal strings (a section of mergeable strings is loaded as it is, which is always right);
extended section numbers; debug sections, which are not read.

Sources: System V ABI, edition 4.1, chapter 4; generic ABI, "Section Groups"; AMD64 psABI 1.0, sections 4.2 and 4.4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from sim.errors import FormatError, LimitError
from sim.image import elf_format as f
from sim.image.elf_file import MEMORY_BYTES_MAX, Sections, read_header, slice_of
from sim.image.elf_format import PAGE_BYTES
from sim.image.elf_hash import SYMBOLS_MAX
from sim.image.elf_read import FILE_BYTES_MAX, RELOCATIONS_MAX
from sim.image.elf_text import Names, parse_modinfo
from sim.image.elf_values import ElfObject, Relocation, Section, Symbol

__all__ = ["read_object"]

_WHAT = "ELF"
_NAME, _KIND, _FLAGS, _OFFSET, _SIZE, _LINK, _INFO, _ALIGN, _ENTRY = 0, 1, 2, 4, 5, 6, 7, 8, 9
_LOADED_KINDS = (
    f.SHT_PROGBITS,
    f.SHT_NOBITS,
    f.SHT_NOTE,
    f.SHT_INIT_ARRAY,
    f.SHT_FINI_ARRAY,
    f.SHT_PREINIT_ARRAY,
    f.SHT_X86_64_UNWIND,
)


def read_object(data: bytes) -> ElfObject:
    """Read a relocatable object for x86-64; raises FormatError (LimitError for what is too large)."""
    if len(data) > FILE_BYTES_MAX:
        raise LimitError(_WHAT, "file", f"{len(data)} bytes, at most {FILE_BYTES_MAX} are read")
    try:
        return _Reader(data).object()
    except struct.error as error:
        raise FormatError(_WHAT, "file", "the file ends inside one of its tables") from error


class _Reader:
    """The section table of one object while it is read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._sections = Sections(data, read_header(data, (f.ET_REL,)))
        self._rows = self._sections.rows
        tables = [index for index, row in enumerate(self._rows) if row[_KIND] == f.SHT_SYMTAB]
        if len(tables) != 1:
            raise FormatError(_WHAT, "sections", f"expected one symbol table, found {len(tables)}")
        self._table = tables[0]
        self._names = Names(self._linked_names())
        self._raw = self._raw_symbols()
        self._dropped = self._dropped_sections()

    def object(self) -> ElfObject:
        relocations = self._relocations()
        sections = tuple(
            self._section(index, row, tuple(relocations.get(index, ())))
            for index, row in enumerate(self._rows)
            if row[_FLAGS] & f.SHF_ALLOC and index not in self._dropped
        )
        if not sections:
            raise FormatError(_WHAT, "sections", "there is no section to load")
        if sum(section.size_bytes for section in sections) > MEMORY_BYTES_MAX:
            raise LimitError(_WHAT, "sections", f"more than {MEMORY_BYTES_MAX} bytes in memory")
        return ElfObject(
            type="ET_REL",
            machine="EM_X86_64",
            sections=sections,
            symbols=tuple(self._symbol(fields) for fields in self._raw),
            modinfo=parse_modinfo(self._sections.content(b".modinfo")),
            version_record=self._sections.content(b".version"),
            has_thread_storage=any(row[_FLAGS] & f.SHF_TLS for row in self._rows),
        )

    # ------------------------------------------------------------------ sections

    def _section(self, index: int, row: tuple[int, ...], relocations: tuple[Relocation, ...]) -> Section:
        where = f"section {index}"
        kind, flags, size, alignment = row[_KIND], row[_FLAGS], row[_SIZE], max(row[_ALIGN], 1)
        if kind not in _LOADED_KINDS:
            raise FormatError(_WHAT, where, f"type {kind:#x} is not loaded")
        if flags & f.SHF_WRITE and flags & f.SHF_EXEC:
            raise FormatError(_WHAT, where, "both writable and executable")
        if flags & f.SHF_COMPRESSED:
            raise FormatError(_WHAT, where, "is compressed, and goes into memory")
        if alignment & (alignment - 1) or alignment > PAGE_BYTES:
            raise FormatError(
                _WHAT, where, f"an alignment of {alignment}, wanted a power of two up to a page"
            )
        if size > MEMORY_BYTES_MAX:
            raise LimitError(_WHAT, where, f"{size} bytes, at most {MEMORY_BYTES_MAX}")
        return Section(
            index=index,
            name=self._section_name(row[_NAME]),
            kind=kind,
            writable=bool(flags & f.SHF_WRITE),
            executable=bool(flags & f.SHF_EXEC),
            alignment=alignment,
            size_bytes=size,
            data=b"" if kind == f.SHT_NOBITS else slice_of(self._data, row[_OFFSET], size, where),
            relocations=relocations,
        )

    def _section_name(self, offset: int) -> str:
        table = self._sections.name_table()
        end = table.find(b"\0", offset, offset + 1024)
        if end < 0:
            raise FormatError(_WHAT, "section names", f"no name of at most 1024 bytes at {offset:#x}")
        return table[offset:end].decode("utf-8", "backslashreplace")

    def _dropped_sections(self) -> frozenset[int]:
        """Return the members of groups whose signature an earlier group of this file has."""
        signatures: dict[str, None] = {}
        dropped: dict[int, None] = {}
        for index, row in enumerate(self._rows):
            if row[_KIND] != f.SHT_GROUP:
                continue
            words = slice_of(self._data, row[_OFFSET], row[_SIZE], f"section {index}")
            if len(words) < 4 or len(words) % 4 or row[_INFO] >= len(self._raw):
                raise FormatError(_WHAT, f"section {index}", "is no list of a group's sections")
            flags, *members = (number for (number,) in struct.iter_unpack("<I", words))
            if any(not 0 < member < len(self._rows) for member in members):
                raise FormatError(_WHAT, f"section {index}", "a group names a section that is not there")
            signature = self._names.at(self._raw[row[_INFO]][0])
            if flags & f.GRP_COMDAT and signature in signatures:
                dropped |= dict.fromkeys(members)
            signatures[signature] = None
        return frozenset(dropped)

    # ------------------------------------------------------------------ symbols

    def _linked_names(self) -> bytes:
        link = self._rows[self._table][_LINK]
        if link >= len(self._rows) or self._rows[link][_KIND] != f.SHT_STRTAB:
            raise FormatError(_WHAT, "symbols", "their names are in no string table")
        return slice_of(self._data, self._rows[link][_OFFSET], self._rows[link][_SIZE], "symbol names")

    def _raw_symbols(self) -> list[tuple[int, ...]]:
        row = self._rows[self._table]
        if row[_ENTRY] != f.SYMBOL.size or row[_SIZE] % f.SYMBOL.size:
            raise FormatError(_WHAT, "symbols", "entries of another size than ELF64 has")
        if row[_SIZE] > SYMBOLS_MAX * f.SYMBOL.size:
            raise LimitError(_WHAT, "symbols", f"more than {SYMBOLS_MAX}")
        return list(f.SYMBOL.iter_unpack(slice_of(self._data, row[_OFFSET], row[_SIZE], "symbols")))

    def _symbol(self, fields: tuple[int, ...]) -> Symbol:
        name_at, info, other, section, value, size = fields
        kind = f.SYMBOL_KINDS.get(info & 15, "other")
        if section < f.SHN_LORESERVE and section >= len(self._rows):
            raise FormatError(_WHAT, "symbols", "a symbol of a section that is not there")
        if section >= f.SHN_LORESERVE and section not in (f.SHN_ABS, f.SHN_COMMON):
            raise FormatError(_WHAT, "symbols", f"section number {section:#x} has no meaning here")
        if section == f.SHN_COMMON and not (0 < value <= PAGE_BYTES and not value & (value - 1)):
            raise FormatError(_WHAT, "symbols", f"a common symbol of alignment {value}")
        if section == f.SHN_COMMON and size > MEMORY_BYTES_MAX:
            raise LimitError(_WHAT, "symbols", f"a common symbol of {size} bytes")
        if 0 < section < f.SHN_LORESERVE and value > self._rows[section][_SIZE]:
            raise FormatError(_WHAT, "symbols", f"the value {value:#x} lies outside its section")
        if section in self._dropped and info >> 4:
            section = f.SHN_UNDEF
        return Symbol(
            name=self._names.at(name_at) if name_at else "",
            value=value,
            size_bytes=size,
            kind=kind,
            binding=f.BINDINGS.get(info >> 4, "other"),
            defined=section != f.SHN_UNDEF,
            visibility=f.VISIBILITIES[other & 3],
            section=section,
        )

    # ------------------------------------------------------------------ relocations

    def _relocations(self) -> dict[int, list[Relocation]]:
        """Return the relocations of each section that is loaded."""
        found: dict[int, list[Relocation]] = {}
        total = 0
        for index, row in enumerate(self._rows):
            if row[_KIND] not in (f.SHT_RELA, f.SHT_REL) or index in self._dropped:
                continue
            target = row[_INFO]
            if not 0 < target < len(self._rows):
                raise FormatError(_WHAT, f"section {index}", "relocations of a section that is not there")
            if not self._rows[target][_FLAGS] & f.SHF_ALLOC or target in self._dropped:
                continue
            if row[_KIND] == f.SHT_REL or row[_ENTRY] != f.RELOCATION.size or row[_LINK] != self._table:
                raise FormatError(
                    _WHAT, f"section {index}", "relocations without addend or of another symbol table"
                )
            total += row[_SIZE] // f.RELOCATION.size
            if total > RELOCATIONS_MAX:
                raise LimitError(_WHAT, "relocations", f"more than {RELOCATIONS_MAX}")
            found.setdefault(target, []).extend(self._table_of(index, row, self._rows[target]))
        return found

    def _table_of(self, index: int, row: tuple[int, ...], target: tuple[int, ...]) -> Iterator[Relocation]:
        where = f"section {index}"
        content = slice_of(self._data, row[_OFFSET], row[_SIZE], where)
        if len(content) % f.RELOCATION.size:
            raise FormatError(_WHAT, where, f"{len(content)} bytes are no whole number of relocations")
        for offset, info, addend in f.RELOCATION.iter_unpack(content):
            number = info & 0xFFFFFFFF
            if not number:
                continue
            kind = f.RELOCATION_NAMES.get(number)
            if kind not in f.OBJECT_RELOCATIONS:
                raise FormatError(_WHAT, where, f"relocation type {number} is not applied")
            if target[_KIND] == f.SHT_NOBITS or offset + f.RELOCATION_BYTES[kind] > target[_SIZE]:
                raise FormatError(_WHAT, where, f"the relocation at {offset:#x} lies outside its section")
            if info >> 32 >= len(self._raw):
                raise FormatError(_WHAT, where, "a relocation names a symbol that is not there")
            yield Relocation(offset=offset, kind=kind, symbol=info >> 32, addend=addend)
