"""The numbers of the TPM 2.0 library: algorithms, commands, handles, response codes, attributes, properties.

Models: the identifiers that the device, the client and the verifier exchange, in the specification's spelling.
Leaves out: identifiers that nothing here speaks of yet (vendor commands, ACT, field upgrade).
Sources: TCG TPM 2.0 Library part 2 "Structures", revision 1.64; TCG Algorithm Registry; sections 2 to 4 of the
fact sheet on TPMs for values measured on swtpm 0.7.1.
"""
# ruff: noqa: N801, N815 - the specification's own spelling

from __future__ import annotations

from enum import IntEnum, IntFlag

__all__ = [
    "HASH_BYTES",
    "PCR_COUNT",
    "TPMA_NV",
    "TPMA_OBJECT",
    "TPMA_SESSION",
    "TPM_ALG",
    "TPM_CAP",
    "TPM_CC",
    "TPM_ECC",
    "TPM_GENERATED_VALUE",
    "TPM_HT",
    "TPM_PT",
    "TPM_RC",
    "TPM_RH",
    "TPM_ST",
    "TPM_SU",
    "rc_name",
]

PCR_COUNT = 24
"""PCRs of a PC Client TPM, per bank."""

TPM_GENERATED_VALUE = 0xFF544347
"""The magic of a structure that a TPM made itself."""


class TPM_ALG(IntEnum):
    """Algorithm identifiers."""

    ERROR = 0x0000
    RSA = 0x0001
    SHA1 = 0x0004
    HMAC = 0x0005
    AES = 0x0006
    MGF1 = 0x0007
    KEYEDHASH = 0x0008
    XOR = 0x000A
    SHA256 = 0x000B
    SHA384 = 0x000C
    SHA512 = 0x000D
    NULL = 0x0010
    SM3_256 = 0x0012
    RSASSA = 0x0014
    RSAES = 0x0015
    RSAPSS = 0x0016
    OAEP = 0x0017
    ECDSA = 0x0018
    ECDH = 0x0019
    ECDAA = 0x001A
    SM2 = 0x001B
    ECSCHNORR = 0x001C
    ECMQV = 0x001D
    KDF1_SP800_56A = 0x0020
    KDF2 = 0x0021
    KDF1_SP800_108 = 0x0022
    ECC = 0x0023
    SYMCIPHER = 0x0025
    CTR = 0x0040
    OFB = 0x0041
    CBC = 0x0042
    CFB = 0x0043
    ECB = 0x0044


HASH_BYTES = {
    TPM_ALG.SHA1.value: 20,
    TPM_ALG.SHA256.value: 32,
    TPM_ALG.SHA384.value: 48,
    TPM_ALG.SHA512.value: 64,
}
"""Digest size of each hash that this TPM implements."""


class TPM_ECC(IntEnum):
    """Elliptic curves."""

    NIST_P192 = 0x0001
    NIST_P224 = 0x0002
    NIST_P256 = 0x0003
    NIST_P384 = 0x0004
    NIST_P521 = 0x0005


class TPM_CC(IntEnum):
    """Command codes of the implemented commands."""

    CreatePrimary = 0x131
    PCR_Event = 0x13C
    PCR_Reset = 0x13D
    SelfTest = 0x143
    Startup = 0x144
    Shutdown = 0x145
    StirRandom = 0x146
    NV_Read = 0x14E
    Quote = 0x158
    FlushContext = 0x165
    NV_ReadPublic = 0x169
    ReadPublic = 0x173
    GetCapability = 0x17A
    GetRandom = 0x17B
    GetTestResult = 0x17C
    PCR_Read = 0x17E
    ReadClock = 0x181
    PCR_Extend = 0x182


class TPM_ST(IntEnum):
    """Structure tags."""

    NO_SESSIONS = 0x8001
    SESSIONS = 0x8002
    ATTEST_NV = 0x8014
    ATTEST_COMMAND_AUDIT = 0x8015
    ATTEST_SESSION_AUDIT = 0x8016
    ATTEST_CERTIFY = 0x8017
    ATTEST_QUOTE = 0x8018
    ATTEST_TIME = 0x8019
    ATTEST_CREATION = 0x801A
    CREATION = 0x8021


