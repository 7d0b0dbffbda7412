"""Attacks on the TPM itself, one test each; `threats.py` says how a row is made."""

import hashlib
import json
import random
from hashlib import sha256

import attrs
import pytest

from sim.boot.bootinfo import StartupMode, TpmState
from sim.boot.context import BootPolicy
from sim.image.bitflips import flip_bit
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.client_sessions import password
from sim.tpm.constants import PCR_COUNT, TPM_CC, TPM_PT, TPM_RC, TPM_RH, TPM_SU, TPMA_OBJECT
from sim.tpm.damaged import DamagedTpm, wake
from sim.tpm.device import Tpm
from sim.tpm.eventlog import parse, replay
from sim.tpm.hashing import bank_name
from sim.tpm.state import snapshot
from sim.tpm.templates import SIGNING_KEY
from sim.tpm.wire import TPMS_SENSITIVE_CREATE
from sim.vsphere.attestation_run import TPM_UNREACHABLE
from tests.campaigns.tpm_mutations import Campaign
from tests.unit.tpm.test_lockout import BAD, ECDSA, FAIL, SECOND, Desk
from tests.unit.vsphere.conftest import World
from tests.vectors import test_tpm_corpus as hostile

from .threats import threat

SHA256 = 0x0B
LOCALITIES = range(5)
ONES = "ff" * 32
ZEROS = "00" * 32


def started(locality=0):
    tpm = Tpm(b"seed")
    tpm.init()
    client = TpmClient(tpm.execute)
    client.at_locality(locality).startup()
    return tpm, client


def read(client, pcr, bank=SHA256):
    return client.pcr_read({bank: (pcr,)})[bank][pcr].hex()


def refused(rc, call, *arguments):
    with pytest.raises(TpmError) as caught:
        call(*arguments)
    assert caught.value.rc == rc
    return True


@threat(
    "B7",
    threat="a hash sequence before Startup, to begin PCR 0 with code of one's own",
    stopped_by="PCR 0 takes in what was hashed, from the start value 4 that no later command can reach (`sim.tpm.pcr`)",
    evidence="PCR 0 is H(0..04 || H(data)) in every bank, PCR 17 stays at its ones; the same data extended after Startup "
    "give another value; a policy that wants another startup locality refuses",
    not_covered="locality 4 is hardware's: who drives it on the bus can hash what they like before Startup",
    anchor="H-CRTM as measured on swtpm 0.7.1",
)
def test_b7_a_hash_sequence_before_startup_begins_pcr_0_at_four():
    tpm = Tpm(b"seed")
    tpm.init()
    tpm.hash_start()
    tpm.hash_data(b"not the maker's ")
    tpm.hash_data(b"boot block")
    tpm.hash_end()
    client = TpmClient(tpm.execute)
    client.startup()
    for bank in tpm.profile.banks:
        hashed = hashlib.new(bank_name(bank), b"not the maker's boot block").digest()
        begun = hashlib.new(bank_name(bank), (4).to_bytes(len(hashed), "big") + hashed).hexdigest()
        assert read(client, 0, bank) == begun
        assert read(client, 17, bank) == "ff" * len(hashed)
    for locality in (0, 3):
        _, other = started(locality)
        other.pcr_extend(0, {SHA256: sha256(b"not the maker's boot block").digest()})
        assert read(other, 0) != read(client, 0)

    world = World(startup_locality=0)
    world.host.policy = BootPolicy(startup=StartupMode.H_CRTM)
    assert [reason.code for reason in world.add().reasons] == ["startup_locality"]


def may_reset(pcr, locality):
    """What the sheet says: 16 and 23 at localities 0 to 3, 20 to 22 at 2, and nothing else anywhere."""
    return (pcr in (16, 23) and locality < 4) or (pcr in (20, 21, 22) and locality == 2)


