"""Weights of the worlds that compete now, and what one nanosecond of CPU costs each in virtual time.

Models: virtual time as whole multiples of a unit that every weight seen so far divides, so that equal shares stay
exactly equal; and the readjustment of weights whose share would be more than one CPU (`fluid.feasible_weights`),
kept up to date as worlds wake and sleep.  Scaling all weights by a constant changes nothing.

Leaves out: pools, and weights that vary over a VM's idle vCPUs.

Source: the readjustment rule of Chandra et al., OSDI 2000; with reservations its level comes from `fluid_shares`.
"""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction
from math import gcd, lcm

from sim.errors import SimBug
from sim.kernel.sched.fluid import Claim, fluid_shares

__all__ = ["ActiveWeights"]

EXACT_BITS_MAX = 64
"""Weights whose least common multiple has more bits than this get steps that are rounded down."""

_FRACTION_BITS = 24
_ROUNDED_BITS = 96

Floor = tuple[int, int]  # reserved CPU as (numerator, denominator)


class ActiveWeights:
    """Counts the competing worlds by weight and floor.

    `unit`: virtual time per nanosecond and weight 1.
    """

    __slots__ = ("_classes", "_counts", "_order", "_total", "count", "cpus", "unit")

    def __init__(self, cpus: int) -> None:
        self.cpus = cpus
        self.count = 0
        self.unit = 1 << _FRACTION_BITS
        self._total = 0
        self._counts: dict[int, int] = {}
        self._order: list[int] = []  # the weights seen, rising
        self._classes: dict[tuple[int, Floor], int] = {}  # competing worlds with a floor

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

    def step(self, weight: int) -> int:
        """Return the virtual time of one nanosecond of CPU at this weight, rounded down."""
        return self.unit // weight

    def add(self, weight: int, floor: Floor | None) -> None:
        """Count a world in: it begins to compete."""
        self._change(weight, floor, 1)

    def remove(self, weight: int, floor: Floor | None) -> None:
        """Count a world out: it stops competing."""
        self._change(weight, floor, -1)

    @property
    def contended(self) -> bool:
        """Whether there are more competing worlds than CPUs."""
        return self.count > self.cpus

    def cap_step(self) -> int:
        """Return the least cost per nanosecond that keeps every share within one CPU; 0: all weights are feasible.

        Asked only when contended.
        """
        rest, left = self._total, self.cpus
        for weight in reversed(self._order):
            count = self._counts[weight]
            if not count:
                continue
            if weight * left <= rest:
                break
            rest -= weight * count
            left -= count
        if left == self.cpus:
            return 0
        if self._classes:
            return self._cap_with_floors()
        return self.unit * left // rest

    def _cap_with_floors(self) -> int:
        """Floors take from the others, which lowers the level at which a weight becomes infeasible."""
        plain = dict(self._counts)
        claims = []
        for (weight, (numerator, denominator)), count in self._classes.items():
            plain[weight] -= count
            floor = Fraction(numerator * count, denominator)
            claims.append(Claim(weight=weight * count, floor=floor, ceiling=count))
        claims += [Claim(weight=weight * count, ceiling=count) for weight, count in plain.items() if count]
        return int(self.unit * fluid_shares(self.cpus, claims).level)

    def _change(self, weight: int, floor: Floor | None, by: int) -> None:
        self.count += by
        self._total += weight * by
        self._counts[weight] += by
        if floor is not None:
            found = self._classes.get((weight, floor), 0) + by
            if found:
                self._classes[weight, floor] = found
            else:
                del self._classes[weight, floor]

    def check_invariants(self) -> None:
        """Raise `SimBug` unless the counts agree."""
        total = sum(weight * count for weight, count in self._counts.items())
        if total != self._total or sum(self._counts.values()) != self.count or self.count < 0:
            raise SimBug(f"the counts of competing weights disagree: {self._counts}, total {self._total}")
