"""The error-correcting code of a DRAM word: 64 data bits and 8 check bits, one wrong bit corrected and two detected.

Models: a Hsiao code, whose columns all have an odd number of ones: any two wrong bits give an even syndrome, which no
column has.  Three or more wrong bits may look like one and be "corrected" into other data, as in reality.

Leaves out: chip-kill and other codes over symbols; which of the equally good columns a maker took.

Sources: Hsiao, "A Class of Optimal Minimum Odd-weight-column SEC-DED Codes", IBM Journal of Research and Development 14
(1970): 8 columns of one, 56 of three and 8 of five ones.
"""

from __future__ import annotations

from enum import Enum
from itertools import combinations

from attrs import frozen

DATA_BITS = 64
CHECK_BITS = 8
WORD_BITS = DATA_BITS + CHECK_BITS
DATA_MASK = (1 << DATA_BITS) - 1


def _columns() -> tuple[int, ...]:
    """Return the syndrome of each single wrong bit: data bits 0 to 63, then check bits 0 to 7."""
    threes = [sum(1 << row for row in rows) for rows in combinations(range(CHECK_BITS), 3)]
    fives = [sum(1 << row for row in rows) for rows in combinations(range(CHECK_BITS), 5)]
    data = threes + fives[: DATA_BITS - len(threes)]
    return (*data, *(1 << row for row in range(CHECK_BITS)))


COLUMNS = _columns()
_BIT_OF = {column: bit for bit, column in enumerate(COLUMNS)}


class Ecc(Enum):
    """What the memory controller sees when it reads a word."""

    CLEAN = "clean"
    CORRECTED = "corrected"
    UNCORRECTABLE = "uncorrectable"


@frozen(kw_only=True)
class EccVerdict:
    """What is seen, and which bits (of 72) are wrong after it: 0 unless many flips passed for none or one."""

    seen: Ecc
    wrong: int


def syndrome(flips: int) -> int:
    """Return the syndrome of a word in which the bits of `flips` are wrong."""
    result = 0
    while flips:
        lowest = flips & -flips
        result ^= COLUMNS[lowest.bit_length() - 1]
        flips ^= lowest
    return result


def decode(flips: int) -> EccVerdict:
    """Say what reading a word does in which the bits of `flips` are wrong."""
    found = syndrome(flips)
    if not found:
        return EccVerdict(seen=Ecc.CLEAN, wrong=flips)
    bit = _BIT_OF.get(found)
    if bit is None:
        return EccVerdict(seen=Ecc.UNCORRECTABLE, wrong=flips)
    return EccVerdict(seen=Ecc.CORRECTED, wrong=flips ^ 1 << bit)
