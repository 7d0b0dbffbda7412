"""How uncertain an address is, counted exactly: slots, Shannon and min-entropy, expected guesses, what a leak leaves.

Models: an address as a constant plus independent random draws, each from a `Spread`: a distribution over slots by whole
weights.  Equal weights give log2 K; the sum of two uniform draws gives a trapezoid, whose min-entropy is lower than
its Shannon entropy, and that lower than log2 of its slots.  Addresses that share a draw count it once.

Leaves out: attackers who know something of the generator, and the few places that holes make unreachable for a
shared base (they are counted for regions that are placed on their own).

Sources: Shannon 1948; for guessing the best order, J. Massey, "Guessing and entropy", ISIT 1994.  All counts and
`guesses_expected` are integers or fractions; only `*_bits`, which no verdict hangs on, are floats.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from math import fsum, log, log2

from attrs import frozen

from sim.errors import SimBug, VmksimError

__all__ = [
    "Draw",
    "EntropyError",
    "Spread",
    "joint_bits",
    "leak_leaves_bits",
    "spread_of",
    "trapezoid",
    "uniform",
]

PLACES_LISTED_MAX = 1 << 20
"""The most places over which a distribution is added up one by one."""

_TERMS_ADDED_MAX = 4096
_LN_GLAISHER = 0.248754477033784262547253


class EntropyError(VmksimError):
    """These draws are combined in a way that cannot be counted exactly within the named limit."""


@frozen(kw_only=True)
class Weights:
    """`copies` slots of each weight from `low` to `high`."""

    low: int
    high: int
    copies: int

    @property
    def slots(self) -> int:
        """The number of slots."""
        return (self.high - self.low + 1) * self.copies

    @property
    def total(self) -> int:
        """The sum of the slots' weights."""
        return (self.low + self.high) * (self.high - self.low + 1) // 2 * self.copies


@frozen(kw_only=True)
class Spread:
    """A distribution over slots by whole weights: a slot of weight w has probability w / `total`."""

    parts: tuple[Weights, ...]

    def __attrs_post_init__(self) -> None:
        sound = [1 <= part.low <= part.high and part.copies >= 1 for part in self.parts]
        if not sound or not all(sound):
            raise SimBug(f"a distribution over nothing: {self.parts}")

    @property
    def slots(self) -> int:
        """How many slots can be reached."""
        return sum([part.slots for part in self.parts])

    @property
    def total(self) -> int:
        """The sum of all weights."""
        return sum(part.total for part in self.parts)

    @property
    def likeliest(self) -> Fraction:
        """The probability of the likeliest slot: what one guess is worth."""
        return Fraction(max(part.high for part in self.parts), self.total)

    @property
    def slot_bits(self) -> float:
        """log2 of the slots: the entropy if all were equally likely."""
        return log2(self.slots)

    @property
    def shannon_bits(self) -> float:
        """The Shannon entropy."""
        total = self.total
        return log2(total) - fsum(
            part.copies * _sum_w_log2_w(part.low, part.high) / total for part in self.parts
        )

    @property
    def min_entropy_bits(self) -> float:
        """The min-entropy: -log2 of the likeliest slot."""
        likeliest = self.likeliest
        return log2(likeliest.denominator) - log2(likeliest.numerator)

    @property
    def collision(self) -> Fraction:
        """The probability that two layouts agree."""
        squares = sum(part.copies * (_squares(part.high) - _squares(part.low - 1)) for part in self.parts)
        return Fraction(squares, self.total**2)

    @property
    def guesses_expected(self) -> Fraction:
        """Guesses needed on average when slots are tried once each, the likeliest first."""
        done = summed = 0
        for low, high, copies in self._falling():
            # Step k of this stretch tries `copies` slots of weight high - k, at ranks done + k * copies + 1 and on.
            steps = high - low + 1
            first = copies * done + copies * (copies + 1) // 2
            each = copies * copies
            k1 = steps * (steps - 1) // 2
            k2 = _squares(steps - 1)
            summed += high * (first * steps + each * k1) - (first * k1 + each * k2)
            done += steps * copies
        return Fraction(summed, self.total)

    def _falling(self) -> Iterator[tuple[int, int, int]]:
        """Yield (low, high, copies) of stretches of weights that do not overlap, the heaviest first."""
        edges = sorted(
            {part.low for part in self.parts} | {part.high + 1 for part in self.parts}, reverse=True
        )
        for above, low in pairwise(edges):
            copies = sum(part.copies for part in self.parts if part.low <= low and above - 1 <= part.high)
            if copies:
                yield low, above - 1, copies

    def times(self, slots: int) -> Spread:
        """Return the distribution of this draw together with another, uniform one that never overlaps with it."""
        return Spread(
            parts=tuple(
                Weights(low=part.low, high=part.high, copies=part.copies * slots) for part in self.parts
            )
        )


