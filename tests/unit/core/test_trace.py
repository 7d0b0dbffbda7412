"""Claims about the trace: what the digest covers, that it is one definition, columns, files."""

import pickle
import struct
from hashlib import sha256

import pytest

from sim.core.context import Sim
from sim.core.trace import CHUNK_RECORDS, record
from sim.core.tracefile import read_trace, write_trace
from sim.errors import FormatError, SimBug

NUMBERS = record("unit.numbers", first=int, second=int)
MIXED = record("unit.mixed", name=str, data=bytes, number=int)
THREE = record("unit.three", first=int, second=int, third=int)
FOUR = record("unit.four", first=int, second=int, third=int, fourth=int)
OTHER = record("elsewhere.thing", number=int)


def fill(sim, count=3):
    for index in range(count):
        sim.engine.run(index * 10)
        sim.trace.emit(NUMBERS, index, -index)
        sim.trace.emit(MIXED, "näme", b"\x00\xff", index)


def test_the_digest_is_the_documented_one():
    sim = Sim()
    fill(sim, 1)
    fill(sim, 1)
    body = b"unit.mixed\0" + struct.pack("<5q", 2, 1, 3, 0, 0)  # count, numbers, times
    body += struct.pack("<2q", 5, 5) + "nämenäme".encode() + struct.pack("<2q", 2, 2) + b"\x00\xff\x00\xff"
    body += struct.pack("<2q", 0, 0)
    body += b"unit.numbers\0" + struct.pack("<9q", 2, 0, 2, 0, 0, 0, 0, 0, 0)
    assert sim.trace.digest() == sha256(bytes(32) + body).hexdigest()


