"""Headers, handles, sessions and parameters: the codes that swtpm 0.7.1 gave for the same bytes."""

import struct

import pytest

from sim.tpm.client import TpmClient
from sim.tpm.constants import TPM_CC
from sim.tpm.device import Tpm
from sim.tpm.profile import TpmProfile

EMPTY = "400000090000000000"


def packet(code, body="", *, tag=0x8001):
    content = bytes.fromhex(body)
    return struct.pack(">HII", tag, 10 + len(content), code) + content


def with_sessions(code, handles, area, parameters=""):
    return packet(code, f"{handles}{len(area) // 2:08x}{area}{parameters}", tag=0x8002)


def code_of(tpm, command):
    response = tpm.execute(command)
    tag, size, rc = struct.unpack_from(">HII", response)
    assert size == len(response)
    assert tag == 0x8001 or rc == 0
    return rc


@pytest.mark.parametrize(
    ("command", "rc"),
    [
        (b"", 0x142),
        (b"\x80\x01\x00\x00\x00\x0e", 0x142),
        (packet(TPM_CC.ReadClock, tag=0x8003), 0x084),
        (packet(TPM_CC.ReadClock)[:-1] + b"\x81\x00", 0x142),
        (packet(0x999), 0x143),
        (packet(TPM_CC.ReadClock), 0),
        (packet(TPM_CC.ReadClock, "00"), 0x095),
        (packet(TPM_CC.GetRandom), 0x1DA),
        (packet(TPM_CC.GetRandom, "000800"), 0x095),
        (packet(TPM_CC.SelfTest, "02"), 0x1C4),
        (packet(TPM_CC.ReadPublic, "80"), 0x19A),
        (packet(TPM_CC.ReadPublic, "40000001"), 0x184),
        (packet(TPM_CC.ReadPublic, "80000000"), 0x910),
        (packet(TPM_CC.ReadPublic, "80000003"), 0x184),
        (packet(TPM_CC.ReadPublic, "81000000"), 0x18B),
        (packet(TPM_CC.NV_ReadPublic, "01c90000"), 0x18B),
        (packet(TPM_CC.FlushContext, "80000001"), 0x1CB),
        (packet(TPM_CC.FlushContext, "80000003"), 0x1C4),
        (packet(TPM_CC.FlushContext, "02000000"), 0x1CB),
        (packet(TPM_CC.FlushContext, "81000000"), 0x1C4),
        (packet(TPM_CC.PCR_Extend, "00000001" + "00000000"), 0x125),
        (packet(TPM_CC.PCR_Extend, "00000020"), 0x184),
        (packet(TPM_CC.PCR_Extend, "00000001", tag=0x8002), 0x09A),
        (packet(TPM_CC.Startup, "00000009" + EMPTY + "0000", tag=0x8002), 0x100),
    ],
)
def test_what_is_wrong_is_named_in_the_order_of_the_library(tpm, command, rc):
    assert code_of(tpm, command) == rc


EXTEND_ONE = "00000001" + "000b" + "01" * 32


@pytest.mark.parametrize(
    ("area", "rc"),
    [
        (EMPTY, 0),
        ("400000090000010000", 0),
        ("4000000900000000020000", 0),  # trailing zeros of a password do not count
        ("40000009000000000161", 0x9A2),
        ("400000090000200000", 0x982),
        ("400000090000080000", 0x9A1),
        ("40000009000141000000", 0x98F),
        ("40000009000141200000", 0x982),
        ("400000010000000000", 0x984),
        ("020000000000000000", 0x918),
        ("020000400000000000", 0x984),
        ("0000000900000000", 0x095),
        ("400000090041000000", 0x995),
        (EMPTY + "0000", 0xA9A),
        (EMPTY * 2, 0xA8B),
        (EMPTY * 4, 0xC95),
        (EMPTY + "400000090000200000", 0xA82),
        (EMPTY + "020000000000000000", 0x919),
        ("40000009000000000161" + EMPTY, 0x9A2),
        ("40000009000000000161" + "400000090000200000", 0xA82),
        ("4000000900017800" + "0000" + "400000090000200000", 0x98F),
    ],
)
def test_sessions_are_parsed_then_checked_one_after_the_other(tpm, area, rc):
    assert code_of(tpm, with_sessions(TPM_CC.PCR_Extend, "00000001", area, EXTEND_ONE)) == rc


def test_a_session_area_longer_than_the_command_is_refused(tpm):
    assert code_of(tpm, packet(TPM_CC.PCR_Extend, "00000001" + "000000ff" + EMPTY, tag=0x8002)) == 0x095


def test_a_password_that_authorises_nothing_is_refused(tpm):
    for code in (TPM_CC.ReadClock, TPM_CC.GetRandom, TPM_CC.Shutdown):
        assert (
            code_of(tpm, with_sessions(code, "", EMPTY, "0000" if code != TPM_CC.ReadClock else "")) == 0x98B
        )


def test_sessions_are_not_allowed_in_startup():
    tpm = Tpm(b"seed")
    tpm.init()

    assert code_of(tpm, with_sessions(TPM_CC.Startup, "", EMPTY, "0000")) == 0x145


@pytest.mark.parametrize(
    ("digests", "rc"),
    [
        ("00000000", 0),
        ("0000", 0x1DA),
        ("00000001", 0x1DA),
        ("000000010012", 0x1C3),
        ("000000010010", 0x1C3),
        ("00000001000b" + "00" * 31, 0x1DA),
        ("00000001000b" + "00" * 33, 0x095),
        ("00000005", 0x1D5),
    ],
)
def test_the_digests_of_an_extend_are_parameter_1(tpm, digests, rc):
    assert code_of(tpm, with_sessions(TPM_CC.PCR_Extend, "00000001", EMPTY, digests)) == rc


def test_parameters_are_read_before_the_locality_is_checked(tpm):
    assert code_of(tpm, with_sessions(TPM_CC.PCR_Extend, "00000011", EMPTY, "000000010012")) == 0x1C3
    assert code_of(tpm, with_sessions(TPM_CC.PCR_Extend, "00000011", EMPTY, "00000000")) == 0x907


def test_the_response_with_a_session_has_a_parameter_size_and_keeps_the_session(tpm):
    response = tpm.execute(with_sessions(TPM_CC.PCR_Reset, "00000010", EMPTY))

    assert response.hex() == "80020000001300000000000000000000010000"


def test_a_command_longer_than_the_buffer_is_refused():
    tpm = Tpm(b"seed", TpmProfile(command_bytes_max=64))
    tpm.init()
    TpmClient(tpm.execute).startup()

    assert code_of(tpm, packet(TPM_CC.StirRandom, "0040" + "00" * 64)) == 0x142
