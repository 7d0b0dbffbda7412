"""What the readers of archives say of what they refuse, format, place and reason, and what they take at the very bound."""

import gzip
from struct import pack_into

import pytest

from sim.errors import FormatError, LimitError
from sim.image import ar, tar
from sim.image.ar import ArMember, read_ar, write_ar
from sim.image.boundedzip import read_zip, write_zip
from sim.image.paths import check_link_target, check_path
from sim.image.payload import check_canonical_gzip, describe_payload, gunzip, gzip_stored, payload_problems
from sim.image.tar import EntryKind, TarEntry, read_ustar, with_parents, write_ustar
from sim.image.vtar import read_vtar, write_vtar


def said(read, *data, kind=FormatError):
    with pytest.raises(FormatError) as caught:
        read(*data)
    assert type(caught.value) is kind
    return str(caught.value)


def put(data, at, new):
    return data[:at] + new + data[at + len(new) :]


# ------------------------------------------------------------ ar

AR = write_ar([ArMember(name="a", data=b"odd"), ArMember(name="bb", data=b"even")])


def test_an_ar_archive_is_spelled_to_the_byte():
    zeros = b"0           0     0     0       "
    assert (
        b"!<arch>\n"
        + b"".join(
            (b"a".ljust(16) + zeros + b"3         `\nodd\n", b"bb".ljust(16) + zeros + b"4         `\neven")
        )
        == AR
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "offset 0: does not begin with '!<arch>' and a newline"),
        (put(AR, 0, b"?"), "offset 0: does not begin with '!<arch>' and a newline"),
        (AR[: 8 + 59], "member 0, offset 0x8: header is cut off after 59 of 60 bytes"),
        (AR[: 72 + 1], "member 1, offset 0x48: header is cut off after 1 of 60 bytes"),
        (put(AR, 8 + 58, b"?"), "member 0, offset 0x8: header does not end with '`' and a newline"),
        (put(AR, 8, b" "), "member 0, offset 0x8: member name is not 1 to 16 of [A-Za-z0-9_.+-]"),
        (put(AR, 8 + 16, b"1"), "member 0, offset 0x8: time, owner, group and mode are not all '0'"),
        (put(AR, 8 + 48, b"x"), "member 0, offset 0x8: size is not a plain decimal number"),
        (put(AR, 72 + 48, b"5"), "member 1, offset 0x48: size 5 is beyond the end, 4 bytes are left"),
        (put(AR, 8 + 63, b"?"), "member 0, offset 0x8: an odd size is not followed by one newline"),
    ],
)
def test_an_ar_archive_is_refused_by_member_and_reason(data, words):
    assert said(read_ar, data) == f"VIB archive: {words}"


def test_a_name_that_no_header_can_hold_is_refused_when_written():
    words = said(write_ar, [ArMember(name="a/b", data=b"")])
    assert words == "VIB archive: member 'a/b': name is not 1 to 16 of [A-Za-z0-9_.+-]"


def test_limits_of_an_ar_archive_are_exact(monkeypatch):
    monkeypatch.setattr(ar, "ARCHIVE_BYTES_MAX", len(AR))
    monkeypatch.setattr(ar, "MEMBERS_MAX", 2)
    assert [member.name for member in read_ar(AR)] == ["a", "bb"]
    monkeypatch.setattr(ar, "MEMBERS_MAX", 1)
    words = said(read_ar, AR, kind=LimitError)
    assert words == "VIB archive: offset 0x48: more than 1 members"
    monkeypatch.setattr(ar, "ARCHIVE_BYTES_MAX", len(AR) - 1)
    words = said(read_ar, AR, kind=LimitError)
    assert words == f"VIB archive: more than {len(AR) - 1} bytes"


# ------------------------------------------------------------ tar and vtar

TREE = with_parents(
    [
        TarEntry(path="etc/x", data=b"x" * 600, mode=0o600, mtime=77, uid=3, gid=4, owner="me", group="us"),
        TarEntry(path="etc/y", kind=EntryKind.SYMLINK, target="x"),
    ]
)
TAR = write_ustar(TREE)
FILE = 512  # where the header of etc/x stands


def resummed(data, at):
    """The archive with the checksum of the header at an offset made right again."""
    block = data[at : at + 512]
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    return put(data, at + 148, f"{total:06o}\0 ".encode())


def changed(at, new, header=FILE):
    return resummed(put(TAR, header + at, new), header)


