"""The platform itself: firmware code and Secure Boot keys, against what a maker publishes of one of its models.

Models: which events are about code of the firmware; each must have a digest that the maker gives for that PCR, and each
code that a boot must measure must be there; PK, KEK and db may hold only published entries, dbx must hold all of them.
One model must explain everything; the one with the fewest problems is named.

Leaves out: settings and tables, whose digests differ from host to host (golden values judge them); code that firmware
runs and does not measure; names, since the data of these events only describe what was measured.

Sources: TCG PC Client Platform Firmware Profile 1.05, section 3.3.4 (what PCR 0 to 2 take); TCG PC Client Reference
Integrity Manifest Specification 1.04.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sim.attest.firmware import PLATFORM_CODE
from sim.attest.verdict import AttestationError
from sim.image.efi_lists import ListEntry
from sim.image.platform import ReferencePlatform
from sim.tpm.eventlog import EV, TcgEvent

__all__ = ["CODE_TYPES", "platform_problems"]

CODE_TYPES: Final = {
    0: PLATFORM_CODE | {EV.S_CRTM_CONTENTS, EV.S_CRTM_VERSION, EV.EFI_HCRTM_EVENT},
    1: frozenset({EV.CPU_MICROCODE}),
    2: PLATFORM_CODE,
}
"""The event types that are about code of the firmware, by PCR."""

_KEYS: Final = {"PK": "platform_keys", "KEK": "exchange_keys", "db": "allowed"}

Entries = Mapping[str, Sequence[ListEntry]]


def platform_problems(
    events: Sequence[TcgEvent], entries: Entries, algorithm: int, platforms: Sequence[ReferencePlatform]
) -> tuple[AttestationError, ...]:
    """Return why no published model explains these events and the entries of PK, KEK, db and dbx; empty if one does.

    `entries` is empty where Secure Boot was off, so that its keys decided nothing.
    """
    return min((_problems(events, entries, algorithm, one) for one in platforms), key=len, default=())


def _problems(
    events: Sequence[TcgEvent], entries: Entries, algorithm: int, platform: ReferencePlatform
) -> tuple[AttestationError, ...]:
    measured = [
        (event.pcr, event.digests.get(algorithm, b""))
        for event in events
        if event.type in CODE_TYPES.get(event.pcr, ())
    ]
    published = {(one.pcr, digest) for one in platform.code for digest in one.digests}
    problems = [
        AttestationError(
            "firmware_code",
            f"firmware code in PCR {pcr} is not as the maker of {platform.model} published it",
            component="firmware",
            evidence=f"digest {digest.hex()}",
        )
        for pcr, digest in measured
        if (pcr, digest) not in published
    ]
    problems += [
        AttestationError(
            "firmware_missing",
            f"the firmware code {one.name} of {platform.model} was not measured into PCR {one.pcr}",
            component=one.name,
        )
        for one in platform.code
        if one.required and not any((one.pcr, digest) in measured for digest in one.digests)
    ]
    return (*problems, *_key_problems(entries, platform))


def _key_problems(entries: Entries, platform: ReferencePlatform) -> list[AttestationError]:
    if not entries:
        return []
    problems = [
        AttestationError(
            "secure_boot_keys",
            f"the Secure Boot variable {variable} holds an entry that the maker of {platform.model} did not publish",
            component=variable,
            evidence=f"{entry.kind} of {len(entry.data)} bytes",
        )
        for variable, field in _KEYS.items()
        for entry in entries[variable]
        if entry.data not in getattr(platform, field)
    ]
    held = {entry.data for entry in entries["dbx"]}
    missing = sum(one not in held for one in platform.forbidden)
    if missing:
        problems.append(
            AttestationError(
                "secure_boot_keys",
                f"the Secure Boot variable dbx lacks {missing} of the entries that the maker of {platform.model} published",
                component="dbx",
            )
        )
    return problems
