"""The session area of a command and the one of its response.

Models: reading and judging up to three sessions, decryption of the first parameter; and after the action new nonces,
encryption of the first result, HMACs, audit digests, and the end of sessions that do not continue.
Leaves out: the rules of one authorisation (`sim.tpm.authorization`).
Sources: TPM 2.0 Library part 1, chapters 18 and 19; part 3, chapter 5; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.tpm.auditing import audit_command, audit_session
from sim.tpm.authorization import Request, SessionUse, check_use, guards_of, hmac_of
from sim.tpm.codec import WireError, codec_of
from sim.tpm.constants import TPM_ALG, TPM_HT, TPM_RC, TPM_RH, TPMA_SESSION
from sim.tpm.entities import Entity, entity_of
from sim.tpm.hashing import hash_bytes
from sim.tpm.parameter_encryption import crypt_parameter
from sim.tpm.refusal import RefusedError, in_session
from sim.tpm.requests import CommandSpec, Role
from sim.tpm.wire import TPMS_AUTH_COMMAND, TPMS_AUTH_RESPONSE

if TYPE_CHECKING:
    from sim.tpm.device import Tpm
    from sim.tpm.sessions import Session

__all__ = ["PASSWORD_ANSWER", "answer_sessions", "check_sessions", "decrypt_parameters", "read_sessions"]

_SESSIONS_MAX = 3
_AUTH_COMMAND = codec_of(TPMS_AUTH_COMMAND)
_CONTINUE = TPMA_SESSION.continueSession.value
_DECRYPT = TPMA_SESSION.decrypt.value
_ENCRYPT = TPMA_SESSION.encrypt.value
_AUDIT = TPMA_SESSION.audit.value
_EXCLUSIVE = TPMA_SESSION.auditExclusive.value
_RESET = TPMA_SESSION.auditReset.value
_PASSWORD = TPM_RH.PW.value
PASSWORD_ANSWER = TPMS_AUTH_RESPONSE(nonce=b"", sessionAttributes=_CONTINUE, hmac=b"").encode()


def read_sessions(request: Request, data: bytes, at: int, end: int) -> None:
    """Read the session area between `at` and `end` into the request's uses."""
    spec = request.spec
    authorised = [
        (handle, declared.role)
        for handle, declared in zip(request.handles, spec.handles, strict=True)
        if declared.authorised
    ]
    while at < end:
        number = len(request.uses) + 1
        if number > _SESSIONS_MAX:
            raise in_session(TPM_RC.SIZE, number)
        try:
            area, at = _AUTH_COMMAND.decode(data, at, end)
        except WireError as wrong:
            raise in_session(wrong.rc, number) from None
        handle, role = authorised[number - 1] if number <= len(authorised) else (None, Role.USER)
        session = None
        if area.sessionHandle != _PASSWORD:
            session = request.tpm.sessions.loaded.get(area.sessionHandle)
            if session is None:
                raise _absent(request.tpm, area.sessionHandle, number)
        use = SessionUse(number=number, area=area, session=session, handle=handle, role=role)
        _note_attributes(request, use)
        request.uses.append(use)


def _absent(tpm: Tpm, handle: int, number: int) -> RefusedError:
    """Return the refusal of a session that is not loaded, or not of the type that its handle says."""
    if tpm.sessions.is_loaded_otherwise(handle):
        return in_session(TPM_RC.HANDLE, number)
    return RefusedError(TPM_RC.REFERENCE_S0 + number - 1)


