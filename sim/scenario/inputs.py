"""Reading the files that a scenario names: bounded, regular files only, and every trouble in one line.

Models nothing.  Leaves out writing and network paths.  A file's content, never its path, becomes part of a scenario.
"""

from __future__ import annotations

import stat
from pathlib import Path

from attrs import field, frozen

from sim.core.units import MIB, format_bytes
from sim.errors import ScenarioError

__all__ = ["INPUT_BYTES_MAX", "SCENARIO_BYTES_MAX", "InputFile", "read_input", "read_text"]

SCENARIO_BYTES_MAX = MIB // 4
"""The largest scenario file: some thousand tables."""

INPUT_BYTES_MAX = 64 * MIB
"""The largest file that a scenario may name (a VIB, say)."""


@frozen(kw_only=True)
class InputFile:
    """A file that a scenario brings along: its base name and its bytes."""

    name: str
    data: bytes = field(repr=False)


def read_input(path: Path, where: str, bytes_max: int = INPUT_BYTES_MAX) -> bytes:
    """Return the bytes of a regular file of at most `bytes_max` bytes, which is checked before reading.

    Errors: `ScenarioError` at `where`, which is the key that named the file, or the file itself.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise ScenarioError(where, f"{_named(path, where)}is a folder", wanted="a file")
        if not stat.S_ISREG(found.st_mode):
            raise ScenarioError(where, f"{_named(path, where)}is not a regular file")
        if found.st_size > bytes_max:
            raise _too_large(path, where, bytes_max)
        with path.open("rb") as stream:
            data = stream.read(bytes_max + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        name = "" if where == str(path) else f" {str(path)!r}"
        raise ScenarioError(where, f"cannot read{name}: {reason}") from None
    if len(data) > bytes_max:
        raise _too_large(path, where, bytes_max)
    return data


def read_text(path: Path, where: str, bytes_max: int) -> str:
    """Return the UTF-8 text of a file.

    Errors: `ScenarioError` for a file that is not UTF-8 text.
    """
    data = read_input(path, where, bytes_max)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ScenarioError(where, f"{_named(path, where)}is not UTF-8 text (byte {error.start})") from None
    if "\0" in text:
        raise ScenarioError(where, f"{_named(path, where)}is not a text file (it has NUL bytes)")
    return text


def _too_large(path: Path, where: str, bytes_max: int) -> ScenarioError:
    return ScenarioError(where, f"{_named(path, where)}is larger than the limit of {format_bytes(bytes_max)}")


def _named(path: Path, where: str) -> str:
    """Return the file's name for a message that begins with `where`, or nothing if that is the name already."""
    return "" if where == str(path) else f"{path} "
