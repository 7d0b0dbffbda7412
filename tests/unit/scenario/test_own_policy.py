"""A scenario file that names a policy beside it: only by leave, part of its id, and found again by a checkpoint."""

import subprocess
import sys

import pytest

from sim.errors import ScenarioError
from sim.report.keys import scenario_keys
from sim.scenario.load import load_scenario
from sim.scenario.run import Simulation

TOML = """
duration = "200ms"
trace = { categories = ["sched"] }
host = { cpu = { cores_per_node = 1 } }
image = { modules = 1, module_size = "2KiB" }
sched = { policy = "POLICY", quantum = "5ms" }
[[vms]]
name = "a"
count = 3
"""

SOURCE = """
from sim.kernel.sched.policies.round_robin import RoundRobin

class Turn:
    count = 0

class Mine(RoundRobin):
    name = "mine"

    def attach(self, host):
        super().attach(host)
        self.turn = Turn()

    def quantum_ns(self, world):
        self.turn.count += 1
        return NUMBER
"""


def write(folder, policy="./mine.py:Mine", number=3_000_000):
    (folder / "mine.py").write_text(SOURCE.replace("NUMBER", str(number)))
    path = folder / "scenario.toml"
    path.write_text(TOML.replace("POLICY", policy))
    return path


def test_a_file_runs_no_code_without_leave(tmp_path):
    path = write(tmp_path)
    (tmp_path / "mine.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(ScenarioError, match="a scenario file runs no code") as caught:
        load_scenario(path)
    assert "--allow-code" in str(caught.value)


def test_with_leave_the_policy_beside_the_file_schedules(tmp_path):
    scenario = load_scenario(write(tmp_path), allow_code=True)
    simulation = Simulation(scenario)
    simulation.run()
    policy = simulation.host.kernel.scheduler.policy
    assert policy.name == "mine"
    assert policy.turn.count > 50
    rows = list(simulation.sim.trace.sink().rows("sched.dispatch"))
    assert {row["turn_ns"] for row in rows} == {3_000_000}


def test_loading_alone_runs_nothing(tmp_path):
    path = write(tmp_path)
    (tmp_path / "mine.py").write_text("raise ValueError('it ran')")
    scenario = load_scenario(path, allow_code=True)
    with pytest.raises(ScenarioError, match=r"mine.py cannot be loaded: ValueError: it ran"):
        Simulation(scenario)


def test_the_source_and_not_its_place_is_part_of_the_id(tmp_path):
    (tmp_path / "other").mkdir()
    here, there = write(tmp_path), write(tmp_path / "other")
    ids = {load_scenario(path, allow_code=True).id for path in (here, there)}
    assert len(ids) == 1
    write(tmp_path, number=4_000_000)
    assert load_scenario(here, allow_code=True).id not in ids


@pytest.mark.parametrize(
    "policy",
    ["../mine.py:Mine", "./sub/mine.py:Mine", "./mine.txt:Mine", "./mine.py", "./mine.py:", ".:Mine"],
)
def test_only_a_file_beside_the_scenario_can_be_named(tmp_path, policy):
    with pytest.raises(ScenarioError, match=r"sched\.policy"):
        load_scenario(write(tmp_path, policy), allow_code=True)


def test_a_missing_or_huge_file_is_refused(tmp_path):
    path = write(tmp_path)
    (tmp_path / "mine.py").write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(ScenarioError, match="larger than"):
        load_scenario(path, allow_code=True)
    (tmp_path / "mine.py").unlink()
    with pytest.raises(ScenarioError, match="No such file"):
        load_scenario(path, allow_code=True)


def test_the_source_itself_is_no_key(tmp_path):
    path = tmp_path / "scenario.toml"
    path.write_text("policy_file = { name = 'a.py', data = 'b' }")
    for allow_code in (False, True):
        with pytest.raises(ScenarioError, match="unknown key"):
            load_scenario(path, allow_code=allow_code)
    assert not [key for key, _, _ in scenario_keys() if "policy_file" in key]


def test_a_checkpoint_goes_on_in_a_process_that_never_saw_the_file(tmp_path):
    simulation = Simulation(load_scenario(write(tmp_path), allow_code=True))
    simulation.run()
    half = Simulation(load_scenario(write(tmp_path), allow_code=True))
    half.run(half.end_ns // 2)
    while half.first_ready_ns is None:
        half.run(half.sim.now + 1_000_000_000)
    half.run(half.first_ready_ns + 100_000_000)
    half.save(tmp_path / "half")
    (tmp_path / "mine.py").unlink()
    code = (
        "import sys; from sim.scenario.run import Simulation\n"
        "found = Simulation.restore(sys.argv[1]); found.run(); print(found.sim.trace.digest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "half")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == simulation.sim.trace.digest()


def test_a_management_call_cannot_name_a_policy(tmp_path):
    simulation = Simulation(load_scenario(write(tmp_path, "esxi")))
    simulation.run()
    host = simulation.host
    from sim.kernel.api import ApiError

    for key, value in (
        ("policy", "./mine.py:Mine"),
        ("sched", {"policy": "os:abort"}),
        ("policy_file", "mine.py"),
    ):
        with pytest.raises(ApiError):
            host.call("vm.power_on", {"spec": {"name": "b", key: value}})
        with pytest.raises(ApiError):
            host.call("pool.create", {"spec": {"name": "p", key: value}})
