"""Templates of primary keys that both ends know.

Models: an attestation key (restricted signing), a general signing key and a storage parent, all P-256 with SHA-256;
the endorsement keys, RSA-2048 and P-256, whose use needs the endorsement hierarchy's authorisation by policy.
Leaves out: endorsement keys of other sizes.
Sources: TPM 2.0 Library part 1, chapter 25; TCG EK Credential Profile 2.3, annex B (templates L-1 and L-2).
"""

from __future__ import annotations

import attrs

from sim.tpm.constants import TPM_ALG, TPM_ECC, TPMA_OBJECT
from sim.tpm.wire import (
    TPMS_ECC_PARMS,
    TPMS_ECC_POINT,
    TPMS_RSA_PARMS,
    TPMS_SCHEME_HASH,
    TPMT_ECC_SCHEME,
    TPMT_KDF_SCHEME,
    TPMT_PUBLIC,
    TPMT_RSA_SCHEME,
    TPMT_SYM_DEF_OBJECT,
)

__all__ = ["ATTESTATION_KEY", "EK_ECC", "EK_POLICY", "EK_RSA", "SIGNING_KEY", "STORAGE_PARENT"]

_OWN = (
    TPMA_OBJECT.fixedTPM
    | TPMA_OBJECT.fixedParent
    | TPMA_OBJECT.sensitiveDataOrigin
    | TPMA_OBJECT.userWithAuth
)
_NO_SYMMETRIC = TPMT_SYM_DEF_OBJECT(algorithm=TPM_ALG.NULL.value, keyBits=None, mode=None)
_AES_128_CFB = TPMT_SYM_DEF_OBJECT(algorithm=TPM_ALG.AES.value, keyBits=128, mode=TPM_ALG.CFB.value)
_NO_SCHEME = TPMT_ECC_SCHEME(scheme=TPM_ALG.NULL.value, details=None)
_ECDSA_SHA256 = TPMT_ECC_SCHEME(
    scheme=TPM_ALG.ECDSA.value, details=TPMS_SCHEME_HASH(hashAlg=TPM_ALG.SHA256.value)
)


def _p256(attributes: int, symmetric: TPMT_SYM_DEF_OBJECT, scheme: TPMT_ECC_SCHEME) -> TPMT_PUBLIC:
    return TPMT_PUBLIC(
        type=TPM_ALG.ECC.value,
        nameAlg=TPM_ALG.SHA256.value,
        objectAttributes=int(attributes),
        authPolicy=b"",
        parameters=TPMS_ECC_PARMS(
            symmetric=symmetric,
            scheme=scheme,
            curveID=TPM_ECC.NIST_P256.value,
            kdf=TPMT_KDF_SCHEME(scheme=TPM_ALG.NULL.value, details=None),
        ),
        unique=TPMS_ECC_POINT(x=b"", y=b""),
    )


ATTESTATION_KEY = _p256(_OWN | TPMA_OBJECT.restricted | TPMA_OBJECT.sign, _NO_SYMMETRIC, _ECDSA_SHA256)
"""Signs only what the TPM itself made."""

SIGNING_KEY = _p256(_OWN | TPMA_OBJECT.sign, _NO_SYMMETRIC, _NO_SCHEME)
"""Signs anything, with the scheme that each command names."""

STORAGE_PARENT = _p256(_OWN | TPMA_OBJECT.restricted | TPMA_OBJECT.decrypt, _AES_128_CFB, _NO_SCHEME)
"""Protects other keys."""

EK_POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
"""The digest of PolicySecret of the endorsement hierarchy, with SHA-256."""

_EK_ATTRIBUTES = int(
    TPMA_OBJECT.fixedTPM
    | TPMA_OBJECT.fixedParent
    | TPMA_OBJECT.sensitiveDataOrigin
    | TPMA_OBJECT.adminWithPolicy
    | TPMA_OBJECT.restricted
    | TPMA_OBJECT.decrypt
)
_RSA_BITS, _P256_BYTES = 2048, 32

EK_RSA = TPMT_PUBLIC(
    type=TPM_ALG.RSA.value,
    nameAlg=TPM_ALG.SHA256.value,
    objectAttributes=_EK_ATTRIBUTES,
    authPolicy=EK_POLICY,
    parameters=TPMS_RSA_PARMS(
        symmetric=_AES_128_CFB,
        scheme=TPMT_RSA_SCHEME(scheme=TPM_ALG.NULL.value, details=None),
        keyBits=_RSA_BITS,
        exponent=0,
    ),
    unique=bytes(_RSA_BITS // 8),
)
"""The RSA endorsement key."""

EK_ECC = attrs.evolve(
    _p256(TPMA_OBJECT(_EK_ATTRIBUTES), _AES_128_CFB, _NO_SCHEME),
    authPolicy=EK_POLICY,
    unique=TPMS_ECC_POINT(x=bytes(_P256_BYTES), y=bytes(_P256_BYTES)),
)
"""The P-256 endorsement key."""
