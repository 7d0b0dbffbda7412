"""Attacks on the simulator itself, one test each; `threats.py` says how a row is made."""

import os
import random
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from sim.core.context import Sim
from sim.core.engine import TIME_NS_MAX, Engine
from sim.errors import ScenarioError, SimBug
from sim.scenario.entry import simulate
from sim.scenario.load import load_scenario, parse_scenario
from sim.scenario.run import Simulation
from sim.sweep.executor import run_sweep
from sim.sweep.points import Point, seed_points
from tests.unit.sweep.test_executor import SABOTEUR, scenario

from .measure import cases
from .threats import threat

ROOT = Path(__file__).resolve().parents[2]

MIXED = """
name = "mixed"
seed = 11
duration = "4s"
[host]
memory = "1GiB"
cpu = { cores_per_node = 2 }
[image]
modules = 2
module_size = "1KiB"
[[vms]]
name = "bursty"
count = 2
memory = "64MiB"
workload = { kind = "onoff", run = "30ms", wait = "50ms", random = true }
[[vms]]
name = "busy"
vcpus = 2
memory = "64MiB"
[[vms]]
name = "paged"
memory = "256MiB"
mem = { workload = { used = "64MiB", working_set = "16MiB" } }
[[faults]]
kind = "reboot"
at = "2s"
[vcenter]
"""
"""A scenario with chance, memory, a reboot and an attestation in it, short enough to be run again and again."""

DIGEST = "import sys; from sim import Scenario, simulate; print(simulate(Scenario.load(sys.argv[1])).digest)"
LYING_CLOCK = """
import datetime, itertools, time
wrong = itertools.count(4_000_000_000, -86_400)
for name in ("time", "monotonic", "perf_counter", "process_time"):
    setattr(time, name, lambda: float(next(wrong)))
    setattr(time, name + "_ns", lambda: next(wrong) * 10**9)
class Backwards(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(1970 + next(wrong) % 60, 1, 1, tzinfo=tz)
    utcnow = today = now
datetime.datetime = Backwards
"""


