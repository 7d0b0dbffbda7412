"""NUMA scheduling: home nodes for the vCPUs of a VM, moves that even out load, and memory that follows.

Models: a client is the vCPUs of a VM (or an even part of those of a VM wider than a node) and their part of its memory.
Each has a home node, on whose pCPUs alone it runs.  Every `Numa.RebalancePeriod` the load of the nodes is reviewed: if
they differ by more than `Numa.MigImbalanceThreshold`, the client moves that helps most, if it helps by
`Numa.MigThreshold` and turns at most `Numa.MigThrashThreshold` of the difference the other way round; every `Numa.SwapInterval` reviews two
clients may change places if no move helps.  Memory follows at `Numa.PageMigRateMax` pages a second, and until then is
remote.  A VM with an affinity is left alone, but what it wants counts as load of the nodes of its pCPUs.

Leaves out: the cost of remote memory to the guest, distances between nodes (ESXi's balancer ignores them too),
long-term fairness, locality and action affinity as reasons to move.

Sources: Denneman, NUMA articles of 2010, 2016 and 2022 (clients, even split, 2 s review, memory follows); options of
ESXi; how load and gain are computed is ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sim.core.trace import record
from sim.core.units import MS, SECOND

if TYPE_CHECKING:
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["NumaBalancer", "NumaClient", "client_sizes", "set_home", "vnuma_nodes"]

NUMA_MOVE = record("numa.move", world=int, old=int, new=int, pages=int)
"""A client (its first world) got another home; so many of its pages are remote from now on."""

VNUMA_VCPUS_MIN = 9
"""A guest sees more than one node from this number of vCPUs on (Denneman 2016)."""


def client_sizes(vcpus: int, node_cores: int) -> tuple[int, ...]:
    """Split the vCPUs of a VM evenly over the fewest clients that fit a node: 12 on nodes of 10 cores are 6 and 6."""
    count = -(-vcpus // node_cores)
    each, rest = divmod(vcpus, count)
    return tuple(each + (index < rest) for index in range(count))


def vnuma_nodes(vcpus: int, node_cores: int) -> int:
    """Return how many NUMA nodes a guest sees."""
    wide = vcpus >= VNUMA_VCPUS_MIN and vcpus > node_cores
    return len(client_sizes(vcpus, node_cores)) if wide else 1


class NumaClient:
    """Worlds with one home node, and where their memory lies (`pages` by node)."""

    __slots__ = ("_demand_ns", "_settled_ns", "migrations", "node", "pages", "recent_ns", "worlds")

    def __init__(self, worlds: list[World], node: int, pages: list[int], now_ns: int) -> None:
        self.worlds = worlds
        self.node = node
        self.pages = pages
        self.migrations = 0
        self.recent_ns = 0  # CPU time it wanted in the last period
        self._demand_ns = 0
        self._settled_ns = now_ns

    def review(self, now_ns: int) -> None:
        """Learn how much CPU time the client has wanted since the last review."""
        demand_ns = sum(_wanted_ns(world, now_ns) for world in self.worlds)
        self.recent_ns = demand_ns - self._demand_ns
        self._demand_ns = demand_ns

    def follow(self, pages_per_s: int, now_ns: int) -> None:
        """Move as many pages home as the time since the last call allows."""
        budget = pages_per_s * (now_ns - self._settled_ns) // SECOND
        if not budget and pages_per_s:
            return
        self._settled_ns = now_ns
        for node, held in enumerate(self.pages):
            if node != self.node:
                moved = min(held, budget)
                budget -= moved
                self.pages[node] -= moved
                self.pages[self.node] += moved

    def local_at(self, pages_per_s: int, now_ns: int) -> int:
        """Return the pages that will have been on the home node at a moment; asking changes nothing."""
        moved = pages_per_s * (now_ns - self._settled_ns) // SECOND
        return min(self.local_pages + moved, sum(self.pages))

    @property
    def local_pages(self) -> int:
        """The pages on the home node."""
        return self.pages[self.node]


class NumaBalancer:
    """The NUMA clients of one host; it does nothing where there is one node, or the options say so."""

    def __init__(self, host: Scheduler) -> None:
        self._host = host
        self.clients: list[NumaClient] = []
        self.reviews = 0
        self.moves = 0
        self._pinned_ns: dict[int, int] = {}  # what each world with an affinity had wanted at the last review
        self._timer = host.sim.engine.timer(self._review)
        self._last_node = -1

    @property
    def active(self) -> bool:
        """Whether VMs get home nodes."""
        host = self._host
        topology = host.topology
        cores = len(topology.pcpus) // topology.threads_per_core
        return (
            host.policy.numa
            and topology.nodes > 1
            and host.options.queues != "host"
            and bool(host.options.get("Numa.RebalanceEnable"))
            and cores >= host.options.get("Numa.RebalanceCoresTotal")
            and cores // topology.nodes >= host.options.get("Numa.RebalanceCoresNode")
        )

    @property
    def node_cores(self) -> int:
        """What counts as the width of a node: cores, or threads with `Numa.PreferHT`."""
        topology = self._host.topology
        threads = len(topology.pcpus) // topology.nodes
        return threads if self._host.options.get("Numa.PreferHT") else threads // topology.threads_per_core

    def add(self, worlds: Iterable[World], pages: int) -> None:
        """Give the vCPUs of a VM their homes, with its memory on the same nodes."""
        vcpus = list(worlds)
        if not self.active:
            return
        sizes = client_sizes(len(vcpus), self.node_cores)
        interleave = bool(self._host.options.get("Numa.CostopSkewAdjust"))
        begin = 0
        for index, size in enumerate(sizes):
            members = vcpus[index :: len(sizes)] if interleave else vcpus[begin : begin + size]
            begin += size
            node = self._emptiest()
            held = [0] * self._host.topology.nodes
            held[node] = pages * len(members) // len(vcpus)
            self.clients.append(NumaClient(members, node, held, self._host.sim.now))
            for world in members:
                world.home = node
        if not self._timer.armed:
            self._timer.arm(self._host.sim.now + self._period_ns)

    def widen(self, present: Iterable[World], added: Iterable[World]) -> None:
        """Give vCPUs that come to those of a VM their homes: with the fewest of its others that leave room, or alone."""
        clients = list(
            dict.fromkeys(each for world in present if (each := self.client_of(world)) is not None)
        )
        for world in added if clients else ():
            client = min(clients, key=lambda each: len(each.worlds))
            if len(client.worlds) >= self.node_cores:
                client = NumaClient([], self._emptiest(), [0] * self._host.topology.nodes, self._host.sim.now)
                self.clients.append(client)
                clients.append(client)
            client.worlds.append(world)
            world.home = client.node

    def release(self, world: World) -> None:
        """Let a world go: it has ended, or has an affinity now."""
        world.home = -1
        for client in self.clients:
            if world in client.worlds:
                client.worlds.remove(world)
                if not client.worlds:
                    self.clients.remove(client)
                break
        if not self.clients:
            self._timer.cancel()

    def client_of(self, world: World) -> NumaClient | None:
        """Return the client of a world, with its memory as it lies now."""
        for client in self.clients:
            if world in client.worlds:
                client.follow(self.rate, self._host.sim.now)
                return client
        return None

    def machine_changed(self) -> None:
        """Give clients another home whose node has lost its last pCPU."""
        host = self._host
        for client in self.clients:
            if not host.node_masks[client.node] & host.online:
                self._move(client, self._emptiest())

    @property
    def _period_ns(self) -> int:
        return MS * self._host.options.get("Numa.RebalancePeriod")

    @property
    def rate(self) -> int:
        """Pages that move home in a second."""
        options = self._host.options
        return options.get("Numa.PageMigRateMax") if options.get("Numa.PageMigEnable") else 0

    def _emptiest(self) -> int:
        """Return the node with the fewest vCPUs for its online pCPUs; among equals, the next after the last chosen.

        One with an affinity counts for the nodes of its pCPUs, by thousandths.
        """
        host, nodes = self._host, self._host.topology.nodes
        width = [0] * nodes
        for client in self.clients:
            width[client.node] += 1000 * len(client.worlds)
        for world in host.worlds.values():
            if world.affinity != -1 and world.exclusive is None:
                self._spread(world, 1000, width)
        order = [(self._last_node + 1 + step) % nodes for step in range(nodes)]
        usable = [node for node in order if host.node_masks[node] & host.online]
        best = usable[0]
        for node in usable[1:]:
            if width[node] * self._cpus(best) < width[best] * self._cpus(node):
                best = node
        self._last_node = best
        return best

    def _cpus(self, node: int) -> int:
        return (self._host.node_masks[node] & self._host.online).bit_count()

    def _review(self) -> None:
        """Timer: look at the load of the nodes, and move or swap at most once."""
        now_ns = self._host.sim.now
        self._timer.arm(now_ns + self._period_ns)
        self.reviews += 1
        for client in self.clients:
            client.follow(self.rate, now_ns)
            client.review(now_ns)
        load = self._loads()
        usable = [node for node in range(len(load)) if self._cpus(node)]
        high = max(usable, key=lambda node: load[node])
        low = min(usable, key=lambda node: load[node])
        before = load[high] - load[low]
        options = self._host.options
        if before <= 100 * options.get("Numa.MigImbalanceThreshold"):
            return
        swaps = self.reviews % options.get("Numa.SwapInterval") == 0 and options.get("Numa.SwapLoadEnable")
        best = self._best(high, low, before, swaps=bool(swaps))
        for client, node in best:
            self._move(client, node)

    def _loads(self) -> list[int]:
        """Return the load of each node in hundredths of a percent of its pCPUs."""
        wanted = [0] * self._host.topology.nodes
        for client in self.clients:
            wanted[client.node] += client.recent_ns
        for world, ns in self._pinned():
            self._spread(world, ns, wanted)
        return [10_000 * ns // max(1, self._cpus(node) * self._period_ns) for node, ns in enumerate(wanted)]

    def _spread(self, world: World, amount: int, nodes: list[int]) -> None:
        """Add to what `nodes` hold an amount of a world with an affinity, by its online pCPUs there, rounded down."""
        pcpus = world.affinity & self._host.online
        for node, mask in enumerate(self._host.node_masks):
            nodes[node] += amount * (pcpus & mask).bit_count() // pcpus.bit_count()

    def _pinned(self) -> list[tuple[World, int]]:
        """Return the worlds with an affinity, and what each has wanted since the last review."""
        now_ns = self._host.sim.now
        before, self._pinned_ns = self._pinned_ns, {}
        found = []
        for world in self._host.worlds.values():
            if world.affinity != -1 and world.exclusive is None:
                self._pinned_ns[world.world_id] = wanted_ns = _wanted_ns(world, now_ns)
                found.append((world, wanted_ns - before.get(world.world_id, 0)))
        return found

    def _best(self, high: int, low: int, before: int, *, swaps: bool) -> list[tuple[NumaClient, int]]:
        """Return the move, or else the swap, that leaves the smallest difference, if it helps enough."""
        there = [client for client in self.clients if client.node == high]
        here = [client for client in self.clients if client.node == low]
        found: list[tuple[NumaClient, int]] = []
        least = before
        for client in there:
            left = self._difference(high, low, before, client.recent_ns)
            if abs(left) < least and self._helps(before, left):
                found, least = [(client, low)], abs(left)
        if found or not swaps:
            return found
        for client in there:
            for other in here:
                left = self._difference(high, low, before, client.recent_ns - other.recent_ns)
                if abs(left) < least and self._helps(before, left):
                    found, least = [(client, low), (other, high)], abs(left)
        return found

    def _helps(self, before: int, left: int) -> bool:
        """Whether what is left of a difference is enough less, and, where it is the other way round, not the next to move."""
        options = self._host.options
        if before - abs(left) < 100 * options.get("Numa.MigThreshold"):
            return False
        return -left <= before * options.get("Numa.MigThrashThreshold") // 100

    def _difference(self, high: int, low: int, before: int, ns: int) -> int:
        """Return the difference that a move leaves; below 0 where the emptier node is the fuller one then."""
        period_ns = self._period_ns
        less = 10_000 * ns // (self._cpus(high) * period_ns)
        more = 10_000 * ns // (self._cpus(low) * period_ns)
        return before - less - more

    def _move(self, client: NumaClient, node: int) -> None:
        host = self._host
        client.follow(self.rate, host.sim.now)
        old, client.node = client.node, node
        client.migrations += 1
        self.moves += 1
        first = client.worlds[0].world_id
        host.sim.trace.emit(NUMA_MOVE, first, old, node, sum(client.pages) - client.local_pages)
        for world in client.worlds:
            set_home(host, world, node)


def _wanted_ns(world: World, now_ns: int) -> int:
    """Return the CPU time that a world has wanted in its life, whether it got it or not."""
    times = world.times(now_ns)
    return times.run_ns + times.ready_ns + times.costop_ns


def set_home(host: Scheduler, world: World, node: int) -> None:
    """Confine a world to another NUMA node; it goes there at once."""
    queued = host.is_queued(world)
    if queued:
        host.policy.dequeue(world)
    world.home = node
    if queued:
        host.place(world, host.sim.now)
    elif world.pcpu is not None and world.pcpu.place.node != node:
        host.kick(world.pcpu)
