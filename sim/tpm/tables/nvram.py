"""What the commands of the group "nvram" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.codec import Codec
from sim.tpm.constants import TPM_CC
from sim.tpm.requests import NV, NV_AUTH, CommandSpec, HandleSet, admin, plain, user
from sim.tpm.wire import (
    TPM2B_AUTH,
    TPM2B_MAX_NV_BUFFER,
    TPM2B_NAME,
    TPM2B_NV_PUBLIC,
    UINT16,
    UINT64,
)

__all__ = ["SPECS"]

_ANY_AUTHORITY = HandleSet(NV_AUTH, NV)
_PLATFORM = frozenset({0x4000_000C})


def _on_index(code: TPM_CC, *parameters: Codec, changes_nv: bool = True) -> CommandSpec:
    """Return a command without results that an authority gives on an index."""
    return CommandSpec(
        code=code, handles=(user(_ANY_AUTHORITY), plain(NV)), parameters=parameters, changes_nv=changes_nv
    )


SPECS = (
    CommandSpec(
        code=TPM_CC.NV_DefineSpace,
        handles=(user(NV_AUTH),),
        parameters=(TPM2B_AUTH, TPM2B_NV_PUBLIC),
        changes_nv=True,
    ),
    CommandSpec(code=TPM_CC.NV_UndefineSpace, handles=(user(NV_AUTH), plain(NV)), changes_nv=True),
    CommandSpec(code=TPM_CC.NV_UndefineSpaceSpecial, handles=(admin(NV), user(_PLATFORM)), changes_nv=True),
    CommandSpec(code=TPM_CC.NV_ReadPublic, handles=(plain(NV),), results=(TPM2B_NV_PUBLIC, TPM2B_NAME)),
    _on_index(TPM_CC.NV_Write, TPM2B_MAX_NV_BUFFER, UINT16),
    _on_index(TPM_CC.NV_Increment),
    _on_index(TPM_CC.NV_Extend, TPM2B_MAX_NV_BUFFER),
    _on_index(TPM_CC.NV_SetBits, UINT64),
    _on_index(TPM_CC.NV_WriteLock),
    CommandSpec(code=TPM_CC.NV_GlobalWriteLock, handles=(user(NV_AUTH),), changes_nv=True),
    CommandSpec(
        code=TPM_CC.NV_Read,
        handles=(user(_ANY_AUTHORITY), plain(NV)),
        parameters=(UINT16, UINT16),
        results=(TPM2B_MAX_NV_BUFFER,),
    ),
    _on_index(TPM_CC.NV_ReadLock),
    CommandSpec(code=TPM_CC.NV_ChangeAuth, handles=(admin(NV),), parameters=(TPM2B_AUTH,), changes_nv=True),
)
