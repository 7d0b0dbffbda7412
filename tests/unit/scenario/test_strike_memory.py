"""Memory errors in whole scenarios: who dies of them, and what becomes of the page."""

import pytest

from sim.core.structure import structure
from sim.core.units import MIB, SECOND
from sim.errors import ScenarioError
from sim.hw.frame_counts import RETIRED_OWNER
from sim.hw.mca import STATUS_ACTION_REQUIRED, STATUS_ADDRESS_VALID, STATUS_UNCORRECTED, STATUS_VALID
from sim.hw.spec import HostSpec
from sim.kernel.api import ApiError
from sim.kernel.host import HostState
from sim.kernel.vm import PowerState
from sim.scenario.faults import FaultSpec
from sim.scenario.run import Simulation
from sim.scenario.spec import ExpectSpec, ImageSpec, Scenario, VmEntry

IMAGE = ImageSpec(modules=1, module_size_bytes=1024)


def error(target="vm/web", at_s=2, **more):
    return FaultSpec(kind="memory_error", target=target, at_ns=at_s * SECOND, **more)


def scenario(*faults, boot="ok", component=None, **more):
    return Scenario(
        image=IMAGE,
        host=HostSpec(memory_bytes=256 * MIB, patrol_scrub_ns=4 * SECOND),
        vms=(VmEntry(name="web", memory_bytes=16 * MIB), VmEntry(name="db", memory_bytes=16 * MIB)),
        faults=faults,
        expect=ExpectSpec(boot=boot, component=component),
        **more,
    )


def run(*faults, **more):
    simulation = Simulation(scenario(*faults, **more))
    result = simulation.finish()
    simulation.check_invariants()
    assert result.expectation.met, result.expectation.differences
    return simulation


def rows(simulation):
    return simulation.sim.trace.select("memory.error")


def states(simulation):
    return {name: vm.state for name, vm in simulation.host.kernel.vms.vms.items()}


def test_a_consumed_error_in_a_vms_page_kills_that_vm_only():
    simulation = run(error(byte=5 * MIB + 100))
    assert states(simulation) == {"web": PowerState.POWERED_OFF, "db": PowerState.POWERED_ON}
    (row,) = rows(simulation)
    assert (row["owner"], row["action"], row["victim"]) == ("vm:web", "vm killed", "web")
    status = row["status"] % 2**64
    for bit in (STATUS_VALID, STATUS_UNCORRECTED, STATUS_ADDRESS_VALID, STATUS_ACTION_REQUIRED):
        assert status & bit
    assert status & 0xFFFF == 0x134
    (struck,) = simulation.sim.trace.select("fault.strike")
    assert row["address"] == struck["byte"] & -64
    memory = simulation.host.board.memory
    assert memory.owner_of(row["address"] >> 12) == RETIRED_OWNER
    assert memory.frames_of("vm:web") == 0
    assert simulation.host.state is HostState.RUNNING
    assert "web" in simulation.sim.trace.select("vm.killed")[0]["vm"]


def test_the_kernels_own_page_is_a_purple_screen():
    simulation = run(error("kernel", byte=8), boot="refused", component="machine check")
    assert simulation.host.state is HostState.HALTED
    (row,) = rows(simulation)
    assert (row["action"], row["victim"]) == ("purple screen", "vmkernel")
    (panic,) = simulation.sim.trace.select("kernel.panic")
    assert panic["text"].startswith("System has encountered a Hardware Error")
    assert "Machine Check Exception" in simulation.host.failure.message
    assert any("@BlueScreen" in each["text"] for each in simulation.sim.trace.select("log.line"))


def test_one_wrong_bit_is_corrected_logged_and_harms_nobody():
    simulation = run(error(byte=77, bits=1), error("kernel", byte=77, bits=1))
    assert set(states(simulation).values()) == {PowerState.POWERED_ON}
    found = rows(simulation)
    assert [row["action"] for row in found] == ["corrected", "corrected"]
    assert all(row["status"] % 2**64 & STATUS_UNCORRECTED == 0 for row in found)
    assert simulation.host.board.memory.frames_retired == 0
    lines = [row["text"] for row in simulation.sim.trace.select("log.line") if "MCE:" in row["text"]]
    assert len(lines) == 2
    assert all("bank7: status=0x" in line and "UC=0" in line for line in lines)


def test_a_page_that_the_patrol_scrubber_finds_first_is_retired_and_the_vm_lives():
    simulation = run(error(byte=9 * MIB, found_by="scrub"))
    assert set(states(simulation).values()) == {PowerState.POWERED_ON}
    (row,) = rows(simulation)
    assert row["action"] == "page retired"
    status = row["status"] % 2**64
    assert status & STATUS_UNCORRECTED
    assert not status & STATUS_ACTION_REQUIRED
    assert status & 0xFFF0 == 0x00C0
    mpn = row["address"] >> 12
    assert 2 * SECOND <= row["time_ns"] - simulation.first_ready_ns <= 6 * SECOND
    memory = simulation.host.board.memory
    assert memory.owner_of(mpn) == RETIRED_OWNER
    assert all(extent.first_mpn != mpn for extent in memory.allocate(memory.frames_free, "everything"))
    assert memory.owner_of(mpn) == RETIRED_OWNER


def test_a_vm_that_touches_a_lost_page_later_is_killed_then():
    simulation = run(error(byte=9 * MIB, found_by="scrub"))
    kernel = simulation.host.kernel
    web, db = kernel.vms.get("web"), kernel.vms.get("db")
    assert web.guest.load_physical(9 * MIB + 4096, 1) == b"\0"
    assert web.state is PowerState.POWERED_ON
    assert web.guest.load_physical(9 * MIB + 5, 1).action_required
    assert (web.state, db.state) == (PowerState.POWERED_OFF, PowerState.POWERED_ON)
    simulation.check_invariants()


