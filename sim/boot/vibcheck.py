"""The secure boot VIB verifier: before drivers are loaded, every installed VIB must be what its signature says.

Models: the check of the whole boot bank (`sim.image.bankcheck`) on the very bytes that were loaded; with Secure Boot on
a fault ends in a purple screen, with it off each fault is logged and the boot goes on.

Leaves out: the early environment in which the real verifier, a script, runs.

Sources: VMware, "UEFI Secure Boot for ESXi Hosts" and KB 414701 (texts).
"""

from __future__ import annotations

from sim.boot.bootinfo import InstalledVib
from sim.boot.context import BootContext
from sim.boot.costs import charge_hash, charge_signatures
from sim.errors import FormatError
from sim.image.acceptance import AcceptanceLevel
from sim.image.bankcheck import BankReport, verify_bank
from sim.image.imgdb import DATABASE_FILE, read_database

__all__ = ["VibCheck"]

STAGE = "secureboot"
SIGNATURES_PER_VIB = 3
"""The descriptor's, and two certificates of its chain."""


class VibCheck:
    """The verifier of one boot; `check` is a step, and `owners` and `vibs` are what it leaves behind."""

    def __init__(self, context: BootContext) -> None:
        self._context = context
        self.owners: dict[str, str] = {}
        """Bank file -> id of the VIB that it belongs to."""
        self.vibs: tuple[InstalledVib, ...] = ()

    def check(self) -> None:
        """Verify the bank; stop the boot on a fault when Secure Boot is on."""
        files = self._bank_files()
        report = verify_bank(
            files,
            self._context.trust,
            self._context.sim.utc_now(),
            _host_level(files),
            secure_boot=self._context.secure_boot,
            bootstate=self._context.config.bootstate if self._context.config is not None else 0,
        )
        self._charge(files, len(report.vibs))
        self._keep(report)
        for failure in report.failures:
            self._say(failure.message)
        if report.ok:
            self._say(f"all {len(report.vibs)} installed VIBs verified")
        elif self._context.secure_boot:
            first = report.failures[0]
            raise self._context.stop(STAGE, first.tardisk or first.vib, report.message)
        else:
            self._say("Secure Boot is disabled: the boot goes on")

    def _bank_files(self) -> dict[str, bytes]:
        """Return the loaded modules as they are in memory, and the other files of the bank from the disk."""
        files = {module.name: module.data for module in self._context.loaded}
        volume = self._context.board.disk.volume(self._context.bank)
        for path in volume.paths():
            if path not in files:
                files[path] = volume.read(path)
        return files

    def _keep(self, report: BankReport) -> None:
        refused: dict[str, str] = {}
        for failure in report.failures:
            refused.setdefault(failure.vib, failure.message)
        records = [vib.record for vib in report.vibs]
        self.owners = {name: record.descriptor.vib_id for record in records for name in record.files}
        self.vibs = tuple(
            InstalledVib(
                vib_id=record.descriptor.vib_id,
                descriptor_xml=record.descriptor_xml,
                signature=record.signature,
                refused=refused.get(record.descriptor.name, ""),
            )
            for record in records
        )

    def _charge(self, files: dict[str, bytes], vibs: int) -> None:
        charge_hash(self._context.meter, "sha256", sum(len(data) for data in files.values()))
        charge_signatures(self._context.meter, SIGNATURES_PER_VIB * vibs)

    def _say(self, text: str) -> None:
        self._context.say(STAGE, text)


def _host_level(files: dict[str, bytes]) -> AcceptanceLevel:
    """Return the host's acceptance level as the image database says; the default one when that is unreadable."""
    try:
        return read_database(files.get(DATABASE_FILE, b"")).level
    except FormatError:
        return AcceptanceLevel.PARTNER_SUPPORTED
