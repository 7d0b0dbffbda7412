"""The response codes of the TPM 2.0 library, and what they say in words.

Models: the codes of format zero (errors and warnings) and of format one.
Leaves out: TPM 1.2 codes and vendor codes.
Source: TCG TPM 2.0 Library part 2 "Structures", revision 1.64, section 6.6.
"""
# ruff: noqa: N801 - the specification's own spelling

from __future__ import annotations

from enum import IntEnum

__all__ = ["TPM_RC", "rc_name"]


class TPM_RC(IntEnum):
    """Response codes; those from 0x080 to 0x0BF are of format one and take a parameter, handle or session number."""

    SUCCESS = 0x000
    ASYMMETRIC = 0x081
    ATTRIBUTES = 0x082
    HASH = 0x083
    VALUE = 0x084
    HIERARCHY = 0x085
    KEY_SIZE = 0x087
    MGF = 0x088
    MODE = 0x089
    TYPE = 0x08A
    HANDLE = 0x08B
    KDF = 0x08C
    RANGE = 0x08D
    AUTH_FAIL = 0x08E
    NONCE = 0x08F
    PP = 0x090
    SCHEME = 0x092
    SIZE = 0x095
    SYMMETRIC = 0x096
    TAG = 0x097
    SELECTOR = 0x098
    INSUFFICIENT = 0x09A
    SIGNATURE = 0x09B
    KEY = 0x09C
    POLICY_FAIL = 0x09D
    INTEGRITY = 0x09F
    TICKET = 0x0A0
    RESERVED_BITS = 0x0A1
    BAD_AUTH = 0x0A2
    EXPIRED = 0x0A3
    POLICY_CC = 0x0A4
    BINDING = 0x0A5
    CURVE = 0x0A6
    ECC_POINT = 0x0A7
    INITIALIZE = 0x100
    FAILURE = 0x101
    SEQUENCE = 0x103
    DISABLED = 0x120
    EXCLUSIVE = 0x121
    AUTH_TYPE = 0x124
    AUTH_MISSING = 0x125
    POLICY = 0x126
    PCR = 0x127
    PCR_CHANGED = 0x128
    UPGRADE = 0x12D
    TOO_MANY_CONTEXTS = 0x12E
    AUTH_UNAVAILABLE = 0x12F
    REBOOT = 0x130
    UNBALANCED = 0x131
    COMMAND_SIZE = 0x142
    COMMAND_CODE = 0x143
    AUTHSIZE = 0x144
    AUTH_CONTEXT = 0x145
    NV_RANGE = 0x146
    NV_SIZE = 0x147
    NV_LOCKED = 0x148
    NV_AUTHORIZATION = 0x149
    NV_UNINITIALIZED = 0x14A
    NV_SPACE = 0x14B
    NV_DEFINED = 0x14C
    BAD_CONTEXT = 0x150
    CPHASH = 0x151
    PARENT = 0x152
    NEEDS_TEST = 0x153
    NO_RESULT = 0x154
    SENSITIVE = 0x155
    CONTEXT_GAP = 0x901
    OBJECT_MEMORY = 0x902
    SESSION_MEMORY = 0x903
    MEMORY = 0x904
    SESSION_HANDLES = 0x905
    OBJECT_HANDLES = 0x906
    LOCALITY = 0x907
    YIELDED = 0x908
    CANCELED = 0x909
    TESTING = 0x90A
    REFERENCE_H0 = 0x910
    REFERENCE_S0 = 0x918
    NV_RATE = 0x920
    LOCKOUT = 0x921
    RETRY = 0x922
    NV_UNAVAILABLE = 0x923


_RC_P = 0x040
_RC_S = 0x800


def rc_name(rc: int) -> str:
    """Put a response code in words: `HANDLE (handle 1)`, `VALUE (parameter 2)`, `LOCALITY`."""
    number = f"0x{rc:03x}"
    if rc & 0x080 and rc < 0x1000:
        base = 0x080 | (rc & 0x03F)
        place = rc >> 8 & 0x7 if not rc & _RC_P else rc >> 8 & 0xF
        what = "parameter" if rc & _RC_P else "session" if rc & _RC_S else "handle"
        name = TPM_RC(base).name if base in _RC_VALUES else f"0x{base:03x}"
        return f"{name} ({what} {place}, {number})" if place else f"{name} ({number})"
    return f"{TPM_RC(rc).name} ({number})" if rc in _RC_VALUES else number


_RC_VALUES = frozenset(TPM_RC)
