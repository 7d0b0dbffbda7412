"""What the commands of the group "pcrs" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.constants import TPM_CC
from sim.tpm.requests import NULL, PCR, CommandSpec, user
from sim.tpm.wire import TPM2B_EVENT, TPML_DIGEST, TPML_DIGEST_VALUES, TPML_PCR_SELECTION, UINT32

__all__ = ["SPECS"]

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
    CommandSpec(code=TPM_CC.PCR_Reset, handles=(user(PCR),), changes_nv=True),
)
