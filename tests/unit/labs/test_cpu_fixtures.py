"""Published examples of CPU scheduling: every row of the table holds, and a wrong one would show."""

from fractions import Fraction

import pytest

from sim.labs.cpu_fixtures import FIXTURES, Fixture
from sim.report.fixtures import fixtures_section
from sim.report.sched_options import options_section


@pytest.mark.parametrize("example", FIXTURES, ids=lambda example: example.__name__)
def test_every_value_of_an_example_is_met(example):
    rows = example()
    assert rows
    assert [row for row in rows if not row.met] == []


def a_row(found, **changes):
    return Fixture(name="X", case="x", unit="us", expected=Fraction(3000), found=Fraction(found), **changes)


def test_a_row_that_is_off_is_not_met():
    assert a_row(3000).met
    assert not a_row(3001).met
    assert a_row(3001, tolerance=Fraction(5)).met
    assert not a_row(3001, tolerance=Fraction(5), bound=True).met
    assert not a_row(2990, tolerance=Fraction(5), bound=True).met
    section = fixtures_section([a_row(3000), a_row(Fraction(1, 3))])
    assert section.title == "1 of 2 values as expected"
    assert section.table.rows[1][3:] == ("0.333", "exact", "us", "-", "NO")


def test_small_and_negative_values_are_printed_as_they_are():
    tiny = a_row(Fraction("2999.99996"), tolerance=Fraction(1, 20_000))
    minus = a_row(Fraction(-1, 1000))
    rows = fixtures_section([tiny, minus, a_row(Fraction(-3, 2))]).table.rows
    assert [row[3] for row in rows] == ["2999.99996", "-0.001", "-1.5"]
    assert rows[0][4] == "0.00005"


def test_the_options_of_a_release_say_whether_they_act():
    rows = {row[0]: row for row in options_section("6.0").table.rows}
    assert rows["Cpu.Quantum"][1:6] == ("50", "1", "1000", "ms", "yes")
    assert rows["Cpu.CreditAgePeriod"][5] == "-"
    assert "Numa.DeviceAffinity" not in rows
