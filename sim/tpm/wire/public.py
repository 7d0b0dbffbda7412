"""Public areas of objects, their schemes and parameters, and creation data.

Models: objects of all four types, as a verifier may meet them.
Leaves out: what the device implements of them.
Source: TCG TPM 2.0 Library part 2 "Structures", revision 1.64, chapters 11 to 12.
"""
# ruff: noqa: N801, N815, RUF009 - the specification's own spelling; `wire` makes an attrs field

from __future__ import annotations

from attrs import frozen

from sim.tpm.codec import Codec, Empty, Number, Select, Sized, Structure, variant, wire
from sim.tpm.constants import TPM_ALG, TPM_ECC, TPM_RC, TPM_ST, TPMA_OBJECT
from sim.tpm.wire.basic import (
    TPM2B_AUTH,
    TPM2B_DATA,
    TPM2B_DIGEST,
    TPM2B_ECC_PARAMETER,
    TPM2B_NAME,
    TPM2B_PUBLIC_KEY_RSA,
    TPM2B_SENSITIVE_DATA,
    TPMI_ALG_HASH,
    TPMI_ALG_HASH_OR_NULL,
    TPMI_RH_HIERARCHY,
    TPML_PCR_SELECTION,
    TPMS_PCR_SELECTION,
    UINT8,
    UINT16,
    UINT32,
    TicketTag,
)

__all__ = [
    "ECC_SIGNING",
    "TPM2B_CREATION_DATA",
    "TPM2B_PUBLIC",
    "TPM2B_SENSITIVE_CREATE",
    "TPMI_AES_KEY_BITS",
    "TPMI_ALG_CIPHER_MODE",
    "TPMI_ALG_ECC_SCHEME",
    "TPMI_ALG_KDF",
    "TPMI_ALG_KEYEDHASH_SCHEME",
    "TPMI_ALG_PUBLIC",
    "TPMI_ALG_RSA_SCHEME",
    "TPMI_ALG_SIG_SCHEME",
    "TPMI_ALG_SIG_SCHEME_GIVEN",
    "TPMI_ALG_SYM_MODE",
    "TPMI_ALG_SYM_OBJECT",
    "TPMI_ECC_CURVE",
    "TPMI_RSA_KEY_BITS",
    "TPMS_CREATION_DATA",
    "TPMS_ECC_PARMS",
    "TPMS_ECC_POINT",
    "TPMS_RSA_PARMS",
    "TPMS_SCHEME_ECDAA",
    "TPMS_SCHEME_HASH",
    "TPMS_SCHEME_XOR",
    "TPMS_SENSITIVE_CREATE",
    "TPMS_SYMCIPHER_PARMS",
    "TPMT_ECC_SCHEME",
    "TPMT_KDF_SCHEME",
    "TPMT_KEYEDHASH_SCHEME",
    "TPMT_PUBLIC",
    "TPMT_RSA_SCHEME",
    "TPMT_SIG_SCHEME",
    "TPMT_SYM_DEF_OBJECT",
    "TPMT_TK_CREATION",
]

