"""The platform firmware's memory: setup switches, UEFI variables and the code volumes that measure each other.

Models: the switches of the setup screen (Secure Boot, TPM, TXT), the UEFI variables that a measured boot reads (each a
byte string under its name), boot options as real EFI_LOAD_OPTION bytes, and firmware code as byte volumes that are the
same for every host of a simulation with the same firmware version.

Leaves out: what the firmware *does* (`sim.boot.firmware`), authenticated variable updates, capsules, and executable
content: the volumes are noise of a plausible kind, far smaller than a real flash chip.

Sources: UEFI Specification 2.10, sections 3.1.3 (load options), 3.3 (global variables), 10.3 (device paths).
"""

from __future__ import annotations

import struct

from sim.core.facts import fact
from sim.core.rng import Rng
from sim.errors import SimBug
from sim.hw.spec import FirmwareSpec

VOLUME_BYTES = fact(
    "hw.firmware_volume_bytes",
    65_536,
    unit="byte",
    source="scaled down from the 16 MiB of a real flash chip",
    kind="assumed",
)
CODE_VOLUMES = ("SEC-PEI", "DXE", "MICROCODE", "OPTION-ROM")
"""Code volumes: core root of trust, drivers, updates for the processors, and code of plug-in cards."""

EFI_GLOBAL_VARIABLE = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
EFI_IMAGE_SECURITY_DATABASE = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
_LOAD_OPTION_ACTIVE = 1
_VARIABLE_BYTES_MAX = 1 << 20


class FirmwareSettings:
    """Setup switches, UEFI variables and code volumes; changes take effect at the next reset.

    `code_rng` must be fresh, so that equal firmware has equal code on every host; `host_rng` is the host's own.
    """

    def __init__(self, spec: FirmwareSpec, code_rng: Rng, host_rng: Rng) -> None:
        self.spec = spec
        self.tpm_enabled = spec.tpm_enabled
        self.txt_enabled = spec.txt_enabled
        self.variables: dict[str, bytes] = dict.fromkeys(("PK", "KEK", "db", "dbx"), b"")
        self.volumes: dict[str, bytes] = {
            name: code_rng.stream(f"{spec.vendor}/{spec.version}/{name}").bytes(VOLUME_BYTES.value)
            for name in CODE_VOLUMES
        }
        self._partition = host_rng.stream("esp partition").bytes(16)
        self.secure_boot = spec.secure_boot
        self.set_boot_option(1, spec.boot_entry, spec.boot_path)
        self.set_variable("BootOrder", struct.pack("<H", 1))

    @property
    def secure_boot(self) -> bool:
        """Whether the firmware enforces Secure Boot: the value of the variable `SecureBoot`."""
        return self.variables["SecureBoot"] == b"\x01"

    @secure_boot.setter
    def secure_boot(self, enforced: bool) -> None:
        """Turn Secure Boot on or off in the firmware's setup."""
        self.variables["SecureBoot"] = b"\x01" if enforced else b"\x00"

    def set_variable(self, name: str, value: bytes) -> None:
        """Store a UEFI variable, as someone at the console with full rights can."""
        if len(value) > _VARIABLE_BYTES_MAX:
            message = f"UEFI variable {name} has {len(value)} bytes, over the limit of {_VARIABLE_BYTES_MAX}"
            raise SimBug(message)
        self.variables[name] = bytes(value)

    def set_boot_option(self, number: int, description: str, path: str) -> None:
        """Store `Boot####` as an active load option for the file `path` on the EFI system partition."""
        device_path = _hard_drive_node(self._partition) + _file_path_node(path) + b"\x7f\xff\x04\x00"
        option = struct.pack("<IH", _LOAD_OPTION_ACTIVE, len(device_path)) + _utf16(description) + device_path
        self.set_variable(f"Boot{number:04X}", option)

    def boot_order(self) -> tuple[int, ...]:
        """Return the option numbers in the order in which they are tried."""
        raw = self.variables["BootOrder"]
        return tuple(number for (number,) in struct.iter_unpack("<H", raw[: len(raw) & ~1]))

    def flip_bit(self, volume: str, bit_index: int) -> None:
        """Invert one bit of a code volume, as a flash implant would."""
        data = bytearray(self.volumes[volume])
        data[bit_index >> 3] ^= 1 << (bit_index & 7)
        self.volumes[volume] = bytes(data)


def variable_guid(name: str) -> str:
    """Return the vendor GUID under which the UEFI variable `name` lives."""
    return EFI_IMAGE_SECURITY_DATABASE if name in ("db", "dbx", "dbt", "dbr") else EFI_GLOBAL_VARIABLE


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-le") + b"\x00\x00"


def _hard_drive_node(partition: bytes) -> bytes:
    """Return the media device path node of GPT partition 1, which starts at block 2048 and has 100 MiB."""
    return struct.pack("<BBHIQQ16sBB", 4, 1, 42, 1, 2048, 204_800, partition, 2, 2)


def _file_path_node(path: str) -> bytes:
    name = _utf16(path)
    return struct.pack("<BBH", 4, 4, 4 + len(name)) + name
