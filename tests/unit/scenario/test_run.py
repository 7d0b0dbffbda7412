import pickle

import pytest
from attrs import evolve

from sim import simulate
from sim.core.units import GIB, MIB, SECOND
from sim.errors import CheckpointError, ScenarioError
from sim.kernel.host import HostState
from sim.kernel.vm import CpuAllocation
from sim.kernel.workload import WorkloadSpec
from sim.report.run_report import attestation_section
from sim.scenario.build import kernelopt
from sim.scenario.collect import compare
from sim.scenario.faults import FaultSpec
from sim.scenario.result import AttestationResult, BootResult, ReasonRow
from sim.scenario.run import Simulation, boot_only
from sim.scenario.spec import ExpectSpec, Scenario, TraceSpec, VCenterSpec, VmEntry
from sim.vsphere.faults import NotAuthenticated

CUTS = (0, 1, 5 * SECOND, 9_100_000_000, 9_270_000_000, 9_300_000_000, 10_310_000_000, 20 * SECOND)


def test_the_whole_way_ends_as_expected(small):
    result = simulate(small)
    assert result.expectation.met, result.expectation.differences
    assert result.boot.state == "ok"
    assert result.simulated_ns > 2 * SECOND
    assert {vm.name: vm.alive_ns for vm in result.vms} == {"a": 2 * SECOND, "b": 2 * SECOND}
    assert sum(vm.run_ns for vm in result.vms) > 3.9 * SECOND
    assert all(
        vm.run_ns + vm.ready_ns + vm.max_limited_ns + vm.costop_ns + vm.wait_ns == vm.worlds * vm.alive_ns
        for vm in result.vms
    )
    assert sum(pcpu.busy_ns for pcpu in result.pcpus) >= sum(vm.run_ns for vm in result.vms)
    assert {module.name for module in result.modules} >= {"vmkernel", "vmkusb"}
    assert len(result.event_log) > 1000


def test_equal_scenarios_have_equal_results_and_another_seed_another_digest(small):
    first = simulate(small)
    assert simulate(small) == first
    other = simulate(small, seed=small.seed + 1)
    assert other.digest != first.digest
    assert other.scenario_id == first.scenario_id


@pytest.mark.parametrize("cut_ns", CUTS)
def test_a_pickle_in_the_middle_changes_nothing(small, cut_ns):
    whole = simulate(small)
    simulation = Simulation(small)
    simulation.run(cut_ns)
    copy = pickle.loads(pickle.dumps(simulation))
    assert copy.sim.now == simulation.sim.now
    assert copy.finish() == whole
    assert simulation.finish() == whole


def test_running_in_slices_changes_nothing(small):
    simulation = Simulation(small)
    while not simulation.finished:
        simulation.advance(97)
    assert simulation.finish() == simulate(small)


def test_asking_for_the_result_twice_gives_the_same(small):
    simulation = Simulation(small)
    assert simulation.finish() == simulation.finish()


def test_invariants_hold_at_every_slice(small):
    simulation = Simulation(small)
    while not simulation.finished:
        simulation.advance(40)
        simulation.check_invariants()


def test_switched_off_categories_change_the_digest_but_not_the_outcome(small):
    quiet = evolve(small, trace=TraceSpec(categories=("log",)))
    loud_result, quiet_result = simulate(small), simulate(quiet)
    assert quiet_result.records < loud_result.records
    assert quiet_result.vms == loud_result.vms
    assert quiet_result.pcrs == loud_result.pcrs


def test_boot_only_stops_when_the_host_is_up(small):
    result = simulate(boot_only(small))
    assert result.expectation.met
    assert result.vms == ()
    assert result.attestation.status == "N/A"
    assert result.boot.finished_ns <= result.simulated_ns


def test_a_refused_boot_ends_the_run_at_once(small):
    tampered = evolve(
        small,
        faults=(FaultSpec(kind="flip_bit", target="vib/vmkusb", byte=1000),),
        expect=ExpectSpec(boot="refused", component="vmkusb"),
    )
    result = simulate(tampered)
    assert result.expectation.met, result.expectation.differences
    assert result.simulated_ns == result.boot.finished_ns
    assert result.modules == ()


