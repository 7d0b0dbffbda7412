"""The policy commands that rest on somebody's word: PolicySigned, PolicySecret, PolicyTicket, PolicyAuthorize(NV).

Models: authorisations with nonce, command hash, reference and expiration; tickets for those that end; replacing a
policy by one that a key or an index approves.
Leaves out: how signatures are checked (`sim.tpm.verification`).
Sources: TPM 2.0 Library part 3, chapter 23; part 1, 19.7; digests equal to those of swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import frozen

from sim.tpm.codec import WireError, codec_of
from sim.tpm.commands.nvram import need_readable
from sim.tpm.constants import HASH_BYTES, TPM_CC, TPM_HT, TPM_NT, TPM_RC, TPM_RH, TPM_ST
from sim.tpm.entities import name_of_handle, object_at
from sim.tpm.hashing import algorithm_of_name, hash_bytes
from sim.tpm.nv_rules import index_type
from sim.tpm.policy import extend_policy, extend_policy_named
from sim.tpm.refusal import RefusedError, in_handle, in_parameter
from sim.tpm.tickets import auth_digest, verified_digest
from sim.tpm.verification import need_valid_signature
from sim.tpm.wire import TPMT_HA, TPMT_SIGNATURE
from sim.tpm.wire.session import TPMT_TK_AUTH, TPMT_TK_VERIFIED

if TYPE_CHECKING:
    from sim.tpm.device import Tpm
    from sim.tpm.sessions import Session

__all__ = ["ACTIONS"]

_NONCE, _CP_HASH, _EXPIRATION, _SIGNATURE = 1, 2, 4, 5
_TICKET_TIMEOUT, _TICKET = 1, 5
_APPROVED, _KEY_SIGN, _CHECK_TICKET = 1, 3, 4
_NULL = TPM_RH.NULL.value
_TIMEOUT_BYTES = 8
_UNTIL_RESET = 1 << 63
"""In a timeout: the authorisation also ends when the TPM's time starts anew."""
_MS_PER_S = 1000


@frozen(kw_only=True)
class _Grant:
    """What an authorisation says: for how long, for which command, under which reference."""

    nonce: bytes
    cp_hash: bytes
    policy_ref: bytes
    expiration: int

    @classmethod
    def of(cls, nonce: bytes, cp_hash: bytes, policy_ref: bytes, expiration: int) -> _Grant:
        signed = expiration - (1 << 32) if expiration >> 31 else expiration
        return cls(nonce=nonce, cp_hash=cp_hash, policy_ref=policy_ref, expiration=signed)

    def timeout_ms(self, session: Session) -> int:
        """Return when it ends in the TPM's time, 0 for never; with a nonce it counts from the session's start."""
        if not self.expiration:
            return 0
        return abs(self.expiration) * _MS_PER_S + (session.start_ms if self.nonce else 0)


def policy_signed(  # noqa: PLR0917 - handles and parameters as the library lists them
    tpm: Tpm,
    auth_object: int,
    handle: int,
    nonce: bytes,
    cp_hash: bytes,
    policy_ref: bytes,
    expiration: int,
    signature: TPMT_SIGNATURE,
) -> tuple[Any, ...]:
    """Accept an authorisation that a key signed."""
    session = tpm.sessions.loaded[handle]
    grant = _Grant.of(nonce, cp_hash, policy_ref, expiration)
    if not session.is_trial:
        _check_grant(tpm, session, grant)
        hash_alg = getattr(signature.signature, "hash", getattr(signature.signature, "hashAlg", None))
        if hash_alg is None:
            raise in_parameter(TPM_RC.SCHEME, _SIGNATURE)
        message = nonce + expiration.to_bytes(4, "big") + cp_hash + policy_ref
        loaded = object_at(tpm, auth_object)
        need_valid_signature(loaded, hash_bytes(hash_alg, message), signature, _SIGNATURE)
    return _accept(tpm, session, auth_object, TPM_CC.PolicySigned, grant)


