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


def said(read: object, *arguments: object, kind: type[FormatError] = FormatError) -> str:
    with pytest.raises(FormatError) as refusal:
        read(*arguments, "t")  # type: ignore[operator]
    assert type(refusal.value) is kind
    return str(refusal.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x30", "offset 0: the data ends inside an element's header"),
        (b"\x05\x00\x30", "offset 2: the data ends inside an element's header"),
        (b"\x05\x00\x04\x05hell", "offset 2: the element needs 1 bytes more than there are"),
        (b"\x1f\x00", "offset 0: tag byte 0x1f is not used here"),
        (b"\x05\x00\x00\x00", "offset 2: tag byte 0x00 is not used here"),
        (b"\x30\x80\x00\x00", "offset 0: indefinite length"),
        (b"\x04\x81\x7f" + bytes(127), "offset 0: a length that is not in its shortest form"),
        (b"\x04\x82\x00\x80" + bytes(128), "offset 0: a length that is not in its shortest form"),
        (b"\x04\x82\x80", "offset 0: a length that is not in its shortest form"),
    ],
)
def test_der_is_refused_by_offset_and_reason(data: bytes, words: str) -> None:
    assert said(der.elements, data) == f"t: {words}"


def test_lengths_of_every_size_are_read_and_written() -> None:
    for size, head in (
        (0, "0400"),
        (127, "047f"),
        (128, "048180"),
        (255, "0481ff"),
        (256, "04820100"),
        (65536, "0483010000"),
    ):
        data = der.tlv(der.OCTET_STRING, bytes(size))
        assert data == bytes.fromhex(head) + bytes(size)
        assert der.elements(data + b"\x05\x00", "t") == [(4, bytes(size), data), (5, b"", b"\x05\x00")]
    words = said(der.elements, b"\x04\x85" + bytes(5), kind=LimitError)
    assert words == "t: offset 0: a length of 5 bytes"
    assert said(der.elements, b"\x04\x84\x01\0\0\0").endswith(
        "the element needs 16777216 bytes more than there are"
    )


def test_limits_of_der_are_exact() -> None:
    assert len(der.elements(b"\x05\x00" * 2048, "t")) == 2048
    assert len(der.elements(b"\x04\x01x" * 2048, "t")) == 2048
    words = said(der.elements, b"\x05\x00" * 2049, kind=LimitError)
    assert words == "t: offset 4096: more than 2048 elements in one value"
    nested = b"\x05\x00"
    for _ in range(23):
        nested = der.tlv(der.SEQUENCE, nested)
    der.check_canonical(nested, "t")
    deeper = der.tlv(der.SEQUENCE, nested)
    assert said(der.check_canonical, deeper, kind=LimitError) == "t: nested deeper than 24 levels"
    assert der.read_integer(b"\x01" * 1024, "t") > 0
    words = said(der.read_integer, b"\x01" * 1025, kind=LimitError)
    assert words == "t: an INTEGER of more than 1024 bytes"
    assert der.read_oid(b"\x01" * 64, "t").count(".") == 64
    words = said(der.read_oid, b"\x01" * 65, kind=LimitError)
    assert words == "t: an OBJECT IDENTIFIER of more than 64 bytes"


def test_what_is_expected_and_what_is_found_are_told() -> None:
    assert der.tagged((5, b"x", b""), 5, "t") == b"x"
    assert said(lambda what: der.tagged((5, b"", b""), 0x30, what)) == "t: expected tag 0x30, found 0x05"
    assert said(der.only, b"", 0x30) == "t: expected one element with tag 0x30, found nothing"
    assert said(der.only, b"\x05\x00" * 5, 5) == (
        "t: expected one element with tag 0x05, found 0x05, 0x05, 0x05, 0x05"
    )
    for content in (b"\x10\x00", b"\x11\x00", b"\x30\x02\x11\x00"):
        assert said(der.check_canonical, content) == "t: a SEQUENCE or SET in primitive form"
    assert said(der.check_canonical, b"\x30\x04\x02\x02\x00\x01") == "t: an INTEGER longer than it need be"


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"\x00", 0), (b"\x7f", 127), (b"\x00\x80", 128), (b"\x80", -128), (b"\xff\x7f", -129), (b"\xff", -1)],
)
def test_integers_may_be_negative(content: bytes, value: int) -> None:
    assert der.read_integer(content, "t") == value


def test_integers_identifiers_and_texts_are_refused_with_the_reason() -> None:
    assert said(der.read_integer, b"") == "t: an INTEGER without content"
    for content in (b"\x00\x7f", b"\xff\x80"):
        assert said(der.read_integer, content) == "t: an INTEGER longer than it need be"
    assert said(der.read_oid, b"\x80\x01") == "t: an OBJECT IDENTIFIER arc longer than it need be"
    for content in (b"", b"\x2a\x86"):
        assert said(der.read_oid, content) == "t: an OBJECT IDENTIFIER that ends early"
    assert der.read_oid(b"\x27\x28\x87\x67", "t") == "0.39.40.999"
    assert der.read_oid(b"\x78", "t") == "2.40"
    assert der.read_text((der.UTF8_STRING, b"\xc3\xa4", b""), "t") == "\xe4"
    assert said(der.read_text, (der.IA5_STRING, b"\xc3\xa4", b"")) == "t: a text that does not decode"


@pytest.mark.parametrize(
    ("tag", "text", "words"),
    [
        (der.UTC_TIME, b"20250101000000Z", "expected a time in UTC with seconds"),
        (der.GENERALIZED_TIME, b"250101000000Z", "expected a time in UTC with seconds"),
        (der.INTEGER, b"250101000000Z", "expected a time in UTC with seconds"),
        (der.UTC_TIME, b"2501010000001", "expected a time in UTC with seconds"),
        (der.UTC_TIME, b"25010100000-Z", "a time with something other than digits"),
        (der.GENERALIZED_TIME, b"20491231235959Z", "a GeneralizedTime before 2050"),
        (der.UTC_TIME, b"250230000000Z", "a time that does not exist"),
    ],
)
def test_a_time_is_refused_with_the_reason(tag: int, text: bytes, words: str) -> None:
    assert said(der.read_time, (tag, text, b"")) == f"t: {words}"


def test_each_part_of_a_time_is_read_from_its_place() -> None:
    when = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert der.encode_time(when) == b"\x17\x0d310203040506Z"
    assert der.read_time((der.UTC_TIME, b"310203040506Z", b""), "t") == when
    late = datetime(2050, 12, 31, 23, 59, 58, tzinfo=UTC)
    assert der.encode_time(late) == b"\x18\x0f20501231235958Z"
    assert der.read_time((der.GENERALIZED_TIME, b"20501231235958Z", b""), "t") == late
    assert der.encode_time(datetime(1949, 1, 1, tzinfo=UTC))[0] == der.GENERALIZED_TIME
    assert der.encode_time(datetime(1950, 1, 1, tzinfo=UTC))[:4] == b"\x17\x0d50"


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
