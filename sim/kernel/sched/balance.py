"""Several queues on one host: which pCPUs share one, which are near, and when a world moves between them.

Models: a queue for each last-level cache, or for each pCPU, or one for all; a pCPU that finds its queue empty looks into
the nearest others (`Cpu.PcpuMigrateIdlePcpus`); at most once in the period of a level (thread, last-level cache, package,
host) a busy one looks for a world that is further behind than its own (`Cpu.FairnessRebalancePcpus`); a world that wakes
and finds no idle pCPU takes the shortest of the nearest queues (`Cpu.WakeupMigrateIdlePcpus`).  What an idle pCPU did not
find near by it finds when the shortest period of a level is over that covers it and the queue.

Leaves out: `Cpu.L2RebalancePeriod` (a core's threads share their L2), the goodness of a move as ESXi weighs it, and
randomness in "average time between chances": the periods are exact.

Sources: names, defaults and one-line meanings of ESXi's options; everything else is our own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sim.core.units import MS
from sim.kernel.sched.placement import bits

if TYPE_CHECKING:
    from sim.hw.topology import Pcpu
    from sim.kernel.sched.pcpu import PcpuRunner
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["LEVELS", "QUEUES", "Balancer"]

LEVELS = (
    "Cpu.HTRebalancePeriod",
    "Cpu.L3RebalancePeriod",
    "Cpu.PackageRebalancePeriod",
    "Cpu.HostRebalancePeriod",
)
"""The periods, from the nearest to the furthest level."""

_KEYS: dict[str, Callable[[Pcpu], int]] = {
    "host": lambda place: 0,
    "llc": lambda place: place.llc,
    "pcpu": lambda place: place.index,
}
QUEUES = tuple(_KEYS)
"""How a host's READY worlds may be queued."""


def _level(one: Pcpu, other: Pcpu) -> int:
    if one.core == other.core:
        return 0
    if one.llc == other.llc:
        return 1
    return 2 if one.package == other.package else 3


class Balancer:
    """The queues of a host: `waiting` worlds in each, its `members`, and the others by distance."""

    __slots__ = (
        "_due_ns",
        "_host",
        "_near",
        "_search_due_ns",
        "covers_ns",
        "masks",
        "members",
        "periods_ns",
        "pull_max",
        "steal_max",
        "waiting",
    )

    def __init__(self, host: Scheduler) -> None:
        self._host = host
        key = _KEYS[host.options.queues]
        self.members: list[list[PcpuRunner]] = []
        numbers: dict[int, int] = {}
        for pcpu in host.pcpus:
            number = numbers.setdefault(key(pcpu.place), len(numbers))
            if number == len(self.members):
                self.members.append([])
            self.members[number].append(pcpu)
            pcpu.queue = number
        self.waiting = [0] * len(self.members)
        self.masks = [bits(pcpu.index for pcpu in members) for members in self.members]
        self._near = [self._by_distance(number) for number in range(len(self.members))]
        self._due_ns = [[host.sim.now] * len(LEVELS) for _ in host.pcpus]
        self._search_due_ns = dict.fromkeys({level for near in self._near for _, level in near}, 0)
        self.configure()

    def configure(self) -> None:
        """Take in the options as they are now."""
        options = self._host.options
        self.periods_ns = tuple(MS * options.get(name) for name in LEVELS)
        self.covers_ns = [
            min((period for period in self.periods_ns[level:] if period), default=self.patience_ns)
            for level in range(len(LEVELS))
        ]
        self.pull_max = options.get("Cpu.PcpuMigrateIdlePcpus")
        self.steal_max = options.get("Cpu.FairnessRebalancePcpus")

    @property
    def several(self) -> bool:
        """Whether there is more than one queue."""
        return len(self.members) > 1

    @property
    def patience_ns(self) -> int:
        """The longest time that a pCPU may be idle while a world waits elsewhere that it may run."""
        return max(*self.periods_ns, MS)

    def search_begins(self, now_ns: int) -> int:
        """Return when idle pCPUs look again beyond what is near, if nobody has waited for that up to now."""
        for level, due_ns in self._search_due_ns.items():
            if due_ns <= now_ns:
                self._search_due_ns[level] = now_ns + self.covers_ns[level]
        return min(self._search_due_ns.values())

    def search_levels(self, now_ns: int) -> frozenset[int]:
        """Return the levels at which idle pCPUs look now, as their period is over."""
        return frozenset(level for level, due_ns in self._search_due_ns.items() if due_ns <= now_ns)

    def within(self, number: int, levels: frozenset[int]) -> list[int]:
        """Return the other queues that are at some levels from one, the nearest first."""
        return [other for other, level in self._near[number] if level in levels]

    def nearest(self, number: int) -> list[int]:
        """Return the other queues, the nearest first."""
        return [other for other, _ in self._near[number]]

    def looks(self, pcpu: PcpuRunner, now_ns: int) -> list[int]:
        """Return the queues that a busy pCPU may look into now, and let the periods of their levels begin again."""
        due = self._due_ns[pcpu.index]
        levels = [
            level for level, period_ns in enumerate(self.periods_ns) if period_ns and now_ns >= due[level]
        ]
        if not levels:
            return []
        for level in levels:
            due[level] = now_ns + self.periods_ns[level]
        found = [other for other, level in self._near[pcpu.queue] if level in levels and self.waiting[other]]
        return found[: self.steal_max]

    def choose(self, world: World, most: int) -> int:
        """Return the shortest of the queue where a world ran last and up to `most` - 1 near ones that it may use."""
        last = world.last_pcpu.queue if world.last_pcpu is not None else 0
        best, shortest = -1, 0
        left = max(1, most)
        allowed = self._host.allowed(world)
        for number in (last, *self.nearest(last)):
            pcpus = (self.masks[number] & allowed).bit_count()
            if not pcpus:
                continue
            length = self.waiting[number] * len(self._host.pcpus) // pcpus
            if best < 0 or length < shortest:
                best, shortest = number, length
            left -= 1
            if not left:
                break
        return max(best, 0)

    def _by_distance(self, number: int) -> list[tuple[int, int]]:
        first = self.members[number][0].place
        count = len(self.members)
        around = [
            (other, _level(first, self.members[other][0].place)) for other in range(count) if other != number
        ]
        return sorted(around, key=lambda pair: (pair[1], (pair[0] - number) % count))
