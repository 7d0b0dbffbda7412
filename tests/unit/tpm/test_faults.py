"""Faults of a TPM: each kind does what it says, at the occurrences it names, and the state stays whole."""

import pytest

from sim.tpm.client import TpmClient, TpmError
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC
from sim.tpm.faults import Fault, FaultyTpm, command_code
from sim.tpm.state import fork, snapshot, state_diff

SHA256 = TPM_ALG.SHA256.value
EXTEND = TPM_CC.PCR_Extend.value
SHUTDOWN = bytes.fromhex("80010000000c000001450000")
CLEAR = bytes.fromhex("80020000001b000001264000000a00000009400000090000000000")


def extend(faulty):
    TpmClient(faulty.execute).pcr_extend(7, {SHA256: b"x" * 32})


def test_a_command_fails_at_the_occurrences_named(tpm):
    faulty = FaultyTpm(tpm, (Fault(kind="fail", command=EXTEND, first=2, count=2),))
    extend(faulty)
    before = snapshot(tpm)
    for _ in range(2):
        with pytest.raises(TpmError) as failed:
            extend(faulty)
        assert failed.value.rc == TPM_RC.FAILURE
    assert snapshot(tpm) == before
    extend(faulty)


def test_a_retry_is_asked_for_without_effect(tpm):
    faulty = FaultyTpm(tpm, (Fault(kind="retry", command=EXTEND),))
    before = snapshot(tpm)
    with pytest.raises(TpmError) as failed:
        extend(faulty)
    assert failed.value.rc == TPM_RC.RETRY
    assert snapshot(tpm) == before
    extend(faulty)


def test_a_delay_takes_simulated_time_only(tpm):
    faulty = FaultyTpm(tpm, (Fault(kind="delay", command=EXTEND, delay_ns=5_000),))
    extend(faulty)
    assert faulty.last_latency_ns == tpm.profile.latencies_ns[EXTEND] + 5_000
    extend(faulty)
    assert faulty.last_latency_ns == tpm.profile.latencies_ns[EXTEND]


@pytest.mark.parametrize(("kind", "runs"), [("drop", False), ("lose_answer", True)])
def test_a_lost_command_has_no_effect_and_a_lost_answer_has(tpm, kind, runs):
    faulty = FaultyTpm(tpm, (Fault(kind=kind, command=TPM_CC.Shutdown.value),))
    assert faulty.execute(SHUTDOWN) == b""
    assert (tpm.shutdown_type is not None) == runs


def test_a_fault_without_a_command_hits_any(tpm):
    faulty = FaultyTpm(tpm, (Fault(kind="fail", first=2),))
    extend(faulty)
    assert int.from_bytes(faulty.execute(SHUTDOWN)[6:10], "big") == TPM_RC.FAILURE


@pytest.mark.parametrize("writes", range(8))
def test_power_goes_between_two_writes_of_one_command(tpm, writes):
    reference = fork(tpm)
    faulty = FaultyTpm(tpm, (Fault(kind="power_loss", command=TPM_CC.Clear.value, writes=writes),))
    before = fork(tpm)
    assert faulty.execute(CLEAR) == b""
    assert not tpm.started
    tpm.check_invariants()
    TpmClient(faulty.execute).startup()
    changed = {path for path in state_diff(before, tpm) if path.startswith("hierarchies")}
    reference.execute(CLEAR)
    complete = {path for path in state_diff(before, reference) if path.startswith("hierarchies")}
    assert changed <= complete
    if writes == 0:
        assert not changed


def test_the_hash_sequence_passes_through(tpm):
    faulty = FaultyTpm(tpm)
    faulty.init()
    faulty.hash_start()
    faulty.hash_data(b"code")
    faulty.hash_end()
    assert faulty.last_latency_ns > 0
    assert tpm.established


def test_a_plan_is_checked():
    with pytest.raises(ValueError, match="kind"):
        Fault(kind="strange")
    with pytest.raises(ValueError, match="first"):
        Fault(kind="fail", first=0)
    assert command_code("TPM2_PCR_Extend") == command_code("PCR_Extend") == EXTEND
