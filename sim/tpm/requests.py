"""What each command takes and gives: handles, parameters, results and attributes, declared once for both ends.

Models: the command tables of the library for the implemented commands; the device parses by them, the client builds
by them, and GetCapability reports them.
Leaves out: what the commands do (`sim.tpm.commands`).
Sources: TCG TPM 2.0 Library part 3; the attributes are equal to those that swtpm 0.7.1 reports.
"""

from __future__ import annotations

import struct
from collections.abc import Container
from enum import Enum

from attrs import field, frozen

from sim.tpm.codec import Codec, Sized, SizedBytes
from sim.tpm.constants import PCR_COUNT, TPM_CC, TPM_RH

__all__ = [
    "HIERARCHY",
    "HMAC_SESSION",
    "LOCKOUT",
    "NULL",
    "NV",
    "NV_AUTH",
    "PCR",
    "PERSISTENT",
    "POLICY_SESSION",
    "TRANSIENT",
    "CommandSpec",
    "Handle",
    "HandleSet",
    "Role",
    "admin",
    "dup",
    "plain",
    "user",
]


class HandleSet:
    """Handles of several kinds: ranges and single values."""

    def __init__(self, *parts: Container[int]) -> None:
        self.parts = parts

    def __contains__(self, handle: object) -> bool:
        for part in self.parts:  # noqa: SIM110 - half as long as `any`, for every handle of every command
            if handle in part:
                return True
        return False


NULL = frozenset({TPM_RH.NULL.value})
PCR = range(PCR_COUNT)
TRANSIENT = range(0x8000_0000, 0x8000_00FF)
PERSISTENT = range(0x8100_0000, 0x8200_0000)
NV = range(0x0100_0000, 0x0200_0000)
HIERARCHY = frozenset(
    {TPM_RH.OWNER.value, TPM_RH.NULL.value, TPM_RH.ENDORSEMENT.value, TPM_RH.PLATFORM.value}
)
NV_AUTH = frozenset({TPM_RH.OWNER.value, TPM_RH.PLATFORM.value})
LOCKOUT = frozenset({TPM_RH.LOCKOUT.value})
HMAC_SESSION = range(0x0200_0000, 0x0200_0040)
POLICY_SESSION = range(0x0300_0000, 0x0300_0040)


class Role(Enum):
    """What an authorisation is for: ordinary use, administration, or duplication."""

    USER = "user"
    ADMIN = "admin"
    DUP = "dup"


@frozen(kw_only=True)
class Handle:
    """A handle of a command: which values its type allows, and whether it needs an authorisation."""

    allowed: Container[int]
    authorised: bool = False
    role: Role = Role.USER


@frozen(kw_only=True)
class CommandSpec:
    """One command; `parameters` and `results` are codecs in order, without the handles."""

    code: TPM_CC
    handles: tuple[Handle, ...] = ()
    parameters: tuple[Codec, ...] = ()
    results: tuple[Codec, ...] = ()
    returns_handle: bool = False
    changes_nv: bool = False
    extensive: bool = False
    flushes: bool = False
    sessions_allowed: bool = True
    number: int = field(init=False)
    """The code as a plain integer."""
    handle_packer: struct.Struct = field(init=False, repr=False, eq=False)
    """Reads all handles at once."""
    authorised_count: int = field(init=False)
    decryptable: bool = field(init=False)
    """The first parameter may come encrypted: it is a TPM2B."""
    encryptable: bool = field(init=False)
    """The first result may be sent encrypted: it is a TPM2B."""

    @number.default
    def _plain_number(self) -> int:
        return self.code.value

    @handle_packer.default
    def _packer_of_handles(self) -> struct.Struct:
        return struct.Struct(f">{len(self.handles)}I")

    @authorised_count.default
    def _count_authorised(self) -> int:
        return sum(handle.authorised for handle in self.handles)

    @decryptable.default
    def _first_parameter_is_buffer(self) -> bool:
        return bool(self.parameters) and isinstance(self.parameters[0], (Sized, SizedBytes))

    @encryptable.default
    def _first_result_is_buffer(self) -> bool:
        return bool(self.results) and isinstance(self.results[0], (Sized, SizedBytes))

    @property
    def attributes(self) -> int:
        """The command's TPMA_CC."""
        return (
            self.code
            | self.changes_nv << 22
            | self.extensive << 23
            | self.flushes << 24
            | len(self.handles) << 25
            | self.returns_handle << 28
        )


def user(*allowed: Container[int]) -> Handle:
    """Return a handle that needs an authorisation in the USER role."""
    return Handle(allowed=HandleSet(*allowed) if len(allowed) > 1 else allowed[0], authorised=True)


def admin(*allowed: Container[int]) -> Handle:
    """Return a handle that needs an authorisation in the ADMIN role."""
    return Handle(
        allowed=HandleSet(*allowed) if len(allowed) > 1 else allowed[0], authorised=True, role=Role.ADMIN
    )


def dup(*allowed: Container[int]) -> Handle:
    """Return a handle that needs an authorisation in the DUP role, which only a policy gives."""
    return Handle(
        allowed=HandleSet(*allowed) if len(allowed) > 1 else allowed[0], authorised=True, role=Role.DUP
    )


def plain(*allowed: Container[int]) -> Handle:
    """Return a handle that needs no authorisation."""
    return Handle(allowed=HandleSet(*allowed) if len(allowed) > 1 else allowed[0])
