"""pCPUs that go offline and come back, and cores that change their frequency, as faults of a scenario."""

import pytest

from sim.core.units import MS
from sim.errors import ScenarioError
from sim.scenario.load import parse_scenario
from sim.scenario.run import Simulation

HOST = """
duration = "8s"
[host.cpu]
cores_per_node = 2
core = "2GHz"
[image]
modules = 2
module_size = "2KiB"
[[vms]]
name = "a"
vcpus = 2
memory = "16MiB"
"""


def fault(kind, at, target, more=""):
    return f"[[faults]]\nkind = '{kind}'\nat = '{at}'\ntarget = '{target}'\n{more}\n"


def test_a_pcpu_that_goes_offline_runs_nothing_until_it_comes_back():
    simulation = Simulation(
        parse_scenario(HOST + fault("pcpu_offline", "2s", "pcpu/1") + fault("pcpu_online", "6s", "pcpu/1"))
    )
    result = simulation.finish()
    simulation.check_invariants()
    assert abs(result.vms[0].run_ns - 12_000 * MS) < 50 * MS
    assert abs(result.pcpus[1].busy_ns - 4_000 * MS) < 50 * MS


def test_the_last_pcpu_stays_online_and_the_trace_says_so():
    simulation = Simulation(
        parse_scenario(HOST + fault("pcpu_offline", "1s", "pcpu/0") + fault("pcpu_offline", "2s", "pcpu/1"))
    )
    result = simulation.finish()
    assert [row["kind"] for row in simulation.sim.trace.select("fault.strike")] == [
        "pcpu_offline",
        "pcpu_offline (refused)",
    ]
    assert abs(result.vms[0].run_ns - 9_000 * MS) < 50 * MS


def test_a_core_at_another_frequency_changes_used_and_not_run():
    text = (
        HOST + fault("frequency", "2s", "pcpu/0", "frequency = '3GHz'") + fault("frequency", "4s", "pcpu/0")
    )
    vm = Simulation(parse_scenario(text)).finish().vms[0]
    assert abs(vm.overclock_ns - 1_000 * MS) < 10 * MS  # half as much again for 2 s
    assert abs(vm.used_ns - vm.run_ns - 1_000 * MS) < 10 * MS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (fault("pcpu_offline", "1s", "pcpu/2"), "pcpu/0 to pcpu/1"),
        (fault("pcpu_offline", "1s", "dram"), "pcpu/NUMBER"),
        (fault("pcpu_online", "1s", "pcpu/0", "frequency = '1GHz'"), "no frequency_hz for pcpu_online"),
        ("[[faults]]\nkind = 'frequency'\ntarget = 'pcpu/0'\n", "a time after the first boot"),
        ("[sched]\nengine = 'fluid'\n" + fault("frequency", "1s", "pcpu/0"), "engine quantum"),
    ],
)
def test_a_fault_of_a_processor_that_cannot_be_is_refused(text, words):
    with pytest.raises(ScenarioError, match=words):
        parse_scenario(HOST + text)
