"""The simulated paxtest: its rows, its answers under each profile, and its way of guessing."""

import pytest

from sim.core.rng import Rng
from sim.errors import ScenarioError
from sim.kernel.layout import RELEASES, Layout
from sim.kernel.layout.spec import LayoutSpec
from sim.labs.paxtest import guessed_bits, paxtest, quality_bits

# The names are those that the program of Debian's package paxtest 1:0.9.15-2 prints, in its order.
ROWS = """\
Executable anonymous mapping
Executable bss
Executable data
Executable heap
Executable stack
Executable shared library bss
Executable shared library data
Executable anonymous mapping (mprotect)
Executable bss (mprotect)
Executable data (mprotect)
Executable heap (mprotect)
Executable stack (mprotect)
Executable shared library bss (mprotect)
Executable shared library data (mprotect)
Writable text segments
Anonymous mapping randomization test
Heap randomization test (ET_EXEC)
Heap randomization test (PIE)
Main executable randomization (ET_EXEC)
Main executable randomization (PIE)
Shared library randomization test
VDSO randomization test
Stack randomization test (SEGMEXEC)
Stack randomization test (PAGEEXEC)
Arg/env randomization test (SEGMEXEC)
Arg/env randomization test (PAGEEXEC)
Offset to library randomisation (ET_EXEC)
Offset to library randomisation (ET_DYN)
Randomization under memory exhaustion @~0
Randomization under memory exhaustion @0
Return to function (strcpy)
Return to function (memcpy)
Return to function (strcpy, PIE)
Return to function (memcpy, PIE)
""".splitlines()
# Executable, mprotect and text rows, then the bits of mapping, PIE heap, PIE program, library, vDSO, stack, arguments.
ANSWERS = {
    "esxi-8.x": ("Killed", "Killed", 28, 28, 28, 28, 28, 30, 22),
    "linux-6.x": ("Killed", "Vulnerable", 28, 28, 28, 28, 28, 30, 22),
    "linux-hardened": ("Killed", "Vulnerable", 32, 40, 32, 32, 32, 40, 44),
    "pax": ("Killed", "Killed", 33, 40, 33, 33, 33, 40, 44),
    "windows-high-entropy": ("Killed", "Vulnerable", 24, 24, 17, 19, 19, 33, 24),
    "none": ("Vulnerable", "Vulnerable", 0, 0, 0, 0, 0, 0, 0),
}
MEASURED = (
    "Anonymous mapping randomization test",
    "Heap randomization test (PIE)",
    "Main executable randomization (PIE)",
    "Shared library randomization test",
    "VDSO randomization test",
    "Stack randomization test (SEGMEXEC)",
    "Arg/env randomization test (SEGMEXEC)",
)


@pytest.fixture(scope="module", params=ANSWERS)
def screen(request):
    """The rows under one profile, and that profile's name."""
    release = RELEASES[request.param]
    runs = 1500 if request.param == "linux-6.x" else 400
    return {row.name: row.answer for row in paxtest(release, seed=2, runs=runs)}, request.param


def test_each_profile_gives_the_answers_of_its_system(screen):
    rows, name = screen
    executable, mprotect, *bits = ANSWERS[name]
    assert list(rows) == ROWS
    assert {rows[row] for row in ROWS[:7]} == {executable}
    assert {rows[row] for row in ROWS[7:15]} == {mprotect}
    answers = [f"{count} quality bits (guessed)" if count else "No randomization" for count in bits]
    assert [rows[row] for row in MEASURED] == answers
    assert rows["Return to function (strcpy)"] == "paxtest: return address contains a NULL byte."
    assert rows["Return to function (memcpy)"] == "Vulnerable"


def test_two_bits_of_linuxs_program_base_are_set_in_a_third_and_two_thirds_of_runs():
    layout, bases = Layout(Rng(1).stream("x"), RELEASES["linux-6.x"].user), []
    for _ in range(1500):
        bases.append(layout.place("exe", 28_672))
        layout = layout.renewed()
    ones = [sum(base >> bit & 1 for base in bases) for bit in (40, 41)]
    assert abs(ones[0] - 1000) < 120  # six standard deviations
    assert abs(ones[1] - 500) < 120


def test_programs_at_fixed_addresses_leave_the_heap_its_own_bits_alone():
    rows = {row.name: row.answer for row in paxtest(RELEASES["linux-6.x"], et_exec=True, runs=300)}
    assert rows["Main executable randomization (ET_EXEC)"] == "No randomization"
    assert rows["Heap randomization test (ET_EXEC)"] == "13 quality bits (guessed)"
    assert rows["Heap randomization test (PIE)"] == "28 quality bits (guessed)"
    hardened = {row.name: row.answer for row in paxtest(RELEASES["linux-hardened"], et_exec=True, runs=300)}
    assert hardened["Heap randomization test (ET_EXEC)"] == "26 quality bits (guessed)"


def test_fewer_bits_in_a_profile_are_fewer_on_the_screen():
    release = LayoutSpec(profile="esxi-8.x", mmap_bits=8, stack_bits=11).release()
    rows = {row.name: row.answer for row in paxtest(release, mode="kiddie", runs=300)}
    assert rows["Anonymous mapping randomization test"] == "8 quality bits (guessed)"
    assert rows["Stack randomization test (PAGEEXEC)"] == "19 quality bits (guessed)"
    assert rows["Main executable randomization (PIE)"] == "28 quality bits (guessed)"


def test_same_seed_same_screen_and_a_strange_call_is_refused():
    release = RELEASES["linux-6.x"]
    assert paxtest(release, seed=4, runs=30) == paxtest(release, seed=4, runs=30)
    with pytest.raises(ScenarioError, match="kiddie or blackhat"):
        paxtest(release, mode="mild")
    for runs in (1, 100_001):
        with pytest.raises(ScenarioError, match="--runs"):
            paxtest(release, runs=runs)


def samples_with(ones, runs=1500):
    return [1 << 12 if number < ones else 0 for number in range(runs)]


@pytest.mark.parametrize(
    ("ones", "answer"),
    [
        (0, "No randomization"),
        (1, "0 quality bits (guessed)"),
        (525, "0 quality bits (guessed)"),
        (526, "1 quality bits (guessed)"),
        (974, "1 quality bits (guessed)"),
        (975, "0 quality bits (guessed)"),
        (1500, "No randomization"),
    ],
)
def test_a_bit_counts_between_526_and_974_of_1500_runs_as_in_the_real_program(ones, answer):
    assert quality_bits(samples_with(ones)) == answer


def test_the_rows_on_exhaustion_count_every_bit_that_changes():
    assert guessed_bits(samples_with(1, 25)) == "1 bits (guessed)"
    assert guessed_bits([5, 5]) == "No randomization"
    stream = Rng(1).stream("x")
    assert guessed_bits([stream.below(1 << 20) << 12 for _ in range(200)]) == "20 bits (guessed)"
