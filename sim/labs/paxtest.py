"""The rows of paxtest for a simulated process: what it may execute, how far its addresses vary, where it can be sent.

Models: the 34 tests of paxtest 0.9.15.  Each "Executable" row writes a return instruction into that part of a process
and calls it, the mprotect rows after asking the kernel for all rights.  Each randomization row starts the program
again and again, each time laid out anew, and guesses from one address each: the bits that change, without those that
are set in 35 % of the runs or fewer, or in 65 % or more.  Blackhat mode starts a thread first, as paxtest does.

Leaves out: what a compiler makes of the return-to-function tests (today's hardened builds defeat their memcpy) and
the processors on which a second thread made a difference.  By default the programs of the ET_EXEC rows are position
independent, as Debian builds them.  A bit that is set in a third of all runs (two of Linux's program base) is so near
to 35 % that one sample in ten counts it, here as there.

Sources: paxtest 1:0.9.15-2 of Debian 12, its README and what its programs print and do (1,500 runs a row, 25 for the
rows on memory exhaustion, which map one page); row names and answers are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from attrs import frozen

from sim.core.facts import fact
from sim.core.rng import Rng
from sim.errors import ScenarioError, SimBug
from sim.kernel.layout import (
    Layout,
    LayoutProfile,
    ProcessMap,
    ProcessSizes,
    ReleaseProfile,
    place_process,
    without_pie,
)
from sim.labs.process import EVERYTHING, RET, LabProcess

__all__ = ["MODES", "RUNS", "PaxtestRow", "guessed_bits", "paxtest", "quality_bits"]

_SOURCE = "paxtest 1:0.9.15-2, disassembled"
RUNS = fact("paxtest.runs", 1500, unit="runs", source=_SOURCE, kind="measured")
EXHAUSTION_RUNS = fact("paxtest.exhaustion_runs", 25, unit="runs", source=_SOURCE, kind="measured")
WEAK_BELOW_PERCENT = fact("paxtest.weak_below", 35, unit="percent", source=_SOURCE, kind="measured")
RUNS_MAX = 100_000

MODES = ("kiddie", "blackhat")
KILLED = "Killed"
VULNERABLE = "Vulnerable"
NUL_BYTE = "paxtest: return address contains a NULL byte."
_MASK64 = (1 << 64) - 1
_MALLOC_HEADER_BYTES = 0x2A0

_PARTS = (
    ("anonymous mapping", "mapping"),
    ("bss", "bss"),
    ("data", "data"),
    ("heap", "heap"),
    ("stack", "stack"),
    ("shared library bss", "library.bss"),
    ("shared library data", "library.data"),
)


@frozen(kw_only=True)
class PaxtestRow:
    """A row: paxtest's name for it and paxtest's answer."""

    name: str
    answer: str


def paxtest(
    release: ReleaseProfile,
    *,
    mode: str = "blackhat",
    seed: int = 0,
    runs: int = RUNS.value,
    et_exec: bool = False,
) -> list[PaxtestRow]:
    """Run all 34 tests under a profile; `et_exec` gives the ET_EXEC rows programs with a fixed address.

    Errors: `ScenarioError` for a mode or number of runs that paxtest does not have.
    """
    if mode not in MODES:
        raise ScenarioError("--mode", "wrong value", got=mode, wanted=" or ".join(MODES))
    if not 2 <= runs <= RUNS_MAX:
        raise ScenarioError("--runs", "wrong value", got=runs, wanted=f"an integer from 2 to {RUNS_MAX}")
    tests = _Tests(
        release,
        Rng(seed).child(f"paxtest/{mode}/{release.name}"),
        threads=int(mode == "blackhat"),
        et_exec=et_exec,
    )
    return [*tests.executable(), *tests.randomization(runs), *tests.return_to_function()]


def quality_bits(samples: Sequence[int]) -> str:
    """Answer a randomization row by paxtest's guess: the bits that change, less the weak ones."""
    changing = _changing(samples)
    if not changing:
        return "No randomization"
    low, whole = WEAK_BELOW_PERCENT.value * len(samples), 100 * len(samples)
    strong = 0
    for bit in range(64):
        if changing >> bit & 1:
            ones = 100 * sum(sample >> bit & 1 for sample in samples)
            strong += low < ones < whole - low
    return f"{strong} quality bits (guessed)"


def guessed_bits(samples: Sequence[int]) -> str:
    """Answer a row on memory exhaustion: all bits that change."""
    changing = _changing(samples)
    return f"{changing.bit_count()} bits (guessed)" if changing else "No randomization"


def _changing(samples: Sequence[int]) -> int:
    every, any_of = _MASK64, 0
    for sample in samples:
        every &= sample
        any_of |= sample
    return any_of & ~every


