"""Whatever is done to a TPM, the event log beside its PCRs replays to their values in every bank."""

import hashlib
import struct
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from sim.tpm.client import TpmClient, TpmError
from sim.tpm.constants import HASH_BYTES, PCR_COUNT, TPM_ALG, TPM_CC, TPM_SU
from sim.tpm.device import Tpm
from sim.tpm.eventlog import EV, parse, replay
from sim.tpm.state import fork

BANKS = tuple(HASH_BYTES)
LOCALITIES = st.integers(0, 4)
PCRS = st.one_of(st.integers(0, PCR_COUNT - 1), st.sampled_from([0, 16, 17, 19, 20, 21, 23]))
PLATFORM = 0x4000000C
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("extend"), LOCALITIES, PCRS, st.lists(st.sampled_from(BANKS), max_size=5)),
        st.tuples(st.just("event"), LOCALITIES, PCRS, st.binary(max_size=8)),
        st.tuples(st.just("sequence"), LOCALITIES, PCRS, st.binary(max_size=8)),
        st.tuples(st.just("reset"), LOCALITIES, PCRS),
        st.tuples(st.just("launch"), st.binary(max_size=8)),
        st.tuples(st.just("describe"), PCRS, st.binary(max_size=8)),
        st.tuples(st.just("allocate"), st.sampled_from(BANKS), st.binary(min_size=3, max_size=3)),
        st.tuples(st.just("cycle"), st.sampled_from([None, TPM_SU.CLEAR, TPM_SU.STATE]), st.booleans()),
        st.tuples(st.just("core"), st.binary(max_size=8)),
        st.tuples(st.just("start at 3")),
        st.tuples(st.just("fork")),
    ),
    max_size=25,
)


def command(code, handles, parameters, sessions=1):
    body = b"".join(struct.pack(">I", handle) for handle in handles)
    if sessions:
        body += struct.pack(">I", 9 * sessions) + struct.pack(">IHBH", 0x40000009, 0, 0, 0) * sessions
    body += parameters
    return struct.pack(">HII", 0x8002 if sessions else 0x8001, 10 + len(body), code) + body


class Driver:
    """Carries out the steps on a TPM; refusals are part of it."""

    def __init__(self):
        self.tpm = Tpm(b"property")
        self.tpm.init()
        self.client().startup()

    def client(self, locality=0):
        return TpmClient(self.tpm.execute, locality)

    def do(self, kind, *details):
        with suppress(TpmError):
            getattr(self, kind.replace(" ", "_"))(*details)

    def extend(self, locality, pcr, banks):
        digests = b"".join(
            struct.pack(">H", bank) + bytes([n]) * HASH_BYTES[bank] for n, bank in enumerate(banks)
        )
        self.tpm.execute(
            command(TPM_CC.PCR_Extend, (pcr,), struct.pack(">I", len(banks)) + digests), locality
        )

    def event(self, locality, pcr, data):
        self.client(locality).pcr_event(pcr, data)

    def sequence(self, locality, pcr, data):
        answer = self.tpm.execute(
            command(TPM_CC.HashSequenceStart, (), struct.pack(">HH", 0, TPM_ALG.NULL), 0)
        )
        if answer[6:10] == bytes(4):
            handles = (pcr, int.from_bytes(answer[10:14], "big"))
            size = struct.pack(">H", len(data))
            self.tpm.execute(command(TPM_CC.EventSequenceComplete, handles, size + data, 2), locality)

    def reset(self, locality, pcr):
        self.client(locality).pcr_reset(pcr)

    def launch(self, data):
        self.tpm.hash_start()
        self.tpm.hash_data(data)
        self.tpm.hash_end()

    def describe(self, pcr, data):
        self.tpm.describe_event(pcr, EV.EFI_ACTION, data)

    def allocate(self, bank, mask):
        selection = struct.pack(">IHB", 1, bank, 3) + mask
        self.tpm.execute(command(TPM_CC.PCR_Allocate, (PLATFORM,), selection))

    def cycle(self, shutdown, resume):
        if shutdown is not None:
            self.client().shutdown(shutdown)
        self.tpm.init()
        if resume:
            try:
                self.client().startup(TPM_SU.STATE)
            except TpmError:
                self.client().startup()
        else:
            self.client().startup()

    def core(self, data):
        self.tpm.init()
        self.launch(data)
        self.client().startup()

    def start_at_3(self):
        self.tpm.init()
        self.client(3).startup()

    def fork(self):
        self.tpm = fork(self.tpm)


def possible_starts(pcr, size, events):
    """What a PCR may hold that no event explains."""
    if pcr == 0:
        stated = [event.data[-1] for event in events if event.type == EV.NO_ACTION and event.pcr == 0]
        return [(stated[0] if stated else 0).to_bytes(size, "big")]
    return [bytes(size), b"\xff" * size] if pcr in range(17, 23) else [bytes(size)]


@settings(max_examples=150)
@given(STEPS)
def test_the_log_replays_to_the_pcrs_in_every_bank(steps):
    driver = Driver()
    for step in steps:
        driver.do(*step)
        tpm = driver.tpm
        log = parse(tpm.event_log)
        assert not tpm.pcrs.log.truncated
        assert log.banks == tuple(tpm.pcrs.values)
        replayed = replay(log)
        for bank, values in tpm.pcrs.values.items():
            for pcr, value in enumerate(values):
                if pcr in replayed[bank]:
                    assert replayed[bank][pcr] == value, (step, bank, pcr)
                else:
                    assert value in possible_starts(pcr, HASH_BYTES[bank], log.events), (step, bank, pcr)
        tpm.check_invariants()


@given(st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=6))
def test_the_preimages_of_events_that_the_tpm_hashed_are_in_the_log(pieces):
    driver = Driver()
    for piece in pieces:
        driver.event(0, 9, piece)
    events = parse(driver.tpm.event_log).events
    assert [event.data for event in events] == pieces
    for event in events:
        assert event.digests[TPM_ALG.SHA384] == hashlib.sha384(event.data).digest()
