"""PCRs and localities cell by cell: who may extend and reset what, and what each start, resume and launch leaves."""

import hashlib
import pickle

import pytest

from sim.errors import SimBug
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.client_sessions import SessionClient, password
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC, TPM_RH, TPM_SU
from sim.tpm.device import Tpm
from sim.tpm.pcr import PcrBanks
from sim.tpm.pcr_log import plain_form
from sim.tpm.profile import TpmProfile
from sim.tpm.wire import TPMS_PCR_SELECTION
from sim.tpm.words import in_words

SIZES = {0x04: 20, 0x0B: 32, 0x0C: 48, 0x0D: 64}
NAMES = {0x04: "sha1", 0x0B: "sha256", 0x0C: "sha384", 0x0D: "sha512"}
PLATFORM = TPM_RH.PLATFORM.value
ANY = {0, 1, 2, 3, 4}
EXTEND = {**dict.fromkeys((*range(17), 23), ANY), 17: {2, 3, 4}, 18: {2, 3, 4}, 19: {2, 3}, 20: {1, 2, 3}}
EXTEND |= {21: {2}, 22: {2}}
RESET = {16: {0, 1, 2, 3}, 20: {2}, 21: {2}, 22: {2}, 23: {0, 1, 2, 3}}
COUNTED = set(range(24)) - {16, 21, 22, 23}


