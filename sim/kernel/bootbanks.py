"""The two boot banks under a running VMkernel: an update goes into the other one, and a good boot is noted.

Models: the bank that is not running is emptied and filled with the running one's files as the update or installation changes
them, its boot.cfg with a higher `updated` and `bootstate` 1; a further change before the reboot is made to that one.  The next boot takes it, on trial (`sim.boot.safeboot`); a VMkernel
whose management interface is open notes that its bank has booted well.  A bank on trial that never got there is passed
over at the boot after, so the old image comes back by itself.  boot.cfg is written last: an update that was cut short
leaves a bank without one, which is not bootable.

Leaves out: a copy of the saved state into the old bank after the update.

Sources: vmware/esx-boot (safeboot) for `bootstate` and `updated`; what writes them under a running host is inferred.
"""

from __future__ import annotations

import attrs

from sim.boot.safeboot import BANKS
from sim.errors import FormatError
from sim.hw.disk import Disk, DiskError, Volume
from sim.image.bootbank import BootBank
from sim.image.bootcfg import CONFIG_FILE, BootConfig, BootState, format_boot_config, parse_boot_config

__all__ = ["next_bank", "note_good_boot", "other_bank", "write_update"]


def other_bank(running: str) -> str:
    """Return the name of the bank that is not running."""
    return next(bank for bank in BANKS if bank != running)


def next_bank(disk: Disk, running: str) -> str:
    """Return the name of the bank that the next boot takes: the other one if it holds an update that waits for it."""
    name = other_bank(running)
    waiting, now = (_config_of(disk.volume(bank)) for bank in (name, running))
    if waiting is None or waiting.bootstate != BootState.UPDATED:
        return running
    return name if now is None or waiting.updated > now.updated else running


def write_update(disk: Disk, running: str, bank: BootBank) -> str:
    """Write an updated image into the bank that is not running, for the next boot to try; return that bank's name.

    An update has a higher `updated` than the bank that it was made from (`sim.image.install`), so the next boot prefers it.

    Errors: `DiskError` when it does not fit; that bank is not bootable then, and the running one untouched.
    """
    name = other_bank(running)
    target = disk.volume(name)
    config = attrs.evolve(bank.config, bootstate=int(BootState.UPDATED))
    tried = bank.with_config(config)
    target.clear()
    for path, data in tried.files.items():
        if path != CONFIG_FILE:
            target.write(path, data)
    target.write(CONFIG_FILE, tried.files[CONFIG_FILE])
    return name


def note_good_boot(volume: Volume) -> bool:
    """Set the bank's bootstate to 0 if it was on trial; tell whether it was.  A boot.cfg that is gone stays gone."""
    config = _config_of(volume)
    if config is None or config.bootstate not in (BootState.UPDATED, BootState.ATTEMPTED):
        return False
    volume.write(CONFIG_FILE, format_boot_config(attrs.evolve(config, bootstate=int(BootState.GOOD))))
    return True


def _config_of(volume: Volume) -> BootConfig | None:
    """Return the boot.cfg of a bank, or None where there is none that can be read."""
    try:
        return parse_boot_config(volume.read(CONFIG_FILE))
    except (DiskError, FormatError):
        return None
