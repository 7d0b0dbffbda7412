"""Payload files: gzip under a limit, and the digests that a descriptor gives for them.

Models how a payload is stored (one gzip member for vgz and tgz, maybe gzip for boot) and checked (SHA-256 of the
stored file, digests of the unpacked content).  Unpacking never gives more than the size that the gzip trailer
declares, nor more than a cap, so a decompression bomb costs neither time nor memory.

What the simulator packs itself is put in *stored* blocks: the bytes then depend on no version of a compression
library, and there is exactly one spelling, so that a changed bit of a gzip header cannot hide (`check_canonical_gzip`).

Leaves out compression and multi-member files.

Sources: RFC 1952 (gzip), RFC 1951 section 3.2.4 (stored blocks); checksums of real VIBs.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from struct import Struct

from sim.errors import FormatError, LimitError, VerificationError
from sim.image.metadata import Checksum, PayloadEntry

__all__ = [
    "CONTENT_BYTES_MAX",
    "GZIP_MAGIC",
    "PayloadError",
    "check_canonical_gzip",
    "check_payload",
    "content_of",
    "declared_size",
    "describe_payload",
    "gunzip",
    "gzip_stored",
    "payload_problems",
]

CONTENT_BYTES_MAX = 64 << 20
"""The largest content of one payload, after unpacking."""

GZIP_MAGIC = b"\x1f\x8b"

_WHAT = "gzip"
_GZIP_WINDOW = 31  # zlib's word for "gzip header, 32 KiB window"
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # deflate, no flags, no time, unknown system
_BLOCK = Struct("<BHH")  # last or not, length, its complement
_TRAILER = Struct("<II")  # checksum and length of the content
_GZIP_BYTES_MIN = 18
_STORED_BYTES_MAX = 0xFFFF
_PIECE_BYTES = 1 << 18
_LARGE_BYTES = 16 << 20
_HASHES = {"sha-256": "sha256", "sha-1": "sha1"}


class PayloadError(VerificationError):
    """A payload file is not the one that its descriptor names."""


def gunzip(data: bytes, bytes_max: int = CONTENT_BYTES_MAX) -> bytes:
    """Return the content of one gzip member of at most `bytes_max` bytes."""
    stored = _stored_content(data, bytes_max)
    if stored is not None:
        return stored
    if data[:2] == GZIP_MAGIC and declared_size(data) > _LARGE_BYTES:
        for _ in _pieces(data, bytes_max):  # all of it proves to fit before any of it is kept
            pass
    return b"".join(_pieces(data, bytes_max))


def gzip_stored(content: bytes) -> bytes:
    """Return the content as a gzip member of stored blocks: the same bytes in every environment."""
    parts = [_HEADER]
    starts = range(0, len(content), _STORED_BYTES_MAX) if content else range(1)
    for start in starts:
        block = content[start : start + _STORED_BYTES_MAX]
        last = start + _STORED_BYTES_MAX >= len(content)
        size = len(block)
        parts.append(bytes([last]) + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little"))
        parts.append(block)
    parts.append(zlib.crc32(content).to_bytes(4, "little") + (len(content) % 2**32).to_bytes(4, "little"))
    return b"".join(parts)


def check_canonical_gzip(data: bytes, name: str) -> bytes:
    """Return the content of a file that this system packed itself; any other spelling of it is a `FormatError`."""
    if declared_size(data) > len(data) or gzip_stored(content := gunzip(data)) != data:
        raise FormatError(_WHAT, name, "is not spelled as this system packs its own files")
    return content


def content_of(data: bytes) -> bytes:
    """Return what a boot loader gets from a file: unpacked when it is gzip, else as it is."""
    return gunzip(data) if data[:2] == GZIP_MAGIC else data


def declared_size(data: bytes) -> int:
    """Return how many bytes a file says it unpacks to: the word in a gzip trailer, else its own length."""
    return int.from_bytes(data[-4:], "little") if data[:2] == GZIP_MAGIC else len(data)


def describe_payload(name: str, kind: str, data: bytes) -> PayloadEntry:
    """Return the descriptor's entry for a payload file, with the checksums that real VIBs carry."""
    checksums = [Checksum(algorithm="sha-256", digest=hashlib.sha256(data).digest())]
    if data[:2] == GZIP_MAGIC:
        content = gunzip(data)
        for algorithm in ("sha-256", "sha-1"):
            digest = _digest(algorithm, [content])
            checksums.append(Checksum(algorithm=algorithm, digest=digest, process="gunzip"))
    return PayloadEntry(name=name, kind=kind, size=len(data), checksums=tuple(checksums))


