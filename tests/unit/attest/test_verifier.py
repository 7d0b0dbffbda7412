"""Evidence of a real simulated TPM: good evidence is accepted, and each attack class is refused with its reason."""

import hashlib
import pickle

import attrs
import pytest

from sim.attest import keys
from sim.attest.credential import make_challenge
from sim.attest.quote import check_magic_and_type
from sim.attest.verdict import AttestationError, Reason, Verdict
from sim.core.rng import Rng
from sim.tpm.constants import TPM_RH, TPM_ST, TPMA_OBJECT
from sim.tpm.eventlog import EV, EventLogWriter, parse
from sim.tpm.keys import sign_ecdsa
from sim.tpm.manufacture import TpmVendor
from sim.tpm.tagged import EsxTag
from sim.tpm.templates import ATTESTATION_KEY, SIGNING_KEY
from sim.tpm.wire import TPM2B_PUBLIC, TPMS_ATTEST, TPMT_SIGNATURE

from .lab import (
    ALL_BANKS,
    AUTHORITY,
    CORE,
    LOADERS,
    NONCE,
    QUOTED,
    SHA256,
    STATIC,
    Lab,
    Machine,
    Step,
    answered,
    boot_steps,
    challenge_for,
    codes,
    exit_steps,
    find,
    firmware_steps,
    launch_steps,
    module,
    replaced,
    tagged,
    variable,
)


@pytest.fixture
def lab():
    return Lab()


@pytest.fixture
def booted(lab):
    lab.machine.boot()
    return lab


def rewritten(log, change, banks=ALL_BANKS):
    """The log with its events passed through `change(events) -> events`, digests kept as they are."""
    writer = EventLogWriter(banks)
    for event in change(list(parse(log).events)):
        writer.append(event.pcr, event.type, event.digests, event.data)
    return writer.to_bytes()


def forged(evidence, **changes):
    """The evidence with fields of its quote changed, and the old signature."""
    attest = attrs.evolve(TPMS_ATTEST.decode(evidence.attest), **changes)
    return attrs.evolve(evidence, attest=attest.encode())


# ------------------------------------------------------------ what must be accepted


def test_a_clean_boot_is_accepted_and_its_components_are_named(booted):
    verdict = booted.appraise(booted.machine.evidence())
    assert (verdict.status, verdict.reasons, verdict.message) == ("accepted", (), "")
    assert {component.name for component in verdict.components} >= {*CORE, *STATIC}
    assert verdict.components[0].vib_name == "esx-base"
    assert verdict.secure_boot is True
    assert verdict.dynamic_launch is False
    assert verdict.replayed
    assert verdict.command_line == "b.b00 execInstalledOnly=FALSE"
    assert set(verdict.pcr_values) == {"sha256"}
    assert verdict.clock.reset_count == 1


@pytest.mark.parametrize("banks", [("sha256",), ("sha256", "sha384"), ("sha1", "sha256", "sha384")])
def test_every_quoted_bank_is_replayed(booted, banks):
    verdict = booted.appraise(booted.machine.evidence(banks=banks))
    assert verdict.accepted
    assert tuple(verdict.pcr_values) == banks


def test_a_boot_from_locality_3_is_accepted_and_can_be_demanded(lab):
    lab.machine.boot(locality=3)
    evidence = lab.machine.evidence()
    assert lab.appraise(evidence, startup_locality=3).accepted
    assert codes(lab.appraise(evidence, startup_locality=0)) == ["startup_locality"]


def test_a_dynamic_launch_is_accepted_with_its_modules_in_the_high_pcrs(lab):
    lab.machine.boot([*firmware_steps(), *exit_steps()], launch=launch_steps())
    verdict = lab.appraise(lab.machine.evidence(), launch="required")
    assert verdict.accepted, verdict.reasons
    assert verdict.dynamic_launch is True
    assert {component.pcr for component in verdict.components} == {17, 19, 20, 21}


def test_without_the_demand_a_host_without_secure_boot_is_accepted(lab):
    lab.machine.boot(boot_steps(secure_boot=False))
    verdict = lab.appraise(lab.machine.evidence(), require_secure_boot=False)
    assert verdict.accepted
    assert verdict.secure_boot is False


# ------------------------------------------------------------ 1: the quote is a TPM's own


def test_attack_1_a_magic_that_no_tpm_wrote_is_refused_even_when_signed(booted):
    """CVE-2024-29038: a key that signs anything signs a forged quote; the TPM opens a credential for it too."""
    machine = booted.machine
    fake = attrs.evolve(TPMS_ATTEST.decode(machine.evidence().attest), magic=0x46414B45).encode()
    signed = machine.evidence(key=(SIGNING_KEY,), attest=fake)
    handle, _, _ = machine.client.create_primary(SIGNING_KEY)
    signed = attrs.evolve(signed, signature=sign_with(machine, handle, fake))
    assert codes(booted.appraise(signed)) == ["ak_attributes", "ak_scheme"]


