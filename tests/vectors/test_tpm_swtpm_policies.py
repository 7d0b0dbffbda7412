"""Every policy command, in trial and in real sessions, on swtpm and on the device: the same codes and digests."""

import attrs
import pytest

from sim.tpm.client_sessions import Auth, password
from sim.tpm.constants import HASH_BYTES, TPM_CC, TPM_NT, TPM_SE
from sim.tpm.wire import TPMS_NV_PUBLIC, TPMS_PCR_SELECTION, TPMT_HA
from sim.tpm.wire.session import TPMT_TK_AUTH, TPMT_TK_VERIFIED

from .swtpm_scenario import ENDORSEMENT, LOCKOUT, NULL, OWNER, PLATFORM, compare

pytestmark = pytest.mark.client

INDEX = 0x01500001
SHA256_NAME = b"\x00\x0b" + b"\x11" * 32
selection = TPMS_PCR_SELECTION.of


class Policies:
    """One policy session of a play, with the digest shown after each assertion."""

    def __init__(self, play, kind, hash_alg):
        self.play = play
        self.size = HASH_BYTES[hash_alg]
        self.session = play.start(f"{kind.name} {hash_alg}", kind, hash_alg=hash_alg)
        self.handle = self.session.handle
        self.hash_alg = hash_alg

    def say(self, code, *parameters):
        self.play.call(f"{parameters}"[:60], code, (self.handle,), *parameters)
        self.play.digest(self.session)

    def restart(self):
        self.say(TPM_CC.PolicyRestart)


def alternatives(policy):
    size = policy.size
    for branches in (
        (bytes(size),),
        (bytes(size), b"x" * size),
        (b"y" * size, b"x" * size),
        (b"", b"x"),
        (),
        tuple(bytes([each]) * size for each in range(8)),
    ):
        policy.say(TPM_CC.PolicyOR, branches)


def registers(policy):
    for chosen in (
        (),
        (selection(11, (0, 1, 2)),),
        (selection(4, (16,)), selection(11, (23,))),
        (selection(12, ()),),
    ):
        for expected in (b"", b"z" * policy.size, b"z"):
            policy.say(TPM_CC.PolicyPCR, expected, chosen)
    digest = TPMT_HA(hashAlg=11, digest=bytes(32))
    policy.play.call("change", TPM_CC.PCR_Extend, (5,), (digest,))
    policy.say(TPM_CC.PolicyPCR, b"", (selection(11, (0,)),))


def localities(policy):
    for chain in ((0, 1, 3, 2, 4, 32, 33, 255, 31, 16), (32, 33, 32, 1), (31, 6, 4, 8)):
        for locality in chain:
            policy.say(TPM_CC.PolicyLocality, locality)
        policy.restart()


def counters(policy):
    for operation in range(12):
        for operand, offset in (
            (b"\x80" + bytes(7), 0),
            (bytes(4), 16),
            (b"\0\0\0\1", 16),
            (b"\0", 24),
            (b"\1", 24),
            (bytes(2), 24),
            (b"", 26),
            (b"a" * 26, 0),
        ):
            policy.say(TPM_CC.PolicyCounterTimer, operand, offset, operation)


def commands(policy):
    for code in (TPM_CC.Clear, TPM_CC.Clear, TPM_CC.Unseal, 0, 0xFFFF, TPM_CC.PolicyPCR, 0x2000_0000):
        policy.say(TPM_CC.PolicyCommandCode, int(code))
    policy.restart()
    policy.say(TPM_CC.PolicyCommandCode, 0x1234)
    policy.say(TPM_CC.PolicyPhysicalPresence)
    policy.say(TPM_CC.PolicyAuthValue)
    policy.say(TPM_CC.PolicyPassword)
    for written in (1, 1, 0):
        policy.say(TPM_CC.PolicyNvWritten, written)


