"""Links a program with its libraries as a dynamic linker does: load order, symbol scope, versions, relocations.

Models: DT_NEEDED in breadth-first order; lookup through each file's own hash table, in load order, with symbol
versions, weak, protected, hidden and local binding, and DT_SYMBOLIC; ET_EXEC at its fixed place, with COPY relocations
and with functions whose address is that of the program's own jump; RELATIVE (packed ones too), 64, 32, PC32, PC64,
GLOB_DAT, JUMP_SLOT, SIZE; the static thread-local layout and its three relocations.  Every binding is immediate.  A symbol
that nobody defines is an error unless it is weak.

An indirect function (IRELATIVE, or a symbol of that kind) is chosen by code that runs on the real processor.  No code
runs here, so its place gets the address of the function that would choose; the places are listed.

Leaves out: constructors, lazy binding, dlopen, unique symbols across namespaces, TLSDESC (refused), the threads' blocks
themselves (only the offsets in them are computed).

Sources: System V ABI, edition 4.1, chapter 5; AMD64 psABI 1.0, section 4.4; ELF Handling For Thread-Local Storage,
variant II; the rules where the texts are silent are those of glibc 2.36 (dl-lookup.c, dl-tls.c).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import field, frozen

from sim.errors import VerificationError
from sim.image.elf import ElfImage, Relocation, Symbol, shown
from sim.kernel.relocation import fit
from sim.kernel.segment_buffers import RelocatedSegment, RelocationError, SegmentBuffers
from sim.kernel.symbol_lookup import definition_in
from sim.kernel.thread_layout import ThreadPlace, thread_layout

__all__ = ["LinkError", "LinkMap", "LinkObject", "LinkedObject", "load_order"]

OBJECTS_MAX = 256

_CALLS = ("JUMP_SLOT", "DTPMOD64", "DTPOFF64", "TPOFF64")

FindLibrary = Callable[[str], ElfImage | None]


class LinkError(VerificationError):
    """A program cannot be linked: a library, a version of one, or a symbol is missing."""


@frozen(kw_only=True)
class LinkObject:
    """A program or library and the address of its first page."""

    name: str
    image: ElfImage = field(repr=False)
    base: int


@frozen(kw_only=True)
class LinkedObject:
    """An object ready to be mapped; `indirect` are the places (addresses) that wait for a choosing function."""

    name: str
    base: int
    entry: int
    segments: tuple[RelocatedSegment, ...]
    indirect: tuple[int, ...]
    unresolved: tuple[str, ...]


def load_order(
    name: str, program: ElfImage, find: FindLibrary, *, first: Iterable[str] = ()
) -> tuple[tuple[str, ElfImage], ...]:
    """Return the program and its libraries in load order: those of `first`, then all that are needed, breadth first.

    Errors: `LinkError` for a library that `find` does not know, or too many.
    """
    order = [(name, program)]
    known: set[str] = set()
    wanted = list(first)
    for _, image in order:
        for library in (*wanted, *image.linking.needed):
            if library in known:
                continue
            found = find(library)
            if found is None:
                raise LinkError("link.library", f"{shown(name)} needs {shown(library)}, which is not there")
            if len(order) >= OBJECTS_MAX:
                raise LinkError("link.library", f"{shown(name)} needs more than {OBJECTS_MAX} libraries")
            known |= {library, found.linking.soname or library}
            order.append((library, found))
        wanted = []
    return tuple(order)


class LinkMap:
    """The objects of one process in load order, the program first."""

    def __init__(self, objects: Sequence[LinkObject]) -> None:
        self._objects = tuple(objects)
        for each in objects:
            if each.image.type == "ET_EXEC" and each.base != each.image.first_page:
                raise LinkError("link.place", f"{shown(each.name)} runs at {each.image.first_page:#x} only")
        self._buffers = [SegmentBuffers(each.image, each.base) for each in objects]
        self._threads = thread_layout([each.image.linking.thread_storage for each in objects])
        self._found: dict[tuple[str, str, bool, int], tuple[int, Symbol] | None] = {}
        self._check_versions()

    def linked(self) -> tuple[LinkedObject, ...]:
        """Return the objects relocated, in load order; libraries are done before what copies from them."""
        made = [self._link(index) for index in reversed(range(len(self._objects)))]
        return tuple(reversed(made))

    def symbol(self, name: str, version: str = "") -> tuple[str, int] | None:
        """Return the object that defines `name` for everybody, and the address there."""
        found = self._search(name, version, range(len(self._objects)), calls=False)
        return None if found is None else (self._objects[found[0]].name, self._address(*found))

    @property
    def objects(self) -> tuple[LinkObject, ...]:
        """Return the objects in load order."""
        return self._objects

    @property
    def threads(self) -> tuple[ThreadPlace | None, ...]:
        """Return the place of each object's thread-local block, None for objects without one."""
        return self._threads

    # ------------------------------------------------------------------ relocating

    def _link(self, index: int) -> LinkedObject:
        one = self._objects[index]
        work = _Object(self, index)
        for relocation in one.image.relocations:
            work.apply(relocation)
        slide = self._buffers[index].slide
        return LinkedObject(
            name=one.name,
            base=one.base,
            entry=one.image.entry + slide if one.image.entry else 0,
            segments=self._buffers[index].relocated(),
            indirect=tuple(work.indirect),
            unresolved=tuple(work.unresolved),
        )

    def _address(self, index: int, symbol: Symbol) -> int:
        return symbol.value if symbol.absolute else symbol.value + self._buffers[index].slide

    # ------------------------------------------------------------------ lookup

    def _resolve(self, index: int, relocation: Relocation) -> tuple[int, Symbol] | None:
        """Return who defines the symbol of a relocation in object `index`, or None."""
        symbol = self._objects[index].image.symbols[relocation.symbol]
        if symbol.binding == "local" or symbol.visibility in ("hidden", "internal"):
            return index, symbol
        if symbol.visibility == "protected" and symbol.defined:
            return index, symbol
        copy = relocation.kind == "COPY"
        calls = relocation.kind in _CALLS
        first = index if self._objects[index].image.linking.symbolic or copy else -1
        key = (symbol.name, symbol.version, calls, first if not copy else len(self._objects))
        if key not in self._found:
            scope = [other for other in range(len(self._objects)) if not (copy and other == index)]
            if first >= 0 and not copy:
                scope.insert(0, index)
            self._found[key] = self._search(symbol.name, key[1], scope, calls=calls)
        return self._found[key]

    def _search(
        self, name: str, version: str, scope: Iterable[int], *, calls: bool
    ) -> tuple[int, Symbol] | None:
        for index in scope:
            symbol = definition_in(self._objects[index].image, name, version, calls=calls)
            if symbol is not None:
                return index, symbol
        return None

    def _check_versions(self) -> None:
        """Raise `LinkError` if a library lacks a version that another object needs of it."""
        by_name = {one.name: one for one in self._objects}
        by_name |= {one.image.linking.soname: one for one in self._objects if one.image.linking.soname}
        for one in self._objects:
            for need in one.image.linking.version_needs:
                library = by_name.get(need.library)
                if library is None or need.weak or not library.image.linking.versions_defined:
                    continue
                if need.version not in library.image.linking.versions_defined:
                    text = f"{shown(one.name)} needs version {shown(need.version)} of {shown(need.library)}, which does not define it"
                    raise LinkError("link.version", text)


