"""Faults of the TPM in a scenario: they hit the machine's own commands, and what follows is the machine's doing."""

import pytest

from sim.errors import ScenarioError
from sim.kernel.host import HostState
from sim.scenario.load import parse_scenario
from sim.scenario.run import Simulation
from sim.tpm.constants import TPM_CC, TPM_RC
from sim.tpm.state import fork
from sim.vsphere.attestation_run import TPM_UNREACHABLE

HEAD = 'duration = "20s"\n[image]\nmodules = 3\n[vcenter]\nadd_host = "1s"\n'


def fault(**keys):
    lines = [f"{key} = {value!r}" for key, value in keys.items()]
    return "[[tpm.faults]]\n" + "\n".join(lines) + "\n"


def ran(text):
    simulation = Simulation(parse_scenario(HEAD + text))
    return simulation, simulation.finish()


def hits(simulation):
    return [(each["kind"], each["command"]) for each in simulation.sim.trace.select("fault.tpm")]


def commands(simulation, code):
    return [each for each in simulation.sim.trace.select("tpm.command") if each["code"] == code]


@pytest.fixture(scope="module")
def quiet():
    """The same scenario without a fault."""
    return ran("")


def test_an_extend_of_a_module_that_fails_stops_the_boot():
    simulation, _ = ran(fault(command="PCR_Extend", handle=12, kind="fail", rc="NV_RATE"))
    assert hits(simulation) == [("fail", "PCR_Extend")]
    assert simulation.host.state is HostState.HALTED
    assert simulation.host.failure.component == "b.b00"
    assert commands(simulation, TPM_CC.PCR_Extend)[-1]["rc"] == 0x920


def test_an_extend_of_the_firmware_that_fails_costs_the_attestation(quiet):
    simulation, result = ran(fault(command="PCR_Extend", kind="fail", first=3))
    assert quiet[1].attestation.status == "accepted"
    assert simulation.host.state is HostState.RUNNING
    assert result.attestation.status == "notAccepted"
    assert len(commands(simulation, TPM_CC.PCR_Extend)) == 3, "the firmware gave the TPM up"


def test_a_tpm_with_a_damaged_state_costs_the_attestation_and_makes_no_key():
    simulation, result = ran('[tpm]\nstate = "damaged"\n')
    assert simulation.host.state is HostState.RUNNING
    assert (result.boot.tpm, result.pcrs) == ("failed", {})
    assert result.attestation.status == "notAccepted"
    assert result.attestation.message == TPM_UNREACHABLE
    assert simulation.machinery.host.board.tpm.device.damage.startswith("TPM state")
    sent = simulation.sim.trace.select("tpm.command")
    assert sent
    assert {each["rc"] for each in sent} == {TPM_RC.FAILURE}


def test_a_quote_that_is_delayed_delays_the_verdict_by_as_much(quiet):
    simulation, result = ran(fault(command="Quote", kind="delay", delay="2s"))
    assert hits(simulation) == [("delay", "Quote")]
    assert result.attestation.status == "accepted"
    assert result.attestation.time_ns == quiet[1].attestation.time_ns + 2_000_000_000


def test_a_lost_answer_leaves_an_event_that_firmware_never_logged():
    simulation, _ = ran(fault(command="PCR_Extend", handle=12, kind="lose_answer"))
    assert simulation.host.state is HostState.HALTED
    assert simulation.machinery.tpm.event_log.endswith(b"TPM2_PCR_Extend at locality 0")
    assert commands(simulation, TPM_CC.PCR_Extend)[-1]["latency_ns"] == 750_000_000


def test_a_tpm_that_loses_power_wants_a_reboot_and_is_well_after_it(quiet):
    losing = fault(command="Quote", kind="power_loss")
    simulation, result = ran(losing)
    assert hits(simulation) == [("power_loss", "Quote")]
    assert not simulation.machinery.tpm.started
    assert result.attestation.status == "notAccepted"
    simulation, result = ran(losing + '[[faults]]\nkind = "reboot"\nat = "4s"\n')
    assert simulation.machinery.tpm.started
    assert result.attestation.status == "accepted"
    kept = {
        path: value for path, value in vars(simulation.machinery.tpm).items() if path in ("nv", "hierarchies")
    }
    assert kept == {path: vars(quiet[0].machinery.tpm)[path] for path in kept}


def test_the_tpm_of_a_machine_can_be_looked_at_from_outside(quiet):
    tpm = quiet[0].machinery.tpm
    assert fork(tpm).event_log == tpm.event_log == quiet[1].event_log
    assert fork(tpm).clock.now == quiet[0].sim.now


def test_a_run_with_faults_goes_on_from_a_checkpoint_to_the_same_digest(tmp_path):
    scenario = parse_scenario(HEAD + fault(command="Quote", kind="delay", delay="1s"))
    whole = Simulation(scenario).finish()
    halved = Simulation(scenario)
    halved.run(5_000_000_000)
    halved.save(tmp_path / "half")
    assert Simulation.restore(tmp_path / "half").finish().digest == whole.digest


def test_faults_are_part_of_the_scenario_and_of_its_id():
    with_fault = parse_scenario(HEAD + fault(command="Quote", kind="retry"))
    assert with_fault.tpm.faults[0].kind == "retry"
    assert with_fault.id != parse_scenario(HEAD).id


@pytest.mark.parametrize(
    ("text", "path", "nearest"),
    [
        (fault(command="Quoet", kind="fail"), "scenario: tpm.faults[0].command", "Quote"),
        (fault(kind="fail") + fault(kind="dely", delay="1s"), "scenario: tpm.faults[1].kind", "delay"),
        (fault(kind="fail", frist=3), "scenario: tpm.faults[0].frist", "first"),
        (fault(kind="delay", delay="soon"), "scenario: tpm.faults[0].delay", None),
        ('[tpm]\nstate = "disabled"\n' + fault(kind="fail"), "scenario: tpm", None),
        ('[tpm]\nstate = "damaged"\n' + fault(kind="fail"), "scenario: tpm", None),
        ("[host]\ntpm_present = false\n" + fault(kind="fail"), "scenario: tpm", None),
    ],
)
def test_a_wrong_fault_is_refused_at_its_key_path(text, path, nearest):
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(HEAD + text)
    assert (caught.value.path, caught.value.nearest) == (path, nearest)
