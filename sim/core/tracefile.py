"""Trace files: the columns of a trace in one NumPy archive, read back without the simulator that wrote it.

An archive holds, for each record type, an array a field named `type/field`; texts are stored as an index into the
array `type/field#words`.  Leaves out compression of the running trace: the file is written when the run has ended.
Source: NumPy, "NPY format" (`numpy.lib.format`).
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

from sim.core.trace import ColumnarSink, Trace
from sim.errors import FormatError

__all__ = ["TRACE_FILE_BYTES_MAX", "read_trace", "write_trace"]

TRACE_FILE_BYTES_MAX = 8 * 1024**3
"""The largest trace file that is read."""


def write_trace(trace: Trace, path: Path) -> None:
    """Write all records to `path` (by a temporary file, so that no half-written file is left)."""
    import numpy as np

    arrays: dict[str, Any] = {}
    for name, table in sorted(trace.sink().tables.items()):
        for field, column in table.items():
            if isinstance(column, list):
                words = sorted({_as_text(value) for value in column})
                index = {word: number for number, word in enumerate(words)}
                arrays[f"{name}/{field}"] = np.array(
                    [index[_as_text(value)] for value in column], dtype=np.uint32
                )
                arrays[f"{name}/{field}#words"] = np.array(words, dtype=np.str_)
            else:
                arrays[f"{name}/{field}"] = np.frombuffer(column, dtype=np.int64)
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def read_trace(path: Path) -> ColumnarSink:
    """Read a trace file back; bytes fields come back as hex text.

    Errors: `FormatError` when the file is not a trace.
    """
    import numpy as np

    sink = ColumnarSink()
    try:
        if path.stat().st_size > TRACE_FILE_BYTES_MAX:
            raise FormatError("trace file", str(path), f"at most {TRACE_FILE_BYTES_MAX} bytes expected")
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            for key in archive.files:
                if key.endswith("#words"):
                    continue
                name, _, field = key.partition("/")
                column = archive[key]
                if f"{key}#words" in archive.files:
                    words = archive[f"{key}#words"]
                    values: list[Any] = [str(words[index]) for index in column]
                else:
                    values = [int(value) for value in column]
                sink.tables.setdefault(name, {})[field] = values
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError("trace file", str(path), f"a NumPy archive of columns expected: {error}") from error
    sink.records = sum(len(table.get("seq", ())) for table in sink.tables.values())
    return sink


def _as_text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.hex()
