"""What the commands of the group "objects" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.codec import Number, codec_of
from sim.tpm.constants import TPM_CC
from sim.tpm.requests import HIERARCHY, PERSISTENT, TRANSIENT, CommandSpec, HandleSet, plain, user
from sim.tpm.wire import (
    SESSION_HANDLES,
    TPM2B_CREATION_DATA,
    TPM2B_DATA,
    TPM2B_DIGEST,
    TPM2B_NAME,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPML_PCR_SELECTION,
    TPMT_TK_CREATION,
)

__all__ = ["SPECS"]

SPECS = (
    CommandSpec(
        code=TPM_CC.CreatePrimary,
        handles=(user(HIERARCHY),),
        parameters=(TPM2B_SENSITIVE_CREATE, TPM2B_PUBLIC, TPM2B_DATA, TPML_PCR_SELECTION),
        returns_handle=True,
        results=(TPM2B_PUBLIC, TPM2B_CREATION_DATA, TPM2B_DIGEST, codec_of(TPMT_TK_CREATION), TPM2B_NAME),
    ),
    CommandSpec(
        code=TPM_CC.ReadPublic,
        handles=(plain(TRANSIENT, PERSISTENT),),
        results=(TPM2B_PUBLIC, TPM2B_NAME, TPM2B_NAME),
    ),
    CommandSpec(
        code=TPM_CC.FlushContext, parameters=(Number("I", allowed=HandleSet(TRANSIENT, SESSION_HANDLES)),)
    ),
)
