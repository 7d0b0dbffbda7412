"""Files in a tape archive: the ordinary ustar kind, and the header fields that ESXi's vtar shares with it.

Models 512-byte headers with octal numbers, regular files, directories and symbolic links, path safety, and one
spelling for writing.  Reading refuses what could be read in two ways: wrong header checksums, hard links, devices,
long-name extensions, duplicate paths, a file under a symbolic link.

Leaves out pax and GNU extensions, sparse files and owners' names beyond carrying them.

Sources: POSIX.1-2017, pax utility, "ustar Interchange Format".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache

import attrs

from sim.errors import FormatError, LimitError
from sim.image.paths import check_link_target, check_path

__all__ = [
    "BLOCK_BYTES",
    "ENTRIES_MAX",
    "EntryKind",
    "TarEntry",
    "TarHeader",
    "bare_header",
    "check_tree",
    "read_header",
    "read_ustar",
    "with_parents",
    "write_header",
    "write_ustar",
]

BLOCK_BYTES = 512
ENTRIES_MAX = 20_000

_WHAT = "tar archive"
_USTAR = b"ustar\x0000"
_NAMES_END = 496  # here the prefix field ends: vtar keeps its words behind it
_OCTAL = re.compile(rb" *([0-7]*)[ \x00]*")


class EntryKind(Enum):
    """What an entry of an archive is; the value is the type flag in its header."""

    FILE = b"0"
    DIRECTORY = b"5"
    SYMLINK = b"2"


@attrs.frozen(kw_only=True, slots=False)  # one is made for each file of an image: this is the faster kind
class TarEntry:
    """One file, directory or symbolic link; the path has no slash at either end."""

    path: str
    kind: EntryKind = EntryKind.FILE
    data: bytes = b""
    mode: int = 0o644
    mtime: int = 0
    target: str = ""
    uid: int = 0
    gid: int = 0
    owner: str = "root"
    group: str = "root"
    checksum_ok: bool = True


@attrs.frozen(kw_only=True)
class TarHeader:
    """A header as it was read: the entry without its data, the data's size, and the magic of eight bytes."""

    entry: TarEntry
    size: int
    magic: bytes

    def with_data(self, data: bytes) -> TarEntry:
        """Return the entry with its data; written out, since `attrs.evolve` takes longer than all else of an entry."""
        bare = self.entry
        return TarEntry(
            path=bare.path,
            kind=bare.kind,
            data=data,
            mode=bare.mode,
            mtime=bare.mtime,
            target=bare.target,
            uid=bare.uid,
            gid=bare.gid,
            owner=bare.owner,
            group=bare.group,
            checksum_ok=bare.checksum_ok,
        )


def read_ustar(data: bytes) -> tuple[TarEntry, ...]:
    """Return the entries of an ordinary archive in order."""
    what = _WHAT
    entries: list[TarEntry] = []
    offset = 0
    while (block := data[offset : offset + BLOCK_BYTES]).strip(b"\0"):
        where = f"entry {len(entries)}, offset {offset:#x}"
        header = read_header(block, what, where)
        if header.magic != _USTAR or block[_NAMES_END:].strip(b"\0"):
            raise FormatError(what, where, "magic is not ustar 00, or the header does not end with zeros")
        if not header.entry.checksum_ok:
            raise FormatError(what, where, "header checksum is wrong")
        start = offset + BLOCK_BYTES
        end = start + header.size
        if end > len(data):
            raise FormatError(what, where, f"size {header.size} is beyond the end")
        entries.append(header.with_data(data[start:end]) if header.size else header.entry)
        if len(entries) > ENTRIES_MAX:
            raise LimitError(what, where, f"more than {ENTRIES_MAX} entries")
        offset = end + -header.size % BLOCK_BYTES
    if len(data) < offset + 2 * BLOCK_BYTES or data[offset:].strip(b"\0"):
        raise FormatError(what, f"offset {offset:#x}", "does not end with two or more blocks of zeros")
    check_tree(entries, what)
    return tuple(entries)


def write_ustar(entries: Iterable[TarEntry]) -> bytes:
    """Return an ordinary archive of the entries, ended by two blocks of zeros."""
    parts = []
    for entry in entries:
        parts.append(write_header(entry, _USTAR))
        parts.append(entry.data + bytes(-len(entry.data) % BLOCK_BYTES))
    parts.append(bytes(2 * BLOCK_BYTES))
    return b"".join(parts)


def read_header(block: bytes, what: str, where: str) -> TarHeader:
    """Return the fields of one header; the caller judges magic and checksum."""
    try:
        return bare_header(block)
    except FormatError as error:
        raise type(error)(what, where, error.message) from None


