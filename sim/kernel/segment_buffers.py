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
from collections.abc import Iterator

from attrs import field, frozen

from sim.errors import VerificationError
from sim.hw.mmu import Rights
from sim.image.elf import ElfImage, Segment

__all__ = ["RelocatedSegment", "RelocationError", "SegmentBuffers"]

PAGE_BYTES = 4096
_MASK64 = (1 << 64) - 1


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


class SegmentBuffers:
    """The segments of `image` on their way to `base`, the address of its first page."""

    def __init__(self, image: ElfImage, base: int) -> None:
        self.slide = base - image.first_page
        self._image = image
        self._starts = [segment.virtual_address for segment in image.segments]
        self._buffers = [_buffer(segment) for segment in image.segments]

    def store(self, offset: int, value: int, size: int, what: str) -> None:
        """Store the low `size` bytes of `value` at the file's address `offset`; raises `RelocationError`."""
        self.write(offset, (value & _MASK64).to_bytes(8, "little")[:size], what)

    def write(self, offset: int, data: bytes, what: str) -> None:
        """Store bytes at the file's address `offset`; raises `RelocationError` outside of writable segments."""
        index = self._index(offset, len(data), what)
        segment, buffer = self._image.segments[index], self._buffers[index]
        if not segment.writable or not isinstance(buffer, bytearray):
            raise RelocationError("module.relocation", f"{what} lies in a segment that is not writable")
        at = offset - segment.virtual_address + _slack(segment)
        if at + len(data) > len(buffer):
            buffer.extend(bytes(at + len(data) - len(buffer)))
        buffer[at : at + len(data)] = data

    def load(self, offset: int, size: int, what: str) -> bytes:
        """Return bytes at the file's address `offset` as they are now; raises `RelocationError`."""
        index = self._index(offset, size, what)
        segment = self._image.segments[index]
        at = offset - segment.virtual_address + _slack(segment)
        return bytes(self._buffers[index][at : at + size]).ljust(size, b"\0")

    def relocated(self) -> tuple[RelocatedSegment, ...]:
        """Return what is to be mapped, in rising order of addresses."""
        return tuple(
            piece for index in range(len(self._buffers)) for piece in self._pieces(index) if piece.size_bytes
        )

    def _index(self, offset: int, size: int, what: str) -> int:
        index = bisect_right(self._starts, offset) - 1
        if index < 0 or offset + size > self._image.segments[index].end:
            raise RelocationError("module.relocation", f"{what} lies in no segment")
        return index

    def _pieces(self, index: int) -> Iterator[RelocatedSegment]:
        segment, data = self._image.segments[index], bytes(self._buffers[index])
        start = segment.virtual_address - _slack(segment)
        name = _segment_name(self._image.segments, index)
        rights = Rights(write=segment.writable, execute=segment.executable)
        low, high = self._read_only_range(segment)
        cuts = [(name, start, low, rights), ("relro", low, high, Rights()), (name, high, segment.end, rights)]
        if low == high:
            cuts = [(name, start, segment.end, rights)]
        for piece, begin, end, allowed in cuts:
            if begin < end:
                yield RelocatedSegment(
                    name=piece,
                    base=begin + self.slide,
                    data=data[begin - start : end - start],
                    size_bytes=end - begin,
                    rights=allowed,
                )

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
    return bytearray(slack) + segment.data if segment.writable else bytes(slack) + segment.data


def _slack(segment: Segment) -> int:
    """Return the bytes between the beginning of the segment's first page and the segment."""
    return segment.virtual_address % PAGE_BYTES


def _segment_name(segments: tuple[Segment, ...], index: int) -> str:
    """Return text, rodata or data, with a number from the second of its kind on."""
    kinds = ["text" if each.executable else "data" if each.writable else "rodata" for each in segments]
    before = kinds[:index].count(kinds[index])
    return kinds[index] if not before else f"{kinds[index]}.{before + 1}"