def _note_attributes(request: Request, use: SessionUse) -> None:
    """Refuse attributes that contradict themselves or an earlier session, and note what the session is used for."""
    attributes, number, session = use.area.sessionAttributes, use.number, use.session
    if session is None:
        if attributes & ~_CONTINUE:
            raise in_session(TPM_RC.ATTRIBUTES, number)
        if use.area.nonce:
            raise in_session(TPM_RC.NONCE, number)
        return
    if any(session is other.session for other in request.uses):
        raise in_session(TPM_RC.HANDLE, number)
    if attributes & _DECRYPT:
        _need_first(request.decrypt, number)
        _need_possible(number, possible=request.spec.decryptable)
        _need_cipher(session, number)
        request.decrypt = use
    if attributes & _ENCRYPT:
        _need_first(request.encrypt, number)
        _need_possible(number, possible=request.spec.encryptable)
        _need_cipher(session, number)
        request.encrypt = use
    if attributes & _AUDIT:
        _need_first(request.audit, number)
        _need_possible(number, possible=not session.is_policy)
        request.audit = use


def _need_first(earlier: SessionUse | None, number: int) -> None:
    """Refuse a second session for a use that one session only can have."""
    if earlier is not None:
        raise in_session(TPM_RC.ATTRIBUTES, number)


def _need_possible(number: int, *, possible: bool) -> None:
    """Refuse a use that the command or the kind of session does not have."""
    if not possible:
        raise in_session(TPM_RC.ATTRIBUTES, number)


def _need_cipher(session: Session, number: int) -> None:
    if session.symmetric.algorithm == TPM_ALG.NULL:
        raise in_session(TPM_RC.SYMMETRIC, number)


def check_sessions(request: Request) -> None:
    """Check all sessions of a command, one after the other."""
    spec, tpm = request.spec, request.tpm
    if len(request.uses) < spec.authorised_count:
        raise RefusedError(TPM_RC.AUTH_MISSING)
    for use in request.uses:
        if use.session is not None and use.session.is_trial:
            raise in_session(TPM_RC.ATTRIBUTES, use.number)
        _check_presence(tpm, spec, use)
        check_use(request, use)
    audit = request.audit
    if audit is not None and audit.session is not None and audit.area.sessionAttributes & _EXCLUSIVE:
        fresh = audit.session.audit_digest is None or audit.area.sessionAttributes & _RESET
        if not fresh and tpm.sessions.exclusive != audit.session.handle:
            raise RefusedError(TPM_RC.EXCLUSIVE)


def _check_presence(tpm: Tpm, spec: CommandSpec, use: SessionUse) -> None:
    needed = use.handle == TPM_RH.PLATFORM and spec.code in tpm.presence_commands
    if needed and not tpm.physical_presence:
        raise in_session(TPM_RC.PP, use.number)


def decrypt_parameters(request: Request) -> bytes:
    """Return the parameters of a command in the clear."""
    use, data = request.decrypt, request.parameters
    if use is None or use.session is None:
        return data
    if len(data) < 2:
        raise in_session(TPM_RC.INSUFFICIENT, use.number)
    end = 2 + int.from_bytes(data[:2], "big")
    if end > len(data):
        raise in_session(TPM_RC.SIZE, use.number)
    session = use.session
    value = session.key + (entity_of(request.tpm, use.handle).auth if use.handle is not None else b"")
    clear = crypt_parameter(
        session.symmetric,
        session.auth_hash,
        value,
        use.area.nonce,
        session.nonce_tpm,
        data[2:end],
        decrypt=True,
    )
    return data[:2] + clear + data[end:]


def answer_sessions(request: Request, parameters: bytes, before: dict[int, Entity]) -> tuple[bytes, bytes]:
    """Return the parameters of a response as sent, and its session area; `before` holds the entities as they were."""
    tpm = request.tpm
    for use in request.uses:
        if use.handle is not None and guards_of(before[use.handle], use.session) == (False, True):
            tpm.da.used = True
        if use.session is not None:
            use.session.nonce_tpm = tpm.random.bytes(len(use.session.nonce_tpm))
    after = {handle: _entity_after(tpm, entity) for handle, entity in before.items()}
    sent = _encrypted(request, parameters, after)
    hashes: dict[int, bytes] = {}
    _audit(request, sent, hashes)
    area = b""
    for use in request.uses:
        if use.session is None:
            area += PASSWORD_ANSWER
        else:
            rp_hash = _rp_hash(request, hashes, use.session.auth_hash, sent)
            area += _answer(request, use, rp_hash, after)
    for use in request.uses:
        _end(tpm, use)
    return sent, area