@frozen(kw_only=True)
class Draw:
    """One independent draw of a layout: its name there, its distribution, and the bytes between two of its slots."""

    name: str
    spread: Spread
    step_bytes: int

    @property
    def is_uniform(self) -> bool:
        """Whether all slots are equally likely."""
        return len(self.spread.parts) == 1 and self.spread.parts[0].low == self.spread.parts[0].high

    @property
    def reach_bytes(self) -> int:
        """From the lowest slot to one step behind the highest, if the slots lie in a row."""
        return self.spread.slots * self.step_bytes


def uniform(slots: int) -> Spread:
    """Return `slots` equally likely slots."""
    return Spread(parts=(Weights(low=1, high=1, copies=slots),))


def trapezoid(one: int, two: int) -> Spread:
    """Return the sum of two independent uniform draws of `one` and `two` slots with the same step."""
    short, long = sorted((one, two))
    flat = Weights(low=short, high=short, copies=long - short + 1)
    if short == 1:
        return Spread(parts=(flat,))
    return Spread(parts=(Weights(low=1, high=short - 1, copies=2), flat))


def trapezoid_within(one: int, two: int, ranges: Iterable[range]) -> Spread:
    """Return `trapezoid(one, two)` for those sums alone that lie in `ranges` (which do not overlap).

    Errors: `EntropyError` when no sum does.
    """
    short, long = sorted((one, two))
    parts = []
    for each in ranges:
        for first, stop in ((0, short - 1), (short - 1, long), (long, short + long - 1)):
            low, end = max(each.start, first), min(each.stop, stop)
            if low < end:
                weights = sorted(min(at + 1, short, short + long - 1 - at) for at in (low, end - 1))
                copies = end - low if weights[0] == weights[1] else 1
                parts.append(Weights(low=weights[0], high=weights[1], copies=copies))
    if not parts:
        raise EntropyError("none of the sums is free")
    return Spread(parts=tuple(parts))


def spread_of(draws: Iterable[Draw]) -> Spread:
    """Return the distribution of an address: the sum of independent draws.

    Errors: `EntropyError` for sums that are neither nested, nor of two uniform draws, nor small enough to add up.
    """
    moving = sorted((draw for draw in draws if draw.spread.slots > 1), key=_step)
    if not moving:
        return uniform(1)
    if len(moving) == 1:
        return moving[0].spread
    finest, rest = moving[0], moving[1:]
    if finest.is_uniform and all(draw.step_bytes % finest.reach_bytes == 0 for draw in rest):
        return spread_of(rest).times(finest.spread.slots)
    if len(moving) == 2 and finest.is_uniform and rest[0].is_uniform:
        ratio, odd = divmod(rest[0].step_bytes, finest.step_bytes)
        if not odd:
            return _two_steps(finest.spread.slots, rest[0].spread.slots, ratio)
    return _added_up(moving)