def code_of(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except TpmError as refused:
        return refused.rc
    return 0


def values(tpm):
    return {bank: tuple(pcrs) for bank, pcrs in tpm.pcrs.values.items()}


def digest(bank, data):
    return hashlib.new(NAMES[bank], data).digest()


@pytest.mark.parametrize("locality", range(5))
def test_each_pcr_changes_at_its_localities_only(tpm, client, locality):
    at = client.at_locality(locality)
    for pcr in range(24):
        before, counter = values(tpm), tpm.pcrs.update_counter
        wanted = 0 if locality in EXTEND[pcr] else TPM_RC.LOCALITY
        assert code_of(at.pcr_extend, pcr, {0x0B: b"\x01" * 32}) == wanted
        assert (values(tpm) == before) == bool(wanted)
        assert tpm.pcrs.update_counter - counter == (not wanted and pcr in COUNTED)
        before, counter = values(tpm), tpm.pcrs.update_counter
        wanted = 0 if locality in RESET.get(pcr, ()) else TPM_RC.LOCALITY
        assert code_of(at.pcr_reset, pcr) == wanted
        assert all(
            tpm.pcrs.values[bank][pcr] == (before[bank][pcr] if wanted else bytes(size))
            for bank, size in SIZES.items()
        )
        assert tpm.pcrs.update_counter - counter == (not wanted and pcr in COUNTED)


@pytest.mark.parametrize("locality", [0, 3])
def test_a_start_gives_every_pcr_its_first_value(locality):
    tpm = Tpm(b"seed")
    tpm.init()
    TpmClient(tpm.execute, locality=locality).startup()
    for bank, size in SIZES.items():
        first = bytes(size - 1) + bytes([locality])
        expected = [first, *[bytes(size)] * 16, *[b"\xff" * size] * 6, bytes(size)]
        assert tpm.pcrs.values[bank] == expected
    assert tpm.pcrs.update_counter == len(COUNTED)


@pytest.mark.parametrize(
    ("locality", "rc"), [(1, TPM_RC.LOCALITY), (2, TPM_RC.LOCALITY), (4, TPM_RC.LOCALITY)]
)
def test_a_start_from_another_locality_is_refused(locality, rc):
    tpm = Tpm(b"seed")
    tpm.init()

    assert code_of(TpmClient(tpm.execute, locality=locality).startup) == rc
    assert not tpm.started


def test_what_was_hashed_before_the_start_is_in_pcr_0_of_every_bank():
    tpm = Tpm(b"seed")
    tpm.init()
    tpm.hash_start()
    tpm.hash_data(b"code")
    tpm.hash_end()
    TpmClient(tpm.execute).startup()
    for bank, size in SIZES.items():
        assert tpm.pcrs.values[bank][0] == digest(bank, bytes(size - 1) + b"\x04" + digest(bank, b"code"))
        assert tpm.pcrs.values[bank][1] == bytes(size)
    assert tpm.established
    assert tpm.h_crtm is None


def test_a_resume_keeps_16_pcrs_and_begins_8_anew(tpm, client):
    for pcr in range(24):
        client.at_locality(2).pcr_extend(pcr, {bank: b"\x01" * size for bank, size in SIZES.items()})
    before, counter = values(tpm), tpm.pcrs.update_counter
    client.shutdown(TPM_SU.STATE)
    tpm.init()
    client.startup(TPM_SU.STATE)
    for bank, size in SIZES.items():
        anew = [bytes(size), *[b"\xff" * size] * 6, bytes(size)]
        assert tpm.pcrs.values[bank] == [*before[bank][:16], *anew]
    assert tpm.pcrs.update_counter == counter + 4  # 17 to 20


def test_a_launch_sets_17_to_22_of_every_bank(tpm, client):
    counter = tpm.pcrs.update_counter
    tpm.hash_start()
    tpm.hash_data(b"launched")
    tpm.hash_end()
    for bank, size in SIZES.items():
        first = digest(bank, bytes(size) + digest(bank, b"launched"))
        assert tpm.pcrs.values[bank][16:] == [bytes(size), first, *[bytes(size)] * 6]
    assert tpm.pcrs.update_counter == counter + 4
    assert (tpm.established, tpm.h_crtm, tpm.time.restart_count) == (True, None, 1)


def test_a_read_gives_the_first_eight_values_and_says_which(client):
    chosen = (TPMS_PCR_SELECTION.of(0x0B, range(5)), TPMS_PCR_SELECTION.of(0x04, range(15, 24)))
    counter, answered, digests = client._call(TPM_CC.PCR_Read, (), chosen)

    assert counter == 20
    assert [(each.hash, each.pcrs) for each in answered] == [(0x0B, (0, 1, 2, 3, 4)), (0x04, (15, 16, 17))]
    assert list(digests) == [bytes(32)] * 5 + [bytes(20), bytes(20), b"\xff" * 20]


@pytest.fixture
def talk(tpm):
    return SessionClient(tpm.execute, tpm.random)


def allocate(talk, *banks):
    chosen = tuple(TPMS_PCR_SELECTION.of(bank, pcrs) for bank, pcrs in banks)
    return talk.call(TPM_CC.PCR_Allocate, (PLATFORM,), chosen)


def test_an_allocation_tells_its_room_and_holds_from_the_next_reset(tpm, talk):
    room = 24 * (20 + 32 + 48 + 64)
    assert allocate(talk) == (1, 24, room, room)
    assert allocate(talk, (0x04, ()), (0x0C, (0, 17, 23))) == (1, 24, 24 * 32 + 3 * 48 + 24 * 64, room)
    assert sorted(tpm.pcrs.values) == sorted(SIZES)
    assert code_of(talk.call, TPM_CC.Shutdown, (), 1) == TPM_RC.TYPE | 0x140
    talk.call(TPM_CC.Shutdown, (), 0)
    tpm.init()
    talk.call(TPM_CC.Startup, (), 0)
    assert sorted(tpm.pcrs.values) == [0x0B, 0x0C, 0x0D]
    assert tpm.pcrs.pending is None
    assert [tpm.pcrs.has(pcr, 0x0C) for pcr in (0, 1, 16, 17, 22, 23)] == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]
    assert not tpm.pcrs.has(0, 0x04)
    before = values(tpm)
    client = TpmClient(tpm.execute)
    client.pcr_extend(1, {0x0C: bytes(48), 0x04: bytes(20)})
    assert values(tpm) == before
    assert client.pcr_read({0x0C: range(24)}) == {0x0C: {0: bytes(48), 17: b"\xff" * 48, 23: bytes(48)}}
    tpm.check_invariants()


def test_some_bank_must_keep_what_the_hardware_extends(tpm, talk):
    without = {bank: tuple(range(1, 24)) for bank in SIZES}
    assert code_of(allocate, talk, *without.items()) == TPM_RC.PCR
    without = {bank: tuple(pcr for pcr in range(24) if pcr != 17) for bank in SIZES}
    assert code_of(allocate, talk, *without.items()) == TPM_RC.PCR
    assert tpm.pcrs.pending is None
    allocate(talk, (0x04, ()), (0x0B, (0,)), (0x0C, ()), (0x0D, (17,)))
    assert tpm.pcrs.pending == {0x04: 0, 0x0B: 1, 0x0C: 0, 0x0D: 1 << 17}


