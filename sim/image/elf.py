"""ELF64 modules: the values that a module file holds, its strict reader and its builder.

Models: x86-64 shared objects (ET_DYN) as a loader sees them: loadable segments with their rights, dynamic symbols,
relocations, and two records of this project's modules, `.modinfo` (name, version, license, provider) and `.version`.

Leaves out: relocatable objects (ET_REL), which real VMkernel drivers are; thread-local storage beyond recording that a
segment of it is there; lazy binding, symbol versions, notes and debug data.

Sources: System V ABI, edition 4.1, chapters 4 and 5; AMD64 psABI 1.0, section 4.4; generic ABI, DT_RELR (2022).
"""

from __future__ import annotations

from sim.image.elf_build import Export, ModuleSpec, Pointer, build_module
from sim.image.elf_format import ElfImage, Relocation, Segment, Symbol
from sim.image.elf_read import read_elf

__all__ = [
    "ElfImage",
    "Export",
    "ModuleSpec",
    "Pointer",
    "Relocation",
    "Segment",
    "Symbol",
    "build_module",
    "read_elf",
]
