"""A TPM whose stored state was damaged while it had no power: it finds that out itself, and then answers as failed.

Models: the check of the stored state at power-on, and a TPM that is in failure mode from every _TPM_Init on, since it
has no seed, counter or key that it could trust; in particular it makes no new ones.

Leaves out: repair by the maker (field upgrade), and state of which only a part is lost.

Sources: TPM 2.0 Library part 1, 12.4 (failure mode); part 3, 9.3 (a Startup that finds its state damaged).
"""

from __future__ import annotations

from sim.errors import FormatError
from sim.tpm.device import Tpm
from sim.tpm.failure import answer_in_failure_mode
from sim.tpm.profile import TpmProfile
from sim.tpm.state import restore
from sim.tpm.words import in_words

__all__ = ["DamagedTpm", "wake"]


def wake(stored: bytes, profile: TpmProfile | None = None) -> Tpm | DamagedTpm:
    """Return the TPM whose stored state (see `sim.tpm.state.snapshot`) this is, as it is after power-on.

    A damaged state gives a `DamagedTpm` of that make (default: the make of a new `Tpm`), which names the damage.
    """
    try:
        tpm = restore(stored)
    except FormatError as error:
        return DamagedTpm(str(error), profile)
    tpm.init()
    return tpm


class DamagedTpm:
    """A TPM in lasting failure mode; `damage` says what was found in its state."""

    def __init__(self, damage: str, profile: TpmProfile | None = None) -> None:
        self.damage = damage
        self.profile = profile if profile is not None else TpmProfile()
        self.last_latency_ns = 0

    def execute(self, command: bytes, locality: int = 0) -> bytes:
        """Answer any bytes as failure mode does."""
        self.last_latency_ns = self.profile.other_latency_ns
        return answer_in_failure_mode(self.profile, command)

    def in_words(self, command: bytes, response: bytes, locality: int) -> str:
        """Return a line of plain words about a command and its response."""
        return in_words(command, response, locality)

    def describe_event(self, pcr: int, event_type: int, data: bytes) -> bool:
        """Return False: nothing is ever extended."""
        return False

    def init(self) -> None:
        """Apply _TPM_Init, after which the state is as damaged as before."""

    def hash_start(self) -> None:
        """Begin a hash sequence, without effect."""
        self.last_latency_ns = self.profile.other_latency_ns

    def hash_data(self, data: bytes) -> None:
        """Add bytes to a hash sequence, without effect."""
        self.last_latency_ns = self.profile.hash_byte_ns * len(data)

    def hash_end(self) -> None:
        """End a hash sequence, without effect."""
        self.last_latency_ns = self.profile.other_latency_ns
