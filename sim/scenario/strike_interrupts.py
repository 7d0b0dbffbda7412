"""Interrupts that nobody asked for: a device that was left programmed, or noise on a line.

Models: so many interrupts, one every 10 us, from one pCPU to the next, at a vector that the fault names or that is drawn
from those that nobody owns.  What becomes of them is the kernel's business (`sim.kernel.interrupts`).

Leaves out: which device sends them.  Sources: none, a design of ours.
"""

from __future__ import annotations

from sim.core.units import US
from sim.kernel.host import Host
from sim.kernel.interrupts import EXCEPTIONS, VECTORS
from sim.kernel.vmkernel import VMkernel
from sim.scenario.faults import FaultSpec
from sim.scenario.strike import FAULT

__all__ = ["strike_interrupts"]

EVERY_NS = 10 * US


def strike_interrupts(fault: FaultSpec, number: int, host: Host) -> None:
    """Send the interrupts of fault `number`; nothing happens to a host that is not running."""
    kernel = host.kernel
    if kernel is None:
        host.sim.trace.emit(FAULT, f"{fault.kind} (nothing there)", "", -1, -1)
        return
    vector = fault.vector
    if vector is None:
        free = [
            one for one in range(EXCEPTIONS.value, VECTORS.value) if kernel.interrupts.owner_of(one) is None
        ]
        vector = free[host.sim.rng.stream(f"fault/{number}").below(len(free))]
    host.sim.trace.emit(FAULT, fault.kind, f"vector {vector:#x}", -1, -1)
    _send(host, kernel, vector, fault.count if fault.count is not None else 1)


def _send(host: Host, kernel: VMkernel, vector: int, left: int) -> None:
    """Deliver one interrupt, and see to the rest, as long as this boot lasts."""
    if host.kernel is not kernel:
        return
    kernel.interrupts.deliver(left % len(kernel.board.topology.pcpus), vector)
    if left > 1:
        host.sim.engine.after(EVERY_NS, _send, host, kernel, vector, left - 1)
