"""What the event log of any TPM 2.0 machine proves once its PCRs are known: Linux, Windows, ESXi or firmware alone.

Models: the rule that decides what may be read at all (an event's data count only where the digest is over them, and it
is); the separators between firmware and what it starts; Secure Boot as PCR 7 tells it, in the one order that firmware
has; the boot applications by their digests; whether firmware gave up the machine.  A finding refuses; everything else is
a statement with what it rests on.

Leaves out: whether the digests are good ones (`sim.attest.software` for ESXi, a policy's list for others), and the
meaning of what a boot loader measures into PCR 8 and above, whose data no digest covers.

Sources: TCG PC Client Platform Firmware Profile 1.05, sections 2.3.4, 3.3 and 10.4; measured on eleven real logs of six
firmware makers; go-attestation, "Event log disclosure".
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from enum import StrEnum
from typing import Final

from attrs import field, frozen

from sim.attest import event_log, firmware, phases
from sim.attest.verdict import AttestationError, Reason
from sim.errors import FormatError
from sim.tpm.constants import PCR_COUNT
from sim.tpm.eventlog import EV, EventLog, TcgEvent
from sim.tpm.hashing import HASHES, bank_name, hash_bytes
from sim.tpm.tagged import EsxTag, decode_tagged

__all__ = ["BootApplication", "HandOver", "LogSurvey", "survey"]

FINDINGS_MAX: Final = 200
SECURE_BOOT_PCR: Final = 7
_APPLICATIONS: Final = frozenset(
    {EV.EFI_BOOT_SERVICES_APPLICATION, EV.EFI_BOOT_SERVICES_DRIVER, EV.EFI_RUNTIME_SERVICES_DRIVER}
)


class HandOver(StrEnum):
    """How firmware's rule over the machine ended, as PCR 5 tells it."""

    CLEAN = "clean"
    FAILED = "failed"
    UNKNOWN = "unknown"


@frozen(kw_only=True)
class BootApplication:
    """An EFI image that firmware started: where it stands in the log, and its Authenticode digests by bank."""

    event: int
    pcr: int
    digests: dict[str, str]


@frozen(kw_only=True)
class LogSurvey:
    """What a log says, none of it proven until its replay equals quoted PCRs.

    `covered` counts events whose data their digest covers, `described` those whose data are a mere description.
    `secure_boot` is None where PCR 7 holds no such statement.
    """

    events: int
    banks: tuple[str, ...]
    system: str
    covered: int
    described: int
    secure_boot: bool | None
    authorities: int
    applications: tuple[BootApplication, ...]
    hand_over: HandOver
    startup_locality: int
    launched: bool
    findings: tuple[Reason, ...] = field(repr=False)


def survey(log: EventLog, pcrs: Container[int] = range(PCR_COUNT)) -> LogSurvey:
    """Look through the events of a parsed log in `pcrs`; what contradicts the firmware profile is a finding."""
    events = tuple(event for event in event_log.extending_events(log) if event.pcr in pcrs)
    findings: list[Reason] = []
    for event in events:
        _collect(findings, firmware.check_hashed_data, event)
    _collect(findings, _check_separators, events, pcrs)
    _collect(findings, phases.check_phases, events)
    secure_boot, authorities = _secure_boot(findings, events)
    covered = sum(_is_covered(event) for event in events)
    return LogSurvey(
        events=len(events),
        banks=tuple(bank_name(bank) for bank in log.banks),
        system=_system(events),
        covered=covered,
        described=len(events) - covered,
        secure_boot=secure_boot,
        authorities=authorities,
        applications=tuple(_applications(events)),
        hand_over=_hand_over(findings, events),
        startup_locality=event_log.startup_locality(log),
        launched=any(event.pcr in event_log.LAUNCH_PCRS for event in events),
        findings=tuple(findings[:FINDINGS_MAX]),
    )


def _collect(findings: list[Reason], check: Callable[..., object], *args: object) -> None:
    try:
        check(*args)
    except AttestationError as error:
        findings.append(Reason(code=error.check, message=error.message, evidence=error.evidence))


