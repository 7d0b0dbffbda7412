"""Wrong bits: the code that finds them, the registers that tell of them, and the scrubber that looks for them."""

import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.core.context import Sim
from sim.core.units import MIB, SECOND
from sim.errors import SimBug
from sim.hw import mca
from sim.hw.dram import DramErrors
from sim.hw.ecc import COLUMNS, WORD_BITS, Ecc, decode, syndrome
from sim.hw.mca import MachineCheck, McaBanks, consumed, corrected, found_by_scrub
from sim.hw.memory import PhysicalMemory
from sim.hw.patrol import PatrolScrubber

BITS = st.integers(0, WORD_BITS - 1)
DOUBLE = [3, 70]


@pytest.fixture
def memory():
    memory = PhysicalMemory(8 * MIB)
    memory.allocate(1024, "a")
    memory.write(0x1000, bytes(range(64)))
    return memory


def test_every_single_bit_is_corrected_and_every_pair_detected():
    assert len(set(COLUMNS)) == WORD_BITS
    for bit in range(WORD_BITS):
        verdict = decode(1 << bit)
        assert (verdict.seen, verdict.wrong) == (Ecc.CORRECTED, 0)
    for first, second in itertools.combinations(range(WORD_BITS), 2):
        assert decode(1 << first | 1 << second).seen is Ecc.UNCORRECTABLE


def test_a_good_word_is_clean_and_three_flips_may_pass_for_one():
    assert decode(0).seen is Ecc.CLEAN
    fooled = [
        decode(flips)
        for bits in itertools.combinations(range(12), 3)
        if decode(flips := sum(1 << bit for bit in bits)).seen is Ecc.CORRECTED
    ]
    assert fooled
    assert all(verdict.wrong.bit_count() == 4 for verdict in fooled)


@given(st.sets(BITS), st.sets(BITS))
def test_the_syndrome_is_linear(first, second):
    masks = [sum(1 << bit for bit in bits) for bits in (first, second)]
    assert syndrome(masks[0] ^ masks[1]) == syndrome(masks[0]) ^ syndrome(masks[1])


@given(st.sets(BITS, max_size=8))
def test_a_word_that_is_believed_is_a_code_word_afterwards(bits):
    verdict = decode(sum(1 << bit for bit in bits))
    if verdict.seen is not Ecc.UNCORRECTABLE:
        assert syndrome(verdict.wrong) == 0


@pytest.mark.parametrize("bit", [0, 63, 64, 71])
def test_one_wrong_bit_is_corrected_once_and_logged(memory, bit):
    memory.errors.inject(0x1008, [bit])
    assert memory.read(0x1000, 64) == bytes(range(64))
    assert memory.read(0x1000, 64) == bytes(range(64))
    (record,) = memory.machine_checks.records
    assert record == corrected(0x1008, scrub=False)
    assert memory.errors.words == {}


@pytest.mark.parametrize("size", [1, 8, 64, 4096])
def test_lost_data_is_a_machine_check_every_time_it_is_read(memory, size):
    memory.errors.inject(0x1000, DOUBLE)
    for _ in range(2):
        with pytest.raises(MachineCheck) as caught:
            memory.read(0x1000, size)
        assert caught.value.record.address == 0x1000
    with pytest.raises(MachineCheck):
        memory.read_u64(0x1000)
    assert memory.read(0x1008, 64)
    assert memory.read_u64(0x1008) == int.from_bytes(range(8, 16), "little")


def test_a_whole_overwritten_word_is_good_again_and_a_part_is_not(memory):
    memory.errors.inject(0x1000, DOUBLE)
    with pytest.raises(MachineCheck):
        memory.write(0x1001, b"part")
    assert memory.read(0x1008, 8) == bytes(range(8, 16))
    memory.write(0x1000, b"8 bytes.")
    assert memory.read(0x1000, 8) == b"8 bytes."
    memory.errors.inject(0x1000, DOUBLE)
    memory.write_u64(0x1000, 7)
    assert memory.read_u64(0x1000) == 7
    memory.errors.inject(0x1000, [5])
    memory.write(0x1002, b"xy")
    assert memory.read(0x1000, 8) == b"\7\0xy\0\0\0\0"


