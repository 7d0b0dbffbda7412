"""Sessions: keys as derived by hand, encryption that hides and arrives, and no response accepted that was touched."""

import hashlib
import hmac
import pickle

import pytest

from sim.core.rng import Stream
from sim.tpm.client import TpmError
from sim.tpm.client_sessions import (
    AES_128_CFB,
    NO_CIPHER,
    Auth,
    ResponseForgedError,
    SessionClient,
    kdf_a,
    password,
    xor_with,
)
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC, TPM_RH, TPM_SE
from sim.tpm.crypto import kdf
from sim.tpm.templates import SIGNING_KEY, STORAGE_PARENT
from sim.tpm.wire import TPMS_SENSITIVE_CREATE

PCR = 16
ENCRYPT, DECRYPT, CONTINUE = 0x40, 0x20, 0x01


@pytest.fixture
def talk(tpm):
    return SessionClient(tpm.execute, Stream(b"client"))


def primary(talk, template=SIGNING_KEY, value=b"", hierarchy=TPM_RH.OWNER):
    secrets = TPMS_SENSITIVE_CREATE(userAuth=value, data=b"")
    return talk.call(TPM_CC.CreatePrimary, (hierarchy,), secrets, template, b"", ())[:2]


def test_kdfa_is_counter_mode_over_hmac():
    block = hmac.digest(b"key", b"\0\0\0\1ATH\0" + b"theirs" + b"ours" + b"\0\0\1\0", "sha256")

    assert kdf_a(TPM_ALG.SHA256, b"key", b"ATH", b"theirs", b"ours", 256) == block
    assert kdf.kdf_a(TPM_ALG.SHA256, b"key", b"ATH", b"theirsours", 256) == block
    long = kdf_a(TPM_ALG.SHA1, b"key", b"CFB", b"", b"", 512)
    assert long == kdf.kdf_a(TPM_ALG.SHA1, b"key", b"CFB", b"", 512)
    assert len(long) == 64


@pytest.mark.parametrize("hash_alg", [TPM_ALG.SHA1, TPM_ALG.SHA256, TPM_ALG.SHA384, TPM_ALG.SHA512])
def test_a_plain_session_has_no_key_and_a_bound_one_the_key_of_the_value(tpm, talk, hash_alg):
    handle, _ = primary(talk, value=b"secret")
    plain = talk.start(hash_alg=hash_alg)
    bound = talk.start(hash_alg=hash_alg, bind=handle, bind_value=b"secret")

    assert tpm.sessions.loaded[plain.handle].key == b""
    assert tpm.sessions.loaded[bound.handle].key == bound.key
    assert len(bound.key) == len(plain.nonce_tpm) == hashlib.new(hash_alg.name.lower()).digest_size
    for session in (plain, bound):
        talk.call(TPM_CC.PCR_Reset, (PCR,), auths=[Auth(session=session)])


def test_a_salted_session_has_the_key_of_the_salt(tpm, talk):
    salt_key = primary(talk, STORAGE_PARENT)
    salted = talk.start(salt_key=salt_key)
    both = talk.start(salt_key=salt_key, bind=TPM_RH.OWNER)

    assert tpm.sessions.loaded[salted.handle].key == salted.key != b""
    assert tpm.sessions.loaded[both.handle].key == both.key != salted.key


@pytest.mark.parametrize("symmetric", [AES_128_CFB, xor_with(TPM_ALG.SHA256), xor_with(TPM_ALG.SHA1)])
@pytest.mark.parametrize("salted", [False, True])
def test_encrypted_parameters_are_hidden_and_arrive(tpm, symmetric, salted):
    seen = []

    def transmit(command, locality):
        seen.append((command, tpm.execute(command, locality)))
        return seen[-1][1]

    talk = SessionClient(transmit, Stream(b"client"))
    salt_key = primary(talk, STORAGE_PARENT) if salted else None
    session = talk.start(symmetric=symmetric, salt_key=salt_key, bind=TPM_RH.OWNER)
    value = b"the new value of the owner!"
    auths = [Auth(session=session, attributes=DECRYPT | CONTINUE, new_value=value)]
    talk.call(TPM_CC.HierarchyChangeAuth, (TPM_RH.OWNER,), value, auths=auths)
    random = talk.call(TPM_CC.GetRandom, (), 32, auths=[Auth(session=session, attributes=ENCRYPT | CONTINUE)])

    assert tpm.hierarchies[TPM_RH.OWNER].auth == value
    assert not any(value in command for command, _ in seen)
    assert random[0] not in seen[-1][1]
    assert len(random[0]) == 32


