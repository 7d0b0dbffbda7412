"""The events of a dynamic launch in PCR 17 and 18: what the processor and SINIT measured before ESXi.

Models: the shape that a launch must have in the log: the hash sequence once and first in PCR 17, each other launch
event at most once a PCR, with small data that are what was measured.  So no launched code can pass as one of them; the
event that is about it has no data, and its digest must be a published launcher's.  What the launch control policy was
can be read from SINIT's events, since their data are covered and stand before the launched code.

Leaves out: at which locality a measurement was made, which no log says; in legacy use, whether the lists of a policy are
about the launched code, since only their digest is measured; whether this SINIT module and this platform are good ones, which golden values for PCR 17 and 18 decide
(`AppraisalPolicy.reference_pcrs`).

Sources: Intel TXT MLE Developer's Guide (elements of a policy; extends of the details/authorities mode); event types as in tboot 1.10.5,
txt/txt.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from sim.attest.verdict import AttestationError
from sim.image.manifest import ReferenceManifest
from sim.tpm.eventlog import EV, TcgEvent
from sim.tpm.hashing import HASHES, bank_name, hash_bytes

__all__ = [
    "AUTHORITIES_PCR",
    "DETAILS_PCR",
    "LAUNCH_TYPES",
    "LaunchEvent",
    "check_launch_events",
    "check_launch_policy",
    "check_launched_code",
    "is_legacy",
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
CONTROL_BYTES: Final = 4
COMBINED_TAIL_BYTES: Final = 8
"""What stands behind control word and digest in SINIT's combined data: capabilities and S-CRTM status."""
ELEMENT_MLE: Final = 0x10
"""The kind of a policy element that lists digests of launched code."""
_ELEMENT: Final = struct.Struct("<III")
_LAUNCHED: Final = frozenset({LaunchEvent.MLE_HASH, EV.EVENT_TAG})
"""What tells of the launched code, and of what it measures itself."""
_POLICY_TYPES: Final = frozenset(
    {
        LaunchEvent.LCP_CONTROL_HASH,
        LaunchEvent.LCP_DETAILS_HASH,
        LaunchEvent.COMBINED_HASH,
        LaunchEvent.TBOOT_POLICY,
    }
)
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
    """Demand that the launch was under a policy that pins the launched code and wants a module for production.

    Only what stands in PCR 17 before the launched code is SINIT's word; behind it, that code could say what it likes.
    """
    details = [event for event in events if event.pcr == DETAILS_PCR]
    code = next((at for at, event in enumerate(details) if event.type in _LAUNCHED), len(details))
    said = {event.type: event.data for event in details[:code]}
    late = [event.type for event in details[code:] if event.type in _POLICY_TYPES]
    if late:
        raise AttestationError(
            "launch_policy", f"launch event 0x{late[0]:x} on the policy stands behind the launched code"
        )
    combined = said.get(LaunchEvent.COMBINED_HASH)
    if combined is not None:
        control, pinned = _legacy_policy(combined, said.get(LaunchEvent.TBOOT_POLICY, b""))
    elif LaunchEvent.TBOOT_POLICY in said:
        raise AttestationError("launch_policy", "tboot's word on the policy stands alone, without SINIT's")
    else:
        control = said.get(LaunchEvent.LCP_CONTROL_HASH, b"")
        pinned = _has_mle_element(said.get(LaunchEvent.LCP_DETAILS_HASH, NO_POLICY))
    if not pinned:
        raise AttestationError("launch_policy", "no launch control policy pins what this host launches")
    if int.from_bytes(control, "little") & CONTROL_NPW:
        raise AttestationError(
            "launch_policy", "the launch control policy lets a SINIT module run that is not for production"
        )


def is_legacy(events: Sequence[TcgEvent]) -> bool:
    """Tell whether the launch used PCR 17 in the old way, of which only a digest over the policy's lists is known."""
    return any(event.type == LaunchEvent.COMBINED_HASH for event in events)


def _legacy_policy(combined: bytes, policy: bytes) -> tuple[bytes, bool]:
    """Return control word and whether lists are pinned, from tboot's event, which must repeat what SINIT combined."""
    size = len(policy)
    if size < CONTROL_BYTES or combined[-size - COMBINED_TAIL_BYTES : -COMBINED_TAIL_BYTES] != policy:
        raise AttestationError(
            "launch_policy", "tboot's event on the policy is not what SINIT combined into PCR 17"
        )
    return policy[:CONTROL_BYTES], any(policy[CONTROL_BYTES:])


def _has_mle_element(details: bytes) -> bool:
    """Tell whether the elements of a policy that matched are well-formed, and one of them is about the launched code."""
    at, found = 0, False
    while at < len(details):
        if at + _ELEMENT.size > len(details):
            return False
        size, kind, _ = _ELEMENT.unpack_from(details, at)
        if size < _ELEMENT.size or at + size > len(details):
            return False
        found |= kind == ELEMENT_MLE
        at += size
    return found


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
