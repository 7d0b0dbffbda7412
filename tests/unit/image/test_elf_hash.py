"""Hash tables of ELF files, byte by byte: what a lookup yields, and which tables are refused with which words."""

import struct

import pytest

from sim.errors import FormatError, LimitError
from sim.image import elf_hash
from sim.image.elf_hash import SYMBOLS_MAX, GnuHash, SysvHash, gnu_hash, sysv_hash

CUT = "ELF: hash table: is cut short"
NO_SIZES = "ELF: hash table: is cut short, or its sizes are no sizes"
NO_END = "ELF: hash table: a chain that does not end"
ALL = (1 << 64) - 1


def said(read, *arguments, kind=FormatError):
    with pytest.raises(FormatError) as caught:
        read(*arguments)
    assert type(caught.value) is kind
    return str(caught.value)


def sysv(heads, following):
    words = (len(heads), len(following), *heads, *following)
    return struct.pack(f"<{len(words)}I", *words)


def gnu(buckets, chains, first=1, filters=(ALL,), shift=6):
    return (
        struct.pack("<IIII", len(buckets), first, len(filters), shift)
        + struct.pack(f"<{len(filters)}Q", *filters)
        + struct.pack(f"<{len(buckets)}I", *buckets)
        + struct.pack(f"<{len(chains)}I", *chains)
    )


def test_names_hash_by_their_bytes():
    assert (sysv_hash("printf"), gnu_hash("printf")) == (0x77905A6, 0x156B2BB8)
    assert (sysv_hash("\udcff"), gnu_hash("\udcff")) == (0xFF, 5381 * 33 + 0xFF)


def test_a_sysv_chain_ends_at_zero_at_its_count_or_after_that_many_steps():
    assert list(SysvHash(sysv([1], [0, 2, 0])).candidates("a")) == [1, 2]
    assert list(SysvHash(sysv([3], [0, 2, 0])).candidates("a")) == []
    assert list(SysvHash(sysv([1], [0, 1])).candidates("a")) == [1, 1]
    assert list(SysvHash(sysv([], [0])).candidates("a")) == []


def test_a_sysv_table_that_is_cut_short_is_refused():
    whole = sysv([1], [0, 0])
    assert SysvHash(whole).count == 2
    assert SysvHash(bytes(8)).count == 0
    for size in (0, 7, len(whole) - 1):
        assert said(SysvHash, whole[:size]) == CUT


def test_a_sysv_table_of_too_many_symbols_or_chains_is_refused():
    most = SYMBOLS_MAX
    assert SYMBOLS_MAX == 65536
    assert SysvHash(sysv([0] * most, [0] * most)).count == most
    for heads, count in ((most + 1, 0), (0, most + 1), (1, 2**32 - 1), (2**32 - 1, 1)):
        text = said(SysvHash, struct.pack("<II", heads, count) + bytes(4 * most + 4), kind=LimitError)
        assert text == f"ELF: symbols: {count} in {heads} chains, at most {most}"


def test_a_gnu_chain_yields_the_symbols_of_a_hash_but_for_its_lowest_bit():
    value = gnu_hash("a")
    table = GnuHash(gnu([1], [value & ~1, value + 2 & ~1, value | 1]))
    assert (table.count, list(table.candidates("a"))) == (4, [1, 3])
    assert list(GnuHash(gnu([0], [])).candidates("a")) == []
    assert list(GnuHash(gnu([2, 2], [value | 1, value | 1])).candidates("a")) == [2]
    assert list(GnuHash(gnu([0], [value | 1], first=0)).candidates("a")) == [0]


def test_a_bucket_after_the_last_symbol_yields_nothing():
    table = GnuHash(gnu([1], [gnu_hash("a") | 1]))
    table._buckets = (table.count,)
    assert list(table.candidates("a")) == []


@pytest.mark.parametrize("shift", [6, 64 + 6, 63])
def test_a_name_is_looked_up_if_both_of_its_bits_are_in_the_filter(shift):
    value = gnu_hash("a")
    first, second = 1 << value % 64, 1 << (value >> (shift & 63)) % 64
    assert first != second
    for word, found in ((first | second, [1]), (first, []), (second, []), (0, [])):
        table = GnuHash(gnu([1], [value | 1], filters=(word,), shift=shift))
        assert list(table.candidates("a")) == found


def test_a_gnu_table_that_is_cut_short_or_has_no_sizes_is_refused():
    whole = gnu([0], [])
    assert GnuHash(whole).count == 1
    for size in (0, 15):
        assert said(GnuHash, whole[:size]) == CUT
    for data in (whole[:16], whole[:-1], gnu([], [1]), gnu([0], [1], filters=())):
        assert said(GnuHash, data) == NO_SIZES
    assert said(GnuHash, gnu([0], [1], filters=(ALL,) * 3)) == NO_SIZES


def test_a_gnu_table_of_too_many_buckets_symbols_or_words_of_filter_is_refused():
    most = SYMBOLS_MAX
    assert GnuHash(gnu([0] * most, [], first=most, filters=(0,) * most)).count == most
    for buckets, first, filters in ((most + 1, 1, 1), (1, most + 1, 1), (1, 1, 2 * most), (1, 2**32 - 1, 1)):
        table = struct.pack("<IIII", buckets, first, filters, 6) + bytes(20 * most)
        text = said(GnuHash, table, kind=LimitError)
        assert text == f"ELF: symbols: a hash table of {buckets} buckets for symbols from {first}"


def test_a_gnu_chain_that_does_not_end_is_refused(monkeypatch):
    assert GnuHash(gnu([1], [2, 3])).count == 3
    assert said(GnuHash, gnu([1], [2, 2])) == NO_END
    assert said(GnuHash, gnu([1], [2, 3])[:-1]) == NO_END
    assert said(GnuHash, gnu([9], [2, 3])) == NO_END
    monkeypatch.setattr(elf_hash, "SYMBOLS_MAX", 4)
    assert GnuHash(gnu([1], [2, 2, 3])).count == 4
    assert said(GnuHash, gnu([1], [2, 2, 2, 3])) == NO_END
