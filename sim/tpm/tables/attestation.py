"""What the commands of the group "attestation" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.codec import codec_of
from sim.tpm.constants import TPM_CC
from sim.tpm.requests import NULL, PERSISTENT, TRANSIENT, CommandSpec, user
from sim.tpm.wire import (
    TPM2B_ATTEST,
    TPM2B_DATA,
    TPML_PCR_SELECTION,
    TPMS_TIME_INFO,
    TPMT_SIG_SCHEME,
    TPMT_SIGNATURE,
)

__all__ = ["SPECS"]

SPECS = (
    CommandSpec(
        code=TPM_CC.Quote,
        handles=(user(TRANSIENT, PERSISTENT, NULL),),
        parameters=(TPM2B_DATA, codec_of(TPMT_SIG_SCHEME), TPML_PCR_SELECTION),
        results=(TPM2B_ATTEST, codec_of(TPMT_SIGNATURE)),
    ),
    CommandSpec(code=TPM_CC.ReadClock, results=(codec_of(TPMS_TIME_INFO),)),
)
