"""May this session do this to that entity?  Passwords, HMACs and policies, checked in the library's order.

Models: the roles USER, ADMIN and DUP; availability of authorisation value and policy; comparison of passwords and
HMACs, and failures that count against guessing; what a policy session must meet; indices that hold a PIN.
Leaves out: reading the session area and answering it (`sim.tpm.dispatch`).
Sources: TPM 2.0 Library part 1, chapter 19; part 3, chapter 5; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

import attrs
from attrs import define, field, frozen

from sim.tpm.constants import (
    TPM_ALG,
    TPM_CC,
    TPM_HT,
    TPM_NT,
    TPM_RC,
    TPM_RH,
    TPMA_NV,
    TPMA_OBJECT,
    TPMA_SESSION,
)
from sim.tpm.crypto.kdf import HASH_NAMES
from sim.tpm.entities import Entity, entity_of, name_of_handle
from sim.tpm.hashing import hash_bytes
from sim.tpm.refusal import RefusedError, in_session
from sim.tpm.requests import CommandSpec, Role
from sim.tpm.wire import TPMS_AUTH_COMMAND

if TYPE_CHECKING:
    from sim.tpm.device import Tpm
    from sim.tpm.sessions import PolicyState, Session

__all__ = [
    "Request",
    "SessionUse",
    "bound_identity",
    "check_use",
    "guards_of",
    "hmac_of",
    "is_value_available",
]

_NV_WRITES = frozenset(
    {TPM_CC.NV_Write, TPM_CC.NV_Increment, TPM_CC.NV_SetBits, TPM_CC.NV_Extend, TPM_CC.NV_WriteLock}
)
_NV_READS = frozenset({TPM_CC.NV_Read, TPM_CC.NV_ReadLock, TPM_CC.NV_Certify, TPM_CC.PolicyNV})
_TEMPLATE_COMMANDS = frozenset({TPM_CC.Create, TPM_CC.CreatePrimary, TPM_CC.CreateLoaded})
_OBJECT_KINDS = (TPM_HT.TRANSIENT, TPM_HT.PERSISTENT)
_OTHER_USES = TPMA_SESSION.audit | TPMA_SESSION.decrypt | TPMA_SESSION.encrypt
_NV_TYPE_SHIFT = 4
_PIN_BYTES = 8
_NOBODY = Entity(handle=TPM_RH.NULL.value, name=b"")


@frozen(kw_only=True)
class SessionUse:
    """One session of a command; `session` is None for a password, `handle` None where it authorises nothing."""

    number: int
    area: TPMS_AUTH_COMMAND
    session: Session | None
    handle: int | None
    role: Role


@define(kw_only=True)
class Request:
    """A command as the sessions see it: code, handles, parameter bytes as received, and the session uses."""

    tpm: Tpm
    spec: CommandSpec
    handles: tuple[int, ...]
    parameters: bytes
    uses: list[SessionUse] = field(factory=list)
    decrypt: SessionUse | None = None
    encrypt: SessionUse | None = None
    audit: SessionUse | None = None
    audit_alg: int = 0
    """The hash of the command audit before the action: a command that changes it is not audited."""
    names: bytes = b""
    cp_hashes: dict[int, bytes] = field(factory=dict)

    def take_names(self) -> None:
        """Note the names of the handles and the hash of the audit before the command can change them."""
        self.audit_alg = self.tpm.command_audit.hash_alg
        self.names = b"".join(name_of_handle(self.tpm, handle) for handle in self.handles)

    def cp_hash(self, hash_alg: int) -> bytes:
        """Return the digest of the command: its code, the names of its handles, and its parameters as received."""
        found = self.cp_hashes.get(hash_alg)
        if found is None:
            code = self.spec.code.to_bytes(4, "big")
            found = self.cp_hashes[hash_alg] = hash_bytes(hash_alg, code + self.names + self.parameters)
        return found

    def foreign_nonces(self, use: SessionUse) -> bytes:
        """Return the nonces of the encrypting sessions that the first session's HMAC covers too."""
        if use.number != 1:
            return b""
        nonces = b""
        if self.decrypt is not None and self.decrypt is not use and self.decrypt.session is not None:
            nonces += self.decrypt.session.nonce_tpm
        other = self.encrypt not in (None, use, self.decrypt)
        if other and self.encrypt is not None and self.encrypt.session is not None:
            nonces += self.encrypt.session.nonce_tpm
        return nonces


