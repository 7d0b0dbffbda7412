"""What a policy engine is given and what it gives back: the protocol of third parties.

Models: a case, which is the evidence as it travelled, what the verifier established of it, and the image database that
the host offers as its inventory; a decision with its findings; and the reading of a log that the verifier has replayed.
An engine decides about one case at a time; it sees nothing of the machine.

Leaves out: what follows from a decision (`sim.vsphere.engagement`), and when an engine is asked.

Sources: VMware's vSphere Security guide (third parties use the TPM's measurements for policy-based protection against
corruption, tampering, and unexpected or unauthorized updates).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Protocol

from attrs import field, frozen

from sim.attest import esx_events, event_log
from sim.attest.esx_events import Measurement
from sim.attest.evidence import Evidence
from sim.attest.verdict import AttestationError, Verdict
from sim.errors import FormatError, LimitError
from sim.tpm.constants import TPM_ALG
from sim.tpm.tagged import EsxTag

__all__ = [
    "ALGORITHM",
    "Case",
    "Decision",
    "Finding",
    "PolicyEngine",
    "decision",
    "measured_files",
    "unproven",
]

ALGORITHM: Final = TPM_ALG.SHA256
"""The bank whose digests engines look at."""

IMAGE_DATABASE_BYTES_MAX: Final = 64 << 20
"""The longest image database that is read."""

FINDINGS_MAX: Final = 1_000
"""So many findings a decision lists; the first of them are the ones that count."""


@frozen(kw_only=True)
class Case:
    """One host's evidence, the verifier's verdict on it, and the imgdb.tgz that the host offers (empty: none).

    `now` is the calendar time of the appraisal; None where nobody knows it.
    """

    host: str
    evidence: Evidence
    verdict: Verdict
    image_database: bytes = field(default=b"", repr=False)
    now: datetime | None = None

    def __attrs_post_init__(self) -> None:
        if len(self.image_database) > IMAGE_DATABASE_BYTES_MAX:
            raise LimitError("image database", "", f"more than {IMAGE_DATABASE_BYTES_MAX} bytes")


@frozen(kw_only=True)
class Finding:
    """One thing that an engine holds against a host: the rule, a line for a person, what it is about, what was seen."""

    rule: str
    message: str
    component: str | None = None
    evidence: str = ""


@frozen(kw_only=True)
class Decision:
    """What an engine says of one host: it is trusted exactly if there is no finding."""

    engine: str
    findings: tuple[Finding, ...] = ()

    @property
    def trusted(self) -> bool:
        """Whether the engine trusts the host."""
        return not self.findings

    @property
    def message(self) -> str:
        """The findings in one line; empty when there is none."""
        return "; ".join(finding.message for finding in self.findings[:6])


class PolicyEngine(Protocol):
    """What a third party has to offer: a name, and a decision about each case.

    `decide` may be called often and in any order; it raises nothing on hostile bytes, and what it cannot prove it
    answers with a finding.
    """

    @property
    def name(self) -> str:
        """A short name for events and reports."""
        ...

    def decide(self, case: Case) -> Decision:
        """Decide about one host."""
        ...


def decision(engine: str, findings: list[Finding]) -> Decision:
    """Return the decision of an engine from its findings."""
    return Decision(engine=engine, findings=tuple(findings[:FINDINGS_MAX]))


def unproven(case: Case) -> Finding | None:
    """Return a finding unless the verifier has proven quote and log: no engine may read what is not proven."""
    if case.verdict.replayed:
        return None
    return Finding(
        rule="unproven",
        message="the measurements are not proven by a quote of a known TPM",
        evidence=case.verdict.message[:200],
    )


def measured_files(case: Case) -> tuple[Measurement, ...]:
    """Return the measured modules and option files, in order; AttestationError or FormatError if the log is no ESXi's."""
    log = event_log.read_event_log(case.evidence.event_log)
    measurements = esx_events.read_measurements(event_log.extending_events(log))
    files = tuple(one for one in measurements if one.tag in {EsxTag.MOD, EsxTag.BOOT_OPT})
    if not files:
        raise AttestationError("no_modules", "the event log names no boot module")
    return files


def unreadable(error: AttestationError | FormatError) -> Finding:
    """Return the finding about a log or an inventory that cannot be read."""
    return Finding(rule="unreadable", message=f"what the host sent cannot be read: {error}")
