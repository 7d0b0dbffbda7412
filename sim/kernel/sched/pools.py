"""Resource pools of a running host: the tree in which virtual machines hold their shares, reservations and limits.

Models: pools under the host's root, each with shares (a level or a number), reservation, limit, expandable
reservation and scalable shares; making, changing and removing them while the host runs, with admission control all the
way up.

Leaves out: memory of pools; pools that span hosts.  Sources: vSphere Resource Management; vSphere API,
ResourceConfigSpec.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from sim.core.structure import FieldError, between, matches, quantity
from sim.errors import SimBug
from sim.kernel.sched.entitlement import POOL_SHARES, Promise, drawn, scaled_shares
from sim.kernel.sched.limit_line import WANTED_BITS, ShareNode

if TYPE_CHECKING:
    from fractions import Fraction

    from sim.kernel.sched.limit import LimitBucket
    from sim.kernel.sched.scheduler import Scheduler

__all__ = ["DEPTH_MAX", "Pool", "PoolSpec", "PoolTree"]

DEPTH_MAX = 8
"""Pools below one another at most, as vSphere allows."""

POOLS_MAX = 1600
SHARES_MAX = 4_000_000
HZ_MAX = 960 * 10_000_000_000

_NAME = r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}"


@attrs.frozen(kw_only=True)
class PoolSpec:
    """A resource pool as a scenario declares it; `parent` is another pool's name, or empty for the host itself.

    `shares` is low, normal, high or a number.  With `scalable` shares the level's ratio is applied to the shares of
    the pool's children instead (a number then counts as normal).
    """

    name: str = attrs.field(validator=matches(_NAME, "a pool name"))
    parent: str = ""
    shares: int | str = "normal"
    reservation_hz: int = attrs.field(default=0, metadata=quantity("hz"), validator=between(0, HZ_MAX))
    limit_hz: int | None = attrs.field(
        default=None, metadata=quantity("hz"), validator=attrs.validators.optional(between(1, HZ_MAX))
    )
    expandable: bool = attrs.field(default=True, validator=attrs.validators.instance_of(bool))
    scalable: bool = attrs.field(default=False, validator=attrs.validators.instance_of(bool))

    def __attrs_post_init__(self) -> None:
        if isinstance(self.shares, str):
            if self.shares not in POOL_SHARES:
                raise FieldError("shares", self.shares, "low, normal, high or a number")
        elif isinstance(self.shares, bool) or not 1 <= self.shares <= SHARES_MAX:
            raise FieldError("shares", self.shares, f"low, normal, high or an integer from 1 to {SHARES_MAX}")
        if self.limit_hz is not None and self.limit_hz < self.reservation_hz:
            raise FieldError("limit_hz", self.limit_hz, "at least the reservation")

    @property
    def plain_shares(self) -> int:
        """The shares as a number, when they do not scale."""
        return POOL_SHARES[self.shares] if isinstance(self.shares, str) else self.shares

    def shares_with(self, children_shares: int) -> int | Fraction:
        """Return the shares when those of the children that compete are so many together."""
        if not self.scalable:
            return self.plain_shares
        return scaled_shares(self.shares if isinstance(self.shares, str) else "normal", children_shares)


class Pool:
    """One pool that exists; `number` orders pools by age, `bucket` holds its limit, `node` what was had below it.

    `inside`: the shares of what is in it and wants CPU below a limit, in parts (`WANTED_BITS`).
    """

    __slots__ = ("bucket", "core_hz", "inside", "node", "number", "parent", "spec")

    def __init__(self, number: int, spec: PoolSpec, parent: Pool | None, core_hz: int) -> None:
        self.number = number
        self.spec = spec
        self.parent = parent
        self.bucket: LimitBucket | None = None
        self.node = ShareNode()
        self.inside = 0
        self.core_hz = core_hz

    @property
    def wanted_shares(self) -> int:
        """The pool's shares as long as something in it wants CPU, in parts; 0 if nothing does."""
        if not self.inside:
            return 0
        if not self.spec.scalable:
            return self.spec.plain_shares << WANTED_BITS
        level = self.spec.shares if isinstance(self.spec.shares, str) else "normal"
        return self.inside * POOL_SHARES[level] // POOL_SHARES["normal"]

    def want(self, shares: int) -> None:
        """Count shares of a world in, or out again if negative, here and in the pools above whose own change by it."""
        change, pool = shares << WANTED_BITS, self
        while change:
            before = pool.wanted_shares
            pool.inside += change
            if pool.parent is None:
                break
            change, pool = pool.wanted_shares - before, pool.parent

    @property
    def depth(self) -> int:
        """How many pools stand above it."""
        return 0 if self.parent is None else self.parent.depth + 1

    def nearest_bucket(self) -> LimitBucket | None:
        """Return the bucket of this pool, or of the nearest above it that has one."""
        pool: Pool | None = self
        while pool is not None:
            if pool.bucket is not None:
                return pool.bucket
            pool = pool.parent
        return None


