"""How a command of the TPM ends when it is refused: the response code, with the place that it blames.

Models: format-one response codes (error number plus parameter, handle or session number) and the others.
Leaves out: warnings that ask for a retry.
Source: TCG TPM 2.0 Library part 2, section 6.6.
"""

from __future__ import annotations

from sim.errors import VmksimError
from sim.tpm.constants import rc_name

__all__ = ["RefusedError", "in_handle", "in_parameter", "in_session"]


class RefusedError(VmksimError):
    """Ends a command with the response code `rc`; never leaves the device."""

    def __init__(self, rc: int) -> None:
        super().__init__(int(rc))
        self.rc = int(rc)

    def __str__(self) -> str:
        return rc_name(self.rc)


def in_handle(rc: int, number: int) -> RefusedError:
    """Refuse because of handle `number` (from 1)."""
    return RefusedError(rc | number << 8 if rc & 0x080 else rc)


def in_parameter(rc: int, number: int) -> RefusedError:
    """Refuse because of parameter `number` (from 1)."""
    return RefusedError(rc | 0x040 | number << 8 if rc & 0x080 else rc)


def in_session(rc: int, number: int) -> RefusedError:
    """Refuse because of session `number` (from 1)."""
    return RefusedError(rc | 0x800 | number << 8 if rc & 0x080 else rc)
