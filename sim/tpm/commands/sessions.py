"""StartAuthSession and PolicyRestart.

Models: HMAC, policy and trial sessions, bound to an entity or not, salted under a key of the TPM or not.
Leaves out: how sessions authorise (`sim.tpm.session_area`).
Sources: TPM 2.0 Library part 3, chapter 11; part 1, 19.6; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.tpm.authorization import bound_identity
from sim.tpm.codec import WireError
from sim.tpm.constants import HASH_BYTES, TPM_ALG, TPM_CC, TPM_HT, TPM_RC, TPM_RH, TPM_SE, TPMA_OBJECT
from sim.tpm.entities import entity_of, object_at
from sim.tpm.nv_rules import PIN_TYPES, index_type
from sim.tpm.protection import SESSION_SECRET, open_secret
from sim.tpm.refusal import in_handle, in_parameter
from sim.tpm.sessions import Session, session_key

if TYPE_CHECKING:
    from sim.tpm.device import Tpm
    from sim.tpm.wire.session import TPMT_SYM_DEF

__all__ = ["ACTIONS", "policy_restart", "start_auth_session"]

NONCE_BYTES_MIN = 16
_NONCE, _SALT, _SYMMETRIC = 1, 2, 4
_NULL = TPM_RH.NULL.value


def start_auth_session(  # noqa: PLR0917 - handles and parameters as the library lists them
    tpm: Tpm,
    tpm_key: int,
    bind: int,
    nonce_caller: bytes,
    encrypted_salt: bytes,
    session_type: int,
    symmetric: TPMT_SYM_DEF,
    auth_hash: int,
) -> tuple[Any, ...]:
    """Begin a session and return its handle and first nonce."""
    if not NONCE_BYTES_MIN <= len(nonce_caller) <= HASH_BYTES[auth_hash]:
        raise in_parameter(TPM_RC.SIZE, _NONCE)
    salt = _salt(tpm, tpm_key, encrypted_salt)
    if not _is_bindable(tpm, bind):
        raise in_handle(TPM_RC.HANDLE, 2)
    if symmetric.mode is not None and symmetric.mode != TPM_ALG.CFB:
        raise in_parameter(TPM_RC.MODE, _SYMMETRIC)
    kind = TPM_SE(session_type)
    handle = tpm.sessions.new_handle(kind)
    nonce_tpm = tpm.random.bytes(len(nonce_caller))
    session = Session(
        handle=handle,
        kind=kind,
        auth_hash=auth_hash,
        symmetric=symmetric,
        key=b"",
        nonce_tpm=nonce_tpm,
        start_ms=tpm.time.time_ms(tpm.clock.now),
    )
    if bind != _NULL:
        entity = entity_of(tpm, bind)
        secret = entity.auth + salt
        if kind is TPM_SE.HMAC:
            session.bound_to = bound_identity(entity)
        session.bound_guarded = entity.guarded and bind != TPM_RH.LOCKOUT
        session.bound_lockout = bind == TPM_RH.LOCKOUT
    else:
        secret = salt
    if bind != _NULL or salt:
        session.key = session_key(auth_hash, secret, nonce_tpm, nonce_caller)
    tpm.sessions.add(session)
    return (handle, nonce_tpm)


def _is_bindable(tpm: Tpm, bind: int) -> bool:
    """Tell whether an entity has a value to bind to: an index that holds a PIN, or a bare public key, has none."""
    kind = bind >> 24
    if kind == TPM_HT.NV_INDEX:
        return index_type(tpm.nv[bind].public.attributes) not in PIN_TYPES
    return kind not in (TPM_HT.TRANSIENT, TPM_HT.PERSISTENT) or not object_at(tpm, bind).public_only


def _salt(tpm: Tpm, key: int, encrypted: bytes) -> bytes:
    """Recover the salt that the caller hid for a key; there is one if and only if there is a key."""
    if key == _NULL:
        if encrypted:
            raise in_parameter(TPM_RC.VALUE, _SALT)
        return b""
    loaded = object_at(tpm, key)
    if loaded.public.type not in (TPM_ALG.RSA, TPM_ALG.ECC):
        raise in_handle(TPM_RC.KEY, 1)
    if not encrypted:
        raise in_parameter(TPM_RC.VALUE, _SALT)
    if loaded.public_only:
        raise in_handle(TPM_RC.HANDLE, 1)
    if not loaded.attributes & TPMA_OBJECT.decrypt:
        raise in_handle(TPM_RC.ATTRIBUTES, 1)
    try:
        return open_secret(loaded, SESSION_SECRET, encrypted)
    except WireError:
        raise in_parameter(TPM_RC.VALUE, _SALT) from None


def policy_restart(tpm: Tpm, policy_session: int) -> tuple[Any, ...]:
    """Forget every assertion of a policy session."""
    tpm.sessions.loaded[policy_session].restart_policy(tpm.time.time_ms(tpm.clock.now))
    return ()


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.PolicyRestart.value: policy_restart,
    TPM_CC.StartAuthSession.value: start_auth_session,
}
"""The actions of this group, by command code."""