def test_a_free_frame_is_retired_and_never_allocated_again_not_even_after_a_reboot():
    free = 200 * MIB
    simulation = run(
        error("dram", byte=free, found_by="scrub", at_s=1),
        FaultSpec(kind="reboot", at_ns=7 * SECOND),
        duration_ns=60 * SECOND,
    )
    (row,) = rows(simulation)
    assert (row["owner"], row["action"]) == ("", "page retired")
    memory = simulation.host.board.memory
    assert simulation.host.board.boot_count == 2
    memory.allocate(memory.frames_free, "everything")
    assert memory.owner_of(free >> 12) == RETIRED_OWNER


def test_the_kernels_page_stays_where_it_is_when_the_scrubber_finds_the_error():
    simulation = run(error("kernel", byte=8, found_by="scrub"))
    assert [row["action"] for row in rows(simulation)] == ["left in place"]
    assert simulation.host.state is HostState.RUNNING


def test_an_error_of_a_page_that_two_vms_share_kills_its_reader_and_the_other_when_it_reads():
    simulation = run()
    kernel = simulation.host.kernel
    web, db = kernel.vms.get("web"), kernel.vms.get("db")
    web.space.populate(3, 1)
    mpn = web.space.share(3)
    db.space.map_shared(4, mpn)
    simulation.host.board.flip_memory_bits(mpn << 12, [3, 60])
    assert web.guest.load_physical(3 << 12, 1).uncorrected
    assert (web.state, db.state) == (PowerState.POWERED_OFF, PowerState.POWERED_ON)
    assert simulation.host.board.memory.owner_of(mpn) == RETIRED_OWNER
    kernel.check_invariants()
    assert db.guest.load_physical(4 << 12, 1).uncorrected
    assert db.state is PowerState.POWERED_OFF
    kernel.check_invariants()


def in_the_tables_of(simulation, name):
    """Let two bits of the EPT root of a VM fail, and return the VM."""
    vm = simulation.host.kernel.vms.get(name)
    vm.guest.load_physical(0, 1)
    simulation.host.board.flip_memory_bits(vm.space.tables.control.root, [0, 1])
    return vm


def test_a_vms_ept_tables_are_the_kernels_own_memory():
    simulation = run()
    assert in_the_tables_of(simulation, "web").guest.load_physical(0, 1).uncorrected
    assert simulation.host.state is HostState.HALTED
    assert rows(simulation)[-1]["action"] == "purple screen"
    assert rows(simulation)[-1]["owner"] == "vm:web/ept"
    simulation.check_invariants()


def test_a_management_call_that_meets_lost_data_is_refused_by_a_host_that_has_stopped():
    simulation = run()
    in_the_tables_of(simulation, "web")
    with pytest.raises(ApiError, match="has stopped"):
        simulation.host.call("vm.power_off", {"name": "web"})
    assert simulation.host.state is HostState.HALTED
    with pytest.raises(ApiError, match="halted"):
        simulation.host.call("vm.list")
    simulation.host.reset()
    simulation.sim.engine.run(simulation.sim.now + 30 * SECOND)
    assert simulation.host.state is HostState.RUNNING
    simulation.check_invariants()


def test_stopping_a_host_meets_no_lost_data_and_a_reset_does_not_mend_it():
    simulation = run()
    in_the_tables_of(simulation, "web")
    words = dict(simulation.host.board.memory.errors.words)
    simulation.host.reboot()
    assert words
    assert simulation.host.board.memory.errors.words == words
    simulation.host.power_off()
    assert simulation.host.board.memory.errors.words == {}


def test_a_vm_that_is_off_and_a_host_that_is_down_are_not_struck():
    simulation = run(error(at_s=1), error(at_s=2))
    assert [row["kind"] for row in simulation.sim.trace.select("fault.strike")] == [
        "memory_error",
        "memory_error (nothing there)",
    ]
    assert len(rows(simulation)) == 1


def test_the_same_seed_flips_the_same_bits_and_ends_in_the_same_digest():
    first, second = (run(error(), error("vm/db", found_by="scrub")).finish() for _ in range(2))
    assert first.digest == second.digest
    assert run(error(), error("vm/db", found_by="scrub"), seed=1).finish().digest != first.digest


def test_a_run_saved_between_the_error_and_its_discovery_goes_on_alike(tmp_path):
    spec = scenario(error(byte=9 * MIB, found_by="scrub"))
    whole = Simulation(spec).finish()
    half = Simulation(spec)
    half.run(0)
    while half.first_ready_ns is None:
        half.run(half.sim.now + SECOND)
    half.run(half.first_ready_ns + 2 * SECOND + 1)
    assert half.host.board.memory.errors.words
    half.save(tmp_path / "half")
    assert Simulation.restore(tmp_path / "half").finish().digest == whole.digest


@pytest.mark.parametrize(("target", "byte"), [("vm/nobody", None), ("vm/web", 16 * MIB), ("dram", 256 * MIB)])
def test_a_target_that_the_scenario_does_not_have_is_refused_before_the_run(target, byte):
    fault = {"kind": "memory_error", "target": target, "at": "1s"} | ({} if byte is None else {"byte": byte})
    vms = [{"name": "web", "memory": "16MiB"}]
    with pytest.raises(ScenarioError) as caught:
        structure({"vms": vms, "faults": [fault], "host": {"memory": "256MiB"}}, Scenario)
    assert caught.value.path == "faults"


def test_a_byte_beyond_the_kernels_memory_is_an_error_of_the_scenario():
    with pytest.raises(ScenarioError, match="kernel has"):
        Simulation(scenario(error("kernel", byte=100 * MIB))).finish()
