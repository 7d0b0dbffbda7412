"""Lottery scheduling: each quantum goes to the holder of a ticket that is drawn at random.

Models: as many tickets as shares; a draw among the READY worlds in O(log n), from the stream `policy/lottery` of the
host's seed.  As an option compensation tickets: a world that has used the part f of its quantum before it slept holds
1/f times its tickets until it runs again (policy `lotterycomp`).

Service after n draws is binomial, so the error against the ideal grows with the square root of n, without bound.

Leaves out: currencies, tickets lent and inflated; reservations, pools, and preemption when a world wakes.

Source: Waldspurger and Weihl, "Lottery scheduling: flexible proportional-share resource management", OSDI 1994.  One
queue for several CPUs is ours; so is that a world starts at once, without a draw, while a pCPU is idle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.errors import SimBug
from sim.kernel.sched.policy import Policy

if TYPE_CHECKING:
    from sim.kernel.sched.pcpu import PcpuRunner
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["CompensatedLottery", "Lottery"]


class Lottery(Policy):
    """Draws a ticket for each turn; `compensation`: whether those who sleep early get compensation tickets.

    `world.vtime` is what a world has run of its present quantum, in ns; `world.seq` its place in the urn.
    """

    name = "lottery"

    def __init__(self, *, compensation: bool = False) -> None:
        self.compensation = compensation

    def attach(self, host: Scheduler) -> None:
        """Begin with an empty urn."""
        super().attach(host)
        self._urn = Urn()
        self._stream = host.sim.rng.fast("policy/lottery")

    def tickets(self, world: World) -> int:
        """Return how many tickets a world holds now."""
        if not self.compensation or not world.vtime:
            return world.weight
        quantum_ns = self.host.options.quantum_ns
        return world.weight * max(quantum_ns, world.vtime) // world.vtime

    def place(self, world: World, now_ns: int) -> PcpuRunner | None:
        """Start on an idle pCPU, without a draw."""
        pcpu = super().place(world, now_ns)
        if pcpu is not None:
            world.vtime = 0
        return pcpu

    def charge(self, world: World, ran_ns: int) -> None:
        """Note how much of its quantum the world has used."""
        world.vtime += ran_ns

    def enqueue(self, world: World, now_ns: int) -> None:
        """Put the world's tickets into the urn."""
        self._urn.put(world, self.tickets(world))

    def dequeue(self, world: World) -> None:
        """Take its tickets out."""
        self._urn.take(world)

    def pick(self, pcpu: PcpuRunner, now_ns: int) -> World | None:
        """Draw a ticket; those of worlds that may not run here are laid aside."""
        aside = []
        while self._urn.total:
            world = self._urn.holder(self._stream.below(self._urn.total))
            if world.may_run_on(pcpu):
                break
            aside.append(world)
            self._urn.take(world)
        else:
            world = None
        if world is not None:
            self._urn.take(world)
            world.vtime = 0
        for other in aside:
            self._urn.put(other, self.tickets(other))
        return world

    def queued(self) -> int:
        """Count the holders in the urn."""
        return self._urn.count

    def check_invariants(self) -> None:
        """Raise `SimBug` unless the urn's sums are right."""
        self._urn.check_invariants()


class CompensatedLottery(Lottery):
    """A lottery with compensation tickets."""

    name = "lotterycomp"

    def __init__(self) -> None:
        super().__init__(compensation=True)


class Urn:
    """Tickets with their holders: partial sums in a Fenwick tree; `world.seq` is the holder's place in it, from 1."""

    def __init__(self) -> None:
        self.total = self.count = 0
        self._holders: list[World | None] = [None]
        self._tickets = [0]
        self._sums = [0]
        self._free: list[int] = []

    def put(self, world: World, tickets: int) -> None:
        """Put in a world's tickets."""
        if not self._free:
            self._grow()
        place = self._free.pop()
        world.seq = place
        self._holders[place] = world
        self.count += 1
        self._add(place, tickets)

    def take(self, world: World) -> None:
        """Take a world's tickets out."""
        place = world.seq
        self._add(place, -self._tickets[place])
        self._holders[place] = None
        self._free.append(place)
        self.count -= 1
        world.seq = 0

    def holder(self, number: int) -> World:
        """Return who holds ticket `number`, from 0 on."""
        place, step = 0, (len(self._sums) - 1) or 1
        while step:
            if place + step < len(self._sums) and self._sums[place + step] <= number:
                place += step
                number -= self._sums[place]
            step //= 2
        found = self._holders[place + 1]
        assert found is not None
        return found

    def _add(self, place: int, change: int) -> None:
        self.total += change
        self._tickets[place] += change
        while place < len(self._sums):
            self._sums[place] += change
            place += place & -place

    def _grow(self) -> None:
        """Double the places (their number is a power of two), and add the sums up again."""
        old = len(self._sums) - 1
        new = max(8, 2 * old)
        self._holders += [None] * (new - old)
        self._tickets += [0] * (new - old)
        self._free = list(range(new, old, -1))
        self._sums = [0] * (new + 1)
        for place in range(1, new + 1):
            self._sums[place] += self._tickets[place]
            above = place + (place & -place)
            if above <= new:
                self._sums[above] += self._sums[place]

    def check_invariants(self) -> None:
        """Raise `SimBug` unless all counts and sums agree."""
        held = [place for place, world in enumerate(self._holders) if world is not None]
        if len(held) != self.count or sum(self._tickets) != self.total:
            raise SimBug(f"an urn of {self.count} holders and {self.total} tickets does not add up")
        for place in range(1, len(self._sums)):
            if self._sums[place] != sum(self._tickets[place - (place & -place) + 1 : place + 1]):
                raise SimBug(f"the partial sum {place} of an urn is wrong")
