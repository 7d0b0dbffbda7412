"""Takes the frame of an ELF file apart: header, program headers, segments, sections.

Models: an x86-64 program or shared object whose segments a loader may map, and the header and section table that
relocatable objects have too.  Refused: another class, machine or type; segments
that share a page, overlap, leave the file, or are both writable and executable; counts and sizes above the limits;
tables cut short.

Leaves out: the dynamic table and what hangs on it (`elf_read`).

Sources: System V ABI, edition 4.1, chapters 4 and 5.
"""

from __future__ import annotations

from itertools import pairwise

from attrs import frozen

from sim.errors import FormatError, LimitError
from sim.image import elf_format as f
from sim.image.elf_format import PAGE_BYTES
from sim.image.elf_values import Segment, ThreadStorage

__all__ = ["MEMORY_BYTES_MAX", "ElfFile", "Header", "Sections", "read_header", "slice_of"]

MEMORY_BYTES_MAX = 128 * 1024 * 1024
PROGRAM_HEADERS_MAX = 64
SECTIONS_MAX = 4096
RECORD_BYTES_MAX = 64 * 1024
PATH_BYTES_MAX = 4096
THREAD_BYTES_MAX = 1024 * 1024

_WHAT = "ELF"
_ADDRESS_MAX = 1 << 47
_ADDRESS, _FILE_BYTES, _MEMORY_BYTES = 3, 5, 6  # places in an unpacked program header


@frozen(kw_only=True)
class Header:
    """The file's header: type, entry, and where its two tables lie."""

    kind: int
    entry: int
    ph_at: int
    ph_count: int
    sh_at: int
    sh_count: int
    names: int


def read_header(data: bytes, kinds: tuple[int, ...]) -> Header:
    """Read the header of an x86-64 file of one of the types `kinds`; raises FormatError, or struct.error if cut."""
    if data[:7] != f.MAGIC:
        raise FormatError(_WHAT, "header", "expected an ELF file of 64 bits, little-endian, version 1")
    fields = f.HEADER.unpack_from(data)
    kind, machine, entry, ph_at, sh_at = fields[1], fields[2], fields[4], fields[5], fields[6]
    ph_size, ph_count, sh_size, sh_count, names = fields[9:]
    if kind not in kinds or machine != f.EM_X86_64:
        wanted = " or ".join(f.TYPE_NAMES[one] for one in kinds)
        raise FormatError(
            _WHAT, "header", f"expected {wanted} for x86-64, found type {kind}, machine {machine}"
        )
    sizes = (ph_size if ph_count else None, sh_size if sh_count else None)
    if sizes[0] not in (None, f.PROGRAM_HEADER.size) or sizes[1] not in (None, f.SECTION_HEADER.size):
        raise FormatError(_WHAT, "header", "table entries of another size than ELF64 has")
    return Header(
        kind=kind, entry=entry, ph_at=ph_at, ph_count=ph_count, sh_at=sh_at, sh_count=sh_count, names=names
    )


def slice_of(data: bytes, offset: int, size: int, where: str) -> bytes:
    """Return `size` bytes of the file at `offset`; raises FormatError where the file ends before."""
    if offset + size > len(data):
        raise FormatError(_WHAT, where, f"{size} bytes at offset {offset:#x} go beyond the file's end")
    return data[offset : offset + size]


class Sections:
    """The section headers of a file, which has none if its header says so."""

    def __init__(self, data: bytes, header: Header) -> None:
        self._data = data
        self.rows: list[tuple[int, ...]] = []
        self.names = b""
        if not header.sh_count:
            return
        if header.sh_count > SECTIONS_MAX or header.names >= header.sh_count:
            raise LimitError(
                _WHAT,
                "header",
                f"{header.sh_count} sections, at most {SECTIONS_MAX}, names in {header.names}",
            )
        table = slice_of(data, header.sh_at, header.sh_count * f.SECTION_HEADER.size, "section headers")
        self.rows = list(f.SECTION_HEADER.iter_unpack(table))
        self._names_row = self.rows[header.names]

    def content(self, wanted: bytes) -> bytes:
        """Return the content of the one section of that name, or nothing."""
        if not self.rows:
            return b""
        names, name = self.name_table(), wanted + b"\0"
        if name not in names:
            return b""
        found = [one for one in self.rows if names.startswith(name, one[0])]
        if not found:
            return b""
        if len(found) > 1 or found[0][1] != f.SHT_PROGBITS:
            raise FormatError(_WHAT, "sections", f"expected one section {wanted.decode()} with content")
        if found[0][5] > RECORD_BYTES_MAX:
            raise LimitError(_WHAT, "sections", f"{wanted.decode()} is longer than {RECORD_BYTES_MAX} bytes")
        return slice_of(self._data, found[0][4], found[0][5], "sections")

    def name_table(self) -> bytes:
        """Return the table of section names."""
        if not self.names:
            self.names = slice_of(self._data, self._names_row[4], self._names_row[5], "section names")
        return self.names


