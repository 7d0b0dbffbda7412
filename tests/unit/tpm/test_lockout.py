"""Guessing: three failures lock, time heals one by one, and the lockout's own value has its own rule."""

import pytest

from sim.core.rng import Stream
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.client_sessions import Auth, SessionClient, password
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC, TPM_RH
from sim.tpm.templates import SIGNING_KEY
from sim.tpm.wire import TPMS_SCHEME_HASH, TPMS_SENSITIVE_CREATE, TPMT_SIG_SCHEME

OWNER, LOCKOUT, PLATFORM = TPM_RH.OWNER.value, TPM_RH.LOCKOUT.value, TPM_RH.PLATFORM.value
ECDSA = TPMT_SIG_SCHEME(scheme=TPM_ALG.ECDSA.value, details=TPMS_SCHEME_HASH(hashAlg=TPM_ALG.SHA256.value))
SECOND = 10**9
FAIL = TPM_RC.AUTH_FAIL | 0x900
BAD = TPM_RC.BAD_AUTH | 0x900


class Desk:
    """A client with a guarded key whose value is "key"."""

    def __init__(self, tpm):
        self.tpm = tpm
        self.talk = SessionClient(tpm.execute, Stream(b"client"))
        secrets = TPMS_SENSITIVE_CREATE(userAuth=b"key", data=b"")
        results = self.talk.call(TPM_CC.CreatePrimary, (OWNER,), secrets, SIGNING_KEY, b"", ())
        self.key = results[0]

    def rc(self, code, handles, *parameters, auths=()):
        try:
            self.talk.call(code, handles, *parameters, auths=auths)
        except TpmError as refused:
            return refused.rc
        return 0

    def sign(self, auth):
        return self.rc(TPM_CC.Quote, (self.key,), b"", ECDSA, (), auths=[auth])

    def forgive(self, auth=None):
        return self.rc(TPM_CC.DictionaryAttackLockReset, (LOCKOUT,), auths=[auth or password()])


@pytest.fixture
def desk(tpm):
    return Desk(tpm)


def test_three_failures_lock_and_each_thousand_seconds_heal_one(desk):
    assert [desk.sign(password(b"no")) for _ in range(4)] == [FAIL, FAIL, FAIL, TPM_RC.LOCKOUT]
    assert desk.sign(password(b"key")) == TPM_RC.LOCKOUT
    desk.tpm.clock.now = 1000 * SECOND - 1
    assert desk.sign(password(b"key")) == TPM_RC.LOCKOUT
    desk.tpm.clock.now = 1000 * SECOND
    assert desk.sign(password(b"key")) == 0
    assert desk.tpm.da.failed_tries == 2
    assert desk.sign(password(b"no")) == FAIL
    assert desk.sign(password(b"key")) == TPM_RC.LOCKOUT
    desk.tpm.clock.now = 10_000 * SECOND
    assert desk.sign(password(b"key")) == 0
    assert desk.tpm.da.failed_tries == 0


def test_hmac_and_policy_sessions_count_too(desk):
    session = desk.talk.start()
    assert desk.sign(Auth(session=session, value=b"no")) == FAIL
    assert desk.tpm.da.failed_tries == 1
    assert desk.sign(Auth(session=session, value=b"key")) == 0
    bound = desk.talk.start(bind=desk.key, bind_value=b"no")
    assert desk.rc(TPM_CC.PCR_Reset, (16,), auths=[Auth(session=bound)]) == FAIL
    assert desk.tpm.da.failed_tries == 2


def test_unguarded_entities_do_not_count(desk):
    desk.talk.call(TPM_CC.HierarchyChangeAuth, (OWNER,), b"pw")
    for _ in range(5):
        assert desk.rc(TPM_CC.HierarchyChangeAuth, (OWNER,), b"", auths=[password(b"no")]) == BAD
    assert desk.tpm.da.failed_tries == 0
    assert desk.rc(TPM_CC.HierarchyChangeAuth, (OWNER,), b"", auths=[password(b"pw")]) == 0


def test_one_wrong_lockout_value_locks_the_lockout_for_a_thousand_seconds(desk):
    desk.talk.call(TPM_CC.HierarchyChangeAuth, (LOCKOUT,), b"lo")
    assert desk.forgive(password(b"no")) == FAIL
    assert desk.forgive(password(b"lo")) == TPM_RC.LOCKOUT
    assert desk.sign(password(b"key")) == 0
    desk.tpm.clock.now = 999 * SECOND
    assert desk.forgive(password(b"lo")) == TPM_RC.LOCKOUT
    desk.tpm.clock.now = 1000 * SECOND
    assert desk.forgive(password(b"lo")) == 0