def test_pcrs_20_to_22_share_a_value_that_lasts_until_the_next_start(tpm, talk):
    for pcr in range(24):
        wanted = 0 if pcr in (20, 21, 22) else TPM_RC.VALUE
        assert code_of(talk.call, TPM_CC.PCR_SetAuthValue, (pcr,), b"") == wanted
    assert tpm.pcrs.is_open
    talk.call(TPM_CC.PCR_SetAuthValue, (21,), b"pw\0\0")
    assert not tpm.pcrs.is_open
    assert tpm.pcrs.auth == b"pw"
    talk.locality = 2
    for pcr in (20, 21, 22):
        reset = (TPM_CC.PCR_Reset, (pcr,))
        assert code_of(talk.call, *reset, auths=[password(b"no")]) == TPM_RC.BAD_AUTH | 0x900
        assert code_of(talk.call, *reset, auths=[password(b"pw")]) == 0
    assert code_of(talk.call, TPM_CC.PCR_Reset, (23,)) == 0
    tpm.init()
    TpmClient(tpm.execute).startup()
    assert tpm.pcrs.auth == b""


def test_a_new_value_undoes_a_shutdown(tpm, talk):
    talk.call(TPM_CC.Shutdown, (), 1)
    talk.call(TPM_CC.PCR_SetAuthValue, (20,), b"pw")

    assert tpm.shutdown_type is None


@pytest.mark.parametrize(
    ("policy", "hash_alg", "pcr", "rc"),
    [
        (bytes(32), 0x0B, 20, 0),
        (bytes(20), 0x04, 22, 0),
        (b"", 0x10, 21, 0),
        (bytes(31), 0x0B, 20, TPM_RC.SIZE | 0x140),
        (bytes(32), 0x10, 20, TPM_RC.SIZE | 0x140),
        (b"", 0x0B, 20, TPM_RC.SIZE | 0x140),
        (bytes(32), 0x0B, 19, TPM_RC.VALUE | 0x3C0),
        (bytes(32), 0x0B, 23, TPM_RC.VALUE | 0x3C0),
        (bytes(32), 0x0B, 24, TPM_RC.VALUE | 0x3C0),
    ],
)
def test_a_policy_of_the_shared_pcrs_has_the_size_of_its_hash(tpm, talk, policy, hash_alg, pcr, rc):
    assert code_of(talk.call, TPM_CC.PCR_SetAuthPolicy, (PLATFORM,), policy, hash_alg, pcr) == rc
    assert (tpm.pcrs.policy, tpm.pcrs.policy_alg) == ((policy, hash_alg) if not rc else (b"", 0x10))
    assert tpm.pcrs.is_open == (not policy or bool(rc))


@pytest.mark.parametrize(("pcr", "kept"), [(15, False), (16, True), (23, True)])
def test_only_a_change_of_saved_pcrs_undoes_a_shutdown(tpm, client, pcr, kept):
    client.shutdown(TPM_SU.STATE)
    client.pcr_event(pcr, b"data")

    assert tpm.shutdown_type == (TPM_SU.STATE if kept else None)


def test_banks_that_lost_their_form_are_noticed():
    for damage in (lambda bank: bank.pop(), lambda bank: bank.__setitem__(3, bytes(31))):
        banks = PcrBanks((0x0B, 0x04))
        banks.check_invariants()
        damage(banks.values[0x0B])
        with pytest.raises(AssertionError):
            banks.check_invariants()


def test_a_digest_covers_the_selected_values_in_order():
    banks = PcrBanks((TPM_ALG.SHA256, TPM_ALG.SHA1))
    banks.extend(2, [(0x0B, bytes(32))], plain_form("PCR_Extend", 0))
    value = banks.values[0x0B][2]

    assert banks.digest(0x04, [(0x0B, (1, 2)), (0x04, (0,))]) == digest(0x04, bytes(32) + value + bytes(20))
    assert banks.digest(0x0B, []) == digest(0x0B, b"")


def test_a_new_tpm_is_off_and_has_seen_nothing():
    tpm = Tpm(b"seed")

    assert [tpm.started, tpm.failed, tpm.established, tpm.physical_presence, tpm.clear_disabled] == [
        False
    ] * 5
    assert [tpm.locality, tpm.last_latency_ns, tpm.boot_number, tpm.object_contexts] == [0] * 4
    assert [tpm.reset_epoch, tpm.clear_epoch, tpm.nv_counter_max, tpm.algorithm_set] == [0] * 4
    assert [tpm.start_state, tpm.h_crtm, tpm._hash_sequence] == [None] * 3
    assert [tpm.started_orderly, tpm.platform_nv_enabled] == [True, True]
    assert tpm.shutdown_type is TPM_SU.CLEAR
    assert tpm.presence_commands == (TPM_CC.PP_Commands,)
    assert [tpm.objects, tpm.persistent, tpm.nv] == [{}, {}, {}]
    assert {handle: len(each.seed) for handle, each in tpm.hierarchies.items()} == {
        0x40000001: 64,
        0x4000000B: 64,
        0x4000000C: 64,
        0x4000000A: 0,
    }
    assert tpm.hierarchies[0x4000000A].proof == b""
    assert len({each.seed for each in tpm.hierarchies.values()}) == 4
    assert len(tpm.hierarchy(0x40000007).seed) == len(tpm.hierarchy(0x40000007).proof) == 64
    tpm.check_invariants()


