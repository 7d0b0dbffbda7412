"""What policies that keep virtual time have in common: the competing worlds, their weights, and prices that are exact.

Models: virtual time in whole units which every weight in use divides, so that equal shares stay exactly equal and a
common factor of all shares changes nothing; the price of a world, which is virtual time per nanosecond of CPU; and, if
the policy wants it, weights cut to shares of at most one CPU whenever worlds begin or cease to compete.

Leaves out: reservations and pools (weights are the shares of single worlds).  Weights whose least common multiple has
more than 256 bits get prices that are rounded.

Sources: start-time tags, Goyal, Vin and Cheng, SIGCOMM 1996; readjustment of weights, Chandra, Adler, Goyal and Shenoy,
"Surplus fair scheduling", OSDI 2000.  The unit is ours.
"""

from __future__ import annotations

from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING

from sim.errors import SimBug
from sim.kernel.sched.fluid import feasible_weights
from sim.kernel.sched.policy import Policy

if TYPE_CHECKING:
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["VirtualTimePolicy"]

EXACT_BITS_MAX = 256
"""The longest unit of virtual time; prices beyond it are rounded."""

_FIRST_UNIT = 1 << 20  # so that what must be divided can be divided with precision

Weight = int | Fraction


class VirtualTimePolicy(Policy):
    """A policy that keeps `world.vtime`; `readjust`: whether weights that ask for over one CPU are cut.

    `world.price` is kept right for every competing world; `total` is the sum of their weights, as readjusted.
    """

    def __init__(self, *, readjust: bool = False) -> None:
        self.readjust = readjust

    def attach(self, host: Scheduler) -> None:
        """Begin with nobody."""
        super().attach(host)
        self.unit = _FIRST_UNIT
        self.competing: dict[int, World] = {}
        self.effective: dict[int, Weight] = {}  # world id -> weight as readjusted
        self.total: Weight = 0
        self._counts: dict[int, int] = {}  # shares -> how many worlds compete with so many
        self._shares = 0  # of all of them
        self._cut = False

    def weight_of(self, world: World) -> Weight:
        """Return a competing world's weight, as readjusted."""
        return self.effective[world.world_id]

    def reweighed(self, world: World, old: Weight, new: Weight) -> None:
        """Learn that a competing world's weight changes because others have come or gone; its price has not yet."""

    def reordered(self) -> None:
        """Learn that virtual times of worlds in the queue may have changed."""

    def stretched(self, factor: int) -> None:
        """Learn that every virtual time and price has been multiplied: the unit has become finer."""

    def enter(self, world: World) -> None:
        """Take a world among those that compete, and set its price; `rebalance` is to follow."""
        if world.world_id in self.competing:
            raise SimBug(f"world {world.world_id} competes already")
        self.competing[world.world_id] = world
        self._counts[world.weight] = self._counts.get(world.weight, 0) + 1
        self._shares += world.weight
        self._set_weight(world, world.weight)

    def depart(self, world: World) -> None:
        """Take a world out of those that compete; `rebalance` is to follow."""
        del self.competing[world.world_id]
        self.total -= self.effective.pop(world.world_id)
        self._counts[world.weight] -= 1
        if not self._counts[world.weight]:
            del self._counts[world.weight]
        self._shares -= world.weight

    def rebalance(self) -> None:
        """Cut weights to what is feasible, or give them back what was cut."""
        cpus = self.host.online.bit_count()
        infeasible = self.readjust and bool(self._counts) and max(self._counts) * cpus > self._shares
        if not infeasible and not self._cut:
            return
        worlds = list(self.competing.values())
        weights: list[Weight] = [world.weight for world in worlds]
        if infeasible:
            weights = [_whole(weight) for weight in feasible_weights(weights, cpus)]
        self._cut = infeasible
        for world, weight in zip(worlds, weights, strict=True):
            old = self.effective[world.world_id]
            if old != weight:
                self.reweighed(world, old, weight)
                self._set_weight(world, weight)
        self.reordered()

    def settle(self, now_ns: int) -> None:
        """Bring all charges up to now."""
        for pcpu in self.host.pcpus:
            pcpu.settle(now_ns)

    def reconfigured(self) -> None:
        """Look at the weights again: there may be more pCPUs, or fewer."""
        self.settle(self.host.sim.now)
        self.rebalance()

    def _set_weight(self, world: World, weight: Weight) -> None:
        self.total += weight - self.effective.get(world.world_id, 0)
        self.effective[world.world_id] = weight
        divisor = weight.numerator
        if self.unit % divisor:
            unit = lcm(self.unit, divisor)
            if unit.bit_length() <= EXACT_BITS_MAX:
                self._stretch(unit // self.unit)
        world.price = max(1, self.unit * weight.denominator // divisor)

    def _stretch(self, factor: int) -> None:
        self.unit *= factor
        for world in self.host.worlds.values():
            world.vtime *= factor
            world.price *= factor
        self.stretched(factor)

    def check_invariants(self) -> None:
        """Raise `SimBug` unless the sums are those of the competing worlds."""
        worlds = self.competing.values()
        if self.total != sum(self.effective.values()) or self._shares != sum(each.weight for each in worlds):
            raise SimBug(f"policy {self.name}: the weights of {len(worlds)} worlds do not add up")


def _whole(weight: Fraction) -> Weight:
    return weight.numerator if weight.denominator == 1 else weight
