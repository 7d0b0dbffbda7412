"""The place on the board where a TPM sits: localities, time and trace of every command.

Models: the command interface that software uses at localities 0 to 4, the hash-start/data/end path that only the
processor's launch instruction drives (locality 4), the switch in the firmware's setup that hides the TPM, and the
simulated time that each command takes.

Leaves out: registers and hand-shakes of the TIS/CRB interface; the device itself, which is any object that keeps the
`TpmDevice` protocol.

Sources: TCG PC Client Platform TPM Profile for TPM 2.0 (localities, H-CRTM and D-RTM hash sequence); TPM 2.0 Library
part 1 (command and response headers).
"""

from __future__ import annotations

from typing import Protocol

from sim.core.context import Sim
from sim.core.procedure import CostMeter
from sim.core.trace import record
from sim.errors import SimBug, VmksimError

TPM_COMMAND = record(
    "tpm.command", locality=int, code=int, rc=int, command_bytes=int, response_bytes=int, latency_ns=int
)
TPM_WORDS = record("tpm.words", text=str)
"""What a command asked for and how it ended, in plain words."""
TPM_HASH_SEQUENCE = record("tpm.hash_sequence", phase=str, size_bytes=int)

LOCALITY_MAX = 4
_HEADER_BYTES = 10


class TpmSlotError(VmksimError):
    """Nothing answers in the slot: the TPM is disabled in the firmware's setup."""


class TpmDevice(Protocol):
    """What a TPM must offer to be put into the slot."""

    last_latency_ns: int
    """Simulated time that the last command took."""

    def execute(self, command: bytes, locality: int = 0) -> bytes:
        """Run one command at `locality` and return the response."""

    def in_words(self, command: bytes, response: bytes, locality: int) -> str:
        """Return a line of plain words about a command and its response."""

    def describe_event(self, pcr: int, event_type: int, data: bytes) -> bool:
        """Say what the newest extend of a PCR was, for a log that the device may keep; True when it was noted."""

    def init(self) -> None:
        """Apply _TPM_Init: what power-on and platform reset signal."""

    def hash_start(self) -> None:
        """Begin the locality-4 hash sequence."""

    def hash_data(self, data: bytes) -> None:
        """Add bytes to the hash sequence."""

    def hash_end(self) -> None:
        """End the hash sequence and extend its digest."""


class TpmSlot:
    """The fitted TPM as the rest of the machine reaches it."""

    def __init__(self, device: TpmDevice, meter: CostMeter, sim: Sim, *, enabled: bool = True) -> None:
        self.device = device
        self.enabled = enabled
        self._meter = meter
        self._sim = sim

    def transmit(self, command: bytes, *, locality: int = 0) -> bytes:
        """Send one command at `locality`, charge its latency, trace it, and return the response."""
        self._need_enabled()
        if not 0 <= locality <= LOCALITY_MAX:
            message = f"there is no locality {locality}"
            raise SimBug(message)
        response = self.device.execute(command, locality)
        latency_ns = self.device.last_latency_ns
        self._meter.charge(latency_ns, what="tpm")
        self._sim.trace.emit(
            TPM_COMMAND,
            locality,
            _header_word(command),
            _header_word(response),
            len(command),
            len(response),
            latency_ns,
        )
        if self._sim.trace.enabled(TPM_WORDS):
            self._sim.trace.emit(TPM_WORDS, self.device.in_words(command, response, locality))
        return response

    def describe_event(self, pcr: int, event_type: int, data: bytes) -> bool:
        """Say what the newest extend was: no command and no time of the machine's, but a note for who looks into it."""
        return self.device.describe_event(pcr, event_type, data)

    def hash_start(self) -> None:
        """Begin the hash sequence, as the launch instruction does."""
        self._need_enabled()
        self.device.hash_start()
        self._sim.trace.emit(TPM_HASH_SEQUENCE, "start", 0)

    def hash_data(self, data: bytes) -> None:
        """Feed `data` to the hash sequence."""
        self._need_enabled()
        self.device.hash_data(data)
        self._sim.trace.emit(TPM_HASH_SEQUENCE, "data", len(data))

    def hash_end(self) -> None:
        """End the hash sequence; the TPM extends the digest into the PCR of the launch."""
        self._need_enabled()
        self.device.hash_end()
        self._sim.trace.emit(TPM_HASH_SEQUENCE, "end", 0)

    def power_cycle(self) -> None:
        """Signal _TPM_Init; works on a disabled TPM too, which is powered like any other."""
        self.device.init()

    def _need_enabled(self) -> None:
        if not self.enabled:
            message = "the TPM is disabled in the firmware setup"
            raise TpmSlotError(message)


def _header_word(packet: bytes) -> int:
    """Return the command or response code of a packet, or -1 if it is too short to have one."""
    if len(packet) < _HEADER_BYTES:
        return -1
    return int.from_bytes(packet[6:_HEADER_BYTES], "big")
