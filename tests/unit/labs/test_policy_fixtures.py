"""Computed examples of proportional share: every row holds."""

import pytest

from sim.labs.policy_fixtures import POLICY_FIXTURES, binomial_error, run_policy_fixtures


@pytest.mark.parametrize("example", POLICY_FIXTURES, ids=lambda example: example.__name__)
def test_every_value_of_an_example_is_met(example):
    rows = example()
    assert rows
    assert [row for row in rows if not row.met] == []


def test_the_mean_error_of_a_binomial_is_as_published():
    assert [round(float(binomial_error(count)), 1) for count in (100, 1000, 10_000)] == [3.5, 10.9, 34.5]


def test_all_examples_have_their_rows():
    names = [row.name for row in run_policy_fixtures()]
    assert names == ["V7"] * 2 + ["V8"] * 3 + ["P3"] + ["V9"] + ["V10"] * 8
