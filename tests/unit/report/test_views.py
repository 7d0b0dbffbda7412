"""The views of a run's CPU schedule: timeline, Perfetto's JSON, Gantt chart, esxtop's CSV, all from trace files."""

import csv
import io
import json
import tracemalloc
import zipfile
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise

import pytest

from sim.core.context import Sim
from sim.core.tracefile import read_trace, write_trace
from sim.core.tracestream import CHUNK_ROWS, stream_rows
from sim.core.units import GIB, MIB, MS, SECOND
from sim.errors import FormatError, ScenarioError
from sim.hw.board import Board
from sim.hw.spec import CpuSpec, HostSpec
from sim.kernel.counters import COUNTERS
from sim.kernel.sampling import CpuSampler, summations_ms
from sim.kernel.sched.fluid_engine import make_scheduler
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.pcpu import SCHED_DISPATCH
from sim.kernel.sched.pools import PoolSpec
from sim.kernel.vm import CpuAllocation, VmManager, VmSpec
from sim.kernel.workload import WorkloadSpec
from sim.kernel.world import WorldState
from sim.report import gantt
from sim.report.esxtop import write_esxtop
from sim.report.perfetto import write_perfetto
from sim.report.timeline import Migration, Piece, ReadyCount, events_of

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
ONOFF = WorkloadSpec(kind="onoff", random=True, run_ns=7 * MS, wait_ns=5 * MS)


