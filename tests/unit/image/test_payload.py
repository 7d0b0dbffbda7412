import gzip
import hashlib
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import FormatError, LimitError
from sim.image import payload
from sim.image.metadata import Checksum, PayloadEntry
from sim.image.payload import (
    CONTENT_BYTES_MAX,
    PayloadError,
    check_canonical_gzip,
    check_payload,
    content_of,
    declared_size,
    describe_payload,
    gunzip,
    gzip_stored,
)


def bomb(megabytes):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(megabytes)]
    return b"".join(parts) + packer.flush()


@given(st.binary(max_size=300))
def test_stored_gzip_is_read_by_us_and_by_python(content):
    packed = gzip_stored(content)
    assert gunzip(packed) == content
    assert gzip.decompress(packed) == content


@pytest.mark.parametrize("size", [0, 1, 65534, 65535, 65536, 131070, 600_000])
def test_stored_gzip_splits_blocks_at_their_limit(size):
    content = bytes(index * 7 & 0xFF for index in range(size))
    assert gunzip(gzip_stored(content)) == content


@given(st.binary(max_size=2000))
def test_compressed_gzip_of_others_is_read(content):
    assert gunzip(gzip.compress(content, 9)) == content


def test_content_longer_than_a_piece_is_whole():
    content = bytes(range(256)) * 4096 + b"end"
    assert gunzip(gzip.compress(content, 9)) == content


def test_content_above_the_limit_is_refused_by_its_trailer():
    packed = gzip.compress(bytes(1001))
    assert gunzip(packed, 1001) == bytes(1001)
    with pytest.raises(LimitError, match="1000"):
        gunzip(packed, 1000)


def test_a_bomb_is_refused_without_unpacking_it():
    packed = bomb(200)
    assert len(packed) < 210_000
    tracemalloc.start()
    with pytest.raises(LimitError, match="declares 209715200"):
        gunzip(packed)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_bomb_whose_trailer_lies_is_refused_at_the_declared_size():
    packed = bomb(80)[:-4] + (1000).to_bytes(4, "little")
    tracemalloc.start()
    with pytest.raises(LimitError, match="longer than the 1000 bytes"):
        gunzip(packed)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


def test_a_bomb_in_a_bomb_stays_packed():
    inner = bomb(100)
    assert gunzip(gzip_stored(inner)) == inner


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:-1],
        lambda packed: packed[:-9],
        lambda packed: packed + b"\0",
        lambda packed: packed + packed,
        lambda packed: packed[:-8] + bytes(4) + packed[-4:],
        lambda packed: packed[:3] + b"\xe0" + packed[4:],
        lambda packed: b"",
        lambda packed: b"\x1f\x8b",
        lambda packed: b"PK" + packed[2:],
    ],
)
def test_what_is_not_one_whole_gzip_member_is_refused(damage):
    with pytest.raises(FormatError):
        gunzip(damage(gzip.compress(b"some content that is long enough")))


def test_bytes_behind_a_member_that_ends_on_a_piece_boundary_are_refused():
    packed = gzip_stored(bytes((1 << 18) - 18 - 4 * 5))
    assert len(packed) == 1 << 18
    assert len(gunzip(packed)) == len(packed) - 38
    with pytest.raises(FormatError, match="follow"):
        gunzip(packed + packed[-4:])


@given(st.binary(max_size=100))
def test_any_bytes_unpack_or_are_refused(data):
    try:
        content = gunzip(b"\x1f\x8b\x08\x00" + data)
    except FormatError:
        return
    assert len(content) <= CONTENT_BYTES_MAX


