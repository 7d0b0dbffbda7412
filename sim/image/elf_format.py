"""The numbers and layouts of ELF64 for x86-64, and the values that a module file is read into.

Models: header, program header, section header, symbol, relocation and dynamic entry; little-endian only.

Leaves out: what the reader and the builder do not use.

Sources: System V ABI, edition 4.1, chapters 4 and 5; AMD64 psABI 1.0, section 4.4.1 (relocation types).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol

from attrs import field, frozen

__all__ = [
    "PAGE_BYTES",
    "ElfImage",
    "ElfObject",
    "FindsSymbols",
    "Linking",
    "Relocation",
    "Section",
    "Segment",
    "Symbol",
    "ThreadStorage",
    "VersionNeed",
]

PAGE_BYTES = 4096

MAGIC = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1
ET_REL, ET_EXEC, ET_DYN = 1, 2, 3
EM_X86_64 = 62
TYPE_NAMES = {ET_REL: "ET_REL", ET_EXEC: "ET_EXEC", ET_DYN: "ET_DYN"}

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELOCATION = struct.Struct("<QQq")
DYNAMIC = struct.Struct("<QQ")

PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_TLS, PT_GNU_STACK, PT_GNU_RELRO = 1, 2, 3, 7, 0x6474E551, 0x6474E552
PF_X, PF_W, PF_R = 1, 2, 4
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_HASH, SHT_DYNAMIC, SHT_NOTE, SHT_NOBITS = range(1, 9)
SHT_REL, SHT_DYNSYM, SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY, SHT_GROUP = 9, 11, 14, 15, 16, 17
SHT_X86_64_UNWIND = 0x70000001
SHF_WRITE, SHF_ALLOC, SHF_EXEC, SHF_INFO_LINK, SHF_TLS, SHF_COMPRESSED = 1, 2, 4, 0x40, 0x400, 0x800
SHN_UNDEF, SHN_LORESERVE, SHN_ABS, SHN_COMMON = 0, 0xFF00, 0xFFF1, 0xFFF2
GRP_COMDAT = 1

DT_NEEDED, DT_SYMBOLIC = 1, 16
DT_HASH, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_RELAENT = 4, 5, 6, 7, 8, 9
DT_STRSZ, DT_SYMENT, DT_SONAME, DT_PLTRELSZ, DT_PLTREL, DT_TEXTREL, DT_JMPREL = 10, 11, 14, 2, 20, 22, 23
DT_FLAGS, DT_RELRSZ, DT_RELR, DT_GNU_HASH, DT_RELACOUNT = 30, 35, 36, 0x6FFFFEF5, 0x6FFFFFF9
DT_VERSYM, DT_VERDEF, DT_VERDEFNUM = 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFD
DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF
DF_SYMBOLIC, DF_TEXTREL = 2, 4

RELOCATION_NAMES = {
    1: "64",
    2: "PC32",
    3: "GOT32",
    4: "PLT32",
    5: "COPY",
    6: "GLOB_DAT",
    7: "JUMP_SLOT",
    8: "RELATIVE",
    9: "GOTPCREL",
    10: "32",
    11: "32S",
    12: "16",
    13: "PC16",
    14: "8",
    15: "PC8",
    16: "DTPMOD64",
    17: "DTPOFF64",
    18: "TPOFF64",
    19: "TLSGD",
    20: "TLSLD",
    21: "DTPOFF32",
    22: "GOTTPOFF",
    23: "TPOFF32",
    24: "PC64",
    25: "GOTOFF64",
    26: "GOTPC32",
    27: "GOT64",
    28: "GOTPCREL64",
    29: "GOTPC64",
    30: "GOTPLT64",
    31: "PLTOFF64",
    32: "SIZE32",
    33: "SIZE64",
    34: "GOTPC32_TLSDESC",
    35: "TLSDESC_CALL",
    36: "TLSDESC",
    37: "IRELATIVE",
    41: "GOTPCRELX",
    42: "REX_GOTPCRELX",
}
"""Relocation type -> name without its prefix R_X86_64_; type 0 (NONE) asks for nothing and is passed over."""

RELOCATION_TYPES = {name: number for number, name in RELOCATION_NAMES.items()}

R_GLOB_DAT, R_RELATIVE = 6, 8

LINKED_RELOCATIONS = frozenset(
    [
        "64",
        "PC32",
        "COPY",
        "GLOB_DAT",
        "JUMP_SLOT",
        "RELATIVE",
        "32",
        "DTPMOD64",
        "DTPOFF64",
        "TPOFF64",
        "PC64",
        "SIZE32",
        "SIZE64",
        "TLSDESC",
        "IRELATIVE",
    ]
)
"""What a link editor leaves in a program or shared object for the loader."""

OBJECT_RELOCATIONS = frozenset(RELOCATION_TYPES) - frozenset(
    ("COPY", "GLOB_DAT", "JUMP_SLOT", "RELATIVE", "IRELATIVE", "TLSDESC")
)
"""What a compiler or assembler leaves in a relocatable object."""

RELOCATION_BYTES = dict.fromkeys(RELOCATION_TYPES, 8) | {
    "TLSDESC": 16,
    "COPY": 0,
    "TLSDESC_CALL": 0,
    "16": 2,
    "PC16": 2,
    "8": 1,
    "PC8": 1,
}
for _name in [
    "PC32",
    "GOT32",
    "PLT32",
    "GOTPCREL",
    "32",
    "32S",
    "TLSGD",
    "TLSLD",
    "DTPOFF32",
    "GOTTPOFF",
    "TPOFF32",
    "GOTPC32",
    "SIZE32",
    "GOTPC32_TLSDESC",
    "GOTPCRELX",
    "REX_GOTPCRELX",
]:
    RELOCATION_BYTES[_name] = 4
"""How many bytes each relocation writes; COPY writes as many as its symbol has."""

VISIBILITIES = ("default", "internal", "hidden", "protected")
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
    """An entry of the symbol table; an undefined one is an import.

    `section` is the section's number (0 undefined, `SHN_ABS`, `SHN_COMMON`).  `version` is the version that a
    definition has or an import asks for, `version_index` its number in this file, `version_hidden` that it is not the
    default one.
    """

    name: str
    value: int
    size_bytes: int
    kind: str
    binding: str
    defined: bool
    visibility: str = "default"
    section: int = 0
    version: str = ""
    version_index: int = 0
    version_hidden: bool = False

    @property
    def absolute(self) -> bool:
        """Whether the value is no address of this file, so that it does not move with it."""
        return self.section == SHN_ABS


@frozen(kw_only=True)
class Relocation:
    """One place to fill in: `kind` without R_X86_64_, `symbol` an index into the symbols (0: none)."""

    offset: int
    kind: str
    symbol: int
    addend: int


@frozen(kw_only=True)
class ThreadStorage:
    """PT_TLS: the first bytes of each thread's block; `virtual_address` and `alignment` decide where it lies."""

    virtual_address: int
    file_bytes: int
    memory_bytes: int
    alignment: int