def host(*, threads=1, engine="quantum", every_ns=20 * SECOND):
    """A small host with pools and VMs, more demand than CPU, and its sampler."""
    sim = Sim(seed=4)
    cpu = CpuSpec(cores_per_node=2, threads_per_core=threads, core_hz=10**9)
    board = Board(sim, HostSpec(cpu=cpu, memory_bytes=GIB, tpm_present=False))
    board.power_on()
    options = SchedOptions(quantum_ns=10 * MS, engine=engine)
    vms = VmManager(sim, board, make_scheduler(sim, board.topology, options))
    sampler = CpuSampler(vms, every_ns)
    sampler.start()
    vms.pools.create(PoolSpec(name="top"))
    vms.pools.create(PoolSpec(name="inside", parent="top"))
    for name, vcpus, pool, workload, limit_hz in (
        ("busy", 2, "", WorkloadSpec(), None),
        ("limited", 1, "top", WorkloadSpec(), 3 * 10**8),
        ("random", 2, "inside", ONOFF, None),
    ):
        allocation = CpuAllocation(limit_hz=limit_hz)
        vms.power_on(
            VmSpec(
                name=name, vcpus=vcpus, memory_bytes=16 * MIB, pool=pool, cpu=allocation, workload=workload
            )
        )
    return vms, sampler


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 3 s with three samples: its host and its trace file."""
    vms, sampler = host(threads=2, every_ns=SECOND)
    vms.sim.engine.run(3 * SECOND)
    path = tmp_path_factory.mktemp("run") / "trace.npz"
    write_trace(vms.sim.trace, path)
    return vms, sampler, path


def test_streamed_records_are_those_of_the_whole_file_in_order(run):
    _, _, path = run
    fields = {"sched.dispatch": ("pcpu", "world"), "vm.world": ("vm", "name"), "no.such": ("x",)}
    rows = list(stream_rows(path, fields))
    assert [row[0] for row in rows] == sorted({row[0] for row in rows})
    whole = read_trace(path)
    for kind in ("sched.dispatch", "vm.world"):
        wanted = [(row["time_ns"], *(row[name] for name in fields[kind])) for row in whole.rows(kind)]
        assert [(time_ns, *values) for _, name, time_ns, values in rows if name == kind] == wanted
        assert wanted


def test_a_broken_trace_file_is_one_clear_error(run, tmp_path):
    _, _, path = run
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("sched.dispatch/world.npy").header_offset + 100
    scratched = data[:place] + bytes(60) + data[place + 60 :]
    for broken in (b"", b"PK\x03\x04", data[: len(data) // 2], scratched):
        file = tmp_path / "trace.npz"
        file.write_bytes(broken)
        with pytest.raises(FormatError):
            list(events_of(file))


@pytest.mark.parametrize("engine", ["quantum", "fluid"])
def test_pieces_of_the_timeline_add_up_to_the_books(tmp_path, engine):
    """An audit from the trace alone: the time in each state is what the host accounted for, to the nanosecond."""
    vms, _ = host(engine=engine)
    vms.sim.engine.run(700 * MS)
    vms.suspend("random")
    vms.sim.engine.run(900 * MS)
    write_trace(vms.sim.trace, tmp_path / "t.npz")
    events = list(events_of(tmp_path / "t.npz", end_ns=vms.sim.now))
    for world in vms.scheduler.worlds.values():
        pieces = [one for one in events if isinstance(one, Piece) and one.track.name == world.name]
        assert all(one.end_ns == two.begin_ns for one, two in pairwise(pieces))
        times = world.times(vms.sim.now)
        for state, span_ns in (
            (WorldState.RUN, times.run_ns),
            (WorldState.READY, times.ready_ns),
            (WorldState.MAX_LIMITED, times.max_limited_ns),
            (WorldState.COSTOP, times.costop_ns),
            (WorldState.WAIT_IDLE, times.idle_ns),
            (WorldState.WAIT_VM, times.vm_wait_ns),
        ):
            found = sum(one.end_ns - one.begin_ns for one in pieces if one.state is state)
            if engine == "quantum" or state is WorldState.WAIT_VM:
                assert found == span_ns
        if engine == "quantum":
            moves = sum(isinstance(one, Migration) and one.track.name == world.name for one in events)
            assert moves <= world.migrations


def test_ready_counts_follow_the_states(run):
    _, _, path = run
    counts = [one for one in events_of(path) if isinstance(one, ReadyCount)]
    assert all(one.time_ns < two.time_ns and one.count != two.count for one, two in pairwise(counts))
    assert min(one.count for one in counts) == 0
    assert 1 <= max(one.count for one in counts) <= 5


def perfetto(path, **window):
    out = io.StringIO()
    write_perfetto(events_of(path, end_ns=3 * SECOND), out, **window)
    return json.loads(out.getvalue(), parse_float=Fraction)


def test_perfetto_trace_keeps_to_the_trace_event_format(run):
    """Phases and their required keys; slices of a track do not overlap; flow ends lie in slices of their tracks."""
    vms, _, path = run
    trace = perfetto(path)
    assert trace["displayTimeUnit"] == "ns"
    events = trace["traceEvents"]
    slices, flows, names = {}, {}, {}
    for event in events:
        assert {"ph", "name", "pid", "tid"} <= event.keys()
        track = event["pid"], event["tid"]
        if event["ph"] == "X":
            assert event["dur"] > 0
            slices.setdefault(track, []).append((event["ts"], event["ts"] + event["dur"], event["name"]))
        elif event["ph"] in "sf":
            flows.setdefault(event["id"], []).append((event["ph"], track, event["ts"]))
        elif event["ph"] == "M":
            names[event["name"], track] = event["args"]["name"]
        else:
            assert event["ph"] == "C"
            assert event["args"]["ready"] >= 0
    for track, pieces in slices.items():
        pieces.sort()
        assert all(one[1] <= two[0] for one, two in pairwise(pieces))
        assert ("thread_name", track) in names
        assert ("process_name", (track[0], 0)) in names
    assert flows
    for ends in flows.values():
        assert [phase for phase, _, _ in ends] == ["s", "f"]
        for _, track, moment in ends:
            assert any(begin <= moment < end for begin, end, _ in slices[track])
    pcpus = [track for track in slices if track[0] == 1]
    assert len(pcpus) == len(vms.scheduler.pcpus)
    busy = sum(end - begin for track in pcpus for begin, end, _ in slices[track])
    assert 1000 * busy == sum(world.times(3 * SECOND).run_ns for world in vms.scheduler.worlds.values())
    assert {names["process_name", (track[0], 0)] for track in slices} == {
        "pCPUs",
        "busy",
        "limited",
        "random",
    }


def test_a_window_cuts_the_perfetto_trace(run):
    _, _, path = run
    events = perfetto(path, begin_ns=SECOND, end_ns=SECOND + 50 * MS)["traceEvents"]
    moments = [event["ts"] for event in events if event["ph"] != "M"]
    assert min(moments) == 1_000_000
    assert max(event["ts"] + event.get("dur", 0) for event in events if event["ph"] != "M") == 1_050_000


def test_views_need_memory_for_worlds_and_not_for_the_run(tmp_path):
    """A trace of many records streams through a few megabytes."""
    sim = Sim()
    count = 8 * CHUNK_ROWS
    for number in range(count):
        sim.engine._now = number * 1000
        sim.trace.emit(SCHED_DISPATCH, number % 4, number % 8, 0, 1000)
    write_trace(sim.trace, tmp_path / "t.npz")
    del sim

    class Sink:
        def write(self, text):
            return len(text)

    tracemalloc.start()
    write_perfetto(events_of(tmp_path / "t.npz"), Sink())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * MIB < count * 5 * 32


def esxtop(path):
    out = io.StringIO()
    assert write_esxtop(path, "esx01", EPOCH, out) == 3
    return out.getvalue()


def test_esxtop_csv_has_the_form_of_batch_mode(run):
    """Quoted cells, the PDH heading, dates, and a column for each counter of each group, world and pCPU."""
    _, _, path = run
    text = esxtop(path)
    assert text.startswith('"(PDH-CSV 4.0) (UTC)(0)","\\\\esx01\\Physical Cpu(0)\\% Processor Time","')
    assert text.count('"') == 2 * 4 * len(next(csv.reader(io.StringIO(text))))
    head, *lines = csv.reader(io.StringIO(text))
    assert [line[0] for line in lines] == [f"01/01/2026 00:00:0{second}" for second in (1, 2, 3)]
    assert len(set(head)) == len(head)
    groups = {name.split("\\")[3] for name in head[1:]}
    assert "Group Cpu(1000002:inside)" in groups
    assert len(groups) == 5 + 2 + 3 + 8
    for group in groups - {name for name in groups if name.startswith("Physical")}:
        found = [name.split("\\")[4] for name in head[1:] if name.split("\\")[3] == group]
        assert [each for each in found if each != "Members"] == [each.batch_name for each in COUNTERS]


def test_esxtop_csv_reads_in_pandas_with_its_identities(run):
    """100 % a world; groups are sums of their worlds, pools of their VMs; both conventions of the pCPUs."""
    pandas = pytest.importorskip("pandas")
    _, _, path = run
    frame = pandas.read_csv(io.StringIO(esxtop(path)), index_col=0)
    assert all(kind.kind in "fi" for kind in frame.dtypes)
    column = {name.partition("\\\\esx01\\")[2]: frame[name] for name in frame}
    for label in {name.rpartition("\\")[0] for name in column if name.startswith("Vcpu")}:
        total = sum(column[f"{label}\\{name}"] for name in ("% Run", "% Ready", "% CoStop", "% Wait"))
        assert (total - 100).abs().max() <= 0.03
    groups = {
        name.split(":")[1].split(")")[0]: name.rpartition("\\")[0] for name in column if "Group" in name
    }
    for counter in COUNTERS:
        name = counter.batch_name
        inside = column[f"{groups['limited']}\\{name}"] + column[f"{groups['random']}\\{name}"]
        assert (inside - column[f"{groups['top']}\\{name}"]).abs().max() <= 0.03
    used, util, core = (
        [column[f"Physical Cpu({index})\\% {name} Time"] for index in range(4)]
        for name in ("Processor", "Util", "Core Util")
    )
    assert all((one <= two).all() for one, two in zip(used, util, strict=True))
    assert all((one <= two + 0.01).all() for one, two in zip(util, core, strict=True))
    ran = sum(column[f"{groups[name]}\\% Used"] for name in ("busy", "limited", "random"))
    assert (
        ran >= sum(used) - 0.1
    ).all()  # a thread beside a busy one is worth 62.5 % here, and half a core there
    assert (ran <= 1.25 * sum(used) + 0.1).all()


def test_a_run_without_samples_is_said_so(tmp_path):
    vms, _ = host()
    vms.sim.engine.run(SECOND)
    write_trace(vms.sim.trace, tmp_path / "t.npz")
    with pytest.raises(ScenarioError, match="took no samples"):
        write_esxtop(tmp_path / "t.npz", "esx01", EPOCH, io.StringIO())


def test_a_sample_of_20_s_adds_up_to_20000_ms_for_every_vcpu():
    """The published identity of vCenter's real-time samples, exact."""
    vms, sampler = host()
    vms.sim.engine.run(41 * SECOND)
    assert len(sampler.samples) == 2
    for sample in sampler.samples:
        for row in sample.usage.worlds:
            found = summations_ms(row)
            assert (
                sum(found[f"cpu.{name}.summation"] for name in ("run", "ready", "costop", "wait")) == 20_000
            )
        assert [row.name for row in sample.pools] == ["top", "inside"]
        assert [row.nworld for row in sample.pools] == [5, 3]


