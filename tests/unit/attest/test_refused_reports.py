"""What the readers of attestation reports say of what they refuse, the form, the place, the reason; and of replays."""

import hashlib
import json

import attrs
import pytest

from sim.attest.esxi_report import PcrOutcome, read_report, replay_report, verify_report
from sim.attest.tpm_report import (
    EVENT_DETAILS,
    BootSecurityOptionDetails,
    CommandDetails,
    HostTpmAttestationReport,
    SoftwareComponentDetails,
    SystemVersionDetails,
    TpmDigestInfo,
    TpmEventLogEntry,
)
from sim.attest.verdict import AttestationError
from sim.errors import FormatError, LimitError

DIGEST = bytes(range(32))


def said(read, data, kind=FormatError):
    with pytest.raises(FormatError) as caught:
        read(data)
    assert type(caught.value) is kind
    return str(caught.value)


# ------------------------------------------------------------ reports in JSON

LOG = "pcr_event_log_map"


def event(**changes):
    info = {"EventType": "HostTpmSoftwareComponentEvent"}
    info |= {"PackageName": "esx-base", "PackageVersion": "8.0", "PackageVendor": "VMware"}
    return {"value": DIGEST.hex(), "label": "k.b00", "info": info} | changes


def log(*events, **changes):
    return {"pcr_index": "pcr_12", "pcr_bank": "SHA256", "event_log": list(events)} | changes


def manifest(**changes):
    fields = {"sha1pcrs": [], "sha2pcrs": [], LOG: {"SHA256": [log(event())]}} | changes
    return json.dumps({"pcr_manifest": fields}).encode()


def logged(*events, **changes):
    return manifest(**{LOG: {"SHA256": [log(*events, **changes)]}})


def pcr(**changes):
    fields = {"index": "pcr_23", "value": DIGEST.hex(), "pcr_bank": "SHA256"} | changes
    return manifest(sha2pcrs=[fields])


def test_a_manifest_in_json_is_read_field_by_field():
    value = {"index": "pcr_0", "value": "aB" * 20, "pcr_bank": "SHA1"}
    report = read_report(manifest(sha1pcrs=[value]))
    assert report.tpm_pcr_values == (
        TpmDigestInfo(pcr_number=0, digest_method="SHA1", digest_value=b"\xab" * 20),
    )
    assert report.log_reliable is None
    assert report.tpm_events == (
        TpmEventLogEntry(
            pcr_index=12,
            event_details=SoftwareComponentDetails(
                data_hash=DIGEST,
                data_hash_method="SHA256",
                component_name="k.b00",
                vib_name="esx-base",
                vib_version="8.0",
                vib_vendor="VMware",
            ),
        ),
    )


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("Option", "options_file_name"),
        ("Command", "command_line"),
        ("BootSecurityOption", "boot_security_option"),
        ("NvTag", "boot_security_option"),
        ("Signer", "boot_security_option"),
        ("SystemVersion", "system_version"),
    ],
)
def test_the_label_of_an_event_is_the_field_that_its_class_has_for_it(kind, field):
    report = read_report(logged(event(label="text", info={"EventType": f"HostTpm{kind}Event"})))
    (entry,) = report.tpm_events
    assert type(entry.event_details).__name__ == f"{kind}Details"
    assert getattr(entry.event_details, field) == "text"


def test_an_event_of_a_class_without_a_label_needs_none():
    plain = {"value": "", "info": {"EventType": "HostTpmBootCompleteEvent"}}
    (entry,) = read_report(logged(plain)).tpm_events
    assert entry.event_details.data_hash == b""


