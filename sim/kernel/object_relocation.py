"""From a relocatable object and the places of its sections to the bytes in memory: the pure half for ET_REL.

Models: every x86-64 relocation that compilers leave in objects outside of thread storage, with a global offset table
(GOT) and a procedure linkage table (PLT) built where they are asked for: a GOT slot holds the symbol's address; a PLT
entry jumps through the slot, and a call uses it only if the function is further away than 2 GiB.  Symbols: the
object's own first, then other modules'; one that nobody defines is an error unless it is weak, and is then 0.

Leaves out: relaxation (a load through the GOT stays one), thread-local relocations and indirect functions, which are
refused: a kernel module has neither.

Sources: AMD64 psABI 1.0, section 4.4.1 (table 4.9) and appendix B.2 for what GOTPCRELX allows and does not demand.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from sim.image import elf_format as f
from sim.image.elf import ElfObject, Relocation, Section, Symbol, shown
from sim.kernel.relocation import FindSymbol, Imports, fit
from sim.kernel.segment_buffers import RelocationError

__all__ = [
    "GOT_SLOT_BYTES",
    "PLT_ENTRY_BYTES",
    "ObjectPlaces",
    "RelocatedObject",
    "Tables",
    "relocate_object",
]

GOT_SLOT_BYTES = 8
PLT_ENTRY_BYTES = 8
GOT_NAME = "_GLOBAL_OFFSET_TABLE_"

_JUMP = b"\xff\x25"  # jmp *disp32(%rip)
_FILLER = b"\xcc"
_MASK64 = (1 << 64) - 1
_THROUGH_SLOT = (
    "GOT32",
    "GOT64",
    "GOTPCREL",
    "GOTPCRELX",
    "REX_GOTPCRELX",
    "GOTPCREL64",
    "GOTPLT64",
)
_CALLS = ("PLT32", "PLTOFF64")


@frozen(kw_only=True)
class Tables:
    """The symbols (by index) that need a GOT slot and a PLT entry, in order of first use."""

    slots: tuple[int, ...]
    entries: tuple[int, ...]

    @classmethod
    def of(cls, module: ElfObject) -> Tables:
        """Return the tables that the relocations of `module` ask for."""
        slots: dict[int, None] = {}
        entries: dict[int, None] = {}
        for section in module.sections:
            for relocation in section.relocations:
                symbol = relocation.symbol
                if relocation.kind in _THROUGH_SLOT:
                    slots[symbol] = None
                elif relocation.kind in _CALLS and not module.symbols[symbol].defined:
                    entries[symbol] = None
        return cls(slots=tuple(slots | entries), entries=tuple(entries))


@frozen(kw_only=True)
class ObjectPlaces:
    """Addresses: of each section and common symbol by index, of both tables, and of the symbol that names the GOT."""

    sections: Mapping[int, int]
    commons: Mapping[int, int] = field(factory=dict)
    got: int = 0
    plt: int = 0
    got_symbol: int = 0


@frozen(kw_only=True)
class RelocatedObject:
    """Bytes of each section that has some, of both tables; `values` are the addresses of the symbols by index."""

    sections: Mapping[int, bytes] = field(repr=False)
    got: bytes = field(repr=False)
    plt: bytes = field(repr=False)
    exports: Mapping[str, int] = field(repr=False)
    providers: tuple[str, ...]
    unresolved: tuple[str, ...]


def relocate_object(
    module: ElfObject,
    places: ObjectPlaces,
    find: FindSymbol,
    *,
    tables: Tables | None = None,
    strict: bool = True,
) -> RelocatedObject:
    """Return `module` as it stands in memory at `places`.

    Errors: `RelocationError`; with `strict` also for a symbol that nobody defines and that is not weak.
    """
    work = _Relocator(module, places, find, tables if tables is not None else Tables.of(module))
    made = {section.index: work.section(section) for section in module.sections if section.data}
    got, plt = work.got(), work.plt()
    if strict:
        work.imports.check()
    return RelocatedObject(
        sections=made,
        got=got,
        plt=plt,
        exports=work.exports(),
        providers=work.imports.providers,
        unresolved=work.imports.unresolved,
    )


class _Relocator:
    """The addresses of one module while its sections are relocated."""

    def __init__(self, module: ElfObject, places: ObjectPlaces, find: FindSymbol, tables: Tables) -> None:
        self._module = module
        self._places = places
        self._tables = tables
        self.imports = Imports(find)
        self._slots = {symbol: places.got + GOT_SLOT_BYTES * at for at, symbol in enumerate(tables.slots)}
        self._entries = {
            symbol: places.plt + PLT_ENTRY_BYTES * at for at, symbol in enumerate(tables.entries)
        }
        self._globals = {
            symbol.name: index
            for index, symbol in enumerate(module.symbols)
            if symbol.defined and symbol.binding != "local"
        }
        self._values: dict[int, int] = {}

    def section(self, section: Section) -> bytes:
        """Return the relocated bytes of a section."""
        if not section.relocations:
            return section.data
        base = self._places.sections[section.index]
        data = bytearray(section.data)
        for relocation in section.relocations:
            size = f.RELOCATION_BYTES[relocation.kind]
            value = self._field(section, relocation, base + relocation.offset)
            data[relocation.offset : relocation.offset + size] = (value & _MASK64).to_bytes(8, "little")[
                :size
            ]
        return bytes(data)

    def got(self) -> bytes:
        """Return the bytes of the global offset table."""
        return b"".join(
            (self._value(symbol) & _MASK64).to_bytes(8, "little") for symbol in self._tables.slots
        )

    def plt(self) -> bytes:
        """Return the code of the linkage table: a jump through the slot for each entry."""
        code = b""
        for symbol, entry in self._entries.items():
            distance = self._slots[symbol] - (entry + len(_JUMP) + 4)
            fit(distance, "PC32", "a jump of the linkage table")
            jump = _JUMP + (distance & 0xFFFFFFFF).to_bytes(4, "little")
            code += jump.ljust(PLT_ENTRY_BYTES, _FILLER)
        return code

    def exports(self) -> dict[str, int]:
        """Return the addresses of what others may use, as far as it is in memory."""
        return {
            symbol.name: self.own_address(symbol, None)
            for symbol in self._module.exports
            if symbol.name and (symbol.section >= f.SHN_LORESERVE or symbol.section in self._places.sections)
        }

    def _field(self, section: Section, relocation: Relocation, place: int) -> int:
        """Return what the relocation stores at `place`, checked to fit."""
        what = f"{shown(section.name)}: R_X86_64_{relocation.kind} at {relocation.offset:#x}"
        kind, symbol, addend, got = (
            relocation.kind,
            relocation.symbol,
            relocation.addend,
            self._places.got_symbol,
        )
        match kind:
            case "64" | "32" | "32S" | "16" | "8":
                value = self._value(symbol) + addend
            case "PC64" | "PC32" | "PC16" | "PC8":
                value = self._value(symbol) + addend - place
            case "PLT32":
                value = self._call(symbol, place, addend) + addend - place
            case "PLTOFF64":
                value = self._value(symbol) - got + addend
            case "GOTPCREL" | "GOTPCRELX" | "REX_GOTPCRELX" | "GOTPCREL64":
                value = self._slots[symbol] + addend - place
            case "GOT32" | "GOT64" | "GOTPLT64":
                value = self._slots[symbol] - got + addend
            case "GOTOFF64":
                value = self._value(symbol) + addend - got
            case "GOTPC32" | "GOTPC64":
                value = got + addend - place
            case "SIZE32" | "SIZE64":
                value = self._module.symbols[symbol].size_bytes + addend
            case _:
                raise RelocationError("module.relocation", f"{what} is not supported")
        return fit(value, kind, what)

    def _call(self, symbol: int, place: int, addend: int) -> int:
        """Return where a call goes: to the function, or to its table entry if it is too far away."""
        value = self._value(symbol)
        near = -(1 << 31) <= value + addend - place < 1 << 31
        return value if near or symbol not in self._entries else self._entries[symbol]

    def _value(self, index: int) -> int:
        """Return the address of a symbol by its index."""
        if index not in self._values:
            self._values[index] = self._address(index)
        return self._values[index]

    def _address(self, index: int) -> int:
        symbol = self._module.symbols[index]
        if symbol.kind in ("tls", "ifunc"):
            raise RelocationError(
                "module.relocation", f"symbol {shown(symbol.name)} has the kind {symbol.kind}"
            )
        if symbol.defined:
            return self.own_address(symbol, index)
        if not index:
            return 0
        if symbol.name == GOT_NAME:
            return self._places.got_symbol
        if symbol.name in self._globals:
            return self._value(self._globals[symbol.name])
        return self.imports.address(symbol)

    def own_address(self, symbol: Symbol, index: int | None) -> int:
        """Return the address of a symbol that the module defines; raises `RelocationError` if it is not loaded."""
        if symbol.absolute:
            return symbol.value
        if symbol.section == f.SHN_COMMON:
            return self._places.commons[index if index is not None else self._globals[symbol.name]]
        if symbol.section not in self._places.sections:
            text = f"symbol {shown(symbol.name) or index} lies in a section that is not loaded"
            raise RelocationError("module.relocation", text)
        return self._places.sections[symbol.section] + symbol.value
