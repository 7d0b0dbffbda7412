"""The device as a whole: capabilities, random numbers, NV, pickling."""

import pickle

import pytest

from sim.errors import FormatError, SimBug
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.constants import TPM_ALG, TPM_CAP, TPM_CC, TPM_PT, TPM_RC, TPM_RH, TPMA_NV
from sim.tpm.nv import FACTORY_ATTRIBUTES, factory_index
from sim.tpm.profile import TpmProfile
from sim.tpm.tables import COMMANDS

INDEX = 0x01C90000
OPEN = FACTORY_ATTRIBUTES


def refused(call, *arguments):
    with pytest.raises(TpmError) as caught:
        call(*arguments)
    return caught.value.rc


def test_fixed_properties_are_those_of_a_software_tpm(client):
    properties = client.properties(TPM_PT.FAMILY_INDICATOR)

    assert properties[TPM_PT.FAMILY_INDICATOR] == 0x322E3000
    assert properties[TPM_PT.MANUFACTURER] == 0x49424D00
    assert properties[TPM_PT.VENDOR_STRING_1] == 0x53572020
    assert properties[TPM_PT.PCR_COUNT] == 24
    assert properties[TPM_PT.FIRMWARE_VERSION_1] == 0x20191023
    assert properties[TPM_PT.TOTAL_COMMANDS] == len(COMMANDS)
    assert len(properties) == 46
    assert len(client.properties(TPM_PT.PERMANENT)) == 21


def test_variable_properties_follow_the_loaded_objects(client):
    assert client.properties(TPM_PT.HR_TRANSIENT_AVAIL, 1) == {TPM_PT.HR_TRANSIENT_AVAIL: 3}
    client.create_primary_ak()
    assert client.properties(TPM_PT.HR_TRANSIENT_AVAIL, 1) == {TPM_PT.HR_TRANSIENT_AVAIL: 2}
    assert client.get_capability(TPM_CAP.HANDLES, 0x80000000) == (0x80000000,)


def test_a_part_of_a_list_says_that_there_is_more(client):
    whole = client.get_capability(TPM_CAP.ALGS)
    more, data = client._call(TPM_CC.GetCapability, (), TPM_CAP.ALGS, 0, 3)

    assert more == 1
    assert data.data == whole[:3]
    more, data = client._call(TPM_CC.GetCapability, (), TPM_CAP.ALGS, whole[3].alg, 1000)
    assert (more, data.data) == (0, whole[3:])


def test_handles_are_listed_by_kind(tpm, client):
    tpm.provision_nv(factory_index(INDEX, b"x"))

    assert client.get_capability(TPM_CAP.HANDLES, 0) == tuple(range(24))
    assert client.get_capability(TPM_CAP.HANDLES, 0x01000000) == (INDEX,)
    assert client.get_capability(TPM_CAP.HANDLES, 0x40000000)[0] == TPM_RH.OWNER
    assert client.get_capability(TPM_CAP.HANDLES, 0x02000000) == ()


def test_pcr_properties_agree_with_the_locality_tables(client):
    """As swtpm 0.7.1 reports them, but for the last two: no PCR can be given a policy or a password here."""
    reported = {each.tag: each.pcrSelect.hex() for each in client.get_capability(TPM_CAP.PCR_PROPERTIES)}

    assert reported == {
        0x00: "ffff00",
        0x01: "ffff81",
        0x02: "000081",
        0x03: "ffff91",
        0x04: "000081",
        0x05: "ffffff",
        0x06: "0000f1",
        0x07: "ffff9f",
        0x08: "000081",
        0x09: "ffff87",
        0x0A: "00007e",
        0x11: "0000e1",
        0x12: "00007e",
        0x13: "000070",
        0x14: "000070",
    }


@pytest.mark.parametrize(
    ("group", "first", "rc"),
    [(TPM_CAP.PCRS, 1, 0x2C4), (TPM_CAP.AUTH_POLICIES, 0, 0x2C4), (TPM_CAP.ACT, 0, 0x2C4), (0x100, 0, 0x1C4)],
)
def test_a_group_that_is_not_there_is_refused(client, group, first, rc):
    assert refused(client.get_capability, group, first) == rc


def test_other_groups_have_their_entries(client):
    assert client.get_capability(TPM_CAP.ECC_CURVES) == (1, 2, 3, 4, 5, 0x10, 0x11, 0x20)
    assert client.get_capability(TPM_CAP.PP_COMMANDS) == (TPM_CC.PP_Commands,)
    assert client.get_capability(TPM_CAP.AUDIT_COMMANDS) == (TPM_CC.SetCommandCodeAuditStatus,)
    assert [each.hashAlg for each in client.get_capability(TPM_CAP.AUTH_POLICIES, 0x40000000)] == [0x10] * 4
    assert refused(client.get_capability, TPM_CAP.HANDLES, 0x55000000) == 0x2CB


