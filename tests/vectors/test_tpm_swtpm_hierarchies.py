"""Hierarchies, lockout, Clear, new seeds, power cycles and audits, on swtpm and on the device: the same answers."""

import pytest

from sim.tpm.client_sessions import Auth, password
from sim.tpm.constants import TPM_CC, TPM_RH, TPM_SE
from sim.tpm.templates import SIGNING_KEY
from sim.tpm.wire import (
    TPMS_ATTEST,
    TPMS_NV_PUBLIC,
    TPMS_PCR_SELECTION,
    TPMS_SCHEME_HASH,
    TPMS_SENSITIVE_CREATE,
    TPMT_HA,
    TPMT_SIG_SCHEME,
)

from .swtpm_peer import command, sized
from .swtpm_scenario import (
    AUDIT,
    CONTINUE,
    ENDORSEMENT,
    LOCKOUT,
    NO_SECRETS,
    NULL,
    OWNER,
    PLATFORM,
    RESET,
    compare,
)

pytestmark = pytest.mark.client

HIERARCHIES = (OWNER, ENDORSEMENT, PLATFORM)
PLATFORM_NV = TPM_RH.PLATFORM_NV.value
KEYS_OWN = TPMT_SIG_SCHEME(scheme=0x10, details=None)
ECDSA = TPMT_SIG_SCHEME(scheme=0x18, details=TPMS_SCHEME_HASH(hashAlg=11))
READ = (TPMS_PCR_SELECTION.of(11, (0,)),)


def make(play, hierarchy, secrets=NO_SECRETS, value=b""):
    template = (secrets, SIGNING_KEY, b"", ())
    return play.call(
        f"make {hierarchy:x}", TPM_CC.CreatePrimary, (hierarchy,), *template, auths=[password(value)]
    )


def capability(play, group, first, count=20):
    def show(result):
        return str(result[1].data)

    play.call(f"{group} {first:x}", TPM_CC.GetCapability, (), group, first, count, show=show)


def seen(play):
    """Show all that hierarchies have to show."""
    for first, count in ((0x200, 2), (0x20E, 4)):
        capability(play, 6, first, count)
    capability(play, 9, 0x40000000)
    for first in (0x80000000, 0x81000000, 0x01000000):
        capability(play, 1, first)
    play.call(
        "counts",
        TPM_CC.ReadClock,
        (),
        show=lambda result: (
            result[0].clockInfo.resetCount,
            result[0].clockInfo.restartCount,
            result[0].clockInfo.safe,
            result[0].clockInfo.clock < 60_000,
        ),
    )


def switching(play):
    for authority in HIERARCHIES:
        for switched in (*HIERARCHIES, PLATFORM_NV, LOCKOUT, NULL):
            for state in (0, 1, 2):
                if switched == PLATFORM and state == 0:
                    continue
                given = switched.to_bytes(4, "big") + bytes([state])
                play.raw(
                    f"{authority:x} {switched:x} {state}",
                    command(TPM_CC.HierarchyControl, (authority,), given, [b""]),
                )
                for hierarchy in (OWNER, ENDORSEMENT):
                    make(play, hierarchy)
                    play.call("drop", TPM_CC.FlushContext, (), 0x80000000)
    make(play, ENDORSEMENT)
    play.call("off", TPM_CC.HierarchyControl, (ENDORSEMENT,), ENDORSEMENT, 0)
    seen(play)
    play.call("off", TPM_CC.HierarchyControl, (PLATFORM,), PLATFORM, 0)
    play.call("platform", TPM_CC.HierarchyChangeAuth, (PLATFORM,), b"")
    play.call("on", TPM_CC.HierarchyControl, (PLATFORM,), ENDORSEMENT, 1)
    seen(play)


