"""The event log: written, parsed, replayed, and refused with a named limit."""

import pickle
import struct
import tracemalloc
from hashlib import sha1, sha256

import pytest

from sim.errors import FormatError, LimitError, SimBug
from sim.tpm.client import TpmClient
from sim.tpm.constants import TPM_ALG
from sim.tpm.device import Tpm
from sim.tpm.eventlog import (
    BANK_NAMES,
    EV,
    EventLog,
    EventLogWriter,
    TcgEvent,
    bank_name,
    event_record,
    event_type_name,
    parse,
    pcr_start_record,
    replay,
    spec_id_record,
)

SHA1, SHA256, SHA384 = BANK_NAMES["sha1"], BANK_NAMES["sha256"], BANK_NAMES["sha384"]


def written(*events, banks=(SHA256,), **options):
    writer = EventLogWriter(banks, **options)
    for pcr, kind, data in events:
        writer.measure(pcr, kind, data)
    return writer.to_bytes()


def header(
    algorithms=((SHA256, 32),), *, count=None, vendor=b"\0", version=(0, 2), uintn=2, digest=bytes(20)
):
    data = b"Spec ID Event03\0" + struct.pack(
        "<IBBBBI", 0, *version, 0, uintn, len(algorithms) if count is None else count
    )
    data += b"".join(struct.pack("<HH", *each) for each in algorithms) + vendor
    return struct.pack("<II", 0, EV.NO_ACTION) + digest + struct.pack("<I", len(data)) + data


def record(pcr=0, kind=EV.SEPARATOR, digests=((SHA256, bytes(32)),), data=b"", *, count=None, size=None):
    listed = b"".join(struct.pack("<H", alg) + digest for alg, digest in digests)
    count = len(digests) if count is None else count
    return (
        struct.pack("<III", pcr, kind, count)
        + listed
        + struct.pack("<I", len(data) if size is None else size)
        + data
    )


def test_a_written_log_parses_to_what_was_written():
    data = written((0, EV.S_CRTM_VERSION, b"1.0"), (7, EV.SEPARATOR, bytes(4)), banks=(SHA1, SHA256))
    log = parse(data)

    assert log.banks == log.spec_id.algorithms == (SHA1, SHA256)
    assert log.record_count == 3
    assert [(event.pcr, event.type, event.data) for event in log.events] == [
        (0, EV.S_CRTM_VERSION, b"1.0"),
        (7, EV.SEPARATOR, bytes(4)),
    ]
    assert log.events[0].digests == {SHA1: sha1(b"1.0").digest(), SHA256: sha256(b"1.0").digest()}


def test_the_sha1_form_has_no_spec_id():
    data = written((4, EV.EFI_ACTION, b"boot"), banks=(SHA1,), crypto_agile=False)
    log = parse(data)

    assert log.spec_id is None
    assert log.banks == (SHA1,)
    assert replay(log) == {SHA1: {4: sha1(bytes(20) + sha1(b"boot").digest()).digest()}}


def test_a_replay_gives_what_the_tpm_holds():
    tpm = Tpm(b"seed")
    tpm.init()
    client = TpmClient(tpm.execute, locality=3)
    client.startup()
    writer = EventLogWriter((SHA1, SHA256, SHA384))
    writer.startup_locality(3)
    for pcr, kind, data in [
        (0, EV.POST_CODE, b"code"),
        (0, EV.SEPARATOR, bytes(4)),
        (14, EV.EVENT_TAG, b"opt"),
    ]:
        client.pcr_extend(pcr, writer.measure(pcr, kind, data))
    client.pcr_extend(13, writer.measure(13, EV.EVENT_TAG, b"name", measured=b"the bytes of a module"))

    values = replay(parse(writer.to_bytes()))
    assert sorted(values[SHA256]) == [0, 13, 14]
    assert values == client.pcr_read(dict.fromkeys((SHA1, SHA256, SHA384), (0, 13, 14)))


def test_an_h_crtm_event_starts_pcr_0_at_4():
    tpm = Tpm(b"seed")
    tpm.init()
    tpm.hash_start()
    tpm.hash_data(b"boot block")
    tpm.hash_end()
    client = TpmClient(tpm.execute)
    client.startup()
    writer = EventLogWriter((SHA256,))
    writer.startup_locality(4)
    writer.measure(0, EV.EFI_HCRTM_EVENT, b"HCRTM", measured=b"boot block")

    assert replay(parse(writer.to_bytes())) == client.pcr_read({SHA256: (0,)})


