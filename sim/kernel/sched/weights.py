"""What one nanosecond of CPU costs each world that competes, in virtual time.

Models: virtual time as whole multiples of a unit that every weight seen so far divides, so that equal shares stay
exactly equal; and its price.  Without pools a world's price is one over its weight, but where that would give it more
than one CPU, less than its reservation or more than its limit, the price follows the share it is entitled to.  All those prices hang on
one number, the level: the price at which a world has a whole CPU.  With pools the entitlement is solved through the
tree (`entitlement`), and a price is one over what the world gets.  Scaling all weights by a constant changes nothing.

Leaves out: weights that move from a VM's idle vCPUs to the busy ones.

Source: readjustment of infeasible weights, Chandra et al., OSDI 2000; levels with floors and ceilings from
`fluid_shares`.
"""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction
from math import gcd, lcm
from typing import TYPE_CHECKING

from sim.errors import SimBug
from sim.kernel.sched.entitlement import Party, divide
from sim.kernel.sched.fluid import Amount, Claim, fluid_shares

if TYPE_CHECKING:
    from sim.kernel.sched.limit import LimitBucket
    from sim.kernel.sched.pools import Pool
    from sim.kernel.world import World

__all__ = ["ActiveWeights"]

EXACT_BITS_MAX = 64
"""Weights whose least common multiple has more bits than this get prices that are rounded down."""

_FRACTION_BITS = 40
_ROUNDED_BITS = 104
_LEVEL_SHIFT = 24  # the level is at least the unit over 2**24, so that it can still be divided with precision


class _Class:
    """Competing worlds that are entitled to the same: of one pool, weight, reservation and limit."""

    __slots__ = ("bound", "bucket", "count", "floor", "pool", "price", "weight")

    def __init__(self, world: World) -> None:
        self.pool: Pool | None = world.pool
        self.weight = world.weight
        self.floor = world.floor
        self.bucket: LimitBucket | None = world.bucket
        self.count = 0
        self.price = 0  # 0: not known yet
        self.bound = False  # whether the limit, and not the shares, says what they get

    @property
    def ceiling(self) -> Amount:
        """The CPUs that all of them can use."""
        whole: Amount = self.count
        bucket = self.bucket
        return whole if bucket is None else min(whole, Fraction(bucket.numerator, bucket.denominator))

    def lowest(self, ceiling: Amount) -> Amount:
        """Return the CPUs that are reserved for all of them."""
        floor = self.floor
        if floor is None:
            return 0
        return min(ceiling, Fraction(floor.numerator, floor.denominator) * self.count)


