"""Failure mode, self-tests by algorithm, the settings of the clock, and allocation of PCRs."""

import struct

import pytest

from sim.tpm.client import TpmClient, TpmError
from sim.tpm.constants import TPM_ALG, TPM_CAP, TPM_CC, TPM_PT, TPM_RC, TPM_RH, TPM_SU
from sim.tpm.wire import TPMS_PCR_SELECTION

from .keyring import Keyring

RATE = 30_000
SECOND_NS = 1_000_000_000


@pytest.fixture
def ring(tpm):
    return Keyring(tpm)


def raw(code, parameters=b"", tag=0x8001):
    return struct.pack(">HII", tag, 10 + len(parameters), code) + parameters


def test_a_failed_tpm_answers_two_commands_until_the_next_init(tpm, client):
    tpm.enter_failure_mode()
    for command in (b"", b"x" * 9, raw(TPM_CC.GetRandom, b"\0\4"), raw(TPM_CC.GetTestResult, b"", 0x8002)):
        assert tpm.execute(command) == bytes.fromhex("80010000000a00000101")
    assert client.test_result() == TPM_RC.FAILURE
    assert client.properties(TPM_PT.MANUFACTURER, 1) == {TPM_PT.MANUFACTURER: 0x49424D00}
    assert client.properties(TPM_PT.YEAR, 1) == {TPM_PT.MANUFACTURER: 0x49424D00}
    with pytest.raises(TpmError):
        client.properties(TPM_PT.MANUFACTURER, 2)
    with pytest.raises(TpmError):
        client.get_capability(TPM_CAP.ALGS)
    tpm.init()
    client.startup()
    assert client.test_result() == TPM_RC.SUCCESS


def test_an_incremental_test_leaves_the_rest_untested(ring, tpm):
    (left,) = ring.call(TPM_CC.IncrementalSelfTest, (), (TPM_ALG.SHA256, TPM_ALG.ECC))
    assert TPM_ALG.SHA256 not in left
    assert TPM_ALG.ECDH not in left
    assert TPM_ALG.AES in left
    assert ring.refused(TPM_CC.IncrementalSelfTest, (), (0x99,)) == 0x1C4
    ring.call(TPM_CC.SelfTest, (), 0)
    assert ring.call(TPM_CC.IncrementalSelfTest, (), ()) == ((),)


def test_the_clock_goes_ahead_only_and_stays_ahead(ring, tpm):
    tpm.clock.now += SECOND_NS
    ring.call(TPM_CC.ClockSet, (TPM_RH.OWNER,), 10_000)
    for wrong in (9_999, 0xFFFF_0000_0000_0001):
        assert ring.refused(TPM_CC.ClockSet, (TPM_RH.OWNER,), wrong) == 0x1C4
    tpm.clock.now += SECOND_NS
    (info,) = ring.call(TPM_CC.ReadClock, ())

    assert (info.time, info.clockInfo.clock, info.clockInfo.safe) == (2_000, 11_000, 1)
    TpmClient(tpm.execute).shutdown()
    tpm.init()
    TpmClient(tpm.execute).startup()
    assert ring.call(TPM_CC.ReadClock, ())[0].clockInfo.clock == 11_000


@pytest.mark.parametrize(
    ("step", "rate"), [(-3, 300), (-2, 30), (-1, 1), (0, 0), (1, -1), (2, -30), (3, -300)]
)
def test_the_rate_changes_by_steps(ring, tpm, step, rate):
    tpm.clock.now += SECOND_NS
    ring.call(TPM_CC.ClockRateAdjust, (TPM_RH.PLATFORM,), step & 0xFF)
    tpm.clock.now += 1000 * SECOND_NS

    assert tpm.time.time_ms(tpm.clock.now) == 1_000 + 1_000_000 * RATE // (RATE + rate)


def test_the_rate_has_limits(ring, tpm):
    for _ in range(20):
        ring.call(TPM_CC.ClockRateAdjust, (TPM_RH.PLATFORM,), 3)
    assert tpm.time.rate == RATE - 5_000


def test_an_allocation_waits_for_the_reset(ring, tpm, client):
    none = TPMS_PCR_SELECTION.of(TPM_ALG.SHA1, ())
    few = TPMS_PCR_SELECTION.of(TPM_ALG.SHA512, (0, 1))
    assert ring.call(TPM_CC.PCR_Allocate, (TPM_RH.PLATFORM,), (none, few)) == (
        1,
        24,
        24 * 80 + 2 * 64,
        24 * 164,
    )
    assert len(tpm.pcrs.values) == 4
    with pytest.raises(TpmError) as refusal:
        client.shutdown(TPM_SU.STATE)
    assert refusal.value.rc == 0x1CA
    tpm.init()
    client.startup()

    assert client.pcr_read({TPM_ALG.SHA512: (1, 2)}) == {TPM_ALG.SHA512: {1: bytes(64)}}
    assert client.pcr_read({TPM_ALG.SHA1: (1,)}) == {TPM_ALG.SHA1: {}}
    client.pcr_event(2, b"event")
    assert tpm.pcrs.values[TPM_ALG.SHA512][2] == bytes(64)
    tpm.check_invariants()


def test_a_tpm_without_pcrs_for_the_hardware_is_refused(ring, tpm):
    banks = (TPM_ALG.SHA1, TPM_ALG.SHA256, TPM_ALG.SHA384, TPM_ALG.SHA512)
    for left in ((), (17,), (0,)):
        chosen = tuple(TPMS_PCR_SELECTION.of(bank, left) for bank in banks)
        assert ring.refused(TPM_CC.PCR_Allocate, (TPM_RH.PLATFORM,), chosen) == TPM_RC.PCR
    assert tpm.pcrs.pending is None


def test_shared_pcrs_take_an_authorisation_value_until_the_next_start(ring, tpm, client):
    ring.call(TPM_CC.PCR_SetAuthValue, (20,), b"pw")
    assert ring.refused(TPM_CC.PCR_SetAuthValue, (22,), b"") == 0x9A2
    assert ring.refused(TPM_CC.PCR_SetAuthValue, (16,), b"pw") == TPM_RC.VALUE
    tpm.init()
    client.startup()
    ring.call(TPM_CC.PCR_SetAuthValue, (22,), b"")


def test_a_policy_of_shared_pcrs_replaces_their_value(ring):
    call = (TPM_CC.PCR_SetAuthPolicy, (TPM_RH.PLATFORM,))
    assert ring.refused(*call, b"p" * 31, TPM_ALG.SHA256.value, 20) == 0x1D5
    assert ring.refused(*call, b"p" * 32, TPM_ALG.SHA256.value, 19) == 0x3C4
    ring.call(*call, b"p" * 32, TPM_ALG.SHA256.value, 20)
    assert ring.refused(TPM_CC.PCR_SetAuthValue, (21,), b"") == TPM_RC.AUTH_TYPE
    ring.call(*call, b"", TPM_ALG.NULL.value, 20)
    ring.call(TPM_CC.PCR_SetAuthValue, (21,), b"")