def hashes(policy):
    cp, name, template = TPM_CC.PolicyCpHash, TPM_CC.PolicyNameHash, TPM_CC.PolicyTemplate
    size = policy.size
    for order in ((cp, name, template), (name, name, cp, template), (template, template, cp, name), (cp, cp)):
        policy.restart()
        for code in order:
            for digest in (b"1", b"1" * size, b"2" * size, b""):
                policy.say(code, digest)
        policy.say(TPM_CC.PolicyDuplicationSelect, b"a" * 34, b"b" * 34, 1)
    policy.restart()
    policy.say(TPM_CC.PolicyDuplicationSelect, b"a" * 34, b"b" * 34, 1)
    policy.say(TPM_CC.PolicyDuplicationSelect, b"a" * 34, b"b" * 34, 1)
    policy.say(TPM_CC.PolicyCommandCode, int(TPM_CC.Duplicate))
    policy.say(TPM_CC.PolicyCommandCode, int(TPM_CC.Clear))
    policy.restart()
    policy.say(TPM_CC.PolicyCommandCode, int(TPM_CC.Duplicate))
    policy.say(TPM_CC.PolicyDuplicationSelect, b"a" * 34, b"b" * 34, 0)
    policy.restart()
    policy.say(TPM_CC.PolicyDuplicationSelect, b"", b"", 0)


def _shape(result):
    timeout, ticket = result
    return len(timeout), hex(ticket.tag), hex(ticket.hierarchy), len(ticket.digest)


def secrets(policy):
    nonce, size = policy.session.nonce_tpm, policy.size

    def secret(entity, nonce=b"", cp_hash=b"", ref=b"", expiration=0):
        policy.play.call(
            f"{entity:x} {len(nonce)} {cp_hash[:3]} {ref} {expiration}",
            TPM_CC.PolicySecret,
            (entity, policy.handle),
            nonce,
            cp_hash,
            ref,
            expiration & 0xFFFFFFFF,
            auths=[password()],
            show=_shape,
        )
        policy.play.digest(policy.session)

    for entity in (OWNER, ENDORSEMENT, PLATFORM, LOCKOUT, NULL, 5):
        secret(entity)
        for expiration in (-100, 100, -(2**31), 2**31 - 1):
            secret(entity, expiration=expiration)
            secret(entity, nonce, expiration=expiration)
    secret(OWNER, b"x" * 16)
    secret(OWNER, ref=b"ref")
    for cp_hash in (b"1" * size, b"2" * size, b"2"):
        secret(OWNER, cp_hash=cp_hash)


def tickets(policy):
    def take(entity, nonce, cp_hash):
        given = (nonce, cp_hash, b"ref", -100 & 0xFFFFFFFF)
        handles = (entity, policy.handle)
        return policy.play.call("take", TPM_CC.PolicySecret, handles, *given, auths=[password()])

    own = OWNER.to_bytes(4, "big")
    timeout, ticket = take(OWNER, b"", b"")
    policy.restart()
    if not ticket.digest:
        ticket = TPMT_TK_AUTH(tag=ticket.tag, hierarchy=NULL, digest=b"")
    tries = [
        (timeout, b"", b"ref", own, ticket),
        (timeout, b"", b"rex", own, ticket),
        (timeout, b"", b"ref", b"123", ticket),
        (timeout, b"1" * policy.size, b"ref", own, ticket),
        (timeout, b"1", b"ref", own, ticket),
        (bytes(8), b"", b"ref", own, ticket),
        (b"\x7f" * 8, b"", b"ref", own, ticket),
        (b"", b"", b"ref", own, ticket),
        (b"\x7f" * 7, b"", b"ref", own, ticket),
        (timeout, b"", b"ref", own, attrs.evolve(ticket, tag=0x8025)),
        (timeout, b"", b"ref", own, attrs.evolve(ticket, hierarchy=NULL)),
        (timeout, b"", b"ref", own, attrs.evolve(ticket, digest=b"")),
    ]
    for number, given in enumerate(tries):
        policy.play.call(f"ticket {number}", TPM_CC.PolicyTicket, (policy.handle,), *given)
        policy.play.digest(policy.session)