TPMI_ALG_PUBLIC = Number(
    "H", allowed=frozenset({TPM_ALG.RSA, TPM_ALG.KEYEDHASH, TPM_ALG.ECC, TPM_ALG.SYMCIPHER}), rc=TPM_RC.TYPE
)
_BLOCK_CIPHERS = frozenset({TPM_ALG.TDES, TPM_ALG.AES, TPM_ALG.CAMELLIA})
TPMI_ALG_SYM_OBJECT = Number("H", allowed=_BLOCK_CIPHERS | {TPM_ALG.NULL}, rc=TPM_RC.SYMMETRIC)
TPMI_ALG_SYM_MODE = Number(
    "H",
    allowed=frozenset(
        {TPM_ALG.CTR, TPM_ALG.OFB, TPM_ALG.CBC, TPM_ALG.CFB, TPM_ALG.ECB, TPM_ALG.CMAC, TPM_ALG.NULL}
    ),
    rc=TPM_RC.MODE,
)
TPMI_ALG_CIPHER_MODE = Number(
    "H",
    allowed=frozenset({TPM_ALG.CTR, TPM_ALG.OFB, TPM_ALG.CBC, TPM_ALG.CFB, TPM_ALG.ECB, TPM_ALG.NULL}),
    rc=TPM_RC.MODE,
)
"""The modes that encrypt."""
TPMI_AES_KEY_BITS = Number("H", allowed=frozenset({128, 256}))
TPMI_CAMELLIA_KEY_BITS = TPMI_AES_KEY_BITS
TPMI_TDES_KEY_BITS = Number("H", allowed=frozenset({128, 192}))
TPMI_RSA_KEY_BITS = Number("H", allowed=frozenset({1024, 2048, 3072}))
TPMI_ECC_CURVE = Number("H", allowed=frozenset(TPM_ECC), rc=TPM_RC.CURVE)
ECC_SIGNING = frozenset({TPM_ALG.ECDSA, TPM_ALG.ECDAA, TPM_ALG.SM2, TPM_ALG.ECSCHNORR})
TPMI_ALG_ECC_SCHEME = Number(
    "H", allowed=ECC_SIGNING | {TPM_ALG.ECDH, TPM_ALG.ECMQV, TPM_ALG.NULL}, rc=TPM_RC.SCHEME
)
TPMI_ALG_RSA_SCHEME = Number(
    "H", allowed=frozenset({TPM_ALG.RSASSA, TPM_ALG.RSAPSS, TPM_ALG.RSAES, TPM_ALG.OAEP, TPM_ALG.NULL})
)
TPMI_ALG_SIG_SCHEME = Number(
    "H", allowed=ECC_SIGNING | {TPM_ALG.RSASSA, TPM_ALG.RSAPSS, TPM_ALG.HMAC, TPM_ALG.NULL}, rc=TPM_RC.SCHEME
)
TPMI_ALG_SIG_SCHEME_GIVEN = Number(
    "H", allowed=ECC_SIGNING | {TPM_ALG.RSASSA, TPM_ALG.RSAPSS, TPM_ALG.HMAC}, rc=TPM_RC.SCHEME
)
"""The same without NULL, of signatures that a command brings."""
TPMI_ALG_KEYEDHASH_SCHEME = Number("H", allowed=frozenset({TPM_ALG.HMAC, TPM_ALG.XOR, TPM_ALG.NULL}))
TPMI_ALG_KDF = Number(
    "H",
    allowed=frozenset(
        {TPM_ALG.MGF1, TPM_ALG.KDF1_SP800_56A, TPM_ALG.KDF2, TPM_ALG.KDF1_SP800_108, TPM_ALG.NULL}
    ),
    rc=TPM_RC.KDF,
)


_KEY_BITS: dict[int, Codec] = {
    TPM_ALG.TDES: TPMI_TDES_KEY_BITS,
    TPM_ALG.AES: TPMI_AES_KEY_BITS,
    TPM_ALG.CAMELLIA: TPMI_CAMELLIA_KEY_BITS,
}


@frozen(kw_only=True)
class TPMT_SYM_DEF_OBJECT(Structure):
    """The symmetric algorithm of a cipher key, or with which a parent protects its children."""

    algorithm: int = wire(TPMI_ALG_SYM_OBJECT)
    keyBits: int | None = wire(Select("algorithm", {**_KEY_BITS, TPM_ALG.NULL: Empty()}))
    mode: int | None = wire(
        Select("algorithm", {**dict.fromkeys(_BLOCK_CIPHERS, TPMI_ALG_SYM_MODE), TPM_ALG.NULL: Empty()})
    )


TPMS_SYMCIPHER_PARMS = variant(
    TPMT_SYM_DEF_OBJECT, algorithm=Number("H", allowed=_BLOCK_CIPHERS, rc=TPM_RC.SYMMETRIC)
)
"""The parameters of a cipher key: as above, but there must be an algorithm."""


@frozen(kw_only=True)
class TPMS_SCHEME_HASH(Structure):
    """A scheme that needs a hash."""

    hashAlg: int = wire(TPMI_ALG_HASH)


