"""What the commands of the group "auditing" take and give; see `sim.tpm.requests` for the form."""

from __future__ import annotations

from sim.tpm.codec import codec_of
from sim.tpm.constants import TPM_CC, TPM_RH
from sim.tpm.requests import HMAC_SESSION, NULL, NV_AUTH, PERSISTENT, TRANSIENT, CommandSpec, plain, user
from sim.tpm.wire import TPM2B_ATTEST, TPM2B_DATA, TPMI_ALG_HASH_OR_NULL, TPMT_SIG_SCHEME, TPMT_SIGNATURE
from sim.tpm.wire.session import TPML_CC

__all__ = ["SPECS"]

_ENDORSEMENT = user(frozenset({TPM_RH.ENDORSEMENT.value}))
_SIGNER = user(TRANSIENT, PERSISTENT, NULL)
_SCHEME = codec_of(TPMT_SIG_SCHEME)
_ATTESTED = (TPM2B_ATTEST, codec_of(TPMT_SIGNATURE))

SPECS = (
    CommandSpec(
        code=TPM_CC.GetSessionAuditDigest,
        handles=(_ENDORSEMENT, _SIGNER, plain(HMAC_SESSION)),
        parameters=(TPM2B_DATA, _SCHEME),
        results=_ATTESTED,
    ),
    CommandSpec(
        code=TPM_CC.GetCommandAuditDigest,
        handles=(_ENDORSEMENT, _SIGNER),
        parameters=(TPM2B_DATA, _SCHEME),
        results=_ATTESTED,
        changes_nv=True,
    ),
    CommandSpec(
        code=TPM_CC.SetCommandCodeAuditStatus,
        handles=(user(NV_AUTH),),
        parameters=(TPMI_ALG_HASH_OR_NULL, TPML_CC, TPML_CC),
        changes_nv=True,
    ),
)
