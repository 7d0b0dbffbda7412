"""`vmksim report` with views, and `vmksim run --engine fluid`, as a user calls them."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SCENARIO = """
name = "day"
duration = "{duration}"
[host.cpu]
cores_per_node = 4
[trace]
categories = ["scenario", "vm", "sample", "sched"]
sample_every = "{every}"
[[pools]]
name = "gold"
shares = "high"
[[vms]]
name = "web"
count = 6
pool = "gold"
workload = {{ kind = "trace", demand = [5, 40, 100, 80, 10], period = "300s" }}
[[vms]]
name = "job"
count = 2
vcpus = 2
workload = {{ kind = "onoff", run = "20s", wait = "60s", random = true }}
"""


def vmksim(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "sim", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A simulated day of the fluid engine."""
    folder = tmp_path_factory.mktemp("views")
    (folder / "day.toml").write_text(SCENARIO.format(duration="86400s", every="1h"))
    done = vmksim("run", "day.toml", "--engine", "fluid", "--out", "out", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_a_day_of_the_fluid_engine_has_its_samples_and_its_books(folder):
    done = vmksim("report", "out", "--esxtop", "cpu.csv", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cpu.csv: 24 samples\n", "")
    with (folder / "cpu.csv").open(newline="") as file:
        head, *lines = csv.reader(file)
    assert len(lines) == 24
    used = [place for place, name in enumerate(head) if name.endswith("Physical Cpu(_Total)\\% Util Time")]
    assert all(20 < float(line[used[0]]) <= 100 for line in lines)
    result = json.loads((folder / "out" / "result.json").read_text())
    for vm in result["vms"]:
        assert vm["run_ns"] + vm["ready_ns"] + vm["max_limited_ns"] + vm["costop_ns"] + vm["wait_ns"] == (
            vm["worlds"] * vm["alive_ns"]
        )


def test_views_of_a_window(folder):
    done = vmksim(
        "report", "out", "--perfetto", "cpu.json", "--from", "1000s", "--until", "2000s", cwd=folder
    )
    assert (done.returncode, done.stderr) == (0, "")
    events = json.loads((folder / "cpu.json").read_text())["traceEvents"]
    assert f"cpu.json: {len(events)} trace events\n" == done.stdout
    assert len(events) > 50


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "5s"), "vmksim: --from: says nothing"),
        (
            ("--perfetto", "x.json", "--from", "2s", "--until", "1s"),
            "vmksim: --from: nothing is left to show",
        ),
        (("--perfetto", "x.json", "--from", "soon"), "vmksim: --from: wrong value"),
        (("--esxtop", "no/where.csv"), "vmksim: --esxtop: cannot write"),
    ],
)
def test_a_view_that_cannot_be_made_is_one_line_and_no_file(folder, arguments, said):
    done = vmksim("report", "out", *arguments, cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
    assert not list(folder.glob("x.json*"))


def test_affinity_is_refused_by_the_fluid_engine(tmp_path):
    text = SCENARIO.format(duration="10s", every="5s") + "[vms.cpu]\naffinity = [1]\n"
    (tmp_path / "a.toml").write_text(text)
    done = vmksim("run", "a.toml", "--engine", "fluid", cwd=tmp_path)
    assert done.returncode == 1
    assert "which the fluid engine does not know" in done.stdout
