"""Which definition of a name a file offers to others, by binding, visibility, kind and version.

Models: lookup through the file's own hash table (or all symbols where it has none); hidden and local symbols are nobody
else's; versions by name, with the base or only default version for those who ask for none.

Leaves out: the order of files, which is the link map's.

Sources: System V ABI, edition 4.1, chapter 5; Linux Standard Base 5.0, "Symbol Versioning"; where the texts are silent,
glibc 2.36 (dl-lookup.c).
"""

from __future__ import annotations

from collections.abc import Iterable

from sim.image.elf import ElfImage, Symbol

__all__ = ["definition_in"]

_LINKED_KINDS = ("none", "object", "function", "tls", "ifunc")
_LINKED_BINDINGS = ("global", "weak", "unique")
_FIRST_NAMED_VERSION = 2


def definition_in(image: ElfImage, name: str, version: str, *, calls: bool) -> Symbol | None:
    """Return the definition of `name` that `image` offers to someone who asks for `version` ("" for any), or None.

    `calls` says that the place only calls the function, or is one of thread storage.
    """
    default: list[Symbol] = []
    for number in _candidates(image, name):
        symbol = image.symbols[number]
        if symbol.name != name or not _offered(symbol, calls=calls):
            continue
        if not image.linking.versioned:
            return symbol
        if version:
            if symbol.version == version or not (symbol.version or symbol.version_hidden):
                return symbol
        elif symbol.version_index <= _FIRST_NAMED_VERSION:
            return symbol
        elif not symbol.version_hidden:
            default.append(symbol)
    return default[0] if len(default) == 1 else None


def _candidates(image: ElfImage, name: str) -> Iterable[int]:
    table = image.linking.hash_table
    if table is not None:
        return (number for number in table.candidates(name) if number < len(image.symbols))
    return range(1, len(image.symbols))


def _offered(symbol: Symbol, *, calls: bool) -> bool:
    """Whether a symbol is a definition that others may bind to.

    An undefined symbol with a value is the program's own jump to a function: the function's address for everybody, so
    that pointers to it compare equal, but not what a call binds to.
    """
    if not symbol.value and not symbol.absolute and symbol.kind != "tls":
        return False
    if not symbol.defined and (calls or not symbol.value):
        return False
    if symbol.kind not in _LINKED_KINDS or symbol.binding not in _LINKED_BINDINGS:
        return False
    return symbol.visibility in ("default", "protected")
