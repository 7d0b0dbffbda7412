"""Claims about the closed interface: only listed calls with fitting arguments get in, and each does what it says."""

import pickle
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.context import Sim
from sim.hw.disk import DiskError
from sim.kernel.api import METHODS, ApiError, ManagementApi
from sim.kernel.host import HostState
from sim.kernel.options import OptionError, format_kernelopt, with_option


def refused(machinery, name, params=None):
    with pytest.raises(ApiError) as caught:
        machinery.host.call(name, params)
    return caught.value


def fingerprint(machinery):
    """Everything of the host that a refused call must leave as it was."""
    host = machinery.host
    disk = host.board.disk.volume("bootbank")
    return (
        host.state,
        {path: disk.read(path) for path in disk.paths()},
        host.call("vm.list"),
        host.call("module.list"),
        host.board.memory.frames_free,
    )


@pytest.mark.parametrize(
    "name", ["vm.destroy_all", "", "host", "__init__", "exec", "vm.power_on ", "VM.LIST", "ü" * 500]
)
def test_what_is_not_on_the_list_is_refused_traced_and_changes_nothing(machinery, name):
    before = fingerprint(machinery)
    assert refused(machinery, name).code == "NotSupported"
    assert machinery.sim.trace.select("api.kernel_call")[-1]["outcome"] == "NotSupported"
    assert fingerprint(machinery) == before


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("vm.power_off", {}),
        ("vm.power_off", {"name": 3}),
        ("vm.power_off", {"name": "a", "extra": 1}),
        ("vm.power_on", {"spec": {"name": "a", "memory": -5}}),
        ("vm.power_on", {"spec": {"name": "a", "vcpus": 2**63}}),
        ("vm.power_on", {"spec": {"nam": "a"}}),
        ("vm.power_on", {"spec": {"name": "a", "workload": {"function": "os:abort"}}}),
        ("host.set_option", {"key": "a b", "value": "x"}),
        ("host.set_option", {"key": "a", "value": "x\ny"}),
        ("image.set_acceptance", {"level": "communitysupported"}),
        ("image.install", {"archive": b"junk"}),
        ("tpm.quote", {"nonce": b""}),
        ("tpm.quote", {"nonce": b"n" * 65}),
        ("tpm.quote", {"nonce": b"n", "banks": ["md5"]}),
        ("tpm.quote", {"nonce": b"n", "pcrs": [24]}),
        ("tpm.quote", {"nonce": b"n", "pcrs": [True]}),
    ],
)
def test_arguments_that_do_not_fit_are_refused_and_change_nothing(machinery, name, params):
    before = fingerprint(machinery)
    error = refused(machinery, name, params)
    assert error.code == "InvalidArgument", error
    assert "\n" not in str(error)
    assert fingerprint(machinery) == before


