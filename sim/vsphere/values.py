"""Plain values, the only thing that crosses the management API.

Models: None, bool, 64-bit int, valid text, bytes, and lists and dicts of these, under limits of size and depth.  What
comes from a client is checked before anything else looks at it.

Leaves out: floating-point numbers, which no management call takes.

Sources: none; the limits are ours.
"""

from __future__ import annotations

from typing import Final

from sim.vsphere.faults import InvalidArgument

__all__ = ["check_plain", "printable"]

DEPTH_MAX: Final = 8
TEXT_CHARS_MAX: Final = 64 * 1024
BYTES_MAX: Final = 512 * 1024 * 1024
ITEMS_MAX: Final = 10_000
PRINTABLE_CHARS_MAX: Final = 80


def check_plain(value: object, name: str = "parameters", depth: int = DEPTH_MAX) -> None:
    """Raise InvalidArgument, with the name of the part, unless `value` is plain and within limits."""
    kind = type(value)
    if value is None or kind is bool:
        return
    if kind is dict or kind is list or kind is tuple:
        _check_items(value, name, depth)
    elif kind is str:
        _check_text(value, name)
    elif kind is int:
        if not -(2**63) <= value < 2**63:  # type: ignore[operator]
            raise InvalidArgument(name)
    elif kind is not bytes or len(value) > BYTES_MAX:  # type: ignore[arg-type]
        raise InvalidArgument(name)


def _check_items(value: object, name: str, depth: int) -> None:
    assert isinstance(value, (dict, list, tuple))
    if depth == 0 or len(value) > ITEMS_MAX:
        raise InvalidArgument(name)
    if isinstance(value, dict):
        for key in value:
            _check_text(key, f"a name in {name}")
            check_plain(value[key], printable(key), depth - 1)
        return
    for item in value:
        check_plain(item, name, depth - 1)


def _check_text(value: object, name: str) -> None:
    if type(value) is not str or len(value) > TEXT_CHARS_MAX:
        raise InvalidArgument(name)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(name) from None


def printable(value: object) -> str:
    """Return what a client sent as it may stand in a trace: ASCII, escaped, cut; the type's name if not text."""
    text = value if type(value) is str else type(value).__name__
    return text[:PRINTABLE_CHARS_MAX].encode("ascii", "backslashreplace").decode("ascii")
