"""What is known of CPU time beyond worlds and pCPUs: sums of resource pools, and where the memory of VMs lies.

Models: a pool's times are those of the VMs in it and in the pools below it; a VM's home nodes, how often it was given
others, and how many of its pages lie on them.  Asking changes nothing.

Leaves out: memory of managed VMs, whose pages have no node.  Sources: esxtop's groups and its NUMA columns (NHN, NMIG, N%L).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import attrs

from sim.core.units import PAGE_BYTES
from sim.kernel.world import WorldTimes

if TYPE_CHECKING:
    from sim.kernel.counters import Snapshot
    from sim.kernel.sched.pools import Pool
    from sim.kernel.vm import Vm, VmManager
    from sim.kernel.world import World

__all__ = ["NumaBooks", "counters_of", "numa_books", "times_of", "vms_below"]


@attrs.frozen(kw_only=True)
class NumaBooks:
    """The home nodes of a VM (none: it has no home), migrations between nodes, and memory on the home nodes, of all."""

    home_nodes: tuple[int, ...] = ()
    migrations: int = 0
    local_bytes: int = 0
    bytes: int = 0


def numa_books(manager: VmManager, vm: Vm) -> NumaBooks:
    """Return where a VM is at home, and where its memory lies now."""
    numa, now_ns = manager.scheduler.numa, manager.sim.now
    clients = [each for each in numa.clients if any(world in each.worlds for world in vm.vcpus)]
    return NumaBooks(
        home_nodes=tuple(sorted({client.node for client in clients})),
        migrations=sum(client.migrations for client in clients),
        local_bytes=PAGE_BYTES * sum(client.local_at(numa.rate, now_ns) for client in clients),
        bytes=PAGE_BYTES * sum(sum(client.pages) for client in clients),
    )


def vms_below(manager: VmManager, name: str) -> list[Vm]:
    """Return the VMs in a pool and in those below it."""
    pools = manager.scheduler.pools.pools
    found = []
    for vm in manager.admitted():
        pool: Pool | None = pools.get(vm.spec.pool)
        while pool is not None and pool.spec.name != name:
            pool = pool.parent
        if pool is not None:
            found.append(vm)
    return found


def times_of(worlds: Iterable[World], now_ns: int) -> WorldTimes:
    """Return the sum of the times of worlds."""
    return reduce(add, (world.times(now_ns) for world in worlds), WorldTimes())


def counters_of(manager: VmManager, books: Snapshot) -> dict[str, Any]:
    """Return the answer of `host.counters` as plain values."""
    return {
        "time_ns": books.time_ns,
        "core_hz": books.core_hz,
        "worlds": [
            {"id": number, "name": books.names[number], **_plain(value)}
            for number, value in books.worlds.items()
        ],
        "vms": {name: list(numbers) for name, numbers in books.vms.items()},
        "pools": {name: _pool(manager, name) for name in manager.scheduler.pools.pools},
        "numa": {vm.name: _numa(numa_books(manager, vm)) for vm in manager.admitted()},
        "pcpus": [_plain(value) for value in books.pcpus],
    }


def _pool(manager: VmManager, name: str) -> dict[str, Any]:
    vms = vms_below(manager, name)
    worlds = [world for vm in vms for world in vm.worlds]
    parent = manager.scheduler.pools.get(name).spec.parent
    times = _plain(times_of(worlds, manager.sim.now))
    return {"parent": parent, "vms": [vm.name for vm in vms], "worlds": len(worlds), **times}


def _numa(books: NumaBooks) -> dict[str, Any]:
    return {**_plain(books), "home_nodes": list(books.home_nodes)}


def _plain(value: attrs.AttrsInstance) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
