"""A small scenario that runs in well under a second, shared by these tests."""

import pytest

from sim.core.units import MIB, SECOND
from sim.hw.spec import CpuSpec, HostSpec
from sim.scenario.spec import ExpectSpec, ImageSpec, Scenario, VCenterSpec, VmEntry


@pytest.fixture
def small():
    """Two processors, two drivers, three virtual CPUs, added to vCenter after a second."""
    return Scenario(
        name="small",
        duration_ns=2 * SECOND,
        host=HostSpec(memory_bytes=2048 * MIB, cpu=CpuSpec(cores_per_node=2)),
        image=ImageSpec(modules=2, module_size_bytes=2048),
        vms=(
            VmEntry(name="a", memory_bytes=64 * MIB),
            VmEntry(name="b", vcpus=2, memory_bytes=64 * MIB),
        ),
        vcenter=VCenterSpec(),
        expect=ExpectSpec(attestation="accepted"),
    )
