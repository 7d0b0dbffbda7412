"""Claims about the engine: order, arming, limits, pickling."""

import pickle

import numpy as np
import pytest

from sim.core.engine import NEVER, Engine, EngineLimits
from sim.errors import CheckpointError, SimBug


class Recorder:
    def __init__(self, engine):
        self.engine = engine
        self.seen = []
        self.timer = engine.timer(self.tick)

    def note(self, what):
        self.seen.append((self.engine.now, what))

    def tick(self):
        self.note("tick")


class Periodic(Recorder):
    def tick(self):
        self.note("tick")
        self.timer.arm(self.engine.now + 7)


def test_callbacks_run_in_time_order_and_ties_in_order_of_scheduling():
    engine = Engine()
    log = Recorder(engine)
    engine.at(20, log.note, "c")
    engine.at(10, log.note, "a")
    engine.after(20, log.note, "d")
    engine.at(10, log.note, "b")
    engine.run()
    assert log.seen == [(10, "a"), (10, "b"), (20, "c"), (20, "d")]


def test_run_includes_events_at_its_end_and_leaves_the_clock_there():
    engine = Engine()
    log = Recorder(engine)
    engine.at(10, log.note, "in")
    engine.at(11, log.note, "out")
    engine.run(10)
    assert log.seen == [(10, "in")]
    assert engine.now == 10
    engine.run(10)
    assert engine.now == 10


def test_a_timer_fires_once_at_its_last_due_time():
    engine = Engine()
    log = Recorder(engine)
    log.timer.arm(10)
    log.timer.arm(30)
    log.timer.arm(20)
    engine.run()
    assert log.seen == [(20, "tick")]
    assert not log.timer.armed
    assert log.timer.due_ns == NEVER


def test_a_cancelled_timer_stays_silent_and_can_be_armed_again():
    engine = Engine()
    log = Recorder(engine)
    log.timer.arm(10)
    log.timer.cancel()
    engine.run(15)
    assert log.seen == []
    log.timer.arm(15)
    engine.run(20)
    assert log.seen == [(15, "tick")]


def test_a_timer_armed_later_again_and_again_keeps_one_queue_entry():
    engine = Engine()
    log = Recorder(engine)
    for due in range(10, 10_000):
        log.timer.arm(due)
    assert len(engine._queue) == 1
    engine.run()
    assert log.seen == [(9999, "tick")]


def test_the_past_is_refused():
    engine = Engine()
    engine.run(100)
    with pytest.raises(SimBug, match="before now"):
        engine.timer(engine.run).arm(99)
    with pytest.raises(SimBug, match="before now"):
        engine.at(99, engine.run)
    with pytest.raises(SimBug, match="before now"):
        engine.after(-1, engine.run)
    with pytest.raises(SimBug, match="before now"):
        engine.run(50)


LAST = 2**63 - 1


@pytest.mark.parametrize(
    "when_ns", [2**63, 2**80, 1e18, 0.5, float("nan"), float("inf"), True, "5", np.int64(5)]
)
def test_no_clock_is_set_beyond_the_last_nanosecond_or_to_what_is_no_integer(when_ns):
    engine = Engine()
    for wrong in (engine.timer(engine.run).arm, engine.run, lambda one: engine.at(one, engine.run)):
        with pytest.raises(SimBug, match="no integer from 0 to 9223372036854775807"):
            wrong(when_ns)
    if not isinstance(when_ns, str):
        with pytest.raises(SimBug, match="no integer"):
            engine.timeout(when_ns)
        with pytest.raises(SimBug, match="no integer"):
            Engine(start_ns=when_ns)
    assert engine.idle
    assert engine.now == 0


def test_at_the_last_nanosecond_nothing_can_be_delayed():
    engine = Engine(start_ns=LAST - 5)
    log = Recorder(engine)
    engine.after(5, log.note, "last")
    for delay in (
        engine.timeout,
        lambda ns: engine.after(ns, log.note),
        lambda ns: log.timer.arm(engine.now + ns),
    ):
        with pytest.raises(SimBug):
            delay(6)
    engine.run(LAST)
    assert log.seen == [(LAST, "last")]
    with pytest.raises(SimBug):
        engine.after(1, log.note)
    assert (engine.now, engine.now - 1, type(engine.now)) == (LAST, LAST - 1, int)


class Spinner:
    def __init__(self, engine):
        self.engine = engine

    def spin(self):
        self.engine.after(0, self.spin)


def test_a_livelock_is_named():
    engine = Engine(limits=EngineLimits(same_time_events_max=1000))
    Spinner(engine).spin()
    with pytest.raises(SimBug, match="livelock: over 1000 events at 0 ns"):
        engine.run(5)


def test_the_event_limit_holds_over_several_runs():
    engine = Engine(limits=EngineLimits(events_max=10))
    log = Periodic(engine)
    log.timer.arm(0)
    engine.run(35)
    with pytest.raises(SimBug, match="over 10 events"):
        engine.run(1000)


@pytest.mark.parametrize("cut", range(0, 60, 5))
def test_a_pickled_engine_goes_on_as_if_it_had_not_been(cut):
    engine = Engine()
    log = Periodic(engine)
    log.timer.arm(3)
    engine.at(24, log.note, "once")
    engine.run(cut)
    copy = pickle.loads(pickle.dumps(log))
    engine.run(100)
    copy.engine.run(100)
    assert copy.seen == log.seen
    assert copy.engine.events_done == engine.events_done


def test_simpy_processes_work_but_refuse_a_checkpoint():
    engine = Engine()
    seen = []

    def process():
        yield engine.timeout(5)
        seen.append(engine.now)
        yield engine.timeout(5)

    engine.process(process())
    engine.run(6)
    assert seen == [5]
    with pytest.raises(CheckpointError, match="generator"):
        pickle.dumps(engine)
    engine.run(20)
    pickle.dumps(engine)


def test_an_error_inside_a_process_comes_out_of_run():
    engine = Engine()

    def process():
        yield engine.timeout(5)
        raise KeyError("lost")

    engine.process(process())
    with pytest.raises(KeyError, match="lost"):
        engine.run(10)
