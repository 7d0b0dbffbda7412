"""What vCenter keeps about a host: connection, attestation, PCR values, events, the alarm.

Models: one frozen entry a host, replaced as a whole when something changes; vSphere's names for states, events and
the attestation alarm.

Leaves out: clusters, resource pools, datastores, and every alarm but one.

Sources: vSphere Web Services API (HostTpmAttestationInfo, HostSystemConnectionState, ManagedEntityStatus); the alarm's
name, description and event type as seen on a vCenter 8.0.3.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from attrs import field, frozen

from sim.attest.engines import Case, Decision
from sim.attest.tpm_report import HostTpmAttestationReport
from sim.attest.verdict import ClockState, Reason

__all__ = [
    "ALARM_DESCRIPTION",
    "ALARM_NAME",
    "ATTESTATION_FAILED_EVENT",
    "POLICY_ALARM_NAME",
    "POLICY_FAILED_EVENT",
    "HostEntry",
    "TpmAttestationInfo",
    "VcEvent",
]

ALARM_NAME: Final = "Host TPM attestation alarm"
ALARM_DESCRIPTION: Final = "Default alarm that indicates host TPM attestation failure."
ATTESTATION_FAILED_EVENT: Final = "com.vmware.vc.host.TPMAttestationFailedEvent"
POLICY_ALARM_NAME: Final = "Host integrity policy alarm"
POLICY_FAILED_EVENT: Final = "vmkernel-sim.host.PolicyFailedEvent"
"""An alarm and an event of this project's own: those of third parties have no common name."""

GREEN: Final = "green"
RED: Final = "red"
GRAY: Final = "gray"
"""The status of the alarm on a host that was never judged."""


@frozen(kw_only=True)
class TpmAttestationInfo:
    """The verdict as it stands in `host.summary.tpmAttestation`: when, accepted or notAccepted, and why not."""

    time: datetime
    status: str
    message: str = ""


@frozen(kw_only=True)
class VcEvent:
    """One event of vCenter's event list."""

    key: int
    event_type_id: str
    created_time: datetime
    host: str
    full_formatted_message: str


@frozen(kw_only=True)
class HostEntry:
    """A host in the inventory.

    `tpm_attestation` None is shown as N/A: the host has no TPM that is switched on.  `report` holds the PCR values
    and the event details; `boot_id` tells which boot they belong to.  `decisions` are those of the policy engines, and
    `quarantined` and `key_withheld` what follows from them.  `stale` says why the verdict no longer holds, as it was
    found when somebody looked (`VCenter.check_freshness`); the next attestation clears it.
    """

    name: str
    connection_state: str = "connected"
    power_state: str = "poweredOn"
    boot_id: str = ""
    tpm_attestation: TpmAttestationInfo | None = None
    stale: str = ""
    reasons: tuple[Reason, ...] = ()
    report: HostTpmAttestationReport = field(factory=HostTpmAttestationReport, repr=False)
    alarm: str = GRAY
    policy_alarm: str = GRAY
    case: Case | None = field(default=None, repr=False)
    """The evidence of the last attestation with the verdict on it."""
    decisions: tuple[Decision, ...] = ()
    quarantined: bool = False
    key_withheld: bool = False
    away: bool = False
    """Whether it rebooted or was out of reach since it was accepted last, so that it may be in another boot."""
    tpm_name: bytes = field(default=b"", repr=False)
    """The name of the endorsement key of the TPM that was accepted first; another TPM is another host."""
    last_accepted: ClockState | None = field(default=None, repr=False)
    last_accepted_boot_id: str = field(default="", repr=False)
    last_accepted_resumes: int = field(default=0, repr=False)

    @property
    def attestation_column(self) -> str:
        """Return what the attestation column of vCenter's monitor page shows: Passed, Failed or N/A."""
        if self.tpm_attestation is None:
            return "N/A"
        return "Passed" if self.tpm_attestation.status == "accepted" else "Failed"
