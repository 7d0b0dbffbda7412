"""Resource pools as management sees them: created, changed, removed, and virtual machines moved between them.

Models: admission control through the whole tree at every change (`entitlement.drawn`); changes that take effect at
once, on the virtual machines below too.  Leaves out memory allocations of pools.

Sources: vSphere API, ResourcePool (CreateResourcePool, UpdateConfig, MoveIntoResourcePool, Destroy_Task) and its faults.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from sim.core.trace import record
from sim.errors import VmksimError
from sim.kernel.sched.admission import AdmissionError
from sim.kernel.sched.entitlement import Party, PoolFull, divide
from sim.kernel.sched.pools import DEPTH_MAX, POOLS_MAX, Pool, PoolSpec
from sim.kernel.world import COMPETING

if TYPE_CHECKING:
    from sim.kernel.vm import Vm, VmManager

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

    def entitlements(self) -> dict[str, Fraction]:
        """Return the CPUs each VM that wants any is entitled to, divided through the pools, as a fluid."""
        scheduler = self._vms.scheduler
        wanting = [(vm, wanted) for vm in self._vms.admitted() if (wanted := self._wanted(vm))]
        own = {vm.name: Fraction(wanted) for vm, wanted in wanting if vm.vcpus[0].exclusive is not None}
        below: dict[str, list[Party]] = {}
        for vm, wanted in wanting:
            if vm.name not in own:
                below.setdefault(vm.spec.pool, []).append(self._party(vm, wanted))
        for pool in sorted(self._tree.pools.values(), key=lambda each: -each.depth):
            spec = pool.spec
            children = below.get(spec.name)
            if not children:
                continue
            limit = None if spec.limit_hz is None else Fraction(spec.limit_hz, pool.core_hz)
            inside = sum(int(child.weight) for child in children)
            party = Party(
                name=f"pool/{spec.name}",
                weight=spec.shares_with(inside),
                floor=Fraction(spec.reservation_hz, pool.core_hz),
                ceiling=limit,
                children=tuple(children),
            )
            below.setdefault(spec.parent, []).append(party)
        cpus = sum(pcpu.online for pcpu in scheduler.pcpus)
        root = Party(name="", weight=1, children=tuple(below.get("", ())), ceiling=0 if not below else None)
        found = divide(root, cpus)
        return own | {vm.name: found[f"vm/{vm.name}"][0] for vm, _ in wanting if vm.name not in own}

    def _wanted(self, vm: Vm) -> int:
        """Return how many vCPUs of a VM run or would run."""
        return sum(world.state in COMPETING for world in vm.vcpus)

    def _party(self, vm: Vm, wanted: int) -> Party:
        cpu, core_hz = vm.spec.cpu, self._vms.scheduler.topology.core_hz
        ceiling = Fraction(wanted)
        if cpu.limit_hz is not None:
            ceiling = min(ceiling, Fraction(cpu.limit_hz, core_hz))
        floor = min(ceiling, Fraction(cpu.reservation_hz, core_hz))
        return Party(name=f"vm/{vm.name}", weight=cpu.shares_per_vcpu * wanted, floor=floor, ceiling=ceiling)

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
