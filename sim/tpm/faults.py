"""Faults of a TPM, command by command: a TPM that fails, is slow, asks for a retry, loses answers, or loses power.

Models: a plan of faults, each for the n-th command of one kind, that stands between software and a whole TPM.
`power_loss` stops a command between two of its writes: the entries of the state that it changes are written in their
order, and power goes after `writes` of them.
Leaves out: flipped bits on the bus, which are no fault of the TPM; entries torn in the middle, since parts of NV are
written whole.
Sources: TPM 2.0 Library part 1, chapter on failure mode; part 2, response codes; Linux drivers/char/tpm/tpm2-cmd.c
(time limits that a delay may pass).
"""

from __future__ import annotations

import struct
from collections import Counter

from attrs import field, frozen, validators

from sim.tpm.constants import TPM_CC, TPM_RC
from sim.tpm.device import Tpm
from sim.tpm.state import apply_first_writes, fork

__all__ = ["KINDS", "Fault", "FaultyTpm"]

KINDS = ("fail", "delay", "retry", "drop", "lose_answer", "power_loss")


@frozen(kw_only=True)
class Fault:
    """One fault: of what kind, at which occurrence of which command (None = any command), and for how many."""

    kind: str = field(validator=validators.in_(KINDS))
    command: int | None = None
    first: int = field(default=1, validator=validators.ge(1))
    """The first occurrence of the command, counted from 1, that it hits."""
    count: int = field(default=1, validator=validators.ge(1))
    """How many occurrences it hits."""
    rc: int = TPM_RC.FAILURE.value
    """The response code of `fail`."""
    delay_ns: int = field(default=0, validator=validators.ge(0))
    """The additional simulated time of `delay`."""
    writes: int = field(default=0, validator=validators.ge(0))
    """How many writes a `power_loss` lets pass."""

    def hits(self, code: int, occurrences: Counter[int | None]) -> bool:
        """Tell whether it hits the command `code`, which just occurred."""
        if self.command not in (None, code):
            return False
        return self.first <= occurrences[self.command] < self.first + self.count


class FaultyTpm:
    """A TPM with a plan of faults; has the face of a `Tpm`, whose state stays whole whatever happens.

    An answer of no bytes stands for silence: the command was dropped, the answer was lost, or power went.
    """

    def __init__(self, tpm: Tpm, faults: tuple[Fault, ...] = ()) -> None:
        self.tpm = tpm
        self.faults = faults
        self.occurrences: Counter[int | None] = Counter()
        self.last_latency_ns = 0

    def execute(self, command: bytes, locality: int = 0) -> bytes:
        """Run one command under the faults that hit it; the first in the plan counts."""
        code = int.from_bytes(command[6:10], "big")
        self.occurrences[code] += 1
        self.occurrences[None] += 1
        fault = next((each for each in self.faults if each.hits(code, self.occurrences)), None)
        self.last_latency_ns = self.tpm.profile.other_latency_ns
        if fault is not None and fault.kind == "fail":
            return _refusal(fault.rc)
        if fault is not None and fault.kind == "retry":
            return _refusal(TPM_RC.RETRY)
        if fault is not None and fault.kind == "drop":
            return b""
        if fault is not None and fault.kind == "power_loss":
            self._lose_power(command, locality, fault.writes)
            return b""
        response = self.tpm.execute(command, locality)
        self.last_latency_ns = self.tpm.last_latency_ns
        if fault is not None and fault.kind == "delay":
            self.last_latency_ns += fault.delay_ns
        return b"" if fault is not None and fault.kind == "lose_answer" else response

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


def _refusal(rc: int) -> bytes:
    return struct.pack(">HII", 0x8001, 10, int(rc))


def command_code(name: str) -> int:
    """Return the code of a command by its name, without "TPM2_"; `KeyError` for an unknown one."""
    return TPM_CC[name.removeprefix("TPM2_")].value