def test_logs_are_taken_in_the_order_of_their_banks_and_events_in_their_own():
    def labelled(text):
        return event(label=text)

    logs = {"SHA256": [log(labelled("c")), log(labelled("d"))], "SHA1": [log(labelled("a"), labelled("b"))]}
    report = read_report(manifest(**{LOG: logs}))
    assert [entry.event_details.component_name for entry in report.tpm_events] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"pcr_manifest": 1}', "pcr_manifest: expected an object"),
        (manifest(sha1pcrs=None), "sha1pcrs: expected a list"),
        (manifest(sha2pcrs={}), "sha2pcrs: expected a list"),
        (manifest(sha1pcrs=[{}, 1]), "sha1pcrs 0: expected a text in 'index'"),
        (manifest(sha1pcrs=[1]), "sha1pcrs 0: expected an object"),
        (manifest(**{LOG: []}), f"{LOG}: expected an object"),
        (manifest(**{LOG: {"SHA256": {}}}), "SHA256: expected a list"),
        (manifest(**{LOG: {"SHA256": [1]}}), "event log SHA256 0: expected an object"),
        (manifest(**{LOG: {"SHA256": [log(event()), []]}}), "event log SHA256 1: expected an object"),
        (pcr(index="pcr_24"), "sha2pcrs 0: 'index' is not pcr_0 to pcr_23"),
        (pcr(index="pcr_01"), "sha2pcrs 0: 'index' is not pcr_0 to pcr_23"),
        (pcr(index=7), "sha2pcrs 0: expected a text in 'index'"),
        (pcr(pcr_bank="sha256"), "sha2pcrs 0: 'sha256' is not a digest method"),
        (pcr(pcr_bank=None), "sha2pcrs 0: expected a text in 'pcr_bank'"),
        (pcr(value="0"), "sha2pcrs 0: 'value' is not a digest in hexadecimal"),
        (pcr(value="00" * 65), "sha2pcrs 0: 'value' is not a digest in hexadecimal"),
        (pcr(value="0g"), "sha2pcrs 0: 'value' is not a digest in hexadecimal"),
        (logged(pcr_index="12"), "event log SHA256 0: 'pcr_index' is not pcr_0 to pcr_23"),
        (logged(pcr_bank="x"), "event log SHA256 0: 'x' is not a digest method"),
        (logged(event_log=None), "event log SHA256 0: expected a list"),
        (logged(event(), 3), "event log SHA256 0, event 1: expected an object"),
        (logged(event(info=None)), "event log SHA256 0, event 0, info: expected an object"),
        (
            logged(event(info={"EventType": "Unknown"})),
            "event log SHA256 0, event 0: 'UnknownDetails' is not a class of event details",
        ),
        (logged(event(info={})), "event log SHA256 0, event 0: expected a text in 'EventType'"),
        (logged(event(label=None)), "event log SHA256 0, event 0: expected a text in 'label'"),
        (
            logged(event(label="k.b00\x1b[2J")),
            "event log SHA256 0, event 0: 'label' holds characters that cannot be printed",
        ),
        (logged(event(value="zz")), "event log SHA256 0, event 0: 'value' is not a digest in hexadecimal"),
        (
            logged(event(info={"EventType": "HostTpmSoftwareComponentEvent"})),
            "event log SHA256 0, event 0: expected a text in 'PackageName'",
        ),
        (b"{1}", "not acceptable as JSON: Expecting property name enclosed in double quotes"),
    ],
)
def test_a_manifest_is_refused_by_place_and_reason(data, words):
    assert said(read_report, data).startswith(f"JSON attestation report: {words}")


def test_the_longest_digest_of_a_manifest_has_64_bytes():
    (value,) = read_report(pcr(value="00" * 64, pcr_bank="SHA512")).tpm_pcr_values
    assert value.digest_value == bytes(64)


def test_a_log_of_a_manifest_has_a_limit_of_its_own_and_the_report_one_for_all():
    details = {"value": "", "info": {"EventType": "HostTpmBootCompleteEvent"}}
    assert len(read_report(logged(*[details] * 10_000)).tpm_events) == 10_000
    words = said(read_report, logged(*[details] * 10_001), LimitError)
    assert words == "JSON attestation report: event log SHA256 0: more than 10000 events"
    two = {"SHA1": [log(*[details] * 5_001)], "SHA256": [log(*[details] * 5_000)]}
    words = said(read_report, manifest(**{LOG: two}), LimitError)
    assert words == "JSON attestation report: too many PCR values or events"


def test_a_report_has_at_most_eight_mebibytes():
    short = manifest()
    padded = short + b" " * ((8 << 20) - len(short))
    assert read_report(padded) == read_report(short)
    assert said(read_report, padded + b" ", LimitError) == "JSON attestation report: more than 8388608 bytes"


def test_a_pcr_is_reported_once_for_each_bank():
    values = [{"index": "pcr_3", "value": "", "pcr_bank": bank} for bank in ("SHA1", "SHA256", "SHA1")]
    assert len(read_report(manifest(sha2pcrs=values[:2])).tpm_pcr_values) == 2
    words = said(read_report, manifest(sha2pcrs=values))
    assert words == "JSON attestation report: PCR 3 is reported twice for SHA1"


