"""Zip archives as depots use them: read within limits, written in one spelling.

Models: stored and deflated files under plain relative paths, each once.  A reader takes the number of entries and the
size of the directory from the end record before it reads any of them, checks every name, and unpacks no file beyond the
size that the directory declares for it, nor all of them beyond one limit, so that no archive costs more memory than a
caller allows.

Leaves out: encryption, archives in several parts, ZIP64, comments, links: all are refused.

Sources: PKWARE, APPNOTE.TXT 6.3; the traversal incidents "Zip Slip" and CVE-2007-4559.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping

from sim.errors import FormatError, LimitError
from sim.image.paths import check_path

__all__ = ["ZIP_BYTES_MAX", "ZIP_CONTENT_BYTES_MAX", "ZIP_ENTRIES_MAX", "read_zip", "write_zip"]

ZIP_BYTES_MAX = 512 << 20
ZIP_CONTENT_BYTES_MAX = 512 << 20
ZIP_ENTRIES_MAX = 4096

_WHAT = "zip archive"
_FIRST = b"PK\x03\x04"
_END = struct.Struct("<4s4H2IH")
_END_MAGIC = b"PK\x05\x06"
_ENTRY_BYTES_MAX = 512
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
_PLAIN_DATE = (1980, 1, 1, 0, 0, 0)
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""All that the library raises on broken archives."""


def read_zip(
    data: bytes, what: str = _WHAT, *, content_bytes_max: int = ZIP_CONTENT_BYTES_MAX
) -> dict[str, bytes]:
    """Return path -> content of every file, in the order of the directory; `what` names the archive in errors.

    Errors: `LimitError` for what is larger than a limit or than declared, `FormatError` for all else.
    """
    _check_frame(data, what)
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        infos = [info for info in archive.infolist() if not _is_folder(info)]
        _check_infos(infos, what, content_bytes_max)
        return {info.filename: _content(archive, info, what) for info in infos}
    except _BROKEN as error:
        raise FormatError(what, "", f"is broken ({type(error).__name__})") from error


def write_zip(files: Mapping[str, bytes] | Iterable[tuple[str, bytes]]) -> bytes:
    """Return an archive of stored files without times; equal arguments give equal bytes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path, data in files.items() if isinstance(files, Mapping) else files:
            info = zipfile.ZipInfo(path, _PLAIN_DATE)
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            archive.writestr(info, data)
    return target.getvalue()


def _check_frame(data: bytes, what: str) -> None:
    """Demand one archive from the first byte to the last, with a directory of bearable size."""
    if len(data) > ZIP_BYTES_MAX:
        raise LimitError(what, "", f"more than {ZIP_BYTES_MAX} bytes")
    if not data.startswith(_FIRST) or data[-_END.size :][:4] != _END_MAGIC:
        raise FormatError(what, "", "is not one zip archive from its first byte to its last")
    _, disk, first_disk, here, entries, size, offset, comment = _END.unpack(data[-_END.size :])
    if (disk, first_disk, comment) != (0, 0, 0) or here != entries or offset + size != len(data) - _END.size:
        raise FormatError(what, "", "its end record does not fit the archive")
    if entries > ZIP_ENTRIES_MAX or size > ZIP_ENTRIES_MAX * _ENTRY_BYTES_MAX:
        raise LimitError(what, "", f"more than {ZIP_ENTRIES_MAX} entries")


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith("/") and info.file_size == 0


def _check_infos(infos: list[zipfile.ZipInfo], what: str, content_bytes_max: int) -> None:
    if len(infos) > ZIP_ENTRIES_MAX:
        raise LimitError(what, "", f"more than {ZIP_ENTRIES_MAX} entries")
    seen: set[str] = set()
    for info in infos:
        check_path(info.orig_filename, what, "entry")
        if info.filename != info.orig_filename or info.filename in seen:
            raise FormatError(what, info.filename[:60], "stands twice, or under two names")
        seen.add(info.filename)
        if info.compress_type not in _METHODS or info.flag_bits & _ENCRYPTED:
            raise FormatError(what, info.filename[:60], "is neither stored nor deflated, or encrypted")
    if sum(info.file_size for info in infos) > content_bytes_max:
        raise LimitError(what, "", f"declares more than {content_bytes_max} bytes of content")


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, what: str) -> bytes:
    """Unpack one file; the library stops at the declared size, and the checksum tells whether more was there."""
    with archive.open(info) as stream:
        data = stream.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise FormatError(what, info.filename, f"has {len(data)} bytes, {info.file_size} are declared")
    return data
