"""Real event logs replay to the values that others computed, and to those that the machines recorded."""

import json
from hashlib import sha256

import pytest

from sim.errors import FormatError
from sim.tpm.eventlog import bank_name, parse, replay

ACCEPTED = 11
RECORDED_VALUES = 88


@pytest.fixture(scope="module")
def logs(vectors):
    folder = vectors / "eventlogs"
    expected = json.loads((folder / "expected.json").read_text())
    assert all(
        sha256((folder / name).read_bytes()).hexdigest() == each["sha256"] for name, each in expected.items()
    )
    return {name: ((folder / name).read_bytes(), each) for name, each in expected.items()}


def values_of(data):
    return {
        bank_name(bank): {str(pcr): value.hex() for pcr, value in pcrs.items()}
        for bank, pcrs in replay(parse(data)).items()
    }


def test_every_good_log_replays_to_its_expected_values(logs):
    good = {name: each for name, each in logs.items() if each[1]["must"] == "accept"}

    assert len(good) == ACCEPTED
    for name, (data, expected) in good.items():
        assert values_of(data) == expected["replay"], name
        assert parse(data).record_count == expected["events"], name


def test_the_values_recorded_on_the_machines_are_reached(logs):
    compared = 0
    for name, (data, expected) in logs.items():
        for bank, pcrs in (expected["recorded_pcrs"] or {}).items():
            values = values_of(data)[bank]
            for pcr, value in pcrs.items():
                assert values[pcr] == value, (name, bank, pcr)
                compared += 1

    assert compared == RECORDED_VALUES


def test_vendor_information_outside_its_record_is_refused(logs):
    data, expected = logs["tpm2-tools__specid-vendordata.bin"]

    assert expected["must"] == "reject"
    with pytest.raises(FormatError, match="cut short: 4 bytes wanted, 0 left"):
        parse(data)


def test_no_log_is_accepted_when_its_end_is_missing(logs):
    for data, expected in logs.values():
        if expected["must"] == "accept":
            for missing in (1, 2, 7, 40):
                with pytest.raises(FormatError):
                    parse(data[:-missing])


def test_a_changed_digest_changes_exactly_its_pcr(logs):
    data, _ = logs["go-eventlog__arch-linux-workstation.bin"]
    log = parse(data)
    event = next(each for each in log.events if data.count(each.digests[0x0B]) == 1)
    position = data.index(event.digests[0x0B])
    changed = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
    before, after = values_of(data), values_of(changed)

    differing = {pcr for pcr in before["sha256"] if before["sha256"][pcr] != after["sha256"][pcr]}
    assert differing == {str(event.pcr)}
    assert before["sha1"] == after["sha1"]
