"""One line of plain words for each command and its answer: who asked, for what, on whose authority, and the outcome.

Models: `in_words`, which reads any bytes by the same tables as the device, and never fails.
Leaves out: the content of results, and secrets (authorisation values, sensitive areas).
Source: TPM 2.0 Library part 3, through `sim.tpm.tables` and `sim.tpm.phrases`.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from string import Formatter
from typing import Any

from sim.tpm.codec import WireError, codec_of
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_HT, TPM_RH, TPM_ST, TPMA_SESSION, rc_name
from sim.tpm.phrases import PHRASES
from sim.tpm.requests import CommandSpec
from sim.tpm.tables import COMMANDS
from sim.tpm.wire import TPMS_AUTH_COMMAND, TPMS_PCR_SELECTION, TPMT_HA

__all__ = ["handle_in_words", "in_words"]

_HEADER = struct.Struct(">HII")
_BYTES_SHOWN = 8
PHRASES_MAX = 256
_SESSIONS_SHOWN_MAX = 3
_PERMANENT = {
    TPM_RH.OWNER.value: "the owner",
    TPM_RH.ENDORSEMENT.value: "the endorsement hierarchy",
    TPM_RH.PLATFORM.value: "the platform",
    TPM_RH.LOCKOUT.value: "lockout",
    TPM_RH.NULL.value: "the null hierarchy",
}
_KINDS = {
    TPM_HT.NV_INDEX.value: "NV index",
    TPM_HT.HMAC_SESSION.value: "HMAC session",
    TPM_HT.POLICY_SESSION.value: "policy session",
    TPM_HT.TRANSIENT.value: "object",
    TPM_HT.PERSISTENT.value: "persistent object",
}
_AUTH_COMMAND = codec_of(TPMS_AUTH_COMMAND)
_PCR = TPM_HT.PCR.value
_SESSIONS = TPM_ST.SESSIONS.value
_PASSWORD_SESSION = TPMS_AUTH_COMMAND(
    sessionHandle=TPM_RH.PW.value, nonce=b"", sessionAttributes=0, hmac=b""
).encode()
_USUAL_SESSIONS = struct.pack(">I", len(_PASSWORD_SESSION)) + _PASSWORD_SESSION
"""One empty password: the session area that nearly all commands of a boot have."""


def in_words(command: bytes, response: bytes, locality: int) -> str:
    """Return one line about a command and its answer."""
    return f"locality {locality}: {_asked(command)}: {_answered(command, response)}"


def handle_in_words(handle: int) -> str:
    """Return what a handle names."""
    kind = handle >> 24
    if kind == _PCR:
        return f"PCR {handle}"
    return _PERMANENT.get(handle) or f"{_KINDS.get(kind, 'handle')} 0x{handle:08x}"


def _asked(command: bytes) -> str:
    if len(command) < _HEADER.size:
        return f"{len(command)} bytes that are no command"
    tag, _, code = _HEADER.unpack_from(command)
    spec = COMMANDS.get(code)
    if spec is None:
        return f"unknown command 0x{code:x}" if code not in _NAMES else f"{_NAMES[code]}, which is left out"
    try:
        handles, authority, parameters = _read(spec, tag, command)
        phrase = _filled(PHRASES.get(code, _NAMES[code]), {**handles, **parameters})
    except (WireError, KeyError, ValueError, struct.error):
        return f"{_NAMES[code]} (malformed)"
    return f"{_NAMES[code]}: {phrase}{authority}"


def _read(spec: CommandSpec, tag: int, command: bytes) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Return handles and parameters by their places in the phrase, and the authority in words."""
    at, end = _HEADER.size, len(command)
    numbers = spec.handle_packer.unpack_from(command, at)
    handles = {f"h{n}": handle_in_words(handle) for n, handle in enumerate(numbers)}
    at += 4 * len(numbers)
    authority = ""
    encrypted = False
    if tag == _SESSIONS and command.startswith(_USUAL_SESSIONS, at):
        authority = " by empty password"
        at += len(_USUAL_SESSIONS)
    elif tag == _SESSIONS:
        sessions, at = _sessions(command, at)
        encrypted = any(each.sessionAttributes & TPMA_SESSION.decrypt for each in sessions)
        authority = " by " + " and ".join(map(_authority, sessions)) if sessions else ""
    parameters: dict[str, Any] = {}
    for n, codec in enumerate(spec.parameters):
        if encrypted and n == 0:
            size = int.from_bytes(command[at : at + 2], "big")
            value: Any = "an encrypted parameter"
            at += 2 + size
        else:
            value, at = codec.decode(command, at, end)
        parameters[f"p{n}"] = value
    return handles, authority, parameters


