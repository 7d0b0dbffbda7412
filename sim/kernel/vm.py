"""Virtual machines: groups of vCPU worlds with a CPU allocation and memory.

Models: power-on with admission control, guest-physical memory that takes frames from the host as the guest touches it,
one world for each vCPU and a VMX helper world; power-off, suspend, resume and live reconfiguration of the CPU
allocation; the end of a VM whose memory a machine check destroyed.

What a VM may touch is kept free for it, unless it declares how its memory is managed: then the memory scheduler
(`sim.kernel.memory.scheduler`) gives it frames, and takes them, by shares.

Leaves out: guest instructions, devices, guest-physical spaces of managed VMs (their pages have no frame numbers), and any
work of the VMX world, which only waits.

Sources: shares of 500, 1000 and 2000 per vCPU, reservations, limits, power states and faults as in the vSphere API;
maximum of vCPUs as in the configuration maximums of ESXi 8; overhead as printed for ESX Server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

import attrs

from sim.core.context import Sim
from sim.core.facts import fact
from sim.core.rng import FastStream
from sim.core.trace import record
from sim.core.units import MIB, PAGE_BYTES
from sim.errors import SimBug, VmksimError
from sim.hw.board import Board
from sim.hw.mca import MceRecord
from sim.hw.memory import Extent
from sim.hw.mmu.ept_tables import table_frames_max
from sim.kernel.memory.guest_access import GuestAccess
from sim.kernel.memory.guest_space import GuestSpace
from sim.kernel.memory.options import MemOptions
from sim.kernel.resource_pools import PoolManager
from sim.kernel.sched.admission import AdmissionError, admit_cpu, admit_latency, admit_memory, cpu_capacity_hz
from sim.kernel.sched.limit import LimitBucket
from sim.kernel.sched.machine import dedicate, give_back
from sim.kernel.sched.placement import bits
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.swap_waits import SwapWaits
from sim.kernel.vcpu_hotplug import check_hotplug, set_vcpus
from sim.kernel.vmspec import SHARES_NORMAL, CpuAllocation, VmSpec
from sim.kernel.workload import Idle, Workload
from sim.kernel.world import World

if TYPE_CHECKING:
    from sim.kernel.memory.scheduler import Guest, MemoryScheduler

__all__ = ["AdmissionError", "CpuAllocation", "PowerState", "Vm", "VmManager", "VmSpec", "VmStateError"]

OVERHEAD_BYTES = fact(
    "vm.overhead_bytes",
    32 * MIB,
    unit="byte",
    source="Waldspurger, Memory Resource Management in VMware ESX Server, OSDI 2002",
    kind="vendor",
)

VM_POWER = record("vm.power", vm=str, old=str, new=str)
VM_WORLD = record("vm.world", vm=str, world=int, name=str, kind=str)
VM_ALLOCATION = record("vm.allocation", vm=str, shares=int, reservation_hz=int, limit_hz=int)
VM_KILLED = record("vm.killed", vm=str, reason=str)
"""The VMkernel ended a VM that could not go on."""

VM_REFUSED = record("vm.refused", vm=str, fault=str, text=str)

WorkloadFactory = Callable[[int, FastStream], Workload]


class VmStateError(VmksimError):
    """An operation does not fit the VM's present state, or there is no such VM."""


class PowerState(StrEnum):
    """The power states of the vSphere API."""

    POWERED_OFF = "poweredOff"
    POWERED_ON = "poweredOn"
    SUSPENDED = "suspended"