class TPM_SU(IntEnum):
    """Startup and shutdown types."""

    CLEAR = 0
    STATE = 1


class TPM_RH(IntEnum):
    """Permanent handles."""

    OWNER = 0x40000001
    NULL = 0x40000007
    PW = 0x40000009
    LOCKOUT = 0x4000000A
    ENDORSEMENT = 0x4000000B
    PLATFORM = 0x4000000C
    PLATFORM_NV = 0x4000000D


class TPM_HT(IntEnum):
    """Handle types: the first byte of a handle."""

    PCR = 0x00
    NV_INDEX = 0x01
    HMAC_SESSION = 0x02
    POLICY_SESSION = 0x03
    PERMANENT = 0x40
    TRANSIENT = 0x80
    PERSISTENT = 0x81


class TPM_RC(IntEnum):
    """Response codes; those from 0x080 to 0x0BF are of format one and take a parameter, handle or session number."""

    SUCCESS = 0x000
    ASYMMETRIC = 0x081
    ATTRIBUTES = 0x082
    HASH = 0x083
    VALUE = 0x084
    HIERARCHY = 0x085
    KEY_SIZE = 0x087
    MODE = 0x089
    TYPE = 0x08A
    HANDLE = 0x08B
    KDF = 0x08C
    RANGE = 0x08D
    AUTH_FAIL = 0x08E
    NONCE = 0x08F
    SCHEME = 0x092
    SIZE = 0x095
    SYMMETRIC = 0x096
    SELECTOR = 0x098
    INSUFFICIENT = 0x09A
    KEY = 0x09C
    BAD_AUTH = 0x0A2
    RESERVED_BITS = 0x0A1
    CURVE = 0x0A6
    INITIALIZE = 0x100
    FAILURE = 0x101
    AUTH_MISSING = 0x125
    AUTH_UNAVAILABLE = 0x12F
    COMMAND_SIZE = 0x142
    COMMAND_CODE = 0x143
    AUTH_CONTEXT = 0x145
    NV_RANGE = 0x146
    NV_LOCKED = 0x148
    NV_AUTHORIZATION = 0x149
    NV_UNINITIALIZED = 0x14A
    OBJECT_MEMORY = 0x902
    LOCALITY = 0x907
    REFERENCE_H0 = 0x910
    REFERENCE_S0 = 0x918
    RETRY = 0x922


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


class TPMA_OBJECT(IntFlag):
    """Object attributes."""

    fixedTPM = 1 << 1
    stClear = 1 << 2
    fixedParent = 1 << 4
    sensitiveDataOrigin = 1 << 5
    userWithAuth = 1 << 6
    adminWithPolicy = 1 << 7
    noDA = 1 << 10
    encryptedDuplication = 1 << 11
    restricted = 1 << 16
    decrypt = 1 << 17
    sign = 1 << 18
    x509sign = 1 << 19


class TPMA_SESSION(IntFlag):
    """Session attributes."""

    continueSession = 1 << 0
    auditExclusive = 1 << 1
    auditReset = 1 << 2
    decrypt = 1 << 5
    encrypt = 1 << 6
    audit = 1 << 7


class TPMA_NV(IntFlag):
    """NV index attributes (bits 4 to 7 hold the type: 0 is ordinary)."""

    PPWRITE = 1 << 0
    OWNERWRITE = 1 << 1
    AUTHWRITE = 1 << 2
    POLICYWRITE = 1 << 3
    POLICY_DELETE = 1 << 10
    WRITELOCKED = 1 << 11
    WRITEALL = 1 << 12
    WRITEDEFINE = 1 << 13
    WRITE_STCLEAR = 1 << 14
    GLOBALLOCK = 1 << 15
    PPREAD = 1 << 16
    OWNERREAD = 1 << 17
    AUTHREAD = 1 << 18
    POLICYREAD = 1 << 19
    NO_DA = 1 << 25
    ORDERLY = 1 << 26
    CLEAR_STCLEAR = 1 << 27
    READLOCKED = 1 << 28
    WRITTEN = 1 << 29
    PLATFORMCREATE = 1 << 30
    READ_STCLEAR = 1 << 31


