"""What the commands of the group "asymmetric" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.codec import codec_of
from sim.tpm.constants import TPM_CC
from sim.tpm.requests import PERSISTENT, TRANSIENT, CommandSpec, plain, user
from sim.tpm.wire import TPM2B_DATA, TPM2B_PUBLIC_KEY_RSA, TPMI_ECC_CURVE, UINT16
from sim.tpm.wire.asymmetric import (
    TPM2B_ECC_POINT,
    TPMI_ECC_KEY_EXCHANGE,
    TPMS_ALGORITHM_DETAIL_ECC,
    TPMT_RSA_DECRYPT,
)

__all__ = ["SPECS"]

_PRIVATE_KEY = user(TRANSIENT, PERSISTENT)
_PUBLIC_KEY = plain(TRANSIENT, PERSISTENT)
_RSA_PARAMETERS = (TPM2B_PUBLIC_KEY_RSA, TPMT_RSA_DECRYPT, TPM2B_DATA)

SPECS = (
    CommandSpec(
        code=TPM_CC.RSA_Encrypt,
        handles=(_PUBLIC_KEY,),
        parameters=_RSA_PARAMETERS,
        results=(TPM2B_PUBLIC_KEY_RSA,),
    ),
    CommandSpec(
        code=TPM_CC.RSA_Decrypt,
        handles=(_PRIVATE_KEY,),
        parameters=_RSA_PARAMETERS,
        results=(TPM2B_PUBLIC_KEY_RSA,),
    ),
    CommandSpec(code=TPM_CC.ECDH_KeyGen, handles=(_PUBLIC_KEY,), results=(TPM2B_ECC_POINT, TPM2B_ECC_POINT)),
    CommandSpec(
        code=TPM_CC.ECDH_ZGen,
        handles=(_PRIVATE_KEY,),
        parameters=(TPM2B_ECC_POINT,),
        results=(TPM2B_ECC_POINT,),
    ),
    CommandSpec(
        code=TPM_CC.ECC_Parameters,
        parameters=(TPMI_ECC_CURVE,),
        results=(codec_of(TPMS_ALGORITHM_DETAIL_ECC),),
    ),
    CommandSpec(code=TPM_CC.EC_Ephemeral, parameters=(TPMI_ECC_CURVE,), results=(TPM2B_ECC_POINT, UINT16)),
    CommandSpec(
        code=TPM_CC.ZGen_2Phase,
        handles=(_PRIVATE_KEY,),
        parameters=(TPM2B_ECC_POINT, TPM2B_ECC_POINT, TPMI_ECC_KEY_EXCHANGE, UINT16),
        results=(TPM2B_ECC_POINT, TPM2B_ECC_POINT),
    ),
)
