"""How the firmware of different makers writes its own code and tables into the log: the forms that real logs show.

Models, as values: what stands for the S-CRTM (a version as text or as a GUID, an event about its contents), which type
describes a code volume, whether a statement about the platform stands in PCR 0 (EV_NONHOST_INFO), and how tables of
SMBIOS and ACPI are told.  What is measured is the same code and the same tables; only "virtual" measures no code at
all, as the firmware of a large cloud does, so that nothing in PCR 0 speaks of it but a version.

Leaves out: EV_POST_CODE2, EV_NONHOST_CODE and EV_NONHOST_CONFIG, which no log known to us has.

Sources: eleven public logs: "edk2" is that of a QEMU guest (two blobs, "ACPI DATA"), "boot-guard" those of three PCs
(EV_S_CRTM_CONTENTS, a GUID, EV_POST_CODE), "virtual" those of four cloud machines (EV_NONHOST_INFO, no code).
"pfp-1.05" is what EDK2 writes where its profile revision is 105 (SecurityPkg Tcg2Pei, MdeModulePkg SmbiosMeasurementDxe): TCG
PC Client Platform Firmware Profile 1.05, sections 3.3.4.1 and 10.2.5 (second forms of blob, table pointers
and boot variables).
"""

from __future__ import annotations

from hashlib import sha256

from attrs import frozen

from sim.boot import uefi_events
from sim.hw.spec import FirmwareSpec
from sim.tpm.eventlog import EV

__all__ = ["ACPI_DATA", "FORMS", "LogForm", "code_event", "version_data"]

ACPI_DATA = b"ACPI DATA"
BOOT_GUARD = b"Boot Guard Measured S-CRTM\0"
NONHOST_INFO = b"SIM NonHostInfo\0" + bytes(16)
"""A name, and what the host around a virtual machine is: zeros, for nothing special."""


@frozen(kw_only=True)
class LogForm:
    """One maker's form."""

    version_is_guid: bool = False
    crtm_contents: bytes = b""
    """Data of the event about the S-CRTM's contents, which then is not described as a volume."""
    code: EV | None = EV.EFI_PLATFORM_FIRMWARE_BLOB
    """The type that describes a code volume; None: code is not measured."""
    nonhost_info: bytes = b""
    second_tables: bool = False
    """SMBIOS and ACPI in one event each of the second form, with a name."""
    boot_variable: EV = EV.EFI_VARIABLE_BOOT
    """The type of boot options; the digest is over the variable with its name under both."""
    acpi_flags: bool = False
    """ACPI tables as EV_PLATFORM_CONFIG_FLAGS, one event a table."""


FORMS = {
    "generic": LogForm(),
    "edk2": LogForm(acpi_flags=True),
    "pfp-1.05": LogForm(
        code=EV.EFI_PLATFORM_FIRMWARE_BLOB2,
        second_tables=True,
        boot_variable=EV.EFI_VARIABLE_BOOT2,
    ),
    "boot-guard": LogForm(version_is_guid=True, crtm_contents=BOOT_GUARD, code=EV.POST_CODE),
    "virtual": LogForm(code=None, nonhost_info=NONHOST_INFO),
}
"""By the name that a scenario gives; "generic" is this simulator's own mixture."""


def version_data(form: LogForm, spec: FirmwareSpec) -> bytes:
    """Return the data of EV_S_CRTM_VERSION: the version's text, or a GUID that stands for maker and version."""
    if not form.version_is_guid:
        return uefi_events.ucs2(spec.version)
    return sha256(f"{spec.vendor}/{spec.version}".encode()).digest()[:16]


def code_event(form: LogForm, name: str, base: int, length: int) -> bytes:
    """Return the data that describe a code volume; the digest is over the volume itself, whatever the type."""
    if form.code == EV.EFI_PLATFORM_FIRMWARE_BLOB2:
        return uefi_events.firmware_blob2(name, base, length)
    return uefi_events.firmware_blob(base, length)