class ActiveWeights:
    """The competing worlds, by weight, reservation, limit and pool.

    `count`: how many; `counts`: how many by weight, for each weight that the unit suits; `reserved`: how many of them
    hold a reservation; `unit`: virtual time per nanosecond at weight 1; `pooled`: whether the host has pools.
    """

    __slots__ = (
        "_classes",
        "_order",
        "_special_count",
        "_total",
        "count",
        "counts",
        "cpus",
        "pooled",
        "reserved",
        "unit",
    )

    def __init__(self, cpus: int) -> None:
        self.cpus = cpus
        self.count = 0
        self.reserved = 0
        self.unit = 1 << _FRACTION_BITS
        self.pooled = False
        self._total = 0
        self.counts: dict[int, int] = {}
        self._order: list[int] = []  # the weights seen, rising
        self._classes: dict[int, _Class] = {}  # of special worlds; with pools, of all
        self._special_count = 0

    def learn(self, weight: int) -> tuple[int, int]:
        """Make the unit suit a new weight; tags must be multiplied by the returned new unit / old unit."""
        old = self.unit
        self.counts[weight] = 0
        self._order.insert(bisect_left(self._order, weight), weight)
        common = lcm(*self._order)
        if common.bit_length() <= EXACT_BITS_MAX:
            self.unit = common << _FRACTION_BITS
        else:
            self.unit = gcd(*self._order) << _ROUNDED_BITS
        return self.unit, old

    def price(self, world: World, level: int) -> int:
        """Return the virtual time of one nanosecond of CPU for `world` at this level (0: not known yet)."""
        if self.pooled and level:
            one = self._classes.get(world.claim)
            return one.price if one is not None and one.price else level
        price = self.unit // world.weight
        if price < level and world.affinity == -1:
            price = level
        if level and world.floor is not None:
            price = min(price, level * world.floor.denominator // world.floor.numerator)
        bucket = world.bucket
        if level and bucket is not None and bucket.numerator < bucket.denominator * bucket.width:
            price = max(price, level * bucket.denominator * bucket.width // bucket.numerator)
        return price

    def is_bound(self, world: World, level: int) -> bool:
        """Whether its limit, and not its shares, says what a world gets."""
        bucket = world.bucket
        if bucket is None or not level:
            return False
        if self.pooled:
            one = self._classes.get(world.claim)
            return one is not None and one.bound
        free = max(self.unit // world.weight, level)
        return level * bucket.denominator * bucket.width > free * bucket.numerator

    def change(self, world: World, by: int) -> None:
        """Count a world in (1): it begins to compete; or out (-1)."""
        weight = world.weight
        self.count += by
        self._total += weight * by
        self.counts[weight] += by
        if world.special:
            self._special_count += by
            if world.floor is not None:
                self.reserved += by
            if world.bucket is not None:
                world.bucket.competing += by
        elif not self.pooled:
            return
        one = self._classes.get(world.claim)
        if one is None:
            one = self._classes[world.claim] = _Class(world)
        one.count += by
        if not one.count:
            del self._classes[world.claim]

    @property
    def contended(self) -> bool:
        """Whether there are more competing worlds than CPUs."""
        return self.count > self.cpus

    def find_level(self) -> int:
        """Return the price of a whole CPU for the worlds that compete now."""
        if not self.count:
            return self.unit
        if self.pooled:
            return self._tree_level()
        return self._bounded_level() if self._special_count else self._plain_level()

    def _plain_level(self) -> int:
        """Worlds compete by weight alone: take out those worth more than a CPU, the rest share what is left."""
        if not self.contended:
            return self.unit // next(weight for weight in self._order if self.counts[weight])
        rest, left = self._total, self.cpus
        for weight in reversed(self._order):
            count = self.counts[weight]
            if weight * left <= rest:
                break
            rest -= weight * count
            left -= count
        return self.unit * left // rest

    def _bounded_level(self) -> int:
        """Reservations and limits are among them: ask the fluid solver, with equal worlds as one claim."""
        plain = dict(self.counts)
        claims = []
        for one in self._classes.values():
            plain[one.weight] -= one.count
            if one.bucket is not None:
                one.bucket.width = one.bucket.competing
            ceiling = one.ceiling
            claims.append(Claim(weight=one.weight * one.count, floor=one.lowest(ceiling), ceiling=ceiling))
        claims += [Claim(weight=weight * count, ceiling=count) for weight, count in plain.items() if count]
        return max(int(self.unit * fluid_shares(self.cpus, claims).level), self.unit >> _LEVEL_SHIFT)

    def _tree_level(self) -> int:
        """There are pools: divide through the tree, and price every class by its pool's level."""
        below: dict[int, list[Party]] = {}
        pools: dict[int, Pool] = {}
        shares: dict[int, int | Fraction] = {}
        for index, one in enumerate(self._classes.values()):
            number = 0
            if one.pool is not None:
                number = one.pool.number
                above: Pool | None = one.pool
                while above is not None:
                    pools[above.number] = above
                    above = above.parent
            ceiling = one.ceiling
            weight = one.weight * one.count
            shares[number] = shares.get(number, 0) + weight
            party = Party(name=f"c{index}", weight=weight, floor=one.lowest(ceiling), ceiling=ceiling)
            below.setdefault(number, []).append(party)
        for pool in sorted(pools.values(), key=lambda each: (-each.depth, each.number)):
            parent = 0 if pool.parent is None else pool.parent.number
            weight_of_pool = pool.spec.shares_with(int(shares.get(pool.number, 0)))
            shares[parent] = shares.get(parent, 0) + weight_of_pool
            below.setdefault(parent, []).append(
                Party(
                    name=f"p{pool.number}",
                    weight=weight_of_pool,
                    floor=self._cpus(pool.spec.reservation_hz, pool),
                    ceiling=None if pool.spec.limit_hz is None else self._cpus(pool.spec.limit_hz, pool),
                    children=tuple(below.pop(pool.number)),
                )
            )
        self._set_prices(divide(Party(name="", weight=1, children=tuple(below[0])), self.cpus))
        return self.unit

    def _set_prices(self, found: dict[str, tuple[Fraction, Fraction]]) -> None:
        highest = self.unit << _LEVEL_SHIFT
        for index, one in enumerate(self._classes.values()):
            share, level = found[f"c{index}"]
            one.bound = one.bucket is not None and level * one.weight * one.count > share < one.count
            each = min(share / one.count, Fraction(1))
            one.price = highest if not each else min(highest, self.unit * each.denominator // each.numerator)

    @staticmethod
    def _cpus(hz: int, pool: Pool) -> Fraction:
        return Fraction(hz, pool.core_hz)

    def regroup(self, worlds: list[World], *, pooled: bool) -> None:
        """Sort the competing `worlds` anew: the host has got its first pool, or lost its last."""
        self.pooled = pooled
        self._classes.clear()
        for world in worlds:
            if pooled or world.special:
                self._classes.setdefault(world.claim, _Class(world)).count += 1

    def check_invariants(self) -> None:
        """Raise `SimBug` unless the counts agree."""
        total = sum(weight * count for weight, count in self.counts.items())
        if total != self._total or sum(self.counts.values()) != self.count or self.count < 0:
            raise SimBug(f"the counts of competing weights disagree: {self.counts}, total {self._total}")
        classed = self.count if self.pooled else self._special_count
        if sum(one.count for one in self._classes.values()) != classed:
            raise SimBug(f"{classed} competing worlds do not agree with their classes")