def test_a_reboot_starts_the_machines_again_and_attests_anew(small):
    rebooted = evolve(small, duration_ns=15 * SECOND, faults=(FaultSpec(kind="reboot", at_ns=SECOND),))
    simulation = Simulation(rebooted)
    result = simulation.finish()
    assert result.boot.boots == 2
    assert result.expectation.met, result.expectation.differences
    assert 0 < result.vms[0].alive_ns < 10 * SECOND
    assert result.attestation.time_ns > 10 * SECOND
    verdicts = simulation.sim.trace.select("vcenter.attestation")
    assert [row["status"] for row in verdicts] == ["accepted"]


TAMPERED_WHILE_IT_RUNS = (
    FaultSpec(kind="flip_bit", target="vib/vmkusb", unpacked=True, at_ns=2 * SECOND),
    FaultSpec(kind="reboot", at_ns=3 * SECOND),
)


def test_a_host_whose_secure_boot_is_switched_off_while_it_runs_does_not_get_its_configuration(small):
    attacked = evolve(
        small,
        duration_ns=20 * SECOND,
        faults=(FaultSpec(kind="disable_secure_boot", at_ns=2 * SECOND), *TAMPERED_WHILE_IT_RUNS),
        expect=ExpectSpec(boot="refused", component="unlock_configuration"),
    )
    simulation = Simulation(attacked)
    result = simulation.finish()
    assert result.expectation.met, result.expectation.differences
    assert "locked" in result.boot.message
    (entry,) = simulation.machinery.vcenter.hosts()
    assert entry.connection_state == "notResponding"


def test_a_host_that_is_tampered_with_while_it_runs_is_found_out_after_its_reboot(small):
    attacked = evolve(
        small,
        duration_ns=20 * SECOND,
        host=evolve(small.host, firmware=evolve(small.host.firmware, secure_boot=False)),
        faults=TAMPERED_WHILE_IT_RUNS,
        expect=ExpectSpec(attestation="notAccepted", component="vmkusb"),
    )
    simulation = Simulation(attacked)
    result = simulation.finish()
    assert result.expectation.met, result.expectation.differences
    verdicts = simulation.sim.trace.select("vcenter.attestation")
    assert ["vmkusb" in row["message"] for row in verdicts] == [False, True]


def test_a_machine_that_admission_refuses_is_named_and_may_be_expected(small):
    greedy = VmEntry(name="greedy", cpu=CpuAllocation(reservation_hz=10**12), memory_bytes=64 * MIB)
    huge = VmEntry(name="huge", memory_bytes=64 * GIB)
    scenario = evolve(small, vms=(*small.vms, greedy, huge))
    result = simulate(scenario)
    assert not result.expectation.met
    assert [line.split(" was")[0] for line in result.expectation.differences] == [
        "virtual machine greedy",
        "virtual machine huge",
    ]
    expected = evolve(scenario, expect=evolve(scenario.expect, vms_refused=("greedy", "huge")))
    assert simulate(expected).expectation.met


BOOT = BootResult(
    state="ok", host="h", boots=1, secure_boot=True, tpm="enabled", drtm=False, started_ns=0, finished_ns=1
)
REFUSED = evolve(BOOT, state="refused", component="x.v00", message="no")
VERDICT = AttestationResult(
    status="notAccepted", message="m", reasons=(ReasonRow(code="c", message="driver y", component="y.v00"),)
)


@pytest.mark.parametrize(
    ("expect", "boot", "refused", "differences"),
    [
        (ExpectSpec(), BOOT, [], 0),
        (ExpectSpec(), REFUSED, [], 1),
        (ExpectSpec(boot="refused"), REFUSED, [], 0),
        (ExpectSpec(boot="refused"), BOOT, [], 1),
        (ExpectSpec(boot="refused", component="x.v00"), REFUSED, [], 0),
        (ExpectSpec(boot="refused", component="z.v00"), REFUSED, [], 1),
        (ExpectSpec(attestation="notAccepted", component="y.v00"), BOOT, [], 0),
        (ExpectSpec(attestation="accepted"), BOOT, [], 1),
        (ExpectSpec(), BOOT, [("vm", "too big")], 1),
        (ExpectSpec(vms_refused=("vm",)), BOOT, [("vm", "too big")], 0),
        (ExpectSpec(vms_refused=("vm",)), BOOT, [], 1),
    ],
)
def test_each_point_of_an_expectation_is_checked(expect, boot, refused, differences):
    outcome = compare(expect, boot, VERDICT, refused)
    assert len(outcome.differences) == differences
    assert outcome.met is (differences == 0)