class Vm:
    """One virtual machine of a host; `VmManager` changes it.

    `configured_bytes`: memory the guest was promised; `granted_bytes`: what of it has frames; `overhead_bytes`: what the
    VMkernel holds for it besides.  `space` is its guest-physical memory and `guest` what it does with it, both None
    while it is powered off; a VM whose memory is managed has `managed` instead.
    """

    def __init__(self, spec: VmSpec) -> None:
        self.spec = spec
        self.state = PowerState.POWERED_OFF
        self.vcpus: tuple[World, ...] = ()
        self.vmx: World | None = None
        self.space: GuestSpace | None = None
        self.guest: GuestAccess | None = None
        self.managed: Guest | None = None
        self.overhead: tuple[Extent, ...] = ()
        self.bucket: LimitBucket | None = None
        self.workload_of: WorkloadFactory | None = None
        self.overhead_bytes = 0
        self.powered_on_ns = 0

    @property
    def name(self) -> str:
        """The VM's name."""
        return self.spec.name

    @property
    def configured_bytes(self) -> int:
        """The memory the guest was promised."""
        return self.spec.memory_bytes

    @property
    def granted_bytes(self) -> int:
        """The memory of the guest that has frames, shared ones included."""
        if self.managed is not None:
            return self.managed.held * PAGE_BYTES
        return 0 if self.space is None else self.space.resident_pages * PAGE_BYTES

    @property
    def untouched_bytes(self) -> int:
        """What a running VM may still ask the host for: its untouched memory, and tables for all of it."""
        if self.space is None:
            return 0
        tables = table_frames_max(self.space.pages) - self.space.tables.table_frames
        return self.configured_bytes - self.granted_bytes + max(0, tables) * PAGE_BYTES

    @property
    def worlds(self) -> tuple[World, ...]:
        """All worlds of the group: the vCPUs, then the VMX; those of the last run when powered off."""
        return self.vcpus if self.vmx is None else (*self.vcpus, self.vmx)