@pytest.mark.parametrize(
    "workloads",
    [
        {"workload": {"kind": "generator", "function": "would_run:steps"}},
        {"vcpu_workloads": [{"kind": "generator", "function": "would_run:steps"}]},
        {
            "vcpu_workloads": [{"kind": "busy"}, {"kind": "generator", "function": "would_run:steps"}],
            "vcpus": 2,
        },
    ],
)
def test_no_management_call_names_code_that_is_imported(machinery, tmp_path, monkeypatch, workloads):
    (tmp_path / "would_run.py").write_text(
        "from sim.kernel.workload import Run\ndef steps():\n    yield Run(1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    error = refused(machinery, "vm.power_on", {"spec": {"name": "a", "memory": "16MiB", **workloads}})
    assert (error.code, "cannot name code" in str(error)) == ("InvalidArgument", True)
    assert "would_run" not in sys.modules
    assert machinery.host.call("vm.list") == []


NAMES = st.sampled_from([*METHODS, "nothing", "vm.power_on\0"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.binary(max_size=8) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["name", "spec", "cpu", "key", "value", "level", "archive", "force", "nonce", "banks", "pcrs", "x"]
)


@settings(max_examples=300)
@given(st.lists(st.tuples(NAMES, st.dictionaries(KEYS, VALUES, max_size=3)), min_size=1, max_size=4))
def test_no_request_gets_anything_but_an_answer_or_a_refusal(booted_image, calls):
    machinery = pickle.loads(booted_image)
    for name, params in calls:
        try:
            machinery.host.call(name, params)
            outcome = "ok"
        except ApiError as error:
            outcome = error.code
        assert machinery.sim.trace.select("api.kernel_call")[-1]["outcome"] == outcome
    machinery.host.check_invariants()


def test_every_listed_method_has_a_handler_and_every_handler_is_listed():
    with pytest.raises(ValueError, match=r"differ in host\.counters"):
        ManagementApi(Sim(), {name: print for name in METHODS if name != "host.counters"})


def test_a_host_that_does_not_run_answers_nothing(machinery):
    machinery.host.power_off()
    assert refused(machinery, "host.info").code == "InvalidState"


def test_vms_live_through_the_interface(machinery):
    host = machinery.host
    spec = {"name": "a", "vcpus": 2, "memory": "512MiB", "cpu": {"shares": "high"}}
    host.call("vm.power_on", {"spec": spec})
    assert refused(machinery, "vm.power_on", {"spec": spec}).code == "InvalidState"
    machinery.sim.engine.run(machinery.sim.now + 10**9)
    host.call("vm.suspend", {"name": "a"})
    host.call("vm.resume", {"name": "a"})
    host.call("vm.reconfigure", {"name": "a", "cpu": {"shares": 500, "limit": "1GHz"}})
    (row,) = host.call("vm.list")
    assert (row["state"], row["shares_per_vcpu"], row["limit_hz"]) == ("poweredOn", 500, 10**9)
    counters = host.call("host.counters")
    assert sum(pcpu["busy_ns"] for pcpu in counters["pcpus"]) > 0
    host.call("vm.power_off", {"name": "a"})
    assert host.call("vm.list")[0]["state"] == "poweredOff"
    assert refused(machinery, "vm.power_off", {"name": "nobody"}).code == "InvalidState"


def test_vcpus_are_plugged_through_the_interface(machinery):
    host = machinery.host
    host.call("vm.power_on", {"spec": {"name": "a", "memory": "64MiB", "cpu_hot_add": True}})
    host.call("vm.reconfigure", {"name": "a", "vcpus": 2})
    assert host.call("vm.list")[0]["vcpus"] == 2
    code = refused(machinery, "vm.reconfigure", {"name": "a", "vcpus": 1}).code
    assert code == "CpuHotPlugNotSupported"
    assert refused(machinery, "vm.reconfigure", {"name": "a", "vcpus": 0}).code == "InvalidArgument"
    host.call("vm.power_off", {"name": "a"})


def test_admission_refuses_with_the_api_s_fault(machinery):
    too_much = {"name": "a", "memory": "64GiB"}
    assert "Memory" in refused(machinery, "vm.power_on", {"spec": too_much}).code
    too_fast = {"name": "a", "memory": "64MiB", "cpu": {"reservation": "100GHz"}}
    assert "Cpu" in refused(machinery, "vm.power_on", {"spec": too_fast}).code


def test_an_option_takes_effect_at_the_next_boot_only(machinery):
    host = machinery.host
    assert host.call("host.options")["current"]["enableTboot"] == "FALSE"
    host.call("host.set_option", {"key": "enableTboot", "value": "TRUE"})
    options = host.call("host.options")
    assert (options["current"]["enableTboot"], options["next_boot"]["enableTboot"]) == ("FALSE", "TRUE")
    host.call("host.reboot")
    machinery.sim.engine.run()
    assert host.state is HostState.RUNNING
    assert host.call("host.options")["current"]["enableTboot"] == "TRUE"
    assert host.call("host.info")["boot_count"] == 2


def test_options_are_kept_in_order_and_limited():
    options = with_option((("a", "1"), ("b", "")), "a", "2")
    assert format_kernelopt(options) == "a=2 b"
    many = tuple((f"o{number}", "1") for number in range(100))
    with pytest.raises(OptionError, match="over 100"):
        with_option(many, "one.more", "1")


def test_the_acceptance_level_is_changed_only_to_what_the_installed_vibs_allow(machinery):
    host = machinery.host
    assert host.call("image.acceptance") == "PartnerSupported"
    host.call("image.set_acceptance", {"level": "CommunitySupported"})
    assert host.call("image.acceptance") == "CommunitySupported"
    before = fingerprint(machinery)
    refused(machinery, "image.set_acceptance", {"level": "VMwareCertified"})
    assert fingerprint(machinery) == before


def test_installed_vibs_are_listed_with_what_their_signatures_prove(machinery):
    rows = machinery.host.call("image.vibs")
    assert len(rows) == 6
    assert all(row["verified"] and row["provider"] for row in rows)


def test_a_reboot_powers_vms_off_and_frees_everything(machinery):
    host = machinery.host
    host.call("vm.power_on", {"spec": {"name": "a", "memory": "512MiB"}})
    assert host.kernel.vms.get("a").space.populate(0, 131_072) == 131_072
    assert host.board.memory.frames_of("vm:a") == 131_072
    host.call("host.reboot")
    machinery.sim.engine.run()
    assert host.call("vm.list") == []
    assert host.board.memory.frames_of("vm:a") == 0
    host.check_invariants()


@pytest.mark.parametrize("params", [["name"], "name", 7, ("name",)])
def test_arguments_without_names_are_refused(machinery, params):
    assert refused(machinery, "vm.power_off", params).code == "InvalidArgument"


@pytest.mark.parametrize("part", ["banks", "pcrs"])
def test_an_empty_selection_is_not_the_default_one(machinery, part):
    assert refused(machinery, "tpm.quote", {"nonce": b"n", part: []}).code == "InvalidArgument"


def test_a_bank_that_the_disk_cannot_take_leaves_the_disk_as_it_was(machinery, monkeypatch):
    volume = machinery.host.board.disk.volume("bootbank")
    before = {path: volume.peek(path) for path in volume.paths()}
    sound = type(volume).write

    def full(self, path, data):
        if path == "boot.cfg" and data != before["boot.cfg"]:
            raise DiskError("no space")
        sound(self, path, data)

    monkeypatch.setattr(type(volume), "write", full)
    error = refused(machinery, "host.set_option", {"key": "a", "value": "b"})
    assert error.code == "PlatformConfigFault"
    assert {path: volume.peek(path) for path in volume.paths()} == before


@pytest.mark.parametrize("state", ["booting", "halted", "off"])
def test_a_host_in_any_other_state_refuses_every_call(machinery, state):
    host = machinery.host
    if state == "booting":
        host.reset()
        machinery.sim.engine.run(machinery.sim.now + 10**9)
    elif state == "halted":
        host.board.disk.volume("esp").clear()
        host.reset()
        machinery.sim.engine.run()
    else:
        host.power_off()
    assert str(host.state) == state
    for name in METHODS:
        assert refused(machinery, name).code == "InvalidState"


def test_a_suspended_vm_does_not_outlive_a_reboot(machinery):
    host = machinery.host
    host.call("vm.power_on", {"spec": {"name": "a", "memory": "64MiB"}})
    host.call("vm.suspend", {"name": "a"})
    host.call("host.reboot")
    machinery.sim.engine.run()
    assert host.call("vm.list") == []
    assert refused(machinery, "vm.resume", {"name": "a"}).code == "InvalidState"
    host.call("vm.power_on", {"spec": {"name": "a", "memory": "64MiB"}})
    host.check_invariants()
