"""The way out of S3 (suspend to memory): firmware, the late launch anew, and the check of memory before anything runs.

Models: the firmware's short path, which starts the TPM as it was shut down: PCRs 0-15 keep their values, 17-22 do not.
A host that was launched is launched anew by tboot: SINIT is authenticated, judges the policy and measures the launched
code again, and the measurements that the launched code has kept in memory (here: those of the boot's event log) are
extended once more.  Then `check` decides whether memory is what it was (`sim.kernel.standby`); only after that the
kernel goes on.  One engine event a step, as in a boot.

Leaves out: devices, and the boot script that a real firmware replays.

Sources: tboot 1.10.5, common/integrity.c and txt/txt.c (S3 path: launch, then verify); TCG PC Client Platform Firmware
Profile 1.05 (Startup(STATE)); values of PCRs after a resume as measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable

from sim.boot.bootinfo import BootFailure, BootInfo
from sim.boot.context import BootContext, BootError, BootPolicy
from sim.boot.firmware import Firmware
from sim.boot.latelaunch import LateLaunch
from sim.boot.loaded import LoadedModule
from sim.boot.measure import Measurer
from sim.core.facts import fact
from sim.core.procedure import Procedure
from sim.core.units import MS
from sim.errors import FormatError, SimBug, VmksimError
from sim.hw.board import Board
from sim.image.trust import TrustStore
from sim.tpm.eventlog import EV, TcgEvent, parse
from sim.tpm.tagged import EsxTag, decode_tagged

__all__ = ["ResumeSequence", "kept_measurements"]

RESUME_NS = fact(
    "boot.resume", 400 * MS, unit="ns", source="the short path of a server's firmware", kind="assumed"
)

_LAUNCH_PCRS = range(17, 23)
_DETAILS_PCR = 17


class ResumeSequence:
    """One way out of S3; `check` looks at memory, and `on_done` gets None, or the failure that it ended in."""

    def __init__(
        self,
        board: Board,
        trust: TrustStore,
        boot: BootInfo,
        *,
        check: Callable[[], object],
        on_done: Callable[[BootFailure | None], object],
        policy: BootPolicy | None = None,
    ) -> None:
        self._board = board
        self._boot = boot
        self._on_done = on_done
        self._procedure = Procedure(board.sim.engine, board.meter, on_done=self._finish, on_error=self._fail)
        context = BootContext(board, trust, policy or BootPolicy(), self._procedure)
        context.tpm_state = boot.tpm_state
        context.bank = boot.bank
        context.kept_command_line = boot.command_line
        context.late_launch = boot.drtm
        context.loaded = [
            LoadedModule(name=module.name, data=module.data, content=module.content)
            for module in boot.modules
        ]
        self._context = context
        measurer = Measurer(context)
        self._launch = LateLaunch(context, measurer, boot.launcher)
        self._procedure.then(self._wake)
        self._procedure.then(Firmware(context, measurer).resume_tpm)
        self._procedure.then(self._launch.prepare)
        self._procedure.then(self._relaunch)
        self._procedure.then(check)

    def start(self) -> None:
        """Schedule the first step at the present instant; the board has power again."""
        self._procedure.start()

    def stop(self) -> None:
        """Cut it short, as a power cut or a reset does."""
        self._procedure.stop()

    def _wake(self) -> None:
        self._context.say("firmware", "S3 resume")
        self._context.meter.charge(RESUME_NS.value, what="resume")

    def _relaunch(self) -> None:
        if self._context.late_launch:
            self._launch.relaunch(kept_measurements(self._boot.event_log))

    def _finish(self) -> None:
        self._on_done(None)

    def _fail(self, error: VmksimError) -> None:
        if isinstance(error, SimBug):
            raise error
        if not isinstance(error, BootError):
            error = self._context.stop("resume", type(error).__name__, str(error))
        self._on_done(self._context.failure(error, self._boot.event_log))


def kept_measurements(event_log: bytes) -> tuple[TcgEvent, ...]:
    """Return what the launched code itself measured in a boot, in its order; FormatError for bytes that are no log."""
    return tuple(
        event
        for event in parse(event_log).events
        if event.pcr in _LAUNCH_PCRS and event.type == EV.EVENT_TAG and not _is_launched_code(event)
    )


def _is_launched_code(event: TcgEvent) -> bool:
    """Tell whether an event is about the launched code, which SINIT measures anew."""
    try:
        return event.pcr == _DETAILS_PCR and decode_tagged(event.data).id == EsxTag.MOD
    except FormatError:
        return False
