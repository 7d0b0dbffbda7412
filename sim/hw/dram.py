"""Wrong bits in the cells of the memory, and what reading or writing them does.

Models: transient flips in any of the 72 bits of a word; a read that corrects one of them (and writes the word back) or
ends in a machine check; a write of a whole word, which makes it good again, and of a part of a word, which has to read
the rest first; flips that the code does not see, which become wrong data.

Leaves out: cells that stay wrong, row-hammer and other causes, and the time of a correction.

Sources: `sim.hw.ecc` for the code, `sim.hw.mca` for what is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sim.errors import SimBug
from sim.hw.ecc import WORD_BITS, Ecc, decode
from sim.hw.mca import MachineCheck, McaBanks, MceRecord, consumed, corrected, found_by_scrub

WORD_BYTES = 8
ERRORS_MAX = 100_000
"""The most words with wrong bits at one time."""


class DramErrors:
    """The wrong bits of a host's memory: `words` maps a word's number (address / 8) to the mask of its wrong bits."""

    def __init__(self, banks: McaBanks) -> None:
        self.words: dict[int, int] = {}
        self._banks = banks

    def inject(self, pa: int, bits: Iterable[int]) -> None:
        """Flip the given bits, 0 to 71, of the word around `pa`; flipping one twice makes it right again."""
        number = pa // WORD_BYTES
        flips = self.words.get(number, 0)
        for bit in bits:
            if not 0 <= bit < WORD_BITS:
                raise SimBug(f"a memory word has {WORD_BITS} bits, not bit {bit}")
            flips ^= 1 << bit
        if flips:
            if len(self.words) >= ERRORS_MAX:
                raise SimBug(f"more than {ERRORS_MAX} words with wrong bits")
            self.words[number] = flips
        else:
            self.words.pop(number, None)

    def set_aside(self) -> dict[int, int]:
        """Take all wrong bits away and return them: for bookkeeping of the simulator, which no processor does."""
        aside = dict(self.words)
        self.words.clear()
        return aside

    def put_back(self, aside: dict[int, int]) -> None:
        """Put back what `set_aside` returned."""
        self.words.update(aside)

    def settle_read(self, pa: int, size: int) -> list[tuple[int, int]]:
        """Read a range; return (address, mask) of the words whose data is wrong from now on.

        Raises `MachineCheck` at the first word that cannot be corrected; it stays as it is.
        """
        return list(self._settle(self._touched(pa, size)))

    def settle_write(self, pa: int, size: int) -> list[tuple[int, int]]:
        """Write a range: words that it covers become good, the two at its ends may have to be read first."""
        numbers = self._touched(pa, size)
        partly = [each for each in numbers if each * WORD_BYTES < pa or (each + 1) * WORD_BYTES > pa + size]
        wrong = list(self._settle(partly))
        for number in numbers:
            self.words.pop(number, None)
        return wrong

    def forget(self, pa: int, size: int) -> None:
        """Make every word of a range good: all of it was overwritten, or is never used again."""
        for number in self._touched(pa, size):
            del self.words[number]

    def patrol(self, pa: int) -> tuple[MceRecord | None, list[tuple[int, int]]]:
        """Let the patrol scrubber read the word at `pa`; return what it logs, and data that is wrong from now on."""
        number = pa // WORD_BYTES
        flips = self.words.get(number)
        if flips is None:
            return None, []
        verdict = decode(flips)
        if verdict.seen is Ecc.UNCORRECTABLE:
            return self._banks.log(found_by_scrub(pa)), []
        del self.words[number]
        wrong = [(number * WORD_BYTES, verdict.wrong)] if verdict.wrong else []
        if verdict.seen is Ecc.CLEAN:
            return None, wrong
        return self._banks.log(corrected(pa, scrub=True)), wrong

    def _settle(self, numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
        verdicts = [(number, decode(self.words[number])) for number in numbers]
        for number, verdict in verdicts:
            if verdict.seen is Ecc.UNCORRECTABLE:
                raise MachineCheck(self._banks.log(consumed(number * WORD_BYTES)))
        for number, verdict in verdicts:
            if verdict.seen is Ecc.CORRECTED:
                self._banks.log(corrected(number * WORD_BYTES, scrub=False))
            del self.words[number]
            if verdict.wrong:
                yield number * WORD_BYTES, verdict.wrong

    def _touched(self, pa: int, size: int) -> list[int]:
        """Return the numbers of the words with wrong bits in a range, in rising order."""
        numbers = range(pa // WORD_BYTES, -(-(pa + size) // WORD_BYTES))
        if len(numbers) < len(self.words):
            return [number for number in numbers if number in self.words]
        return sorted(number for number in self.words if number in numbers)
