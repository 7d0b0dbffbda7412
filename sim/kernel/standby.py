"""Before S3 and after: what stands still, and how a launched host knows that its memory is what it left.

Models: virtual machines that are suspended and go on; on a host with a late launch a key that is drawn, used for an
HMAC-SHA-256 over all of the kernel's memory, and sealed to PCRs 17-22 at locality 2, so that after S3 nothing but the same
launch of the same code opens it.  A key that does not come out, or another HMAC, is a refusal.  Without a late launch
nothing is checked, and nobody can tell.

Leaves out: the memory of virtual machines (tboot covers what its kernel names; here the kernel's own segments), which
parts of tboot's state are sealed in two steps, devices.

Sources: tboot 1.10.5, common/integrity.c (seal, verify, MAC of the ranges that the kernel names; ours is an HMAC where tboot
has a VMAC) and common/policy.c (its text, and that it halts under every policy); CVE-2017-16837, tboot state that no
measurement covered over S3.  ESXi itself has no S3.
"""

from __future__ import annotations

import hashlib
import hmac

from attrs import frozen

from sim.boot.bootinfo import BootInfo
from sim.boot.context import BootError
from sim.boot.costs import charge_hash
from sim.core.rng import Stream
from sim.core.trace import record
from sim.errors import VmksimError
from sim.hw.board import Board
from sim.hw.mca import MachineCheck
from sim.hw.memory import FRAME_BYTES
from sim.kernel.memory import KernelMemory
from sim.kernel.sealing import SEALING_ERRORS, SealedSecret, Sealer
from sim.tpm.client import TpmClient
from sim.tpm.constants import TPM_SU

__all__ = ["INTEGRITY_LOST", "StandbyGuard", "memory_mac", "shut_down_tpm"]

STANDBY = record("kernel.standby", host=str, what=str, text=str)
"""Memory was "sealed" before S3, and "verified" or "refused" after it."""

INTEGRITY_LOST = "memory integrity lost on S3 resume"
SEALED_PCRS = (17, 18, 19, 20, 21, 22)
LAUNCH_LOCALITY = 2
KEY_BYTES = 32


@frozen(kw_only=True)
class StandbyGuard:
    """What lies in memory over S3, where anybody with a probe may change it: the sealed key, and the HMAC."""

    sealed: SealedSecret
    mac: bytes

    @classmethod
    def close(cls, board: Board, memory: KernelMemory, chance: Stream) -> StandbyGuard:
        """Draw a key, compute the HMAC and seal the key.  Errors: `VmksimError` when the TPM does not seal."""
        key = chance.bytes(KEY_BYTES)
        mac = memory_mac(board, memory, key)
        try:
            sealed = _sealer(board, chance).seal(key, SEALED_PCRS)
        except SEALING_ERRORS as error:
            message = f"the key over memory cannot be sealed: {error}"
            raise VmksimError(message) from error
        _note(board, "sealed", f"PCRs {SEALED_PCRS[0]} to {SEALED_PCRS[-1]}")
        return cls(sealed=sealed, mac=mac)

    def check(self, board: Board, memory: KernelMemory, chance: Stream) -> None:
        """Open the key and compare.  Errors: `BootError` of tboot when memory is not, or cannot be, what it was."""
        try:
            key = _sealer(board, chance).unseal(self.sealed)
            found = memory_mac(board, memory, key)
        except SEALING_ERRORS as error:
            raise _lost(board, f"the key cannot be unsealed: {error}") from error
        except MachineCheck as error:
            raise _lost(board, f"memory cannot be read: {error}") from error
        if not hmac.compare_digest(found, self.mac):
            raise _lost(board, "the kernel's memory is not what it was")
        _note(board, "verified", f"{len(memory.segments())} segments")


def memory_mac(board: Board, memory: KernelMemory, key: bytes) -> bytes:
    """Return the HMAC over place, rights and bytes of every segment of the kernel; a `MachineCheck` passes."""
    state = hmac.new(key, digestmod=hashlib.sha256)
    for segment in memory.segments():
        state.update(f"{segment.base & (1 << 64) - 1:#x} {segment.size_bytes} {segment.rights}\n".encode())
        for extent in segment.extents:
            size = extent.count * FRAME_BYTES
            state.update(board.memory.read(extent.first_mpn * FRAME_BYTES, size))
            charge_hash(board.meter, "sha256", size)
    return state.digest()


def shut_down_tpm(board: Board, boot: BootInfo) -> str:
    """Send TPM2_Shutdown(STATE) where there is a TPM in use; return why it failed, or nothing."""
    slot = board.tpm
    if slot is None or boot.tpm_state != "enabled":
        return ""
    try:
        TpmClient(slot.transmit).shutdown(TPM_SU.STATE)
    except SEALING_ERRORS as error:
        return str(error)
    return ""


def _sealer(board: Board, chance: Stream) -> Sealer:
    slot = board.tpm
    assert slot is not None, "a launched host has a TPM"
    return Sealer(slot.transmit, chance, LAUNCH_LOCALITY, only_there=True)


def _lost(board: Board, why: str) -> BootError:
    text = f"{INTEGRITY_LOST}: {why}"
    _note(board, "refused", text)
    return BootError("tboot", "memory", text)


def _note(board: Board, what: str, text: str) -> None:
    board.sim.trace.emit(STANDBY, board.spec.name, what, text)
    board.sim.log("tboot", f"S3: memory {what}: {text}")