def test_attack_1_magic_type_and_signature_are_each_checked_on_their_own(booted):
    attest = TPMS_ATTEST.decode(booted.machine.evidence().attest)
    check_magic_and_type(attest)
    with pytest.raises(AttestationError) as caught:
        check_magic_and_type(attrs.evolve(attest, magic=0xFF544346))
    assert caught.value.check == "magic"
    with pytest.raises(AttestationError) as caught:
        check_magic_and_type(attrs.evolve(attest, type=TPM_ST.ATTEST_CERTIFY.value))
    assert caught.value.check == "attest_type"


def test_attack_1_a_changed_quote_does_not_carry_its_signature(booted):
    evidence = booted.machine.evidence()
    assert codes(booted.appraise(forged(evidence, magic=0xFF544346))) == ["signature"]
    assert codes(booted.appraise(forged(evidence, extraData=bytes(32)), bytes(32))) == ["signature"]


def test_attack_1_a_key_that_is_not_restricted_is_no_attestation_key(booted):
    verdict = booted.appraise(booted.machine.evidence(key=(SIGNING_KEY,)))
    assert codes(verdict) == ["ak_attributes", "ak_scheme"]
    assert "restricted" in verdict.reasons[0].message


@pytest.mark.parametrize("bit", ["fixedTPM", "fixedParent", "sensitiveDataOrigin", "restricted", "sign"])
def test_attack_1_each_wanted_attribute_of_the_key_is_demanded(booted, bit):
    evidence = booted.machine.evidence()
    public, _ = TPM2B_PUBLIC.decode(evidence.ak_public, 0, len(evidence.ak_public))
    lying = attrs.evolve(public, objectAttributes=public.objectAttributes & ~TPMA_OBJECT[bit])
    verdict = booted.appraise(answered(evidence, TPM2B_PUBLIC.encode(lying)))
    assert codes(verdict) == ["ak_attributes"]
    assert bit in verdict.message


def test_attack_1_attributes_that_the_tpm_does_not_confirm_are_refused(booted):
    """The credential and the qualified name cover the whole public area."""
    evidence = booted.machine.evidence()
    public, _ = TPM2B_PUBLIC.decode(evidence.ak_public, 0, len(evidence.ak_public))
    lying = attrs.evolve(public, objectAttributes=public.objectAttributes ^ TPMA_OBJECT.noDA)
    verdict = booted.appraise(attrs.evolve(evidence, ak_public=TPM2B_PUBLIC.encode(lying)))
    assert codes(verdict) == ["credential_keys"]
    assert codes(booted.appraise(answered(evidence, TPM2B_PUBLIC.encode(lying)))) == ["qualified_signer"]


def test_attack_1_a_key_outside_the_endorsement_hierarchy_is_refused(booted):
    """Its counters would be obfuscated, so that resets could not be told."""
    machine = booted.machine
    handle, public, _ = machine.client.create_primary(ATTESTATION_KEY, TPM_RH.OWNER)
    attest, signature = machine.client.quote(handle, NONCE, {SHA256: QUOTED})
    machine.client.flush(handle)
    evidence = machine.evidence(key=(ATTESTATION_KEY, TPM_RH.OWNER), attest=attest, signature=signature)
    assert evidence.ak_public == public
    assert codes(booted.appraise(evidence)) == ["qualified_signer"]


# ------------------------------------------------------------ 2: selection and values


def test_attack_2_a_value_that_was_not_quoted_is_refused(booted):
    evidence = booted.machine.evidence()
    values = {"sha256": {**evidence.pcr_values["sha256"], 12: bytes(32)}}
    assert codes(booted.appraise(attrs.evolve(evidence, pcr_values=values))) == ["pcr_digest"]


def test_attack_2_values_beside_the_attested_selection_are_refused(booted):
    evidence = booted.machine.evidence()
    values = {"sha256": {**evidence.pcr_values["sha256"], 16: bytes(32)}}
    assert codes(booted.appraise(attrs.evolve(evidence, pcr_values=values))) == ["pcr_selection"]
    values = {**evidence.pcr_values, "sha384": {0: bytes(48)}}
    assert codes(booted.appraise(attrs.evolve(evidence, pcr_values=values))) == ["pcr_selection"]


def test_attack_2_a_value_left_out_is_refused(booted):
    evidence = booted.machine.evidence()
    values = {"sha256": {pcr: value for pcr, value in evidence.pcr_values["sha256"].items() if pcr != 12}}
    assert codes(booted.appraise(attrs.evolve(evidence, pcr_values=values))) == [
        "pcr_selection",
        "pcr_digest",
    ]


@pytest.mark.parametrize("pcr", [0, 7, 12, 17])
def test_attack_2_a_quote_without_a_required_pcr_is_refused(booted, pcr):
    fewer = tuple(number for number in QUOTED if number != pcr)
    verdict = booted.appraise(booted.machine.evidence(pcrs=fewer))
    assert codes(verdict) == ["pcr_coverage"]
    assert f"PCR {pcr} " in verdict.message


