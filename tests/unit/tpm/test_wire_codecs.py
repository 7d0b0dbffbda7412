"""The codecs themselves: what they read, where they stop, and what they say when they refuse."""

import attrs
import pytest

from sim.tpm.codec import (
    Codec,
    Empty,
    FixedBytes,
    ListOf,
    Number,
    Select,
    Sized,
    SizedBytes,
    Structure,
    WireError,
    codec_of,
    variant,
    wire,
)
from sim.tpm.constants import TPM_RC
from sim.tpm.wire.basic import TicketTag


@attrs.frozen(kw_only=True)
class Pair(Structure):
    """Two integers, a chosen part, and an integer after it."""

    kind: int = wire(Number("B", allowed=frozenset({1, 2, 3}), rc=TPM_RC.TYPE))
    bits: int = wire(Number("H", reserved=0xF000))
    part: object = wire(Select("kind", {1: FixedBytes(2), 2: SizedBytes(3), 3: Empty()}))
    last: int = wire(Number("I"))


@attrs.frozen(kw_only=True)
class Holder(Structure):
    """A structure in a structure."""

    pair: Pair = wire(Pair)  # noqa: RUF009 - `wire` makes an attrs field
    more: tuple[int, ...] = wire(ListOf(Number("B"), 3))


def refusal(action, *arguments):
    with pytest.raises(WireError) as caught:
        action(*arguments)
    return caught.value.rc, caught.value.message


def decoding(codec, encoded, at=0, end=None):
    data = bytes.fromhex(encoded)
    return refusal(codec.decode, data, at, len(data) if end is None else end)


REFUSALS = [
    (Number("I"), "010203", TPM_RC.INSUFFICIENT, "1 bytes are missing"),
    (Number("Q"), "", TPM_RC.INSUFFICIENT, "8 bytes are missing"),
    (Number("B", allowed={1, 3}), "02", TPM_RC.VALUE, "0x2 is not allowed here"),
    (Number("H", allowed={1}, rc=TPM_RC.CURVE), "0012", TPM_RC.CURVE, "0x12 is not allowed here"),
    (Number("B", reserved=0x18), "19", TPM_RC.RESERVED_BITS, "0x19 has reserved bits set"),
    (TicketTag(), "1234", TPM_RC.VALUE, "0x1234 is no structure tag"),
    (TicketTag(), "8021", TPM_RC.TAG, "0x8021 is not allowed here"),
    (FixedBytes(4), "0102", TPM_RC.INSUFFICIENT, "2 bytes are missing"),
    (SizedBytes(4), "00", TPM_RC.INSUFFICIENT, "the size is cut short"),
    (SizedBytes(4), "0003aa", TPM_RC.INSUFFICIENT, "2 bytes are missing"),
    (SizedBytes(4), "0005", TPM_RC.SIZE, "size 5 is not in 0 .. 4"),
    (SizedBytes(4, size_min=2, rc=TPM_RC.VALUE), "0001", TPM_RC.VALUE, "size 1 is not in 2 .. 4"),
    (SizedBytes(4, code="B"), "05", TPM_RC.SIZE, "size 5 is not in 0 .. 4"),
    (Sized(Pair), "0000", TPM_RC.SIZE, "the structure is empty"),
    (Sized(FixedBytes(2)), "0001aabb", TPM_RC.SIZE, "size 1, but the structure has 2 bytes"),
    (Sized(FixedBytes(2)), "0003aabbcc", TPM_RC.SIZE, "size 3, but the structure has 2 bytes"),
    (Sized(FixedBytes(2)), "00", TPM_RC.INSUFFICIENT, "1 bytes are missing"),
    (ListOf(Number("B"), 2), "00000003010203", TPM_RC.SIZE, "3 entries, at most 2 are allowed"),
    (ListOf(Number("B"), 2), "0000000201", TPM_RC.INSUFFICIENT, "1 bytes are missing"),
    (ListOf(Number("B"), 2), "000000", TPM_RC.INSUFFICIENT, "1 bytes are missing"),
    (codec_of(Pair), "04", TPM_RC.TYPE, "0x4 is not allowed here"),
    (codec_of(Pair), "01", TPM_RC.INSUFFICIENT, "2 bytes are missing"),
    (codec_of(Pair), "0110", TPM_RC.INSUFFICIENT, "1 bytes are missing"),
    (codec_of(Pair), "011000", TPM_RC.RESERVED_BITS, "0x1000 has reserved bits set"),
    (codec_of(Pair), "041000", TPM_RC.TYPE, "0x4 is not allowed here"),
    (codec_of(Pair), "010000aa", TPM_RC.INSUFFICIENT, "1 bytes are missing"),
]


@pytest.mark.parametrize(("codec", "encoded", "rc", "message"), REFUSALS)
def test_a_refusal_says_what_is_wrong(codec, encoded, rc, message):
    assert decoding(codec, encoded) == (rc, message)
    assert decoding(codec, "ffff" + encoded, 2) == (rc, message)


