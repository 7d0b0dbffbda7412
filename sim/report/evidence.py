"""Reports about evidence that did not come from a run of ours: event logs and hosts' attestation reports.

Models nothing.  Leaves out any judgement of what was measured: `sim.attest` does that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sim.attest.esxi_report import PcrReplay, ReportReplay
from sim.report.table import Column, Section, Table
from sim.tpm.eventlog import EventLog

__all__ = ["event_log_sections", "tpm_report_plain", "tpm_report_sections"]


def event_log_sections(log: EventLog, banks: Mapping[str, Mapping[str, str]]) -> Iterator[Section]:
    """Yield what a log leads to: a table of PCR values for each bank."""
    yield Section(title="Event log", lines=(f"{len(log.events)} events, banks {', '.join(banks)}",))
    for bank, values in banks.items():
        rows = tuple((pcr, value) for pcr, value in values.items())
        yield Section(
            title=bank, table=Table(columns=(Column("PCR", right=True), Column("value")), rows=rows)
        )


def tpm_report_sections(outcome: ReportReplay, refusal: str = "") -> Iterator[Section]:
    """Yield why the report is refused, if it is, each PCR beside what its events replay to, then everything that was set aside."""
    columns = (
        Column("PCR", right=True),
        Column("BANK"),
        Column("EVENTS", right=True),
        Column("OUTCOME"),
        Column("REPORTED"),
    )
    rows = tuple(
        (str(one.pcr), one.method, str(one.events), str(one.outcome), one.reported.hex())
        for one in outcome.pcrs
    )
    verdict = "every PCR that has events matches them"
    if outcome.mismatches:
        verdict = "the events do not lead to the reported value of PCR " + ", ".join(
            map(str, outcome.mismatches)
        )
    yield Section(
        title="TPM attestation report",
        lines=(verdict,) if outcome.mismatches or not refusal else (refusal,),
        table=Table(columns=columns, rows=rows),
        notes=outcome.oddities,
        mood="bad" if outcome.mismatches or refusal else "good",
    )


def tpm_report_plain(outcome: ReportReplay, refusal: str = "") -> dict[str, object]:
    """Return the outcome as plain data for JSON."""
    return {
        "refusal": refusal,
        "matches": list(outcome.matches),
        "mismatches": list(outcome.mismatches),
        "pcrs": [_plain_pcr(one) for one in outcome.pcrs],
        "oddities": list(outcome.oddities),
    }


def _plain_pcr(one: PcrReplay) -> dict[str, object]:
    return {
        "pcr": one.pcr,
        "bank": one.method,
        "events": one.events,
        "outcome": str(one.outcome),
        "reported": one.reported.hex(),
        "replayed": one.replayed.hex() if one.replayed is not None else None,
    }
