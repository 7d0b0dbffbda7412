"""Symbol versions: which version each symbol has or asks for, and which versions a file defines and needs.

Models: DT_VERSYM, DT_VERDEF and DT_VERNEED, read from untrusted bytes; each list ends at a named limit.

Leaves out: parents of a version (the second and later names of a definition), which no lookup reads.

Sources: Linux Standard Base 5.0, core, "Symbol Versioning".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from attrs import frozen

from sim.errors import FormatError, LimitError
from sim.image.elf_values import VersionNeed

__all__ = ["VERSIONS_MAX", "SymbolVersion", "VersionReader"]

VERSIONS_MAX = 2048
HIDDEN = 0x8000
BASE_FLAG, WEAK_FLAG = 1, 2

_WHAT = "ELF"
_WHERE = "symbol versions"
_DEFINITION = struct.Struct("<HHHHIII")
_DEFINED_NAME = struct.Struct("<II")
_NEED = struct.Struct("<HHIII")
_NEEDED_VERSION = struct.Struct("<IHHII")

Memory = Callable[[int, int], bytes]
Name = Callable[[int], str]


@frozen(kw_only=True)
class SymbolVersion:
    """A version by its number in the file: its name, and whether only those that ask for it may have it."""

    name: str
    hidden: bool = False


class VersionReader:
    """Reads the version tables of one file through `memory` (address, size) and `name` (offset of a string)."""

    def __init__(self, memory: Memory, name: Name) -> None:
        self._memory = memory
        self._name = name
        self.versions: dict[int, SymbolVersion] = {}
        self.defined: list[str] = []
        self.needs: list[VersionNeed] = []

    def definitions(self, address: int, count: int) -> None:
        """Take in DT_VERDEF."""
        for at in self._list(address, count, _DEFINITION.size):
            version, flags, number, names, _, name_at, _ = self._unpack(_DEFINITION, at)
            if version != 1 or not names:
                raise FormatError(_WHAT, _WHERE, "a definition of another kind than version 1")
            offset, _ = self._unpack(_DEFINED_NAME, at + name_at)
            name = self._name(offset)
            self.defined.append(name)
            if not flags & BASE_FLAG:
                self.versions[number & ~HIDDEN] = SymbolVersion(name=name)

    def needed(self, address: int, count: int) -> None:
        """Take in DT_VERNEED."""
        for at in self._list(address, count, _NEED.size):
            version, entries, file, first, _ = self._unpack(_NEED, at)
            if version != 1:
                raise FormatError(_WHAT, _WHERE, "a need of another kind than version 1")
            library = self._name(file)
            for entry in self._list(at + first, entries, _NEEDED_VERSION.size):
                _, flags, number, name_at, _ = self._unpack(_NEEDED_VERSION, entry)
                name = self._name(name_at)
                if len(self.needs) >= VERSIONS_MAX:
                    raise LimitError(_WHAT, _WHERE, f"more than {VERSIONS_MAX} versions needed")
                self.needs.append(VersionNeed(library=library, version=name, weak=bool(flags & WEAK_FLAG)))
                self.versions[number & ~HIDDEN] = SymbolVersion(name=name, hidden=bool(number & HIDDEN))

    def _list(self, address: int, count: int, entry_bytes: int) -> Iterator[int]:
        """Yield the addresses of linked entries; the last four bytes of each are the way to the next."""
        if count > VERSIONS_MAX:
            raise LimitError(_WHAT, _WHERE, f"{count} entries, at most {VERSIONS_MAX}")
        for _ in range(count):
            yield address
            step = int.from_bytes(self._memory(address + entry_bytes - 4, 4), "little")
            if not step:
                return
            address += step

    def _unpack(self, layout: struct.Struct, address: int) -> tuple[int, ...]:
        return layout.unpack(self._memory(address, layout.size))
