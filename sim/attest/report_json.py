"""Reader of a TPM attestation report in the JSON form of Intel's verification service, a host manifest.

Models: `pcr_manifest` with its PCR values per bank and its event log map; events keep their order within a PCR.

Leaves out: `host_info` and all else of the manifest, which nothing in it proves.

Source: host manifests of the open intel-secl project.
"""

from __future__ import annotations

import re
from typing import Any, Final

from sim.attest.report_common import (
    DIGEST_BYTES_MAX,
    EVENTS_MAX,
    REPORT_BYTES_MAX,
    REPORT_VALUES_MAX,
    digest_method,
    finished_report,
    short,
)
from sim.attest.tpm_report import (
    EVENT_DETAILS,
    EventDetails,
    HostTpmAttestationReport,
    TpmDigestInfo,
    TpmEventLogEntry,
)
from sim.errors import FormatError, LimitError
from sim.image.boundedjson import parse_json

__all__ = ["read_json"]

JSON: Final = "JSON attestation report"

_PCR_NAME: Final = re.compile(r"pcr_([0-9]|1[0-9]|2[0-3])")


def read_json(data: bytes) -> HostTpmAttestationReport:
    """Read a host manifest in JSON; FormatError or LimitError when it is not one."""
    manifest = _object(_object(_parse_json(data), "root").get("pcr_manifest"), "pcr_manifest")
    values = [
        _json_pcr(entry, f"{bank} {number}")
        for bank in ("sha1pcrs", "sha2pcrs")
        for number, entry in enumerate(_list(manifest.get(bank), bank))
    ]
    events: list[TpmEventLogEntry] = []
    logs = _object(manifest.get("pcr_event_log_map"), "pcr_event_log_map")
    for method in sorted(logs):
        for number, log in enumerate(_list(logs[method], method)):
            events += _json_log(log, f"event log {method} {number}")
    return finished_report(JSON, values, events)


def _parse_json(data: bytes) -> object:
    return parse_json(data, JSON, size_max=REPORT_BYTES_MAX, values_max=REPORT_VALUES_MAX)


def _json_pcr(entry: object, where: str) -> TpmDigestInfo:
    fields = _object(entry, where)
    return TpmDigestInfo(
        pcr_number=_json_pcr_number(fields, "index", where),
        digest_method=digest_method(JSON, _string(fields, "pcr_bank", where), where),
        digest_value=_hex(fields, "value", where),
    )


def _json_log(log: object, where: str) -> list[TpmEventLogEntry]:
    fields = _object(log, where)
    pcr = _json_pcr_number(fields, "pcr_index", where)
    method = digest_method(JSON, _string(fields, "pcr_bank", where), where)
    entries = _list(fields.get("event_log"), where)
    if len(entries) > EVENTS_MAX:
        raise LimitError(JSON, where, f"more than {EVENTS_MAX} events")
    return [
        TpmEventLogEntry(
            pcr_index=pcr, event_details=_json_details(entry, method, f"{where}, event {number}")
        )
        for number, entry in enumerate(entries)
    ]


_JSON_LABEL: Final = {
    "HostTpmSoftwareComponentEventDetails": "component_name",
    "HostTpmOptionEventDetails": "options_file_name",
    "HostTpmCommandEventDetails": "command_line",
    "HostTpmBootSecurityOptionEventDetails": "boot_security_option",
    "HostTpmNvTagEventDetails": "boot_security_option",
    "HostTpmSignerEventDetails": "boot_security_option",
    "HostTpmSystemVersionEventDetails": "system_version",
}
"""Which field of an event the JSON form calls its label."""

_JSON_PACKAGE: Final = {
    "PackageName": "vib_name",
    "PackageVersion": "vib_version",
    "PackageVendor": "vib_vendor",
}


def _json_details(entry: object, method: str, where: str) -> EventDetails:
    fields = _object(entry, where)
    info = _object(fields.get("info"), f"{where}, info")
    kind = f"{_string(info, 'EventType', where)}Details"
    if kind not in EVENT_DETAILS:
        raise FormatError(JSON, where, f"{short(kind)} is not a class of event details")
    values: dict[str, Any] = {"data_hash": _hex(fields, "value", where), "data_hash_method": method}
    if kind in _JSON_LABEL:
        values[_JSON_LABEL[kind]] = _string(fields, "label", where)
    if kind == "HostTpmSoftwareComponentEventDetails":
        values |= {attribute: _string(info, name, where) for name, attribute in _JSON_PACKAGE.items()}
    return EVENT_DETAILS[kind](**values)


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise FormatError(JSON, where, "expected an object")
    return value


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise FormatError(JSON, where, "expected a list")
    return value


def _string(fields: dict[str, object], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise FormatError(JSON, where, f"expected a text in {name!r}")
    if not value.isprintable():
        raise FormatError(JSON, where, f"{name!r} holds characters that cannot be printed")
    return value


def _json_pcr_number(fields: dict[str, object], name: str, where: str) -> int:
    match = _PCR_NAME.fullmatch(_string(fields, name, where))
    if match is None:
        raise FormatError(JSON, where, f"{name!r} is not pcr_0 to pcr_23")
    return int(match[1])


def _hex(fields: dict[str, object], name: str, where: str) -> bytes:
    text = _string(fields, name, where)
    if len(text) > 2 * DIGEST_BYTES_MAX or len(text) % 2 or not re.fullmatch(r"[0-9a-fA-F]*", text):
        raise FormatError(JSON, where, f"{name!r} is not a digest in hexadecimal")
    return bytes.fromhex(text)
