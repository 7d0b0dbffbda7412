"""Each policy assertion in a real session: the command that it allows passes, every other is refused."""

import pytest

from sim.core.rng import Stream
from sim.tpm.client import TpmError
from sim.tpm.client_sessions import Auth, SessionClient, password
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC, TPM_RH, TPM_SE, TPM_ST
from sim.tpm.hashing import hash_bytes
from sim.tpm.templates import SIGNING_KEY
from sim.tpm.wire import (
    TPM2B_PUBLIC,
    TPMS_NV_PUBLIC,
    TPMS_SCHEME_HASH,
    TPMS_SENSITIVE_CREATE,
    TPMT_HA,
    TPMT_SIG_SCHEME,
)
from sim.tpm.wire.tickets import TPMT_TK_HASHCHECK

OWNER = TPM_RH.OWNER.value
INDEX = 0x0150_0001
ECDSA = TPMT_SIG_SCHEME(scheme=TPM_ALG.ECDSA.value, details=TPMS_SCHEME_HASH(hashAlg=TPM_ALG.SHA256.value))
NO_TICKET = TPMT_TK_HASHCHECK(tag=TPM_ST.HASHCHECK.value, hierarchy=TPM_RH.NULL.value, digest=b"")
NO_SECRETS = TPMS_SENSITIVE_CREATE(userAuth=b"", data=b"")


class Desk:
    """A client whose owner hierarchy can be put under the policy of a session."""

    def __init__(self, tpm):
        self.tpm = tpm
        self.talk = SessionClient(tpm.execute, Stream(b"client"))
        self.session = self.talk.start(TPM_SE.POLICY)

    def say(self, code, *parameters, handles=(), auths=()):
        return self.talk.call(code, (*handles, self.session.handle), *parameters, auths=auths)

    def adopt(self):
        """Make the policy so far the owner's, and begin the session anew."""
        (digest,) = self.say(TPM_CC.PolicyGetDigest)
        self.talk.call(TPM_CC.SetPrimaryPolicy, (OWNER,), digest, TPM_ALG.SHA256)
        self.say(TPM_CC.PolicyRestart)
        return digest

    def use(self, code=TPM_CC.HierarchyChangeAuth, parameters=(b"",), **auth):
        """Use the owner's authority under the policy; return the response code."""
        return self.refusal(code, (OWNER,), *parameters, auths=[Auth(session=self.session, **auth)])

    def refusal(self, code, handles, *parameters, auths=()):
        try:
            self.talk.call(code, handles, *parameters, auths=auths)
        except TpmError as refused:
            return refused.rc
        return 0


@pytest.fixture
def desk(tpm):
    return Desk(tpm)


FAIL = TPM_RC.POLICY_FAIL | 0x900


def test_no_policy_opens_nothing(desk):
    assert desk.use() == TPM_RC.AUTH_UNAVAILABLE
    desk.say(TPM_CC.PolicyAuthValue)
    desk.adopt()
    assert desk.use() == FAIL


def test_one_of_the_alternatives_is_enough(desk):
    desk.say(TPM_CC.PolicyCommandCode, int(TPM_CC.HierarchyChangeAuth))
    (first,) = desk.say(TPM_CC.PolicyGetDigest)
    branches = (first, b"x" * 32)
    desk.say(TPM_CC.PolicyOR, branches)
    desk.adopt()
    with pytest.raises(TpmError):
        desk.say(TPM_CC.PolicyOR, branches)
    desk.say(TPM_CC.PolicyCommandCode, int(TPM_CC.HierarchyChangeAuth))
    assert desk.use() == FAIL
    desk.say(TPM_CC.PolicyRestart)
    desk.say(TPM_CC.PolicyCommandCode, int(TPM_CC.HierarchyChangeAuth))
    desk.say(TPM_CC.PolicyOR, branches)
    assert desk.use() == 0