def test_random_numbers_come_in_chunks_of_a_digest_and_are_stirred(tpm, client):
    (chunk,) = client._call(TPM_CC.GetRandom, (), 0xFFFF)
    assert len(chunk) == 64
    twin = pickle.loads(pickle.dumps(tpm))
    TpmClient(twin.execute).stir_random(b"something")
    assert client.get_random(100) != TpmClient(twin.execute).get_random(100)
    assert len(client.get_random(100)) == 100


def test_an_index_is_read_in_pieces_by_the_client(tpm, client):
    content = bytes(range(256)) * 6
    tpm.provision_nv(factory_index(INDEX, content))

    assert client.nv_read(INDEX) == content
    assert client.nv_read_public(INDEX).dataSize == len(content)


@pytest.mark.parametrize(
    ("auth", "size", "offset", "rc"),
    [
        (INDEX, 10, 0, 0),
        (INDEX, 5, 5, 0),
        (INDEX, 0, 10, 0),
        (INDEX, 11, 0, TPM_RC.NV_RANGE),
        (INDEX, 5, 6, TPM_RC.NV_RANGE),
        (INDEX, 0, 11, 0x2C4),
        (INDEX, 1025, 0, 0x1C4),
        (TPM_RH.OWNER, 10, 0, 0),
        (TPM_RH.PLATFORM, 10, 0, 0),
        (TPM_RH.ENDORSEMENT, 10, 0, 0x184),
        (INDEX + 1, 10, 0, TPM_RC.NV_AUTHORIZATION),
    ],
)
def test_reads_of_an_index_are_checked_as_another_tpm_checks_them(tpm, client, auth, size, offset, rc):
    tpm.provision_nv(factory_index(INDEX, b"0123456789"))
    tpm.provision_nv(factory_index(INDEX + 1, b"other"))

    if rc:
        assert refused(client._call, TPM_CC.NV_Read, (auth, INDEX), size, offset) == rc
    else:
        (content,) = client._call(TPM_CC.NV_Read, (auth, INDEX), size, offset)
        assert content == b"0123456789"[offset : offset + size]


@pytest.mark.parametrize(
    ("attributes", "auth", "rc"),
    [
        (OPEN & ~TPMA_NV.OWNERREAD, TPM_RH.OWNER, TPM_RC.NV_AUTHORIZATION),
        (OPEN & ~TPMA_NV.PPREAD, TPM_RH.PLATFORM, TPM_RC.NV_AUTHORIZATION),
        (OPEN & ~TPMA_NV.AUTHREAD, INDEX, TPM_RC.AUTH_UNAVAILABLE),
        (OPEN & ~TPMA_NV.WRITTEN, INDEX, TPM_RC.NV_UNINITIALIZED),
        (OPEN | TPMA_NV.READLOCKED, INDEX, TPM_RC.NV_LOCKED),
    ],
)
def test_the_attributes_of_an_index_decide_who_reads(tpm, client, attributes, auth, rc):
    tpm.provision_nv(factory_index(INDEX, b"0123456789", attributes))

    assert refused(client._call, TPM_CC.NV_Read, (auth, INDEX), 1, 0) == rc


def test_an_index_too_large_for_the_tpm_is_our_bug():
    with pytest.raises(SimBug):
        factory_index(INDEX, bytes(2049))


def test_the_whole_device_pickles_in_the_middle_of_a_hash_sequence(tpm, client):
    client.create_primary_ak()
    client.pcr_extend(3, {TPM_ALG.SHA256.value: bytes(32)})
    tpm.hash_start()
    tpm.hash_data(b"launch")
    twin = pickle.loads(pickle.dumps(tpm))
    for device in (tpm, twin):
        device.hash_data(b"ed")
        device.hash_end()

    other = TpmClient(twin.execute)
    everything = {bank: range(24) for bank in (4, 11, 12, 13)}
    assert other.pcr_read(everything) == client.pcr_read(everything)
    assert other.quote(0x80000000, b"n", {11: (17,)}) == client.quote(0x80000000, b"n", {11: (17,)})
    assert other.get_random(64) == client.get_random(64)


def test_invariants_hold_and_are_checked(tpm, client):
    client.create_primary_ak()
    tpm.check_invariants()
    tpm.pcrs.values[11][3] = b"short"
    with pytest.raises(AssertionError):
        tpm.check_invariants()


def test_a_profile_must_be_possible():
    with pytest.raises(ValueError, match="banks"):
        TpmProfile(banks=())
    with pytest.raises(ValueError, match="transient_slots"):
        TpmProfile(transient_slots=0)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        bytes.fromhex("80010000000b00000000"),
        bytes.fromhex("80010000000a00000000"),
        bytes.fromhex("80010000000d0000000000ff00"),
        bytes.fromhex("80020000000e0000000000000fff"),
        bytes.fromhex("80010000000d00000000000000"),
    ],
)
def test_the_client_refuses_a_response_that_is_none(answer):
    def transmit(command, *, locality):
        del command, locality
        return answer

    with pytest.raises(FormatError):
        TpmClient(transmit).get_random(8)


def test_a_refusal_names_the_command_and_the_code(client):
    with pytest.raises(TpmError, match=r"TPM2_PCR_Reset: LOCALITY \(0x907\)"):
        client.pcr_reset(0)
