"""Unloading a kernel module under the eyes of a processor that goes on using it.

Models: the last pCPU, as a late interrupt of the driver would, reads the module's memory just before the unload, at the
same instant, and again when a shootdown of that kind is over.  Each look is traced: what the processor got, and whose
the frame is that it reached.  With shootdowns the last look faults; without them it reads memory that is free, or
another's.

Leaves out: the module's own exit function, and a kernel that would crash from such a fault.

Sources: Black et al., "Translation lookaside buffer consistency: a software approach", ASPLOS 1989.
"""

from __future__ import annotations

import difflib

from sim.core.trace import record
from sim.core.units import MS
from sim.errors import ScenarioError
from sim.hw.memory import FRAME_BYTES
from sim.hw.mmu.walk import Access, Kind, Translation
from sim.kernel.host import Host
from sim.kernel.loader import LoadRefused
from sim.kernel.vmkernel import VMkernel
from sim.scenario.faults import FaultSpec, FaultTarget
from sim.scenario.strike import FAULT

__all__ = ["strike_module"]

LATE_ACCESS = record("memory.late_access", pcpu=int, va=int, outcome=str, owner=str)
"""A processor reads where a module is or was: granted or the fault, and the owner of the frame ("" for none)."""

LAST_LOOK_NS = MS
"""When the processor looks for the last time: any shootdown of a host with 1,024 pCPUs is over by then."""


def strike_module(fault: FaultSpec, number: int, host: Host) -> None:
    """Carry out the unloading that fault `number` asks for; nothing happens to a host that is not running.

    Errors: `ScenarioError` for a module that is not loaded or is in use.
    """
    name = FaultTarget.parse(str(fault.target)).name
    kernel = host.kernel
    if kernel is None:
        host.sim.trace.emit(FAULT, f"{fault.kind} (nothing there)", str(fault.target), -1, -1)
        return
    host.sim.trace.emit(FAULT, fault.kind, str(fault.target), -1, -1)
    try:
        base = kernel.loader.get(name).segments[-1].base
        _look(kernel, base)
        kernel.loader.unload(name)
    except LoadRefused as refused:
        near = difflib.get_close_matches(name, [one.name for one in kernel.loader.modules()], n=1)
        raise ScenarioError(
            f"faults[{number}].target",
            refused.message,
            got=name,
            nearest=near[0] if near and near[0] != name else None,
        ) from None
    _look(kernel, base)
    host.sim.engine.after(LAST_LOOK_NS, _last_look, host, kernel, base)


def _last_look(host: Host, kernel: VMkernel, base: int) -> None:
    if host.kernel is kernel:
        _look(kernel, base)


def _look(kernel: VMkernel, va: int) -> None:
    """Let the last processor read at an address, and trace what it got."""
    pcpu = kernel.board.processors.count - 1
    outcome = kernel.memory.access(pcpu, va, Access(Kind.READ))
    granted = isinstance(outcome, Translation)
    owner = (
        kernel.board.memory.owner_of(outcome.pa // FRAME_BYTES) if isinstance(outcome, Translation) else None
    )
    text = "granted" if granted else str(outcome)
    kernel.sim.trace.emit(LATE_ACCESS, pcpu, va, text, owner or "")
