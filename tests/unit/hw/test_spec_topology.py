"""Hardware specs refuse what no host has, and topology numbers processors as ESXi does."""

import pytest

from sim.core.structure import structure
from sim.core.units import GIB, MIB
from sim.errors import ScenarioError
from sim.hw.spec import CpuSpec, FirmwareSpec, HostSpec
from sim.hw.topology import Topology


def test_a_spec_reads_quantities_with_units():
    spec = structure({"name": "esx07", "memory": "64GiB", "cpu": {"core": "3GHz", "packages": 2}}, HostSpec)
    assert spec.memory_bytes == 64 * GIB
    assert spec.cpu.core_hz == 3_000_000_000
    assert spec.cpu.packages == 2


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"memory": "1MiB"}, "host.memory"),
        ({"memory": 64 * MIB + 4096}, "host.memory"),
        ({"memory": "25TiB"}, "host.memory"),
        ({"cpu": {"cores_per_node": 0}}, "host.cpu.cores_per_node"),
        ({"cpu": {"packages": -1}}, "host.cpu.packages"),
        ({"name": "-esx"}, "host.name"),
        ({"firmware": {"boot_path": "EFI/boot"}}, "host.firmware.boot_path"),
        ({"disk": {"access": "2s"}}, "host.disk.access"),
    ],
)
def test_a_value_that_no_host_has_is_refused_with_its_key(data, path):
    with pytest.raises(ScenarioError) as caught:
        structure(data, HostSpec, "host")
    assert caught.value.path == path


def test_more_processors_than_a_host_may_have_are_refused():
    with pytest.raises(ScenarioError, match="960"):
        structure({"cpu": {"packages": 8, "cores_per_node": 128}}, HostSpec, "host")
    with pytest.raises(ScenarioError, match="32"):
        structure({"cpu": {"packages": 16, "nodes_per_package": 4, "cores_per_node": 1}}, HostSpec, "host")


def test_firmware_text_must_be_printable():
    with pytest.raises(ValueError, match="vendor"):
        FirmwareSpec(vendor="a\nb")


def test_threads_of_a_core_are_neighbours_and_nodes_are_consecutive():
    topology = Topology.of(CpuSpec(packages=2, nodes_per_package=2, cores_per_node=3, threads_per_core=2))
    assert [pcpu.index for pcpu in topology.pcpus] == list(range(24))
    assert [pcpu.core for pcpu in topology.pcpus[:4]] == [0, 0, 1, 1]
    assert [pcpu.thread for pcpu in topology.pcpus[:4]] == [0, 1, 0, 1]
    assert [pcpu.node for pcpu in topology.pcpus[::6]] == [0, 1, 2, 3]
    assert [pcpu.package for pcpu in topology.pcpus[::6]] == [0, 0, 1, 1]
    assert topology.siblings(7) == (6,)
    assert [pcpu.index for pcpu in topology.of_node(3)] == list(range(18, 24))


def test_without_hyperthreads_a_processor_has_no_sibling():
    assert Topology.of(CpuSpec(cores_per_node=2)).siblings(1) == ()


def test_a_node_has_one_last_level_cache_or_several_equal_ones():
    spec = {"nodes_per_package": 2, "cores_per_node": 4, "threads_per_core": 2}
    whole = Topology.of(CpuSpec(**spec))
    assert ([pcpu.llc for pcpu in whole.pcpus[::4]], whole.llcs) == ([0, 0, 1, 1], 2)
    parts = Topology.of(CpuSpec(**spec, cores_per_llc=2))
    assert ([pcpu.llc for pcpu in parts.pcpus[::4]], parts.llcs) == ([0, 1, 2, 3], 4)
    assert [pcpu.node for pcpu in parts.pcpus[::4]] == [0, 0, 1, 1]
    with pytest.raises(ScenarioError, match="cores_per_llc"):
        structure({"cpu": {"cores_per_node": 4, "cores_per_llc": 3}}, HostSpec, "host")
