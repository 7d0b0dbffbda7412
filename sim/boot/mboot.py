"""mboot: load the modules of a boot bank and measure them.

Models: each module read, unpacked and measured in list order; the version record of b and k before its module; a
warning for names that stand twice; the command line; the asset tag in the TPM's NV memory.  A module that cannot be
measured ends the boot, the others only warn.  With a late launch ahead nothing is measured here, as on a real host
with TXT: the launched code does it.

Leaves out: network boot, placement of modules in memory, the boot menu.

Sources: vmware/esx-boot (mboot, uefi/efiutils/tpm.c); the fatal errors are those that ESXi's loader shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from sim.boot.bootinfo import TpmState
from sim.boot.context import BootContext
from sim.boot.costs import charge_gunzip
from sim.boot.loaded import LoadedModule
from sim.boot.measure import MeasureError, Measurer
from sim.boot.modules import ModuleMeasurer
from sim.boot.pcrmap import VERSIONED_MODULES, module_base_name
from sim.boot.safeboot import FATAL_NOT_FOUND
from sim.errors import FormatError, LimitError
from sim.hw.disk import DiskError
from sim.image.bootbank import check_bank_contents
from sim.image.bootcfg import BootConfig
from sim.image.contents import without_trailer
from sim.image.elf import read_elf
from sim.image.payload import GZIP_MAGIC, content_of, declared_size
from sim.tpm.client import TpmClient, TpmError

__all__ = ["Mboot", "kernel_options"]

STAGE = "mboot"
FATAL_INCONSISTENT = "Fatal error: 33 (Inconsistent data)"
FATAL_DEVICE = "Fatal error: 8 (Device Error)"

ASSET_TAG_INDEX = 0x01C10110
ASSET_TAG_BYTES_MAX = 512
TBOOT_OPTION = "enableTboot"


class Mboot:
    """The second loader of one boot; its public methods are steps."""

    def __init__(self, context: BootContext, measurer: Measurer) -> None:
        self._context = context
        self._measurer = measurer
        self._modules = ModuleMeasurer(measurer, context.policy.loader_map)

    def decide_launch(self) -> None:
        """Settle whether a late launch will follow: asked for by `enableTboot=TRUE`, and possible here."""
        wanted = dict(kernel_options(self._config.kernelopt)).get(TBOOT_OPTION, "").upper() == "TRUE"
        if not wanted:
            return
        if not self._context.board.firmware.txt_enabled:
            self._say(f"{TBOOT_OPTION} is set, but TXT is disabled in the BIOS: ordinary launch")
        elif self._context.tpm_state is not TpmState.ENABLED:
            self._say(f"{TBOOT_OPTION} is set, but the TPM is {self._context.tpm_state}: ordinary launch")
        else:
            self._context.late_launch = True

    def load_modules(self) -> None:
        """Queue one step for each module of boot.cfg."""
        if not self._measurer.active:
            self._say(f"TPM not present ({self._context.tpm_state}): nothing is measured")
        self._check_contents()
        for name in self._config.load_order:
            self._context.procedure.next(self._load, name)

    def warn_of_duplicates(self) -> None:
        """Warn of base names that were loaded twice."""
        names = Counter(module_base_name(module.name) for module in self._context.loaded)
        for name in [name for name, count in names.items() if count > 1]:
            self._say(f"Warning: Duplicate modules named {name}")

    def measure_command_line(self) -> None:
        """Measure the kernel's file name and options; a failure is only a warning."""
        if not self._context.late_launch:
            self._warning_only(self._modules.command_line, self._context.command_line)

    def measure_asset_tag(self) -> None:
        """Measure the asset tag if the owner has written one; a failure is only a warning."""
        if self._context.late_launch:
            return
        tag = read_asset_tag(self._context)
        if tag:
            self._warning_only(self._modules.asset_tag, tag)

    @property
    def _config(self) -> BootConfig:
        config = self._context.config
        assert config is not None, "safeboot has chosen a bank before mboot starts"
        return config

    def _check_contents(self) -> None:
        """Stop before the first module where all of them together would unpack to more than a bank may hold."""
        volume = self._context.board.disk.volume(self._context.bank)
        files = {name: volume.peek(name) for name in self._config.load_order if volume.exists(name)}
        try:
            check_bank_contents(files.values())
        except LimitError as error:
            largest = max(files, key=lambda name: declared_size(files[name]))
            raise self._fatal(largest, error, FATAL_INCONSISTENT) from error

    def _load(self, name: str) -> None:
        volume = self._context.board.disk.volume(self._context.bank)
        try:
            data = volume.read(name)
            content = content_of(data)
        except DiskError as error:
            raise self._fatal(name, error, FATAL_NOT_FOUND) from error
        except FormatError as error:
            raise self._fatal(name, error, FATAL_INCONSISTENT) from error
        if data.startswith(GZIP_MAGIC):
            charge_gunzip(self._context.meter, len(content))
        module = LoadedModule(name=name, data=data, content=content)
        self._context.loaded.append(module)
        if self._context.late_launch:
            return
        try:
            self._measure(module)
        except MeasureError as error:
            raise self._fatal(name, error, FATAL_DEVICE) from error

    def _measure(self, module: LoadedModule) -> None:
        if self._measurer.active and module_base_name(module.name) in VERSIONED_MODULES:
            record = version_record(module.content)
            if record:
                self._modules.version(module, record)
        self._modules.module(module)

    def _fatal(self, name: str, error: Exception, text: str) -> Exception:
        self._say(f"Error loading {name}: {error}")
        return self._context.stop(STAGE, name, text)

    def _warning_only(self, measure: Callable[..., None], *arguments: object) -> None:
        try:
            measure(*arguments)
        except MeasureError as error:
            self._say(f"Warning: {error}")

    def _say(self, text: str) -> None:
        self._context.say(STAGE, text)


def kernel_options(text: str) -> tuple[tuple[str, str], ...]:
    """Split the options of boot.cfg into pairs; an option without "=" has an empty value."""
    words = (word.partition("=") for word in text.split(" ") if word)
    return tuple((key, value) for key, _, value in words)


def read_asset_tag(context: BootContext) -> bytes:
    """Return the asset tag from the TPM's NV memory; empty when there is none, which is the normal case."""
    slot = context.board.tpm
    if slot is None or context.tpm_state is not TpmState.ENABLED:
        return b""
    try:
        return TpmClient(slot.transmit).nv_read(ASSET_TAG_INDEX)[:ASSET_TAG_BYTES_MAX]
    except (TpmError, FormatError):
        return b""


def version_record(content: bytes) -> bytes:
    """Return the `.version` record of an ELF module; empty when it has none or is no readable ELF file."""
    try:
        return read_elf(without_trailer(content)).version_record
    except FormatError:
        return b""
