"""The TPM attestation report of a host, as the vSphere API defines it.

Models: `HostTpmAttestationReport` with its PCR values and its event log entries, each event details class with the
fields of its vSphere definition, in Python's spelling (`vib_name` for `vibName`).  `wire_name` and `wire_fields` give
the vSphere spelling back, so readers and writers are derived from these classes.

Leaves out: any judgement.  A report is unsigned; what it proves is decided in `sim.attest.esxi_report`.

Sources: vSphere Web Services API, data objects HostTpmAttestationReport, HostTpmEventLogEntry and HostTpmEventDetails
with its subclasses (4.0 to 9.1); vibName, vibVersion and vibVendor are empty for components of no VIB.
"""

from __future__ import annotations

from typing import Final

from attrs import field, fields, frozen

__all__ = [
    "EVENT_DETAILS",
    "BootCompleteDetails",
    "BootSecurityOptionDetails",
    "CommandDetails",
    "EventDetails",
    "HostTpmAttestationReport",
    "NvTagDetails",
    "OptionDetails",
    "SignerDetails",
    "SoftwareComponentDetails",
    "SystemVersionDetails",
    "TpmDigestInfo",
    "TpmEventLogEntry",
    "VersionDetails",
    "wire_fields",
    "wire_name",
]


@frozen(kw_only=True)
class TpmDigestInfo:
    """The value of one PCR in one bank; `digest_method` is SHA1, SHA256, SHA384, SHA512 or SM3_256."""

    pcr_number: int
    digest_method: str
    digest_value: bytes = field(repr=lambda value: value.hex())
    object_name: str = ""


@frozen(kw_only=True)
class EventDetails:
    """What every event has: the digest that was extended, and its algorithm."""

    data_hash: bytes = field(repr=lambda value: value.hex())
    data_hash_method: str = "SHA1"


@frozen(kw_only=True)
class SoftwareComponentDetails(EventDetails):
    """A module: its file name and the VIB it belongs to, or three empty strings."""

    component_name: str = ""
    vib_name: str = ""
    vib_version: str = ""
    vib_vendor: str = ""


@frozen(kw_only=True)
class OptionDetails(EventDetails):
    """A boot option file and its content."""

    options_file_name: str = ""
    boot_options: bytes = b""


@frozen(kw_only=True)
class CommandDetails(EventDetails):
    """The command line of the kernel."""

    command_line: str = ""


@frozen(kw_only=True)
class BootSecurityOptionDetails(EventDetails):
    """A boot security option such as `uefiSecureBootEnabled = TRUE`; the digest is over this text and a NUL."""

    boot_security_option: str = ""


@frozen(kw_only=True)
class NvTagDetails(BootSecurityOptionDetails):
    """The asset tag held in the TPM's non-volatile memory (since 7.0.2)."""


@frozen(kw_only=True)
class SignerDetails(BootSecurityOptionDetails):
    """A certificate that signed something which was booted (since 8.0.0.1)."""


@frozen(kw_only=True)
class VersionDetails(EventDetails):
    """A version record of an early module (since 8.0.0.1)."""

    version: bytes = b""


@frozen(kw_only=True)
class BootCompleteDetails(EventDetails):
    """The mark that the boot has come to its end (since 8.0.1)."""


@frozen(kw_only=True)
class SystemVersionDetails(EventDetails):
    """The version of the whole system (since 9.1)."""

    system_version: str = ""


@frozen(kw_only=True)
class TpmEventLogEntry:
    """One entry of the event log: the PCR that was extended, and with what."""

    pcr_index: int
    event_details: EventDetails


@frozen(kw_only=True)
class HostTpmAttestationReport:
    """PCR values, events in log order, and what the host says of its own log.

    `log_reliable` False means that the log must not be used; None, that the form has no such field.  True proves
    nothing.  `oddities` holds what the reader found unusual and did not use.
    """

    tpm_pcr_values: tuple[TpmDigestInfo, ...] = ()
    tpm_events: tuple[TpmEventLogEntry, ...] = ()
    log_reliable: bool | None = None
    oddities: tuple[str, ...] = ()


_CLASSES: Final = (
    SoftwareComponentDetails,
    OptionDetails,
    CommandDetails,
    BootSecurityOptionDetails,
    NvTagDetails,
    SignerDetails,
    VersionDetails,
    BootCompleteDetails,
    SystemVersionDetails,
)


def wire_name(cls: type[EventDetails]) -> str:
    """Return the vSphere name of an event details class: HostTpmSoftwareComponentEventDetails."""
    return f"HostTpm{cls.__name__.removesuffix('Details')}EventDetails"


def wire_fields(cls: type[EventDetails]) -> dict[str, tuple[str, type[bytes] | type[str]]]:
    """Return {vSphere field name: (attribute, bytes or str)} for what `cls` adds to the base class."""
    base = {attribute.name for attribute in fields(EventDetails)}
    return {
        _camel(attribute.name): (attribute.name, bytes if attribute.type in {"bytes", bytes} else str)
        for attribute in fields(cls)
        if attribute.name not in base
    }


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


EVENT_DETAILS: Final[dict[str, type[EventDetails]]] = {wire_name(cls): cls for cls in _CLASSES}