def test_each_changed_bit_of_a_canonical_file_is_refused_or_changes_the_content():
    packed = gzip_stored(b"boot options")
    for bit in range(8 * len(packed)):
        changed = packed[: bit // 8] + bytes([packed[bit // 8] ^ 1 << bit % 8]) + packed[bit // 8 + 1 :]
        with pytest.raises(FormatError):
            check_canonical_gzip(changed, "useropts.gz")


@pytest.mark.parametrize("content", [b"", b"boot options", bytes(0xFFFF) + b"end"], ids=len)
def test_a_file_of_stored_blocks_is_judged_as_by_inflating(content, monkeypatch):
    packed = gzip_stored(content)
    places = [*range(15), *range(len(packed) - 16, len(packed))]
    files = [packed, packed + b"x", *(packed[:end] for end in places)]
    files += [
        packed[:at] + bytes([packed[at] ^ 1 << bit]) + packed[at + 1 :] for at in places for bit in range(8)
    ]
    quick = [outcome(file) for file in files]
    monkeypatch.setattr(payload, "_stored_content", lambda data, bytes_max: None)

    assert quick == [outcome(file) for file in files]
    assert quick[0] == content


def outcome(file):
    try:
        return gunzip(file)
    except FormatError as error:
        return str(error)


def test_another_packing_of_the_same_content_is_not_canonical():
    assert check_canonical_gzip(gzip_stored(b"x"), "a") == b"x"
    with pytest.raises(FormatError, match="spelled"):
        check_canonical_gzip(gzip.compress(b"x", mtime=0), "a")


def test_only_gzip_is_unpacked_by_the_loader():
    assert content_of(b"\x7fELF") == b"\x7fELF"
    assert content_of(gzip_stored(b"x")) == b"x"
    assert (declared_size(b"\x7fELF"), declared_size(gzip_stored(bytes(9)))) == (4, 9)


def test_a_described_payload_passes_its_own_check():
    entry = describe_payload("a", "vgz", gzip_stored(b"content"))
    check_payload(entry, gzip_stored(b"content"))
    assert [checksum.label for checksum in entry.checksums] == ["sha-256", "sha-256 gunzip", "sha-1 gunzip"]
    assert entry.sha256 == hashlib.sha256(gzip_stored(b"content")).digest()
    assert [checksum.label for checksum in describe_payload("b", "boot", b"raw").checksums] == ["sha-256"]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_each_wrong_checksum_alone_is_refused_by_name(index):
    entry = describe_payload("net", "vgz", gzip_stored(b"content"))
    wrong = [
        Checksum(algorithm=c.algorithm, digest=bytes(len(c.digest)), process=c.process)
        if number == index
        else c
        for number, c in enumerate(entry.checksums)
    ]
    changed = PayloadEntry(name="net", kind="vgz", size=entry.size, checksums=tuple(wrong))
    with pytest.raises(PayloadError, match="payload net has") as caught:
        check_payload(changed, gzip_stored(b"content"))
    assert caught.value.check == entry.checksums[index].check
    assert entry.checksums[index].digest.hex() in str(caught.value)


def test_a_wrong_size_is_refused_even_when_digests_hold():
    entry = describe_payload("net", "boot", b"data")
    changed = PayloadEntry(name="net", kind="boot", size=5, checksums=entry.checksums)
    with pytest.raises(PayloadError) as caught:
        check_payload(changed, b"data")
    assert caught.value.check == "payload.size"


def test_content_that_cannot_be_unpacked_fails_the_check_of_its_digest():
    data = b"no gzip at all"
    plain = Checksum(algorithm="sha-256", digest=hashlib.sha256(data).digest())
    inner = Checksum(algorithm="sha-1", digest=bytes(20), process="gunzip")
    entry = PayloadEntry(name="a", kind="vgz", size=len(data), checksums=(plain, inner))
    with pytest.raises(PayloadError, match="cannot be unpacked") as caught:
        check_payload(entry, data)
    assert caught.value.check == "payload.sha-1.gunzip"


def test_bytes_between_stored_blocks_and_a_right_trailer_are_refused():
    packed = gzip_stored(b"content")
    for doubled in (packed + packed[-8:], packed[:-8] + bytes(3) + packed[-8:]):
        with pytest.raises(FormatError):
            gunzip(doubled)
