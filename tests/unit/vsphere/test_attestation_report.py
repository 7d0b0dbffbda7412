"""The mapping of an event log to the event details of the API."""

from sim.attest.esxi_report import replay_report
from sim.attest.tpm_report import NvTagDetails, SoftwareComponentDetails
from sim.image.manifest import ReferenceManifest
from sim.tpm.constants import TPM_ALG
from sim.tpm.eventlog import EV, EventLogWriter
from sim.tpm.tagged import EsxTag, encode_tagged
from sim.vsphere.attestation_report import attestation_report

BANKS = (TPM_ALG.SHA1.value, TPM_ALG.SHA256.value)


def report(*events, banks=BANKS, values=None, reliable=True):
    writer = EventLogWriter(banks)
    for pcr, kind, data, content in events:
        writer.measure(pcr, kind, data, content)
    return attestation_report(values or {}, writer.to_bytes(), ReferenceManifest(), reliable=reliable)


def tagged(tag, body):
    return EV.EVENT_TAG, encode_tagged(tag, body)


def test_an_asset_tag_is_shown_as_one():
    made = report((14, *tagged(EsxTag.TAG, b"rack 7"), b"rack 7"))
    assert [type(entry.event_details) for entry in made.tpm_events] == [NvTagDetails]
    assert made.tpm_events[0].event_details.boot_security_option == "rack 7"


def test_a_module_that_nobody_published_has_empty_vib_fields():
    made = report((13, *tagged(EsxTag.MOD, b"net.v00\0"), b"content"))
    details = made.tpm_events[0].event_details
    assert isinstance(details, SoftwareComponentDetails)
    assert (details.component_name, details.vib_name, details.vib_version, details.vib_vendor) == (
        "net.v00",
        "",
        "",
        "",
    )


def test_events_without_esxi_s_form_are_shown_as_preboot_events_and_still_count_in_the_replay():
    strange = (13, EV.EVENT_TAG, b"short", None)
    made = report(strange, (17, 0x40B, b"\1", None), (0, EV.S_CRTM_VERSION, b"1", None))
    assert [entry.event_details.component_name for entry in made.tpm_events] == ["TPM_EVENT_LOG_PREBOOT"] * 2
    pcrs = [entry.pcr_index for entry in made.tpm_events]
    assert pcrs == [13, 17]


def test_a_log_without_sha_256_gives_no_events_and_one_that_cannot_be_read_is_unreliable():
    made = report((13, *tagged(EsxTag.MOD, b"net.v00\0"), b"x"), banks=BANKS[:1])
    assert (made.tpm_events, made.log_reliable) == ((), True)
    broken = attestation_report({"sha256": {0: bytes(32)}}, b"junk", ReferenceManifest(), reliable=True)
    assert (len(broken.tpm_pcr_values), broken.tpm_events, broken.log_reliable) == (1, (), False)
    assert replay_report(broken).mismatches == ()
