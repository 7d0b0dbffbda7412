"""The order of a boot in the log: what may stand behind a separator, before it, and behind the exit from boot services.

Models: the separator of a PCR ends the platform's part in it; behind it only the kinds may follow that belong to starting
an operating system, and those kinds may not stand before it.  Behind the exit from boot services firmware has nothing
more to measure into PCR 0 to 7.

Leaves out: how many separators and exits there are (`sim.attest.firmware`, `sim.attest.survey`); proof of the order between PCRs, which no value holds: only the order within one PCR is covered by its
value, and the other is what the log says.

Sources: TCG PC Client Platform Firmware Profile 1.05, sections 2.3.4 and 3.3.4; eleven real logs, in which no other kind
stands behind a separator.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sim.attest.firmware import EXIT_DONE
from sim.attest.verdict import AttestationError
from sim.tpm.eventlog import EV, TcgEvent, event_type_name

__all__ = ["check_phases"]

FIRMWARE_PCRS: Final = range(8)
_APPLICATIONS: Final = frozenset({EV.EFI_BOOT_SERVICES_APPLICATION, EV.EFI_BOOT_SERVICES_DRIVER})
_BEHIND: Final = {
    1: frozenset({EV.EFI_VARIABLE_BOOT, EV.EFI_VARIABLE_BOOT2}),
    4: _APPLICATIONS | {EV.EFI_ACTION, EV.ACTION},
    5: frozenset({EV.EFI_GPT_EVENT, EV.EFI_ACTION}),
    7: frozenset({EV.EFI_VARIABLE_AUTHORITY}),
}
"""The kinds that may stand behind the separator of a PCR."""

_ONLY_BEHIND: Final = {4: frozenset({EV.EFI_BOOT_SERVICES_APPLICATION}), 7: _BEHIND[7]}
"""The kinds that may stand nowhere else, where the PCR has a separator."""


def check_phases(events: Iterable[TcgEvent]) -> None:
    """Demand that every event of PCR 0 to 7 stands in the phase of the boot to which its kind belongs."""
    firmware = [event for event in events if event.pcr in FIRMWARE_PCRS]
    separated = {event.pcr for event in firmware if event.type == EV.SEPARATOR}
    passed: set[int] = set()
    left = False
    for event in firmware:
        exits = event.pcr == 5 and event.type == EV.EFI_ACTION
        if event.type == EV.SEPARATOR:
            passed.add(event.pcr)
        elif left and not exits:
            raise _misplaced(event, "behind the exit from boot services")
        elif event.pcr in passed:
            if event.type not in _BEHIND.get(event.pcr, ()):
                raise _misplaced(event, "behind its separator")
        elif event.pcr in separated and event.type in _ONLY_BEHIND.get(event.pcr, ()):
            raise _misplaced(event, "before its separator")
        left |= exits and event.data.rstrip(b"\0") == EXIT_DONE


def _misplaced(event: TcgEvent, where: str) -> AttestationError:
    return AttestationError(
        "event_order", f"PCR {event.pcr} has an event of type {event_type_name(event.type)} {where}"
    )
