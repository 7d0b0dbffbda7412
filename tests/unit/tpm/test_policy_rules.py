"""Assertions at their edges: when they end, what they say in a digest, and which keys may make them."""

import pytest

from sim.core.rng import Stream
from sim.tpm.client import TpmError
from sim.tpm.client_sessions import Auth, SessionClient, password
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC, TPM_RH, TPM_SE
from sim.tpm.hashing import hash_bytes
from sim.tpm.templates import SIGNING_KEY
from sim.tpm.wire import TPMS_NV_PUBLIC, TPMS_SENSITIVE_CREATE

from .keyring import NO_TICKET, hmac_key, sig_scheme

OWNER, PLATFORM, ENDORSEMENT = TPM_RH.OWNER.value, TPM_RH.PLATFORM.value, TPM_RH.ENDORSEMENT.value
INDEX = 0x01500001
SECOND = 10**9
ECDSA_SCHEME, HMAC_SCHEME = sig_scheme(TPM_ALG.ECDSA), sig_scheme(TPM_ALG.HMAC)
UNTIL_RESET = 1 << 63


class Desk:
    """A client with a policy session, and an owner whose policy the session can be made."""

    def __init__(self, tpm):
        self.tpm = tpm
        self.talk = SessionClient(tpm.execute, Stream(b"client"))
        self.session = self.talk.start(TPM_SE.POLICY)

    def say(self, code, *parameters, handles=()):
        auths = [password()] if code in {TPM_CC.PolicySecret, TPM_CC.PolicyNV} else ()
        return self.talk.call(code, (*handles, self.session.handle), *parameters, auths=auths)

    def secret(self, expiration, nonce=b"", cp_hash=b"", handle=PLATFORM):
        given = (nonce, cp_hash, b"ref", expiration & 0xFFFFFFFF)
        return self.say(TPM_CC.PolicySecret, *given, handles=(handle,))

    @property
    def digest(self):
        return self.say(TPM_CC.PolicyGetDigest)[0]

    def adopt(self):
        self.talk.call(TPM_CC.SetPrimaryPolicy, (OWNER,), self.digest, TPM_ALG.SHA256)
        self.say(TPM_CC.PolicyRestart)

    def use(self):
        change = (TPM_CC.HierarchyChangeAuth, (OWNER,), b"")
        return code_of(self.talk.call, *change, auths=[Auth(session=self.session)])