@pytest.mark.parametrize(
    "cut", [0, 1, CHUNK_RECORDS - 2, CHUNK_RECORDS - 1, CHUNK_RECORDS, 2 * CHUNK_RECORDS + 7]
)
def test_a_channel_takes_the_records_that_emit_takes_also_after_pickling(cut):
    plain, fast = Sim(), Sim()
    channels = fast.trace.channel(THREE), fast.trace.channel(FOUR)
    for index in range(3 * CHUNK_RECORDS):
        if index == cut:
            fast, channels = pickle.loads(pickle.dumps((fast, channels)))
        for sim in (plain, fast):
            sim.engine.run(index // 5)
        if index % 3 == 0:
            plain.trace.emit(THREE, index, -index, 7)
            channels[0].three(index, -index, 7)
        elif index % 3 == 1:
            plain.trace.emit(FOUR, index, 1, 2, -(2**63))
            channels[1].four(index, 1, 2, -(2**63))
        else:
            plain.trace.emit(MIXED, "n", b"d", index)
            fast.trace.emit(MIXED, "n", b"d", index)
    assert plain.trace.digest() == fast.trace.digest()
    assert plain.trace.select("unit.four") == fast.trace.select("unit.four")
    assert fast.trace.records == 3 * CHUNK_RECORDS


def test_a_type_that_is_not_taken_has_no_channel():
    assert Sim(categories=("elsewhere",)).trace.channel(THREE) is None


def test_a_channel_used_with_another_number_of_values_is_a_bug():
    sim = Sim()
    sim.trace.channel(THREE).four(1, 2, 3, 4)
    with pytest.raises(SimBug, match=r"unit\.three does not fit"):
        sim.trace.digest()


def test_every_value_time_and_order_is_in_the_digest():
    digests = set()
    for time_ns, values in ((0, (1, 2)), (0, (1, 3)), (0, (2, 1)), (5, (1, 2))):
        sim = Sim()
        sim.engine.run(time_ns)
        sim.trace.emit(NUMBERS, *values)
        digests.add(sim.trace.digest())
    assert len(digests) == 4


def test_asking_for_the_digest_changes_nothing():
    asked, silent = Sim(), Sim()
    for index in range(CHUNK_RECORDS + 10):
        asked.trace.emit(OTHER, index)
        silent.trace.emit(OTHER, index)
        if index % 1000 == 0:
            asked.trace.digest()
    assert asked.trace.digest() == silent.trace.digest()


@pytest.mark.parametrize("cut", [0, 1, CHUNK_RECORDS - 1, CHUNK_RECORDS, CHUNK_RECORDS + 1])
def test_a_pickled_trace_goes_on(cut):
    sim = Sim()
    for index in range(cut):
        sim.trace.emit(OTHER, index)
    copy = pickle.loads(pickle.dumps(sim))
    for one in (sim, copy):
        for index in range(CHUNK_RECORDS):
            one.trace.emit(OTHER, index)
    assert copy.trace.digest() == sim.trace.digest()
    assert copy.trace.records == cut + CHUNK_RECORDS


def test_categories_switch_records_off():
    sim = Sim(categories=["unit"])
    sim.trace.emit(OTHER, 1)
    sim.trace.emit(NUMBERS, 1, 2)
    assert sim.trace.records == 1
    assert not sim.trace.enabled(OTHER)
    assert sim.trace.select("elsewhere.thing") == []


def test_select_gives_rows_from_chunks_and_rest():
    sim = Sim()
    for index in range(CHUNK_RECORDS + 5):
        sim.trace.emit(OTHER, index)
    rows = sim.trace.select("elsewhere.thing")
    assert [row["number"] for row in rows] == list(range(CHUNK_RECORDS + 5))
    assert rows[0] == {"time_ns": 0, "number": 0}


@pytest.mark.parametrize("values", [(1,), (1, 2, 3), ("x", 1), (2**63, 0), (None, 1)])
def test_values_that_do_not_fit_are_our_bug(values):
    sim = Sim()
    sim.trace.emit(NUMBERS, *values)
    with pytest.raises(SimBug, match=r"unit\.numbers"):
        sim.trace.digest()


def test_mistakes_that_make_up_for_each_other_in_length_are_found():
    sim = Sim()
    sim.trace.emit(NUMBERS, 1)
    sim.trace.emit(NUMBERS, 1, 2, 3)
    with pytest.raises(SimBug, match="do not fit"):
        sim.trace.digest()


@pytest.mark.parametrize("values", [(1, b"", 1), ("x", "", 1), ("x", b"", None), ("x", 5, 1), ("x", b"")])
def test_values_of_another_kind_are_our_bug(values):
    sim = Sim()
    sim.trace.emit(MIXED, *values)
    with pytest.raises(SimBug, match=r"unit\.mixed"):
        sim.trace.digest()


def test_a_name_is_declared_once():
    assert record("unit.numbers", first=int, second=int) is NUMBERS
    with pytest.raises(SimBug, match="twice"):
        record("unit.numbers", first=int)
    with pytest.raises(SimBug, match="must be"):
        record("unit.floats", value=float)


def test_a_trace_file_gives_back_every_column(tmp_path):
    sim = Sim()
    fill(sim, 4)
    path = tmp_path / "trace.npz"
    write_trace(sim.trace, path)
    back = read_trace(path)
    assert [row["first"] for row in back.rows("unit.numbers")] == [0, 1, 2, 3]
    assert list(back.rows("unit.mixed"))[3] == {"time_ns": 30, "name": "näme", "data": "00ff", "number": 3}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"junk" * 100, b"PK\x03\x04broken"])
def test_a_broken_trace_file_gives_one_clear_error(tmp_path, content):
    path = tmp_path / "trace.npz"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="trace file"):
        read_trace(path)


def test_the_calendar_follows_simulated_time():
    sim = Sim()
    sim.engine.run(1_500_000_000)
    assert sim.utc_now().isoformat() == "2026-01-01T00:00:01.500000+00:00"
    sim.log("vmkernel", "hello", cpu=1, world=2)
    assert sim.trace.select("log.line") == [
        {"time_ns": 1_500_000_000, "source": "vmkernel", "text": "hello", "cpu": 1, "world": 2}
    ]
