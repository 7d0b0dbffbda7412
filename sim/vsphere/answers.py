"""What vCenter makes of a host's answers: typed values, or a refusal of the answer.

Models: the shapes of the answers that attestation needs.  A host is not trusted, so each field is checked for its
type before it is used; whether the bytes in it are evidence is for the verifier to say.

Leaves out: all answers that only a person or another program looks at.

Sources: none; the shapes are those of `sim.kernel.management`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from attrs import field, frozen

from sim.attest.credential import Challenge
from sim.attest.engines.case import IMAGE_DATABASE_BYTES_MAX
from sim.attest.evidence import Evidence
from sim.errors import FormatError, LimitError

__all__ = ["HostInfo", "Identity", "read_evidence", "read_host_info", "read_identity", "read_image_database"]

TEXT_CHARS_MAX: Final = 256
BANKS_MAX: Final = 8
PCRS_MAX: Final = 24

T = TypeVar("T")
_WHAT: Final = "host's answer"


@frozen(kw_only=True)
class HostInfo:
    """What a host says of itself; none of it is proven."""

    boot_id: str
    tpm_state: str
    """enabled, disabled, absent or failed."""
    resumes: int = 0
    """How often it came back from a suspend to memory in this boot."""


@frozen(kw_only=True)
class Identity:
    """The keys and the certificate that a host offers; none of it is proven."""

    ek_public: bytes = field(repr=False)
    ek_certificate_der: bytes = field(repr=False)
    ak_public: bytes = field(repr=False)


def read_host_info(answer: object) -> HostInfo:
    """Read the answer of RetrieveHostInfo; FormatError when it is not one."""
    fields = _mapping(answer, "host info")
    return HostInfo(
        boot_id=_text(fields, "boot_id"),
        tpm_state=_text(fields, "tpm"),
        resumes=_typed(fields, "resumes", int) if "resumes" in fields else 0,
    )


def read_identity(answer: object) -> Identity:
    """Read the answer of RetrieveTpmIdentity; FormatError when it is not one."""
    fields = _mapping(answer, "identity")
    return Identity(
        ek_public=_typed(fields, "ek_public", bytes),
        ek_certificate_der=_typed(fields, "ek_certificate_der", bytes),
        ak_public=_typed(fields, "ak_public", bytes),
    )


def read_evidence(
    identity: Identity, challenge: Challenge, activation: object, log: object, quote: object
) -> Evidence:
    """Put together what travelled; FormatError when an answer is not what it should be."""
    events, statement = _mapping(log, "event log"), _mapping(quote, "quote")
    return Evidence(
        ek_public=identity.ek_public,
        ek_certificate_der=identity.ek_certificate_der,
        ak_public=identity.ak_public,
        credential_blob=challenge.credential_blob,
        encrypted_secret=challenge.encrypted_secret,
        activated_secret=_typed(_mapping(activation, "activation"), "secret", bytes),
        attest=_typed(statement, "attest", bytes),
        signature=_typed(statement, "signature", bytes),
        pcr_values=_pcr_values(statement.get("pcr_values")),
        event_log=_typed(events, "event_log", bytes),
        log_truncated=_typed(events, "log_truncated", bool),
    )


def read_image_database(answer: object) -> bytes:
    """Read the answer of FetchImageDatabase; FormatError when it is not one, LimitError when it is too long."""
    data = _typed(_mapping(answer, "image database"), "database", bytes)
    if len(data) > IMAGE_DATABASE_BYTES_MAX:
        raise LimitError(_WHAT, "database", f"more than {IMAGE_DATABASE_BYTES_MAX} bytes")
    return data


def _pcr_values(value: object) -> dict[str, dict[int, bytes]]:
    banks = _mapping(value, "pcr_values")
    if len(banks) > BANKS_MAX:
        raise FormatError(_WHAT, "pcr_values", f"more than {BANKS_MAX} banks")
    return {_exactly(bank, str, "bank"): _bank(pcrs) for bank, pcrs in banks.items()}


def _bank(value: object) -> dict[int, bytes]:
    pcrs = _mapping(value, "pcr_values")
    if len(pcrs) > PCRS_MAX:
        raise FormatError(_WHAT, "pcr_values", f"more than {PCRS_MAX} PCRs")
    return {_exactly(pcr, int, "PCR"): _exactly(digest, bytes, "PCR value") for pcr, digest in pcrs.items()}


def _mapping(value: object, where: str) -> Mapping[Any, object]:
    if type(value) is not dict:
        raise FormatError(_WHAT, where, "expected a structure")
    return value


def _exactly(value: object, kind: type[T], where: str) -> T:
    if type(value) is not kind:
        raise FormatError(_WHAT, where, f"expected {kind.__name__}")
    return value


def _typed(fields: Mapping[Any, object], name: str, kind: type[T]) -> T:
    return _exactly(fields.get(name), kind, name)


def _text(fields: Mapping[Any, object], name: str) -> str:
    value = _typed(fields, name, str)
    if len(value) > TEXT_CHARS_MAX or not value.isprintable():
        raise FormatError(_WHAT, name, "expected a short line of text")
    return value
