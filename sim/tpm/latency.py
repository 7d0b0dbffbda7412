"""How long a command takes in simulated time: by its code, and by whether its key is an RSA key.

Models: one average a command and kind of key, whatever the device keeps in a cache.
Leaves out: a dependence on sizes and key lengths, and any spread.
Source: the profile of the make (`sim.tpm.profile`, `sim.tpm.makes`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_ST
from sim.tpm.requests import CommandSpec

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["latency_ns"]

_HEADER_BYTES = 10
_RSA = TPM_ALG.RSA.value
_MAKES_KEYS = frozenset({TPM_CC.CreatePrimary.value, TPM_CC.Create.value, TPM_CC.CreateLoaded.value})
_SESSIONS = TPM_ST.SESSIONS.value.to_bytes(2, "big")


def latency_ns(tpm: Tpm, spec: CommandSpec, command: bytes) -> int:
    """Return the simulated time of a command that succeeded."""
    profile, code = tpm.profile, spec.number
    rsa_ns = profile.rsa_latencies_ns.get(code)
    if rsa_ns is not None and _concerns_rsa(tpm, spec, command):
        return rsa_ns
    return profile.latencies_ns.get(code, profile.other_latency_ns)


def _concerns_rsa(tpm: Tpm, spec: CommandSpec, command: bytes) -> bool:
    at = _HEADER_BYTES + 4 * len(spec.handles)
    if spec.code in _MAKES_KEYS:
        return _template_type(command, at) == _RSA
    for start in range(_HEADER_BYTES, at, 4):
        handle = int.from_bytes(command[start : start + 4], "big")
        loaded = tpm.objects.get(handle) or tpm.persistent.get(handle)
        public = getattr(loaded, "public", None)
        if public is not None and public.type == _RSA:
            return True
    return False


def _template_type(command: bytes, at: int) -> int:
    """Return the type in the template that follows the sensitive data of a command that makes a key."""
    if command[:2] == _SESSIONS:
        at += 4 + int.from_bytes(command[at : at + 4], "big")
    at += 2 + int.from_bytes(command[at : at + 2], "big")
    return int.from_bytes(command[at + 2 : at + 4], "big")
