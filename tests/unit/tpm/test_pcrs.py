"""PCR commands and the hash sequence of hardware."""

from hashlib import sha1, sha256, sha384, sha512

import pytest

from sim.errors import SimBug
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.constants import TPM_ALG, TPM_RC, TPM_RH, TPM_SU
from sim.tpm.device import Tpm
from sim.tpm.profile import TpmProfile

HASHES = {TPM_ALG.SHA1: sha1, TPM_ALG.SHA256: sha256, TPM_ALG.SHA384: sha384, TPM_ALG.SHA512: sha512}
SHA256 = TPM_ALG.SHA256.value


def read(client, pcr, bank=SHA256):
    return client.pcr_read({bank: (pcr,)})[bank][pcr]


def drive(tpm, *pieces):
    tpm.hash_start()
    for piece in pieces:
        tpm.hash_data(piece)
    tpm.hash_end()


def refused(call, *arguments):
    with pytest.raises(TpmError) as caught:
        call(*arguments)
    return caught.value.rc


@pytest.mark.parametrize("bank", HASHES)
def test_an_extend_hashes_the_old_value_and_the_digest_in_each_bank(client, bank):
    hash_function = HASHES[bank]
    digest = hash_function(b"event").digest()
    size = len(digest)
    client.pcr_extend(5, {bank: digest})
    client.pcr_extend(5, {bank: digest})

    once = hash_function(bytes(size) + digest).digest()
    assert read(client, 5, bank) == hash_function(once + digest).digest()
    assert all(not any(read(client, 5, other)) for other in HASHES if other != bank)


def test_several_digests_of_one_bank_are_extended_in_order(client, tpm):
    from sim.tpm.tables import COMMANDS
    from sim.tpm.wire import TPMT_HA

    first, second = bytes([1]) * 32, bytes([2]) * 32
    values = (
        COMMANDS[0x182]
        .parameters[0]
        .encode((TPMT_HA(hashAlg=SHA256, digest=first), TPMT_HA(hashAlg=SHA256, digest=second)))
    )
    area = bytes.fromhex("00000009" + "400000090000000000")
    body = (1).to_bytes(4, "big") + area + values
    response = tpm.execute(b"\x80\x02" + (10 + len(body)).to_bytes(4, "big") + b"\0\0\x01\x82" + body)

    assert response[6:10] == bytes(4)
    assert read(client, 1) == sha256(sha256(bytes(32) + first).digest() + second).digest()


def test_an_extend_at_the_null_handle_changes_nothing(client, tpm):
    before = {bank: list(values) for bank, values in tpm.pcrs.values.items()}
    client.pcr_extend(TPM_RH.NULL, {SHA256: bytes(32)})

    assert tpm.pcrs.values == before


def test_an_event_extends_the_digests_that_it_returns(client):
    digests = client.pcr_event(8, b"what happened")

    assert digests == {bank: function(b"what happened").digest() for bank, function in HASHES.items()}
    assert read(client, 8) == sha256(bytes(32) + digests[SHA256]).digest()


def test_an_event_has_at_most_1024_bytes(client):
    from sim.tpm.codec import WireError

    client.pcr_event(8, bytes(1024))
    with pytest.raises(WireError):
        client.pcr_event(8, bytes(1025))


def test_a_reset_clears_every_bank_where_it_is_allowed(client):
    client.pcr_extend(16, {bank: bytes(function().digest_size) for bank, function in HASHES.items()})
    client.pcr_reset(16)

    assert all(not any(read(client, 16, bank)) for bank in HASHES)
    assert refused(client.pcr_reset, 0) == TPM_RC.LOCALITY
    assert refused(client.at_locality(4).pcr_reset, 16) == TPM_RC.LOCALITY


def test_all_24_pcrs_of_all_banks_are_read_although_a_command_returns_eight(client):
    values = client.pcr_read({bank: range(24) for bank in HASHES})

    assert {bank: len(pcrs) for bank, pcrs in values.items()} == dict.fromkeys(HASHES, 24)
    assert values[SHA256][16] == bytes(32)
    assert values[SHA256][17] == b"\xff" * 32