class TPM_CAP(IntEnum):
    """Capability groups."""

    ALGS = 0
    HANDLES = 1
    COMMANDS = 2
    PP_COMMANDS = 3
    AUDIT_COMMANDS = 4
    PCRS = 5
    TPM_PROPERTIES = 6
    PCR_PROPERTIES = 7
    ECC_CURVES = 8
    AUTH_POLICIES = 9
    ACT = 10


class TPM_PT(IntEnum):
    """Fixed (0x100 and up) and variable (0x200 and up) properties."""

    FAMILY_INDICATOR = 0x100
    LEVEL = 0x101
    REVISION = 0x102
    DAY_OF_YEAR = 0x103
    YEAR = 0x104
    MANUFACTURER = 0x105
    VENDOR_STRING_1 = 0x106
    VENDOR_STRING_2 = 0x107
    VENDOR_STRING_3 = 0x108
    VENDOR_STRING_4 = 0x109
    VENDOR_TPM_TYPE = 0x10A
    FIRMWARE_VERSION_1 = 0x10B
    FIRMWARE_VERSION_2 = 0x10C
    INPUT_BUFFER = 0x10D
    HR_TRANSIENT_MIN = 0x10E
    HR_PERSISTENT_MIN = 0x10F
    HR_LOADED_MIN = 0x110
    ACTIVE_SESSIONS_MAX = 0x111
    PCR_COUNT = 0x112
    PCR_SELECT_MIN = 0x113
    CONTEXT_GAP_MAX = 0x114
    NV_COUNTERS_MAX = 0x116
    NV_INDEX_MAX = 0x117
    MEMORY = 0x118
    CLOCK_UPDATE = 0x119
    CONTEXT_HASH = 0x11A
    CONTEXT_SYM = 0x11B
    CONTEXT_SYM_SIZE = 0x11C
    ORDERLY_COUNT = 0x11D
    MAX_COMMAND_SIZE = 0x11E
    MAX_RESPONSE_SIZE = 0x11F
    MAX_DIGEST = 0x120
    MAX_OBJECT_CONTEXT = 0x121
    MAX_SESSION_CONTEXT = 0x122
    PS_FAMILY_INDICATOR = 0x123
    PS_LEVEL = 0x124
    PS_REVISION = 0x125
    PS_DAY_OF_YEAR = 0x126
    PS_YEAR = 0x127
    SPLIT_MAX = 0x128
    TOTAL_COMMANDS = 0x129
    LIBRARY_COMMANDS = 0x12A
    VENDOR_COMMANDS = 0x12B
    NV_BUFFER_MAX = 0x12C
    MODES = 0x12D
    MAX_CAP_BUFFER = 0x12E
    PERMANENT = 0x200
    STARTUP_CLEAR = 0x201
    HR_NV_INDEX = 0x202
    HR_LOADED = 0x203
    HR_LOADED_AVAIL = 0x204
    HR_ACTIVE = 0x205
    HR_ACTIVE_AVAIL = 0x206
    HR_TRANSIENT_AVAIL = 0x207
    HR_PERSISTENT = 0x208
    HR_PERSISTENT_AVAIL = 0x209
    NV_COUNTERS = 0x20A
    NV_COUNTERS_AVAIL = 0x20B
    ALGORITHM_SET = 0x20C
    LOADED_CURVES = 0x20D
    LOCKOUT_COUNTER = 0x20E
    MAX_AUTH_FAIL = 0x20F
    LOCKOUT_INTERVAL = 0x210
    LOCKOUT_RECOVERY = 0x211
    NV_WRITE_RECOVERY = 0x212
    AUDIT_COUNTER_0 = 0x213
    AUDIT_COUNTER_1 = 0x214
