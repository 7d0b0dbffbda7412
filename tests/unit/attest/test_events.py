"""Checks over single events and event lists, beside what the whole verifier shows: real logs and hostile bytes."""

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.attest import esx_events, event_log, firmware
from sim.attest.uefi import GLOBAL_VARIABLE, read_variable
from sim.attest.verdict import AttestationError
from sim.errors import FormatError, LimitError
from sim.tpm.eventlog import EV, TcgEvent, event_record, parse, pcr_start_record, spec_id_record
from sim.tpm.hashing import BANK_NAMES, hash_bytes

from .lab import variable

GOOD_LOGS = (
    "go-attestation__crypto_agile_eventlog",
    "go-attestation__sb_cert_eventlog",
    "go-eventlog__arch-linux-workstation.bin",
    "go-eventlog__cos-85-amd-sev.bin",
    "go-eventlog__debian-10.bin",
    "go-eventlog__rhel8-uefi.bin",
    "go-eventlog__ubuntu-1804-amd-sev.bin",
    "keylime__binary_bios_measurements-secureboot",
    "tpm2-tools__event-bootorder.bin",
    "tpm2-tools__event-postcode.bin",
    "tpm2-tools__event-uefi-sha1-log.bin",
)


@pytest.fixture(scope="module")
def logs(vectors):
    return {name: (vectors / "eventlogs" / name).read_bytes() for name in GOOD_LOGS}


@pytest.mark.vectors
@pytest.mark.parametrize("name", GOOD_LOGS)
def test_the_data_of_hashed_types_are_what_was_measured_on_real_machines(logs, name):
    events = event_log.extending_events(event_log.read_event_log(logs[name]))
    checked = [event for event in events if event.type in firmware.HASHED_TYPES]
    for event in checked:
        firmware.check_hashed_data(event)
        with pytest.raises(AttestationError):
            firmware.check_hashed_data(attrs.evolve(event, data=event.data + b"\0"))
    assert len(checked) >= 8


@pytest.mark.vectors
@pytest.mark.parametrize("name", GOOD_LOGS)
def test_real_firmware_keeps_the_order_of_pcr_7_and_one_separator_a_pcr(logs, name):
    events = event_log.extending_events(event_log.read_event_log(logs[name]))
    variables, _ = firmware.check_pcr7_order(events)
    assert [variable.name for variable in variables] == ["SecureBoot", "PK", "KEK", "db", "dbx"]
    assert firmware.secure_boot_state(variables) in (True, False)
    if (
        name != "go-attestation__sb_cert_eventlog"
    ):  # holds PCR 7 separators only, as it was cut by its authors
        firmware.check_separators(events)


@pytest.mark.vectors
@pytest.mark.parametrize("name", GOOD_LOGS)
def test_real_logs_replay_in_all_banks_also_where_nothing_was_extended(vectors, logs, name):
    expected = json.loads((vectors / "eventlogs" / "expected.json").read_text())[name]["replay"]
    replayed = event_log.replay_all(parse(logs[name]), launched=False)
    for bank, pcrs in expected.items():
        values = replayed[BANK_NAMES[bank]]
        assert {int(pcr): value for pcr, value in pcrs.items()} == {
            int(pcr): values[int(pcr)].hex() for pcr in pcrs
        }
        assert len(values) == 24
        assert values[22] == b"\xff" * len(values[22])


@pytest.mark.vectors
def test_the_log_that_must_be_refused_is_refused(vectors):
    with pytest.raises(AttestationError) as caught:
        event_log.read_event_log((vectors / "eventlogs" / "tpm2-tools__specid-vendordata.bin").read_bytes())
    assert caught.value.check == "event_log"


def test_an_event_without_a_digest_for_some_bank_is_refused():
    data = spec_id_record((4, 11)) + event_record(4, EV.EFI_ACTION, {11: bytes(32)}, b"")
    with pytest.raises(AttestationError, match="1 digests, but the log has 2 banks"):
        event_log.read_event_log(data)


def test_no_log_can_say_itself_what_the_pcrs_of_a_launch_began_with():
    extend = event_record(17, EV.EVENT_TAG, {11: bytes(32)}, b"")
    log = event_log.read_event_log(spec_id_record((11,)) + pcr_start_record(17, 0xFF, (11,)) + extend)
    assert event_log.replay_all(log, launched=True)[11][17] == hash_bytes(11, bytes(64))


def test_a_boot_variable_may_be_hashed_whole_or_by_its_content_alone():
    data = variable("Boot0001", b"option")
    for hashed in (data, b"option"):
        event = TcgEvent(pcr=1, type=EV.EFI_VARIABLE_BOOT, digests={11: hash_bytes(11, hashed)}, data=data)
        firmware.check_hashed_data(event, firmware.STRICT_TYPES)
    wrong = TcgEvent(pcr=1, type=EV.EFI_VARIABLE_BOOT, digests={11: hash_bytes(11, b"other")}, data=data)
    firmware.check_hashed_data(wrong)
    with pytest.raises(AttestationError):
        firmware.check_hashed_data(wrong, firmware.STRICT_TYPES)


def test_a_variable_is_read_to_its_last_byte():
    read = read_variable(variable("SecureBoot", b"\x01"))
    assert (read.namespace, read.name, read.content) == (GLOBAL_VARIABLE, "SecureBoot", b"\x01")
    for data in (b"", bytes(31), variable("x", b"y")[:-1], variable("x", b"y") + b"z"):
        with pytest.raises(FormatError):
            read_variable(data)
    with pytest.raises(LimitError):
        read_variable(variable("n" * 257, b""))
    with pytest.raises(FormatError):
        read_variable(GLOBAL_VARIABLE + b"\1" + bytes(15) + b"\x00\xd8")


@given(st.binary(max_size=80))
def test_random_bytes_are_a_variable_or_a_format_error(data):
    try:
        read = read_variable(data)
    except FormatError:
        return
    assert data.endswith(read.content)


@given(st.binary(max_size=60), st.integers(0, 23))
def test_random_bytes_are_a_measurement_or_a_format_error(data, pcr):
    event = TcgEvent(pcr=pcr, type=EV.EVENT_TAG, digests={}, data=data)
    try:
        measurement = esx_events.read_measurement(event)
    except FormatError:
        return
    assert measurement.title.isascii()


def test_oversized_tagged_events_pass_a_limit():
    with pytest.raises(LimitError):
        esx_events.read_measurement(TcgEvent(pcr=13, type=EV.EVENT_TAG, digests={}, data=bytes(17_000)))


@pytest.mark.parametrize("pcr", range(24))
def test_no_pcr_accepts_an_event_of_unknown_type(pcr):
    for kind in (0x12345, 0x8000FFFF, EV.IPL, EV.NO_ACTION):
        with pytest.raises(AttestationError):
            esx_events.check_event_belongs(TcgEvent(pcr=pcr, type=kind, digests={}, data=b""))


def test_pcr_numbers_and_types_that_belong_are_accepted():
    for pcr, kind in (
        (0, EV.POST_CODE),
        (4, EV.EFI_BOOT_SERVICES_APPLICATION),
        (14, EV.EVENT_TAG),
        (17, 0x402),
    ):
        esx_events.check_event_belongs(TcgEvent(pcr=pcr, type=kind, digests={}, data=b""))
