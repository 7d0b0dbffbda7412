"""`vmksim compare` from the shell: tables, JSON, CSV, a policy of one's own, and its refusals."""

import csv
import json
import subprocess
import sys

import pytest

from sim.cli.command import main

TOML = """
duration = "300ms"
host = { cpu = { cores_per_node = 2 } }
image = { modules = 1, module_size = "2KiB" }
sched = { quantum = "5ms" }
[[vms]]
name = "a"
vcpus = 2
[[vms]]
name = "b"
cpu = { shares = "high" }
"""

SOURCE = """
from sim.kernel.sched.policies.round_robin import RoundRobin

class Mine(RoundRobin):
    name = "mine"
"""


def vmksim(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "sim", *arguments], capture_output=True, text=True, cwd=folder, check=False
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "scenario.toml").write_text(TOML)
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path


def test_policies_stand_side_by_side_for_each_vm(folder):
    done = vmksim(
        folder, "compare", "scenario.toml", "--policies", "esxi,gang,./mine.py:Mine", "--out", "a.csv"
    )
    assert (done.returncode, done.stderr) == (0, "")
    vm_a, vm_b, host = (part.splitlines() for part in done.stdout.split("\n\n")[:3])
    for lines in (vm_a, vm_b, host):
        assert [line.split()[0] for line in lines[3:6]] == ["esxi", "gang", "./mine.py:Mine"]
    with (folder / "a.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 9
    assert sorted(path.name for path in folder.iterdir()) == ["a.csv", "mine.py", "scenario.toml"]


def test_json_is_the_same_twice_and_follows_the_seed(folder):
    command = ("compare", "scenario.toml", "--policies", "lottery", "--json")
    first, again = (vmksim(folder, *command, "--seed", "7") for _ in range(2))
    assert first.stdout == again.stdout
    assert json.loads(first.stdout)[0]["policy"] == "lottery"
    assert vmksim(folder, *command, "--seed", "8").stdout != first.stdout


@pytest.mark.parametrize(
    ("policies", "words"),
    [
        ("best", "unknown policy, got 'best'"),
        ("", "unknown policy"),
        ("./none.py:Mine", "No such file"),
        ("./mine.py:", "FILE.py:Class"),
        ("./mine.py:Other", "cannot be found"),
        ("no_such_module:Mine", "cannot be found"),
        ("esxi,esxi", "each once"),
    ],
)
def test_a_wrong_policy_is_one_line(folder, policies, words, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        main(["compare", "scenario.toml", "--policies", policies])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert len(printed.err.splitlines()) == 1
    assert words in printed.err


def test_an_error_inside_an_own_policy_is_called_that(folder, monkeypatch, capsys):
    (folder / "mine.py").write_text(SOURCE + "    def quantum_ns(self, world):\n        return 1 // 0\n")
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit):
        main(["compare", "scenario.toml", "--policies", "./mine.py:Mine"])
    printed = capsys.readouterr().err
    assert printed.startswith("vmksim: an error in your policy: ZeroDivisionError")
    assert "in mine.py:7 quantum_ns" in printed


def test_a_scenario_that_names_code_needs_leave(folder):
    text = TOML.replace("sched = {", 'sched = { policy = "./mine.py:Mine",')
    (folder / "scenario.toml").write_text(text)
    for command in (("run",), ("compare", "--policies", "esxi")):
        refused = vmksim(folder, command[0], "scenario.toml", *command[1:])
        assert refused.returncode == 2
        assert "--allow-code" in refused.stderr
        done = vmksim(folder, command[0], "scenario.toml", "--allow-code", *command[1:])
        assert (done.returncode, done.stderr) == (0, "")
