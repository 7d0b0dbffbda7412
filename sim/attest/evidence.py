"""The evidence of a host: exactly what travels on the wire, and nothing that was looked up inside the machine.

Models: one frozen bundle of bytes (endorsement key and its certificate, attestation key, the credential made for both
and the secret in it as the host sent it back, quote, signature, PCR values, event log) and its canonical JSON form.  Reading checks shapes and sizes; what the bytes mean is the verifier's business.

Leaves out: the transport, sessions and faults of the management API.

Sources: TPM 2.0 Library 1.59, part 2 (TPM2B_PUBLIC, TPMS_ID_OBJECT, TPMU_ENCRYPTED_SECRET, TPMS_ATTEST and
TPMT_SIGNATURE are carried as they are); the JSON form is this project's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from attrs import field, frozen

from sim.errors import FormatError, LimitError
from sim.image.boundedjson import parse_json

__all__ = [
    "BANK_SIZES",
    "BUNDLE_BYTES_MAX",
    "EVENT_LOG_BYTES_MAX",
    "Evidence",
    "evidence_from_json",
    "evidence_to_json",
]

BANK_SIZES: Final = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
"""The PCR banks that evidence may hold, with the size of their values."""

PCR_COUNT: Final = 24
SMALL_BYTES_MAX: Final = 8192
"""The longest key, certificate, credential, quote or signature."""

EVENT_LOG_BYTES_MAX: Final = 4 * 1024 * 1024
BUNDLE_BYTES_MAX: Final = 2 * EVENT_LOG_BYTES_MAX + 1024 * 1024
BUNDLE_VALUES_MAX: Final = 4096

_WHAT: Final = "evidence"
_SMALL: Final = (
    "ek_public",
    "ek_certificate_der",
    "ak_public",
    "credential_blob",
    "encrypted_secret",
    "activated_secret",
    "attest",
    "signature",
)
_FIELDS: Final = (*_SMALL, "pcr_values", "event_log", "log_truncated")

PcrValues = Mapping[str, Mapping[int, bytes]]


def _copy(values: PcrValues) -> dict[str, dict[int, bytes]]:
    return {bank: dict(values[bank]) for bank in values}


@frozen(kw_only=True)
class Evidence:
    """All that a verifier is given; every field is untrusted until the verdict."""

    ek_public: bytes = field(repr=False)
    """TPM2B_PUBLIC of the endorsement key."""
    ek_certificate_der: bytes = field(repr=False)
    """The certificate of that key; empty when the TPM holds none."""
    ak_public: bytes = field(repr=False)
    """TPM2B_PUBLIC of the attestation key."""
    credential_blob: bytes = field(repr=False)
    """TPMS_ID_OBJECT, the credential as it was sent to the host."""
    encrypted_secret: bytes = field(repr=False)
    """TPMU_ENCRYPTED_SECRET, the seed of that credential as it was sent."""
    activated_secret: bytes = field(repr=False)
    """What the host says was in the credential."""
    attest: bytes = field(repr=False)
    """TPMS_ATTEST, the signed statement of the TPM."""
    signature: bytes = field(repr=False)
    """TPMT_SIGNATURE over `attest`."""
    pcr_values: PcrValues = field(repr=False, converter=_copy)
    """{bank: {PCR: value}} as read from the TPM: {"sha256": {0: b"..."}}."""
    event_log: bytes = field(repr=False)
    """The TCG event log of the boot."""
    log_truncated: bool = False
    """The boot loader's own word that the log is incomplete."""


def check_sizes(evidence: Evidence) -> None:
    """Raise LimitError or FormatError unless every part has a size that a verifier is willing to read."""
    for name in _SMALL:
        if len(getattr(evidence, name)) > SMALL_BYTES_MAX:
            raise LimitError(_WHAT, name, f"more than {SMALL_BYTES_MAX} bytes")
    if len(evidence.event_log) > EVENT_LOG_BYTES_MAX:
        raise LimitError(_WHAT, "event_log", f"more than {EVENT_LOG_BYTES_MAX} bytes")
    for bank, values in evidence.pcr_values.items():
        if bank not in BANK_SIZES:
            raise FormatError(_WHAT, "pcr_values", f"{bank[:20]!r} is not a known bank")
        for pcr, value in values.items():
            if not 0 <= pcr < PCR_COUNT or len(value) != BANK_SIZES[bank]:
                raise FormatError(
                    _WHAT, f"pcr_values, {bank}", f"PCR {pcr} with {len(value)} bytes cannot be"
                )


def evidence_to_json(evidence: Evidence) -> bytes:
    """Return the one JSON form of this evidence: sorted keys, no white space, bytes in lower-case hexadecimal."""
    plain: dict[str, object] = {name: getattr(evidence, name).hex() for name in (*_SMALL, "event_log")}
    plain["log_truncated"] = evidence.log_truncated
    plain["pcr_values"] = {
        bank: {f"{pcr:02d}": value.hex() for pcr, value in values.items()}
        for bank, values in evidence.pcr_values.items()
    }
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def evidence_from_json(data: bytes) -> Evidence:
    """Read evidence from JSON; FormatError or LimitError unless it is exactly what `evidence_to_json` writes."""
    plain = parse_json(data, _WHAT, size_max=BUNDLE_BYTES_MAX, values_max=BUNDLE_VALUES_MAX)
    if not isinstance(plain, dict) or set(plain) != set(_FIELDS):
        raise FormatError(_WHAT, "", f"expected an object with the fields {', '.join(_FIELDS)}")
    if not isinstance(plain["log_truncated"], bool):
        raise FormatError(_WHAT, "log_truncated", "expected true or false")
    evidence = Evidence(
        **{name: _unhex(plain[name], name) for name in (*_SMALL, "event_log")},
        pcr_values=_read_pcr_values(plain["pcr_values"]),
        log_truncated=plain["log_truncated"],
    )
    check_sizes(evidence)
    if evidence_to_json(evidence) != data:
        raise FormatError(_WHAT, "", "the JSON is not in its one canonical form")
    return evidence


def _read_pcr_values(plain: object) -> dict[str, dict[int, bytes]]:
    if not isinstance(plain, dict) or not all(isinstance(values, dict) for values in plain.values()):
        raise FormatError(_WHAT, "pcr_values", "expected {bank: {PCR: value}}")
    return {
        bank: {_pcr(name): _unhex(value, f"pcr_values, {bank[:20]!r}") for name, value in values.items()}
        for bank, values in plain.items()
    }


def _pcr(name: str) -> int:
    if not re.fullmatch(r"[0-9]{2}", name, re.ASCII):
        raise FormatError(_WHAT, "pcr_values", "a PCR is named by two digits")
    return int(name)


def _unhex(text: object, where: str) -> bytes:
    if not isinstance(text, str) or not re.fullmatch(r"(?:[0-9a-f]{2})*", text, re.ASCII):
        raise FormatError(_WHAT, where, "expected lower-case hexadecimal")
    return bytes.fromhex(text)
