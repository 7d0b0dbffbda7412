"""What the commands of the group "hierarchies" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.codec import Number
from sim.tpm.constants import TPM_CC, TPM_RH
from sim.tpm.requests import LOCKOUT, CommandSpec, user
from sim.tpm.wire import TPM2B_AUTH, TPM2B_DIGEST, TPMI_ALG_HASH_OR_NULL, TPMI_YES_NO, UINT32
from sim.tpm.wire.session import TPML_CC

__all__ = ["SPECS"]

_HIERARCHIES = frozenset({TPM_RH.OWNER.value, TPM_RH.ENDORSEMENT.value, TPM_RH.PLATFORM.value})
_PLATFORM = frozenset({TPM_RH.PLATFORM.value})
_CLEAR = LOCKOUT | _PLATFORM
_ENABLES = Number("I", allowed=_HIERARCHIES | {TPM_RH.PLATFORM_NV.value})

SPECS = (
    CommandSpec(
        code=TPM_CC.HierarchyControl,
        handles=(user(_HIERARCHIES),),
        parameters=(_ENABLES, TPMI_YES_NO),
        changes_nv=True,
        extensive=True,
    ),
    CommandSpec(
        code=TPM_CC.SetPrimaryPolicy,
        handles=(user(_HIERARCHIES | LOCKOUT),),
        parameters=(TPM2B_DIGEST, TPMI_ALG_HASH_OR_NULL),
        changes_nv=True,
    ),
    CommandSpec(
        code=TPM_CC.HierarchyChangeAuth,
        handles=(user(_HIERARCHIES | LOCKOUT),),
        parameters=(TPM2B_AUTH,),
        changes_nv=True,
    ),
    CommandSpec(code=TPM_CC.ChangePPS, handles=(user(_PLATFORM),), changes_nv=True, extensive=True),
    CommandSpec(code=TPM_CC.ChangeEPS, handles=(user(_PLATFORM),), changes_nv=True, extensive=True),
    CommandSpec(code=TPM_CC.Clear, handles=(user(_CLEAR),), changes_nv=True, extensive=True),
    CommandSpec(
        code=TPM_CC.ClearControl, handles=(user(_CLEAR),), parameters=(TPMI_YES_NO,), changes_nv=True
    ),
    CommandSpec(code=TPM_CC.DictionaryAttackLockReset, handles=(user(LOCKOUT),), changes_nv=True),
    CommandSpec(
        code=TPM_CC.DictionaryAttackParameters,
        handles=(user(LOCKOUT),),
        parameters=(UINT32, UINT32, UINT32),
        changes_nv=True,
    ),
    CommandSpec(
        code=TPM_CC.PP_Commands, handles=(user(_PLATFORM),), parameters=(TPML_CC, TPML_CC), changes_nv=True
    ),
    CommandSpec(
        code=TPM_CC.SetAlgorithmSet, handles=(user(_PLATFORM),), parameters=(UINT32,), changes_nv=True
    ),
)
