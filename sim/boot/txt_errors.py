"""TXT.ERRORCODE: what the processor or SINIT leaves there before the platform resets, and how tboot reads it.

Models: the two layouts of the register (an error of the processor by its type; an error of an authenticated module by
class and major code), and the lines with which tboot shows a register to whoever boots next.

Leaves out: progress codes of successful launches, errors that the launched code itself writes.

Sources: Intel SDM volume 2, chapter 6, and TXT MLE Developer's Guide, appendix on TXT-shutdown (types of processor
errors); tboot 1.10.5, txt/errorcode.h and txt/errors.c (layout of modules' errors; class 0x0d with error 0x0a is the
TPM's).  Intel lists the other codes with each SINIT module; they differ from one to the next, so ours are assumed.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from sim.core.facts import fact

__all__ = ["ProcessorError", "SinitError", "describe_errorcode", "processor_errorcode", "sinit_errorcode"]

_VALID: Final = 1 << 31
_EXTERNAL: Final = 1 << 30
_TYPE: Final = (1 << 30) - 1
_ACM_TYPE_SINIT: Final = 1
_CLASS_SHIFT: Final = 4
_CLASS_BITS: Final = 0x3F
_MAJOR_SHIFT: Final = 10
_MAJOR_BITS: Final = 0x1F


class ProcessorError(IntEnum):
    """Types of a TXT shutdown that the processor itself begins."""

    UNSUPPORTED_ACM = 6
    AUTHENTICATE_FAIL = 7
    BAD_ACM_FORMAT = 8


def _code(name: str, value: int, *, kind: str = "assumed") -> int:
    source = "tboot 1.10.5, txt/errors.c" if kind == "inferred" else "each SINIT module has codes of its own"
    made = fact(f"boot.sinit_error.{name}", value, unit="class << 8 | major", source=source, kind=kind)  # type: ignore[arg-type]
    return made.value


class SinitError(IntEnum):
    """Errors of SINIT as class and major code, one byte each."""

    TPM = _code("tpm", 0x0D0A, kind="inferred")
    REVOKED = _code("revoked", 0x0C01)
    NOT_PRODUCTION = _code("not_production", 0x0C02)
    POLICY_FORMAT = _code("policy_format", 0x1001)
    POLICY_DATA = _code("policy_data", 0x1002)
    POLICY_SIGNATURE = _code("policy_signature", 0x1003)
    POLICY_REVOKED = _code("policy_revoked", 0x1004)
    MLE_MISMATCH = _code("mle_mismatch", 0x1005)
    PCONF_MISMATCH = _code("pconf_mismatch", 0x1006)
    SINIT_TOO_OLD = _code("sinit_too_old", 0x1007)


def processor_errorcode(error: ProcessorError) -> int:
    """Return what the register holds after an error of the processor."""
    return _VALID | error


def sinit_errorcode(error: SinitError) -> int:
    """Return what the register holds after an error of SINIT."""
    class_code, major = error >> 8, error & 0xFF
    return _VALID | _EXTERNAL | major << _MAJOR_SHIFT | class_code << _CLASS_SHIFT | _ACM_TYPE_SINIT


def describe_errorcode(code: int) -> tuple[str, ...]:
    """Return the lines in which tboot shows the register."""
    lines = [f"TXT.ERRORCODE: {code:#x}"]
    if not code & _VALID:
        return tuple(lines)
    if not code & _EXTERNAL:
        kind = code & _TYPE
        lines.append(f"  processor error {kind:#x}{_named(ProcessorError, kind)}")
        return tuple(lines)
    class_code = code >> _CLASS_SHIFT & _CLASS_BITS
    major = code >> _MAJOR_SHIFT & _MAJOR_BITS
    lines.append(
        f"  AC module error : acm_type={code & 0xF:#x}, progress={class_code:#04x}, error={major:#x}"
        f"{_named(SinitError, class_code << 8 | major)}"
    )
    return tuple(lines)


def _named(kinds: type[IntEnum], value: int) -> str:
    known = {int(one): one.name for one in kinds}
    return f" ({known[value]})" if value in known else ""
