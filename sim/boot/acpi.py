"""The ACPI tables that depend on the hardware, in the form in which firmware measures them.

Models: the table of processors and interrupt controllers (MADT), one entry a logical processor, and the table of the
TPM (TPM2) where one is in use; each with its header and checksum.

Leaves out: the tables in which nothing of this simulation stands (FADT, DSDT, MCFG, ..), NUMA affinity (SRAT), and the address
of the event log in TPM2, which differs from boot to boot.

Sources: ACPI specification 6.5, sections 5.2.6 (header) and 5.2.12 (MADT); TCG ACPI specification 1.4, section 8.3 (TPM2).
"""

from __future__ import annotations

import struct

from sim.hw.spec import HostSpec

__all__ = ["acpi_tables"]

OEM_ID = b"VMKSIM"
OEM_TABLE_ID = b"SERVER  "
CREATOR = b"SIM "

LOCAL_APIC_ADDRESS = 0xFEE0_0000
IO_APIC_ADDRESS = 0xFEC0_0000
TPM_CONTROL_AREA = 0xFED4_0040
"""The control area of a command response buffer at locality 0."""

_HEADER = struct.Struct("<4sIBB6s8sI4sI")
_PC_AT_COMPATIBLE = 1
_ENABLED = 1
_APIC_IDS_8_BIT = 255
"""Ids from here on take the longer entry of an x2APIC."""
_SERVER_PLATFORM = 1
_COMMAND_RESPONSE_BUFFER = 7


def acpi_tables(spec: HostSpec) -> tuple[tuple[str, bytes], ...]:
    """Return (signature, table) of each table, in the order in which they are measured."""
    tables = [("APIC", 5, _madt(spec))]
    if spec.tpm_present and spec.firmware.tpm_enabled:
        tables.append(("TPM2", 4, _tpm2()))
    return tuple((name, _table(name.encode(), revision, body)) for name, revision, body in tables)


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    """Put the header before a table's body, with the checksum that makes all bytes add up to zero."""
    size = _HEADER.size + len(body)
    header = _HEADER.pack(signature, size, revision, 0, OEM_ID, OEM_TABLE_ID, 1, CREATOR, 1)
    checksum = -sum(header + body) & 0xFF
    return header[:9] + bytes([checksum]) + header[10:] + body


def _madt(spec: HostSpec) -> bytes:
    entries = [_processor(number) for number in range(spec.cpu.pcpus)]
    io_apic = struct.pack("<BBBBII", 1, 12, 0, 0, IO_APIC_ADDRESS, 0)
    return struct.pack("<II", LOCAL_APIC_ADDRESS, _PC_AT_COMPATIBLE) + b"".join(entries) + io_apic


def _processor(number: int) -> bytes:
    if number < _APIC_IDS_8_BIT:
        return struct.pack("<BBBBI", 0, 8, number, number, _ENABLED)
    return struct.pack("<BBHIII", 9, 16, 0, number, _ENABLED, number)


def _tpm2() -> bytes:
    no_parameters = bytes(12)
    start = struct.pack("<HHQI", _SERVER_PLATFORM, 0, TPM_CONTROL_AREA, _COMMAND_RESPONSE_BUFFER)
    return start + no_parameters