@frozen(kw_only=True)
class TPMS_SCHEME_ECDAA(Structure):
    """A scheme that needs a hash and a commit counter."""

    hashAlg: int = wire(TPMI_ALG_HASH)
    count: int = wire(UINT16)


@frozen(kw_only=True)
class TPMS_SCHEME_XOR(Structure):
    """The XOR scheme of a keyed hash object."""

    hashAlg: int = wire(TPMI_ALG_HASH)
    kdf: int = wire(TPMI_ALG_KDF)


_ECC_SCHEMES: dict[int, Codec | type[Structure]] = {
    TPM_ALG.ECDSA: TPMS_SCHEME_HASH,
    TPM_ALG.ECDAA: TPMS_SCHEME_ECDAA,
    TPM_ALG.SM2: TPMS_SCHEME_HASH,
    TPM_ALG.ECSCHNORR: TPMS_SCHEME_HASH,
    TPM_ALG.ECDH: TPMS_SCHEME_HASH,
    TPM_ALG.ECMQV: TPMS_SCHEME_HASH,
    TPM_ALG.NULL: Empty(),
}
_RSA_SCHEMES: dict[int, Codec | type[Structure]] = {
    TPM_ALG.RSASSA: TPMS_SCHEME_HASH,
    TPM_ALG.RSAPSS: TPMS_SCHEME_HASH,
    TPM_ALG.OAEP: TPMS_SCHEME_HASH,
    TPM_ALG.RSAES: Empty(),
    TPM_ALG.NULL: Empty(),
}


@frozen(kw_only=True)
class TPMT_ECC_SCHEME(Structure):
    """The scheme of an ECC key."""

    scheme: int = wire(TPMI_ALG_ECC_SCHEME)
    details: TPMS_SCHEME_HASH | TPMS_SCHEME_ECDAA | None = wire(Select("scheme", _ECC_SCHEMES))


@frozen(kw_only=True)
class TPMT_RSA_SCHEME(Structure):
    """The scheme of an RSA key."""

    scheme: int = wire(TPMI_ALG_RSA_SCHEME)
    details: TPMS_SCHEME_HASH | None = wire(Select("scheme", _RSA_SCHEMES))


@frozen(kw_only=True)
class TPMT_SIG_SCHEME(Structure):
    """The signing scheme that a command asks for; NULL leaves it to the key."""

    scheme: int = wire(TPMI_ALG_SIG_SCHEME)
    details: TPMS_SCHEME_HASH | TPMS_SCHEME_ECDAA | None = wire(
        Select("scheme", {**_RSA_SCHEMES, **_ECC_SCHEMES, TPM_ALG.HMAC: TPMS_SCHEME_HASH})
    )


@frozen(kw_only=True)
class TPMT_KEYEDHASH_SCHEME(Structure):
    """The scheme of a keyed hash object."""

    scheme: int = wire(TPMI_ALG_KEYEDHASH_SCHEME)
    details: TPMS_SCHEME_HASH | TPMS_SCHEME_XOR | None = wire(
        Select(
            "scheme", {TPM_ALG.HMAC: TPMS_SCHEME_HASH, TPM_ALG.XOR: TPMS_SCHEME_XOR, TPM_ALG.NULL: Empty()}
        )
    )


@frozen(kw_only=True)
class TPMT_KDF_SCHEME(Structure):
    """The key derivation scheme of an ECC key."""

    scheme: int = wire(TPMI_ALG_KDF)
    details: TPMS_SCHEME_HASH | None = wire(
        Select(
            "scheme",
            {
                TPM_ALG.MGF1: TPMS_SCHEME_HASH,
                TPM_ALG.KDF1_SP800_56A: TPMS_SCHEME_HASH,
                TPM_ALG.KDF2: TPMS_SCHEME_HASH,
                TPM_ALG.KDF1_SP800_108: TPMS_SCHEME_HASH,
                TPM_ALG.NULL: Empty(),
            },
        )
    )


