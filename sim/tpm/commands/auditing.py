"""GetSessionAuditDigest, GetCommandAuditDigest and SetCommandCodeAuditStatus.

Models: signed digests of an audit session and of the audited commands of the TPM, and the list of the latter.
Leaves out: how the digests grow (`sim.tpm.auditing`).
Sources: TPM 2.0 Library part 3, 18.5, 18.6 and chapter 21; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.tpm.attesting import signed_attestation, signer_at
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RC, TPM_RH, TPM_ST
from sim.tpm.hashing import hash_bytes
from sim.tpm.refusal import in_handle, in_parameter
from sim.tpm.tables import COMMANDS
from sim.tpm.wire import TPMS_COMMAND_AUDIT_INFO, TPMS_SESSION_AUDIT_INFO, TPMT_SIG_SCHEME

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["ACTIONS"]

_SIGNER, _SESSION, _SCHEME = 2, 3, 2


def get_session_audit_digest(  # noqa: PLR0917 - handles and parameters as the library lists them
    tpm: Tpm,
    privacy: int,
    sign_handle: int,
    session_handle: int,
    qualifying_data: bytes,
    in_scheme: TPMT_SIG_SCHEME,
) -> tuple[Any, ...]:
    """Sign the digest of an audit session."""
    signer = signer_at(tpm, sign_handle, in_scheme, _SIGNER, _SCHEME)
    digest = tpm.sessions.loaded[session_handle].audit_digest
    if digest is None:
        raise in_handle(TPM_RC.TYPE, _SESSION)
    exclusive = int(tpm.sessions.exclusive == session_handle)
    attested = TPMS_SESSION_AUDIT_INFO(exclusiveSession=exclusive, sessionDigest=digest)
    return signed_attestation(tpm, signer, TPM_ST.ATTEST_SESSION_AUDIT, qualifying_data, attested)


def get_command_audit_digest(
    tpm: Tpm, privacy: int, sign_handle: int, qualifying_data: bytes, in_scheme: TPMT_SIG_SCHEME
) -> tuple[Any, ...]:
    """Sign the digest over the audited commands so far; when a key signs, the digest begins anew."""
    signer = signer_at(tpm, sign_handle, in_scheme, _SIGNER, _SCHEME)
    audit = tpm.command_audit
    listed = b"".join(code.to_bytes(4, "big") for code in audit.commands)
    attested = TPMS_COMMAND_AUDIT_INFO(
        auditCounter=audit.counter,
        digestAlg=audit.hash_alg,
        auditDigest=audit.digest,
        commandDigest=hash_bytes(audit.hash_alg, listed),
    )
    results = signed_attestation(tpm, signer, TPM_ST.ATTEST_COMMAND_AUDIT, qualifying_data, attested)
    if sign_handle != TPM_RH.NULL:
        audit.begin_anew()
    return results


def set_command_code_audit_status(
    tpm: Tpm, authority: int, hash_alg: int, set_list: tuple[int, ...], clear_list: tuple[int, ...]
) -> tuple[Any, ...]:
    """Change the hash of the command audit, or the list of audited commands; not both at once."""
    audit = tpm.command_audit
    if hash_alg not in (TPM_ALG.NULL, audit.hash_alg):
        if set_list or clear_list:
            raise in_parameter(TPM_RC.VALUE, 1)
        audit.begin_anew(hash_alg)
        return ()
    added = tuple(code for code in set_list if code in COMMANDS and code != TPM_CC.Shutdown)
    audit.set_commands(added, clear_list)
    return ()


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.GetCommandAuditDigest.value: get_command_audit_digest,
    TPM_CC.GetSessionAuditDigest.value: get_session_audit_digest,
    TPM_CC.SetCommandCodeAuditStatus.value: set_command_code_audit_status,
}
"""The actions of this group, by command code."""
