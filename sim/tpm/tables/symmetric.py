"""What the commands of the group "symmetric" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.codec import SizedBytes, codec_of
from sim.tpm.constants import TPM_CC
from sim.tpm.requests import PERSISTENT, TRANSIENT, CommandSpec, user
from sim.tpm.wire import (
    TPM2B_DIGEST,
    TPM2B_MAX_BUFFER,
    TPMI_ALG_HASH,
    TPMI_YES_NO,
)
from sim.tpm.wire.public import TPMI_ALG_CIPHER_MODE
from sim.tpm.wire.tickets import TPMI_ALG_MAC_SCHEME, TPMI_RH_HIERARCHY, TPMT_TK_HASHCHECK

__all__ = ["SPECS"]

_KEY = user(TRANSIENT, PERSISTENT)
_TPM2B_IV = SizedBytes(16)
_CRYPT_RESULTS = (TPM2B_MAX_BUFFER, _TPM2B_IV)

SPECS = (
    CommandSpec(
        code=TPM_CC.Hash,
        parameters=(TPM2B_MAX_BUFFER, TPMI_ALG_HASH, TPMI_RH_HIERARCHY),
        results=(TPM2B_DIGEST, codec_of(TPMT_TK_HASHCHECK)),
    ),
    CommandSpec(
        code=TPM_CC.HMAC,
        handles=(_KEY,),
        parameters=(TPM2B_MAX_BUFFER, TPMI_ALG_MAC_SCHEME),
        results=(TPM2B_DIGEST,),
    ),
    CommandSpec(
        code=TPM_CC.EncryptDecrypt,
        handles=(_KEY,),
        parameters=(TPMI_YES_NO, TPMI_ALG_CIPHER_MODE, _TPM2B_IV, TPM2B_MAX_BUFFER),
        results=_CRYPT_RESULTS,
    ),
    CommandSpec(
        code=TPM_CC.EncryptDecrypt2,
        handles=(_KEY,),
        parameters=(TPM2B_MAX_BUFFER, TPMI_YES_NO, TPMI_ALG_CIPHER_MODE, _TPM2B_IV),
        results=_CRYPT_RESULTS,
    ),
)
