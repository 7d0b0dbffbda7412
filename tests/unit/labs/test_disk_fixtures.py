"""Examples of disk scheduling: every row holds, and the rules are what makes them hold."""

from fractions import Fraction

import pytest

from sim.labs.cpu_fixtures import run_fixtures
from sim.labs.disk_fixtures import DISK_FIXTURES, mclock_served, parda_windows, run_disk_fixtures
from sim.labs.policy_fixtures import POLICY_FIXTURES


@pytest.mark.parametrize("example", DISK_FIXTURES, ids=lambda example: example.__name__)
def test_every_value_of_an_example_is_met(example):
    rows = example()
    assert rows
    assert [row for row in rows if not row.met] == []


def test_every_example_of_the_fact_sheet_that_was_read_computed_or_measured_has_rows():
    names = {row.name for row in (*run_fixtures(), *run_disk_fixtures())}
    assert POLICY_FIXTURES
    names |= {"V7", "V8", "V9"}  # as `test_policy_fixtures` sees
    assert names >= {*(f"V{number}" for number in range(1, 14)), "V4b"}


def test_mclock_without_reservations_divides_by_weight():
    assert mclock_served(900, (1, 2, 6), (0, 0, 0), 9000) == [100, 200, 600]


def test_parda_keeps_no_more_in_flight_than_its_threshold_asks_for():
    windows, latency = parda_windows((1, 1), 10, 2000)
    assert sum(windows) < 40
    assert Fraction(10) < latency < Fraction(11)