# ------------------------------------------------------------ 3: what digests do not cover


def test_attack_3_a_renamed_event_type_hides_nothing(lab):
    evil = module(13, "evil.v00", b"rootkit")
    lab.machine.boot([*boot_steps(), evil])
    evidence = lab.machine.evidence()
    for kind in (EV.NO_ACTION, EV.EFI_ACTION, EV.SEPARATOR, EV.IPL, 0x401, 0x12345):

        def rename(events, kind=kind):
            return [attrs.evolve(one, type=kind) if b"evil" in one.data else one for one in events]

        verdict = lab.appraise(attrs.evolve(evidence, event_log=rewritten(lab.machine.log, rename)))
        assert not verdict.accepted, kind
        assert set(codes(verdict)) <= {"replay", "event_type", "event_data"}, kind


@pytest.mark.parametrize("tag", [EsxTag.VERSION, EsxTag.SIGNER, EsxTag.TAG, EsxTag.CMD_OPT])
def test_attack_3_a_module_shown_as_another_kind_of_text_is_refused(lab, tag):
    """Such an event is honest about its digest: its body is the module itself."""
    pcr = 13 if tag is EsxTag.VERSION else 14
    lab.machine.boot([*boot_steps(), tagged(pcr, tag, b"a small rootkit, b.b00\0")])
    verdict = lab.appraise(lab.machine.evidence())
    assert codes(verdict) == [
        {
            EsxTag.VERSION: "version_record",
            EsxTag.SIGNER: "signer",
            EsxTag.TAG: "asset_tag",
            EsxTag.CMD_OPT: "command_line",
        }[tag]
    ]


def test_attack_3_a_second_version_record_before_the_same_module_is_refused(lab):
    steps = boot_steps()
    at = steps.index(find(steps, b"8.0.3b.b00"))
    rootkit = tagged(13, EsxTag.VERSION, b"rootkit, b.b00\0")
    lab.machine.boot([*steps[:at], rootkit, *steps[at:]])
    assert codes(lab.appraise(lab.machine.evidence())) == ["version_record"]


def test_attack_3_a_swapped_file_name_is_seen_through_the_manifest(booted):
    def swap(events):
        return [attrs.evolve(one, data=one.data.replace(b"net.v00", b"scs.v00")) for one in events]

    log = rewritten(booted.machine.log, swap)
    verdict = booted.appraise(booted.machine.evidence(event_log=log))
    assert codes(verdict) == ["component_name", "component_missing"]
    assert verdict.reasons[0].message == "component scs.v00 is in truth net.v00"


def test_attack_3_data_where_they_are_hashed_cannot_be_changed(booted):
    def spoof(old, new):
        def change(events):
            changed = [attrs.evolve(one, data=one.data.replace(old, new)) for one in events]
            assert changed != events
            return changed

        return rewritten(booted.machine.log, change)

    off = (variable("SecureBoot", b"\x01"), variable("SecureBoot", b"\x00"))
    for old, new in [
        off,
        (b"Calling EFI", b"calling EFI"),
        (b"partition table", b"partition tible"),
        (b"execInstalledOnly=FALSE", b"execInstalledOnly=TRUE "),
        (b"certificate of the", b"certificate of one"),
        (AUTHORITY, b"0" + AUTHORITY[1:]),
    ]:
        verdict = booted.appraise(booted.machine.evidence(event_log=spoof(old, new)))
        assert "event_data" in codes(verdict), (old, verdict.reasons)


def test_attack_3_data_that_no_digest_covers_decide_nothing(booted):
    def change(events):
        return [
            attrs.evolve(one, data=one.data.replace(b"where it was loaded", b"mboot from elsewher"))
            for one in events
        ]

    clean = booted.appraise(booted.machine.evidence())
    log = rewritten(booted.machine.log, change)
    assert log != booted.machine.log
    assert booted.appraise(booted.machine.evidence(event_log=log)) == attrs.evolve(clean)


# ------------------------------------------------------------ 4: start values and unexplained PCRs


def test_attack_4_an_event_that_claims_not_to_be_measured_is_missed_in_its_pcr(booted):
    def hide(events):
        return [attrs.evolve(one, type=EV.NO_ACTION) if b"scsi" in one.data else one for one in events]

    verdict = booted.appraise(booted.machine.evidence(event_log=rewritten(booted.machine.log, hide)))
    assert codes(verdict) == ["replay"]
    assert verdict.message == "the event log does not replay to PCR 13 of the sha256 bank"


def test_attack_4_a_wrong_startup_locality_shows_in_pcr_0_only(lab):
    lab.machine.boot(locality=3)
    log = lab.machine.log.replace(b"StartupLocality\0\x03", b"StartupLocality\0\x00")
    verdict = lab.appraise(lab.machine.evidence(event_log=log))
    assert [reason.message for reason in verdict.reasons] == [
        "the event log does not replay to PCR 0 of the sha256 bank"
    ]


