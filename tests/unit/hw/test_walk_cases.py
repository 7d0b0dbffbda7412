"""The directed cases of the page walk, on the walk for reading and on the walk of many."""

import sys

import pytest

from sim.hw.mmu import walk

from .walk_cases import CASES, run_many, run_one, wanted_of

WALK = sys.modules[walk.__module__]


@pytest.mark.parametrize("each", CASES, ids=lambda each: each.name)
def test_both_walks_do_what_the_manual_says(each):
    wanted = wanted_of(each)
    assert run_one(each, WALK) == wanted
    assert run_many(each) == wanted
    assert run_many(each, company=True)[:3] == wanted[:3]


def test_no_case_stands_there_twice():
    names = [each.name for each in CASES]
    assert len(names) == len({*names})
