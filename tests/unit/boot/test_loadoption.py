"""Each refusal of a boot option names its place and says what was expected."""

import struct

import pytest

from sim.boot.loadoption import LOAD_OPTION_BYTES_MAX, parse_load_option
from sim.errors import FormatError, LimitError

DRIVE = struct.pack("<BBH", 4, 1, 42) + bytes(range(38))
END = struct.pack("<BBH", 0x7F, 0xFF, 4)


def node(text):
    raw = text if isinstance(text, bytes) else text.encode("utf-16-le") + b"\0\0"
    return struct.pack("<BBH", 4, 4, 4 + len(raw)) + raw


def option(path, description=b"E\0\0\0", size=None):
    return struct.pack("<IH", 1, len(path) if size is None else size) + description + path


FILE = node("\\a.efi")
GOOD = DRIVE + FILE + END
BOTH = "a hard drive node and a file path node"
REFUSED = {
    "too short for its head": (bytes(7), "offset 0", "attributes, path length and a description"),
    "no terminating NUL": (option(b"", b"E\0F\0"), "description", "a terminating NUL"),
    "a short path": (
        option(GOOD, size=len(GOOD) + 1),
        "offset 10",
        f"a device path of {len(GOOD) + 1} bytes",
    ),
    "no drive": (option(FILE + END), "device path", BOTH),
    "no file": (option(DRIVE + END), "device path", BOTH),
    "a short drive node": (
        option(struct.pack("<BBH", 4, 1, 41) + bytes(37) + FILE + END),
        "device path",
        BOTH,
    ),
    "a long drive node": (
        option(struct.pack("<BBH", 4, 1, 43) + bytes(39) + FILE + END),
        "device path",
        BOTH,
    ),
    "a node length below 4": (
        option(DRIVE + struct.pack("<BBH", 4, 4, 3)),
        "device path offset 42",
        "a node of 3 bytes",
    ),
    "a node past the end": (
        option(DRIVE + struct.pack("<BBH", 4, 4, 6) + b"a"),
        "device path offset 42",
        "a node of 6 bytes",
    ),
    "a short node header": (option(DRIVE + b"\x7f\xff\x04"), "device path offset 42", "a node header"),
    "an unprintable description": (option(GOOD, b"\x07\0\0\0"), "description", "printable text"),
    "half a pair in the description": (option(GOOD, b"\0\xd8\0\0"), "description", "UCS-2 text"),
    "an unprintable file path": (option(DRIVE + node("\n") + END), "file path", "printable text"),
    "an odd file path": (option(DRIVE + node(b"abc") + END), "file path", "UCS-2 text"),
}


@pytest.mark.parametrize(("data", "where", "expected"), REFUSED.values(), ids=REFUSED)
def test_each_refusal_names_its_place_and_what_was_expected(data, where, expected):
    with pytest.raises(FormatError) as caught:
        parse_load_option(data)
    assert str(caught.value) == str(FormatError("EFI load option", where, expected))


def test_an_option_of_the_largest_size_is_read_and_one_byte_more_is_not():
    data = option(GOOD).ljust(LOAD_OPTION_BYTES_MAX, b"\0")
    assert parse_load_option(data).file_path == "\\a.efi"
    with pytest.raises(LimitError) as caught:
        parse_load_option(data + b"\0")
    assert str(caught.value) == str(LimitError("EFI load option", "", "at most 65536 bytes, got 65537"))
