"""The event log against the quoted PCRs: a log counts only if it explains every value that the TPM attests.

Models: replay of the whole log in every quoted bank, with the start values of TPM 2.0 (zeros; PCR 0 from the startup
locality; PCR 17 to 22 ones, and zeros after a dynamic launch).  Each PCR is judged by itself, so that a mismatch
names it.  A value that no event explains is a mismatch, never a pass.

Leaves out: what the events mean (`sim.attest.firmware`, `sim.attest.software`).

Sources: TCG PC Client Platform Firmware Profile 1.05, sections 10.2 and 10.4.5.3 (StartupLocality); TPM 2.0 start
values and the effect of a hash sequence as measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sim.attest.verdict import AttestationError
from sim.errors import FormatError
from sim.tpm.constants import HASH_BYTES, PCR_COUNT
from sim.tpm.eventlog import EV, EventLog, TcgEvent, parse, replay
from sim.tpm.hashing import HASHES, bank_name

__all__ = [
    "check_banks",
    "check_covered",
    "check_dynamic_launch",
    "check_extended",
    "check_golden_value",
    "check_not_truncated",
    "check_pcr_replay",
    "check_startup_locality",
    "extending_events",
    "read_event_log",
    "replay_all",
    "startup_locality",
]

LAUNCH_PCRS: Final = range(17, 23)
STARTUP_LOCALITY: Final = b"StartupLocality\0"


def check_not_truncated(*, truncated: bool) -> None:
    """Demand a log that its own writer holds to be complete; that it is, only the replay can tell."""
    if truncated:
        raise AttestationError("log_truncated", "the boot loader says that its event log is not complete")


def read_event_log(data: bytes) -> EventLog:
    """Read the log; AttestationError when it is not one, or empty."""
    try:
        log = parse(data, every_bank=True)
    except FormatError as error:
        raise AttestationError("event_log", f"the event log cannot be read: {error}") from error
    if not log.events:
        raise AttestationError("event_log", "the event log has no events")
    return log


def extending_events(log: EventLog) -> tuple[TcgEvent, ...]:
    """Return the events that extend a PCR: all but EV_NO_ACTION."""
    return tuple(event for event in log.events if event.type != EV.NO_ACTION)


def check_banks(log: EventLog, algorithms: Sequence[int]) -> None:
    """Demand that the log has every quoted bank, each of a hash that can be replayed, and every event a digest for it.

    A log may name a bank for which no event has a digest, and one without an event that extends has none at all.
    """
    for algorithm in algorithms:
        if algorithm not in log.banks or algorithm not in HASHES:
            which = " that can be replayed" if algorithm in log.banks else ""
            raise AttestationError(
                "log_banks",
                f"the event log has no {bank_name(algorithm)} digests{which}, and the quote covers that bank",
                evidence=f"banks of the log: {', '.join(map(bank_name, log.banks))}",
            )
    for number, event in enumerate(extending_events(log)):
        missing = [bank_name(algorithm) for algorithm in algorithms if algorithm not in event.digests]
        if missing:
            raise AttestationError(
                "log_banks",
                f"the event log has no {missing[0]} digests, and the quote covers that bank",
                evidence=f"event {number}, PCR {event.pcr}",
            )


def startup_locality(log: EventLog) -> int:
    """Return where PCR 0 started from, as the log says: 4 after an H-CRTM; the replay of PCR 0 proves it."""
    for event in log.events:
        if event.pcr != 0:
            continue
        if event.type == EV.EFI_HCRTM_EVENT:
            return 4
        if event.type == EV.NO_ACTION and event.data.startswith(STARTUP_LOCALITY):
            return event.data[-1]
    return 0


def replay_all(log: EventLog, *, launched: bool) -> dict[int, dict[int, bytes]]:
    """Return {algorithm: value of all 24 PCRs} after the log; PCRs without an event keep their start value."""
    values = replay(log, launched=launched)
    for algorithm, pcrs in values.items():
        for pcr in range(PCR_COUNT):
            ones = pcr in LAUNCH_PCRS and not launched
            pcrs.setdefault(pcr, (b"\xff" if ones else b"\0") * HASH_BYTES[algorithm])
    return values


def check_pcr_replay(bank: str, pcr: int, quoted: bytes, replayed: bytes, *, events: int) -> None:
    """Demand that the log gives the quoted value of one PCR."""
    if quoted == replayed:
        return
    cause = "does not replay to" if events else "has no event for"
    raise AttestationError(
        "replay",
        f"the event log {cause} PCR {pcr} of the {bank} bank",
        evidence=f"quoted {quoted.hex()}, replayed {replayed.hex()} from {events} event(s)",
    )


def check_covered(event: TcgEvent, quoted: Mapping[str, Mapping[int, bytes]]) -> None:
    """Demand that the PCR of an event is quoted in every bank: otherwise nothing proves the event."""
    for bank, values in quoted.items():
        if event.pcr not in values:
            raise AttestationError(
                "event_uncovered",
                f"the event log extends PCR {event.pcr}, which the quote does not cover ({bank})",
            )


def check_extended(events: Iterable[TcgEvent], required: Iterable[int]) -> None:
    """Demand that each required PCR is extended by the log: one left at its start value is free to be filled."""
    extended = {event.pcr for event in events}
    for pcr in required:
        if pcr not in extended:
            raise AttestationError("pcr_unused", f"nothing was measured into PCR {pcr}")


def check_dynamic_launch(
    values: Mapping[str, Mapping[int, bytes]], *, launched: bool, required: bool, forbidden: bool
) -> None:
    """Demand that PCR 17 to 22 tell of a launch exactly if the log does, and what the policy wants of it."""
    for bank, pcrs in values.items():
        for pcr in LAUNCH_PCRS:
            value = pcrs.get(pcr)
            if value is None:
                continue
            untouched = value == b"\xff" * len(value)
            if launched and untouched:
                raise AttestationError(
                    "launch", f"the event log tells of a dynamic launch that PCR {pcr} ({bank}) never saw"
                )
            if not launched and not untouched:
                raise AttestationError(
                    "launch",
                    f"PCR {pcr} ({bank}) was cleared by a dynamic launch that the event log does not have",
                )
    if required and not launched:
        raise AttestationError(
            "launch", "the host was booted without the dynamic launch that the policy requires"
        )
    if forbidden and launched:
        raise AttestationError("launch", "the host was booted with a dynamic launch that the policy forbids")


def check_startup_locality(found: int, wanted: int | None) -> None:
    """Demand the startup locality of the policy; the replay of PCR 0 proves the one in the log."""
    if wanted is not None and found != wanted:
        raise AttestationError(
            "startup_locality", f"the TPM was started from locality {found} instead of {wanted}"
        )


def check_golden_value(bank: str, pcr: int, value: bytes, golden: tuple[bytes, ...]) -> None:
    """Demand that a PCR has one of its golden values."""
    if value not in golden:
        raise AttestationError(
            "reference_pcr",
            f"PCR {pcr} of the {bank} bank differs from its reference value",
            evidence=value.hex(),
        )
