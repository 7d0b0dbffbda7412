"""Readers of the event data that a verifier has to understand, strict to the last byte.

Models: UEFI_VARIABLE_DATA (which variable, which content) and the order of its parts; nothing is believed here, the
caller must have re-hashed the data first.

Leaves out: device paths, signature lists and GPT entries, on which no decision rests.

Sources: TCG PC Client Platform Firmware Profile 1.05, section 10.4.2.6 (UEFI_VARIABLE_DATA); UEFI specification 2.10,
section 3.3 (global variables) and appendix A (GUID).
"""

from __future__ import annotations

import struct
from typing import Final

from attrs import field, frozen

from sim.errors import FormatError, LimitError

__all__ = ["GLOBAL_VARIABLE", "IMAGE_SECURITY_DATABASE", "UefiVariable", "read_variable"]

GLOBAL_VARIABLE: Final = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
"""EFI_GLOBAL_VARIABLE, 8be4df61-93ca-11d2-aa0d-00e098032b8c: SecureBoot, PK, KEK."""

IMAGE_SECURITY_DATABASE: Final = bytes.fromhex("cbb219d73a3d9645a3bcdad00e67656f")
"""EFI_IMAGE_SECURITY_DATABASE_GUID, d719b2cb-3d3a-4596-a3bc-dad00e67656f: db, dbx."""

NAME_UNITS_MAX: Final = 256
"""The longest name of a variable, in UTF-16 units."""

_HEAD: Final = struct.Struct("<16sQQ")
_WHAT: Final = "UEFI variable event"


@frozen(kw_only=True)
class UefiVariable:
    """A measured variable: its namespace GUID as it is encoded, its name and its content."""

    namespace: bytes = field(repr=lambda value: value.hex())
    name: str
    content: bytes = field(repr=lambda value: value.hex())


def read_variable(data: bytes) -> UefiVariable:
    """Read a UEFI_VARIABLE_DATA that fills `data` exactly; FormatError otherwise."""
    if len(data) < _HEAD.size:
        raise FormatError(_WHAT, f"offset {len(data)}", f"expected {_HEAD.size} bytes of header")
    namespace, units, size = _HEAD.unpack_from(data)
    if units > NAME_UNITS_MAX:
        raise LimitError(_WHAT, "name length", f"more than {NAME_UNITS_MAX} characters")
    if _HEAD.size + 2 * units + size != len(data):
        raise FormatError(_WHAT, "lengths", f"name and content do not fill the {len(data)} bytes")
    content_at = _HEAD.size + 2 * units
    try:
        name = data[_HEAD.size : content_at].decode("utf-16-le")
    except UnicodeDecodeError as error:
        raise FormatError(_WHAT, "name", "not UTF-16") from error
    return UefiVariable(namespace=namespace, name=name, content=data[content_at:])
