"""What the commands of the group "chance" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.constants import TPM_CC
from sim.tpm.requests import CommandSpec
from sim.tpm.wire import TPM2B_DIGEST, TPM2B_SENSITIVE_DATA, UINT16

__all__ = ["SPECS"]

SPECS = (
    CommandSpec(code=TPM_CC.GetRandom, parameters=(UINT16,), results=(TPM2B_DIGEST,)),
    CommandSpec(code=TPM_CC.StirRandom, parameters=(TPM2B_SENSITIVE_DATA,), changes_nv=True),
)
