"""Units: "4GiB", "30us", "2.4GHz" and "50%" to integers and back.

All quantities inside the model are integers: bytes, nanoseconds, hertz, percent in hundredths are never floats.  A
text with more digits than its unit can hold ("0.5ns") is refused rather than rounded.

Leaves out signs, exponents and locales.
"""

from __future__ import annotations

import re
from fractions import Fraction

__all__ = [
    "GIB",
    "KIB",
    "MIB",
    "MS",
    "PAGE_BYTES",
    "SECOND",
    "TIB",
    "US",
    "format_bytes",
    "format_ns",
    "parse_bytes",
    "parse_hz",
    "parse_ns",
    "parse_quantity",
]

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB
PAGE_BYTES = 4096

US = 1_000
MS = 1_000_000
SECOND = 1_000_000_000

_BYTES = {
    "B": 1,
    "KiB": KIB,
    "MiB": MIB,
    "GiB": GIB,
    "TiB": TIB,
    "kB": 1000,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_NS = {"ns": 1, "us": US, "ms": MS, "s": SECOND, "min": 60 * SECOND, "h": 3600 * SECOND, "d": 86400 * SECOND}
_HZ = {"Hz": 1, "kHz": 1000, "MHz": 10**6, "GHz": 10**9}
UNITS = {"bytes": _BYTES, "ns": _NS, "hz": _HZ}

_TEXT = re.compile(r"\s*([0-9]{1,20}(?:\.[0-9]{1,12})?)\s*([A-Za-z%]{1,3})\s*")


def parse_quantity(text: str, kind: str) -> int:
    """Return the integer that `text` says, in the base unit of `kind` ("bytes", "ns", "hz").

    Errors: `ValueError` with what was expected.
    """
    units = UNITS[kind]
    match = _TEXT.fullmatch(text)
    if match is None or match[2] not in units:
        raise ValueError(f"a number with one of the units {', '.join(units)}")
    exact = Fraction(match[1]) * units[match[2]]
    if exact.denominator != 1:
        raise ValueError(f"a whole number of {kind}")
    return exact.numerator


def parse_bytes(text: str) -> int:
    """Return bytes from a text such as "4GiB"."""
    return parse_quantity(text, "bytes")


def parse_ns(text: str) -> int:
    """Return nanoseconds from a text such as "30us"."""
    return parse_quantity(text, "ns")


def parse_hz(text: str) -> int:
    """Return hertz from a text such as "2.4GHz"."""
    return parse_quantity(text, "hz")


def format_bytes(count: int) -> str:
    """Write bytes for a person: exact below 1 KiB, else with at most one decimal (rounded half to even)."""
    for name in ("TiB", "GiB", "MiB", "KiB"):
        if count >= _BYTES[name]:
            return _trim(count, _BYTES[name]) + " " + name
    return f"{count} B"


def format_ns(duration_ns: int) -> str:
    """Write a duration for a person, with at most one decimal (rounded half to even)."""
    for name in ("s", "ms", "us"):
        if duration_ns >= _NS[name]:
            return _trim(duration_ns, _NS[name]) + " " + name
    return f"{duration_ns} ns"


def _trim(value: int, unit: int) -> str:
    tenths = round(Fraction(value * 10, unit))
    whole, tenth = divmod(tenths, 10)
    return f"{whole}.{tenth}" if tenth else str(whole)
