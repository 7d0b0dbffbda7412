"""What a boot ends in: one value, handed from the boot chain to the VMkernel.

Models: the boot information that a boot loader passes on (modules with the very bytes that were loaded, kernel options,
the event log with its truncation flag), and the value that stands for a boot that did not get that far.

Leaves out: memory maps, frame buffers and ACPI tables.

Sources: vmware/esx-boot (boot info of mboot, flag for a truncated log); VMware's Secure Boot documentation (texts).
"""

from __future__ import annotations

import enum

import attrs

from sim.boot.pcrmap import LOADER_MAP, PcrMap

__all__ = [
    "BootFailure",
    "BootInfo",
    "BootModule",
    "InstalledVib",
    "StartupMode",
    "TpmFailureRule",
    "TpmState",
]


class TpmState(enum.StrEnum):
    """What the firmware found in the TPM slot."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    ABSENT = "absent"
    FAILED = "failed"
    """Present and enabled, but it did not start or refused a firmware measurement: nothing more was measured."""


class StartupMode(enum.StrEnum):
    """How the firmware's core root of trust starts the TPM; a setting of the platform maker."""

    LOCALITY_0 = "locality0"
    LOCALITY_3 = "locality3"
    H_CRTM = "hcrtm"


class TpmFailureRule(enum.StrEnum):
    """What the firmware does when the TPM fails under it; a setting of the platform maker."""

    GO_ON = "continue"
    """Give the TPM up, and boot without measurements, which attestation shows."""
    STOP = "halt"
    """Boot no further: who cannot be measured is not started."""


@attrs.frozen(kw_only=True)
class BootModule:
    """One file that the loader read from the boot bank, in load order (the kernel first)."""

    name: str
    data: bytes = attrs.field(repr=False)
    """The file's bytes as stored."""
    content: bytes = attrs.field(repr=False)
    """The bytes after gunzip: what was measured, and what runs."""
    digest: bytes = attrs.field(repr=False)
    """SHA-256 of the content."""
    vib: str = ""
    """Id of the VIB that owns the file; empty when none does."""


@attrs.frozen(kw_only=True)
class InstalledVib:
    """One VIB of the image database: its signed descriptor and what the secure boot verifier said about it."""

    vib_id: str
    descriptor_xml: bytes = attrs.field(repr=False)
    signature: bytes = attrs.field(repr=False)
    refused: str = ""
    """Why verification failed; empty when it passed."""


@attrs.frozen(kw_only=True)
class BootInfo:
    """A boot that reached the VMkernel."""

    boot_id: str
    host: str
    secure_boot: bool
    tpm_state: TpmState
    drtm: bool
    """Whether a late launch took place, so that PCRs 17-22 hold the measurements."""
    pcr_map: PcrMap = LOADER_MAP
    """Which PCR took what."""
    launcher: bytes = attrs.field(default=b"", repr=False)
    """What was launched, where that is no boot module: it stays in memory."""
    bank: str
    """The boot bank's volume."""
    command_line: str
    kernel_options: tuple[tuple[str, str], ...]
    modules: tuple[BootModule, ...]
    installed_vibs: tuple[InstalledVib, ...]
    event_log: bytes = attrs.field(repr=False)
    """The TCG event log; empty when nothing was measured."""
    log_truncated: bool
    messages: tuple[str, ...] = attrs.field(repr=False)
    """All log lines of the boot, each as "source: text"."""
    started_ns: int
    finished_ns: int

    def option(self, key: str, default: str = "") -> str:
        """Return the kernel option `key`; the last one counts when it is given twice."""
        return dict(self.kernel_options).get(key, default)

    def module(self, name: str) -> BootModule:
        """Return the module file `name`; KeyError when it was not loaded."""
        for module in self.modules:
            if module.name == name:
                return module
        raise KeyError(name)


@attrs.frozen(kw_only=True)
class BootFailure:
    """A boot that was refused or broke: where, on which component, and what the screen shows."""

    stage: str
    component: str
    message: str
    host: str = ""
    messages: tuple[str, ...] = attrs.field(default=(), repr=False)
    event_log: bytes = attrs.field(default=b"", repr=False)
    resets: bool = False
    """Whether the platform resets itself and boots again, instead of standing still."""
    started_ns: int = 0
    finished_ns: int = 0
