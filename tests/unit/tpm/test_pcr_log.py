"""The event log beside the PCRs: which doors it hears of, how events are told, and what ends them."""

import hashlib
import struct

import attrs
import pytest

from sim.tpm.client import TpmClient, TpmError
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_SU
from sim.tpm.device import Tpm
from sim.tpm.eventlog import EV, parse, replay
from sim.tpm.pcr_log import EVENT_LOG_BYTES_MAX
from sim.tpm.profile import TpmProfile
from sim.tpm.state import fork, restore, snapshot, state_diff

SHA1, SHA256, SHA384 = (alg.value for alg in (TPM_ALG.SHA1, TPM_ALG.SHA256, TPM_ALG.SHA384))
DIGEST = b"x" * 32
PASSWORD = bytes.fromhex("0000000940000009000000" + "0000")
LAUNCH = 0x402


def events(tpm):
    return parse(tpm.event_log).events


def told(tpm):
    return [(event.pcr, event.type, event.data) for event in events(tpm)]


def restarted(tpm, shutdown=None, startup=TPM_SU.CLEAR):
    client = TpmClient(tpm.execute)
    if shutdown is not None:
        client.shutdown(shutdown)
    tpm.init()
    client.startup(startup)


def launch(tpm, *pieces):
    tpm.hash_start()
    for piece in pieces:
        tpm.hash_data(piece)
    tpm.hash_end()


def packet(code, handles, parameters, sessions):
    body = b"".join(struct.pack(">I", handle) for handle in handles)
    if sessions:
        area = PASSWORD[4:] * sessions
        body += struct.pack(">I", len(area)) + area
    body += parameters
    return struct.pack(">HII", 0x8002 if sessions else 0x8001, 10 + len(body), code) + body


def test_a_started_tpm_has_an_empty_log_of_its_banks(tpm):
    log = parse(tpm.event_log)
    assert log.events == ()
    assert log.banks == tuple(tpm.pcrs.values)


def test_an_extend_is_told_with_its_locality_and_the_digests_it_brought(tpm, client):
    client.pcr_extend(7, {SHA1: b"y" * 20, SHA256: DIGEST})
    client.at_locality(3).pcr_extend(19, {SHA256: DIGEST})
    start, first = events(tpm)[1], events(tpm)[0]
    assert (first.pcr, first.type, first.data) == (7, EV.IPL, b"TPM2_PCR_Extend at locality 0")
    assert first.digests == {SHA1: b"y" * 20, SHA256: DIGEST}
    assert (start.pcr, start.type) == (19, EV.NO_ACTION)
    assert events(tpm)[2].data == b"TPM2_PCR_Extend at locality 3"
    values = replay(parse(tpm.event_log))
    assert values[SHA256][19] == tpm.pcrs.values[SHA256][19] == hashlib.sha256(b"\xff" * 32 + DIGEST).digest()
    assert 7 not in values[SHA384]


def test_a_refused_or_empty_extend_leaves_no_event(tpm, client):
    with pytest.raises(TpmError):
        client.pcr_extend(17, {SHA256: DIGEST})
    client.pcr_extend(7, {})
    tpm.execute(packet(TPM_CC.PCR_Extend, (0x40000007,), struct.pack(">IH", 1, SHA256) + DIGEST, 1))
    assert events(tpm) == ()


def test_a_bank_that_is_named_twice_makes_two_events(tpm):
    digests = struct.pack(">I", 2) + 2 * (struct.pack(">H", SHA256) + DIGEST)
    assert tpm.execute(packet(TPM_CC.PCR_Extend, (7,), digests, 1))[6:10] == bytes(4)
    assert len(events(tpm)) == 2
    assert replay(parse(tpm.event_log))[SHA256][7] == tpm.pcrs.values[SHA256][7]


def test_what_the_tpm_hashed_itself_is_the_data_of_the_event(tpm, client):
    digests = client.pcr_event(5, b"measured")
    (event,) = events(tpm)
    assert (event.pcr, event.type, event.data) == (5, EV.COMPACT_HASH, b"measured")
    assert event.digests == digests
    assert digests[SHA256] == hashlib.sha256(b"measured").digest()


