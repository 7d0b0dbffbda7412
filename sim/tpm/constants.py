"""The numbers of the TPM 2.0 library: algorithms, commands, handles, response codes, attributes, properties.

Models: the identifiers that the device, the client and the verifier exchange, in the specification's spelling.
Leaves out: identifiers that nothing here speaks of yet (vendor commands, ACT, field upgrade).
Sources: TCG TPM 2.0 Library part 2 "Structures", revision 1.64; TCG Algorithm Registry; sections 2 to 4 of the
fact sheet on TPMs for values measured on swtpm 0.7.1.
"""
# ruff: noqa: N801, N815 - the specification's own spelling

from __future__ import annotations

from enum import IntEnum, IntFlag

from sim.tpm.command_codes import TPM_CC
from sim.tpm.response_codes import TPM_RC, rc_name

__all__ = [
    "HASH_BYTES",
    "PCR_COUNT",
    "TPMA_NV",
    "TPMA_OBJECT",
    "TPMA_SESSION",
    "TPM_ALG",
    "TPM_CAP",
    "TPM_CC",
    "TPM_CLOCK_ADJUST",
    "TPM_ECC",
    "TPM_EO",
    "TPM_GENERATED_VALUE",
    "TPM_HT",
    "TPM_NT",
    "TPM_PT",
    "TPM_RC",
    "TPM_RH",
    "TPM_SE",
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
    TDES = 0x0003
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
    CAMELLIA = 0x0026
    CMAC = 0x003F
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
    BN_P256 = 0x0010
    BN_P638 = 0x0011
    SM2_P256 = 0x0020


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
    ATTEST_NV_DIGEST = 0x801C
    CREATION = 0x8021
    VERIFIED = 0x8022
    AUTH_SECRET = 0x8023
    HASHCHECK = 0x8024
    AUTH_SIGNED = 0x8025


class TPM_SU(IntEnum):
    """Startup and shutdown types."""

    CLEAR = 0
    STATE = 1


class TPM_SE(IntEnum):
    """Session types."""

    HMAC = 0
    POLICY = 1
    TRIAL = 3


class TPM_EO(IntEnum):
    """Comparisons of PolicyNV and PolicyCounterTimer."""

    EQ = 0
    NEQ = 1
    SIGNED_GT = 2
    UNSIGNED_GT = 3
    SIGNED_LT = 4
    UNSIGNED_LT = 5
    SIGNED_GE = 6
    UNSIGNED_GE = 7
    SIGNED_LE = 8
    UNSIGNED_LE = 9
    BITSET = 10
    BITCLEAR = 11


class TPM_NT(IntEnum):
    """Types of NV indices."""

    ORDINARY = 0
    COUNTER = 1
    BITS = 2
    EXTEND = 4
    PIN_FAIL = 8
    PIN_PASS = 9


class TPM_CLOCK_ADJUST(IntEnum):
    """How ClockRateAdjust changes the rate of the clock."""

    COARSE_SLOWER = -3
    MEDIUM_SLOWER = -2
    FINE_SLOWER = -1
    NO_CHANGE = 0
    FINE_FASTER = 1
    MEDIUM_FASTER = 2
    COARSE_FASTER = 3


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
