"""What a core's two threads and its frequency do to the time that is charged.

Models: both threads of a core busy deliver 1.25 times one, so that each counts 62.5 % (the VM's side: `Used`), or half
of the core (the pCPU's side: `PCPU USED`); a core above or below its nominal frequency counts more or less in
proportion.  The time during which both threads were busy is kept by core, added up at transitions only, and a world's
part of it is a difference of two readings.  All of it is exact: integers, and fractions when asked.

Leaves out: that a busy sibling makes work take longer.  A burst is CPU time, however much it is worth; see
`Scheduler` for why.

Sources: both conventions and the frequency ratio, VMware's operations guide, chapter on VM CPU metrics; vSphere 6.7
documentation for the 50/50 split.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from sim.core.facts import fact

if TYPE_CHECKING:
    from sim.kernel.sched.pcpu import PcpuRunner
    from sim.kernel.sched.spread import Spreader
    from sim.kernel.world import World

__all__ = ["SHARED_RATE", "CoreClock", "used_ns"]

SHARED_RATE = fact(
    "sched.ht_shared_rate",
    625,
    unit="1/1000",
    source="VMware operations guide, VM CPU metrics: each of two busy threads delivers 62.5 %",
    kind="vendor",
)

_UNITS = 1000


def used_ns(run_ns: int, shared_ns: int, overclock_units: int, core_hz: int) -> Fraction:
    """Return `Used` as the VM's side counts it: run time, less what a busy sibling took, times the frequency ratio."""
    plain = _UNITS * run_ns - (_UNITS - SHARED_RATE.value) * shared_ns
    return Fraction(plain * core_hz + overclock_units, _UNITS * core_hz)


class CoreClock:
    """One core: since when both its threads are busy, and at which frequency it runs (`hz` of `nominal_hz`)."""

    __slots__ = ("_both_ns", "_both_since_ns", "busy", "hz", "nominal_hz", "spreader", "threads")

    def __init__(self, nominal_hz: int) -> None:
        self.nominal_hz = self.hz = nominal_hz
        self.threads: list[PcpuRunner] = []
        self.spreader: Spreader | None = None  # hears of every change, where worlds may leave shared cores
        self.busy = 0
        self._both_ns = 0
        self._both_since_ns = -1

    def both_ns(self, now_ns: int) -> int:
        """Return for how long both threads have been busy."""
        if self._both_since_ns < 0:
            return self._both_ns
        return self._both_ns + now_ns - self._both_since_ns

    def change(self, by: int, now_ns: int) -> None:
        """Learn that a thread becomes busy (1) or idle (-1)."""
        self.busy += by
        if self._both_since_ns >= 0:
            self._both_ns += now_ns - self._both_since_ns
            self._both_since_ns = -1
        if self.busy == len(self.threads) > 1:
            self._both_since_ns = now_ns
        for pcpu in self.threads:
            if pcpu.world is not None and pcpu.world.since_ns > now_ns:
                self.begin(pcpu.world, now_ns)  # it is still being switched in
        if self.spreader is not None:
            self.spreader.change(self, by, now_ns)

    def begin(self, world: World, now_ns: int) -> None:
        """Read the clock for a world that runs from its `since_ns` on, which is now or soon."""
        wait_ns = world.since_ns - now_ns if self._both_since_ns >= 0 else 0
        world.shared_mark_ns = self.both_ns(now_ns) + wait_ns

    def settle(self, world: World, ran_ns: int, now_ns: int) -> int:
        """Charge a world for `ran_ns` that end now; returns how much of it was beside a busy sibling."""
        shared_ns, units = self.unsettled(world, ran_ns, now_ns)
        world.shared_mark_ns += shared_ns
        world.shared_ns += shared_ns
        world.overclock_units += units
        return shared_ns

    def unsettled(self, world: World, ran_ns: int, now_ns: int) -> tuple[int, int]:
        """Return shared time and frequency units of a world that has run `ran_ns` up to now; asking changes nothing."""
        shared_ns = self.both_ns(now_ns) - world.shared_mark_ns
        worth = _UNITS * ran_ns - (_UNITS - SHARED_RATE.value) * shared_ns
        return shared_ns, worth * (self.hz - self.nominal_hz)
