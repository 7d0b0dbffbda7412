"""What policy engines hold against the way from firmware to the boot loader: who was let in, and what it was.

Models: the EFI applications of PCR 4 against a list of published loaders; the certificates by which Secure Boot let
them in (PCR 7) against those of trusted signers, so that a key that somebody enrolled in `db` is named.

Leaves out: applications let in by their digest alone, which are refused here; firmware code.

Sources: TCG PC Client Platform Firmware Profile 1.06, chapters 3.3.4 and 10.4 (PCR 4, PCR 7, authorities); UEFI 2.10,
chapter 32.4.1 (EFI_SIGNATURE_DATA: the owner, then the certificate).
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.attest import event_log, firmware
from sim.attest.engines.case import ALGORITHM, Case, Finding
from sim.attest.uefi import read_variable
from sim.attest.verdict import AttestationError
from sim.image.manifest import ReferenceManifest
from sim.tpm.eventlog import EV, TcgEvent

__all__ = ["about_authorities", "about_loaders"]

OWNER_BYTES = 16


def about_loaders(case: Case, allowed: ReferenceManifest) -> Iterator[Finding]:
    """Yield a finding unless every EFI application was listed; FormatError when the log cannot be read."""
    known = frozenset(digest for loader in allowed.loaders for digest in loader.digests)
    try:
        firmware.check_boot_loaders(_events(case), ALGORITHM, known)
    except AttestationError as error:
        yield Finding(
            rule="loader", message=error.message, component=error.component, evidence=error.evidence
        )


def about_authorities(case: Case, signers: tuple[bytes, ...]) -> Iterator[Finding]:
    """Yield a finding for each authority that is not one of `signers` (DER), and one when there was no authority."""
    authorities = [
        event for event in _events(case) if event.pcr == 7 and event.type == EV.EFI_VARIABLE_AUTHORITY
    ]
    if not authorities:
        yield Finding(rule="authority", message="nobody vouched for a boot loader")
    for event in authorities:
        variable = read_variable(event.data)
        if variable.content[OWNER_BYTES:] not in signers:
            yield Finding(
                rule="authority",
                message="a boot loader was let in by a key that is not trusted",
                component="boot loader",
                evidence=f"{variable.name[:40]} entry {variable.content[:64].hex()}",
            )


def _events(case: Case) -> tuple[TcgEvent, ...]:
    return tuple(event_log.extending_events(event_log.read_event_log(case.evidence.event_log)))