@threat(
    "B12",
    threat="TPM2_PCR_Reset of a PCR with measurements, from any locality that software can reach",
    stopped_by="the reset masks of the PC Client profile (`sim.tpm.pcr`)",
    evidence="TPM_RC_LOCALITY 0x907 for PCR 0 to 15 and 17 to 19 anywhere, 16 and 23 at locality 4, 20 to 22 everywhere "
    "but at 2; the value is unchanged",
    not_covered="PCR 16 and 23, which are for everybody, and 20 to 22 at locality 2, which is the launched system's own",
    anchor="120 cells measured on swtpm 0.7.1",
)
def test_b12_no_measured_pcr_can_be_reset():
    cells = 0
    for pcr in range(PCR_COUNT):
        for locality in LOCALITIES:
            tpm, client = started()
            client.at_locality(2 if pcr in range(17, 23) else 0).pcr_extend(
                pcr, {SHA256: sha256(b"measured").digest()}
            )
            before = read(client, pcr)
            reset = client.at_locality(locality).pcr_reset
            if may_reset(pcr, locality):
                reset(pcr)
                assert read(client, pcr) == ZEROS
            else:
                assert refused(TPM_RC.LOCALITY, reset, pcr)
                assert read(client, pcr) == before
            tpm.check_invariants()
            cells += 1
    assert (cells, int(TPM_RC.LOCALITY)) == (120, 0x907)


@threat(
    "B13",
    threat="Shutdown(STATE) and Startup(STATE), to come out of a suspension with other PCRs than one went in with",
    stopped_by="the preserve mask of the PC Client profile (`sim.tpm.pcr`); an extend after Shutdown makes it void",
    evidence="PCR 0 to 15 are kept, 16 and 23 zero, 17 to 22 ones; resetCount stays and restartCount goes up; without a "
    "valid Shutdown Startup(STATE) is refused",
    not_covered="what an attacker does to the memory of a suspended machine, which no PCR shows",
    anchor="measured on swtpm 0.7.1",
)
def test_b13_a_resume_keeps_the_measurements_and_nothing_else():
    tpm, client = started()
    tpm.hash_start()
    tpm.hash_data(b"launched")
    tpm.hash_end()
    digest = {SHA256: sha256(b"measured").digest()}
    for pcr in (*range(17), 23):
        client.pcr_extend(pcr, digest)
    for pcr in range(17, 23):
        client.at_locality(2).pcr_extend(pcr, digest)
    before = {pcr: read(client, pcr) for pcr in range(PCR_COUNT)}
    assert not {ZEROS, ONES} & set(before.values())
    counted = client.read_clock().clockInfo

    client.shutdown(TPM_SU.STATE)
    tpm.init()
    client.startup(TPM_SU.STATE)
    for pcr in range(PCR_COUNT):
        after = before[pcr] if pcr < 16 else ZEROS if pcr in (16, 23) else ONES
        assert read(client, pcr) == after, pcr
    resumed = client.read_clock().clockInfo
    assert (resumed.resetCount, resumed.restartCount) == (counted.resetCount, counted.restartCount + 1)

    client.shutdown(TPM_SU.STATE)
    client.pcr_extend(5, digest)
    tpm.init()
    assert refused(TPM_RC.VALUE | 0x140, client.startup, TPM_SU.STATE)
    client.startup(TPM_SU.CLEAR)
    assert read(client, 5) == ZEROS


@threat(
    "B17",
    threat="a bit of the TPM's stored state is flipped while the machine is off",
    stopped_by="a SHA-256 over the whole state, in the first line of its file (`sim.tpm.state`, `sim.tpm.damaged`)",
    evidence="failure mode from power-on, and no new seed: no key can be made, and the damage is named; the host boots "
    "without measurements and is notAccepted",
    not_covered="who can write the file can compute its SHA-256: a simulator's state is not encrypted, as a chip's is",
    anchor="state tests of libtpms",
)
def test_b17_a_flipped_bit_of_the_stored_state_gives_a_failed_tpm_and_no_new_one():
    tpm, client = started()
    handle, public, _ = client.create_primary_ak()
    client.flush(handle)
    client.shutdown()
    stored = snapshot(tpm)
    whole = wake(stored)
    TpmClient(whole.execute).startup()
    assert TpmClient(whole.execute).create_primary_ak()[1] == public
    chance = random.Random(17)
    for bit in (0, 8 * len(stored) - 1, *(chance.randrange(8 * len(stored)) for _ in range(300))):
        found = wake(flip_bit(stored, bit))
        assert isinstance(found, DamagedTpm), bit
        assert found.damage.startswith("TPM state")
        broken = TpmClient(found.execute)
        for call in (broken.startup, broken.self_test, broken.create_primary_ak):
            assert refused(TPM_RC.FAILURE, call)
        assert broken.test_result() == TPM_RC.FAILURE

    world = World()
    world.board.tpm.device = wake(flip_bit(snapshot(world.board.tpm.device), 5000))
    entry = world.add()
    assert world.host.boot.tpm_state is TpmState.FAILED
    assert (entry.tpm_attestation.status, entry.tpm_attestation.message) == ("notAccepted", TPM_UNREACHABLE)


