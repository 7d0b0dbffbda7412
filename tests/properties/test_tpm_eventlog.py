"""The parser of event logs takes what the writer gives and survives everything else."""

from hashlib import sha1, sha256

from hypothesis import given
from hypothesis import strategies as st

from sim.errors import FormatError
from sim.tpm.constants import PCR_COUNT
from sim.tpm.eventlog import BANK_NAMES, EV, EventLogWriter, parse, replay
from sim.tpm.tagged import decode_tagged, encode_tagged

SHA1, SHA256 = BANK_NAMES["sha1"], BANK_NAMES["sha256"]
KINDS = st.sampled_from(sorted(set(EV) - {EV.NO_ACTION, EV.EFI_HCRTM_EVENT}))
EVENTS = st.lists(st.tuples(st.integers(0, PCR_COUNT - 1), KINDS, st.binary(max_size=40)), max_size=12)
FORMS = st.sampled_from([((SHA1, SHA256), True), ((SHA256,), True), ((SHA1,), False)])


def write(events, form):
    banks, crypto_agile = form
    writer = EventLogWriter(banks, crypto_agile=crypto_agile)
    for pcr, kind, data in events:
        writer.measure(pcr, kind, data)
    return writer.to_bytes()


@given(EVENTS, FORMS)
def test_what_is_written_is_read_and_replays_to_the_fold_of_its_digests(events, form):
    data = write(events, form)
    if not data:
        return
    log = parse(data)
    start = {
        pcr: b"\xff" if pcr in range(17, 23) and all(each[0] != 17 for each in events) else b"\0"
        for pcr in range(24)
    }

    assert [(event.pcr, event.type, event.data) for event in log.events] == events
    for bank, function in ((SHA1, sha1), (SHA256, sha256)):
        if bank not in form[0]:
            continue
        expected = {}
        for pcr, _, content in events:
            old = expected.get(pcr, start[pcr] * function().digest_size)
            expected[pcr] = function(old + function(content).digest()).digest()
        assert replay(log)[bank] == expected


@given(EVENTS, FORMS, st.data())
def test_a_damaged_log_parses_or_is_refused_but_never_breaks(events, form, data):
    log = bytearray(write(events, form))
    for _ in range(data.draw(st.integers(0, 4))):
        if log:
            log[data.draw(st.integers(0, len(log) - 1))] = data.draw(st.integers(0, 255))
    log = bytes(log[: data.draw(st.integers(0, len(log)))])
    try:
        replay(parse(log, allow_padding=data.draw(st.booleans())))
    except FormatError:
        return


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_parse_or_are_refused(data, padding):
    try:
        parse(data, allow_padding=padding)
    except FormatError:
        return


@given(EVENTS.filter(bool), FORMS, st.data())
def test_a_log_that_is_cut_inside_a_record_is_refused(events, form, data):
    whole = write(events, form)
    ends = {len(write(events[:count], form)) for count in range(len(events) + 1)}
    cut = data.draw(st.integers(0, len(whole) - 1).filter(lambda length: length not in ends))
    try:
        parse(whole[:cut])
    except FormatError:
        return
    raise AssertionError(f"a log cut at {cut} was accepted")


@given(st.integers(0, 2**32 - 1), st.binary(max_size=50))
def test_tagged_events_are_read_as_written(tag_id, content):
    decoded = decode_tagged(encode_tagged(tag_id, content))

    assert (decoded.id, decoded.content) == (tag_id, content)