def approvals(policy):
    none = TPMT_TK_VERIFIED(tag=0x8022, hierarchy=NULL, digest=b"")
    size = policy.size
    for approved, ref, key in (
        (bytes(size), b"ref", SHA256_NAME),
        (b"1" * size, b"", SHA256_NAME),
        (bytes(size), b"", b"\x00\x0b12"),
        (bytes(size), b"", b"\x00\x22" + b"1" * 32),
        (bytes(size), b"", b""),
        (b"1", b"", b"1"),
    ):
        policy.say(TPM_CC.PolicyAuthorize, approved, ref, key, none)


def indices(policy):
    play, handle = policy.play, policy.handle
    public = TPMS_NV_PUBLIC(nvIndex=INDEX, nameAlg=11, attributes=0x02060006, authPolicy=b"", dataSize=70)
    play.call("define", TPM_CC.NV_DefineSpace, (OWNER,), b"", public)

    def compare_with(operand, offset, operation, authority=OWNER):
        handles = (authority, INDEX, handle)
        label = f"{operand[:3]} {offset} {operation}"
        play.call(label, TPM_CC.PolicyNV, handles, operand, offset, operation)
        play.digest(policy.session)

    def approve():
        play.call("approved", TPM_CC.PolicyAuthorizeNV, (OWNER, INDEX, handle))
        play.digest(policy.session)

    compare_with(b"a", 0, 0)
    approve()
    play.call("write", TPM_CC.NV_Write, (OWNER, INDEX), b"\x80" + b"abcdefgh" * 8, 0)
    for operation in range(12):
        for operand, offset in (
            (b"\x80", 0),
            (b"\x7f", 0),
            (b"", 71),
            (b"a" * 64, 10),
            (b"abc", 1),
            (b"abd", 1),
            (b"abb", 1),
        ):
            compare_with(operand, offset, operation)
    compare_with(b"\x80", 0, 0, PLATFORM)
    compare_with(b"\x80", 0, 0, INDEX)
    approve()
    policy.restart()
    for stored in (policy.hash_alg.to_bytes(2, "big") + bytes(policy.size), b"\x00\x0c" + bytes(48)):
        play.call("write", TPM_CC.NV_Write, (OWNER, INDEX), stored, 0)
        approve()


def uses(play):
    """Policies of the owner's hierarchy, used rightly and wrongly."""
    for say, label in (
        ((TPM_CC.PolicyAuthValue,), "value"),
        ((TPM_CC.PolicyPassword,), "password"),
        ((TPM_CC.PolicyCommandCode, int(TPM_CC.HierarchyChangeAuth)), "code"),
        ((TPM_CC.PolicyCommandCode, int(TPM_CC.Clear)), "other code"),
        ((TPM_CC.PolicyLocality, 1), "here"),
        ((TPM_CC.PolicyLocality, 2), "elsewhere"),
        ((TPM_CC.PolicyPhysicalPresence,), "presence"),
        ((TPM_CC.PolicyPCR, b"", (selection(11, (0,)),)), "registers"),
        ((TPM_CC.PolicyNvWritten, 1), "written"),
        ((TPM_CC.PolicyCpHash, b"1" * 32), "other parameters"),
        ((TPM_CC.PolicyNameHash, b"1" * 32), "other names"),
        ((TPM_CC.PolicyTemplate, b"1" * 32), "other template"),
    ):
        session = play.start("real", TPM_SE.POLICY)
        play.call(label, say[0], (session.handle,), *say[1:])
        digest = play.client.call(TPM_CC.PolicyGetDigest, (session.handle,))[0]
        play.call("set", TPM_CC.SetPrimaryPolicy, (OWNER,), digest, 11)
        play.call("set value", TPM_CC.HierarchyChangeAuth, (OWNER,), b"pw")
        for auth in (
            Auth(session=session, value=b"pw", use_value=False),
            Auth(session=session, value=b"pw", use_value=True),
            Auth(session=session, value=b"pw", plain=True),
            Auth(session=session, value=b"no", plain=True),
        ):
            play.call("restart", TPM_CC.PolicyRestart, (session.handle,))
            play.call(label, say[0], (session.handle,), *say[1:])
            play.call(label, TPM_CC.HierarchyChangeAuth, (OWNER,), b"pw", auths=[auth])
            play.call(f"{label} again", TPM_CC.HierarchyChangeAuth, (OWNER,), b"pw", auths=[auth])
        play.call("restart", TPM_CC.PolicyRestart, (session.handle,))
        play.call(label, say[0], (session.handle,), *say[1:])
        play.call("change", TPM_CC.PCR_Extend, (0,), (TPMT_HA(hashAlg=11, digest=bytes(32)),))
        play.call("changed", TPM_CC.HierarchyChangeAuth, (OWNER,), b"pw", auths=[Auth(session=session)])
        play.call("back", TPM_CC.HierarchyChangeAuth, (OWNER,), b"", auths=[password(b"pw")])
        play.flush(session)


