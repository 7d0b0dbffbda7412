"""What the commands of the group "sequences" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.codec import codec_of
from sim.tpm.constants import TPM_CC
from sim.tpm.requests import NULL, PCR, PERSISTENT, TRANSIENT, CommandSpec, user
from sim.tpm.wire import (
    TPM2B_AUTH,
    TPM2B_DIGEST,
    TPM2B_MAX_BUFFER,
    TPMI_ALG_HASH_OR_NULL,
    TPML_DIGEST_VALUES,
)
from sim.tpm.wire.tickets import TPMI_ALG_MAC_SCHEME, TPMI_RH_HIERARCHY, TPMT_TK_HASHCHECK

__all__ = ["SPECS"]

_OBJECT = user(TRANSIENT, PERSISTENT)

SPECS = (
    CommandSpec(
        code=TPM_CC.HMAC_Start,
        handles=(_OBJECT,),
        parameters=(TPM2B_AUTH, TPMI_ALG_MAC_SCHEME),
        returns_handle=True,
    ),
    CommandSpec(
        code=TPM_CC.HashSequenceStart, parameters=(TPM2B_AUTH, TPMI_ALG_HASH_OR_NULL), returns_handle=True
    ),
    CommandSpec(code=TPM_CC.SequenceUpdate, handles=(_OBJECT,), parameters=(TPM2B_MAX_BUFFER,)),
    CommandSpec(
        code=TPM_CC.SequenceComplete,
        handles=(_OBJECT,),
        parameters=(TPM2B_MAX_BUFFER, TPMI_RH_HIERARCHY),
        results=(TPM2B_DIGEST, codec_of(TPMT_TK_HASHCHECK)),
        flushes=True,
    ),
    CommandSpec(
        code=TPM_CC.EventSequenceComplete,
        handles=(user(PCR, NULL), _OBJECT),
        parameters=(TPM2B_MAX_BUFFER,),
        results=(TPML_DIGEST_VALUES,),
        changes_nv=True,
        flushes=True,
    ),
)
