"""Hot-plugging of vCPUs: another number of them while the VM is on.

Models: admission as for a power-on of that width; vCPUs with the highest numbers go first; the others keep their
work.  A guest that computes in step with itself is told: a newcomer takes part in the barrier or the lock of its siblings,
and one that goes is waited for no longer, or gives up the lock.

Leaves out: the guest's own work for it; hot-plugging of memory.  The times of a vCPU that has gone leave the VM's sums.

Sources: vSphere API, VirtualMachineConfigSpec (numCPUs, cpuHotAddEnabled, cpuHotRemoveEnabled) and the fault
CpuHotPlugNotSupported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sim.core.trace import record
from sim.kernel.coupled import leave_gate, more_workloads
from sim.kernel.sched.admission import AdmissionError
from sim.kernel.sched.siblings import join_siblings, part_siblings
from sim.kernel.sched.steps import open_gate

if TYPE_CHECKING:
    from sim.core.rng import FastStream
    from sim.kernel.vm import Vm, VmManager
    from sim.kernel.vmspec import VmSpec
    from sim.kernel.workload import Workload, WorkloadSpec
    from sim.kernel.world import World

__all__ = ["check_hotplug", "set_vcpus"]

VM_VCPUS = record("vm.vcpus", vm=str, old=int, new=int)
"""A VM got another number of vCPUs while it was on."""


def check_hotplug(vm: Vm, vcpus: int) -> None:
    """Check that a VM that is on may get this number of vCPUs.  Errors: `AdmissionError`."""
    present = len(vm.vcpus)
    allowed = vm.spec.cpu_hot_add if vcpus > present else vm.spec.cpu_hot_remove
    if vcpus != present and not allowed:
        what = "more" if vcpus > present else "fewer"
        text = f"{vm.name} is on with {present} vCPUs, and cannot have {what} until it is powered off"
        raise AdmissionError("CpuHotPlugNotSupported", text, requested=vcpus, unreserved=present)


def set_vcpus(manager: VmManager, vm: Vm, spec: VmSpec) -> None:
    """Give a VM that is on the number of vCPUs, and the CPU allocation, of a spec that has been admitted."""
    scheduler, old = manager.scheduler, vm.vcpus
    for world in old:
        scheduler.suspend(world)
    present = old[: spec.vcpus]
    added: tuple[World, ...] = ()
    if spec.vcpus < len(old):
        gone = old[spec.vcpus :]
        for world in gone:
            open_gate(leave_gate(world), manager.sim.now)
        part_siblings(scheduler, present, gone)
    else:
        added = _new_worlds(manager, vm, spec)
        join_siblings(scheduler, present, added)
    vm.vcpus, vm.spec = (*present, *added), spec
    manager.allocate_cpu(vm)
    manager.sim.trace.emit(VM_VCPUS, vm.name, len(old), spec.vcpus)
    for world in present:
        scheduler.resume(world)
    for world in added:
        scheduler.begin(world)


def _new_worlds(manager: VmManager, vm: Vm, spec: VmSpec) -> tuple[World, ...]:
    first = len(vm.vcpus)
    streams = manager.vcpu_streams(vm.name, first, spec.vcpus)
    if vm.workload_of is None:
        workloads = _workloads(vm, spec, streams)
    else:
        workloads = [vm.workload_of(first + index, stream) for index, stream in enumerate(streams)]
    return tuple(manager.make_vcpu(vm, first + index, workload) for index, workload in enumerate(workloads))


def _workloads(vm: Vm, spec: VmSpec, streams: Sequence[FastStream]) -> list[Workload]:
    """Make the workloads of newcomers; who has a sibling with the same one takes part in what that does."""
    first = len(vm.vcpus)
    made: dict[int, Workload] = {}
    alike: dict[WorkloadSpec, list[int]] = {}
    for index in range(first, first + len(streams)):
        alike.setdefault(spec.workload_of(index), []).append(index)
    for each, indexes in alike.items():
        siblings = [world.workload for index, world in enumerate(vm.vcpus) if spec.workload_of(index) == each]
        drawn = [streams[index - first] for index in indexes]
        new = more_workloads(each, drawn, siblings[0]) if siblings else each.build_all(drawn)
        made.update(zip(indexes, new, strict=True))
    return [made[index] for index in range(first, first + len(streams))]
