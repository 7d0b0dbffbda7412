"""What the commands of the group "nvram" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.constants import TPM_CC
from sim.tpm.requests import NV, NV_AUTH, CommandSpec, plain, user
from sim.tpm.wire import TPM2B_MAX_NV_BUFFER, TPM2B_NAME, TPM2B_NV_PUBLIC, UINT16

__all__ = ["SPECS"]

SPECS = (
    CommandSpec(code=TPM_CC.NV_ReadPublic, handles=(plain(NV),), results=(TPM2B_NV_PUBLIC, TPM2B_NAME)),
    CommandSpec(
        code=TPM_CC.NV_Read,
        handles=(user(NV, NV_AUTH), plain(NV)),
        parameters=(UINT16, UINT16),
        results=(TPM2B_MAX_NV_BUFFER,),
    ),
)
