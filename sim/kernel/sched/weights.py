"""Weights of the worlds that compete now, and what one nanosecond of CPU costs each in virtual time.

Models: virtual time as whole multiples of a unit that every weight seen so far divides, so that equal shares stay
exactly equal; and its price.  A world's price is one over its weight, but where that would give it more than one CPU,
less than its reservation or more than its limit, the price follows the share it is entitled to.  All those prices
hang on one number, the level: the price at which a world has a whole CPU.  Scaling all weights by a constant changes
nothing.

Leaves out: pools, and weights that move from a VM's idle vCPUs to the busy ones.

Source: readjustment of infeasible weights, Chandra et al., OSDI 2000; levels with floors and ceilings from
`fluid_shares`.
"""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction
from math import gcd, lcm
from typing import TYPE_CHECKING

from sim.errors import SimBug
from sim.kernel.sched.fluid import Claim, fluid_shares

if TYPE_CHECKING:
    from sim.kernel.sched.limit import LimitBucket
    from sim.kernel.world import World

__all__ = ["ActiveWeights"]

EXACT_BITS_MAX = 64
"""Weights whose least common multiple has more bits than this get prices that are rounded down."""

_FRACTION_BITS = 40
_ROUNDED_BITS = 104
_LEVEL_SHIFT = 24  # the level is at least the unit over 2**24, so that it can still be divided with precision


class ActiveWeights:
    """The competing worlds, by weight, reservation and limit.

    `count`: how many; `reserved`: how many of them hold a reservation; `unit`: virtual time per nanosecond at weight 1.
    """

    __slots__ = (
        "_counts",
        "_order",
        "_special",
        "_special_count",
        "_total",
        "count",
        "cpus",
        "reserved",
        "unit",
    )

    def __init__(self, cpus: int) -> None:
        self.cpus = cpus
        self.count = 0
        self.reserved = 0
        self.unit = 1 << _FRACTION_BITS
        self._total = 0
        self._counts: dict[int, int] = {}
        self._order: list[int] = []  # the weights seen, rising
        self._special: dict[tuple[int, tuple[int, int] | None, int], tuple[LimitBucket | None, int]] = {}
        self._special_count = 0

    def knows(self, weight: int) -> bool:
        """Whether the unit already suits this weight."""
        return weight in self._counts

    def learn(self, weight: int) -> tuple[int, int]:
        """Make the unit suit a new weight; tags must be multiplied by the returned new unit / old unit."""
        old = self.unit
        self._counts[weight] = 0
        self._order.insert(bisect_left(self._order, weight), weight)
        common = lcm(*self._order)
        if common.bit_length() <= EXACT_BITS_MAX:
            self.unit = common << _FRACTION_BITS
        else:
            self.unit = gcd(*self._order) << _ROUNDED_BITS
        return self.unit, old

    def price(self, world: World, level: int) -> int:
        """Return the virtual time of one nanosecond of CPU for `world` at this level (0: not known yet)."""
        price = max(self.unit // world.weight, level)
        if level and world.special:
            if world.floor is not None:
                numerator, denominator = world.floor
                price = min(price, level * denominator // numerator)
            bucket = world.bucket
            if bucket is not None and bucket.numerator < bucket.denominator * bucket.width:
                price = max(price, level * bucket.denominator * bucket.width // bucket.numerator)
        return price

    def add(self, world: World) -> None:
        """Count a world in: it begins to compete."""
        self._change(world, 1)

    def remove(self, world: World) -> None:
        """Count a world out: it stops competing."""
        self._change(world, -1)

    @property
    def contended(self) -> bool:
        """Whether there are more competing worlds than CPUs."""
        return self.count > self.cpus

    def find_level(self) -> int:
        """Return the price of a whole CPU for the worlds that compete now; asked only when contended."""
        return self._bounded_level() if self._special_count else self._plain_level()

    def _plain_level(self) -> int:
        """Worlds compete by weight alone: take out those worth more than a CPU, the rest share what is left."""
        rest, left = self._total, self.cpus
        for weight in reversed(self._order):
            count = self._counts[weight]
            if weight * left <= rest:
                break
            rest -= weight * count
            left -= count
        return self.unit * left // rest

    def _bounded_level(self) -> int:
        """Reservations and limits are among them: ask the fluid solver, with equal worlds as one claim."""
        plain = dict(self._counts)
        claims = []
        for (weight, floor, _), (bucket, count) in self._special.items():
            plain[weight] -= count
            ceiling = Fraction(count)
            if bucket is not None:
                bucket.width = bucket.competing
                ceiling = min(ceiling, Fraction(bucket.numerator, bucket.denominator))
            lowest = Fraction(0) if floor is None else min(ceiling, Fraction(*floor) * count)
            claims.append(Claim(weight=weight * count, floor=lowest, ceiling=ceiling))
        claims += [Claim(weight=weight * count, ceiling=count) for weight, count in plain.items() if count]
        return max(int(self.unit * fluid_shares(self.cpus, claims).level), self.unit >> _LEVEL_SHIFT)

    def _change(self, world: World, by: int) -> None:
        weight = world.weight
        self.count += by
        self._total += weight * by
        self._counts[weight] += by
        if not world.special:
            return
        self._special_count += by
        bucket = world.bucket
        if world.floor is not None:
            self.reserved += by
        if bucket is not None:
            bucket.competing += by
        key = (weight, world.floor, -1 if bucket is None else bucket.number)
        count = self._special.get(key, (bucket, 0))[1] + by
        if count:
            self._special[key] = (bucket, count)
        else:
            del self._special[key]

    def check_invariants(self) -> None:
        """Raise `SimBug` unless the counts agree."""
        total = sum(weight * count for weight, count in self._counts.items())
        if total != self._total or sum(self._counts.values()) != self.count or self.count < 0:
            raise SimBug(f"the counts of competing weights disagree: {self._counts}, total {self._total}")
        if sum(count for _, count in self._special.values()) != self._special_count:
            raise SimBug(
                f"{self._special_count} competing worlds with bounds do not agree with their classes"
            )
