"""What the commands of the group "policies" take and give; see `sim.tpm.requests` for the form.

Leaves out: what they do (`sim.tpm.commands.policies`, `sim.tpm.commands.policy_signers`).
Source: TPM 2.0 Library part 3, chapter 23.
"""

from __future__ import annotations

from sim.tpm.codec import Codec, Structure, codec_of
from sim.tpm.constants import TPM_CC, TPM_RH
from sim.tpm.requests import (
    LOCKOUT,
    NV,
    NV_AUTH,
    PCR,
    PERSISTENT,
    POLICY_SESSION,
    TRANSIENT,
    CommandSpec,
    plain,
    user,
)
from sim.tpm.wire import (
    TPM2B_DIGEST,
    TPM2B_NAME,
    TPMI_YES_NO,
    TPML_PCR_SELECTION,
    UINT16,
    UINT32,
)
from sim.tpm.wire.attest import GIVEN_SIGNATURE
from sim.tpm.wire.session import (
    TPM2B_NONCE,
    TPM2B_OPERAND,
    TPM2B_TIMEOUT,
    TPM_EO_CODEC,
    TPMA_LOCALITY,
    TPML_OR_DIGESTS,
    TPMT_TK_AUTH,
    TPMT_TK_VERIFIED,
)

__all__ = ["SPECS"]

_HIERARCHIES = frozenset({TPM_RH.OWNER.value, TPM_RH.ENDORSEMENT.value, TPM_RH.PLATFORM.value})
_OBJECT = plain(TRANSIENT, PERSISTENT)
_ENTITY = user(TRANSIENT, PERSISTENT, NV, PCR, LOCKOUT, _HIERARCHIES)
_NV_READER = user(NV, NV_AUTH)
_POLICY = plain(POLICY_SESSION)


def _assertion(code: TPM_CC, *parameters: Codec | type[Structure]) -> CommandSpec:
    """Return the command of an assertion that names only the session and gives nothing back."""
    return CommandSpec(code=code, handles=(_POLICY,), parameters=tuple(map(codec_of, parameters)))


SPECS = (
    CommandSpec(
        code=TPM_CC.PolicySigned,
        handles=(_OBJECT, _POLICY),
        parameters=(TPM2B_NONCE, TPM2B_DIGEST, TPM2B_NONCE, UINT32, GIVEN_SIGNATURE),
        results=(TPM2B_TIMEOUT, codec_of(TPMT_TK_AUTH)),
    ),
    CommandSpec(
        code=TPM_CC.PolicySecret,
        handles=(_ENTITY, _POLICY),
        parameters=(TPM2B_NONCE, TPM2B_DIGEST, TPM2B_NONCE, UINT32),
        results=(TPM2B_TIMEOUT, codec_of(TPMT_TK_AUTH)),
    ),
    _assertion(TPM_CC.PolicyTicket, TPM2B_TIMEOUT, TPM2B_DIGEST, TPM2B_NONCE, TPM2B_NAME, TPMT_TK_AUTH),
    _assertion(TPM_CC.PolicyOR, TPML_OR_DIGESTS),
    _assertion(TPM_CC.PolicyPCR, TPM2B_DIGEST, TPML_PCR_SELECTION),
    _assertion(TPM_CC.PolicyLocality, TPMA_LOCALITY),
    CommandSpec(
        code=TPM_CC.PolicyNV,
        handles=(_NV_READER, plain(NV), _POLICY),
        parameters=(TPM2B_OPERAND, UINT16, TPM_EO_CODEC),
    ),
    _assertion(TPM_CC.PolicyCounterTimer, TPM2B_OPERAND, UINT16, TPM_EO_CODEC),
    _assertion(TPM_CC.PolicyCommandCode, UINT32),
    _assertion(TPM_CC.PolicyPhysicalPresence),
    _assertion(TPM_CC.PolicyCpHash, TPM2B_DIGEST),
    _assertion(TPM_CC.PolicyNameHash, TPM2B_DIGEST),
    _assertion(TPM_CC.PolicyDuplicationSelect, TPM2B_NAME, TPM2B_NAME, TPMI_YES_NO),
    _assertion(TPM_CC.PolicyAuthorize, TPM2B_DIGEST, TPM2B_NONCE, TPM2B_NAME, TPMT_TK_VERIFIED),
    _assertion(TPM_CC.PolicyAuthValue),
    _assertion(TPM_CC.PolicyPassword),
    CommandSpec(code=TPM_CC.PolicyGetDigest, handles=(_POLICY,), results=(TPM2B_DIGEST,)),
    _assertion(TPM_CC.PolicyNvWritten, TPMI_YES_NO),
    _assertion(TPM_CC.PolicyTemplate, TPM2B_DIGEST),
    CommandSpec(code=TPM_CC.PolicyAuthorizeNV, handles=(_NV_READER, plain(NV), _POLICY)),
)
