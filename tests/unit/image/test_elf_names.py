"""Names and texts of ELF files: what is shown of them, how long they may be, and what is refused with which words."""

import pytest

from sim.errors import FormatError, LimitError
from sim.image import elf_text
from sim.image.elf_text import Names, parse_modinfo, shown


def said(read, *arguments, kind=FormatError):
    with pytest.raises(FormatError) as caught:
        read(*arguments)
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vmk_Log", "vmk_Log"),
        ("a\nb\x1b", "a\\nb\\x1b"),
        ("\xe9\u200b", "\xe9\\u200b"),
        ("n" * 120, "n" * 120),
        ("n" * 121, "n" * 117 + "..."),
    ],
)
def test_a_name_is_shown_on_one_line_printable_and_cut(name, text):
    assert shown(name) == text


def test_a_name_ends_at_its_nul_and_within_its_limit(monkeypatch):
    table = b"\0first\0second\xff\0"
    names = Names(table)
    assert [names.at(at) for at in (0, 1, 3, 7)] == ["", "first", "rst", "second\\xff"]
    for at in (len(table), len(table) + 5):
        assert said(names.at, at) == f"ELF: symbol names: no name of at most 16384 bytes at {at:#x}"
    assert Names(b"n" * 16_383 + b"\0").at(0) == "n" * 16_383
    assert said(Names(b"n" * 16_384 + b"\0").at, 0).endswith("at 0x0")
    monkeypatch.setattr(elf_text, "NAMES_BYTES_MAX", 9)
    few = Names(table)
    assert [few.at(1), few.at(3), few.at(5)] == ["first", "rst", "t"]
    assert said(few.at, 5, kind=LimitError) == "ELF: symbol names: more than 9 bytes in all"


def test_records_of_a_module_are_pairs_in_their_order():
    assert parse_modinfo(b"") == ()
    assert parse_modinfo(b"a=1\0\0b=x=y\0c=\0\0") == (("a", "1"), ("b", "x=y"), ("c", ""))
    for record in (b"a", b"=1\0", b"a=1\0b"):
        assert said(parse_modinfo, record) == "ELF: .modinfo: expected key=value texts"
    assert said(parse_modinfo, b"a=\xff") == "ELF: .modinfo: a text that does not decode"
