"""What the machine does to its own processors: a logical one goes offline or comes back, a core changes its frequency.

Models: no management call, but hardware and firmware: `pcpu_offline`, `pcpu_online`, `frequency` of the core of a pCPU.
It lasts until the next boot.

Leaves out: why it happens, and the time it takes.  Sources: none, a design of ours.
"""

from __future__ import annotations

from sim.kernel.host import Host
from sim.kernel.sched.machine import is_last, set_frequency, set_online
from sim.scenario.faults import FaultSpec, FaultTarget
from sim.scenario.strike import FAULT

__all__ = ["strike_processor"]


def strike_processor(fault: FaultSpec, host: Host) -> None:
    """Carry a fault of a processor out; a pCPU that is the last that some world may use stays online, and is not struck."""
    kernel, target = host.kernel, str(fault.target)
    if kernel is None:
        host.sim.trace.emit(FAULT, f"{fault.kind} (nothing there)", target, -1, -1)
        return
    scheduler, index = kernel.scheduler, int(FaultTarget.parse(target).name)
    if fault.kind == "frequency":
        set_frequency(scheduler, index, fault.frequency_hz or scheduler.topology.core_hz)
    elif fault.kind == "pcpu_online":
        set_online(scheduler, index, online=True)
    elif is_last(scheduler, index):
        host.sim.trace.emit(FAULT, f"{fault.kind} (refused)", target, -1, -1)
        host.sim.log(
            "vmkernel", f"pCPU {index} stays online: it is the last that a world may use, or its own"
        )
        return
    else:
        set_online(scheduler, index, online=False)
    host.sim.trace.emit(FAULT, fault.kind, target, -1, -1)
