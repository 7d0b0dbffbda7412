"""PE32+ images as UEFI loads them: built small, read strictly, hashed as Authenticode says.

Models: an x86-64 EFI application with code, data and relocation sections; the checksum; the Authenticode digest,
which covers everything but the checksum field, the directory entry of the certificate table, and that table itself;
the table with its one WIN_CERTIFICATE.  A reader demands that headers, sections, further data and certificate table
follow each other without a gap, so that no byte lies where neither loader nor digest looks.

Leaves out: imports, resources, debug data, 32-bit images, images with bytes between sections, several signatures.

Sources: Microsoft PE/COFF Specification, revision 8.3; Windows Authenticode Portable Executable Signature Format
(2008); UEFI Specification 2.10, section 32.2 (image signing).
"""

from __future__ import annotations

import hashlib
import struct

from attrs import field, frozen

from sim.errors import FormatError, LimitError

__all__ = [
    "IMAGE_BYTES_MAX",
    "PeImage",
    "attach_certificate",
    "authenticode_digest",
    "build_pe",
    "checksum",
    "read_pe",
]

IMAGE_BYTES_MAX = 64 * 1024 * 1024
SECTIONS_MAX = 96

_WHAT = "PE image"
_MACHINE_X64 = 0x8664
_PE32_PLUS = 0x20B
_EFI_APPLICATION = 10
_FILE_GRAIN, _PAGE = 0x200, 0x1000
_DIRECTORIES = 16
_SECURITY, _RELOCATION = 4, 5

_DOS_BYTES = 0x40
_COFF = struct.Struct("<HHIIIHH")
_OPTIONAL = struct.Struct("<HBBIIIIIQIIHHHHHHIIIIHHQQQQII")
_DIRECTORY = struct.Struct("<II")
_SECTION = struct.Struct("<8sIIIIIIHHI")
_CERTIFICATE = struct.Struct("<IHH")
_CHECKSUM_AT = 64
_SIZE_OF_HEADERS, _CHECKSUM = 19, 20  # places in the unpacked optional header
_REVISION_2, _TYPE_PKCS = 0x0200, 0x0002

_EXECUTE_READ, _READ_WRITE, _DISCARD_READ = 0x60000020, 0xC0000040, 0x42000040
_RELOCATION_BLOCK = struct.pack("<IIHH", _PAGE, 12, 0, 0)


@frozen(kw_only=True)
class PeImage:
    """Where the parts of an image lie; all offsets are checked against the file."""

    data: bytes = field(repr=False)
    checksum_at: int
    stated_checksum: int
    security_entry_at: int
    table_at: int
    table_bytes: int

    @property
    def certificate(self) -> bytes | None:
        """Return the signature of the one WIN_CERTIFICATE with what pads it, or None in an unsigned image."""
        if not self.table_bytes:
            return None
        table = self.data[self.table_at :]
        length, revision, kind = _CERTIFICATE.unpack_from(table)
        if (revision, kind) != (_REVISION_2, _TYPE_PKCS):
            raise FormatError(_WHAT, "certificate table", "expected a PKCS #7 certificate of revision 2.0")
        padding = table[length:]
        if not _CERTIFICATE.size < length <= len(table) or len(padding) >= 8 or any(padding):
            raise FormatError(
                _WHAT, "certificate table", "expected exactly one certificate, padded with zeros"
            )
        return table[_CERTIFICATE.size : length]


def build_pe(code: bytes, data: bytes = b"") -> bytes:
    """Build an unsigned EFI application whose entry point is the first byte of `code`."""
    contents = [
        (b".text", code, _EXECUTE_READ),
        (b".data", data, _READ_WRITE),
        (b".reloc", _RELOCATION_BLOCK, _DISCARD_READ),
    ]
    parts = [part for part in contents if part[1]]
    header_bytes = _DOS_BYTES + 4 + _COFF.size + _OPTIONAL.size + _DIRECTORIES * _DIRECTORY.size
    header_bytes = _round_up(header_bytes + len(parts) * _SECTION.size, _FILE_GRAIN)
    table, bodies, offset, address = b"", b"", header_bytes, _PAGE
    directories = [(0, 0)] * _DIRECTORIES
    for name, content, rights in parts:
        raw = content.ljust(_round_up(len(content), _FILE_GRAIN), b"\0")
        table += _SECTION.pack(name, len(content), address, len(raw), offset, 0, 0, 0, 0, rights)
        if name == b".reloc":
            directories[_RELOCATION] = (address, len(content))
        bodies, offset, address = bodies + raw, offset + len(raw), address + _round_up(len(content), _PAGE)
    header = _headers(len(parts), len(code), header_bytes, address)
    header += b"".join(_DIRECTORY.pack(*entry) for entry in directories) + table
    return _with_checksum(header.ljust(header_bytes, b"\0") + bodies)


def read_pe(data: bytes) -> PeImage:
    """Find the parts of an image; FormatError if it is not one, or has bytes that no digest covers."""
    if len(data) > IMAGE_BYTES_MAX:
        raise LimitError(_WHAT, "", f"{len(data)} bytes, at most {IMAGE_BYTES_MAX} are read")
    try:
        return _read(data)
    except struct.error as error:
        raise FormatError(_WHAT, "headers", "the file ends inside its headers") from error


def authenticode_digest(data: bytes, algorithm: str = "sha256") -> bytes:
    """Return the digest of an image (signed or not) as Authenticode defines it, by a hashlib name."""
    image = read_pe(data)
    digest = hashlib.new(algorithm)
    end = image.table_at if image.table_bytes else len(data)
    digest.update(data[: image.checksum_at])
    digest.update(data[image.checksum_at + 4 : image.security_entry_at])
    digest.update(data[image.security_entry_at + _DIRECTORY.size : end])
    digest.update(bytes(-end % 8))
    return digest.digest()