def test_sampling_is_idle_without_vms_and_bounded_with_them(monkeypatch):
    monkeypatch.setattr("sim.kernel.sampling.ROWS_KEPT_MAX", 100)
    vms, sampler = host(every_ns=100 * MS)
    vms.sim.engine.run(5 * SECOND)
    kept = [sample.usage.end_ns for sample in sampler.samples]
    assert kept[-1] == 5 * SECOND
    assert 1 < len(kept) < 10
    vms.power_off_all()
    vms.sim.engine.run()
    assert vms.sim.now <= 5 * SECOND + 100 * MS


def test_chart_columns_are_filled_in_proportion(run):
    """The darkness of a lane is the part of the time that the pCPU was busy."""
    vms, _, path = run
    chart = gantt.collect_chart(events_of(path, end_ns=3 * SECOND), 0, 3 * SECOND)
    assert len(chart.pcpus) == 4
    assert len(chart.worlds) == 5
    for index, pcpu in enumerate(vms.scheduler.pcpus):
        drawn = sum(width for _, _, width in chart.pcpus[f"pCPU {index}"])
        busy = Fraction(pcpu.times(3 * SECOND).busy_ns, 3 * SECOND)
        assert abs(Fraction(drawn, gantt.COLUMNS) - busy) < Fraction(1, 100)


