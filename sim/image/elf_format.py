"""The numbers and layouts of ELF64 for x86-64, and the values that a module file is read into.

Models: header, program header, section header, symbol, relocation and dynamic entry; little-endian only.

Leaves out: what the reader and the builder do not use.

Sources: System V ABI, edition 4.1, chapters 4 and 5; AMD64 psABI 1.0, section 4.4.1 (relocation types).
"""

from __future__ import annotations

import struct

from attrs import field, frozen

__all__ = ["PAGE_BYTES", "ElfImage", "Relocation", "Segment", "Symbol"]

PAGE_BYTES = 4096

MAGIC = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1
ET_DYN, EM_X86_64 = 3, 62

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELOCATION = struct.Struct("<QQq")
DYNAMIC = struct.Struct("<QQ")

PT_LOAD, PT_DYNAMIC, PT_TLS, PT_GNU_STACK = 1, 2, 7, 0x6474E551
PF_X, PF_W, PF_R = 1, 2, 4
SHT_PROGBITS, SHT_STRTAB, SHT_RELA, SHT_HASH, SHT_DYNAMIC, SHT_NOBITS, SHT_DYNSYM = 1, 3, 4, 5, 6, 8, 11
SHF_WRITE, SHF_ALLOC, SHF_EXEC = 1, 2, 4
SHN_UNDEF, SHN_ABS = 0, 0xFFF1

DT_HASH, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_RELAENT = 4, 5, 6, 7, 8, 9
DT_STRSZ, DT_SYMENT, DT_SONAME, DT_PLTRELSZ, DT_PLTREL, DT_TEXTREL, DT_JMPREL = 10, 11, 14, 2, 20, 22, 23
DT_FLAGS, DT_RELRSZ, DT_RELR, DT_GNU_HASH, DT_RELACOUNT = 30, 35, 36, 0x6FFFFEF5, 0x6FFFFFF9
DF_TEXTREL = 4

RELOCATION_NAMES = {
    1: "64",
    2: "PC32",
    5: "COPY",
    6: "GLOB_DAT",
    7: "JUMP_SLOT",
    8: "RELATIVE",
    10: "32",
    16: "DTPMOD64",
    17: "DTPOFF64",
    18: "TPOFF64",
    36: "TLSDESC",
    37: "IRELATIVE",
}
"""Relocation type -> name without its prefix R_X86_64_."""

R_GLOB_DAT, R_RELATIVE = 6, 8

BINDINGS = {0: "local", 1: "global", 2: "weak", 10: "unique"}
SYMBOL_KINDS = {0: "none", 1: "object", 2: "function", 3: "section", 4: "file", 6: "tls", 10: "ifunc"}


@frozen(kw_only=True)
class Segment:
    """A loadable segment: `data` comes from the file, the rest up to `memory_bytes` is zero."""

    virtual_address: int
    memory_bytes: int
    data: bytes = field(repr=False)
    file_offset: int
    readable: bool
    writable: bool
    executable: bool

    @property
    def rights(self) -> str:
        """Return the rights as "r-x" and the like."""
        flags = ((self.readable, "r"), (self.writable, "w"), (self.executable, "x"))
        return "".join(letter if given else "-" for given, letter in flags)

    @property
    def end(self) -> int:
        """Return the first virtual address after the segment."""
        return self.virtual_address + self.memory_bytes


@frozen(kw_only=True)
class Symbol:
    """An entry of the dynamic symbol table; an undefined one is an import."""

    name: str
    value: int
    size_bytes: int
    kind: str
    binding: str
    defined: bool


@frozen(kw_only=True)
class Relocation:
    """One place to fill in: `kind` without R_X86_64_, `symbol` an index into the symbols (0: none)."""

    offset: int
    kind: str
    symbol: int
    addend: int


@frozen(kw_only=True)
class ElfImage:
    """What a loader needs of a module; every number in it is checked against the file and the limits."""

    type: str
    machine: str
    entry: int
    segments: tuple[Segment, ...]
    symbols: tuple[Symbol, ...] = field(repr=False)
    relocations: tuple[Relocation, ...] = field(repr=False)
    modinfo: tuple[tuple[str, str], ...]
    version_record: bytes
    has_thread_storage: bool

    @property
    def memory_bytes(self) -> int:
        """Return the span of address space from the first segment's page to the end of the last one's."""
        first = self.segments[0].virtual_address // PAGE_BYTES
        return (-(-self.segments[-1].end // PAGE_BYTES) - first) * PAGE_BYTES

    @property
    def imports(self) -> tuple[str, ...]:
        """Return the names that others must define."""
        return tuple(symbol.name for symbol in self.symbols if not symbol.defined and symbol.name)

    @property
    def exports(self) -> tuple[Symbol, ...]:
        """Return the symbols that others may use."""
        return tuple(symbol for symbol in self.symbols if symbol.defined and symbol.binding != "local")

    def info(self, key: str) -> str:
        """Return a value of `.modinfo`, or an empty text."""
        return dict(self.modinfo).get(key, "")
