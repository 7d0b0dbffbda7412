"""What every competing world is entitled to now: limits of VMs and the tree of pools, divided exactly.

Models: a world claims up to what it wants, at most one CPU, with the shares of a vCPU and its part of the VM's
reservation, which those vCPUs divide that want CPU, none getting more than it wants; a VM with a limit of its own stands
as a node between its vCPUs and their pool.  Beside its share each world is told whether a limit, and not the competition,
holds it down.

Leaves out: affinity, home nodes, threads of one core, time.

Sources: `entitlement`; that waiting for a limit is not counted as contention, VMware's operations guide.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from sim.kernel.sched.entitlement import Party, divide
from sim.kernel.sched.fluid import Claim, fluid_shares

if TYPE_CHECKING:
    from sim.kernel.sched.fluid import Amount
    from sim.kernel.sched.limit import LimitBucket
    from sim.kernel.sched.pools import Pool
    from sim.kernel.world import World

__all__ = ["entitled"]


def entitled(
    wanted: Mapping[World, Amount], cpus: Amount, core_hz: int
) -> dict[World, tuple[Fraction, bool]]:
    """Return for each world that wants CPU (up to `wanted` CPUs, over 0) its share, and whether a limit binds it.

    Errors: `FloorsExceedCapacity`.
    """
    tree = _Tree(_floors(wanted, core_hz), core_hz)
    for world, amount in wanted.items():
        tree.add(world, amount)
    root = tree.build()
    found = divide(root, cpus)
    bound = _bound(root, found)
    return {
        world: (found[name][0], name in bound and found[name][0] < wanted[world])
        for world, name in tree.names.items()
    }


def _floors(wanted: Mapping[World, Amount], core_hz: int) -> dict[World, Amount]:
    """Return what is reserved for each world that wants CPU: what its VM holds, divided evenly as far as it is wanted."""
    floors: dict[World, Amount] = {}
    for world, amount in wanted.items():
        if world in floors:
            continue
        siblings = [each for each in world.siblings if each in wanted]
        total = Fraction(sum(each.reservation_hz for each in world.siblings), core_hz)
        if total and len(siblings) > 1:
            claims = [Claim(weight=1, ceiling=wanted[each]) for each in siblings]
            floors.update(zip(siblings, fluid_shares(total, claims).shares, strict=True))
        else:
            floors.update((each, 0) for each in siblings)
            floors[world] = min(total, Fraction(amount))
    return floors


class _Tree:
    """Gathers worlds below their VM's limit, or their pool, or the host (0)."""

    def __init__(self, floors: Mapping[World, Amount], core_hz: int) -> None:
        self.core_hz = core_hz
        self._floors = floors
        self.names: dict[World, str] = {}
        self._below: dict[int, list[Party]] = {0: []}
        self._pools: dict[int, Pool] = {}
        self._limited: dict[int, tuple[LimitBucket, int, list[Party]]] = {}

    def add(self, world: World, amount: Amount) -> None:
        """Count a world in."""
        name = self.names[world] = f"w{world.world_id}"
        party = Party(name=name, weight=world.weight, floor=self._floors[world], ceiling=amount)
        pool, number = world.pool, 0
        if pool is not None:
            number = pool.number
        while pool is not None and pool.number not in self._pools:
            self._pools[pool.number] = pool
            pool = pool.parent
        bucket, above = world.bucket, None if world.pool is None else world.pool.nearest_bucket()
        if bucket is None or bucket is above:
            self._below.setdefault(number, []).append(party)
        else:
            self._limited.setdefault(bucket.number, (bucket, number, []))[2].append(party)

    def build(self) -> Party:
        """Return the root."""
        for bucket, number, parties in self._limited.values():
            limit = Fraction(bucket.numerator, bucket.denominator)
            weight = sum(party.weight for party in parties)
            node = Party(name=f"b{bucket.number}", weight=weight, ceiling=limit, children=tuple(parties))
            self._below.setdefault(number, []).append(node)
        for pool in sorted(self._pools.values(), key=lambda each: (-each.depth, each.number)):
            parent = 0 if pool.parent is None else pool.parent.number
            self._below.setdefault(parent, []).append(self._pool_party(pool))
        return Party(name="", weight=1, ceiling=0, children=tuple(self._below[0]))

    def _pool_party(self, pool: Pool) -> Party:
        children = tuple(self._below.pop(pool.number))
        spec = pool.spec
        return Party(
            name=f"p{pool.number}",
            weight=spec.shares_with(int(sum(child.weight for child in children))),
            floor=Fraction(spec.reservation_hz, self.core_hz),
            ceiling=None if spec.limit_hz is None else Fraction(spec.limit_hz, self.core_hz),
            children=children,
        )


def _bound(root: Party, found: dict[str, tuple[Fraction, Fraction]]) -> dict[str, None]:
    """Return the worlds below a node that its limit, and not its siblings, holds down."""
    names: dict[str, None] = {}
    todo = [(child, False) for child in root.children]
    while todo:
        party, is_bound = todo.pop()
        share, level = found[party.name]
        if party.children:
            at_limit = party.ceiling is not None and share == party.ceiling
            is_bound = is_bound or (at_limit and level * party.weight >= share)
            todo += [(child, is_bound) for child in party.children]
        elif is_bound:
            names[party.name] = None
    return names
