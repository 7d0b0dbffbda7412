"""The attestation report of a real ESXi 6.7 host with TXT, and its hand-shortened copy in the SOAP form."""

import json

import attrs
import pytest

from sim.attest.esxi_report import PcrOutcome, read_report, replay_report, verify_report
from sim.attest.tpm_report import (
    BootSecurityOptionDetails,
    CommandDetails,
    OptionDetails,
    SoftwareComponentDetails,
)
from sim.attest.verdict import AttestationError
from sim.errors import FormatError

pytestmark = pytest.mark.vectors


@pytest.fixture(scope="module")
def real_bytes(vectors):
    return (vectors / "esxi_txt_report.json").read_bytes()


@pytest.fixture(scope="module")
def real(real_bytes):
    return read_report(real_bytes)


@pytest.fixture(scope="module")
def short_bytes(vectors):
    return (vectors / "esxi_txt_report_truncated.xml").read_bytes()


@pytest.fixture(scope="module")
def short(short_bytes):
    return read_report(short_bytes)


def replay_of(report, pcr):
    return next(one for one in replay_report(report).pcrs if one.pcr == pcr)


def details_of(report, pcr):
    return [entry.event_details for entry in report.tpm_events if entry.pcr_index == pcr]


def test_the_real_report_replays_in_pcr_17_to_21(real):
    replay = replay_report(real)
    assert replay.matches == (17, 18, 19, 20, 21)
    assert replay.mismatches == ()
    assert replay.oddities == ()
    assert [one.events for one in replay.pcrs if one.outcome is PcrOutcome.MATCH] == [9, 6, 4, 147, 6]
    assert verify_report(real, required=(17, 18, 19, 20, 21)) == replay


def test_pcrs_without_events_are_neither_matches_nor_mismatches(real):
    assert replay_of(real, 0).outcome is PcrOutcome.NO_EVENTS
    with pytest.raises(AttestationError) as caught:
        verify_report(real, required=(0, 17))
    assert caught.value.check == "report_coverage"
    assert "PCR 0" in caught.value.message


def test_the_real_report_names_modules_options_and_command_line(real):
    kernel = details_of(real, 19)[0]
    assert isinstance(kernel, SoftwareComponentDetails)
    assert (kernel.component_name, kernel.vib_name, kernel.vib_vendor) == ("k.b00", "esx-base", "VMware")
    command, *options, execute, secure_boot = details_of(real, 21)
    assert isinstance(command, CommandDetails)
    assert [option.options_file_name for option in options] == ["jumpstrt.gz", "useropts.gz", "features.gz"]
    assert all(isinstance(option, OptionDetails) for option in options)
    assert execute.boot_security_option == "execInstalledOnly = FALSE"
    assert isinstance(secure_boot, BootSecurityOptionDetails)


@pytest.mark.parametrize("pcr", [17, 18, 19, 20, 21])
def test_one_flipped_bit_in_one_event_shows_in_that_pcr_alone(real_bytes, pcr):
    document = json.loads(real_bytes)
    logs = document["pcr_manifest"]["pcr_event_log_map"]["SHA256"]
    event = next(log for log in logs if log["pcr_index"] == f"pcr_{pcr}")["event_log"][-1]
    event["value"] = f"{int(event['value'], 16) ^ 1:064x}"
    changed = read_report(json.dumps(document).encode())
    assert replay_report(changed).mismatches == (pcr,)
    with pytest.raises(AttestationError) as caught:
        verify_report(changed)
    assert caught.value.check == "report_replay"
    assert f"PCR {pcr} " in caught.value.message


def test_a_boot_security_option_is_held_to_its_text(real_bytes):
    changed = read_report(
        real_bytes.replace(b"uefiSecureBootEnabled = TRUE", b"uefiSecureBootEnabled = SURE")
    )
    replay = replay_report(changed)
    assert replay.mismatches == ()
    assert [text for text in replay.oddities if "is not what was measured" in text]
    with pytest.raises(
        AttestationError, match="uefiSecureBootEnabled = SURE' is not what was measured"
    ) as caught:
        verify_report(changed)
    assert caught.value.check == "report_contradiction"


