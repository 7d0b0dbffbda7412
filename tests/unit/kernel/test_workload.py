"""Workloads: sequences of bursts and sleeps, which pickle in the middle."""

import pickle
from contextlib import suppress

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.core.rng import FastStream, Rng
from sim.core.structure import structure
from sim.core.units import MS
from sim.errors import ScenarioError, VmksimError
from sim.kernel.workload import (
    FOREVER_NS,
    Busy,
    Generator,
    Idle,
    OnOff,
    Run,
    Trace,
    Wait,
    WorkloadSpec,
    parse_demand_csv,
)


def count_up(first, count):
    """A generator function of a user."""
    for number in range(first, first + count):
        yield Run(number)


def draws(stream, most):
    """A generator function that draws."""
    while True:
        yield Wait(stream.below(most))


def fails_late():
    """A generator function with a mistake."""
    yield Run(1)
    raise KeyError("oops")


def gives_numbers():
    """A generator function that misunderstood."""
    yield 5


def take(workload, count, now_ns=0):
    return [workload.next(now_ns) for _ in range(count)]


def test_busy_and_idle_never_change():
    assert take(Busy(), 2) == [Run(FOREVER_NS)] * 2
    assert take(Idle(), 2) == [Wait(FOREVER_NS)] * 2


def test_onoff_alternates_and_begins_with_a_burst():
    assert take(OnOff(5, 7), 4) == [Run(5), Wait(7), Run(5), Wait(7)]


def test_random_onoff_has_the_means_it_was_given():
    steps = take(OnOff(1000, 3000, Rng(1).fast("x")), 4000)
    runs = [step.ns for step in steps[::2]]
    waits = [step.ns for step in steps[1::2]]
    assert all(isinstance(step, Run) for step in steps[::2])
    assert 920 < sum(runs) / len(runs) < 1080
    assert 2760 < sum(waits) / len(waits) < 3240


def test_trace_spreads_the_demand_of_each_period_over_slices():
    trace = Trace((2500, 0), 20 * MS, slice_ns=10 * MS)
    assert trace.next(100) == Run(2_500_000)
    assert trace.next(100 + 2_500_000) == Wait(7_500_000)
    assert trace.next(100 + 10 * MS) == Run(2_500_000)
    assert trace.next(100 + 40 * MS) == Run(2_500_000), (
        "the idle period is passed over, and the trace repeats"
    )


