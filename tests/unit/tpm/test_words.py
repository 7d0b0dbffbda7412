"""Every command in plain words, whatever its bytes."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.tpm.client import TpmClient
from sim.tpm.constants import TPM_ALG, TPM_CC
from sim.tpm.phrases import PHRASES
from sim.tpm.tables import COMMANDS
from sim.tpm.words import handle_in_words, in_words


@pytest.fixture
def spoken(tpm):
    """A client, and the lines about its commands."""
    lines = []

    def transmit(command, locality=0):
        response = tpm.execute(command, locality)
        lines.append(in_words(command, response, locality))
        return response

    return TpmClient(transmit), lines


def test_a_measurement_reads_like_a_sentence(spoken):
    client, lines = spoken
    client.pcr_extend(7, {TPM_ALG.SHA256.value: bytes(32)})
    assert lines == [
        "locality 0: PCR_Extend: extend PCR 7 with sha256 0000000000000000… by empty password: done"
    ]


def test_a_refusal_is_named(spoken):
    client, lines = spoken
    with pytest.raises(Exception, match="LOCALITY"):
        client.pcr_extend(21, {TPM_ALG.SHA256.value: bytes(32)})
    assert lines[0].endswith("refused, LOCALITY (0x907)")


def test_a_new_object_is_named(spoken):
    client, lines = spoken
    client.create_primary_ak()
    assert "create a primary object of the endorsement hierarchy" in lines[0]
    assert lines[0].endswith("done, object 0x80000000")


def test_selected_pcrs_are_listed(spoken):
    client, lines = spoken
    client.pcr_read({TPM_ALG.SHA256.value: [0, 7]})
    assert "read PCRs sha256:0,7" in lines[0]


@pytest.mark.parametrize(
    ("handle", "words"),
    [
        (7, "PCR 7"),
        (0x40000001, "the owner"),
        (0x4000000A, "lockout"),
        (0x01C00002, "NV index 0x01c00002"),
        (0x02000000, "HMAC session 0x02000000"),
        (0x03000001, "policy session 0x03000001"),
        (0x80000001, "object 0x80000001"),
        (0x81000001, "persistent object 0x81000001"),
        (0x99000000, "handle 0x99000000"),
    ],
)
def test_handles_have_names(handle, words):
    assert handle_in_words(handle) == words


def test_what_is_no_command_is_said_too():
    assert in_words(b"", b"", 0) == "locality 0: 0 bytes that are no command: no answer"
    unknown = bytes.fromhex("80010000000a00000fff")
    assert "unknown command 0xfff" in in_words(unknown, b"", 3)
    cut = bytes.fromhex("80010000000b0000017e00")
    assert "PCR_Read (malformed)" in in_words(cut, b"", 0)


def test_every_command_has_a_phrase_with_places_that_exist():
    for code, spec in COMMANDS.items():
        places = {name for _, name, _, _ in string.Formatter().parse(PHRASES[code]) if name}
        known = {f"h{n}" for n in range(len(spec.handles))} | {f"p{n}" for n in range(len(spec.parameters))}
        assert places <= known, spec.code.name


@given(
    st.sampled_from(sorted(COMMANDS)),
    st.sampled_from([0x8001, 0x8002, 0]),
    st.binary(max_size=60),
    st.binary(max_size=20),
)
def test_any_bytes_have_words(code, tag, body, response):
    command = tag.to_bytes(2, "big") + (10 + len(body)).to_bytes(4, "big") + code.to_bytes(4, "big") + body
    assert TPM_CC(code).name in in_words(command, response, 0)