def policy_secret(  # noqa: PLR0917 - handles and parameters as the library lists them
    tpm: Tpm, entity: int, handle: int, nonce: bytes, cp_hash: bytes, policy_ref: bytes, expiration: int
) -> tuple[Any, ...]:
    """Accept an authorisation by somebody who knows an entity's secret, which the session area has proved."""
    session = tpm.sessions.loaded[handle]
    grant = _Grant.of(nonce, cp_hash, policy_ref, expiration)
    if not session.is_trial:
        _check_grant(tpm, session, grant)
    return _accept(tpm, session, entity, TPM_CC.PolicySecret, grant)


def _check_grant(tpm: Tpm, session: Session, grant: _Grant) -> None:
    if grant.nonce and grant.nonce != session.nonce_tpm:
        raise in_parameter(TPM_RC.NONCE, _NONCE)
    _check_timeout(tpm, grant.timeout_ms(session), _EXPIRATION)
    _check_cp_hash(session, grant.cp_hash)


def _check_timeout(tpm: Tpm, timeout_ms: int, number: int) -> None:
    if timeout_ms and timeout_ms < tpm.time.time_ms(tpm.clock.now):
        raise in_parameter(TPM_RC.EXPIRED, number)


def _check_cp_hash(session: Session, cp_hash: bytes) -> None:
    if not cp_hash:
        return
    if len(cp_hash) != HASH_BYTES[session.auth_hash]:
        raise in_parameter(TPM_RC.SIZE, _CP_HASH)
    policy = session.policy
    if policy.name_hash or policy.template_hash or policy.cp_hash not in (b"", cp_hash):
        raise RefusedError(TPM_RC.CPHASH)


def _accept(tpm: Tpm, session: Session, entity: int, code: TPM_CC, grant: _Grant) -> tuple[Any, ...]:
    """Enter an authorisation into the session; return its timeout and ticket, both empty unless one was asked."""
    name = name_of_handle(tpm, entity)
    timeout_ms = grant.timeout_ms(session)
    _enter(tpm, session, code, name, grant.policy_ref, grant.cp_hash, timeout_ms)
    tag = (TPM_ST.AUTH_SIGNED if code is TPM_CC.PolicySigned else TPM_ST.AUTH_SECRET).value
    if grant.expiration >= 0 or session.is_trial or _is_pin_pass(tpm, entity):
        return (b"", TPMT_TK_AUTH(tag=tag, hierarchy=_NULL, digest=b""))
    stated = timeout_ms | (0 if grant.nonce else _UNTIL_RESET)
    timeout = stated.to_bytes(_TIMEOUT_BYTES, "big")
    hierarchy = _hierarchy_of(tpm, entity)
    digest = auth_digest(tpm, tag, hierarchy, timeout, grant.cp_hash, grant.policy_ref, name)
    return (timeout, TPMT_TK_AUTH(tag=tag, hierarchy=hierarchy, digest=digest))


def _enter(  # noqa: PLR0917 - all that an authorisation leaves in the session
    tpm: Tpm,
    session: Session,
    code: TPM_CC,
    name: bytes,
    policy_ref: bytes,
    cp_hash: bytes,
    timeout_ms: int,
) -> None:
    policy = session.policy
    extend_policy_named(session, code, name, policy_ref)
    if cp_hash:
        policy.cp_hash = cp_hash
    if session.is_trial:
        return
    if timeout_ms and (policy.timeout_ms is None or timeout_ms < policy.timeout_ms):
        policy.timeout_ms, policy.timeout_boot = timeout_ms, tpm.boot_number


def _hierarchy_of(tpm: Tpm, handle: int) -> int:
    """Return the hierarchy whose proof vouches for a ticket of that entity."""
    kind = handle >> 24
    if kind in (TPM_HT.TRANSIENT, TPM_HT.PERSISTENT):
        return int(object_at(tpm, handle).hierarchy)
    if handle in (TPM_RH.PLATFORM, TPM_RH.ENDORSEMENT, TPM_RH.NULL):
        return handle
    return TPM_RH.OWNER.value


def _is_pin_pass(tpm: Tpm, handle: int) -> bool:
    """Whether an entity is an index whose uses are counted: a ticket would give it uncounted ones."""
    if handle >> 24 != TPM_HT.NV_INDEX:
        return False
    return index_type(tpm.nv[handle].public.attributes) == TPM_NT.PIN_PASS


