"""The platform firmware before it looks for something to boot: start the TPM, measure itself and its settings.

Models: the static root of trust of a UEFI server, in the order in which its events stand in the log: TPM start-up (at
locality 0 or 3, or after an H-CRTM hash sequence), PCR 0 (version, code volumes), PCR 7 (Secure Boot variables and their
separator), PCR 1 (microcode, setup), PCR 2 (option ROM), PCR 1 again (SMBIOS table, boot options), the first boot attempt
in PCR 4, separators in PCRs 0-6.  A TPM that fails is left alone from then on, and the boot goes on.  After S3 the TPM is
started as it was shut down; one that lost its state is started anew, and an error separator in PCRs 0-7 keeps anybody
from filling them again.

In which form it tells of its own code and tables, makers differ: `sim.boot.logform`.

Leaves out: capsules; `sim.boot.bootmanager` does what follows.

Sources: TCG PC Client Platform Firmware Profile 1.05, sections 2.3.4, 3.3.4 and 10.4; EDK2, SecurityPkg Tcg2Dxe (what it
measures when it is ready to boot) and Tcg2Pei (what follows a Startup(STATE) that fails); the order of events in eleven
public logs of real machines.
"""

from __future__ import annotations

from sim.boot import uefi_events
from sim.boot.acpi import acpi_tables
from sim.boot.bootinfo import StartupMode, TpmState
from sim.boot.context import BootContext
from sim.boot.costs import FIRMWARE_POST_NS, MEMORY_TEST_NS_PER_GIB
from sim.boot.logform import ACPI_DATA, FORMS, code_event, version_data
from sim.boot.measure import Measurer, hash_sequence
from sim.boot.smbios import smbios_table
from sim.core.units import GIB
from sim.errors import FormatError
from sim.hw.tpm_slot import TpmSlot
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.constants import TPM_CAP, TPM_SU
from sim.tpm.eventlog import EV

__all__ = ["Firmware"]

SECURE_BOOT_VARIABLES = ("SecureBoot", "PK", "KEK", "db", "dbx")
"""The order in which PCR 7 takes them."""

CODE_VOLUMES = ("SEC-PEI", "DXE")
CODE_BASE = 0xFF00_0000
OPTION_ROM = "OPTION-ROM"
OPTION_ROM_BASE = 0xC000_0000
MICROCODE = "MICROCODE"
CRTM_VOLUME = "SEC-PEI"
SMBIOS_ADDRESS = 0x6F00_0000
ACPI_ADDRESS = 0x6F10_0000

STAGE = "firmware"


