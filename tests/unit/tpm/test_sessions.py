"""The rules of sessions one by one: passwords, roles, guessing, hidden parameters, and the table of sessions."""

import struct

import pytest
from attrs import evolve

from sim.core.rng import Stream
from sim.tpm.client import TpmError
from sim.tpm.client_sessions import AES_128_CFB, Auth, SessionClient, password
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC, TPM_RH, TPM_SE, TPMA_OBJECT
from sim.tpm.refusal import RefusedError
from sim.tpm.sessions import LOADED_MAX, SessionTable
from sim.tpm.templates import SIGNING_KEY
from sim.tpm.wire import TPMS_NV_PUBLIC, TPMS_SCHEME_HASH, TPMS_SENSITIVE_CREATE, TPMT_SIG_SCHEME
from sim.tpm.wire.private import TPMT_SENSITIVE

OWNER, PLATFORM, NULL = TPM_RH.OWNER.value, TPM_RH.PLATFORM.value, TPM_RH.NULL.value
ECDSA = TPMT_SIG_SCHEME(scheme=TPM_ALG.ECDSA.value, details=TPMS_SCHEME_HASH(hashAlg=TPM_ALG.SHA256.value))
INDEX = 0x01500001
BAD = TPM_RC.BAD_AUTH | 0x900
FAIL = TPM_RC.POLICY_FAIL | 0x900


@pytest.fixture
def talk(tpm):
    return SessionClient(tpm.execute, Stream(b"client"))


def refusal(action, *arguments, **named):
    with pytest.raises((TpmError, RefusedError)) as caught:
        action(*arguments, **named)
    return caught.value.rc


def primary(talk, template=SIGNING_KEY, value=b""):
    secrets = TPMS_SENSITIVE_CREATE(userAuth=value, data=b"")
    return talk.call(TPM_CC.CreatePrimary, (OWNER,), secrets, template, b"", ())[0]


@pytest.mark.parametrize(
    ("given", "opens"),
    [
        (b"pw", True),
        (b"pw\0\0", True),
        (b"\0pw", False),
        (b"pwX", False),
        (b"Xpw", False),
        (b"p", False),
        (b"", False),
    ],
)
def test_only_zeros_behind_a_password_do_not_count(talk, given, opens):
    talk.call(TPM_CC.HierarchyChangeAuth, (OWNER,), b"pw")
    change = (TPM_CC.HierarchyChangeAuth, (OWNER,), b"new")
    if opens:
        talk.call(*change, auths=[password(given)])
    else:
        assert refusal(talk.call, *change, auths=[password(given)]) == BAD


def test_a_lockout_holds_for_every_kind_of_session_that_tries_a_guarded_value(tpm, talk):
    key = primary(talk, value=b"key")
    hmac_session = talk.start()
    bound = talk.start(bind=key, bind_value=b"key")
    for _ in range(3):
        refusal(talk.call, TPM_CC.Quote, (key,), b"", ECDSA, (), auths=[password(b"no")])
    quote = (TPM_CC.Quote, (key,), b"", ECDSA, ())
    assert refusal(talk.call, *quote, auths=[password(b"key")]) == TPM_RC.LOCKOUT
    assert refusal(talk.call, *quote, auths=[Auth(session=hmac_session, value=b"key")]) == TPM_RC.LOCKOUT
    assert refusal(talk.call, TPM_CC.PCR_Reset, (16,), auths=[Auth(session=bound)]) == TPM_RC.LOCKOUT
    only_audit = Auth(session=bound, attributes=0x81)
    assert refusal(talk.call, TPM_CC.GetRandom, (), 4, auths=[only_audit]) == TPM_RC.LOCKOUT
    talk.call(TPM_CC.PCR_Reset, (16,), auths=[Auth(session=hmac_session)])
    assert tpm.da.failed_tries == 3


def test_a_session_bound_to_the_lockout_fails_as_the_lockout_does(tpm, talk):
    lockout = TPM_RH.LOCKOUT.value
    talk.call(TPM_CC.HierarchyChangeAuth, (lockout,), b"lo")
    bound = talk.start(bind=lockout, bind_value=b"no")
    assert (
        refusal(talk.call, TPM_CC.PCR_Reset, (16,), auths=[Auth(session=bound)]) == TPM_RC.AUTH_FAIL | 0x900
    )
    assert tpm.da.failed_tries == 0
    assert refusal(talk.call, TPM_CC.PCR_Reset, (16,), auths=[Auth(session=bound)]) == TPM_RC.LOCKOUT
    forgive = (TPM_CC.DictionaryAttackLockReset, (lockout,))
    assert refusal(talk.call, *forgive, auths=[password(b"lo")]) == TPM_RC.LOCKOUT


