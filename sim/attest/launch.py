"""The events of a dynamic launch in PCR 17 and 18: what the processor and SINIT measured before ESXi.

Models: the shape that a launch must have in the log: the hash sequence once and first in PCR 17, each other launch
event at most once a PCR, with small data that are what was measured.  So no launched code can pass as one of them; the
event that is about it has no data, and its digest must be a published launcher's.  What the launch control policy was
can be read from its events, since their data are covered.

Leaves out: whether this SINIT module and this platform are good ones, which golden values for PCR 17 and 18 decide
(`AppraisalPolicy.reference_pcrs`).

Sources: Intel TXT MLE Developer's Guide (extends of the details/authorities mode); event types as in tboot 1.10.5,
txt/txt.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from sim.attest.verdict import AttestationError
from sim.image.manifest import ReferenceManifest
from sim.tpm.eventlog import TcgEvent
from sim.tpm.hashing import HASHES, bank_name, hash_bytes

__all__ = [
    "AUTHORITIES_PCR",
    "DETAILS_PCR",
    "LAUNCH_TYPES",
    "LaunchEvent",
    "check_launch_events",
    "check_launch_policy",
    "check_launched_code",
]


class LaunchEvent(IntEnum):
    """Event types that a TXT launch writes."""

    PCR_MAPPING = 0x401
    HASH_START = 0x402
    COMBINED_HASH = 0x403
    MLE_HASH = 0x404
    BIOSAC_REG_DATA = 0x40A
    CPU_SCRTM_STAT = 0x40B
    LCP_CONTROL_HASH = 0x40C
    ELEMENTS_HASH = 0x40D
    STM_HASH = 0x40E
    OSSINITDATA_CAP_HASH = 0x40F
    SINIT_PUBKEY_HASH = 0x410
    LCP_HASH = 0x411
    LCP_DETAILS_HASH = 0x412
    LCP_AUTHORITIES_HASH = 0x413
    NV_INFO_HASH = 0x414
    TBOOT_POLICY = 0x501


LAUNCH_TYPES: Final = frozenset(LaunchEvent)
DETAILS_PCR: Final = 17
AUTHORITIES_PCR: Final = 18
DATA_BYTES_MAX: Final = 1024
"""The longest data of a launch event; code is longer."""

LAUNCHERS: Final = frozenset({"tboot.b00", "b.b00"})
"""The files that a launch may begin with."""

NO_POLICY: Final = b"\0"
CONTROL_NPW: Final = 1 << 1
"""Bit of PolicyControl: modules that are not for production may run."""


def check_launch_events(events: Sequence[TcgEvent]) -> None:
    """Demand the shape of one launch of the events in PCR 17 and 18 that are not ESXi's own."""
    first = next((event for event in events if event.pcr == DETAILS_PCR), None)
    if first is None or first.type != LaunchEvent.HASH_START:
        raise AttestationError("launch_events", "the dynamic launch does not begin with its hash sequence")
    seen: set[tuple[int, int]] = set()
    for event in events:
        if event.type not in LAUNCH_TYPES:
            continue
        if (event.pcr, event.type) in seen:
            raise AttestationError(
                "launch_events", f"launch event 0x{event.type:x} stands twice in PCR {event.pcr}"
            )
        seen.add((event.pcr, event.type))
        if event.type == LaunchEvent.MLE_HASH:
            _check_silent(event)
        elif event.type != LaunchEvent.HASH_START:
            _check_data(event)
        elif event.pcr != DETAILS_PCR:
            raise AttestationError("launch_events", f"a hash sequence stands in PCR {event.pcr}")


def check_launched_code(event: TcgEvent, algorithm: int, manifest: ReferenceManifest) -> str:
    """Demand that the launched code is a published launcher, and return its file name."""
    digest = event.digests.get(algorithm, b"")
    names = [one.name for one in manifest.with_digest(digest) if one.name in LAUNCHERS]
    if not names:
        raise AttestationError(
            "launched_code",
            "the launched code is no launcher that any vendor published",
            component="launched code",
            evidence=f"PCR {event.pcr}, digest {digest.hex()}",
        )
    return names[0]


def check_launch_policy(events: Sequence[TcgEvent]) -> None:
    """Demand that the launch was under a policy that pins the launched code and wants a module for production."""
    by_type = {event.type: event.data for event in events if event.pcr == DETAILS_PCR}
    legacy = by_type.get(LaunchEvent.TBOOT_POLICY)
    if legacy is not None:
        control, pinned = legacy[:4], any(legacy[4:])
    else:
        control = by_type.get(LaunchEvent.LCP_CONTROL_HASH, b"")
        pinned = by_type.get(LaunchEvent.LCP_DETAILS_HASH, NO_POLICY) != NO_POLICY
    if not pinned:
        raise AttestationError("launch_policy", "no launch control policy pins what this host launches")
    if int.from_bytes(control, "little") & CONTROL_NPW:
        raise AttestationError(
            "launch_policy", "the launch control policy lets a SINIT module run that is not for production"
        )


def _check_silent(event: TcgEvent) -> None:
    if event.data:
        raise AttestationError(
            "launch_events",
            f"the event of the launched code in PCR {event.pcr} carries {len(event.data)} bytes",
        )


def _check_data(event: TcgEvent) -> None:
    if len(event.data) > DATA_BYTES_MAX:
        raise AttestationError(
            "launch_events", f"launch event 0x{event.type:x} carries {len(event.data)} bytes"
        )
    for algorithm, digest in event.digests.items():
        if algorithm in HASHES and hash_bytes(algorithm, event.data) != digest:
            raise AttestationError(
                "event_data",
                f"the data of launch event 0x{event.type:x} in PCR {event.pcr} are not what was measured",
                evidence=f"{bank_name(algorithm)} digest {digest.hex()}",
            )
