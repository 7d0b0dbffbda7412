"""The words in which an appraisal is given: a refusing check, a reason, a verdict.

Models: a check that refuses raises `AttestationError`; the verifier turns each into a `Reason` and all of them into
one `Verdict`.  There is no third state: evidence without a reason against it is accepted, all other is not.

Leaves out: N/A, which is not a verdict on evidence but the lack of it; a host without a TPM has no verdict at all.

Source: vSphere Web Services API, HostTpmAttestationInfo.AcceptanceStatus (accepted, notAccepted).
"""

from __future__ import annotations

from typing import Final

from attrs import field, frozen

from sim.errors import VerificationError

__all__ = ["ACCEPTED", "NOT_ACCEPTED", "AttestationError", "ClockState", "Component", "Reason", "Verdict"]

ACCEPTED: Final = "accepted"
NOT_ACCEPTED: Final = "notAccepted"

MESSAGE_REASONS_MAX: Final = 6
"""So many reasons are spelled out in the message of a verdict; the others are counted."""


class AttestationError(VerificationError):
    """A check of the verifier refused the evidence; `component` names the software it is about, if any."""

    def __init__(self, check: str, message: str, *, component: str | None = None, evidence: str = "") -> None:
        super().__init__(check, message)
        self.component = component
        self.evidence = evidence


@frozen(kw_only=True)
class Reason:
    """Why evidence was not accepted: the check's name, a line for a person, the component, the bytes it saw."""

    code: str
    message: str
    component: str | None = None
    evidence: str = ""


@frozen(kw_only=True)
class Component:
    """A measured piece of software, found in the log and known to the manifest: never a name by itself."""

    name: str
    pcr: int
    digest: bytes = field(repr=lambda value: value.hex())
    vib_name: str = ""
    vib_version: str = ""
    vib_vendor: str = ""
    level: str = ""


@frozen(kw_only=True)
class ClockState:
    """The TPM's clock and counters as they stand in a quote; they may only go forward."""

    clock: int
    reset_count: int
    restart_count: int
    safe: bool


@frozen(kw_only=True)
class Verdict:
    """What the verifier says, and everything it established on the way.

    `pcr_values` are covered by the quote's signature; `components`, `secure_boot` and `command_line` are covered by
    digests in a log that replays to those values.  When a check failed early, later findings stay empty.
    """

    status: str
    reasons: tuple[Reason, ...] = ()
    pcr_values: dict[str, dict[int, bytes]] = field(factory=dict, repr=False)
    components: tuple[Component, ...] = ()
    secure_boot: bool | None = None
    dynamic_launch: bool | None = None
    command_line: str | None = None
    replayed: bool = False
    """Whether the event log explains every quoted PCR."""
    clock: ClockState | None = None
    unknown: tuple[str, ...] = ()
    """What an accepted verdict says nothing about, for want of a reference."""

    @property
    def accepted(self) -> bool:
        """Whether the evidence was accepted."""
        return self.status == ACCEPTED

    @property
    def message(self) -> str:
        """All reasons in one line, the first few spelled out; empty when accepted."""
        texts = [reason.message for reason in self.reasons]
        shown = "; ".join(texts[:MESSAGE_REASONS_MAX])
        hidden = len(texts) - MESSAGE_REASONS_MAX
        return f"{shown}; and {hidden} more" if hidden > 0 else shown