def test_the_update_counter_leaves_out_the_debug_and_os_pcrs(tpm, client):
    """Measured: 20 PCRs count at Startup, one a bank at an extend, and 16, 21, 22, 23 never."""
    assert tpm.pcrs.update_counter == 20
    client.pcr_extend(3, {SHA256: bytes(32), TPM_ALG.SHA1.value: bytes(20)})
    assert tpm.pcrs.update_counter == 22
    client.pcr_extend(16, {SHA256: bytes(32)})
    client.pcr_reset(23)
    client.at_locality(2).pcr_extend(21, {SHA256: bytes(32)})
    assert tpm.pcrs.update_counter == 22
    client.at_locality(2).pcr_extend(20, {SHA256: bytes(32)})
    assert tpm.pcrs.update_counter == 23


def test_a_launch_clears_17_to_22_and_extends_17(tpm, client):
    client.pcr_extend(0, {SHA256: b"\x01" * 32})
    kept = read(client, 0)
    drive(tpm, b"A", b"BC")

    assert read(client, 17) == sha256(bytes(32) + sha256(b"ABC").digest()).digest()
    assert all(read(client, pcr) == bytes(32) for pcr in range(18, 23))
    assert read(client, 0) == kept
    assert tpm.established
    assert client.read_clock().clockInfo.restartCount == 1


def test_a_launch_undoes_a_shutdown(tpm, client):
    client.shutdown(TPM_SU.STATE)
    drive(tpm, b"launch")
    tpm.init()

    assert refused(client.startup, TPM_SU.STATE) == TPM_RC.VALUE | 0x140


def test_an_h_crtm_starts_pcr_0_at_4_and_the_last_one_counts():
    tpm = Tpm(b"seed")
    tpm.init()
    drive(tpm, b"first")
    drive(tpm, b"second")
    client = TpmClient(tpm.execute, locality=3)
    client.startup()

    assert read(client, 0) == sha256(bytes(31) + b"\x04" + sha256(b"second").digest()).digest()
    assert read(client, 17) == b"\xff" * 32


def test_data_or_end_without_start_do_nothing(tpm, client):
    tpm.hash_data(b"lost")
    tpm.hash_end()

    assert read(client, 17) == b"\xff" * 32


def test_a_command_in_the_middle_ends_the_hash_sequence(tpm, client):
    tpm.hash_start()
    tpm.hash_data(b"x")
    client.read_clock()
    tpm.hash_end()

    assert read(client, 17) == b"\xff" * 32


def test_a_hash_sequence_has_a_limit(tpm, monkeypatch):
    monkeypatch.setattr("sim.tpm.device.HASH_SEQUENCE_BYTES_MAX", 8)
    tpm.hash_start()
    tpm.hash_data(bytes(8))
    with pytest.raises(SimBug):
        tpm.hash_data(b"9")


def test_a_bank_that_is_not_allocated_is_passed_over():
    tpm = Tpm(b"seed", TpmProfile(banks=(SHA256,)))
    tpm.init()
    client = TpmClient(tpm.execute)
    client.startup()
    client.pcr_extend(0, {SHA256: bytes(32), TPM_ALG.SHA1.value: bytes(20)})

    assert client.allocated_banks() == (SHA256,)
    assert client.pcr_read({SHA256: (0,), TPM_ALG.SHA1.value: (0,)}) == {
        SHA256: {0: sha256(bytes(64)).digest()},
        TPM_ALG.SHA1.value: {},
    }


def test_extends_take_the_time_of_the_profile_and_refusals_that_of_a_small_command(tpm, client):
    client.pcr_extend(0, {SHA256: bytes(32)})
    assert tpm.last_latency_ns == tpm.profile.latencies_ns[0x182]
    refused(client.pcr_extend, 17, {SHA256: bytes(32)})
    assert tpm.last_latency_ns == tpm.profile.other_latency_ns
