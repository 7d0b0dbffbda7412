"""What changes in the machine under a running scheduler: pCPUs that go and come, and the frequency of cores.

Models: a pCPU taken offline gives its world back to the queue and is looked at no more; one that comes back takes work at
once.  A world may have a core of its own, which for all others is offline.  A core's frequency changes what its worlds' time is worth from that moment on (`cores`).

Leaves out: the time that either takes, and why a frequency changes.  Sources: none, a design of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.errors import SimBug
from sim.kernel.sched.cores import CoreClock
from sim.kernel.world import WorldState

if TYPE_CHECKING:
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.world import World

__all__ = ["dedicate", "free_cores", "give_back", "is_last", "set_frequency", "set_online"]


def is_last(sched: Scheduler, index: int) -> bool:
    """Whether a pCPU cannot go offline: it is the last that some world may use, or a world's own."""
    pcpu, worlds = sched.pcpus[index], sched.worlds.values()
    rest = sum(1 << each.index for each in sched.pcpus if each.online and each is not pcpu)
    own = any(world.exclusive is pcpu for world in worlds)
    return own or not rest or any(not world.affinity & rest for world in worlds)


def set_online(sched: Scheduler, index: int, *, online: bool) -> None:
    """Take a pCPU out of use, or back into it.

    Errors: `SimBug` when it is the last one that some world may use.
    """
    pcpu = sched.pcpus[index]
    if pcpu.online == online or any(world.exclusive is pcpu for world in sched.worlds.values()):
        return
    if not online and is_last(sched, index):
        raise SimBug(f"pCPU {index} is the last that a world may use")
    now_ns = sched.sim.now
    pcpu.online = online
    sched.online ^= 1 << index
    if online:
        sched.idle.set_idle(index)
        pcpu.run_next(now_ns)
    else:
        pcpu.vacate(now_ns)
        sched.idle.set_busy(index)
    sched.numa.machine_changed()
    sched.policy.reconfigured()
    sched.spreader.rearm(now_ns)


def set_frequency(sched: Scheduler, index: int, hz: int) -> None:
    """Let the core of a pCPU run at `hz` from now on."""
    now_ns = sched.sim.now
    pcpu = sched.pcpus[index]
    for each in sched.pcpus:
        if each.place.core == pcpu.place.core:
            each.settle(now_ns)
    if pcpu.core is None:
        pcpu.core = CoreClock(sched.topology.core_hz)
        pcpu.core.threads.append(pcpu)
        pcpu.core.busy = int(pcpu.world is not None)
    pcpu.core.hz = hz


def free_cores(sched: Scheduler) -> list[list[int]]:
    """Return the cores, as lists of pCPU numbers, of which every thread is in use by the policy."""
    cores: dict[int, list[int]] = {}
    for pcpu in sched.pcpus:
        cores.setdefault(pcpu.place.core, []).append(pcpu.index)
    return [threads for threads in cores.values() if all(sched.pcpus[index].online for index in threads)]


def dedicate(sched: Scheduler, world: World) -> None:
    """Give a waiting world a core of its own, with nothing on its other thread (latency sensitivity High).

    No limit holds for it then.

    Errors: `SimBug` when no core can be spared; the caller has looked at `free_cores`.
    """
    cores = [core for core in free_cores(sched) if world.affinity >> core[0] & 1]
    near = [core for core in cores if sched.pcpus[core[0]].place.node == world.home]
    chosen = (near or cores)[0] if len(free_cores(sched)) > 1 and cores else None
    if chosen is None or world.state is not WorldState.WAIT_VM:
        raise SimBug(f"no core can be spared for world {world.world_id}")
    if world.home >= 0:
        sched.numa.release(world)
    for index in chosen:
        set_online(sched, index, online=False)
    world.exclusive = sched.pcpus[chosen[0]]
    world.exclusive.follow(None)
    world.bucket = None
    world.gated = world.group is not None


def give_back(sched: Scheduler, world: World) -> None:
    """Let everybody use the core of a world again that has ended or waits."""
    pcpu = world.exclusive
    assert pcpu is not None
    world.exclusive = None
    pcpu.follow(sched.policy)
    for each in sched.pcpus:
        if each.place.core == pcpu.place.core:
            set_online(sched, each.index, online=True)
