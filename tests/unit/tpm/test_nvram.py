"""NV indices of every type: what they hold, who may use them, and what locks and power cycles do."""

import pytest
from attrs import evolve

from sim.tpm.client import TpmClient, TpmError
from sim.tpm.client_sessions import Auth, SessionClient, password
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_NT, TPM_RC, TPM_RH, TPM_SE, TPM_SU, TPMA_NV
from sim.tpm.hashing import hash_bytes
from sim.tpm.wire import TPMS_NV_PIN_COUNTER_PARAMETERS, TPMS_NV_PUBLIC

INDEX = 0x01000010
BY_OWNER = TPMA_NV.OWNERREAD | TPMA_NV.OWNERWRITE
BY_ALL = BY_OWNER | TPMA_NV.AUTHREAD | TPMA_NV.AUTHWRITE | TPMA_NV.NO_DA


def public(attributes, size=8, index=INDEX, kind=TPM_NT.ORDINARY, policy=b""):
    return TPMS_NV_PUBLIC(
        nvIndex=index,
        nameAlg=TPM_ALG.SHA256.value,
        attributes=int(attributes) | kind << 4,
        authPolicy=policy,
        dataSize=size,
    )


class Store:
    """NV as a caller sees it."""

    def __init__(self, tpm):
        self.tpm = tpm
        self.client = SessionClient(tpm.execute, tpm.random)

    def define(self, attributes, auth=b"", authority=TPM_RH.OWNER, **more):
        self.client.call(
            TPM_CC.NV_DefineSpace, (authority,), auth, public(attributes, **more), auths=(password(),)
        )

    def call(self, code, *parameters, index=INDEX, authority=TPM_RH.OWNER, auth=b""):
        return self.client.call(code, (authority, index), *parameters, auths=(password(auth),))

    def write(self, data, offset=0, **more):
        self.call(TPM_CC.NV_Write, data, offset, **more)

    def read(self, size=8, offset=0, **more):
        return self.call(TPM_CC.NV_Read, size, offset, **more)[0]

    def attributes(self):
        return self.client.call(TPM_CC.NV_ReadPublic, (INDEX,))[0].attributes

    def refused(self, what, *arguments, **more):
        with pytest.raises(TpmError) as refusal:
            what(*arguments, **more)
        return refusal.value.rc

    def cycle(self, shutdown=None, startup=TPM_SU.CLEAR):
        plain = TpmClient(self.tpm.execute)
        if shutdown is not None:
            plain.shutdown(shutdown)
        self.tpm.init()
        plain.startup(startup)


@pytest.fixture
def nv(tpm):
    return Store(tpm)


def test_an_index_is_unwritten_until_it_is_written_and_keeps_its_content(nv):
    nv.define(BY_OWNER)
    assert nv.refused(nv.read) == TPM_RC.NV_UNINITIALIZED
    nv.write(b"abc", 2)
    nv.cycle()

    assert nv.read() == b"\xff\xffabc\xff\xff\xff"
    assert nv.attributes() & TPMA_NV.WRITTEN


def test_a_defined_index_is_refused_again_until_it_is_deleted(nv):
    nv.define(BY_OWNER)
    assert nv.refused(nv.define, BY_OWNER) == TPM_RC.NV_DEFINED
    nv.call(TPM_CC.NV_UndefineSpace)
    nv.define(BY_OWNER)


