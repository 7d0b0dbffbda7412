"""What the readers of evidence, PCR files and keys say of what they refuse: the format, the place, the reason."""

import json
import struct

import pytest

from sim.attest.evidence import Evidence, check_sizes, evidence_from_json, evidence_to_json
from sim.attest.offline import read_key, read_pcr_file, recognise, write_pcr_file
from sim.errors import FormatError, LimitError

DIGEST = bytes(range(32))


def said(read, data, kind=FormatError):
    with pytest.raises(FormatError) as caught:
        read(data)
    assert type(caught.value) is kind
    return str(caught.value)


# ------------------------------------------------------------ evidence


SMALL = ("ek_public", "ek_certificate_der", "ak_public", "credential_blob", "encrypted_secret")
SMALL += ("activated_secret", "attest", "signature")
FIELDS = f"{', '.join(SMALL)}, pcr_values, event_log, log_truncated"


def evidence(**changes):
    fields = dict.fromkeys((*SMALL, "event_log"), b"") | {"pcr_values": {"sha1": {}}}
    return Evidence(**fields | changes)


def document(**changes):
    plain = json.loads(evidence_to_json(evidence())) | changes
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[]", f"expected an object with the fields {FIELDS}"),
        (document(more=""), f"expected an object with the fields {FIELDS}"),
        (b"?", "not acceptable as JSON: Expecting value: line 1 column 1 (char 0)"),
        (document(log_truncated=0), "log_truncated: expected true or false"),
        (document(attest="AA"), "attest: expected lower-case hexadecimal"),
        (document(event_log=1), "event_log: expected lower-case hexadecimal"),
        (document(pcr_values=[]), "pcr_values: expected {bank: {PCR: value}}"),
        (document(pcr_values={"sha1": 1}), "pcr_values: expected {bank: {PCR: value}}"),
        (document(pcr_values={"sha1": {"00": "0"}}), "pcr_values, 'sha1': expected lower-case hexadecimal"),
        (document(pcr_values={"sha1": {"7": "00" * 20}}), "pcr_values: a PCR is named by two digits"),
        (document(pcr_values={"sha1": {"123": "00" * 20}}), "pcr_values: a PCR is named by two digits"),
        (document(pcr_values={"b" * 30: {}}), f"pcr_values: {'b' * 20!r} is not a known bank"),
        (document(pcr_values={"sha1": {"24": "00" * 20}}), "pcr_values, sha1: PCR 24 with 20 bytes cannot be"),
        (document(pcr_values={"sha512": {"23": "00"}}), "pcr_values, sha512: PCR 23 with 1 bytes cannot be"),
        (document() + b" ", "the JSON is not in its one canonical form"),
    ],
)  # fmt: skip
def test_evidence_is_refused_by_field_and_reason(data, words):
    assert said(evidence_from_json, data) == f"evidence: {words}"


@pytest.mark.parametrize("name", SMALL)
def test_each_small_part_of_evidence_has_at_most_8192_bytes(name):
    check_sizes(evidence(**{name: bytes(8192)}))
    words = said(check_sizes, evidence(**{name: bytes(8193)}), LimitError)
    assert words == f"evidence: {name}: more than 8192 bytes"


def test_log_and_bundle_have_limits():
    check_sizes(evidence(event_log=bytes(4 << 20)))
    words = said(check_sizes, evidence(event_log=bytes((4 << 20) + 1)), LimitError)
    assert words == "evidence: event_log: more than 4194304 bytes"
    assert said(evidence_from_json, b" " * (9 << 20)).startswith("evidence: not acceptable as JSON")
    words = said(evidence_from_json, b" " * ((9 << 20) + 1), LimitError)
    assert words == "evidence: more than 9437184 bytes"


# ------------------------------------------------------------ files of PCR values


BANKS = {
    "sha1": {pcr: bytes([pcr]) * 20 for pcr in (0, 5, 23)},
    "sha512": {pcr: bytes([pcr]) * 64 for pcr in range(24)},
}
PCR_FILE = write_pcr_file(BANKS)
SELECTIONS = 4 + 16 * 8


def spoiled(at, new):
    return PCR_FILE[:at] + new + PCR_FILE[at + len(new) :]


def test_what_is_written_is_read_back_and_laid_out_as_tpm2_quote_does():
    assert read_pcr_file(PCR_FILE) == BANKS
    head = (
        struct.pack("<I", 2)
        + struct.pack("<HB4sx", 4, 3, b"\x21\0\x80")
        + struct.pack("<HB4sx", 13, 3, b"\xff" * 3)
    )
    assert PCR_FILE[:SELECTIONS] == head + bytes(14 * 8)
    assert PCR_FILE[SELECTIONS : SELECTIONS + 4] == struct.pack("<I", 4)
    assert len(PCR_FILE) == SELECTIONS + 4 + 4 * (4 + 8 * 66)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes(135), "135 bytes are too few"),
        (spoiled(0, b"\x03"), "selection 2: 0x0000 is no bank, or stands twice"),
        (spoiled(12, b"\x04"), "selection 1: sha1 is no bank, or stands twice"),
        (spoiled(14, b"\x05"), "selection 1: sha512 is no bank, or stands twice"),
        (spoiled(14, b"\x04") [:18] + b"\x01" + PCR_FILE[19:], "selection 1: there are fewer values than PCRs"),
        (spoiled(0, b"\x01"), "24 values more than PCRs"),
        (spoiled(8, b"\x01"), "sha1: a value has another size than those of its bank"),
        (spoiled(7, b"\x20"), "sha512: a value has another size than those of its bank"),
        (spoiled(SELECTIONS, b"\x05"), f"5 lists of values do not fill the {len(PCR_FILE)} bytes"),
        (spoiled(SELECTIONS, b"\x41"), f"65 lists of values do not fill the {len(PCR_FILE)} bytes"),
        (PCR_FILE + b"\0", f"4 lists of values do not fill the {len(PCR_FILE) + 1} bytes"),
        (spoiled(SELECTIONS + 4, b"\x09"), "list 0: 9 values, at most 8"),
        (spoiled(SELECTIONS + 8, b"\x41"), "list 0: a value of 65 bytes"),
        (spoiled(SELECTIONS + 8, b"\x13"), "sha1: a value has another size than those of its bank"),
    ],
)  # fmt: skip
def test_a_file_of_values_is_refused_by_place_and_reason(data, words):
    assert said(read_pcr_file, data) == f"file of PCR values: {words}"


def test_a_file_of_values_may_hold_no_selection_at_all():
    assert read_pcr_file(bytes(SELECTIONS + 4)) == {}
    words = said(read_pcr_file, struct.pack("<I", 17) + bytes(SELECTIONS), LimitError)
    assert words == "file of PCR values: 17 selections, at most 16"


def test_a_selection_of_four_bytes_names_no_pcr_beyond_23():
    wide = spoiled(14, b"\x04")
    assert read_pcr_file(wide) == BANKS


def test_what_no_reader_takes_is_refused():
    for head in (b"-----BEGIN PUBLIC KEY-----", b"\x30\x82", b"\x30\x59", b"\x30\x76"):
        assert recognise(head) == "key"
    assert recognise(b"\xffTCG") == "attest"
    assert said(recognise, b"?") == "file: neither quote, signature, key, PCR values nor event log"


def test_a_key_that_is_no_key_is_refused():
    for data in (b"-----BEGIN PUBLIC KEY-----\n", b"\n-----BEGIN", b"\x30\x03\x02\x01\x00"):
        assert said(read_key, data).startswith("key: not a public key: ")
