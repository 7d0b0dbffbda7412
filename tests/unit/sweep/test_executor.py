"""Sweeps: every point has an outcome, in order, whatever happens to the processes and however many there are."""

import pytest
from attrs import evolve

from sim.errors import ScenarioError
from sim.hw.spec import CpuSpec, HostSpec
from sim.kernel.workload import WorkloadSpec
from sim.scenario.entry import simulate
from sim.scenario.spec import ExpectSpec, ImageSpec, Scenario, VmEntry
from sim.sweep.executor import run_sweep
from sim.sweep.points import Point, outcome_row, parse_seeds, seed_points

SABOTEUR = """
import os, signal
from sim.kernel.workload import Run

def exits():
    yield Run(1000)
    os._exit(7)

def segfaults():
    yield Run(1000)
    os.kill(os.getpid(), signal.SIGSEGV)

def killed():
    yield Run(1000)
    os.kill(os.getpid(), signal.SIGKILL)

def devours():
    yield Run(1000)
    hoard = []
    while True:
        hoard.append(bytes(1 << 24))

def raises():
    yield Run(1000)
    raise KeyError("lost")
"""


@pytest.fixture
def saboteur(tmp_path, monkeypatch):
    """A module, importable by workers, whose workloads end their process in every way."""
    (tmp_path / "saboteur.py").write_text(SABOTEUR)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def scenario(function="", **fields):
    workload = WorkloadSpec(kind="generator", function=f"saboteur:{function}") if function else WorkloadSpec()
    return Scenario(
        duration_ns=10**9,
        host=HostSpec(memory_bytes=512 << 20, cpu=CpuSpec(cores_per_node=2)),
        image=ImageSpec(modules=2, module_size_bytes=1024),
        vms=(VmEntry(name="a", memory_bytes=64 << 20, workload=workload),),
        **fields,
    )


def test_outcomes_come_in_the_order_of_the_points_and_are_those_of_this_process():
    points = seed_points(scenario(), (5, 1, 3))
    told = []
    outcomes = run_sweep(points, workers=3, on_outcome=told.append)
    assert [(one.key, one.seed, one.state, one.met) for one in outcomes] == [
        ("seed 5", 5, "done", True),
        ("seed 1", 1, "done", True),
        ("seed 3", 3, "done", True),
    ]
    assert sorted(one.seed for one in told) == [1, 3, 5]
    assert outcomes[2].result == simulate(points[2].scenario, 3)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("exits", "the process ended with status 7"),
        ("killed", "the process was killed by SIGKILL"),
        ("segfaults", "the process was killed by SIGSEGV"),
        ("raises", "ScenarioError: workload: the generator raises failed: KeyError('lost')"),
    ],
)
def test_a_point_that_dies_is_marked_with_the_reason(saboteur, function, why):
    (outcome,) = run_sweep([Point(key="bad", scenario=scenario(function), seed=4)])
    assert (outcome.key, outcome.seed, outcome.state, outcome.result) == ("bad", 4, "failed", None)
    assert outcome.error.startswith(why)
    assert not outcome.met
    assert outcome_row(outcome)["why"] == outcome.error


def test_memory_is_bounded_for_each_point(saboteur):
    points = [Point(key=name, scenario=scenario(name), seed=0) for name in ("devours", "")]
    devoured, sound = run_sweep(points, workers=2, memory_bytes_max=1 << 30)
    assert devoured.state == "failed"
    assert "MemoryError" in devoured.error or devoured.error == "out of memory"
    assert sound.met


def test_no_points_give_no_outcomes():
    assert run_sweep([]) == []


@pytest.mark.parametrize(
    "options", [{"workers": 0}, {"workers": 257}, {"memory_bytes_max": 1}, {"memory_bytes_max": -1}]
)
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ScenarioError, match="wanted"):
        run_sweep([], **options)


def test_a_run_that_ends_otherwise_than_expected_says_in_what():
    expected = evolve(scenario(), expect=ExpectSpec(boot="refused"))
    (outcome,) = run_sweep(seed_points(expected, (0,)))
    assert (outcome.state, outcome.met) == ("done", False)
    assert "boot: expected refused" in outcome_row(outcome)["why"]


def test_seeds_are_numbers_and_ranges():
    assert parse_seeds("1-3, 20,7") == (1, 2, 3, 20, 7)
    assert parse_seeds("0") == (0,)
    assert len(parse_seeds("0-99999")) == 100_000


@pytest.mark.parametrize(
    "text", ["", "1-", "-1", "x", "3-1", "1,1", "1-3,2", "0-100000", "9223372036854775808", "1.5"]
)
def test_wrong_seeds_are_named(text):
    with pytest.raises(ScenarioError, match="--seeds"):
        parse_seeds(text)
