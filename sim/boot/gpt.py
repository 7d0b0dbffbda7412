"""The partition table of the boot disk, as firmware reads and measures it into PCR 5.

Models: a GPT header with its checksums and one entry each for the EFI system partition, the two boot banks and the
data partition, in the order and with the type GUIDs of ESXi 7 and later.

Leaves out: the protective MBR, the backup header, partitions that a user adds.

Sources: UEFI specification 2.10, section 5.3; partition roles of ESXi 7 from VMware's storage documentation.
"""

from __future__ import annotations

import hashlib
import struct
import zlib

import attrs

from sim.boot.uefi_events import guid
from sim.core.facts import fact
from sim.core.units import GIB, MIB

__all__ = ["Partition", "PartitionTable", "partition_table"]

SECTOR_BYTES = 512
ENTRY_COUNT = 128
ENTRY_BYTES = 128
HEADER_BYTES = 92
FIRST_USABLE_LBA = 34
ALIGNMENT_LBA = 2048

ESP_BYTES = fact(
    "boot.esp_bytes", 100 * MIB, unit="bytes", source="VMware, ESXi 7 system storage layout", kind="vendor"
)
DISK_BYTES = fact(
    "boot.disk_bytes",
    64 * GIB,
    unit="bytes",
    source="a common boot device (two M.2 sticks, mirrored)",
    kind="assumed",
)
BOOT_BANK_BYTES = fact(
    "boot.bank_bytes",
    4 * GIB,
    unit="bytes",
    source="VMware, ESXi 7 system storage layout, large media",
    kind="vendor",
)

_ESP_TYPE = guid("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
_BASIC_DATA_TYPE = guid("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
_OSDATA_TYPE = guid("4eb2ea39-7855-4790-a79e-fae495e21f8d")


@attrs.frozen(kw_only=True)
class Partition:
    """One entry of the table; `number` counts from 1 as device paths do."""

    number: int
    name: str
    type_guid: bytes
    unique_guid: bytes
    first_lba: int
    last_lba: int

    @property
    def sectors(self) -> int:
        """Length in sectors."""
        return self.last_lba - self.first_lba + 1

    def to_bytes(self) -> bytes:
        """Encode the 128-byte entry."""
        name = self.name.encode("utf-16-le").ljust(72, b"\0")
        return (
            self.type_guid + self.unique_guid + struct.pack("<QQQ", self.first_lba, self.last_lba, 0) + name
        )


@attrs.frozen(kw_only=True)
class PartitionTable:
    """A whole GPT: its disk's GUID, its size in sectors and its partitions."""

    disk_guid: bytes
    disk_sectors: int
    partitions: tuple[Partition, ...]

    def entries(self) -> tuple[bytes, ...]:
        """Return the entries in use, encoded."""
        return tuple(partition.to_bytes() for partition in self.partitions)

    def header(self) -> bytes:
        """Return the 92-byte header with both checksums filled in."""
        array = b"".join(self.entries()).ljust(ENTRY_COUNT * ENTRY_BYTES, b"\0")
        last = self.disk_sectors - 1
        tail = struct.pack("<QQQQ", 1, last, FIRST_USABLE_LBA, last - FIRST_USABLE_LBA + 1) + self.disk_guid
        tail += struct.pack("<QIII", 2, ENTRY_COUNT, ENTRY_BYTES, zlib.crc32(array))
        blank = b"EFI PART" + struct.pack("<IIII", 0x10000, HEADER_BYTES, 0, 0) + tail
        return blank[:16] + struct.pack("<I", zlib.crc32(blank)) + blank[20:]


def partition_table(label: str, *, esp_guid: bytes | None = None) -> PartitionTable:
    """Lay out the boot disk of the host `label`.

    `esp_guid` is the GUID by which the firmware's boot option names the system partition; the other GUIDs are digests
    of the label, so they never change.
    """
    layout = (
        ("BOOT", _ESP_TYPE, ESP_BYTES.value),
        ("BOOTBANK1", _BASIC_DATA_TYPE, BOOT_BANK_BYTES.value),
        ("BOOTBANK2", _BASIC_DATA_TYPE, BOOT_BANK_BYTES.value),
        ("OSDATA", _OSDATA_TYPE, 0),
    )
    disk_sectors = DISK_BYTES.value // SECTOR_BYTES
    partitions: list[Partition] = []
    next_lba = ALIGNMENT_LBA
    for name, kind, size in layout:
        unique = esp_guid if name == "BOOT" and esp_guid is not None else _stable_guid(label, name)
        last = next_lba + size // SECTOR_BYTES - 1 if size else disk_sectors - FIRST_USABLE_LBA
        partitions.append(
            Partition(
                number=len(partitions) + 1,
                name=name,
                type_guid=kind,
                unique_guid=unique,
                first_lba=next_lba,
                last_lba=last,
            )
        )
        next_lba = -(-(last + 1) // ALIGNMENT_LBA) * ALIGNMENT_LBA
    return PartitionTable(
        disk_guid=_stable_guid(label, "disk"), disk_sectors=disk_sectors, partitions=tuple(partitions)
    )


def _stable_guid(label: str, name: str) -> bytes:
    """Return a version 4 GUID drawn from a digest instead of from chance."""
    raw = bytearray(hashlib.sha256(f"gpt|{label}|{name}".encode()).digest()[:16])
    raw[7] = (raw[7] & 0x0F) | 0x40
    raw[8] = (raw[8] & 0x3F) | 0x80
    return bytes(raw)