# ------------------------------------------------------------ reports in SOAP


def element(name, content=""):
    return f"<{name}>{content}</{name}>"


def soap(inside, response="QueryTpmAttestationReportResponse"):
    return element(response, element("returnval", inside)).encode()


def soap_pcr(number="5", method="SHA1", value="<digestValue>-128</digestValue>", more=""):
    return element(
        "tpmPcrValues", element("digestMethod", method) + value + element("pcrNumber", number) + more
    )


def soap_event(inside="", kind="HostTpmCommandEventDetails", index="<pcrIndex>14</pcrIndex>"):
    return f'<tpmEvents>{index}<eventDetails type="{kind}">{inside}</eventDetails></tpmEvents>'


def test_an_answer_in_soap_is_read_field_by_field():
    report = read_report(
        soap(
            soap_pcr(more="<objectName> bank </objectName>")
            + soap_event("<dataHash>-1</dataHash><dataHash>127</dataHash><commandLine>b.b00</commandLine>")
            + "<tpmLogReliable>0</tpmLogReliable>"
        )
    )
    assert report == HostTpmAttestationReport(
        tpm_pcr_values=(
            TpmDigestInfo(pcr_number=5, digest_method="SHA1", digest_value=b"\x80", object_name="bank"),
        ),
        tpm_events=(
            TpmEventLogEntry(
                pcr_index=14,
                event_details=CommandDetails(
                    data_hash=b"\xff\x7f", data_hash_method="SHA1", command_line="b.b00"
                ),
            ),
        ),
        log_reliable=False,
    )


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_the_hosts_word_on_its_log_is_a_boolean_of_xml(text, value):
    assert read_report(soap(element("tpmLogReliable", text))).log_reliable is value


def test_unknown_fields_are_told_in_order_and_not_used():
    strange = soap_event("<zeta/><alpha/><dataHashMethod>SHA256</dataHashMethod>")
    report = read_report(soap(soap_event() + strange + "<more/>"))
    assert report.oddities == (
        "event 1: unknown field 'alpha'",
        "event 1: unknown field 'zeta'",
        "unknown field 'more' in the report",
    )
    assert report.tpm_events[1].event_details == CommandDetails(data_hash=b"", data_hash_method="SHA256")


def test_a_text_that_a_message_quotes_is_cut_behind_forty_characters():
    report = read_report(soap(f"<{'x' * 40}/><{'y' * 41}/>"))
    assert report.oddities == (
        f"unknown field {'x' * 40!r} in the report",
        f"unknown field {'y' * 37 + '...'!r} in the report",
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (soap("", "FetchResponse"), "root: expected QueryTpmAttestationReportResponse"),
        (b"<QueryTpmAttestationReportResponse/>",
         "QueryTpmAttestationReportResponse: expected one returnval, found 0"),
        (soap("</returnval><returnval>"), "QueryTpmAttestationReportResponse: expected one returnval, found 2"),
        (b"<Envelope/>", "Envelope: expected one Body, found 0"),
        (b"<Envelope><Body/></Envelope>", "Body: expected one QueryTpmAttestationReportResponse, found 0"),
        (soap("<tpmPcrValues/>"), "tpmPcrValues: expected one pcrNumber, found 0"),
        (soap(soap_pcr("24")), "tpmPcrValues 0: '24' is not the number of a PCR"),
        (soap(soap_pcr() + soap_pcr("007")), "tpmPcrValues 1: '007' is not the number of a PCR"),
        (soap(soap_pcr(method="sha1")), "tpmPcrValues 0: 'sha1' is not a digest method"),
        (soap(soap_pcr(value="<digestValue>128</digestValue>")), "tpmPcrValues 0: '128' is not a signed byte"),
        (soap(soap_pcr(value="<digestValue>-129</digestValue>")), "tpmPcrValues 0: '-129' is not a signed byte"),
        (soap(soap_pcr(value="<digestValue>01</digestValue>")), "tpmPcrValues 0: '01' is not a signed byte"),
        (soap(soap_pcr(value="<digestValue><a/></digestValue>")),
         "tpmPcrValues 0: digestValue holds elements where text is expected"),
        (soap(soap_pcr(more="<objectName/><objectName/>")), "tpmPcrValues 0: 2 fields objectName"),
        (soap("<tpmEvents/>"), "tpmEvents: expected one eventDetails, found 0"),
        (soap(soap_event(kind="x:Unknown")), "tpmEvents 0: 'Unknown' is not a class of event details"),
        (soap("<tpmEvents><eventDetails/></tpmEvents>"), "tpmEvents 0: '' is not a class of event details"),
        (soap(soap_event() + soap_event(index="")), "tpmEvents: expected one pcrIndex, found 0"),
        (soap(soap_event(index="<pcrIndex>x</pcrIndex>")), "tpmEvents 0: 'x' is not the number of a PCR"),
        (soap(soap_event("<commandLine/><commandLine/>")), "tpmEvents 0: 2 fields commandLine"),
        (soap(soap_event("<dataHashMethod>?</dataHashMethod>")), "tpmEvents 0: '?' is not a digest method"),
        (soap("<tpmLogReliable>yes</tpmLogReliable>"), "tpmLogReliable: 'yes' is not a boolean"),
        (soap("<tpmLogReliable><a/></tpmLogReliable>"),
         "tpmLogReliable: tpmLogReliable holds elements where text is expected"),
    ],
)  # fmt: skip
def test_an_answer_is_refused_by_place_and_reason(data, words):
    assert said(read_report, data) == f"SOAP attestation report: {words}"


