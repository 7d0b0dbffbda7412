"""Order of VIB versions, and whether a version satisfies a relation.

Models versions of the form version-release: runs of digits compare as numbers, runs of letters as text, letters come
before digits, and the release decides between equal versions.  A bound without release looks at the version only.

Leaves out epochs, which VIBs do not have.

Sources: VMware's documentation of the VIB format names the operators; the comparison itself is inferred from
published version numbers.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

from sim.image.metadata import Descriptor, Relation

__all__ = ["satisfies", "version_key"]

Token = tuple[int, int, str]
Key = tuple[tuple[Token, ...], ...]

_TOKEN = re.compile(r"[0-9]+|[A-Za-z]+")
_COMPARE: dict[str, Callable[[Key, Key], bool]] = {
    "<<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    ">=": operator.ge,
    ">>": operator.gt,
}


def version_key(version: str) -> Key:
    """Return a key that orders versions; version and release stand apart in it."""
    return tuple(tuple(map(_token, _TOKEN.findall(part))) for part in version.split("-"))


def satisfies(descriptor: Descriptor, relation: Relation) -> bool:
    """Tell whether a VIB is what a relation names, by its own name or by what it provides."""
    if relation.name == descriptor.name and _within(descriptor.version, relation):
        return True
    return any(
        provided.name == relation.name
        and (relation.version is None or _within(provided.version or "", relation))
        for provided in descriptor.provides
    )


def _within(version: str, relation: Relation) -> bool:
    if relation.operator is None or relation.version is None:
        return True
    bound = version_key(relation.version)
    return _COMPARE[relation.operator](version_key(version)[: len(bound)], bound)


def _token(text: str) -> Token:
    return (1, int(text), "") if text.isdigit() else (0, 0, text)
