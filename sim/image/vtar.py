"""vtar, the archive inside a vgz payload: all headers first, the data of each file at an offset of its own.

Models ESXi's variant of ustar: magic "visor" and two blanks, and in the last 16 bytes of each header four
little-endian words: data offset, text offset, text size and number of fix-up pages.  An ordinary tar reader returns
only some of the files, without an error; this one follows the offsets and refuses overlaps.

One real file in eleven has a wrong header checksum, so a wrong one is reported (`TarEntry.checksum_ok`), not refused.

Leaves out what the text words are for: they are read over and written as zero.

Sources: the payload of a real VIB; the fields' meaning from public descriptions of the format.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct

from sim.errors import FormatError, LimitError
from sim.image.tar import (
    BLOCK_BYTES,
    ENTRIES_MAX,
    EntryKind,
    TarEntry,
    TarHeader,
    bare_header,
    check_tree,
    write_header,
)

__all__ = ["is_vtar", "read_vtar", "write_vtar"]

_WHAT = "vtar archive"
_MAGIC = b"visor  \x00"
_WORDS = Struct("<4I")
_WORDS_AT = BLOCK_BYTES - _WORDS.size


def is_vtar(data: bytes) -> bool:
    """Tell whether the bytes begin like a vtar archive."""
    return data[257:265] == _MAGIC


def read_vtar(data: bytes) -> tuple[TarEntry, ...]:
    """Return the entries in order, each file with the bytes at its own offset."""
    headers, headers_end = _read_headers(data)
    _check_regions(headers, headers_end, len(data))
    entries = tuple(
        [
            header.with_data(data[offset : offset + header.size]) if header.size else header.entry
            for header, offset in headers
        ]
    )
    check_tree(entries, _WHAT)
    return entries


def write_vtar(entries: Iterable[TarEntry]) -> bytes:
    """Return the archive of the entries: headers, a block of zeros, then each file's data on a block boundary."""
    items = list(entries)
    offset = (len(items) + 1) * BLOCK_BYTES
    headers = []
    body = []
    for entry in items:
        words = (offset if entry.kind is EntryKind.FILE else 0, 0, 0, 0)
        headers.append(write_header(entry, _MAGIC, _WORDS.pack(*words)))
        padded = entry.data + bytes(-len(entry.data) % BLOCK_BYTES)
        body.append(padded)
        offset += len(padded)
    return b"".join((*headers, bytes(BLOCK_BYTES), *body))


def _read_headers(data: bytes) -> tuple[list[tuple[TarHeader, int]], int]:
    headers: list[tuple[TarHeader, int]] = []
    offset = 0
    while (block := data[offset : offset + BLOCK_BYTES]).strip(b"\0"):
        try:
            header = _bare_header(block, len(headers))
        except FormatError as error:
            where = f"entry {len(headers)}, offset {offset:#x}"
            raise type(error)(_WHAT, where, error.message) from None
        headers.append((header, _WORDS.unpack_from(block, _WORDS_AT)[0]))
        offset += BLOCK_BYTES
    if offset + BLOCK_BYTES > len(data):
        raise FormatError(_WHAT, f"offset {offset:#x}", "the headers do not end with a block of zeros")
    return headers, offset + BLOCK_BYTES


def _bare_header(block: bytes, number: int) -> TarHeader:
    if number == ENTRIES_MAX:
        raise LimitError("", "", f"more than {ENTRIES_MAX} entries")
    header = bare_header(block)
    if header.magic != _MAGIC:
        raise FormatError("", "", "magic is not 'visor' and two blanks")
    return header


def _check_regions(headers: list[tuple[TarHeader, int]], headers_end: int, size: int) -> None:
    """Every file's data lies behind the headers, inside the archive, and in no other file's data."""
    end = headers_end
    regions = [(h, o) for h, o in headers if h.size]
    for header, offset in sorted(regions, key=lambda item: (item[1], item[0].size)):
        if offset < end:
            raise FormatError(_WHAT, header.entry.path, f"data at {offset:#x} overlaps what ends at {end:#x}")
        end = offset + header.size
        if end > size:
            raise FormatError(_WHAT, header.entry.path, f"data ends at {end:#x}, the archive at {size:#x}")
