"""What a scenario is: one frozen value that says everything about a run, and whose digest is its id.

Models: the composition of the layers' own specs (hardware, TPM, image, virtual machines), of faults, programs, vCenter, and
of how the run should end.  Times count from the end of the first boot, so that they need not change when booting
takes longer.

Leaves out: several hosts; defaults that depend on a real machine (there are none: equal scenarios run equally
anywhere).  Sources: the limits are ESXi 8.0's configuration maximums.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
from attrs import evolve, field, frozen
from attrs.validators import optional

from sim.boot.bootinfo import TpmFailureRule
from sim.boot.launchspec import LaunchSpec
from sim.core.context import EPOCH
from sim.core.facts import fact
from sim.core.structure import FieldError, between, in_choices, matches, plain, quantity
from sim.core.units import KIB, MIB, MS, PAGE_BYTES, SECOND, US, format_bytes
from sim.hw.spec import HostSpec
from sim.image.acceptance import AcceptanceLevel
from sim.image.elf import MODULE_BUILDERS
from sim.kernel.layout.spec import KernelSpec
from sim.kernel.memory.options import MemOptions
from sim.kernel.perf import SAMPLE_EVERY_NS
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.pools import POOLS_MAX, PoolSpec
from sim.kernel.vmspec import VmSpec
from sim.scenario.calls import CALLS_MAX, CallSpec, check_calls
from sim.scenario.faults import FaultSpec, FaultTarget
from sim.scenario.inputs import InputFile
from sim.scenario.policies import ENGINES_MAX, EngineSpec, check_reference_pcrs
from sim.scenario.programs import PROGRAMS_MAX, ProgramSpec
from sim.tpm.fault_spec import Fault

__all__ = [
    "DURATION_NS_MAX",
    "ExpectSpec",
    "ImageSpec",
    "Scenario",
    "TpmSpec",
    "TraceSpec",
    "VCenterSpec",
    "VmEntry",
]

VMS_MAX = fact(
    "scenario.vms_max",
    1024,
    unit="1",
    source="ESXi 8.0 configuration maximums, virtual machines per host",
    kind="vendor",
)
VCPUS_MAX = fact(
    "scenario.vcpus_max",
    4096,
    unit="1",
    source="ESXi 8.0 configuration maximums, virtual CPUs per host",
    kind="vendor",
)

DURATION_NS_MAX = 366 * 86_400 * SECOND
"""The longest run: a year of simulated time."""

CYCLE_NS_MIN = US
"""The shortest cycle of a workload: with less the run would be nothing but wake-ups."""

NUMBERED_NAME_CHARS_MAX = 72
YEARS = (2000, 2200)
"""The years in which a scenario may begin: certificates are valid some decades around."""

CONTENTS_MAX = 2**31 - 1
"""The most page contents of all images together: each has a number of 31 bits."""

FAULTS_MAX = 1_000
VIBS_MAX = 256
SEED_MAX = 2**63 - 1
MODULES_MAX = 400
MODULE_BYTES_MAX = 4 * MIB
IMAGE_BYTES_MAX = 128 * MIB

CATEGORIES = (
    *(
        "api",
        "boot",
        "exec",
        "fault",
        "host",
        "hw",
        "image",
        "interrupt",
        "kernel",
        "log",
        "mem",
        "memory",
        "mmu",
    ),
    *("module", "numa", "pool", "sample", "scenario", "sched", "tpm", "userworld", "vcenter", "vm"),
)
"""The categories of trace records."""

ACCEPTANCE_LEVELS = tuple(level.title for level in AcceptanceLevel)
TPM_STATES = ("present", "damaged", "disabled", "absent")
TPM_FAILURE_RULES = tuple(rule.value for rule in TpmFailureRule)
TPM_STATES_ENABLED = ("present", "damaged")
BOOT_OUTCOMES = ("ok", "refused")
LAUNCH_RULES = ("any", "required", "forbidden")
ATTESTATION_OUTCOMES = ("accepted", "notAccepted", "N/A")

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}"
_OPTION_NAME = r"[A-Za-z][A-Za-z0-9._]{0,63}"
_OPTION_TEXT = r"[A-Za-z0-9._:/+-]{1,128}"


def _tuple_of_at_most(count_max: int) -> Any:
    def check(
        _instance: object, attribute: attrs.Attribute[tuple[object, ...]], value: tuple[object, ...]
    ) -> None:
        if len(value) > count_max:
            raise FieldError(attribute.name, f"{len(value)} of them", f"at most {count_max}")

    return check


def _categories(_instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...] | None) -> None:
    for name in value or ():
        in_choices(*CATEGORIES)(_instance, attribute, name)


def _options(_instance: object, attribute: attrs.Attribute[Any], value: Mapping[str, object]) -> None:
    name_check = matches(_OPTION_NAME, "option names of letters, digits, dots and underscores")
    for name, setting in value.items():
        name_check(_instance, attribute, name)
        if not isinstance(setting, (bool, int)):
            matches(_OPTION_TEXT, f"true, false, an integer or a word for option {name}")(
                _instance,
                attribute,
                setting,  # type: ignore[arg-type]
            )


def _within_years(_instance: object, attribute: attrs.Attribute[datetime], value: datetime) -> None:
    if value.tzinfo is None or not YEARS[0] <= value.year < YEARS[1]:
        wanted = f"a time with a zone in the years {YEARS[0]} to {YEARS[1] - 1}"
        raise FieldError(attribute.name, str(value), wanted)


@frozen(kw_only=True)
class TpmSpec:
    """The TPM: whether it is there, as `present`, `disabled` (in the BIOS) or `absent`; None leaves it to the host.

    A `damaged` one is there, but a bit of what it had stored was flipped before power-on: it is in failure mode for good.
    `on_failure` is what the firmware does when it does not start or refuses a measurement: "continue" without it, or
    "halt".  `faults` are what goes wrong with its commands, counted from the first power-on.
    """

    state: str | None = field(default=None, validator=optional(in_choices(*TPM_STATES)))
    on_failure: str = field(default=TpmFailureRule.GO_ON.value, validator=in_choices(*TPM_FAILURE_RULES))
    faults: tuple[Fault, ...] = field(default=(), validator=_tuple_of_at_most(FAULTS_MAX))


@frozen(kw_only=True)
class ImageSpec:
    """The installed image: how many modules and of what type, the acceptance level, and VIBs installed on top."""

    modules: int = field(default=24, validator=between(1, MODULES_MAX))
    module_size_bytes: int = field(
        default=64 * KIB, metadata=quantity("bytes"), validator=between(KIB, MODULE_BYTES_MAX)
    )
    module_type: str = field(default="shared", validator=in_choices(*MODULE_BUILDERS))
    acceptance: str = field(default="PartnerSupported", validator=in_choices(*ACCEPTANCE_LEVELS))
    vibs: tuple[InputFile, ...] = field(default=(), validator=_tuple_of_at_most(VIBS_MAX))

    def __attrs_post_init__(self) -> None:
        if self.modules * self.module_size_bytes > IMAGE_BYTES_MAX:
            wanted = f"at most {format_bytes(IMAGE_BYTES_MAX)} for all modules together"
            raise FieldError("module_size_bytes", self.module_size_bytes, wanted)


@frozen(kw_only=True)
class VmEntry(VmSpec):
    """A virtual machine, or `count` equal ones, named name-1, name-2 and so on."""

    count: int = field(default=1, validator=between(1, VMS_MAX.value))

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.count > 1 and len(self.name) > NUMBERED_NAME_CHARS_MAX:
            wanted = f"at most {NUMBERED_NAME_CHARS_MAX} characters, as a number is put behind it"
            raise FieldError("name", self.name, wanted)
        for workload in (self.workload, *self.vcpu_workloads):
            cycle_ns = workload.cycle_ns
            if cycle_ns is not None and cycle_ns < CYCLE_NS_MIN:
                raise FieldError("workload", f"a cycle of {cycle_ns} ns", f"at least {CYCLE_NS_MIN} ns")
        if len(self.vcpu_workloads) not in (0, self.vcpus):
            got = f"{len(self.vcpu_workloads)} of them"
            raise FieldError("vcpu_workloads", got, f"one for each of {self.vcpus} vCPUs")

    def expand(self) -> Iterator[VmSpec]:
        """Yield the spec of each virtual machine."""
        values = {one.name: getattr(self, one.name) for one in attrs.fields(VmSpec)}
        for number in range(1, self.count + 1):
            name = self.name if self.count == 1 else f"{self.name}-{number}"
            yield VmSpec(**{**values, "name": name})


@frozen(kw_only=True)
class VCenterSpec:
    """The vCenter to which the host is added, at `add_host` after the first boot.

    `engines` are asked after each attestation.  With `place_vms` it is vCenter that powers the virtual machines on,
    after the attestation, and not the operator when the host has booted.

    `attest_every` repeats the attestation of a host that runs; a verdict older than `verdict_age_max` is stale, which
    vCenter finds at that moment (by default a verdict holds for the whole boot).  `launch` says whether a dynamic launch is "required" or
    "forbidden", `require_launch_policy` that it must be under a policy that pins the launched code, `allow_resume` that a
    host may have been suspended to memory since its last attestation.  `reference_pcrs` names the values, in hexadecimal,
    that a PCR may have: `[vcenter.reference_pcrs.sha256]`, then lines such as `0 = ["..."]`.
    """

    add_host_ns: int = field(default=SECOND, metadata=quantity("ns"), validator=between(0, DURATION_NS_MAX))
    place_vms: bool = False
    attest_every_ns: int | None = field(
        default=None, metadata=quantity("ns"), validator=optional(between(SECOND, DURATION_NS_MAX))
    )
    verdict_age_max_ns: int | None = field(
        default=None, metadata=quantity("ns"), validator=optional(between(SECOND, DURATION_NS_MAX))
    )
    launch: str = field(default="any", validator=in_choices(*LAUNCH_RULES))
    require_launch_policy: bool = False
    allow_resume: bool = False
    reference_pcrs: dict[str, dict[str, tuple[str, ...]]] = field(
        factory=dict, validator=check_reference_pcrs
    )
    engines: tuple[EngineSpec, ...] = field(default=(), validator=_tuple_of_at_most(ENGINES_MAX))


@frozen(kw_only=True)
class TraceSpec:
    """What is traced: the categories (the part of a record's name before the dot); None means all, an empty list nothing.

    `sample_every` is the interval at which CPU counters are sampled.
    """

    categories: tuple[str, ...] | None = field(default=None, validator=_categories)
    sample_every_ns: int = field(
        default=SAMPLE_EVERY_NS.value, metadata=quantity("ns"), validator=between(MS, DURATION_NS_MAX)
    )


@frozen(kw_only=True)
class ExpectSpec:
    """How the run should end; what is None is not checked.

    `component` must be named by the message of the refused boot or of the verdict; `vms_refused` are the virtual
    machines that admission control should refuse, `programs_refused` the paths of programs that should not run.  `quarantined` is what the policy engines should have brought about.
    """

    boot: str = field(default="ok", validator=in_choices(*BOOT_OUTCOMES))
    attestation: str | None = field(default=None, validator=optional(in_choices(*ATTESTATION_OUTCOMES)))
    component: str | None = field(
        default=None, validator=optional(matches(r"[ -~]{1,200}", "a printable name"))
    )
    vms_refused: tuple[str, ...] = ()
    programs_refused: tuple[str, ...] = ()
    quarantined: bool | None = None


@frozen(kw_only=True)
class Scenario:
    """Everything about a run; `seed` decides all chance."""

    name: str = field(
        default="scenario", validator=matches(_NAME, "a name of letters, digits, dots and dashes")
    )
    seed: int = field(default=0, validator=between(0, SEED_MAX))
    duration_ns: int = field(
        default=10 * SECOND, metadata=quantity("ns"), validator=between(0, DURATION_NS_MAX)
    )
    epoch: datetime = field(default=EPOCH, validator=_within_years)
    trace: TraceSpec = field(factory=TraceSpec)
    host: HostSpec = field(factory=HostSpec)
    tpm: TpmSpec = field(factory=TpmSpec)
    image: ImageSpec = field(factory=ImageSpec)
    options: dict[str, Any] = field(factory=dict, validator=_options)
    launch: LaunchSpec = field(factory=LaunchSpec)
    kernel: KernelSpec = field(factory=KernelSpec)
    sched: SchedOptions = field(factory=SchedOptions)
    mem: MemOptions = field(factory=MemOptions)
    pools: tuple[PoolSpec, ...] = field(default=(), validator=_tuple_of_at_most(POOLS_MAX))
    vms: tuple[VmEntry, ...] = ()
    faults: tuple[FaultSpec, ...] = field(default=(), validator=_tuple_of_at_most(FAULTS_MAX))
    programs: tuple[ProgramSpec, ...] = field(default=(), validator=_tuple_of_at_most(PROGRAMS_MAX))
    calls: tuple[CallSpec, ...] = field(default=(), validator=_tuple_of_at_most(CALLS_MAX))
    vcenter: VCenterSpec | None = None
    expect: ExpectSpec = field(factory=ExpectSpec)
    policy_file: InputFile | None = field(default=None, metadata={"internal": True})
    """The source of the scheduling policy that `sched.policy` names, if it lies beside the scenario's file."""

    def __attrs_post_init__(self) -> None:
        self._check_pools()
        self._check_vms()
        self._check_tpm()
        self._check_times()
        self._check_memory_errors()
        self._check_processors()
        check_calls(
            self.calls,
            vms=[spec.name for spec in self.virtual_machines()],
            pools=[pool.name for pool in self.pools],
            release=self.sched.release,
            duration_ns=self.duration_ns,
        )
        if self.launch.policy != "none" and self.tpm_state == "absent":
            raise FieldError("launch", f"policy {self.launch.policy}", "a TPM, in whose memory it lies")
        for wanted in (self.expect.attestation, self.expect.quarantined):
            if wanted is not None and self.vcenter is None:
                raise FieldError("expect", wanted, "a [vcenter] table, without which nothing attests")

    @classmethod
    def load(cls, path: str | Path, *, allow_code: bool = False) -> Scenario:
        """Read a scenario file; the same as `sim.load_scenario`."""
        from sim.scenario.load import load_scenario

        return load_scenario(path, allow_code=allow_code)

    @property
    def tpm_state(self) -> str:
        """Whether the TPM is "present", "damaged", "disabled" or "absent"."""
        if self.tpm.state is not None:
            return self.tpm.state
        if not self.host.tpm_present:
            return "absent"
        return "present" if self.host.firmware.tpm_enabled else "disabled"

    @property
    def board_spec(self) -> HostSpec:
        """The host's hardware with the TPM's state written into it."""
        firmware = evolve(self.host.firmware, tpm_enabled=self.tpm_state in TPM_STATES_ENABLED)
        return evolve(self.host, firmware=firmware, tpm_present=self.tpm_state != "absent")

    def virtual_machines(self) -> list[VmSpec]:
        """Return the spec of every single virtual machine, in the order of the scenario."""
        return [spec for entry in self.vms for spec in entry.expand()]

    def canonical(self) -> str:
        """Return the canonical JSON: sorted keys, no spaces, integers only; files by their digests."""
        return json.dumps(plain(_by_digest(self)), sort_keys=True, separators=(",", ":"))

    @property
    def id(self) -> str:
        """The SHA-256 of the canonical JSON, as hex."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def _check_vms(self) -> None:
        vms = sum(entry.count for entry in self.vms)
        if vms > VMS_MAX.value:
            raise FieldError("vms", vms, f"at most {VMS_MAX.value} virtual machines (ESXi's maximum)")
        vcpus = sum(entry.count * entry.vcpus for entry in self.vms)
        if vcpus > VCPUS_MAX.value:
            raise FieldError("vms", vcpus, f"at most {VCPUS_MAX.value} virtual CPUs (ESXi's maximum)")
        contents = {(one.mem.workload.image, one.memory_bytes) for one in self.vms if one.mem is not None}
        pages = sum(memory_bytes // PAGE_BYTES for _, memory_bytes in sorted(contents))
        if pages >= CONTENTS_MAX:
            raise FieldError("vms", f"images of {pages} pages", f"less than {CONTENTS_MAX} pages of images")
        seen: dict[str, None] = {}
        for spec in self.virtual_machines():
            if spec.name in seen:
                raise FieldError("vms", spec.name, "a name for each virtual machine that no other has")
            seen[spec.name] = None

    def _check_pools(self) -> None:
        """Every pool stands below one declared before it, and every VM is in a pool that there is."""
        known = {"": None}
        for pool in self.pools:
            if pool.name in known:
                raise FieldError("pools", pool.name, "a name for each pool that no other has")
            if pool.parent not in known:
                raise FieldError("pools", pool.parent, f"the name of a pool declared before {pool.name}")
            known[pool.name] = None
        for entry in self.vms:
            if entry.pool not in known:
                raise FieldError("vms", entry.pool, f"the name of a pool for {entry.name}")

    def _check_tpm(self) -> None:
        declared = self.tpm.state
        if declared not in (None, "absent") and not self.host.tpm_present:
            raise FieldError("tpm", declared, "the same state in tpm.state and host.tpm_present")
        if declared in TPM_STATES_ENABLED and not self.host.firmware.tpm_enabled:
            raise FieldError("tpm", declared, "the same state in tpm.state and host.firmware.tpm_enabled")
        if self.tpm.faults and self.tpm_state != "present":
            raise FieldError("tpm", f"faults of a TPM that is {self.tpm_state}", "a TPM that is present")

    def _check_times(self) -> None:
        if self.vcenter is not None and self.vcenter.add_host_ns > self.duration_ns:
            raise FieldError(
                "vcenter", f"add_host of {self.vcenter.add_host_ns} ns", "a time within the duration"
            )
        for number, fault in enumerate(self.faults):
            if fault.at_ns is not None and fault.at_ns > self.duration_ns:
                raise FieldError(
                    "faults", f"at of {fault.at_ns} ns in number {number}", "a time within the duration"
                )

        for number, program in enumerate(self.programs):
            if program.at_ns > self.duration_ns:
                got = f"at of {program.at_ns} ns in number {number}"
                raise FieldError("programs", got, "a time within the duration")

    def _check_memory_errors(self) -> None:
        sizes = {f"vm/{spec.name}": spec.memory_bytes for spec in self.virtual_machines()}
        sizes["dram"] = self.host.memory_bytes
        for number, fault in enumerate(self.faults):
            if not fault.strikes_memory or fault.target == "kernel":
                continue
            size = sizes.get(str(fault.target))
            if size is None:
                raise FieldError(
                    "faults", f"target {fault.target} in number {number}", "a virtual machine of the scenario"
                )
            if fault.byte is not None and fault.byte >= size:
                raise FieldError("faults", f"byte {fault.byte} in number {number}", f"less than {size}")

    def _check_processors(self) -> None:
        cpu = self.host.cpu
        pcpus = cpu.packages * cpu.nodes_per_package * cpu.cores_per_node * cpu.threads_per_core
        for number, fault in enumerate(self.faults):
            if not fault.strikes_processor:
                continue
            if self.sched.engine == "fluid":
                raise FieldError("faults", f"{fault.kind} in number {number}", "sched.engine quantum for it")
            if int(FaultTarget.parse(str(fault.target)).name) >= pcpus:
                raise FieldError(
                    "faults", f"{fault.target} in number {number}", f"pcpu/0 to pcpu/{pcpus - 1}"
                )


def _by_digest(scenario: Scenario) -> Scenario:
    """Return the scenario with the content of each file replaced by its SHA-256."""
    vibs = tuple(_digest_of(one) for one in scenario.image.vibs)
    own = None if scenario.policy_file is None else _digest_of(scenario.policy_file)
    programs = tuple(
        one if one.file is None else evolve(one, file=_digest_of(one.file)) for one in scenario.programs
    )
    return evolve(scenario, image=evolve(scenario.image, vibs=vibs), programs=programs, policy_file=own)


def _digest_of(file: InputFile) -> InputFile:
    return InputFile(name=file.name, data=hashlib.sha256(file.data).digest())
