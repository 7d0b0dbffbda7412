"""Names and records in ELF files: string tables and the key=value texts of `.modinfo`.

Models: NUL-terminated names in a string table, with a limit for each and for all that are read from one file.

Leaves out: every other record.

Sources: System V ABI, edition 4.1, chapter 4, "String Table"; the form of `.modinfo` is that of Linux modules.
"""

from __future__ import annotations

from sim.errors import FormatError, LimitError

__all__ = ["NAMES_BYTES_MAX", "NAME_BYTES_MAX", "Names", "parse_modinfo", "shown"]

NAME_BYTES_MAX = 16 * 1024
SHOWN_CHARACTERS_MAX = 120
NAMES_BYTES_MAX = 32 * 1024 * 1024

_WHAT = "ELF"


def shown(name: str) -> str:
    """Return a name from a file as it may stand in a message: on one line, printable, and not too long."""
    text = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name
    )
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[: SHOWN_CHARACTERS_MAX - 3] + "..."


class Names:
    """A string table of one file."""

    def __init__(self, table: bytes) -> None:
        self._table = table
        self._left = NAMES_BYTES_MAX

    def at(self, offset: int) -> str:
        """Return the name that begins at `offset`; raises FormatError (LimitError for names too long)."""
        end = self._table.find(b"\0", offset, offset + NAME_BYTES_MAX)
        if end < 0:
            raise FormatError(
                _WHAT, "symbol names", f"no name of at most {NAME_BYTES_MAX} bytes at {offset:#x}"
            )
        self._left -= end - offset
        if self._left < 0:
            raise LimitError(_WHAT, "symbol names", f"more than {NAMES_BYTES_MAX} bytes in all")
        return self._table[offset:end].decode("utf-8", "backslashreplace")


def parse_modinfo(record: bytes) -> tuple[tuple[str, str], ...]:
    """Split `.modinfo` into its key=value texts; a file without that record has none."""
    if not record:
        return ()
    try:
        texts = record.decode("utf-8").rstrip("\0").split("\0")
    except UnicodeDecodeError as error:
        raise FormatError(_WHAT, ".modinfo", "a text that does not decode") from error
    pairs = [text.partition("=") for text in texts if text]
    if any(not key or not mark for key, mark, _ in pairs):
        raise FormatError(_WHAT, ".modinfo", "expected key=value texts")
    return tuple((key, value) for key, _, value in pairs)
