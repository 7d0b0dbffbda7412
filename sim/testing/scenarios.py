"""Strategies for whole scenarios: machines, virtual machines, workloads, faults.

Every strategy gives small values that run in a fraction of a second, and shrinks to the plainest one: one pCPU, one busy
VM, no fault.

Models nothing.  Leaves out what lies below a scenario.  Sources: none; the ranges are chosen to run quickly.
"""

from __future__ import annotations

from hypothesis import strategies as st

from sim.boot.launchspec import FAILURE_ACTIONS, GENERATIONS, USAGES, LaunchSpec
from sim.core.units import GIB, MIB, MS
from sim.hw.spec import CpuSpec, FirmwareSpec, HostSpec
from sim.kernel.vm import CpuAllocation
from sim.kernel.workload import WorkloadSpec
from sim.scenario.faults import FaultSpec
from sim.scenario.spec import TPM_STATES, ImageSpec, Scenario, TpmSpec, VCenterSpec, VmEntry

__all__ = [
    "allocations",
    "cpu_specs",
    "file_faults",
    "host_specs",
    "launch_specs",
    "scenarios",
    "vm_entries",
    "workloads",
]

SMALL_IMAGE = ImageSpec(modules=3, module_size_bytes=1024)
"""An image that boots in a few hundredths of a second."""

CORE_HZ = 2_000_000_000


def cpu_specs(pcpus_max: int = 8) -> st.SearchStrategy[CpuSpec]:
    """Strategy: processors with 1 to `pcpus_max` logical processors, with and without hyper-threading."""

    def build(cores: int, threads: int) -> CpuSpec:
        return CpuSpec(cores_per_node=max(1, cores // threads), threads_per_core=threads, core_hz=CORE_HZ)

    return st.builds(build, cores=st.integers(1, pcpus_max), threads=st.sampled_from((1, 2)))


def host_specs() -> st.SearchStrategy[HostSpec]:
    """Strategy: hosts with 4 to 8 GiB of memory and every setting of Secure Boot and TXT."""
    firmware = st.builds(FirmwareSpec, secure_boot=st.booleans(), txt_enabled=st.booleans())
    memory = st.sampled_from((4 * GIB, 6 * GIB, 8 * GIB))
    return st.builds(HostSpec, cpu=cpu_specs(), memory_bytes=memory, firmware=firmware)


def launch_specs() -> st.SearchStrategy[LaunchSpec]:
    """Strategy: late launches of both generations, both uses of PCRs 17 and 18, and every action, without a policy."""
    return st.builds(
        LaunchSpec,
        generation=st.sampled_from(tuple(GENERATIONS)),
        usage=st.sampled_from((None, *USAGES)),
        on_failure=st.sampled_from(FAILURE_ACTIONS),
    )


def workloads() -> st.SearchStrategy[WorkloadSpec]:
    """Strategy: busy, idle, regular and random on/off workloads, and short recorded demands."""
    times = st.integers(1, 40).map(lambda tenths: tenths * MS // 10)
    return st.one_of(
        st.just(WorkloadSpec()),
        st.just(WorkloadSpec(kind="idle")),
        st.builds(WorkloadSpec, kind=st.just("onoff"), run_ns=times, wait_ns=times, random=st.booleans()),
        st.builds(
            WorkloadSpec,
            kind=st.just("trace"),
            demand=st.lists(st.integers(0, 100), min_size=1, max_size=5).map(tuple),
            period_ns=st.just(50 * MS),
        ),
    )


def allocations() -> st.SearchStrategy[CpuAllocation]:
    """Strategy: shares by level or number, sometimes a small reservation, sometimes a limit above it."""
    shares = st.one_of(st.sampled_from(("normal", "low", "high")), st.integers(1, 10_000))
    reservation = st.sampled_from((0, 0, CORE_HZ // 20, CORE_HZ // 10))
    limit = st.one_of(st.none(), st.integers(CORE_HZ // 10, 4 * CORE_HZ))
    return st.builds(CpuAllocation, shares=shares, reservation_hz=reservation, limit_hz=limit)


def vm_entries(count_max: int = 5) -> st.SearchStrategy[tuple[VmEntry, ...]]:
    """Strategy: up to `count_max` virtual machines with different names."""

    def build(parts: list[tuple[int, CpuAllocation, WorkloadSpec]]) -> tuple[VmEntry, ...]:
        return tuple(
            VmEntry(name=f"vm{number}", vcpus=vcpus, memory_bytes=64 * MIB, cpu=cpu, workload=workload)
            for number, (vcpus, cpu, workload) in enumerate(parts)
        )

    one = st.tuples(st.integers(1, 4), allocations(), workloads())
    return st.lists(one, max_size=count_max).map(build)


def file_faults() -> st.SearchStrategy[FaultSpec]:
    """Strategy: one flipped bit in the boot bank or the boot loader, at a place drawn by the scenario's seed."""
    targets = st.sampled_from(
        ("vib/vmkusb", "bootbank/k.b00", "bootbank/s.v00", "bootbank/imgdb.tgz", "loader")
    )
    return st.builds(FaultSpec, kind=st.just("flip_bit"), target=targets, unpacked=st.booleans())


def scenarios(*, faults: bool = False) -> st.SearchStrategy[Scenario]:
    """Strategy: whole scenarios of about a simulated second, added to vCenter; with `faults`, sometimes tampered with."""
    tampered = st.lists(file_faults(), max_size=1).map(tuple) if faults else st.just(())
    return st.builds(
        Scenario,
        seed=st.integers(0, 2**31),
        duration_ns=st.sampled_from((1000, 1100, 1300)).map(lambda count: count * MS),
        host=host_specs(),
        tpm=st.sampled_from(TPM_STATES).map(lambda state: TpmSpec(state=state)),
        image=st.just(SMALL_IMAGE),
        options=st.sampled_from(({}, {"enableTboot": True})),
        launch=launch_specs(),
        vms=vm_entries(),
        faults=tampered,
        vcenter=st.just(VCenterSpec(add_host_ns=0)),
    )