def test_attack_4_a_pcr_that_the_log_never_extends_is_a_failure(lab):
    lab.machine.boot()
    lab.machine.extend(9, b"measured by nobody we know")
    verdict = lab.appraise(lab.machine.evidence(pcrs=(*QUOTED, 9)))
    assert codes(verdict) == ["replay"]
    assert verdict.message == "the event log has no event for PCR 9 of the sha256 bank"


def test_attack_4_an_h_crtm_boot_replays_from_four(lab):
    tpm, steps = lab.machine.tpm, boot_steps()
    tpm.init()
    tpm.hash_start()
    tpm.hash_data(b"crtm")
    tpm.hash_end()
    lab.machine.client.startup()
    writer = EventLogWriter(ALL_BANKS)
    writer.startup_locality(4)
    writer.measure(0, EV.EFI_HCRTM_EVENT, b"HCRTM", b"crtm")
    for step in steps:
        lab.machine.measure(writer, step)
    evidence = lab.machine.evidence(event_log=writer.to_bytes())
    assert lab.appraise(evidence, startup_locality=4).accepted


# ------------------------------------------------------------ 5: the log as a whole


def test_attack_5_a_log_that_is_flagged_truncated_is_refused(booted):
    verdict = booted.appraise(booted.machine.evidence(log_truncated=True))
    assert codes(verdict) == ["log_truncated"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda events: events[:-1], id="dropped"),
        pytest.param(lambda events: [*events, events[-1]], id="duplicated"),
        pytest.param(lambda events: [*events[:-2], events[-1], events[-2]], id="reordered"),
        pytest.param(lambda events: [*events[:-1], attrs.evolve(events[-1], pcr=3)], id="moved"),
    ],
)
def test_attack_5_a_changed_sequence_is_named_by_its_pcr(booted, change):
    verdict = booted.appraise(booted.machine.evidence(event_log=rewritten(booted.machine.log, change)))
    assert set(codes(verdict)) == {"replay"}
    assert "PCR 5" in verdict.message


def test_attack_5_cut_at_any_byte_the_log_is_refused(booted):
    evidence = booted.machine.evidence()
    for length in range(0, len(booted.machine.log), 61):
        cut = attrs.evolve(evidence, event_log=booted.machine.log[:length])
        assert not booted.appraise(cut).accepted, length


def test_attack_5_an_event_after_the_quoted_state_is_refused(booted):
    def append(events):
        return [*events, attrs.evolve(find_event(events, b"scsi"), data=b"")]

    verdict = booted.appraise(booted.machine.evidence(event_log=rewritten(booted.machine.log, append)))
    assert codes(verdict) == ["replay"]


def test_attack_5_an_extend_that_was_not_logged_is_named(booted):
    booted.machine.extend(12, b"patched after the fact")
    verdict = booted.appraise(booted.machine.evidence())
    assert verdict.message == "the event log does not replay to PCR 12 of the sha256 bank"


def test_attack_5_one_changed_digest_is_named_by_bank_and_pcr(booted):
    def change(events):
        target = find_event(events, b"net.v00")
        bad = {
            bank: bytes(len(digest)) if bank != SHA256 else digest for bank, digest in target.digests.items()
        }
        return [attrs.evolve(one, digests=bad) if one is target else one for one in events]

    log = rewritten(booted.machine.log, change)
    evidence = booted.machine.evidence(banks=("sha1", "sha256"), event_log=log)
    assert booted.appraise(evidence).message == "the event log does not replay to PCR 13 of the sha1 bank"


# ------------------------------------------------------------ 6: freshness


def test_attack_6_an_old_quote_does_not_answer_a_new_nonce(booted):
    old = booted.machine.evidence(nonce=bytes(32))
    assert codes(booted.appraise(old)) == ["nonce"]


@pytest.mark.parametrize("nonce", [b"", b"short", NONCE[:-1], NONCE + b"\0"])
def test_attack_6_a_nonce_of_another_length_is_refused(booted, nonce):
    assert codes(booted.appraise(booted.machine.evidence(nonce=nonce))) == ["nonce"]


def test_attack_6_a_nonce_too_short_to_be_fresh_is_refused_even_if_it_matches(booted):
    assert codes(booted.appraise(booted.machine.evidence(nonce=b"12345678"), b"12345678")) == ["nonce"]


def test_attack_6_counters_and_clock_may_only_go_forward(booted):
    evidence = booted.machine.evidence()
    now = booted.appraise(evidence).clock
    assert booted.appraise(evidence, last=now).accepted
    for change in ({"reset_count": 2}, {"restart_count": 1}, {"clock": now.clock + 1}):
        assert codes(booted.appraise(evidence, last=attrs.evolve(now, **change))) == ["clock"], change


