"""The trace: typed records in time order, a running SHA-256 digest, and a columnar sink.

Whatever one may want to watch is a record.  A record type is declared once, at module level, by `record(...)`; the
part of its name before the first dot is its category, and categories can be switched off as a whole.  The digest
covers every record of the enabled categories in canonical bytes, and is the same in every process.

Models nothing.  Leaves out floats, nested values and files (`sim.core.tracefile` writes those).
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import Any

from sim.core.engine import Engine
from sim.errors import SimBug

__all__ = [
    "CHUNK_RECORDS",
    "SINK_RECORDS_MAX",
    "Channel",
    "Column",
    "ColumnarSink",
    "RecordType",
    "Trace",
    "record",
    "record_types",
]

CHUNK_RECORDS = 4096
"""Records between two steps of the running digest (part of the digest's definition)."""

SINK_RECORDS_MAX = 20_000_000
"""The most records the columnar sink keeps; later ones are counted as dropped, the digest goes on."""

Column = Any  # array('q') for int fields, list for str and bytes fields
_Columns = list[Column]  # sequence number, time, then the fields in their order

_BLOCK_MASK = CHUNK_RECORDS - 1
_BEFORE = 2  # sequence number and time stand before the values

_record_types: dict[str, RecordType] = {}


class RecordType:
    """A kind of record: its name and its fields, each of kind int (signed 64 bits), str or bytes."""

    __slots__ = ("category", "fields", "name", "width")

    def __init__(self, name: str, fields: tuple[tuple[str, type], ...]) -> None:
        self.name = name
        self.category = name.partition(".")[0]
        self.fields = fields
        self.width = _BEFORE + len(fields)

    def columns(self, flat: list[Any]) -> _Columns:
        """Return the columns of records that stand one after the other: number, time and values of each."""
        width, rest = self.width, len(flat) % self.width
        try:
            if rest:
                raise ValueError("another number of values than fields")
            if all(kind is int for _, kind in self.fields):
                whole = array("q", flat)
                return [whole[index::width] for index in range(width)]
            columns: _Columns = [array("q", flat[0::width]), array("q", flat[1::width])]
            for index, (_, kind) in enumerate(self.fields, _BEFORE):
                column = flat[index::width]
                if kind is not int and not all(isinstance(value, _TEXT_OR_BYTES[kind]) for value in column):
                    raise TypeError(f"field {self.fields[index - _BEFORE][0]} wants {kind.__name__}")
                columns.append(array("q", column) if kind is int else column)
        except (OverflowError, TypeError, ValueError) as error:
            shown = f"{flat[-self.width :]!r}" if len(flat) <= CHUNK_RECORDS else "a block"
            raise SimBug(f"record {self.name} does not fit its fields: {shown}: {error}") from error
        return columns

    def digest_into(self, running: Any, columns: _Columns) -> None:
        """Feed a running SHA-256 with the canonical bytes of columns: name, count, then column after column.

        A column of integers is so many little-endian signed 64-bit numbers; one of str (UTF-8) or bytes is the lengths
        in the same form, and then the data.
        """
        running.update(self.name.encode() + b"\0" + struct.pack("<q", len(columns[0])))
        for column in columns:
            if isinstance(column, array):
                running.update(_little(column))
                continue
            data = [value.encode() if isinstance(value, str) else value for value in column]
            running.update(_little(array("q", map(len, data))))
            running.update(b"".join(data))

    def __reduce__(self) -> tuple[Callable[..., RecordType], tuple[object, ...]]:
        return (_declare, (self.name, self.fields))


def record(name: str, /, **fields: type) -> RecordType:
    """Declare a record type: `record("tpm.command", locality=int, name=str)`; the same declaration twice is one."""
    for field, kind in fields.items():
        if kind not in (int, str, bytes):
            raise SimBug(f"record {name}: field {field} must be int, str or bytes")
    return _declare(name, tuple(fields.items()))


def _declare(name: str, fields: tuple[tuple[str, type], ...]) -> RecordType:
    known = _record_types.get(name)
    if known is None:
        known = _record_types[name] = RecordType(name, fields)
    elif known.fields != fields:
        raise SimBug(f"record {name} is declared twice with different fields")
    return known


def record_types() -> list[RecordType]:
    """Return all record types that the imported modules declare, sorted by name."""
    return [_record_types[name] for name in sorted(_record_types)]


_TEXT_OR_BYTES: dict[type, tuple[type, ...]] = {str: (str,), bytes: (bytes, bytearray, memoryview)}


def _little(numbers: array[int]) -> array[int]:
    """Return numbers in little-endian order, whatever the host's is."""
    if sys.byteorder == "little":
        return numbers
    numbers = numbers[:]
    numbers.byteswap()
    return numbers


class ColumnarSink:
    """Keeps records by type, a column a field, with time and place in the whole sequence."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Column]] = {}
        self.records = 0
        self.dropped = 0

    def take(self, kind: RecordType, columns: _Columns) -> None:
        """Store records of one type; those beyond the limit in the whole sequence are counted as dropped."""
        count = len(columns[0])
        kept = bisect_left(columns[0], SINK_RECORDS_MAX)
        self.records += kept
        self.dropped += count - kept
        table = self.tables.get(kind.name)
        if table is None:
            table = self.tables[kind.name] = {"seq": array("q"), "time_ns": array("q")}
            for field, field_kind in kind.fields:
                table[field] = array("q") if field_kind is int else []
        for column, new in zip(table.values(), columns, strict=True):
            column.extend(new if kept == count else new[:kept])

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the records of one type as dicts {time_ns, field...}, in time order."""
        table = self.tables.get(name)
        if table is None:
            return
        names = [column for column in table if column != "seq"]
        for row in zip(*(table[column] for column in names), strict=True):
            yield dict(zip(names, row, strict=True))


class Trace:
    """Takes records, stamps them with the engine's time, keeps the digest and feeds the sink.

    `categories` switches on only those named (None: all).  Records of a block lie by type, one after the other, until
    the block is full: then they are turned into columns, digested and stored all at once.
    """

    def __init__(self, engine: Engine, categories: Iterable[str] | None = None) -> None:
        self._engine = engine
        self._categories = None if categories is None else frozenset(categories)
        self._state = bytes(32)
        self._block: dict[RecordType, list[Any]] = {}
        self._sink = ColumnarSink()
        self._first = 0  # the number of the block's first record
        self.records = 0

    def enabled(self, kind: RecordType) -> bool:
        """Whether records of this type are taken: a guard for hot paths."""
        return self._categories is None or kind.category in self._categories

    def emit(self, kind: RecordType, *values: object) -> None:
        """Take one record: values in the order of its fields."""
        rows = self._block.get(kind)
        if rows is None:
            if not self.enabled(kind):
                return
            rows = self._block[kind] = []
        number = self.records
        self.records = number + 1
        rows += (number, self._engine._now, *values)
        if number & _BLOCK_MASK == _BLOCK_MASK:
            self._end_block()

    def channel(self, kind: RecordType) -> Channel | None:
        """Return a faster way to take many records of one type, or None when this type is not taken."""
        if not self.enabled(kind):
            return None
        return Channel(self, self._engine, self._block.setdefault(kind, []))

    def digest(self) -> str:
        """Return the SHA-256 over all records so far, as hex; asking changes nothing."""
        return self._fold(self._columns()).hex()

    def sink(self) -> ColumnarSink:
        """Return a columnar view of everything so far."""
        view = ColumnarSink()
        view.tables = {
            name: {field: column[:] for field, column in table.items()}
            for name, table in self._sink.tables.items()
        }
        view.records, view.dropped = self._sink.records, self._sink.dropped
        for kind, columns in self._columns().items():
            view.take(kind, columns)
        return view

    def select(self, name: str) -> list[dict[str, Any]]:
        """Return all records of one type as dicts {time_ns, field...}."""
        rest = ColumnarSink()
        for kind, columns in self._columns().items():
            if kind.name == name:
                rest.take(kind, columns)
        return [*self._sink.rows(name), *rest.rows(name)]

    def tail(self, count: int = 20) -> list[str]:
        """Return the last records of the present block as text, newest last: what a bug report shows."""
        last = []
        for kind, flat in self._block.items():
            for index in range(max(0, len(flat) - count * kind.width), len(flat), kind.width):
                number, time_ns, *values = flat[index : index + kind.width]
                last.append((number, f"{time_ns} {kind.name} {tuple(values)!r}"))
        return [text for _, text in sorted(last)[-count:]]

    def _columns(self) -> dict[RecordType, _Columns]:
        """Return the present block as columns, by name of the type."""
        kinds = sorted((kind for kind, flat in self._block.items() if flat), key=lambda kind: kind.name)
        block = {kind: kind.columns(self._block[kind]) for kind in kinds}
        numbers = sum(sum(columns[0]) for columns in block.values())
        if numbers != sum(
            range(self._first, self.records)
        ):  # two mistakes may make up for each other in length
            raise SimBug(f"records of {', '.join(kind.name for kind in kinds)}: values do not fit the fields")
        return block

    def _end_block(self) -> None:
        block = self._columns()
        self._state = self._fold(block)
        for kind, columns in block.items():
            self._sink.take(kind, columns)
            self._block[kind].clear()
        self._first = self.records

    def _fold(self, block: dict[RecordType, _Columns]) -> bytes:
        """Return the digest's next state: over the present one, and the block's types by name."""
        if not block:
            return self._state
        running = sha256(self._state)
        for kind, columns in block.items():
            kind.digest_into(running, columns)
        return running.digest()


class Channel:
    """Takes records of one type at half of the cost of `Trace.emit`: for the hottest paths, by a fixed number of values."""

    __slots__ = ("_engine", "_rows", "_trace")

    def __init__(self, trace: Trace, engine: Engine, rows: list[Any]) -> None:
        self._trace = trace
        self._engine = engine
        self._rows = rows  # the trace's own list of the present block, which is cleared in place

    def three(self, first: int, second: int, third: int) -> None:
        """Take one record of three values."""
        trace, rows = self._trace, self._rows
        number = trace.records
        trace.records = number + 1
        rows += (number, self._engine._now, first, second, third)
        if number & _BLOCK_MASK == _BLOCK_MASK:
            trace._end_block()

    def four(self, first: int, second: int, third: int, fourth: int) -> None:
        """Take one record of four values."""
        trace, rows = self._trace, self._rows
        number = trace.records
        trace.records = number + 1
        rows += (number, self._engine._now, first, second, third, fourth)
        if number & _BLOCK_MASK == _BLOCK_MASK:
            trace._end_block()