def python(code, *arguments, options=(), cwd=None, **environment):
    """Run `code` in a fresh interpreter, and return what it printed."""
    done = subprocess.run(
        [sys.executable, *options, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    path = tmp_path_factory.mktemp("mixed") / "mixed.toml"
    path.write_text(MIXED)
    return path


@pytest.fixture(scope="module")
def digest(mixed):
    return simulate(load_scenario(mixed)).digest


@threat(
    "E1",
    threat="the same scenario and seed give another trace in another process, folder, locale or number of workers",
    stopped_by="integer time, named streams, sorted iteration; the tidy tests forbid clocks, hash, id and set order",
    evidence="one digest in this process twice, under hash seeds 0, 1 and random, other folders, TZ, LANG, with -O, and in"
    " sweeps of 1 and 8 workers",
    not_covered="Python 3.12 and 3.13 in the everyday run (VMKSIM_OTHER_PYTHON names one for `tests/system`); other"
    " processors and systems",
    anchor="FoundationDB, TigerBeetle",
)
def test_e1_one_scenario_has_one_digest_wherever_it_runs(mixed, digest, tmp_path):
    assert simulate(load_scenario(mixed)).digest == digest
    copy = tmp_path / "elsewhere.toml"
    copy.write_bytes(mixed.read_bytes())
    assert python(DIGEST, mixed, PYTHONHASHSEED="0", TZ="Asia/Kathmandu", LANG="C") == digest
    assert (
        python(DIGEST, copy.name, cwd=tmp_path, PYTHONHASHSEED="1", LC_ALL="tr_TR.UTF-8", options=["-O"])
        == digest
    )
    assert python(DIGEST, mixed, PYTHONHASHSEED="random", TZ="Pacific/Chatham", PYTHONUTF8="0") == digest
    points = seed_points(load_scenario(mixed), (11, 12))
    alone, together = run_sweep(points[:1], workers=1), run_sweep(points, workers=8)
    assert alone == together[:1]
    assert alone[0].result.digest == digest


RESTORE = """
import sys
from sim import Simulation
for path in sys.argv[1:]:
    print(Simulation.restore(path).finish().digest)
"""


def stop_after(simulation, events):
    """Run until so many events in all have been done, wherever that is: in a boot, between events of one instant."""
    engine = simulation.sim.engine
    engine.limits.events_max = events - 1
    with pytest.raises(SimBug, match=f"over {events - 1} events"):
        simulation.run()
    engine.limits.events_max = 10**12
    assert engine.events_done == events


@threat(
    "E2",
    threat="a simulation that was stopped, saved and restored goes on otherwise than one that was not",
    stopped_by="all state is picklable data; a generator in the queue is refused (`sim.core.engine`, `sim.scenario.checkpoint`)",
    evidence="restored in a new process, the digest of the uninterrupted run, from 8 random events on (1,000 with"
    " VMKSIM_CATALOGUE=whole), in boots and between events of one instant too",
    not_covered="checkpoints of another version, which are refused",
    anchor="gem5, Simics",
)
def test_e2_stopped_at_any_event_and_restored_nothing_changes(mixed, digest, tmp_path):
    whole = Simulation(load_scenario(mixed))
    whole.run()
    last = whole.sim.engine.events_done
    chance = random.Random(5)
    wanted = cases(8, 1_000)
    cuts = sorted({1, last - 1, *(chance.randrange(1, last) for _ in range(wanted - 2))})
    simulation = Simulation(load_scenario(mixed))
    paths = []
    for cut in cuts:
        stop_after(simulation, cut)
        paths.append(tmp_path / f"{cut}")
        simulation.save(paths[-1])
    assert simulation.finish().digest == digest
    for begin in range(0, len(paths), 100):
        batch = paths[begin : begin + 100]
        assert python(RESTORE, *batch, PYTHONHASHSEED="random").split() == [digest] * len(batch)


MANY = 250_000
HOSTILE = {
    "YAML tag": ("!!python/object/apply:os.system ['touch owned']", r"not TOML: .*line 1, column 1"),
    "YAML": ("vms:\n  - name: a\n", r"not TOML: .*line 1, column 4"),
    "10^9 VMs": (
        "[[vms]]\nname = 'a'\ncount = 1000000000\n",
        r": vms\[0\]\.count: wrong value, got 1000000000",
    ),
    "10^9 modules": ("[image]\nmodules = 1000000000\n", r": image\.modules: wrong value"),
    "10^9 vCPUs": ("[[vms]]\nname = 'a'\nvcpus = 1000000000\n", r": vms\[0\]\.vcpus: wrong value"),
    "thousands of tables": ("[[vms]]\nname = 'a'\nvcpus = 3\n" * 3_000, r": vms: wrong value, got 3000"),
    "thousands of pools": ("[[pools]]\nname = 'a'\n" * 3_000, r": pools: wrong value"),
    "years": ("duration = '1000000000000d'\n", r": duration: wrong value"),
    "1,000 years": ("duration = '365250d'\n", r": duration: wrong value"),
    "includes itself": ("include = 'hostile.toml'\n", r": include: unknown key"),
    "unknown key": ("[host]\nmemroy = '1GiB'\n", r": host\.memroy: unknown key; did you mean 'memory'"),
    "thousands of keys": ("\n".join(f"k{number} = 1" for number in range(20_000)), r": k\d+: unknown key"),
    "a long text": (f"name = '{'a' * MANY}'", r": name: a text has more than 10000 characters"),
    "a long key": (f"{'a' * MANY} = 1", r"wrong key"),
    "a deep key": ("a." * (MANY // 2) + "a = 1", r"dotted key"),
    "deep headers": ("".join(f"[{'.'.join('a' * depth)}]\n" for depth in range(1, 400)), r"dotted key"),
    "deep arrays": ("x = " + "[" * MANY, r"nested deeper"),
    "a long number": ("seed = " + "9" * MANY, r"64 bits"),
    "a long float": ("seed = 1." + "9" * MANY, r"seed"),
    "code as workload": (
        "[[vms]]\nname = 'a'\nworkload = { kind = 'generator', function = 'os:abort' }\n",
        r": vms\[0\]\.workload\.kind: a scenario file runs no code",
    ),
    "code as policy": ("[sched]\npolicy = 'os:abort'\n", r": sched\.policy: a scenario file runs no code"),
    "a device as file": (
        "[image]\nvibs = ['/dev/zero']\n",
        r": image\.vibs\[0\]: /dev/zero is not a regular file",
    ),
}


def refused(load, what):
    """Load, demand one clear error, and count what it took: calls of Python functions, and bytes of memory."""
    calls = 0

    def count(_frame, event, _argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    tracemalloc.start()
    sys.setprofile(count)
    try:
        with pytest.raises(ScenarioError, match=what) as caught:
            load()
    finally:
        sys.setprofile(None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(str(caught.value)) < 500
    return calls, peak


@threat(
    "E3",
    threat="a hostile scenario file: code, numbers without measure, endless text, includes of itself",
    stopped_by="TOML, which names no code; limits of size, depth and number before anything is made (`sim.scenario.load`)",
    evidence="one line with file and line, or file and key path; no code runs; at most 3 million calls and 64 MiB, and a file"
    " beyond 256 KiB is refused unread",
    not_covered="policies and workloads that are Python, for whoever says --allow-code or writes a script",
    anchor="CVE-2017-18342, PyYAML",
)
@pytest.mark.parametrize("name", HOSTILE)
def test_e3_a_hostile_file_is_refused_by_name_and_cheaply(tmp_path, monkeypatch, name):
    text, what = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    Path("hostile.toml").write_text(text)
    calls, peak = refused(lambda: load_scenario("hostile.toml"), f"^hostile\\.toml.*{what}")
    assert calls < 3_000_000
    assert peak < 64 << 20
    assert [path.name for path in tmp_path.iterdir()] == ["hostile.toml"]


def test_e3_a_file_without_end_is_not_even_read(tmp_path, monkeypatch):
    huge, pipe, folder = tmp_path / "huge.toml", tmp_path / "pipe.toml", tmp_path / "folder.toml"
    with huge.open("wb") as stream:
        stream.write(b"name = '")
        stream.truncate(1 << 30)
    os.mkfifo(pipe)
    folder.mkdir()
    (tmp_path / "loop.toml").symlink_to(tmp_path / "loop.toml")
    reads = []
    monkeypatch.setattr(Path, "open", lambda path, *_: reads.append(path))
    for path, what in (
        (huge, "larger than the limit of 256 KiB"),
        (pipe, "not a regular file"),
        (folder, "is a folder"),
        (tmp_path / "loop.toml", "cannot read"),
        (Path("/dev/zero"), "not a regular file"),
    ):
        calls, peak = refused(lambda path=path: load_scenario(path), what)
        assert calls < 1_000
        assert peak < 1 << 20
    assert reads == []


@threat(
    "E4",
    threat="the process of one point of a sweep exits, crashes, is killed or runs out of memory",
    stopped_by="a process for each point, with a bound on its memory (`sim.sweep.executor`)",
    evidence="the point is failed, with its seed and the reason; all others are done; a second sweep gives the same",
    not_covered="a point that never ends: the limits on events of one run are the only bound on its time",
    anchor="MapReduce's lost workers",
)
def test_e4_a_worker_that_dies_takes_no_other_point_with_it(tmp_path, monkeypatch):
    (tmp_path / "saboteur.py").write_text(SABOTEUR)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    deaths = {"exits": "status 7", "killed": "SIGKILL", "devours": "(?i)memory"}
    points = [Point(key=name, scenario=scenario(name), seed=100 + len(name)) for name in deaths]
    points = [*points[:2], Point(key="sound", scenario=scenario(), seed=3), points[2]]
    first = run_sweep(points, workers=2, memory_bytes_max=1 << 30)
    assert [outcome.key for outcome in first] == [point.key for point in points]
    for point, outcome in zip(points, first, strict=True):
        assert outcome.seed == point.seed
        if point.key in deaths:
            assert outcome.state == "failed"
            assert re.search(deaths[point.key], outcome.error)
        else:
            assert outcome.state == "done"
            assert outcome.result == simulate(point.scenario, point.seed)
    assert run_sweep(points[1:3], workers=1, memory_bytes_max=1 << 30) == first[1:3]


@threat(
    "E5",
    threat="the clock, the time zone or the file times of the real machine decide something",
    stopped_by="time comes from the engine alone; the tidy tests forbid the clocks of the machine in `sim`",
    evidence="the same digest while every clock of Python runs backwards from another century, in other zones, and with a file"
    " that was changed in 1985",
    not_covered="the TPM served to real clients, whose network limits are in real time",
    anchor="builds that cannot be reproduced",
)
def test_e5_the_machine_s_clock_and_zone_change_nothing(mixed, digest, tmp_path):
    copy = tmp_path / "old.toml"
    copy.write_bytes(mixed.read_bytes())
    os.utime(copy, (500_000_000, 500_000_000))
    for zone in ("Pacific/Kiritimati", "America/St_Johns"):
        assert python(LYING_CLOCK + DIGEST, copy, TZ=zone) == digest


class Beats:
    """Beats every 7 ns and a bit, and notes when."""

    def __init__(self, engine, begin_ns):
        self.engine, self.begin_ns, self.seen = engine, begin_ns, []
        self.timer = engine.timer(self.beat)
        self.timer.arm(begin_ns + 1)

    def beat(self):
        self.seen.append(self.engine.now - self.begin_ns)
        self.timer.arm(self.engine.now + 7)
        self.engine.after(3, self.note)

    def note(self):
        self.seen.append(self.begin_ns - self.engine.now)


@threat(
    "E6",
    threat="after centuries of simulated time clocks drift, wrap around or lose a nanosecond",
    stopped_by="integers throughout; every door to the queue refuses what is beyond 2**63 - 1 ns, and floats (`sim.core.engine`)",
    evidence="events at 2**62 + 1 ns keep the distances of those at 0; SimBug for the first nanosecond too many, by whatever"
    " door; a scenario of 1,000 years is refused at its key",
    not_covered="runs longer than 292 years, which there are none",
    anchor="SimPy's float time",
)
def test_e6_time_neither_drifts_nor_wraps():
    recorded = []
    for begin_ns in (0, 2**53 + 1, 2**62 + 1, TIME_NS_MAX - 10_000):
        engine = Engine(start_ns=begin_ns)
        beats = Beats(engine, begin_ns)
        engine.run(begin_ns + 9_000)
        recorded.append(beats.seen)
        assert type(engine.now) is int
    assert len(recorded[0]) > 2_000
    assert all(seen == recorded[0] for seen in recorded)
    with pytest.raises(SimBug, match=r"no integer from \d+ to 9223372036854775807"):
        engine.run(TIME_NS_MAX)  # the beat after the last nanosecond
    assert engine.now <= TIME_NS_MAX
    late = Engine(start_ns=TIME_NS_MAX)
    for door in (
        late.timer(print).arm,
        late.run,
        lambda when: late.at(when, print),
        lambda when: late.timeout(1),
    ):
        with pytest.raises(SimBug):
            door(2**63)
    with pytest.raises(SimBug):
        late.after(1, print)
    assert late.idle
    sim = Sim()
    sim.engine.run(TIME_NS_MAX)
    assert sim.utc_now().year == 2318
    with pytest.raises(ScenarioError, match="duration"):
        parse_scenario("duration = '365250d'")


PROPERTY = """
from hypothesis import given
from hypothesis import strategies as st

@given(st.lists(st.integers(0, 10**9), min_size=3))
def test_sums_are_small(numbers):
    assert sum(numbers) < 12_345_678
"""

SPITEFUL_POLICY = """
from sim.kernel.sched.policies.esxi import EsxiPolicy

class Spiteful(EsxiPolicy):
    def charge(self, world, ran_ns):
        if self.host.sim.now > 14_000_000_000:
            raise ValueError("enough")
        super().charge(world, ran_ns)
"""


def shell(line, cwd, **environment):
    """Run a line as a person would type it; return exit status and everything printed."""
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    return done.returncode, done.stdout + done.stderr


@threat(
    "E7",
    threat="something fails once, under a seed that nobody knows any more",
    stopped_by="a plugin of the tests (`tests/replay.py`), and the report of a bug that ends a command (`sim.cli.command`)",
    evidence="a failing property prints version, seed and a command, which shows the same falsifying example; a command that"
    " dies prints version, seed, simulated time and itself, and dies there again",
    not_covered="failures that depend on the machine, such as memory that ran out",
    anchor="Hypothesis print_blob, VOPR",
)
@pytest.mark.parametrize("where", [{}, {"CI": "true"}], ids=["here", "ci"])
@pytest.mark.parametrize("profile", ["repeatable", "fresh"])
def test_e7_a_failing_property_prints_the_command_that_repeats_it(tmp_path, monkeypatch, profile, where):
    monkeypatch.delenv("CI", raising=False)
    for name, value in where.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "test_planted.py").write_text(PROPERTY)
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    line = f"{sys.executable} -m pytest -q -p no:cacheprovider test_planted.py"
    status, printed = shell(line, tmp_path, VMKSIM_HYPOTHESIS_PROFILE=profile)
    assert status == 1
    assert re.search(r"^version \d+\.\d+\.\d+.*, Python 3\.\d+\.\d+, seed: ", printed, re.MULTILINE)
    (replay,) = re.findall(r"^replay \(in .*?\): (.*)$", printed, re.MULTILINE)
    example = re.search(r"numbers=\[[^]]*\]", printed)[0]
    shell("rm -rf .hypothesis", tmp_path)  # the example is to be found anew, not in a database
    status, again = shell(replay, tmp_path)
    assert status == 1
    assert example in again
    assert ("--hypothesis-seed=" in replay) == (profile == "fresh")
    assert re.findall(r"^replay \(in .*?\): (.*)$", again, re.MULTILINE) == [replay]


def test_e7_a_command_that_dies_prints_itself_and_dies_there_again(tmp_path):
    (tmp_path / "spiteful.py").write_text(SPITEFUL_POLICY)
    (tmp_path / "s.toml").write_text(
        "duration = '9s'\n[sched]\npolicy = './spiteful.py:Spiteful'\n[[vms]]\nname = 'a'\ncount = 40\nmemory = '64MiB'\n"
    )
    vmksim = f'vmksim() {{ {sys.executable} -m sim "$@"; }}; '
    status, printed = shell(f"{vmksim} vmksim run s.toml --seed 77 --allow-code", tmp_path)
    assert status == 3
    (replay,) = re.findall(r"^  replay: (vmksim .*)$", printed, re.MULTILINE)
    assert re.search(r"^  seed 77, simulated time 1[4-9]\d{9} ns, last records:$", printed, re.MULTILINE)
    assert re.search(r"^  version \d+\.\d+\.\d+", printed, re.MULTILINE)
    assert shell(vmksim + replay, tmp_path) == (3, printed)
