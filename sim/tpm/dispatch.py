"""From the bytes of a command to its action, and from the results to the bytes of the response.

Models: the order of checks of the library: header, command code, handles, sessions and authorisations, parameters,
action.
Leaves out: what sessions authorise (`sim.tpm.session_area`, `sim.tpm.authorization`).
Sources: TCG TPM 2.0 Library part 3, chapter 5 "Command Processing"; part 1, chapter 18; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from sim.tpm.authorization import Request
from sim.tpm.codec import WireError
from sim.tpm.commands import ACTIONS
from sim.tpm.constants import PCR_COUNT, TPM_CC, TPM_HT, TPM_RC, TPM_RH, TPM_ST
from sim.tpm.entities import Entity, entity_of, need_present
from sim.tpm.failure import answer_in_failure_mode
from sim.tpm.latency import latency_ns
from sim.tpm.pcr import AUTH_PCRS
from sim.tpm.refusal import RefusedError, in_handle, in_parameter
from sim.tpm.requests import CommandSpec
from sim.tpm.session_area import (
    PASSWORD_ANSWER,
    answer_sessions,
    check_sessions,
    decrypt_parameters,
    read_sessions,
)
from sim.tpm.tables import COMMANDS
from sim.tpm.wire import TPMS_AUTH_COMMAND

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["run_command"]

_HEADER = struct.Struct(">HII")
_HEADER_BYTES = _HEADER.size
_SIZE = struct.Struct(">I")
_AUTHORISATION_BYTES_MIN = 9
_STARTUP = TPM_CC.Startup.value
_NO_SESSIONS = TPM_ST.NO_SESSIONS.value
_SESSIONS = TPM_ST.SESSIONS.value
_LOCKOUT = TPM_RH.LOCKOUT.value
_NULL = TPM_RH.NULL.value
_TRANSIENT = TPM_HT.TRANSIENT.value
_EMPTY_PASSWORD_AREA = TPMS_AUTH_COMMAND(
    sessionHandle=TPM_RH.PW.value, nonce=b"", sessionAttributes=0, hmac=b""
).encode()


def run_command(tpm: Tpm, command: bytes) -> bytes:
    """Run one command and return its response; sets `tpm.last_latency_ns`."""
    if tpm.failed:
        tpm.last_latency_ns = tpm.profile.other_latency_ns
        return answer_in_failure_mode(tpm.profile, command)
    try:
        spec, response = _run(tpm, command)
    except RefusedError as refused:
        tpm.last_latency_ns = tpm.profile.other_latency_ns
        return _HEADER.pack(_NO_SESSIONS, _HEADER_BYTES, refused.rc)
    finally:
        tpm.borrowed_slots.clear()
    tpm.last_latency_ns = latency_ns(tpm, spec, command)
    return response


def _run(tpm: Tpm, command: bytes) -> tuple[CommandSpec, bytes]:
    end = len(command)
    if end < _HEADER_BYTES:
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
    handles, at = _handles(tpm, spec, command, end)
    request = None
    plain_password = False
    if tag == _SESSIONS:
        after = _session_area_end(spec, command, at)
        plain_password = _is_plain_password(tpm, spec, handles, command[at + _SIZE.size : after])
        if not plain_password:
            request = _checked_request(tpm, spec, handles, command, at + _SIZE.size, after)
        at = after
    elif spec.authorised_count:
        raise RefusedError(TPM_RC.AUTH_MISSING)
    if request is None and code in tpm.command_audit.commands:
        request = _request(tpm, spec, handles, command[at:])
    if request is not None and request.decrypt is not None:
        command, at, end = decrypt_parameters(request), 0, end - at
    arguments = _parameters(spec, command, at, end)
    before = _entities(request)
    results = ACTIONS[code](tpm, *handles, *arguments)
    return spec, _response(tpm, spec, request, before, results, plain_password=plain_password)


def _parameters(spec: CommandSpec, data: bytes, at: int, end: int) -> list[Any]:
    arguments: list[Any] = []
    number = 0
    try:
        for codec in spec.parameters:
            number += 1
            value, at = codec.decode(data, at, end)
            arguments.append(value)
    except WireError as wrong:
        raise in_parameter(wrong.rc, number) from None
    if at != end:
        raise RefusedError(TPM_RC.SIZE)
    return arguments


def _handles(tpm: Tpm, spec: CommandSpec, command: bytes, end: int) -> tuple[tuple[int, ...], int]:
    """Read the handles, check their types, and that what they name is there."""
    after = _HEADER_BYTES + spec.handle_packer.size
    missing = None
    if after > end:  # those that are there are judged first
        missing = (end - _HEADER_BYTES) // 4
        handles = struct.unpack_from(f">{missing}I", command, _HEADER_BYTES)
    else:
        handles = spec.handle_packer.unpack_from(command, _HEADER_BYTES)
    for number, (handle, declared) in enumerate(zip(handles, spec.handles, strict=False), 1):
        no_slot = handle >> 24 == _TRANSIENT and handle & 0xFFFFFF >= tpm.profile.transient_slots
        if no_slot or handle not in declared.allowed:
            raise in_handle(TPM_RC.VALUE, number)
    if missing is not None:
        raise in_handle(TPM_RC.INSUFFICIENT, missing + 1)
    for number, handle in enumerate(handles, 1):
        if handle >= PCR_COUNT:
            need_present(tpm, handle, number)
    return handles, after


def _session_area_end(spec: CommandSpec, command: bytes, at: int) -> int:
    """Return where the session area ends; its size stands at `at`."""
    end = len(command)
    if not spec.sessions_allowed:
        raise RefusedError(TPM_RC.AUTH_CONTEXT)
    if at + _SIZE.size > end:
        raise RefusedError(TPM_RC.INSUFFICIENT)
    (size,) = _SIZE.unpack_from(command, at)
    after: int = at + _SIZE.size + size
    if size < _AUTHORISATION_BYTES_MIN or after > end:
        raise RefusedError(TPM_RC.SIZE)
    return after


def _is_plain_password(tpm: Tpm, spec: CommandSpec, handles: tuple[int, ...], area: bytes) -> bool:
    """Tell whether one empty password authorises the command, as it does nearly always: the short way."""
    if area != _EMPTY_PASSWORD_AREA or spec.authorised_count != 1 or spec.code in tpm.command_audit.commands:
        return False
    handle = handles[0]
    if not handle >> 24:
        return handle not in AUTH_PCRS or tpm.pcrs.is_open
    hierarchy = tpm.hierarchies.get(handle)
    if hierarchy is None or hierarchy.auth or handle == _LOCKOUT:
        return False
    return spec.code not in tpm.presence_commands


def _request(tpm: Tpm, spec: CommandSpec, handles: tuple[int, ...], parameters: bytes) -> Request:
    request = Request(tpm=tpm, spec=spec, handles=handles, parameters=parameters)
    request.take_names()
    return request


def _checked_request(  # noqa: PLR0917 - the command and where its session area lies
    tpm: Tpm, spec: CommandSpec, handles: tuple[int, ...], command: bytes, at: int, after: int
) -> Request:
    """Read the sessions of a command and check them all."""
    request = _request(tpm, spec, handles, command[after:])
    read_sessions(request, command, at, after)
    check_sessions(request)
    return request


def _entities(request: Request | None) -> dict[int, Entity]:
    """Return the entities that the sessions authorise, as they are before the action."""
    if request is None:
        return {}
    named = [use.handle for use in request.uses if use.handle is not None]
    return {handle: entity_of(request.tpm, handle) for handle in named}


def _response(
    tpm: Tpm,
    spec: CommandSpec,
    request: Request | None,
    before: dict[int, Entity],
    results: tuple[Any, ...],
    *,
    plain_password: bool,
) -> bytes:
    """Put the results into a response; the first is the handle where the command returns one."""
    if spec.returns_handle:
        handle, values = _SIZE.pack(results[0]), results[1:]
    else:
        handle, values = b"", results
    if spec.results:
        parameters = b"".join(
            [codec.encode(value) for codec, value in zip(spec.results, values, strict=True)]
        )
    else:
        assert not values
        parameters = b""
    if request is not None:
        parameters, sessions = answer_sessions(request, parameters, before)
    else:
        sessions = PASSWORD_ANSWER if plain_password else b""
        if spec.sessions_allowed:
            tpm.sessions.exclusive = _NULL
    if not sessions:
        body = handle + parameters
        return _HEADER.pack(_NO_SESSIONS, _HEADER_BYTES + len(body), 0) + body
    body = handle + _SIZE.pack(len(parameters)) + parameters + sessions
    return _HEADER.pack(_SESSIONS, _HEADER_BYTES + len(body), 0) + body
