"""What the commands of the group "pcrs" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.codec import Number
from sim.tpm.constants import TPM_CC, TPM_RH
from sim.tpm.requests import NULL, PCR, CommandSpec, user
from sim.tpm.wire import (
    TPM2B_DIGEST,
    TPM2B_EVENT,
    TPMI_ALG_HASH_OR_NULL,
    TPMI_YES_NO,
    TPML_DIGEST,
    TPML_DIGEST_VALUES,
    TPML_PCR_SELECTION,
    UINT32,
)

__all__ = ["SPECS"]

_PLATFORM = frozenset({TPM_RH.PLATFORM.value})

SPECS = (
    CommandSpec(
        code=TPM_CC.PCR_Read,
        parameters=(TPML_PCR_SELECTION,),
        results=(UINT32, TPML_PCR_SELECTION, TPML_DIGEST),
    ),
    CommandSpec(
        code=TPM_CC.PCR_Extend,
        handles=(user(PCR, NULL),),
        parameters=(TPML_DIGEST_VALUES,),
        changes_nv=True,
    ),
    CommandSpec(
        code=TPM_CC.PCR_Event,
        handles=(user(PCR, NULL),),
        parameters=(TPM2B_EVENT,),
        results=(TPML_DIGEST_VALUES,),
        changes_nv=True,
    ),
    CommandSpec(
        code=TPM_CC.PCR_Allocate,
        handles=(user(_PLATFORM),),
        parameters=(TPML_PCR_SELECTION,),
        results=(TPMI_YES_NO, UINT32, UINT32, UINT32),
        changes_nv=True,
    ),
    CommandSpec(
        code=TPM_CC.PCR_SetAuthPolicy,
        handles=(user(_PLATFORM),),
        parameters=(TPM2B_DIGEST, TPMI_ALG_HASH_OR_NULL, Number("I", allowed=PCR)),
        changes_nv=True,
    ),
    CommandSpec(code=TPM_CC.PCR_SetAuthValue, handles=(user(PCR),), parameters=(TPM2B_DIGEST,)),
    CommandSpec(code=TPM_CC.PCR_Reset, handles=(user(PCR),), changes_nv=True),
)