def _sessions(command: bytes, at: int) -> tuple[list[TPMS_AUTH_COMMAND], int]:
    size = int.from_bytes(command[at : at + 4], "big")
    at += 4
    end = min(at + size, len(command))
    sessions: list[TPMS_AUTH_COMMAND] = []
    while at < end and len(sessions) < _SESSIONS_SHOWN_MAX:
        session, at = _AUTH_COMMAND.decode(command, at, end)
        sessions.append(session)
    return sessions, end


def _authority(session: TPMS_AUTH_COMMAND) -> str:
    if session.sessionHandle == TPM_RH.PW:
        return "password" if session.hmac else "empty password"
    marks = [mark.name for mark in (TPMA_SESSION.audit, TPMA_SESSION.decrypt, TPMA_SESSION.encrypt)]
    named = [
        str(name) for name in marks if name is not None and session.sessionAttributes & TPMA_SESSION[name]
    ]
    return handle_in_words(session.sessionHandle) + (f" ({', '.join(named)})" if named else "")


def _answered(command: bytes, response: bytes) -> str:
    if len(response) < _HEADER.size:
        return "no answer"
    rc = int.from_bytes(response[6:10], "big")
    if rc:
        return f"refused, {rc_name(rc)}"
    spec = COMMANDS.get(int.from_bytes(command[6:10], "big"))
    if spec is not None and spec.returns_handle and len(response) >= _HEADER.size + 4:
        return f"done, {handle_in_words(int.from_bytes(response[10:14], 'big'))}"
    return "done"


def _filled(phrase: str, values: dict[str, Any]) -> str:
    """Put values into a phrase in the form that a reader wants."""
    parts = []
    for text, name, form in _pieces(phrase):
        parts.append(text)
        if name is not None:
            value = values[name]
            parts.append(format(value, form) if form and isinstance(value, int) else _shown(value))
    return "".join(parts)


@lru_cache(maxsize=PHRASES_MAX)
def _pieces(phrase: str) -> tuple[tuple[str, str | None, str | None], ...]:
    """Return the texts of a phrase, each with the name and the form of the value behind it."""
    return tuple((text, name, form) for text, name, form, _ in Formatter().parse(phrase))


def _shown(value: Any) -> str:
    match value:
        case TPMT_HA():
            return f"{_algorithm(value.hashAlg)} {value.digest[:_BYTES_SHOWN].hex()}…"
        case bytes():
            start = value[:_BYTES_SHOWN].hex()
            return f"{len(value)} bytes" + (f" {start}" + "…" * (len(value) > _BYTES_SHOWN) if value else "")
        case TPMS_PCR_SELECTION():
            return f"{_algorithm(value.hash)}:{','.join(map(str, value.pcrs)) or 'none'}"
        case tuple():
            return " ".join(map(_shown, value)) or "nothing"
    return str(value)


def _algorithm(alg: int) -> str:
    return _ALGORITHMS[alg]


_ALGORITHMS = {alg.value: alg.name.lower() for alg in TPM_ALG}
_NAMES = {code.value: code.name for code in TPM_CC}