@lru_cache(maxsize=1024)
def bare_header(block: bytes) -> TarHeader:
    """Do the same, with errors that do not say where; the headers of folders are the same in most archives."""
    if len(block) < BLOCK_BYTES:
        raise FormatError("", "", f"header is cut off after {len(block)} of {BLOCK_BYTES} bytes")
    try:
        kind = EntryKind(block[156:157])
    except ValueError:
        raise FormatError("", "", f"entry type {block[156:157]!r} is not file, directory or link") from None
    path = _text(block[:100])
    prefix = _text(block[345:496])
    path = f"{prefix}/{path}" if prefix else path
    if kind is EntryKind.DIRECTORY:
        path = path.removesuffix("/")
    check_path(path, "", "")
    target = _text(block[157:257])
    if kind is EntryKind.SYMLINK:
        check_link_target(path, target, "", "")
    elif target:
        raise FormatError("", "", "has a link target but is no link")
    size = _number(block[124:136])
    if size and kind is not EntryKind.FILE:
        raise FormatError("", "", "has data but is no file")
    entry = TarEntry(
        path=path,
        kind=kind,
        mode=_number(block[100:108]),
        uid=_number(block[108:116]),
        gid=_number(block[116:124]),
        mtime=_number(block[136:148]),
        target=target,
        owner=_text(block[265:297]),
        group=_text(block[297:329]),
        checksum_ok=_number(block[148:156]) == _checksum(block),
    )
    return TarHeader(entry=entry, size=size, magic=block[257:265])


def write_header(entry: TarEntry, magic: bytes, tail: bytes = b"") -> bytes:
    """Return the header of an entry; `tail` are the last bytes of the block (of the prefix field and after it)."""
    where = entry.path[:60]
    check_path(entry.path, _WHAT, where)
    if entry.kind is EntryKind.SYMLINK:
        check_link_target(entry.path, entry.target, _WHAT, where)
    prefix, name = _split(entry.path + ("/" if entry.kind is EntryKind.DIRECTORY else ""))
    fields = [
        _padded(name, 100, where),
        *(_octal(number, 8, where) for number in (entry.mode, entry.uid, entry.gid)),
        _octal(len(entry.data), 12, where) + _octal(entry.mtime, 12, where) + b" " * 8 + entry.kind.value,
        _padded(entry.target, 100, where) + magic,
        _padded(entry.owner, 32, where) + _padded(entry.group, 32, where) + bytes(16),
    ]
    block = (b"".join(fields) + prefix.encode("ascii")).ljust(BLOCK_BYTES - len(tail), b"\0") + tail
    return block[:148] + f"{_checksum(block):06o}\0 ".encode() + block[156:]


def check_tree(entries: Iterable[TarEntry], what: str) -> None:
    """Refuse two entries for one path, and anything under a path that is not a directory."""
    kinds: dict[str, EntryKind] = {}
    for entry in entries:
        path = entry.path
        if path in kinds:
            raise FormatError(what, path, "stands twice")
        kinds[path] = entry.kind
    directory = EntryKind.DIRECTORY
    good: set[str] = set()
    for path in kinds:
        parent, slash, _ = path.rpartition("/")
        while slash and parent not in good:
            if kinds.get(parent, directory) is not directory:
                raise FormatError(what, path, f"lies under {parent}, which is no directory")
            good.add(parent)
            parent, slash, _ = parent.rpartition("/")


def with_parents(entries: Iterable[TarEntry]) -> tuple[TarEntry, ...]:
    """Return the entries sorted by path, with a directory entry before each for every parent that has none."""
    tree = {entry.path: entry for entry in entries}
    for path in list(tree):
        parent = path.rpartition("/")[0]
        while parent and parent not in tree:
            tree[parent] = TarEntry(path=parent, kind=EntryKind.DIRECTORY, mode=0o755)
            parent = parent.rpartition("/")[0]
    return tuple(tree[path] for path in sorted(tree))


def _split(path: str) -> tuple[str, str]:
    """Split a long path for the prefix and name fields of a header."""
    if len(path) <= 100:
        return "", path
    cut = path.find("/", len(path) - 101)
    if not 0 < cut <= 150 or cut == len(path) - 1:
        raise FormatError(_WHAT, path[:60], "path does not fit into a header")
    return path[:cut], path[cut + 1 :]


def _checksum(block: bytes) -> int:
    return sum(block[:148]) + 8 * 0x20 + sum(block[156:])


def _padded(text: str, width: int, where: str) -> bytes:
    if not text.isascii() or "\0" in text or len(text) > width:
        raise FormatError(_WHAT, where, f"{text[:40]!r} does not fit into a field of {width} bytes")
    return text.encode("ascii").ljust(width, b"\0")


def _octal(number: int, width: int, where: str) -> bytes:
    text = f"{number:0{width - 1}o}"
    if number < 0 or len(text) >= width:
        raise FormatError(_WHAT, where, f"number {number} does not fit into {width - 1} octal digits")
    return text.encode() + b"\0"


@lru_cache(maxsize=1024)
def _number(field: bytes) -> int:
    match = _OCTAL.fullmatch(field)
    if match is None:
        raise FormatError("", "", f"field {field!r} is not an octal number")
    return int(match.group(1) or b"0", 8)


def _text(field: bytes) -> str:
    text, _, rest = field.partition(b"\0")
    if rest.strip(b"\0") or not text.isascii():
        raise FormatError("", "", f"field {field[:40]!r} is not a text ended by zeros")
    return text.decode("ascii")
