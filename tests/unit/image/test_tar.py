import io
import tarfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import FormatError, LimitError
from sim.image import tar
from sim.image.tar import EntryKind, TarEntry, read_ustar, with_parents, write_ustar

ENTRIES = with_parents(
    [
        TarEntry(path="etc/passwd", data=b"root", mode=0o600, mtime=1234567890),
        TarEntry(path="bin/sh", kind=EntryKind.SYMLINK, target="busybox", mode=0o777),
        TarEntry(path="bin/busybox", data=bytes(700), uid=1, gid=2, owner="a", group="b"),
    ]
)
ARCHIVE = write_ustar(ENTRIES)

segments = st.text("abcXYZ019_-", min_size=1, max_size=12)
paths = st.lists(segments, min_size=1, max_size=12).map("/".join)
files = st.builds(TarEntry, path=paths, data=st.binary(max_size=1100), mode=st.integers(0, 0o7777))


def python_tar(name, kind=tarfile.REGTYPE, link="", data=b""):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, len(data)
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_parents_come_before_their_children():
    assert [entry.path for entry in ENTRIES] == ["bin", "bin/busybox", "bin/sh", "etc", "etc/passwd"]
    assert [entry.kind for entry in ENTRIES if entry.path in ("bin", "etc")] == [EntryKind.DIRECTORY] * 2


def test_reading_gives_back_what_was_written():
    assert read_ustar(ARCHIVE) == ENTRIES


def test_python_reads_what_is_written():
    with tarfile.open(fileobj=io.BytesIO(ARCHIVE)) as archive:
        assert archive.getnames() == [entry.path for entry in ENTRIES]
        assert archive.extractfile("etc/passwd").read() == b"root"
        assert archive.getmember("bin/sh").linkname == "busybox"


def test_what_python_writes_is_read():
    assert read_ustar(python_tar("etc/x", data=b"hello"))[0].data == b"hello"


@given(st.lists(files, max_size=4))
def test_archives_of_any_files_are_read_back_or_refused_when_written(entries):
    with suppress(FormatError):
        tree = with_parents(entries)
        assert read_ustar(write_ustar(tree)) == tree


def test_long_paths_are_split_over_both_header_fields():
    path = "a" * 120 + "/" + "b" * 90
    assert read_ustar(write_ustar([TarEntry(path=path)]))[0].path == path
    with pytest.raises(FormatError, match="fit"):
        write_ustar([TarEntry(path="a" * 101)])


@pytest.mark.parametrize(
    "data",
    [
        python_tar("../etc/passwd", data=b"x"),
        python_tar("/etc/passwd", data=b"x"),
        python_tar("a\\..\\b", data=b"x"),
        python_tar("link", tarfile.SYMTYPE, "../../outside"),
        python_tar("hard", tarfile.LNKTYPE, "/etc/passwd"),
        python_tar("device", tarfile.CHRTYPE),
        python_tar("fifo", tarfile.FIFOTYPE),
    ],
)
def test_entries_that_reach_outside_are_refused(data):
    with pytest.raises(FormatError):
        read_ustar(data)


@pytest.mark.parametrize("target", ["", "../../outside", "a\\b", "x" * 300])
def test_a_link_out_of_the_root_cannot_be_written(target):
    with pytest.raises(FormatError):
        write_ustar([TarEntry(path="a/b", kind=EntryKind.SYMLINK, target=target)])


def rewritten(block, start, field):
    """Return an archive of one changed header with its checksum made right again."""
    block = block[:start] + field + block[start + len(field) :]
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    return block[:148] + f"{total:06o}\0 ".encode() + block[156:] + bytes(2048)


@pytest.mark.parametrize(
    ("start", "field", "text"),
    [
        (157, b"target", "no link"),
        (124, b"00000000001", "no file"),
        (156, b"7", "entry type"),
        (100, b"9", "octal"),
        (100, b"-1", "octal"),
        (20, b"x", "ended by zeros"),
        (257, b"USTAR", "ustar"),
        (500, b"x", "zeros"),
    ],
)
def test_a_field_that_does_not_fit_the_entry_is_refused(start, field, text):
    folder = write_ustar([TarEntry(path="a", kind=EntryKind.DIRECTORY)])[:512]
    assert read_ustar(rewritten(folder, 0, b"b"))[0].path == "b"
    with pytest.raises(FormatError, match=text):
        read_ustar(rewritten(folder, start, field))


def test_a_file_under_a_symbolic_link_is_refused():
    entries = [TarEntry(path="a", kind=EntryKind.SYMLINK, target="etc"), TarEntry(path="a/passwd", data=b"x")]
    with pytest.raises(FormatError, match="no directory"):
        read_ustar(write_ustar(entries))


def test_a_path_that_stands_twice_is_refused():
    with pytest.raises(FormatError, match="twice"):
        read_ustar(write_ustar([TarEntry(path="a", data=b"1"), TarEntry(path="a", data=b"2")]))


def test_a_wrong_header_checksum_is_refused():
    with pytest.raises(FormatError, match="checksum"):
        read_ustar(b"B" + ARCHIVE[1:])


def test_bytes_behind_the_end_are_refused():
    with pytest.raises(FormatError, match="zeros"):
        read_ustar(ARCHIVE + b"x" * 512)
    with pytest.raises(FormatError, match="zeros"):
        read_ustar(ARCHIVE[:-1024])


def test_an_archive_cut_inside_an_entry_is_refused():
    for size in range(1, len(ARCHIVE) - 512, 97):
        with pytest.raises(FormatError):
            read_ustar(ARCHIVE[:size])


def test_gnu_and_pax_extensions_are_refused():
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
            archive.addfile(tarfile.TarInfo("n" * 150))
        with pytest.raises(FormatError):
            read_ustar(buffer.getvalue())


def test_the_number_of_entries_is_limited(monkeypatch):
    monkeypatch.setattr(tar, "ENTRIES_MAX", 4)
    with pytest.raises(LimitError):
        read_ustar(ARCHIVE)


@pytest.mark.parametrize(
    "field",
    [
        {"mode": 0o10000000},
        {"mtime": 8**11},
        {"uid": -1},
        {"owner": "x" * 33},
        {"group": "é"},
        {"target": "a" * 101},
    ],
)
def test_values_that_do_not_fit_cannot_be_written(field):
    with pytest.raises(FormatError):
        write_ustar([TarEntry(path="a", **field)])


@given(st.data())
def test_a_damaged_archive_is_read_or_refused_and_never_crashes(data):
    raw = bytearray(ARCHIVE)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with suppress(FormatError):
        assert isinstance(read_ustar(bytes(raw)), tuple)
