"""Startup and Shutdown: reset, restart, resume, localities and counters, as measured on another TPM."""

import pytest

from sim.core.rng import Stream
from sim.errors import SimBug
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.constants import TPM_ALG, TPM_RC, TPM_SU
from sim.tpm.device import StoppedClock, Tpm

SHA256 = TPM_ALG.SHA256.value
ONES = b"\xff" * 32
ZEROS = bytes(32)
MS = 1_000_000


def counters(client):
    info = client.read_clock().clockInfo
    return info.resetCount, info.restartCount, info.safe


def pcr(client, number):
    return client.pcr_read({SHA256: (number,)})[SHA256][number]


def refused(call, *arguments):
    with pytest.raises(TpmError) as caught:
        call(*arguments)
    return caught.value.rc


def test_nothing_but_startup_works_before_startup():
    tpm = Tpm(b"seed")
    tpm.init()
    client = TpmClient(tpm.execute)

    for call in (client.read_clock, client.self_test, client.shutdown, client.test_result):
        assert refused(call) == TPM_RC.INITIALIZE
    client.startup()
    assert refused(client.startup) == TPM_RC.INITIALIZE


@pytest.mark.parametrize("locality", [1, 2, 4])
def test_startup_is_refused_at_other_localities_than_0_and_3(locality):
    tpm = Tpm(b"seed")
    tpm.init()

    assert refused(TpmClient(tpm.execute, locality).startup) == TPM_RC.LOCALITY
    assert not tpm.started


def test_startup_at_locality_3_leaves_its_mark_in_pcr_0_alone():
    tpm = Tpm(b"seed")
    tpm.init()
    client = TpmClient(tpm.execute, locality=3)
    client.startup()

    assert pcr(client, 0) == bytes(31) + b"\x03"
    assert pcr(client, 1) == ZEROS


def test_the_counters_tell_reset_restart_and_resume_apart(tpm, client):
    assert counters(client) == (1, 0, 1)

    client.shutdown(TPM_SU.STATE)
    tpm.init()
    client.startup(TPM_SU.STATE)
    assert counters(client) == (1, 1, 1)

    client.shutdown(TPM_SU.STATE)
    tpm.init()
    client.startup(TPM_SU.CLEAR)
    assert counters(client) == (1, 2, 1)

    client.shutdown(TPM_SU.CLEAR)
    tpm.init()
    client.startup(TPM_SU.CLEAR)
    assert counters(client) == (2, 0, 1)


def test_loss_of_power_without_shutdown_resets_and_makes_the_clock_unsafe(tpm, client):
    tpm.init()

    assert refused(client.startup, TPM_SU.STATE) == TPM_RC.VALUE | 0x140
    client.startup()
    assert counters(client) == (2, 0, 0)


def test_a_resume_keeps_pcr_0_to_15_only(tpm, client):
    for number in (0, 15, 16, 23):
        client.pcr_extend(number, {SHA256: ONES})
    before = pcr(client, 0), pcr(client, 15)
    client.shutdown(TPM_SU.STATE)
    tpm.init()
    client.startup(TPM_SU.STATE)

    assert (pcr(client, 0), pcr(client, 15)) == before
    assert pcr(client, 16) == pcr(client, 23) == ZEROS
    assert all(pcr(client, number) == ONES for number in range(17, 23))


@pytest.mark.parametrize(("number", "rc"), [(3, TPM_RC.VALUE | 0x140), (16, None)])
def test_an_extend_of_saved_state_undoes_the_shutdown(tpm, client, number, rc):
    client.shutdown(TPM_SU.STATE)
    client.pcr_extend(number, {SHA256: ONES})
    tpm.init()

    if rc is None:
        client.startup(TPM_SU.STATE)
    else:
        assert refused(client.startup, TPM_SU.STATE) == rc


def test_a_resume_must_come_from_the_same_locality(tpm, client):
    client.shutdown(TPM_SU.STATE)
    tpm.init()

    assert refused(client.at_locality(3).startup, TPM_SU.STATE) == TPM_RC.LOCALITY
    client.startup(TPM_SU.STATE)


def test_a_resume_after_an_h_crtm_needs_an_h_crtm_again():
    tpm = Tpm(b"seed")
    client = TpmClient(tpm.execute)

    def power_on(h_crtm, startup_type):
        tpm.init()
        if h_crtm:
            tpm.hash_start()
            tpm.hash_data(b"firmware")
            tpm.hash_end()
        client.startup(startup_type)

    power_on(h_crtm=True, startup_type=TPM_SU.CLEAR)
    value = pcr(client, 0)
    client.shutdown(TPM_SU.STATE)
    assert refused(power_on, False, TPM_SU.STATE) == TPM_RC.VALUE | 0x140
    power_on(h_crtm=True, startup_type=TPM_SU.STATE)
    assert pcr(client, 0) == value


def test_transient_objects_do_not_survive_a_reset(tpm, client):
    handle, _, _ = client.create_primary_ak()
    client.shutdown(TPM_SU.STATE)
    tpm.init()
    client.startup(TPM_SU.STATE)

    assert refused(client.read_public, handle) == TPM_RC.REFERENCE_H0


def test_time_restarts_and_the_clock_goes_on():
    clock = StoppedClock()
    tpm = Tpm(b"seed", clock=clock)
    client = TpmClient(tpm.execute)
    tpm.init()
    client.startup()
    clock.now = 1500 * MS
    assert client.read_clock().time == client.read_clock().clockInfo.clock == 1500
    client.shutdown()
    tpm.init()
    client.startup()
    clock.now = 1800 * MS

    assert client.read_clock().time == 300
    assert client.read_clock().clockInfo.clock == 1800


def test_an_unsafe_clock_never_runs_ahead_and_is_safe_after_the_next_saved_value():
    clock = StoppedClock()
    tpm = Tpm(b"seed", clock=clock)
    client = TpmClient(tpm.execute)
    tpm.init()
    client.startup()
    clock.now = 6000 * MS
    tpm.init()  # power is lost
    client.startup()

    assert client.read_clock().clockInfo.clock == 4096
    assert counters(client)[2] == 0
    clock.now += 4096 * MS
    assert counters(client)[2] == 1


def test_the_same_seed_makes_the_same_tpm_and_another_seed_another():
    def answers(seed):
        tpm = Tpm(seed)
        tpm.init()
        client = TpmClient(tpm.execute)
        client.startup()
        return (
            client.get_random(32),
            client.create_primary_ak(),
            client.quote(0x80000000, b"n", {SHA256: (0,)}),
        )

    assert answers(b"one") == answers(b"one")
    assert answers(b"one")[0] != answers(b"two")[0]
    assert answers(b"one")[1] != answers(b"two")[1]


def test_a_stream_may_be_the_seed():
    assert Tpm(Stream(b"s")).hierarchies == Tpm(b"s").hierarchies


def test_a_locality_that_does_not_exist_is_our_bug(tpm):
    with pytest.raises(SimBug):
        tpm.execute(b"", 5)
