"""Claims about units, facts, metrics and errors."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.core.facts import fact
from sim.core.metrics import Metrics
from sim.core.rng import Rng
from sim.core.units import GIB, SECOND, format_bytes, format_ns, parse_bytes, parse_hz, parse_ns
from sim.errors import FormatError, LimitError, ScenarioError, SimBug, VerificationError


def test_units_are_read():
    assert parse_bytes("4GiB") == 4 * GIB
    assert parse_bytes(" 1.5 KiB ") == 1536
    assert parse_ns("30us") == 30_000
    assert parse_ns("2min") == 120 * SECOND
    assert parse_hz("2.4GHz") == 2_400_000_000


@pytest.mark.parametrize(
    "text", ["", "4", "GiB", "-4GiB", "4 gib", "1e3GiB", "4GiB4", "0.1B", "9" * 40 + "B", "٤GiB"]
)
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(ValueError, match=r"a (whole )?number"):
        parse_bytes(text)


def test_quantities_are_written_for_people():
    assert [format_bytes(n) for n in (0, 1023, 1024, 1536, 64 * GIB)] == [
        "0 B",
        "1023 B",
        "1 KiB",
        "1.5 KiB",
        "64 GiB",
    ]
    assert [format_ns(n) for n in (0, 999, 1500, 2_000_000, 90 * SECOND)] == [
        "0 ns",
        "999 ns",
        "1.5 us",
        "2 ms",
        "90 s",
    ]


@given(st.integers(0, 2**50))
def test_whole_bytes_survive_reading(count):
    assert parse_bytes(f"{count}B") == count


def test_a_fact_keeps_its_source_and_is_declared_once():
    made = fact("test.answer", 42, unit="1", source="a book", kind="assumed")
    assert fact("test.answer", 42, unit="1", source="a book", kind="assumed") == made
    with pytest.raises(SimBug, match="twice"):
        fact("test.answer", 43, unit="1", source="a book", kind="assumed")
    with pytest.raises(ValueError, match="kind"):
        fact("test.other", 1, unit="1", source="a book", kind="guessed")


def test_metrics_count_weigh_and_pickle():
    metrics = Metrics()
    metrics.counter("c", "1", "a count").add(3)
    gauge = metrics.gauge("g", "frames", "a level")
    gauge.set(5)
    gauge.set(-2)
    mean = metrics.mean("m", "worlds", "a mean")
    mean.set(4, 10)
    mean.set(0, 30)
    metrics.histogram("h", "ns", "a spread").observe(1000)
    report = pickle.loads(pickle.dumps(metrics)).report()
    assert list(report) == ["c", "g", "h", "m"]
    assert report["c"] == {"kind": "counter", "unit": "1", "description": "a count", "count": 3}
    assert (report["g"]["level"], report["g"]["lowest"], report["g"]["highest"]) == (-2, -2, 5)
    assert (report["m"]["level_ns"], report["m"]["span_ns"]) == (80, 30)
    assert report["h"]["below_1024"] == 1


def test_metrics_refuse_what_cannot_be():
    metrics = Metrics()
    with pytest.raises(SimBug, match="down"):
        metrics.counter("c", "1", "a count").add(-1)
    with pytest.raises(SimBug, match="already"):
        metrics.gauge("c", "1", "a level")
    mean = metrics.mean("m", "1", "a mean")
    mean.set(1, 10)
    with pytest.raises(SimBug, match="back in time"):
        mean.set(1, 9)


@pytest.mark.parametrize(
    "error",
    [
        ScenarioError("a.b", "unknown key", got=3, wanted="x", nearest="y"),
        FormatError("VIB", "member 2", "wrong"),
        LimitError("VIB", "", "too big"),
        VerificationError("digest", "differs"),
        SimBug("oops"),
    ],
)
def test_errors_are_one_line_and_pickle(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert "\n" not in str(error)


def test_streams_that_were_drawn_from_go_on_after_a_pickle_where_they_were():
    rng = Rng(3)
    for stream in (rng.stream("a"), rng.fast("a")):
        stream.bytes(13)
    copy = pickle.loads(pickle.dumps(rng))
    assert copy.fast("a").u64() == rng.fast("a").u64()
    assert copy.stream("a").bytes(600) == rng.stream("a").bytes(600)
    assert copy.fast("b").u64() == rng.fast("b").u64()
