"""What a set of packed files may declare, to the byte."""

import gzip

import pytest

from sim.errors import FormatError, LimitError
from sim.image.bootbank import BANK_CONTENT_BYTES_MAX, check_bank_contents
from sim.image.boundedzip import ZipReader, write_zip
from sim.image.growth import GROWTH_FREE_BYTES, GROWTH_RATIO_MAX, check_growth, check_packed
from sim.image.payload import check_canonical_gzip, gzip_stored


def test_a_small_set_may_declare_the_free_amount():
    check_growth(0, GROWTH_FREE_BYTES, GROWTH_FREE_BYTES, "test")
    with pytest.raises(LimitError, match="more than 16 times as many"):
        check_growth(0, GROWTH_FREE_BYTES + 1, 1 << 40, "test", "here")


def test_a_large_set_may_declare_a_multiple_of_what_it_takes():
    stored = GROWTH_FREE_BYTES
    check_growth(stored, GROWTH_RATIO_MAX * stored, 1 << 40, "test")
    with pytest.raises(LimitError, match="more than 16 times as many"):
        check_growth(stored, GROWTH_RATIO_MAX * stored + 1, 1 << 40, "test")


def test_nothing_may_declare_more_than_the_callers_limit():
    check_growth(100, 100, 100, "test")
    with pytest.raises(LimitError, match="test: here: declares more than 100 bytes of content"):
        check_growth(101, 101, 100, "test", "here")


def declaring(size):
    return gzip_stored(b"")[:-4] + size.to_bytes(4, "little")


def test_packed_files_count_by_what_they_declare_and_others_by_their_size():
    each = GROWTH_FREE_BYTES // 4
    check_packed([declaring(each)] * 3 + [bytes(100)], 1 << 40, "test")
    check_packed([declaring(each)] * 4, 1 << 40, "test")
    with pytest.raises(LimitError):
        check_packed([declaring(each)] * 4 + [b"x"], 1 << 40, "test")


def test_a_bank_has_a_limit_of_its_own():
    honest = bytes(BANK_CONTENT_BYTES_MAX // 16 // 4)
    check_bank_contents([honest] * 4 * 16)
    with pytest.raises(LimitError, match="boot bank: declares more than"):
        check_bank_contents([*[honest] * 4 * 16, b"x"])


def test_a_zip_reader_unpacks_what_it_is_asked_for(monkeypatch):
    reader = ZipReader(write_zip({"a": b"1", "b/c": bytes(1000)}))
    assert reader.sizes == {"a": 1, "b/c": 1000}
    opened = []
    monkeypatch.setattr(
        reader._archive,
        "open",
        lambda info, real=reader._archive.open: opened.append(info.filename) or real(info),
    )
    assert reader.read("b/c", 1000) == bytes(1000)
    assert opened == ["b/c"]
    with pytest.raises(LimitError, match="b/c: declares more than 999 bytes"):
        reader.read("b/c", 999)
    with pytest.raises(FormatError, match="x: is missing"):
        reader.read("x")
    assert opened == ["b/c"]


def test_a_file_that_shrinks_was_not_packed_by_this_system_and_is_not_unpacked(monkeypatch):
    packed = gzip.compress(bytes(1000), mtime=0)
    monkeypatch.setattr("sim.image.payload._pieces", lambda *_: pytest.fail("was unpacked"))
    with pytest.raises(FormatError, match="is not spelled as this system packs"):
        check_canonical_gzip(packed, "state.tgz")
