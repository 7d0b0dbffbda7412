"""The patrol scrubber: hardware that reads all of memory in a slow circle and finds wrong bits before anyone uses them.

Models: when the circle comes by an address; a corrected word written back; lost data reported as action optional.  Only
words with wrong bits cost an event, at the time at which the scrubber reaches them.

Leaves out: a second report of lost data at the next round, and the bandwidth that scrubbing takes.

Sources: Intel Software Developer's Manual volume 3B, "Machine-Check Architecture" (memory scrubbing as the example of
an SRAO error); the length of a round is a setting of the firmware.
"""

from __future__ import annotations

from collections.abc import Callable

from sim.core.context import Sim
from sim.errors import SimBug
from sim.hw.mca import MceRecord
from sim.hw.memory import PhysicalMemory


class PatrolScrubber:
    """Passes over every address once in `period_ns`, beginning with address 0 at simulated time 0.

    `on_found(record)` is called with what it logged; it must be a bound method, so that a host pickles.
    """

    def __init__(self, sim: Sim, memory: PhysicalMemory, period_ns: int) -> None:
        if period_ns < 1:
            raise SimBug(f"a round of the patrol scrubber of {period_ns} ns")
        self.on_found: Callable[[MceRecord], object] | None = None
        self._sim = sim
        self._memory = memory
        self._period_ns = period_ns

    def next_pass_ns(self, pa: int) -> int:
        """Return the simulated time at which the scrubber comes by `pa` next; now counts."""
        at_ns = pa * self._period_ns // self._memory.size_bytes
        rounds = max(0, -(-(self._sim.now - at_ns) // self._period_ns))
        return at_ns + rounds * self._period_ns

    def expect(self, pa: int) -> None:
        """Have the word at `pa`, in which bits have just gone wrong, looked at when its turn comes."""
        self._sim.engine.at(self.next_pass_ns(pa), self._pass, pa)

    def _pass(self, pa: int) -> None:
        found = self._memory.patrol(pa)
        if found is not None and self.on_found is not None:
            self.on_found(found)
