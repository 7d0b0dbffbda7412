"""A boot saved and restored between any two steps ends as if nothing had happened."""

from __future__ import annotations

import pytest

from sim.boot.bootinfo import BootInfo


@pytest.mark.parametrize("launch", [False, True])
def test_boot_pickled_at_every_step_ends_in_the_same_value_and_trace(make_world, copy, launch):
    options = {"txt": True, "kernelopt": "enableTboot=TRUE"} if launch else {}
    plain = make_world(**options)
    expected = plain.boot()
    world = make_world(**options)
    sequence, outcome = world.sequence()
    sequence.start()
    steps = 0
    while sequence.running:
        sequence, outcome, world = copy((sequence, outcome, world))
        world.board.sim.engine.step()
        steps += 1
    assert steps > 40
    assert isinstance(outcome.value, BootInfo)
    assert outcome.value == expected
    assert world.pcrs() == plain.pcrs()
    assert world.board.sim.trace.digest() == plain.board.sim.trace.digest()


def test_outcomes_themselves_pickle(make_world, copy):
    info = make_world().boot()
    assert copy(info) == info
    world = make_world()
    world.board.disk.volume("bootbank").clear()
    failure = world.boot()
    assert copy(failure) == failure
