"""The SMBIOS table that firmware hands to the operating system, in the form in which it is measured.

Models: structures of firmware, system, processors (one a package), memory array and memory devices (one a NUMA node),
and the end; the numbers are those of the host's hardware, so that other hardware gives other measurements.

Leaves out: serial numbers, asset tags and the UUID, which differ between equal machines and are kept out of the
measurement; caches, slots, ports, and every structure on which nothing here depends.

Sources: DMTF DSP0134 (SMBIOS) 3.6, chapters 6 and 7.1, 7.2, 7.5, 7.17, 7.18, 7.45; TCG PC Client Platform Firmware
Profile 1.05, section 3.3.4.2 (PCR 1: no values that are unique to a platform).
"""

from __future__ import annotations

import struct

from sim.core.units import KIB, MIB
from sim.hw.spec import HostSpec

__all__ = ["smbios_table"]

FIRMWARE, SYSTEM, PROCESSOR, MEMORY_ARRAY, MEMORY_DEVICE, END = 0, 1, 4, 16, 17, 127
MANUFACTURER = "Generic"
PRODUCT = "Simulated Server"
PROCESSOR_NAME = "Simulated x86-64 Processor"

_HEADER = struct.Struct("<BBH")
_NO_HANDLE = 0xFFFF
_NOT_PROVIDED = 0xFFFE
_FAMILY_OTHER = 1
_COUNT_IN_FIELD_2 = 0xFF
_SIZE_IN_EXTENDED = 0x7FFF
_CAPACITY_IN_EXTENDED = 0x8000_0000


def smbios_table(spec: HostSpec) -> bytes:
    """Return the structure table of a host, without what is unique to it."""
    cpu = spec.cpu
    bodies = [
        (FIRMWARE, *_firmware(spec)),
        (SYSTEM, *_system()),
        *((PROCESSOR, *_processor(spec, number)) for number in range(cpu.packages)),
        (MEMORY_ARRAY, *_memory_array(spec)),
        *((MEMORY_DEVICE, *_memory_device(spec, number)) for number in range(cpu.nodes)),
        (END, b"", ()),
    ]
    array = next(handle for handle, (kind, _, _) in enumerate(bodies) if kind == MEMORY_ARRAY)
    return b"".join(
        _structure(kind, handle, struct.pack("<H", array) + body if kind == MEMORY_DEVICE else body, strings)
        for handle, (kind, body, strings) in enumerate(bodies)
    )


def _structure(kind: int, handle: int, body: bytes, strings: tuple[str, ...]) -> bytes:
    """Encode one structure: header, fields, its strings, and an empty string at the end."""
    texts = b"".join(text.encode("ascii") + b"\0" for text in strings) or b"\0"
    return _HEADER.pack(kind, _HEADER.size + len(body), handle) + body + texts + b"\0"


def _firmware(spec: HostSpec) -> tuple[bytes, tuple[str, ...]]:
    characteristics = 1 << 7 | 1 << 11 | 1 << 15  # PCI, flash is upgradeable, boot from CD
    uefi_is_supported = 1 << 3
    body = struct.pack(
        "<BBHBBQBBBBBBH", 1, 2, 0, 0, 0xFF, characteristics, 0, uefi_is_supported, 0xFF, 0xFF, 0xFF, 0xFF, 16
    )
    return body, (spec.firmware.vendor, spec.firmware.version)


def _system() -> tuple[bytes, tuple[str, ...]]:
    power_switch = 6
    return struct.pack("<BBBB16sBBB", 1, 2, 0, 0, bytes(16), power_switch, 0, 0), (MANUFACTURER, PRODUCT)


def _processor(spec: HostSpec, number: int) -> tuple[bytes, tuple[str, ...]]:
    cpu = spec.cpu
    cores = cpu.cores // cpu.packages
    threads = cores * cpu.threads_per_core
    mhz = cpu.core_hz // 1_000_000
    central, populated_and_enabled, unknown = 3, 0x41, 2
    is_64_bit, many_cores, hardware_threads = 1 << 2, 1 << 3, 1 << 4
    features = is_64_bit | many_cores * (cores > 1) | hardware_threads * (cpu.threads_per_core > 1)
    short = (min(cores, _COUNT_IN_FIELD_2), min(cores, _COUNT_IN_FIELD_2), min(threads, _COUNT_IN_FIELD_2))
    body = struct.pack("<BBBBQBBHHHBB", 1, central, _FAMILY_OTHER, 2, 0, 3, 0, 0, mhz, mhz,
                       populated_and_enabled, unknown)  # fmt: skip
    body += struct.pack("<HHHBBB", _NO_HANDLE, _NO_HANDLE, _NO_HANDLE, 0, 0, 0)
    body += struct.pack("<BBBHHHHH", *short, features, _FAMILY_OTHER, cores, cores, threads)
    return body, (f"CPU {number}", MANUFACTURER, PROCESSOR_NAME)


def _memory_array(spec: HostSpec) -> tuple[bytes, tuple[str, ...]]:
    system_board, system_memory, multi_bit_ecc = 3, 3, 6
    kib = spec.memory_bytes // KIB
    fits = kib < _CAPACITY_IN_EXTENDED
    return struct.pack(
        "<BBBIHHQ",
        system_board,
        system_memory,
        multi_bit_ecc,
        kib if fits else _CAPACITY_IN_EXTENDED,
        _NOT_PROVIDED,
        spec.cpu.nodes,
        0 if fits else spec.memory_bytes,
    ), ()


def _memory_device(spec: HostSpec, number: int) -> tuple[bytes, tuple[str, ...]]:
    """Return the fields behind the array's handle; the first device has what does not divide evenly."""
    nodes = spec.cpu.nodes
    all_mib = spec.memory_bytes // MIB
    mib = all_mib // nodes + (all_mib % nodes if number == 0 else 0)
    dimm, ddr4, registered = 9, 0x1A, 1 << 13
    fits = mib < _SIZE_IN_EXTENDED
    body = struct.pack(
        "<HHHHBBBBBHH",
        _NOT_PROVIDED,
        72,
        64,
        mib if fits else _SIZE_IN_EXTENDED,
        dimm,
        0,
        1,
        0,
        ddr4,
        registered,
        0,
    )
    body += struct.pack("<BBBBBIHHHH", 2, 0, 0, 0, 0, 0 if fits else mib, 0, 0, 0, 0)
    return body, (f"Node {number}", MANUFACTURER)