@threat(
    "B18",
    threat="guessing the authorisation value of a key",
    stopped_by="the failure counter and its lockout (`sim.tpm.dictionary_attack`)",
    evidence="after three wrong values TPM_RC_LOCKOUT 0x921, to the right value too; after 1000 s of simulated time one "
    "more try; what is exempt (noDA, owner) goes on working and counts nothing",
    not_covered="exempt objects, which may be guessed at without end: their values must be long",
    anchor="defaults measured on swtpm 0.7.1: maxTries 3, recovery 1000 s",
)
def test_b18_three_wrong_guesses_lock_the_right_value_out_too():
    tpm, _ = started()
    desk = Desk(tpm)
    assert [desk.sign(password(b"guess %d" % number)) for number in range(3)] == [FAIL] * 3
    assert desk.sign(password(b"key")) == TPM_RC.LOCKOUT == 0x921
    assert desk.rc(TPM_CC.HierarchyChangeAuth, (TPM_RH.OWNER,), b"pw", auths=[password()]) == 0
    assert desk.rc(TPM_CC.HierarchyChangeAuth, (TPM_RH.OWNER,), b"", auths=[password(b"no")]) == BAD
    assert desk.rc(TPM_CC.HierarchyChangeAuth, (TPM_RH.OWNER,), b"", auths=[password(b"pw")]) == 0
    exempt = attrs.evolve(SIGNING_KEY, objectAttributes=SIGNING_KEY.objectAttributes | TPMA_OBJECT.noDA.value)
    secret = TPMS_SENSITIVE_CREATE(userAuth=b"long", data=b"")
    key = desk.talk.call(TPM_CC.CreatePrimary, (TPM_RH.OWNER,), secret, exempt, b"", ())[0]
    for _ in range(5):
        assert desk.rc(TPM_CC.Quote, (key,), b"", ECDSA, (), auths=[password(b"no")]) == BAD
    assert desk.rc(TPM_CC.Quote, (key,), b"", ECDSA, (), auths=[password(b"long")]) == 0
    assert TpmClient(tpm.execute).properties(TPM_PT.LOCKOUT_COUNTER, 1) == {TPM_PT.LOCKOUT_COUNTER: 3}
    tpm.clock.now += 1000 * SECOND - 1
    assert desk.sign(password(b"key")) == TPM_RC.LOCKOUT
    tpm.clock.now += 1
    assert desk.sign(password(b"key")) == 0
    assert desk.sign(password(b"one guess more")) == FAIL
    assert desk.sign(password(b"key")) == TPM_RC.LOCKOUT


MUTATIONS = 2000
"""In the test; `make campaign-tpm` makes the hundred thousand."""


@threat(
    "B19",
    threat="a flood of malformed commands",
    stopped_by="one reader of declared structures with a limit for each field (`sim.tpm.codec`), and changes only after all "
    "checks (`sim.tpm.dispatch`)",
    evidence="a well-formed header to each of 313 commands that once fuzzed another TPM and to every mutation of valid ones, "
    "no exception, and the same state after each refusal, but for the failure counter and nonces; `make campaign-tpm` does "
    "100,000 mutations",
    not_covered="the time that many valid commands take: nobody limits the rate",
    anchor="libtpms in OSS-Fuzz",
)
def test_b19_a_flood_of_malformed_commands_changes_nothing():
    flood = Campaign(seed=19)
    flood.run(MUTATIONS)
    assert flood.mutations == MUTATIONS
    assert flood.findings == {}
    refusals = sum(count for rc, count in flood.codes.items() if rc)
    assert refusals > MUTATIONS // 2


def test_b19_commands_that_fuzzed_another_tpm_change_nothing(vectors):
    lines = (vectors / "tpm_corpus.jsonl").read_text().splitlines()
    corpus = [
        bytes.fromhex(case["command"]) for case in map(json.loads, lines) if case["command"] is not None
    ]
    assert len(corpus) == hostile.COMMANDS_IN_CORPUS
    tpm, client = started()
    for command in corpus:
        rc, kept = hostile.unchanged(tpm, command)
        assert kept, (hex(rc), command.hex())
        tpm.check_invariants()
    for bank, pcrs in replay(parse(tpm.event_log)).items():
        for pcr, value in pcrs.items():
            assert read(client, pcr, bank) == value.hex()