def check_use(request: Request, use: SessionUse) -> None:
    """Check one session of a command, which is none for trial; failures of guarded entities are counted."""
    if use.handle is None:
        _check_unassociated(request, use)
        return
    tpm, session = request.tpm, use.session
    entity = entity_of(tpm, use.handle)
    _need_unlocked(tpm, entity, session)
    if session is not None and session.is_policy:
        by_value = _check_by_policy(request, use, entity, session)
    else:
        by_value = True
        _check_by_value(request, use, entity)
    if by_value and entity.kind == TPM_HT.NV_INDEX:
        _count_pin(tpm, entity, passed=True)


def _check_by_policy(request: Request, use: SessionUse, entity: Entity, session: Session) -> bool:
    """Check a policy session; tell whether it took the authorisation value too."""
    if not _is_policy_available(entity, request.spec.code):
        raise RefusedError(TPM_RC.AUTH_UNAVAILABLE)
    _check_policy(request, use, entity, session)
    if session.policy.needs_password:
        _check_password(request.tpm, use, entity)
    else:
        _check_hmac(request, use, entity, session)
    return session.policy.needs_password or session.policy.needs_auth_value


def _check_by_value(request: Request, use: SessionUse, entity: Entity) -> None:
    """Check a password or the HMAC of an HMAC session."""
    if _is_policy_required(entity, use.role):
        raise RefusedError(TPM_RC.AUTH_TYPE)
    if not is_value_available(request.tpm, entity, request.spec.code, use.role):
        raise RefusedError(TPM_RC.AUTH_UNAVAILABLE)
    if use.session is None:
        _check_password(request.tpm, use, entity)
    else:
        _check_hmac(request, use, entity, use.session)


def _check_unassociated(request: Request, use: SessionUse) -> None:
    """Check a session that is there for audit or encryption only."""
    session = use.session
    if session is None:
        raise in_session(TPM_RC.HANDLE, use.number)
    if not use.area.sessionAttributes & _OTHER_USES:
        raise in_session(TPM_RC.ATTRIBUTES, use.number)
    _need_unlocked(request.tpm, _NOBODY, session)
    _check_hmac(request, use, None, session)


def _need_unlocked(tpm: Tpm, entity: Entity, session: Session | None) -> None:
    """Refuse while guessing at the entity, or at what the session is bound to, is locked out."""
    lockout, guarded = guards_of(entity, session)
    if not guarded and not lockout:
        return
    tpm.da.heal(tpm.time.time_ms(tpm.clock.now))
    if tpm.da.is_locked(lockout=lockout):
        raise RefusedError(TPM_RC.LOCKOUT)


def guards_of(entity: Entity, session: Session | None) -> tuple[bool, bool]:
    """Tell whether an authorisation tries the lockout's value, and whether it tries any guarded value."""
    lockout, guarded = entity.handle == TPM_RH.LOCKOUT, entity.guarded
    if session is not None:
        if session.is_policy and not (session.policy.needs_auth_value or session.policy.needs_password):
            lockout = guarded = False
        lockout = lockout or session.bound_lockout
        guarded = guarded or session.bound_guarded
    return lockout, guarded


def is_value_available(tpm: Tpm, entity: Entity, code: int, role: Role) -> bool:
    """Whether the authorisation value of an entity may be used for a command in that role."""
    if entity.kind in _OBJECT_KINDS:
        if role is Role.USER:
            return entity.has_secret and bool(entity.attributes & TPMA_OBJECT.userWithAuth)
        return (
            entity.has_secret and role is Role.ADMIN and not entity.attributes & TPMA_OBJECT.adminWithPolicy
        )
    if entity.kind != TPM_HT.NV_INDEX:
        return True
    if code in _NV_WRITES:
        usable = bool(entity.attributes & TPMA_NV.AUTHWRITE)
    elif code in _NV_READS:
        usable = bool(entity.attributes & TPMA_NV.AUTHREAD)
    else:
        usable = bool(entity.attributes & (TPMA_NV.AUTHREAD | TPMA_NV.AUTHWRITE))
    return usable and _pin_is_usable(tpm, entity)


