"""Templates of primary keys that both ends know.

Models: an attestation key (restricted signing), a general signing key and a storage parent, all P-256 with SHA-256.
Leaves out: endorsement keys, whose use needs policy sessions.
Sources: TPM 2.0 Library part 1, chapter 25; TCG EK Credential Profile for the storage parameters.
"""

from __future__ import annotations

from sim.tpm.constants import TPM_ALG, TPM_ECC, TPMA_OBJECT
from sim.tpm.wire import (
    TPMS_ECC_PARMS,
    TPMS_ECC_POINT,
    TPMS_SCHEME_HASH,
    TPMT_ECC_SCHEME,
    TPMT_KDF_SCHEME,
    TPMT_PUBLIC,
    TPMT_SYM_DEF_OBJECT,
)

__all__ = ["ATTESTATION_KEY", "SIGNING_KEY", "STORAGE_PARENT"]

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