def test_encryption_uses_the_value_of_the_entity_it_authorises(tpm, talk):
    talk.call(TPM_CC.HierarchyChangeAuth, (TPM_RH.OWNER,), b"old")
    session = talk.start(symmetric=AES_128_CFB)
    both = Auth(session=session, value=b"old", attributes=0x61)
    secrets = TPMS_SENSITIVE_CREATE(userAuth=b"key", data=b"")
    results = talk.call(TPM_CC.CreatePrimary, (TPM_RH.OWNER,), secrets, SIGNING_KEY, b"", (), auths=[both])

    assert tpm.objects[results[0]].auth == b"key"
    assert tpm.objects[results[0]].public == results[1]


def test_a_session_ends_when_it_shall_not_continue(tpm, talk):
    session = talk.start()
    talk.call(TPM_CC.PCR_Reset, (PCR,), auths=[Auth(session=session, attributes=0)])

    assert not tpm.sessions.is_active(session.handle)
    with pytest.raises(TpmError) as refused:
        talk.call(TPM_CC.PCR_Reset, (PCR,), auths=[Auth(session=session)])
    assert refused.value.rc == TPM_RC.REFERENCE_S0


def test_a_command_cannot_be_played_again(tpm, talk):
    sent = []
    talk.call(TPM_CC.HierarchyChangeAuth, (TPM_RH.OWNER,), b"pw")
    session = talk.start()
    talk.transmit = lambda command, locality: sent.append(command) or tpm.execute(command, locality)
    auth = Auth(session=session, value=b"pw")
    talk.call(TPM_CC.SetPrimaryPolicy, (TPM_RH.OWNER,), b"", 0x10, auths=[auth])

    again = tpm.execute(sent[-1])
    assert int.from_bytes(again[6:10], "big") == TPM_RC.BAD_AUTH | 0x900


@pytest.mark.parametrize("at", [20, -1, -35, -40])
def test_a_touched_response_is_not_accepted(tpm, at):
    talk = SessionClient(tpm.execute, Stream(b"client"))
    session = talk.start(bind=TPM_RH.OWNER)

    def touching(command, locality):
        response = bytearray(tpm.execute(command, locality))
        response[at] ^= 1
        return bytes(response)

    talk.transmit = touching
    auth = Auth(session=session, attributes=0x81)
    with pytest.raises(ResponseForgedError):
        talk.call(TPM_CC.GetRandom, (), 8, auths=[auth])


def test_only_three_sessions_are_loaded_and_flushing_makes_room(talk):
    sessions = [talk.start() for _ in range(3)]
    with pytest.raises(TpmError) as refused:
        talk.start()
    assert refused.value.rc == TPM_RC.SESSION_MEMORY
    talk.call(TPM_CC.FlushContext, (), sessions[1].handle)

    assert talk.start().handle == sessions[1].handle


def test_sessions_pickle_and_do_not_outlive_power(tpm, talk):
    session = talk.start(TPM_SE.POLICY, symmetric=AES_128_CFB)
    copy = pickle.loads(pickle.dumps(tpm))
    assert copy.sessions.loaded[session.handle] == tpm.sessions.loaded[session.handle]
    tpm.init()

    assert tpm.sessions.loaded == {}
    assert copy.sessions.loaded


def test_the_gap_between_saved_contexts_is_bounded(tpm, talk):
    old, busy = talk.start(), talk.start()
    table = tpm.sessions
    kept, first = table.save(old.handle)
    for _ in range(5):
        session, sequence = table.save(busy.handle)
        assert not table.may_load(busy.handle, sequence - 1)
        table.load(session)
    table.counter = first + 0xFFFE
    from sim.tpm.refusal import RefusedError

    with pytest.raises(RefusedError) as refused:
        table.save(busy.handle)
    assert refused.value.rc == TPM_RC.CONTEXT_GAP
    table.load(kept)
    table.save(busy.handle)
    table.check_invariants()


def test_no_cipher_means_no_encryption(talk):
    session = talk.start(symmetric=NO_CIPHER)
    with pytest.raises(TpmError) as refused:
        talk.call(TPM_CC.StirRandom, (), b"12", auths=[Auth(session=session, attributes=DECRYPT)])
    assert refused.value.rc == TPM_RC.SYMMETRIC | 0x900
    talk.call(TPM_CC.PCR_Reset, (PCR,), auths=[password()])
