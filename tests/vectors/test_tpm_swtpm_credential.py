"""Credentials of the verifier, opened by swtpm: keys of its own, made from the same templates."""

import pytest

from sim.attest.credential import make_challenge
from sim.core.rng import Rng
from sim.kernel.quoting import HOST_ATTESTATION_KEY
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.client_sessions import Auth, SessionClient, password
from sim.tpm.constants import TPM_CC, TPM_RC, TPM_RH, TPM_SE
from sim.tpm.templates import EK_ECC, EK_RSA

from .swtpm_peer import Peer

pytestmark = pytest.mark.client


@pytest.fixture
def peer(program, tmp_path):
    peer = Peer(program("swtpm"), tmp_path)
    peer.init()
    TpmClient(peer.execute).startup()
    yield peer
    peer.close()


def opened(peer, ak, ek, blob, secret):
    sessions = SessionClient(peer.execute, Rng(1).stream("nonces"))
    session = sessions.start(TPM_SE.POLICY)
    sessions.call(TPM_CC.PolicySecret, (TPM_RH.ENDORSEMENT, session.handle), b"", b"", b"", 0)
    auths = [password(), Auth(session=session)]
    try:
        return sessions.call(TPM_CC.ActivateCredential, (ak, ek), blob, secret, auths=auths)[0]
    finally:
        sessions.call(TPM_CC.FlushContext, (), session.handle)


@pytest.mark.parametrize("template", [EK_ECC, EK_RSA], ids=["ecc", "rsa"])
def test_swtpm_opens_the_verifier_s_credentials_and_no_changed_ones(peer, template):
    client = TpmClient(peer.execute)
    ek, ek_public, _ = client.create_primary(template)
    ak, ak_public, name = client.create_primary(HOST_ATTESTATION_KEY)
    stream = Rng(1).stream("challenges")
    for _ in range(20):
        challenge = make_challenge(ek_public, ak_public, stream)
        assert challenge.ak_name == name
        assert opened(peer, ak, ek, challenge.credential_blob, challenge.encrypted_secret) == challenge.secret
    changed = challenge.credential_blob[:-1] + bytes([challenge.credential_blob[-1] ^ 1])
    with pytest.raises(TpmError) as caught:
        opened(peer, ak, ek, changed, challenge.encrypted_secret)
    assert caught.value.rc == TPM_RC.INTEGRITY | 0x1C0