@pytest.mark.parametrize(
    ("attributes", "more", "rc"),
    [
        (TPMA_NV.OWNERREAD, {}, 0x2C2),
        (TPMA_NV.OWNERWRITE, {}, 0x2C2),
        (BY_OWNER | TPMA_NV.WRITTEN, {}, 0x2C2),
        (BY_OWNER | TPMA_NV.PLATFORMCREATE, {}, 0x182),
        (BY_OWNER, {"authority": TPM_RH.PLATFORM}, 0x182),
        (BY_OWNER, {"kind": TPM_NT.COUNTER, "size": 7}, 0x2D5),
        (BY_OWNER, {"kind": TPM_NT.EXTEND, "size": 20}, 0x2D5),
        (BY_OWNER, {"kind": 3}, 0x2C2),
        (BY_OWNER, {"kind": TPM_NT.PIN_FAIL}, 0x2C2),
        (BY_OWNER | TPMA_NV.CLEAR_STCLEAR, {"kind": TPM_NT.COUNTER}, 0x2C2),
        (BY_ALL, {"kind": TPM_NT.PIN_PASS}, 0x2C2),
        (BY_OWNER | TPMA_NV.WRITEALL, {"size": 1025}, 0x2D5),
        (BY_OWNER | TPMA_NV.ORDERLY, {"size": 501}, 0x14B),
        (BY_OWNER, {"policy": b"short"}, 0x2D5),
        (BY_OWNER, {"auth": b"a" * 33}, 0x1D5),
        (BY_OWNER | TPMA_NV.POLICY_DELETE, {"authority": TPM_RH.PLATFORM}, 0x182),
    ],
)
def test_an_index_that_makes_no_sense_is_refused(nv, attributes, more, rc):
    before = dict(nv.tpm.nv)
    assert nv.refused(nv.define, attributes, **more) == rc
    assert nv.tpm.nv == before


def test_nv_fills_up_and_says_so(nv):
    rc, number = 0, 0
    while rc == 0:
        try:
            nv.define(BY_OWNER, size=2048, index=INDEX + number)
        except TpmError as refusal:
            rc = refusal.rc
        number += 1

    assert (rc, number) == (TPM_RC.NV_SPACE, 69)


@pytest.mark.parametrize("parameters", [(b"x" * 9, 0), (b"x", 8)])
def test_writing_past_the_end_is_refused(nv, parameters):
    nv.define(BY_OWNER)
    assert nv.refused(nv.write, *parameters) == TPM_RC.NV_RANGE
    assert nv.refused(nv.write, b"", 9) == 0x2C4


def test_reading_past_the_end_is_refused(nv):
    nv.define(BY_OWNER)
    nv.write(b"12345678")
    assert nv.refused(nv.read, 4, 5) == TPM_RC.NV_RANGE
    assert nv.refused(nv.read, 1, 9) == 0x2C4
    assert nv.refused(nv.read, 1025) == 0x1C4


def test_an_index_that_is_written_whole_takes_no_part(nv):
    nv.define(BY_OWNER | TPMA_NV.WRITEALL)
    assert nv.refused(nv.write, b"part") == TPM_RC.NV_RANGE
    nv.write(b"12345678")


def test_a_counter_starts_above_all_counters_before_it(nv):
    nv.define(BY_OWNER, kind=TPM_NT.COUNTER)
    for _ in range(5):
        nv.call(TPM_CC.NV_Increment)
    nv.call(TPM_CC.NV_UndefineSpace)
    nv.define(BY_OWNER, kind=TPM_NT.COUNTER)
    nv.call(TPM_CC.NV_Increment)

    assert nv.read() == (6).to_bytes(8, "big")
    assert nv.refused(nv.write, bytes(8)) == TPM_RC.ATTRIBUTES


def test_bits_are_only_ever_set(nv):
    nv.define(BY_OWNER, kind=TPM_NT.BITS)
    nv.call(TPM_CC.NV_SetBits, 0b0101)
    nv.call(TPM_CC.NV_SetBits, 0b1001)

    assert nv.read() == (0b1101).to_bytes(8, "big")
    assert nv.refused(nv.call, TPM_CC.NV_Increment) == 0x282


def test_an_extend_index_folds_as_a_pcr_does(nv):
    nv.define(BY_OWNER, kind=TPM_NT.EXTEND, size=32)
    nv.call(TPM_CC.NV_Extend, b"one")
    nv.call(TPM_CC.NV_Extend, b"two")
    first = hash_bytes(TPM_ALG.SHA256, bytes(32) + b"one")

    assert nv.read(32) == hash_bytes(TPM_ALG.SHA256, first + b"two")
    assert nv.refused(nv.call, TPM_CC.NV_SetBits, 1) == 0x282


