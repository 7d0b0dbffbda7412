"""Declares what a host's hardware is: the values that a scenario file may set.

Models: packages, NUMA nodes, cores and threads; installed memory; firmware identity and its setup switches; disk and
NIC speeds; whether a TPM is fitted.  Every quantity is an integer with its unit at the end of its name, and is
validated here, so that the rest of the layer can trust it.

Leaves out: the kind of TPM (`sim.tpm.profile`), what lies on the disk (`sim.image`), and everything above hardware.

Sources: ranges follow the published configuration maximums of ESXi 8 (logical processors, memory, NUMA nodes); the
default speeds are assumptions, marked so.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import Attribute, field, frozen, validators

from sim.core.facts import fact
from sim.core.structure import FieldError, between, in_choices, matches, quantity
from sim.core.units import GIB, MIB, SECOND

PCPUS_MAX = fact(
    "hw.pcpus_max",
    960,
    unit="1",
    source="ESXi 8.0 configuration maximums, logical CPUs per host",
    kind="vendor",
)
NODES_MAX = fact(
    "hw.numa_nodes_max", 32, unit="1", source="ESXi 8.0 configuration maximums, NUMA nodes", kind="vendor"
)
MEMORY_BYTES_MAX = fact(
    "hw.memory_bytes_max",
    24 << 40,
    unit="byte",
    source="ESXi 8.0 configuration maximums, RAM per host",
    kind="vendor",
)
DISK_READ_BYTES_PER_S = fact(
    "hw.disk_read_rate", 500_000_000, unit="byte/s", source="a SATA flash boot device", kind="assumed"
)
DISK_ACCESS_NS = fact("hw.disk_access", 80_000, unit="ns", source="a SATA flash boot device", kind="assumed")
NIC_BITS_PER_S = fact(
    "hw.nic_rate", 10_000_000_000, unit="bit/s", source="a common server port", kind="assumed"
)
NIC_LATENCY_NS = fact("hw.nic_latency", 20_000, unit="ns", source="one way within one switch", kind="assumed")
PATROL_SCRUB_NS = fact(
    "hw.patrol_scrub",
    24 * 3600 * SECOND,
    unit="ns",
    source="the usual firmware default: all memory once in 24 hours",
    kind="assumed",
)

MEMORY_GRAIN_BYTES = 2 * MIB
"""Installed memory is a whole number of these: the large page of x86-64."""

FIRMWARE_LOG_FORMS = ("generic", "edk2", "pfp-1.05", "boot-guard", "virtual")
"""The forms that `sim.boot.logform` knows."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"


def _installed_memory(_instance: object, attribute: Attribute[int], value: int) -> None:
    between(64 * MIB, MEMORY_BYTES_MAX.value)(_instance, attribute, value)
    if value % MEMORY_GRAIN_BYTES:
        raise FieldError(attribute.name, value, "a multiple of 2 MiB")


def _text(chars_max: int) -> Callable[[object, Attribute[str], str], None]:
    return matches(rf"[ -~]{{1,{chars_max}}}", f"1 to {chars_max} printable ASCII characters")


@frozen(kw_only=True)
class CpuSpec:
    """The processors: counts per level of the hierarchy, and the speed of one core."""

    packages: int = field(default=1, validator=between(1, 16))
    nodes_per_package: int = field(default=1, validator=between(1, 8))
    cores_per_node: int = field(default=4, validator=between(1, 256))
    threads_per_core: int = field(default=1, validator=between(1, 2))
    cores_per_llc: int | None = field(default=None, validator=validators.optional(between(1, 256)))
    """How many cores share a last-level cache: all of a node (None), or a part that divides them evenly."""
    core_hz: int = field(
        default=2_400_000_000, metadata=quantity("hz"), validator=between(100_000_000, 10_000_000_000)
    )

    def __attrs_post_init__(self) -> None:
        if self.pcpus > PCPUS_MAX.value:
            raise FieldError("pcpus", self.pcpus, f"at most {PCPUS_MAX.value} logical processors")
        if self.nodes > NODES_MAX.value:
            raise FieldError("nodes", self.nodes, f"at most {NODES_MAX.value} NUMA nodes")
        if self.cores_per_node % (self.cores_per_llc or 1):
            wanted = f"a divisor of the node's {self.cores_per_node} cores"
            raise FieldError("cores_per_llc", self.cores_per_llc, wanted)

    @property
    def nodes(self) -> int:
        """The number of NUMA nodes."""
        return self.packages * self.nodes_per_package

    @property
    def cores(self) -> int:
        """The number of cores."""
        return self.nodes * self.cores_per_node

    @property
    def pcpus(self) -> int:
        """The number of logical processors."""
        return self.cores * self.threads_per_core


@frozen(kw_only=True)
class FirmwareSpec:
    """The platform firmware: who made it, and how its setup screen stands at delivery."""

    vendor: str = field(default="Generic Server Firmware", validator=_text(64))
    version: str = field(default="2.4.1", validator=_text(32))
    secure_boot: bool = field(default=True, validator=validators.instance_of(bool))
    tpm_enabled: bool = field(default=True, validator=validators.instance_of(bool))
    txt_enabled: bool = field(default=False, validator=validators.instance_of(bool))
    debug_chipset: bool = field(default=False, validator=validators.instance_of(bool))
    """Whether the chipset is one for developers, which takes SINIT modules that are not for production."""
    log_form: str = field(default="generic", validator=in_choices(*FIRMWARE_LOG_FORMS))
    """In which maker's form the firmware writes of its own code and tables into the event log."""
    boot_entry: str = field(default="VMware ESXi", validator=_text(64))
    boot_path: str = field(
        default="\\EFI\\VMware\\safeboot64.efi",
        validator=matches(r"(\\[\w.-]{1,64}){1,8}", "a path with backslashes"),
    )


@frozen(kw_only=True)
class DiskSpec:
    """The boot device: how fast it reads."""

    read_bytes_per_s: int = field(
        default=DISK_READ_BYTES_PER_S.value, validator=between(1_000_000, 100_000_000_000)
    )
    access_ns: int = field(
        default=DISK_ACCESS_NS.value, metadata=quantity("ns"), validator=between(0, 1_000_000_000)
    )


@frozen(kw_only=True)
class NicSpec:
    """The management network port: rate and one-way latency of its link."""

    bits_per_s: int = field(default=NIC_BITS_PER_S.value, validator=between(1_000_000, 1_000_000_000_000))
    latency_ns: int = field(
        default=NIC_LATENCY_NS.value, metadata=quantity("ns"), validator=between(0, 10_000_000_000)
    )


@frozen(kw_only=True)
class HostSpec:
    """One host's hardware, as a scenario declares it; `patrol_scrub` is how long one round over all memory takes."""

    name: str = field(default="esx01", validator=matches(_NAME, "a host name"))
    cpu: CpuSpec = field(factory=CpuSpec)
    memory_bytes: int = field(
        default=16 * GIB,
        metadata=quantity("bytes"),
        validator=_installed_memory,
    )
    patrol_scrub_ns: int = field(
        default=PATROL_SCRUB_NS.value,
        metadata=quantity("ns"),
        validator=between(SECOND, 366 * 86_400 * SECOND),
    )
    firmware: FirmwareSpec = field(factory=FirmwareSpec)
    disk: DiskSpec = field(factory=DiskSpec)
    nic: NicSpec = field(factory=NicSpec)
    tpm_present: bool = field(default=True, validator=validators.instance_of(bool))
