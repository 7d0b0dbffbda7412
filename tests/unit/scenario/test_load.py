import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.core.facts import all_facts
from sim.core.trace import record_types
from sim.errors import ScenarioError
from sim.scenario.load import load_scenario, parse_scenario
from sim.scenario.run import Simulation
from sim.scenario.spec import CATEGORIES, Scenario

WHOLE = """
name = "whole"
seed = 7
duration = "10s"
[trace]
categories = ["log", "boot"]
[host]
memory = "8GiB"
[host.cpu]
cores_per_node = 4
core = "3GHz"
[tpm]
state = "present"
[image]
modules = 3
module_size = "2KiB"
[options]
enableTboot = true
[sched]
quantum = "50ms"
[[vms]]
name = "web"
count = 3
vcpus = 2
memory = "1GiB"
cpu = { shares = 1000, limit = "1GHz" }
workload = { kind = "onoff", run = "5ms", wait = "5ms" }
[[faults]]
kind = "flip_bit"
target = "bootbank/s.v00"
byte = 100
at = "1s"
[vcenter]
add_host = "1s"
[expect]
attestation = "accepted"
"""


def test_every_table_of_a_scenario_file_reaches_its_spec():
    scenario = parse_scenario(WHOLE)
    assert scenario.seed == 7
    assert scenario.duration_ns == 10**10
    assert scenario.trace.categories == ("log", "boot")
    assert scenario.host.memory_bytes == 8 << 30
    assert scenario.host.cpu.core_hz == 3 * 10**9
    assert scenario.image.module_size_bytes == 2048
    assert scenario.options == {"enableTboot": True}
    assert scenario.sched.quantum_ns == 50 * 10**6
    assert [vm.name for vm in scenario.virtual_machines()] == ["web-1", "web-2", "web-3"]
    assert scenario.vms[0].cpu.limit_hz == 10**9
    assert scenario.faults[0].at_ns == 10**9
    assert scenario.vcenter is not None
    assert scenario.vcenter.add_host_ns == 10**9
    assert scenario.expect.attestation == "accepted"


def test_an_empty_file_is_the_default_scenario():
    assert parse_scenario("") == Scenario()