ONE = "entry 1, offset 0x200: "


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (changed(257, b"x"), f"{ONE}magic is not ustar 00, or the header does not end with zeros"),
        (changed(496, b"x"), f"{ONE}magic is not ustar 00, or the header does not end with zeros"),
        (changed(511, b"x"), f"{ONE}magic is not ustar 00, or the header does not end with zeros"),
        (put(TAR, FILE, b"f"), f"{ONE}header checksum is wrong"),
        (TAR[: FILE + 511], f"{ONE}header is cut off after 511 of 512 bytes"),
        (TAR[: FILE + 512 + 599], f"{ONE}size 600 is beyond the end"),
        (changed(156, b"7"), f"{ONE}entry type b'7' is not file, directory or link"),
        (changed(157, b"x"), f"{ONE}has a link target but is no link"),
        (changed(124, b"00000000001", 0), "entry 0, offset 0x0: has data but is no file"),
        (changed(124, b"8"), f"{ONE}field b'80000001130\\x00' is not an octal number"),
        (changed(99, b"x"), f"{ONE}field {b'etc/x' + bytes(35)!r} is not a text ended by zeros"),
        (changed(0, b"/"), f"{ONE}path '/tc/x' is absolute"),
        (changed(0, b"e\\"), f"{ONE}path 'e\\\\c/x' has a backslash, control or non-ASCII character"),
        (changed(0, b"../x\0"), f"{ONE}path '../x' has an empty, '.' or '..' part"),
        (changed(157, b"../../x", 512 + 512 + 1024),
         "entry 2, offset 0x800: link target '../../x' leaves the root"),
        (changed(0, b"etc\0\0"), "etc: stands twice"),
        (TAR[:-512], "offset 0xa00: does not end with two or more blocks of zeros"),
        (TAR[:-1] + b"x", "offset 0xa00: does not end with two or more blocks of zeros"),
        (b"", "offset 0x0: does not end with two or more blocks of zeros"),
    ],
)  # fmt: skip
def test_a_tar_archive_is_refused_by_entry_and_reason(data, words):
    assert said(read_ustar, data) == f"tar archive: {words}"


def test_a_file_under_something_that_is_no_folder_is_refused_at_any_depth():
    link = TarEntry(path="a", kind=EntryKind.SYMLINK, target="etc")
    below = [link, TarEntry(path="a/b/c", data=b"")]
    for read, write, what in ((read_ustar, write_ustar, "tar"), (read_vtar, write_vtar, "vtar")):
        assert said(read, write(below)) == f"{what} archive: a/b/c: lies under a, which is no directory"
        twice = [TarEntry(path="a", data=b"1"), TarEntry(path="a", data=b"2")]
        assert said(read, write(twice)) == f"{what} archive: a: stands twice"
        file = [TarEntry(path="a"), TarEntry(path="a/b")]
        assert said(read, write(file)) == f"{what} archive: a/b: lies under a, which is no directory"


def test_every_field_of_an_entry_is_read_back():
    for read, write in ((read_ustar, write_ustar), (read_vtar, write_vtar)):
        folder, file, link = read(write(TREE))
        assert (folder.path, folder.kind, folder.mode) == ("etc", EntryKind.DIRECTORY, 0o755)
        assert file == TREE[1]
        assert (file.mode, file.mtime, file.uid, file.gid, file.owner, file.group) == (
            0o600, 77, 3, 4, "me", "us",
        )  # fmt: skip
        assert (link.kind, link.target, link.mode, link.data) == (EntryKind.SYMLINK, "x", 0o644, b"")


def test_more_than_two_blocks_of_zeros_may_end_an_archive():
    assert read_ustar(TAR + bytes(512)) == TREE
    assert read_ustar(bytes(1024)) == ()


def test_numbers_may_be_padded_with_blanks_and_empty():
    assert read_ustar(changed(108, b"       3"))[1].uid == 3
    assert read_ustar(changed(108, bytes(8)))[1].uid == 0


