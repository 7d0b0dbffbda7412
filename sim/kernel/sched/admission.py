"""Admission control: which VMs may be powered on, or reconfigured, given what is promised already.

Models: the checks before a power-on: width of the VM, CPU reservation of one vCPU and of the VM against what is not
yet reserved, memory with overhead against free frames.  What was admitted is guaranteed later; nothing is refused at
run time.

Leaves out: resource pools (`entitlement.drawn`), memory overcommitment, disk and network.

Sources: fault names of the vSphere API (InsufficientResourcesFault and its kin, with `requested` and `unreserved`);
`Cpu.VMAdmitCheckPerVcpuMin` and `Cpu.AllowWideVsmp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sim.core.units import format_bytes
from sim.errors import VmksimError
from sim.hw.topology import Topology
from sim.kernel.sched.machine import free_cores
from sim.kernel.sched.options import SchedOptions

if TYPE_CHECKING:
    from sim.kernel.sched.scheduler import Scheduler
    from sim.kernel.vmspec import VmSpec

__all__ = ["AdmissionError", "admit_cpu", "admit_latency", "admit_memory", "cpu_capacity_hz"]


class AdmissionError(VmksimError):
    """A power-on or reconfiguration was refused; `fault` is the vSphere API's name for the reason.

    `requested` and `unreserved` are in Hz, bytes or vCPUs, as the fault wants.
    """

    def __init__(self, fault: str, message: str, *, requested: int, unreserved: int) -> None:
        self.fault = fault
        self.message = message
        self.requested = requested
        self.unreserved = unreserved
        super().__init__(fault, message)

    def __str__(self) -> str:
        return f"{self.fault}: {self.message}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.fault, self.message, self.requested, self.unreserved))


def _rebuild(fault: str, message: str, requested: int, unreserved: int) -> AdmissionError:
    return AdmissionError(fault, message, requested=requested, unreserved=unreserved)


def cpu_capacity_hz(topology: Topology) -> int:
    """Return what can be reserved on a host: its cores times their speed; a second thread adds nothing."""
    return len(topology.pcpus) // topology.threads_per_core * topology.core_hz


def admit_cpu(
    name: str,
    vcpus: int,
    reservation_hz: int,
    *,
    reserved_hz: int,
    topology: Topology,
    options: SchedOptions,
    affinity: Sequence[int] = (),
) -> None:
    """Check a VM's width and CPU reservation; `reserved_hz` is promised to others.  Errors: `AdmissionError`."""
    pcpus = len(topology.pcpus)
    for pcpu in affinity:
        if pcpu >= pcpus:
            text = f"{name} wants pCPU {pcpu}, and the host has {pcpus}"
            raise AdmissionError("InvalidVmConfig", text, requested=pcpu, unreserved=pcpus)
    if vcpus > pcpus and not options.allow_wide_vsmp:
        text = f"the host has {pcpus} logical processors, {name} needs {vcpus}"
        raise AdmissionError("NotEnoughLogicalCpus", text, requested=vcpus, unreserved=pcpus)
    if reservation_hz > vcpus * topology.core_hz and options.admit_check_per_vcpu:
        text = (
            f"{name} reserves {_mhz(reservation_hz)} for {vcpus} vCPUs, "
            f"and one vCPU cannot have more than {_mhz(topology.core_hz)}"
        )
        raise AdmissionError(
            "InsufficientCpuResourcesFault",
            text,
            requested=reservation_hz,
            unreserved=vcpus * topology.core_hz,
        )
    unreserved_hz = cpu_capacity_hz(topology) - reserved_hz
    if reservation_hz > unreserved_hz:
        text = (
            f"the host's CPU resources do not suffice for {name}: "
            f"{_mhz(reservation_hz)} requested, {_mhz(unreserved_hz)} unreserved"
        )
        raise AdmissionError(
            "InsufficientCpuResourcesFault", text, requested=reservation_hz, unreserved=unreserved_hz
        )


def admit_latency(spec: VmSpec, sched: Scheduler, *, own: int = 0, limited: bool = False) -> None:
    """Check that a latency-sensitive VM reserves all of its vCPUs and that cores can be spared for those it lacks.

    `own`: those it has; `limited`: whether its pool has a limit.

    Errors: `AdmissionError`.
    """
    cpu = spec.cpu
    if cpu.latency != "high":
        return
    whole_hz = spec.vcpus * sched.topology.core_hz
    if cpu.reservation_hz != whole_hz or cpu.limit_hz is not None or limited:
        text = f"{spec.name} is latency-sensitive and must reserve {_mhz(whole_hz)} without a limit"
        raise AdmissionError("InvalidVmConfig", text, requested=cpu.reservation_hz, unreserved=whole_hz)
    spare = len(free_cores(sched)) - 1
    if spec.vcpus - own > spare:
        text = f"{spec.name} wants {spec.vcpus} cores of its own, and {spare} can be spared"
        raise AdmissionError("NotEnoughLogicalCpus", text, requested=spec.vcpus, unreserved=spare)


def admit_memory(name: str, memory_bytes: int, overhead_bytes: int, *, free_bytes: int) -> None:
    """Check a VM's memory, all of it, and its overhead against the free frames.  Errors: `AdmissionError`."""
    requested = memory_bytes + overhead_bytes
    if requested > free_bytes:
        text = (
            f"the host's memory resources do not suffice for {name}: {format_bytes(memory_bytes)} and "
            f"{format_bytes(overhead_bytes)} overhead requested, {format_bytes(free_bytes)} unreserved"
        )
        raise AdmissionError(
            "InsufficientMemoryResourcesFault", text, requested=requested, unreserved=free_bytes
        )


def _mhz(hz: int) -> str:
    return f"{hz // 1_000_000} MHz"
