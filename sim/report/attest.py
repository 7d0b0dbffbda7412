"""The verdict on files from anywhere, as sections and as plain data.

Models nothing.  Leaves out any judgement: `sim.attest.offline` does that.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.attest.offline import OfflineVerdict
from sim.attest.survey import LogSurvey
from sim.core.structure import plain
from sim.report.table import Column, Section, Table

__all__ = ["verdict_plain", "verdict_sections"]


def verdict_sections(verdict: OfflineVerdict) -> Iterator[Section]:
    """Yield the verdict with its reasons, what is proven and what is not, the log, and the quoted values."""
    yield Section(
        title="Verdict",
        lines=(verdict.status, *(f"  {reason.code}: {reason.message}" for reason in verdict.reasons)),
        mood="good" if verdict.accepted else "bad",
    )
    yield Section(title="Proven", lines=verdict.proven or ("nothing",))
    if verdict.unchecked:
        yield Section(title="Not known", lines=verdict.unchecked)
    if verdict.log is not None:
        yield _log_section(verdict.log)
    for bank, values in verdict.pcr_values.items():
        rows = tuple((str(pcr), value.hex()) for pcr, value in sorted(values.items()))
        yield Section(
            title=bank, table=Table(columns=(Column("PCR", right=True), Column("value")), rows=rows)
        )


def _log_section(log: LogSurvey) -> Section:
    state = {True: "on", False: "off", None: "not told"}[log.secure_boot]
    return Section(
        title="Event log",
        lines=(
            f"{log.events} events of a machine that started {log.system}, banks {', '.join(log.banks)}",
            f"Secure Boot {state}, {log.authorities} authorities used, {len(log.applications)} EFI images started",
            f"{log.covered} events carry what was measured, {log.described} only describe it",
            f"hand-over to the operating system: {log.hand_over}; TPM started from locality {log.startup_locality}"
            + ("; dynamic launch" if log.launched else ""),
        ),
    )


def verdict_plain(verdict: OfflineVerdict) -> dict[str, object]:
    """Return the verdict as plain data for JSON."""
    return {
        "status": verdict.status,
        "reasons": [plain(reason) for reason in verdict.reasons],
        "proven": list(verdict.proven),
        "unchecked": list(verdict.unchecked),
        "pcr_values": {
            bank: {str(pcr): value.hex() for pcr, value in sorted(values.items())}
            for bank, values in verdict.pcr_values.items()
        },
        "log": plain(verdict.log),
    }
