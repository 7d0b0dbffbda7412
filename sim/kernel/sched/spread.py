"""Running worlds leave shared cores for idle ones: the half of load balancing that needs no world to wait.

Models: a world that runs on a core all of whose threads are busy goes on, with the rest of its turn, on a core that is wholly
idle, if affinity, home node and policy allow.  A core that becomes wholly idle looks at the nearest pCPUs at once
(`Cpu.PcpuMigrateIdlePcpus`).  What it did not find there is found at the next chance of its level: once in
`Cpu.L3RebalancePeriod` within a last-level cache, in `Cpu.PackageRebalancePeriod` within a package, and in
`Cpu.HostRebalancePeriod` across the host (0: never).  The move costs what any switch to another pCPU costs.
There is work only while some core is shared and another is wholly idle, and never where cores have one thread.

Leaves out: `Cpu.HTWholeCoreThreshold` (a core to itself for a world that lags, while others wait) and `Cpu.MoveCurrentRunnerPcpus`
of old releases; a moved world's colder caches below the last level.

Sources: names, defaults and one-line meanings of ESXi's options; that no world shares a core beside an idle one is VMware's
aim for hyper-threading; which world moves, and when, is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.core.units import MS
from sim.errors import SimBug

if TYPE_CHECKING:
    from sim.hw.topology import Pcpu
    from sim.kernel.sched.cores import CoreClock
    from sim.kernel.sched.pcpu import PcpuRunner
    from sim.kernel.sched.scheduler import Scheduler

__all__ = ["LEVELS", "Spreader"]

LEVELS = ("Cpu.L3RebalancePeriod", "Cpu.PackageRebalancePeriod", "Cpu.HostRebalancePeriod")
"""The periods, from the nearest to the furthest level; within a core there is nothing to spread."""

PULL_MAX = 32
"""The most pCPUs that `Cpu.PcpuMigrateIdlePcpus` lets a core look at."""


class Spreader:
    """Moves running worlds of one host from shared cores to wholly idle ones; `shared` holds the former, by number."""

    __slots__ = (
        "_due_ns",
        "_host",
        "_near",
        "_pulling",
        "moves",
        "periods_ns",
        "pull_max",
        "shared",
        "timer",
    )

    def __init__(self, host: Scheduler) -> None:
        self._host = host
        self.shared: dict[int, CoreClock] = {}
        self.moves = 0
        self._pulling: list[PcpuRunner] = []  # the first pCPUs of cores that have become idle at this moment
        self._near: dict[int, list[PcpuRunner]] = {}  # of each core, as it is first needed
        self._due_ns = [host.sim.now] * len(LEVELS)
        self.timer = host.sim.engine.timer(self._look)
        self._take_options()

    def configure(self) -> None:
        """Take in the options as they are now; what has become possible is done at its next chance."""
        self._take_options()
        self._due_ns = [self._host.sim.now] * len(LEVELS)
        self.timer.cancel()
        self.rearm(self._host.sim.now)

    def change(self, core: CoreClock, by: int, now_ns: int) -> None:
        """Learn that a thread of a core has become busy (1) or idle (-1)."""
        first = core.threads[0]
        if core.busy == len(core.threads):
            self.shared[first.place.core] = core
        elif by < 0:
            self.shared.pop(first.place.core, None)
        if not self.shared or not self._host.idle.whole:
            return
        if by < 0 and not core.busy and self._source(first, self._nearest(first)):
            self._pulling.append(first)
            self.timer.arm(now_ns)
        else:
            self.rearm(now_ns)

    def rearm(self, now_ns: int) -> None:
        """Wait for the next chance, if there are cores to leave and cores to go to."""
        if self.timer.armed or not self.shared or not self._host.idle.whole:
            return
        due_ns = [self._due_ns[level] for level, period_ns in enumerate(self.periods_ns) if period_ns]
        if due_ns:
            self.timer.arm(max(now_ns, min(due_ns)))

    def check_invariants(self) -> None:
        """Raise `SimBug` unless the shared cores are those whose threads are all busy."""
        clocks = {pcpu.place.core: pcpu.core for pcpu in self._host.pcpus if pcpu.core is not None}
        found = {
            number
            for number, clock in clocks.items()
            if clock.spreader is self and all(pcpu.world is not None for pcpu in clock.threads)
        }
        if found != set(self.shared):
            raise SimBug(f"cores {sorted(found)} are shared, {sorted(self.shared)} are noted")

    def _look(self) -> None:
        """Timer: cores that have become idle pull; each level that is due has its chance."""
        now_ns = self._host.sim.now
        pulling, self._pulling = self._pulling, []
        for target in pulling:
            self._pull(target, self._nearest(target))
        levels = [level for level, period_ns in enumerate(self.periods_ns) if period_ns]
        due = [level for level in levels if now_ns >= self._due_ns[level]]
        for level in due:
            self._due_ns[level] = now_ns + self.periods_ns[level]
            for target in self._idle_cores():
                self._pull(target, self._at(target, level))
        if not due or any(
            self._source(target, self._at(target, level)) for level in levels for target in self._idle_cores()
        ):
            self.rearm(now_ns)

    def _pull(self, target: PcpuRunner, near: list[PcpuRunner]) -> None:
        """Let the first world that may go on at `target`, if its core is still idle."""
        now_ns = self._host.sim.now
        if not self._host.idle.whole >> target.index & 1:
            return
        for thread in target.core.threads if target.core is not None else ():
            source = self._source(thread, near, now_ns)
            if source is not None:
                self.moves += 1
                source.go_on_at(thread, now_ns)
                return

    def _source(self, target: PcpuRunner, near: list[PcpuRunner], now_ns: int = -1) -> PcpuRunner | None:
        """Return the first pCPU on a shared core whose world may run on `target`; at `now_ns` it must be in its turn."""
        shared, fits = self.shared, self._host.fits
        for pcpu in near:
            world = pcpu.world
            if world is None or pcpu.place.core not in shared or not fits(world, target):
                continue
            if now_ns < 0 or world.since_ns <= now_ns < pcpu.due_ns:
                return pcpu
        return None

    def _idle_cores(self) -> list[PcpuRunner]:
        """Return the first pCPU of each core that is wholly idle, while a core is shared."""
        pcpus, whole = self._host.pcpus, self._host.idle.whole if self.shared else 0
        found = []
        while whole:
            pcpu = pcpus[(whole & -whole).bit_length() - 1]
            found.append(pcpu)
            for thread in pcpu.core.threads if pcpu.core is not None else (pcpu,):
                whole &= ~(1 << thread.index)
        return found

    def _at(self, target: PcpuRunner, level: int) -> list[PcpuRunner]:
        """Return the pCPUs of the shared cores at one level from `target`, the next first."""
        first, cores = target.place, len(self._host.pcpus)
        numbers = sorted(self.shared, key=lambda number: (number - first.core) % cores)
        threads = [pcpu for number in numbers for pcpu in self.shared[number].threads]
        return [pcpu for pcpu in threads if _level(pcpu.place, first) == level]

    def _nearest(self, target: PcpuRunner) -> list[PcpuRunner]:
        """Return the pCPUs that a core looks at which has become idle."""
        first, pcpus = target.place, self._host.pcpus
        near = self._near.get(first.core)
        if near is None:
            ring = pcpus[target.index + 1 :] + pcpus[: target.index]
            others = [pcpu for pcpu in ring if pcpu.place.core != first.core]
            near = sorted(others, key=lambda pcpu: _level(pcpu.place, first))[:PULL_MAX]
            self._near[first.core] = near
        return near[: self.pull_max]

    def _take_options(self) -> None:
        options = self._host.options
        self.periods_ns = tuple(MS * options.get(name) for name in LEVELS)
        self.pull_max = options.get("Cpu.PcpuMigrateIdlePcpus")


def _level(one: Pcpu, other: Pcpu) -> int:
    if one.package != other.package:
        return 2
    return int(one.llc != other.llc)
