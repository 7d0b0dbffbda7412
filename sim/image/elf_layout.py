"""Lays out a module's file: where each table and section lies, and the bytes in them.

Models: three loadable segments (read-only: headers, symbols, relocations, module records and constants; code; dynamic
table, addresses of imports, data with its zero part).  Addresses equal file offsets.  All sizes are known beforehand,
so the addresses are computed first and the contents written after.

Leaves out: procedure linkage tables, notes, thread storage, RELRO.

Sources: System V ABI, edition 4.1, chapters 4 and 5; AMD64 psABI 1.0, section 4.4.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from attrs import frozen

from sim.image import elf_format as f
from sim.image.elf_format import PAGE_BYTES

if TYPE_CHECKING:
    from sim.image.elf_build import ModuleSpec

__all__ = ["SLOT_BYTES", "ModuleLayout", "Strings", "modinfo"]

SLOT_BYTES = 8
"""The size of an address."""

_FUNCTION, _OBJECT, _GLOBAL = 2, 1, 1
_HEADERS = 5
_DYNAMIC_ENTRIES = 10


class ModuleLayout:
    """The layout of one module."""

    def __init__(self, spec: ModuleSpec) -> None:
        self.spec = spec
        self.names = Strings()
        self.pieces: list[_Piece] = []
        symbols = 1 + len(spec.exports) + len(spec.imports)
        self.relocation_count = len(spec.pointers) + len(spec.imports)
        self.soname = spec.soname or spec.name
        own = dict.fromkeys((self.soname, *spec.needed, *self._symbol_names()))
        self.name_offsets = {name: self.names.add(name) for name in own}
        self.dynamic_bytes = (_DYNAMIC_ENTRIES + len(spec.needed)) * f.DYNAMIC.size
        position = f.HEADER.size + _HEADERS * f.PROGRAM_HEADER.size
        self.hash_at = position
        self.symbols_at = _align(self.hash_at + 4 * (3 + symbols), 8)
        self.names_at = self.symbols_at + symbols * f.SYMBOL.size
        self.relocations_at = _align(self.names_at + len(self.names.data), 8)
        self.modinfo = modinfo(spec)
        self.modinfo_at = self.relocations_at + self.relocation_count * f.RELOCATION.size
        self.version_at = self.modinfo_at + len(self.modinfo)
        self.rodata_at = _align(self.version_at + len(spec.version_record), 64)
        self.text_at = _align(self.rodata_at + len(spec.rodata), PAGE_BYTES)
        self.dynamic_at = _align(self.text_at + len(spec.text), PAGE_BYTES)
        self.got_at = self.dynamic_at + self.dynamic_bytes
        self.data_at = _align(self.got_at + len(spec.imports) * SLOT_BYTES, 64)

    def file(self) -> bytes:
        """Return the whole file."""
        self._place_read_only()
        self._place_code_and_data()
        image = bytearray(self.data_at + len(self.spec.data))
        for piece in self.pieces:
            image[piece.address : piece.address + len(piece.content)] = piece.content
        image[: f.HEADER.size + _HEADERS * f.PROGRAM_HEADER.size] = (
            bytes(f.HEADER.size) + self._program_headers()
        )
        section_names = Strings()
        headers = self._section_headers(section_names, len(image))
        image += section_names.data
        image += bytes(-len(image) % 8)
        image[: f.HEADER.size] = self._header(len(image), len(self.pieces) + 2)
        return bytes(image) + headers

    def _symbol_names(self) -> list[str]:
        return [export.name for export in self.spec.exports] + list(self.spec.imports)

    def _place_read_only(self) -> None:
        spec = self.spec
        self._place(
            ".hash",
            f.SHT_HASH,
            f.SHF_ALLOC,
            _hash_table(self._symbol_names()),
            self.hash_at,
            link=2,
            entry_bytes=4,
        )
        self._place(
            ".dynsym",
            f.SHT_DYNSYM,
            f.SHF_ALLOC,
            self._symbols(),
            self.symbols_at,
            link=3,
            info=1,
            entry_bytes=f.SYMBOL.size,
        )
        self._place(".dynstr", f.SHT_STRTAB, f.SHF_ALLOC, bytes(self.names.data), self.names_at)
        rela = self._relocations()
        self._place(
            ".rela.dyn",
            f.SHT_RELA,
            f.SHF_ALLOC,
            rela,
            self.relocations_at,
            link=2,
            entry_bytes=f.RELOCATION.size,
        )
        self._place(".modinfo", f.SHT_PROGBITS, f.SHF_ALLOC, self.modinfo, self.modinfo_at)
        if spec.version_record:
            self._place(".version", f.SHT_PROGBITS, f.SHF_ALLOC, spec.version_record, self.version_at)
        self._place(".rodata", f.SHT_PROGBITS, f.SHF_ALLOC, spec.rodata, self.rodata_at)

    def _place_code_and_data(self) -> None:
        spec, writable = self.spec, f.SHF_ALLOC | f.SHF_WRITE
        self._place(".text", f.SHT_PROGBITS, f.SHF_ALLOC | f.SHF_EXEC, spec.text, self.text_at)
        dynamic = self._dynamic()
        self._place(
            ".dynamic", f.SHT_DYNAMIC, writable, dynamic, self.dynamic_at, link=3, entry_bytes=f.DYNAMIC.size
        )
        self._place(
            ".got",
            f.SHT_PROGBITS,
            writable,
            bytes(len(spec.imports) * SLOT_BYTES),
            self.got_at,
            entry_bytes=8,
        )
        self._place(".data", f.SHT_PROGBITS, writable, spec.data, self.data_at)
        if spec.bss_bytes:
            end = self.data_at + len(spec.data)
            self._place(".bss", f.SHT_NOBITS, writable, b"", end, zero_bytes=spec.bss_bytes)

    def _place(self, name: str, kind: int, flags: int, content: bytes, address: int, **fields: int) -> None:
        piece = _Piece(name=name, kind=kind, flags=flags, content=content, address=address, **fields)
        self.pieces.append(piece)

    def _address(self, area: str, offset: int) -> int:
        return {"text": self.text_at, "rodata": self.rodata_at, "data": self.data_at}[area] + offset

    def _section_of(self, area: str) -> int:
        order = [".hash", ".dynsym", ".dynstr", ".rela.dyn", ".modinfo"]
        order += [".version"] if self.spec.version_record else []
        order += [".rodata", ".text", ".dynamic", ".got", ".data"]
        return 1 + order.index(f".{area}")

    def _symbols(self) -> bytes:
        table = bytes(f.SYMBOL.size)
        for export in self.spec.exports:
            kind = _FUNCTION if export.area == "text" else _OBJECT
            table += f.SYMBOL.pack(
                self.name_offsets[export.name],
                _GLOBAL << 4 | kind,
                0,
                self._section_of(export.area),
                self._address(export.area, export.offset),
                export.size_bytes,
            )
        for name in self.spec.imports:
            table += f.SYMBOL.pack(self.name_offsets[name], _GLOBAL << 4, 0, f.SHN_UNDEF, 0, 0)
        return table

    def _relocations(self) -> bytes:
        table = b""
        for pointer in self.spec.pointers:
            target = self._address(pointer.area, pointer.target)
            table += f.RELOCATION.pack(self.data_at + pointer.offset, f.R_RELATIVE, target)
        first = 1 + len(self.spec.exports)
        for index in range(len(self.spec.imports)):
            table += f.RELOCATION.pack(
                self.got_at + index * SLOT_BYTES, (first + index) << 32 | f.R_GLOB_DAT, 0
            )
        return table

    def _dynamic(self) -> bytes:
        entries = [
            *((f.DT_NEEDED, self.name_offsets[library]) for library in self.spec.needed),
            (f.DT_SONAME, self.name_offsets[self.soname]),
            (f.DT_HASH, self.hash_at),
            (f.DT_STRTAB, self.names_at),
            (f.DT_SYMTAB, self.symbols_at),
            (f.DT_STRSZ, len(self.names.data)),
            (f.DT_SYMENT, f.SYMBOL.size),
        ]
        if self.relocation_count:
            entries += [
                (f.DT_RELA, self.relocations_at),
                (f.DT_RELASZ, self.relocation_count * f.RELOCATION.size),
                (f.DT_RELAENT, f.RELOCATION.size),
            ]
        entries += [(0, 0)] * (self.dynamic_bytes // f.DYNAMIC.size - len(entries))
        return b"".join(f.DYNAMIC.pack(*entry) for entry in entries)

    def _program_headers(self) -> bytes:
        data_bytes = self.data_at + len(self.spec.data) - self.dynamic_at
        rodata_end = self.rodata_at + len(self.spec.rodata)
        rows = (
            (f.PT_LOAD, f.PF_R, 0, rodata_end, rodata_end, PAGE_BYTES),
            (f.PT_LOAD, f.PF_R | f.PF_X, self.text_at, len(self.spec.text), len(self.spec.text), PAGE_BYTES),
            (
                f.PT_LOAD,
                f.PF_R | f.PF_W,
                self.dynamic_at,
                data_bytes,
                data_bytes + self.spec.bss_bytes,
                PAGE_BYTES,
            ),
            (
                f.PT_DYNAMIC,
                f.PF_R | f.PF_W,
                self.dynamic_at,
                self.dynamic_bytes,
                self.dynamic_bytes,
                8,
            ),
            (f.PT_GNU_STACK, f.PF_R | f.PF_W, 0, 0, 0, 16),
        )
        return b"".join(
            f.PROGRAM_HEADER.pack(kind, flags, at, at, at, in_file, in_memory, alignment)
            for kind, flags, at, in_file, in_memory, alignment in rows
        )

    def _section_headers(self, names: Strings, names_at: int) -> bytes:
        table = bytes(f.SECTION_HEADER.size)
        for piece in self.pieces:
            alignment = (
                1 if piece.kind == f.SHT_STRTAB or piece.name in (".modinfo", ".version", ".bss") else 8
            )
            table += f.SECTION_HEADER.pack(
                names.add(piece.name),
                piece.kind,
                piece.flags,
                piece.address,
                piece.address,
                len(piece.content) + piece.zero_bytes,
                piece.link,
                piece.info,
                alignment,
                piece.entry_bytes,
            )
        own = names.add(".shstrtab")
        return table + f.SECTION_HEADER.pack(own, f.SHT_STRTAB, 0, 0, names_at, len(names.data), 0, 0, 1, 0)

    def _header(self, sections_at: int, section_count: int) -> bytes:
        entry = next(
            (one.offset for one in self.spec.exports if one.name == "init_module" and one.area == "text"), 0
        )
        return f.HEADER.pack(
            f.MAGIC.ljust(16, b"\0"),
            f.ET_DYN,
            f.EM_X86_64,
            1,
            self.text_at + entry,
            f.HEADER.size,
            sections_at,
            0,
            f.HEADER.size,
            f.PROGRAM_HEADER.size,
            _HEADERS,
            f.SECTION_HEADER.size,
            section_count,
            section_count - 1,
        )


@frozen(kw_only=True)
class _Piece:
    """A section with the place that it was given."""

    name: str
    kind: int
    flags: int
    content: bytes
    address: int
    link: int = 0
    info: int = 0
    entry_bytes: int = 0
    zero_bytes: int = 0


class Strings:
    """A table of NUL-terminated names."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")

    def add(self, name: str) -> int:
        """Append a name and return its offset."""
        offset = len(self.data)
        self.data += name.encode("ascii") + b"\0"
        return offset


def modinfo(spec: ModuleSpec) -> bytes:
    """Return the content of `.modinfo`; ValueError for a text with a NUL."""
    pairs = (
        ("name", spec.name),
        ("version", spec.version),
        ("license", spec.license),
        ("provider", spec.provider),
    )
    for key, value in pairs:
        if "\0" in value:
            raise ValueError(f"the {key} holds a NUL")
    return b"".join(f"{key}={value}\0".encode() for key, value in pairs)


def _hash_table(names: list[str]) -> bytes:
    """Build the symbol hash table with a single bucket: all symbols in one chain, in order."""
    count = 1 + len(names)
    chain = [0, *range(2, count), 0][:count] if names else [0]
    return struct.pack(f"<{3 + count}I", 1, count, 1 if names else 0, *chain)


def _align(number: int, grain: int) -> int:
    return -(-number // grain) * grain