@pytest.mark.parametrize("size", [100, 102, 251])
def test_a_path_of_a_header_has_up_to_150_and_100_characters(size):
    path = ("p" * (size - 101) + "/" if size > 100 else "") + "n" * 100
    assert read_ustar(write_ustar([TarEntry(path=path)]))[0].path == path


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (TarEntry(path="n" * 101), f"{'n' * 60}: path does not fit into a header"),
        (TarEntry(path="p" * 151 + "/n"), f"{'p' * 60}: path does not fit into a header"),
        (TarEntry(path="p" * 100, kind=EntryKind.DIRECTORY), f"{'p' * 60}: path does not fit into a header"),
        (TarEntry(path="/a"), "/a: path '/a' is absolute"),
        (TarEntry(path="a", owner="o" * 33), f"a: {'o' * 33!r} does not fit into a field of 32 bytes"),
        (TarEntry(path="a", group="g" * 41), f"a: {'g' * 40!r} does not fit into a field of 32 bytes"),
        (TarEntry(path="a", target="a\0b"), "a: 'a\\x00b' does not fit into a field of 100 bytes"),
        (TarEntry(path="a", mode=0o10000000), "a: number 2097152 does not fit into 7 octal digits"),
        (TarEntry(path="a", mtime=8**11), "a: number 8589934592 does not fit into 11 octal digits"),
        (TarEntry(path="a", uid=-1), "a: number -1 does not fit into 7 octal digits"),
        (TarEntry(path="a", kind=EntryKind.SYMLINK), "a: link target is empty or longer than 255 characters"),
    ],
)
def test_an_entry_that_no_header_can_hold_is_refused_when_written(entry, words):
    assert said(write_ustar, [entry]) == f"tar archive: {words}"


def test_largest_numbers_and_longest_texts_fit():
    entry = TarEntry(path="a", mode=8**7 - 1, mtime=8**11 - 1, owner="o" * 32, group="g" * 32)
    assert read_ustar(write_ustar([entry])) == (entry,)


def test_the_number_of_entries_of_an_archive_is_exact(monkeypatch):
    monkeypatch.setattr(tar, "ENTRIES_MAX", 3)
    assert len(read_ustar(TAR)) == 3
    monkeypatch.setattr(tar, "ENTRIES_MAX", 2)
    words = said(read_ustar, TAR, kind=LimitError)
    assert words == "tar archive: entry 2, offset 0x800: more than 2 entries"


VTAR = write_vtar(TREE)


def offset_of(at, value):
    data = bytearray(VTAR)
    pack_into("<I", data, 512 * at + 496, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (put(VTAR, 512 + 257, b"ustar "), f"{ONE}magic is not 'visor' and two blanks"),
        (VTAR[: 512 + 100], f"{ONE}header is cut off after 100 of 512 bytes"),
        (put(VTAR, 512 + 156, b"7"), f"{ONE}entry type b'7' is not file, directory or link"),
        (VTAR[:1536], "offset 0x600: the headers do not end with a block of zeros"),
        (VTAR[: 1536 + 511], "offset 0x600: the headers do not end with a block of zeros"),
        (offset_of(1, 2047), "etc/x: data at 0x7ff overlaps what ends at 0x800"),
        (VTAR[: 2048 + 599], "etc/x: data ends at 0xa58, the archive at 0xa57"),
        (offset_of(1, 2048 + 425), "etc/x: data ends at 0xc01, the archive at 0xc00"),
    ],
)
def test_a_vtar_archive_is_refused_by_entry_and_reason(data, words):
    assert said(read_vtar, data) == f"vtar archive: {words}"


def test_data_of_a_vtar_archive_may_reach_its_last_byte():
    assert len(VTAR) == 2048 + 1024
    assert read_vtar(offset_of(1, 2048 + 424))[1].data == b"x" * 176 + bytes(424)
    assert read_vtar(VTAR[: 2048 + 600])[1] == TREE[1]


# ------------------------------------------------------------ paths


def test_paths_are_refused_with_the_first_sixty_characters():
    check_path("x" * 255, "x", "here")
    check_link_target("a", "x" * 255, "x", "here")
    check_link_target("a/b", ".//../c", "x", "here")
    words = said(check_path, "x" * 256, "x", "here", kind=LimitError)
    assert words == "x: here: path is longer than 255 characters"
    assert said(check_path, "/" + "x" * 70, "x", "here") == f"x: here: path {'/' + 'x' * 59!r} is absolute"
    words = said(check_link_target, "a", "x" * 256, "x", "here")
    assert words == "x: here: link target is empty or longer than 255 characters"
    words = said(check_link_target, "a", "../" + "x" * 70, "x", "here")
    assert words == f"x: here: link target {'../' + 'x' * 57!r} leaves the root"
    words = said(check_link_target, "a", "x\n", "x", "here")
    assert words == "x: here: path 'x\\n' has a backslash, control or non-ASCII character"


# ------------------------------------------------------------ gzip and payloads

