"""Reservations: worlds whose guaranteed share is due are served first, earliest deadline first.

Models: each world with a reservation has a tag, the time up to which its reserved CPU has been delivered.  When the
tag has passed, the next quantum of reserved CPU is due, with its deadline one reserved quantum after the tag.  All
service counts, by shares or by reservation; service beyond the reservation moves the tag at most one quantum ahead,
and a world that sleeps forgets what it was owed.  So a world that stays runnable is served at least
`rate * time - 2 quanta` in every interval, if the reservations fit the host.

Leaves out: moving the reservation of idle vCPUs to their busy siblings (each vCPU holds an equal part).

Source: tags after mClock, Gulati, Merchant and Varman, OSDI 2010; the deadline order is ours, because order by tag
alone lets many small reservations delay a large one.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import gcd
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.kernel.world import World

__all__ = ["DueQueue", "Reservation"]

_KEY_BITS = (
    80  # more than the bits of the product of two rates: unequal fractions keep their order when rounded
)


class Reservation:
    """The guarantee of one world: `numerator / denominator` of a CPU."""

    __slots__ = ("denominator", "numerator", "span", "tag")

    def __init__(self, rate_hz: int, core_hz: int, quantum_ns: int, now_ns: int) -> None:
        common = gcd(rate_hz, core_hz)
        self.numerator = rate_hz // common
        self.denominator = core_hz // common
        self.span = quantum_ns * self.denominator
        self.tag = now_ns * self.numerator  # in ns times the numerator

    def charge(self, ran_ns: int, now_ns: int) -> None:
        """Account for service that ended now."""
        ahead = now_ns * self.numerator + self.span
        tag = self.tag + ran_ns * self.denominator
        self.tag = tag if tag < ahead else ahead

    def wake(self, now_ns: int) -> None:
        """Forget what is owed: the world did not want CPU until now."""
        self.tag = max(self.tag, now_ns * self.numerator)

    def due(self, now_ns: int) -> bool:
        """Whether a reserved quantum is due."""
        return self.tag <= now_ns * self.numerator

    @property
    def tag_key(self) -> int:
        """The tag as an integer that orders tags of different rates exactly."""
        return (self.tag << _KEY_BITS) // self.numerator

    @property
    def deadline_key(self) -> int:
        """The deadline, likewise."""
        return (self.tag + self.span << _KEY_BITS) // self.numerator


Entry = tuple[int, int, "World"]


class DueQueue:
    """The READY worlds that hold a reservation: those not yet due by tag, those due by deadline."""

    __slots__ = ("_due", "_later")

    def __init__(self) -> None:
        self._later: list[Entry] = []
        self._due: list[Entry] = []

    def push(self, world: World, seq: int) -> None:
        """Add a world that has just become READY with queue number `seq`."""
        assert world.reservation is not None
        heappush(self._later, (world.reservation.tag_key, seq, world))

    def pop(self, now_ns: int) -> World | None:
        """Return the due world with the earliest deadline, or None."""
        later, due = self._later, self._due
        now_key = now_ns << _KEY_BITS
        while later and later[0][0] <= now_key:
            _, seq, world = heappop(later)
            if world.seq == seq:
                assert world.reservation is not None
                heappush(due, (world.reservation.deadline_key, seq, world))
        while due:
            _, seq, world = heappop(due)
            if world.seq == seq:
                return world
        return None

    def __bool__(self) -> bool:
        return bool(self._later or self._due)

    def __len__(self) -> int:
        return len(self._later) + len(self._due)

    def compact(self) -> None:
        """Drop the entries of worlds that have left the queue by another way."""
        for heap in (self._later, self._due):
            heap[:] = [entry for entry in heap if entry[2].seq == entry[1]]
            heapify(heap)