def test_a_command_code_holds_for_that_command(desk):
    desk.say(TPM_CC.PolicyCommandCode, int(TPM_CC.HierarchyChangeAuth))
    desk.adopt()
    desk.say(TPM_CC.PolicyCommandCode, int(TPM_CC.HierarchyChangeAuth))
    create = (NO_SECRETS, SIGNING_KEY, b"", ())
    assert desk.use(TPM_CC.CreatePrimary, create) == TPM_RC.POLICY_CC | 0x900
    assert desk.use() == 0
    assert desk.use() == FAIL  # a policy serves once


def test_registers_must_not_change(desk):
    from sim.tpm.wire import TPMS_PCR_SELECTION

    chosen = (TPMS_PCR_SELECTION.of(TPM_ALG.SHA256, (0, 7)),)
    desk.say(TPM_CC.PolicyPCR, b"", chosen)
    desk.adopt()
    desk.say(TPM_CC.PolicyPCR, b"", chosen)
    assert desk.use() == 0
    desk.say(TPM_CC.PolicyPCR, b"", chosen)
    desk.talk.call(TPM_CC.PCR_Extend, (7,), (TPMT_HA(hashAlg=TPM_ALG.SHA256, digest=bytes(32)),))
    assert desk.use() == TPM_RC.PCR_CHANGED
    desk.say(TPM_CC.PolicyRestart)
    desk.say(TPM_CC.PolicyPCR, b"", chosen)
    assert desk.use() == FAIL


def test_a_locality_holds_at_that_locality(desk):
    desk.say(TPM_CC.PolicyLocality, 0b01000)
    desk.adopt()
    desk.say(TPM_CC.PolicyLocality, 0b01000)
    assert desk.use() == TPM_RC.LOCALITY
    desk.talk.locality = 3
    assert desk.use() == 0


def test_presence_must_be_there(desk):
    desk.say(TPM_CC.PolicyPhysicalPresence)
    desk.adopt()
    desk.say(TPM_CC.PolicyPhysicalPresence)
    assert desk.use() == TPM_RC.PP | 0x900
    desk.tpm.physical_presence = True
    assert desk.use() == 0


def test_hashes_of_parameters_names_and_templates_bind(desk):
    template = TPM2B_PUBLIC.encode(SIGNING_KEY)[2:]
    create = (TPM_CC.CreatePrimary, (NO_SECRETS, SIGNING_KEY, b"", ()))
    change = (TPM_CC.HierarchyChangeAuth, (b"",))
    handle = OWNER.to_bytes(4, "big")
    described = TPM_CC.HierarchyChangeAuth.to_bytes(4, "big") + handle + b"\0\0"
    for code, digest, good, bad in (
        (TPM_CC.PolicyCpHash, hash_bytes(11, described), change, (TPM_CC.HierarchyChangeAuth, (b"x",))),
        (TPM_CC.PolicyNameHash, hash_bytes(11, handle), change, None),
        (TPM_CC.PolicyTemplate, hash_bytes(11, template), create, change),
    ):
        desk.say(code, digest)
        desk.adopt()
        if bad is not None:
            desk.say(code, digest)
            assert desk.use(*bad) == FAIL
            desk.say(TPM_CC.PolicyRestart)
        desk.say(code, digest)
        assert desk.use(*good) == 0
    desk.say(TPM_CC.PolicyNameHash, hash_bytes(11, b"another"))
    desk.adopt()
    desk.say(TPM_CC.PolicyNameHash, hash_bytes(11, b"another"))
    assert desk.use() == FAIL


def test_value_and_password_must_be_known(desk):
    desk.say(TPM_CC.PolicyAuthValue)
    desk.adopt()
    desk.talk.call(TPM_CC.HierarchyChangeAuth, (OWNER,), b"pw")
    for value, rc in ((b"no", TPM_RC.BAD_AUTH | 0x900), (b"pw", 0)):
        desk.say(TPM_CC.PolicyRestart)
        desk.say(TPM_CC.PolicyAuthValue)
        assert desk.use(parameters=(b"pw",), value=value, use_value=True) == rc
    for value, rc in ((b"no", TPM_RC.BAD_AUTH | 0x900), (b"pw", 0)):
        desk.say(TPM_CC.PolicyRestart)
        desk.say(TPM_CC.PolicyPassword)
        assert desk.use(parameters=(b"pw",), value=value, plain=True) == rc


