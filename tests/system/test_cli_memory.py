"""The commands about memory, called as a user calls them."""

import json
import re

import pytest

from sim.cli import main

SCENARIO = """\
[host]
memory = "4GiB"
[host.cpu]
cores_per_node = 2
[image]
modules = 4
module_size = "2KiB"
[kernel.layout]
profile = "esxi-8.x"
mmap_bits = 12
"""


@pytest.fixture
def vmksim(capsys):
    """A function that calls the command and returns status, output and errors."""

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return call


@pytest.fixture
def scenario(tmp_path):
    """A small scenario with a layout of its own."""
    path = tmp_path / "small.toml"
    path.write_text(SCENARIO)
    return path


def test_layout_prints_kernel_and_process_of_a_profile(vmksim):
    status, out, _ = vmksim("layout", "--profile", "linux-6.x", "--seed", 3)
    assert status == 0
    assert "Address map of kernel, profile linux-6.x" in out
    assert "Address map of process, profile linux-6.x" in out
    assert re.search(r"libc\.so\.6 +268435456 +28\.00 +28\.00 +measured", out)
    assert re.search(r"kernel image +503 +8\.97 +8\.97 +inferred", out)
    assert "5 independent draws, 100.00 bits together" in out
    assert vmksim("layout", "--profile", "linux-6.x", "--seed", 3)[1] == out
    assert vmksim("layout", "--profile", "linux-6.x", "--seed", 4)[1] != out


def test_layout_says_what_a_leak_leaves_of_each_row(vmksim):
    _, out, _ = vmksim("layout", "--profile", "linux-6.x", "--user", "app", "--json")
    (app,) = json.loads(out)
    rows = {row["name"]: row for row in app["rows"]}
    left = {name: (row["shares"], row["leak_leaves_bits"]) for name, row in rows.items()}
    assert left["libc.so.6"] == ("thread 2", 0.0)
    assert left["program"] == ("heap", pytest.approx(13.0, abs=0.001))
    assert left["heap"] == ("program", 13.0)
    assert left["main stack"] == ("stack pointer", pytest.approx(1.0, abs=0.001))
    assert left["stack pointer"] == ("main stack", 9.0)
    assert app["joint_bits"] == 100.0


def test_layout_prints_what_a_booted_host_has_mapped(vmksim, scenario):
    status, out, _ = vmksim("layout", scenario, "--json")
    assert status == 0
    maps = {one["space"]: one for one in json.loads(out)}
    assert set(maps) >= {"kernel", "hostd"}
    assert {one["profile"] for one in maps.values()} == {"esxi-8.x"}
    rows = maps["kernel"]["rows"]
    image = next(row for row in rows if row["kind"] == "kernel")
    assert 0x4200_0000_0000 <= image["base"] < image["end"] <= 0x4200_4000_0000
    assert set(image["rights"]) >= {"r-x", "rw-"}
    assert image["evidence"] == "inferred"
    assert all(row["guard_bytes"] >= 4096 for row in rows)
    libraries = [row for row in maps["hostd"]["rows"] if row["kind"] == "library"]
    assert [row["shannon_bits"] for row in libraries] == [12.0] * len(libraries)
    hostd = {row["kind"]: row for row in maps["hostd"]["rows"]}
    assert (hostd["library"]["shares"], hostd["library"]["leak_leaves_bits"]) == ("vdso", 0.0)
    assert {row["name"] for row in maps["hostd"]["rows"]} >= {"stack pointer", "arguments"}
    status, out, _ = vmksim("layout", scenario, "--user", "hostd")
    assert "Address map of hostd" in out
    assert "Address map of kernel" not in out


def test_layout_answers_a_wrong_call_in_one_line(vmksim, scenario, tmp_path):
    assert vmksim("layout", "--profile", "esxi") == (
        2,
        "",
        "vmksim: --profile: unknown layout profile, got 'esxi'; did you mean 'esxi-8.x'?\n",
    )
    status, _, error = vmksim("layout", scenario, "--user", "nobody")
    assert (status, error.count("\n")) == (2, 1)
    assert "hostd" in error
    assert vmksim("layout", tmp_path / "absent.toml")[0] == 2
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[kernel.layout]\nmmap_bits = 29\n")
    status, _, error = vmksim("layout", wrong)
    assert status == 2
    assert "kernel.layout.mmap_bits: wrong value, got 29, wanted at most the 28 bits" in error
    wrong.write_text('[kernel.layout]\nprofile = "esxi-9.x"\n')
    assert "kernel.layout.profile" in vmksim("layout", wrong)[2]


def test_the_layout_of_a_scenario_changes_its_id_and_its_addresses(vmksim, scenario):
    _, one, _ = vmksim("layout", scenario, "--json")
    _, two, _ = vmksim("layout", scenario, "--json", "--profile", "none")
    assert one != two
    for space in json.loads(two):
        assert space["joint_bits"] == 0.0


def test_paxtest_prints_its_screen(vmksim):
    status, out, _ = vmksim("paxtest", "--profile", "linux-6.x", "--runs", 60)
    assert status == 0
    lines = out.splitlines()
    assert len([line for line in lines if line[41:43] == ": "]) == 34
    assert "Executable stack                         : Killed" in lines
    assert "Executable stack (mprotect)              : Vulnerable" in lines
    status, out, _ = vmksim("paxtest", "--mode", "kiddie", "--runs", 60, "--json")
    assert json.loads(out)["Executable heap (mprotect)"] == "Killed"
    assert vmksim("paxtest", "--mode", "wild")[0] == 2
    assert vmksim("paxtest", "--runs", 0)[0] == 2


def test_attack_prints_each_attack_with_its_defence_off_and_on(vmksim):
    status, out, _ = vmksim("attack", "ret2usr", "--seeds", 4)
    assert status == 0
    assert re.search(r"ret2usr +a kernel that jumps to user code +SMEP", out)
    assert re.search(r"ret2usr +off +granted +4 of 4 +1 +agrees", out)
    assert re.search(r"ret2usr +on +#PF 17 +0 of 4 +0 +agrees", out)
    status, out, _ = vmksim("attack", "--profile", "linux-6.x", "--seeds", 3, "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert status == 0
    assert len(rows) == 17
    assert rows["rop"]["expected"] == "1/268435456"
    assert rows["jit-write-then-execute"]["measured"] == "1/1"
    assert vmksim("attack", "rowhammer")[0] == 2
    assert vmksim("attack", "--seeds", 0)[0] == 2


def test_what_the_commands_print_fits_100_columns(vmksim, scenario):
    calls = (("layout",), ("layout", scenario), ("paxtest", "--runs", 60), ("attack", "--seeds", 4))
    widths = {call: max(map(len, vmksim(*call)[1].splitlines())) for call in calls}
    assert max(widths.values()) <= 100, widths


def test_a_rate_that_differs_from_its_formula_ends_in_status_1(vmksim, monkeypatch):
    import attrs

    from sim.labs import attacks

    wrong = attrs.evolve(attacks.ATTACKS["ret2usr"], expected=lambda setting: 1)
    monkeypatch.setitem(attacks.ATTACKS, "ret2usr", wrong)
    status, out, _ = vmksim("attack", "ret2usr", "--seeds", 2)
    assert status == 1
    assert "DIFFERS" in out
