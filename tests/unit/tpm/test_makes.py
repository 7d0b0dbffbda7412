"""Makes of TPM: names, identities, and times that depend on the kind of key."""

import pytest

from sim.errors import ScenarioError
from sim.tpm.client import TpmClient
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_PT
from sim.tpm.device import Tpm
from sim.tpm.latency import latency_ns
from sim.tpm.makes import MAKES, profile_named
from sim.tpm.tables import COMMANDS

MS = 1_000_000
OWNER_EMPTY_PASSWORD = bytes.fromhex("4000000100000009400000090000000000")


def create_primary(key_type):
    """Return the start of a command, up to the type in its template."""
    body = OWNER_EMPTY_PASSWORD + bytes.fromhex("000400000000001a") + key_type.to_bytes(2, "big")
    return bytes.fromhex("8002") + (10 + len(body)).to_bytes(4, "big") + bytes.fromhex("00000131") + body


def started(name):
    tpm = Tpm(b"seed", profile_named(name))
    tpm.init()
    TpmClient(tpm.execute).startup()
    return tpm


@pytest.mark.parametrize("name", MAKES)
def test_each_make_tells_its_own_name(name):
    tpm = started(name)
    properties = TpmClient(tpm.execute).properties(TPM_PT.MANUFACTURER)
    told = properties[TPM_PT.MANUFACTURER].to_bytes(4, "big").rstrip(b"\0").decode()
    assert told == tpm.profile.manufacturer
    assert tpm.profile.transient_slots == 3


def test_a_make_takes_its_measured_time():
    tpm = started("slb9670")
    client = TpmClient(tpm.execute)
    handle, _, _ = client.create_primary_ak()
    assert tpm.last_latency_ns == 231 * MS + tpm.profile.other_latency_ns
    client.quote(handle, b"nonce", {11: [0]})
    assert 69 * MS < tpm.last_latency_ns < 80 * MS


def test_an_rsa_key_takes_longer():
    tpm = started("st33tp")
    spec = COMMANDS[TPM_CC.CreatePrimary]
    assert latency_ns(tpm, spec, create_primary(TPM_ALG.RSA)) == 7455 * MS + tpm.profile.other_latency_ns
    assert latency_ns(tpm, spec, create_primary(TPM_ALG.ECC)) == 220 * MS + tpm.profile.other_latency_ns


def test_makes_differ():
    times = [
        (each.latencies_ns[TPM_CC.CreatePrimary], each.rsa_latencies_ns[TPM_CC.CreatePrimary])
        for each in MAKES.values()
    ]
    assert len(set(times)) == len(MAKES)
    assert all(ecc < rsa for ecc, rsa in times)


def test_an_unknown_make_is_refused_with_the_known_ones():
    with pytest.raises(ScenarioError, match="slb9670"):
        profile_named("acme")