def pins(play):
    """Indices that hold a PIN: what each success and each failure does to their counts."""
    session = play.start("real", TPM_SE.POLICY)
    by_hmac = play.start("hmac")

    def look(index):
        play.client.names.clear()
        play.call("count", TPM_CC.NV_Read, (OWNER, index), 8, 0, show=lambda result: result[0].hex())

    def secret(index, auth, expiration=0):
        play.client.names.clear()
        given = (b"", b"", b"", expiration & 0xFFFFFFFF)
        handles = (index, session.handle)
        play.call(str(auth.value), TPM_CC.PolicySecret, handles, *given, auths=[auth], show=_shape)
        look(index)

    for kind in (TPM_NT.PIN_FAIL, TPM_NT.PIN_PASS):
        index = INDEX + kind
        public = TPMS_NV_PUBLIC(
            nvIndex=index, nameAlg=11, attributes=0x02060002 | kind << 4, authPolicy=b"", dataSize=8
        )
        play.call("define", TPM_CC.NV_DefineSpace, (OWNER,), b"pin", public)
        secret(index, password(b"pin"))
        for limit, values in ((3, "1001100001"), (2, "1011"), (9, "11")):
            play.call("limit", TPM_CC.NV_Write, (OWNER, index), limit.to_bytes(8, "big"), 0)
            for right in values:
                value = b"pin" if right == "1" else b"no"
                auth = password(value) if limit == 3 else Auth(session=by_hmac, value=value)
                secret(index, auth)
        secret(index, password(b"pin"), -5)
        for value in (b"pin", b"no"):
            play.call("own read", TPM_CC.NV_Read, (index, index), 8, 0, auths=[password(value)])
            look(index)
        play.start("bound to a PIN", bind=index)


class InEverySession:
    """A scenario of assertions in trial and real sessions with three hashes."""

    def __init__(self, assertions):
        self.assertions = assertions

    def __call__(self, play):
        for hash_alg in (11, 4, 13):
            for kind in (TPM_SE.TRIAL, TPM_SE.POLICY):
                policy = Policies(play, kind, hash_alg)
                self.assertions(policy)
                play.flush(policy.session)
                if self.assertions is indices:
                    play.client.names.clear()
                    play.call("forget", TPM_CC.NV_UndefineSpace, (OWNER, INDEX))


ASSERTIONS = (
    *(alternatives, registers, localities, counters, commands, hashes),
    *(secrets, tickets, approvals, indices),
)
SCENARIOS = {f"policies-{each.__name__}": InEverySession(each) for each in ASSERTIONS}
SCENARIOS |= {"policies-uses": uses, "policies-pins": pins}


@pytest.mark.parametrize("name", SCENARIOS)
def test_policies_answer_as_those_of_swtpm(program, tmp_path, name):
    differing, steps = compare(program, tmp_path, SCENARIOS[name], name)

    assert differing == []
    assert steps > 30