def code_of(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except TpmError as refused:
        return refused.rc
    return 0


@pytest.fixture
def desk(tpm):
    return Desk(tpm)


EXPIRED = TPM_RC.EXPIRED | 0x900


@pytest.mark.parametrize("sign", [1, -1])
def test_an_authorisation_holds_to_its_last_millisecond(desk, sign):
    desk.secret(60 * sign)
    desk.adopt()
    for nanoseconds, rc in ((60 * SECOND, 0), (60 * SECOND + 10**6, EXPIRED)):
        desk.tpm.clock.now = 0
        desk.secret(60 * sign)
        desk.tpm.clock.now = nanoseconds
        assert desk.use() == rc
        desk.say(TPM_CC.PolicyRestart)


def test_an_authorisation_that_is_over_is_not_taken(desk):
    desk.tpm.clock.now = 60 * SECOND
    desk.secret(60)
    desk.tpm.clock.now += 10**6
    assert code_of(desk.secret, 60) == TPM_RC.EXPIRED | 0x440
    desk.secret(0)


def test_with_a_nonce_the_time_counts_from_the_start_of_the_session(desk):
    desk.tpm.clock.now = 100 * SECOND
    desk.say(TPM_CC.PolicyRestart)
    desk.tpm.clock.now = 160 * SECOND
    desk.secret(60, desk.session.nonce_tpm)
    desk.tpm.clock.now += 10**6
    assert code_of(desk.secret, 60, desk.session.nonce_tpm) == TPM_RC.EXPIRED | 0x440


def test_the_earliest_end_counts(desk):
    for first, second in ((60, 30), (30, 60)):
        desk.tpm.clock.now = 0
        desk.say(TPM_CC.PolicyRestart)
        desk.secret(first)
        desk.secret(second)
        desk.adopt()
        desk.secret(first)
        desk.secret(second)
        desk.tpm.clock.now = 31 * SECOND
        assert desk.use() == EXPIRED


def test_a_ticket_tells_when_it_ends_and_whose_it_is(desk):
    timeout, ticket = desk.secret(-60)
    assert int.from_bytes(timeout, "big") == 60_000 | UNTIL_RESET
    assert (ticket.tag, ticket.hierarchy, len(ticket.digest)) == (0x8023, PLATFORM, 64)
    timeout, _ = desk.secret(-60, desk.session.nonce_tpm)
    assert int.from_bytes(timeout, "big") == 60_000
    for expiration in (0, 60):
        timeout, ticket = desk.secret(expiration)
        assert (timeout, ticket.tag, ticket.hierarchy, ticket.digest) == (b"", 0x8023, 0x40000007, b"")
    for handle, hierarchy in ((ENDORSEMENT, ENDORSEMENT), (OWNER, OWNER), (TPM_RH.LOCKOUT, OWNER)):
        assert desk.secret(-1, handle=handle)[1].hierarchy == hierarchy


def test_a_ticket_ends_in_the_session_that_takes_it(desk):
    timeout, ticket = desk.secret(-60)
    desk.adopt()
    name = PLATFORM.to_bytes(4, "big")
    for nanoseconds, rc in ((60 * SECOND, 0), (60 * SECOND + 10**6, EXPIRED)):
        desk.tpm.clock.now = 0
        desk.say(TPM_CC.PolicyTicket, timeout, b"", b"ref", name, ticket)
        desk.tpm.clock.now = nanoseconds
        assert desk.use() == rc
        desk.say(TPM_CC.PolicyRestart)


@pytest.mark.parametrize("hierarchy", [OWNER, ENDORSEMENT, PLATFORM])
def test_a_signature_gives_a_ticket_of_the_hierarchy_of_its_key(desk, hierarchy):
    secrets = TPMS_SENSITIVE_CREATE(userAuth=b"", data=b"")
    key = desk.talk.call(TPM_CC.CreatePrimary, (hierarchy,), secrets, SIGNING_KEY, b"", ())[0]
    expiration = -9 & 0xFFFFFFFF
    digest = hash_bytes(TPM_ALG.SHA256, expiration.to_bytes(4, "big") + b"ref")
    (signature,) = desk.talk.call(TPM_CC.Sign, (key,), digest, ECDSA_SCHEME, NO_TICKET)
    _, ticket = desk.say(TPM_CC.PolicySigned, b"", b"", b"ref", expiration, signature, handles=(key,))
    assert (ticket.tag, ticket.hierarchy) == (0x8025, hierarchy)


def test_a_keyed_hash_signs_for_a_policy_too(desk):
    key = desk.talk.call(TPM_CC.LoadExternal, (), *hmac_key(), TPM_RH.NULL.value)[0]
    digest = hash_bytes(TPM_ALG.SHA256, bytes(4) + b"ref")
    (signature,) = desk.talk.call(TPM_CC.Sign, (key,), digest, HMAC_SCHEME, NO_TICKET)
    desk.say(TPM_CC.PolicySigned, b"", b"", b"ref", 0, signature, handles=(key,))
    wrong = (b"", b"", b"rex", 0, signature)
    assert code_of(desk.say, TPM_CC.PolicySigned, *wrong, handles=(key,)) == TPM_RC.SIGNATURE | 0x540


def test_a_duplication_policy_names_the_object_only_where_it_says_so(desk):
    thing, parent = b"\0\x0b" + b"t" * 32, b"\0\x0b" + b"p" * 32
    for include in (0, 1):
        desk.say(TPM_CC.PolicyRestart)
        desk.say(TPM_CC.PolicyDuplicationSelect, thing, parent, include)
        message = bytes(32) + TPM_CC.PolicyDuplicationSelect.to_bytes(4, "big")
        message += (thing if include else b"") + parent + bytes([include])
        assert desk.digest == hash_bytes(TPM_ALG.SHA256, message)


def test_an_index_is_compared_to_its_last_byte(desk):
    public = TPMS_NV_PUBLIC(nvIndex=INDEX, nameAlg=11, attributes=0x02060006, authPolicy=b"", dataSize=4)
    desk.talk.call(TPM_CC.NV_DefineSpace, (OWNER,), b"", public)
    desk.talk.call(TPM_CC.NV_Write, (OWNER, INDEX), b"1234", 0)

    def compare(operand, offset):
        return code_of(desk.say, TPM_CC.PolicyNV, operand, offset, 0, handles=(OWNER, INDEX))

    assert [compare(b"4", 3), compare(b"1234", 0), compare(b"", 4)] == [0, 0, 0]
    assert compare(b"", 5) == TPM_RC.VALUE | 0x2C0
    assert compare(b"4x", 3) == TPM_RC.SIZE | 0x140
    assert compare(b"x", 3) == TPM_RC.POLICY


def test_a_command_hash_has_the_size_of_the_session_and_stays_one(desk):
    assert code_of(desk.secret, 0, cp_hash=b"1") == TPM_RC.SIZE | 0x2C0
    desk.secret(0, cp_hash=b"1" * 32)
    desk.secret(0, cp_hash=b"1" * 32)
    assert code_of(desk.secret, 0, cp_hash=b"2" * 32) == TPM_RC.CPHASH
    desk.say(TPM_CC.PolicyRestart)
    for code in (TPM_CC.PolicyNameHash, TPM_CC.PolicyTemplate):
        desk.say(TPM_CC.PolicyRestart)
        desk.say(code, b"1" * 32)
        assert code_of(desk.secret, 0, cp_hash=b"1" * 32) == TPM_RC.CPHASH


def test_a_ticket_for_one_command_allows_that_command_only(desk):
    timeout, ticket = desk.secret(-60, cp_hash=b"1" * 32)
    desk.adopt()
    desk.say(TPM_CC.PolicyTicket, timeout, b"1" * 32, b"ref", PLATFORM.to_bytes(4, "big"), ticket)
    assert desk.use() == TPM_RC.POLICY_FAIL | 0x900
