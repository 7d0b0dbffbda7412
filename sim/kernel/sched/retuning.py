"""Other options under a running scheduler: thresholds of groups and buckets that exist change with them.

Models: an option acts at once.  Where it is a threshold of co-scheduling or of limits, the worlds that have one and compete are
taken off the pCPUs for no time at all, so that no turn is out of a bucket while its depth changes.

Leaves out: another policy, engine or number of queues, which need another scheduler.  Sources: none, a design of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.errors import SimBug
from sim.kernel.sched.siblings import make_group
from sim.kernel.world import COMPETING, WorldState

if TYPE_CHECKING:
    from sim.kernel.sched.limit import LimitBucket
    from sim.kernel.sched.options import SchedOptions
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["configure"]

_THRESHOLDS = (
    *("costop_ns", "costart_ns", "cosched_polling", "cosched_poll_ns", "world_switch_ns", "migrate_llc_ns"),
    *("limit_burst_ns", "limit_slice_ns", "quantum_ns", "bound_lag_quanta"),
)
"""The options that groups and buckets copy."""


def configure(sched: Scheduler, options: SchedOptions) -> None:
    """Give a scheduler that runs other options."""
    before = sched.options
    if options.policy != before.policy:
        raise SimBug("another policy needs another scheduler")
    tunes = any(getattr(options, name) != getattr(before, name) for name in _THRESHOLDS)
    groups = bool(options.costop_ns) != bool(before.costop_ns)
    worlds = sorted(sched.worlds.values(), key=_order)  # whatever the order in which they were made
    held = [world for world in worlds if tunes and _holds(world, groups=groups)]
    for world in held:
        sched.suspend(world)
    sched.options = options
    for pcpu in sched.pcpus:
        pcpu.switch_cost_ns = options.world_switch_ns
    sched.migration_costs = sched.topology.llcs > 1 and options.migrate_llc_ns > 0
    if tunes:
        _tune_buckets(sched)
        _tune_groups(sched)
    sched.policy.reconfigured()
    sched.spreader.configure()
    for world in held:
        sched.resume(world)


def _holds(world: World, *, groups: bool) -> bool:
    """Whether a world must stand still: it competes and has thresholds, or its group comes or goes."""
    if groups and len(world.siblings) > 1:
        return world.state is not WorldState.WAIT_VM
    return world.gated and world.state in COMPETING


def _tune_buckets(sched: Scheduler) -> None:
    """Let every bucket have its new depth and turns, those above before those below."""
    found: dict[int, LimitBucket] = {}
    lowest = [world.bucket for world in sched.worlds.values()]
    lowest += [pool.bucket for pool in sched.pools.pools.values()]
    for bucket in lowest:
        each = bucket
        while each is not None:
            found[each.number] = each
            each = each.parent
    for each in sorted(found.values(), key=_depth):
        each.retune()


def _order(world: World) -> int:
    return world.begun


def _depth(bucket: LimitBucket) -> int:
    return 0 if bucket.parent is None else 1 + _depth(bucket.parent)


def _tune_groups(sched: Scheduler) -> None:
    """Let every group have its new thresholds; without a threshold there are no groups."""
    now_ns = sched.sim.now
    families: dict[int, tuple[World, ...]] = {}
    for world in sorted(sched.worlds.values(), key=_order):
        if len(world.siblings) > 1:
            families[world.siblings[0].world_id] = world.siblings
    for worlds in families.values():
        group = worlds[0].group
        if not sched.options.costop_ns:
            for world in worlds if group is not None else ():
                assert group is not None
                group.remove(world, now_ns)
                world.gated = world.bucket is not None
        elif group is not None:
            group.retune(now_ns)
        elif sched.policy.coscheduling:
            group = make_group(sched, len(worlds))
            for world in worlds:
                group.add(world, now_ns)
