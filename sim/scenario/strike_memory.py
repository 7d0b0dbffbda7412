"""Carrying out a memory error: bits of one DRAM word flip, and somebody reads them; or a bit that is written on purpose.

Models: the flip itself and, for an error that is found by an access, the read of its owner: the guest for a page of a
VM (which is touched first, if it never was), the kernel for everything else.  One that the patrol scrubber is to find
is left to it.  Which of the 72 bits flip comes from the fault's own stream.

Leaves out: errors in the tables of a VM as targets of their own ("dram" with an address reaches them).
"""

from __future__ import annotations

from collections.abc import Callable

from sim.errors import ScenarioError
from sim.hw.ecc import WORD_BITS
from sim.hw.mca import MachineCheck
from sim.hw.memory import FRAME_BYTES
from sim.kernel.host import Host
from sim.kernel.vm import PowerState, Vm
from sim.kernel.vmkernel import VMkernel
from sim.scenario.faults import FaultSpec, FaultTarget
from sim.scenario.strike import FAULT

__all__ = ["alter_memory", "strike_memory"]

FLIPPED_DEFAULT = 2
"""Two wrong bits: the least that the code cannot correct."""


def strike_memory(fault: FaultSpec, number: int, host: Host) -> None:
    """Carry out memory error `number` of the scenario; nothing happens to a host or a VM that is not running.

    Errors: `ScenarioError` for a byte beyond the kernel's memory.
    """
    kernel = host.kernel
    target = FaultTarget.parse(str(fault.target))
    vm = kernel.vms.vms.get(target.name) if kernel is not None else None
    if kernel is None or (target.place == "vm" and (vm is None or vm.state is PowerState.POWERED_OFF)):
        host.sim.trace.emit(FAULT, "memory_error (nothing there)", str(fault.target), -1, -1)
        return
    if vm is not None and vm.space is None:
        raise ScenarioError(
            f"faults[{number}].target",
            "the memory of this VM is managed, its pages have no place",
            got=fault.target,
        )
    stream = host.sim.rng.stream(f"fault/{number}")
    size = _size(target, kernel, vm)
    byte = fault.byte if fault.byte is not None else stream.below(size)
    if byte >= size:
        raise ScenarioError(f"faults[{number}].byte", f"{fault.target} has {size} bytes", got=byte)
    bits = _bits(fault, stream.below)
    pa = _address(target, byte, kernel, vm)
    host.sim.trace.emit(FAULT, fault.kind, str(fault.target), pa, bits[0])
    host.board.flip_memory_bits(pa, bits)
    if fault.found_by != "scrub":
        _read(pa, byte, kernel, vm)


def alter_memory(fault: FaultSpec, number: int, host: Host) -> None:
    """Write another bit into memory past the processor, with a good error code; errors as `strike_memory`."""
    kernel = host.kernel
    target = FaultTarget.parse(str(fault.target))
    vm = kernel.vms.vms.get(target.name) if kernel is not None else None
    if kernel is None or (target.place == "vm" and (vm is None or vm.space is None)):
        host.sim.trace.emit(FAULT, f"{fault.kind} (nothing there)", str(fault.target), -1, -1)
        return
    stream = host.sim.rng.stream(f"fault/{number}")
    size = _size(target, kernel, vm)
    byte = fault.byte if fault.byte is not None else stream.below(size)
    if byte >= size:
        raise ScenarioError(f"faults[{number}].byte", f"{fault.target} has {size} bytes", got=byte)
    bit = fault.bit if fault.bit is not None else stream.below(8)
    pa = _address(target, byte, kernel, vm)
    old = host.board.memory.read(pa, 1)[0]
    host.board.memory.write(pa, bytes([old ^ 1 << bit]))
    host.sim.trace.emit(FAULT, fault.kind, str(fault.target), pa, bit)


def _size(target: FaultTarget, kernel: VMkernel, vm: Vm | None) -> int:
    if vm is not None:
        return vm.configured_bytes
    if target.place == "dram":
        return kernel.board.memory.size_bytes
    return sum(segment.size_bytes for segment in kernel.memory.segments())


def _bits(fault: FaultSpec, below: Callable[[int], int]) -> list[int]:
    """Draw as many different bits of the word as the fault wants."""
    left = list(range(WORD_BITS))
    wanted = fault.bits if fault.bits is not None else FLIPPED_DEFAULT
    return [left.pop(below(len(left))) for _ in range(wanted)]


def _address(target: FaultTarget, byte: int, kernel: VMkernel, vm: Vm | None) -> int:
    """Return the physical address of a byte of the target."""
    if vm is not None and vm.space is not None:
        ppn, offset = divmod(byte, FRAME_BYTES)
        vm.space.populate(ppn, 1)
        leaf = vm.space.tables.leaf_at(ppn)
        if leaf is None:
            raise ScenarioError("faults", f"page {ppn:#x} of {vm.name} was lost to an earlier error")
        return (leaf.mpn + ppn - leaf.ppn) * FRAME_BYTES + offset
    if target.place == "dram":
        return byte
    for segment in kernel.memory.segments():
        for extent in segment.extents:
            if byte < extent.count * FRAME_BYTES:
                return extent.first_mpn * FRAME_BYTES + byte
            byte -= extent.count * FRAME_BYTES
    raise ScenarioError("faults", f"the kernel's segments end {byte} bytes before that byte")


def _read(pa: int, byte: int, kernel: VMkernel, vm: Vm | None) -> None:
    """Have the owner of the bytes read them."""
    if vm is not None and vm.guest is not None:
        vm.guest.load_physical(byte, 1)
        return
    try:
        kernel.board.memory.read(pa, 1)
    except MachineCheck as error:
        kernel.machine_checks.consumed(error.record, kernel.vms.owner_of_frame(pa // FRAME_BYTES))
