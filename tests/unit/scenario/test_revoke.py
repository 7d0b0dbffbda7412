"""Revocations in scenarios: of signers of VIBs, of keys of early modules, of the boot loader, in every form."""

import pytest

from sim.core.units import MIB, SECOND
from sim.errors import ScenarioError
from sim.hw.spec import CpuSpec, FirmwareSpec, HostSpec
from sim.image.crl import load_crl
from sim.image.efi_lists import parse_signature_lists
from sim.scenario.faults import REVOCATION_FORMS, FaultSpec
from sim.scenario.load import parse_scenario
from sim.scenario.run import Simulation, simulate
from sim.scenario.spec import ExpectSpec, ImageSpec, Scenario, VCenterSpec

EARLY, VIB = "early/vmksim_esx80_k01", "signer/certified/VMware"
CASES = [
    (target, form)
    for target, place in ((EARLY, "early"), (VIB, "signer"), ("loader", "loader"))
    for form in REVOCATION_FORMS[place]
]
WORDS = {
    (EARLY, "list"): ("mboot", "b.b00"),
    (EARLY, "digest"): ("mboot", "b.b00"),
    (VIB, "list"): ("secureboot", "Failed to verify signatures"),
    (VIB, "digest"): ("secureboot", "Failed to verify signatures"),
    ("loader", "certificate"): ("firmware", "UEFI0073"),
    ("loader", "digest"): ("firmware", "UEFI0073"),
    ("loader", "image"): ("firmware", "UEFI0073"),
}


def scenario(*faults, secure_boot=True, duration_ns=5 * SECOND, **fields):
    return Scenario(
        name="revoked",
        duration_ns=duration_ns,
        host=HostSpec(
            memory_bytes=2048 * MIB,
            cpu=CpuSpec(cores_per_node=2),
            firmware=FirmwareSpec(secure_boot=secure_boot),
        ),
        image=ImageSpec(modules=2, module_size_bytes=2048),
        faults=faults,
        **fields,
    )


@pytest.mark.parametrize(("target", "form"), CASES)
def test_who_is_revoked_before_power_on_is_refused_under_secure_boot(target, form):
    fault = FaultSpec(kind="revoke", target=target, form=form)
    simulation = Simulation(scenario(fault, expect=ExpectSpec(boot="refused")))
    result = simulation.finish()
    assert result.expectation.met, result.expectation.differences
    stage, words = WORDS[target, form]
    assert result.boot.stage == stage
    assert words in f"{result.boot.component} {result.boot.message}"
    (row,) = simulation.sim.trace.select("fault.revoked")
    assert (row["host"], row["target"], row["form"], len(row["certificate"])) == (
        "esx01", target, form, 32,
    )  # fmt: skip


@pytest.mark.parametrize(("target", "form"), CASES)
def test_without_secure_boot_a_revoked_signer_stops_nothing(target, form):
    fault = FaultSpec(kind="revoke", target=target, form=form)
    assert simulate(scenario(fault, secure_boot=False)).expectation.met


@pytest.mark.parametrize("target", [EARLY, VIB, "loader"])
def test_the_usual_form_is_the_first(target):
    fault = FaultSpec(kind="revoke", target=target)
    assert fault.revocation_form == REVOCATION_FORMS[target.partition("/")[0]][0]
    assert FaultSpec(kind="disable_tpm").revocation_form is None


@pytest.mark.parametrize("target", [EARLY, VIB, "loader"])
def test_a_running_host_learns_of_it_at_its_next_boot(target):
    fault = FaultSpec(kind="revoke", target=target, at_ns=2 * SECOND)
    assert simulate(scenario(fault)).expectation.met
    again = FaultSpec(kind="reboot", at_ns=3 * SECOND)
    simulation = Simulation(scenario(fault, again, duration_ns=600 * SECOND))
    simulation.finish()
    outcomes = [row["outcome"] for row in simulation.sim.trace.select("boot.done")]
    assert outcomes == ["booted", WORDS[target, REVOCATION_FORMS[target.partition("/")[0]][0]][0]]


def test_a_second_revocation_keeps_whom_the_first_one_listed():
    keys = ("early/vmksim_esx80_k01", "early/vmksim_esx80_k02")
    faults = [FaultSpec(kind="revoke", target=key, at_ns=SECOND * n) for n, key in enumerate(keys, 1)]
    simulation = Simulation(scenario(*faults))
    simulation.finish()
    first, second = map(load_crl, simulation.host.trust.crls)
    assert (first.number, second.number) == (1, 2)
    assert len(first.serials) == 1
    assert len(second.serials) == 2
    assert first.serials < second.serials
    assert second.this_update >= first.this_update


def test_two_forms_stand_in_dbx_side_by_side():
    faults = [
        FaultSpec(kind="revoke", target="loader", form=form, at_ns=SECOND)
        for form in REVOCATION_FORMS["loader"]
    ]
    simulation = Simulation(scenario(*faults))
    simulation.finish()
    entries = parse_signature_lists(simulation.host.board.firmware.variables["dbx"])
    assert [entry.kind for entry in entries] == ["certificate", "certificate-sha256", "sha256"]


def test_a_revocation_may_leave_others_alone():
    for target in ("early/vmksim_esx80_k02", "signer/partner/Mellanox"):
        fault = FaultSpec(kind="revoke", target=target)
        result = simulate(scenario(fault, vcenter=VCenterSpec(), expect=ExpectSpec(attestation="accepted")))
        assert result.expectation.met


@pytest.mark.parametrize(
    ("target", "nearest"),
    [("early/vmksim_esx80_k03", "vmksim_esx80_k0"), ("signer/certified/VMWare", "certified/VMware")],
)
@pytest.mark.parametrize("at", ["", 'at = "1s"\n'])
def test_a_signer_that_does_not_exist_is_named_before_the_run(target, nearest, at):
    text = f'[[faults]]\nkind = "revoke"\ntarget = "{target}"\n{at}'
    with pytest.raises(ScenarioError) as caught:
        Simulation(parse_scenario(text))
    assert caught.value.path == "faults[0].target"
    assert caught.value.nearest.startswith(nearest)


def test_a_wrong_form_is_refused_at_its_key():
    text = '[[faults]]\nkind = "revoke"\ntarget = "loader"\nform = "list"\n'
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text)
    assert caught.value.path == "scenario: faults[0].form"
    assert "certificate, digest, image" in caught.value.wanted
