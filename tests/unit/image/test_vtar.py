from contextlib import suppress
from struct import pack_into, unpack_from

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import FormatError, LimitError
from sim.image import vtar
from sim.image.tar import EntryKind, TarEntry, read_ustar, with_parents, write_ustar
from sim.image.vtar import is_vtar, read_vtar, write_vtar

ENTRIES = with_parents(
    [
        TarEntry(path="usr/lib/vmware/vmkmod/example", data=bytes(range(256)) * 3, mode=0o555),
        TarEntry(path="etc/empty", data=b""),
        TarEntry(path="etc/one", data=b"1"),
        TarEntry(path="etc/link", kind=EntryKind.SYMLINK, target="one"),
    ]
)
ARCHIVE = write_vtar(ENTRIES)
NAMES = [entry.path for entry in ENTRIES]


def with_word(path, word, value):
    changed = bytearray(ARCHIVE)
    pack_into("<I", changed, 512 * NAMES.index(path) + 496 + 4 * word, value)
    return bytes(changed)


def test_reading_gives_back_what_was_written():
    assert is_vtar(ARCHIVE)
    assert read_vtar(ARCHIVE) == ENTRIES


def test_all_headers_come_first_and_each_file_lies_at_its_offset():
    offset = unpack_from("<I", ARCHIVE, 512 * NAMES.index("etc/one") + 496)[0]
    assert offset >= 512 * (len(ENTRIES) + 1)
    assert ARCHIVE[offset : offset + 1] == b"1"


def test_data_may_stand_in_any_order():
    headers = 512 * (len(ENTRIES) + 1)
    module = ENTRIES[NAMES.index("usr/lib/vmware/vmkmod/example")].data
    changed = bytearray(ARCHIVE[:headers] + module.ljust(1024, b"\0") + b"1".ljust(512, b"\0"))
    pack_into("<I", changed, 512 * NAMES.index("usr/lib/vmware/vmkmod/example") + 496, headers)
    pack_into("<I", changed, 512 * NAMES.index("etc/one") + 496, headers + 1024)
    assert [entry.data for entry in read_vtar(bytes(changed))] == [entry.data for entry in ENTRIES]


@pytest.mark.parametrize("offset", [0, 512, 512 * len(ENTRIES), len(ARCHIVE), 2**32 - 1])
def test_data_over_the_headers_or_behind_the_end_is_refused(offset):
    with pytest.raises(FormatError):
        read_vtar(with_word("etc/one", 0, offset))


def test_files_that_overlap_are_refused():
    shared = unpack_from("<I", ARCHIVE, 512 * NAMES.index("usr/lib/vmware/vmkmod/example") + 496)[0]
    with pytest.raises(FormatError, match="overlaps"):
        read_vtar(with_word("etc/one", 0, shared + 700))


def test_a_wrong_header_checksum_is_reported_and_not_refused():
    changed = with_word("etc/one", 1, 77)
    marks = {entry.path: entry.checksum_ok for entry in read_vtar(changed)}
    assert [path for path, good in marks.items() if not good] == ["etc/one"]


def test_an_ordinary_archive_is_no_vtar_and_the_other_way_round():
    ordinary = write_ustar(ENTRIES)
    assert not is_vtar(ordinary)
    with pytest.raises(FormatError, match="visor"):
        read_vtar(ordinary)
    with pytest.raises(FormatError, match="ustar"):
        read_ustar(ARCHIVE)


def test_headers_without_an_end_are_refused():
    with pytest.raises(FormatError, match="zeros"):
        read_vtar(ARCHIVE[: 512 * len(ENTRIES)])
    with pytest.raises(FormatError, match="zeros"):
        read_vtar(b"")


@pytest.mark.parametrize("path", ["../escape", "/etc/passwd", "a\\b"])
def test_paths_outside_the_root_are_refused(path):
    entry = bytearray(write_vtar([TarEntry(path="x" * len(path), data=b"1")]))
    entry[: len(path)] = path.encode()
    with pytest.raises(FormatError):
        read_vtar(bytes(entry))


def test_the_number_of_entries_is_limited(monkeypatch):
    monkeypatch.setattr(vtar, "ENTRIES_MAX", 3)
    with pytest.raises(LimitError):
        read_vtar(ARCHIVE)


@given(st.data())
def test_a_damaged_archive_is_read_or_refused_and_never_crashes(data):
    raw = bytearray(ARCHIVE)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with suppress(FormatError):
        assert sum(len(entry.data) for entry in read_vtar(bytes(raw))) <= len(raw)