def test_an_index_and_the_clock_are_compared(desk):
    public = TPMS_NV_PUBLIC(nvIndex=INDEX, nameAlg=11, attributes=0x02060006, authPolicy=b"", dataSize=2)
    desk.talk.call(TPM_CC.NV_DefineSpace, (OWNER,), b"", public)
    desk.talk.call(TPM_CC.NV_Write, (OWNER, INDEX), b"\x80\x01", 0)
    holding = [(0, b"\x80"), (1, b"\x81"), (3, b"\x7f"), (4, b"\x01"), (10, b"\x80"), (11, b"\x7f")]
    for operation, operand in holding:
        assert desk.refusal(TPM_CC.PolicyNV, (OWNER, INDEX, desk.session.handle), operand, 0, operation) == 0
    for operation, operand in ((0, b"\x81"), (2, b"\x01"), (5, b"\x01"), (9, b"\x7f"), (10, b"\x81")):
        handles = (OWNER, INDEX, desk.session.handle)
        assert desk.refusal(TPM_CC.PolicyNV, handles, operand, 0, operation) == TPM_RC.POLICY
    desk.tpm.clock.now = 5_000_000_000
    handles = (desk.session.handle,)
    for operand, operation, rc in (((5000), 7, 0), ((5001), 7, TPM_RC.POLICY), ((5001), 5, 0)):
        given = operand.to_bytes(8, "big")
        assert desk.refusal(TPM_CC.PolicyCounterTimer, handles, given, 0, operation) == rc


def test_an_index_must_be_written_or_not(desk):
    desk.say(TPM_CC.PolicyNvWritten, 0)
    (policy,) = desk.say(TPM_CC.PolicyGetDigest)
    public = TPMS_NV_PUBLIC(nvIndex=INDEX, nameAlg=11, attributes=0x02060008, authPolicy=policy, dataSize=2)
    desk.talk.call(TPM_CC.NV_DefineSpace, (OWNER,), b"", public)
    write = (TPM_CC.NV_Write, (INDEX, INDEX), b"12", 0)
    assert desk.refusal(*write, auths=[Auth(session=desk.session)]) == 0
    desk.talk.names.clear()
    desk.say(TPM_CC.PolicyNvWritten, 0)
    assert desk.refusal(*write, auths=[Auth(session=desk.session)]) == FAIL


def signer(desk):
    results = desk.talk.call(TPM_CC.CreatePrimary, (OWNER,), NO_SECRETS, SIGNING_KEY, b"", ())
    return results[0], results[5]


def signed(desk, key, message):
    digest = hash_bytes(TPM_ALG.SHA256, message)
    (signature,) = desk.talk.call(TPM_CC.Sign, (key,), digest, ECDSA, NO_TICKET)
    return digest, signature


def test_a_signature_authorises_once_and_its_ticket_again(desk):
    key, name = signer(desk)
    expiration = -60 & 0xFFFFFFFF
    nonce = desk.session.nonce_tpm
    _, signature = signed(desk, key, nonce + expiration.to_bytes(4, "big") + b"ref")
    given = (nonce, b"", b"ref", expiration)
    timeout, ticket = desk.say(TPM_CC.PolicySigned, *given, signature, handles=(key,))
    desk.adopt()

    handles = (key, desk.session.handle)
    wrong = (nonce, b"", b"rex", expiration)
    assert desk.refusal(TPM_CC.PolicySigned, handles, *wrong, signature) == TPM_RC.SIGNATURE | 0x540
    stale = (b"x" * 32, b"", b"ref", expiration)
    assert desk.refusal(TPM_CC.PolicySigned, handles, *stale, signature) == TPM_RC.NONCE | 0x140
    desk.say(TPM_CC.PolicyTicket, timeout, b"", b"ref", name, ticket)
    assert desk.use() == 0
    handles = (desk.session.handle,)
    other = (timeout, b"", b"rex", name, ticket)
    assert desk.refusal(TPM_CC.PolicyTicket, handles, *other) == TPM_RC.TICKET | 0x540
    desk.tpm.clock.now = 61 * 10**9
    late = (timeout, b"", b"ref", name, ticket)
    assert desk.refusal(TPM_CC.PolicyTicket, handles, *late) == TPM_RC.EXPIRED | 0x140