def check_payload(entry: PayloadEntry, data: bytes) -> None:
    """Raise `PayloadError` unless size and every checksum of the descriptor hold for the file."""
    for problem in payload_problems(entry, data):
        raise problem


def payload_problems(entry: PayloadEntry, data: bytes) -> Iterator[PayloadError]:
    """Yield what is wrong with a payload file, in the order of checking; the content is only unpacked if it is due."""
    if len(data) != entry.size:
        text = f"payload {entry.name} has {len(data)} bytes, its descriptor says {entry.size}"
        yield PayloadError("payload.size", text)
    if data[:2] == GZIP_MAGIC and not any(checksum.process for checksum in entry.checksums):
        text = f"payload {entry.name} is gzip, and its descriptor has no checksum of what it unpacks to"
        yield PayloadError("payload.gunzip", text)
    for checksum in entry.checksums:
        pieces = [data] if not checksum.process else _pieces(data, CONTENT_BYTES_MAX)
        try:
            found = _digest(checksum.algorithm, pieces)
        except FormatError as error:
            yield PayloadError(checksum.check, f"payload {entry.name} cannot be unpacked: {error}")
            continue
        if found != checksum.digest:
            text = f"payload {entry.name} has {checksum.label} {found.hex()}, its descriptor says {checksum.digest.hex()}"
            yield PayloadError(checksum.check, text)


def _digest(algorithm: str, pieces: list[bytes] | Iterator[bytes]) -> bytes:
    digest = hashlib.new(_HASHES[algorithm], usedforsecurity=False)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def _stored_content(data: bytes, bytes_max: int) -> bytes | None:
    """Return the content of a member as `gzip_stored` packs it, or None: all else, faults too, is left to `_pieces`.

    Stored blocks hold their bytes as they are, so nothing can grow here, and all that is to do is the checksum.
    """
    end = len(data) - _TRAILER.size
    if end < len(_HEADER) or not data.startswith(_HEADER):
        return None
    view = memoryview(data)
    blocks = []
    at = len(_HEADER)
    last = 0
    while not last:
        start = at + _BLOCK.size
        if start > end:
            return None
        last, size, complement = _BLOCK.unpack_from(data, at)
        at = start + size
        if last > 1 or size ^ complement != _STORED_BYTES_MAX or at > end:
            return None
        blocks.append(view[start:at])
    checksum, declared = _TRAILER.unpack_from(data, end)
    if at != end or not sum(map(len, blocks)) == declared <= bytes_max:
        return None
    content = b"".join(blocks)
    return content if zlib.crc32(content) == checksum else None


def _pieces(data: bytes, bytes_max: int) -> Iterator[bytes]:
    """Yield the content of one gzip member in pieces, never more than its trailer declares."""
    if len(data) < _GZIP_BYTES_MIN or data[:2] != GZIP_MAGIC:
        raise FormatError(_WHAT, "offset 0", "not a gzip file")
    declared = declared_size(data)
    if declared > bytes_max:
        raise LimitError(_WHAT, "trailer", f"declares {declared} bytes of content, the limit is {bytes_max}")
    inflater = zlib.decompressobj(_GZIP_WINDOW)
    left = declared
    for start in range(0, len(data), _PIECE_BYTES):
        pending = data[start : start + _PIECE_BYTES]
        while pending or inflater.unconsumed_tail:
            piece = _inflate(inflater, pending or inflater.unconsumed_tail, min(left, _PIECE_BYTES) + 1)
            pending = b""
            left -= len(piece)
            if left < 0:
                raise LimitError(
                    _WHAT, "content", f"is longer than the {declared} bytes that the trailer declares"
                )
            yield piece
            if inflater.eof:
                break
        if inflater.eof:
            if inflater.unused_data or start + _PIECE_BYTES < len(data):
                raise FormatError(_WHAT, "end", "bytes follow the gzip member")
            break
    if not inflater.eof:
        raise FormatError(_WHAT, "end", "the gzip member is cut off")


def _inflate(inflater: zlib._Decompress, data: bytes, bytes_max: int) -> bytes:
    try:
        return inflater.decompress(data, bytes_max)
    except zlib.error:  # its words differ from one zlib to the next, and ours go into the trace
        raise FormatError(_WHAT, "content", "does not inflate") from None