class VmManager:
    """The virtual machines of one host."""

    def __init__(
        self, sim: Sim, board: Board, scheduler: Scheduler, mem_options: MemOptions | None = None
    ) -> None:
        self.sim = sim
        self.mem_options = mem_options if mem_options is not None else MemOptions()
        self.mem: MemoryScheduler | None = None
        self.scheduler = scheduler
        self.vms: dict[str, Vm] = {}
        self.guests: Mapping[str, VmSpec] = {}  # what lies on the disks of VMs, by name, if it is code
        self.host_key: bytes | None = None  # what opens encrypted VMs, from vCenter
        self.on_machine_check: Callable[[MceRecord, Vm], object] | None = None
        self.pools = PoolManager(self)
        self.swap_waits = SwapWaits(self)
        self.watchers: list[Callable[[], object]] = []  # called after every change of a VM's power state
        self._memory = board.memory
        self._rng = sim.rng.child(board.spec.name).child(f"boot{board.boot_count}")

    @property
    def reserved_hz(self) -> int:
        """The CPU promised to VMs that are not powered off."""
        return sum(vm.spec.cpu.reservation_hz for vm in self.admitted())

    @property
    def unreserved_hz(self) -> int:
        """The CPU that can still be promised."""
        return cpu_capacity_hz(self.scheduler.topology) - self.reserved_hz

    def get(self, name: str) -> Vm:
        """Return the VM of that name; errors: `VmStateError`."""
        vm = self.vms.get(name)
        if vm is None:
            raise VmStateError(f"there is no VM named {name!r}")
        return vm

    def owner_of_frame(self, mpn: int) -> Vm | None:
        """Return the running VM whose guest a frame belongs to, or None: it is the kernel's, shared or free."""
        owner = self._memory.owner_of(mpn)
        return next((vm for vm in self.admitted() if vm.space is not None and vm.space.owner == owner), None)

    def power_on(self, spec: VmSpec, workload_of: WorkloadFactory | None = None) -> Vm:
        """Power a VM on; a VM that was powered off may come back with another spec.

        `workload_of(vcpu_index, stream)`, if given, makes the workload of each vCPU in place of the spec's.
        Errors: `AdmissionError`, and then nothing has changed; `VmStateError` if it is on; `ScenarioError` of a workload.
        """
        known = self.vms.get(spec.name)
        if known is not None and known.state is not PowerState.POWERED_OFF:
            raise VmStateError(f"{spec.name} is {known.state}")
        if spec.encrypted and self.host_key is None:
            raise VmStateError(f"{spec.name} is encrypted, and the host holds no key")
        if workload_of is None:
            for each in (spec.workload, *spec.vcpu_workloads):
                each.check_complete()
        self._admit(spec)  # before its streams are made: whoever is refused leaves nothing behind
        streams = self.vcpu_streams(spec.name, 0, spec.vcpus)
        if workload_of is None:
            workloads = spec.build_workloads(streams)
        else:
            workloads = [workload_of(index, stream) for index, stream in enumerate(streams)]
        vm = self.vms[spec.name] = Vm(spec)
        vm.workload_of = workload_of
        self._take_memory(vm)
        self._make_worlds(vm, workloads)
        self._set_state(vm, PowerState.POWERED_ON)
        vm.powered_on_ns = self.sim.now
        for world in vm.worlds:
            self.scheduler.begin(world)
        return vm

    def power_off(self, name: str) -> None:
        """End the VM's worlds and free its memory; it stays known as powered off."""
        vm = self._require(name, PowerState.POWERED_ON, PowerState.SUSPENDED)
        if vm.space is not None:
            vm.space.destroy()  # first, as a machine check in its tables ends the whole kernel
        for world in vm.worlds:
            self.scheduler.end(world)
        if vm.managed is not None and self.mem is not None:
            self.mem.remove(name)
            vm.managed = None
        for extent in vm.overhead:
            self._memory.free(extent)
        vm.space = vm.guest = None
        vm.overhead = ()
        vm.overhead_bytes = 0
        self._set_state(vm, PowerState.POWERED_OFF)

    def kill(self, name: str, reason: str) -> None:
        """Power a VM off because it cannot go on, and say why."""
        self.sim.trace.emit(VM_KILLED, name, reason)
        self.sim.log("vmkernel", f"VM {name} is powered off: {reason}")
        self.power_off(name)

    def power_off_all(self) -> None:
        """Power off every VM that is not: an orderly shutdown of the host."""
        for vm in self.admitted():
            self.power_off(vm.name)

    def suspend(self, name: str) -> None:
        """Stop all worlds of the VM where they stand; memory and reservation are kept."""
        vm = self._require(name, PowerState.POWERED_ON)
        for world in vm.worlds:
            self.scheduler.suspend(world)
        self._set_state(vm, PowerState.SUSPENDED)

    def resume(self, name: str) -> None:
        """Let the worlds of a suspended VM go on."""
        vm = self._require(name, PowerState.SUSPENDED)
        self._set_state(vm, PowerState.POWERED_ON)
        for world in vm.worlds:
            self.scheduler.resume(world)

    def reconfigure(self, name: str, *, cpu: CpuAllocation | None = None, vcpus: int | None = None) -> None:
        """Give the VM another CPU allocation or number of vCPUs, at once if it is on.

        Errors: `AdmissionError`, `FieldError`, `VmStateError` when a suspended VM is to be wider or narrower; and then
        nothing has changed.
        """
        vm = self.get(name)
        cpu = vm.spec.cpu if cpu is None else cpu
        spec = attrs.evolve(vm.spec, cpu=cpu, vcpus=vm.spec.vcpus if vcpus is None else vcpus)
        if vm.state is PowerState.POWERED_OFF:
            vm.spec = spec
            return
        if spec.vcpus == vm.spec.vcpus:
            self._admit_cpu(spec)
            self.reallocate([vm], before=lambda: setattr(vm, "spec", spec))
            return
        self._require(name, PowerState.POWERED_ON)
        check_hotplug(vm, spec.vcpus)
        self._admit_cpu(spec)
        set_vcpus(self, vm, spec)

    def move(self, name: str, pool: str) -> None:
        """Move a VM into a resource pool ("": the host itself).  Errors: as `reconfigure`, and `PoolError`."""
        vm = self.get(name)
        spec = attrs.evolve(vm.spec, pool=pool)
        self.pools.check(pool, name, spec.cpu.reservation_hz if vm in self.admitted() else 0)
        self.reallocate([vm] if vm in self.admitted() else [], before=lambda: setattr(vm, "spec", spec))

    def reallocate(self, vms: list[Vm], *, before: Callable[[], object]) -> None:
        """Stop the vCPUs of VMs, call `before`, give them their allocations anew, and let them go on."""
        for vm in vms:
            for world in vm.vcpus:
                self.scheduler.suspend(world)
        before()
        for vm in vms:
            self.allocate_cpu(vm)
        for vm in vms:
            for world in vm.vcpus if vm.state is PowerState.POWERED_ON else ():
                self.scheduler.resume(world)

    def entitlements(self) -> dict[str, Fraction]:
        """Return the CPUs each VM that wants any is entitled to, if its present demand lasted (the fluid ideal)."""
        return self.pools.entitlements()

    def admitted(self) -> list[Vm]:
        """Return the VMs that are not powered off."""
        return [vm for vm in self.vms.values() if vm.state is not PowerState.POWERED_OFF]

    def _require(self, name: str, *states: PowerState) -> Vm:
        vm = self.get(name)
        if vm.state not in states:
            raise VmStateError(f"{name} is {vm.state}")
        return vm

    def _admit(self, spec: VmSpec) -> None:
        self._admit_cpu(spec)
        promised = self._kept_frames() + (0 if self.mem is None else self.mem.promised)
        free_bytes = (self._memory.frames_free - promised) * PAGE_BYTES
        overhead_bytes, memory_bytes = OVERHEAD_BYTES.value, spec.memory_bytes
        if spec.mem is None:
            overhead_bytes += table_frames_max(-(-memory_bytes // PAGE_BYTES)) * PAGE_BYTES
        else:
            memory_bytes = spec.mem.reservation_bytes
        try:
            admit_memory(spec.name, memory_bytes, overhead_bytes, free_bytes=free_bytes)
        except AdmissionError as error:
            self._trace_refusal(spec, error)
            raise

    def _admit_cpu(self, spec: VmSpec) -> None:
        others_hz = sum(vm.spec.cpu.reservation_hz for vm in self.admitted() if vm.name != spec.name)
        try:
            self.pools.check(spec.pool, spec.name, 0)
            self._admit_engine(spec)
            admit_cpu(
                spec.name,
                spec.vcpus,
                spec.cpu.reservation_hz,
                reserved_hz=others_hz,
                topology=self.scheduler.topology,
                options=self.scheduler.options,
                affinity=spec.cpu.affinity,
            )
            self.pools.check(spec.pool, spec.name, spec.cpu.reservation_hz)
            pool = self.pools.find(spec.pool)
            limited = pool is not None and pool.nearest_bucket() is not None
            admit_latency(spec, self.scheduler, own=self._own_cores(spec.name), limited=limited)
        except AdmissionError as error:
            self._trace_refusal(spec, error)
            raise

    def _admit_engine(self, spec: VmSpec) -> None:
        """Refuse what the fluid engine does not know."""
        if self.scheduler.options.engine != "fluid":
            return
        pcpus, cpu = len(self.scheduler.pcpus), spec.cpu
        what = "latency sensitivity" if cpu.latency == "high" else "affinity"
        if cpu.latency == "high" or (cpu.affinity and len(set(cpu.affinity)) < pcpus):
            text = f"{spec.name} has {what}, which the fluid engine does not know"
            raise AdmissionError("InvalidVmConfig", text, requested=spec.vcpus, unreserved=pcpus)

    def _trace_refusal(self, spec: VmSpec, error: AdmissionError) -> None:
        self.sim.trace.emit(VM_REFUSED, spec.name, error.fault, error.message)

    def _take_memory(self, vm: Vm) -> None:
        vm.overhead_bytes = OVERHEAD_BYTES.value
        overhead, pages = vm.overhead_bytes // PAGE_BYTES, -(-vm.configured_bytes // PAGE_BYTES)
        if self.mem is not None:
            self.mem.make_room(overhead + (0 if vm.spec.mem is not None else pages + table_frames_max(pages)))
        vm.overhead = self._memory.allocate(overhead, f"vm:{vm.name}/overhead")
        if vm.spec.mem is not None:
            vm.managed = self._memory_scheduler().add(vm.name, pages, vm.spec.mem)
            return
        vm.space = GuestSpace(self._memory, vm.name, pages)
        vm.guest = GuestAccess(vm.space, partial(self._machine_check, vm))

    def _memory_scheduler(self) -> MemoryScheduler:
        """Return the memory scheduler, which is made for the first VM that wants it."""
        if self.mem is None:
            from sim.kernel.memory.scheduler import MemoryScheduler

            core_hz = cpu_capacity_hz(self.scheduler.topology)
            self.mem = MemoryScheduler(
                self.sim,
                self._memory,
                self.mem_options,
                self._rng,
                core_hz=core_hz,
                kept=self._kept_frames,
            )
            self.mem.after_poll = self.swap_waits.poll
        return self.mem

    def _kept_frames(self) -> int:
        """Return the free frames that are kept for VMs whose memory is not managed."""
        return sum(vm.untouched_bytes for vm in self.admitted()) // PAGE_BYTES

    def _machine_check(self, vm: Vm, what: MceRecord) -> None:
        if self.on_machine_check is None:
            raise SimBug(f"{vm.name} met a memory error before anyone handles it: {what}")
        self.on_machine_check(what, vm)

    def vcpu_streams(self, name: str, first: int, end: int) -> list[FastStream]:
        """Return the streams that the workloads of vCPUs `first` to `end` - 1 of a VM draw from."""
        return [self._rng.fast(f"vm/{name}/vcpu{index}") for index in range(first, end)]

    def make_vcpu(self, vm: Vm, index: int, workload: Workload) -> World:
        """Make the world of a vCPU; it waits until it is allocated and begun."""
        world = self.scheduler.add(f"vmx-vcpu-{index}:{vm.name}", workload)
        self.sim.trace.emit(VM_WORLD, vm.name, world.world_id, world.name, world.kind)
        return world

    def _make_worlds(self, vm: Vm, workloads: list[Workload]) -> None:
        vm.vcpus = tuple(self.make_vcpu(vm, index, workload) for index, workload in enumerate(workloads))
        vm.vmx = self.scheduler.add(f"vmx:{vm.name}", Idle(), kind="vmx")
        self.scheduler.allocate(vm.vmx, shares=SHARES_NORMAL.value)
        self.sim.trace.emit(VM_WORLD, vm.name, vm.vmx.world_id, vm.vmx.name, vm.vmx.kind)
        self.scheduler.group(vm.vcpus, pages=vm.configured_bytes // PAGE_BYTES)
        self.allocate_cpu(vm)

    def allocate_cpu(self, vm: Vm) -> None:
        """Divide the VM's allocation over its vCPUs: equal reservations, of which the first take the remainder."""
        cpu = vm.spec.cpu
        pool = self.pools.find(vm.spec.pool)
        for world in vm.vcpus if cpu.latency != "high" else ():
            if world.exclusive is not None:
                give_back(self.scheduler, world)
        vm.bucket = None if cpu.limit_hz is None else self.scheduler.bucket(cpu.limit_hz, pool)
        each_hz, rest_hz = divmod(cpu.reservation_hz, len(vm.vcpus))
        for index, world in enumerate(vm.vcpus):
            self.scheduler.allocate(
                world,
                shares=cpu.shares_per_vcpu,
                reservation_hz=min(each_hz + (index < rest_hz), self.scheduler.topology.core_hz),
                bucket=vm.bucket,
                pool=pool,
                affinity=bits(cpu.affinity) if cpu.affinity else -1,
            )
        for world in vm.vcpus if cpu.latency == "high" else ():
            if world.exclusive is None:
                dedicate(self.scheduler, world)
        limit_hz = -1 if cpu.limit_hz is None else cpu.limit_hz
        self.sim.trace.emit(VM_ALLOCATION, vm.name, cpu.shares_per_vcpu, cpu.reservation_hz, limit_hz)

    def _own_cores(self, name: str) -> int:
        vm = self.vms.get(name)
        return 0 if vm is None else sum(world.exclusive is not None for world in vm.vcpus)

    def _set_state(self, vm: Vm, state: PowerState) -> None:
        self.sim.trace.emit(VM_POWER, vm.name, str(vm.state), str(state))
        vm.state = state
        for watcher in self.watchers:
            watcher()

    def check_invariants(self) -> None:
        """Raise `SimBug` unless memory, promises and the scheduler's books agree."""
        for vm in self.vms.values():
            held = self._memory.frames_of(f"vm:{vm.name}")
            if vm.space is not None:
                vm.space.check_invariants()
            elif held and vm.managed is None:
                raise SimBug(f"{vm.name} is powered off and holds {held} frames")
        if self.mem is not None:
            self.mem.check_invariants()
        if self.unreserved_hz < 0:
            raise SimBug(f"{self.reserved_hz} Hz are promised, the host has less")
        self.pools.check_invariants()
        self.scheduler.check_invariants()