def _is_policy_required(entity: Entity, role: Role) -> bool:
    """Whether nothing but a policy gives that role over that entity."""
    if role is Role.USER:
        return entity.kind == TPM_HT.PCR and bool(entity.policy)
    if role is Role.DUP or entity.kind == TPM_HT.NV_INDEX:
        return True
    return entity.kind in _OBJECT_KINDS and bool(entity.attributes & TPMA_OBJECT.adminWithPolicy)


def _is_policy_available(entity: Entity, code: int) -> bool:
    if not entity.has_secret:
        return False
    if entity.kind == TPM_HT.NV_INDEX:
        if code in _NV_WRITES and not entity.attributes & TPMA_NV.POLICYWRITE:
            return False
        if code in _NV_READS and not entity.attributes & TPMA_NV.POLICYREAD:
            return False
    is_object = entity.kind in (TPM_HT.TRANSIENT, TPM_HT.PERSISTENT)
    return bool(entity.policy) or (is_object and entity.policy_alg != TPM_ALG.NULL)


def _check_policy(request: Request, use: SessionUse, entity: Entity, session: Session) -> None:
    """Check that the policy is the entity's, and that its conditions hold for this command now."""
    tpm, policy, number = request.tpm, session.policy, use.number
    code = request.spec.code
    if code == TPM_CC.PolicySecret and not (policy.needs_password or policy.needs_auth_value):
        raise RefusedError(TPM_RC.MODE)
    if policy.pcr_counter is not None and policy.pcr_counter != tpm.pcrs.update_counter:
        raise RefusedError(TPM_RC.PCR_CHANGED)
    if entity.policy != policy.digest or entity.policy_alg != session.auth_hash:
        raise in_session(TPM_RC.POLICY_FAIL, number)
    if policy.timeout_ms is not None and _is_expired(tpm, policy):
        raise in_session(TPM_RC.EXPIRED, number)
    if policy.command_code:
        if policy.command_code != code:
            raise in_session(TPM_RC.POLICY_CC, number)
    elif use.role is not Role.USER:
        raise in_session(TPM_RC.POLICY_FAIL, number)
    if policy.locality and not _at_locality(policy.locality, tpm.locality):
        raise RefusedError(TPM_RC.LOCALITY)
    if policy.needs_presence and not tpm.physical_presence:
        raise in_session(TPM_RC.PP, number)
    if not _fits_hashes(request, session) or not _fits_written(policy, entity):
        raise in_session(TPM_RC.POLICY_FAIL, number)


def _fits_written(policy: PolicyState, entity: Entity) -> bool:
    if policy.nv_written is None:
        return True
    written = bool(entity.attributes & TPMA_NV.WRITTEN)
    return entity.kind == TPM_HT.NV_INDEX and written == policy.nv_written


def _is_expired(tpm: Tpm, policy: PolicyState) -> bool:
    assert policy.timeout_ms is not None
    return policy.timeout_boot != tpm.boot_number or policy.timeout_ms < tpm.time.time_ms(tpm.clock.now)


def _at_locality(allowed: int, locality: int) -> bool:
    """Whether a TPMA_LOCALITY allows a locality; from 32 on it names just one."""
    return bool(allowed >> locality & 1) if allowed < 32 else allowed == locality


def _fits_hashes(request: Request, session: Session) -> bool:
    policy, hash_alg = session.policy, session.auth_hash
    if policy.cp_hash:
        return policy.cp_hash == request.cp_hash(hash_alg)
    if policy.name_hash:
        return policy.name_hash == hash_bytes(hash_alg, request.names)
    if policy.template_hash:
        template = _template_of(request)
        return template is not None and policy.template_hash == hash_bytes(hash_alg, template)
    return True


def _template_of(request: Request) -> bytes | None:
    """Return the template of a creating command: the content of its second parameter."""
    if request.spec.code not in _TEMPLATE_COMMANDS:
        return None
    data = request.parameters
    first_end = 2 + int.from_bytes(data[:2], "big")
    start = first_end + 2
    end = start + int.from_bytes(data[first_end:start], "big")
    return data[start:end] if end <= len(data) else None