PACKED = gzip_stored(b"content")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (PACKED[:17], "offset 0: not a gzip file"),
        (b"PK" + PACKED[2:], "offset 0: not a gzip file"),
        (put(PACKED, 10, b"\x07"), "content: does not inflate"),
        (PACKED[:-8] + bytes(4) + PACKED[-4:], "content: does not inflate"),
        (PACKED + PACKED[-4:], "end: bytes follow the gzip member"),
        (PACKED[:-1], "end: the gzip member is cut off"),
    ],
)
def test_gzip_is_refused_by_place_and_reason(data, words):
    assert said(gunzip, data) == f"gzip: {words}"


def test_gzip_is_held_to_the_size_that_it_declares():
    assert gunzip(PACKED, 7) == b"content"
    words = said(gunzip, PACKED, 6, kind=LimitError)
    assert words == "gzip: trailer: declares 7 bytes of content, the limit is 6"
    words = said(gunzip, gzip_stored(b"x" * 100)[:-4] + b"\x06\0\0\0", kind=LimitError)
    assert words == "gzip: content: is longer than the 6 bytes that the trailer declares"
    with pytest.raises(FormatError):
        gunzip(PACKED[:-4] + b"\x08\0\0\0")
    words = said(check_canonical_gzip, gzip.compress(b"content", mtime=0), "useropts.gz")
    assert words == "gzip: useropts.gz: is not spelled as this system packs its own files"


def test_stored_gzip_is_spelled_to_the_byte():
    assert gzip_stored(b"") == bytes.fromhex("1f8b08000000000000ff010000ffff0000000000000000")
    crc = "a930c5fe"
    long = gzip_stored(b"x" * 65_536)
    assert long[:15].hex() == "1f8b08000000000000ff00ffff0000"
    assert long[15 + 65_535 :][:6].hex() == "010100feff78"
    assert gunzip(long) == b"x" * 65_536
    assert PACKED[-8:].hex() == crc + "07000000"


def test_every_problem_of_a_payload_is_told_in_order():
    entry = describe_payload("net", "vgz", PACKED)
    other = gzip_stored(b"another")
    problems = list(payload_problems(entry, other + b"!"))
    found = describe_payload("net", "vgz", other + b"!"[:0])
    assert [problem.check for problem in problems] == [
        "payload.size", "payload.sha-256", "payload.sha-256.gunzip", "payload.sha-1.gunzip",
    ]  # fmt: skip
    assert str(problems[0]) == "payload net has 31 bytes, its descriptor says 30"
    assert str(problems[2]).startswith("payload net cannot be unpacked: gzip: ")
    (size, plain, inner, _) = [None, *payload_problems(entry, other)]
    assert size is None
    for problem, checksum, wanted in (
        (plain, found.checksums[0], entry.checksums[0]),
        (inner, found.checksums[1], entry.checksums[1]),
    ):
        assert str(problem) == (
            f"payload net has {checksum.label} {checksum.digest.hex()}, its descriptor says {wanted.digest.hex()}"
        )
    assert list(payload_problems(entry, PACKED)) == []


# ------------------------------------------------------------ zip

ZIP = write_zip({"a": b"content", "b/c": b""})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not one zip archive from its first byte to its last"),
        (b"x" + ZIP, "is not one zip archive from its first byte to its last"),
        (ZIP + b"x", "is not one zip archive from its first byte to its last"),
        (put(ZIP, len(ZIP) - 2, b"\x01"), "its end record does not fit the archive"),
        (put(ZIP, len(ZIP) - 12, b"\x01"), "its end record does not fit the archive"),
        (put(ZIP, len(ZIP) - 14, b"\x01"), "its end record does not fit the archive"),
        (put(ZIP, len(ZIP) - 18, b"\x01"), "its end record does not fit the archive"),
        (put(ZIP, len(ZIP) - 16, b"\x01"), "its end record does not fit the archive"),
    ],
)
def test_a_zip_archive_is_refused_with_what_it_is_called(data, words):
    assert said(read_zip, data, "bundle") == f"bundle: {words}"


def test_a_zip_archive_is_read_in_its_order_and_holds_to_its_limit():
    assert list(read_zip(ZIP).items()) == [("a", b"content"), ("b/c", b"")]
    assert read_zip(ZIP, content_bytes_max=7)["a"] == b"content"
    with pytest.raises(LimitError, match="zip archive: declares more than 6 bytes of content"):
        read_zip(ZIP, content_bytes_max=6)
    twice = write_zip([("a", b"1"), ("b", b"2")]).replace(b"b", b"a")
    assert said(read_zip, twice) == "zip archive: a: stands twice, or under two names"
    words = said(read_zip, ZIP.replace(b"b/c", b"/bc"))
    assert words == "zip archive: entry: path '/bc' is absolute"