class PoolTree:
    """The pools of a host by name, in the order in which they were made."""

    def __init__(self, sched: Scheduler, capacity_hz: int) -> None:
        self._sched = sched
        self.capacity_hz = capacity_hz
        self.pools: dict[str, Pool] = {}
        self._next_number = 1

    def add(self, spec: PoolSpec) -> Pool:
        """Make a resource pool; the caller has checked that it may be (`check`)."""
        parent = self.pools[spec.parent] if spec.parent else None
        pool = Pool(self._next_number, spec, parent, self._sched.topology.core_hz)
        self._limit(pool)
        self._next_number += 1
        self.pools[spec.name] = pool
        self._sched.policy.reconfigured()
        return pool

    def change(self, pool: Pool, spec: PoolSpec) -> None:
        """Give a pool another allocation; the worlds below must be suspended, and given theirs anew."""
        if pool.bucket is not None:
            pool.bucket.timer.cancel()
        pool.spec = spec
        self._limit(pool)
        for other in self.pools.values():
            if other.bucket is not None and other.parent is not None:
                other.bucket.parent = other.parent.nearest_bucket()
        self._sched.policy.reconfigured()

    def remove(self, name: str) -> None:
        """Remove a pool in which nothing is left."""
        pool = self.pools.pop(name)
        if any(world.pool is pool for world in self._sched.worlds.values()) or self.children(name):
            raise SimBug(f"pool {name} is not empty")
        if pool.bucket is not None:
            pool.bucket.timer.cancel()
        self._sched.policy.reconfigured()

    def _limit(self, pool: Pool) -> None:
        """Give a pool the bucket that its limit wants."""
        limit_hz = pool.spec.limit_hz
        pool.bucket = None if limit_hz is None else self._sched.bucket(limit_hz, pool.parent, of=pool)

    def get(self, name: str) -> Pool:
        """Return a pool; errors: `KeyError`."""
        return self.pools[name]

    def children(self, name: str) -> list[Pool]:
        """Return the pools directly below the pool `name` ("": the host)."""
        return [
            pool
            for pool in self.pools.values()
            if (pool.parent.spec.name if pool.parent is not None else "") == name
        ]

    def promises(self, **changes: PoolSpec) -> dict[str, Promise]:
        """Return what every pool promises, the host's root as ""; `changes` stand in for pools, or are new."""
        specs = {name: pool.spec for name, pool in self.pools.items()} | changes
        root = Promise(parent=None, reservation_hz=self.capacity_hz, expandable=False)
        return {"": root} | {
            name: Promise(
                parent=spec.parent,
                reservation_hz=spec.reservation_hz,
                expandable=spec.expandable,
                limit_hz=spec.limit_hz,
            )
            for name, spec in specs.items()
        }

    def check(self, reserved_hz: dict[str, int], **changes: PoolSpec) -> dict[str, int]:
        """Return what is used of every pool if VMs hold `reserved_hz`, by pool.  Errors: `PoolFull`."""
        return drawn(self.promises(**changes), reserved_hz)
