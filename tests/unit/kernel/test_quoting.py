"""The host's side of attestation: its keys, the opening of credentials, and a TPM left as it was."""

import pickle

import pytest
from cryptography import x509

from sim.attest.credential import make_challenge
from sim.attest.keys import public_key, read_public
from sim.core.rng import Rng
from sim.kernel.api import ApiError
from sim.kernel.quoting import CREDENTIAL_BYTES_MAX, ENCRYPTED_SECRET_BYTES_MAX, Attestor
from sim.tpm.client import TpmClient
from sim.tpm.constants import TPM_CAP
from sim.tpm.manufacture import IAK_CERTIFICATE_INDEX, TpmVendor


@pytest.fixture
def host(machinery):
    return machinery.host


@pytest.fixture
def client(machinery):
    return TpmClient(machinery.tpm.execute)


def challenge_for(identity, label="challenge"):
    return make_challenge(identity["ek_public"], identity["ak_public"], Rng(5).stream(label))


def credential(challenge):
    return {
        "credential_blob": challenge.credential_blob,
        "encrypted_secret": challenge.encrypted_secret,
    }


def refusal(host, params, name="tpm.activate"):
    with pytest.raises(ApiError) as caught:
        host.call(name, params)
    return caught.value


def in_the_tpm(client):
    """Handles of loaded objects, of sessions and of saved sessions."""
    return [client.get_capability(TPM_CAP.HANDLES, first << 24) for first in (0x80, 0x02, 0x03)]


def test_the_endorsement_key_is_the_certified_one_and_the_attestation_key_is_certified_by_nobody(
    host, client
):
    identity = host.call("tpm.identity")
    certificate = x509.load_der_x509_certificate(identity["ek_certificate_der"])
    assert certificate.public_key() == public_key(read_public(identity["ek_public"]), "ek")
    maker_s = x509.load_der_x509_certificate(client.nv_read(IAK_CERTIFICATE_INDEX)).public_key()
    assert public_key(read_public(identity["ak_public"]), "ak") not in (maker_s, certificate.public_key())


def test_the_host_opens_a_credential_for_its_keys_as_often_as_it_is_asked(host):
    challenge = challenge_for(host.call("tpm.identity"))
    for _ in range(2):
        assert host.call("tpm.activate", credential(challenge)) == {"secret": challenge.secret}


def test_nothing_stays_in_the_tpm_after_any_call(host, client):
    before = in_the_tpm(client)
    identity = host.call("tpm.identity")
    challenge = challenge_for(identity)
    host.call("tpm.activate", credential(challenge))
    host.call("tpm.quote", {"nonce": b"n" * 16})
    for _ in range(5):
        for part, size in (("credential_blob", 66), ("encrypted_secret", 68)):
            assert refusal(host, {**credential(challenge), part: bytes(size)}).code == "InvalidArgument"
    assert in_the_tpm(client) == before == [(), (), ()]
    assert host.call("tpm.identity") == identity


@pytest.mark.parametrize("changes", [
    {"credential_blob": b""}, {"encrypted_secret": b""}, {"credential_blob": bytes(CREDENTIAL_BYTES_MAX)},
    {"credential_blob": bytes(CREDENTIAL_BYTES_MAX + 1)}, {"encrypted_secret": bytes(ENCRYPTED_SECRET_BYTES_MAX)},
    {"encrypted_secret": bytes(ENCRYPTED_SECRET_BYTES_MAX + 1)}, {"encrypted_secret": "text"},
])  # fmt: skip
def test_what_is_no_credential_is_an_invalid_argument(host, changes):
    challenge = challenge_for(host.call("tpm.identity"))
    assert refusal(host, {**credential(challenge), **changes}).code == "InvalidArgument"


def test_a_credential_for_the_attestation_key_of_another_host_is_an_invalid_argument(host):
    other = TpmVendor(Rng(2)).make("other", Rng(2))
    other.init()
    TpmClient(other.execute).startup()
    theirs = Attestor(TpmClient(other.execute), Rng(3).stream("nonces")).identity()
    mine = host.call("tpm.identity")
    for ek, ak in ((mine, theirs), (theirs, mine), (theirs, theirs)):
        challenge = challenge_for({"ek_public": ek["ek_public"], "ak_public": ak["ak_public"]})
        assert refusal(host, credential(challenge)).code == "InvalidArgument"


def test_a_tpm_without_endorsement_certificate_says_so_by_an_empty_one():
    tpm = TpmVendor(Rng(2)).make("bare", Rng(2), endorsement_keys=())
    tpm.init()
    client = TpmClient(tpm.execute)
    client.startup()
    identity = Attestor(client, Rng(3).stream("nonces")).identity()
    assert identity["ek_certificate_der"] == b""
    challenge = challenge_for(identity)
    attestor = Attestor(client, Rng(3).stream("nonces"))
    opened = attestor.activate(challenge.credential_blob, challenge.encrypted_secret)
    assert opened == challenge.secret


def test_a_host_opens_a_credential_the_same_way_after_a_checkpoint(machinery):
    challenge = challenge_for(machinery.host.call("tpm.identity"))
    twin = pickle.loads(pickle.dumps(machinery))
    for each in (machinery, twin):
        assert each.host.call("tpm.activate", credential(challenge)) == {"secret": challenge.secret}
    assert machinery.sim.trace.digest() == twin.sim.trace.digest()


@pytest.mark.parametrize("state", ["absent", "disabled"])
def test_a_host_without_a_usable_tpm_opens_nothing(boot, specs, state):
    host = boot(tpm=specs["tpm"](state=state)).host
    params = {"credential_blob": b"", "encrypted_secret": b""}
    assert refusal(host, params).code == "InvalidState"
    assert refusal(host, {}, "tpm.identity").code == "InvalidState"
