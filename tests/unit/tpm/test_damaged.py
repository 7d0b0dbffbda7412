"""A TPM that finds its stored state damaged fails for good, and makes no new secrets."""

import pytest

from sim.tpm.client import TpmClient, TpmError
from sim.tpm.constants import TPM_CC, TPM_PT, TPM_RC
from sim.tpm.damaged import DamagedTpm, wake
from sim.tpm.device import Tpm
from sim.tpm.profile import TpmProfile
from sim.tpm.state import snapshot

STARTUP = bytes.fromhex("80010000000c000001440000")
FAILURE = bytes.fromhex("80010000000a00000101")


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_a_whole_state_wakes_as_the_same_tpm(tpm, client):
    handle, public, _ = client.create_primary_ak()
    client.flush(handle)
    client.shutdown()
    again = wake(snapshot(tpm))
    assert isinstance(again, Tpm)
    assert again.execute(STARTUP)[6:10] == bytes(4)
    assert TpmClient(again.execute).create_primary_ak()[1] == public


@pytest.mark.parametrize("at", [0, 30, 200, -2])
def test_a_damaged_state_wakes_in_failure_mode_and_stays_there(tpm, at):
    broken = wake(flipped(snapshot(tpm), at))
    assert isinstance(broken, DamagedTpm)
    assert broken.damage.startswith("TPM state")
    client = TpmClient(broken.execute)
    for _ in range(2):
        assert broken.execute(STARTUP) == FAILURE
        assert broken.last_latency_ns == broken.profile.other_latency_ns
        with pytest.raises(TpmError):
            client.create_primary_ak()
        assert client.test_result() == TPM_RC.FAILURE
        assert client.properties(TPM_PT.MANUFACTURER, 1) == {TPM_PT.MANUFACTURER: 0x49424D00}
        broken.init()


def test_a_damaged_tpm_takes_part_in_a_hash_sequence_without_effect(tpm):
    broken = wake(b"", TpmProfile(hash_byte_ns=7))
    broken.hash_start()
    assert broken.last_latency_ns == broken.profile.other_latency_ns
    broken.hash_data(b"abc")
    assert broken.last_latency_ns == 21
    broken.hash_end()
    assert broken.last_latency_ns == broken.profile.other_latency_ns
    assert broken.execute(STARTUP, 3) == FAILURE
    assert not broken.describe_event(0, 4, bytes(4))
    assert "FAILURE" in broken.in_words(STARTUP, FAILURE, 0)
    assert TPM_CC.Startup.name in broken.in_words(STARTUP, FAILURE, 0)