def joint_bits(draws: Iterable[Draw]) -> float:
    """Return the Shannon entropy of all draws together, each name counted once."""
    once = {draw.name: draw for draw in draws}
    return fsum(draw.spread.shannon_bits for draw in once.values())


def leak_leaves_bits(target: Iterable[Draw], leaked: Iterable[Draw]) -> float:
    """Return the Shannon entropy that `target` keeps for one who has read an address made of `leaked`.

    H(T|L) = H(T, L) - H(L).  Errors: `EntropyError` when the two share some draws and each has others besides.
    """
    of_target = {draw.name: draw for draw in target if draw.spread.slots > 1}
    of_leak = {draw.name: draw for draw in leaked if draw.spread.slots > 1}
    shared = [name for name in of_target if name in of_leak]
    if not shared:
        return spread_of(of_target.values()).shannon_bits
    if len(shared) == len(of_leak):
        return spread_of(draw for name, draw in of_target.items() if name not in of_leak).shannon_bits
    if len(shared) == len(of_target):
        rest = spread_of(draw for name, draw in of_leak.items() if name not in of_target).shannon_bits
        left = spread_of(of_target.values()).shannon_bits + rest - spread_of(of_leak.values()).shannon_bits
        return max(0.0, left)
    raise EntropyError(
        f"{', '.join(of_target)} and {', '.join(of_leak)} share some draws but not all of either"
    )


def _two_steps(fine: int, coarse: int, ratio: int) -> Spread:
    """Return the sum of `fine` uniform slots and `coarse` ones whose step is `ratio` times as wide.

    Slots that are equal modulo `ratio` form a row of their own, in which the sum is one of two uniform draws.
    """
    whole, over = divmod(fine, ratio)
    rows = [trapezoid(whole + 1, coarse).times(over)] if over else []
    if whole:
        rows.append(trapezoid(whole, coarse).times(ratio - over))
    return Spread(parts=tuple(part for row in rows for part in row.parts))


def _added_up(draws: list[Draw]) -> Spread:
    """Add uniform draws up slot by slot."""
    sums = {0: 1}
    for draw in draws:
        if not draw.is_uniform or len(sums) * draw.spread.slots > PLACES_LISTED_MAX:
            raise EntropyError(f"the sum of {len(draws)} draws has too many places to add up one by one")
        larger: dict[int, int] = {}
        for at, weight in sums.items():
            for slot in range(draw.spread.slots):
                place = at + slot * draw.step_bytes
                larger[place] = larger.get(place, 0) + weight
        sums = larger
    return from_weights(sums.values())


def from_weights(weights: Iterable[int]) -> Spread:
    """Return the distribution of listed weights, those of zero left out."""
    counts: dict[int, int] = {}
    for weight in weights:
        if weight:
            counts[weight] = counts.get(weight, 0) + 1
    return Spread(
        parts=tuple(Weights(low=weight, high=weight, copies=counts[weight]) for weight in sorted(counts))
    )


def _sum_w_log2_w(low: int, high: int) -> float:
    """Return the sum of w log2 w for w from `low` to `high`."""
    if high - low < _TERMS_ADDED_MAX:
        return fsum(weight * log2(weight) for weight in range(low, high + 1))
    return (_ln_hyperfactorial(high) - _ln_hyperfactorial(low - 1)) / log(2)


def _ln_hyperfactorial(n: int) -> float:
    """Return the sum of w ln w for w from 1 to `n`, by Stirling's series of the hyperfactorial for large n."""
    if n < _TERMS_ADDED_MAX:
        return fsum(weight * log(weight) for weight in range(2, n + 1))
    squared = float(n) * n
    return _LN_GLAISHER + (squared / 2 + n / 2 + 1 / 12) * log(n) - squared / 4 + 1 / (720 * squared)


def _squares(n: int) -> int:
    """Return 1 + 4 + ... + n * n."""
    return n * (n + 1) * (2 * n + 1) // 6


def _step(draw: Draw) -> int:
    return draw.step_bytes
