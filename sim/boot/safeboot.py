"""safeboot: choose the boot bank.

Models: the two banks of a disk, each with its boot.cfg; the newer bootable one wins, the first one on a draw, and the
other is the fallback.  An updated bank is marked as attempted before it is booted; if a boot finds that mark still there,
the update did not come up, and the other bank is booted.  The second loader (mboot) is an EFI application of its own and is verified as one.

Leaves out: the key combination that asks for the older bank.  That a bank came up is noted by `sim.kernel.bootbanks`.

Sources: vmware/esx-boot (safeboot); VMware's documentation of boot.cfg (`bootstate`, `updated`).
"""

from __future__ import annotations

import attrs

from sim.boot.bootmanager import BootManager, find_file
from sim.boot.context import BootContext
from sim.errors import FormatError, VerificationError
from sim.hw.disk import DiskError
from sim.image.bootcfg import CONFIG_FILE, BootConfig, BootState, format_boot_config, parse_boot_config

__all__ = ["FATAL_NOT_FOUND", "FATAL_SECURE_BOOT", "Safeboot"]

STAGE = "safeboot"
BANKS = ("bootbank", "altbootbank")
SECOND_LOADER = "mboot64.efi"

FATAL_NOT_FOUND = "Fatal error: 15 (Not found)"
FATAL_SECURE_BOOT = "Fatal error: 39 (Secure Boot Failed)"


class Safeboot:
    """The first loader of one boot; its public methods are steps."""

    def __init__(self, context: BootContext, manager: BootManager) -> None:
        self._context = context
        self._manager = manager

    def choose_bank(self) -> None:
        """Read both boot.cfg files and settle on a bank; stop the boot when neither is bootable."""
        best: tuple[str, BootConfig] | None = None
        for bank in BANKS:
            config = self._read_config(bank)
            if config is not None and (best is None or config.updated > best[1].updated):
                best = (bank, config)
        if best is None:
            self._say("no bank is bootable")
            raise self._context.stop(STAGE, "boot bank", FATAL_NOT_FOUND)
        self._context.bank, self._context.config = best
        if best[1].bootstate == BootState.UPDATED:
            self._begin_trial(*best)
        self._say(f"booting from {self._context.bank}, build {self._context.config.build or 'unknown'}")

    def start_mboot(self) -> None:
        """Start the second loader, a file of its own beside the first; stop the boot when it is missing or refused."""
        volume = self._context.board.disk.volume("esp")
        folder = self._manager.loader_path.rpartition("\\")[0]
        try:
            find_file(volume.paths(), f"{folder}\\{SECOND_LOADER}")
        except FormatError as error:
            self._say(f"{SECOND_LOADER}: {error}")
            raise self._context.stop(STAGE, SECOND_LOADER, FATAL_NOT_FOUND) from error
        try:
            self._manager.run_application(f"{folder}\\{SECOND_LOADER}")
        except (VerificationError, FormatError) as error:
            self._say(f"{SECOND_LOADER}: {error}")
            raise self._context.stop(STAGE, SECOND_LOADER, FATAL_SECURE_BOOT) from error

    def _read_config(self, bank: str) -> BootConfig | None:
        """Return the bank's configuration, or None (and say why) when the bank cannot be booted."""
        volume = self._context.board.disk.volume(bank)
        if not volume.paths():
            return None
        try:
            config = parse_boot_config(volume.read(CONFIG_FILE))
        except (DiskError, FormatError) as error:
            self._say(f"{bank} is not bootable: {error}")
            return None
        if config.bootstate == BootState.ATTEMPTED:
            self._say(f"{bank}: its update was attempted and did not come up; rolling back")
            return None
        if config.bootstate > BootState.ATTEMPTED:
            self._say(f"{bank} is not bootable: bootstate={config.bootstate}")
            return None
        if not volume.exists(config.kernel):
            self._say(f"{bank} is not bootable: it has no {config.kernel}")
            return None
        return config

    def _begin_trial(self, bank: str, config: BootConfig) -> None:
        """Mark an update as attempted, before anything of it runs; a disk that cannot take the mark stops the boot."""
        tried = attrs.evolve(config, bootstate=int(BootState.ATTEMPTED))
        try:
            self._context.board.disk.volume(bank).write(CONFIG_FILE, format_boot_config(tried))
        except DiskError as error:
            raise self._context.stop(STAGE, bank, f"cannot mark the update as attempted: {error}") from error
        self._context.config = tried
        self._say(f"{bank} holds an update: attempting it")

    def _say(self, text: str) -> None:
        self._context.say(STAGE, text)
