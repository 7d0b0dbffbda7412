"""Same version, scenario and seed: the same digest in any process, hash seed, folder and Python version."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import Scenario, simulate
from sim.scenario.load import parse_scenario
from sim.scenario.run import Simulation

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

MIXED = """
name = "mixed"
seed = 11
duration = "14s"
[host]
memory = "4GiB"
cpu = { packages = 2, cores_per_node = 2 }
firmware = { txt_enabled = true }
[options]
enableTboot = true
[image]
modules = 3
module_size = "2KiB"
[[vms]]
name = "bursty"
count = 3
memory = "64MiB"
workload = { kind = "onoff", run = "3ms", wait = "5ms", random = true }
[[vms]]
name = "busy"
vcpus = 4
memory = "64MiB"
cpu = { shares = 500, reservation = "1GHz" }
[[vms]]
name = "capped"
memory = "64MiB"
cpu = { limit = "600MHz" }
workload = { kind = "trace", demand = [10, 100, 0, 60], period = "500ms" }
[[faults]]
kind = "flip_bit"
target = "vib/vmkusb"
unpacked = true
at = "1s"
[[faults]]
kind = "reboot"
at = "2s"
[vcenter]
[expect]
"""

PRINT_DIGEST = (
    "import sys; from sim import Scenario, simulate; print(simulate(Scenario.load(sys.argv[1])).digest)"
)
SAVE = (
    "import sys; from sim import Scenario, Simulation; s = Simulation(Scenario.load(sys.argv[1]));"
    " s.run(int(sys.argv[2])); s.save(sys.argv[3])"
)
RESTORE = "import sys; from sim import Simulation; print(Simulation.restore(sys.argv[1]).finish().digest)"

BOOTING_NS, LAUNCHED_NS, RUNNING_NS, BOOTING_AGAIN_NS = (
    9_000_000_000,
    9_400_000_000,
    11_000_000_000,
    13_000_000_000,
)
"""Moments of the scenario above: in the firmware, in the boot loader, while it runs, and in its second boot."""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A scenario file with everything in it that draws, waits, launches, strikes and boots twice."""
    path = tmp_path_factory.mktemp("mixed") / "mixed.toml"
    path.write_text(MIXED)
    return path


@pytest.fixture(scope="module")
def digest(mixed):
    """Its digest in this process."""
    result = simulate(Scenario.load(mixed))
    assert result.boot.boots == 2
    return result.digest


def _python(code, *arguments, python=sys.executable, cwd=None, **environment):
    """Run `code` in a fresh interpreter that finds the package wherever it is installed."""
    done = subprocess.run(
        [python, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def other_python():
    """Another Python that has the package installed."""
    path = os.environ.get("VMKSIM_OTHER_PYTHON")
    if not path:
        pytest.skip("VMKSIM_OTHER_PYTHON names no second interpreter with the package installed")
    return path


@pytest.mark.parametrize("hash_seed", ["0", "random"])
def test_another_process_with_another_hash_seed_gives_the_same_digest(mixed, digest, hash_seed):
    assert _python(PRINT_DIGEST, mixed, PYTHONHASHSEED=hash_seed) == digest


def test_another_folder_and_another_place_of_the_file_give_the_same_digest(mixed, digest, tmp_path):
    copy = tmp_path / "elsewhere.toml"
    copy.write_bytes(mixed.read_bytes())
    assert _python(PRINT_DIGEST, copy.name, cwd=tmp_path, TZ="Asia/Kathmandu", LC_ALL="C") == digest


def test_another_python_gives_the_same_digest(mixed, digest, other_python):
    assert _python(PRINT_DIGEST, mixed, python=other_python) == digest


def test_the_demo_has_one_digest_in_two_processes():
    demo = EXAMPLES / "demo.toml"
    assert _python(PRINT_DIGEST, demo, PYTHONHASHSEED="random") == simulate(Scenario.load(demo)).digest


@pytest.mark.parametrize("cut_ns", [0, BOOTING_NS, LAUNCHED_NS, RUNNING_NS, BOOTING_AGAIN_NS])
def test_a_checkpoint_goes_on_in_another_process_to_the_same_digest(mixed, digest, tmp_path, cut_ns):
    simulation = Simulation(Scenario.load(mixed))
    simulation.run(cut_ns)
    simulation.save(tmp_path / "c")
    assert _python(RESTORE, tmp_path / "c", PYTHONHASHSEED="random") == digest


@pytest.mark.parametrize("cut_ns", [BOOTING_NS, RUNNING_NS])
def test_a_checkpoint_goes_on_in_another_python_and_back(mixed, digest, tmp_path, other_python, cut_ns):
    here, there = tmp_path / "here", tmp_path / "there"
    simulation = Simulation(Scenario.load(mixed))
    simulation.run(cut_ns)
    simulation.save(here)
    assert _python(RESTORE, here, python=other_python) == digest
    _python(SAVE, mixed, cut_ns, there, python=other_python)
    assert Simulation.restore(there).finish().digest == digest


def test_checkpoints_of_checkpoints_change_nothing(mixed, digest, tmp_path):
    simulation = Simulation(Scenario.load(mixed))
    while not simulation.finished:
        simulation.run(simulation.sim.now + 2_345_678_901)
        simulation.save(tmp_path / "c")
        simulation = Simulation.restore(tmp_path / "c")
    assert simulation.finish().digest == digest


@settings(max_examples=12)
@given(seed=st.integers(0, 2**63 - 1), cut_ns=st.integers(0, 12 * 10**9))
def test_any_seed_and_any_cut_give_one_digest(seed, cut_ns):
    scenario = parse_scenario(MIXED.replace('duration = "14s"', 'duration = "3s"'))
    whole = simulate(scenario, seed=seed)
    simulation = Simulation(scenario, seed=seed)
    simulation.run(cut_ns)
    assert pickle.loads(pickle.dumps(simulation)).finish() == whole
