"""What the commands of the group "attestation" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.codec import codec_of
from sim.tpm.constants import TPM_CC, TPM_RH
from sim.tpm.requests import NULL, NV, NV_AUTH, PERSISTENT, TRANSIENT, CommandSpec, admin, plain, user
from sim.tpm.wire import (
    TPM2B_ATTEST,
    TPM2B_DATA,
    TPM2B_DIGEST,
    TPML_PCR_SELECTION,
    TPMS_TIME_INFO,
    TPMT_SIG_SCHEME,
    TPMT_SIGNATURE,
    TPMT_TK_CREATION,
    UINT16,
)

__all__ = ["SPECS"]

_SIGNER = user(TRANSIENT, PERSISTENT, NULL)
_SCHEME = codec_of(TPMT_SIG_SCHEME)
_ATTESTED = (TPM2B_ATTEST, codec_of(TPMT_SIGNATURE))
_ENDORSEMENT = frozenset({TPM_RH.ENDORSEMENT.value})

SPECS = (
    CommandSpec(
        code=TPM_CC.Quote,
        handles=(_SIGNER,),
        parameters=(TPM2B_DATA, _SCHEME, TPML_PCR_SELECTION),
        results=_ATTESTED,
    ),
    CommandSpec(
        code=TPM_CC.Certify,
        handles=(admin(TRANSIENT, PERSISTENT), _SIGNER),
        parameters=(TPM2B_DATA, _SCHEME),
        results=_ATTESTED,
    ),
    CommandSpec(
        code=TPM_CC.CertifyCreation,
        handles=(_SIGNER, plain(TRANSIENT, PERSISTENT)),
        parameters=(TPM2B_DATA, TPM2B_DIGEST, _SCHEME, codec_of(TPMT_TK_CREATION)),
        results=_ATTESTED,
    ),
    CommandSpec(
        code=TPM_CC.GetTime,
        handles=(user(_ENDORSEMENT), _SIGNER),
        parameters=(TPM2B_DATA, _SCHEME),
        results=_ATTESTED,
    ),
    CommandSpec(
        code=TPM_CC.NV_Certify,
        handles=(_SIGNER, user(NV_AUTH, NV), plain(NV)),
        parameters=(TPM2B_DATA, _SCHEME, UINT16, UINT16),
        results=_ATTESTED,
    ),
    CommandSpec(code=TPM_CC.ReadClock, results=(codec_of(TPMS_TIME_INFO),)),
)