def test_a_pin_pass_index_admits_as_often_as_its_limit(nv):
    pin = BY_OWNER | TPMA_NV.AUTHREAD | TPMA_NV.NO_DA
    nv.define(pin, auth=b"pin", kind=TPM_NT.PIN_PASS)
    nv.write(TPMS_NV_PIN_COUNTER_PARAMETERS(pinCount=0, pinLimit=2).encode())
    for used in (1, 2):
        content = nv.read(authority=INDEX, auth=b"pin")
        assert TPMS_NV_PIN_COUNTER_PARAMETERS.decode(content).pinCount == used
    assert nv.refused(nv.read, authority=INDEX, auth=b"pin") == TPM_RC.AUTH_UNAVAILABLE


def test_authorities_are_those_of_the_attributes(nv):
    nv.define(TPMA_NV.AUTHREAD | TPMA_NV.OWNERWRITE | TPMA_NV.NO_DA, auth=b"pw")
    nv.write(b"12345678")
    assert nv.refused(nv.read) == TPM_RC.NV_AUTHORIZATION
    assert nv.refused(nv.read, authority=TPM_RH.PLATFORM) == TPM_RC.NV_AUTHORIZATION
    assert nv.refused(nv.read, authority=INDEX, auth=b"no") == 0x9A2
    assert nv.read(authority=INDEX, auth=b"pw") == b"12345678"
    assert nv.refused(nv.write, b"x", authority=INDEX, auth=b"pw") == TPM_RC.AUTH_UNAVAILABLE


def test_an_index_does_not_authorise_another(nv):
    nv.define(BY_ALL)
    nv.define(BY_ALL, index=INDEX + 1)
    assert nv.refused(nv.write, b"x", authority=INDEX, index=INDEX + 1) == TPM_RC.NV_AUTHORIZATION


def test_a_write_lock_holds_until_the_next_start_or_for_ever(nv):
    nv.define(BY_OWNER | TPMA_NV.WRITE_STCLEAR)
    assert nv.refused(nv.call, TPM_CC.NV_ReadLock) == 0x282
    nv.write(b"12345678")
    for _ in range(2):
        nv.call(TPM_CC.NV_WriteLock)
    assert nv.refused(nv.write, b"x") == TPM_RC.NV_LOCKED
    nv.cycle(TPM_SU.STATE, TPM_SU.STATE)
    assert nv.refused(nv.write, b"x") == TPM_RC.NV_LOCKED
    nv.cycle(TPM_SU.CLEAR)
    nv.write(b"x")


def test_a_defined_lock_of_a_written_index_outlives_resets(nv):
    nv.define(BY_OWNER | TPMA_NV.WRITEDEFINE)
    nv.write(b"12345678")
    nv.call(TPM_CC.NV_WriteLock)
    nv.cycle()
    assert nv.refused(nv.write, b"x") == TPM_RC.NV_LOCKED


def test_a_read_lock_holds_until_the_next_start(nv):
    nv.define(BY_OWNER | TPMA_NV.READ_STCLEAR)
    assert nv.refused(nv.call, TPM_CC.NV_WriteLock) == 0x282
    nv.write(b"12345678")
    for _ in range(2):
        nv.call(TPM_CC.NV_ReadLock)
    assert nv.refused(nv.read) == TPM_RC.NV_LOCKED
    nv.cycle()
    assert nv.read() == b"12345678"


def test_the_global_lock_locks_those_that_asked_for_it(nv):
    nv.define(BY_OWNER | TPMA_NV.GLOBALLOCK)
    nv.define(BY_OWNER, index=INDEX + 1)
    nv.client.call(TPM_CC.NV_GlobalWriteLock, (TPM_RH.OWNER,), auths=(password(),))
    assert nv.refused(nv.write, b"x") == TPM_RC.NV_LOCKED
    nv.write(b"x", index=INDEX + 1)


