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
from math import lcm

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
    whole = Fraction(capacity)
    scale = _common_denominator(whole, claims)
    floors = [_scaled(claim.floor, scale) for claim in claims]
    ceilings = [_scaled(claim.ceiling, scale) for claim in claims]
    weights = [_scaled(claim.weight, scale) for claim in claims]
    total, available = sum(floors), _scaled(whole, scale)
    if total > available:
        raise FloorsExceedCapacity(f"floors of {Fraction(total, scale)} exceed the capacity of {capacity}")
    target = min(available, sum(ceilings))
    upper, lower = _level(total, target, floors, ceilings, weights)
    shares = []
    for floor, ceiling, weight in zip(floors, ceilings, weights, strict=True):
        product = upper * weight  # the share is this over `lower`, in units of 1 over `scale`
        if product <= floor * lower:
            shares.append(Fraction(floor, scale))
        elif product >= ceiling * lower:
            shares.append(Fraction(ceiling, scale))
        else:
            shares.append(Fraction(product, lower * scale))
    return FluidShares(shares=tuple(shares), level=Fraction(upper, lower))


def _level(
    fixed: int, target: int, floors: list[int], ceilings: list[int], weights: list[int]
) -> tuple[int, int]:
    """Sweep the break points upwards until the sum of the shares, `fixed` at level 0, reaches `target`.

    At a level the sum is `fixed + slope * level`: claims at a bound, and those between.  All are integers; returns
    numerator and denominator of the level.
    """
    if fixed >= target:
        return 0, 1
    bits = 2 * max(weights).bit_length() + 1  # levels that differ do so by more than 2**-bits
    points: list[tuple[int, int, int, int]] = []
    for floor, ceiling, weight in zip(floors, ceilings, weights, strict=True):
        if ceiling > floor:
            points.append(((floor << bits) // weight, floor, weight, 1))
            points.append(((ceiling << bits) // weight, ceiling, weight, -1))
    points.sort()
    slope = 0
    for _, bound, weight, sign in points:
        if fixed * weight + slope * bound >= target * weight:
            break
        fixed -= sign * bound
        slope += sign * weight
    return target - fixed, slope


def _common_denominator(capacity: Amount, claims: Sequence[Claim]) -> int:
    """Return the least number that makes whole numbers of all amounts."""
    amounts = (
        amount
        for claim in claims
        for amount in (claim.floor, claim.ceiling, claim.weight)
        if amount.__class__ is not int
    )
    return lcm(capacity.denominator, *{amount.denominator for amount in amounts})


def _scaled(amount: Amount, scale: int) -> int:
    """Return `scale` times an amount, which is whole."""
    if amount.__class__ is int:
        return amount * scale
    return amount.numerator * (scale // amount.denominator)


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
