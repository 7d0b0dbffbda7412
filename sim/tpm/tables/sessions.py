"""What the commands of the group "sessions" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.codec import codec_of
from sim.tpm.constants import TPM_CC, TPM_RH
from sim.tpm.requests import (
    LOCKOUT,
    NULL,
    NV,
    PCR,
    PERSISTENT,
    POLICY_SESSION,
    TRANSIENT,
    CommandSpec,
    plain,
)
from sim.tpm.wire import TPMI_ALG_HASH
from sim.tpm.wire.private import TPM2B_ENCRYPTED_SECRET
from sim.tpm.wire.session import TPM2B_NONCE, TPM_SE_CODEC, TPMT_SYM_DEF

__all__ = ["SPECS"]

_HIERARCHIES = frozenset({TPM_RH.OWNER.value, TPM_RH.ENDORSEMENT.value, TPM_RH.PLATFORM.value})

SPECS = (
    CommandSpec(
        code=TPM_CC.StartAuthSession,
        handles=(
            plain(TRANSIENT, PERSISTENT, NULL),
            plain(TRANSIENT, PERSISTENT, NULL, NV, PCR, LOCKOUT, _HIERARCHIES),
        ),
        parameters=(
            TPM2B_NONCE,
            TPM2B_ENCRYPTED_SECRET,
            TPM_SE_CODEC,
            codec_of(TPMT_SYM_DEF),
            TPMI_ALG_HASH,
        ),
        returns_handle=True,
        results=(TPM2B_NONCE,),
    ),
    CommandSpec(code=TPM_CC.PolicyRestart, handles=(plain(POLICY_SESSION),)),
)
