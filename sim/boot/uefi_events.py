"""The data of firmware events, byte for byte as a TCG event log carries them.

Models: UEFI_VARIABLE_DATA, UEFI_IMAGE_LOAD_EVENT, UEFI_PLATFORM_FIRMWARE_BLOB, UEFI_GPT_DATA,
UEFI_HANDOFF_TABLE_POINTERS, the second forms of blob and table pointers, the texts of EV_EFI_ACTION and the separator.

Leaves out: SPDM device events; network boot paths.

Sources: TCG PC Client Platform Firmware Profile 1.05, sections 3.3 and 10.4; UEFI specification 2.10, section 4.6 (GUIDs of
tables), 10.3 (device paths) and appendix A.  All integers are little-endian.
"""

from __future__ import annotations

import struct

__all__ = [
    "ACPI2_TABLE",
    "CALLING_BOOT_APPLICATION",
    "EFI_GLOBAL_VARIABLE",
    "EFI_IMAGE_SECURITY_DATABASE",
    "ERROR_SEPARATOR",
    "EXIT_BOOT_SERVICES_DONE",
    "EXIT_BOOT_SERVICES_STARTED",
    "HCRTM_TEXT",
    "MICROCODE_TEXT",
    "RETURNING_FROM_BOOT_APPLICATION",
    "SEPARATOR",
    "SMBIOS3_TABLE",
    "firmware_blob",
    "firmware_blob2",
    "gpt_data",
    "guid",
    "handoff_tables",
    "handoff_tables2",
    "image_load",
    "option_rom_path",
    "ucs2",
    "variable_data",
    "variable_guid",
]

SEPARATOR = bytes(4)
"""EV_SEPARATOR data of a firmware that found no error."""

ERROR_SEPARATOR = b"\x01\0\0\0"
"""The same of one that found an error."""

CALLING_BOOT_APPLICATION = b"Calling EFI Application from Boot Option"
RETURNING_FROM_BOOT_APPLICATION = b"Returning from EFI Application from Boot Option"
EXIT_BOOT_SERVICES_STARTED = b"Exit Boot Services Invocation"
EXIT_BOOT_SERVICES_DONE = b"Exit Boot Services Returned with Success"
HCRTM_TEXT = b"HCRTM"
MICROCODE_TEXT = b"Microcode Measurement\0"
"""EV_CPU_MICROCODE data: a description; its digest is over the microcode."""


def guid(text: str) -> bytes:
    """Encode a GUID in its mixed-endian wire form: the first three fields are little-endian."""
    first, second, third, fourth, fifth = text.split("-")
    head = struct.pack("<IHH", int(first, 16), int(second, 16), int(third, 16))
    return head + bytes.fromhex(fourth) + bytes.fromhex(fifth)


EFI_GLOBAL_VARIABLE = guid("8be4df61-93ca-11d2-aa0d-00e098032b8c")
"""Namespace of SecureBoot, PK, KEK, BootOrder and Boot####."""

EFI_IMAGE_SECURITY_DATABASE = guid("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
"""Namespace of db and dbx."""


SMBIOS3_TABLE = guid("f2fd1544-9794-4a2c-992e-e5bbcf20e394")
"""The entry of the UEFI configuration table that points to the SMBIOS table."""


ACPI2_TABLE = guid("8868e871-e4f1-11d3-bc22-0080c73c8881")
"""The entry that points to the ACPI tables."""


def variable_guid(name: str) -> bytes:
    """Return the namespace in which firmware keeps the variable `name`."""
    return EFI_IMAGE_SECURITY_DATABASE if name in {"db", "dbx"} else EFI_GLOBAL_VARIABLE


def ucs2(text: str) -> bytes:
    """Encode `text` as UCS-2 with its terminating NUL."""
    return text.encode("utf-16-le") + b"\0\0"


def variable_data(name: str, data: bytes, *, namespace: bytes | None = None) -> bytes:
    """UEFI_VARIABLE_DATA: namespace, both lengths, the name without NUL, the content."""
    space = variable_guid(name) if namespace is None else namespace
    return space + struct.pack("<QQ", len(name), len(data)) + name.encode("utf-16-le") + data


def firmware_blob(base: int, length: int) -> bytes:
    """UEFI_PLATFORM_FIRMWARE_BLOB: where a firmware volume lies; its digest is over the volume itself."""
    return struct.pack("<QQ", base, length)


def firmware_blob2(description: str, base: int, length: int) -> bytes:
    """UEFI_PLATFORM_FIRMWARE_BLOB2: the same with a description before it."""
    return _described(description) + firmware_blob(base, length)


def image_load(base: int, length: int, link_time_address: int, device_path: bytes) -> bytes:
    """UEFI_IMAGE_LOAD_EVENT: where an EFI image was loaded and from which path."""
    return struct.pack("<QQQQ", base, length, link_time_address, len(device_path)) + device_path


def gpt_data(header: bytes, entries: tuple[bytes, ...]) -> bytes:
    """UEFI_GPT_DATA: the partition table header and its entries that are in use."""
    return header + struct.pack("<Q", len(entries)) + b"".join(entries)


def handoff_tables(*tables: tuple[bytes, int]) -> bytes:
    """UEFI_HANDOFF_TABLE_POINTERS: GUID and address of each table; the digest is over the tables themselves."""
    return struct.pack("<Q", len(tables)) + b"".join(
        table + struct.pack("<Q", address) for table, address in tables
    )


def handoff_tables2(description: str, *tables: tuple[bytes, int]) -> bytes:
    """UEFI_HANDOFF_TABLE_POINTERS2: the same with a description before it."""
    return _described(description) + handoff_tables(*tables)


def _described(description: str) -> bytes:
    text = description.encode("ascii") + b"\0"
    return bytes([len(text)]) + text


def option_rom_path(first: int, last: int, *, bridge: int = 2) -> bytes:
    """Return the device path of the bytes `first` to `last` of the ROM of a card behind PCI bridge `bridge`."""
    root = struct.pack("<BBHII", 2, 1, 12, 0x0A03_41D0, 0)
    bridge_and_card = struct.pack("<BBHBB", 1, 1, 6, 0, bridge) + struct.pack("<BBHBB", 1, 1, 6, 0, 0)
    rom = struct.pack("<BBHIQQ", 4, 8, 24, 0, first, last)
    return root + bridge_and_card + rom + struct.pack("<BBH", 0x7F, 0xFF, 4)
