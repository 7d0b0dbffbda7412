"""Readers of attestation reports: what they accept, what they refuse, and that hostile bytes end in FormatError."""

import hashlib
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.attest.esxi_report import PcrOutcome, read_report, replay_report
from sim.attest.report_common import PCR_COUNT
from sim.attest.tpm_report import EVENT_DETAILS, SignerDetails, VersionDetails, wire_fields
from sim.errors import FormatError, LimitError

DIGEST = hashlib.sha256(b"module").digest()


def byte_list(name, data):
    return "".join(f"<{name}>{byte - 256 if byte > 127 else byte}</{name}>" for byte in data)


def pcr_xml(pcr=12, value=DIGEST, method="SHA256"):
    return f"<tpmPcrValues><digestMethod>{method}</digestMethod>{byte_list('digestValue', value)}<pcrNumber>{pcr}</pcrNumber></tpmPcrValues>"


def event_xml(
    fields="<componentName>k.b00</componentName>",
    pcr=12,
    digest=DIGEST,
    kind="HostTpmSoftwareComponentEventDetails",
):
    details = f'<eventDetails xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="{kind}">'
    details += (
        f"{byte_list('dataHash', digest)}<dataHashMethod>SHA256</dataHashMethod>{fields}</eventDetails>"
    )
    return f"<tpmEvents><pcrIndex>{pcr}</pcrIndex>{details}</tpmEvents>"


def soap(inside):
    name = "QueryTpmAttestationReportResponse"
    return f"<{name}><returnval>{inside}<tpmLogReliable>true</tpmLogReliable></returnval></{name}>".encode()


def host_manifest(**changes):
    event = {
        "value": DIGEST.hex(),
        "label": "k.b00",
        "info": {
            "EventType": "HostTpmSoftwareComponentEvent",
            "PackageName": "",
            "PackageVersion": "",
            "PackageVendor": "",
        },
    }
    manifest = {
        "sha1pcrs": [],
        "sha2pcrs": [{"index": "pcr_12", "value": "00" * 32, "pcr_bank": "SHA256"}],
        "pcr_event_log_map": {
            "SHA256": [{"pcr_index": "pcr_12", "pcr_bank": "SHA256", "event_log": [event]}]
        },
    }
    return {"pcr_manifest": manifest | changes}


def test_a_pcr_is_the_fold_of_its_events_from_zero():
    one = hashlib.sha256(bytes(32) + DIGEST).digest()
    two = hashlib.sha256(one + DIGEST).digest()
    for inside, value in ((event_xml(), one), (event_xml() * 2, two)):
        assert replay_report(read_report(soap(pcr_xml(value=value) + inside))).matches == (12,)
    assert replay_report(read_report(soap(pcr_xml(value=two) + event_xml()))).mismatches == (12,)


def test_a_soap_envelope_with_namespaces_and_prefixed_types_is_read_the_same():
    bare = soap(pcr_xml() + event_xml())
    wrapped = (
        bare.decode()
        .replace('type="Host', 'type="vim25:Host')
        .replace(
            "<QueryTpmAttestationReportResponse>", '<QueryTpmAttestationReportResponse xmlns="urn:vim25">'
        )
    )
    envelope = f'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>{wrapped}</s:Body></s:Envelope>'
    assert read_report(envelope.encode()) == read_report(bare)


def test_binary_fields_are_lists_of_signed_bytes():
    report = read_report(
        soap(event_xml(byte_list("version", b"\x00\x7f\x80\xff"), kind="HostTpmVersionEventDetails"))
    )
    assert report.tpm_events[0].event_details == VersionDetails(
        data_hash=DIGEST, data_hash_method="SHA256", version=b"\x00\x7f\x80\xff"
    )


def test_every_class_of_event_details_has_the_fields_of_the_api():
    assert wire_fields(EVENT_DETAILS["HostTpmSoftwareComponentEventDetails"]).keys() == {
        "componentName", "vibName", "vibVersion", "vibVendor",
    }  # fmt: skip
    assert wire_fields(EVENT_DETAILS["HostTpmOptionEventDetails"]) == {
        "optionsFileName": ("options_file_name", str),
        "bootOptions": ("boot_options", bytes),
    }
    assert wire_fields(SignerDetails) == {"bootSecurityOption": ("boot_security_option", str)}
    assert wire_fields(EVENT_DETAILS["HostTpmBootCompleteEventDetails"]) == {}
    assert len(EVENT_DETAILS) == 9