@frozen(kw_only=True)
class VersionNeed:
    """A version that the library called `library` must define, unless `weak`."""

    library: str
    version: str
    weak: bool


class FindsSymbols(Protocol):
    """A hash table of symbols."""

    def candidates(self, name: str) -> Iterator[int]:
        """Yield the indices of the symbols that may have this name, in the table's order."""


@frozen(kw_only=True)
class Linking:
    """What a dynamic linker needs beyond segments, symbols and relocations.

    `relro` is the address range that becomes read-only after relocation; `hash_table` finds definitions by name.
    """

    interpreter: str = ""
    soname: str = ""
    needed: tuple[str, ...] = ()
    symbolic: bool = False
    versioned: bool = False
    relro: tuple[int, int] | None = None
    thread_storage: ThreadStorage | None = None
    version_needs: tuple[VersionNeed, ...] = ()
    versions_defined: tuple[str, ...] = ()
    hash_table: FindsSymbols | None = field(default=None, eq=False, repr=False)


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
    linking: Linking = field(factory=Linking, repr=False)

    @property
    def first_page(self) -> int:
        """Return the address of the page that holds the first segment; where an ET_EXEC must lie."""
        return self.segments[0].virtual_address // PAGE_BYTES * PAGE_BYTES

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


@frozen(kw_only=True)
class Section:
    """A section of a relocatable object that goes into memory; `relocations` have offsets within it."""

    index: int
    name: str
    kind: int
    writable: bool
    executable: bool
    alignment: int
    size_bytes: int
    data: bytes = field(repr=False)
    relocations: tuple[Relocation, ...] = field(default=(), repr=False)

    @property
    def read_only_after_relocation(self) -> bool:
        """Whether nothing but relocation writes to it, though its flags say writable."""
        return not self.writable or self.kind in _ARRAYS or self.name.startswith(".data.rel.ro")


_ARRAYS = (SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY)


@frozen(kw_only=True)
class ElfObject:
    """A relocatable object (ET_REL) as a module loader needs it: sections in file order, all symbols."""

    type: str
    machine: str
    sections: tuple[Section, ...] = field(repr=False)
    symbols: tuple[Symbol, ...] = field(repr=False)
    modinfo: tuple[tuple[str, str], ...]
    version_record: bytes
    has_thread_storage: bool

    @property
    def imports(self) -> tuple[str, ...]:
        """Return the names that others must define."""
        return tuple(symbol.name for symbol in self.symbols if not symbol.defined and symbol.name)

    @property
    def exports(self) -> tuple[Symbol, ...]:
        """Return the symbols that others may use."""
        return tuple(
            symbol
            for symbol in self.symbols
            if symbol.defined and symbol.binding != "local" and symbol.visibility in ("default", "protected")
        )

    def info(self, key: str) -> str:
        """Return a value of `.modinfo`, or an empty text."""
        return dict(self.modinfo).get(key, "")
