"""What it costs to refuse an input that wants a parser to spend memory or time: peak of memory, and calls of functions."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

from attrs import frozen

from sim.errors import FormatError, VerificationError

MEMORY_BYTES_MAX = 64 << 20
CALLS_MAX = 2_000_000
"""Calls of functions, the library's included, that a refusal may take: about a second of work at most."""


@frozen(kw_only=True)
class Bomb:
    """One row: which parser, which kind of bomb, its bytes when asked for, and the parser.

    A parser that needs something around it (a host to boot) gets what `prepare` makes as its second argument.
    """

    parser: str
    kind: str
    make: Callable[[], bytes]
    read: Callable[..., Any]
    prepare: Callable[[], Any] | None = None

    @property
    def title(self) -> str:
        """The row's name."""
        return f"{self.parser}: {self.kind}"

    def arguments(self, data: bytes) -> tuple[Any, ...]:
        """What the parser is called with; making it costs the bomb nothing."""
        return (data,) if self.prepare is None else (data, self.prepare())


@frozen(kw_only=True)
class Cost:
    """What it took to refuse a bomb, or to read it if `refused` is empty."""

    refused: str
    memory_bytes: int
    calls: int


def defuse(bomb: Bomb) -> Cost:
    """Give a bomb to its parser and measure memory and calls; anything but a refusal is raised."""
    arguments = bomb.arguments(bomb.make())
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")
        if calls > CALLS_MAX:
            sys.setprofile(None)
            raise TimeoutError(f"{bomb.title}: more than {CALLS_MAX} calls")

    tracemalloc.start()
    sys.setprofile(count)
    refused = ""
    try:
        bomb.read(*arguments)
    except (FormatError, VerificationError) as error:
        refused = str(error)[:200] or type(error).__name__
    finally:
        sys.setprofile(None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return Cost(refused=refused, memory_bytes=peak, calls=calls)
