"""Replay of a host's TPM attestation report, to see whether its events explain its PCR values.

Models: each reported PCR is compared with the fold `pcr = H(pcr || dataHash)` over the events of that PCR in the
same bank, from zeros.  PCR 17 to 22 also start from zeros here, since an event in them means that a dynamic launch
cleared them.  The host's own word on its log (`tpmLogReliable`) is never an argument for a match.

Leaves out: signatures, as the report has none; firmware events, which hosts do not report, so PCR 0 to 7 end as
NO_EVENTS; the digest of a component against any manifest.

Sources: vSphere Web Services API, HostTpmAttestationReport (extend rule); a report of an ESXi 6.7 host with TXT,
which replays in PCR 17 to 21; TCG PC Client Platform Firmware Profile, section on replay.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Final

from attrs import field, frozen

from sim.attest.report_json import read_json
from sim.attest.report_soap import read_soap
from sim.attest.tpm_report import (
    BootSecurityOptionDetails,
    EventDetails,
    HostTpmAttestationReport,
    NvTagDetails,
    SignerDetails,
    TpmDigestInfo,
    TpmEventLogEntry,
)
from sim.attest.verdict import AttestationError
from sim.errors import FormatError

__all__ = [
    "HASH_NAMES",
    "PcrOutcome",
    "PcrReplay",
    "ReportReplay",
    "read_report",
    "replay_report",
    "verify_report",
]

HASH_NAMES: Final = {"SHA1": "sha1", "SHA256": "sha256", "SHA384": "sha384", "SHA512": "sha512"}
"""The digest methods that can be replayed, with the names that hashlib has for them."""


class PcrOutcome(StrEnum):
    """What replaying one PCR came to."""

    MATCH = "match"
    MISMATCH = "mismatch"
    NO_EVENTS = "no events"
    UNUSABLE = "unusable value"


@frozen(kw_only=True)
class PcrReplay:
    """One reported PCR beside the value that its events give (None when there is nothing to replay)."""

    pcr: int
    method: str
    outcome: PcrOutcome
    reported: bytes = field(repr=lambda value: value.hex())
    replayed: bytes | None = None
    events: int = 0


@frozen(kw_only=True)
class ReportReplay:
    """The replay of a whole report, and everything in it that was set aside."""

    pcrs: tuple[PcrReplay, ...]
    oddities: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = ()
    """Those of the oddities in which the report contradicts itself: a text its digest, a value its bank's size."""
    unreported: tuple[tuple[int, str], ...] = ()
    """PCR and bank of events that have no reported value."""

    @property
    def matches(self) -> tuple[int, ...]:
        """The PCRs whose events give the reported value."""
        return self._with(PcrOutcome.MATCH)

    @property
    def mismatches(self) -> tuple[int, ...]:
        """The PCRs whose events give another value."""
        return self._with(PcrOutcome.MISMATCH)

    def _with(self, outcome: PcrOutcome) -> tuple[int, ...]:
        return tuple(replay.pcr for replay in self.pcrs if replay.outcome is outcome)


def read_report(data: bytes) -> HostTpmAttestationReport:
    """Read a report in either form, told apart by its first character; FormatError if it is neither."""
    head = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if head == b"<":
        return read_soap(data)
    if head == b"{":
        return read_json(data)
    raise FormatError(
        "attestation report", "first byte", "expected '<' of the SOAP form or '{' of the JSON form"
    )


def replay_report(report: HostTpmAttestationReport) -> ReportReplay:
    """Replay every reported PCR, each in the bank of its own digest method."""
    usable, oddities, contradictions = _usable_events(report.tpm_events)
    replays = tuple(_replay_pcr(value, usable) for value in report.tpm_pcr_values)
    reported = {(value.pcr_number, value.digest_method) for value in report.tpm_pcr_values}
    unreported = sorted(usable.keys() - reported)
    for pcr, method in unreported:
        count = len(usable[pcr, method])
        oddities.append(f"{count} {method} event(s) of PCR {pcr} with no reported {method} value")
    for replay in replays:
        if replay.outcome is PcrOutcome.UNUSABLE:
            text = f"PCR {replay.pcr}: {len(replay.reported)} bytes cannot be a {replay.method} value"
            oddities.append(text)
            if replay.method in HASH_NAMES:
                contradictions.append(text)
    return ReportReplay(
        pcrs=replays,
        oddities=(*report.oddities, *oddities),
        contradictions=tuple(contradictions),
        unreported=tuple(unreported),
    )


