"""Claims about whole scenarios, whatever they are: they end, repeat, keep the invariants, and no bit goes unnoticed."""

import pickle

from hypothesis import event, given, settings

from sim.scenario.run import Simulation, simulate
from sim.testing import scenarios


@settings(max_examples=25)
@given(scenarios())
def test_any_scenario_ends_and_gives_the_same_digest_again(scenario):
    first = simulate(scenario)
    assert simulate(scenario).digest == first.digest
    if first.boot.state == "ok":
        judged = {"present": {"accepted", "notAccepted"}, "damaged": {"notAccepted"}}
        wanted = judged.get(scenario.tpm_state, set())
        assert first.attestation.status in wanted | {"N/A"}
        if scenario.tpm_state == "present" and scenario.host.firmware.secure_boot:
            assert first.attestation.status == "accepted", first.attestation
    event(first.attestation.status)


@settings(max_examples=25)
@given(scenarios(faults=True))
def test_invariants_hold_at_every_cut_and_a_copy_ends_alike(scenario):
    simulation = Simulation(scenario)
    for _ in range(4):
        simulation.advance(5)
        simulation.host.check_invariants()
    copy = pickle.loads(pickle.dumps(simulation))
    assert copy.finish().digest == simulation.finish().digest


@settings(max_examples=40)
@given(scenarios(faults=True))
def test_no_tampered_host_with_secure_boot_is_accepted(scenario):
    result = simulate(scenario)
    if scenario.faults and scenario.host.firmware.secure_boot:
        assert result.boot.state != "ok"
    if scenario.faults:
        assert result.attestation.status != "accepted"
