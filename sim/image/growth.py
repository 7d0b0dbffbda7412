"""How much a set of packed files may say that it unpacks to, before any of it is unpacked.

Models: one rule for archives of many members, where a limit for each member would still let all of them together cost
much: what is declared in total may be some MiB, or a fixed number of times what the files take as stored.  Files of
images shrink by three or four when they are packed, text by ten or twenty, and a bomb by a thousand.

Leaves out: what is declared and not true; readers stop at the declared size (`sim.image.payload`, `sim.image.boundedzip`).

Sources: the ratio of deflate at its best, 1,032 (RFC 1951); the bounds are this project's own.
"""

from __future__ import annotations

from collections.abc import Iterable

from sim.errors import LimitError
from sim.image.payload import declared_size

__all__ = ["GROWTH_FREE_BYTES", "GROWTH_RATIO_MAX", "check_growth", "check_packed"]

GROWTH_FREE_BYTES = 16 << 20
"""What any set of files may unpack to, small as it may be."""

GROWTH_RATIO_MAX = 16
"""How many times its stored size a larger set may unpack to."""


def check_growth(stored_bytes: int, declared_bytes: int, bytes_max: int, what: str, where: str = "") -> None:
    """Refuse a set of files that declares more than `bytes_max`, or more than what is stored can honestly unpack to."""
    if declared_bytes > bytes_max:
        raise LimitError(what, where, f"declares more than {bytes_max} bytes of content")
    if declared_bytes > max(GROWTH_FREE_BYTES, GROWTH_RATIO_MAX * stored_bytes):
        text = f"declares {declared_bytes} bytes of content in {stored_bytes}, more than {GROWTH_RATIO_MAX} times as many"
        raise LimitError(what, where, text)


def check_packed(files: Iterable[bytes], bytes_max: int, what: str, where: str = "") -> None:
    """Apply the rule to files that may be gzip members."""
    sizes = [(len(data), declared_size(data)) for data in files]
    check_growth(sum(size for size, _ in sizes), sum(size for _, size in sizes), bytes_max, what, where)
