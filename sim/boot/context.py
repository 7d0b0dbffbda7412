"""What all stages of one boot share: the machine, the trust anchors, the log lines, and what has been found so far.

Models nothing by itself.  Leaves out the measurements (`sim.boot.measure`).  Sources: none, a design of ours.
"""

from __future__ import annotations

import attrs

from sim.boot.bootinfo import BootFailure, StartupMode, TpmFailureRule, TpmState
from sim.boot.launchspec import LaunchSpec
from sim.boot.loaded import LoadedModule
from sim.boot.pcrmap import LOADER_MAP, PcrMap
from sim.core.procedure import Procedure
from sim.core.trace import record
from sim.errors import VmksimError
from sim.hw.board import Board
from sim.image.bootcfg import BootConfig
from sim.image.trust import TrustStore

__all__ = ["BootContext", "BootError", "BootPolicy", "printable"]

BOOT_STEP = record("boot.step", host=str, stage=str, text=str)
"""A stage of the boot chain said or decided something."""

BOOT_MEASURED = record("boot.measured", host=str, pcr=int, type=int, name=str, digest=bytes)
"""A component was extended into a PCR; the digest is that of the SHA-256 bank, or of the first one."""

LINE_CHARS_MAX = 400


@attrs.frozen(kw_only=True)
class BootPolicy:
    """How this platform boots, apart from its setup switches."""

    startup: StartupMode = StartupMode.LOCALITY_0
    tpm_failure: TpmFailureRule = TpmFailureRule.GO_ON
    loader_map: PcrMap = LOADER_MAP
    launch: LaunchSpec = attrs.field(factory=LaunchSpec)


class BootError(VmksimError):
    """A step found that the boot cannot go on; it ends the procedure and becomes a `BootFailure`."""

    def __init__(self, stage: str, component: str, message: str, *, resets: bool = False) -> None:
        self.stage = stage
        self.component = component
        self.message = message
        self.resets = resets
        super().__init__(stage, component, message)

    def __str__(self) -> str:
        return f"{self.stage}: {self.component}: {self.message}"


class BootContext:
    """The state of one running boot."""

    def __init__(self, board: Board, trust: TrustStore, policy: BootPolicy, procedure: Procedure) -> None:
        self.board = board
        self.sim = board.sim
        self.meter = board.meter
        self.trust = trust
        self.policy = policy
        self.procedure = procedure
        self.tpm_state = TpmState.ABSENT
        self.messages: list[str] = []
        self.bank = ""
        self.config: BootConfig | None = None
        self.loaded: list[LoadedModule] = []
        self.late_launch = False
        """Decided by the loader: the modules are measured after a late launch, and not before."""
        self.started_ns = board.sim.now
        self.kept_command_line = ""
        """The command line of a boot that is resumed: there is no boot.cfg to read it from."""

    @property
    def secure_boot(self) -> bool:
        """Whether UEFI Secure Boot is enforced."""
        return self.board.firmware.secure_boot

    @property
    def command_line(self) -> str:
        """The kernel's file name and options, as they are measured."""
        if self.config is None:
            return self.kept_command_line
        return f"{self.config.kernel} {self.config.kernelopt}".rstrip()

    def say(self, source: str, text: str) -> None:
        """Write one log line of `source`; text from stored bytes is made printable first."""
        line = printable(text)
        self.messages.append(f"{source}: {line}")
        self.sim.log(source, line)
        self.sim.trace.emit(BOOT_STEP, self.board.spec.name, source, line)

    def stop(self, stage: str, component: str, message: str, *, resets: bool = False) -> BootError:
        """Write the last line of a boot that stops here, and return the error to raise; `resets`: the platform goes on."""
        self.say(stage, message)
        return BootError(stage, component, message, resets=resets)

    def failure(self, stopped: BootError, event_log: bytes) -> BootFailure:
        """Return the value in which a stopped boot ends."""
        return BootFailure(
            stage=stopped.stage,
            component=stopped.component,
            message=stopped.message,
            host=self.board.spec.name,
            messages=tuple(self.messages),
            event_log=event_log,
            resets=stopped.resets,
            started_ns=self.started_ns,
            finished_ns=self.sim.now,
        )


def printable(text: str) -> str:
    """Return text from stored bytes as one log line: ASCII, escaped, cut."""
    return "".join(
        char if " " <= char <= "~" else char.encode("unicode_escape").decode()
        for char in text[:LINE_CHARS_MAX]
    )
