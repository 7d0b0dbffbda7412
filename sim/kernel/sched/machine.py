"""What changes in the machine under a running scheduler: pCPUs that go and come, and the frequency of cores.

Models: a pCPU taken offline gives its world back to the queue and is looked at no more; one that comes back takes work at
once.  A core's frequency changes what its worlds' time is worth from that moment on (`cores`).

Leaves out: the time that either takes, and why a frequency changes.  Sources: none, a design of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.errors import SimBug
from sim.kernel.sched.cores import CoreClock

if TYPE_CHECKING:
    from sim.kernel.sched.scheduler import Scheduler

__all__ = ["set_frequency", "set_online"]


def set_online(sched: Scheduler, index: int, *, online: bool) -> None:
    """Take a pCPU out of use, or back into it.

    Errors: `SimBug` when it is the last one that some world may use.
    """
    pcpu = sched.pcpus[index]
    if pcpu.online == online:
        return
    rest = sum(1 << each.index for each in sched.pcpus if each.online and each is not pcpu)
    if not online and (not rest or any(not world.affinity & rest for world in sched.worlds.values())):
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