def policy_ticket(  # noqa: PLR0917 - handles and parameters as the library lists them
    tpm: Tpm,
    handle: int,
    timeout: bytes,
    cp_hash: bytes,
    policy_ref: bytes,
    auth_name: bytes,
    ticket: TPMT_TK_AUTH,
) -> tuple[Any, ...]:
    """Accept an earlier authorisation again, by the ticket that PolicySigned or PolicySecret gave."""
    session = tpm.sessions.loaded[handle]
    if session.is_trial:
        raise in_handle(TPM_RC.ATTRIBUTES, 1)
    if len(timeout) != _TIMEOUT_BYTES:
        raise in_parameter(TPM_RC.SIZE, _TICKET_TIMEOUT)
    timeout_ms = int.from_bytes(timeout, "big") & ~_UNTIL_RESET
    _check_timeout(tpm, timeout_ms, _TICKET_TIMEOUT)
    _check_cp_hash(session, cp_hash)
    expected = auth_digest(tpm, ticket.tag, ticket.hierarchy, timeout, cp_hash, policy_ref, auth_name)
    if expected != ticket.digest:
        raise in_parameter(TPM_RC.TICKET, _TICKET)
    code = TPM_CC.PolicySigned if ticket.tag == TPM_ST.AUTH_SIGNED else TPM_CC.PolicySecret
    _enter(tpm, session, code, auth_name, policy_ref, cp_hash, timeout_ms)
    return ()


def policy_authorize(  # noqa: PLR0917 - handles and parameters as the library lists them
    tpm: Tpm,
    handle: int,
    approved: bytes,
    policy_ref: bytes,
    key_sign: bytes,
    ticket: TPMT_TK_VERIFIED,
) -> tuple[Any, ...]:
    """Replace the policy by "whatever this key approves", if a ticket says that the key approved it."""
    session = tpm.sessions.loaded[handle]
    hash_alg = algorithm_of_name(key_sign)
    if hash_alg not in HASH_BYTES:
        raise in_parameter(TPM_RC.HASH, _KEY_SIGN)
    if len(key_sign) != 2 + HASH_BYTES[hash_alg]:
        raise in_parameter(TPM_RC.SIZE, _KEY_SIGN)
    if not session.is_trial:
        if approved != session.policy.digest:
            raise in_parameter(TPM_RC.VALUE, _APPROVED)
        digest = hash_bytes(hash_alg, approved + policy_ref)
        if ticket.digest != verified_digest(tpm, ticket.hierarchy, digest, key_sign):
            raise in_parameter(TPM_RC.VALUE, _CHECK_TICKET)
    session.policy.digest = bytes(HASH_BYTES[session.auth_hash])
    extend_policy_named(session, TPM_CC.PolicyAuthorize, key_sign, policy_ref)
    return ()


def policy_authorize_nv(tpm: Tpm, authority: int, nv_index: int, handle: int) -> tuple[Any, ...]:
    """Replace the policy by "whatever this index holds", if it holds the policy digest so far."""
    session = tpm.sessions.loaded[handle]
    if not session.is_trial:
        content = need_readable(tpm, authority, nv_index).content
        assert content is not None
        try:
            held, _ = codec_of(TPMT_HA).decode(content, 0, len(content))
        except WireError as wrong:
            raise RefusedError(wrong.rc) from None
        if held.hashAlg != session.auth_hash:
            raise RefusedError(TPM_RC.HASH)
        if held.digest != session.policy.digest:
            raise RefusedError(TPM_RC.VALUE)
    session.policy.digest = bytes(HASH_BYTES[session.auth_hash])
    extend_policy(session, TPM_CC.PolicyAuthorizeNV, tpm.nv[nv_index].name)
    return ()


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.PolicyAuthorize.value: policy_authorize,
    TPM_CC.PolicyAuthorizeNV.value: policy_authorize_nv,
    TPM_CC.PolicySecret.value: policy_secret,
    TPM_CC.PolicySigned.value: policy_signed,
    TPM_CC.PolicyTicket.value: policy_ticket,
}
"""The actions of this group, by command code."""
