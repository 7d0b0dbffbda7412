"""The two hash tables through which a dynamic linker finds the symbols of a file.

Models: the System V table (DT_HASH) and the GNU table (DT_GNU_HASH) with its Bloom filter, read from untrusted bytes:
every walk through a chain ends at the table's own size.

Leaves out: building GNU tables; the prefix of a table's bytes that no lookup reads is not checked.

Sources: System V ABI, edition 4.1, chapter 5, "Hash Table"; the GNU table as described by binutils and glibc.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from sim.errors import FormatError, LimitError

__all__ = ["SYMBOLS_MAX", "GnuHash", "SysvHash", "gnu_hash", "sysv_hash"]

SYMBOLS_MAX = 1 << 16

_WHAT = "ELF"
_WHERE = "hash table"
_HEADER = struct.Struct("<IIII")


def sysv_hash(name: str) -> int:
    """Return the hash of the System V ABI."""
    value = 0
    for byte in name.encode("utf-8", "surrogateescape"):
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ high >> 24) & ~high
    return value


def gnu_hash(name: str) -> int:
    """Return the hash of the GNU table (Bernstein's, times 33)."""
    value = 5381
    for byte in name.encode("utf-8", "surrogateescape"):
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value


class SysvHash:
    """A DT_HASH table: the heads of the chains, then the next symbol of each symbol."""

    def __init__(self, table: bytes) -> None:
        if len(table) < 8:
            raise FormatError(_WHAT, _WHERE, "is cut short")
        heads, self.count = struct.unpack_from("<II", table)
        if self.count > SYMBOLS_MAX or heads > SYMBOLS_MAX:
            raise LimitError(_WHAT, "symbols", f"{self.count} in {heads} chains, at most {SYMBOLS_MAX}")
        if len(table) < 8 + 4 * (heads + self.count):
            raise FormatError(_WHAT, _WHERE, "is cut short")
        words = struct.unpack_from(f"<{heads + self.count}I", table, 8)
        self._heads, self._next = words[:heads], words[heads:]

    def candidates(self, name: str) -> Iterator[int]:
        """Yield the indices of the symbols in the chain of `name`."""
        if not self._heads:
            return
        index = self._heads[sysv_hash(name) % len(self._heads)]
        for _ in range(self.count):
            if not 0 < index < self.count:
                return
            yield index
            index = self._next[index]


class GnuHash:
    """A DT_GNU_HASH table: Bloom filter, first symbol of each bucket, and the hashes in order of symbols.

    `count` is the number of symbols that the table knows of: those before its first one and those in its chains.
    """

    _first: int

    def __init__(self, table: bytes) -> None:
        if len(table) < _HEADER.size:
            raise FormatError(_WHAT, _WHERE, "is cut short")
        buckets, self._first, filters, self._shift = _HEADER.unpack_from(table)
        if max(buckets, self._first, filters) > SYMBOLS_MAX:
            raise LimitError(
                _WHAT, "symbols", f"a hash table of {buckets} buckets for symbols from {self._first}"
            )
        chains_at = _HEADER.size + 8 * filters + 4 * buckets
        if not buckets or not filters or filters & (filters - 1) or len(table) < chains_at:
            raise FormatError(_WHAT, _WHERE, "is cut short, or its sizes are no sizes")
        self._filter = struct.unpack_from(f"<{filters}Q", table, _HEADER.size)
        self._buckets = struct.unpack_from(f"<{buckets}I", table, _HEADER.size + 8 * filters)
        self._chains = table[chains_at:]
        self.count = self._end(max(self._buckets))

    def candidates(self, name: str) -> Iterator[int]:
        """Yield the indices of the symbols whose hash is that of `name` but for the lowest bit."""
        value = gnu_hash(name)
        word = self._filter[value // 64 % len(self._filter)]
        if not word >> value % 64 & 1 or not word >> (value >> (self._shift & 63)) % 64 & 1:
            return
        index = self._buckets[value % len(self._buckets)]
        while self._first <= index < self.count:
            stored = self._word(index)
            if stored | 1 == value | 1:
                yield index
            if stored & 1:
                return
            index += 1

    def _end(self, last_bucket: int) -> int:
        """Return the number of the symbol after the last chain."""
        if last_bucket < self._first:
            return self._first
        index = last_bucket
        while not self._word(index) & 1:
            index += 1
        return index + 1

    def _word(self, index: int) -> int:
        at = 4 * (index - self._first)
        if index >= SYMBOLS_MAX or at + 4 > len(self._chains):
            raise FormatError(_WHAT, _WHERE, "a chain that does not end")
        return int.from_bytes(self._chains[at : at + 4], "little")
