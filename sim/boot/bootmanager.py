"""The firmware's boot manager: find a boot option that may run, verify it, measure it, start it.

Models: boot options in order, with the two events between an attempt that came to nothing and the next in PCR 4; the check
of an EFI application against db and dbx when Secure Boot is on, at simulated time; its authority in PCR 7, its Authenticode
digest in PCR 4, the partition table in PCR 5; the two events that frame the end of boot services in PCR 5.

Leaves out: network boot, the boot menu, removable media, MOK and shim.

Sources: UEFI specification 2.10, chapters 3 and 32; TCG PC Client Platform Firmware Profile 1.05, sections 3.3.4.5 to
3.3.4.8; VMware's Secure Boot documentation for the text of a refused loader.
"""

from __future__ import annotations

from sim.boot import uefi_events
from sim.boot.context import BootContext
from sim.boot.costs import charge_signatures
from sim.boot.gpt import partition_table
from sim.boot.loadoption import LoadOption, parse_load_option
from sim.boot.measure import Measurer
from sim.errors import FormatError, VerificationError
from sim.image.efi import verify_efi
from sim.image.efi_lists import ListEntry, parse_signature_lists
from sim.image.pe import read_pe
from sim.tpm.eventlog import EV

__all__ = ["BootManager", "find_file"]

STAGE = "firmware"
APPLICATION_BASE = 0x7E00_0000
CHAIN_SIGNATURES = 2
"""Signatures checked for one application: its own and its certificate's."""


class BootManager:
    """Starts EFI applications; the loader that runs may start more of them."""

    def __init__(self, context: BootContext, measurer: Measurer) -> None:
        self._context = context
        self._measurer = measurer
        self._settings = context.board.firmware
        self._authorities: list[bytes] = []
        self._option: LoadOption | None = None
        self._table_measured = False
        self.loader_path = ""
        """Path of the application that a boot option started."""

    def start_loader(self) -> None:
        """Try the boot options in order until one may be started; stop the boot when there is none."""
        refusal, component, attempts = "No bootable device was found.", "boot order", 0
        for number in self._settings.boot_order():
            option = self._read_option(f"Boot{number:04X}")
            if option is None or not option.active:
                continue
            if attempts:
                self._measure_another_attempt()
            attempts += 1
            self._option, component = option, option.file_path
            try:
                self.run_application(option.file_path)
            except VerificationError as error:
                refusal = f"UEFI0073: Unable to boot {option.description} because of the Secure Boot policy."
                self._say(f"{component}: {error}")
            except FormatError as error:
                refusal = f"Unable to boot {option.description}: {error}"
            else:
                self.loader_path = option.file_path
                return
            self._say(refusal)
        raise self._context.stop(STAGE, component, refusal)

    def run_application(self, file_path: str) -> None:
        """Read, verify, measure and start one EFI application of the system partition.

        Errors: `FormatError` when it is missing or no EFI image, `VerificationError` when Secure Boot refuses it.
        """
        volume = self._context.board.disk.volume("esp")
        image = volume.read(find_file(volume.paths(), file_path))
        read_pe(image)
        if self._settings.secure_boot:
            self._measure_authority(self._verify(image))
        self._measure_partition_table()
        path = self._option.path_of(file_path) if self._option is not None else b""
        self._measurer.measure_platform(
            4,
            EV.EFI_BOOT_SERVICES_APPLICATION,
            uefi_events.image_load(APPLICATION_BASE, len(image), 0, path),
            name=file_path,
            digests=self._measurer.image_digests(image),
        )
        self._say(f"starting {file_path}")

    def exit_boot_services(self) -> None:
        """PCR 5: the loader takes the machine over."""
        for text in (uefi_events.EXIT_BOOT_SERVICES_STARTED, uefi_events.EXIT_BOOT_SERVICES_DONE):
            self._measurer.measure_platform(5, EV.EFI_ACTION, text, name="exit boot services")
        self._say("boot services ended")

    def _measure_another_attempt(self) -> None:
        """PCR 4: the last option came to nothing, and the next one is tried; the first attempt is measured already."""
        for text in (uefi_events.RETURNING_FROM_BOOT_APPLICATION, uefi_events.CALLING_BOOT_APPLICATION):
            self._measurer.measure_platform(4, EV.EFI_ACTION, text, name="boot attempt")

    def _read_option(self, name: str) -> LoadOption | None:
        data = self._settings.variables.get(name)
        if data is None:
            return None
        try:
            return parse_load_option(data)
        except FormatError as error:
            self._say(f"{name}: {error}")
            return None

    def _verify(self, image: bytes) -> ListEntry:
        """Return the db entry that allows `image` to run."""
        allowed = parse_signature_lists(self._settings.variables.get("db", b""))
        forbidden = parse_signature_lists(self._settings.variables.get("dbx", b""))
        charge_signatures(self._context.meter, CHAIN_SIGNATURES)
        authority = verify_efi(image, allowed, forbidden, self._context.sim.utc_now())
        return next(entry for entry in allowed if entry.data == authority)

    def _measure_authority(self, authority: ListEntry) -> None:
        """PCR 7: what allowed the application to run, once for each authority."""
        entry = authority.signature_data
        if entry not in self._authorities:
            self._authorities.append(entry)
            data = uefi_events.variable_data("db", entry)
            self._measurer.measure_platform(7, EV.EFI_VARIABLE_AUTHORITY, data, name="db")

    def _measure_partition_table(self) -> None:
        """PCR 5: the table of the disk that is booted from, once."""
        if self._table_measured or self._option is None:
            return
        self._table_measured = True
        table = partition_table(self._context.board.spec.name, esp_guid=self._option.partition_guid)
        data = uefi_events.gpt_data(table.header(), table.entries())
        self._measurer.measure_platform(5, EV.EFI_GPT_EVENT, data, name="partition table")

    def _say(self, text: str) -> None:
        self._context.say(STAGE, text)


def find_file(paths: tuple[str, ...], wanted: str) -> str:
    """Return the stored path that a firmware path means (backslashes, any case); `FormatError` if there is none."""
    for path in paths:
        if _normal(path) == _normal(wanted):
            return path
    raise FormatError("EFI system partition", wanted, "there is no such file")


def _normal(path: str) -> str:
    return path.replace("\\", "/").strip("/").lower()