@pytest.mark.parametrize(
    ("action", "value", "rc", "message"),
    [
        (FixedBytes(4).encode, b"123", TPM_RC.SIZE, "3 bytes, want 4"),
        (FixedBytes(4).encode, b"12345", TPM_RC.SIZE, "5 bytes, want 4"),
        (SizedBytes(4).encode, b"12345", TPM_RC.SIZE, "size 5 is not in 0 .. 4"),
        (SizedBytes(4, size_min=2, rc=TPM_RC.VALUE).encode, b"1", TPM_RC.VALUE, "size 1 is not in 2 .. 4"),
        (ListOf(Number("B"), 1).encode, (1, 2), TPM_RC.SIZE, "2 entries, at most 1 are allowed"),
        (Pair.decode, bytes.fromhex("03000000000001ff"), TPM_RC.SIZE, "1 bytes follow the structure"),
        (
            Pair(kind=9, bits=0, part=None, last=0).encode,
            None,
            TPM_RC.SELECTOR,
            "kind 0x9 has no such content",
        ),
    ],
)
def test_what_does_not_fit_is_not_written_or_read(action, value, rc, message):
    assert refusal(action, *(() if value is None else (value,))) == (rc, message)


def test_an_error_is_told_in_words():
    error = WireError(TPM_RC.SIZE, "too long")

    assert str(error) == "TPM structure: SIZE (0x095): too long"
    assert error.rc == TPM_RC.SIZE
    assert error.message == "too long"


@pytest.mark.parametrize(
    ("codec", "encoded", "value"),
    [
        (Number("B"), "ff", 255),
        (Number("H"), "0102", 0x102),
        (Number("I"), "01020304", 0x01020304),
        (Number("Q"), "0102030405060708", 0x0102030405060708),
        (Number("B", allowed={2}), "02", 2),
        (Number("B", reserved=0x18), "e7", 0xE7),
        (FixedBytes(3), "aabbcc", b"\xaa\xbb\xcc"),
        (SizedBytes(2), "0002aabb", b"\xaa\xbb"),
        (SizedBytes(2, size_min=2), "0002aabb", b"\xaa\xbb"),
        (SizedBytes(2, code="B"), "01aa", b"\xaa"),
        (Sized(FixedBytes(2)), "0002aabb", b"\xaa\xbb"),
        (ListOf(Number("B"), 2), "00000000", ()),
        (ListOf(Number("B"), 2), "0000000107", (7,)),
        (ListOf(Number("B"), 2), "000000020708", (7, 8)),
        (ListOf(SizedBytes(1), 2), "0000000200000001aa", (b"", b"\xaa")),
        (codec_of(Pair), "010fffaabb00000001", Pair(kind=1, bits=0xFFF, part=b"\xaa\xbb", last=1)),
        (codec_of(Pair), "0200010001cc00000002", Pair(kind=2, bits=1, part=b"\xcc", last=2)),
        (codec_of(Pair), "030001ffffffff", Pair(kind=3, bits=1, part=None, last=0xFFFFFFFF)),
        (
            codec_of(Holder),
            "030001ffffffff0000000109",
            Holder(pair=Pair(kind=3, bits=1, part=None, last=0xFFFFFFFF), more=(9,)),
        ),
        (Empty(), "", None),
    ],
)
def test_a_value_is_read_where_it_stands_and_written_as_it_was(codec, encoded, value):
    data = bytes.fromhex(encoded)

    assert codec.decode(data, 0, len(data)) == (value, len(data))
    assert codec.decode(b"\xff\xff" + data + b"\xff", 2, len(data) + 2) == (value, len(data) + 2)
    assert codec.encode(value) == data


@pytest.mark.parametrize("encoded", ["010fffaabb00000001", "0200010001cc00000002", "030001ffffffff"])
def test_nothing_is_read_behind_the_end(encoded):
    data = bytes.fromhex(encoded)
    for end in range(len(data)):
        rc, _ = refusal(codec_of(Pair).decode, data, 0, end)
        assert rc == TPM_RC.INSUFFICIENT


def test_a_codec_is_compiled_once_and_a_variant_changes_only_the_fields_it_names():
    other = variant(Pair, bits=Number("H"))

    assert codec_of(Pair) is codec_of(Pair)
    assert codec_of(other) is other
    assert other.decode(bytes.fromhex("03f00100000005"), 0, 7)[0].bits == 0xF001
    assert refusal(codec_of(Pair).decode, bytes.fromhex("03f00100000005"), 0, 7)[0] == TPM_RC.RESERVED_BITS
    wide = variant(Pair, part=Select("kind", {1: FixedBytes(1)}), last=SizedBytes(2))
    value, after = wide.decode(bytes.fromhex("010000aa0001bb"), 0, 7)
    assert (value.part, value.last, after) == (b"\xaa", b"\xbb", 7)


def test_only_codecs_of_fixed_size_join_a_run():
    assert Number("I").code == "I"
    for codec in (
        Codec(),
        Empty(),
        FixedBytes(2),
        SizedBytes(2),
        Sized(Pair),
        ListOf(Pair, 1),
        codec_of(Pair),
    ):
        assert codec.code == ""


def test_a_codec_without_rules_refuses_nothing_by_itself():
    for value in (0, 3, 1 << 40):
        Codec().check(value)
        Number("B").check(value)
    with pytest.raises(NotImplementedError):
        Codec().decode(b"", 0, 0)
    with pytest.raises(NotImplementedError):
        Codec().encode(0)