@pytest.mark.parametrize(
    ("attributes", "shutdown", "kept"),
    [
        (TPMA_NV.ORDERLY, None, False),
        (TPMA_NV.ORDERLY, TPM_SU.CLEAR, False),
        (TPMA_NV.ORDERLY, TPM_SU.STATE, True),
        (TPMA_NV.CLEAR_STCLEAR, TPM_SU.STATE, False),
        (0, None, True),
    ],
)
def test_some_contents_are_lost_at_a_start(nv, attributes, shutdown, kept):
    nv.define(BY_OWNER | attributes)
    nv.write(b"12345678")
    nv.cycle(shutdown)
    assert bool(nv.attributes() & TPMA_NV.WRITTEN) == kept


def test_an_orderly_counter_jumps_ahead_after_an_unorderly_stop(nv):
    nv.define(BY_OWNER | TPMA_NV.ORDERLY, kind=TPM_NT.COUNTER)
    nv.call(TPM_CC.NV_Increment)
    nv.cycle(TPM_SU.CLEAR)
    assert nv.read() == (1).to_bytes(8, "big")
    nv.call(TPM_CC.NV_Increment)
    nv.cycle()
    assert nv.read() == (255).to_bytes(8, "big")


def test_a_platform_index_is_not_the_owners_to_delete(nv):
    nv.define(BY_OWNER | TPMA_NV.PPWRITE | TPMA_NV.PPREAD | TPMA_NV.PLATFORMCREATE, authority=TPM_RH.PLATFORM)
    assert nv.refused(nv.call, TPM_CC.NV_UndefineSpace) == TPM_RC.NV_AUTHORIZATION
    nv.write(b"by pp", authority=TPM_RH.PLATFORM)
    nv.call(TPM_CC.NV_UndefineSpace, authority=TPM_RH.PLATFORM)


def test_special_deletion_needs_the_index_policy(nv):
    attributes = BY_OWNER | TPMA_NV.PLATFORMCREATE | TPMA_NV.POLICY_DELETE
    nv.define(attributes, authority=TPM_RH.PLATFORM, policy=bytes(32))
    assert nv.refused(nv.call, TPM_CC.NV_UndefineSpace, authority=TPM_RH.PLATFORM) == 0x282
    with pytest.raises(TpmError) as refusal:
        nv.client.call(
            TPM_CC.NV_UndefineSpaceSpecial, (INDEX, TPM_RH.PLATFORM), auths=(password(), password())
        )
    assert refusal.value.rc == TPM_RC.AUTH_TYPE


def test_a_policy_deletes_and_changes_the_value_of_an_index(nv):
    attributes = BY_OWNER | TPMA_NV.AUTHREAD | TPMA_NV.PLATFORMCREATE | TPMA_NV.POLICY_DELETE
    for code, parameters, others in (
        (TPM_CC.NV_ChangeAuth, (b"new\0",), ()),
        (TPM_CC.NV_ChangeAuth, (b"n" * 33,), ()),
        (TPM_CC.NV_UndefineSpaceSpecial, (), (TPM_RH.PLATFORM,)),
    ):
        message = bytes(32) + TPM_CC.PolicyCommandCode.to_bytes(4, "big") + code.to_bytes(4, "big")
        policy = hash_bytes(TPM_ALG.SHA256, message)
        if INDEX not in nv.tpm.nv:
            nv.define(attributes, authority=TPM_RH.PLATFORM, policy=policy)
        nv.tpm.nv[INDEX] = evolve(nv.tpm.nv[INDEX], public=evolve(nv.tpm.nv[INDEX].public, authPolicy=policy))
        session = nv.client.start(TPM_SE.POLICY)
        nv.client.call(TPM_CC.PolicyCommandCode, (session.handle,), int(code))
        auths = (Auth(session=session), *(password() for _ in others))
        if parameters == (b"n" * 33,):
            with pytest.raises(TpmError) as refusal:
                nv.client.call(code, (INDEX, *others), *parameters, auths=auths)
            assert refusal.value.rc == 0x1D5
            continue
        nv.client.call(code, (INDEX, *others), *parameters, auths=auths)
        if parameters:
            assert nv.tpm.nv[INDEX].auth == b"new"
    assert INDEX not in nv.tpm.nv