def test_trace_that_was_starved_catches_up():
    trace = Trace((10_000,), 10 * MS, slice_ns=10 * MS, repeat=False)
    assert trace.next(0) == Run(10 * MS)
    assert trace.next(35 * MS) == Wait(FOREVER_NS)
    late = Trace((5000, 5000), 10 * MS)
    assert [late.next(0), late.next(99 * MS), late.next(99 * MS)] == [Run(5 * MS)] * 3


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=5), st.integers(1, 30), st.integers(1, 30))
def test_trace_asks_for_its_demand_exactly(demand, period, part):
    period_ns = period * 1001
    trace = Trace(tuple(demand), period_ns, slice_ns=max(1, period_ns // part), repeat=False)
    now_ns = total_ns = 0
    while (step := trace.next(now_ns)) != Wait(FOREVER_NS):
        now_ns += step.ns
        total_ns += step.ns if isinstance(step, Run) else 0
    assert total_ns == sum(each * period_ns // 10_000 for each in demand)


@pytest.mark.parametrize("demand", [(), (-1,), (10_001,)])
def test_trace_refuses_impossible_demand(demand):
    with pytest.raises(ValueError, match="want demands"):
        Trace(demand, MS)


def test_generator_ends_in_sleep():
    workload = Generator(count_up, (3, 2))
    assert take(workload, 4) == [Run(3), Run(4), Wait(FOREVER_NS), Wait(FOREVER_NS)]


def test_generator_goes_on_after_pickling_where_it_was():
    whole, cut = Generator(draws, (1000,), FastStream(5)), Generator(draws, (1000,), FastStream(5))
    before = take(cut, 10)
    copy = pickle.loads(pickle.dumps(cut))
    assert before + take(copy, 10) == take(whole, 20)
    assert len({step.ns for step in before}) > 5


def test_mistakes_of_a_generator_are_the_users():
    workload = Generator(fails_late)
    assert workload.next(0) == Run(1)
    with pytest.raises(ScenarioError, match=r"fails_late failed: KeyError\('oops'\)"):
        workload.next(0)
    with pytest.raises(ScenarioError, match="gives_numbers gave a wrong step, got 5, wanted Run or Wait"):
        Generator(gives_numbers).next(0)


def test_csv_of_demand_takes_the_last_column_in_percent():
    assert parse_demand_csv("time,percent\n0,12.5\n1,100\n\n2,0.01\n") == (1250, 10_000, 1)
    assert parse_demand_csv("7\n8") == (700, 800)


@pytest.mark.parametrize(
    ("text", "line"),
    [("1\nx\n", 2), ("1\n101", 2), ("-1", 1), ("0.001", 1), ("nan", 1), ("1\n\n1e400", 3), ("a,inf", 1)],
)
def test_csv_names_the_bad_line(text, line):
    with pytest.raises(ScenarioError, match=f"^demand, line {line}: wrong demand"):
        parse_demand_csv(text)


def test_csv_without_a_number_is_refused():
    with pytest.raises(ScenarioError, match="no demand"):
        parse_demand_csv("percent\n")


@given(st.text(max_size=60))
def test_csv_reader_fails_only_with_its_own_error(text):
    with suppress(ScenarioError):
        assert all(0 <= sample <= 10_000 for sample in parse_demand_csv(text))


@pytest.mark.parametrize(
    ("table", "made"),
    [
        ({}, Busy),
        ({"kind": "idle"}, Idle),
        ({"kind": "onoff", "run": "5ms", "wait": "1ms"}, OnOff),
        ({"kind": "onoff", "random": True}, OnOff),
        ({"kind": "trace", "demand": [10, 50], "period": "20s"}, Trace),
        ({"kind": "generator", "function": "sim.core.units:format_ns"}, Generator),
    ],
)
def test_spec_makes_what_it_says(table, made):
    assert type(structure(table, WorkloadSpec, "vms[0].workload").build(FastStream(1))) is made


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        (
            {"kind": "onof"},
            r"workload.kind: wrong value, got 'onof', wanted one of busy, idle, onoff, periodic, barrier, spinlock, io, trace, generator",
        ),
        ({"kind": "trace"}, r"workload.demand: wrong value, got \(\), wanted either demand or file"),
        ({"kind": "trace", "demand": [101]}, r"workload.demand: wrong value, got \(101,\)"),
        ({"kind": "trace", "demand": [1], "file": "x.csv"}, "either demand or file"),
        ({"kind": "onoff", "run": "0ns"}, r"workload.run: wrong value, got 0"),
        ({"kind": "generator"}, r"workload.function: wrong value, got '', wanted module:name"),
        ({"walk": 3}, r"workload.walk: unknown key"),
    ],
)
def test_spec_names_the_wrong_key(table, wanted):
    with pytest.raises(ScenarioError, match=wanted):
        structure(table, WorkloadSpec, "workload")


def test_spec_with_a_file_wants_its_text():
    spec = WorkloadSpec(kind="trace", file="load.csv")
    with pytest.raises(ScenarioError, match="the demand was not read"):
        spec.build(FastStream(1))
    filled = spec.with_demand("1\n2")
    assert filled.build(FastStream(1)).demand == (100, 200)
    assert attrs.asdict(filled)["file"] == ""
    with pytest.raises(ScenarioError, match=r"load\.csv, line 2"):
        spec.with_demand("1\nz")


@pytest.mark.parametrize(
    "function", ["no.such.module:x", "sim.core.units:nothing", "sim.core.units:MS", ":x"]
)
def test_spec_of_a_missing_function_says_so(function):
    with pytest.raises(VmksimError, match=r"workload\.function"):
        WorkloadSpec(kind="generator", function=function).build(FastStream(1))