def _check_separators(events: Sequence[TcgEvent], pcrs: Container[int]) -> None:
    """Demand at most one separator in each of PCR 0 to 7, in PCR 0 to 6 either in all or in none, and without an error.

    The separator of PCR 7 is apart, since firmware measures it with the variables of Secure Boot.
    """
    counts = {pcr: 0 for pcr in firmware.SEPARATOR_PCRS if pcr in pcrs}
    for event in events:
        if event.type == EV.SEPARATOR and event.pcr in counts:
            counts[event.pcr] += 1
            if event.data not in _SEPARATORS:
                raise AttestationError(
                    "separator",
                    f"the separator of PCR {event.pcr} reports a firmware error",
                    evidence=event.data[:16].hex(),
                )
    for pcr, count in counts.items():
        if count > 1:
            raise AttestationError("separator", f"PCR {pcr} has {count} separators where one may be")
    boot = {pcr: count for pcr, count in counts.items() if pcr != SECURE_BOOT_PCR}
    missing = [pcr for pcr, count in boot.items() if not count]
    if missing and len(missing) < len(boot):
        raise AttestationError("separator", f"PCR {missing[0]} has no separator, though others have")


_SEPARATORS: Final = frozenset({bytes(4), b"\xff\xff\xff\xff"})
"""What the profile gives for a firmware without errors: zeros, or ones in older revisions."""


def _secure_boot(findings: list[Reason], events: Sequence[TcgEvent]) -> tuple[bool | None, int]:
    """Return the Secure Boot state and how many authorities were used, from a PCR 7 that is in order."""
    if not any(event.pcr == SECURE_BOOT_PCR for event in events):
        return None, 0
    try:
        variables, authorities = firmware.check_pcr7_order(events)
        state = firmware.secure_boot_state(variables)
    except AttestationError as error:
        findings.append(Reason(code=error.check, message=error.message, evidence=error.evidence))
        return None, 0
    return state, len(authorities)


def _is_covered(event: TcgEvent) -> bool:
    return any(
        algorithm in HASHES and hash_bytes(algorithm, event.data) == digest
        for algorithm, digest in event.digests.items()
    )


def _applications(events: Sequence[TcgEvent]) -> list[BootApplication]:
    return [
        BootApplication(
            event=number,
            pcr=event.pcr,
            digests={bank_name(bank): digest.hex() for bank, digest in event.digests.items()},
        )
        for number, event in enumerate(events)
        if event.type in _APPLICATIONS
    ]


def _hand_over(findings: list[Reason], events: Sequence[TcgEvent]) -> HandOver:
    """Tell whether the exit from boot services stands in PCR 5; a pair in the wrong order is a finding."""
    actions = [event.data.rstrip(b"\0") for event in events if event.pcr == 5 and event.type == EV.EFI_ACTION]
    started, done = actions.count(firmware.EXIT_STARTED), actions.count(firmware.EXIT_DONE)
    if not started and not done:
        return HandOver.UNKNOWN
    if done > 1 or (done and (not started or actions[-1] != firmware.EXIT_DONE)):
        findings.append(
            Reason(code="exit_boot_services", message="the exit from boot services stands in a wrong place")
        )
    return HandOver.CLEAN if done else HandOver.FAILED


def _system(events: Sequence[TcgEvent]) -> str:
    """Return what was started, by the events that only it writes; a name and no more."""
    if any(_is_esxi(event) for event in events):
        return "esxi"
    if any(event.pcr in {8, 9} and event.type == EV.IPL for event in events):
        return "linux"
    if any(event.pcr in {11, 12, 13} and event.type == EV.EVENT_TAG for event in events):
        return "windows"
    return "unknown"


def _is_esxi(event: TcgEvent) -> bool:
    if event.type != EV.EVENT_TAG or event.pcr not in {*range(11, 15), *event_log.LAUNCH_PCRS}:
        return False
    try:
        tagged = decode_tagged(event.data)
    except FormatError:
        return False
    return tagged.id in _ESX_TAGS and (tagged.id != EsxTag.MOD or tagged.content.endswith(b"\0"))


_ESX_TAGS: Final = frozenset(EsxTag)
