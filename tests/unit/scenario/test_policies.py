"""Policy engines in scenarios: what is declared is asked, what it refuses has its effect, wrong tables are refused."""

import pytest

from sim import simulate
from sim.errors import ScenarioError
from sim.scenario.load import parse_scenario

TEXT = """
name = "quarantine"
duration = "4s"
[host]
memory = "2GiB"
[image]
modules = 4
module_size = "2KiB"
[[vms]]
name = "a"
memory = "64MiB"
[[vms]]
name = "secret"
memory = "64MiB"
encrypted = true
[vcenter]
place_vms = true
[[vcenter.engines]]
kind = "allow_list"
actions = ["alarm", "quarantine"]
[[vcenter.engines]]
kind = "signer"
[[vcenter.engines]]
kind = "seal"
actions = ["withhold_key"]
"""

TAMPERED = """
[[faults]]
kind = "flip_bit"
target = "vib/vmkusb"
unpacked = true
[host.firmware]
secure_boot = false
"""


def run(text):
    return simulate(parse_scenario(text))


def test_a_clean_host_is_trusted_and_runs_what_vcenter_places(tmp_path):
    result = run(TEXT + '[expect]\nattestation = "accepted"\nquarantined = false\n')
    assert result.expectation.met, result.expectation.differences
    assert [(row.engine, row.trusted) for row in result.attestation.policies] == [
        ("allow-list", True),
        ("signer", True),
        ("seal", True),
    ]
    assert [(vm.name, vm.powered_on) for vm in result.vms] == [("a", True), ("secret", True)]
    assert result.vms[0].alive_ns < 3_500_000_000  # they start after the attestation, not with the boot


def test_a_tampered_host_is_quarantined_and_runs_nothing():
    result = run(
        TEXT
        + TAMPERED
        + '[expect]\nquarantined = true\nvms_refused = ["a", "secret"]\ncomponent = "vmkusb.v00"\n'
    )
    assert result.expectation.met, result.expectation.differences
    assert result.attestation.status == "notAccepted"
    assert (result.attestation.quarantined, result.attestation.key_withheld) == (True, True)
    assert not any(row.trusted for row in result.attestation.policies)
    assert result.vms == ()


def test_without_quarantine_only_the_encrypted_vm_is_refused():
    text = TEXT.replace('"alarm", "quarantine"', '"alarm"') + TAMPERED
    result = run(text + '[expect]\nvms_refused = ["secret"]\n')
    assert result.expectation.met, result.expectation.differences
    assert [vm.name for vm in result.vms] == ["a"]


def test_an_expected_quarantine_that_does_not_come_is_told():
    result = run(TEXT + "[expect]\nquarantined = true\n")
    assert result.expectation.differences == ("quarantined: expected True, was False",)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('kind = "allowlist"', "vcenter.engines[0].kind"),
        ('kind = "seal"\nactions = []', "vcenter.engines[0].actions"),
        ('kind = "seal"\nactions = ["shout"]', "one of alarm, quarantine, withhold_key"),
        ('kind = "seal"\nproviders = ["VMware"]', "no providers for seal"),
        ('kind = "signer"\nleast_versions = { vmkusb = "1.0" }', "no least_versions for signer"),
        ('kind = "allow_list"\nleast_versions = { vmkusb = "new" }', "a version such as 1.2-3"),
        ('kind = "seal"\npcrs = [24]', "an integer from 0 to 23"),
        ('kind = "signer"\nlevel = "Certified"', "one of CommunitySupported, PartnerSupported"),
        ('kind = "seal"\npcr = [1]', "pcrs"),
    ],
)
def test_a_wrong_table_is_refused_by_its_key(table, said):
    with pytest.raises(ScenarioError) as refused:
        parse_scenario(f"[vcenter]\n[[vcenter.engines]]\n{table}\n")
    assert said in str(refused.value)


def test_quarantine_can_only_be_expected_where_something_attests():
    with pytest.raises(ScenarioError, match="without which nothing attests"):
        parse_scenario("[expect]\nquarantined = true\n")


GOLDEN = """
name = "golden"
duration = "2s"
[host]
memory = "2GiB"
[image]
modules = 2
module_size = "2KiB"
[vcenter]
"""


def test_golden_values_of_a_scenario_are_demanded_of_every_bank_and_pcr_named():
    clean = run(GOLDEN)
    assert clean.attestation.status == "accepted"
    for bank, pcr in (("sha256", "0"), ("sha384", "8")):
        table = GOLDEN + f"[vcenter.reference_pcrs.{bank}]\n{pcr} = "
        good = clean.pcrs[bank][pcr]
        other = ("0" if good[0] != "0" else "1") + good[1:]
        assert run(table + f'["{other}", "{good}"]').attestation.status == "accepted", bank
        assert run(table + f'["{other}"]').attestation.message == (
            f"PCR {pcr} of the {bank} bank differs from its reference value"
        )
    weak = run(GOLDEN + f'[vcenter.reference_pcrs.sha512]\n0 = ["{"00" * 64}"]')
    assert weak.attestation.message


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ('[vcenter.reference_pcrs.sha265]\n0 = ["00"]', "one of sha1, sha256, sha384, sha512"),
        ('[vcenter.reference_pcrs.sha256]\n24 = ["00"]', "a PCR from 0 to 23"),
        ('[vcenter.reference_pcrs.sha256]\n07 = ["00"]', "a PCR from 0 to 23"),
        ("[vcenter.reference_pcrs.sha256]\n7 = []", "values of 64 lower-case hexadecimal digits"),
        ('[vcenter.reference_pcrs.sha1]\n7 = ["00"]', "values of 40 lower-case hexadecimal digits"),
    ],
)
def test_golden_values_that_no_pcr_can_have_are_refused(table, wanted):
    with pytest.raises(ScenarioError, match=wanted) as caught:
        parse_scenario(GOLDEN + table)
    assert caught.value.path == "scenario: vcenter.reference_pcrs"
