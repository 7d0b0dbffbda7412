"""The command as a person types it, in process: what it prints and with which status it ends."""

import json
import os
import subprocess
import sys

import pytest

from sim.core.tracefile import read_trace
from sim.errors import SimBug
from sim.scenario.result import read_result

SMALL = """
name = "small"
duration = "2s"
[host]
memory = "2GiB"
cpu = { cores_per_node = 2 }
[image]
modules = 2
module_size = "2KiB"
[[vms]]
name = "a"
memory = "64MiB"
[[vms]]
name = "b"
vcpus = 2
memory = "64MiB"
[vcenter]
[expect]
attestation = "accepted"
"""


@pytest.fixture
def scenario(tmp_path):
    """A function that writes a scenario file and returns its path."""

    def write(text=SMALL, name="s.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_run_prints_every_part_of_the_report(vmksim, scenario):
    status, out, _ = vmksim("run", scenario())
    assert status == 0
    for part in ("Log of esx01", "Boot", "PCRs", "Modules", "CPU", "Attestation", "Expectation"):
        assert f"\n{part}\n" in "\n" + out
    assert "Z cpu0:0)" in out
    assert "ACCEPTANCE LEVEL" in out
    assert "%RDY" in out
    assert "\naccepted\n" in out
    assert "\x1b" not in out


def test_a_run_that_does_not_end_as_expected_has_status_1_and_says_why(vmksim, scenario):
    status, out, _ = vmksim("run", scenario(SMALL.replace('"accepted"', '"notAccepted"')))
    assert status == 1
    assert "attestation: expected notAccepted, was accepted" in out


def test_out_holds_result_trace_and_event_log_from_which_the_report_can_be_printed_again(
    vmksim, scenario, tmp_path
):
    folder = tmp_path / "deep" / "out"
    _, printed, _ = vmksim("run", scenario(), "--out", folder)
    evidence = ["ak.pub", "eventlog.bin", "pcrs.bin", "quote.bin", "quote.sig"]
    assert sorted(path.name for path in folder.iterdir()) == [*evidence, "result.json", "trace.npz"]
    status, judged, _ = vmksim("attest", *(folder / name for name in evidence), "--secure-boot")
    assert (status, judged.splitlines()[2]) == (0, "accepted")
    assert vmksim("report", folder) == (0, printed, "")
    result = read_result(folder)
    assert sum(1 for _ in read_trace(folder / "trace.npz").rows("log.line")) > 20
    _, replayed, _ = vmksim("eventlog", "replay", "--json", folder / "eventlog.bin")
    for pcr, value in json.loads(replayed)["sha256"].items():
        assert result.pcrs["sha256"][pcr] == value


def test_json_is_the_result_file(vmksim, scenario, tmp_path):
    status, out, _ = vmksim("run", scenario(), "--json", "--out", tmp_path / "out")
    assert status == 0
    assert out == (tmp_path / "out" / "result.json").read_text()
    data = json.loads(out)
    for key in (
        "schema",
        "scenario_id",
        "seed",
        "version",
        "digest",
        "pcrs",
        "event_log_file",
        "modules",
        "attestation",
        "metrics",
    ):
        assert key in data
    assert set(data["pcrs"]) == {"sha1", "sha256", "sha384", "sha512"}


def test_the_seed_can_be_given(vmksim, scenario):
    digests = [
        json.loads(vmksim("run", scenario(), "--json", *seed)[1])["digest"]
        for seed in ((), ("--seed", 0), ("--seed", 5))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_boot_stops_after_the_boot(vmksim, scenario):
    status, out, _ = vmksim("boot", scenario(), "--json")
    data = json.loads(out)
    assert status == 0
    assert data["boot"]["state"] == "ok"
    assert data["vms"] == []
    assert data["attestation"]["status"] == "N/A"


def test_a_saved_run_goes_on_to_the_same_result(vmksim, scenario, tmp_path):
    whole = vmksim("run", scenario(), "--json")[1]
    status, out, _ = vmksim("run", scenario(), "--save", tmp_path / "c", "--save-at", "9.2s")
    assert status == 0
    assert "saved at 9200000000 ns" in out
    assert vmksim("resume", tmp_path / "c", "--json")[1] == whole


WRONG_CALLS = {
    "no such file": ("run", "none.toml"),
    "a folder": ("run", "/"),
    "no such command": ("fly",),
    "no scenario": ("run",),
    "no such option": ("run", "{good}", "--sed", "1"),
    "a negative seed": ("run", "{good}", "--seed", "-1"),
    "a seed beyond the largest": ("run", "{good}", "--seed", "9223372036854775808"),
    "a checkpoint where none can be": ("run", "{good}", "--save", "/proc/none/c"),
    "no such checkpoint": ("resume", "none"),
    "no checkpoint": ("resume", "{good}"),
    "a checkpoint that is no file": ("resume", "/dev/zero"),
    "a moment that is none": ("run", "{good}", "--save", "c", "--save-at", "noon"),
    "a folder that cannot be": ("run", "{good}", "--out", "/proc/none/out"),
    "a wrong kind of fact": ("facts", "--kind", "guessed"),
    "no signer": ("image", "sign", "{good}", "--out", "x", "--level", "PartnerSupported"),
    "nobody to trust": ("image", "verify", "{good}"),
    "a module that is no ELF file": (
        *("image", "build", "{good}", "--module", "--name", "a", "--version", "1-1", "--vendor", "V"),
        *("--out", "x"),
    ),
    "a VIB in the place of a folder": (
        *("image", "build", "{folder}", "--name", "a", "--version", "1-1", "--vendor", "V"),
        *("--out", "{folder}"),
    ),
    "no VIB": ("image", "inspect", "{good}"),
    "no boot bank": ("image", "inspect", "{folder}"),
    "no event log": ("eventlog", "replay", "{good}"),
    "no report": ("tpmreport", "replay", "{good}"),
    "no result": ("report", "{folder}"),
}


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_a_wrong_call_has_status_2_and_one_clear_line(vmksim, scenario, tmp_path, case):
    (tmp_path / "folder").mkdir()
    good = scenario()
    arguments = [word.format(good=good, folder=tmp_path / "folder") for word in WRONG_CALLS[case]]
    status, out, err = vmksim(*arguments)
    assert status == 2
    assert out == ""
    assert "bug" not in err
    (line,) = err.splitlines()
    assert line.startswith("vmksim: ")
    assert list(tmp_path.rglob("*.partial")) == []


@pytest.mark.parametrize(
    "command", [("eventlog", "replay"), ("tpmreport", "replay"), ("image", "inspect"), ("run",)], ids=" ".join
)
def test_an_error_in_a_file_begins_with_the_name_of_the_file(vmksim, scenario, command):
    path = scenario("[[faults]]\nkind = 'flip_bit'\ntarget = 'bootbank/none.v00'")
    status, _, err = vmksim(*command, path)
    assert status == 2
    assert err.startswith(f"vmksim: {path}: ")


def test_a_closed_standard_output_is_said_in_one_line(scenario):
    command = f"{sys.executable} -m sim run {scenario()} >&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "vmksim: standard output is closed\n")


BAD_FILES = {
    "unknown key": "sede = 1",
    "wrong type": "[[vms]]\nname = 'a'\nvcpus = 'two'",
    "negative size": "[host]\nmemory = '-1GiB'",
    "a billion machines": "[[vms]]\nname = 'a'\ncount = 1000000000",
    "missing file": "[image]\nvibs = ['none.vib']",
    "junk": "\x01\x02\x03",
    "a fault without target": "[[faults]]\nkind = 'flip_bit'\ntarget = 'bootbank/none.v00'",
    "a wrong option": "[options]\nenable_tboot = true",
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_scenario_is_one_line_and_status_2(vmksim, scenario, case):
    status, out, err = vmksim("run", scenario(BAD_FILES[case]))
    assert status == 2
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("vmksim: ")
    assert "Traceback" not in line


def test_a_name_with_control_characters_is_escaped(vmksim, tmp_path):
    status, _, err = vmksim("run", tmp_path / "a\nb\x1b[31m.toml")
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "\x1b" not in err


def _break(simulation, slices):
    simulation.run(simulation.sim.now + 10**9)
    raise SimBug("the books do not balance")


def _fall(simulation, slices):
    raise KeyError("x")


@pytest.mark.parametrize("fault", [_break, _fall])
def test_a_bug_of_ours_prints_what_replays_it(vmksim, scenario, monkeypatch, fault):
    from sim.scenario.run import Simulation

    path = scenario()
    monkeypatch.setattr(Simulation, "advance", fault)
    monkeypatch.setattr(sys, "argv", ["vmksim", "run", str(path), "--seed", "5"])
    status, _, err = vmksim("run", path, "--seed", 5)
    assert status == 3
    assert "this is our bug" in err
    assert "seed 5, simulated time" in err
    assert "Traceback" not in err
    assert f"replay: vmksim run {path} --seed 5" in err


def test_an_interrupt_has_status_130(vmksim, scenario, monkeypatch):
    from sim.scenario.run import Simulation

    def interrupt(simulation, slices):
        raise KeyboardInterrupt

    monkeypatch.setattr(Simulation, "advance", interrupt)
    status, _, err = vmksim("run", scenario())
    assert status == 130
    assert err.strip() == "vmksim: interrupted"


def test_facts_are_a_table_and_json_with_source_and_kind(vmksim):
    _, table, _ = vmksim("facts")
    assert {"NAME", "VALUE", "UNIT", "KIND", "SOURCE"} <= set(table.split())
    facts = json.loads(vmksim("facts", "--json")[1])
    assert len(facts) > 50
    assert all(fact["source"] and fact["unit"] and fact["kind"] for fact in facts)
    only = json.loads(vmksim("facts", "--json", "--kind", "spec")[1])
    assert {fact["kind"] for fact in only} == {"spec"}


def test_help_loads_none_of_the_heavy_libraries():
    code = (
        "import sys\nfrom sim.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'cryptography', 'rich', 'simpy', 'cattrs', 'attrs'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "heavy: []" in out
    for command in ("run", "boot", "image", "eventlog", "facts"):
        assert command in out


def test_a_closed_pipe_ends_quietly(scenario):
    command = f"{sys.executable} -m sim run {scenario()} --all-log-lines | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env={**os.environ}, check=False
    )
    assert "Log of esx01" in done.stdout
    assert "Traceback" not in done.stderr


def _on_a_terminal(command):
    """Run a command with both outputs on a terminal, and return its exit status and what the terminal got."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "COLUMNS": "160", "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment) as process:
        os.close(theirs)
        chunks = []
        try:
            while chunk := os.read(ours, 65536):
                chunks.append(chunk)
        except OSError:
            pass  # Linux says so when the other side has closed
    os.close(ours)
    return process.returncode, b"".join(chunks).decode()


def test_a_terminal_gets_colours_progress_and_the_same_rows(vmksim, scenario):
    path = scenario()
    _, plain, _ = vmksim("run", path)
    status, text = _on_a_terminal([sys.executable, "-m", "sim", "run", str(path)])
    assert status == 0
    assert "\x1b[" in text
    assert "booting esx01" in text
    (row,) = [line for line in plain.splitlines() if "VMwareAccepted" in line]
    assert row.split()[:4] in [line.split()[:4] for line in text.splitlines()]


def test_the_keys_that_are_listed_are_those_that_a_scenario_takes(vmksim, scenario):
    status, out, _ = vmksim("keys")
    assert status == 0
    keys = [line.split()[0] for line in out.splitlines()[3:] if line]
    assert len(keys) == len(set(keys)) > 50
    for key in ("duration", "host.cpu.core", "vms[].cpu.limit", "faults[].at", "expect.component"):
        assert key in keys


def test_an_engine_that_does_not_know_the_scenarios_policy_is_refused_in_one_line(vmksim, scenario):
    path = scenario(SMALL + "[sched]\npolicy = 'gang'\n")
    status, _, errors = vmksim("run", path, "--engine", "fluid")
    assert (status, errors.count("\n")) == (2, 1)
    assert "--engine: fluid does not fit, got 'gang'" in errors


def test_a_workload_in_a_scenario_file_runs_with_leave_alone(vmksim, scenario, tmp_path, monkeypatch):
    (tmp_path / "cli_steps.py").write_text(
        "from sim.kernel.workload import Run\ndef steps():\n    yield Run(10**9)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    lines = "[[vms]]\nname = 'own'\nmemory = '16MiB'\nworkload = { kind = 'generator', function = 'cli_steps:steps' }\n"
    path = scenario(SMALL + lines)
    assert vmksim("run", path)[0] == 2
    status, out, _ = vmksim("run", path, "--allow-code")
    assert (status, "\nown " in out) == (0, True)
