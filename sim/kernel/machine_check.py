"""What the VMkernel does about memory errors: it kills the VM that lost data, retires the page, or stops itself.

Models: corrected errors logged; a consumed error in a VM's page ends that VM and no other; one in the kernel's own
memory (a user world's counts as that) is a purple screen; an error that the patrol scrubber finds first costs a free or
a VM's page its frame, and the VM its life only if it touches the page later.  A shared page is lost for every VM that
maps it.

Leaves out: moving a healthy page away before it fails (many corrected errors), reporting to hardware sensors, and
mirrored memory.

Sources: the lines "MCE: cpu..: bank..: status=.." and "Machine Check Exception" are modelled on public vmkernel.log
samples; that SRAO pages are retired and SRAR ones end their user as in VMware's descriptions of software error recovery.
"""

from __future__ import annotations

from collections.abc import Callable

from sim.core.context import Sim
from sim.core.trace import record
from sim.core.units import PAGE_BYTES
from sim.hw.board import Board
from sim.hw.frame_counts import RETIRED_OWNER, SHARED_OWNER
from sim.hw.mca import MceRecord
from sim.kernel.vm import Vm, VmManager

__all__ = ["MachineCheckHandler"]

MEMORY_ERROR = record(
    "memory.error", bank=int, status=int, address=int, misc=int, owner=str, action=str, victim=str
)
"""A memory error was handled; `status` is the register as a signed number."""

HARDWARE_ERROR = "System has encountered a Hardware Error - Please contact the hardware vendor"


class MachineCheckHandler:
    """Handles the memory errors of one VMkernel; `stop_kernel(text)` shows the purple screen."""

    def __init__(self, sim: Sim, board: Board, vms: VmManager, stop_kernel: Callable[[str], object]) -> None:
        self._sim = sim
        self._board = board
        self._memory = board.memory
        self._vms = vms
        self._stop_kernel = stop_kernel

    def begin(self) -> None:
        """From here on be told what the patrol scrubber finds, and what guests meet."""
        self._board.patrol.on_found = self.found
        self._memory.machine_checks.on_corrected = self.corrected
        self._vms.on_machine_check = self.consumed

    def end(self) -> None:
        """Be told no more: the kernel stops."""
        self._board.patrol.on_found = None
        self._memory.machine_checks.on_corrected = None

    def consumed(self, what: MceRecord, consumer: Vm | None) -> None:
        """Handle an error that `consumer` has read, or the kernel itself if that is None."""
        mpn = what.address // PAGE_BYTES
        owner = self._memory.owner_of(mpn) or ""
        self._log(what)
        if consumer is None or not _reaches(consumer, owner):
            text = f"Machine Check Exception: Fatal (unrecoverable) MCE on PCPU0 at {what.address:#x}"
            self._trace(what, owner, "purple screen", "vmkernel")
            self._stop_kernel(f"{HARDWARE_ERROR}. {text}")
            return
        self._withdraw(mpn)
        self._trace(what, owner, "vm killed", consumer.name)
        self._vms.kill(consumer.name, f"uncorrectable memory error at {what.address:#x}")
        self._end(what)

    def found(self, what: MceRecord) -> None:
        """Handle what the patrol scrubber has logged."""
        if not what.uncorrected:
            return  # `corrected` has been told
        mpn = what.address // PAGE_BYTES
        owner = self._memory.owner_of(mpn)
        self._log(what)
        if owner in (None, SHARED_OWNER) or self._vms.owner_of_frame(mpn) is not None:
            self._withdraw(mpn)
            self._trace(what, owner or "", "page retired", owner or "")
            self._sim.log("vmkernel", f"MCE: page {mpn:#x} of {owner or 'free memory'} is retired")
        else:
            self._trace(what, owner or "", "left in place", owner or "")
            self._sim.log("vmkernel", f"MCE: page {mpn:#x} of {owner} cannot be retired while it is in use")
        self._end(what)

    def corrected(self, what: MceRecord) -> None:
        """Log an error that the memory controller has corrected; nothing else follows from it."""
        self._log(what)
        self._trace(what, self._memory.owner_of(what.address // PAGE_BYTES) or "", "corrected", "")
        self._memory.machine_checks.clear(what.bank)

    def _withdraw(self, mpn: int) -> None:
        """Take a frame from every VM that maps it, and out of use."""
        for vm in self._vms.vms.values():
            if vm.space is not None:
                vm.space.poison(mpn)
        self._memory.retire(mpn)

    def _end(self, what: MceRecord) -> None:
        self._memory.machine_checks.clear(what.bank)
        self._memory.machine_checks.end_handling()

    def _log(self, what: MceRecord) -> None:
        self._sim.log("vmkernel", f"MCE: cpu0: {what}")

    def _trace(self, what: MceRecord, owner: str, action: str, victim: str) -> None:
        status = what.status - (1 << 64) if what.status >> 63 else what.status
        self._sim.trace.emit(MEMORY_ERROR, what.bank, status, what.address, what.misc, owner, action, victim)


def _reaches(vm: Vm, owner: str) -> bool:
    """Tell whether a guest can have met an error in a frame of `owner`: a retired one left a hole in its memory."""
    return vm.space is not None and owner in (vm.space.owner, SHARED_OWNER, RETIRED_OWNER)