def _check_password(tpm: Tpm, use: SessionUse, entity: Entity) -> None:
    password = use.area.hmac
    if password != entity.auth and not hmac.compare_digest(password.rstrip(b"\0"), entity.auth):
        raise _failure(tpm, use, entity)


def _check_hmac(request: Request, use: SessionUse, entity: Entity | None, session: Session) -> None:
    area = use.area
    foreign = request.foreign_nonces(use)
    expected = hmac_of(
        session,
        entity,
        request.cp_hash(session.auth_hash),
        area.nonce,
        session.nonce_tpm,
        foreign,
        area.sessionAttributes,
        may_be_empty=not area.hmac,
    )
    if not hmac.compare_digest(expected, area.hmac):
        raise _failure(request.tpm, use, entity)


def hmac_of(  # noqa: PLR0917 - what the HMAC covers, in the library's order
    session: Session,
    entity: Entity | None,
    digest: bytes,
    nonce_newer: bytes,
    nonce_older: bytes,
    foreign_nonces: bytes,
    attributes: int,
    *,
    may_be_empty: bool,
) -> bytes:
    """Return the HMAC of a command or response under a session; without any key it may be left empty."""
    key = session.key
    if entity is not None and _takes_value(session, entity):
        key += entity.auth
    if not key and may_be_empty:
        return b""
    message = digest + nonce_newer + nonce_older + foreign_nonces + bytes([attributes])
    return hmac.digest(key, message, HASH_NAMES[session.auth_hash])


def _takes_value(session: Session, entity: Entity) -> bool:
    """Whether the authorisation value is part of the key: not where the session is bound to it already."""
    if session.is_policy:
        return session.policy.needs_auth_value
    return session.bound_to is None or session.bound_to != bound_identity(entity)


def bound_identity(entity: Entity) -> bytes:
    """Return what identifies an entity together with its authorisation value."""
    return len(entity.name).to_bytes(2, "big") + entity.name + entity.auth


def _failure(tpm: Tpm, use: SessionUse, entity: Entity | None) -> RefusedError:
    """Count a failed authorisation where that is due, and return the refusal."""
    session = use.session
    lockout = entity is not None and entity.handle == TPM_RH.LOCKOUT
    guarded = entity is not None and entity.guarded
    if session is not None:
        lockout = lockout or session.bound_lockout
        guarded = guarded or session.bound_guarded
    if entity is not None and entity.kind == TPM_HT.NV_INDEX:
        _count_pin(tpm, entity, passed=False)
    if not guarded and not lockout:
        return in_session(TPM_RC.BAD_AUTH, use.number)
    tpm.da.used = tpm.da.used or not lockout
    tpm.da.fail(tpm.time.time_ms(tpm.clock.now), lockout=lockout)
    return in_session(TPM_RC.AUTH_FAIL, use.number)


def _pin_type(entity: Entity) -> int:
    return entity.attributes >> _NV_TYPE_SHIFT & 0xF


def _pin_is_usable(tpm: Tpm, entity: Entity) -> bool:
    """Whether an index that holds a PIN has been written and has tries left; true of any other index."""
    if _pin_type(entity) not in (TPM_NT.PIN_FAIL, TPM_NT.PIN_PASS):
        return True
    content = tpm.nv[entity.handle].content
    if not entity.attributes & TPMA_NV.WRITTEN or content is None:
        return False
    return int.from_bytes(content[:4], "big") < int.from_bytes(content[4:_PIN_BYTES], "big")


def _count_pin(tpm: Tpm, entity: Entity, *, passed: bool) -> None:
    """Count a use of an index's PIN: each success (PIN pass), or each failure since the last success (PIN fail)."""
    kind = _pin_type(entity)
    if kind not in (TPM_NT.PIN_FAIL, TPM_NT.PIN_PASS) or (kind == TPM_NT.PIN_PASS and not passed):
        return
    index = tpm.nv[entity.handle]
    if index.content is None:
        return
    count = 0 if kind == TPM_NT.PIN_FAIL and passed else int.from_bytes(index.content[:4], "big") + 1
    content = count.to_bytes(4, "big") + index.content[4:]
    tpm.nv[entity.handle] = attrs.evolve(index, content=content)
