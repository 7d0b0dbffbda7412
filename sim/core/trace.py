"""The trace: typed records in time order, a running SHA-256 digest, and a columnar sink.

Whatever one may want to watch is a record.  A record type is declared once, at module level, by `record(...)`; the
part of its name before the first dot is its category, and categories can be switched off as a whole.  The digest
covers every record of the enabled categories in canonical bytes, and is the same in every process.

Models nothing.  Leaves out floats, nested values and files (`sim.core.tracefile` writes those).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any

from sim.core.engine import Engine
from sim.errors import SimBug

__all__ = [
    "CHUNK_RECORDS",
    "SINK_RECORDS_MAX",
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
_Entry = tuple["RecordType", int, tuple[object, ...]]

_record_types: dict[str, RecordType] = {}


class RecordType:
    """A kind of record: its name and its fields, each of kind int (signed 64 bits), str or bytes."""

    __slots__ = ("_head", "_packer", "category", "fields", "name")

    _packer: Callable[..., bytes] | None
    """For a record of integers alone: head, time and values to bytes."""

    def __init__(self, name: str, fields: tuple[tuple[str, type], ...]) -> None:
        self.name = name
        self.category = name.partition(".")[0]
        self.fields = fields
        self._head = name.encode() + b"\0"
        only_ints = all(kind is int for _, kind in fields)
        layout = struct.Struct(f"<{len(self._head)}s{len(fields) + 1}q")
        self._packer = layout.pack if only_ints else None

    def encode(self, time_ns: int, values: tuple[Any, ...]) -> bytes:
        """Return the canonical bytes of one record."""
        try:
            if self._packer is not None:
                return self._packer(self._head, time_ns, *values)
            parts = [self._head, struct.pack("<q", time_ns)]
            for (_, kind), value in zip(self.fields, values, strict=True):
                if kind is int:
                    parts.append(struct.pack("<q", value))
                else:
                    data = value.encode() if kind is str else bytes(value)
                    parts.append(struct.pack("<I", len(data)) + data)
            return b"".join(parts)
        except (struct.error, ValueError, TypeError, AttributeError) as error:
            raise SimBug(f"record {self.name} does not fit its fields: {values!r}: {error}") from error

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


class ColumnarSink:
    """Keeps records by type, a column a field, with time and place in the whole sequence."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Column]] = {}
        self.records = 0
        self.dropped = 0

    def take(self, entries: Sequence[_Entry]) -> None:
        """Store entries in order: those of one type together, column by column."""
        room = SINK_RECORDS_MAX - self.records
        if len(entries) > room:
            self.dropped += len(entries) - room
            entries = entries[:room]
        groups: dict[RecordType, tuple[list[int], list[int], list[tuple[object, ...]]]] = {}
        for seq, (kind, time_ns, values) in enumerate(entries, self.records):
            group = groups.get(kind)
            if group is None:
                group = groups[kind] = ([], [], [])
            group[0].append(seq)
            group[1].append(time_ns)
            group[2].append(values)
        for kind, (seqs, times, rows) in groups.items():
            self._extend(kind, seqs, times, rows)
        self.records += len(entries)

    def _extend(
        self, kind: RecordType, seqs: list[int], times: list[int], rows: list[tuple[object, ...]]
    ) -> None:
        table = self.tables.get(kind.name)
        if table is None:
            table = self.tables[kind.name] = {"seq": array("q"), "time_ns": array("q")}
            for field, field_kind in kind.fields:
                table[field] = array("q") if field_kind is int else []
        table["seq"].extend(seqs)
        table["time_ns"].extend(times)
        for (field, _), column in zip(kind.fields, zip(*rows, strict=True), strict=True):
            table[field].extend(column)

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

    `categories` switches on only those named (None: all).
    """

    def __init__(self, engine: Engine, categories: Iterable[str] | None = None) -> None:
        self._engine = engine
        self._categories = None if categories is None else frozenset(categories)
        self._state = bytes(32)
        self._pending: list[_Entry] = []
        self._sink = ColumnarSink()
        self.records = 0

    def enabled(self, kind: RecordType) -> bool:
        """Whether records of this type are taken: a guard for hot paths."""
        return self._categories is None or kind.category in self._categories

    def emit(self, kind: RecordType, *values: object) -> None:
        """Take one record: values in the order of its fields."""
        if self._categories is not None and kind.category not in self._categories:
            return
        self.records += 1
        pending = self._pending
        pending.append((kind, int(self._engine._now), values))
        if len(pending) >= CHUNK_RECORDS:
            self._state = self._fold()
            self._sink.take(pending)
            pending.clear()

    def digest(self) -> str:
        """Return the SHA-256 over all records so far, as hex; asking changes nothing."""
        return self._fold().hex()

    def sink(self) -> ColumnarSink:
        """Return a columnar view of everything so far."""
        view = ColumnarSink()
        view.tables = {
            name: {field: column[:] for field, column in table.items()}
            for name, table in self._sink.tables.items()
        }
        view.records, view.dropped = self._sink.records, self._sink.dropped
        view.take(self._pending)
        return view

    def select(self, name: str) -> list[dict[str, Any]]:
        """Return all records of one type as dicts {time_ns, field...}."""
        rows = list(self._sink.rows(name))
        rest = ColumnarSink()
        rest.take(self._pending)
        return rows + list(rest.rows(name))

    def tail(self, count: int = 20) -> list[str]:
        """Return the last records as text, newest last: what a bug report shows."""
        return [f"{time_ns} {kind.name} {values!r}" for kind, time_ns, values in self._pending[-count:]]

    def _fold(self) -> bytes:
        pieces = [self._state]
        for kind, time_ns, values in self._pending:
            pack = kind._packer
            try:
                if pack is not None:
                    pieces.append(pack(kind._head, time_ns, *values))
                    continue
            except struct.error:
                pass  # `encode` says what does not fit
            pieces.append(kind.encode(time_ns, values))
        return sha256(b"".join(pieces)).digest()
