"""The bytes of a file's segments while they are relocated, and the pieces that are then mapped.

Models: one buffer for each segment from the first byte of its first page; stores and loads by the file's own virtual
addresses; the split of a writable segment whose first pages become read-only (RELRO): since bytes are relocated before
they are mapped, those pages are never writable through any mapping.

Leaves out: what lies in a page beside its segment; a real loader maps whole file pages and so leaves parts of the
neighbouring segments there, here they are zero.

Sources: System V ABI, edition 4.1, chapter 5; the rounding of RELRO is glibc's (both ends down to whole pages).
"""

from __future__ import annotations

from bisect import bisect_right
from struct import Struct

from attrs import field, frozen

from sim.errors import VerificationError
from sim.hw.mmu import Rights
from sim.image.elf import ElfImage, Relocation, Segment

__all__ = ["RelocatedSegment", "RelocationError", "SegmentBuffers", "described"]

PAGE_BYTES = 4096
_MASK64 = (1 << 64) - 1
_WORD = Struct("<Q")
_READ_ONLY = Rights()
_RIGHTS = {
    (write, execute): Rights(write=write, execute=execute)
    for write in (False, True)
    for execute in (False, True)
}


class RelocationError(VerificationError):
    """A relocation cannot be applied: its kind is not supported, its value does not fit, or a symbol is missing."""


@frozen(kw_only=True)
class RelocatedSegment:
    """The first bytes of a segment's pages, what to map them at, and how many bytes to map (the rest is zero)."""

    name: str
    base: int
    data: bytes = field(repr=False)
    size_bytes: int
    rights: Rights


def described(relocation: Relocation) -> str:
    """Return the kind and place of a relocation, for the text of an error."""
    return f"R_X86_64_{relocation.kind} at {relocation.offset:#x}"


class SegmentBuffers:
    """The segments of `image` on their way to `base`, the address of its first page.

    `what` names, for the text of an error, the place that is written or read: as text, or a relocation of the image.
    """

    def __init__(self, image: ElfImage, base: int) -> None:
        self.slide = base - image.first_page
        self._image = image
        self._starts = [segment.virtual_address for segment in image.segments]
        self._buffers = [_buffer(segment) for segment in image.segments]
        self._open: tuple[int, int, bytearray] = (0, 0, bytearray())
        """First address and end of the segment that was written last, and its buffer."""

    def store(self, offset: int, value: int, size: int, what: str | Relocation) -> None:
        """Store the low `size` bytes of `value` at the file's address `offset`; raises `RelocationError`."""
        if size == _WORD.size:
            at, buffer = self._place(offset, size, what)
            _WORD.pack_into(buffer, at, value & _MASK64)
        else:
            self.write(offset, (value & _MASK64).to_bytes(8, "little")[:size], what)

    def write(self, offset: int, data: bytes, what: str | Relocation) -> None:
        """Store bytes at the file's address `offset`; raises `RelocationError` outside of writable segments."""
        at, buffer = self._place(offset, len(data), what)
        buffer[at : at + len(data)] = data

    def load(self, offset: int, size: int, what: str | Relocation) -> bytes:
        """Return bytes at the file's address `offset` as they are now; raises `RelocationError`."""
        index = self._index(offset, size, what)
        segment = self._image.segments[index]
        at = offset - segment.virtual_address + _slack(segment)
        return bytes(self._buffers[index][at : at + size]).ljust(size, b"\0")

    def relocated(self) -> tuple[RelocatedSegment, ...]:
        """Return what is to be mapped, in rising order of addresses."""
        pieces: list[RelocatedSegment] = []
        for index, name in enumerate(_names(self._image.segments)):
            pieces += self._pieces(index, name)
        return tuple(pieces)

    def _place(self, offset: int, size: int, what: str | Relocation) -> tuple[int, bytearray]:
        """Return where `size` bytes at `offset` are to be stored, and in which buffer, which is long enough now."""
        low, end, buffer = self._open
        if not low <= offset < end or offset + size > end:
            low, end, buffer = self._open = self._opened(offset, size, what)
        at = offset - low + low % PAGE_BYTES
        if at + size > len(buffer):
            buffer.extend(bytes(at + size - len(buffer)))
        return at, buffer

    def _opened(self, offset: int, size: int, what: str | Relocation) -> tuple[int, int, bytearray]:
        index = self._index(offset, size, what)
        segment, buffer = self._image.segments[index], self._buffers[index]
        if not segment.writable or not isinstance(buffer, bytearray):
            raise RelocationError(
                "module.relocation", f"{_text(what)} lies in a segment that is not writable"
            )
        return segment.virtual_address, segment.end, buffer

    def _index(self, offset: int, size: int, what: str | Relocation) -> int:
        index = bisect_right(self._starts, offset) - 1
        if index < 0 or offset + size > self._image.segments[index].end:
            raise RelocationError("module.relocation", f"{_text(what)} lies in no segment")
        return index

    def _pieces(self, index: int, name: str) -> list[RelocatedSegment]:
        segment, data = self._image.segments[index], bytes(self._buffers[index])
        start = segment.virtual_address - _slack(segment)
        rights = _RIGHTS[segment.writable, segment.executable]
        low, high = self._read_only_range(segment)
        cuts = [
            (name, start, low, rights),
            ("relro", low, high, _READ_ONLY),
            (name, high, segment.end, rights),
        ]
        if low == high:
            cuts = [(name, start, segment.end, rights)]
        return [
            RelocatedSegment(
                name=piece,
                base=begin + self.slide,
                data=data[begin - start : end - start],
                size_bytes=end - begin,
                rights=allowed,
            )
            for piece, begin, end, allowed in cuts
            if begin < end
        ]

    def _read_only_range(self, segment: Segment) -> tuple[int, int]:
        """Return the whole pages of `segment` that are read-only after relocation; an empty range for none."""
        relro = self._image.linking.relro
        if relro is None or not segment.writable:
            return 0, 0
        low, high = (end // PAGE_BYTES * PAGE_BYTES for end in relro)
        start = segment.virtual_address - _slack(segment)
        if not start <= low < high or low >= segment.end:
            return 0, 0
        return low, high


def _buffer(segment: Segment) -> bytes | bytearray:
    """Return the segment's bytes behind the slack; only those of a writable one can change, others are not copied."""
    slack = _slack(segment)
    if segment.writable:
        return bytearray(slack) + segment.data
    return bytes(slack) + segment.data if slack else segment.data


def _slack(segment: Segment) -> int:
    """Return the bytes between the beginning of the segment's first page and the segment."""
    return segment.virtual_address % PAGE_BYTES


def _names(segments: tuple[Segment, ...]) -> list[str]:
    """Return text, rodata or data for each, with a number from the second of its kind on."""
    names: list[str] = []
    count = {"text": 0, "data": 0, "rodata": 0}
    for segment in segments:
        kind = "text" if segment.executable else "data" if segment.writable else "rodata"
        count[kind] += 1
        names.append(kind if count[kind] == 1 else f"{kind}.{count[kind]}")
    return names


def _text(what: str | Relocation) -> str:
    return what if isinstance(what, str) else described(what)