def test_attack_6_after_an_unorderly_reset_the_clock_may_lag_a_little_and_no_more(lab):
    lab.machine.boot()
    lab.machine.client.pcr_extend(16, {SHA256: bytes(32)})
    lab.machine.boot()
    evidence = lab.machine.evidence()
    clock = lab.appraise(evidence).clock
    assert not clock.safe
    past = attrs.evolve(clock, reset_count=clock.reset_count - 1, clock=clock.clock + (1 << 22))
    assert lab.appraise(evidence, last=past).accepted
    assert codes(lab.appraise(evidence, last=attrs.evolve(past, clock=past.clock + 1))) == ["clock"]
    same_boot = attrs.evolve(clock, clock=clock.clock + 1)
    assert codes(lab.appraise(evidence, last=same_boot)) == ["clock"]


# ------------------------------------------------------------ 7: banks


def test_attack_7_a_quote_of_sha_1_alone_is_refused(booted):
    verdict = booted.appraise(booted.machine.evidence(banks=("sha1",)))
    assert codes(verdict) == ["pcr_coverage"]
    assert "sha256 bank" in verdict.message


def test_attack_7_an_empty_selection_is_refused(booted):
    assert codes(booted.appraise(booted.machine.evidence(pcrs=()))) == ["pcr_coverage"]


def test_attack_7_a_log_without_the_quoted_bank_is_refused_and_the_bank_named(lab):
    lab.machine.boot(banks=ALL_BANKS[:1])
    verdict = lab.appraise(lab.machine.evidence())
    assert codes(verdict) == ["log_banks"]
    assert "no sha256 digests" in verdict.message


def test_attack_7_a_bank_that_firmware_never_extended_is_refused(lab):
    """Free to fill: here the log is true to it, and empty."""
    lab.machine.boot([])
    writer = EventLogWriter(ALL_BANKS)
    writer.no_action(b"nothing was measured")
    verdict = lab.appraise(lab.machine.evidence(event_log=writer.to_bytes()))
    assert set(codes(verdict)) == {"pcr_unused"}


def test_attack_7_a_signature_over_another_hash_is_refused(booted):
    evidence = booted.machine.evidence()
    signature = TPMT_SIGNATURE.decode(evidence.signature)
    weaker = attrs.evolve(signature, signature=attrs.evolve(signature.signature, hash=4))
    assert codes(booted.appraise(attrs.evolve(evidence, signature=weaker.encode()))) == ["signature"]


# ------------------------------------------------------------ 8: resets and launches


def test_attack_8_a_tpm_reset_alone_gives_itself_away_by_its_counter(lab):
    """The attacker resets the TPM under the running host and replays a good boot from locality 0."""
    lab.machine.boot()
    before = lab.appraise(lab.machine.evidence()).clock
    lab.machine.boot()
    evidence = lab.machine.evidence()
    assert lab.appraise(evidence, last=before, rebooted=True).accepted
    verdict = lab.appraise(evidence, last=before, rebooted=False)
    assert codes(verdict) == ["tpm_reset"]


def test_attack_8_a_replayed_boot_cannot_fake_a_start_at_locality_3(lab):
    lab.machine.boot(locality=3)
    good_log = lab.machine.log
    lab.machine.boot()
    verdict = lab.appraise(lab.machine.evidence(event_log=good_log), startup_locality=3)
    assert verdict.message == "the event log does not replay to PCR 0 of the sha256 bank"


def test_attack_8_a_reboot_that_the_tpm_has_not_seen_is_refused(booted):
    evidence = booted.machine.evidence()
    last = booted.appraise(evidence).clock
    assert codes(booted.appraise(evidence, last=last, rebooted=True)) == ["tpm_reset"]


def test_attack_8_a_launch_in_the_log_that_the_tpm_never_saw_is_refused(lab):
    lab.machine.boot([*firmware_steps(), *exit_steps()])
    writer = EventLogWriter(ALL_BANKS)
    for step in [*firmware_steps(), *exit_steps(), Step(17, 0x402, bytes(4), b"SINIT"), *launch_steps()]:
        writer.measure(step.pcr, step.type, step.data, step.over)
    verdict = lab.appraise(lab.machine.evidence(event_log=writer.to_bytes()))
    assert codes(verdict)[0] == "launch"
    assert "never saw" in verdict.message


def test_attack_8_cleared_high_pcrs_without_a_launch_event_are_refused(lab):
    lab.machine.boot()
    lab.machine.tpm.hash_start()
    lab.machine.tpm.hash_data(b"anything")
    lab.machine.tpm.hash_end()
    verdict = lab.appraise(lab.machine.evidence())
    assert codes(verdict)[0] == "launch"
    assert "does not have" in verdict.message


def test_attack_8_a_missing_or_unwanted_launch_is_refused(lab):
    lab.machine.boot()
    assert codes(lab.appraise(lab.machine.evidence(), launch="required")) == ["launch"]
    lab.machine.boot([*firmware_steps(), *exit_steps()], launch=launch_steps())
    assert codes(lab.appraise(lab.machine.evidence(), launch="forbidden")) == ["launch"]