WRONG = {
    "x = 1": ("bad.toml: x", "unknown key"),
    "sede = 1": ("bad.toml: sede", "did you mean 'seed'?"),
    "[host]\nmemroy = '1GiB'": ("bad.toml: host.memroy", "did you mean 'memory'?"),
    "name = 1": ("bad.toml: name", "wanted a text"),
    "seed = -1": ("bad.toml: seed", "wanted an integer from 0"),
    "seed = 1.5": ("bad.toml: seed", "got 1.5"),
    "seed = true": ("bad.toml: seed", "got True"),
    "[host]\nmemory = '-1GiB'": ("bad.toml: host.memory", "got '-1GiB'"),
    "[host]\nmemory = -5": ("bad.toml: host.memory", "got -5"),
    "[host.cpu]\ncores_per_node = 100000": ("bad.toml: host.cpu.cores_per_node", "got 100000"),
    "duration = '10y'": ("bad.toml: duration", "one of the units"),
    "[[vms]]\nname = 'a'\ncount = 1000000000": ("bad.toml: vms[0].count", "got 1000000000"),
    "[[vms]]\nname = 'a'\ncount = 1000\nvcpus = 64": ("bad.toml: vms", "virtual CPUs"),
    "[[vms]]\nname = 'a'\ncount = 1000\n[[vms]]\nname = 'b'\ncount = 1000": (
        "bad.toml: vms",
        "virtual machines",
    ),
    "[[vms]]\nname = 'a'\n[[vms]]\nname = 'a'": ("bad.toml: vms", "that no other has"),
    "[trace]\ncategories = ['shced']": ("bad.toml: trace.categories", "'sched'"),
    "[sched]\nengine = 'fluid'\npolicy = 'gang'": (
        "bad.toml: sched.policy",
        "got 'gang', wanted no policy with engine fluid",
    ),
    "[[vms]]\nname = 'a'\nworkload = { kind = 'periodic', random = true }": (
        "bad.toml: vms[0].workload.random",
        "no random for periodic",
    ),
    "[[vms]]\nname = 'a'\nworkload = { kind = 'io', run = '1ms', wait = '1ms', interrupt = '100ms' }": (
        "bad.toml: vms[0].workload.interrupt",
        "2000000 ns: the time between two",
    ),
    "[[vms]]\nvcpus = 1": ("bad.toml: vms[0].name", "missing"),
    "[[vms]]\nname = 'a'\nvcpus = '2'": ("bad.toml: vms[0].vcpus", "wanted an integer"),
    "[[vms]]\nname = 'a'\nworkload = { kind = 'generator', function = 'os:abort' }": (
        "bad.toml: vms[0].workload.kind",
        "runs no code",
    ),
    "[[vms]]\nname = 'a'\nworkload = { kind = 'trace', file = 'none.csv' }": (
        "bad.toml: vms[0].workload.file",
        "No such file",
    ),
    "vms = 3": ("bad.toml: vms", "wanted a list"),
    "vms = [3]": ("bad.toml: vms[0]", "wanted a table"),
    "epoch = 5": ("bad.toml: epoch", "a date and time"),
    "epoch = 0001-01-01T00:00:00Z": ("bad.toml: epoch", "in the years 2000 to 2199"),
    "epoch = 9999-01-01T00:00:00Z": ("bad.toml: epoch", "in the years 2000 to 2199"),
    "[image]\nmodules = 400\nmodule_size = '4MiB'": ("bad.toml: image.module_size", "all modules together"),
    f"[[vms]]\nname = '{'a' * 80}'\ncount = 2": ("bad.toml: vms[0].name", "a number is put behind it"),
    "[[vms]]\nname = 'a'\nworkload = { kind = 'trace', demand = [1], period = '1ns' }": (
        "bad.toml: vms[0].workload",
        "at least 1000 ns",
    ),
    "[[vms]]\nname = 'a'\nworkload = { kind = 'onoff', run = '1ns', wait = '1ns' }": (
        "bad.toml: vms[0].workload",
        "at least 1000 ns",
    ),
    "[image]\nvibs = ['none.vib']": ("bad.toml: image.vibs[0]", "No such file"),
    "[image]\nvibs = ['/dev/zero']": ("bad.toml: image.vibs[0]", "not a regular file"),
    "[image]\nvibs = 3": ("bad.toml: image.vibs", "a list of file names"),
    "[image]\nvibs = [{ name = 'a', data = 'b' }]": ("bad.toml: image.vibs", "a list of file names"),
    "[image]\nacceptance = 'partner'": ("bad.toml: image.acceptance", "PartnerSupported"),
    "[[faults]]\nkind = 'melt'": ("bad.toml: faults[0].kind", "flip_bit"),
    "[[faults]]\nkind = 'reboot'": ("bad.toml: faults[0].at", "a time"),
    "duration = '1s'\n[[faults]]\nkind = 'reboot'\nat = '2s'": ("bad.toml: faults", "within the duration"),
    "duration = '1s'\n[vcenter]\nadd_host = '2s'": ("bad.toml: vcenter", "within the duration"),
    "[expect]\nattestation = 'maybe'": ("bad.toml: expect.attestation", "notAccepted"),
    "[expect]\nattestation = 'accepted'": ("bad.toml: expect", "[vcenter]"),
    "[host]\ntpm_present = false\n[tpm]\nstate = 'present'": ("bad.toml: tpm", "the same state"),
    "[options]\na = [1]": ("bad.toml: options", "option a"),
    "[options]\n'a b' = 1": ("bad.toml: options", "option names"),
    '"a\\nb" = 1': ("bad.toml", "printable"),
    "=": ("bad.toml", "not TOML"),
    "a" + ".a" * 100_000 + " = 1": ("bad.toml", "dotted key"),
    "x = " + "[" * 100_000: ("bad.toml", "nested deeper"),
    "x = " + "[" * 40 + "]" * 40: ("bad.toml: x[0]", "nested deeper"),
    "seed = " + "9" * 10_000: ("bad.toml", "64 bits"),
    "seed = 0x" + "f" * 10_000: ("bad.toml: seed", "64 bits"),
    "name = '" + "a" * 20_000 + "'": ("bad.toml: name", "10000 characters"),
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:40])
def test_what_is_wrong_is_one_line_with_file_and_key_path(text):
    where, why = WRONG[text]
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, "bad.toml")
    line = str(caught.value)
    assert caught.value.path.startswith(where)
    assert why in line
    assert line.isprintable()
    assert len(line) < 500


