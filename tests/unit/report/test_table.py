from sim.report.table import Column, Section, Table, plain_section, plain_table


def test_cells_stand_under_their_headings_without_trailing_blanks():
    table = Table(columns=(Column("NAME"), Column("N", right=True)), rows=(("a", "1"), ("longer", "22")))
    assert list(plain_table(table)) == ["NAME     N", "a        1", "longer  22"]


def test_a_table_without_rows_is_its_headings():
    assert list(plain_table(Table(columns=(Column("A"), Column("B")), rows=()))) == ["A  B"]


def test_a_section_is_title_lines_table_notes_and_an_empty_line():
    table = Table(columns=(Column("A"),), rows=(("1",),))
    section = Section(title="Part", lines=("text",), table=table, notes=("note",))
    assert list(plain_section(section)) == ["Part", "----", "text", "A", "1", "note", ""]
