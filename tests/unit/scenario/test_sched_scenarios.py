"""Pools, policies, releases and options in scenario files."""

import pytest

from sim.errors import ScenarioError
from sim.kernel.sched.policy import make_policy
from sim.scenario.load import parse_scenario
from sim.scenario.run import Simulation

HOST = """
duration = "4s"
[host.cpu]
cores_per_node = 2
[image]
modules = 2
module_size = "2KiB"
"""
POOLS = """
[[pools]]
name = "prod"
shares = 3000
[[pools]]
name = "test"
shares = 1000
[[vms]]
name = "p"
count = 4
pool = "prod"
memory = "16MiB"
[[vms]]
name = "t"
count = 4
pool = "test"
memory = "16MiB"
"""


def used(result, letter):
    return sum(row.run_ns for row in result.vms if row.name.startswith(letter))


def test_pools_of_a_file_divide_the_host():
    result = Simulation(parse_scenario(HOST + POOLS)).finish()
    assert used(result, "p") / used(result, "t") == pytest.approx(3, rel=0.1)


def test_another_policy_divides_it_otherwise():
    scenario = parse_scenario(HOST + '[sched]\npolicy = "roundrobin"\n' + POOLS)
    result = Simulation(scenario).finish()
    assert used(result, "p") / used(result, "t") == pytest.approx(1, rel=0.1)


def test_a_release_and_its_options_are_part_of_the_scenario():
    plain = parse_scenario(HOST)
    old = parse_scenario(HOST + '[sched]\nrelease = "6.0"\n')
    tuned = parse_scenario(HOST + '[sched.advanced]\n"Cpu.Quantum" = 50\n')
    assert (plain.sched.quantum_ns, old.sched.quantum_ns, tuned.sched.quantum_ns) == (
        200_000_000,
        50_000_000,
        50_000_000,
    )
    assert len({plain.id, old.id, tuned.id}) == 3


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('[[pools]]\nname = "a"\nparent = "b"\n', "pools"),
        ('[[pools]]\nname = "a"\n[[pools]]\nname = "a"\n', "pools"),
        ('[[vms]]\nname = "a"\npool = "none"\n', "vms"),
        ('[sched]\npolicy = "os:system"\n', "sched.policy"),
        ('[sched]\npolicy = "fairest"\n', "sched.policy"),
        ('[sched.advanced]\n"Cpu.Quantom" = 5\n', "sched.advanced"),
        ('[sched]\nrelease = "5.5"\n', "sched.release"),
        ('[[vms]]\nname = "a"\n[vms.cpu]\nlatency = "higher"\n', "vms[0].cpu.latency"),
    ],
)
def test_what_is_wrong_is_named(text, path):
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(HOST + text)
    assert caught.value.path.endswith(path) or path in str(caught.value)


def test_a_policy_of_ones_own_that_is_none_is_named_when_the_host_is_built():
    for name in ("sim.errors:SimBug", "sim.errors:Nothing", "sim.nothing:Policy"):
        with pytest.raises(ScenarioError, match=r"sched.policy"):
            make_policy(name)
