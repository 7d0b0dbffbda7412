"""Points, curve parameters and decryption schemes, as the asymmetric commands take and give them.

Models: these structures.  Leaves out: keys (`sim.tpm.wire.public`).
Source: TCG TPM 2.0 Library part 2 "Structures", revision 1.64, section 11.2.
"""
# ruff: noqa: N801, N815, RUF009 - the specification's own spelling; `wire` makes an attrs field

from __future__ import annotations

from attrs import frozen

from sim.tpm.codec import Empty, Number, Select, Sized, Structure, variant, wire
from sim.tpm.constants import TPM_ALG, TPM_RC
from sim.tpm.wire.basic import TPM2B_ECC_PARAMETER, UINT16
from sim.tpm.wire.public import (
    TPMS_ECC_POINT,
    TPMS_SCHEME_HASH,
    TPMT_ECC_SCHEME,
    TPMT_KDF_SCHEME,
    TPMT_RSA_SCHEME,
)

__all__ = [
    "TPM2B_ECC_POINT",
    "TPMI_ECC_KEY_EXCHANGE",
    "TPMS_ALGORITHM_DETAIL_ECC",
    "TPMT_RSA_DECRYPT",
]

TPM2B_ECC_POINT = Sized(TPMS_ECC_POINT)
TPMI_ECC_KEY_EXCHANGE = Number(
    "H", allowed=frozenset({TPM_ALG.ECDH, TPM_ALG.ECMQV, TPM_ALG.SM2}), rc=TPM_RC.SCHEME
)
TPMT_RSA_DECRYPT = variant(
    TPMT_RSA_SCHEME,
    scheme=Number("H", allowed=frozenset({TPM_ALG.RSAES, TPM_ALG.OAEP, TPM_ALG.NULL})),
)
"""The padding that a command asks for."""


_ANY_HASH = variant(TPMS_SCHEME_HASH, hashAlg=UINT16)
_DEFAULT_KDF = variant(
    TPMT_KDF_SCHEME,
    details=Select("scheme", {TPM_ALG.KDF1_SP800_56A: _ANY_HASH, TPM_ALG.NULL: Empty()}),
)
"""The key derivation that goes with a curve: SM2 names SM3, which is not implemented."""


@frozen(kw_only=True)
class TPMS_ALGORITHM_DETAIL_ECC(Structure):
    """The numbers of a curve; kdf and sign are its default schemes."""

    curveID: int = wire(UINT16)
    keySize: int = wire(UINT16)
    kdf: TPMT_KDF_SCHEME = wire(_DEFAULT_KDF)
    sign: TPMT_ECC_SCHEME = wire(TPMT_ECC_SCHEME)
    p: bytes = wire(TPM2B_ECC_PARAMETER)
    a: bytes = wire(TPM2B_ECC_PARAMETER)
    b: bytes = wire(TPM2B_ECC_PARAMETER)
    gX: bytes = wire(TPM2B_ECC_PARAMETER)
    gY: bytes = wire(TPM2B_ECC_PARAMETER)
    n: bytes = wire(TPM2B_ECC_PARAMETER)
    h: bytes = wire(TPM2B_ECC_PARAMETER)
