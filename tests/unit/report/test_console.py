import io

import pytest

from sim.report.console import Progress, print_sections, printable
from sim.report.table import Column, Section, Table


@pytest.mark.parametrize(
    ("text", "shown"), [("a b", "a b"), ("é", "é"), ("a\x1b[31m\n", "a\\x1b[31m\\n"), ("\u202e", "\\u202e")]
)
def test_control_characters_are_escaped_and_nothing_else(text, shown):
    assert printable(text) == shown


def test_every_part_of_a_section_is_escaped(capsys):
    table = Table(columns=(Column("A"),), rows=(("x\x07",),))
    print_sections([Section(title="t\x1b", lines=("l\r",), table=table, notes=("n\x00",))])
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable()
    assert "x\\x07" in out


def test_an_output_that_knows_only_ascii_gets_escapes(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    print_sections([Section(title="", lines=("é",))])
    assert raw.getvalue() == b"\\xe9\n\n"


def test_progress_says_nothing_where_nobody_watches(capsys):
    with Progress("work") as progress:
        progress.update("more work", 1, 2)
    assert capsys.readouterr() == ("", "")