def test_attack_8_launched_code_cannot_pass_as_an_event_of_the_launch(lab):
    """At locality 2 the launched code may extend PCR 17 itself; its digest must then still be explained."""
    kernel = Step(17, 0x414, b"", b"evil kernel", locality=2)
    big = Step(18, 0x414, b"x" * 1025, locality=2)
    second = Step(17, 0x402, bytes(4), b"evil kernel", locality=2)
    for extra, code in ((kernel, "event_data"), (big, "launch_events"), (second, "launch_events")):
        lab.machine.boot([*firmware_steps(), *exit_steps()], launch=[*launch_steps(), extra])
        assert codes(lab.appraise(lab.machine.evidence())) == [code]


# ------------------------------------------------------------ 10: whose key


def test_attack_10_the_endorsement_certificate_of_another_tpm_is_refused(booted):
    other = Machine(booted.vendor, "T2").boot()
    swapped = booted.machine.evidence(ek_certificate_der=other.evidence().ek_certificate_der)
    assert codes(booted.appraise(swapped)) == ["ek_public"]


def test_attack_10_the_endorsement_key_of_one_tpm_with_all_the_rest_of_another_is_refused(booted):
    """Such a host cannot open the credential: at best it repeats what it once opened for its own keys."""
    other = Machine(booted.vendor, "T2").boot().evidence()
    mine = booted.machine.evidence()
    swapped = attrs.evolve(other, ek_public=mine.ek_public, ek_certificate_der=mine.ek_certificate_der)
    challenge = challenge_for(mine.ek_public, other.ak_public)
    assert codes(booted.appraise(swapped, challenge=challenge)) == ["credential"]


def test_attack_10_keys_of_one_tpm_with_the_quote_of_another_are_refused(booted):
    other = Machine(booted.vendor, "T2").boot().evidence()
    mixed = attrs.evolve(
        other, attest=booted.machine.evidence().attest, signature=booted.machine.evidence().signature
    )
    assert codes(booted.appraise(mixed)) == ["signature"]


def test_attack_10_a_vendor_nobody_pinned_is_refused(lab):
    stranger = Machine(TpmVendor(Rng(2))).boot()
    verdict = lab.appraise(stranger.evidence())
    assert codes(verdict) == ["ek_certificate"]
    assert "known TPM vendor" in verdict.message


def test_attack_10_an_endorsement_key_without_certificate_is_refused_in_vmware_s_words(booted):
    verdict = booted.appraise(booted.machine.evidence(ek_certificate_der=b""))
    assert codes(verdict) == ["ek_certificate"]
    assert verdict.message == (
        "Unable to provision Endorsement Key on TPM 2.0 device: No ECC Endorsement Key certificate found "
        "in TPM 2.0 device's non-volatile memory."
    )


def test_attack_10_a_certified_key_that_is_not_an_endorsement_key_is_refused(booted):
    """A key that signs, or that decrypts anything, could open a credential without any TPM looking at the name."""
    evidence = booted.machine.evidence()
    public = keys.read_public(evidence.ek_public)
    for bit in ("fixedTPM", "fixedParent", "sensitiveDataOrigin", "restricted", "decrypt", "sign"):
        lying = attrs.evolve(public, objectAttributes=public.objectAttributes ^ TPMA_OBJECT[bit])
        changed = attrs.evolve(evidence, ek_public=TPM2B_PUBLIC.encode(lying))
        verdict = booted.appraise(answered(changed, evidence.ak_public))
        assert codes(verdict) == ["ek_attributes"]
        assert bit in verdict.message


def test_attack_10_a_credential_for_another_public_area_of_the_same_key_is_refused(booted):
    evidence = booted.machine.evidence()
    public = keys.read_public(evidence.ek_public)
    other = attrs.evolve(public, objectAttributes=public.objectAttributes ^ TPMA_OBJECT.noDA)
    changed = attrs.evolve(evidence, ek_public=TPM2B_PUBLIC.encode(other))
    assert codes(booted.appraise(changed)) == ["credential_keys"]


def test_attack_10_an_answer_to_an_earlier_credential_is_refused(booted):
    evidence = booted.machine.evidence()
    later = make_challenge(evidence.ek_public, evidence.ak_public, Rng(99).stream("later"))
    assert codes(booted.appraise(evidence, challenge=later)) == ["credential"]
    sent = {"credential_blob": later.credential_blob, "encrypted_secret": later.encrypted_secret}
    assert codes(booted.appraise(attrs.evolve(evidence, **sent), challenge=later)) == ["credential"]
    opened = attrs.evolve(evidence, **sent, activated_secret=later.secret)
    assert booted.appraise(opened, challenge=later).accepted


# ------------------------------------------------------------ what was booted


