"""What a launch puts into PCRs 17 and 18 besides the hash sequence, as values: the two uses of these PCRs.

Models: "details/authorities", where 17 takes every part that took part and 18 whose keys and policies made the launch
possible, so that an update by the same maker leaves 18 alone; and "legacy", where 17 takes one digest of everything
combined, then tboot's own policy, and 18 the launched code.

Leaves out: that TPM 2.0 allows legacy use in name only (there tboot always takes details); the STM; what BIOS says of
its own module beyond a digest of the firmware's first code.

Sources: Intel TXT MLE Developer's Guide (order of the extends in both uses); tboot 1.10.5, README (its policy in 17) and
txt/txt.h (event types); for details the report of a real ESXi 6.7 host, whose digests at the places of the S-CRTM status
(u32 1), of the OS capabilities (u32 0x221), of policy control (u32 0) and of policy details, STM and authorities (one
zero byte) are those of this module.
"""

from __future__ import annotations

import enum
import struct

from attrs import field, frozen

from sim.boot.lcpcheck import NOTHING, PolicyMatch
from sim.core.facts import fact

__all__ = ["AUTHORITIES_PCR", "DETAILS_PCR", "LaunchEvent", "LaunchInputs", "LaunchRecord", "records"]

DETAILS_PCR = 17
AUTHORITIES_PCR = 18
ACM_LOCALITY = 3
MLE_LOCALITY = 2

OS_CAPABILITIES = fact(
    "boot.txt_os_capabilities",
    0x221,
    unit="bits",
    source="its SHA-256 is in the report of a real host",
    kind="measured",
)
TBOOT_EVENT = fact(
    "boot.tboot_event_type",
    0x501,
    unit="event type",
    source="tboot, txt/txt.h (its own events)",
    kind="inferred",
)

_SCRTM_STATUS = struct.pack("<I", 1)
_MSEG_VALID = bytes(8)
_STM_HASH = bytes(20)


class LaunchEvent(enum.IntEnum):
    """Event types of a TXT launch."""

    HASH_START = 0x402
    COMBINED_HASH = 0x403
    MLE_HASH = 0x404
    BIOSAC_REG_DATA = 0x40A
    CPU_SCRTM_STAT = 0x40B
    LCP_CONTROL_HASH = 0x40C
    STM_HASH = 0x40E
    OSSINITDATA_CAP_HASH = 0x40F
    SINIT_PUBKEY_HASH = 0x410
    LCP_DETAILS_HASH = 0x412
    LCP_AUTHORITIES_HASH = 0x413
    NV_INFO_HASH = 0x414
    TBOOT_POLICY = TBOOT_EVENT.value


@frozen(kw_only=True)
class LaunchInputs:
    """What SINIT has found when it measures."""

    bios: bytes = field(repr=False)
    """What is registered of the firmware: size and digest of its first code."""
    public_key: bytes = field(repr=False)
    policy: PolicyMatch
    nv_info: bytes = field(repr=False)
    """The public area of the policy's NV index."""


@frozen(kw_only=True)
class LaunchRecord:
    """One extend: its digest is over `data`, or over the launched code, and then the event says nothing."""

    pcr: int
    kind: LaunchEvent
    data: bytes = field(default=b"", repr=False)
    is_mle: bool = False
    locality: int = ACM_LOCALITY


def records(inputs: LaunchInputs, *, details: bool) -> tuple[LaunchRecord, ...]:
    """Return the extends after the hash sequence, in their order."""
    return (*_details(inputs), *_authorities(inputs)) if details else _legacy(inputs)


def _details(inputs: LaunchInputs) -> tuple[LaunchRecord, ...]:
    control = struct.pack("<I", inputs.policy.control)
    capabilities = struct.pack("<I", OS_CAPABILITIES.value)
    return (
        _of(DETAILS_PCR, LaunchEvent.BIOSAC_REG_DATA, inputs.bios),
        _of(DETAILS_PCR, LaunchEvent.CPU_SCRTM_STAT, _SCRTM_STATUS),
        _of(DETAILS_PCR, LaunchEvent.LCP_CONTROL_HASH, control),
        _of(DETAILS_PCR, LaunchEvent.LCP_DETAILS_HASH, inputs.policy.details),
        _of(DETAILS_PCR, LaunchEvent.STM_HASH, NOTHING),
        _of(DETAILS_PCR, LaunchEvent.OSSINITDATA_CAP_HASH, capabilities),
        LaunchRecord(pcr=DETAILS_PCR, kind=LaunchEvent.MLE_HASH, is_mle=True),
        _of(DETAILS_PCR, LaunchEvent.NV_INFO_HASH, inputs.nv_info),
    )


def _authorities(inputs: LaunchInputs) -> tuple[LaunchRecord, ...]:
    control = struct.pack("<I", inputs.policy.control)
    capabilities = struct.pack("<I", OS_CAPABILITIES.value)
    return (
        _of(AUTHORITIES_PCR, LaunchEvent.SINIT_PUBKEY_HASH, inputs.public_key),
        _of(AUTHORITIES_PCR, LaunchEvent.CPU_SCRTM_STAT, _SCRTM_STATUS),
        _of(AUTHORITIES_PCR, LaunchEvent.OSSINITDATA_CAP_HASH, capabilities),
        _of(AUTHORITIES_PCR, LaunchEvent.LCP_CONTROL_HASH, control),
        _of(AUTHORITIES_PCR, LaunchEvent.LCP_AUTHORITIES_HASH, inputs.policy.authorities),
        _of(AUTHORITIES_PCR, LaunchEvent.NV_INFO_HASH, inputs.nv_info),
    )


def _legacy(inputs: LaunchInputs) -> tuple[LaunchRecord, ...]:
    control = struct.pack("<I", inputs.policy.control)
    capabilities = struct.pack("<I", OS_CAPABILITIES.value)
    combined = b"".join(
        (inputs.bios, _MSEG_VALID, _STM_HASH, control, inputs.policy.digest, capabilities, _SCRTM_STATUS)
    )
    return (
        _of(DETAILS_PCR, LaunchEvent.COMBINED_HASH, combined),
        LaunchRecord(pcr=AUTHORITIES_PCR, kind=LaunchEvent.MLE_HASH, is_mle=True),
        LaunchRecord(
            pcr=DETAILS_PCR,
            kind=LaunchEvent.TBOOT_POLICY,
            data=control + inputs.policy.digest,
            locality=MLE_LOCALITY,
        ),
    )


def _of(pcr: int, kind: LaunchEvent, data: bytes) -> LaunchRecord:
    return LaunchRecord(pcr=pcr, kind=kind, data=data)
