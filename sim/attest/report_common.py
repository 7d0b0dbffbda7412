"""What the readers of attestation reports share: limits, digest methods, the last checks of a whole report.

Models: one set of limits for both forms of a report, so that neither lets in what the other refuses.

Leaves out: the forms themselves, see `report_soap` and `report_json`.

Source: vSphere Web Services API, HostDigestInfo.DigestMethodType; the limits are ours.
"""

from __future__ import annotations

import re
from typing import Final

from sim.attest.tpm_report import HostTpmAttestationReport, TpmDigestInfo, TpmEventLogEntry
from sim.errors import FormatError, LimitError

__all__ = [
    "DIGEST_BYTES_MAX",
    "EVENTS_MAX",
    "PCR_COUNT",
    "REPORT_BYTES_MAX",
    "digest_method",
    "finished_report",
    "short",
]

REPORT_BYTES_MAX: Final = 8 * 1024 * 1024
EVENTS_MAX: Final = 10_000
REPORT_VALUES_MAX: Final = 40 * EVENTS_MAX
PCR_VALUES_MAX: Final = 24 * 8
DIGEST_BYTES_MAX: Final = 64
PCR_COUNT: Final = 24

_METHOD: Final = re.compile(r"[A-Z0-9_]{3,10}")


def short(text: str) -> str:
    """Return untrusted text as it may stand in a message: quoted and cut."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def digest_method(form: str, text: str, where: str) -> str:
    """Return `text` if it may name a digest method; which of them can be replayed is decided elsewhere."""
    if not _METHOD.fullmatch(text):
        raise FormatError(form, where, f"{short(text)} is not a digest method")
    return text


def finished_report(
    form: str,
    values: list[TpmDigestInfo],
    events: list[TpmEventLogEntry],
    *,
    reliable: bool | None = None,
    oddities: tuple[str, ...] = (),
) -> HostTpmAttestationReport:
    """Put a report together; LimitError when it is too long, FormatError when a PCR stands in it twice."""
    if len(values) > PCR_VALUES_MAX or len(events) > EVENTS_MAX:
        raise LimitError(form, "", "too many PCR values or events")
    names = [(value.pcr_number, value.digest_method) for value in values]
    for name in names:
        if names.count(name) > 1:
            raise FormatError(form, "", f"PCR {name[0]} is reported twice for {name[1]}")
    return HostTpmAttestationReport(
        tpm_pcr_values=tuple(values), tpm_events=tuple(events), log_reliable=reliable, oddities=oddities
    )