class Firmware:
    """The firmware of one boot; its public methods without arguments are steps of the boot sequence, in that order."""

    def __init__(self, context: BootContext, measurer: Measurer) -> None:
        self._context = context
        self._measurer = measurer
        self._settings = context.board.firmware
        self._form = FORMS[self._settings.spec.log_form]

    def self_test(self) -> None:
        """Initialise processors and memory, which is most of the time that a boot takes."""
        board = self._context.board
        spec = self._settings.spec
        self._say(f"{spec.vendor} version {spec.version}")
        memory_gib = -(-board.spec.memory_bytes // GIB)
        self._context.meter.charge(
            FIRMWARE_POST_NS.value + memory_gib * MEMORY_TEST_NS_PER_GIB.value, "self test"
        )
        self._say(f"UEFI Secure Boot is {'enabled' if self._settings.secure_boot else 'disabled'}")

    def start_tpm(self) -> None:
        """Start the TPM that is in the slot, if it is there, enabled, and works."""
        slot = self._context.board.tpm
        if slot is None:
            self._say("TPM: no device")
            return
        if not slot.enabled:
            self._context.tpm_state = TpmState.DISABLED
            self._say("TPM: present, disabled in setup")
            return
        self._context.tpm_state = TpmState.ENABLED
        try:
            self._start(slot)
        except (TpmError, FormatError) as error:
            self._measurer.give_up(str(error))

    def resume_tpm(self) -> None:
        """Start the TPM as it was shut down before S3; one that cannot is started anew, and its PCRs 0 to 7 are capped."""
        slot = self._context.board.tpm
        if slot is None or self._context.tpm_state is not TpmState.ENABLED:
            return
        mode = self._context.policy.startup
        client = TpmClient(slot.transmit, locality=3 if mode is StartupMode.LOCALITY_3 else 0)
        try:
            if mode is StartupMode.H_CRTM:
                hash_sequence(slot, self._context.meter, self._settings.volumes[CRTM_VOLUME])
            try:
                client.startup(TPM_SU.STATE)
            except TpmError as error:
                self._say(f"TPM: {error}; started anew, PCRs 0 to 7 are capped")
                self._start_anew(client, slot)
                return
            self._measurer.begin(slot, allocated_banks(client))
        except (TpmError, FormatError) as error:
            self._measurer.give_up(str(error))
            return
        self._say("TPM: resumed")

    def _start_anew(self, client: TpmClient, slot: TpmSlot) -> None:
        """Start a TPM that lost its state, and say in PCRs 0 to 7 that the platform has an error."""
        client.startup(TPM_SU.CLEAR)
        self._measurer.begin(slot, allocated_banks(client))
        for pcr in range(8):
            self._measurer.measure_platform(pcr, EV.SEPARATOR, uefi_events.ERROR_SEPARATOR, name="error")

    def measure_itself(self) -> None:
        """PCR 0: the version and every code volume that runs before the option ROM."""
        form, measure = self._form, self._measurer.measure_platform
        if form.crtm_contents:
            core = self._settings.volumes[CRTM_VOLUME]
            measure(0, EV.S_CRTM_CONTENTS, form.crtm_contents, name=CRTM_VOLUME, over=core)
        version = version_data(form, self._settings.spec)
        measure(0, EV.S_CRTM_VERSION, version, name="S-CRTM version")
        base = CODE_BASE
        for name in CODE_VOLUMES:
            code = self._settings.volumes[name]
            if form.code is not None and not (form.crtm_contents and name == CRTM_VOLUME):
                measure(0, form.code, code_event(form, name, base, len(code)), name=name, over=code)
            base += len(code)
        if form.nonhost_info:
            measure(0, EV.NONHOST_INFO, form.nonhost_info, name="platform")

    def measure_secure_boot_variables(self) -> None:
        """PCR 7: the variables that define Secure Boot, then the separator that ends the policy part."""
        for name in SECURE_BOOT_VARIABLES:
            data = uefi_events.variable_data(name, self._settings.variables.get(name, b""))
            self._measurer.measure_platform(7, EV.EFI_VARIABLE_DRIVER_CONFIG, data, name=name)
        self._measurer.measure_platform(7, EV.SEPARATOR, uefi_events.SEPARATOR, name="separator")

    def measure_settings(self) -> None:
        """PCR 1: what the processors were updated with, and the switches of the setup screen."""
        self._measurer.measure_platform(
            1,
            EV.CPU_MICROCODE,
            uefi_events.MICROCODE_TEXT,
            name=MICROCODE,
            over=self._settings.volumes[MICROCODE],
        )
        switches = f"tpm={self._settings.tpm_enabled:d} txt={self._settings.txt_enabled:d}"
        self._measurer.measure_platform(1, EV.PLATFORM_CONFIG_FLAGS, switches.encode(), name="setup")
        if self._form.acpi_flags:
            for name, table in acpi_tables(self._context.board.spec):
                self._measurer.measure_platform(
                    1, EV.PLATFORM_CONFIG_FLAGS, ACPI_DATA, name=f"ACPI {name}", over=table
                )

    def measure_option_rom(self) -> None:
        """PCR 2: the code that a plug-in card brings."""
        rom = self._settings.volumes[OPTION_ROM]
        path = uefi_events.option_rom_path(0, len(rom) - 1)
        data = uefi_events.image_load(OPTION_ROM_BASE, len(rom), 0, path)
        self._measurer.measure_platform(2, EV.EFI_BOOT_SERVICES_DRIVER, data, name=OPTION_ROM, over=rom)

    def measure_handoff_tables(self) -> None:
        """PCR 1: what the firmware tells of the hardware."""
        if self._form.second_tables:
            self._measure_second_tables()
            return
        self._measurer.measure_platform(
            1,
            EV.EFI_HANDOFF_TABLES,
            uefi_events.handoff_tables((uefi_events.SMBIOS3_TABLE, SMBIOS_ADDRESS)),
            name="SMBIOS",
            over=smbios_table(self._context.board.spec),
        )

    def _measure_second_tables(self) -> None:
        """SMBIOS and ACPI by name; a digest is over the tables that an entry points to, one behind the other."""
        spec = self._context.board.spec
        acpi = b"".join(table for _, table in acpi_tables(spec))
        for name, entry, address, content in (
            ("SmbiosTable", uefi_events.SMBIOS3_TABLE, SMBIOS_ADDRESS, smbios_table(spec)),
            ("AcpiTable", uefi_events.ACPI2_TABLE, ACPI_ADDRESS, acpi),
        ):
            data = uefi_events.handoff_tables2(name, (entry, address))
            self._measurer.measure_platform(1, EV.EFI_HANDOFF_TABLES2, data, name=name, over=content)

    def measure_boot_options(self) -> None:
        """PCR 1: the boot order and each option in it."""
        names = ["BootOrder", *(f"Boot{number:04X}" for number in self._settings.boot_order())]
        for name in names:
            if name in self._settings.variables:
                data = uefi_events.variable_data(name, self._settings.variables[name])
                self._measurer.measure_platform(1, self._form.boot_variable, data, name=name)

    def end_platform_phase(self) -> None:
        """PCR 4 says that an option is about to be tried; separators end the platform's part in PCRs 0 to 6."""
        self._measurer.measure_platform(
            4, EV.EFI_ACTION, uefi_events.CALLING_BOOT_APPLICATION, name="boot attempt"
        )
        for pcr in range(7):
            self._measurer.measure_platform(pcr, EV.SEPARATOR, uefi_events.SEPARATOR, name="separator")

    def _start(self, slot: TpmSlot) -> None:
        """Send _TPM_Hash_* if the platform has an H-CRTM, then Startup; log where PCR 0 began."""
        mode = self._context.policy.startup
        core = self._settings.volumes[CRTM_VOLUME]
        if mode is StartupMode.H_CRTM:
            hash_sequence(slot, self._context.meter, core)
        client = TpmClient(slot.transmit, locality=3 if mode is StartupMode.LOCALITY_3 else 0)
        client.startup()
        client.self_test()
        self._measurer.begin(slot, allocated_banks(client))
        if mode is StartupMode.H_CRTM:
            self._measurer.note_startup_locality(4)
            digests = self._measurer.digests(core)
            self._measurer.log(0, EV.EFI_HCRTM_EVENT, uefi_events.HCRTM_TEXT, digests, name=CRTM_VOLUME)
        elif mode is StartupMode.LOCALITY_3:
            self._measurer.note_startup_locality(3)
        self._say(f"TPM: started ({mode.value})")

    def _say(self, text: str) -> None:
        self._context.say(STAGE, text)


def allocated_banks(client: TpmClient) -> tuple[int, ...]:
    """Return the algorithms of the PCR banks that the TPM keeps."""
    selections = client.get_capability(TPM_CAP.PCRS)
    return tuple(int(selection.hash) for selection in selections if selection.pcrs)
