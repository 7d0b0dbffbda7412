"""A VM's set of vCPUs changes while it is on: newcomers become siblings of those that are there, others go.

Models: co-scheduling and home nodes of a VM that gets wider or narrower.  A newcomer begins level with its slowest
sibling, and on the home node of the narrowest of the VM's NUMA clients, or a client of its own where all are full.

Leaves out: what the guest makes of it; memory stays where it is.  Sources: none, a design of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.errors import SimBug
from sim.kernel.sched.cosched import VcpuGroup
from sim.kernel.sched.cosched_narrow import NarrowGroup
from sim.kernel.sched.cosched_wide import WIDE_VCPUS_MIN, WideGroup
from sim.kernel.world import WorldState

if TYPE_CHECKING:
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["join_siblings", "make_group", "part_siblings"]


def make_group(sched: Scheduler, vcpus: int) -> VcpuGroup:
    """Make the group of a VM with so many vCPUs, empty as yet."""
    return WideGroup(sched) if vcpus >= WIDE_VCPUS_MIN else NarrowGroup(sched)


def join_siblings(sched: Scheduler, present: tuple[World, ...], added: tuple[World, ...]) -> None:
    """Make new worlds siblings of the suspended vCPUs of a VM; give them their allocation afterwards."""
    _check_suspended(present)
    worlds = (*present, *added)
    sched.numa.widen(present, added)
    for world in worlds:
        world.siblings = worlds
    if not sched.policy.coscheduling or not sched.options.costop_ns:
        return
    wide = len(worlds) >= WIDE_VCPUS_MIN
    group = present[0].group
    if group is None:
        group = make_group(sched, len(worlds))
        for world in present:
            group.add(world, sched.sim.now)
    elif wide and not isinstance(group, WideGroup):
        wider = WideGroup(sched)
        wider.take_over(group, sched.sim.now)
        group = wider
    for world in added:
        group.add(world, sched.sim.now)


def part_siblings(sched: Scheduler, stay: tuple[World, ...], gone: tuple[World, ...]) -> None:
    """End some of the suspended vCPUs of a VM; give the others their allocation afterwards."""
    _check_suspended((*stay, *gone))
    for world in gone:
        sched.end(world)
    for world in stay:
        world.siblings = stay
    if len(stay) == 1 and stay[0].group is not None:
        stay[0].group.remove(stay[0], sched.sim.now)


def _check_suspended(worlds: tuple[World, ...]) -> None:
    if any(world.state is not WorldState.WAIT_VM for world in worlds):
        raise SimBug("vCPUs come and go only while their siblings are suspended")
