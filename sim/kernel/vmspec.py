"""What a virtual machine is declared to be: its size, its allocation of CPU, its workload.

Models: the values that a scenario or a management call gives, checked.  Apart from `sim.kernel.vm`, so that describing a
machine does not load the scheduler.

Leaves out: disks and networks.

Sources: vSphere API (SharesInfo.Level); ESXi 8.0 configuration maximums.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from sim.core.facts import fact
from sim.core.rng import FastStream
from sim.core.structure import FieldError, between, in_choices, matches, quantity
from sim.core.units import GIB, PAGE_BYTES
from sim.hw.spec import PCPUS_MAX
from sim.kernel.memory.spec import MemorySpec
from sim.kernel.workload import Workload, WorkloadSpec

__all__ = ["SHARES_NORMAL", "CpuAllocation", "VmSpec"]

SHARES_LOW = fact(
    "sched.shares_low", 500, unit="1/vCPU", source="vSphere API, SharesInfo.Level", kind="vendor"
)
SHARES_NORMAL = fact(
    "sched.shares_normal", 1000, unit="1/vCPU", source="vSphere API, SharesInfo.Level", kind="vendor"
)
SHARES_HIGH = fact(
    "sched.shares_high", 2000, unit="1/vCPU", source="vSphere API, SharesInfo.Level", kind="vendor"
)
VCPUS_MAX = fact(
    "vm.vcpus_max", 768, unit="1", source="ESXi 8.0 configuration maximums, vCPUs per VM", kind="vendor"
)
MEMORY_BYTES_MAX = fact(
    "vm.memory_bytes_max",
    24 << 40,
    unit="byte",
    source="ESXi 8.0 configuration maximums, RAM per VM",
    kind="vendor",
)
SHARES_MAX = 1_000_000
"""The most shares of one vCPU."""

MANAGED_BYTES_MAX = 1 << 38
"""The largest VM whose pages are managed one by one: 6 bytes of ours for each, and 16 for each of its image."""

HZ_MAX = VCPUS_MAX.value * 10_000_000_000

LEVELS = {"low": SHARES_LOW, "normal": SHARES_NORMAL, "high": SHARES_HIGH}


@attrs.frozen(kw_only=True)
class CpuAllocation:
    """What a VM is entitled to: shares per vCPU (low, normal, high or a number), reservation and limit in Hz.

    Reservation and limit are of the whole VM; a limit of None means unlimited.  `affinity` names the pCPUs that its
    vCPUs may use; empty means all.  A `latency` of high gives each vCPU a core of its own, and needs a reservation of
    all its vCPUs' time and no limit.
    """

    shares: int | str = "normal"
    reservation_hz: int = attrs.field(default=0, metadata=quantity("hz"), validator=between(0, HZ_MAX))
    limit_hz: int | None = attrs.field(
        default=None, metadata=quantity("hz"), validator=attrs.validators.optional(between(1, HZ_MAX))
    )

    affinity: tuple[int, ...] = ()
    latency: str = attrs.field(default="normal", validator=in_choices("normal", "high"))

    def __attrs_post_init__(self) -> None:
        for pcpu in self.affinity:
            if isinstance(pcpu, bool) or not isinstance(pcpu, int) or not 0 <= pcpu < PCPUS_MAX.value:
                raise FieldError("affinity", pcpu, "numbers of pCPUs")
        if isinstance(self.shares, str):
            if self.shares not in LEVELS:
                raise FieldError("shares", self.shares, "low, normal, high or a number")
        elif isinstance(self.shares, bool) or not 1 <= self.shares <= SHARES_MAX:
            raise FieldError("shares", self.shares, f"low, normal, high or an integer from 1 to {SHARES_MAX}")
        if self.limit_hz is not None and self.limit_hz < self.reservation_hz:
            raise FieldError("limit_hz", self.limit_hz, "at least the reservation")

    @property
    def shares_per_vcpu(self) -> int:
        """The shares of one vCPU as a number."""
        return LEVELS[self.shares].value if isinstance(self.shares, str) else self.shares


def _whole_pages(_instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    between(PAGE_BYTES, MEMORY_BYTES_MAX.value)(_instance, attribute, value)
    if value % PAGE_BYTES:
        raise FieldError(attribute.name, value, "a multiple of 4 KiB")


@attrs.frozen(kw_only=True)
class VmSpec:
    """A virtual machine as a scenario declares it; `pool` is the resource pool it is in, empty for the host itself.

    With `cpu_hot_add`, and `cpu_hot_remove`, it may get more vCPUs, or fewer, while it is on.
    `vcpu_workloads` are workloads of the single vCPUs in place of `workload`; those with a higher number do what the last does.
    Without `mem` it gets all its memory at power-on and keeps it; with it, it takes part in the host's memory management.
    """

    name: str = attrs.field(validator=matches(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}", "a VM name"))
    vcpus: int = attrs.field(default=1, validator=between(1, VCPUS_MAX.value))
    memory_bytes: int = attrs.field(default=GIB, metadata=quantity("bytes"), validator=_whole_pages)
    cpu: CpuAllocation = attrs.field(factory=CpuAllocation)
    pool: str = ""
    workload: WorkloadSpec = attrs.field(factory=WorkloadSpec)
    vcpu_workloads: tuple[WorkloadSpec, ...] = ()
    encrypted: bool = False
    cpu_hot_add: bool = attrs.field(default=False, validator=attrs.validators.instance_of(bool))
    cpu_hot_remove: bool = attrs.field(default=False, validator=attrs.validators.instance_of(bool))
    mem: MemorySpec | None = None

    def __attrs_post_init__(self) -> None:
        self._check_memory()
        if len(self.vcpu_workloads) > VCPUS_MAX.value:
            got = f"{len(self.vcpu_workloads)} of them"
            raise FieldError("vcpu_workloads", got, f"at most {VCPUS_MAX.value}")
        if self.vcpu_workloads and self.workload != WorkloadSpec():
            raise FieldError("vcpu_workloads", "both", "either workload or vcpu_workloads")

    @property
    def names_code(self) -> bool:
        """Whether a workload is a function of somebody's, which only who builds the host may put there."""
        return any(each.names_code for each in (self.workload, *self.vcpu_workloads))

    def with_guest_of(self, other: VmSpec) -> VmSpec:
        """Return this machine with the workloads of another."""
        return attrs.evolve(self, workload=other.workload, vcpu_workloads=other.vcpu_workloads)

    def without_code(self) -> VmSpec:
        """Return what a management call may say of it: without workloads that are code."""
        if not self.names_code:
            return self
        return attrs.evolve(self, workload=WorkloadSpec(), vcpu_workloads=())

    def workload_of(self, index: int) -> WorkloadSpec:
        """Return the workload of one vCPU."""
        listed = self.vcpu_workloads
        return listed[min(index, len(listed) - 1)] if listed else self.workload

    def build_workloads(self, streams: Sequence[FastStream]) -> list[Workload]:
        """Make the workloads of the first vCPUs, each with its stream; those of one spec wait for each other if it says so."""
        alike: dict[WorkloadSpec, list[int]] = {}
        for index in range(len(streams)):
            alike.setdefault(self.workload_of(index), []).append(index)
        made: dict[int, Workload] = {}
        for spec, indexes in alike.items():
            made.update(zip(indexes, spec.build_all([streams[index] for index in indexes]), strict=True))
        return [made[index] for index in range(len(streams))]

    def _check_memory(self) -> None:
        if self.mem is None:
            return
        if self.mem.reservation_bytes > self.memory_bytes:
            raise FieldError("mem", self.mem.reservation_bytes, "a reservation within the VM's memory")
        if self.memory_bytes > MANAGED_BYTES_MAX:
            raise FieldError("mem", self.memory_bytes, f"a VM of at most {MANAGED_BYTES_MAX} bytes")