def _outcome(text):
    """Return where the error is, or the name of the file when there is none; any other exception escapes."""
    try:
        parse_scenario(text, "any.toml")
    except ScenarioError as error:
        return error.path
    return "any.toml"


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_any_text_is_a_scenario_or_one_clear_error(text):
    assert _outcome(text).startswith("any.toml")


@given(st.lists(st.sampled_from(WHOLE.split()), min_size=1, max_size=60))
def test_any_shuffle_of_real_words_is_a_scenario_or_one_clear_error(words):
    assert _outcome("\n".join(words)).startswith("any.toml")


@pytest.mark.parametrize("data", [b"\xff\xfe\x00\x01" * 10, b"name = 'a'\0", bytes(range(256)) * 8])
def test_a_binary_file_is_refused(tmp_path, data):
    (tmp_path / "junk.toml").write_bytes(data)
    with pytest.raises(ScenarioError, match=r"junk\.toml"):
        load_scenario(tmp_path / "junk.toml")


def test_every_category_of_the_trace_can_be_named_and_no_other():
    all_facts()  # imports every module, and with it every record type
    own = {"test", "unit", "elsewhere"}  # of the tests
    assert set(CATEGORIES) == {kind.category for kind in record_types()} - own
    assert parse_scenario("[trace]\ncategories = []").trace.categories == ()


def test_a_huge_file_is_refused_by_its_size(tmp_path):
    with (tmp_path / "huge.toml").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(ScenarioError, match="larger than the limit of 256 KiB"):
        load_scenario(tmp_path / "huge.toml")


def test_named_files_are_found_beside_the_scenario_and_their_content_decides_the_id(tmp_path, monkeypatch):
    text = "[[vms]]\nname = 'a'\nworkload = { kind = 'trace', file = 'demand.csv' }\n[image]\nvibs = ['x/a.vib']\n"
    ids = []
    for folder, demand, vib in (
        ("one", "50", b"A"),
        ("two", "50", b"A"),
        ("three", "60", b"A"),
        ("four", "50", b"B"),
    ):
        (tmp_path / folder / "x").mkdir(parents=True)
        (tmp_path / folder / "demand.csv").write_text(f"time,percent\n0,{demand}\n")
        (tmp_path / folder / "x" / "a.vib").write_bytes(vib)
        (tmp_path / folder / "s.toml").write_text(text)
        monkeypatch.chdir(tmp_path / "one" / "x")
        scenario = load_scenario(tmp_path / folder / "s.toml")
        ids.append(scenario.id)
    assert scenario.vms[0].workload.demand_hundredths == (5000,)
    assert scenario.image.vibs[0].name == "a.vib"
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_workloads_that_are_functions_run_with_leave_alone_and_survive_a_reboot(tmp_path, monkeypatch):
    (tmp_path / "own_steps.py").write_text(
        "from sim.kernel.workload import Run, Wait\n"
        "def steps():\n    while True:\n        yield Run(1000000)\n        yield Wait(3000000)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = (
        "duration = '40s'\n[image]\nmodules = 2\n[[faults]]\nkind = 'reboot'\nat = '1s'\n[[vms]]\nname = 'a'\nvcpus = 2\n"
        "memory = '16MiB'\n[[vms.vcpu_workloads]]\nkind = 'idle'\n"
        "[[vms.vcpu_workloads]]\nkind = 'generator'\nfunction = 'own_steps:steps'\n"
    )
    with pytest.raises(
        ScenarioError, match=r"vms\[0\]\.vcpu_workloads\[1\]\.kind: a scenario file runs no code"
    ):
        parse_scenario(text)
    result = Simulation(parse_scenario(text, allow_code=True)).finish()
    assert (result.boot.boots, len(result.vms)) == (2, 1)
    assert abs(4 * result.vms[0].run_ns - result.vms[0].alive_ns) < 10**7