class ElfFile:
    """The frame of one file; raises FormatError (and struct.error for a header cut short) when made."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.header = read_header(data, (f.ET_EXEC, f.ET_DYN))
        self.entry = self.header.entry
        self.headers = self._program_headers()
        self.segments = self._segments([header for header in self.headers if header[0] == f.PT_LOAD])
        self._spans = [(one.virtual_address, one.end) for one in self.segments]
        self.end = self._spans[-1][1]
        self._sections = Sections(data, self.header)
        self.sections = self._sections.rows

    def memory(self, address: int, size: int, where: str) -> bytes:
        """Return bytes by virtual address; they must come from the file, within one segment."""
        segment = self.segment_of(address, size)
        start = address - segment.virtual_address if segment is not None else 0
        if segment is None or start + size > len(segment.data):
            raise FormatError(_WHAT, where, f"{size} bytes at {address:#x} are not in a segment's file part")
        return segment.data[start : start + size]

    def segment_of(self, address: int, size: int) -> Segment | None:
        """Return the segment that holds all of these bytes, or None."""
        for number, (start, end) in enumerate(self._spans):
            if start <= address and address + size <= end:
                return self.segments[number]
        return None

    def _slice(self, offset: int, size: int, where: str) -> bytes:
        return slice_of(self.data, offset, size, where)

    def section_bytes(self, wanted: bytes) -> bytes:
        """Return the content of the one section of that name, or nothing."""
        return self._sections.content(wanted)

    def interpreter(self) -> str:
        """Return the path in the PT_INTERP of a file that has one."""
        rows = [header for header in self.headers if header[0] == f.PT_INTERP]
        if len(rows) > 1 or not 1 < rows[0][_FILE_BYTES] <= PATH_BYTES_MAX:
            raise FormatError(
                _WHAT, "interpreter", f"expected one path of 1 to {PATH_BYTES_MAX - 1} characters"
            )
        path = self._slice(rows[0][2], rows[0][_FILE_BYTES], "interpreter")
        if path.find(b"\0") != len(path) - 1 or not path[:-1].isascii():
            raise FormatError(_WHAT, "interpreter", "expected ASCII text with one NUL at its end")
        return path[:-1].decode("ascii")

    def relro(self) -> tuple[int, int] | None:
        """Return the addresses that become read-only after relocation; they lie in one writable segment."""
        rows = [header for header in self.headers if header[0] == f.PT_GNU_RELRO and header[_MEMORY_BYTES]]
        if not rows:
            return None
        start, size = rows[0][_ADDRESS], rows[0][_MEMORY_BYTES]
        end = -(-(start + size) // PAGE_BYTES) * PAGE_BYTES
        holder = self.segment_of(start, 1)
        if len(rows) > 1 or holder is None or not holder.writable:
            raise FormatError(_WHAT, "relro", "expected one range in a writable segment")
        if end > -(-holder.end // PAGE_BYTES) * PAGE_BYTES:
            raise FormatError(_WHAT, "relro", "the range goes beyond its segment")
        return start, start + size

    def thread_storage(self) -> ThreadStorage:
        """Return the thread-local block in the PT_TLS of a file that has one."""
        rows = [header for header in self.headers if header[0] == f.PT_TLS]
        _, _, offset, address, _, file_bytes, memory_bytes, alignment = rows[0]
        if len(rows) > 1 or file_bytes > memory_bytes or memory_bytes > THREAD_BYTES_MAX:
            raise FormatError(
                _WHAT, "thread storage", f"expected one block of at most {THREAD_BYTES_MAX} bytes"
            )
        if alignment & (alignment - 1) or alignment > PAGE_BYTES:
            raise FormatError(_WHAT, "thread storage", "expected an alignment of at most a page")
        self._slice(offset, file_bytes, "thread storage")
        return ThreadStorage(
            virtual_address=address,
            file_bytes=file_bytes,
            memory_bytes=memory_bytes,
            alignment=max(alignment, 1),
        )

    def _program_headers(self) -> list[tuple[int, ...]]:
        count = self.header.ph_count
        if not 0 < count <= PROGRAM_HEADERS_MAX:
            raise LimitError(_WHAT, "header", f"{count} program headers, wanted 1 to {PROGRAM_HEADERS_MAX}")
        table = self._slice(self.header.ph_at, count * f.PROGRAM_HEADER.size, "program headers")
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
        if sum([header[_FILE_BYTES] for header in headers]) > len(self.data):
            raise FormatError(
                _WHAT, "program headers", "the segments take more bytes from the file than it has"
            )
        return tuple([self._segment(header) for header in headers])

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
