"""Resource pools as management sees them: created, changed, removed, and virtual machines moved between them.

Models: admission control through the whole tree at every change (`entitlement.drawn`); changes that take effect at
once, on the virtual machines below too.  Leaves out memory allocations of pools.

Sources: vSphere API, ResourcePool (CreateResourcePool, UpdateConfig, MoveIntoResourcePool, Destroy_Task) and its faults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.core.trace import record
from sim.errors import VmksimError
from sim.kernel.sched.admission import AdmissionError
from sim.kernel.sched.entitlement import PoolFull
from sim.kernel.sched.pools import DEPTH_MAX, POOLS_MAX, Pool, PoolSpec

if TYPE_CHECKING:
    from sim.kernel.vm import VmManager

__all__ = ["PoolError", "PoolManager"]

POOL_CHANGE = record("pool.change", pool=str, change=str, shares=int, reservation_hz=int, limit_hz=int)
"""A pool was created, changed or removed; shares are 0 when they scale."""


class PoolError(VmksimError):
    """A pool is missing, there already, not empty, or would stand below itself."""


class PoolManager:
    """The resource pools of one host."""

    def __init__(self, vms: VmManager) -> None:
        self._vms = vms
        self._tree = vms.scheduler.pools

    def find(self, name: str) -> Pool | None:
        """Return a pool, None for the host itself (""); errors: `PoolError`."""
        if name and name not in self._tree.pools:
            raise PoolError(f"there is no resource pool {name!r}")
        return self._tree.pools[name] if name else None

    def check(self, pool: str, vm: str, reservation_hz: int) -> None:
        """Check that a VM may hold a reservation in a pool; errors: `AdmissionError`, `PoolError`."""
        self.find(pool)
        self._check(self._reserved(vm, pool, reservation_hz), {}, vm)

    def create(self, spec: PoolSpec) -> None:
        """Make a pool; errors: `PoolError`, `AdmissionError`."""
        if spec.name in self._tree.pools or len(self._tree.pools) >= POOLS_MAX:
            raise PoolError(f"{spec.name} is there already, or there are {POOLS_MAX} pools")
        parent = self.find(spec.parent)
        if parent is not None and parent.depth + 2 > DEPTH_MAX:
            raise PoolError(f"{spec.name} would stand deeper than {DEPTH_MAX} pools")
        self._check(self._reserved(), {spec.name: spec}, spec.name)
        self._tree.add(spec)
        self._trace(spec, "created")

    def reconfigure(self, spec: PoolSpec) -> None:
        """Give a pool other shares, reservation or limit; it stays where it is.  Errors: as `create`."""
        pool = self.find(spec.name)
        if pool is None or spec.parent != pool.spec.parent:
            raise PoolError(f"{spec.name} stays below {pool.spec.parent if pool else 'nothing'!r}")
        self._check(self._reserved(), {spec.name: spec}, spec.name)
        below = [vm for vm in self._vms.admitted() if self._is_below(self.find(vm.spec.pool), pool)]
        self._vms.reallocate(below, before=lambda: self._tree.change(pool, spec))
        self._trace(spec, "changed")

    def remove(self, name: str) -> None:
        """Remove an empty pool."""
        pool = self.find(name)
        if (
            pool is None
            or self._tree.children(name)
            or any(vm.spec.pool == name for vm in self._vms.admitted())
        ):
            raise PoolError(f"{name or 'the host'} is no empty resource pool")
        self._tree.remove(name)
        self._trace(pool.spec, "removed")

    def rows(self) -> list[dict[str, Any]]:
        """Return every pool with its allocation and what is used of its reservation."""
        used = self._tree.check(self._reserved())
        return [
            {
                "name": name,
                "parent": pool.spec.parent,
                "shares": pool.spec.plain_shares,
                "scalable": pool.spec.scalable,
                "reservation_hz": pool.spec.reservation_hz,
                "reservation_used_hz": used[name],
                "expandable": pool.spec.expandable,
                "limit_hz": -1 if pool.spec.limit_hz is None else pool.spec.limit_hz,
                "vms": [vm.name for vm in self._vms.admitted() if vm.spec.pool == name],
            }
            for name, pool in self._tree.pools.items()
        ]

    def check_invariants(self) -> None:
        """Raise `PoolFull` if more is promised than there is."""
        self._tree.check(self._reserved())

    def _reserved(self, vm: str = "", pool: str = "", reservation_hz: int = 0) -> dict[str, int]:
        """Return what VMs hold in each pool, the one named `vm` with `reservation_hz` in `pool` instead."""
        held: dict[str, int] = {pool: reservation_hz} if vm else {}
        for other in self._vms.admitted():
            if other.name != vm:
                held[other.spec.pool] = held.get(other.spec.pool, 0) + other.spec.cpu.reservation_hz
        return held

    def _check(self, reserved_hz: dict[str, int], changes: dict[str, PoolSpec], name: str) -> None:
        try:
            self._tree.check(reserved_hz, **changes)
        except PoolFull as error:
            where = f"pool {error.pool}" if error.pool else "the host"
            text = (
                f"the CPU resources of {where} do not suffice for {name}: {error.requested_hz // 1_000_000} MHz "
                f"requested of {error.unreserved_hz // 1_000_000} MHz"
            )
            raise AdmissionError(
                "InsufficientCpuResourcesFault",
                text,
                requested=error.requested_hz,
                unreserved=error.unreserved_hz,
            ) from error

    @staticmethod
    def _is_below(pool: Pool | None, above: Pool) -> bool:
        while pool is not None and pool is not above:
            pool = pool.parent
        return pool is above

    def _trace(self, spec: PoolSpec, change: str) -> None:
        shares = 0 if spec.scalable else spec.plain_shares
        limit_hz = -1 if spec.limit_hz is None else spec.limit_hz
        self._vms.sim.trace.emit(POOL_CHANGE, spec.name, change, shares, spec.reservation_hz, limit_hz)
