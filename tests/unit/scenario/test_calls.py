"""Management calls of a scenario: checked when it is loaded, made through the closed interface, kept in the result."""

import json
import pickle

import pytest

from sim.core.units import MS, SECOND
from sim.errors import ScenarioError
from sim.report.run_report import call_section
from sim.scenario.calls import CALLABLE
from sim.scenario.load import parse_scenario
from sim.scenario.result import read_result, write_result
from sim.scenario.run import Simulation

HOST = """
duration = "10s"
[host.cpu]
cores_per_node = 1
[image]
modules = 2
module_size = "2KiB"
[[pools]]
name = "p"
[[vms]]
name = "a"
memory = "16MiB"
cpu_hot_add = true
[[vms]]
name = "b"
memory = "16MiB"
"""


def call(method, at="2s", more="", **arguments):
    lines = "".join(f"{name} = {text}\n" for name, text in arguments.items())
    return f"[[calls]]\nmethod = '{method}'\nat = '{at}'\n{more}\n[calls.arguments]\n{lines}"


SUSPEND = call("vm.suspend", "2s", name="'b'")
RESUME = call("vm.resume", "4s", name="'b'")
SHARES = call("vm.reconfigure", "6s", name="'a'", cpu="{ shares = 3000 }")
COUNT = call("host.counters", "8s")
OFF = call("vm.power_off", "9s", name="'b'")
AGAIN = call("vm.power_off", "9500ms", "expect = 'InvalidState'", name="'b'")
ALL = HOST + SUSPEND + RESUME + SHARES + COUNT + OFF + AGAIN


def test_calls_change_a_run_at_their_times_and_stand_in_its_result_and_trace():
    simulation = Simulation(parse_scenario(ALL))
    result = simulation.finish()
    assert result.expectation.met, result.expectation.differences
    ready_ns = simulation.first_ready_ns
    assert [(row.time_ns - ready_ns, row.outcome) for row in result.calls] == [
        *((at * SECOND, "ok") for at in (2, 4, 6, 8, 9)),
        (9_500 * MS, "InvalidState"),
    ]
    worlds = {row["name"]: row["run_ns"] for row in result.calls[3].answer["worlds"]}
    a_ns, b_ns = worlds["vmx-vcpu-0:a"], worlds["vmx-vcpu-0:b"]
    assert (
        abs(a_ns - (1000 + 2000 + 1000 + 1500) * MS) < 200 * MS
    )  # b was away for 2 s, and had a quarter at last
    assert abs(b_ns - (1000 + 0 + 1000 + 500) * MS) < 200 * MS
    records = simulation.sim.trace.select("scenario.call")
    assert [(row["number"], row["method"], row["outcome"]) for row in records][4:] == [
        (4, "vm.power_off", "ok"),
        (5, "vm.power_off", "InvalidState"),
    ]
    assert [row[1] for row in call_section(result).table.rows][:2] == ["vm.suspend", "vm.resume"]


def test_calls_of_a_run_that_is_pickled_in_between_are_made_once(tmp_path):
    whole = Simulation(parse_scenario(ALL)).finish()
    simulation = Simulation(parse_scenario(ALL))
    while simulation.first_ready_ns is None:
        simulation.run(simulation.sim.now + SECOND)
    simulation.run(simulation.first_ready_ns + 5 * SECOND)
    assert pickle.loads(pickle.dumps(simulation)).finish() == whole
    assert simulation.finish() == whole
    write_result(whole, tmp_path)
    assert read_result(tmp_path) == whole
    assert json.loads((tmp_path / "result.json").read_text())["calls"][5]["outcome"] == "InvalidState"


def test_a_call_that_ends_otherwise_than_expected_is_a_difference():
    wrong = (
        HOST + call("vm.resume", name="'b'") + call("vm.suspend", "3s", "expect = 'InvalidState'", name="'b'")
    )
    result = Simulation(parse_scenario(wrong)).finish()
    assert not result.expectation.met
    assert result.expectation.differences == (
        "call 0, vm.resume: expected ok, was InvalidState (b is poweredOn)",
        "call 1, vm.suspend: expected InvalidState, was ok",
    )


def test_options_pools_and_widths_change_while_a_run_goes_on():
    text = HOST + "".join(
        (
            call("host.set_advanced_option", "1s", key="'Cpu.LimitEnforcementThreshold'", value="50"),
            call("pool.create", "1s", spec="{ name = 'q', parent = 'p', limit = '500MHz' }"),
            call("vm.move", "2s", name="'b'", pool="'q'"),
            call("vm.reconfigure", "3s", "expect = 'NotEnoughLogicalCpus'", name="'a'", vcpus="2"),
            call("vm.power_on", "4s", spec="{ name = 'c', memory = '16MiB', pool = 'q' }"),
            call("vm.suspend", "5s", name="'c'"),
        )
    )
    result = Simulation(parse_scenario(text)).finish()
    assert result.expectation.met, result.expectation.differences
    assert [(pool.name, pool.vms) for pool in result.pools] == [("p", ("b", "c")), ("q", ("b", "c"))]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (call("vm.suspnd", name="'b'"), ("calls[0].method", "'vm.suspend'")),
        (call("image.install"), ("calls[0].method", "one of host.info")),
        (call("vm.suspend", nam="'b'"), ("calls[0].arguments", "got 'nam'", "'name'")),
        (call("vm.suspend"), ("calls[0].arguments", "name for vm.suspend")),
        (call("vm.suspend", name="3"), ("calls[0].arguments", "kind str")),
        (call("vm.suspend", name="'bb'"), ("calls", "bb in number 0", "'b'")),
        (call("vm.suspend", "11s", name="'b'"), ("calls", "within the duration")),
        (call("vm.move", name="'b'", pool="'pp'"), ("calls", "pp in number 0", "'p'")),
        (call("vm.reconfigure", name="'b'", cpu="{ share = 3 }"), ("arguments.cpu.share", "'shares'")),
        (call("vm.reconfigure", name="'b'", cpu="{ limit = '1GHzz' }"), ("arguments.cpu.limit",)),
        (call("vm.power_on", spec="{ name = 'c', vcpu = 2 }"), ("arguments.spec.vcpu", "'vcpus'")),
        (
            call(
                "vm.power_on", spec="{ name = 'c', workload = { kind = 'generator', function = 'os:abort' } }"
            ),
            ("calls[0].arguments", "no management call can name any"),
        ),
        (call("host.set_advanced_option", key="'Cpu.Quantom'", value="5"), ("Cpu.Quantom in number 0",)),
        (call("host.set_advanced_option", key="'Cpu.Quantum'", value="5000"), ("from 1 to 1000",)),
        (
            call("vm.suspend", "2s", "expect = 'InvalidStat'", name="'b'"),
            ("calls[0].expect", "'InvalidState'"),
        ),
    ],
)
def test_what_is_known_to_be_wrong_is_refused_when_the_scenario_is_loaded(text, words):
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(HOST + text)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_method_without_bytes_can_be_called():
    assert {"vm.power_on", "host.reboot", "tpm.state", "host.set_advanced_option"} <= set(CALLABLE)
    assert not {"image.install", "tpm.quote", "host.enable_crypto"} & set(CALLABLE)


def test_a_call_to_a_host_that_boots_is_refused_and_the_run_goes_on():
    text = (
        HOST.replace("10s", "30s")
        + call("host.reboot", "1s")
        + call("vm.list", "3s", "expect = 'InvalidState'")
    )
    result = Simulation(parse_scenario(text)).finish()
    assert result.expectation.met, result.expectation.differences
    assert result.boot.boots == 2