def test_secure_boot_off_is_refused_in_vmware_s_words(lab):
    lab.machine.boot(boot_steps(secure_boot=False))
    verdict = lab.appraise(lab.machine.evidence())
    assert codes(verdict) == ["secure_boot"]
    assert verdict.message == "Host secure boot was disabled"


def test_a_changed_driver_is_named_with_its_vib(lab):
    steps = boot_steps()
    good = module(13, "net.v00", STATIC["net.v00"])
    lab.machine.boot(replaced(steps, good, module(13, "net.v00", b"driver net.v01")))
    verdict = lab.appraise(lab.machine.evidence())
    assert verdict.reasons == (
        Reason(
            code="component_digest",
            message="component net.v00 of esx-base is not as its vendor published it",
            component="net.v00",
            evidence=f"PCR 13, digest {hashlib.sha256(b'driver net.v01').hexdigest()}",
        ),
    )


def test_all_changed_components_are_named_at_once(lab):
    steps = boot_steps(secure_boot=False)
    for name in ("net.v00", "scsi.v00"):
        steps = replaced(steps, module(13, name, STATIC[name]), module(13, name, b"changed"))
    verdict = lab.appraise(lab.machine.evidence(event_log=lab.machine.boot(steps).log))
    assert verdict.message == (
        "Host secure boot was disabled; component net.v00 of esx-base is not as its vendor published it; "
        "component scsi.v00 of esx-base is not as its vendor published it"
    )


def test_an_unexpected_component_is_named(lab):
    lab.machine.boot([*boot_steps(), module(13, "ghetto.v00", b"community")])
    verdict = lab.appraise(lab.machine.evidence())
    assert verdict.message == "component ghetto.v00 is not known to any vendor"
    assert verdict.reasons[0].component == "ghetto.v00"


def test_a_missing_component_is_named_unless_the_policy_can_do_without(lab):
    steps = boot_steps()
    lab.machine.boot(replaced(steps, module(13, "net.v00", STATIC["net.v00"]), []))
    evidence = lab.machine.evidence()
    assert lab.appraise(evidence).message == "component net.v00 of esx-base was not booted"
    assert lab.appraise(evidence, required_components=("b.b00",)).accepted


def test_a_component_measured_twice_is_refused(lab):
    lab.machine.boot([*boot_steps(), module(13, "net.v00", STATIC["net.v00"])])
    assert codes(lab.appraise(lab.machine.evidence())) == ["component_twice", "component_order"]


def test_a_component_in_the_wrong_pcr_is_refused(lab):
    steps = boot_steps()
    good = module(13, "net.v00", STATIC["net.v00"])
    lab.machine.boot(replaced(steps, good, module(11, "net.v00", STATIC["net.v00"])))
    verdict = lab.appraise(lab.machine.evidence())
    assert codes(verdict) == ["measurement_place"]
    assert verdict.message == "net.v00 was measured into PCR 11 instead of 13"


def test_an_unknown_boot_loader_is_refused(lab):
    steps = boot_steps()
    step = next(step for step in steps if step.over == LOADERS["mboot64.efi"])
    lab.machine.boot(replaced(steps, step, attrs.evolve(step, over=b"a loader that checks nothing")))
    assert codes(lab.appraise(lab.machine.evidence())) == ["boot_loader"]


def test_boot_options_are_held_to_the_policy(booted):
    evidence = booted.machine.evidence()
    assert booted.appraise(evidence, options_allowed=("execInstalledOnly",)).accepted
    assert codes(booted.appraise(evidence, options_allowed=())) == ["boot_option"]
    assert booted.appraise(evidence, command_lines=("b.b00 execInstalledOnly=FALSE",)).accepted
    assert codes(booted.appraise(evidence, command_lines=("b.b00",))) == ["command_line"]
    assert booted.appraise(evidence, options_required=(("execInstalledOnly", "FALSE"),)).accepted
    verdict = booted.appraise(evidence, options_required=(("execInstalledOnly", "TRUE"),))
    assert verdict.message == "the boot option execInstalledOnly=TRUE is missing"


def test_an_asset_tag_is_held_to_the_policy(lab):
    lab.machine.boot([*boot_steps(), tagged(14, EsxTag.TAG, b"rack 7")])
    evidence = lab.machine.evidence()
    assert codes(lab.appraise(evidence)) == ["asset_tag"]
    assert lab.appraise(evidence, asset_tags=(b"rack 7",)).accepted
    assert lab.appraise(evidence, asset_tags=None).accepted


def test_golden_values_of_firmware_pcrs_are_compared_when_given(booted):
    evidence = booted.machine.evidence()
    good = evidence.pcr_values["sha256"][0]
    assert booted.appraise(evidence, reference_pcrs={"sha256": {0: (good,)}}).accepted
    verdict = booted.appraise(evidence, reference_pcrs={"sha256": {0: (bytes(32),)}})
    assert codes(verdict) == ["reference_pcr"]


