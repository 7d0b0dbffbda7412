"""The Unix archive that a VIB is stored in, in the one spelling that real VIBs use.

Models the common `ar` format with 60-byte headers.  Reading is strict: owner, group, mode and time are written `0`,
names stand without a slash, sizes are plain decimal, and the padding byte is a newline.  So every header bit is
either part of the content or fixed, and an archive has exactly one encoding: what a signature does not cover cannot
be changed unseen.

Leaves out long names, symbol tables and thin archives: a VIB holds none.

Sources: ar(5) of the BSD and GNU systems; the headers of a real VIB.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from sim.errors import FormatError, LimitError

__all__ = ["ARCHIVE_BYTES_MAX", "MEMBERS_MAX", "ArMember", "read_ar", "write_ar"]

ARCHIVE_BYTES_MAX = 1 << 30
MEMBERS_MAX = 1024

_MAGIC = b"!<arch>\n"
_HEADER_BYTES = 60
_HEADER_END = b"`\n"
_ZERO_FIELDS = b"0           " + b"0     " + b"0     " + b"0       "  # mtime, uid, gid, mode
_NAME = re.compile(rb"[A-Za-z0-9_.+-]{1,16}")
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,9}) *")


@attrs.frozen(kw_only=True)
class ArMember:
    """One named run of bytes in an archive."""

    name: str
    data: bytes


def read_ar(data: bytes) -> tuple[ArMember, ...]:
    """Return the members in their order; anything but the strict spelling is a `FormatError`."""
    if len(data) > ARCHIVE_BYTES_MAX:
        raise LimitError("VIB archive", "", f"more than {ARCHIVE_BYTES_MAX} bytes")
    if data[: len(_MAGIC)] != _MAGIC:
        raise FormatError("VIB archive", "offset 0", "does not begin with '!<arch>' and a newline")
    members: list[ArMember] = []
    offset = len(_MAGIC)
    while offset < len(data):
        if len(members) == MEMBERS_MAX:
            raise LimitError("VIB archive", f"offset {offset:#x}", f"more than {MEMBERS_MAX} members")
        where = f"member {len(members)}, offset {offset:#x}"
        name, size = _read_header(data[offset : offset + _HEADER_BYTES], where)
        start = offset + _HEADER_BYTES
        offset = _end_of_body(data, start, size, where)
        members.append(ArMember(name=name, data=data[start : start + size]))
    return tuple(members)


def write_ar(members: Iterable[ArMember]) -> bytes:
    """Return the archive of the members; `read_ar` gives them back."""
    parts = [_MAGIC]
    for member in members:
        name = member.name.encode("ascii", "replace")
        if not _NAME.fullmatch(name):
            raise FormatError(
                "VIB archive", f"member {member.name!r}", "name is not 1 to 16 of [A-Za-z0-9_.+-]"
            )
        parts.append(name.ljust(16) + _ZERO_FIELDS + str(len(member.data)).encode().ljust(10) + _HEADER_END)
        parts.append(member.data)
        if len(member.data) % 2:
            parts.append(b"\n")
    return b"".join(parts)


def _read_header(header: bytes, where: str) -> tuple[str, int]:
    if len(header) < _HEADER_BYTES:
        raise FormatError(
            "VIB archive", where, f"header is cut off after {len(header)} of {_HEADER_BYTES} bytes"
        )
    if header[58:] != _HEADER_END:
        raise FormatError("VIB archive", where, "header does not end with '`' and a newline")
    name = header[:16].rstrip(b" ")
    if not _NAME.fullmatch(name):
        raise FormatError("VIB archive", where, "member name is not 1 to 16 of [A-Za-z0-9_.+-]")
    if header[16:48] != _ZERO_FIELDS:
        raise FormatError("VIB archive", where, "time, owner, group and mode are not all '0'")
    size = _SIZE.fullmatch(header[48:58])
    if size is None:
        raise FormatError("VIB archive", where, "size is not a plain decimal number")
    return name.decode("ascii"), int(size.group(1))


def _end_of_body(data: bytes, start: int, size: int, where: str) -> int:
    end = start + size
    if end > len(data):
        raise FormatError(
            "VIB archive", where, f"size {size} is beyond the end, {len(data) - start} bytes are left"
        )
    if size % 2 == 0:
        return end
    if data[end : end + 1] != b"\n":
        raise FormatError("VIB archive", where, "an odd size is not followed by one newline")
    return end + 1