def secrets(play):
    for hierarchy in (*HIERARCHIES, LOCKOUT, NULL):
        for hash_alg, policy in (
            (11, bytes(32)),
            (11, b""),
            (0x10, b"1"),
            (4, bytes(32)),
            (4, bytes(20)),
            (0x12, bytes(32)),
            (0x10, b""),
        ):
            given = sized(policy) + hash_alg.to_bytes(2, "big")
            play.raw(f"policy {hierarchy:x}", command(TPM_CC.SetPrimaryPolicy, (hierarchy,), given, [b""]))
        for value in (b"pw", b"pw\0\0", b"", bytes(64)):
            change = TPM_CC.HierarchyChangeAuth
            play.raw(f"value {hierarchy:x}", command(change, (hierarchy,), sized(value), [b""]))
            known = b"pw" if value.startswith(b"pw") else b""
            play.raw(f"back {hierarchy:x}", command(change, (hierarchy,), sized(b""), [known]))
    seen(play)
    session = play.start()
    for before, after in ((b"", b"new"), (b"new", b""), (b"new", b"")):
        auth = Auth(session=session, value=before, new_value=after)
        play.call("by hmac", TPM_CC.HierarchyChangeAuth, (OWNER,), after, auths=[auth])


def seeds(play):
    for code, value in ((TPM_CC.ChangeEPS, b""), (TPM_CC.ChangePPS, b"ea")):
        for hierarchy in HIERARCHIES:
            make(play, hierarchy)
        for hierarchy in (ENDORSEMENT, PLATFORM):
            play.call("policy", TPM_CC.SetPrimaryPolicy, (hierarchy,), bytes(32), 11)
        play.call("value", TPM_CC.HierarchyChangeAuth, (ENDORSEMENT,), b"ea")
        play.call("change", code, (PLATFORM,))
        seen(play)
        play.call("use", TPM_CC.HierarchyChangeAuth, (ENDORSEMENT,), b"", auths=[password(value)])
        for slot in range(3):
            play.call("drop", TPM_CC.FlushContext, (), 0x80000000 + slot)


def clearing(play):
    for authority, disable in ((PLATFORM, 1), (LOCKOUT, 0), (PLATFORM, 0), (LOCKOUT, 1), (PLATFORM, 0)):
        play.call("control", TPM_CC.ClearControl, (authority,), disable)
        seen(play)
        if disable:
            play.call("clear", TPM_CC.Clear, (LOCKOUT,))
            play.call("clear", TPM_CC.Clear, (PLATFORM,))
    for hierarchy in HIERARCHIES:
        make(play, hierarchy)
    for handle, attributes, authority in (
        (0x01500000, 0x00060006, OWNER),
        (0x01500001, 0x40060007, PLATFORM),
    ):
        public = TPMS_NV_PUBLIC(nvIndex=handle, nameAlg=11, attributes=attributes, authPolicy=b"", dataSize=8)
        play.call("define", TPM_CC.NV_DefineSpace, (authority,), b"", public)
    for hierarchy in (OWNER, ENDORSEMENT, LOCKOUT):
        play.call("policy", TPM_CC.SetPrimaryPolicy, (hierarchy,), bytes(32), 11)
        play.call("value", TPM_CC.HierarchyChangeAuth, (hierarchy,), b"va")
    play.call("parameters", TPM_CC.DictionaryAttackParameters, (LOCKOUT,), 5, 6, 7, auths=[password(b"va")])
    seen(play)
    session = play.start()
    auth = Auth(session=session, value=b"va", new_value=b"")
    play.call("clear", TPM_CC.Clear, (LOCKOUT,), auths=[auth])
    seen(play)
    for hierarchy in (OWNER, ENDORSEMENT, LOCKOUT):
        play.call("use", TPM_CC.HierarchyChangeAuth, (hierarchy,), b"")
    play.call("presence", TPM_CC.PP_Commands, (PLATFORM,), (0x126,), ())
    play.call("algorithms", TPM_CC.SetAlgorithmSet, (PLATFORM,), 5)
    capability(play, 6, 0x20C, 1)
    capability(play, 3, 0)