def define(talk, attributes, policy=b""):
    public = TPMS_NV_PUBLIC(nvIndex=INDEX, nameAlg=11, attributes=attributes, authPolicy=policy, dataSize=8)
    talk.call(TPM_CC.NV_DefineSpace, (OWNER,), b"", public)


def test_the_admin_role_needs_a_policy_that_names_the_command(talk):
    policy = talk.start(TPM_SE.POLICY)
    (digest,) = talk.call(TPM_CC.PolicyGetDigest, (policy.handle,))
    template = evolve(
        SIGNING_KEY,
        objectAttributes=SIGNING_KEY.objectAttributes | TPMA_OBJECT.adminWithPolicy,
        authPolicy=digest,
    )
    key = primary(talk, template)
    certify = (TPM_CC.Certify, (key, key), b"", ECDSA)
    assert refusal(talk.call, *certify, auths=[password(), password()]) == TPM_RC.AUTH_TYPE
    assert refusal(talk.call, *certify, auths=[Auth(session=policy), password()]) == FAIL


def test_a_key_whose_secret_is_elsewhere_authorises_nothing(talk):
    key = primary(talk)
    public = talk.call(TPM_CC.ReadPublic, (key,))[0]
    known = talk.call(TPM_CC.LoadExternal, (), None, public, OWNER)[0]
    certify = (TPM_CC.Certify, (known, key), b"", ECDSA)
    assert refusal(talk.call, *certify, auths=[password(), password()]) == TPM_RC.AUTH_UNAVAILABLE
    quote = (TPM_CC.Quote, (known,), b"", ECDSA, ())
    assert refusal(talk.call, *quote, auths=[password()]) == TPM_RC.AUTH_UNAVAILABLE
    policy = talk.start(TPM_SE.POLICY)
    assert refusal(talk.call, *quote, auths=[Auth(session=policy)]) == TPM_RC.AUTH_UNAVAILABLE


@pytest.mark.parametrize(
    ("attributes", "reads", "writes"),
    [
        (0x02060004, True, True),
        (0x02020004, False, True),
        (0x02060002, True, False),
    ],
)
def test_the_value_of_an_index_serves_for_what_its_attributes_say(talk, attributes, reads, writes):
    define(talk, attributes)
    if attributes & 0x2:
        talk.call(TPM_CC.NV_Write, (OWNER, INDEX), b"x", 0)
    for possible, call in (
        (writes, (TPM_CC.NV_Write, (INDEX, INDEX), b"x", 0)),
        (reads, (TPM_CC.NV_Read, (INDEX, INDEX), 1, 0)),
    ):
        if possible:
            talk.call(*call, auths=[password()])
        else:
            assert refusal(talk.call, *call, auths=[password()]) == TPM_RC.AUTH_UNAVAILABLE


def test_a_policy_of_an_index_serves_for_what_its_attributes_say(talk):
    policy = talk.start(TPM_SE.POLICY)
    talk.call(TPM_CC.PolicyAuthValue, (policy.handle,))
    (digest,) = talk.call(TPM_CC.PolicyGetDigest, (policy.handle,))
    talk.call(TPM_CC.PolicyRestart, (policy.handle,))
    define(talk, 0x02020008, digest)

    def allowed(code, *parameters):
        talk.call(TPM_CC.PolicyRestart, (policy.handle,))
        talk.call(TPM_CC.PolicyAuthValue, (policy.handle,))
        talk.names.clear()
        auth = Auth(session=policy, use_value=True)
        return refusal(talk.call, code, (INDEX, INDEX), *parameters, auths=[auth])

    assert allowed(TPM_CC.NV_Read, 1, 0) == TPM_RC.AUTH_UNAVAILABLE
    assert allowed(TPM_CC.NV_Write, b"123456789", 0) == TPM_RC.NV_RANGE


