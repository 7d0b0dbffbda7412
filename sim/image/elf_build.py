"""Builds small ELF64 modules: the drivers and kernel parts of a simulated image.

Models: a shared object with code, constants, data with its zero part, exports, imports through a table of addresses,
and relative relocations for pointers in data.  What is built here loads with a real dynamic linker.

Leaves out: procedure linkage tables, notes, thread storage, RELRO.  The contents of `.modinfo` and `.version` are this
project's choice; ESXi's own formats are not public.

Sources: System V ABI, edition 4.1, chapters 4 and 5; AMD64 psABI 1.0, section 4.4.
"""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen, validators

from sim.image.elf_layout import SLOT_BYTES, ModuleLayout

__all__ = ["Export", "ModuleSpec", "Pointer", "build_module", "check_spec"]

Area = Literal["text", "rodata", "data"]

_AREAS = ("text", "rodata", "data")


def _symbol_name(_instance: object, _attribute: object, value: str) -> None:
    if not value or not value.isascii() or not value.isprintable() or len(value) > 255:
        raise ValueError(f"a symbol name is 1 to 255 printable ASCII characters, got {value!r}")


@frozen(kw_only=True)
class Export:
    """A symbol that others may use: an offset in the code ("text": a function) or in constants or data."""

    name: str = field(validator=_symbol_name)
    area: Area = field(default="text", validator=validators.in_(_AREAS))
    offset: int = 0
    size_bytes: int = 0


@frozen(kw_only=True)
class Pointer:
    """Eight bytes at `offset` of the data that the loader sets to the address of (`area`, `target`)."""

    offset: int
    area: Area = field(validator=validators.in_(_AREAS))
    target: int = 0


@frozen(kw_only=True)
class ModuleSpec:
    """What goes into a module; the entry point is the export named `init_module`, or the first byte of the code.

    `needed` are the libraries that a program or library needs, `soname` its own name as a library (default: `name`).
    """

    name: str
    version: str
    license: str = "Proprietary"
    provider: str = ""
    text: bytes = field(default=b"\x31\xc0\xc3", repr=False)
    rodata: bytes = field(default=b"", repr=False)
    data: bytes = field(default=b"", repr=False)
    bss_bytes: int = field(default=0, validator=validators.ge(0))
    exports: tuple[Export, ...] = ()
    imports: tuple[str, ...] = ()
    pointers: tuple[Pointer, ...] = ()
    version_record: bytes = b""
    needed: tuple[str, ...] = ()
    soname: str = ""


def build_module(spec: ModuleSpec) -> bytes:
    """Build the module's file; ValueError if an export, import or pointer does not fit."""
    check_spec(spec)
    return ModuleLayout(spec).file()


def check_spec(spec: ModuleSpec) -> None:
    """Raise ValueError unless exports, imports and pointers fit their areas and no symbol is named twice."""
    sizes = {"text": len(spec.text), "rodata": len(spec.rodata), "data": len(spec.data) + spec.bss_bytes}
    if not spec.text:
        raise ValueError("a module needs code")
    for export in spec.exports:
        if not 0 <= export.offset <= export.offset + export.size_bytes <= sizes[export.area]:
            raise ValueError(f"export {export.name} lies outside its area")
    for pointer in spec.pointers:
        if (
            not 0 <= pointer.offset <= len(spec.data) - SLOT_BYTES
            or not 0 <= pointer.target <= sizes[pointer.area]
        ):
            raise ValueError(f"the pointer at {pointer.offset} lies or points outside")
    names = [export.name for export in spec.exports] + list(spec.imports)
    if len(dict.fromkeys(names)) != len(names):
        raise ValueError("a symbol is named twice")
