"""Remembers the last few answers of a function of large bytes, and finds them by comparing instead of hashing.

Models: nothing; it saves work where several parts of a host ask the same of the same file, one after another.  A hash
over a whole file costs as much as the answer sometimes; equal objects are found at once, others differ in length or in
their first bytes.

Leaves out: any use with more than a few files; for that there is `functools.lru_cache`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import update_wrapper
from typing import Generic, TypeVar

__all__ = ["Recent"]

T = TypeVar("T")


class Recent(Generic[T]):
    """A function of bytes that keeps its last `count_max` answers; what it raises is not kept."""

    def __init__(self, function: Callable[[bytes], T], count_max: int) -> None:
        self._function = function
        self._known: deque[tuple[bytes, T]] = deque(maxlen=count_max)
        update_wrapper(self, function)

    def __call__(self, data: bytes) -> T:
        """Return the function's answer for `data`."""
        for known, answer in self._known:
            if known == data:
                return answer
        answer = self._function(data)
        self._known.append((data, answer))
        return answer

    def cache_clear(self) -> None:
        """Forget all answers."""
        self._known.clear()
