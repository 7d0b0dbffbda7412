"""What surrounds a TPM that is served over a socket: power, reset, locality, presence, the hash sequence, and saving.

Models: the signals that a platform gives to its TPM, one at a time; a TPM without power answers nothing.  Simulated
time passes by the latency of each command alone, so that a session of commands repeats bit for bit.
Leaves out: cancelling a command, since no command is ever in progress when another signal is taken.
Sources: swtpm_ioctls(3); TPM 2.0 Library part 4, platform interface of the reference code (the signals only).
"""

from __future__ import annotations

from collections.abc import Callable

from sim.tpm.constants import TPM_CC, TPM_RC
from sim.tpm.device import HASH_SEQUENCE_BYTES_MAX, StoppedClock, Tpm
from sim.tpm.faults import FaultyTpm
from sim.tpm.state import restore, snapshot
from sim.tpm.tables import COMMANDS

__all__ = ["LOCALITY_MAX", "Platform"]

LOCALITY_MAX = 4
_KEPT_IN_RAM = frozenset(
    {
        TPM_CC.PCR_Extend.value,
        TPM_CC.PCR_Event.value,
        TPM_CC.PCR_Reset.value,
        TPM_CC.SelfTest.value,
        TPM_CC.StirRandom.value,
        TPM_CC.Startup.value,
    }
)
"""Commands whose attributes allow a write to NV, but that change nothing which must outlive the power."""
_CODE = slice(6, 10)
_DONE = (bytes(4), b"")
"""Success, or silence: who does not answer may have written."""
_WRITE_NV = frozenset(
    spec.number.to_bytes(4, "big")
    for spec in COMMANDS.values()
    if spec.changes_nv and spec.number not in _KEPT_IN_RAM
)
_COUNTED_FAILURES = frozenset({TPM_RC.AUTH_FAIL.value, TPM_RC.LOCKOUT.value})


class Platform:
    """A TPM with power; `on_write(tpm)` is called after each command that may have changed what outlives the power.

    A TPM gets its _TPM_Init here, unless it is `running` in a machine already.  The methods are not safe to call at the same time: the server calls them under one lock.
    """

    def __init__(
        self,
        tpm: Tpm,
        *,
        faults: FaultyTpm | None = None,
        on_write: Callable[[Tpm], None] | None = None,
        on_command: Callable[[bytes, bytes, int], None] | None = None,
        running: bool = False,
    ) -> None:
        self.tpm = tpm
        self.locality = 0
        self.powered = True
        self._device: Tpm | FaultyTpm = faults if faults is not None else tpm
        self._on_write = on_write
        self._on_command = on_command
        self._hashed_bytes = 0
        self._blobs: dict[int, bytes] = {}
        if not running:
            self._device.init()

    def execute(self, command: bytes, locality: int | None = None) -> bytes:
        """Run one command, at the locality that was set if none is given; b"" means that no answer comes."""
        if not self.powered:
            return b""
        at = self.locality if locality is None else locality
        if not 0 <= at <= LOCALITY_MAX:
            return b""
        device = self._device
        response = device.execute(command, at)
        clock = self.tpm.clock
        if isinstance(clock, StoppedClock):
            clock.now += device.last_latency_ns
        if self._on_command is not None:
            self._on_command(command, response, at)
        if self._on_write is not None and _may_have_written(command, response):
            self._on_write(self.tpm)
        return response

    def power_on(self) -> None:
        """Give power; nothing happens where there is power already."""
        if not self.powered:
            self.powered = True
            self._device.init()

    def power_off(self) -> None:
        """Take the power away; what was not saved by Shutdown is lost."""
        self.powered = False

    def reset(self) -> None:
        """Signal _TPM_Init; state that was put in before becomes the TPM's."""
        if self._blobs:
            self._take_blobs()
        self.powered = True
        self._device.init()

    def hash_start(self) -> None:
        """Begin the hash sequence of locality 4."""
        self._hashed_bytes = 0
        self._device.hash_start()

    def hash_data(self, data: bytes) -> bool:
        """Add to the hash sequence; False when it is longer than a TPM takes."""
        self._hashed_bytes += len(data)
        if self._hashed_bytes > HASH_SEQUENCE_BYTES_MAX:
            return False
        self._device.hash_data(data)
        return True

    def hash_end(self) -> None:
        """End the hash sequence."""
        self._device.hash_end()

    @property
    def established(self) -> bool:
        """Whether a hash sequence ran since the flag was last reset."""
        return self.tpm.established

    def reset_established(self, locality: int) -> bool:
        """Reset that flag; allowed at localities 3 and 4 alone."""
        if locality not in (3, 4):
            return False
        self.tpm.established = False
        return True

    def set_presence(self, present: bool) -> None:  # noqa: FBT001 - the one argument of a switch
        """Press or release the button that asserts physical presence."""
        self.tpm.physical_presence = present

    def enter_failure_mode(self) -> None:
        """Make the TPM's self-test fail."""
        self.tpm.enter_failure_mode()

    def state_blob(self) -> bytes:
        """Return the whole state."""
        return snapshot(self.tpm)

    def put_state_blob(self, kind: int, blob: bytes) -> None:
        """Keep a state for the next reset."""
        self._blobs[kind] = blob

    def _take_blobs(self) -> None:
        blobs, self._blobs = self._blobs, {}
        newest = blobs[max(blobs)]
        fresh = restore(newest)
        vars(self.tpm).update(vars(fresh))


def _may_have_written(command: bytes, response: bytes) -> bool:
    rc = response[_CODE]
    if rc not in _DONE:
        code = int.from_bytes(rc, "big")
        return code & 0x8BF in _COUNTED_FAILURES or code == TPM_RC.LOCKOUT
    return command[_CODE] in _WRITE_NV
