"""Every answer of GetCapability, of the PCR, clock and self-test commands: equal to swtpm's, or listed here with the reason."""

import struct
from itertools import product

import pytest

from sim.tpm.constants import TPM_CC, TPM_PT
from sim.tpm.tables import COMMANDS

from .swtpm_peer import OWNER, PLATFORM, Ours, Peer, code_of, command, shutdown, sized, startup

pytestmark = pytest.mark.client

LEFT_OUT = {TPM_CC.CertifyX509}
COUNTS_OF_COMMANDS = {TPM_PT.TOTAL_COMMANDS, TPM_PT.LIBRARY_COMMANDS}
NOTHING, ALL = bytes(3), b"\xff" * 3
SHA1, SHA256, SHA384, SHA512 = 4, 11, 12, 13


@pytest.fixture
def both(program, tmp_path):
    peer, ours = Peer(program("swtpm"), tmp_path), Ours()
    for tpm in (peer, ours):
        assert code_of(tpm.execute(startup())) == 0
    yield peer, ours
    peer.close()


def agree(both, sent, locality=0):
    for tpm in both:
        tpm.set_locality(locality)
    theirs, mine = (tpm.execute(sent) for tpm in both)
    assert mine == theirs, (TPM_CC(code_of(sent)).name, sent.hex())
    return mine


def get(capability, first, count=300):
    return command(TPM_CC.GetCapability, parameters=struct.pack(">III", capability, first, count))


def words(response):
    count = struct.unpack_from(">I", response, 15)[0]
    return struct.unpack_from(f">{count}I", response, 19)


def test_each_list_is_the_same(both):
    groups, firsts = (0, 3, 4, 5, 7, 8, 9, 10, 11), (0, 5, 0x40000000, 0x4000000B, 0x80000000)
    for capability, first, count in product(groups, firsts, (0, 1, 300)):
        agree(both, get(capability, first, count))


def test_handles_are_the_same(both):
    for sent in (
        command(
            TPM_CC.NV_DefineSpace,
            [OWNER],
            b"\0\0" + sized(struct.pack(">IHI", 0x01000001, 11, 0x20002) + bytes(4)),
            [b""],
        ),
        command(TPM_CC.HashSequenceStart, parameters=b"\0\0\0\x0b"),
    ):
        for tpm in both:
            assert code_of(tpm.execute(sent)) == 0
    for kind, first in product((*range(5), 0x40, 0x80, 0x81, 0x90, 0xFF), (0, 1)):
        agree(both, get(1, kind << 24 | first))


def test_the_commands_are_the_same_but_for_those_left_out(both):
    theirs, mine = (words(tpm.execute(get(2, 0))) for tpm in both)

    assert set(mine) == {each for each in theirs if each & 0xFFFF not in LEFT_OUT}
    assert {TPM_CC(each & 0xFFFF) for each in theirs} - set(COMMANDS) == LEFT_OUT


@pytest.mark.parametrize("first", [0x100, 0x200])
def test_the_properties_are_the_same(both, first):
    theirs, mine = (words_of_properties(tpm.execute(get(6, first))) for tpm in both)

    assert {tag: value for tag, value in mine.items() if tag not in COUNTS_OF_COMMANDS} == {
        tag: value for tag, value in theirs.items() if tag not in COUNTS_OF_COMMANDS
    }


def words_of_properties(response):
    count = struct.unpack_from(">I", response, 15)[0]
    return dict(struct.iter_unpack(">II", response[19 : 19 + 8 * count]))


def test_the_room_for_counters_and_objects_shrinks_alike(both):
    for number in range(12):
        attributes = 0x04060016 if number % 2 else 0x00060006
        public = struct.pack(">IHI", 0x01000000 + number, 11, attributes) + b"\0\0"
        public += struct.pack(">H", 8 if number % 2 else 2000)
        agree(both, command(TPM_CC.NV_DefineSpace, [OWNER], b"\0\0" + sized(public), [b""]))
        agree(both, get(6, 0x208, 4))


def selection(*banks):
    return struct.pack(">I", len(banks)) + b"".join(
        struct.pack(">HB", bank, 3) + mask for bank, mask in banks
    )


