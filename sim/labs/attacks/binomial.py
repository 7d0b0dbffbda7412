"""Whether a measured rate agrees with a probability: exact binomial tails, in integers alone.

Models: the interval in which a count of successes lies, but for one case in 1e9; for the sum of tries until a success,
the same interval seen from the other side; for tries among K places without repeats, Hoeffding's bound.

Leaves out: estimates; a rate is only compared with a formula.

Sources: Clopper and Pearson 1934 (exact tails); Hoeffding 1963, theorem 2.
"""

from __future__ import annotations

from fractions import Fraction

__all__ = ["mean_agrees", "rate_agrees"]

ONE_IN = 10**9
"""A true formula is called wrong once in so many comparisons."""

LN_TWO_ONE_IN = Fraction(2142, 100)
"""ln(2 * ONE_IN), rounded up."""


def rate_agrees(successes: int, trials: int, probability: Fraction) -> bool:
    """Tell whether both tails at `successes` out of `trials` are likelier than half of one in 1e9."""
    if probability in (0, 1):
        return successes == probability * trials
    whole: int = probability.denominator**trials
    below, up_to = _cumulated(successes, trials, probability)
    return 2 * ONE_IN * up_to >= whole and 2 * ONE_IN * (whole - below) >= whole


def mean_agrees(total: int, trials: int, expected: Fraction, span: int) -> bool:
    """Tell whether a mean of independent values, each within a range of `span`, is as near to `expected` as it should."""
    deviation = Fraction(total, trials) - expected
    return deviation * deviation * 2 * trials <= span * span * LN_TWO_ONE_IN


def _cumulated(count: int, trials: int, probability: Fraction) -> tuple[int, int]:
    """Return P(X < count) and P(X <= count), multiplied by denominator ** trials."""
    hit, miss = probability.numerator, probability.denominator - probability.numerator
    term: int = miss**trials
    below = 0
    for number in range(count):
        below += term
        term = term * (trials - number) * hit // ((number + 1) * miss)
    return below, below + term
