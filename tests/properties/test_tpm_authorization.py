"""No way around an authorisation: whatever value, nonce, attributes or HMAC come, only the right ones open."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from sim.core.rng import Stream
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.client_sessions import AES_128_CFB, Auth, SessionClient, password
from sim.tpm.constants import TPM_CC, TPM_RC, TPM_RH, TPM_SE
from sim.tpm.device import Tpm

OWNER, LOCKOUT = TPM_RH.OWNER.value, TPM_RH.LOCKOUT.value
VALUES = st.binary(max_size=32)
CODES = st.sampled_from(
    [
        (TPM_CC.HierarchyChangeAuth, (b"stolen",)),
        (TPM_CC.SetPrimaryPolicy, (b"", 0x10)),
        (TPM_CC.HierarchyControl, (OWNER, 0)),
    ]
)


def device(value):
    tpm = Tpm(b"seed")
    tpm.init()
    TpmClient(tpm.execute).startup()
    talk = SessionClient(tpm.execute, Stream(b"client"))
    talk.call(TPM_CC.HierarchyChangeAuth, (OWNER,), value)
    return tpm, talk


def refusal(talk, *arguments, **named):
    """Run a command and return its response code."""
    try:
        talk.call(*arguments, **named)
    except TpmError as refused:
        return refused.rc
    return 0


def code_of(response):
    return int.from_bytes(response[6:10], "big")


@given(value=VALUES, tried=VALUES, command=CODES, by_session=st.booleans(), bound=st.booleans())
def test_only_the_value_opens(value, tried, command, by_session, bound):
    tpm, talk = device(value)
    before = tpm.hierarchies[OWNER]
    code, parameters = command
    auth = password(tried)
    if by_session:
        bind = {"bind": OWNER, "bind_value": tried} if bound else {}
        auth = Auth(session=talk.start(**bind), value=tried)
    changed = {"new_value": b"stolen"} if code is TPM_CC.HierarchyChangeAuth else {}
    auths = [Auth(session=auth.session, value=tried, **changed)]
    rc = refusal(talk, code, (OWNER,), *parameters, auths=auths)
    opened = rc == 0

    assert opened or rc == TPM_RC.BAD_AUTH | 0x900
    assert opened == (tried.rstrip(b"\0") == value.rstrip(b"\0"))
    assert opened or tpm.hierarchies[OWNER] == before


@given(
    value=st.binary(min_size=1, max_size=16).filter(lambda each: each.rstrip(b"\0")),
    nonce=st.binary(max_size=64),
    attributes=st.integers(0, 255),
    mac=st.binary(max_size=64),
    kind=st.sampled_from(TPM_SE),
    bind=st.sampled_from([None, b"", b"guess"]),
)
def test_no_nonce_attribute_or_hmac_opens_without_the_value(value, nonce, attributes, mac, kind, bind):
    tpm, talk = device(value)
    before = tpm.hierarchies[OWNER]
    bound = {} if bind is None else {"bind": OWNER, "bind_value": bind}
    session = talk.start(kind, symmetric=AES_128_CFB, **bound)
    area = struct.pack(">IH", session.handle, len(nonce)) + nonce
    area += struct.pack(">BH", attributes, len(mac)) + mac
    body = struct.pack(">II", OWNER, len(area)) + area + b"\0\0"
    sent = struct.pack(">HII", 0x8002, 10 + len(body), TPM_CC.HierarchyChangeAuth) + body
    response = tpm.execute(sent)

    assert code_of(response) != 0
    assert len(response) == 10
    assert tpm.hierarchies[OWNER] == before
    assert tpm.sessions.loaded[session.handle].nonce_tpm == session.nonce_tpm


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_touched_command_is_refused(at, flip):
    tpm, talk = device(b"value")
    session = talk.start(bind=OWNER, bind_value=b"value", symmetric=AES_128_CFB)
    seen = []
    talk.transmit = lambda sent, locality: seen.append(sent) or b"\x80\x01\0\0\0\n\0\0\x01\x01"
    auth = Auth(session=session, value=b"value", attributes=0x21)
    assert refusal(talk, TPM_CC.HierarchyChangeAuth, (OWNER,), b"new", auths=[auth]) == TPM_RC.FAILURE
    touched = bytearray(seen[-1])
    touched[at % len(touched)] ^= flip
    before = tpm.hierarchies[OWNER]

    assert code_of(tpm.execute(bytes(touched))) != 0
    assert tpm.hierarchies[OWNER] == before
    assert code_of(tpm.execute(seen[-1])) == 0
    assert tpm.hierarchies[OWNER].auth == b"new"


@given(tries=st.lists(st.tuples(st.booleans(), st.integers(0, 3000)), max_size=12))
def test_the_count_of_failures_is_exact(tries):
    tpm, talk = device(b"")
    talk.call(TPM_CC.HierarchyChangeAuth, (LOCKOUT,), b"lo")
    talk.call(TPM_CC.DictionaryAttackParameters, (LOCKOUT,), 3, 1000, 1, auths=[password(b"lo")])
    usable_at = 0
    for right, wait_s in tries:
        tpm.clock.now += wait_s * 10**9
        now_s = tpm.clock.now // 10**9
        value = b"lo" if right else b"no"
        rc = refusal(talk, TPM_CC.DictionaryAttackLockReset, (LOCKOUT,), auths=[password(value)])
        if now_s < usable_at:
            assert rc == TPM_RC.LOCKOUT
        elif right:
            assert rc == 0
        else:
            assert rc == TPM_RC.AUTH_FAIL | 0x900
            usable_at = now_s + 1
        assert tpm.da.failed_tries == 0
