"""Event logs of real machines, looked through by the verifier that knows no machine."""

import attrs
import pytest

from sim.attest.firmware import HASHED_TYPES
from sim.attest.survey import HandOver, survey
from sim.tpm.eventlog import parse

EXPECTED = {
    # name: (system, Secure Boot, authorities, EFI images, hand-over, findings)
    "go-attestation__crypto_agile_eventlog": ("unknown", False, 0, 2, "unknown", []),
    "go-attestation__sb_cert_eventlog": ("unknown", True, 3, 3, "unknown", []),
    "go-eventlog__arch-linux-workstation.bin": ("linux", False, 0, 3, "unknown", []),
    "go-eventlog__cos-85-amd-sev.bin": ("linux", True, 3, 3, "clean", []),
    "go-eventlog__debian-10.bin": ("unknown", True, 2, 3, "unknown", []),
    "go-eventlog__rhel8-uefi.bin": ("linux", True, 2, 3, "clean", []),
    "go-eventlog__ubuntu-1804-amd-sev.bin": ("linux", False, 0, 2, "clean", []),
    "keylime__binary_bios_measurements-secureboot": ("linux", True, 3, 4, "clean", []),
    "tpm2-tools__event-bootorder.bin": ("linux", False, 0, 4, "clean", []),
    "tpm2-tools__event-postcode.bin": ("linux", True, 3, 7, "unknown", []),
    "tpm2-tools__event-uefi-sha1-log.bin": ("unknown", False, 0, 2, "unknown", []),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_real_log_says_what_it_says(vectors, name):
    system, secure_boot, authorities, images, hand_over, findings = EXPECTED[name]
    found = survey(parse((vectors / "eventlogs" / name).read_bytes()))
    assert (found.system, found.secure_boot, found.authorities) == (system, secure_boot, authorities)
    assert (len(found.applications), found.hand_over) == (images, HandOver(hand_over))
    assert [finding.code for finding in found.findings] == findings
    assert found.covered + found.described == found.events > 10


def test_every_log_of_the_folder_is_looked_through(vectors):
    names = {path.name for path in (vectors / "eventlogs").iterdir()}
    assert names - set(EXPECTED) == {"expected.json", "tpm2-tools__specid-vendordata.bin"}


def test_any_change_to_covered_data_of_a_real_log_is_a_finding(vectors):
    log = parse((vectors / "eventlogs" / "go-eventlog__rhel8-uefi.bin").read_bytes())
    changed = 0
    for number, event in enumerate(log.events):
        if event.type in HASHED_TYPES and event.data:
            data = bytes([event.data[0] ^ 1]) + event.data[1:]
            lie = attrs.evolve(event, data=data)
            events = (*log.events[:number], lie, *log.events[number + 1 :])
            assert survey(attrs.evolve(log, events=events)).findings, (number, event.type)
            changed += 1
    assert changed >= 15
