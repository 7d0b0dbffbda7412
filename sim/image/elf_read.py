"""Reads a module file as its loader will, and refuses what a loader must not map.

Models: the view of the dynamic table, which is what gets loaded, not of the sections, which nobody checks; sections
serve only to find `.modinfo` and `.version`.  Besides what `elf_file` refuses: relocations outside writable memory or
of unknown type, names and numbers that point outside, and counts above the limits.  Every refusal is a FormatError.

Leaves out: applying relocations and looking up symbols, which is the loader's work.  Independent of pyelftools, which
the tests use as a peer: its errors have many types, and reading a module with it takes about as long as booting with one.

Sources: System V ABI, edition 4.1, chapters 4 and 5; AMD64 psABI 1.0, section 4.4; generic ABI, DT_RELR (2022).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from sim.errors import FormatError, LimitError
from sim.image import elf_format as f
from sim.image.elf_file import ElfFile
from sim.image.elf_format import ElfImage, Relocation, Symbol

__all__ = ["FILE_BYTES_MAX", "read_elf"]

FILE_BYTES_MAX = 64 * 1024 * 1024
SYMBOLS_MAX = 1 << 16
RELOCATIONS_MAX = 1 << 18
DYNAMIC_ENTRIES_MAX = 1024
NAME_BYTES_MAX = 16 * 1024

_WHAT = "ELF"
_WORD_BYTES = 8
_RELR_BITMAP_WORDS = 63


def read_elf(data: bytes) -> ElfImage:
    """Read a shared object for x86-64; raises FormatError (LimitError for what is too large)."""
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
        self.dynamic = self._dynamic([header for header in file.headers if header[0] == f.PT_DYNAMIC])
        self.writable = [(one.virtual_address, one.end) for one in file.segments if one.writable]

    def image(self) -> ElfImage:
        file = self.file
        relocations = tuple(self._relocations())
        count = self._symbol_count(relocations)
        symbols = self._symbols(count)
        if any(relocation.symbol >= count for relocation in relocations if relocation.symbol):
            raise FormatError(_WHAT, "relocations", "a relocation names a symbol that is not there")
        code = file.segment_of(file.entry, 1) if file.entry else None
        if file.entry and (code is None or not code.executable):
            raise FormatError(_WHAT, "header", "the entry point lies in no code")
        return ElfImage(
            type="ET_DYN",
            machine="EM_X86_64",
            entry=file.entry,
            segments=file.segments,
            symbols=symbols,
            relocations=relocations,
            modinfo=_parse_modinfo(file.section_bytes(b".modinfo")),
            version_record=file.section_bytes(b".version"),
            has_thread_storage=any(header[0] == f.PT_TLS for header in file.headers),
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
            entries.setdefault(tag, value)
        if f.DT_TEXTREL in entries or entries.get(f.DT_FLAGS, 0) & f.DF_TEXTREL:
            raise FormatError(_WHAT, "dynamic table", "relocations in code are not applied")
        return entries

    def _relocations(self) -> Iterator[Relocation]:
        """Yield every relocation, checked to lie in writable memory."""
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
                kind = f.RELOCATION_NAMES.get(info & 0xFFFFFFFF)
                if kind is None:
                    raise FormatError(_WHAT, "relocations", f"type {info & 0xFFFFFFFF} is not applied")
                yield self._relocation(offset, kind, info >> 32, addend)
        yield from self._packed_relocations()

    def _relocation(self, offset: int, kind: str, symbol: int, addend: int) -> Relocation:
        size = 4 if kind in ("PC32", "32") else 16 if kind == "TLSDESC" else _WORD_BYTES
        if not any(start <= offset and offset + size <= end for start, end in self.writable):
            raise FormatError(_WHAT, f"relocation at {offset:#x}", "lies outside writable memory")
        return Relocation(offset=offset, kind=kind, symbol=symbol, addend=addend)

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
                yield self._relocation(offset, "RELATIVE", 0, int.from_bytes(stored, "little", signed=True))

    def _symbol_count(self, relocations: tuple[Relocation, ...]) -> int:
        """Return how many symbols there are: by the hash table, the section, or else what relocations name."""
        table = self.dynamic.get(f.DT_SYMTAB)
        if table is None:
            return 0
        count = 1 + max((relocation.symbol for relocation in relocations), default=0)
        if f.DT_HASH in self.dynamic:
            hashed = self.file.memory(self.dynamic[f.DT_HASH], 8, "hash table")
            count = int.from_bytes(hashed[4:], "little")
        else:
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
        names = self._table(f.DT_STRTAB, f.DT_STRSZ, 1, "symbol names")
        return tuple(self._symbol(fields, names) for fields in f.SYMBOL.iter_unpack(table))

    def _symbol(self, fields: tuple[int, ...], names: bytes) -> Symbol:
        name_at, info, _, section, value, size = fields
        kind = f.SYMBOL_KINDS.get(info & 15, "other")
        if section not in (f.SHN_UNDEF, f.SHN_ABS) and kind != "tls" and value > self.file.segments[-1].end:
            raise FormatError(_WHAT, "symbols", f"the value {value:#x} lies outside the module")
        return Symbol(
            name=_name_at(names, name_at) if name_at else "",
            value=value,
            size_bytes=size,
            kind=kind,
            binding=f.BINDINGS.get(info >> 4, "other"),
            defined=section != f.SHN_UNDEF,
        )

    def _table(self, address_tag: int, size_tag: int, entry_bytes: int, where: str) -> bytes:
        size = self.dynamic.get(size_tag, 0)
        if not size or address_tag not in self.dynamic:
            return b""
        if size % entry_bytes:
            raise FormatError(_WHAT, where, f"{size} bytes are no whole number of entries")
        return self.file.memory(self.dynamic[address_tag], size, where)


def _name_at(names: bytes, offset: int) -> str:
    end = names.find(b"\0", offset, offset + NAME_BYTES_MAX)
    if end < 0:
        raise FormatError(_WHAT, "symbol names", f"no name of at most {NAME_BYTES_MAX} bytes at {offset:#x}")
    return names[offset:end].decode("utf-8", "backslashreplace")


def _parse_modinfo(record: bytes) -> tuple[tuple[str, str], ...]:
    """Split `.modinfo` into its key=value texts; a file without that record has none."""
    if not record:
        return ()
    try:
        texts = record.decode("utf-8").rstrip("\0").split("\0")
    except UnicodeDecodeError as error:
        raise FormatError(_WHAT, ".modinfo", "a text that does not decode") from error
    pairs = [text.partition("=") for text in texts if text]
    if any(not key or not mark for key, mark, _ in pairs):
        raise FormatError(_WHAT, ".modinfo", "expected key=value texts")
    return tuple((key, value) for key, _, value in pairs)
