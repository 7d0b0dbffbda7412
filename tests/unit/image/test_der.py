from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import FormatError, LimitError
from sim.image import der


@given(st.integers(min_value=0, max_value=2**600))
def test_integers_survive_the_round_trip(value: int) -> None:
    assert der.read_integer(der.only(der.encode_integer(value), der.INTEGER, "t"), "t") == value


@given(st.integers(0, 2), st.integers(0, 39), st.lists(st.integers(0, 2**40), max_size=6))
def test_object_identifiers_survive_the_round_trip(first: int, second: int, rest: list[int]) -> None:
    dotted = ".".join(map(str, (first, second, *rest)))
    assert der.read_oid(der.only(der.encode_oid(dotted), der.OBJECT_IDENTIFIER, "t"), "t") == dotted


@given(st.datetimes(datetime(1950, 1, 1), datetime(2300, 1, 1)))
def test_times_survive_the_round_trip_cut_to_seconds(when: datetime) -> None:
    aware = when.replace(tzinfo=UTC)
    element = der.elements(der.encode_time(aware), "t")[0]
    assert der.read_time(element, "t") == aware.replace(microsecond=0)


@given(st.binary(max_size=200))
def test_junk_is_split_completely_or_refused(data: bytes) -> None:
    try:
        found = der.elements(data, "junk")
        der.check_canonical(data, "junk")
    except FormatError:
        return
    assert b"".join(raw for _, _, raw in found) == data


@pytest.mark.parametrize(
    "data",
    [
        b"\x30",
        b"\x30\x80\x00\x00",  # indefinite
        b"\x04\x81\x05hello",  # long form where the short one would do
        b"\x04\x82\x00\x80" + bytes(128),  # leading zero in the length
        b"\x04\x85\x00\x00\x00\x00\x01x",
        b"\x04\x81",
        b"\x04\x05hell",
        b"\x1f\x81\x01\x00",
        b"\x00\x00",
    ],
)
def test_what_is_not_minimal_der_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        der.elements(data, "t")


@pytest.mark.parametrize("content", [b"", b"\x00\x7f", b"\xff\x80"])
def test_integers_not_in_shortest_form_are_refused(content: bytes) -> None:
    with pytest.raises(FormatError):
        der.read_integer(content, "t")


@pytest.mark.parametrize("content", [b"", b"\x80\x01", b"\x2a\x86", b"\x2a\x80\x01"])
def test_broken_object_identifiers_are_refused(content: bytes) -> None:
    with pytest.raises(FormatError):
        der.read_oid(content, "t")


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        (der.UTC_TIME, b"250230000000Z"),
        (der.UTC_TIME, b"2501010000Z"),
        (der.UTC_TIME, b"250101000000+"),
        (der.UTC_TIME, b"25010100000aZ"),
        (der.UTC_TIME, b"250101000060Z"),
        (der.GENERALIZED_TIME, b"20250101000000Z"),
        (der.GENERALIZED_TIME, b"20510101000000.5Z"),
    ],
)
def test_times_out_of_form_are_refused(tag: int, text: bytes) -> None:
    with pytest.raises(FormatError):
        der.read_time((tag, text, b""), "t")


def test_the_century_of_a_utc_time_turns_at_fifty() -> None:
    assert der.read_time((der.UTC_TIME, b"491231235959Z", b""), "t").year == 2049
    assert der.read_time((der.UTC_TIME, b"500101000000Z", b""), "t").year == 1950


def test_deep_nesting_is_refused_without_deep_recursion() -> None:
    data = b""
    for _ in range(2000):
        data = der.tlv(der.SEQUENCE, data)
    with pytest.raises(LimitError):
        der.check_canonical(data, "t")


def test_too_many_elements_are_refused() -> None:
    with pytest.raises(LimitError):
        der.elements(b"\x05\x00" * (der.ELEMENTS_MAX + 1), "t")


def test_a_set_is_written_in_ascending_order() -> None:
    assert der.encode_set_of([b"\x02\x01\x09", b"\x02\x01\x01"]) == b"\x31\x06\x02\x01\x01\x02\x01\x09"


def test_only_refuses_a_second_element_and_another_tag() -> None:
    with pytest.raises(FormatError):
        der.only(b"\x05\x00\x05\x00", der.NULL, "t")
    with pytest.raises(FormatError):
        der.only(b"\x05\x00", der.INTEGER, "t")


def test_huge_integers_and_identifiers_are_refused() -> None:
    with pytest.raises(LimitError):
        der.read_integer(b"\x01" * (der.INTEGER_BYTES_MAX + 1), "t")
    with pytest.raises(LimitError):
        der.read_oid(b"\x01" * (der.OID_BYTES_MAX + 1), "t")


def test_a_primitive_sequence_is_not_canonical() -> None:
    with pytest.raises(FormatError):
        der.check_canonical(b"\x10\x00", "t")


def test_the_writer_refuses_what_it_cannot_write() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        der.encode_integer(-1)
    with pytest.raises(ValueError, match="zone"):
        der.encode_time(datetime(2025, 1, 1))


@given(
    st.binary(max_size=40) | st.integers(0, 700).map(lambda size: der.tlv(der.SEQUENCE, bytes(size))),
    st.data(),
)
def test_the_only_element_is_what_splitting_finds(data: bytes, draw: st.DataObject) -> None:
    changed = bytearray(data)
    for at in draw.draw(st.lists(st.integers(0, 4), max_size=2)):
        if at < len(changed):
            changed[at] = draw.draw(st.sampled_from((0, 1, 0x30, 0x7F, 0x80, 0x81, 0x82, 0x83, 0xFF)))
    tag = changed[0] if changed else der.SEQUENCE
    try:
        found = der.elements(bytes(changed), "test")
    except FormatError:
        found = []
    if len(found) == 1:
        assert der.only(bytes(changed), tag, "test") == found[0][1]
    else:
        with pytest.raises(FormatError):
            der.only(bytes(changed), tag, "test")