def test_a_golden_value_for_what_is_not_quoted_refuses(booted):
    evidence = booted.machine.evidence()
    for bank, pcr in (("sha384", 0), ("sha256", 8)):
        verdict = booted.appraise(evidence, reference_pcrs={bank: {pcr: (b"\1" * 32,)}})
        assert codes(verdict) == ["pcr_coverage"]
        assert f"PCR {pcr} of the {bank} bank, which has a reference value" in verdict.message
    assert booted.appraise(evidence, reference_pcrs={"sha384": {}}).accepted


def test_a_host_is_asked_for_every_pcr_with_a_golden_value(booted):
    policy = booted.policy(reference_pcrs={"sha384": {9: (b"\0" * 48,)}, "sha256": {}})
    assert policy.banks_to_quote() == ("sha256", "sha384")
    assert policy.pcrs_to_quote() == tuple(sorted({*policy.required_pcrs, 9}))
    evidence = booted.machine.evidence(pcrs=policy.pcrs_to_quote(), banks=policy.banks_to_quote())
    assert booted.appraise(evidence, reference_pcrs=policy.reference_pcrs).accepted


@pytest.mark.parametrize(("change", "code"), [
    (lambda steps: replaced(steps, find(steps, "SecureBoot".encode("utf-16-le")), []), "pcr7_order"),
    (lambda steps: [step if "KEK".encode("utf-16-le") not in step.data else Step(7, step.type, variable("dbr", b"")) for step in steps], "pcr7_order"),
    (lambda steps: [*steps, Step(7, EV.SEPARATOR, bytes(4))], "separator"),
    (lambda steps: [*steps, Step(3, EV.SEPARATOR, bytes(4))], "separator"),
    (lambda steps: [step if step != Step(6, EV.SEPARATOR, bytes(4)) else Step(6, EV.SEPARATOR, b"\xff" * 4) for step in steps], "separator"),
    (lambda steps: replaced(steps, find(steps, b"Exit Boot Services Returned"), []), "exit_boot_services"),
    (lambda steps: [*steps, Step(7, EV.EFI_VARIABLE_DRIVER_CONFIG, variable("dbt", b""))], "pcr7_order"),
    (lambda steps: [*steps, Step(4, EV.IPL, b"grub")], "event_type"),
    (lambda steps: [step for step in steps if step.type != EV.EFI_BOOT_SERVICES_APPLICATION], "boot_loader"),
    (lambda steps: [step for step in steps if step.type != EV.EFI_VARIABLE_AUTHORITY], "secure_boot"),
    (lambda steps: [step if "SecureBoot".encode("utf-16-le") not in step.data else Step(7, step.type, variable("SecureBoot", b"\x02")) for step in steps], "secure_boot"),
    (lambda steps: [step if "PK".encode("utf-16-le") not in step.data else Step(7, step.type, b"not a variable") for step in steps], "pcr7_order"),
    (lambda steps: [*steps, tagged(14, 99, b"?")], "format"),
    (lambda steps: [*steps, Step(14, EV.EVENT_TAG, b"short")], "format"),
    (lambda steps: [*steps, tagged(13, EsxTag.MOD, b"no NUL")], "format"),
    (lambda steps: [*steps, tagged(13, EsxTag.MOD, b"\0")], "format"),
    (lambda steps: replaced(steps, find(steps, b"b.b00 exec"), []), "command_line"),
    (lambda steps: replaced(steps, find(steps, b"b.b00 exec"), tagged(14, EsxTag.CMD_OPT, b"b.b00 \xff")), "format"),
    (lambda steps: replaced(steps, find(steps, b"b.b00 exec"), tagged(14, EsxTag.CMD_OPT, b"b.b00 \x1b[2J")), "format"),
])  # fmt: skip
def test_a_boot_out_of_order_is_refused(lab, change, code):
    lab.machine.boot(change(boot_steps()))
    assert code in codes(lab.appraise(lab.machine.evidence()))


def test_many_reasons_are_counted_in_the_message():
    reasons = tuple(Reason(code="x", message=f"m{number}") for number in range(8))
    assert Verdict(status="notAccepted", reasons=reasons).message == "m0; m1; m2; m3; m4; m5; and 2 more"


def test_verdicts_and_errors_survive_pickling(booted):
    verdict = booted.appraise(booted.machine.evidence(log_truncated=True))
    assert pickle.loads(pickle.dumps(verdict)) == verdict
    error = AttestationError("x", "y", component="z", evidence="e")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.check, copy.message, copy.component, copy.evidence) == ("x", "y", "z", "e")


# ------------------------------------------------------------ helpers


def find_event(events, text):
    return next(event for event in events if text in event.data)


def sign_with(machine, handle, message):
    """Sign with the private key itself: the TPM here has no command to sign with a key that is not restricted."""
    return sign_ecdsa(machine.tpm.objects[handle].private, SHA256, message).encode()
