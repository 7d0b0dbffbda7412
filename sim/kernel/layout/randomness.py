"""Judging drawn addresses: whether numbers are uniform over their places, and whether two series know of each other.

Models: the tests that a placement must pass: each bit, Kolmogorov and Smirnov's distance, chi-square over 64 bins,
equal pairs, correlation, and frequency, runs and serial over the joined bits.  Each verdict is a comparison of whole
numbers or fractions, so it never differs between machines.  The limits stand for a false alarm once in 1e9 tests.

Leaves out: the tests of SP 800-22 that find structure of long period, which a seeded DRBG does not have; its rule
that runs are not judged when frequency fails (both are reported).

Sources: NIST SP 800-22 rev. 1a, sections 2.1, 2.3, 2.11; quantiles at 1 - 1e-9 of the normal, Kolmogorov's and the
chi-square distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise

from attrs import frozen

from sim.errors import SimBug

__all__ = [
    "Verdict",
    "correlation",
    "equal_pairs",
    "judge",
    "pairs_limit",
    "per_bit",
    "serial",
]

ALPHA = Fraction(1, 10**9)
BINS = 64
BIT_Z_SQUARED = Fraction(662 * 662, 10_000)
"""z = 6.62 squared: 1e-9 shared among 28 bits."""
FREQUENCY_Z_SQUARED = Fraction(611 * 611, 10_000)
KOLMOGOROV_SQUARED = Fraction(3273 * 3273, 10**6)
"""x squared where 2 exp(-2 x x) = 1e-9."""
CHI_SQUARE_63 = 156
CHI_SQUARE_8 = 59
CHI_SQUARE_4 = 48
CORRELATION_SQUARED = Fraction(62 * 62, 100)
RUNS_SQUARED = Fraction(433 * 433, 10_000)
"""erfc(4.33) < 1e-9."""
_PATTERN_BITS = 4
_EXP_DIGITS = 60


@frozen(kw_only=True)
class Verdict:
    """The outcome of one test: it passes if `statistic` is below `limit`."""

    test: str
    statistic: Fraction
    limit: Fraction

    @property
    def passed(self) -> bool:
        """Whether chance alone explains the numbers."""
        return self.statistic < self.limit


def judge(numbers: Sequence[int], places: int) -> tuple[Verdict, ...]:
    """Judge numbers that should be uniform in range(`places`): every test of this module for one series.

    The chi-square test is left out below 64 places, where a bin would be empty; check small spaces slot by slot.
    """
    if len(numbers) < BINS or places < 2 or not all(0 <= number < places for number in numbers):
        raise SimBug(f"{len(numbers)} numbers do not make a sample from {places} places")
    verdicts = [*per_bit(numbers, places), distance(numbers, uniform_below(places))]
    if places >= BINS:
        verdicts.append(chi_square(numbers, places))
    bits = joined_bits(numbers, places)
    verdicts += [
        equal_pairs(numbers, places),
        correlation("consecutive", numbers[:-1], numbers[1:]),
        frequency(bits),
        runs(bits),
        *serial(bits),
    ]
    return tuple(verdicts)


def per_bit(numbers: Sequence[int], places: int) -> list[Verdict]:
    """Test that each bit is one half of the time; numbers beyond the last whole period of a bit do not count."""
    verdicts = []
    for bit in range(places.bit_length() - 1):
        period = 2 << bit
        within = [number for number in numbers if number < places // period * period]
        excess = 2 * sum(number >> bit & 1 for number in within) - len(within)
        statistic = Fraction(excess * excess, max(1, len(within)))
        verdicts.append(Verdict(test=f"bit {bit}", statistic=statistic, limit=BIT_Z_SQUARED))
    return verdicts


def distance(numbers: Sequence[int], cumulative: Callable[[int], Fraction]) -> Verdict:
    """Test Kolmogorov and Smirnov's distance from the distribution whose P(X <= x) is `cumulative(x)`.

    The statistic is the square of D times the root of the sample's size.
    """
    count = len(numbers)
    ordered = sorted(numbers)
    largest = Fraction(0)
    for rank, number in enumerate(ordered):
        if rank + 1 == count or ordered[rank + 1] != number:
            largest = max(largest, abs(cumulative(number) - Fraction(rank + 1, count)))
        if rank == 0 or ordered[rank - 1] != number:
            largest = max(largest, abs(cumulative(number - 1) - Fraction(rank, count)))
    return Verdict(test="distance", statistic=largest * largest * count, limit=KOLMOGOROV_SQUARED)


def uniform_below(places: int) -> Callable[[int], Fraction]:
    """Return P(X <= x) for X uniform in range(`places`)."""

    def cumulative(number: int) -> Fraction:
        return Fraction(min(max(number + 1, 0), places), places)

    return cumulative


def chi_square(numbers: Sequence[int], places: int) -> Verdict:
    """Test the counts in 64 bins, each as large as the places allow."""
    counts = [0] * BINS
    sizes = [0] * BINS
    for index in range(BINS):
        sizes[index] = -(-places * (index + 1) // BINS) - -(-places * index // BINS)
    for number in numbers:
        counts[number * BINS // places] += 1
    statistic = Fraction(0)
    for count, size in zip(counts, sizes, strict=True):
        expected = Fraction(len(numbers) * size, places)
        statistic += (count - expected) ** 2 / expected
    return Verdict(test="chi-square", statistic=statistic, limit=Fraction(CHI_SQUARE_63))


def equal_pairs(numbers: Sequence[int], places: int) -> Verdict:
    """Test that no more pairs are equal than chance brings about."""
    counts: dict[int, int] = {}
    for number in numbers:
        counts[number] = counts.get(number, 0) + 1
    pairs = sum(count * (count - 1) // 2 for count in counts.values())
    expected = Fraction(len(numbers) * (len(numbers) - 1), 2 * places)
    return Verdict(test="equal pairs", statistic=Fraction(pairs), limit=Fraction(pairs_limit(expected)))


def pairs_limit(expected: Fraction) -> int:
    """Return the fewest pairs that a Poisson count with mean `expected` reaches with a probability below 1e-9.

    Above a mean of 64, where pairs are no longer rare, the normal bound with a margin stands in.
    """
    if expected > BINS:
        spread = _root_up(expected * FREQUENCY_Z_SQUARED)
        return int(expected) + spread + int(FREQUENCY_Z_SQUARED) + 1
    with localcontext() as context:
        context.prec = _EXP_DIGITS
        mean = Decimal(expected.numerator) / Decimal(expected.denominator)
        term = (-mean).exp()
        tail = Decimal(1)
        count = 0
        while tail >= Decimal(ALPHA.numerator) / Decimal(ALPHA.denominator):
            tail -= term
            count += 1
            term = term * mean / count
        return count


def correlation(test: str, one: Sequence[int], two: Sequence[int]) -> Verdict:
    """Test that two series of equal length do not move together; the statistic is r squared times the length.

    A series that never changes correlates with nothing.
    """
    count = len(one)
    sum_one, sum_two = sum(one), sum(two)
    covariance = count * sum(a * b for a, b in zip(one, two, strict=True)) - sum_one * sum_two
    spread_one = count * sum(a * a for a in one) - sum_one * sum_one
    spread_two = count * sum(b * b for b in two) - sum_two * sum_two
    statistic = Fraction(covariance * covariance * count, max(1, spread_one * spread_two))
    return Verdict(test=f"correlation, {test}", statistic=statistic, limit=CORRELATION_SQUARED)


def joined_bits(numbers: Sequence[int], places: int) -> list[int]:
    """Return the bits of all numbers in a row, high ones first; from places that are no power of two, the lower part."""
    width = places.bit_length() - 1
    return [
        number >> bit & 1 for number in numbers if number < 1 << width for bit in range(width - 1, -1, -1)
    ]


def frequency(bits: Sequence[int]) -> Verdict:
    """SP 800-22 section 2.1: ones and zeros are equally many."""
    excess = 2 * sum(bits) - len(bits)
    return Verdict(
        test="frequency", statistic=Fraction(excess * excess, len(bits)), limit=FREQUENCY_Z_SQUARED
    )


def runs(bits: Sequence[int]) -> Verdict:
    """SP 800-22 section 2.3: the sequence changes as often as its share of ones says.

    The statistic is |V - 2 n p (1 - p)| / (2 sqrt(2 n) p (1 - p)), squared.
    """
    count, ones = len(bits), sum(bits)
    changes = 1 + sum(one != two for one, two in pairwise(bits))
    mixed = Fraction(ones * (count - ones), count * count)
    if not mixed:
        return Verdict(test="runs", statistic=Fraction(count), limit=RUNS_SQUARED)
    deviation = changes - 2 * count * mixed
    statistic = deviation * deviation / (8 * count * mixed * mixed)
    return Verdict(test="runs", statistic=statistic, limit=RUNS_SQUARED)


def serial(bits: Sequence[int]) -> tuple[Verdict, Verdict]:
    """SP 800-22 section 2.11 with patterns of four bits: all patterns come equally often."""
    psi = [_psi_squared(bits, width) for width in (_PATTERN_BITS, _PATTERN_BITS - 1, _PATTERN_BITS - 2)]
    first = psi[0] - psi[1]
    second = psi[0] - 2 * psi[1] + psi[2]
    return (
        Verdict(test="serial 1", statistic=first, limit=Fraction(CHI_SQUARE_8)),
        Verdict(test="serial 2", statistic=second, limit=Fraction(CHI_SQUARE_4)),
    )


def _psi_squared(bits: Sequence[int], width: int) -> Fraction:
    """Return the statistic over overlapping patterns of `width` bits, the sequence closed to a ring."""
    counts = [0] * (1 << width)
    mask = (1 << width) - 1
    pattern = 0
    for bit in bits[-(width - 1) :] if width > 1 else ():
        pattern = pattern << 1 | bit
    for bit in bits:
        pattern = (pattern << 1 | bit) & mask
        counts[pattern] += 1
    return Fraction(sum(count * count for count in counts) << width, len(bits)) - len(bits)


def _root_up(value: Fraction) -> int:
    """Return the square root, rounded up."""
    whole = -(-value.numerator // value.denominator)
    root = 1
    while root * root < whole:
        root += 1
    return root
