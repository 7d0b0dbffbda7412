"""What the commands of the group "signing" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.codec import codec_of
from sim.tpm.constants import TPM_CC
from sim.tpm.requests import PERSISTENT, TRANSIENT, CommandSpec, plain, user
from sim.tpm.wire import (
    TPM2B_DIGEST,
    TPM2B_ECC_PARAMETER,
    TPM2B_SENSITIVE_DATA,
    TPMT_SIG_SCHEME,
    TPMT_SIGNATURE,
    UINT16,
)
from sim.tpm.wire.asymmetric import TPM2B_ECC_POINT
from sim.tpm.wire.attest import GIVEN_SIGNATURE
from sim.tpm.wire.session import TPMT_TK_VERIFIED
from sim.tpm.wire.tickets import TPMT_TK_HASHCHECK

__all__ = ["SPECS"]

_KEY = user(TRANSIENT, PERSISTENT)

SPECS = (
    CommandSpec(
        code=TPM_CC.Sign,
        handles=(_KEY,),
        parameters=(TPM2B_DIGEST, codec_of(TPMT_SIG_SCHEME), codec_of(TPMT_TK_HASHCHECK)),
        results=(codec_of(TPMT_SIGNATURE),),
    ),
    CommandSpec(
        code=TPM_CC.VerifySignature,
        handles=(plain(TRANSIENT, PERSISTENT),),
        parameters=(TPM2B_DIGEST, GIVEN_SIGNATURE),
        results=(codec_of(TPMT_TK_VERIFIED),),
    ),
    CommandSpec(
        code=TPM_CC.Commit,
        handles=(_KEY,),
        parameters=(TPM2B_ECC_POINT, TPM2B_SENSITIVE_DATA, TPM2B_ECC_PARAMETER),
        results=(TPM2B_ECC_POINT, TPM2B_ECC_POINT, TPM2B_ECC_POINT, UINT16),
    ),
)