def test_pcrs_are_allocated_at_the_next_reset(both):
    everything = selection((SHA1, ALL), (SHA256, ALL), (SHA384, ALL), (SHA512, ALL))
    for chosen in (
        selection(),
        selection((SHA256, b"\xff\0\0")),
        selection((SHA1, NOTHING), (SHA256, NOTHING), (SHA384, NOTHING), (SHA512, NOTHING)),
        selection((SHA256, ALL), (SHA256, NOTHING)),
        selection((0x12, ALL)),
        selection((SHA1, NOTHING), (SHA384, NOTHING), (SHA512, b"\xff\xff\1")),
        selection((SHA256, b"\xff\0\0")),
        everything,
    ):
        agree(both, command(TPM_CC.PCR_Allocate, [PLATFORM], chosen, [b""]))
        agree(both, get(5, 0))
        agree(both, shutdown(1))
        agree(both, shutdown(0))
        for tpm in both:
            tpm.init()
        agree(both, startup())
        agree(both, get(5, 0))
        agree(both, command(TPM_CC.PCR_Event, [16], sized(b"event"), [b""]))
        agree(both, command(TPM_CC.PCR_Extend, [3], struct.pack(">IH", 1, SHA1) + bytes(20), [b""]))
        agree(both, command(TPM_CC.PCR_Read, parameters=everything))
        agree(both, command(TPM_CC.PCR_Read, parameters=selection((SHA512, b"\0\0\xff"))))


def test_some_pcrs_have_an_authorisation_value_and_a_policy(both):
    extend = struct.pack(">IH", 1, SHA256) + bytes(32)
    for pcr in (0, 16, 19, 20, 23, 0x40000007):
        agree(both, command(TPM_CC.PCR_SetAuthValue, [pcr], sized(b"pw"), [b""]))
    agree(both, command(TPM_CC.PCR_SetAuthValue, [21], sized(b"a" * 65), [b"pw"]))
    for given in (b"", b"pw"):
        agree(both, command(TPM_CC.PCR_Extend, [20], extend, [given]), locality=2)
        agree(both, command(TPM_CC.PCR_Reset, [22], b"", [given]), locality=2)
        agree(both, command(TPM_CC.PCR_Extend, [16], extend, [given]), locality=2)
    for policy, hash_alg, pcr in (
        (b"p" * 32, SHA256, 16),
        (b"p" * 31, SHA256, 20),
        (b"", SHA256, 20),
        (b"p" * 32, 0x10, 20),
        (b"", 0x10, 20),
        (b"p" * 32, SHA256, 0x40000007),
        (b"p" * 32, SHA256, 22),
    ):
        parameters = sized(policy) + struct.pack(">HI", hash_alg, pcr)
        agree(both, command(TPM_CC.PCR_SetAuthPolicy, [PLATFORM], parameters, [b""]))
        agree(both, command(TPM_CC.PCR_Extend, [20], extend, [b"pw"]), locality=2)
    for kind in (1, 0):
        agree(both, shutdown(kind))
        for tpm in both:
            tpm.init()
            tpm.set_locality(0)
        agree(both, startup(kind))
        agree(both, command(TPM_CC.PCR_Extend, [20], extend, [b"pw"]), locality=2)
        agree(both, command(TPM_CC.PCR_Extend, [20], extend, [b""]), locality=2)


def test_the_clock_is_set_ahead_only(both):
    for new_time in (5_000_000, 0, 4_000_000, 10**12, 0xFFFF000000000001, 0xFFFF000000000000, 10**12):
        agree(both, command(TPM_CC.ClockSet, [OWNER], struct.pack(">Q", new_time), [b""]))
        if code_of(both[1].execute(command(TPM_CC.ReadClock))) == 0 and new_time == 10**12:
            theirs, mine = (tpm.execute(command(TPM_CC.ReadClock)) for tpm in both)
            assert mine[26:] == theirs[26:]
    agree(both, command(TPM_CC.ClockSet, [0x4000000A], bytes(8), [b""]))
    for step in range(-4, 5):
        agree(both, command(TPM_CC.ClockRateAdjust, [PLATFORM], struct.pack(">b", step), [b""]))


def test_self_tests_answer_alike(both):
    for algorithms in ((), (11,), (0x99,), (0x12,), (11, 4, 0x23), (11,) * 64, (11,) * 65):
        parameters = struct.pack(f">I{len(algorithms)}H", len(algorithms), *algorithms)
        theirs, mine = (
            tpm.execute(command(TPM_CC.IncrementalSelfTest, parameters=parameters)) for tpm in both
        )
        assert code_of(mine) == code_of(theirs)
    agree(both, command(TPM_CC.SelfTest, parameters=b"\1"))
    agree(both, command(TPM_CC.IncrementalSelfTest, parameters=struct.pack(">IH", 1, 11)))
    agree(both, command(TPM_CC.GetTestResult))