def test_lists_of_bytes_in_an_answer_have_limits():
    byte = "<digestValue>0</digestValue>"
    assert len(read_report(soap(soap_pcr(value=byte * 64))).tpm_pcr_values[0].digest_value) == 64
    words = said(read_report, soap(soap_pcr(value=byte * 65)), LimitError)
    assert words == "SOAP attestation report: tpmPcrValues 0: more than 64 bytes of digestValue"
    options = soap_event("<bootOptions>1</bootOptions>" * 65_537, kind="HostTpmOptionEventDetails")
    words = said(read_report, soap(options), LimitError)
    assert words == "SOAP attestation report: tpmEvents 0: more than 65536 bytes of bootOptions"


def test_what_is_neither_xml_nor_json_is_refused_by_its_first_byte():
    assert said(read_report, b"\xef\xbb\xbf x") == (
        "attestation report: first byte: expected '<' of the SOAP form or '{' of the JSON form"
    )
    assert read_report(b"\xef\xbb\xbf \t\r\n" + manifest()) == read_report(manifest())


# ------------------------------------------------------------ what replay says of a report


def entry(pcr, details):
    return TpmEventLogEntry(pcr_index=pcr, event_details=details)


def value(pcr, digest, method="SHA256"):
    return TpmDigestInfo(pcr_number=pcr, digest_method=method, digest_value=digest)


def test_each_pcr_of_a_report_is_replayed_in_its_own_bank():
    folded = hashlib.sha1(bytes(20) + bytes(20)).digest()
    report = HostTpmAttestationReport(
        tpm_pcr_values=(value(1, folded, "SHA1"), value(1, bytes(32)), value(2, DIGEST)),
        tpm_events=(
            entry(1, CommandDetails(data_hash=bytes(20))),
            entry(1, CommandDetails(data_hash=DIGEST, data_hash_method="SHA256")),
            entry(3, CommandDetails(data_hash=DIGEST, data_hash_method="SHA256")),
        ),
    )
    replay = replay_report(report)
    assert [(one.pcr, one.method, one.outcome, one.events) for one in replay.pcrs] == [
        (1, "SHA1", PcrOutcome.MATCH, 1),
        (1, "SHA256", PcrOutcome.MISMATCH, 1),
        (2, "SHA256", PcrOutcome.NO_EVENTS, 0),
    ]
    assert replay.pcrs[2].replayed is None
    assert replay.oddities == ("1 SHA256 event(s) of PCR 3 with no reported SHA256 value",)


def test_a_report_that_does_not_replay_is_refused_with_every_wrong_pcr():
    event = entry(1, CommandDetails(data_hash=DIGEST, data_hash_method="SHA256"))
    folded = hashlib.sha256(bytes(32) + DIGEST).digest()
    other = attrs.evolve(event, pcr_index=2)
    values = (value(1, DIGEST), value(2, bytes(32)))
    wrong = HostTpmAttestationReport(tpm_pcr_values=values, tpm_events=(event, other))
    with pytest.raises(AttestationError) as caught:
        verify_report(wrong)
    assert caught.value.check == "report_replay"
    assert caught.value.message == (
        "the events do not replay to the reported value of PCR 1 (SHA256), 2 (SHA256)"
    )
    assert caught.value.evidence == (
        f"PCR 1 SHA256: reported {DIGEST.hex()}, replayed {folded.hex()}; "
        f"PCR 2 SHA256: reported {bytes(32).hex()}, replayed {folded.hex()}"
    )


