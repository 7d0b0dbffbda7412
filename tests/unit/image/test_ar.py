import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import FormatError, LimitError
from sim.image import ar
from sim.image.ar import ArMember, read_ar, write_ar

MEMBERS = (
    ArMember(name="descriptor.xml", data=b"<vib/>\n"),
    ArMember(name="sig.pkcs7", data=b""),
    ArMember(name="payload1", data=bytes(range(10))),
)
ARCHIVE = write_ar(MEMBERS)
FIRST_HEADER = 8


def with_field(start, field):
    offset = FIRST_HEADER + start
    return ARCHIVE[:offset] + field + ARCHIVE[offset + len(field) :]


names = st.text("abcXYZ019_.-", min_size=1, max_size=16)
member_lists = st.lists(st.builds(ArMember, name=names, data=st.binary(max_size=50)), max_size=6)


@given(member_lists)
def test_reading_gives_back_what_was_written(members):
    assert read_ar(write_ar(members)) == tuple(members)


@given(st.binary(max_size=200).map(lambda tail: b"!<arch>\n" + tail))
def test_an_archive_has_exactly_one_spelling(data):
    try:
        members = read_ar(data)
    except FormatError:
        return
    assert write_ar(members) == data


def test_the_system_ar_reads_what_is_written(tmp_path):
    program = shutil.which("ar")
    if program is None:
        pytest.skip("the program ar is absent")
    path = tmp_path / "x.vib"
    path.write_bytes(ARCHIVE)
    listed = subprocess.run([program, "t", path], capture_output=True, check=True, text=True).stdout.split()
    assert listed == ["descriptor.xml", "sig.pkcs7", "payload1"]
    content = subprocess.run([program, "p", path, "payload1"], capture_output=True, check=True).stdout
    assert content == bytes(range(10))


def test_every_truncation_is_refused_or_loses_a_whole_member():
    whole = {8: 0, 8 + 60 + 8: 1, 8 + 60 + 8 + 60: 2}
    for size in range(len(ARCHIVE)):
        if size in whole:
            assert len(read_ar(ARCHIVE[:size])) == whole[size]
        else:
            with pytest.raises(FormatError):
                read_ar(ARCHIVE[:size])


@pytest.mark.parametrize(
    "size",
    [b"-1        ", b"+7        ", b"07        ", b"7.0       ", b"0x7       ", b"        7 ", b"          ",
     b"9999999999", b"1000000   ", b"7       7 ", b"6         "],
)  # fmt: skip
def test_a_size_that_is_no_plain_number_or_not_the_right_one_is_refused(size):
    with pytest.raises(FormatError) as caught:
        read_ar(with_field(48, size))
    assert "member" in caught.value.where


def test_a_size_that_swallows_the_padding_is_other_content():
    assert read_ar(with_field(48, b"8         "))[0].data == b"<vib/>\n\n"


def test_a_missing_padding_byte_is_refused():
    odd = write_ar([ArMember(name="a", data=b"xyz")])
    assert read_ar(odd)[0].data == b"xyz"
    with pytest.raises(FormatError, match="newline"):
        read_ar(odd[:-1])
    with pytest.raises(FormatError, match="newline"):
        read_ar(odd[:-1] + b" ")


@pytest.mark.parametrize("start", [16, 28, 34, 40])
def test_time_owner_group_and_mode_must_be_zero(start):
    with pytest.raises(FormatError, match="not all '0'"):
        read_ar(with_field(start, b"1"))


@pytest.mark.parametrize("name", ["", "descriptor.xml/", "a b", "seventeen-letters", "über", "a/b"])
def test_names_outside_the_header_alphabet_cannot_be_written(name):
    with pytest.raises(FormatError):
        write_ar([ArMember(name=name, data=b"")])


def test_slash_ended_names_of_other_ar_programs_are_refused():
    with pytest.raises(FormatError, match="name"):
        read_ar(with_field(0, b"descriptor.xml/ "))


def test_every_header_bit_is_content_or_fixed():
    for bit in range(8 * 60):
        index = FIRST_HEADER + bit // 8
        changed = ARCHIVE[:index] + bytes([ARCHIVE[index] ^ 1 << bit % 8]) + ARCHIVE[index + 1 :]
        try:
            members = read_ar(changed)
        except FormatError:
            continue
        assert members != MEMBERS


def test_too_many_members_pass_a_named_limit(monkeypatch):
    monkeypatch.setattr(ar, "MEMBERS_MAX", 2)
    with pytest.raises(LimitError, match="2 members"):
        read_ar(ARCHIVE)


def test_too_large_an_archive_passes_a_named_limit(monkeypatch):
    monkeypatch.setattr(ar, "ARCHIVE_BYTES_MAX", 20)
    with pytest.raises(LimitError):
        read_ar(ARCHIVE)
