"""One host over its life: power, boots, the running VMkernel, and what a reboot does to it.

Models: off, booting, running, suspended to memory (S3), halted (a boot that was refused or a VMkernel that panicked,
with the text on its screen), and the way from one to the other.  Each boot makes a new VMkernel from a new `BootInfo`;
nothing else survives but disk, firmware settings and TPM.  A TXT error resets the platform, which then boots again.

Leaves out: maintenance mode, the baseboard controller; what it costs to enter S3, which is part of the sleep.
Sources: none, a design of ours.  ESXi itself has no S3; the host does here what tboot does for a kernel that has.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any

from sim.boot.bootinfo import BootFailure, BootInfo
from sim.boot.context import BootPolicy
from sim.boot.resume import ResumeSequence
from sim.boot.sequence import BootSequence
from sim.core.rng import Stream
from sim.core.trace import record
from sim.errors import SimBug, VmksimError
from sim.hw.board import Board
from sim.hw.mca import MachineCheck
from sim.image.trust import TrustStore
from sim.kernel.api import ApiError
from sim.kernel.layout import RELEASES, ReleaseProfile
from sim.kernel.memory.options import MemOptions
from sim.kernel.perf import SAMPLE_EVERY_NS
from sim.kernel.sched.options import SchedOptions
from sim.kernel.standby import StandbyGuard, shut_down_tpm
from sim.kernel.vmkernel import Panic, VMkernel
from sim.kernel.vmspec import VmSpec

__all__ = ["Host", "HostState"]

HOST_STATE = record("host.state", host=str, state=str, reason=str)
"""A host changed its state."""


class HostState(enum.StrEnum):
    """Where a host is in its life."""

    OFF = "off"
    BOOTING = "booting"
    RUNNING = "running"
    SUSPENDED = "suspended"
    HALTED = "halted"


class Host:
    """A board with what boots and runs on it.

    `guests` are VMs whose workload is Python code, by name: no management call can name code, so that it lies on their disks.
    `watchers` are called with the host after every change of state; they must be bound methods, so that a host pickles.
    """

    def __init__(
        self,
        board: Board,
        trust: TrustStore,
        *,
        policy: BootPolicy | None = None,
        layout: ReleaseProfile | None = None,
        sched: SchedOptions | None = None,
        mem: MemOptions | None = None,
        sample_every_ns: int = SAMPLE_EVERY_NS.value,
        shootdowns: bool = True,
        strict_symbols: bool = True,
        guests: Mapping[str, VmSpec] | None = None,
    ) -> None:
        self.board = board
        self.sim = board.sim
        self.name = board.spec.name
        self.trust = trust
        self.policy = policy if policy is not None else BootPolicy()
        self.layout = layout if layout is not None else next(iter(RELEASES.values()))
        self.sched_options = sched if sched is not None else SchedOptions()
        self.mem_options = mem if mem is not None else MemOptions()
        self.sample_every_ns = sample_every_ns
        self.shootdowns = shootdowns
        self.strict_symbols = strict_symbols
        self.guests = dict(guests) if guests is not None else {}
        self.state = HostState.OFF
        self.boot: BootInfo | None = None
        self.failure: BootFailure | None = None
        self.kernel: VMkernel | None = None
        self.watchers: list[Callable[[Host], object]] = []
        self.resumes = 0
        """How often the present VMkernel has come back from S3."""
        self._sequence: BootSequence | ResumeSequence | None = None
        self._guard: StandbyGuard | None = None
        self._asleep: tuple[str, ...] = ()

    def power_on(self) -> None:
        """Apply power and boot."""
        self.board.power_on()
        self._begin_boot()

    def reboot(self) -> None:
        """Stop the VMkernel in order, reset the platform and boot again."""
        self._stop_kernel(orderly=True)
        self.board.reset()
        self._begin_boot()

    def reset(self) -> None:
        """Press the reset button: nothing is stopped in order."""
        self._stop_kernel(orderly=False)
        self.board.reset()
        self._begin_boot()

    def power_off(self) -> None:
        """Remove power at once."""
        self._stop_kernel(orderly=False)
        self.board.power_off()
        self._enter(HostState.OFF, "power removed")

    def suspend(self) -> None:
        """Enter S3: VMs stand still, a launched host seals what proves its memory, the TPM is told to keep its state.

        Errors: `ApiError` when it is not running, or its memory cannot be sealed.
        """
        kernel, boot = self.kernel, self.boot
        if kernel is None or boot is None or self.state is not HostState.RUNNING:
            raise ApiError("InvalidState", f"host {self.name} is {self.state}, not running")
        self._guard = None
        if boot.drtm:
            try:
                self._guard = StandbyGuard.close(self.board, kernel.memory, self._chance("close"))
            except MachineCheck as error:
                kernel.machine_checks.consumed(error.record, None)
                return
            except VmksimError as error:
                raise ApiError("HostPowerOpFailed", str(error)) from error
        self._asleep = kernel.quiesce()
        trouble = shut_down_tpm(self.board, boot)
        if trouble:
            self.sim.log("vmkernel", f"S3: TPM2_Shutdown(STATE) failed: {trouble}")
        self.board.suspend()
        self._enter(HostState.SUSPENDED, "S3")

    def resume(self) -> None:
        """Leave S3; the VMkernel goes on if memory is what it was, and the host halts if not.

        Errors: `ApiError` when it is not suspended.
        """
        if self.boot is None or self.state is not HostState.SUSPENDED or not self.board.asleep:
            raise ApiError("InvalidState", f"host {self.name} is {self.state}, not suspended")
        self.board.resume()
        self._sequence = ResumeSequence(
            self.board,
            self.trust,
            self.boot,
            check=self._check_memory,
            on_done=self._resumed,
            policy=self.policy,
        )
        self._sequence.start()

    def call(self, name: str, params: Mapping[str, object] | None = None) -> Any:
        """Make a management call to the running VMkernel.

        Errors: `ApiError`, also when no VMkernel is running.
        """
        if self.kernel is None or self.state is not HostState.RUNNING:
            raise ApiError("InvalidState", f"host {self.name} is {self.state}, not running")
        try:
            return self.kernel.api.call(name, params)
        except MachineCheck as error:
            self.kernel.machine_checks.consumed(error.record, None)
            raise ApiError("HostCommunication", f"host {self.name} has stopped: {error}") from error

    def check_invariants(self) -> None:
        """Raise `SimBug` unless board and kernel keep their invariants."""
        self.board.check_invariants()
        if self.kernel is not None:
            self.kernel.check_invariants()

    def _begin_boot(self) -> None:
        self.boot = self.failure = None
        self.resumes = 0
        self._guard = None
        self._sequence = BootSequence(self.board, self.trust, on_done=self._booted, policy=self.policy)
        self._sequence.start()
        self._enter(HostState.BOOTING, f"boot {self.board.boot_count}")

    def _booted(self, outcome: BootInfo | BootFailure) -> None:
        self._sequence = None
        if isinstance(outcome, BootFailure):
            self._failed(outcome)
            return
        self.boot = outcome
        self.kernel = VMkernel(
            self.board,
            outcome,
            self.trust,
            layout=self.layout,
            sched_options=self.sched_options,
            mem_options=self.mem_options,
            shootdowns=self.shootdowns,
            strict_symbols=self.strict_symbols,
            request_reboot=self._reboot_soon,
            sample_every_ns=self.sample_every_ns,
        )
        self.kernel.vms.guests = self.guests
        self.kernel.start(self._started, self._panicked)

    def _failed(self, failure: BootFailure) -> None:
        """Halt, or let a platform that resets itself boot again."""
        if failure.resets:
            self._enter(HostState.BOOTING, failure.message)
            self.board.reset()
            self._begin_boot()
            return
        self.failure = failure
        self._enter(HostState.HALTED, failure.message)

    def _check_memory(self) -> None:
        if self._guard is not None and self.kernel is not None:
            self._guard.check(self.board, self.kernel.memory, self._chance("open"))

    def _resumed(self, failure: BootFailure | None) -> None:
        self._sequence = None
        kernel = self.kernel
        if failure is not None or kernel is None:
            self._stop_kernel(orderly=False)
            self._failed(
                failure
                if failure is not None
                else BootFailure(stage="resume", component="", message="no VMkernel in memory")
            )
            return
        self.resumes += 1
        kernel.go_on(self._asleep, self.resumes)
        self._asleep = ()
        self._enter(HostState.RUNNING, "resumed from S3")

    def _chance(self, what: str) -> Stream:
        name = f"standby/{self.board.boot_count}/{self.resumes}/{what}"
        return self.sim.rng.child(self.name).stream(name)

    def _started(self) -> None:
        self._enter(HostState.RUNNING, "the management interface is open")

    def _panicked(self, panic: Panic) -> None:
        """Halt with what the purple screen says; the platform waits for a reset."""
        boot = self.boot
        if boot is None:
            raise SimBug("a VMkernel panicked without having been booted")
        self.failure = BootFailure(
            stage="vmkernel",
            component=panic.step,
            message=panic.text,
            host=self.name,
            messages=boot.messages,
            event_log=boot.event_log,
            started_ns=boot.started_ns,
            finished_ns=self.sim.now,
        )
        self._stop_kernel(orderly=False)
        self._enter(HostState.HALTED, f"purple screen: {panic.text}")

    def _reboot_soon(self) -> None:
        """Reboot at the next instant: once, however often it is asked for."""
        self.sim.engine.after(0, self._reboot_as_asked, self.board.boot_count)

    def _reboot_as_asked(self, boot_count: int) -> None:
        """Reboot, unless another reboot, the power button or the reset button were faster."""
        if self.state is HostState.RUNNING and boot_count == self.board.boot_count:
            self.reboot()

    def _stop_kernel(self, *, orderly: bool) -> None:
        if self._sequence is not None:
            self._sequence.stop()
            self._sequence = None
        if self.kernel is not None:
            kernel, self.kernel = self.kernel, None
            errors = self.board.memory.errors
            aside = (
                errors.set_aside()
            )  # to end worlds and free frames is our bookkeeping; no processor reads memory
            kernel.stop(orderly=orderly)
            errors.put_back(aside)

    def _enter(self, state: HostState, reason: str) -> None:
        self.state = state
        self.sim.trace.emit(HOST_STATE, self.name, str(state), reason)
        for watcher in tuple(self.watchers):
            watcher(self)
