"""From an ELF image and a base to the bytes of its segments in memory: the pure half of the loader.

Models: the x86-64 relocations of shared objects that a kernel loader applies (RELATIVE, 64, GLOB_DAT, JUMP_SLOT, 32,
PC32), with own symbols before those of other modules.

Leaves out: thread-local, indirect-function and copy relocations, which are refused; symbol versions.

Sources: System V ABI AMD64 supplement, section 4.4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import field, frozen

from sim.errors import VerificationError
from sim.hw.mmu import Rights
from sim.image.elf import ElfImage, Relocation, Segment, Symbol

__all__ = ["RelocatedModule", "RelocatedSegment", "RelocationError", "relocate"]

PAGE_BYTES = 4096
_MASK64 = (1 << 64) - 1

FindSymbol = Callable[[str], tuple[str, int] | None]
"""Returns the providing module and the address of a symbol, or None."""


class RelocationError(VerificationError):
    """A relocation cannot be applied: its kind is not supported, or its value does not fit."""


@frozen(kw_only=True)
class RelocatedSegment:
    """The first bytes of a segment's pages, what to map them at, and how many bytes to map (the rest is zero)."""

    name: str
    base: int
    data: bytes = field(repr=False)
    size_bytes: int
    rights: Rights


@frozen(kw_only=True)
class RelocatedModule:
    """A module ready to be mapped."""

    entry: int
    segments: tuple[RelocatedSegment, ...]
    exports: Mapping[str, int]
    providers: tuple[str, ...]
    unresolved: tuple[str, ...]


def relocate(image: ElfImage, base: int, find: FindSymbol) -> RelocatedModule:
    """Return `image` as it stands in memory when its first page lies at `base`; raises `RelocationError`."""
    return _Relocator(image, base, find).module()


class _Relocator:
    """The buffers of one module while relocations are applied to them."""

    def __init__(self, image: ElfImage, base: int, find: FindSymbol) -> None:
        self._image = image
        self._slide = base - image.segments[0].virtual_address // PAGE_BYTES * PAGE_BYTES
        self._find = find
        self._buffers = [bytearray(_slack(segment)) + segment.data for segment in image.segments]
        self._providers: dict[str, None] = {}
        self._unresolved: dict[str, None] = {}

    def module(self) -> RelocatedModule:
        for relocation in self._image.relocations:
            self._apply(relocation)
        image = self._image
        return RelocatedModule(
            entry=image.entry + self._slide if image.entry else 0,
            segments=tuple(self._segment(index) for index in range(len(image.segments))),
            exports={symbol.name: symbol.value + self._slide for symbol in image.exports if symbol.name},
            providers=tuple(self._providers),
            unresolved=tuple(self._unresolved),
        )

    def _segment(self, index: int) -> RelocatedSegment:
        segment = self._image.segments[index]
        return RelocatedSegment(
            name=_segment_name(self._image.segments, index),
            base=segment.virtual_address - _slack(segment) + self._slide,
            data=bytes(self._buffers[index]),
            size_bytes=_slack(segment) + segment.memory_bytes,
            rights=_rights(segment),
        )

    def _apply(self, relocation: Relocation) -> None:
        place = relocation.offset + self._slide
        addend = relocation.addend
        match relocation.kind:
            case "RELATIVE":
                self._store(relocation, self._slide + addend, 8)
            case "64":
                self._store(relocation, self._value(relocation) + addend, 8)
            case "GLOB_DAT" | "JUMP_SLOT":
                self._store(relocation, self._value(relocation), 8)
            case "32":
                self._store_32(relocation, self._value(relocation) + addend, signed=False)
            case "PC32":
                self._store_32(relocation, self._value(relocation) + addend - place, signed=True)
            case _:
                text = f"R_X86_64_{relocation.kind} at {relocation.offset:#x} is not supported"
                raise RelocationError("module.relocation", text)

    def _value(self, relocation: Relocation) -> int:
        """Return the address of the relocation's symbol: the module's own, another module's, or 0 for nobody's."""
        if not relocation.symbol:
            return self._slide
        symbol = self._image.symbols[relocation.symbol]
        if symbol.kind in ("tls", "ifunc"):
            raise RelocationError("module.relocation", f"symbol {symbol.name} has the kind {symbol.kind}")
        return symbol.value + self._slide if symbol.defined else self._imported(symbol)

    def _imported(self, symbol: Symbol) -> int:
        found = self._find(symbol.name)
        if found is None:
            self._unresolved[symbol.name] = None
            return 0
        provider, address = found
        self._providers[provider] = None
        return address

    def _store_32(self, relocation: Relocation, value: int, *, signed: bool) -> None:
        low, high = (-(1 << 31), 1 << 31) if signed else (0, 1 << 32)
        if not low <= value < high:
            text = f"R_X86_64_{relocation.kind} at {relocation.offset:#x}: {value:#x} does not fit in 32 bits"
            raise RelocationError("module.relocation", text)
        self._store(relocation, value, 4)

    def _store(self, relocation: Relocation, value: int, size: int) -> None:
        for segment, buffer in zip(self._image.segments, self._buffers, strict=True):
            if segment.virtual_address <= relocation.offset and relocation.offset + size <= segment.end:
                at = relocation.offset - segment.virtual_address + _slack(segment)
                if at + size > len(buffer):
                    buffer.extend(bytes(at + size - len(buffer)))
                buffer[at : at + size] = (value & _MASK64).to_bytes(8, "little")[:size]
                return
        text = f"R_X86_64_{relocation.kind} at {relocation.offset:#x} lies in no segment"
        raise RelocationError("module.relocation", text)


def _slack(segment: Segment) -> int:
    """Return the bytes between the beginning of the segment's first page and the segment."""
    return segment.virtual_address % PAGE_BYTES


def _rights(segment: Segment) -> Rights:
    return Rights(write=segment.writable, execute=segment.executable)


def _segment_name(segments: tuple[Segment, ...], index: int) -> str:
    """Return text, rodata or data, with a number from the second of its kind on."""
    kinds = ["text" if each.executable else "data" if each.writable else "rodata" for each in segments]
    before = kinds[:index].count(kinds[index])
    return kinds[index] if not before else f"{kinds[index]}.{before + 1}"