def test_a_range_that_begins_with_a_correctable_word_loses_nothing_at_the_next(memory):
    bits = next(
        bits
        for bits in itertools.combinations(range(64), 3)
        if decode(sum(1 << b for b in bits)).seen is Ecc.CORRECTED
    )
    memory.errors.inject(0x1000, bits)
    memory.errors.inject(0x1008, DOUBLE)
    with pytest.raises(MachineCheck):
        memory.read(0x1000, 16)
    silent = memory.read(0x1000, 8)
    assert silent != bytes(range(8)), "three flips pass for one, and the data is wrong from now on"
    assert memory.read(0x1000, 8) == silent


def test_frames_handed_over_and_power_cuts_leave_no_wrong_bits(memory):
    memory.errors.inject(0x1000, DOUBLE)
    memory.release_all()
    memory.allocate(1024, "b")
    assert memory.read(0x1000, 8) == bytes(8)
    memory.errors.inject(0x1000, DOUBLE)
    memory.power_cycle()
    assert memory.errors.words == {}


def test_flipping_twice_is_not_flipping_and_a_word_has_72_bits(memory):
    memory.errors.inject(0x1000, [1, 2])
    memory.errors.inject(0x1004, [2, 1])
    assert memory.errors.words == {}
    with pytest.raises(SimBug, match="72 bits"):
        memory.errors.inject(0, [72])


def test_errors_survive_pickling_and_are_still_met(memory):
    memory.errors.inject(0x1000, DOUBLE)
    copy = pickle.loads(pickle.dumps(memory))
    with pytest.raises(MachineCheck) as caught:
        copy.read(0x1000, 1)
    assert pickle.loads(pickle.dumps(caught.value)).record == caught.value.record
    copy.errors.words.clear()
    assert copy.read(0x1000, 1) == b"\0"


# ---------------------------------------------------------------------------------- the registers

ROWS = [
    # record, bank, VAL OVER UC EN MISCV ADDRV PCC S AR, code
    (corrected(0x12345, scrub=False), 7, "100111000", 0x0093),
    (corrected(0x12045, scrub=True), 7, "100111000", 0x00C0),
    (consumed(0x12345), 1, "101111011", 0x0134),
    (found_by_scrub(0x12145), 7, "101111010", 0x00C1),
]


@pytest.mark.parametrize(("record", "bank", "flags", "code"), ROWS)
def test_the_status_register_has_the_manuals_layout(record, bank, flags, code):
    assert record.bank == bank
    assert f"{record.status >> 55:09b}" == flags
    assert record.status & 0xFFFF == code == record.code
    assert record.status >> 38 & 0x7FFF == (0 if record.uncorrected else 1)
    assert record.misc >> 6 & 7 == 2, "a physical address"
    assert record.address % (1 << (record.misc & 0x3F)) == 0
    assert bool(record.mcg_status & 4) == record.uncorrected


def test_registers_are_read_by_number_and_cleared():
    banks = McaBanks()
    assert banks.read_msr(0x179) & 0xFF == 12
    record = banks.log(consumed(0x5000))
    assert banks.read_msr(0x401 + 4) == record.status
    assert banks.read_msr(0x402 + 4) == 0x5000
    assert banks.read_msr(0x403 + 4) == record.misc
    assert banks.read_msr(0x17A) == 7
    banks.clear(1)
    banks.end_handling()
    assert banks.read_msr(0x401 + 4) == banks.read_msr(0x17A) == 0
    for wrong in (0x400 + 4 * 12, 0x3FF):
        with pytest.raises(SimBug):
            banks.read_msr(wrong)


