"""From the bytes of a command to its action, and from the results to the bytes of the response.

Models: the order of checks of the library: header, command code, handles, sessions and authorisations, parameters,
action.  Sessions are password sessions, as many as the command's handles need.
Leaves out: HMAC, policy and audit sessions and parameter encryption (their handles are never loaded here), and the
counting of failed authorisations.
Sources: TCG TPM 2.0 Library part 3, chapter 5 "Command Processing"; part 1, chapter 19; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

import hmac
import struct
from typing import TYPE_CHECKING, Any

from sim.tpm.codec import WireError, codec_of
from sim.tpm.commands import ACTIONS
from sim.tpm.constants import TPM_CC, TPM_HT, TPM_RC, TPM_RH, TPM_ST, TPMA_NV, TPMA_OBJECT, TPMA_SESSION
from sim.tpm.refusal import RefusedError, in_handle, in_parameter, in_session
from sim.tpm.requests import CommandSpec
from sim.tpm.tables import COMMANDS
from sim.tpm.wire import TPMS_AUTH_COMMAND, TPMS_AUTH_RESPONSE, UINT32

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["run_command"]

_HEADER = struct.Struct(">HII")
_AUTHORISATION_BYTES_MIN = 9
_SESSIONS_MAX = 3
_STARTUP = TPM_CC.Startup.value
_AUTH_COMMAND = codec_of(TPMS_AUTH_COMMAND)
_CONTINUE = TPMA_SESSION.continueSession.value
_PASSWORD = TPM_RH.PW.value
_NO_SESSIONS = TPM_ST.NO_SESSIONS.value
_SESSIONS = TPM_ST.SESSIONS.value
_EMPTY_PASSWORD = TPMS_AUTH_COMMAND(sessionHandle=_PASSWORD, nonce=b"", sessionAttributes=0, hmac=b"")
_EMPTY_PASSWORD_AREA = _AUTH_COMMAND.encode(_EMPTY_PASSWORD)
_PASSWORD_ANSWER = TPMS_AUTH_RESPONSE(nonce=b"", sessionAttributes=_CONTINUE, hmac=b"").encode()


def run_command(tpm: Tpm, command: bytes) -> bytes:
    """Run one command and return its response; sets `tpm.last_latency_ns`."""
    try:
        spec, response = _run(tpm, command)
    except RefusedError as refused:
        tpm.last_latency_ns = tpm.profile.other_latency_ns
        return _HEADER.pack(_NO_SESSIONS, _HEADER.size, refused.rc)
    tpm.last_latency_ns = tpm.profile.latencies_ns.get(spec.code, tpm.profile.other_latency_ns)
    return response


def _run(tpm: Tpm, command: bytes) -> tuple[CommandSpec, bytes]:
    end = len(command)
    if end < _HEADER.size:
        raise RefusedError(TPM_RC.COMMAND_SIZE)
    tag, size, code = _HEADER.unpack_from(command)
    if tag not in (_NO_SESSIONS, _SESSIONS):
        raise RefusedError(TPM_RC.VALUE)
    if size != end or end > tpm.profile.command_bytes_max:
        raise RefusedError(TPM_RC.COMMAND_SIZE)
    spec = COMMANDS.get(code)
    if spec is None:
        raise RefusedError(TPM_RC.COMMAND_CODE)
    if tpm.started == (code == _STARTUP):
        raise RefusedError(TPM_RC.INITIALIZE)
    arguments, at = _handles(tpm, spec, command, end)
    sessions = 0
    if tag == _SESSIONS:
        sessions, at = _sessions(tpm, spec, arguments, command, at)
    elif spec.authorised_count:
        raise RefusedError(TPM_RC.AUTH_MISSING)
    number = 0
    try:
        for codec in spec.parameters:
            number += 1
            value, at = codec.decode(command, at, end)
            arguments.append(value)
    except WireError as wrong:
        raise in_parameter(wrong.rc, number) from None
    if at != end:
        raise RefusedError(TPM_RC.SIZE)
    results = ACTIONS[code](tpm, *arguments)
    return spec, _response(spec, sessions, results)


def _handles(tpm: Tpm, spec: CommandSpec, command: bytes, end: int) -> tuple[list[Any], int]:
    """Read the handles, check their types, and that what they name is there."""
    at = _HEADER.size
    handles: list[Any] = []
    for number, declared in enumerate(spec.handles, 1):
        try:
            handle, at = UINT32.decode(command, at, end)
        except WireError as wrong:
            raise in_handle(wrong.rc, number) from None
        if handle not in declared.allowed:
            raise in_handle(TPM_RC.VALUE, number)
        handles.append(handle)
    for number, handle in enumerate(handles, 1):
        _need_present(tpm, handle, number)
    return handles, at


def _need_present(tpm: Tpm, handle: int, number: int) -> None:
    kind = handle >> 24
    if kind == TPM_HT.TRANSIENT:
        if (handle & 0xFFFFFF) >= tpm.profile.transient_slots:
            raise in_handle(TPM_RC.VALUE, number)
        if handle not in tpm.objects:
            raise RefusedError(TPM_RC.REFERENCE_H0 + number - 1)
    elif kind == TPM_HT.PERSISTENT or (kind == TPM_HT.NV_INDEX and handle not in tpm.nv):
        raise in_handle(TPM_RC.HANDLE, number)


def _sessions(tpm: Tpm, spec: CommandSpec, handles: list[Any], command: bytes, at: int) -> tuple[int, int]:
    """Read the session area and check each authorisation; return how many sessions there are and what follows."""
    end = len(command)
    if not spec.sessions_allowed:
        raise RefusedError(TPM_RC.AUTH_CONTEXT)
    try:
        size, at = UINT32.decode(command, at, end)
    except WireError as wrong:
        raise RefusedError(wrong.rc) from None
    after = at + size
    if size < _AUTHORISATION_BYTES_MIN or after > end:
        raise RefusedError(TPM_RC.SIZE)
    if command[at:after] == _EMPTY_PASSWORD_AREA and spec.authorised_count:
        sessions = [_EMPTY_PASSWORD]
    else:
        sessions = _read_sessions(command, at, after)
    if len(sessions) < spec.authorised_count:
        raise RefusedError(TPM_RC.AUTH_MISSING)
    authorised = (
        handle for handle, declared in zip(handles, spec.handles, strict=False) if declared.authorised
    )
    for number, (session, handle) in enumerate(zip(sessions, authorised, strict=False), 1):
        _check_password(tpm, handle, session.hmac, number)
    if len(sessions) > spec.authorised_count:
        raise in_session(TPM_RC.HANDLE, spec.authorised_count + 1)
    return len(sessions), after


def _read_sessions(command: bytes, at: int, end: int) -> list[TPMS_AUTH_COMMAND]:
    sessions: list[TPMS_AUTH_COMMAND] = []
    while at < end:
        number = len(sessions) + 1
        if number > _SESSIONS_MAX:
            raise in_session(TPM_RC.SIZE, number)
        try:
            session, at = _AUTH_COMMAND.decode(command, at, end)
        except WireError as wrong:
            raise in_session(wrong.rc, number) from None
        _check_session(session, number)
        sessions.append(session)
    return sessions


def _check_session(session: TPMS_AUTH_COMMAND, number: int) -> None:
    if session.sessionHandle != _PASSWORD:
        raise RefusedError(TPM_RC.REFERENCE_S0 + number - 1)
    if session.sessionAttributes & ~_CONTINUE:
        raise in_session(TPM_RC.ATTRIBUTES, number)
    if session.nonce:
        raise in_session(TPM_RC.NONCE, number)


def _check_password(tpm: Tpm, handle: int, password: bytes, number: int) -> None:
    """Compare a password with the authorisation value of the entity that the handle names."""
    kind = handle >> 24
    expected, wrong = b"", TPM_RC.BAD_AUTH
    if kind == TPM_HT.TRANSIENT:
        loaded = tpm.objects[handle]
        if not loaded.public.objectAttributes & TPMA_OBJECT.userWithAuth:
            raise RefusedError(TPM_RC.AUTH_UNAVAILABLE)
        expected = loaded.auth
        if not loaded.public.objectAttributes & TPMA_OBJECT.noDA:
            wrong = TPM_RC.AUTH_FAIL
    elif kind == TPM_HT.NV_INDEX:
        index = tpm.nv[handle]
        if not index.public.attributes & TPMA_NV.AUTHREAD:
            raise RefusedError(TPM_RC.AUTH_UNAVAILABLE)
        expected = index.auth
        if not index.public.attributes & TPMA_NV.NO_DA:
            wrong = TPM_RC.AUTH_FAIL
    elif handle in tpm.hierarchies:
        expected = tpm.hierarchies[handle].auth
    if password != expected and not hmac.compare_digest(password.rstrip(b"\0"), expected):
        raise in_session(wrong, number)


def _response(spec: CommandSpec, sessions: int, results: tuple[Any, ...]) -> bytes:
    """Put the results into a response; the first is the handle where the command returns one."""
    handle = UINT32.encode(results[0]) if spec.returns_handle else b""
    values = results[1:] if spec.returns_handle else results
    parameters = b"".join([codec.encode(value) for codec, value in zip(spec.results, values, strict=True)])
    if not sessions:
        body = handle + parameters
        return _HEADER.pack(_NO_SESSIONS, _HEADER.size + len(body), 0) + body
    body = handle + UINT32.encode(len(parameters)) + parameters + _PASSWORD_ANSWER * sessions
    return _HEADER.pack(_SESSIONS, _HEADER.size + len(body), 0) + body
