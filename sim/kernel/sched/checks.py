"""What must hold in a scheduler at every moment between two events.

Models: nothing; it looks.  Leaves out what only a trace shows (the property tests do that).
Sources: the invariants are numbered in the tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.errors import SimBug

if TYPE_CHECKING:
    from sim.kernel.sched.cosched import VcpuGroup
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["check_scheduler"]


def check_scheduler(sched: Scheduler) -> None:
    """Raise `SimBug` unless books and queues agree and no pCPU is idle while a world is ready for it."""
    now_ns = sched.sim.now
    for pcpu in sched.pcpus:
        pcpu.check_invariants(now_ns, sched.began_ns)
    groups: dict[int, VcpuGroup] = {}
    for world in sched.worlds.values():
        world.check_invariants(now_ns)
        if world.bucket is not None:
            world.bucket.check_invariants()
        if world.group is not None:
            groups.setdefault(world.group.worlds[0].world_id, world.group)
        if world.pcpu is not None and not sched.fits(world, world.pcpu):
            raise SimBug(f"world {world.world_id} runs on pCPU {world.pcpu.index}, which it may not use")
    for group in groups.values():
        group.check_invariants(now_ns)
    _check_sums(sched, now_ns)
    sched.idle.check_invariants()
    sched.spreader.check_invariants()
    sched.policy.check_invariants()


def _check_sums(sched: Scheduler, now_ns: int) -> None:
    ran_ns = sum(world.times(now_ns).run_ns for world in sched.worlds.values()) + sched.ended_run_ns
    if ran_ns != sum(pcpu.times(now_ns).busy_ns for pcpu in sched.pcpus):
        raise SimBug("the worlds' run time is not the pCPUs' busy time")
    ready = [world for world in sched.worlds.values() if sched.is_queued(world)]
    if len(ready) != sched.policy.queued():
        raise SimBug(f"{len(ready)} worlds are ready, {sched.policy.queued()} are queued")
    _check_idle(sched, ready, now_ns)
    if sum(pcpu.world is None and pcpu.online for pcpu in sched.pcpus) != sched.idle.idle.bit_count():
        raise SimBug(f"the mask of idle pCPUs {sched.idle.idle:#x} is wrong")


def _check_idle(sched: Scheduler, ready: list[World], now_ns: int) -> None:
    """Work conservation: within the policy's patience."""
    patience_ns = sched.policy.patience_ns()
    for pcpu in sched.pcpus:
        if pcpu.idle_since_ns < 0 or not pcpu.online:
            continue
        for world in ready:
            waited_ns = now_ns - max(world.since_ns, pcpu.idle_since_ns)
            if sched.fits(world, pcpu) and (not patience_ns or waited_ns > patience_ns):
                raise SimBug(f"pCPU {pcpu.index} is idle while world {world.world_id} is ready")
