"""What the reader of PE images says of what it refuses, and what it takes at the very bound."""

import struct

import pytest

from sim.errors import FormatError, LimitError
from sim.image.pe import attach_certificate, build_pe, read_pe

PLAIN = build_pe(b"\xc3" * 700, b"data")
SIGNED = attach_certificate(PLAIN, b"signature")
OPTIONAL = 0x40 + 24
SECURITY = OPTIONAL + 112 + 32
SECTIONS = OPTIONAL + 240
TABLE = read_pe(SIGNED).table_at
MARKS = "headers: expected the marks MZ and PE"
KIND = "headers: expected a PE32+ image for x86-64"
SIZE = "headers: the stated size of the headers does not fit"
AT_END = "certificate table: expected at the end of the file, aligned to 8 bytes"
ONE = "certificate table: expected exactly one certificate, padded with zeros"
PKCS7 = "certificate table: expected a PKCS #7 certificate of revision 2.0"


def put(at, form, *values, image=SIGNED):
    new = struct.pack(form, *values)
    return image[:at] + new + image[at + len(new) :]


def said(read, data, kind=FormatError):
    with pytest.raises(FormatError) as caught:
        read(data)
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "headers: the file ends inside its headers"),
        (SIGNED[: OPTIONAL + 100], "headers: the file ends inside its headers"),
        (put(0, "<H", 0), MARKS),
        (put(0x40, "<H", 0), MARKS),
        (put(0x44, "<H", 0x14C), KIND),
        (put(OPTIONAL, "<H", 0x10B), KIND),
        (put(OPTIONAL + 108, "<I", 4), "headers: 4 data directories do not fit the optional header"),
        (put(OPTIONAL + 108, "<I", 17), "headers: 17 data directories do not fit the optional header"),
        (put(0x54, "<H", 239), "headers: 16 data directories do not fit the optional header"),
        (put(OPTIONAL + 60, "<I", SECTIONS + 3 * 40 - 1), SIZE),
        (put(OPTIONAL + 60, "<I", len(SIGNED) + 1), SIZE),
        (put(SECTIONS + 20, "<I", 0x600), "section at 0x600: does not follow what is before it, or leaves the file"),
        (put(SECTIONS + 2 * 40 + 16, "<I", 0x10000),
         "section at 0x800: does not follow what is before it, or leaves the file"),
        (put(SECURITY, "<II", TABLE, 7), AT_END),
        (put(SECURITY, "<II", TABLE + 1, 23), AT_END),
        (put(SECURITY, "<II", TABLE - 8, 32), AT_END),
        (put(SECURITY, "<II", TABLE, 16), AT_END),
        (SIGNED + b"\0", AT_END),
    ],
)  # fmt: skip
def test_an_image_is_refused_by_place_and_reason(data, words):
    assert said(read_pe, data) == f"PE image: {words}"


@pytest.mark.parametrize("count", [0, 97])
def test_an_image_has_one_to_96_sections(count):
    words = said(read_pe, put(0x46, "<H", count), LimitError)
    assert words == f"PE image: headers: {count} sections, wanted 1 to 96"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (put(TABLE + 4, "<H", 0x100), PKCS7),
        (put(TABLE + 6, "<H", 1), PKCS7),
        (put(TABLE, "<I", 8), ONE),
        (put(TABLE, "<I", 25), ONE),
        (put(TABLE, "<I", 16), ONE),
        (put(TABLE + 17, "<B", 1), ONE),
    ],
)
def test_a_certificate_table_is_refused_with_the_reason(data, words):
    assert said(lambda image: read_pe(image).certificate, data) == f"PE image: {words}"


def test_a_certificate_is_what_was_attached_with_all_its_bytes():
    assert len(SIGNED) == TABLE + 24
    assert read_pe(SIGNED).certificate == b"signature"
    assert read_pe(put(TABLE, "<I", 24)).certificate == b"signature" + bytes(7)
    assert read_pe(PLAIN).certificate is None
    with pytest.raises(ValueError, match="the image is signed already"):
        attach_certificate(SIGNED, b"again")


def test_an_image_is_laid_out_as_the_specification_says():
    image = read_pe(PLAIN)
    assert (image.checksum_at, image.security_entry_at) == (OPTIONAL + 64, SECURITY)
    assert PLAIN[:2] + PLAIN[0x3C:0x44] == b"MZ" + struct.pack("<I", 0x40) + b"PE\0\0"
    coff = struct.unpack_from("<HHIIIHH", PLAIN, 0x44)
    assert coff == (0x8664, 3, 0, 0, 0, 240, 0x22)
    optional = struct.unpack_from("<HBBIIIIIQIIHHHHHHIIIIHHQQQQII", PLAIN, OPTIONAL)
    assert optional[:11] == (0x20B, 0, 0, 0x400, 0, 0, 0x1000, 0x1000, 0, 0x1000, 0x200)
    assert optional[18:20] == (0x4000, 0x200)
    assert optional[21] == 10
    assert optional[-1] == 16
    assert struct.unpack_from("<II", PLAIN, OPTIONAL + 112 + 40) == (0x3000, 12)
    sections = [struct.unpack_from("<8sIIIIIIHHI", PLAIN, SECTIONS + 40 * number) for number in range(3)]
    assert sections == [
        (b".text\0\0\0", 700, 0x1000, 0x400, 0x200, 0, 0, 0, 0, 0x60000020),
        (b".data\0\0\0", 4, 0x2000, 0x200, 0x600, 0, 0, 0, 0, 0xC0000040),
        (b".reloc\0\0", 12, 0x3000, 0x200, 0x800, 0, 0, 0, 0, 0x42000040),
    ]
    assert PLAIN[0x200 : 0x200 + 700] == b"\xc3" * 700
    assert PLAIN[0x800:0x80C] == struct.pack("<IIHH", 0x1000, 12, 0, 0)
    assert struct.unpack_from("<H", build_pe(b"\xc3"), 0x46) == (2,)


def test_the_largest_image_is_read_and_one_byte_more_is_not():
    limit = 64 << 20
    assert said(read_pe, bytes(limit)) == f"PE image: {MARKS}"
    assert (
        said(read_pe, bytes(limit + 1), LimitError)
        == f"PE image: {limit + 1} bytes, at most {limit} are read"
    )