class _Object:
    """One object while its relocations are applied."""

    def __init__(self, links: LinkMap, index: int) -> None:
        self._links = links
        self._index = index
        self._one = links._objects[index]
        self._buffers = links._buffers[index]
        self.indirect: list[int] = []
        self.unresolved: dict[str, None] = {}

    def apply(self, relocation: Relocation) -> None:
        what = f"{shown(self._one.name)}: R_X86_64_{relocation.kind} at {relocation.offset:#x}"
        slide, addend, kind = self._buffers.slide, relocation.addend, relocation.kind
        match kind:
            case "RELATIVE":
                value = slide + addend
            case "IRELATIVE":
                self.indirect.append(relocation.offset + slide)
                value = slide + addend
            case "GLOB_DAT" | "JUMP_SLOT":
                value = self._value(relocation)
            case "64" | "32":
                value = self._value(relocation) + addend
            case "PC32" | "PC64":
                value = self._value(relocation) + addend - relocation.offset - slide
            case "SIZE32" | "SIZE64":
                found = self._find(relocation)
                value = (found[1].size_bytes if found else 0) + addend
            case "DTPMOD64" | "DTPOFF64" | "TPOFF64":
                value = self._thread_value(relocation, what)
            case "COPY":
                self._copy(relocation, what)
                return
            case _:
                raise RelocationError("link.relocation", f"{what} is not supported")
        size = 4 if kind in ("32", "PC32", "SIZE32") else 8
        self._buffers.store(relocation.offset, fit(value, kind, what), size, what)

    def _find(self, relocation: Relocation) -> tuple[int, Symbol] | None:
        """Return who defines the relocation's symbol; raises `LinkError` for a strong one that nobody does."""
        symbol = self._one.image.symbols[relocation.symbol]
        found = self._links._resolve(self._index, relocation)
        if found is None and symbol.binding != "weak":
            text = f"{shown(self._one.name)}: nobody defines {shown(symbol.name)}"
            raise LinkError("link.unresolved", f"{text} {shown(symbol.version)}".rstrip())
        return found

    def _value(self, relocation: Relocation) -> int:
        if not relocation.symbol:
            return self._buffers.slide
        found = self._find(relocation)
        if found is None:
            self.unresolved[self._one.image.symbols[relocation.symbol].name] = None
            return 0
        if found[1].kind == "ifunc":
            self.indirect.append(relocation.offset + self._buffers.slide)
        return self._links._address(*found)

    def _thread_value(self, relocation: Relocation, what: str) -> int:
        index, value = self._index, 0
        if relocation.symbol:
            found = self._find(relocation)
            if found is None:
                return 0
            index, value = found[0], found[1].value
        place = self._links.threads[index]
        if place is None:
            raise RelocationError(
                "link.relocation", f"{what}: {shown(self._links._objects[index].name)} has no thread storage"
            )
        match relocation.kind:
            case "DTPMOD64":
                return place.module
            case "DTPOFF64":
                return value + relocation.addend
            case _:
                return value + relocation.addend - place.offset

    def _copy(self, relocation: Relocation, what: str) -> None:
        """Give the program its own copy of a library's variable, as it stands after the library's relocation."""
        found = self._find(relocation)
        if found is None:
            return
        index, symbol = found
        size = min(symbol.size_bytes, self._one.image.symbols[relocation.symbol].size_bytes)
        if symbol.kind == "tls" or symbol.absolute:
            raise RelocationError("link.relocation", f"{what}: {shown(symbol.name)} cannot be copied")
        self._buffers.write(
            relocation.offset, self._links._buffers[index].load(symbol.value, size, what), what
        )