def test_power_on_counts_boots_and_empties_what_is_volatile(tpm, client):
    assert (tpm.boot_number, tpm.started) == (1, True)
    client.create_primary_ak()
    tpm.enter_failure_mode()
    tpm.hash_start()
    tpm.init()

    assert (tpm.boot_number, tpm.started, tpm.failed) == (2, False, False)
    assert (tpm.objects, tpm.h_crtm, tpm._hash_sequence) == ({}, None, None)


@pytest.mark.parametrize("locality", [-1, 5])
def test_there_is_no_other_locality(tpm, locality):
    with pytest.raises(SimBug, match=f"there is no locality {locality}"):
        tpm.execute(b"", locality)


def test_a_command_runs_at_its_locality_or_at_0(tpm):
    tpm.execute(b"", 4)
    assert tpm.locality == 4
    tpm.execute(b"")
    assert tpm.locality == 0


def test_the_hash_sequence_takes_time_by_the_byte():
    tpm = Tpm(b"seed", TpmProfile(hash_byte_ns=7, other_latency_ns=50))
    tpm.hash_start()
    assert tpm.last_latency_ns == 50
    tpm.hash_data(b"12345")
    assert tpm.last_latency_ns == 35
    tpm.hash_end()
    assert tpm.last_latency_ns == 50


def test_too_long_a_hash_sequence_is_our_bug(tpm, monkeypatch):
    monkeypatch.setattr("sim.tpm.device.HASH_SEQUENCE_BYTES_MAX", 8)
    tpm.hash_start()
    tpm.hash_data(b"1234")
    tpm.hash_data(b"5678")
    with pytest.raises(SimBug, match="a hash sequence passes 8 bytes"):
        tpm.hash_data(b"9")
    assert tpm._hash_sequence == b"12345678"


def test_a_command_is_told_in_words(tpm):
    command = bytes.fromhex("80010000000a00000181")
    response = tpm.execute(command, 3)

    assert tpm.in_words(command, response, 3) == in_words(command, response, 3)


def test_slots_are_given_from_the_lowest_and_end(tpm, client):
    assert tpm.free_slot() == 0x80000000
    for number in (1, 2):
        client.create_primary_ak()
        assert tpm.free_slot() == 0x80000000 + number
    client.create_primary_ak()
    assert tpm.free_slot() is None
    client.flush(0x80000001)
    assert tpm.free_slot() == 0x80000001


def test_an_orderly_start_is_no_failure_and_another_is(tpm, client):
    for orderly in (True, False):
        tpm.da.used = True
        if orderly:
            client.shutdown()
        tpm.init()
        client.startup()
        assert tpm.started_orderly == orderly
        assert tpm.da.failed_tries == (not orderly)
        assert (tpm.shutdown_type, tpm.started) == (None, True)
    assert tpm.reset_epoch == tpm.clear_epoch == 3


@pytest.mark.parametrize(("kind", "kept"), [(TPM_SU.CLEAR, False), (TPM_SU.STATE, True)])
def test_saved_sessions_outlive_a_restart_and_not_a_reset(tpm, client, kind, kept):
    tpm.sessions.saved[0x02000000] = 7
    tpm.command_audit.digest = b"begun"
    client.shutdown(kind)
    tpm.init()
    client.startup(TPM_SU.CLEAR)

    assert bool(tpm.sessions.saved) == kept
    assert tpm.command_audit.digest == (b"begun" if kept else b"")
    assert (tpm.reset_epoch, tpm.clear_epoch) == (1 if kept else 2, 2)
    assert tpm.pcrs.update_counter == (40 if kept else 20)


def test_a_null_hierarchy_has_secrets_of_one_reset(tpm, client):
    before = tpm.hierarchy(TPM_RH.NULL)
    assert pickle.loads(pickle.dumps(tpm)).hierarchy(TPM_RH.NULL) == before
    client.shutdown(TPM_SU.STATE)
    tpm.init()
    client.startup(TPM_SU.CLEAR)
    assert tpm.hierarchy(TPM_RH.NULL) == before
    tpm.init()
    client.startup()
    assert tpm.hierarchy(TPM_RH.NULL) != before
    assert tpm.hierarchy(TPM_RH.NULL).seed != tpm.hierarchy(TPM_RH.NULL).proof