def test_a_value_that_cannot_be_one_and_values_that_are_left_out_refuse_a_report(real):
    cut = [
        attrs.evolve(one, digest_value=one.digest_value[:31]) if one.pcr_number == 20 else one
        for one in real.tpm_pcr_values
    ]
    with pytest.raises(AttestationError, match="PCR 20: 31 bytes cannot be a SHA256 value"):
        verify_report(attrs.evolve(real, tpm_pcr_values=tuple(cut)))
    without = tuple(one for one in real.tpm_pcr_values if one.pcr_number != 19)
    with pytest.raises(AttestationError, match=r"without the reported value of PCR 19 \(SHA256\)") as caught:
        verify_report(attrs.evolve(real, tpm_pcr_values=without))
    assert caught.value.check == "report_coverage"


def test_the_short_copy_does_not_replay_in_pcr_20_and_only_there(short):
    replay = replay_report(short)
    assert replay.matches == (17, 18, 19, 21)
    assert replay.mismatches == (20,)
    wrong = replay_of(short, 20)
    assert (wrong.events, wrong.replayed.hex()[:8], wrong.reported.hex()[:8]) == (13, "bc1ae80c", "dc8bebc2")


def test_the_word_of_the_short_copy_that_its_log_is_reliable_counts_for_nothing(short):
    assert short.log_reliable is True
    with pytest.raises(AttestationError) as caught:
        verify_report(short)
    assert caught.value.check == "report_replay"


def test_a_log_that_calls_itself_unreliable_is_refused(short_bytes):
    report = read_report(short_bytes.replace(b"<tpmLogReliable>true", b"<tpmLogReliable>false"))
    with pytest.raises(AttestationError) as caught:
        verify_report(report)
    assert caught.value.check == "report_reliable"


def test_both_forms_report_the_same_pcr_values(real, short):
    def values(report):
        return {
            one.pcr_number: one.digest_value for one in report.tpm_pcr_values if one.digest_method == "SHA256"
        }

    assert len(values(short)) == 22
    assert values(short).items() <= values(real).items()


def test_the_sha_1_events_of_pcr_21_stay_out_of_the_sha_256_fold(short):
    methods = [details.data_hash_method for details in details_of(short, 21)]
    assert methods.count("SHA1") == 2
    assert replay_of(short, 21).events == methods.count("SHA256") == 6
    assert "2 SHA1 event(s) of PCR 21 with no reported SHA1 value" in replay_report(short).oddities


def test_the_sha_1_value_of_pcr_22_is_read_and_has_no_events(short):
    pcr22 = replay_of(short, 22)
    assert (pcr22.method, len(pcr22.reported), pcr22.outcome) == ("SHA1", 20, PcrOutcome.NO_EVENTS)


def test_the_sha_384_value_of_pcr_23_is_too_short_to_be_one(short):
    assert replay_of(short, 23).outcome is PcrOutcome.UNUSABLE
    assert "PCR 23: 32 bytes cannot be a SHA384 value" in replay_report(short).oddities


def test_the_unknown_field_and_the_wrong_texts_are_noted(short):
    oddities = replay_report(short).oddities
    assert "event 39: unknown field 'invalidOptions'" in oddities
    assert len([text for text in oddities if "is not what was measured" in text]) == 2


def test_the_command_line_of_the_short_copy_is_empty(short):
    command = next(one for one in details_of(short, 21) if isinstance(one, CommandDetails))
    assert command.command_line == ""


def test_every_prefix_of_the_short_copy_is_refused(short_bytes):
    for length in range(0, len(short_bytes) - 60, 9973):
        with pytest.raises(FormatError):
            read_report(short_bytes[:length])
