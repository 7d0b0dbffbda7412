"""The VMkernel's TPM driver: finds the TPM, or says why it cannot, and gives the host agent a client for it.

Models: loading against a TPM that answers, one that the firmware's setup has switched off ("Error loading TPM", which
can be ignored: the boot goes on), and a board without one.

Leaves out: interrupts, the resource manager, TPM 1.2.  Sources: VMware's security guide for ESXi, "Trusted Platform
Module" (the message and that it can be ignored); vmkernel.log samples for the form of the lines.
"""

from __future__ import annotations

from sim.boot.bootinfo import TpmState
from sim.core.context import Sim
from sim.errors import FormatError, SimBug
from sim.hw.board import Board
from sim.hw.tpm_slot import TpmSlotError
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.constants import TPM_PT

__all__ = ["TPM_DISABLED_MESSAGE", "TpmDriver"]

TPM_DISABLED_MESSAGE = "Error loading TPM"
"""What a host prints when a TPM is present but disabled in the BIOS."""

_LOCALITY = 0


class TpmDriver:
    """Looks for the TPM once, at `load`; afterwards `state` tells what was found."""

    def __init__(self, sim: Sim, board: Board, state: TpmState) -> None:
        self._sim = sim
        self._board = board
        self.state = state
        self.manufacturer = ""

    def load(self) -> None:
        """Probe the TPM and write the log line; never fails the boot."""
        if self.state is TpmState.ABSENT:
            self._sim.log("vmkernel", "VMB_TPM: no TPM device found")
        elif self.state is TpmState.DISABLED:
            self._sim.log("vmkernel", TPM_DISABLED_MESSAGE)
        elif self.state is TpmState.FAILED:
            self._sim.log(
                "vmkernel", "tpmDriver: TPM 2.0 device detected but a connection cannot be established."
            )
        else:
            self._probe()

    def client(self) -> TpmClient | None:
        """Return a client at the kernel's locality, or None where there is no usable TPM."""
        if self.state is not TpmState.ENABLED or self._board.tpm is None:
            return None
        return TpmClient(self._board.tpm.transmit, locality=_LOCALITY)

    def _probe(self) -> None:
        client = self.client()
        if client is None:
            raise SimBug("the boot measured into a TPM that the board does not have")
        try:
            word = client.properties(TPM_PT.MANUFACTURER, 1).get(TPM_PT.MANUFACTURER, 0)
        except (TpmError, TpmSlotError, FormatError) as error:
            self.state = TpmState.FAILED
            self._sim.log(
                "vmkernel",
                f"tpmDriver: TPM 2.0 device detected but a connection cannot be established: {error}",
            )
            return
        self.manufacturer = word.to_bytes(4, "big").rstrip(b"\0 ").decode("ascii", "replace")
        self._sim.log("vmkernel", f"tpmDriver: TPM 2.0 device loaded, manufacturer {self.manufacturer}")
