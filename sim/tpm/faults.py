"""Faults of a TPM, command by command: a TPM that fails, is slow, asks for a retry, loses answers, or loses power.

Models: a plan of faults (`sim.tpm.fault_spec`) that stands between software and a whole TPM.  `power_loss` stops a
command between two of its writes: the entries of the state that it changes and that outlive the power are written in
their order, and power goes after `writes` of them.  The TPM alone loses power, as on a board whose supply of it sags:
it is there again at once and waits for Startup.  Who is not answered waits as long as Linux would.
Leaves out: flipped bits on the bus, which are no fault of the TPM; entries torn in the middle, since parts of NV are
written whole.
Sources: TPM 2.0 Library part 1, chapter on failure mode; part 2, response codes; Linux drivers/char/tpm/tpm2-cmd.c
(how long it waits for an answer).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from sim.core.facts import fact
from sim.core.units import MS, SECOND
from sim.tpm.constants import TPM_CC, TPM_RC
from sim.tpm.device import Tpm
from sim.tpm.fault_spec import KINDS, Fault
from sim.tpm.state import apply_first_writes, fork
from sim.tpm.tables import COMMANDS

__all__ = ["KINDS", "Fault", "FaultyTpm"]

_SOURCE = (
    "Linux drivers/char/tpm/tpm2-cmd.c, tpm2_calc_ordinal_duration, after the PC Client Platform TPM Profile"
)
SILENCE_SHORT_NS = fact(
    "tpm.silence_short_ns", 750 * MS, unit="ns", source=_SOURCE + ": small commands", kind="spec"
)
SILENCE_NS = fact(
    "tpm.silence_ns", 2 * SECOND, unit="ns", source=_SOURCE + ": self-test, random, NV", kind="spec"
)
SILENCE_LONG_NS = fact(
    "tpm.silence_long_ns", 300 * SECOND, unit="ns", source=_SOURCE + ": making and checking keys", kind="spec"
)
_SHORT = frozenset(
    code.value for code in (TPM_CC.Startup, TPM_CC.GetCapability, TPM_CC.PCR_Extend, TPM_CC.HashSequenceStart)
)
_LONG = frozenset(
    code.value for code in (TPM_CC.CreatePrimary, TPM_CC.Create, TPM_CC.CreateLoaded, TPM_CC.VerifySignature)
)
_HEADER_BYTES = 10


class FaultyTpm:
    """A TPM with a plan of faults; has the face of a `Tpm`, whose state stays whole whatever happens.

    An answer of no bytes stands for silence: the command was dropped, the answer was lost, or power went.  `on_fault`
    is called with a fault and the command that it hits.
    """

    def __init__(
        self,
        tpm: Tpm,
        faults: tuple[Fault, ...] = (),
        *,
        on_fault: Callable[[Fault, bytes], None] | None = None,
    ) -> None:
        self.tpm = tpm
        self.faults = faults
        self.occurrences = [0] * len(faults)
        """How many commands came that each fault is about."""
        self.last_latency_ns = 0
        self._on_fault = on_fault

    def execute(self, command: bytes, locality: int = 0) -> bytes:
        """Run one command under the faults that hit it; the first in the plan counts."""
        fault = self._fault_of(command)
        if fault is None:
            response = self.tpm.execute(command, locality)
            self.last_latency_ns = self.tpm.last_latency_ns
            return response
        if self._on_fault is not None:
            self._on_fault(fault, command)
        return self._run_under(fault, command, locality)

    def _fault_of(self, command: bytes) -> Fault | None:
        """Count the command for each fault that is about it, and return the first that hits it."""
        hit = None
        for number, fault in enumerate(self.faults):
            if not _is_about(fault, command):
                continue
            self.occurrences[number] += 1
            if hit is None and fault.hits(self.occurrences[number]):
                hit = fault
        return hit

    def _run_under(self, fault: Fault, command: bytes, locality: int) -> bytes:
        self.last_latency_ns = self.tpm.profile.other_latency_ns
        if fault.kind == "fail":
            return _refusal(fault.rc_value)
        if fault.kind == "retry":
            return _refusal(TPM_RC.RETRY)
        if fault.kind == "delay":
            response = self.tpm.execute(command, locality)
            self.last_latency_ns = self.tpm.last_latency_ns + (fault.delay_ns or 0)
            return response
        if fault.kind == "power_loss":
            self._lose_power(command, locality, fault.writes)
        elif fault.kind == "lose_answer":
            self.tpm.execute(command, locality)
        self.last_latency_ns = _silence_ns(command)
        return b""

    def in_words(self, command: bytes, response: bytes, locality: int) -> str:
        """Return a line of plain words about a command and its response."""
        return self.tpm.in_words(command, response, locality)

    def describe_event(self, pcr: int, event_type: int, data: bytes) -> bool:
        """Give the newest event of the log a type and data."""
        return self.tpm.describe_event(pcr, event_type, data)

    def init(self) -> None:
        """Apply _TPM_Init."""
        self.tpm.init()

    def hash_start(self) -> None:
        """Begin the locality-4 hash sequence."""
        self.tpm.hash_start()
        self.last_latency_ns = self.tpm.last_latency_ns

    def hash_data(self, data: bytes) -> None:
        """Add bytes to the hash sequence."""
        self.tpm.hash_data(data)
        self.last_latency_ns = self.tpm.last_latency_ns

    def hash_end(self) -> None:
        """End the hash sequence."""
        self.tpm.hash_end()
        self.last_latency_ns = self.tpm.last_latency_ns

    def _lose_power(self, command: bytes, locality: int, writes: int) -> None:
        """Run the command aside, write only the first of its changes, and start again from there."""
        after = fork(self.tpm)
        after.execute(command, locality)
        apply_first_writes(self.tpm, after, writes)
        self.tpm.init()


def _is_about(fault: Fault, command: bytes) -> bool:
    code = int.from_bytes(command[6:_HEADER_BYTES], "big")
    if fault.code not in (None, code):
        return False
    return fault.handle is None or fault.handle in _handles(code, command)


def _handles(code: int, command: bytes) -> tuple[int, ...]:
    """Return the handles in a command, as far as they are there."""
    spec = COMMANDS.get(code)
    count = 0 if spec is None else min(len(spec.handles), (len(command) - _HEADER_BYTES) // 4)
    return struct.unpack_from(f">{max(count, 0)}I", command.ljust(_HEADER_BYTES), _HEADER_BYTES)


def _silence_ns(command: bytes) -> int:
    """Return how long a driver waits for the answer that does not come."""
    code = int.from_bytes(command[6:_HEADER_BYTES], "big")
    if code in _LONG:
        return SILENCE_LONG_NS.value
    return SILENCE_SHORT_NS.value if code in _SHORT else SILENCE_NS.value


def _refusal(rc: int) -> bytes:
    return struct.pack(">HII", 0x8001, _HEADER_BYTES, int(rc))
