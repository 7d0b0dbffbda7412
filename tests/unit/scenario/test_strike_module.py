"""A module unloaded while another processor uses it: what that processor gets, with shootdowns and without."""

import pytest

from sim.core.units import MIB, SECOND
from sim.errors import ScenarioError
from sim.hw.spec import HostSpec
from sim.kernel.layout.spec import KernelSpec
from sim.scenario.faults import FaultSpec
from sim.scenario.run import Simulation
from sim.scenario.spec import ImageSpec, Scenario


def unload(target="module/lsi_mr3", at_s=1):
    return FaultSpec(kind="unload_module", target=target, at_ns=at_s * SECOND)


def run(*faults, shootdowns=True, **more):
    simulation = Simulation(
        Scenario(
            image=ImageSpec(modules=2, module_size_bytes=1024),
            host=HostSpec(memory_bytes=256 * MIB),
            kernel=KernelSpec(shootdowns=shootdowns),
            faults=faults,
            duration_ns=3 * SECOND,
            **more,
        )
    )
    simulation.finish()
    simulation.check_invariants()
    return simulation


def looks(simulation):
    return [(row["outcome"], row["owner"]) for row in simulation.sim.trace.select("memory.late_access")]


def test_with_shootdowns_the_frame_keeps_its_owner_until_the_last_processor_has_forgotten():
    simulation = run(unload())
    before, during, after = looks(simulation)
    assert before == during == ("granted", "module:lsi_mr3")
    assert after[0].startswith("#PF error code 0x0")
    assert after[1] == ""
    pcpus = simulation.host.board.processors.count
    (begun,) = simulation.sim.trace.select("mmu.shootdown")
    assert (begun["targets"], begun["deferred"]) == (pcpus - 1, 0), "every space shows the kernel's mappings"
    assert len(simulation.sim.trace.select("mmu.shootdown_taken")) == pcpus - 1
    (done,) = simulation.sim.trace.select("mmu.shootdown_done")
    assert done["frames_freed"] > 0
    assert done["time_ns"] - begun["time_ns"] == done["latency_ns"] > 1_000


def test_without_shootdowns_a_processor_reads_frames_that_are_nobodys():
    simulation = run(unload(), shootdowns=False)
    assert looks(simulation) == [("granted", "module:lsi_mr3"), ("granted", ""), ("granted", "")]
    assert not simulation.sim.trace.select("mmu.shootdown")


def test_the_addresses_of_a_module_are_free_only_after_the_shootdown():
    simulation = Simulation(
        Scenario(image=ImageSpec(modules=2, module_size_bytes=1024), host=HostSpec(memory_bytes=256 * MIB))
    )
    simulation.run(11 * SECOND)
    kernel = simulation.host.kernel
    module = kernel.loader.get("lsi_mr3")
    kernel.loader.unload("lsi_mr3")
    held = {region.base for region in kernel.layout.regions()}
    assert held >= set(module.regions)
    assert kernel.board.memory.frames_of("module:lsi_mr3") > 0
    kernel.check_invariants()
    simulation.finish()
    assert not {region.base for region in kernel.layout.regions()} & set(module.regions)
    assert kernel.board.memory.frames_of("module:lsi_mr3") == 0


def test_a_reset_ends_a_shootdown_that_is_on_its_way():
    simulation = Simulation(
        Scenario(image=ImageSpec(modules=2, module_size_bytes=1024), host=HostSpec(memory_bytes=256 * MIB))
    )
    simulation.run(11 * SECOND)
    host = simulation.host
    host.kernel.loader.unload("lsi_mr3")
    assert host.board.processors.unit.in_flight == 1
    host.reset()
    assert not host.board.processors.made
    simulation.finish()
    simulation.check_invariants()
    assert not simulation.sim.trace.select("mmu.shootdown_done")


def test_a_world_that_ends_gives_its_frames_and_tables_back():
    simulation = Simulation(Scenario(host=HostSpec(memory_bytes=512 * MIB)))
    simulation.run(11 * SECOND)
    kernel = simulation.host.kernel
    memory = kernel.board.memory
    assert memory.frames_of("user:hostd")
    assert memory.frames_of("user:hostd/page tables")
    kernel.user_worlds.end("hostd")
    assert memory.frames_of("user:hostd") > 0, "processors may have translations still"
    kernel.check_invariants()
    simulation.finish()
    assert memory.frames_of("user:hostd") == memory.frames_of("user:hostd/page tables") == 0
    assert "hostd" not in kernel.user_worlds.running
    simulation.check_invariants()


def test_a_boot_makes_no_processors_and_no_shootdowns():
    simulation = run()
    assert not simulation.host.board.processors.made
    assert not simulation.sim.trace.select("mmu.shootdown")


def test_the_same_unload_leaves_the_same_trace_twice():
    first, second = (run(unload()) for _ in range(2))
    assert first.sim.trace.digest() == second.sim.trace.digest()


def test_a_run_is_saved_in_the_middle_of_a_shootdown_and_goes_on_alike(tmp_path):
    whole = run(unload())
    part = Simulation(whole.scenario)
    part.run(whole.first_ready_ns + SECOND)
    assert part.host.board.processors.unit.in_flight == 1
    part.save(tmp_path / "run")
    again = Simulation.restore(tmp_path / "run")
    again.finish()
    assert again.sim.trace.digest() == whole.sim.trace.digest()


@pytest.mark.parametrize(
    ("target", "text"), [("module/lsi_mr", "lsi_mr3"), ("module/vmkernel", "in use by ")]
)
def test_a_module_that_cannot_be_unloaded_is_an_error_of_the_scenario(target, text):
    with pytest.raises(ScenarioError, match=text):
        run(unload(target))


def test_a_processor_that_runs_another_space_is_interrupted_for_the_kernels_memory_too():
    simulation = Simulation(
        Scenario(image=ImageSpec(modules=2, module_size_bytes=1024), host=HostSpec(memory_bytes=256 * MIB))
    )
    simulation.run(11 * SECOND)
    kernel = simulation.host.kernel
    processors = kernel.board.processors
    processors.unit.switch(1, kernel.user_worlds.running["hostd"].memory.space.control.cr3)
    kernel.loader.unload("lsi_mr3")
    (row,) = simulation.sim.trace.select("mmu.shootdown")
    assert (row["targets"], row["deferred"]) == (processors.count - 1, 0)


def test_a_processor_that_does_not_run_an_ended_world_owes_a_flush_only():
    simulation = Simulation(Scenario(host=HostSpec(memory_bytes=512 * MIB)))
    simulation.run(11 * SECOND)
    kernel = simulation.host.kernel
    processors = kernel.board.processors
    processors.unit.switch(1, kernel.user_worlds.running["hostd"].memory.space.control.cr3)
    kernel.user_worlds.end("hostd")
    (row,) = simulation.sim.trace.select("mmu.shootdown")
    assert (row["targets"], row["deferred"]) == (1, processors.count - 2)