def test_an_event_sequence_is_told_with_the_digests_of_every_bank(tpm):
    response = tpm.execute(packet(TPM_CC.HashSequenceStart, (), struct.pack(">HH", 0, TPM_ALG.NULL), 0))
    handle = int.from_bytes(response[10:14], "big")
    done = tpm.execute(packet(TPM_CC.EventSequenceComplete, (6, handle), b"\0\4long", 2))
    assert done[6:10] == bytes(4)
    (event,) = events(tpm)
    assert (event.pcr, event.data) == (6, b"TPM2_EventSequenceComplete at locality 0")
    assert event.digests[SHA384] == hashlib.sha384(b"long").digest()
    assert set(event.digests) == set(tpm.pcrs.values)


def test_an_h_crtm_and_a_startup_locality_stand_at_the_head_of_the_log():
    tpm = Tpm(b"seed")
    tpm.init()
    launch(tpm, b"core")
    TpmClient(tpm.execute).startup()
    assert told(tpm) == [
        (0, EV.NO_ACTION, b"StartupLocality\0\4"),
        (0, EV.EFI_HCRTM_EVENT, b"HCRTM"),
    ]
    assert replay(parse(tpm.event_log))[SHA256][0] == tpm.pcrs.values[SHA256][0]
    tpm.init()
    TpmClient(tpm.execute, locality=3).startup()
    assert told(tpm) == [(0, EV.NO_ACTION, b"StartupLocality\0\3")]


def test_a_launch_ends_what_was_in_its_pcrs_and_begins_them_at_zero(tpm, client):
    client.at_locality(2).pcr_extend(21, {SHA256: DIGEST})
    client.pcr_extend(7, {SHA256: DIGEST})
    launch(tpm, b"SI", b"NIT")
    client.at_locality(2).pcr_extend(21, {SHA256: DIGEST})
    assert [event.pcr for event in events(tpm)] == [7, 17, 21]
    assert events(tpm)[1].type == LAUNCH
    assert events(tpm)[1].digests[SHA1] == hashlib.sha1(b"SINIT").digest()
    assert replay(parse(tpm.event_log))[SHA256][21] == tpm.pcrs.values[SHA256][21]


def test_a_reset_pcr_leaves_the_log(tpm, client):
    for pcr in (16, 7, 16):
        client.pcr_extend(pcr, {SHA256: DIGEST})
    client.pcr_reset(16)
    assert [event.pcr for event in events(tpm)] == [7]
    client.at_locality(2).pcr_reset(21)
    client.at_locality(2).pcr_extend(21, {SHA256: DIGEST})
    assert replay(parse(tpm.event_log))[SHA256][21] == tpm.pcrs.values[SHA256][21]


@pytest.mark.parametrize(
    ("shutdown", "startup", "kept"),
    [
        (None, TPM_SU.CLEAR, []),
        (TPM_SU.CLEAR, TPM_SU.CLEAR, []),
        (TPM_SU.STATE, TPM_SU.CLEAR, []),
        (TPM_SU.STATE, TPM_SU.STATE, [7]),
    ],
)
def test_the_log_lives_as_long_as_the_pcrs(tpm, client, shutdown, startup, kept):
    for pcr in (7, 16, 23):
        client.pcr_extend(pcr, {SHA256: DIGEST})
    launch(tpm, b"code")
    restarted(tpm, shutdown, startup)
    assert [event.pcr for event in events(tpm)] == kept
    client.at_locality(2).pcr_extend(20, {SHA256: DIGEST})
    assert replay(parse(tpm.event_log))[SHA256][20] == tpm.pcrs.values[SHA256][20]


def test_the_newest_event_can_be_described(tpm, client):
    client.pcr_extend(7, {SHA256: DIGEST})
    client.pcr_extend(4, {SHA256: DIGEST, SHA1: b"y" * 20})
    assert tpm.describe_event(4, EV.EFI_ACTION, b"what it was")
    assert told(tpm)[1] == (4, EV.EFI_ACTION, b"what it was")
    assert events(tpm)[1].digests == {SHA256: DIGEST, SHA1: b"y" * 20}
    assert not tpm.describe_event(7, EV.EFI_ACTION, b"not the newest")
    assert told(tpm)[0] == (7, EV.IPL, b"TPM2_PCR_Extend at locality 0")
    tpm.check_invariants()


