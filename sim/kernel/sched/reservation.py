"""Reservations: a world that falls behind its guaranteed share is served first, earliest deadline first.

Models: each world with a reservation has a tag, the time up to which its reserved CPU has been delivered.  Prices
(`weights`) already give it its share on average; the tag bounds how far it may fall behind.  What the world is owed
grows at its rate.  A world that is owed half of what a whole turn of waiting may leave it short of a turn is due, and
goes before all shares.  Service beyond the reservation moves the tag at most one turn ahead, and a world that sleeps
forgets what it was owed.  So a world that stays runnable is served at least `rate * time - 2 quanta` in any interval:
seen in all tests, not proved for several CPUs.

Leaves out: moving the reservation of idle vCPUs to their busy siblings (each vCPU holds an equal part).

Source: tags after mClock, Gulati, Merchant and Varman, OSDI 2010; when a world is due, and the order by deadline,
are ours.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import gcd
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.kernel.sched.pcpu import PcpuRunner
    from sim.kernel.world import World

__all__ = ["TURNS_WITH_RESERVATION", "DueQueue", "Reservation"]

TURNS_WITH_RESERVATION = 2
"""Into so many turns a quantum is cut while worlds with reservations compete, so that none waits long for its due."""

_KEY_BITS = (
    80  # more than the bits of the product of two rates: unequal fractions keep their order when rounded
)


class Reservation:
    """The guarantee of one world: `numerator / denominator` of a CPU."""

    __slots__ = ("denominator", "numerator", "patience", "span", "tag")

    def __init__(self, rate_hz: int, core_hz: int, quantum_ns: int, now_ns: int) -> None:
        common = gcd(rate_hz, core_hz)
        self.numerator = rate_hz // common
        self.denominator = core_hz // common
        turn_ns = max(1, quantum_ns // TURNS_WITH_RESERVATION)
        self.span = turn_ns * self.denominator
        self.patience = turn_ns * (self.denominator - self.numerator) // 2
        self.tag = now_ns * self.numerator  # in ns times the numerator

    def charge(self, ran_ns: int, now_ns: int) -> None:
        """Count service that ended now."""
        ahead = now_ns * self.numerator + self.span
        tag = self.tag + ran_ns * self.denominator
        self.tag = tag if tag < ahead else ahead

    def wake(self, now_ns: int) -> None:
        """Forget what is owed: the world did not want CPU until now."""
        self.tag = max(self.tag, now_ns * self.numerator)

    @property
    def due_key(self) -> int:
        """When the world is due, as an integer that orders times of different rates exactly."""
        return (self.tag + self.patience << _KEY_BITS) // self.numerator

    @property
    def deadline_key(self) -> int:
        """When a whole turn is owed, likewise."""
        return (self.tag + self.span << _KEY_BITS) // self.numerator


Entry = tuple[int, int, "World"]


class DueQueue:
    """The READY worlds that hold a reservation: those not yet due, and those due by deadline."""

    __slots__ = ("_due", "_later")

    def __init__(self) -> None:
        self._later: list[Entry] = []
        self._due: list[Entry] = []

    def push(self, world: World, seq: int) -> None:
        """Add a world that has just become READY with queue number `seq`."""
        assert world.reservation is not None
        heappush(self._later, (world.reservation.due_key, seq, world))

    def pop(self, now_ns: int, pcpu: PcpuRunner) -> World | None:
        """Return the due world with the earliest deadline of those that may run on `pcpu`, or None."""
        later, due = self._later, self._due
        now_key = now_ns << _KEY_BITS
        while later and later[0][0] <= now_key:
            _, seq, world = heappop(later)
            if world.seq == seq:
                assert world.reservation is not None
                heappush(due, (world.reservation.deadline_key, seq, world))
        passed, found = [], None
        while due and found is None:
            entry = heappop(due)
            if entry[2].seq == entry[1]:
                if entry[2].sched.fits(entry[2], pcpu):
                    found = entry[2]
                else:
                    passed.append(entry)
        for entry in passed:
            heappush(due, entry)
        return found

    def __bool__(self) -> bool:
        return bool(self._later or self._due)

    def __len__(self) -> int:
        return len(self._later) + len(self._due)

    def compact(self) -> None:
        """Drop the entries of worlds that have left the queue by another way."""
        for heap in (self._later, self._due):
            heap[:] = [entry for entry in heap if entry[2].seq == entry[1]]
            heapify(heap)