def test_an_unknown_field_of_the_report_is_noted_and_cut():
    report = read_report(soap(f"<{'x' * 100}/>"))
    assert report.oddities == (f"unknown field {'x' * 37 + '...'!r} in the report",)


def test_methods_that_cannot_be_replayed_are_set_aside_and_named():
    replay = replay_report(read_report(soap(pcr_xml(method="SM3_256") + event_xml(digest=b"short"))))
    assert replay.pcrs[0].outcome is PcrOutcome.UNUSABLE
    assert "event 0 (PCR 12): 5 bytes cannot be a SHA256 digest" in replay.oddities


@pytest.mark.parametrize("inside", [
    pcr_xml(pcr=24), pcr_xml(pcr=-1), pcr_xml(pcr="x"), pcr_xml(pcr="\uff11"), pcr_xml(method="sha 256"),
    pcr_xml() + pcr_xml(), pcr_xml() * 200,
    pcr_xml().replace("<digestValue>", "<digestValue>999", 1),
    "<tpmPcrValues/>",
    event_xml(kind="HostTpmEventDetails"), event_xml(kind="Unknown"), event_xml(pcr=99),
    event_xml("<componentName>a</componentName><componentName>b</componentName>"),
    event_xml("<componentName><a/></componentName>"),
    event_xml(digest=bytes(65)),
    event_xml().replace("<dataHash>", "<dataHash>128", 1),
    "<tpmLogReliable>maybe</tpmLogReliable>",
])  # fmt: skip
def test_malformed_answers_are_refused(inside):
    with pytest.raises(FormatError):
        read_report(soap(inside))


@pytest.mark.parametrize("data", [
    b"", b"   ", b"x", b"<", b"<a/>", b"{", b"{}", b"[]", b"null", b"\xff\xfe<a/>",
    b"<QueryTpmAttestationReportResponse/>",
    b'<!DOCTYPE a [<!ENTITY b "c">]><QueryTpmAttestationReportResponse/>',
    b'<?xml version="1.0" encoding="no-such"?><a/>',
    b'{"pcr_manifest": {}}', b'{"a": 1' + b"0" * 5000 + b"}", b'{"a":' * 100_000, b"<a>" * 100_000,
])  # fmt: skip
def test_what_is_no_report_is_refused(data):
    with pytest.raises(FormatError):
        read_report(data)


def test_limits_are_named_as_limits():
    with pytest.raises(LimitError):
        read_report(b"{" + b" " * (8 << 20) + b"}")
    with pytest.raises(LimitError):
        read_report(soap(pcr_xml(pcr=1) * 193))


@pytest.mark.parametrize("changes", [
    {"sha2pcrs": None}, {"sha2pcrs": [1]}, {"sha2pcrs": [{"index": "pcr_24", "value": "", "pcr_bank": "SHA256"}]},
    {"sha2pcrs": [{"index": "pcr_1", "value": "0", "pcr_bank": "SHA256"}]},
    {"sha2pcrs": [{"index": "pcr_1", "value": "zz", "pcr_bank": "SHA256"}]},
    {"sha2pcrs": [{"index": "pcr_1", "value": "00", "pcr_bank": "\ud800"}]},
    {"pcr_event_log_map": []}, {"pcr_event_log_map": {"SHA256": [{}]}},
    {"pcr_event_log_map": {"SHA256": [{"pcr_index": "pcr_1", "pcr_bank": "SHA256", "event_log": [{"info": {"EventType": "X"}}]}]}},
    {"pcr_event_log_map": {"SHA256": [{"pcr_index": "pcr_1", "pcr_bank": "SHA256", "event_log": [{}] * 10_001}]}},
])  # fmt: skip
def test_malformed_manifests_are_refused(changes):
    assert len(read_report(json.dumps(host_manifest()).encode()).tpm_events) == 1
    with pytest.raises(FormatError):
        read_report(json.dumps(host_manifest(**changes)).encode())


@given(st.binary(max_size=200), st.sampled_from([b"", b"<", b"{"]))
def test_random_bytes_are_a_report_or_a_format_error(data, head):
    try:
        report = read_report(head + data)
    except FormatError:
        return
    assert all(0 <= value.pcr_number < PCR_COUNT for value in report.tpm_pcr_values)


@given(st.data())
def test_a_mutated_report_is_a_report_or_a_format_error(data):
    source = data.draw(st.sampled_from([soap(pcr_xml() + event_xml()), json.dumps(host_manifest()).encode()]))
    mutated = bytearray(source)
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(source) - 1))] = data.draw(st.integers(0, 255))
    with suppress(FormatError):
        replay_report(read_report(bytes(mutated)))
