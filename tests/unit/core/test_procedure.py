"""Claims about procedures: order of steps, elapsed cost, errors, pickling at every step."""

import pickle

import pytest

from sim.core.context import Sim
from sim.core.procedure import CostMeter, Procedure
from sim.errors import FormatError, SimBug


class Job:
    def __init__(self, fail=False):
        self.sim = Sim()
        self.meter = CostMeter()
        self.seen = []
        self.fail = fail
        self.procedure = Procedure(self.sim.engine, self.meter, self.done, self.failed)
        self.procedure.then(self.first).then(self.last)

    def first(self):
        self.note("first", 10)
        self.procedure.next(self.note, "inner 1", 1)
        self.procedure.next(self.note, "inner 2", 2)

    def note(self, text, cost):
        self.seen.append((self.sim.now, text))
        self.meter.charge(cost, text)

    def last(self):
        self.note("last", 5)
        if self.fail:
            raise FormatError("thing", "here", "wrong")

    def done(self):
        self.seen.append((self.sim.now, "done"))

    def failed(self, error):
        self.seen.append((self.sim.now, str(error)))


def test_steps_run_in_order_and_their_cost_elapses():
    job = Job()
    job.procedure.start()
    job.sim.engine.run()
    assert job.seen == [(0, "first"), (10, "inner 1"), (11, "inner 2"), (13, "last"), (18, "done")]
    assert job.meter.totals_ns == {"first": 10, "inner 1": 1, "inner 2": 2, "last": 5}


def test_an_error_ends_the_procedure_and_is_handed_over():
    job = Job(fail=True)
    job.procedure.start()
    job.sim.engine.run()
    assert job.seen[-1] == (13, "thing: here: wrong")
    assert job.meter.pending_ns == 0


def test_an_error_without_a_taker_propagates():
    job = Job(fail=True)
    job.procedure._on_error = None
    job.procedure.start()
    with pytest.raises(FormatError):
        job.sim.engine.run()


def test_a_stopped_procedure_never_ends_and_never_starts_again():
    job = Job()
    job.procedure.start()
    job.sim.engine.run(10)
    job.procedure.stop()
    job.sim.engine.run(100)
    assert [text for _, text in job.seen] == ["first", "inner 1"]
    with pytest.raises(SimBug, match="starts once"):
        job.procedure.start()


@pytest.mark.parametrize("cut", [0, 5, 10, 11, 12, 13, 17, 18])
def test_a_procedure_pickles_at_every_step(cut):
    job = Job()
    job.procedure.start()
    job.sim.engine.run(cut)
    copy = pickle.loads(pickle.dumps(job))
    job.sim.engine.run()
    copy.sim.engine.run()
    assert copy.seen == job.seen


def test_a_negative_cost_is_a_bug():
    with pytest.raises(SimBug):
        CostMeter().charge(-1)
