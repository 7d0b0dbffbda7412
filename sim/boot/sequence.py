"""The boot from power-on to the VMkernel's first instruction, top to bottom.

Models: the order of the whole chain, each stage measuring the next before it runs; one engine event a step, in
simulated time; one value at the end, `BootInfo` or `BootFailure`.  A boot can be pickled between any two steps.

Leaves out: what each stage does (its own module says that) and everything after the hand-over (`sim.kernel`).

Sources: those of the stages.
"""

from __future__ import annotations

from collections.abc import Callable

from sim.boot.bootinfo import BootFailure, BootInfo, BootModule
from sim.boot.bootmanager import BootManager
from sim.boot.context import BootContext, BootError, BootPolicy, printable
from sim.boot.earlycheck import EarlyModuleCheck
from sim.boot.firmware import Firmware
from sim.boot.latelaunch import LateLaunch
from sim.boot.mboot import Mboot, kernel_options
from sim.boot.measure import Measurer
from sim.boot.safeboot import Safeboot
from sim.boot.vibcheck import VibCheck
from sim.core.procedure import Procedure
from sim.core.trace import record
from sim.errors import SimBug, VmksimError
from sim.hw.board import Board
from sim.image.trust import TrustStore

__all__ = ["BootOutcome", "BootSequence"]

BOOT_DONE = record("boot.done", host=str, outcome=str, component=str, message=str)
"""A boot ended: outcome is "booted" or the stage that stopped it."""

BootOutcome = BootInfo | BootFailure


class BootSequence:
    """One boot of a board; `on_done` gets its outcome.

    `start` applies power to a board that is off; a board that was just reset is booted as it is.
    """

    def __init__(
        self,
        board: Board,
        trust: TrustStore,
        *,
        on_done: Callable[[BootOutcome], object],
        policy: BootPolicy | None = None,
    ) -> None:
        self._board = board
        self._on_done = on_done
        self._procedure = Procedure(board.sim.engine, board.meter, on_done=self._finish, on_error=self._fail)
        self._context = BootContext(board, trust, policy or BootPolicy(), self._procedure)
        self._measurer = Measurer(self._context)
        self._firmware = Firmware(self._context, self._measurer)
        self._manager = BootManager(self._context, self._measurer)
        self._safeboot = Safeboot(self._context, self._manager)
        self._mboot = Mboot(self._context, self._measurer)
        self._early_check = EarlyModuleCheck(self._context, self._measurer)
        self._late_launch = LateLaunch(self._context, self._measurer)
        self._vib_check = VibCheck(self._context)

    def start(self) -> None:
        """Begin the boot at the present instant."""
        firmware, manager, safeboot, mboot = self._firmware, self._manager, self._safeboot, self._mboot

        self._then(self._power_on)

        self._then(firmware.self_test)
        self._then(firmware.start_tpm)
        self._then(firmware.measure_itself)
        self._then(firmware.measure_secure_boot_variables)
        self._then(firmware.measure_settings)
        self._then(firmware.measure_option_rom)
        self._then(firmware.measure_handoff_tables)
        self._then(firmware.measure_boot_options)
        self._then(firmware.end_platform_phase)
        self._then(manager.start_loader)

        self._then(safeboot.choose_bank)
        self._then(safeboot.start_mboot)

        self._then(mboot.decide_launch)
        self._then(self._late_launch.prepare)
        self._then(mboot.load_modules)
        self._then(mboot.warn_of_duplicates)
        self._then(self._early_check.check)
        self._then(mboot.measure_command_line)
        self._then(mboot.measure_asset_tag)
        self._then(manager.exit_boot_services)

        self._then(self._late_launch.launch)
        self._then(self._vib_check.check)

        self._procedure.start()

    def stop(self) -> None:
        """Cut the boot short without an outcome, as a power cut does; the caller switches the board off."""
        self._procedure.stop()

    @property
    def running(self) -> bool:
        """Whether steps are left."""
        return self._procedure.running

    @property
    def steps_done(self) -> int:
        """How many steps have run."""
        return self._procedure.steps_done

    def _then(self, step: Callable[[], None]) -> None:
        self._procedure.then(step)

    def _power_on(self) -> None:
        if not self._board.powered:
            self._board.power_on()
        self._context.started_ns = self._board.sim.now

    def _finish(self) -> None:
        context = self._context
        config = context.config
        assert config is not None, "a finished boot has a configuration"
        context.say("mboot", "handing over to the VMkernel")
        info = BootInfo(
            boot_id=self._boot_id(),
            host=self._board.spec.name,
            secure_boot=context.secure_boot,
            tpm_state=context.tpm_state,
            drtm=self._late_launch.done,
            pcr_map=self._late_launch.pcr_map,
            launcher=self._late_launch.launcher,
            bank=context.bank,
            command_line=context.command_line,
            kernel_options=kernel_options(config.kernelopt),
            modules=self._boot_modules(),
            installed_vibs=self._vib_check.vibs,
            event_log=self._measurer.event_log(),
            log_truncated=self._measurer.truncated,
            messages=tuple(context.messages),
            started_ns=context.started_ns,
            finished_ns=self._board.sim.now,
        )
        self._end(info, "booted", "", f"{len(info.modules)} modules")

    def _boot_modules(self) -> tuple[BootModule, ...]:
        owners = self._vib_check.owners
        return tuple(
            BootModule(
                name=module.name,
                data=module.data,
                content=module.content,
                digest=module.sha256(),
                vib=owners.get(module.name, ""),
            )
            for module in self._context.loaded
        )

    def _boot_id(self) -> str:
        """Return an id that no other boot of this simulation has."""
        stream = self._board.sim.rng.stream(f"{self._board.spec.name}/boot id/{self._board.boot_count}")
        return stream.bytes(16).hex()

    def _fail(self, error: VmksimError) -> None:
        if isinstance(error, SimBug):
            raise error
        if not isinstance(error, BootError):
            error = self._context.stop("boot", type(error).__name__, str(error))
        failure = self._context.failure(error, self._measurer.event_log())
        self._end(failure, error.stage, error.component, error.message)

    def _end(self, outcome: BootOutcome, what: str, component: str, message: str) -> None:
        self._board.sim.trace.emit(
            BOOT_DONE, self._board.spec.name, what, printable(component), printable(message)
        )
        self._on_done(outcome)
