"""ELF64 files: the values that a file holds, its strict readers and its builder.

Models: x86-64 programs (ET_EXEC) and shared objects (ET_DYN) as a loader sees them: loadable segments with their
rights, dynamic symbols with versions, relocations; relocatable objects (ET_REL) with sections and all symbols; two
records of this project's modules, `.modinfo` (name, version, license, provider) and `.version`.

Leaves out: lazy binding, notes and debug data.

Sources: System V ABI, edition 4.1, chapters 4 and 5; AMD64 psABI 1.0, section 4.4; generic ABI, DT_RELR (2022).
"""

from __future__ import annotations

from sim.image.elf_build import Export, ModuleSpec, Pointer, build_module
from sim.image.elf_object import read_object
from sim.image.elf_object_build import build_object
from sim.image.elf_read import read_elf
from sim.image.elf_text import shown
from sim.image.elf_values import (
    ElfImage,
    ElfObject,
    Linking,
    Relocation,
    Section,
    Segment,
    Symbol,
    ThreadStorage,
    VersionNeed,
)

__all__ = [
    "MODULE_BUILDERS",
    "ElfImage",
    "ElfObject",
    "Export",
    "Linking",
    "ModuleSpec",
    "Pointer",
    "Relocation",
    "Section",
    "Segment",
    "Symbol",
    "ThreadStorage",
    "VersionNeed",
    "build_module",
    "build_object",
    "read_elf",
    "read_module",
    "read_object",
    "shown",
]

MODULE_BUILDERS = {"shared": build_module, "object": build_object}
"""What builds a module, by type: a shared object (ET_DYN) or a relocatable object (ET_REL)."""

_TYPE_AT = slice(16, 18)
_RELOCATABLE = b"\x01\x00"


def read_module(data: bytes) -> ElfImage | ElfObject:
    """Read a file of any type that is loaded; raises FormatError (LimitError for what is too large)."""
    return read_object(data) if data[_TYPE_AT] == _RELOCATABLE else read_elf(data)
