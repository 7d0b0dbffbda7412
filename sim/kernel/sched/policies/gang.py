"""Strict gang scheduling: all vCPUs of a VM have their pCPUs at the same time, or none of them has one.

Models: time slots of one quantum for the whole host; a VM that gets a slot holds one pCPU for each of its vCPUs, even
for those that sleep, so that one that wakes runs at once; VMs in order of the time they have held for their shares, each
taken if it fits into what is left; within a slot a VM gives its pCPUs back when all its vCPUs sleep, and others may use
them until the slot ends.  Skew is 0.  Fragmentation shows as idle pCPUs while vCPUs are ready: that is the point.

What a VM pays for is what it holds, not what it runs.  A VM with more vCPUs than there are pCPUs gets all of them, and
its vCPUs take turns.  With affinity a VM gets a slot only if each vCPU can have a pCPU of its own.

Leaves out: moving VMs between slots to fill gaps; a limit stops vCPUs one by one, which then keep their pCPUs; reservations
and pools.

Sources: Ousterhout, "Scheduling techniques for concurrent systems", ICDCS 1982; strict co-scheduling of ESX 2, by
VMware's later descriptions.  Order by shares is ours.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from sim.errors import SimBug
from sim.kernel.sched.policy import Policy
from sim.kernel.world import WorldState

if TYPE_CHECKING:
    from sim.kernel.sched.pcpu import PcpuRunner
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["Gang"]

_WAITS = frozenset((WorldState.WAIT_VM, WorldState.ENDED))


class _Team:
    """The vCPUs of one VM: what it has held for its shares, which pCPUs it holds, since when, and who competes."""

    __slots__ = ("competing", "held", "number", "places", "since_ns", "turn", "worlds")

    def __init__(self, worlds: tuple[World, ...]) -> None:
        self.worlds = worlds
        self.number = worlds[0].world_id
        self.held = Fraction(0)
        self.since_ns = 0
        self.turn = 0  # who comes first in a VM that is wider than the host
        self.places: dict[int, World] = {}
        self.competing: dict[int, World] = {}

    @property
    def members(self) -> list[World]:
        """The vCPUs that are neither suspended nor ended."""
        return [
            world for world in self.worlds if world.state not in _WAITS or world.world_id in self.competing
        ]


class Gang(Policy):
    """Slots for whole VMs; see the module.  `world.note` is its VM's team."""

    name = "gang"
    spreads = False

    def attach(self, host: Scheduler) -> None:
        """Begin with free pCPUs."""
        super().attach(host)
        self._owners: list[World | None] = [None] * len(host.pcpus)
        self._waiting: dict[int, World] = {}
        self._teams: dict[int, _Team] = {}  # with anybody who competes
        self._slot_timer = host.sim.engine.timer(self._slot)
        self._fill_timer = host.sim.engine.timer(self._fill)

    def join(self, world: World, now_ns: int, *, fresh: bool) -> None:
        """Take a vCPU in; a VM that comes back has held no less than the least of the others."""
        team: _Team | None = world.note
        if team is None:
            team = self._team_of(world)
        if not team.competing:
            team.held = max(
                team.held, min((other.held for other in self._teams.values()), default=Fraction(0))
            )
            self._teams[team.number] = team
        team.competing[world.world_id] = world
        if not self._slot_timer.armed:
            self._slot_timer.arm(now_ns + self.host.options.quantum_ns)
        if world not in team.places.values() and (not team.places or not self._is_wide(team)):
            self._release(team, now_ns)  # it has been resumed: all begin together, or none
            self._fill_soon(now_ns)

    def leave(self, world: World, now_ns: int) -> None:
        """Let a vCPU go; with the last one its VM gives back the pCPUs."""
        team: _Team = world.note
        del team.competing[world.world_id]
        if not team.competing:
            del self._teams[team.number]
            self._release(team, now_ns)
            self._fill_soon(now_ns)

    def place(self, world: World, now_ns: int) -> PcpuRunner | None:
        """Return the pCPU that is held for a vCPU, if its VM has the slot."""
        for index, owner in world.note.places.items():
            if owner is world and self.host.pcpus[index].online:
                pcpu = self.host.pcpus[index]
                return pcpu if pcpu.world is None else None
        return None

    def enqueue(self, world: World, now_ns: int) -> None:
        """Wait for the slot of its VM."""
        self._waiting[world.world_id] = world

    def dequeue(self, world: World) -> None:
        """Wait no more."""
        del self._waiting[world.world_id]

    def pick(self, pcpu: PcpuRunner, now_ns: int) -> World | None:
        """Take the vCPU for which this pCPU is held, if it wants to run."""
        owner = self._owners[pcpu.index]
        if owner is None or owner.world_id not in self._waiting:
            return None
        self.dequeue(owner)
        return owner

    def patience_ns(self) -> int:
        """Return no bound: a pCPU is idle beside a ready vCPU for as long as its VM does not fit."""
        return 1 << 62

    def queued(self) -> int:
        """Count those who wait."""
        return len(self._waiting)

    def reconfigured(self) -> None:
        """Begin a new slot with the pCPUs that there are now."""
        self._slot_timer.arm(self.host.sim.now)

    # -- slots

    def _slot(self) -> None:
        """Timer: all VMs give back their pCPUs, and those who have held the least get them."""
        now_ns = self.host.sim.now
        for team in self._teams.values():
            self._release(team, now_ns)
        if self._teams:
            self._slot_timer.arm(now_ns + self.host.options.quantum_ns)
        self._fill()

    def _fill_soon(self, now_ns: int) -> None:
        if not self._fill_timer.armed:
            self._fill_timer.arm(now_ns)

    def _fill(self) -> None:
        """Give free pCPUs to the VMs that fit into them, in order; then let the pCPUs change worlds."""
        now_ns = self.host.sim.now
        free = self.host.online
        for index, owner in enumerate(self._owners):
            if owner is not None:
                free &= ~(1 << index)
        for team in sorted(self._teams.values(), key=lambda each: (each.held, each.number)):
            if not free:
                break
            if not team.places:
                free = self._seat(team, free, now_ns)
        for pcpu in self.host.pcpus:
            owner = self._owners[pcpu.index]
            if pcpu.world is not None and pcpu.world is not owner and pcpu.world.exclusive is None:
                self.host.kick(pcpu)
        for pcpu in self.host.pcpus:
            owner = self._owners[pcpu.index]
            if pcpu.online and pcpu.world is None and owner is not None and owner.world_id in self._waiting:
                self.host.kick(pcpu)

    def _seat(self, team: _Team, free: int, now_ns: int) -> int:
        """Give a VM the slot if it fits; returns the pCPUs that are still free, as bits."""
        members = team.members
        if self._is_wide(team):
            if free != self.host.online:
                return free
            first = team.turn % len(members)
            team.turn += free.bit_count()
            members = (members[first:] + members[:first])[: free.bit_count()]
        seats = _match(members, free)
        if seats is None:
            return free
        team.places = seats
        team.since_ns = now_ns
        for index, world in seats.items():
            self._owners[index] = world
            free &= ~(1 << index)
        return free

    def _is_wide(self, team: _Team) -> bool:
        """Whether a VM has more vCPUs than there are pCPUs."""
        return len(team.members) > self.host.online.bit_count()

    def _release(self, team: _Team, now_ns: int) -> None:
        if not team.places:
            return
        held_ns = (now_ns - team.since_ns) * len(team.places)
        weight = sum(world.weight for world in team.worlds)
        team.held += Fraction(held_ns, weight)
        for index in team.places:
            self._owners[index] = None
        team.places = {}

    def _team_of(self, world: World) -> _Team:
        """Make the team of a VM's vCPUs, all of whom share it."""
        team = _Team(world.siblings)
        for sibling in world.siblings:
            sibling.note = team
        return team

    def check_invariants(self) -> None:
        """Raise `SimBug` unless each pCPU runs who holds it, and no vCPU waits while a sibling of it has a pCPU."""
        for pcpu in self.host.pcpus:
            holder, running = self._owners[pcpu.index], pcpu.world
            foreign = running is not None and running is not holder and running.exclusive is None
            if foreign and not self._fill_timer.armed:
                raise SimBug(f"pCPU {pcpu.index} runs a vCPU that does not hold it")
        for world in self._waiting.values():
            team: _Team = world.note
            if team.places and not self._is_wide(team) and not self._fill_timer.armed:
                raise SimBug(f"world {world.world_id} waits while its siblings run")


def _match(members: list[World], free: int) -> dict[int, World] | None:
    """Return a pCPU of `free` for each vCPU, where it ran last if that can be; None if not all can have one."""
    if len(members) > free.bit_count():
        return None
    seats: dict[int, World] = {}
    for world in members:
        last = world.last_pcpu
        if last is not None and free >> last.index & 1 and world.may_run_on(last) and last.index not in seats:
            seats[last.index] = world
    for world in members:
        if world not in seats.values() and not _augment(world, free, seats, 0):
            return None
    return seats


def _augment(world: World, free: int, seats: dict[int, World], tried: int) -> bool:
    """Seat one vCPU more, moving others on where affinity makes that necessary (depth-first; Kuhn's algorithm)."""
    candidates = world.affinity & free & ~tried
    for index in _indexes(candidates):
        if index not in seats:
            seats[index] = world
            return True
    for index in _indexes(candidates):
        if not tried >> index & 1:
            tried |= 1 << index
            other = seats[index]
            if _augment(other, free, seats, tried):
                seats[index] = world
                return True
    return False


def _indexes(mask: int) -> list[int]:
    return [index for index in range(mask.bit_length()) if mask >> index & 1]
