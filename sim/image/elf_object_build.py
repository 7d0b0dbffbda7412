"""Builds small relocatable objects: the kernel modules of a simulated image, of the type that real ones have.

Models: the sections of a `ModuleSpec` (`.text`, `.rodata`, `.data`, `.bss`, `.modinfo`, `.version`), a table of the
addresses of imports in `.data.rel.ro`, symbols, and relocations of type R_X86_64_64 for pointers and imports.

Leaves out: what compilers add beyond: groups, GOT references, notes, debug data; the code makes no references.

Sources: System V ABI, edition 4.1, chapter 4; AMD64 psABI 1.0, section 4.4.
"""

from __future__ import annotations

from attrs import frozen

from sim.image import elf_format as f
from sim.image.elf_build import ModuleSpec, check_spec
from sim.image.elf_layout import SLOT_BYTES, Strings, modinfo

__all__ = ["build_object"]

_FUNCTION, _OBJECT, _SECTION, _GLOBAL = 2, 1, 3, 1
_TEXT, _RODATA, _DATA, _BSS, _TABLE = 1, 2, 3, 4, 5
_SECTION_SYMBOLS = (_TEXT, _RODATA, _DATA, _BSS)  # symbol number = section number
_FIRST_GLOBAL = 1 + len(_SECTION_SYMBOLS)
_R_64 = f.RELOCATION_TYPES["64"]


@frozen(kw_only=True)
class _Section:
    name: str
    kind: int
    flags: int
    content: bytes
    alignment: int = 8
    size: int | None = None
    link: int = 0
    info: int = 0
    entry_bytes: int = 0


def build_object(spec: ModuleSpec) -> bytes:
    """Build the module's file; ValueError if an export, import or pointer does not fit."""
    check_spec(spec)
    names = Strings()
    sections = _loaded_sections(spec)
    symbols = _symbols(spec, names)
    table = len(sections) + 3
    for name, target, content in (
        (".rela.data", _DATA, _pointers(spec)),
        (".rela.data.rel.ro", _TABLE, _imports(spec)),
    ):
        sections.append(
            _Section(
                name=name,
                kind=f.SHT_RELA,
                flags=f.SHF_INFO_LINK,
                content=content,
                link=table,
                info=target,
                entry_bytes=f.RELOCATION.size,
            )
        )
    sections.append(
        _Section(
            name=".symtab",
            kind=f.SHT_SYMTAB,
            flags=0,
            content=symbols,
            link=table + 1,
            info=_FIRST_GLOBAL,
            entry_bytes=f.SYMBOL.size,
        )
    )
    sections.append(
        _Section(name=".strtab", kind=f.SHT_STRTAB, flags=0, content=bytes(names.data), alignment=1)
    )
    return _file(sections)


def _loaded_sections(spec: ModuleSpec) -> list[_Section]:
    writable = f.SHF_ALLOC | f.SHF_WRITE
    progbits = f.SHT_PROGBITS
    sections = [
        _Section(
            name=".text", kind=progbits, flags=f.SHF_ALLOC | f.SHF_EXEC, content=spec.text, alignment=16
        ),
        _Section(name=".rodata", kind=progbits, flags=f.SHF_ALLOC, content=spec.rodata, alignment=64),
        _Section(name=".data", kind=progbits, flags=writable, content=spec.data, alignment=64),
        _Section(
            name=".bss", kind=f.SHT_NOBITS, flags=writable, content=b"", alignment=64, size=spec.bss_bytes
        ),
        _Section(
            name=".data.rel.ro", kind=progbits, flags=writable, content=bytes(SLOT_BYTES * len(spec.imports))
        ),
        _Section(name=".modinfo", kind=progbits, flags=f.SHF_ALLOC, content=modinfo(spec), alignment=1),
    ]
    if spec.version_record:
        record = spec.version_record
        sections.append(
            _Section(name=".version", kind=progbits, flags=f.SHF_ALLOC, content=record, alignment=1)
        )
    return sections


def _symbols(spec: ModuleSpec, names: Strings) -> bytes:
    table = bytes(f.SYMBOL.size)
    for section in _SECTION_SYMBOLS:
        table += f.SYMBOL.pack(0, _SECTION, 0, section, 0, 0)
    for export in spec.exports:
        kind = _FUNCTION if export.area == "text" else _OBJECT
        section, value = _place(spec, export.area, export.offset)
        name_at = names.add(export.name)
        table += f.SYMBOL.pack(name_at, _GLOBAL << 4 | kind, 0, section, value, export.size_bytes)
    for name in spec.imports:
        table += f.SYMBOL.pack(names.add(name), _GLOBAL << 4, 0, f.SHN_UNDEF, 0, 0)
    return table


def _place(spec: ModuleSpec, area: str, offset: int) -> tuple[int, int]:
    """Return section and value of an offset in an area; the zero part of the data is a section of its own."""
    if area == "data" and offset >= len(spec.data) and spec.bss_bytes:
        return _BSS, offset - len(spec.data)
    return {"text": _TEXT, "rodata": _RODATA, "data": _DATA}[area], offset


def _pointers(spec: ModuleSpec) -> bytes:
    table = b""
    for pointer in spec.pointers:
        section, value = _place(spec, pointer.area, pointer.target)
        table += f.RELOCATION.pack(pointer.offset, section << 32 | _R_64, value)
    return table


def _imports(spec: ModuleSpec) -> bytes:
    first = _FIRST_GLOBAL + len(spec.exports)
    return b"".join(
        f.RELOCATION.pack(index * SLOT_BYTES, (first + index) << 32 | _R_64, 0)
        for index in range(len(spec.imports))
    )


def _file(sections: list[_Section]) -> bytes:
    names = Strings()
    body = bytearray(f.HEADER.size)
    table = bytearray(f.SECTION_HEADER.size)
    own = _Section(name=".shstrtab", kind=f.SHT_STRTAB, flags=0, content=b"", alignment=1)
    offsets = {section.name: names.add(section.name) for section in (*sections, own)}
    for section in (*sections, own):
        content = bytes(names.data) if section is own else section.content
        body += bytes(-len(body) % section.alignment)
        table += f.SECTION_HEADER.pack(
            offsets[section.name],
            section.kind,
            section.flags,
            0,
            len(body),
            len(content) if section.size is None else section.size,
            section.link,
            section.info,
            section.alignment,
            section.entry_bytes,
        )
        body += content
    body += bytes(-len(body) % 8)
    count = len(sections) + 2
    body[: f.HEADER.size] = f.HEADER.pack(
        f.MAGIC.ljust(16, b"\0"),
        f.ET_REL,
        f.EM_X86_64,
        1,
        0,
        0,
        len(body),
        0,
        f.HEADER.size,
        0,
        0,
        f.SECTION_HEADER.size,
        count,
        count - 1,
    )
    return bytes(body + table)