def test_a_bank_keeps_the_graver_error_and_says_that_it_overflowed():
    banks = McaBanks()
    banks.log(corrected(0x1000, scrub=True))
    second = banks.log(corrected(0x2000, scrub=True))
    assert second.status >> 38 & 0x7FFF == 2
    assert second.status & mca.STATUS_OVERFLOW
    grave = banks.log(found_by_scrub(0x3000))
    assert (grave.address, grave.status & mca.STATUS_OVERFLOW) == (0x3000, mca.STATUS_OVERFLOW)
    banks.log(corrected(0x4000, scrub=True))
    assert banks.read_msr(0x402 + 28) == 0x3000
    assert [record.address for record in banks.records] == [0x1000, 0x2000, 0x3000, 0x4000]


def test_corrected_errors_interrupt_and_lost_data_does_not():
    told = []
    banks = McaBanks()
    banks.on_corrected = told.append
    banks.log(corrected(0x1000, scrub=False))
    banks.log(consumed(0x1000))
    assert [record.uncorrected for record in told] == [False]


def test_a_record_reads_like_a_line_of_the_kernels_log():
    assert str(consumed(0x12345)) == (
        "bank1: status=0xbd80000000000134: (VAL=1, OVFLW=0, UC=1, EN=1, PCC=0, S=1, AR=1), "
        "Addr:0x12340 (valid), Misc:0x86 (valid)"
    )


# ------------------------------------------------------------------------------ the patrol scrubber


class Log:
    def __init__(self, memory, period_ns=800 * SECOND):
        self.sim = Sim()
        self.found = []
        self.patrol = PatrolScrubber(self.sim, memory, period_ns)
        self.patrol.on_found = self.take

    def take(self, record):
        self.found.append((self.sim.now // SECOND, record.address, record.uncorrected))

    def flip(self, memory, pa, bits):
        memory.errors.inject(pa, bits)
        self.patrol.expect(pa)


def test_the_scrubber_comes_by_in_the_order_of_addresses(memory):
    log = Log(memory)
    for pa, bits in ((MIB, DOUBLE), (3 * MIB, [9]), (2 * MIB, DOUBLE)):
        log.flip(memory, pa, bits)
    log.sim.engine.run()
    assert log.found == [(100, MIB, True), (200, 2 * MIB, True), (300, 3 * MIB, False)]
    assert list(memory.errors.words) == [MIB // 8, 2 * MIB // 8]


def test_what_it_has_just_passed_waits_for_the_next_round(memory):
    log = Log(memory)
    log.sim.engine.run(150 * SECOND)
    assert log.patrol.next_pass_ns(MIB) == 900 * SECOND
    assert log.patrol.next_pass_ns(3 * MIB) == 300 * SECOND
    log.flip(memory, MIB, DOUBLE)
    log.sim.engine.run()
    assert log.found == [(900, MIB, True)]


def test_what_somebody_met_or_overwrote_before_is_not_found(memory):
    log = Log(memory)
    log.flip(memory, MIB, [3])
    log.flip(memory, 2 * MIB, DOUBLE)
    memory.read(MIB, 1)
    memory.write(2 * MIB, bytes(8))
    log.sim.engine.run()
    assert log.found == []


def test_flips_that_the_code_does_not_see_become_data(memory):
    banks = McaBanks()
    errors = DramErrors(banks)
    unseen = next(
        bits for bits in itertools.combinations(range(64), 4) if syndrome(sum(1 << bit for bit in bits)) == 0
    )
    errors.inject(0x1000, unseen)
    record, wrong = errors.patrol(0x1000)
    assert (record, wrong) == (None, [(0x1000, sum(1 << bit for bit in unseen))])
    assert banks.logged == 0
    memory.errors.inject(0x1000, unseen)
    assert memory.read_u64(0x1000) == int.from_bytes(range(8), "little") ^ wrong[0][1]
