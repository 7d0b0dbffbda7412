"""Stray interrupts as a fault: how many, where, and that they end with the boot they began in."""

from sim.core.units import MIB, SECOND
from sim.hw.spec import CpuSpec, HostSpec
from sim.scenario.faults import FaultSpec
from sim.scenario.run import Simulation
from sim.scenario.spec import ImageSpec, Scenario


def stray(at_s=1, **fields):
    return FaultSpec(kind="stray_interrupts", at_ns=at_s * SECOND, **fields)


def run(*faults, seed=0):
    simulation = Simulation(
        Scenario(
            seed=seed,
            duration_ns=3 * SECOND,
            image=ImageSpec(modules=2, module_size_bytes=1024),
            host=HostSpec(memory_bytes=512 * MIB, cpu=CpuSpec(cores_per_node=2)),
            faults=faults,
        )
    )
    simulation.finish()
    return simulation


def test_the_vector_that_a_fault_names_gets_so_many_interrupts():
    simulation = run(stray(vector=0x60, count=500), stray(vector=0xEF))
    interrupts = simulation.host.kernel.interrupts
    assert interrupts.unowned == {0x60: 500}
    assert interrupts.taken == {"vmkernel": 1}
    struck = [(row["kind"], row["target"]) for row in simulation.sim.trace.select("fault.strike")]
    assert struck == [("stray_interrupts", "vector 0x60"), ("stray_interrupts", "vector 0xef")]


def test_a_vector_that_is_left_open_is_drawn_from_those_that_nobody_owns():
    vectors = {next(iter(run(stray(), seed=seed).host.kernel.interrupts.unowned)) for seed in range(3)}
    assert len(vectors) > 1
    assert all(32 <= vector < 256 for vector in vectors)


def test_a_storm_ends_with_its_boot():
    simulation = run(stray(count=1_000_000), FaultSpec(kind="reboot", at_ns=SECOND + SECOND // 100))
    assert simulation.host.kernel is None or simulation.host.kernel.interrupts.unowned == {}
    (told,) = simulation.sim.trace.select("interrupt.unowned")
    assert told["count"] == 1


def test_a_host_that_does_not_run_gets_none():
    simulation = run(FaultSpec(kind="reboot", at_ns=SECOND), stray(at_s=2))
    struck = [row["kind"] for row in simulation.sim.trace.select("fault.strike")]
    assert struck == ["stray_interrupts (nothing there)"]
