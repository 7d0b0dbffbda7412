"""Zip archives whose directory, names or sizes lie: each is refused by its own reason, and limits are exact."""

import struct
import zipfile

import pytest

from sim.errors import FormatError, LimitError
from sim.image import boundedzip
from sim.image.boundedzip import read_zip, write_zip


def said(data, kind=FormatError):
    with pytest.raises(FormatError) as caught:
        read_zip(data, "zip")
    assert type(caught.value) is kind
    return str(caught.value)


def test_an_archive_of_more_bytes_than_the_limit_is_refused(monkeypatch):
    good = write_zip({"a": b"1"})
    monkeypatch.setattr(boundedzip, "ZIP_BYTES_MAX", len(good))
    assert read_zip(good) == {"a": b"1"}
    monkeypatch.setattr(boundedzip, "ZIP_BYTES_MAX", len(good) - 1)
    assert said(good, LimitError) == f"zip: more than {len(good) - 1} bytes"


def test_a_directory_of_more_bytes_than_its_entries_may_have_is_refused(monkeypatch):
    good = write_zip({"a": b"1"})
    monkeypatch.setattr(boundedzip, "ZIP_ENTRIES_MAX", 1)
    monkeypatch.setattr(boundedzip, "_ENTRY_BYTES_MAX", 47)
    assert read_zip(good) == {"a": b"1"}
    monkeypatch.setattr(boundedzip, "_ENTRY_BYTES_MAX", 46)
    assert said(good, LimitError) == "zip: more than 1 entries"


def test_a_directory_of_more_entries_than_its_end_record_counts_is_held_to_the_limit(monkeypatch):
    lying = bytearray(write_zip({"a": b"1", "b": b"2"}))
    at = lying.rindex(b"PK\5\6")
    lying[at + 8 : at + 12] = struct.pack("<HH", 1, 1)
    monkeypatch.setattr(boundedzip, "ZIP_ENTRIES_MAX", 1)
    assert said(bytes(lying), LimitError) == "zip: more than 1 entries"


def test_a_folder_is_passed_over_and_one_with_content_is_refused():
    assert read_zip(write_zip([("d/", b""), ("d/a", b"1")])) == {"d/a": b"1"}
    assert said(write_zip([("d/", b"1")])) == "zip: entry: path 'd/' has an empty, '.' or '..' part"


def test_an_entry_under_two_names_is_refused_where_the_library_takes_the_second(monkeypatch):
    good = write_zip({"a": b"1"})
    real = zipfile.ZipFile.infolist

    def renamed(archive):  # as later libraries do by the extra field for a name in Unicode
        infos = real(archive)
        infos[0].filename = "../b"
        return infos

    assert read_zip(good) == {"a": b"1"}
    monkeypatch.setattr(zipfile.ZipFile, "infolist", renamed)
    assert said(good) == "zip: ../b: stands twice, or under two names"


def test_a_file_shorter_than_its_declared_size_is_refused():
    short = bytearray(write_zip({"a": b"1"}))
    at = short.rindex(b"PK\1\2")
    short[at + 24 : at + 28] = struct.pack("<I", 2)
    assert said(bytes(short)) == "zip: a: has 1 bytes, 2 are declared"
