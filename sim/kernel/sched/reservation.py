"""Reservations: a world that falls behind its guaranteed share is served first, earliest deadline first.

Models: each world with a reservation has a tag, the time up to which its reserved CPU has been delivered.  Prices
(`weights`) already give it its share on average; the tag bounds how far it may fall behind.  What the world is owed
grows at its rate.  A world that is owed half of what a whole turn of waiting may leave it short of a turn is due, and
goes before all shares.  Service beyond the reservation moves the tag at most one turn ahead, and a world that sleeps
forgets what it was owed.  So a world that stays runnable is served at least `rate * time - 2 quanta` in any interval:
seen in all tests, not proved for several CPUs.  A reservation is its VM's: the vCPUs that compete hold equal parts of it,
of at most one CPU each, so that what idle ones do not want goes to their busy siblings.

Leaves out: shares and limits, which the idle vCPUs of a VM keep; the vCPUs that a VM has for itself alone (`machine`).

Source: tags after mClock, Gulati, Merchant and Varman, OSDI 2010; when a world is due, and the order by deadline,
are ours.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import gcd
from typing import TYPE_CHECKING

from sim.errors import SimBug

if TYPE_CHECKING:
    from sim.kernel.sched.pcpu import PcpuRunner
    from sim.kernel.world import World

__all__ = ["TURNS_WITH_RESERVATION", "DueQueue", "Guarantee", "Reservation"]

TURNS_WITH_RESERVATION = 2
"""Into so many turns a quantum is cut while worlds with reservations compete, so that none waits long for its due."""

_KEY_BITS = (
    96  # more than the bits of the product of two rates: unequal fractions keep their order when rounded
)


_PARTS_BITS = 10  # a part of a VM's reservation is known to 2**-10 Hz

_DUES_MIN = 256  # so many entries are never looked through for those that no longer count


class Guarantee:
    """The reservation of one VM: `numerator / denominator` of a CPU for each of its `competing` vCPUs.

    `number` is 0 for the only vCPU of a VM, whose part never changes.
    """

    __slots__ = (
        "_delivered",
        "_since_ns",
        "_total",
        "_turn_ns",
        "competing",
        "denominator",
        "number",
        "numerator",
        "patience",
        "span",
    )

    def __init__(self, total_hz: int, core_hz: int, quantum_ns: int, number: int) -> None:
        self.number = number
        common = 1 if number else gcd(total_hz, core_hz)
        self._total = total_hz // common << self._bits
        self.denominator = core_hz // common << self._bits
        self.competing = 0
        self._set_turn(quantum_ns)
        self._delivered = self._since_ns = 0  # what each was guaranteed by then
        self._divide()

    @property
    def _bits(self) -> int:
        return _PARTS_BITS if self.number else 0

    def _set_turn(self, quantum_ns: int) -> None:
        self._turn_ns = max(1, quantum_ns // TURNS_WITH_RESERVATION)
        self.span = self._turn_ns * self.denominator

    def _divide(self) -> None:
        part = self._total // max(1, self.competing)
        self.numerator = min(max(1, part), self.denominator)
        self.patience = self._turn_ns * (self.denominator - self.numerator) // 2

    @property
    def whole(self) -> bool:
        """Whether each vCPU is guaranteed a whole CPU, so that it can never make up for lost time."""
        return self.numerator == self.denominator

    def delivered(self, now_ns: int) -> int:
        """Return what a vCPU that always competed was guaranteed by now, in ns times the denominator."""
        return self._delivered + (now_ns - self._since_ns) * self.numerator

    def set_total(self, total_hz: int, quantum_ns: int, now_ns: int) -> None:
        """Let several vCPUs hold so much together from now on."""
        total = total_hz << self._bits
        if self.competing and total != self._total:
            raise SimBug("the reservation of a VM changes while its vCPUs compete")
        self._delivered, self._since_ns = self.delivered(now_ns), now_ns
        self._total = total
        self._set_turn(quantum_ns)
        self._divide()

    def count(self, by: int, now_ns: int) -> None:
        """Divide anew: one vCPU more competes (1), or one less (-1)."""
        self._delivered, self._since_ns = self.delivered(now_ns), now_ns
        self.competing += by
        self._divide()

    def key(self, delivered: int) -> int:
        """Return when so much will be guaranteed, as an integer that orders times of different rates exactly."""
        return (self._since_ns << _KEY_BITS) + (delivered - self._delivered << _KEY_BITS) // self.numerator


class Reservation:
    """What one world has had of its guarantee: its tag is in ns times the guarantee's denominator."""

    __slots__ = ("guarantee", "tag")

    def __init__(self, guarantee: Guarantee, now_ns: int) -> None:
        self.guarantee = guarantee
        self.tag = guarantee.delivered(now_ns)

    def charge(self, ran_ns: int, now_ns: int) -> None:
        """Count service that ended now."""
        guarantee = self.guarantee
        ahead = guarantee.delivered(now_ns) + guarantee.span
        tag = self.tag + ran_ns * guarantee.denominator
        self.tag = tag if tag < ahead else ahead

    def ahead(self, now_ns: int) -> bool:
        """Whether the world has had more than it was guaranteed."""
        return self.tag > self.guarantee.delivered(now_ns)

    def wake(self, now_ns: int) -> None:
        """Forget what is owed: the world did not want CPU until now."""
        self.tag = max(self.tag, self.guarantee.delivered(now_ns))

    @property
    def due_key(self) -> int:
        """When the world is due (see `Guarantee.key`)."""
        return self.guarantee.key(self.tag + self.guarantee.patience)

    @property
    def deadline_key(self) -> int:
        """When a whole turn is owed, likewise."""
        return self.guarantee.key(self.tag + self.guarantee.span)


Entry = tuple[int, int, "World"]


class DueQueue:
    """The READY worlds that hold a reservation: those not yet due, and those due by deadline."""

    __slots__ = ("_due", "_later", "_most")

    def __init__(self) -> None:
        self._later: list[Entry] = []
        self._due: list[Entry] = []
        self._most = _DUES_MIN

    def push(self, world: World, seq: int) -> None:
        """Add a world that has just become READY with queue number `seq`, or whose part has changed."""
        assert world.reservation is not None
        heappush(self._later, (world.reservation.due_key, seq, world))
        if len(self._later) > self._most:
            self.compact()

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
        """Drop the entries that no longer count: of worlds that have left the queue by another way."""
        for heap in (self._later, self._due):
            heap[:] = [entry for entry in heap if entry[2].seq == entry[1]]
            heapify(heap)
        self._most = max(_DUES_MIN, 2 * len(self._later))
