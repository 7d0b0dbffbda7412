"""The values that ELF files are read into: segments or sections, symbols, relocations, and what a linker needs.

Models: a program or shared object (`ElfImage`) and a relocatable object (`ElfObject`); all frozen, all checked by the
readers that make them.

Leaves out: what no loader here uses.

Sources: System V ABI, edition 4.1, chapters 4 and 5; ELF Handling For Thread-Local Storage; Linux Standard Base 5.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from attrs import field, frozen

from sim.image import elf_format as f
from sim.image.elf_format import PAGE_BYTES

__all__ = [
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

_ARRAYS = (f.SHT_INIT_ARRAY, f.SHT_FINI_ARRAY, f.SHT_PREINIT_ARRAY)


@frozen(kw_only=True, slots=False)  # as all that is made for each file of a boot: this is the faster kind
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


@frozen(kw_only=True, slots=False)
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
        return self.section == f.SHN_ABS


@frozen(kw_only=True, slots=False)
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


@frozen(kw_only=True, slots=False)
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


@frozen(kw_only=True, slots=False)
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