def _audit(request: Request, sent: bytes, hashes: dict[int, bytes]) -> None:
    tpm, audit = request.tpm, request.tpm.command_audit
    if request.spec.code in audit.commands and request.audit_alg == audit.hash_alg:
        cp_hash = request.cp_hash(audit.hash_alg)
        audit_command(audit, cp_hash, _rp_hash(request, hashes, audit.hash_alg, sent))
    if request.audit is not None and request.audit.session is not None:
        audit_session(request, _rp_hash(request, hashes, request.audit.session.auth_hash, sent))
    elif request.spec.sessions_allowed:
        tpm.sessions.exclusive = TPM_RH.NULL.value


def _rp_hash(request: Request, hashes: dict[int, bytes], hash_alg: int, sent: bytes) -> bytes:
    """Return the digest of the response: its code (0), the command's code, and the parameters as sent."""
    found = hashes.get(hash_alg)
    if found is None:
        message = bytes(4) + request.spec.code.to_bytes(4, "big") + sent
        found = hashes[hash_alg] = hash_bytes(hash_alg, message)
    return found


def _entity_after(tpm: Tpm, entity: Entity) -> Entity:
    """Return an entity as the command left it: an index that is gone has no authorisation value any more."""
    kind = entity.kind
    if kind == TPM_HT.NV_INDEX and entity.handle not in tpm.nv:
        return Entity(handle=entity.handle, name=entity.name)
    gone = kind == TPM_HT.TRANSIENT and entity.handle not in tpm.objects
    if gone or (kind == TPM_HT.PERSISTENT and entity.handle not in tpm.persistent):
        return entity
    return entity_of(tpm, entity.handle)


def _encrypted(request: Request, parameters: bytes, after: dict[int, Entity]) -> bytes:
    use = request.encrypt
    if use is None or use.session is None:
        return parameters
    session = use.session
    end = 2 + int.from_bytes(parameters[:2], "big")
    value = session.key + (after[use.handle].auth if use.handle is not None else b"")
    hidden = crypt_parameter(
        session.symmetric,
        session.auth_hash,
        value,
        session.nonce_tpm,
        use.area.nonce,
        parameters[2:end],
        decrypt=False,
    )
    return parameters[:2] + hidden + parameters[end:]


def _answer(request: Request, use: SessionUse, rp_hash: bytes, after: dict[int, Entity]) -> bytes:
    """Return the answer of one session, with the HMAC under the authorisation value that holds now."""
    session = use.session
    assert session is not None
    attributes = use.area.sessionAttributes
    if attributes & _AUDIT:
        attributes &= ~_EXCLUSIVE
        if request.tpm.sessions.exclusive == session.handle:
            attributes |= _EXCLUSIVE
    nonce = session.nonce_tpm
    entity = after[use.handle] if use.handle is not None else None
    if session.is_policy and session.policy.needs_password:
        mac = b""
    else:
        empty = not use.area.hmac
        mac = hmac_of(session, entity, rp_hash, nonce, use.area.nonce, b"", attributes, may_be_empty=empty)
    return TPMS_AUTH_RESPONSE(nonce=nonce, sessionAttributes=attributes, hmac=mac).encode()


def _end(tpm: Tpm, use: SessionUse) -> None:
    """Flush a session that does not continue; a policy session that was used begins anew."""
    session = use.session
    if session is None:
        return
    if not use.area.sessionAttributes & _CONTINUE:
        tpm.sessions.flush(session.handle)
    elif session.is_policy:
        session.restart_policy(tpm.time.time_ms(tpm.clock.now))
