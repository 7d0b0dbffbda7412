"""A boot bank: the files of one bootable image, as they lie on a volume.

Models the bank as a value: boot.cfg, the image database, the payload files of the installed VIBs under names of eight
characters and a counter (net_e10.v00), and a few files that belong to no VIB (options, saved state).  Every change
gives a new bank, so that an installation that fails leaves the old one as it was.

Leaves out the second bank and the choice between the two, which is the boot loader's.

Sources: the file names of an installed ESXi 6.7 as its attestation events show them.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping

import attrs

from sim.core.facts import fact
from sim.errors import FormatError
from sim.image.bootcfg import CONFIG_FILE, BootConfig, format_boot_config, parse_boot_config
from sim.image.growth import check_packed
from sim.image.imgdb import DATABASE_FILE, ImageDatabase, VibRecord, read_database, write_database
from sim.image.metadata import Descriptor
from sim.image.vib import Vib

__all__ = [
    "BANK_CONTENT_BYTES_MAX",
    "OPTION_FILES",
    "STATE_FILE",
    "SYSTEM_FILES",
    "BootBank",
    "bank_file_name",
    "check_bank_contents",
    "config_settings",
    "record_vib",
]

OPTION_FILES = ("jumpstrt.gz", "useropts.gz", "features.gz")
"""Boot options that are loaded right after the kernel; no VIB owns them."""

STATE_FILE = "state.tgz"
"""The host's saved configuration; loaded last, so that its files win."""

SYSTEM_FILES = (CONFIG_FILE, DATABASE_FILE, STATE_FILE, *OPTION_FILES)
"""The only files of a bank that no signed descriptor covers."""

BANK_CONTENT_BYTES_MAX = 512 << 20
"""The largest content of all files of a bank together, after unpacking."""

COUNTER_MAX = 999

_LETTERS = {"boot": "b", "tgz": "t", "bootloader": "t"}
_BASE_CHARS_MAX = fact(
    "image.bank_name_chars_max",
    8,
    unit="characters",
    source="file names of a real ESXi 6.7 boot bank",
    kind="measured",
).value
_SETTINGS = ("title", "timeout", "prefix", "build", "updated")


def _copied(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return dict(files)


@attrs.frozen(kw_only=True)
class BootBank:
    """The files of a bank, name to bytes as stored."""

    files: Mapping[str, bytes] = attrs.field(converter=_copied, repr=False)

    @property
    def config(self) -> BootConfig:
        """What boot.cfg says."""
        return parse_boot_config(self.file(CONFIG_FILE))

    @property
    def database(self) -> ImageDatabase:
        """What imgdb.tgz says."""
        return read_database(self.file(DATABASE_FILE))

    @property
    def descriptors(self) -> tuple[Descriptor, ...]:
        """The descriptors of the installed VIBs."""
        return tuple(record.descriptor for record in self.database.records)

    def file(self, name: str) -> bytes:
        """Return a file's bytes; a missing one is a `FormatError`."""
        if name not in self.files:
            raise FormatError("boot bank", name, "is missing")
        return self.files[name]

    def with_config(self, config: BootConfig) -> BootBank:
        """Return the bank with another boot.cfg, whose unmeasured settings the image database repeats."""
        database = attrs.evolve(self.database, settings=config_settings(config))
        return self.with_files(
            {CONFIG_FILE: format_boot_config(config), DATABASE_FILE: write_database(database)}
        )

    def with_files(self, changed: Mapping[str, bytes], removed: Container[str] = ()) -> BootBank:
        """Return the bank with some files replaced or added, and others removed."""
        kept = {name: data for name, data in self.files.items() if name not in removed}
        return BootBank(files={**kept, **changed})


def check_bank_contents(files: Iterable[bytes]) -> None:
    """Refuse files that declare more content, all together, than a bank may have; nothing is unpacked for that."""
    check_packed(files, BANK_CONTENT_BYTES_MAX, "boot bank")


def config_settings(config: BootConfig) -> tuple[tuple[str, str], ...]:
    """Return the settings of a boot.cfg that no measurement covers, as the image database repeats them.

    Kernel, modules and kernel options are not among them: these are measured, and may be changed by an administrator.
    """
    return tuple((key, str(getattr(config, key))) for key in _SETTINGS)


def record_vib(vib: Vib, taken: Iterable[str]) -> VibRecord:
    """Return the record of a VIB with a free bank file name for each payload."""
    used = set(taken)
    files = []
    for payload in vib.payloads:
        name = bank_file_name(payload.name, payload.kind, used)
        used.add(name)
        files.append(name)
    return VibRecord(descriptor_xml=vib.descriptor_xml, signature=vib.signature, files=tuple(files))


def bank_file_name(payload_name: str, kind: str, taken: Container[str]) -> str:
    """Return the bank file for a payload: eight characters, a letter for the type, and the first free number."""
    base = re.sub(r"[^a-z0-9_]", "_", payload_name.lower())[:_BASE_CHARS_MAX]
    letter = _LETTERS.get(kind, "v")
    for number in range(COUNTER_MAX + 1):
        name = f"{base}.{letter}{number:02d}"
        if name not in taken:
            return name
    raise FormatError("boot bank", base, f"more than {COUNTER_MAX + 1} payloads begin with this name")
