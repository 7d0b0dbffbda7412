"""Takes the frame of an ELF file apart: header, program headers, segments, sections.

Models: an x86-64 shared object whose segments a loader may map.  Refused: another class, machine or type; segments
that share a page, overlap, leave the file, or are both writable and executable; counts and sizes above the limits;
tables cut short.

Leaves out: the dynamic table and what hangs on it (`elf_read`).

Sources: System V ABI, edition 4.1, chapters 4 and 5.
"""

from __future__ import annotations

from itertools import pairwise

from sim.errors import FormatError, LimitError
from sim.image import elf_format as f
from sim.image.elf_format import PAGE_BYTES, Segment

__all__ = ["MEMORY_BYTES_MAX", "ElfFile"]

MEMORY_BYTES_MAX = 128 * 1024 * 1024
PROGRAM_HEADERS_MAX = 64
SECTIONS_MAX = 4096
RECORD_BYTES_MAX = 64 * 1024

_WHAT = "ELF"
_ADDRESS_MAX = 1 << 47
_ADDRESS, _FILE_BYTES, _MEMORY_BYTES = 3, 5, 6  # places in an unpacked program header


class ElfFile:
    """The frame of one file; raises FormatError (and struct.error for a header cut short) when made."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        if data[:7] != f.MAGIC:
            raise FormatError(_WHAT, "header", "expected an ELF file of 64 bits, little-endian, version 1")
        (
            _,
            kind,
            machine,
            _,
            self.entry,
            self.ph_at,
            self.sh_at,
            _,
            _,
            ph_size,
            self.ph_count,
            sh_size,
            self.sh_count,
            self.names,
        ) = f.HEADER.unpack_from(data)
        if kind != f.ET_DYN or machine != f.EM_X86_64:
            raise FormatError(
                _WHAT, "header", f"expected a shared object for x86-64, found type {kind}, machine {machine}"
            )
        sizes = (ph_size if self.ph_count else None, sh_size if self.sh_count else None)
        if sizes[0] not in (None, f.PROGRAM_HEADER.size) or sizes[1] not in (None, f.SECTION_HEADER.size):
            raise FormatError(_WHAT, "header", "table entries of another size than ELF64 has")
        self.headers = self._program_headers()
        self.segments = self._segments([header for header in self.headers if header[0] == f.PT_LOAD])
        self.sections = self._sections()

    def memory(self, address: int, size: int, where: str) -> bytes:
        """Return bytes by virtual address; they must come from the file, within one segment."""
        segment = self.segment_of(address, size)
        if segment is None or address - segment.virtual_address + size > len(segment.data):
            raise FormatError(_WHAT, where, f"{size} bytes at {address:#x} are not in a segment's file part")
        start = address - segment.virtual_address
        return segment.data[start : start + size]

    def segment_of(self, address: int, size: int) -> Segment | None:
        """Return the segment that holds all of these bytes, or None."""
        for segment in self.segments:
            if segment.virtual_address <= address and address + size <= segment.end:
                return segment
        return None

    def _slice(self, offset: int, size: int, where: str) -> bytes:
        if offset + size > len(self.data):
            raise FormatError(_WHAT, where, f"{size} bytes at offset {offset:#x} go beyond the file's end")
        return self.data[offset : offset + size]

    def section_bytes(self, wanted: bytes) -> bytes:
        """Return the content of the one section of that name, or nothing."""
        if not self.sections:
            return b""
        names = self._slice(self.sections[self.names][4], self.sections[self.names][5], "section names")
        found = [one for one in self.sections if names.startswith(wanted + b"\0", one[0])]
        if not found:
            return b""
        if len(found) > 1 or found[0][1] != f.SHT_PROGBITS:
            raise FormatError(_WHAT, "sections", f"expected one section {wanted.decode()} with content")
        if found[0][5] > RECORD_BYTES_MAX:
            raise LimitError(_WHAT, "sections", f"{wanted.decode()} is longer than {RECORD_BYTES_MAX} bytes")
        return self._slice(found[0][4], found[0][5], "sections")

    def _program_headers(self) -> list[tuple[int, ...]]:
        if not 0 < self.ph_count <= PROGRAM_HEADERS_MAX:
            raise LimitError(
                _WHAT, "header", f"{self.ph_count} program headers, wanted 1 to {PROGRAM_HEADERS_MAX}"
            )
        table = self._slice(self.ph_at, self.ph_count * f.PROGRAM_HEADER.size, "program headers")
        return list(f.PROGRAM_HEADER.iter_unpack(table))

    def _segments(self, headers: list[tuple[int, ...]]) -> tuple[Segment, ...]:
        headers = [header for header in headers if header[_MEMORY_BYTES]]
        if not headers:
            raise FormatError(_WHAT, "program headers", "there is no segment to load")
        spans = [(header[_ADDRESS], header[_ADDRESS] + header[_MEMORY_BYTES]) for header in headers]
        for before, after in pairwise(spans):
            if after[0] // PAGE_BYTES <= (before[1] - 1) // PAGE_BYTES:
                raise FormatError(
                    _WHAT,
                    f"segment at {after[0]:#x}",
                    "is out of order, or shares a page with the one before",
                )
        if spans[-1][1] - spans[0][0] > MEMORY_BYTES_MAX or spans[-1][1] >= _ADDRESS_MAX:
            raise LimitError(
                _WHAT, "program headers", f"more than {MEMORY_BYTES_MAX} bytes in memory below 2**47"
            )
        if sum(header[_FILE_BYTES] for header in headers) > len(self.data):
            raise FormatError(
                _WHAT, "program headers", "the segments take more bytes from the file than it has"
            )
        return tuple(self._segment(header) for header in headers)

    def _segment(self, header: tuple[int, ...]) -> Segment:
        _, flags, offset, address, _, file_bytes, memory_bytes, alignment = header
        where = f"segment at {address:#x}"
        if file_bytes > memory_bytes:
            raise FormatError(_WHAT, where, "more bytes in the file than in memory")
        if flags & f.PF_W and flags & f.PF_X:
            raise FormatError(_WHAT, where, "both writable and executable")
        if alignment & (alignment - 1) or offset % PAGE_BYTES != address % PAGE_BYTES:
            raise FormatError(_WHAT, where, "the file offset and the address do not agree within a page")
        return Segment(
            virtual_address=address,
            memory_bytes=memory_bytes,
            data=self._slice(offset, file_bytes, where),
            file_offset=offset,
            readable=bool(flags & f.PF_R),
            writable=bool(flags & f.PF_W),
            executable=bool(flags & f.PF_X),
        )

    def _sections(self) -> list[tuple[int, ...]]:
        if not self.sh_count:
            return []
        if self.sh_count > SECTIONS_MAX or self.names >= self.sh_count:
            raise LimitError(
                _WHAT, "header", f"{self.sh_count} sections, at most {SECTIONS_MAX}, names in {self.names}"
            )
        table = self._slice(self.sh_at, self.sh_count * f.SECTION_HEADER.size, "section headers")
        return list(f.SECTION_HEADER.iter_unpack(table))
