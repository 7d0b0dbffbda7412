"""The management calls on the image: what is installed, the acceptance level, installations and updates.

Models: the handlers behind `image.*`.  What is installed is read from the running bank; changes go into the bank of the
next boot, which an installation or update makes the other one (`sim.kernel.bootbanks`), and take effect there.

Leaves out: live installation, removal of single VIBs.

Sources: VMware's documentation of esxcli software; the shapes of the answers are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sim.errors import FormatError, VerificationError
from sim.hw.disk import DiskError
from sim.image.acceptance import AcceptanceLevel
from sim.image.bankcheck import verify_bank
from sim.image.bootbank import BootBank
from sim.image.bundle import read_bundle
from sim.image.imgdb import DATABASE_FILE
from sim.image.install import InstallError, InstallResult, install, set_acceptance
from sim.image.profile import apply_profile
from sim.image.vib import read_vib
from sim.kernel.api import ApiError
from sim.kernel.bootbanks import next_bank, write_update
from sim.kernel.image_audit import note_waivers

if TYPE_CHECKING:
    from sim.kernel.vmkernel import VMkernel

__all__ = ["ImageCalls"]


class ImageCalls:
    """The handlers of one running VMkernel."""

    def __init__(self, kernel: VMkernel) -> None:
        self._kernel = kernel

    def handlers(self) -> Mapping[str, Callable[..., Any]]:
        """Return the handler of each of these calls."""
        return {
            "image.vibs": self.image_vibs,
            "image.database": self.image_database,
            "image.acceptance": self.image_acceptance,
            "image.set_acceptance": self.image_set_acceptance,
            "image.install": self.image_install,
            "image.update": self.image_update,
        }

    def image_database(self) -> dict[str, Any]:
        """Return the image database as the boot loader read it: an update since then is not in it."""
        try:
            return {"database": self._kernel.boot.module(DATABASE_FILE).data}
        except KeyError:
            raise ApiError("NotFound", f"this boot had no {DATABASE_FILE}") from None

    def image_vibs(self) -> list[dict[str, Any]]:
        """Return the VIBs of the boot bank, each with what its signature proves now."""
        kernel = self._kernel
        bank = self.bank(kernel.boot.bank)
        report = verify_bank(bank.files, kernel.trust, kernel.sim.utc_now(), bank.database.level)
        return [
            {
                "id": vib.descriptor.vib_id,
                "name": vib.descriptor.name,
                "version": vib.descriptor.version,
                "vendor": vib.descriptor.vendor,
                "level": vib.descriptor.level.title,
                "verified": vib.identity is not None,
                "provider": vib.identity.provider or "" if vib.identity is not None else "",
            }
            for vib in report.vibs
        ]

    def image_acceptance(self) -> str:
        """Return the host's acceptance level as esxcli prints it."""
        return self.bank(self.next).database.level.title

    def image_set_acceptance(self, level: str) -> None:
        """Change the host's acceptance level in the image of the next boot."""
        name = self.next
        try:
            changed = set_acceptance(self.bank(name), AcceptanceLevel.from_title(level))
        except FormatError as error:
            raise ApiError("InvalidArgument", str(error)) from error
        except InstallError as error:
            raise ApiError(error.check, str(error)) from error
        self._kernel.vault.expect_change()
        self.write(name, changed)

    def image_install(
        self,
        archive: bytes,
        *,
        force: bool = False,
        no_sig_check: bool = False,
        allow_downgrades: bool = False,
        allow_vendor_change: bool = False,
    ) -> dict[str, Any]:
        """Install a VIB into the bank that is not running, beside what already waits there for the next boot."""
        kernel = self._kernel
        try:
            vib = read_vib(archive)
            bank = self.bank(self.next)
            result = install(
                bank,
                vib,
                bank.database.level,
                kernel.trust,
                kernel.sim.utc_now(),
                force=force,
                no_sig_check=no_sig_check,
                downgrades=allow_downgrades,
                vendor_changes=allow_vendor_change,
            )
        except FormatError as error:
            raise ApiError("InvalidArgument", str(error)) from error
        except VerificationError as error:
            raise ApiError(error.check, str(error)) from error
        staged = self._stage(result) if result.installed else ""
        note_waivers(kernel.sim, kernel.board.spec.name, result)
        kernel.sim.log(
            "esxupdate", f"installed {', '.join(result.installed) or 'nothing'}; a reboot is required"
        )
        return {
            "bank": staged,
            "installed": list(result.installed),
            "skipped": list(result.skipped),
            "warnings": list(result.warnings),
        }

    def image_update(
        self,
        bundle: bytes,
        profile: str,
        *,
        allow_downgrades: bool = False,
        allow_vendor_change: bool = False,
        ok_to_remove: bool = False,
    ) -> dict[str, Any]:
        """Put an image profile of an offline bundle into the bank that is not running."""
        kernel = self._kernel
        try:
            depot = read_bundle(bundle)
            result = apply_profile(
                self.bank(self.next),
                depot.profile(profile),
                depot.vibs,
                kernel.trust,
                kernel.sim.utc_now(),
                downgrades=allow_downgrades,
                vendor_changes=allow_vendor_change,
                removals=ok_to_remove,
            )
        except FormatError as error:
            raise ApiError("InvalidArgument", str(error)) from error
        except VerificationError as error:
            raise ApiError(error.check, str(error)) from error
        bank = self._stage(result)
        note_waivers(kernel.sim, kernel.board.spec.name, result)
        kernel.sim.log("esxupdate", f"image profile {profile} is in {bank}; a reboot is required")
        return {
            "bank": bank,
            "installed": list(result.installed),
            "removed": list(result.removed),
            "skipped": list(result.skipped),
        }

    # -- the banks

    @property
    def next(self) -> str:
        """The bank of the next boot: the running one, or the other one while it holds an update."""
        return next_bank(self._kernel.board.disk, self._kernel.boot.bank)

    def bank(self, name: str) -> BootBank:
        """Return a bank as it lies on the disk; one that cannot be read is a fault of the call."""
        volume = self._kernel.board.disk.volume(name)
        try:
            bank = BootBank(files={path: volume.read(path) for path in volume.paths()})
            bank.database, bank.config  # noqa: B018 - both must be readable before anything is done with them
        except FormatError as error:
            raise ApiError("InvalidState", f"the boot bank cannot be read: {error}") from error
        return bank

    def _stage(self, result: InstallResult) -> str:
        """Leave a changed image for the next boot to try, whose configuration will open all the same; name its bank."""
        self._kernel.vault.expect_change()
        return write_update(self._kernel.board.disk, self._kernel.boot.bank, result.bank)

    def write(self, name: str, bank: BootBank) -> None:
        """Write the bank to the disk; one that the disk cannot take leaves it as it was."""
        volume = self._kernel.board.disk.volume(name)
        before = {path: volume.peek(path) for path in volume.paths()}
        try:
            for path in before:
                if path not in bank.files:
                    volume.remove(path)
            for path, data in bank.files.items():
                if not volume.exists(path) or volume.read(path) != data:
                    volume.write(path, data)
        except DiskError:
            volume.clear()
            volume.copy_from(before.items())
            raise
