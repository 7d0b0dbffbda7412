"""The SMBIOS table, read by a walker of its own and by dmidecode: it says what the hardware is, and nothing unique."""

import struct
import subprocess

import attrs
import pytest

from sim.boot.smbios import smbios_table
from sim.core.units import GIB, MIB, TIB
from sim.hw.spec import CpuSpec, FirmwareSpec, HostSpec

BIG = HostSpec(
    cpu=CpuSpec(packages=2, nodes_per_package=2, cores_per_node=4, threads_per_core=2),
    memory_bytes=3 * TIB + 2 * MIB,
)
SIZES = {0: 26, 1: 27, 4: 48, 16: 23, 17: 40, 127: 4}
"""The lengths of the formatted areas, from the specification."""


def structures(table):
    """Walk the table: (type, handle, formatted area, strings)."""
    at = 0
    while at < len(table):
        kind, size, handle = struct.unpack_from("<BBH", table, at)
        end = table.index(b"\0\0", at + size) + 2
        strings = table[at + size : end].rstrip(b"\0").split(b"\0")
        yield kind, handle, table[at : at + size], [text.decode() for text in strings if text]
        at = end


def of_kind(spec, kind):
    return [one for one in structures(smbios_table(spec)) if one[0] == kind]


def test_structures_have_their_sizes_and_handles_and_end():
    found = list(structures(smbios_table(BIG)))
    assert [kind for kind, _, _, _ in found] == [0, 1, 4, 4, 16, 17, 17, 17, 17, 127]
    assert [handle for _, handle, _, _ in found] == list(range(10))
    assert all(len(area) == SIZES[kind] for kind, _, area, _ in found)


def test_firmware_processors_and_memory_are_those_of_the_host():
    ((_, _, _, names),) = of_kind(attrs.evolve(BIG, firmware=FirmwareSpec(version="9.9")), 0)
    assert names == ["Generic Server Firmware", "9.9"]
    for number, (_, _, area, names) in enumerate(of_kind(BIG, 4)):
        assert names[0] == f"CPU {number}"
        assert struct.unpack_from("<HH", area, 0x14) == (2400, 2400)
        assert area[0x23:0x26] == bytes([8, 8, 16])
        assert struct.unpack_from("<HHH", area, 0x2A) == (8, 8, 16)
    ((_, array, area, _),) = of_kind(BIG, 16)
    assert struct.unpack_from("<I", area, 7) == (0x80000000,)
    assert struct.unpack_from("<HQ", area, 13) == (4, BIG.memory_bytes)
    devices = [area for _, _, area, _ in of_kind(BIG, 17)]
    assert all(struct.unpack_from("<H", area, 4) == (array,) for area in devices)
    assert all(struct.unpack_from("<H", area, 12) == (0x7FFF,) for area in devices)
    assert sum(struct.unpack_from("<I", area, 0x1C)[0] for area in devices) * MIB == BIG.memory_bytes


def test_a_small_host_needs_no_extended_fields():
    small = HostSpec(memory_bytes=16 * GIB)
    ((_, _, area, _),) = of_kind(small, 16)
    assert struct.unpack_from("<I", area, 7) == (16 * 1024 * 1024,)
    assert struct.unpack_from("<HQ", area, 13) == (1, 0)
    ((_, _, area, _),) = of_kind(small, 17)
    assert struct.unpack_from("<H", area, 12) == (16 * 1024,)
    assert struct.unpack_from("<I", area, 0x1C) == (0,)


def test_a_package_of_more_than_255_cores_counts_in_the_second_fields():
    many = HostSpec(cpu=CpuSpec(nodes_per_package=2, cores_per_node=240, threads_per_core=2))
    ((_, _, area, _),) = of_kind(many, 4)
    assert area[0x23:0x26] == b"\xff\xff\xff"
    assert struct.unpack_from("<HHH", area, 0x2A) == (480, 480, 960)


def test_nothing_in_it_is_unique_to_a_host():
    assert smbios_table(BIG) == smbios_table(attrs.evolve(BIG, name="another"))
    ((_, _, area, _),) = of_kind(BIG, 1)
    assert area[7] == 0
    assert area[8:24] == bytes(16)


@pytest.mark.client
def test_dmidecode_reads_the_table(program, tmp_path):
    table = smbios_table(BIG)
    entry = bytearray(b"_SM3_\0\x18\x03\x05\0\x01\0" + struct.pack("<IQ", len(table), 32))
    entry[5] = -sum(entry) & 0xFF
    dump = tmp_path / "dump"
    dump.write_bytes(bytes(entry).ljust(32, b"\0") + table)
    read = subprocess.run(
        [program("dmidecode"), "--from-dump", str(dump)], capture_output=True, text=True, check=True
    )
    assert read.stderr == ""
    lines = [line.strip() for line in read.stdout.splitlines()]
    assert lines.count("Socket Designation: CPU 1") == 1
    assert lines.count("Core Count: 8") == lines.count("Thread Count: 16") == 2
    assert lines.count("Size: 786434 MB") == 1
    assert lines.count("Size: 768 GB") == 3
    assert {"Maximum Capacity: 3 TB", "Number Of Devices: 4", "End Of Table"} <= set(lines)
    assert not [line for line in lines if "<BAD" in line or "OUT OF SPEC" in line or "Wrong" in line]