def test_a_launch_clears_the_dynamic_pcrs_and_without_one_they_are_ones():
    event = (17, EV.EVENT_TAG, b"launch")
    digest = sha256(b"launch").digest()
    log = parse(written(event, (20, EV.EVENT_TAG, b"launch")))
    alone = parse(written((20, EV.EVENT_TAG, b"launch")))

    assert replay(log)[SHA256] == dict.fromkeys((17, 20), sha256(bytes(32) + digest).digest())
    assert replay(alone)[SHA256] == {20: sha256(b"\xff" * 32 + digest).digest()}
    assert replay(alone, launched=True)[SHA256] == {20: sha256(bytes(32) + digest).digest()}


def test_events_without_action_are_not_extended():
    writer = EventLogWriter((SHA256,))
    writer.no_action(b"sixteen byte sig and more")
    writer.no_action(b"")
    log = parse(writer.to_bytes())

    assert len(log.events) == 2
    assert replay(log) == {SHA256: {}}


def test_an_event_without_data_is_legal():
    log = parse(header() + record(digests=((SHA256, sha256(b"x").digest()),)))

    assert log.events[0].data == b""


def test_an_sm3_bank_is_read_and_passed_over():
    data = header(((SHA256, 32), (TPM_ALG.SM3_256, 32))) + record(
        digests=((SHA256, bytes(32)), (TPM_ALG.SM3_256, bytes(32)))
    )

    assert list(replay(parse(data))) == [SHA256]


@pytest.mark.parametrize("octet", [b"\x00", b"\xff"])
def test_padding_is_accepted_only_where_it_is_asked_for(octet):
    data = written((0, EV.SEPARATOR, bytes(4)))

    assert parse(data + octet * 100, allow_padding=True) == parse(data)
    with pytest.raises(FormatError):
        parse(data + octet * 100)
    with pytest.raises(FormatError):
        parse(data + octet * 99 + b"\x01", allow_padding=True)


GOOD = record()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 31,
        header() + b"\0",
        header(count=0xFFFFFFFF),
        header(()),
        header(((SHA256, 20),)),
        header(((0x99, 32),)),
        header(((SHA256, 32), (SHA256, 32))),
        header(vendor=b""),
        header(vendor=b"\x04"),
        header(vendor=b"\0\0"),
        header(version=(1, 2)),
        header(uintn=3),
        header(digest=b"\x01" * 20),
        header() + record(pcr=24),
        header() + record(count=0),
        header() + record(count=2),
        header() + record(digests=((SHA1, bytes(20)),)),
        header() + record(digests=((0x99, bytes(32)),)),
        header(((SHA1, 20), (SHA256, 32))) + record(digests=((SHA256, bytes(32)),) * 2),
        header() + record(size=1),
        header() + record(size=3 * 2**30),
        header() + record(kind=EV.NO_ACTION, data=b"short"),
        struct.pack("<II", 24, 4) + bytes(24),
    ],
)
def test_what_is_no_log_is_refused(data):
    with pytest.raises(FormatError):
        parse(data)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (header(count=0xFFFFFFFF), "4294967295 algorithms"),
        (header() + record(size=3 * 2**30), "event size 3221225472"),
        (b"\0" * (16 * 2**20 + 1), "16777217 bytes"),
    ],
)
def test_a_passed_limit_is_named_and_costs_no_memory(data, what):
    tracemalloc.start()
    with pytest.raises(LimitError, match=what):
        parse(data)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 1_000_000


def test_the_number_of_events_is_limited(monkeypatch):
    monkeypatch.setattr("sim.tpm.eventlog.EVENTS_MAX", 5)

    parse(header() + GOOD * 4)
    with pytest.raises(LimitError):
        parse(header() + GOOD * 5)


LOCALITY = b"StartupLocality\0"


def no_action(data):
    return record(kind=EV.NO_ACTION, data=data)


@pytest.mark.parametrize(
    "events",
    [
        no_action(LOCALITY),
        no_action(LOCALITY + b"\x01"),
        no_action(LOCALITY + b"\x03\x00"),
        no_action(LOCALITY + b"\x03") * 2,
        GOOD + no_action(LOCALITY + b"\x03"),
        GOOD + record(kind=EV.EFI_HCRTM_EVENT),
    ],
)
def test_contradictions_about_the_start_of_pcr_0_are_refused(events):
    with pytest.raises(FormatError):
        parse(header() + events)


def test_an_error_says_where_it_is():
    with pytest.raises(FormatError, match="record 2, offset 0x7b"):
        parse(header() + GOOD + record(pcr=99))


def test_a_full_log_drops_events_and_says_so():
    writer = EventLogWriter((SHA256,), capacity_bytes=len(written((0, EV.SEPARATOR, bytes(4)))))

    assert writer.append(0, EV.SEPARATOR, {SHA256: bytes(32)}, bytes(4))
    assert not writer.truncated
    assert not writer.append(0, EV.SEPARATOR, {SHA256: bytes(32)}, b"")
    assert writer.truncated
    assert len(parse(writer.to_bytes()).events) == 1


