"""From a simulation at its end to its `RunResult`: only looks, changes nothing, and can be asked again.

Models nothing.  Leaves out judgement but for one question: did the run end as its scenario says?
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from sim._version import __version__
from sim.attest.offline import write_pcr_file
from sim.kernel import counters
from sim.kernel.counters import publish
from sim.kernel.host import Host, HostState
from sim.kernel.host_books import numa_books, times_of, vms_below
from sim.kernel.loader import LoadedModule
from sim.kernel.sampling import FREQUENCY_UNITS
from sim.kernel.vm import PowerState, Vm
from sim.kernel.vmkernel import VMkernel
from sim.kernel.world import World
from sim.scenario.memory_rows import host_memory, memory_rows
from sim.scenario.result import (
    EVENT_LOG_FILE,
    KEY_FILE,
    PCR_FILE,
    QUOTE_FILE,
    SIGNATURE_FILE,
    AttestationResult,
    BootResult,
    CallRow,
    CpuRow,
    ExpectationResult,
    ModuleRow,
    PcpuRow,
    PolicyRow,
    PoolRow,
    ReasonRow,
    RunResult,
)
from sim.scenario.spec import ExpectSpec
from sim.tpm.eventlog import bank_name
from sim.vsphere.inventory import HostEntry

if TYPE_CHECKING:
    from sim.scenario.build import Machinery
    from sim.scenario.run import Simulation

__all__ = ["collect", "compare"]


def collect(simulation: Simulation) -> RunResult:
    """Return the result of a simulation as it stands now."""
    sim, host = simulation.sim, simulation.host
    machinery = simulation.machinery
    boot = _boot(host, simulation.scenario.tpm_state)
    attestation = _attestation(machinery)
    kernel = host.kernel if host.state is HostState.RUNNING else None
    if kernel is not None:
        publish(kernel.scheduler, sim.metrics)
        if kernel.vms.mem is not None:
            from sim.kernel.memory.counters import publish_memory

            publish_memory(kernel.vms.mem, sim.metrics)
    log = _event_log(host)
    evidence = _evidence(machinery)
    return RunResult(
        scenario_id=simulation.scenario.id,
        name=simulation.scenario.name,
        seed=simulation.seed,
        version=__version__,
        digest=sim.trace.digest(),
        records=sim.trace.records,
        epoch=sim.epoch.astimezone(UTC).isoformat(),
        simulated_ns=sim.now,
        boot=boot,
        pcrs=_pcrs(machinery),
        txt=host.board.txt.state() if host.board.firmware.txt_enabled else None,
        event_log_file=EVENT_LOG_FILE if log else None,
        event_log=log,
        evidence_files=tuple(evidence),
        evidence=evidence,
        modules=tuple(_modules(host, kernel)) if kernel is not None else (),
        modules_refused=tuple(kernel.refused) if kernel is not None else (),
        vms=tuple(_cpu_row(vm, kernel) for vm in kernel.vms.vms.values()) if kernel is not None else (),
        calls=tuple(simulation.calls),
        pools=tuple(_pools(kernel)) if kernel is not None else (),
        pcpus=tuple(_pcpus(kernel)) if kernel is not None else (),
        memory=tuple(memory_rows(kernel.vms)) if kernel is not None else (),
        host_memory=host_memory(kernel.vms) if kernel is not None else None,
        attestation=attestation,
        metrics=sim.metrics.report(),
        expectation=compare(
            simulation.scenario.expect,
            boot,
            attestation,
            simulation.refused_vms,
            simulation.refused_programs,
            calls=simulation.calls,
        ),
    )


def compare(
    expect: ExpectSpec,
    boot: BootResult,
    attestation: AttestationResult,
    refused_vms: list[tuple[str, str]],
    refused_programs: list[tuple[str, str]] | None = None,
    *,
    calls: Sequence[CallRow] = (),
) -> ExpectationResult:
    """Say whether a run ended as expected, and list every point in which it did not."""
    differences = list(_differences(expect, boot, attestation))
    for what, refused, expected in (
        ("virtual machine", refused_vms, expect.vms_refused),
        ("program", refused_programs or [], expect.programs_refused),
    ):
        differences += _refusals(what, dict(refused), expected if boot.state == "ok" else (), expected)
    for call in calls:
        if call.outcome != call.expected:
            why = f" ({call.message})" if call.message else ""
            what = f"call {call.number}, {call.method}"
            differences.append(f"{what}: expected {call.expected}, was {call.outcome}{why}")
    return ExpectationResult(met=not differences, differences=tuple(differences))


def _differences(expect: ExpectSpec, boot: BootResult, attestation: AttestationResult) -> Iterator[str]:
    if boot.state != expect.boot:
        why = f" ({boot.component}: {boot.message})" if boot.state == "refused" else ""
        yield f"boot: expected {expect.boot}, was {boot.state}{why}"
    if expect.attestation is not None and attestation.status != expect.attestation:
        why = f" ({attestation.message})" if attestation.message else ""
        yield f"attestation: expected {expect.attestation}, was {attestation.status}{why}"
    if expect.component is not None and expect.component not in _named(boot, attestation):
        yield f"component: {expect.component} is named by no message"
    if expect.quarantined is not None and attestation.quarantined is not expect.quarantined:
        yield f"quarantined: expected {expect.quarantined}, was {attestation.quarantined}"


def _refusals(
    what: str, refused: dict[str, str], due: tuple[str, ...], expected: tuple[str, ...]
) -> Iterator[str]:
    """Yield what was refused and not `expected` to be, and what is `due` and was not refused."""
    for name in sorted(refused.keys() - set(expected)):
        yield f"{what} {name} was refused: {refused[name]}"
    for name in due:
        if name not in refused:
            yield f"{what} {name} was not refused"


def _named(boot: BootResult, attestation: AttestationResult) -> str:
    """Return every text in which a component may be named."""
    reasons = [f"{reason.component} {reason.message}" for reason in attestation.reasons]
    policies = [row.message for row in attestation.policies]
    return " ".join((boot.component, boot.message, attestation.message, *reasons, *policies))


_BOOT_STATES = {HostState.RUNNING: "ok", HostState.HALTED: "refused"}


def _boot(host: Host, tpm_state: str) -> BootResult:
    info, failure = host.boot, host.failure
    ended = info if info is not None else failure
    return BootResult(
        state=_BOOT_STATES.get(host.state, str(host.state)),
        host=host.name,
        boots=host.board.boot_count,
        secure_boot=info.secure_boot if info is not None else host.board.firmware.secure_boot,
        tpm=str(info.tpm_state) if info is not None else tpm_state,
        drtm=info.drtm if info is not None else False,
        started_ns=ended.started_ns if ended is not None else 0,
        finished_ns=ended.finished_ns if ended is not None else 0,
        stage=failure.stage if failure is not None else "",
        component=failure.component if failure is not None else "",
        message=failure.message if failure is not None else "",
    )


def _event_log(host: Host) -> bytes:
    if host.boot is not None:
        return host.boot.event_log
    return host.failure.event_log if host.failure is not None else b""


def _evidence(machinery: Machinery) -> dict[str, bytes]:
    """Return what the last attestation of the host was judged by, as files; nothing if there was none."""
    entries = machinery.vcenter.hosts() if machinery.vcenter is not None else ()
    cases = [entry.case for entry in entries if entry.name == machinery.host.name and entry.case is not None]
    if not cases:
        return {}
    evidence = cases[0].evidence
    return {
        QUOTE_FILE: evidence.attest,
        SIGNATURE_FILE: evidence.signature,
        KEY_FILE: evidence.ak_public,
        PCR_FILE: write_pcr_file(evidence.pcr_values),
    }


def _pcrs(machinery: Machinery) -> dict[str, dict[str, str]]:
    """Return what the TPM holds, read beside its commands, so that looking leaves no trace."""
    slot = machinery.host.board.tpm
    if slot is None or not slot.enabled or machinery.tpm is None:
        return {}
    return {
        bank_name(algorithm): {str(pcr): value.hex() for pcr, value in enumerate(values)}
        for algorithm, values in machinery.tpm.pcrs.values.items()
    }


def _modules(host: Host, kernel: VMkernel) -> Iterator[ModuleRow]:
    assert host.boot is not None
    files = {module.vib: module.name for module in reversed(host.boot.modules) if module.vib}
    for module in kernel.loader.modules():
        yield _module_row(module, files.get(module.vib_id, ""))


def _module_row(module: LoadedModule, file: str) -> ModuleRow:
    return ModuleRow(
        id=module.module_id,
        name=module.name,
        file=file,
        vib=module.vib_id,
        version=module.version,
        base=module.base,
        size_bytes=module.size_bytes,
        provider=module.provider,
        acceptance_level=module.level,
        signed_status=module.signed_status,
    )


def _times(worlds: Sequence[World], kernel: VMkernel) -> dict[str, int]:
    """Return the fields of `CpuTimesRow` for worlds together."""
    now_ns, core_hz = kernel.sim.now, kernel.scheduler.topology.core_hz
    times = times_of(worlds, now_ns)
    alive_ns = max((world.times(now_ns).total_ns for world in worlds), default=0)
    row = counters.CpuRow(name="", nworld=len(worlds), span_ns=100, times=times, core_hz=core_hz)
    same = ("run_ns", "ready_ns", "max_limited_ns", "costop_ns", "idle_ns", "wait_ns", "swap_wait_ns")
    return {
        "alive_ns": alive_ns,
        "used_ns": int(row.percent("%USED")),
        "overclock_ns": times.overclock_units // (FREQUENCY_UNITS * core_hz),
        **{name: getattr(times, name) for name in (*same, "shared_ns", "system_ns", "overlap_ns")},
    }


def _cpu_row(vm: Vm, kernel: VMkernel) -> CpuRow:
    cpu, numa = vm.spec.cpu, numa_books(kernel.vms, vm)
    return CpuRow(
        name=vm.name,
        powered_on=vm.state is PowerState.POWERED_ON,
        vcpus=vm.spec.vcpus,
        worlds=len(vm.worlds),
        shares_per_vcpu=cpu.shares_per_vcpu,
        reservation_hz=cpu.reservation_hz,
        limit_hz=cpu.limit_hz,
        home_nodes=numa.home_nodes,
        numa_migrations=numa.migrations,
        local_bytes=numa.local_bytes,
        numa_bytes=numa.bytes,
        **_times(vm.worlds, kernel),
    )


def _pools(kernel: VMkernel) -> Iterator[PoolRow]:
    for name, pool in kernel.scheduler.pools.pools.items():
        vms = vms_below(kernel.vms, name)
        worlds = [world for vm in vms for world in vm.worlds]
        yield PoolRow(
            name=name,
            parent=pool.spec.parent,
            shares=pool.spec.plain_shares,
            reservation_hz=pool.spec.reservation_hz,
            limit_hz=pool.spec.limit_hz,
            vms=tuple(vm.name for vm in vms),
            worlds=len(worlds),
            **_times(worlds, kernel),
        )


def _pcpus(kernel: VMkernel) -> Iterator[PcpuRow]:
    now_ns = kernel.sim.now
    for index, pcpu in enumerate(kernel.scheduler.pcpus):
        times = pcpu.times(now_ns)
        yield PcpuRow(index=index, busy_ns=times.busy_ns, switch_ns=times.switch_ns, idle_ns=times.idle_ns)


def _policies(entry: HostEntry) -> tuple[PolicyRow, ...]:
    return tuple(
        PolicyRow(engine=each.engine, trusted=each.trusted, message=each.message) for each in entry.decisions
    )


def _attestation(machinery: Machinery) -> AttestationResult:
    """Return what vCenter shows for the host: its last verdict, or why there is none."""
    if machinery.vcenter is None:
        return AttestationResult(status="N/A", message="not attested: there is no vCenter")
    entries: list[HostEntry] = [
        entry for entry in machinery.vcenter.hosts() if entry.name == machinery.host.name
    ]
    if not entries:
        return AttestationResult(status="N/A", message="not attested: the host is not in the inventory")
    connection = str(entries[0].connection_state)
    info = entries[0].tpm_attestation
    if info is None:
        why = "not attested: the host has no TPM in use"
        return AttestationResult(status="N/A", message=why, connection=connection)
    return AttestationResult(
        status=info.status,
        connection=connection,
        message=info.message,
        reasons=tuple(
            ReasonRow(code=reason.code, message=reason.message, component=reason.component)
            for reason in entries[0].reasons
        ),
        policies=_policies(entries[0]),
        quarantined=entries[0].quarantined,
        key_withheld=entries[0].key_withheld,
        stale=entries[0].stale,
        time_ns=(info.time - machinery.sim.epoch) // timedelta(microseconds=1) * 1000,
    )