class _Tests:
    """The tests of one call; each run of a program is a process laid out anew."""

    def __init__(self, release: ReleaseProfile, rng: Rng, *, threads: int, et_exec: bool) -> None:
        self._release = release
        self._rng = rng
        self._threads = threads
        self._et_exec = et_exec

    def executable(self) -> Iterator[PaxtestRow]:
        """Write code into each part of a process and call it, as it is and after mprotect."""
        for suffix, ask in (("", False), (" (mprotect)", True)):
            for words, part in _PARTS:
                name = f"Executable {words}{suffix}"
                process = self._process(name)
                yield PaxtestRow(name=name, answer=_attempt(process, process.segments[part], ask=ask))
        name = "Writable text segments"
        process = self._process(name)
        yield PaxtestRow(name=name, answer=_attempt(process, process.segments["text"], ask=True))

    def randomization(self, runs: int) -> Iterator[PaxtestRow]:
        """Guess the randomness of each kind of address."""
        few = EXHAUSTION_RUNS.value
        for name, address, fixed in _ADDRESSES:
            yield PaxtestRow(name=name, answer=quality_bits(self._sample(name, address, runs, fixed=fixed)))
        for name in ("Randomization under memory exhaustion @~0", "Randomization under memory exhaustion @0"):
            yield PaxtestRow(name=name, answer=guessed_bits(self._sample(name, _mapping, few, fixed=False)))

    def return_to_function(self) -> Iterator[PaxtestRow]:
        """Overwrite a return address with that of a function of the program, as a string and as bytes."""
        for suffix in ("", ", PIE"):
            for copy in ("strcpy", "memcpy"):
                name = f"Return to function ({copy}{suffix})"
                process = self._process(name, pie=bool(suffix) or not self._et_exec)
                yield PaxtestRow(name=name, answer=_return_into(process, as_string=copy == "strcpy"))

    def _process(self, name: str, *, pie: bool = True) -> LabProcess:
        return LabProcess(self._release, self._rng.stream(name), pie=pie, threads=self._threads)

    def _sample(
        self, name: str, address: Callable[[ProcessMap], int], runs: int, *, fixed: bool
    ) -> list[int]:
        profile: LayoutProfile = self._release.user
        if fixed and self._et_exec:
            profile = without_pie(profile)
        layout = Layout(self._rng.stream(name), profile)
        sizes = ProcessSizes(mappings=(4096,))
        samples = []
        for _ in range(runs):
            samples.append(address(place_process(layout, sizes)) & _MASK64)
            layout = layout.renewed()
        return samples


def _attempt(process: LabProcess, base: int, *, ask: bool) -> str:
    """Write a return instruction at `base` and call it; a refused mprotect is not looked at, as by paxtest."""
    if ask:
        process.mprotect(base, EVERYTHING)
    if process.store(base, RET) is not None:
        return KILLED
    return VULNERABLE if process.runs(base) else KILLED


def _return_into(process: LabProcess, *, as_string: bool) -> str:
    """Overflow a buffer on the stack with the address of a function, then return."""
    target = process.segments["text"].to_bytes(8, "little")
    if as_string and 0 in target:
        return NUL_BYTE
    frame = process.map.stack_pointer.address
    if process.store(frame, target * 4) is not None:
        return KILLED
    popped = process.load(frame + 8, 8)
    if not isinstance(popped, bytes):
        raise SimBug(f"the stack cannot be read: {popped}")
    return VULNERABLE if process.runs(int.from_bytes(popped, "little")) else KILLED


def _mapping(placed: ProcessMap) -> int:
    return placed.mappings[0].base


def _heap(placed: ProcessMap) -> int:
    return placed.heap_start.address + _MALLOC_HEADER_BYTES


def _main(placed: ProcessMap) -> int:
    return placed.exe.base + 0x69


def _library(placed: ProcessMap) -> int:
    return placed.libraries[0].base + 0x52450


def _vdso(placed: ProcessMap) -> int:
    return placed.vdso.base


def _stack(placed: ProcessMap) -> int:
    return placed.stack_pointer.address - 1


def _argument(placed: ProcessMap) -> int:
    return placed.arguments.address


def _delta(placed: ProcessMap) -> int:
    return _main(placed) - _library(placed)


_ADDRESSES: tuple[tuple[str, Callable[[ProcessMap], int], bool], ...] = (
    ("Anonymous mapping randomization test", _mapping, False),
    ("Heap randomization test (ET_EXEC)", _heap, True),
    ("Heap randomization test (PIE)", _heap, False),
    ("Main executable randomization (ET_EXEC)", _main, True),
    ("Main executable randomization (PIE)", _main, False),
    ("Shared library randomization test", _library, False),
    ("VDSO randomization test", _vdso, False),
    ("Stack randomization test (SEGMEXEC)", _stack, False),
    ("Stack randomization test (PAGEEXEC)", _stack, False),
    ("Arg/env randomization test (SEGMEXEC)", _argument, False),
    ("Arg/env randomization test (PAGEEXEC)", _argument, False),
    ("Offset to library randomisation (ET_EXEC)", _delta, True),
    ("Offset to library randomisation (ET_DYN)", _delta, False),
)
