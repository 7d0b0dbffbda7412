"""What a run leaves: one frozen value, written as canonical JSON, with the event log beside it.

Models nothing.  Every number is an integer with its unit in its name, so that the file is the same on every machine.

Leaves out: the trace, which has a file of its own (`sim.core.tracefile`), and anything for display (`sim.report`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from sim.core.structure import plain, structure
from sim.core.units import MIB
from sim.errors import FormatError, ScenarioError
from sim.hw.txt import TxtState

__all__ = [
    "EVENT_LOG_FILE",
    "RESULT_FILE",
    "TRACE_FILE",
    "AttestationResult",
    "BootResult",
    "CpuRow",
    "ExpectationResult",
    "HostMemoryResult",
    "MemoryRow",
    "ModuleRow",
    "PcpuRow",
    "ReasonRow",
    "RunResult",
    "read_result",
    "write_atomically",
    "write_result",
]

SCHEMA_VERSION = 2
"""Grows when the meaning or the name of a field of `result.json` changes."""

RESULT_FILE = "result.json"
EVENT_LOG_FILE = "eventlog.bin"
TRACE_FILE = "trace.npz"
RESULT_BYTES_MAX = 256 * MIB


@frozen(kw_only=True)
class BootResult:
    """How the last boot ended: "ok" or "refused", and then where, on what, and with which words."""

    state: str
    host: str
    boots: int
    secure_boot: bool
    tpm: str
    drtm: bool
    started_ns: int
    finished_ns: int
    stage: str = ""
    component: str = ""
    message: str = ""


@frozen(kw_only=True)
class ModuleRow:
    """A loaded module: where it lies, who signed it, and how far it is trusted; `file` is its boot module."""

    id: int
    name: str
    file: str
    vib: str
    version: str
    base: int
    size_bytes: int
    provider: str
    acceptance_level: str
    signed_status: str


@frozen(kw_only=True)
class CpuTimesRow:
    """CPU time in ns, summed over worlds (vCPUs and helpers); `alive_ns` is how long the oldest of them has existed.

    `ready_ns` leaves out `max_limited_ns`; `wait_ns` includes `idle_ns` and `swap_wait_ns`.  `used_ns` is esxtop's USED, rounded
    down: run time by threads and frequency, and `system_ns` in place of `overlap_ns`.  Of the run time `shared_ns` were
    beside a busy thread of the same core; `overclock_ns` is what other frequencies added, and is negative for lower ones.
    """

    alive_ns: int
    used_ns: int
    run_ns: int
    ready_ns: int
    max_limited_ns: int
    costop_ns: int
    idle_ns: int
    wait_ns: int
    swap_wait_ns: int = 0
    shared_ns: int = 0
    overclock_ns: int = 0
    system_ns: int = 0
    overlap_ns: int = 0


@frozen(kw_only=True)
class CpuRow(CpuTimesRow):
    """CPU time of a virtual machine since its power-on.

    `home_nodes` are the NUMA nodes its vCPUs are confined to, `local_bytes` of its `numa_bytes` of memory lie there.
    """

    name: str
    powered_on: bool
    vcpus: int
    worlds: int
    shares_per_vcpu: int
    reservation_hz: int
    limit_hz: int | None
    home_nodes: tuple[int, ...] = ()
    numa_migrations: int = 0
    local_bytes: int = 0
    numa_bytes: int = 0


@frozen(kw_only=True)
class PoolRow(CpuTimesRow):
    """CPU time of the virtual machines in a resource pool and in those below it."""

    name: str
    parent: str
    shares: int
    reservation_hz: int
    limit_hz: int | None
    vms: tuple[str, ...]
    worlds: int


@frozen(kw_only=True)
class MemoryRow:
    """The memory of a virtual machine that takes part in memory management, after esxtop's columns; bytes, or as named.

    `granted` counts a shared page for each of its users, `consumed` without what sharing saves the VM; `touched` and
    `active` are estimates from samples; `stall_ns` is how long the guest would have waited for its memory.
    """

    name: str
    memory_bytes: int
    shares: int
    reservation_bytes: int
    limit_bytes: int | None
    granted_bytes: int
    consumed_bytes: int
    target_bytes: int
    touched_bytes: int
    active_percent_hundredths: int
    balloon_bytes: int
    balloon_target_bytes: int
    balloon_max_bytes: int
    swapped_bytes: int
    swap_target_bytes: int
    swapped_in_bytes: int
    swapped_out_bytes: int
    zipped_bytes: int
    zip_cache_bytes: int
    zip_pages: int
    unzip_pages: int
    shared_bytes: int
    zero_bytes: int
    hint_pages: int
    untouched_bytes: int
    overhead_bytes: int
    overhead_max_bytes: int
    refused_pages: int
    stall_ns: int


@frozen(kw_only=True)
class HostMemoryResult:
    """The memory of the host: the reclamation state, and what sharing saves; bytes."""

    state: str
    managed_bytes: int
    free_bytes: int
    min_free_bytes: int
    shared_bytes: int
    common_bytes: int
    balances: int

    @property
    def saving_bytes(self) -> int:
        """What the shared pages would need more if each had a frame of its own."""
        return self.shared_bytes - self.common_bytes


@frozen(kw_only=True)
class PcpuRow:
    """What one logical processor did since the host was up, in ns."""

    index: int
    busy_ns: int
    switch_ns: int
    idle_ns: int


@frozen(kw_only=True)
class CallRow:
    """A management call that the scenario made: how it ended, how it should have, and what it gave back."""

    number: int
    time_ns: int
    method: str
    outcome: str
    expected: str = "ok"
    message: str = ""
    answer: Any = None


@frozen(kw_only=True)
class ReasonRow:
    """One reason of a verdict."""

    code: str
    message: str
    component: str | None = None


@frozen(kw_only=True)
class PolicyRow:
    """What a policy engine said of the host at its last attestation; `message` is empty when it trusts it."""

    engine: str
    trusted: bool
    message: str = ""


@frozen(kw_only=True)
class AttestationResult:
    """The verifier's last word as vCenter shows it: "accepted", "notAccepted" or "N/A".

    `connection` is vCenter's state of the host: a verdict about a host that is "notResponding" is an old one.  `stale` says
    why the verdict no longer holds, as far as vCenter has looked.
    """

    status: str
    connection: str = ""
    message: str = ""
    reasons: tuple[ReasonRow, ...] = ()
    time_ns: int | None = None
    policies: tuple[PolicyRow, ...] = ()
    quarantined: bool = False
    key_withheld: bool = False
    stale: str = ""


@frozen(kw_only=True)
class ExpectationResult:
    """Whether the run ended as its scenario says, and each point in which it did not."""

    met: bool
    differences: tuple[str, ...] = ()


QUOTE_FILE = "quote.bin"
SIGNATURE_FILE = "quote.sig"
KEY_FILE = "ak.pub"
PCR_FILE = "pcrs.bin"
EVIDENCE_FILES = (QUOTE_FILE, SIGNATURE_FILE, KEY_FILE, PCR_FILE)
"""What `tpm2_quote` would leave: TPMS_ATTEST, TPMT_SIGNATURE, TPM2B_PUBLIC of the attestation key, the PCR values."""


@frozen(kw_only=True)
class RunResult:
    """The outcome of one run.  Equal version, scenario and seed give an equal result."""

    schema: int = SCHEMA_VERSION
    scenario_id: str
    name: str
    seed: int
    version: str
    digest: str
    records: int
    epoch: str
    simulated_ns: int
    boot: BootResult
    pcrs: dict[str, dict[str, str]] = field(factory=dict)
    """bank -> PCR number -> value, in hex, as the TPM holds them at the end."""
    txt: TxtState | None = None
    """The TXT registers at the end, where TXT is on in the firmware's setup."""
    event_log_file: str | None = None
    event_log: bytes = field(default=b"", repr=False)
    evidence_files: tuple[str, ...] = ()
    """The files of the last attestation that are written beside the result, of those in `EVIDENCE_FILES`."""
    evidence: dict[str, bytes] = field(factory=dict, repr=False)
    modules: tuple[ModuleRow, ...] = ()
    modules_refused: tuple[str, ...] = ()
    vms: tuple[CpuRow, ...] = ()
    calls: tuple[CallRow, ...] = ()
    """The management calls of the scenario that were made, in the order in which they were."""
    pools: tuple[PoolRow, ...] = ()
    pcpus: tuple[PcpuRow, ...] = ()
    memory: tuple[MemoryRow, ...] = ()
    host_memory: HostMemoryResult | None = None
    attestation: AttestationResult
    metrics: dict[str, Any] = field(factory=dict, repr=False)
    expectation: ExpectationResult

    def to_json(self) -> str:
        """Return the canonical JSON: sorted keys, a final newline, the event log by the name of its file only."""
        data = plain(self)
        del data["event_log"], data["evidence"]
        return json.dumps(data, sort_keys=True, indent=1) + "\n"


