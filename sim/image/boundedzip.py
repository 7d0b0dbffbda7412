"""Zip archives as depots use them: read within limits, written in one spelling.

Models: stored and deflated files under plain relative paths, each once.  A reader takes the number of entries and the
size of the directory from the end record before it reads any of them, and checks every name and what all files together
declare (`sim.image.growth`) before it unpacks one.  It unpacks what it is asked for, piece by piece, and no file beyond
the size that the directory declares for it, so that no archive costs more memory than a caller allows.

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
from sim.image.growth import check_growth
from sim.image.paths import check_path

__all__ = [
    "ZIP_BYTES_MAX",
    "ZIP_CONTENT_BYTES_MAX",
    "ZIP_ENTRIES_MAX",
    "ZipReader",
    "read_zip",
    "write_zip",
]

ZIP_BYTES_MAX = 512 << 20
ZIP_CONTENT_BYTES_MAX = 512 << 20
ZIP_ENTRIES_MAX = 4096

_WHAT = "zip archive"
_FIRST = b"PK\x03\x04"
_END = struct.Struct("<4s4H2IH")
_END_MAGIC = b"PK\x05\x06"
_ENTRY_BYTES_MAX = 512
_PIECE_BYTES = 1 << 18
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
    reader = ZipReader(data, what, content_bytes_max=content_bytes_max)
    return {path: reader.read(path) for path in reader.sizes}


class ZipReader:
    """The files of an archive by path: known at once with their declared sizes, unpacked when they are asked for."""

    def __init__(
        self, data: bytes, what: str = _WHAT, *, content_bytes_max: int = ZIP_CONTENT_BYTES_MAX
    ) -> None:
        """Read and check the directory; errors as for `read_zip`."""
        _check_frame(data, what)
        self._what = what
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(data))
            infos = [info for info in self._archive.infolist() if not _is_folder(info)]
        except _BROKEN as error:
            raise _broken(what, error) from error
        _check_infos(infos, what)
        self._infos = {info.filename: info for info in infos}
        self.sizes = {info.filename: info.file_size for info in infos}
        """Path -> declared size, in the order of the directory."""
        check_growth(len(data), sum(self.sizes.values()), content_bytes_max, what)

    def read(self, path: str, bytes_max: int = ZIP_CONTENT_BYTES_MAX) -> bytes:
        """Return one file; a missing one, or one that is not as declared, is a `FormatError`."""
        if path not in self._infos:
            raise FormatError(self._what, path[:60], "is missing")
        if self.sizes[path] > bytes_max:
            raise LimitError(self._what, path[:60], f"declares more than {bytes_max} bytes")
        try:
            return _content(self._archive, self._infos[path], self._what)
        except _BROKEN as error:
            raise _broken(self._what, error) from error


def _broken(what: str, error: Exception) -> FormatError:
    return FormatError(what, "", f"is broken ({type(error).__name__})")


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


def _check_infos(infos: list[zipfile.ZipInfo], what: str) -> None:
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


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, what: str) -> bytes:
    """Unpack one file; the library stops at the declared size, and the checksum tells whether more was there."""
    parts: list[bytes] = []
    left = info.file_size + 1
    with archive.open(info) as stream:
        while left > 0 and (part := stream.read(min(left, _PIECE_BYTES))):
            parts.append(part)
            left -= len(part)
    if left != 1:
        raise FormatError(
            what,
            info.filename,
            f"has {info.file_size + 1 - left} bytes, {info.file_size} are declared",
        )
    return b"".join(parts)
