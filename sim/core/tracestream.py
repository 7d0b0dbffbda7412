"""Reading a trace file record by record, in bounded memory, however long the run was.

Models: the columns of `sim.core.tracefile` are read in chunks side by side, and the record types merged in the order of
the run.  What is held is one chunk for each column and the words of its texts.

Leaves out: random access; a reader for whole tables is `sim.core.tracefile.read_trace`.
Source: NumPy, "NPY format" (`numpy.lib.format`).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from heapq import merge
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from sim.core.tracefile import TRACE_FILE_BYTES_MAX
from sim.errors import FormatError

__all__ = ["CHUNK_ROWS", "Row", "stream_rows"]

CHUNK_ROWS = 16_384
"""How many rows of a column are held at a time."""

WORDS_BYTES_MAX = 256 << 20
"""The most memory for the different texts of one column."""

Row = tuple[int, str, int, tuple[Any, ...]]
"""Place in the whole sequence, record type, time in ns, and the values of the fields that were asked for."""


def stream_rows(path: Path, wanted: Mapping[str, Sequence[str]]) -> Iterator[Row]:
    """Yield the records of the types in `wanted`, with the fields named there, in the order of the run.

    Types that the trace lacks are left out.  Errors: `FormatError` when the file is not a trace, also in its midst.
    """
    try:
        if path.stat().st_size > TRACE_FILE_BYTES_MAX:
            raise FormatError("trace file", str(path), f"at most {TRACE_FILE_BYTES_MAX} bytes expected")
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            tables = [
                _table(archive, kind, fields, names)
                for kind, fields in wanted.items()
                if f"{kind}/seq" in names
            ]
            yield from merge(*tables, key=itemgetter(0))
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError("trace file", str(path), f"a NumPy archive of columns expected: {error}") from error


def _table(archive: zipfile.ZipFile, kind: str, fields: Sequence[str], names: set[str]) -> Iterator[Row]:
    """Yield the records of one type; its columns must be of one length."""
    columns = [_column(archive, f"{kind}/{field}", names) for field in ("seq", "time_ns", *fields)]
    for seq, time_ns, *values in zip(*columns, strict=True):
        yield seq, kind, time_ns, tuple(values)


def _column(archive: zipfile.ZipFile, key: str, names: set[str]) -> Iterator[Any]:
    """Yield the values of one column, a chunk in memory at a time."""
    import numpy as np

    words: list[str] | None = None
    if f"{key}#words" in names:
        if archive.getinfo(f"{key}#words.npy").file_size > WORDS_BYTES_MAX:
            raise ValueError(f"{key} has over {WORDS_BYTES_MAX} bytes of texts")
        with archive.open(f"{key}#words.npy") as stream:
            words = [str(word) for word in np.lib.format.read_array(stream, allow_pickle=False)]
    with archive.open(f"{key}.npy") as stream:
        count, dtype = _heading(stream, key)
        while count:
            rows = min(count, CHUNK_ROWS)
            data = stream.read(rows * dtype.itemsize)
            if len(data) != rows * dtype.itemsize:
                raise EOFError(f"{key} ends early")
            values = np.frombuffer(data, dtype=dtype).tolist()
            yield from values if words is None else [words[index] for index in values]
            count -= rows


def _heading(stream: IO[bytes], key: str) -> tuple[int, Any]:
    """Read the heading of an array: its length and the type of its elements."""
    import numpy as np

    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if len(shape) != 1 or dtype.kind not in "iu":
        raise ValueError(f"{key} is no column of integers")
    return int(shape[0]), dtype