def guessing(play):
    secret = TPMS_SENSITIVE_CREATE(userAuth=b"key", data=b"")
    play.call("parameters", TPM_CC.DictionaryAttackParameters, (LOCKOUT,), 2, 1000, 1000)
    key = make(play, OWNER, secret)[0]

    def sign(auth, label):
        play.call(label, TPM_CC.Quote, (key,), b"", ECDSA, (), auths=[auth])
        capability(play, 6, 0x20E, 4)
        capability(play, 6, 0x200, 1)

    def forgive():
        play.call("forgive", TPM_CC.DictionaryAttackLockReset, (LOCKOUT,))

    for value in (b"key", b"x", b"y", b"key"):
        sign(password(value), str(value))
    bound = play.start("bound", bind=key, bind_value=b"key")
    sign(Auth(session=bound, value=b"key"), "bound")
    play.flush(bound)
    forgive()
    sign(password(b"key"), "after")
    bound = play.start("bound wrongly", bind=key, bind_value=b"wrong")
    for _ in range(2):
        play.call("other entity", TPM_CC.PCR_Reset, (16,), auths=[Auth(session=bound)])
        play.call("audit", TPM_CC.GetRandom, (), 4, auths=[Auth(session=bound, attributes=0x81)])
        capability(play, 6, 0x20E, 4)
    play.flush(bound)
    forgive()
    bound = play.start("bound", bind=key, bind_value=b"key")
    sign(Auth(session=bound, value=b"key"), "bound")
    sign(Auth(session=bound, value=b"other"), "bound, other value")
    play.flush(bound)
    for parameters in ((0, 1000, 1000), (3, 0, 1000), (3, 1000, 0), (0, 0, 0), (3, 1000, 1000)):
        play.call("parameters", TPM_CC.DictionaryAttackParameters, (LOCKOUT,), *parameters)
        sign(password(b"x"), f"wrong {parameters}")
        sign(password(b"key"), f"right {parameters}")
        forgive()


def lockout(play):
    play.call("value", TPM_CC.HierarchyChangeAuth, (LOCKOUT,), b"lo")
    bound = play.start("bound", bind=LOCKOUT, bind_value=b"lo")
    play.call("other entity", TPM_CC.PCR_Reset, (16,), auths=[Auth(session=bound)])
    auth = Auth(session=bound, value=b"lo")
    play.call("own entity", TPM_CC.DictionaryAttackLockReset, (LOCKOUT,), auths=[auth])
    play.flush(bound)
    bound = play.start("bound wrongly", bind=LOCKOUT, bind_value=b"no")
    for _ in range(2):
        play.call("other entity", TPM_CC.PCR_Reset, (16,), auths=[Auth(session=bound)])
    play.flush(bound)
    for value in (b"lo", b"no"):
        play.call("forgive", TPM_CC.DictionaryAttackLockReset, (LOCKOUT,), auths=[password(value)])
    seen(play)
    play.call("clear", TPM_CC.Clear, (PLATFORM,))
    play.call("forgive", TPM_CC.DictionaryAttackLockReset, (LOCKOUT,))
    seen(play)
    play.call("wrong", TPM_CC.DictionaryAttackLockReset, (LOCKOUT,), auths=[password(b"no")])
    play.call("right", TPM_CC.DictionaryAttackLockReset, (LOCKOUT,))


def cycles(play):
    for hierarchy in HIERARCHIES:
        play.call("value", TPM_CC.HierarchyChangeAuth, (hierarchy,), b"q")
        auths = [password(b"q")]
        play.call("policy", TPM_CC.SetPrimaryPolicy, (hierarchy,), bytes(32), 11, auths=auths)
    play.call("off", TPM_CC.HierarchyControl, (OWNER,), OWNER, 0, auths=[password(b"q")])
    for stop, start in ((1, 1), (0, 0), (1, 0), (None, 0), (1, 1)):
        policy = play.start("policy", TPM_SE.POLICY)
        if stop is not None:
            play.call("stop", TPM_CC.Shutdown, (), stop)
        play.tpm.init()
        play.raw("start", command(TPM_CC.Startup, (), bytes([0, start])))
        play.digest(policy)
        seen(play)
        for hierarchy in HIERARCHIES:
            play.call("empty", TPM_CC.HierarchyChangeAuth, (hierarchy,), b"q")
            play.call("kept", TPM_CC.HierarchyChangeAuth, (hierarchy,), b"q", auths=[password(b"q")])