def test_a_secret_under_a_policy_needs_a_policy_that_takes_the_value(tpm, talk):
    policy = talk.start(TPM_SE.POLICY)
    talk.call(TPM_CC.PolicyCommandCode, (policy.handle,), int(TPM_CC.PolicySecret))
    (digest,) = talk.call(TPM_CC.PolicyGetDigest, (policy.handle,))
    talk.call(TPM_CC.SetPrimaryPolicy, (OWNER,), digest, TPM_ALG.SHA256)
    other = talk.start(TPM_SE.POLICY)
    secret = (TPM_CC.PolicySecret, (OWNER, other.handle), b"", b"", b"", 0)
    assert refusal(talk.call, *secret, auths=[Auth(session=policy)]) == TPM_RC.MODE
    for take in (TPM_CC.PolicyAuthValue, TPM_CC.PolicyPassword):
        talk.call(TPM_CC.PolicyRestart, (policy.handle,))
        talk.call(take, (policy.handle,))
        (digest,) = talk.call(TPM_CC.PolicyGetDigest, (policy.handle,))
        talk.call(TPM_CC.SetPrimaryPolicy, (OWNER,), digest, TPM_ALG.SHA256)
        talk.call(*secret, auths=[Auth(session=policy, plain=take is TPM_CC.PolicyPassword)])


@pytest.mark.parametrize(
    ("parameters", "rc"),
    [("", 0x99A), ("00", 0x99A), ("0001", 0x995), ("0003aabb", 0x995), ("0041" + "00" * 64, 0x995)],
)
def test_a_hidden_parameter_must_be_whole(tpm, talk, parameters, rc):
    session = talk.start(symmetric=AES_128_CFB)
    area = struct.pack(">IHBH", session.handle, 0, 0x21, 0)
    body = len(area).to_bytes(4, "big") + area + bytes.fromhex(parameters)
    response = tpm.execute(struct.pack(">HII", 0x8002, 10 + len(body), TPM_CC.StirRandom) + body)

    assert int.from_bytes(response[6:10], "big") == rc


def test_the_number_of_a_session_is_in_the_code_of_its_refusal(talk):
    key = primary(talk)
    first, second = talk.start(symmetric=AES_128_CFB), talk.start(symmetric=AES_128_CFB)
    quote = (TPM_CC.Quote, (key,), b"", ECDSA, ())
    for attributes, rc in (
        (0x21, TPM_RC.ATTRIBUTES),  # a second session that decrypts
        (0x01, TPM_RC.ATTRIBUTES),  # of no use
        (0x41, None),
        (0x81, None),
    ):
        auths = [Auth(session=first, attributes=0x21), Auth(session=second, attributes=attributes)]
        if rc is None:
            talk.call(*quote, auths=auths)
        else:
            assert refusal(talk.call, *quote, auths=auths) == rc | 0xA00
    same = [Auth(session=first), Auth(session=first, attributes=0x81)]
    assert refusal(talk.call, *quote, auths=same) == TPM_RC.HANDLE | 0xA00
    wrong = [password(), Auth(session=second, value=b"", attributes=0x81)]
    second.nonce_tpm = bytes(32)
    second.key = b"wrong"
    assert refusal(talk.call, *quote, auths=wrong) == TPM_RC.BAD_AUTH | 0xA00


def session_of(table, kind=TPM_SE.HMAC):
    from sim.tpm.client_sessions import NO_CIPHER
    from sim.tpm.sessions import Session

    made = Session(
        handle=table.new_handle(kind), kind=kind, auth_hash=11, symmetric=NO_CIPHER, key=b"", nonce_tpm=b""
    )
    table.add(made)
    return made


def test_sequence_numbers_rise_by_one_and_leave_out_multiples_of_65536():
    table = SessionTable()
    session = session_of(table)
    numbers = []
    for _ in range(3):
        kept, number = table.save(session.handle)
        numbers.append(number)
        table.load(kept)
    assert numbers == [LOADED_MAX + 1, LOADED_MAX + 2, LOADED_MAX + 3]
    table.counter = 0xFFFE
    assert [table.save(session.handle)[1], table.loaded] == [0xFFFF, {}]
    table.load(session)
    assert table.save(session.handle)[1] == 0x10001