def test_chart_is_drawn_the_same_each_time(run, tmp_path):
    pytest.importorskip("matplotlib")
    _, _, path = run
    chart = gantt.collect_chart(events_of(path, end_ns=3 * SECOND), SECOND, 2 * SECOND)
    for name in ("a.svg", "b.svg", "a.png"):
        gantt.draw_gantt(chart, tmp_path / name, title="a run")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ScenarioError, match="unknown format"):
        gantt.draw_gantt(chart, tmp_path / "a.txt")


@pytest.fixture(params=["quantum", "fluid"])
def half_idle(request, tmp_path):
    """A run of one busy vCPU on two pCPUs: its engine and its trace file."""
    sim = Sim(seed=4)
    board = Board(sim, HostSpec(cpu=CpuSpec(cores_per_node=2), memory_bytes=GIB, tpm_present=False))
    board.power_on()
    vms = VmManager(sim, board, make_scheduler(sim, board.topology, SchedOptions(engine=request.param)))
    vms.power_on(VmSpec(name="a", memory_bytes=16 * MIB))
    sim.engine.run(SECOND)
    write_trace(sim.trace, tmp_path / "trace.npz")
    return request.param, tmp_path / "trace.npz"


def test_an_idle_pcpu_has_its_track_and_a_fluid_run_says_that_it_has_none(half_idle):
    engine, path = half_idle
    chart = gantt.collect_chart(events_of(path, end_ns=SECOND), 0, SECOND, 2)
    out = io.StringIO()
    write_perfetto(events_of(path, end_ns=SECOND), out, pcpus=2)
    named = {
        (one["pid"], one["name"], one["args"]["name"])
        for one in json.loads(out.getvalue())["traceEvents"]
        if one["ph"] == "M"
    }
    lanes = {name: len(bars) for name, bars in chart.pcpus.items()}
    if engine == "quantum":
        assert (lanes, chart.fluid) == ({"pCPU 0": 1, "pCPU 1": 0}, False)
        assert named >= {
            (1, "process_name", "pCPUs"),
            (1, "thread_name", "pCPU 0"),
            (1, "thread_name", "pCPU 1"),
        }
    else:
        assert (lanes, chart.fluid) == ({}, True)
        assert (1, "process_name", "pCPUs (the fluid engine puts no world on one)") in named
