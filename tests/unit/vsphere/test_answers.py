"""What a host answers is read within limits, and refused by the field that passes one."""

import pytest

from sim.attest.credential import Challenge
from sim.errors import FormatError
from sim.vsphere.answers import (
    BANKS_MAX,
    PCRS_MAX,
    TEXT_CHARS_MAX,
    Identity,
    read_evidence,
    read_host_info,
)

IDENTITY = Identity(ek_public=b"", ek_certificate_der=b"", ak_public=b"")


def values_of(pcr_values):
    answers = (
        {"secret": b""},
        {"event_log": b"", "log_truncated": False},
        {"attest": b"", "signature": b"", "pcr_values": pcr_values},
    )
    challenge = Challenge(ek_public=b"", ak_name=b"", credential_blob=b"", encrypted_secret=b"", secret=b"")
    return read_evidence(IDENTITY, challenge, *answers).pcr_values


def test_pcr_values_have_a_limit_of_banks_and_one_of_pcrs():
    most = {f"bank {number}": dict.fromkeys(range(PCRS_MAX), b"") for number in range(BANKS_MAX)}
    assert values_of(most) == most
    with pytest.raises(FormatError, match="more than 8 banks"):
        values_of({**most, "another": {}})
    with pytest.raises(FormatError, match="more than 24 PCRs"):
        values_of({"sha256": dict.fromkeys(range(PCRS_MAX + 1), b"")})


def test_a_text_is_short_and_can_be_printed():
    longest = "x" * TEXT_CHARS_MAX
    assert read_host_info({"boot_id": longest, "tpm": "enabled"}).boot_id == longest
    for text in (longest + "x", "two\nlines"):
        with pytest.raises(FormatError, match="expected a short line of text"):
            read_host_info({"boot_id": text, "tpm": "enabled"})