def test_the_lockout_forgives(desk):
    for _ in range(3):
        desk.sign(password(b"no"))
    assert desk.forgive() == 0
    assert desk.sign(password(b"key")) == 0


def test_without_recovery_the_lockout_waits_for_a_restart(desk):
    desk.talk.call(TPM_CC.DictionaryAttackParameters, (LOCKOUT,), 5, 10, 0)
    assert desk.forgive(password(b"no")) == FAIL
    desk.tpm.clock.now = 10**6 * SECOND
    assert desk.forgive() == TPM_RC.LOCKOUT
    TpmClient(desk.tpm.execute).shutdown()
    desk.tpm.init()
    TpmClient(desk.tpm.execute).startup()
    assert desk.forgive() == 0


def test_a_power_cut_after_a_use_counts_as_a_failure(desk):
    desk.sign(password(b"key"))
    desk.tpm.init()
    TpmClient(desk.tpm.execute).startup()
    assert desk.tpm.da.failed_tries == 1
    desk.tpm.init()
    TpmClient(desk.tpm.execute).startup()
    assert desk.tpm.da.failed_tries == 1


def test_clear_empties_and_a_new_seed_makes_other_keys(desk):
    def primary(hierarchy):
        client = TpmClient(desk.tpm.execute)
        handle, _, name = client.create_primary(SIGNING_KEY, hierarchy)
        client.flush(handle)
        return name

    before = {handle: primary(handle) for handle in (OWNER, TPM_RH.ENDORSEMENT, PLATFORM)}
    desk.talk.call(TPM_CC.HierarchyChangeAuth, (LOCKOUT,), b"lo")
    assert desk.rc(TPM_CC.Clear, (LOCKOUT,), auths=[password(b"lo")]) == 0
    assert desk.tpm.objects == {}
    assert primary(OWNER) != before[OWNER]
    assert primary(TPM_RH.ENDORSEMENT) == before[TPM_RH.ENDORSEMENT]
    assert desk.forgive() == 0
    desk.talk.call(TPM_CC.ChangeEPS, (PLATFORM,))
    assert primary(TPM_RH.ENDORSEMENT) != before[TPM_RH.ENDORSEMENT]
    assert primary(PLATFORM) == before[PLATFORM]
    desk.talk.call(TPM_CC.ChangePPS, (PLATFORM,))
    assert primary(PLATFORM) != before[PLATFORM]


def test_clear_can_be_forbidden(desk):
    desk.talk.call(TPM_CC.ClearControl, (LOCKOUT,), 1)
    assert desk.rc(TPM_CC.Clear, (LOCKOUT,)) == TPM_RC.DISABLED
    assert desk.rc(TPM_CC.ClearControl, (LOCKOUT,), 0) == TPM_RC.AUTH_FAIL
    desk.talk.call(TPM_CC.ClearControl, (PLATFORM,), 0)
    assert desk.rc(TPM_CC.Clear, (LOCKOUT,)) == 0


def test_commands_of_the_platform_can_need_presence(desk):
    given = ((int(TPM_CC.Clear), int(TPM_CC.GetRandom)), ())
    assert desk.rc(TPM_CC.PP_Commands, (PLATFORM,), *given) == TPM_RC.PP | 0x900
    desk.tpm.physical_presence = True
    assert desk.rc(TPM_CC.PP_Commands, (PLATFORM,), *given) == 0
    desk.tpm.physical_presence = False
    assert desk.tpm.presence_commands == (TPM_CC.Clear, TPM_CC.PP_Commands)
    assert desk.rc(TPM_CC.Clear, (PLATFORM,)) == TPM_RC.PP | 0x900
    assert desk.rc(TPM_CC.Clear, (LOCKOUT,)) == 0


def test_a_hierarchy_that_is_off_refuses_and_loses_its_objects(desk):
    desk.talk.call(TPM_CC.HierarchyControl, (OWNER,), OWNER, 0)
    assert desk.tpm.objects == {}
    assert desk.rc(TPM_CC.HierarchyChangeAuth, (OWNER,), b"") == TPM_RC.HIERARCHY | 0x100
    assert desk.rc(TPM_CC.HierarchyControl, (PLATFORM,), OWNER, 1) == 0
    assert desk.rc(TPM_CC.HierarchyChangeAuth, (OWNER,), b"") == 0
