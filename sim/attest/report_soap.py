"""Reader of a TPM attestation report in its SOAP form, the answer of QueryTpmAttestationReport.

Models: the answer bare or in a SOAP envelope, namespaces and `xsi:type` as they come, digests as lists of signed
bytes.  What is unusual but harmless (an unknown field) is noted among the report's oddities; what is malformed is
refused.

Leaves out: faults as answers, and every other method of the API.

Source: vSphere Web Services API (vim25).
"""

from __future__ import annotations

import re
from typing import Any, Final

from sim.attest.report_common import (
    DIGEST_BYTES_MAX,
    PCR_COUNT,
    digest_method,
    finished_report,
    short,
)
from sim.attest.tpm_report import (
    EVENT_DETAILS,
    HostTpmAttestationReport,
    TpmDigestInfo,
    TpmEventLogEntry,
    wire_fields,
)
from sim.errors import FormatError, LimitError
from sim.image.boundedxml import Node, parse_xml

__all__ = ["read_soap"]

SOAP: Final = "SOAP attestation report"
OPTION_BYTES_MAX: Final = 64 * 1024
"""The longest boot option file or version record that a report may carry."""


def read_soap(data: bytes) -> HostTpmAttestationReport:
    """Read the XML answer of QueryTpmAttestationReport; FormatError or LimitError when it is not one."""
    returnval = _find_returnval(parse_xml(data, SOAP))
    oddities: list[str] = []
    values: list[TpmDigestInfo] = []
    events: list[TpmEventLogEntry] = []
    reliable: bool | None = None
    for child in returnval.children:
        match _local(child.tag):
            case "tpmPcrValues":
                values.append(_soap_pcr(child, f"tpmPcrValues {len(values)}"))
            case "tpmEvents":
                events.append(_soap_event(child, len(events), oddities))
            case "tpmLogReliable":
                reliable = _soap_bool(child)
            case other:
                oddities.append(f"unknown field {short(other)} in the report")
    return finished_report(SOAP, values, events, reliable=reliable, oddities=tuple(oddities))


def _find_returnval(root: Node) -> Node:
    """Find QueryTpmAttestationReportResponse / returnval, with or without Envelope / Body around it."""
    response = root
    if _local(root.tag) == "Envelope":
        response = _only(_only(root, "Body"), "QueryTpmAttestationReportResponse")
    if _local(response.tag) != "QueryTpmAttestationReportResponse":
        raise FormatError(SOAP, "root", "expected QueryTpmAttestationReportResponse")
    return _only(response, "returnval")


def _soap_pcr(element: Node, where: str) -> TpmDigestInfo:
    return TpmDigestInfo(
        pcr_number=_pcr_number(_text(_only(element, "pcrNumber"), where), where),
        digest_method=digest_method(SOAP, _text(_only(element, "digestMethod"), where), where),
        digest_value=_signed_bytes(element, "digestValue", where),
        object_name=_optional_text(element, "objectName", where),
    )


def _soap_event(element: Node, number: int, oddities: list[str]) -> TpmEventLogEntry:
    where = f"tpmEvents {number}"
    details = _only(element, "eventDetails")
    kinds = [value for key, value in details.attributes.items() if _local(key) == "type"]
    kind = kinds[0].rpartition(":")[2] if len(kinds) == 1 else ""
    if kind not in EVENT_DETAILS:
        raise FormatError(SOAP, where, f"{short(kind)} is not a class of event details")
    cls = EVENT_DETAILS[kind]
    wanted = wire_fields(cls)
    values: dict[str, Any] = {}
    for name, (attribute, type_) in wanted.items():
        values[attribute] = (
            _signed_bytes(details, name, where, limit=OPTION_BYTES_MAX)
            if type_ is bytes
            else _optional_text(details, name, where)
        )
    known = {*wanted, "dataHash", "dataHashMethod"}
    unknown = sorted({_local(child.tag) for child in details.children} - known)
    oddities.extend(f"event {number}: unknown field {short(name)}" for name in unknown)
    return TpmEventLogEntry(
        pcr_index=_pcr_number(_text(_only(element, "pcrIndex"), where), where),
        event_details=cls(
            data_hash=_signed_bytes(details, "dataHash", where),
            data_hash_method=digest_method(
                SOAP, _optional_text(details, "dataHashMethod", where) or "SHA1", where
            ),
            **values,
        ),
    )


def _signed_bytes(element: Node, name: str, where: str, limit: int = DIGEST_BYTES_MAX) -> bytes:
    children = [child for child in element.children if _local(child.tag) == name]
    if len(children) > limit:
        raise LimitError(SOAP, where, f"more than {limit} bytes of {name}")
    return bytes(_signed_byte(_text(child, where), where) for child in children)


def _signed_byte(text: str, where: str) -> int:
    if not re.fullmatch(r"-?(0|[1-9][0-9]{0,2})", text) or not -128 <= int(text) <= 127:
        raise FormatError(SOAP, where, f"{short(text)} is not a signed byte")
    return int(text) & 0xFF


def _soap_bool(element: Node) -> bool:
    text = _text(element, "tpmLogReliable")
    if text not in {"true", "false", "1", "0"}:
        raise FormatError(SOAP, "tpmLogReliable", f"{short(text)} is not a boolean")
    return text in {"true", "1"}


def _only(element: Node, name: str) -> Node:
    found = [child for child in element.children if _local(child.tag) == name]
    if len(found) != 1:
        raise FormatError(SOAP, _local(element.tag), f"expected one {name}, found {len(found)}")
    return found[0]


def _optional_text(element: Node, name: str, where: str) -> str:
    found = [child for child in element.children if _local(child.tag) == name]
    if len(found) > 1:
        raise FormatError(SOAP, where, f"{len(found)} fields {name}")
    return _text(found[0], where) if found else ""


def _text(element: Node, where: str) -> str:
    if element.children:
        raise FormatError(SOAP, where, f"{_local(element.tag)} holds elements where text is expected")
    return element.text.strip()


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _pcr_number(text: str, where: str) -> int:
    if not re.fullmatch(r"[0-9]{1,2}", text) or int(text) >= PCR_COUNT:
        raise FormatError(SOAP, where, f"{short(text)} is not the number of a PCR")
    return int(text)
