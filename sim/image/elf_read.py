"""Reads programs and shared objects as their loader will, and refuses what a loader must not map.

Models: the view of the dynamic table, which is what gets loaded, not of the sections, which nobody checks; sections
serve only to find `.modinfo` and `.version`.  Besides what `elf_file` refuses: relocations outside writable memory or
of unknown type, names and numbers that point outside, and counts above the limits.  Every refusal is a FormatError.

Leaves out: relocatable objects (`elf_object`); applying relocations and looking up symbols, which is the loader's
work.  Independent of pyelftools, which
the tests use as a peer: its errors have many types, and reading a module with it takes about as long as booting with one.

Sources: System V ABI, edition 4.1, chapters 4 and 5; AMD64 psABI 1.0, section 4.4; generic ABI, DT_RELR (2022).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial

from sim.errors import FormatError, LimitError
from sim.image import elf_format as f
from sim.image.elf_file import ElfFile
from sim.image.elf_hash import SYMBOLS_MAX, GnuHash, SysvHash
from sim.image.elf_text import Names, parse_modinfo
from sim.image.elf_values import ElfImage, FindsSymbols, Linking, Relocation, Symbol
from sim.image.elf_versions import SymbolVersion, VersionReader

__all__ = ["FILE_BYTES_MAX", "RELOCATIONS_MAX", "SYMBOLS_MAX", "read_elf"]

FILE_BYTES_MAX = 64 * 1024 * 1024
RELOCATIONS_MAX = 1 << 18
DYNAMIC_ENTRIES_MAX = 1024
LIBRARIES_MAX = 256

_WHAT = "ELF"
_WORD_BYTES = 8
_NEED_A_SYMBOL = ("COPY", "SIZE32", "SIZE64")
_RELR_BITMAP_WORDS = 63
_UNDEFINED = f.SHN_UNDEF
_NO_PLACE = (f.SHN_UNDEF, f.SHN_ABS)


def read_elf(data: bytes) -> ElfImage:
    """Read a program or shared object for x86-64; raises FormatError (LimitError for what is too large)."""
    if len(data) > FILE_BYTES_MAX:
        raise LimitError(_WHAT, "file", f"{len(data)} bytes, at most {FILE_BYTES_MAX} are read")
    try:
        return _Reader(ElfFile(data)).image()
    except struct.error as error:
        raise FormatError(_WHAT, "file", "the file ends inside one of its tables") from error


class _Reader:
    """Holds the dynamic table of one file while it is read."""

    def __init__(self, file: ElfFile) -> None:
        self.file = file
        self.needed: list[int] = []
        self.dynamic = self._dynamic([header for header in file.headers if header[0] == f.PT_DYNAMIC])
        self.writable = [(one.virtual_address, one.end) for one in file.segments if one.writable]
        self.names = Names(self._table(f.DT_STRTAB, f.DT_STRSZ, 1, "symbol names"))
        self.versions = VersionReader(partial(file.memory, where="symbol versions"), self.names.at)
        self.hash_table = self._hash_table()

    def image(self) -> ElfImage:
        file = self.file
        relocations = self._relocations()
        count = self._symbol_count(relocations)
        linking = self._linking()
        symbols = self._symbols(count)
        if max([relocation.symbol for relocation in relocations], default=0) >= max(count, 1):
            raise FormatError(_WHAT, "relocations", "a relocation names a symbol that is not there")
        code = file.segment_of(file.entry, 1) if file.entry else None
        if file.entry and (code is None or not code.executable):
            raise FormatError(_WHAT, "header", "the entry point lies in no code")
        return ElfImage(
            type=f.TYPE_NAMES[file.header.kind],
            machine="EM_X86_64",
            entry=file.entry,
            segments=file.segments,
            symbols=symbols,
            relocations=relocations,
            modinfo=parse_modinfo(file.section_bytes(b".modinfo")),
            version_record=file.section_bytes(b".version"),
            has_thread_storage=linking.thread_storage is not None,
            linking=linking,
        )

    def _linking(self) -> Linking:
        """Return what only a dynamic linker needs; reads the version tables on the way."""
        dynamic, file = self.dynamic, self.file
        kinds = [header[0] for header in file.headers]
        if f.DT_VERDEF in dynamic:
            self.versions.definitions(dynamic[f.DT_VERDEF], dynamic.get(f.DT_VERDEFNUM, 0))
        if f.DT_VERNEED in dynamic:
            self.versions.needed(dynamic[f.DT_VERNEED], dynamic.get(f.DT_VERNEEDNUM, 0))
        return Linking(
            interpreter=file.interpreter() if f.PT_INTERP in kinds else "",
            soname=self.names.at(dynamic[f.DT_SONAME]) if f.DT_SONAME in dynamic else "",
            needed=tuple(self.names.at(offset) for offset in self.needed),
            symbolic=f.DT_SYMBOLIC in dynamic or bool(dynamic.get(f.DT_FLAGS, 0) & f.DF_SYMBOLIC),
            versioned=f.DT_VERSYM in dynamic,
            relro=file.relro() if f.PT_GNU_RELRO in kinds else None,
            thread_storage=file.thread_storage() if f.PT_TLS in kinds else None,
            version_needs=tuple(self.versions.needs),
            versions_defined=tuple(self.versions.defined),
            hash_table=self.hash_table,
        )

    def _dynamic(self, headers: list[tuple[int, ...]]) -> dict[int, int]:
        """Return the dynamic table (the first entry of each tag), or nothing for a file without one."""
        if not headers:
            return {}
        if len(headers) > 1:
            raise FormatError(_WHAT, "program headers", "more than one dynamic table")
        _, _, _, address, _, _, size, _ = headers[0]
        if size > DYNAMIC_ENTRIES_MAX * f.DYNAMIC.size:
            raise LimitError(_WHAT, "dynamic table", f"more than {DYNAMIC_ENTRIES_MAX} entries")
        entries: dict[int, int] = {}
        for tag, value in f.DYNAMIC.iter_unpack(
            self.file.memory(address, size - size % f.DYNAMIC.size, "dynamic table")
        ):
            if tag == 0:
                break
            if tag == f.DT_NEEDED:
                self.needed.append(value)
            entries.setdefault(tag, value)
        if len(self.needed) > LIBRARIES_MAX:
            raise LimitError(_WHAT, "dynamic table", f"more than {LIBRARIES_MAX} libraries needed")
        if f.DT_TEXTREL in entries or entries.get(f.DT_FLAGS, 0) & f.DF_TEXTREL:
            raise FormatError(_WHAT, "dynamic table", "relocations in code are not applied")
        return entries

    def _relocations(self) -> tuple[Relocation, ...]:
        """Return every relocation, checked to lie in writable memory."""
        found: list[Relocation] = []
        tables = [(f.DT_RELA, f.DT_RELASZ), (f.DT_JMPREL, f.DT_PLTRELSZ)]
        sizes = [self.dynamic.get(size, 0) for _, size in tables] + [self.dynamic.get(f.DT_RELRSZ, 0)]
        if sum(sizes) > RELOCATIONS_MAX * f.RELOCATION.size:
            raise LimitError(_WHAT, "relocations", f"more than {RELOCATIONS_MAX}")
        if self.dynamic.get(f.DT_RELAENT, f.RELOCATION.size) != f.RELOCATION.size:
            raise FormatError(_WHAT, "relocations", "entries of another size than ELF64 has")
        if self.dynamic.get(f.DT_PLTREL, f.DT_RELA) != f.DT_RELA:
            raise FormatError(_WHAT, "relocations", "entries without addend are not used on x86-64")
        for address, size in tables:
            table = self._table(address, size, f.RELOCATION.size, "relocations")
            for offset, info, addend in f.RELOCATION.iter_unpack(table):
                number = info & 0xFFFFFFFF
                if not number:
                    continue
                linked = f.LINKED_TYPES.get(number)
                if linked is None:
                    raise FormatError(_WHAT, "relocations", f"type {number} is not applied")
                kind, written = linked
                symbol = info >> 32
                if not symbol and kind in _NEED_A_SYMBOL:
                    raise FormatError(_WHAT, f"relocation at {offset:#x}", f"R_X86_64_{kind} names no symbol")
                self._need_writable(offset, written)
                found.append(Relocation(offset=offset, kind=kind, symbol=symbol, addend=addend))
        found += self._packed_relocations()
        return tuple(found)

    def _need_writable(self, offset: int, size: int) -> None:
        for start, end in self.writable:
            if start <= offset and offset + size <= end:
                return
        raise FormatError(_WHAT, f"relocation at {offset:#x}", "lies outside writable memory")

    def _packed_relocations(self) -> Iterator[Relocation]:
        """Yield the relative relocations of DT_RELR: an address, then bitmaps of the words that follow it."""
        table = self._table(f.DT_RELR, f.DT_RELRSZ, _WORD_BYTES, "packed relocations")
        words = [word for (word,) in struct.iter_unpack("<Q", table)]
        if sum((word >> 1).bit_count() if word & 1 else 1 for word in words) > RELOCATIONS_MAX:
            raise LimitError(_WHAT, "packed relocations", f"more than {RELOCATIONS_MAX}")
        place = 0
        for word in words:
            if word & 1:
                offsets = [
                    place + _WORD_BYTES * bit for bit in range(_RELR_BITMAP_WORDS) if word >> (bit + 1) & 1
                ]
                place += _RELR_BITMAP_WORDS * _WORD_BYTES
            else:
                offsets = [word]
                place = word + _WORD_BYTES
            for offset in offsets:
                stored = self.file.memory(offset, _WORD_BYTES, "packed relocations")
                self._need_writable(offset, _WORD_BYTES)
                addend = int.from_bytes(stored, "little", signed=True)
                yield Relocation(offset=offset, kind="RELATIVE", symbol=0, addend=addend)

    def _hash_table(self) -> FindsSymbols | None:
        """Return the file's hash table, the GNU one if it has both."""
        if f.DT_SYMTAB not in self.dynamic:
            return None
        if f.DT_GNU_HASH in self.dynamic:
            return GnuHash(self._rest_of_segment(self.dynamic[f.DT_GNU_HASH]))
        if f.DT_HASH in self.dynamic:
            return SysvHash(self._rest_of_segment(self.dynamic[f.DT_HASH]))
        return None

    def _rest_of_segment(self, address: int) -> bytes:
        """Return the file's bytes from `address` to its segment's end: tables that do not state their size."""
        segment = self.file.segment_of(address, 8)
        if segment is None or address - segment.virtual_address >= len(segment.data):
            raise FormatError(_WHAT, "hash table", f"{address:#x} is not in a segment's file part")
        return segment.data[address - segment.virtual_address :]

    def _symbol_count(self, relocations: tuple[Relocation, ...]) -> int:
        """Return how many symbols there are: by the hash tables, the section, or else what relocations name."""
        table = self.dynamic.get(f.DT_SYMTAB)
        if table is None:
            return 0
        named = 1 + max([relocation.symbol for relocation in relocations], default=0)
        if f.DT_HASH in self.dynamic:
            hashed = self.file.memory(self.dynamic[f.DT_HASH], 8, "hash table")
            count = int.from_bytes(hashed[4:], "little")
        else:
            count = max(named, self.hash_table.count) if isinstance(self.hash_table, GnuHash) else named
            for section in self.file.sections:
                if section[1] == f.SHT_DYNSYM and section[3] == table:
                    count = section[5] // f.SYMBOL.size
        if count > SYMBOLS_MAX:
            raise LimitError(_WHAT, "symbols", f"{count}, at most {SYMBOLS_MAX}")
        return count

    def _symbols(self, count: int) -> tuple[Symbol, ...]:
        if not count:
            return ()
        if self.dynamic.get(f.DT_SYMENT, f.SYMBOL.size) != f.SYMBOL.size:
            raise FormatError(_WHAT, "symbols", "entries of another size than ELF64 has")
        table = self.file.memory(self.dynamic[f.DT_SYMTAB], count * f.SYMBOL.size, "symbols")
        if f.DT_VERSYM in self.dynamic:
            bare = self.file.memory(self.dynamic[f.DT_VERSYM], 2 * count, "symbol versions")
            labels = [self._label(number) for number in struct.unpack(f"<{count}H", bare)]
        else:
            labels = [self._label(0)] * count
        end, name_of = self.file.end, self.names.at
        found = []
        for (version, number, hidden), (name_at, info, other, section, value, size) in zip(
            labels, f.SYMBOL.iter_unpack(table), strict=True
        ):
            kind, binding = f.SYMBOL_INFOS[info]
            if value > end and section not in _NO_PLACE and kind != "tls":
                raise FormatError(_WHAT, "symbols", f"the value {value:#x} lies outside the module")
            found.append(
                Symbol(
                    name=name_of(name_at) if name_at else "",
                    value=value,
                    size_bytes=size,
                    kind=kind,
                    binding=binding,
                    defined=section != _UNDEFINED,
                    visibility=f.VISIBILITIES[other & 3],
                    section=section,
                    version=version,
                    version_index=number,
                    version_hidden=hidden,
                )
            )
        return tuple(found)

    def _label(self, number: int) -> tuple[str, int, bool]:
        """Return name and number of a symbol's version, and whether it is hidden."""
        index = number & 0x7FFF
        version = self.versions.versions.get(index, _NO_VERSION)
        return version.name, index, index != number or version.hidden

    def _table(self, address_tag: int, size_tag: int, entry_bytes: int, where: str) -> bytes:
        size = self.dynamic.get(size_tag, 0)
        if not size or address_tag not in self.dynamic:
            return b""
        if size % entry_bytes:
            raise FormatError(_WHAT, where, f"{size} bytes are no whole number of entries")
        return self.file.memory(self.dynamic[address_tag], size, where)


_NO_VERSION = SymbolVersion(name="")