def test_an_authorisation_expires(desk):
    given = (b"", b"", b"", 60)
    secret = {"handles": (TPM_RH.PLATFORM.value,), "auths": [password()]}
    desk.say(TPM_CC.PolicySecret, *given, **secret)
    desk.adopt()
    desk.say(TPM_CC.PolicySecret, *given, **secret)
    desk.tpm.clock.now = 60 * 10**9
    assert desk.use() == 0
    desk.say(TPM_CC.PolicyRestart)
    handles = (TPM_RH.PLATFORM.value, desk.session.handle)
    desk.tpm.clock.now = 61 * 10**9
    assert desk.refusal(TPM_CC.PolicySecret, handles, *given) == TPM_RC.EXPIRED | 0x440


def test_a_secret_must_be_known(desk):
    desk.talk.call(TPM_CC.HierarchyChangeAuth, (TPM_RH.PLATFORM,), b"pp")
    handles = (TPM_RH.PLATFORM.value, desk.session.handle)
    given = (b"", b"", b"", 0)
    assert desk.refusal(TPM_CC.PolicySecret, handles, *given) == TPM_RC.BAD_AUTH | 0x900
    assert desk.refusal(TPM_CC.PolicySecret, handles, *given, auths=[password(b"pp")]) == 0


def test_a_key_approves_policies_made_later(desk):
    key, name = signer(desk)
    desk.say(TPM_CC.PolicyCommandCode, int(TPM_CC.HierarchyChangeAuth))
    (approved,) = desk.say(TPM_CC.PolicyGetDigest)
    digest, signature = signed(desk, key, approved + b"ref")
    (ticket,) = desk.talk.call(TPM_CC.VerifySignature, (key,), digest, signature)
    desk.say(TPM_CC.PolicyAuthorize, approved, b"ref", name, ticket)
    desk.adopt()

    handles = (desk.session.handle,)
    assert desk.refusal(TPM_CC.PolicyAuthorize, handles, approved, b"ref", name, ticket) == 0x1C4
    desk.say(TPM_CC.PolicyCommandCode, int(TPM_CC.HierarchyChangeAuth))
    assert desk.refusal(TPM_CC.PolicyAuthorize, handles, approved, b"rex", name, ticket) == 0x4C4
    desk.say(TPM_CC.PolicyAuthorize, approved, b"ref", name, ticket)
    assert desk.use() == 0


def test_an_index_approves_policies_made_later(desk):
    public = TPMS_NV_PUBLIC(nvIndex=INDEX, nameAlg=11, attributes=0x02060006, authPolicy=b"", dataSize=34)
    desk.talk.call(TPM_CC.NV_DefineSpace, (OWNER,), b"", public)
    desk.say(TPM_CC.PolicyCommandCode, int(TPM_CC.HierarchyChangeAuth))
    (approved,) = desk.say(TPM_CC.PolicyGetDigest)
    desk.talk.call(TPM_CC.NV_Write, (OWNER, INDEX), b"\x00\x0b" + approved, 0)
    desk.say(TPM_CC.PolicyAuthorizeNV, handles=(OWNER, INDEX))
    desk.adopt()

    handles = (OWNER, INDEX, desk.session.handle)
    assert desk.refusal(TPM_CC.PolicyAuthorizeNV, handles) == TPM_RC.VALUE
    desk.say(TPM_CC.PolicyCommandCode, int(TPM_CC.HierarchyChangeAuth))
    desk.say(TPM_CC.PolicyAuthorizeNV, handles=(OWNER, INDEX))
    assert desk.use() == 0


def test_a_trial_session_authorises_nothing(desk):
    trial = desk.talk.start(TPM_SE.TRIAL)
    rc = desk.refusal(TPM_CC.HierarchyChangeAuth, (OWNER,), b"", auths=[Auth(session=trial)])
    assert rc == TPM_RC.ATTRIBUTES | 0x900