@frozen(kw_only=True)
class TPMS_ECC_PARMS(Structure):
    """The parameters of an ECC key."""

    symmetric: TPMT_SYM_DEF_OBJECT = wire(TPMT_SYM_DEF_OBJECT)
    scheme: TPMT_ECC_SCHEME = wire(TPMT_ECC_SCHEME)
    curveID: int = wire(TPMI_ECC_CURVE)
    kdf: TPMT_KDF_SCHEME = wire(TPMT_KDF_SCHEME)


@frozen(kw_only=True)
class TPMS_RSA_PARMS(Structure):
    """The parameters of an RSA key; exponent 0 stands for 65537."""

    symmetric: TPMT_SYM_DEF_OBJECT = wire(TPMT_SYM_DEF_OBJECT)
    scheme: TPMT_RSA_SCHEME = wire(TPMT_RSA_SCHEME)
    keyBits: int = wire(TPMI_RSA_KEY_BITS)
    exponent: int = wire(UINT32)


@frozen(kw_only=True)
class TPMS_ECC_POINT(Structure):
    """A point of a curve."""

    x: bytes = wire(TPM2B_ECC_PARAMETER)
    y: bytes = wire(TPM2B_ECC_PARAMETER)


@frozen(kw_only=True)
class TPMT_PUBLIC(Structure):
    """The public area of an object."""

    type: int = wire(TPMI_ALG_PUBLIC)
    nameAlg: int = wire(TPMI_ALG_HASH)
    objectAttributes: int = wire(Number("I", reserved=0xFFFFFFFF & ~sum(TPMA_OBJECT)))
    authPolicy: bytes = wire(TPM2B_DIGEST)
    parameters: TPMS_ECC_PARMS | TPMS_RSA_PARMS | TPMT_SYM_DEF_OBJECT | TPMT_KEYEDHASH_SCHEME = wire(
        Select(
            "type",
            {
                TPM_ALG.ECC: TPMS_ECC_PARMS,
                TPM_ALG.RSA: TPMS_RSA_PARMS,
                TPM_ALG.SYMCIPHER: TPMS_SYMCIPHER_PARMS,
                TPM_ALG.KEYEDHASH: TPMT_KEYEDHASH_SCHEME,
            },
        )
    )
    unique: TPMS_ECC_POINT | bytes = wire(
        Select(
            "type",
            {
                TPM_ALG.ECC: TPMS_ECC_POINT,
                TPM_ALG.RSA: TPM2B_PUBLIC_KEY_RSA,
                TPM_ALG.SYMCIPHER: TPM2B_DIGEST,
                TPM_ALG.KEYEDHASH: TPM2B_DIGEST,
            },
        )
    )


TPM2B_PUBLIC = Sized(TPMT_PUBLIC)


@frozen(kw_only=True)
class TPMS_SENSITIVE_CREATE(Structure):
    """What the caller knows of a new object's secrets."""

    userAuth: bytes = wire(TPM2B_AUTH)
    data: bytes = wire(TPM2B_SENSITIVE_DATA)


TPM2B_SENSITIVE_CREATE = Sized(TPMS_SENSITIVE_CREATE)


@frozen(kw_only=True)
class TPMS_CREATION_DATA(Structure):
    """The state of the TPM in which an object was created."""

    pcrSelect: tuple[TPMS_PCR_SELECTION, ...] = wire(TPML_PCR_SELECTION)
    pcrDigest: bytes = wire(TPM2B_DIGEST)
    locality: int = wire(UINT8)
    parentNameAlg: int = wire(TPMI_ALG_HASH_OR_NULL)
    parentName: bytes = wire(TPM2B_NAME)
    parentQualifiedName: bytes = wire(TPM2B_NAME)
    outsideInfo: bytes = wire(TPM2B_DATA)


TPM2B_CREATION_DATA = Sized(TPMS_CREATION_DATA)


@frozen(kw_only=True)
class TPMT_TK_CREATION(Structure):
    """Proof that this TPM created an object with that creation data."""

    tag: int = wire(TicketTag(TPM_ST.CREATION))
    hierarchy: int = wire(TPMI_RH_HIERARCHY)
    digest: bytes = wire(TPM2B_DIGEST)
