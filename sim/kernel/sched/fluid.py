"""The capped fluid share: how much CPU each claimant would get if time could be divided without end.

Models: weighted max-min sharing with a floor (reservation) and a ceiling (limit, demand, one CPU per vCPU).  Every
share is `clip(level * weight, floor, ceiling)`, with one common level chosen so that the shares add up to what there
is, or to the sum of the ceilings if that is less.  All of it is exact: integers and fractions.

Leaves out: quanta, co-scheduling and everything else that takes time.  It says what the scheduler aims at
(entitlement) and is the oracle of its tests.

Sources: weighted max-min fairness by sorting the break points; readjustment of weights to shares of at most one CPU
after Chandra, Adler, Goyal and Shenoy, "Surplus fair scheduling", OSDI 2000.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import attrs

from sim.errors import VmksimError

__all__ = ["Claim", "FloorsExceedCapacity", "FluidShares", "feasible_weights", "fluid_shares"]

Amount = int | Fraction


class FloorsExceedCapacity(VmksimError):  # noqa: N818 - the name says the condition
    """The floors alone are more than there is to share: admission control must not let that happen."""


@attrs.frozen(kw_only=True)
class Claim:
    """One claimant: its weight, the least it must get and the most it can use."""

    weight: Amount
    floor: Amount = 0
    ceiling: Amount

    def __attrs_post_init__(self) -> None:
        if self.weight <= 0 or not 0 <= self.floor <= self.ceiling:
            raise ValueError(f"want weight > 0 and 0 <= floor <= ceiling, got {self}")


@attrs.frozen(kw_only=True)
class FluidShares:
    """The shares, in the order of the claims, and the level: share per weight of those at neither bound."""

    shares: tuple[Fraction, ...]
    level: Fraction


def fluid_shares(capacity: Amount, claims: Sequence[Claim]) -> FluidShares:
    """Divide `capacity` over `claims` by weighted max-min with floors and ceilings, exactly, in O(n log n).

    The level is the least that reaches the total.  Errors: `FloorsExceedCapacity`.
    """
    total = Fraction(sum(claim.floor for claim in claims))
    if total > capacity:
        raise FloorsExceedCapacity(f"floors of {total} exceed the capacity of {capacity}")
    target = min(Fraction(capacity), Fraction(sum(claim.ceiling for claim in claims)))
    level = _level(total, target, claims)
    shares = tuple(_clip(level * claim.weight, claim.floor, claim.ceiling) for claim in claims)
    return FluidShares(shares=shares, level=level)


def _level(total: Fraction, target: Fraction, claims: Sequence[Claim]) -> Fraction:
    """Sweep the break points upwards until the sum of the shares, `total` at level 0, reaches `target`."""
    points: list[tuple[Fraction, Amount]] = []
    for claim in claims:
        if claim.ceiling > claim.floor:
            points.append((Fraction(claim.floor) / claim.weight, claim.weight))
            points.append((Fraction(claim.ceiling) / claim.weight, -claim.weight))
    points.sort()
    level = Fraction(0)
    slope: Amount = 0
    for point, change in points:
        if total >= target:
            break
        reached = total + slope * (point - level)
        if reached >= target:
            return level + (target - total) / slope
        total, level, slope = reached, point, slope + change
    return level


def _clip(value: Amount, low: Amount, high: Amount) -> Fraction:
    return Fraction(min(max(value, low), high))


def feasible_weights(weights: Sequence[Amount], cpus: int) -> tuple[Fraction, ...]:
    """Return the weights with every share of `cpus` CPUs cut to at most one CPU.

    With no more claimants than CPUs everybody simply has a CPU: all get the smallest weight.
    """
    if len(weights) <= cpus:
        return tuple(Fraction(min(weights)) for _ in weights)
    order = sorted(range(len(weights)), key=lambda index: -weights[index])
    result = [Fraction(weight) for weight in weights]
    rest = sum(result, Fraction(0))
    left = cpus
    marked: list[int] = []
    for index in order:
        if left <= 1 or result[index] * left <= rest:
            break
        marked.append(index)
        rest -= result[index]
        left -= 1
    for index in reversed(marked):
        result[index] = rest / left
        rest += result[index]
        left += 1
    return tuple(result)