def test_digests_of_other_banks_are_left_out_of_the_log():
    writer = EventLogWriter((SHA256,))
    writer.append(0, EV.SEPARATOR, {SHA1: bytes(20), SHA256: bytes(32)}, b"")

    assert parse(writer.to_bytes()).events[0].digests == {SHA256: bytes(32)}


def test_a_log_needs_banks_that_exist():
    for banks, agile in (((), True), ((0x99,), True), ((SHA256,), False)):
        with pytest.raises(SimBug):
            EventLogWriter(banks, crypto_agile=agile)


def test_logs_and_writers_pickle():
    writer = EventLogWriter((SHA256,))
    writer.measure(0, EV.SEPARATOR, bytes(4))
    twin = pickle.loads(pickle.dumps(writer))
    twin.measure(1, EV.SEPARATOR, bytes(4))
    log = parse(twin.to_bytes())

    assert len(log.events) == 2
    assert pickle.loads(pickle.dumps(log)) == log


def test_a_contradictory_log_that_was_never_parsed_is_refused_by_the_replay():
    events = tuple(
        TcgEvent(pcr=0, type=EV.NO_ACTION, digests={SHA256: bytes(32)}, data=LOCALITY + b"\x03")
        for _ in range(2)
    )
    with pytest.raises(FormatError):
        replay(EventLog(events=events, spec_id=None, banks=(SHA256,)))


def test_types_and_banks_have_names():
    assert event_type_name(EV.SEPARATOR) == "EV_SEPARATOR"
    assert event_type_name(0x12345678) == "0x12345678"
    assert bank_name(SHA384) == "sha384"
    assert bank_name(0x99) == "0x0099"


def two_banks(digests):
    return event_record(7, EV.POST_CODE, digests, b"")


def test_a_bank_may_be_missing_from_an_event_unless_every_bank_is_wanted():
    data = spec_id_record((SHA1, SHA256)) + two_banks({SHA256: b"x" * 32}) + two_banks({SHA1: b"y" * 20})
    values = replay(parse(data))
    assert values[SHA256][7] == sha256(bytes(32) + b"x" * 32).digest()
    assert values[SHA1][7] == sha1(bytes(20) + b"y" * 20).digest()
    with pytest.raises(FormatError, match="1 digests, but the log has 2 banks"):
        parse(data, every_bank=True)
    with pytest.raises(FormatError, match="0 digests"):
        parse(spec_id_record((SHA1, SHA256)) + two_banks({}))


def test_what_a_log_says_of_its_starts_is_believed_only_by_who_knows_no_better():
    extend = event_record(17, EV.POST_CODE, {SHA256: b"x" * 32}, b"")
    data = spec_id_record((SHA256,)) + pcr_start_record(17, 0xFF, (SHA256,)) + extend
    from_ones, from_zeros = (sha256(start + b"x" * 32).digest() for start in (b"\xff" * 32, bytes(32)))
    assert replay(parse(data))[SHA256][17] == from_ones
    assert replay(parse(data), launched=True)[SHA256][17] == from_zeros


def refusal_of(data, **options):
    with pytest.raises(FormatError) as caught:
        parse(data, **options)
    return caught.value.message


def test_each_thing_that_makes_a_log_another_is_refused_by_its_own_words():
    good = header() + record()
    assert refusal_of(b"") == "is empty"
    assert "cut short" in refusal_of(header() + b"\1" * 7, allow_padding=True)
    assert parse(good + bytes(7), allow_padding=True) == parse(good)
    two = ((SHA256, bytes(32)), (SHA1, bytes(20)))
    assert refusal_of(header() + record(digests=two)) == "2 digests, but the log has 1 banks"
    elsewhere = struct.pack("<I", 1) + header()[4:]
    words = "the Spec ID record must name PCR 0 and have a zero digest"
    assert refusal_of(elsewhere + record()) == refusal_of(header(digest=b"\1" * 20) + record()) == words
    assert (
        refusal_of(header(version=(0, 1)) + record()) == "Spec ID version 1.0 with UINTN size 2 is not known"
    )
    assert (
        refusal_of(header(version=(1, 2)) + record()) == "Spec ID version 2.1 with UINTN size 2 is not known"
    )


def test_a_spec_id_in_an_event_that_extends_is_data_of_a_sha1_log():
    measured = struct.pack("<II", 0, EV.ACTION) + header()[8:]
    assert parse(measured).spec_id is None
    assert parse(header()).spec_id is not None


def test_a_log_that_was_full_once_takes_no_smaller_event_either():
    writer = EventLogWriter((SHA256,), capacity_bytes=200)
    assert not writer.append(0, EV.ACTION, {SHA256: bytes(32)}, bytes(200))
    assert not writer.append(0, EV.ACTION, {SHA256: bytes(32)}, b"")
    assert (parse(writer.to_bytes()).events, writer.truncated) == ((), True)