def attach_certificate(data: bytes, signature: bytes) -> bytes:
    """Append a signature as the certificate table of an unsigned image."""
    image = read_pe(data)
    if image.table_bytes:
        raise ValueError("the image is signed already")
    body = data.ljust(_round_up(len(data), 8), b"\0")
    length = _CERTIFICATE.size + len(signature)
    table = (_CERTIFICATE.pack(length, _REVISION_2, _TYPE_PKCS) + signature).ljust(
        _round_up(length, 8), b"\0"
    )
    at = image.security_entry_at
    entry = _DIRECTORY.pack(len(body), len(table))
    return _with_checksum(body[:at] + entry + body[at + len(entry) :] + table)


def checksum(image: PeImage) -> int:
    """Compute the checksum of an image: a folded sum of its 16-bit words and its length."""
    data = image.data
    masked = data[: image.checksum_at] + bytes(4) + data[image.checksum_at + 4 :]
    # A sum of 16-bit words with end-around carry is the number they form, modulo 2**16 - 1 (never 0 here).
    return (int.from_bytes(masked, "little") % 0xFFFF or 0xFFFF) + len(data)


def _headers(sections: int, code_bytes: int, header_bytes: int, image_bytes: int) -> bytes:
    dos = b"MZ".ljust(_DOS_BYTES - 4, b"\0") + struct.pack("<I", _DOS_BYTES)
    optional_bytes = _OPTIONAL.size + _DIRECTORIES * _DIRECTORY.size
    coff = _COFF.pack(_MACHINE_X64, sections, 0, 0, 0, optional_bytes, 0x0022)
    code_raw = _round_up(code_bytes, _FILE_GRAIN)
    versions = (0, 0, 0, 0, 0, 0, 0)
    sizes = (image_bytes, header_bytes, 0, _EFI_APPLICATION, 0)
    optional = _OPTIONAL.pack(
        _PE32_PLUS,
        0,
        0,
        code_raw,
        0,
        0,
        _PAGE,
        _PAGE,
        0,
        _PAGE,
        _FILE_GRAIN,
        *versions,
        *sizes,
        0,
        0,
        0,
        0,
        0,
        _DIRECTORIES,
    )
    return dos + b"PE\0\0" + coff + optional


def _read(data: bytes) -> PeImage:
    (pe_at,) = struct.unpack_from("<I", data, _DOS_BYTES - 4)
    if data[:2] != b"MZ" or data[pe_at : pe_at + 4] != b"PE\0\0":
        raise FormatError(_WHAT, "headers", "expected the marks MZ and PE")
    machine, sections, _, _, _, optional_bytes, _ = _COFF.unpack_from(data, pe_at + 4)
    optional_at = pe_at + 4 + _COFF.size
    optional = _OPTIONAL.unpack_from(data, optional_at)
    if machine != _MACHINE_X64 or optional[0] != _PE32_PLUS:
        raise FormatError(_WHAT, "headers", "expected a PE32+ image for x86-64")
    directories = optional[-1]
    if (
        not _SECURITY < directories <= _DIRECTORIES
        or optional_bytes != _OPTIONAL.size + directories * _DIRECTORY.size
    ):
        raise FormatError(_WHAT, "headers", f"{directories} data directories do not fit the optional header")
    if not 0 < sections <= SECTIONS_MAX:
        raise LimitError(_WHAT, "headers", f"{sections} sections, wanted 1 to {SECTIONS_MAX}")
    header_bytes = optional[_SIZE_OF_HEADERS]
    sections_at = optional_at + optional_bytes
    if not sections_at + sections * _SECTION.size <= header_bytes <= len(data):
        raise FormatError(_WHAT, "headers", "the stated size of the headers does not fit")
    end = _end_of_sections(data, sections_at, sections, header_bytes)
    entry_at = optional_at + _OPTIONAL.size + _SECURITY * _DIRECTORY.size
    table_at, table_bytes = _DIRECTORY.unpack_from(data, entry_at)
    _check_table(data, table_at, table_bytes, end)
    return PeImage(
        data=data,
        checksum_at=optional_at + _CHECKSUM_AT,
        stated_checksum=optional[_CHECKSUM],
        security_entry_at=entry_at,
        table_at=table_at,
        table_bytes=table_bytes,
    )


def _end_of_sections(data: bytes, table_at: int, count: int, header_bytes: int) -> int:
    spans = []
    for index in range(count):
        fields = _SECTION.unpack_from(data, table_at + index * _SECTION.size)
        if fields[3]:
            spans.append((fields[4], fields[3]))
    end: int = header_bytes
    for offset, size in sorted(spans):
        if offset != end or offset + size > len(data):
            raise FormatError(
                _WHAT, f"section at {offset:#x}", "does not follow what is before it, or leaves the file"
            )
        end = offset + size
    return end


def _check_table(data: bytes, at: int, size: int, end: int) -> None:
    if (at, size) == (0, 0):
        return
    if size < _CERTIFICATE.size or at % 8 or at < end or at + size != len(data):
        raise FormatError(_WHAT, "certificate table", "expected at the end of the file, aligned to 8 bytes")


def _with_checksum(data: bytes) -> bytes:
    image = read_pe(data)
    return data[: image.checksum_at] + struct.pack("<I", checksum(image)) + data[image.checksum_at + 4 :]


def _round_up(number: int, grain: int) -> int:
    return -(-number // grain) * grain