def verify_report(report: HostTpmAttestationReport, required: tuple[int, ...] = ()) -> ReportReplay:
    """Return the replay of a report that explains itself, and the `required` PCRs; raise AttestationError otherwise.

    It must not contradict itself, no PCR may mismatch, and every event must have the value of its PCR and bank beside it.
    """
    if report.log_reliable is False:
        raise AttestationError("report_reliable", "the host says that its event log is not reliable")
    replay = replay_report(report)
    wrong = [pcr for pcr in replay.pcrs if pcr.outcome is PcrOutcome.MISMATCH]
    if wrong:
        names = ", ".join(f"{one.pcr} ({one.method})" for one in wrong)
        raise AttestationError(
            "report_replay",
            f"the events do not replay to the reported value of PCR {names}",
            evidence="; ".join(_evidence(one) for one in wrong),
        )
    if replay.contradictions:
        more = len(replay.contradictions) - 1
        also = f"; and {more} more" if more else ""
        raise AttestationError(
            "report_contradiction", f"the report contradicts itself: {replay.contradictions[0]}{also}"
        )
    if replay.unreported:
        names = ", ".join(f"{pcr} ({method})" for pcr, method in replay.unreported)
        raise AttestationError("report_coverage", f"events stand without the reported value of PCR {names}")
    missing = sorted(set(required) - set(replay.matches))
    if missing:
        names = ", ".join(str(pcr) for pcr in missing)
        raise AttestationError("report_coverage", f"no event explains the value of PCR {names}")
    return replay


def _evidence(replay: PcrReplay) -> str:
    replayed = replay.replayed.hex() if replay.replayed is not None else "nothing"
    return f"PCR {replay.pcr} {replay.method}: reported {replay.reported.hex()}, replayed {replayed}"


def _usable_events(
    events: tuple[TpmEventLogEntry, ...],
) -> tuple[dict[tuple[int, str], list[bytes]], list[str], list[str]]:
    """Sort the digests by PCR and bank; set those aside that no bank can hold; tell what is odd, and where a digest and its text differ."""
    usable: dict[tuple[int, str], list[bytes]] = {}
    oddities: list[str] = []
    contradictions: list[str] = []
    for number, entry in enumerate(events):
        details = entry.event_details
        problem = _length_problem(details.data_hash_method, details.data_hash)
        if problem is None:
            usable.setdefault((entry.pcr_index, details.data_hash_method), []).append(details.data_hash)
            problem = _text_problem(details)
        if problem is not None:
            oddities.append(f"event {number} (PCR {entry.pcr_index}): {problem}")
            if details.data_hash_method in HASH_NAMES:
                contradictions.append(oddities[-1])
    return usable, oddities, contradictions


def _length_problem(method: str, digest: bytes) -> str | None:
    if method not in HASH_NAMES:
        return f"digest method {method!r} cannot be replayed"
    wanted = hashlib.new(HASH_NAMES[method]).digest_size
    return None if len(digest) == wanted else f"{len(digest)} bytes cannot be a {method} digest"


def _text_problem(details: EventDetails) -> str | None:
    """Boot security options are measured as their text and a NUL, so their text can be checked."""
    if not isinstance(details, BootSecurityOptionDetails) or isinstance(
        details, (NvTagDetails, SignerDetails)
    ):
        return None
    text = details.boot_security_option
    measured = hashlib.new(HASH_NAMES[details.data_hash_method], text.encode() + b"\0").digest()
    return None if measured == details.data_hash else f"the text {text!r} is not what was measured"


def _replay_pcr(value: TpmDigestInfo, usable: dict[tuple[int, str], list[bytes]]) -> PcrReplay:
    digests = usable.get((value.pcr_number, value.digest_method), [])
    if _length_problem(value.digest_method, value.digest_value) is not None:
        outcome, replayed = PcrOutcome.UNUSABLE, None
    elif not digests:
        outcome, replayed = PcrOutcome.NO_EVENTS, None
    else:
        replayed = _fold(HASH_NAMES[value.digest_method], digests)
        outcome = PcrOutcome.MATCH if replayed == value.digest_value else PcrOutcome.MISMATCH
    return PcrReplay(
        pcr=value.pcr_number,
        method=value.digest_method,
        outcome=outcome,
        reported=value.digest_value,
        replayed=replayed,
        events=len(digests),
    )


def _fold(algorithm: str, digests: list[bytes]) -> bytes:
    value = bytes(hashlib.new(algorithm).digest_size)
    for digest in digests:
        value = hashlib.new(algorithm, value + digest).digest()
    return value