def test_a_required_pcr_without_events_and_an_unreliable_log_are_refused():
    report = HostTpmAttestationReport(tpm_pcr_values=(value(1, DIGEST),))
    assert verify_report(report) == replay_report(report)
    with pytest.raises(AttestationError, match="no event explains the value of PCR 1, 4") as caught:
        verify_report(report, (4, 1))
    assert caught.value.check == "report_coverage"
    with pytest.raises(AttestationError, match="says that its event log is not reliable") as caught:
        verify_report(HostTpmAttestationReport(log_reliable=False))
    assert caught.value.check == "report_reliable"


def test_values_and_events_of_an_impossible_size_are_told():
    replay = replay_report(
        HostTpmAttestationReport(
            tpm_pcr_values=(value(1, bytes(31)), value(2, bytes(32), "SM3_256")),
            tpm_events=(
                entry(1, SystemVersionDetails(data_hash=bytes(19))),
                entry(1, SystemVersionDetails(data_hash=bytes(32), data_hash_method="SM3_256")),
            ),
        )
    )
    assert [one.outcome for one in replay.pcrs] == [PcrOutcome.UNUSABLE] * 2
    assert replay.oddities == (
        "event 0 (PCR 1): 19 bytes cannot be a SHA1 digest",
        "event 1 (PCR 1): digest method 'SM3_256' cannot be replayed",
        "PCR 1: 31 bytes cannot be a SHA256 value",
        "PCR 2: 32 bytes cannot be a SM3_256 value",
    )


@pytest.mark.parametrize("cls", [*EVENT_DETAILS.values(), TpmDigestInfo])
def test_what_an_event_does_not_say_is_empty(cls):
    needed = (
        {"data_hash": b""}
        if cls is not TpmDigestInfo
        else {"pcr_number": 0, "digest_method": "", "digest_value": b""}
    )
    for field in attrs.fields(cls):
        if field.name not in (*needed, "data_hash_method"):
            assert getattr(cls(**needed), field.name) in ("", b"")
    if cls is not TpmDigestInfo:
        assert cls(**needed).data_hash_method == "SHA1"


def test_a_report_that_contradicts_itself_or_leaves_a_value_out_is_refused():
    text = BootSecurityOptionDetails(
        data_hash=hashlib.sha256(b"on\0").digest(), data_hash_method="SHA256", boot_security_option="on"
    )
    folded = hashlib.sha256(bytes(32) + text.data_hash).digest()
    good = HostTpmAttestationReport(tpm_pcr_values=(value(1, folded),), tpm_events=(entry(1, text),))
    assert verify_report(good, (1,)) == replay_report(good)
    sm3 = attrs.evolve(good, tpm_pcr_values=(value(1, folded), value(2, bytes(32), "SM3_256")))
    assert verify_report(sm3).contradictions == ()
    lie = attrs.evolve(text, boot_security_option="off")
    short = attrs.evolve(text, data_hash=bytes(31))
    for report, words in (
        (attrs.evolve(good, tpm_events=(entry(1, lie),)), "event 0 (PCR 1): the text 'off' is not what was measured"),
        (attrs.evolve(good, tpm_events=(entry(1, text), entry(1, short), entry(1, short))),
         "event 1 (PCR 1): 31 bytes cannot be a SHA256 digest; and 1 more"),
        (attrs.evolve(good, tpm_pcr_values=(value(1, folded[:31]),)), "PCR 1: 31 bytes cannot be a SHA256 value"),
    ):  # fmt: skip
        with pytest.raises(AttestationError) as caught:
            verify_report(report)
        assert (caught.value.check, caught.value.message) == (
            "report_contradiction", f"the report contradicts itself: {words}",
        )  # fmt: skip
    with pytest.raises(
        AttestationError, match=r"events stand without the reported value of PCR 1 \(SHA256\)"
    ):
        verify_report(attrs.evolve(good, tpm_pcr_values=()))