def test_a_full_gap_is_refused_where_it_would_grow_and_the_oldest_makes_room():
    table = SessionTable()
    old, new, busy = session_of(table), session_of(table, TPM_SE.POLICY), session_of(table)
    table.save(old.handle)
    table.save(new.handle)
    table.counter = table.saved[old.handle] + 0xFFFC
    table.load(table.save(busy.handle)[0])  # the last number that fits
    table.check_invariants()
    assert table.new_handle(TPM_SE.HMAC) == 0x02000003
    table.counter += 1
    assert table.new_handle(TPM_SE.HMAC) == 0x02000003  # two slots are free
    assert refusal(table.save, busy.handle) == TPM_RC.CONTEXT_GAP
    fresh = session_of(table)
    assert refusal(table.new_handle, TPM_SE.HMAC) == TPM_RC.CONTEXT_GAP
    assert refusal(table.load, new) == TPM_RC.CONTEXT_GAP
    table.load(old)
    assert refusal(table.load, new) == TPM_RC.SESSION_MEMORY
    assert set(table.loaded) == {busy.handle, fresh.handle, old.handle}


def test_64_sessions_can_be_active_and_the_lowest_number_is_given():
    table = SessionTable()
    made = []
    for _ in range(64):
        made.append(session_of(table, TPM_SE.POLICY))
        table.save(made[-1].handle)
    assert [each.handle for each in made] == [0x03000000 + number for number in range(64)]
    assert refusal(table.new_handle, TPM_SE.HMAC) == TPM_RC.SESSION_HANDLES
    table.flush(0x02000005)  # by its number, whatever its type
    assert table.new_handle(TPM_SE.HMAC) == 0x02000005
    assert not table.is_active(0x03000005)
    assert table.is_active(0x02000006)
    assert not table.is_active(0x80000006)
    table.check_invariants()
    table.reset()
    assert (table.saved, table.loaded, table.counter) == ({}, {}, LOADED_MAX)


def test_a_session_of_the_other_type_is_told_from_none():
    table = SessionTable()
    session_of(table)
    assert table.is_loaded_otherwise(0x03000000)
    assert not table.is_loaded_otherwise(0x02000000)
    assert not table.is_loaded_otherwise(0x03000001)


@pytest.mark.parametrize("size", [15, 33])
def test_a_nonce_has_16_bytes_to_the_size_of_the_hash(talk, size):
    from sim.tpm.client_sessions import NO_CIPHER

    start = (TPM_CC.StartAuthSession, (NULL, NULL))
    assert refusal(talk.call, *start, bytes(size), b"", 0, NO_CIPHER, 11) == TPM_RC.SIZE | 0x140
    for fits in (16, 32):
        handle, nonce = talk.call(*start, bytes(fits), b"", 0, NO_CIPHER, 11)
        assert len(nonce) == fits
        talk.call(TPM_CC.FlushContext, (), handle)


def test_a_session_is_refused_for_each_reason(talk):
    from sim.tpm.client_sessions import NO_CIPHER

    def start(key=NULL, bind=NULL, salt=b"", kind=0, symmetric=NO_CIPHER, hash_alg=11):
        return refusal(
            talk.call, TPM_CC.StartAuthSession, (key, bind), bytes(16), salt, kind, symmetric, hash_alg
        )

    signing = primary(talk)
    sealed = talk.call(
        TPM_CC.LoadExternal,
        (),
        TPMT_SENSITIVE(sensitiveType=8, authValue=b"", seedValue=b"s" * 32, sensitive=b"x"),
        sealed_public(),
        NULL,
    )[0]
    assert start(salt=b"x") == TPM_RC.VALUE | 0x2C0
    assert start(key=signing) == TPM_RC.VALUE | 0x2C0
    assert start(key=signing, salt=b"x") == TPM_RC.ATTRIBUTES | 0x100
    assert start(key=sealed, salt=b"x") == TPM_RC.KEY | 0x100
    assert start(kind=2) == TPM_RC.VALUE | 0x3C0
    assert start(hash_alg=0x10) == TPM_RC.HASH | 0x5C0
    assert start(symmetric=evolve(AES_128_CFB, mode=0x44)) == TPM_RC.MODE | 0x4C0


def sealed_public():
    from sim.tpm.hashing import hash_bytes
    from sim.tpm.wire import TPMT_KEYEDHASH_SCHEME, TPMT_PUBLIC

    return TPMT_PUBLIC(
        type=8,
        nameAlg=11,
        objectAttributes=0x40,
        authPolicy=b"",
        parameters=TPMT_KEYEDHASH_SCHEME(scheme=0x10, details=None),
        unique=hash_bytes(11, b"s" * 32 + b"x"),
    )
