"""Failure mode: what a TPM still answers after a self-test failed.

Models: GetTestResult, and GetCapability of one property that names the maker; everything else is TPM_RC_FAILURE, until
the next _TPM_Init.
Leaves out: the maker's own data about the failure.
Sources: TPM 2.0 Library part 1, 12.4; part 3, 10.4 and 30.2 (what these two commands do in failure mode).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from sim.tpm.constants import TPM_CAP, TPM_CC, TPM_PT, TPM_RC, TPM_ST

if TYPE_CHECKING:
    from sim.tpm.profile import TpmProfile

__all__ = ["answer_in_failure_mode"]

_HEADER = struct.Struct(">HII")
_CAPABILITY = struct.Struct(">III")
_NO_SESSIONS = TPM_ST.NO_SESSIONS.value
_LIST_OF_ONE = struct.Struct(">BIIII")


def answer_in_failure_mode(profile: TpmProfile, command: bytes) -> bytes:
    """Return the response to any bytes while a TPM of this make is in failure mode."""
    body = None
    if len(command) >= _HEADER.size:
        tag, size, code = _HEADER.unpack_from(command)
        if tag == _NO_SESSIONS and size == len(command):
            body = _body(profile, code, command[_HEADER.size :])
    if body is None:
        return _HEADER.pack(_NO_SESSIONS, _HEADER.size, TPM_RC.FAILURE)
    return _HEADER.pack(_NO_SESSIONS, _HEADER.size + len(body), TPM_RC.SUCCESS) + body


def _body(profile: TpmProfile, code: int, parameters: bytes) -> bytes | None:
    if code == TPM_CC.GetTestResult and not parameters:
        return struct.pack(">HI", 0, TPM_RC.FAILURE)
    if code != TPM_CC.GetCapability or len(parameters) != _CAPABILITY.size:
        return None
    capability, tag, count = _CAPABILITY.unpack(parameters)
    if capability != TPM_CAP.TPM_PROPERTIES or count != 1:
        return None
    values = _identity(profile)
    if tag not in values:
        tag = next((each for each in values if each > tag), TPM_PT.MANUFACTURER.value)
    return _LIST_OF_ONE.pack(tag != max(values), capability, 1, tag, values[tag])


def _identity(profile: TpmProfile) -> dict[int, int]:
    strings = profile.vendor_string_ids
    return {
        TPM_PT.MANUFACTURER.value: profile.manufacturer_id,
        TPM_PT.VENDOR_STRING_1.value: strings[0],
        TPM_PT.VENDOR_STRING_2.value: strings[1],
        TPM_PT.VENDOR_STRING_3.value: strings[2],
        TPM_PT.VENDOR_STRING_4.value: strings[3],
        TPM_PT.VENDOR_TPM_TYPE.value: 1,
        TPM_PT.FIRMWARE_VERSION_1.value: profile.firmware_version >> 32,
        TPM_PT.FIRMWARE_VERSION_2.value: profile.firmware_version & 0xFFFFFFFF,
    }
