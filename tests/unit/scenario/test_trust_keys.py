"""Two demands of a platform's and of a data centre's owner: a TPM that must work, and verdicts that must be young."""

import pickle

import attrs
import pytest

from sim.boot.bootinfo import TpmFailureRule
from sim.core.units import SECOND
from sim.errors import ScenarioError
from sim.report.run_report import attestation_section
from sim.scenario.load import parse_scenario
from sim.scenario.policies import EngineSpec
from sim.scenario.run import Simulation, simulate
from sim.scenario.spec import ExpectSpec, TpmSpec, VCenterSpec
from sim.tpm.fault_spec import Fault

BROKEN = (Fault(kind="fail", command="PCR_Extend", first=5, count=1000),)


@pytest.fixture
def bare(small):
    return attrs.evolve(small, vms=(), duration_ns=40 * SECOND)


@pytest.mark.parametrize(
    ("rule", "broken", "boot"),
    [
        ("continue", True, "ok"),
        ("continue", False, "ok"),
        ("halt", True, "refused"),
        ("halt", False, "ok"),
    ],
)
def test_the_firmware_halts_for_a_failed_tpm_where_it_is_told_to(bare, rule, broken, boot):
    tpm = TpmSpec(on_failure=rule, faults=BROKEN if broken else ())
    scenario = attrs.evolve(bare, tpm=tpm, vcenter=None, expect=ExpectSpec(boot=boot))
    result = simulate(scenario)
    assert result.expectation.met, result.expectation.differences
    if rule == "continue":
        assert (result.boot.tpm == "failed") is broken
    if boot == "refused":
        assert (result.boot.stage, result.boot.component) == ("firmware", "TPM")
        assert result.boot.message.startswith("TPM: failed: ")


@pytest.mark.parametrize("state", ["damaged", "disabled", "absent"])
def test_only_a_tpm_that_is_in_use_can_fail(bare, state):
    tpm = TpmSpec(on_failure="halt", state=state)
    boot = "refused" if state == "damaged" else "ok"
    result = simulate(attrs.evolve(bare, tpm=tpm, vcenter=None, expect=ExpectSpec(boot=boot)))
    assert result.expectation.met, result.expectation.differences


def test_a_file_says_both_and_the_defaults_are_those_of_before():
    scenario = parse_scenario('[tpm]\non_failure = "halt"\n[vcenter]\nverdict_age_max = "90s"\n')
    assert scenario.tpm.on_failure == TpmFailureRule.STOP
    assert scenario.vcenter.verdict_age_max_ns == 90 * SECOND
    assert Simulation(scenario).host.policy.tpm_failure is TpmFailureRule.STOP
    assert Simulation(scenario).machinery.vcenter.verdict_age_ns_max == 90 * SECOND
    plain = parse_scenario("[vcenter]\n")
    assert plain.tpm.on_failure == TpmFailureRule.GO_ON
    assert plain.vcenter.verdict_age_max_ns is None


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ('[tpm]\non_failure = "stop"', "tpm.on_failure", "one of continue, halt"),
        ('[tpm]\non_failure = "haltt"', "tpm.on_failure", "one of continue, halt"),
        ("[tpm]\non_failure = true", "tpm.on_failure", "a text"),
        ('[vcenter]\nverdict_age_max = "1ms"', "vcenter.verdict_age_max", "an integer from 1000000000 to"),
        ("[vcenter]\nverdict_age_max = -1", "vcenter.verdict_age_max", "an integer from 1000000000 to"),
        ('[vcenter]\nverdict_age_max = "soon"', "vcenter.verdict_age_max", "soon"),
        ('[vcenter]\nverdict_age_ns_max = "1h"', "vcenter.verdict_age_ns_max", ""),
    ],
)
def test_a_wrong_value_is_refused_at_its_key(text, path, words):
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text)
    assert caught.value.path == f"scenario: {path}"
    assert words in str(caught.value)


def looks(simulation):
    return [
        row["detail"]
        for row in simulation.sim.trace.select("scenario.step")
        if row["what"] == "verdict is stale"
    ]


def aged(bare, **fields):
    return attrs.evolve(bare, vcenter=VCenterSpec(**fields))


def test_a_verdict_is_stale_as_soon_as_it_is_too_old(bare):
    simulation = Simulation(aged(bare, verdict_age_max_ns=20 * SECOND))
    result = simulation.finish()
    assert result.attestation.status == "accepted"
    assert "more than 20 s ago" in result.attestation.stale
    assert looks(simulation) == [result.attestation.stale]
    assert any("the verdict is stale: attested at" in line for line in attestation_section(result).lines)


@pytest.mark.parametrize("fields", [{}, {"verdict_age_max_ns": 60 * SECOND}])
def test_a_verdict_that_is_young_enough_holds(bare, fields):
    simulation = Simulation(aged(bare, **fields))
    result = simulation.finish()
    assert (result.attestation.status, result.attestation.stale, looks(simulation)) == ("accepted", "", [])


def test_a_new_attestation_in_time_keeps_the_verdict_young(bare):
    simulation = Simulation(aged(bare, verdict_age_max_ns=20 * SECOND, attest_every_ns=10 * SECOND))
    result = simulation.finish()
    assert (result.attestation.stale, looks(simulation)) == ("", [])


def test_a_late_attestation_makes_a_stale_verdict_good_again(bare):
    fields = {"verdict_age_max_ns": 10 * SECOND, "attest_every_ns": 25 * SECOND}
    simulation = Simulation(attrs.evolve(aged(bare, **fields), duration_ns=30 * SECOND))
    result = simulation.finish()
    assert len(looks(simulation)) == 1
    assert (result.attestation.status, result.attestation.stale) == ("accepted", "")


def test_policy_engines_take_a_stale_verdict_for_a_refusal(bare):
    engine = EngineSpec(kind="allow_list", actions=("alarm", "quarantine"))
    result = simulate(aged(bare, verdict_age_max_ns=20 * SECOND, engines=(engine,)))
    assert result.attestation.quarantined
    assert "more than 20 s ago" in result.attestation.policies[0].message


def test_a_run_that_waits_for_that_moment_is_saved_and_ends_the_same(bare):
    scenario = aged(bare, verdict_age_max_ns=20 * SECOND)
    simulation = Simulation(scenario)
    simulation.run(25 * SECOND)
    restored = pickle.loads(pickle.dumps(simulation))
    assert restored.finish() == simulation.finish() == simulate(scenario)