def test_there_must_be_an_event_to_describe():
    tpm = Tpm(b"seed")
    tpm.init()
    TpmClient(tpm.execute, locality=3).startup()
    before = tpm.event_log
    assert not tpm.describe_event(0, EV.POST_CODE, b"")
    assert tpm.event_log == before


def limited(limit):
    tpm = Tpm(b"seed", TpmProfile(event_log_bytes_max=limit))
    tpm.init()
    client = TpmClient(tpm.execute)
    client.startup()
    return tpm, client


def test_what_passes_the_limit_is_dropped_and_so_is_what_follows():
    head = len(limited(1000)[0].event_log)
    one = 4 * 4 + 2 + 32 + len(b"TPM2_PCR_Extend at locality 0")
    tpm, client = limited(head + 2 * one)
    for pcr in (1, 2):
        client.pcr_extend(pcr, {SHA256: DIGEST})
    assert not tpm.pcrs.log.truncated
    client.pcr_event(3, b"longer than there is room")
    client.pcr_extend(4, {})
    assert tpm.pcrs.log.truncated
    assert [event.pcr for event in events(tpm)] == [1, 2]
    assert not tpm.describe_event(2, EV.POST_CODE, b"")
    tpm.check_invariants()
    restarted(tpm)
    assert not tpm.pcrs.log.truncated


def test_a_description_that_does_not_fit_drops_the_event():
    tpm, client = limited(len(limited(1000)[0].event_log) + 100)
    client.pcr_extend(1, {SHA256: DIGEST})
    assert not tpm.describe_event(1, EV.POST_CODE, bytes(100))
    assert tpm.pcrs.log.truncated
    assert events(tpm) == ()


def test_no_event_follows_where_the_record_before_it_did_not_fit():
    tpm, client = limited(len(limited(1000)[0].event_log) + 120)
    client.at_locality(2).pcr_extend(21, {SHA256: DIGEST})
    assert tpm.pcrs.log.truncated
    assert events(tpm) == ()


def test_a_tpm_without_room_keeps_no_log():
    tpm, client = limited(0)
    client.pcr_extend(1, {SHA256: DIGEST})
    assert tpm.pcrs.log.truncated
    assert events(tpm) == ()


@pytest.mark.parametrize("limit", [-1, 2**30])
def test_the_limit_is_checked(limit):
    with pytest.raises(ValueError, match="event_log_bytes_max"):
        attrs.evolve(TpmProfile(), event_log_bytes_max=limit)
    assert TpmProfile().event_log_bytes_max == EVENT_LOG_BYTES_MAX


def test_the_log_is_part_of_the_state(tpm, client):
    client.pcr_extend(7, {SHA256: DIGEST})
    other = fork(tpm)
    assert other.event_log == tpm.event_log == restore(snapshot(tpm)).event_log
    client.pcr_extend(4, {SHA256: DIGEST})
    assert len(events(other)) == 1
    assert state_diff(other, tpm)["pcrs.log.records[1]"][0] is None


def test_banks_that_are_not_allocated_are_not_in_the_log(tpm, client):
    selections = (
        struct.pack(">I", 2)
        + struct.pack(">HB3s", SHA1, 3, bytes(3))
        + struct.pack(">HB3s", SHA384, 3, b"\x81\0\2")
    )
    done = tpm.execute(packet(TPM_CC.PCR_Allocate, (0x4000000C,), selections, 1))
    assert done[6:10] == bytes(4)
    assert SHA1 in parse(tpm.event_log).banks
    restarted(tpm, TPM_SU.CLEAR)
    client.pcr_event(7, b"measured")
    client.pcr_event(6, b"measured")
    log = parse(tpm.event_log)
    assert SHA1 not in log.banks
    assert [SHA384 in event.digests for event in log.events] == [True, False]
