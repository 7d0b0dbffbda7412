"""JSON from outside, read within limits on its bytes and on its values.

Models: a document whose values are counted before any of them is made, by the marks that each must have: a list of
empty lists takes three bytes in the file, and more than fifty in memory.  A mark inside a text counts too, so a limit
has to leave room for those.

Leaves out: what the values mean.

Sources: RFC 8259; the depth at which Python's own reader gives up is its recursion limit.
"""

from __future__ import annotations

import json

from sim.errors import FormatError, LimitError

__all__ = ["parse_json"]

_MARKS = (",", "[", "{")


def parse_json(data: bytes | str, what: str, *, size_max: int, values_max: int) -> object:
    """Return the document; `what` names the format in errors.

    Errors: `LimitError` for more bytes (or characters, of a text) or more values than allowed, `FormatError` otherwise.
    """
    kind = "bytes" if isinstance(data, bytes) else "characters"
    if len(data) > size_max:
        raise LimitError(what, "", f"more than {size_max} {kind}")
    if (
        sum(data.count(mark) if isinstance(data, str) else data.count(mark.encode()) for mark in _MARKS)
        > values_max
    ):
        raise LimitError(what, "", f"more than {values_max} values")
    try:
        parsed: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(what, "", f"not acceptable as JSON: {error}") from error
    return parsed