def test_options_are_spelled_as_boot_cfg_wants_them():
    assert (
        kernelopt(Scenario(options={"enableTboot": True, "x.y": 5, "z": "a/b"}))
        == "enableTboot=TRUE x.y=5 z=a/b"
    )


def test_an_option_that_is_nearly_a_known_one_is_refused():
    with pytest.raises(ScenarioError, match="did you mean 'enableTboot'"):
        kernelopt(Scenario(options={"enabletboot": True}))


def test_a_checkpoint_file_goes_on_to_the_same_result(small, tmp_path):
    simulation = Simulation(small)
    simulation.run(9_280_000_000)
    simulation.save(tmp_path / "c")
    assert Simulation.restore(tmp_path / "c").finish() == simulate(small)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: b"junk", "not a checkpoint"),
        (lambda data: b"", "not a checkpoint"),
        (lambda data: data.replace(b'"version": "', b'"version": "9', 1), "is of version 9"),
        (lambda data: data[:-1], "damaged"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "damaged"),
    ],
)
def test_a_foreign_or_damaged_checkpoint_is_refused(small, tmp_path, change, why):
    path = tmp_path / "c"
    Simulation(boot_only(small)).save(path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CheckpointError, match=why):
        Simulation.restore(path)


def test_a_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot read"):
        Simulation.restore(tmp_path / "none")


@pytest.mark.parametrize(
    "options", [{f"o{n}": 1 for n in range(101)}, {f"o{n}": "x" * 128 for n in range(40)}]
)
def test_more_options_than_boot_cfg_takes_are_a_scenario_error(small, options):
    with pytest.raises(ScenarioError, match=r"^options: too many"):
        Simulation(evolve(small, options=options))


def test_bytes_behind_a_checkpoint_are_damage_even_where_the_pickle_would_load(small, tmp_path):
    path = tmp_path / "c"
    Simulation(small).save(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="is damaged"):
        Simulation.restore(path)


def test_no_session_outlives_a_reboot_of_the_host(small):
    simulation = Simulation(evolve(small, vcenter=None, expect=ExpectSpec()))
    simulation.run()
    agent = simulation.machinery.agent
    session = agent.login("root", "simulated")
    agent.call("RetrieveHostInfo", session=session)
    simulation.host.reboot()
    simulation.sim.engine.run(simulation.sim.now + 30 * SECOND)
    assert simulation.host.state is HostState.RUNNING
    with pytest.raises(NotAuthenticated):
        agent.call("RetrieveHostInfo", session=session)


def test_the_verdict_of_a_host_that_no_longer_boots_is_marked_as_old(small):
    faults = (
        FaultSpec(
            kind="flip_bit",
            target="vib/vmkusb",
            unpacked=True,
            byte=0x2400,
            bit=0,
            at_ns=SECOND + 900_000_000,
        ),
        FaultSpec(kind="reboot", at_ns=SECOND + 950_000_000),
    )
    result = simulate(
        evolve(small, duration_ns=20 * SECOND, faults=faults, expect=ExpectSpec(boot="refused"))
    )
    assert result.boot.state == "refused"
    assert (result.attestation.status, result.attestation.connection) == ("accepted", "notResponding")
    assert simulate(small).attestation.connection == "connected"
    (text,) = [line for line in attestation_section(result).lines if "vCenter sees the host as" in line]
    assert "notResponding" in text


def test_a_workload_that_is_code_also_starts_where_vcenter_places_vms(small, tmp_path, monkeypatch):
    (tmp_path / "placed_steps.py").write_text(
        "from sim.kernel.workload import Run, Wait\n"
        "def steps():\n    while True:\n        yield Run(10**6)\n        yield Wait(10**6)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    workload = WorkloadSpec(kind="generator", function="placed_steps:steps")
    vms = (VmEntry(name="a", memory_bytes=64 * MIB, workload=workload),)
    placed = evolve(small, vms=vms, duration_ns=4 * SECOND, vcenter=VCenterSpec(place_vms=True))
    result = simulate(placed)
    assert result.expectation.met, result.expectation.differences
    assert 0 < result.vms[0].run_ns < 0.6 * result.vms[0].alive_ns
