"""From an ELF image and a base to the bytes of its segments in memory: the pure half of the loader of shared objects.

Models: the x86-64 relocations of shared objects that a kernel loader applies (RELATIVE, 64, GLOB_DAT, JUMP_SLOT, 32,
PC32, PC64, SIZE32, SIZE64), with own symbols before those of other modules.  A symbol that nobody defines is an error
unless it is weak: a weak one is 0, where nothing is mapped.

Leaves out: thread-local, indirect-function and copy relocations, which are refused in a kernel (`linkmap` applies them
for user worlds); symbol versions, which no kernel interface has here.

Sources: System V ABI AMD64 supplement, section 4.4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen

from sim.image.elf import ElfImage, Relocation, Symbol, shown
from sim.kernel.segment_buffers import RelocatedSegment, RelocationError, SegmentBuffers, described

__all__ = [
    "FindSymbol",
    "Imports",
    "RelocatedModule",
    "RelocatedSegment",
    "RelocationError",
    "fit",
    "relocate",
]

FindSymbol = Callable[[str], tuple[str, int] | None]
"""Returns the providing module and the address of a symbol, or None."""

NAMES_SHOWN = 5

_FOUR_BYTES = ("32", "PC32", "SIZE32")
_MASK64 = (1 << 64) - 1


@frozen(kw_only=True)
class RelocatedModule:
    """A module ready to be mapped; `unresolved` names the symbols that are 0 because nobody defines them."""

    entry: int
    segments: tuple[RelocatedSegment, ...]
    exports: Mapping[str, int]
    providers: tuple[str, ...]
    unresolved: tuple[str, ...]


class Imports:
    """Looks up what other modules define, and keeps who defined it and what nobody does."""

    def __init__(self, find: FindSymbol) -> None:
        self._find = find
        self._providers: dict[str, None] = {}
        self._unresolved: dict[str, bool] = {}

    def address(self, symbol: Symbol) -> int:
        """Return the address of an undefined symbol, 0 if nobody defines it."""
        found = self._find(symbol.name)
        if found is None:
            weak = symbol.binding == "weak"
            self._unresolved[symbol.name] = self._unresolved.get(symbol.name, True) and weak
            return 0
        self._providers[found[0]] = None
        return found[1]

    @property
    def providers(self) -> tuple[str, ...]:
        """Return the modules that defined something, in order of first use."""
        return tuple(self._providers)

    @property
    def unresolved(self) -> tuple[str, ...]:
        """Return the names that nobody defines, weak ones too."""
        return tuple(self._unresolved)

    def check(self) -> None:
        """Raise `RelocationError` if a symbol that is not weak is defined by nobody."""
        missing = [name for name, weak in self._unresolved.items() if not weak]
        if missing:
            more = f" and {len(missing) - NAMES_SHOWN} more" if len(missing) > NAMES_SHOWN else ""
            text = f"nobody defines {', '.join(map(shown, missing[:NAMES_SHOWN]))}{more}"
            raise RelocationError("module.unresolved", text)


def relocate(image: ElfImage, base: int, find: FindSymbol, *, strict: bool = True) -> RelocatedModule:
    """Return `image` as it stands in memory when its first page lies at `base`.

    Errors: `RelocationError`; with `strict` also for a symbol that nobody defines and that is not weak.
    """
    relocator = _Relocator(image, base, find)
    return relocator.module(strict=strict)


class _Relocator:
    """The buffers of one module while relocations are applied to them."""

    def __init__(self, image: ElfImage, base: int, find: FindSymbol) -> None:
        self._image = image
        self._buffers = SegmentBuffers(image, base)
        self._slide = self._buffers.slide
        self._imports = Imports(find)

    def module(self, *, strict: bool) -> RelocatedModule:
        for relocation in self._image.relocations:
            self._apply(relocation)
        if strict:
            self._imports.check()
        image = self._image
        return RelocatedModule(
            entry=image.entry + self._slide if image.entry else 0,
            segments=self._buffers.relocated(),
            exports={symbol.name: self._address(symbol) for symbol in image.exports if symbol.name},
            providers=self._imports.providers,
            unresolved=self._imports.unresolved,
        )

    def _apply(self, relocation: Relocation) -> None:
        kind, addend = relocation.kind, relocation.addend
        match kind:
            case "RELATIVE":
                value = self._slide + addend
            case "64":
                value = self._value(relocation) + addend
            case "GLOB_DAT" | "JUMP_SLOT":
                value = self._value(relocation)
            case "32":
                value = self._value(relocation) + addend
            case "PC32" | "PC64":
                value = self._value(relocation) + addend - relocation.offset - self._slide
            case "SIZE32" | "SIZE64":
                value = self._image.symbols[relocation.symbol].size_bytes + addend
            case _:
                raise RelocationError("module.relocation", f"{described(relocation)} is not supported")
        if kind in _FOUR_BYTES:
            value = fit(value, kind, described(relocation))
            self._buffers.store(relocation.offset, value, 4, relocation)
        else:  # any value fits modulo 2**64
            self._buffers.store(relocation.offset, value, 8, relocation)

    def _value(self, relocation: Relocation) -> int:
        """Return the address of the relocation's symbol: the module's own, another module's, or 0 for nobody's."""
        if not relocation.symbol:
            return self._slide
        symbol = self._image.symbols[relocation.symbol]
        if symbol.kind in ("tls", "ifunc"):
            raise RelocationError(
                "module.relocation", f"symbol {shown(symbol.name)} has the kind {symbol.kind}"
            )
        return self._address(symbol) if symbol.defined else self._imports.address(symbol)

    def _address(self, symbol: Symbol) -> int:
        return symbol.value if symbol.absolute else symbol.value + self._slide


_UNSIGNED = {"32": 32, "SIZE32": 32}
_SIGNED = dict.fromkeys(
    ["PC32", "PLT32", "32S", "GOT32", "GOTPCREL", "GOTPCRELX", "REX_GOTPCRELX", "GOTPC32"], 32
) | {
    "PC16": 16,
    "PC8": 8,
}
_EITHER = {"16": 16, "8": 8}


def fit(value: int, kind: str, what: str) -> int:
    """Return `value`, taken modulo 2**64, if the field of relocation `kind` can hold it; else raise `RelocationError`.

    Fields of 8 and 16 bits hold signed or unsigned values, as the link editors take them; those of 64 bits wrap.
    """
    value &= _MASK64
    if kind not in _UNSIGNED:
        value -= value >> 63 << 64
    if kind in _UNSIGNED:
        bits, low, high = _UNSIGNED[kind], 0, 1 << _UNSIGNED[kind]
    elif kind in _SIGNED:
        bits = _SIGNED[kind]
        low, high = -(1 << bits - 1), 1 << bits - 1
    elif kind in _EITHER:
        bits = _EITHER[kind]
        low, high = -(1 << bits - 1), 1 << bits
    else:
        return value
    if not low <= value < high:
        raise RelocationError("module.relocation", f"{what}: {value:#x} does not fit in {bits} bits")
    return value