def audited(play):
    key = make(play, ENDORSEMENT)[0]
    session = play.start()

    def show(result):
        return str(TPMS_ATTEST.decode(result[0]).attested)

    def of_session(label, signer=NULL, scheme=KEYS_OWN):
        handles = (ENDORSEMENT, signer, session.handle)
        play.call(label, TPM_CC.GetSessionAuditDigest, handles, b"q", scheme, show=show)

    def read(attributes):
        auth = Auth(session=session, attributes=attributes | CONTINUE)
        play.call("read", TPM_CC.PCR_Read, (), READ, auths=[auth])

    of_session("none yet")
    for attributes in (AUDIT, AUDIT, AUDIT | RESET):
        read(attributes)
        of_session("session")
        of_session("session again")
    of_session("no scheme", key)
    of_session("signed", key, ECDSA)
    auth = Auth(session=session, attributes=AUDIT | CONTINUE)
    play.call("extend", TPM_CC.PCR_Extend, (4,), (TPMT_HA(hashAlg=11, digest=bytes(32)),), auths=[auth])
    of_session("extended")
    for handle in (0x03000001, 0x02000009, NULL):
        sent = command(TPM_CC.GetSessionAuditDigest, (ENDORSEMENT, NULL, handle), b"\0\0\0\x10", [b"", b""])
        play.raw(f"no session {handle:x}", sent)


def audited_commands(play):
    key = make(play, ENDORSEMENT)[0]

    def look(label, signer=NULL, scheme=KEYS_OWN):
        def show(result):
            return str(TPMS_ATTEST.decode(result[0]).attested)

        handles = (ENDORSEMENT, signer)
        play.call(label, TPM_CC.GetCommandAuditDigest, handles, b"q", scheme, show=show)

    def choose(hash_alg, chosen=(), dropped=()):
        given = (hash_alg, tuple(map(int, chosen)), tuple(map(int, dropped)))
        play.call(f"choose {given}", TPM_CC.SetCommandCodeAuditStatus, (OWNER,), *given)
        look("then")

    look("first")
    choose(16)
    choose(11)
    choose(4, (TPM_CC.PCR_Read,))
    choose(4)
    choose(4)
    choose(16, (TPM_CC.PCR_Read, TPM_CC.GetRandom, TPM_CC.Startup, TPM_CC.Shutdown, 0x1234))
    play.call("read", TPM_CC.PCR_Read, (), READ)
    look("read")
    session = play.start()
    auth = Auth(session=session, attributes=AUDIT | CONTINUE)
    play.call("read under audit", TPM_CC.PCR_Read, (), READ, auths=[auth])
    look("read under audit")
    look("signed", key, ECDSA)
    look("anew")
    choose(16, (), (TPM_CC.GetRandom, TPM_CC.SetCommandCodeAuditStatus))
    choose(16, (TPM_CC.PCR_Reset,), (TPM_CC.PCR_Reset,))
    choose(16, (TPM_CC.Clear,))
    play.call("clear", TPM_CC.Clear, (LOCKOUT,))
    look("cleared")
    capability(play, 4, 0)
    capability(play, 6, 0x213, 2)
    for stop, start in ((0, 0), (1, 1), (1, 0)):
        play.call("stop", TPM_CC.Shutdown, (), stop)
        play.tpm.init()
        play.tpm.execute(command(TPM_CC.Startup, (), bytes([0, start])))
        look("after the cycle")


SCENARIOS = {
    "hierarchies-switching": switching,
    "hierarchies-secrets": secrets,
    "hierarchies-seeds": seeds,
    "hierarchies-clearing": clearing,
    "hierarchies-guessing": guessing,
    "hierarchies-lockout": lockout,
    "hierarchies-cycles": cycles,
    "hierarchies-audited": audited,
    "hierarchies-audited_commands": audited_commands,
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_hierarchies_answer_as_those_of_swtpm(program, tmp_path, name):
    differing, steps = compare(program, tmp_path, SCENARIOS[name], name)

    assert differing == []
    assert steps > 10