def write_result(result: RunResult, folder: Path) -> None:
    """Write `result.json` and the event log into `folder`, each whole or not at all."""
    if result.event_log_file is not None:
        write_atomically(folder / result.event_log_file, result.event_log)
    for name in result.evidence_files:
        write_atomically(folder / name, result.evidence[name])
    write_atomically(folder / RESULT_FILE, result.to_json().encode())


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file by way of a temporary one, so that no half-written file is ever seen under its name."""
    temporary = path.parent / (path.name + ".partial")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_result(folder: Path) -> RunResult:
    """Read back what `write_result` wrote.

    Errors: `FormatError` when a file is missing or is not a result of this schema.
    """
    path = folder / RESULT_FILE
    try:
        if path.stat().st_size > RESULT_BYTES_MAX:
            raise FormatError("result", str(path), f"at most {RESULT_BYTES_MAX} bytes expected")
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict) or data.get("schema") != SCHEMA_VERSION:
            raise FormatError("result", str(path), f"schema version {SCHEMA_VERSION} expected")
        if data.get("event_log_file") == EVENT_LOG_FILE:
            data["event_log"] = (folder / EVENT_LOG_FILE).read_bytes()
        result = structure(data, RunResult)
        evidence = {
            name: (folder / name).read_bytes() for name in EVIDENCE_FILES if name in result.evidence_files
        }
        return evolve(result, evidence=evidence)
    except OSError as error:
        raise FormatError("result", str(path), f"cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError, ScenarioError) as error:
        raise FormatError("result", str(path), f"a run's result expected: {error}") from None
