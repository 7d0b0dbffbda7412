"""The bytes of firmware events, against the specification's layouts and real logs."""

from __future__ import annotations

import struct
import zlib

import pytest

from sim.boot import uefi_events
from sim.boot.gpt import partition_table
from sim.boot.loadoption import parse_load_option
from sim.core.rng import Rng
from sim.errors import FormatError
from sim.hw.firmware import FirmwareSettings
from sim.hw.spec import FirmwareSpec


def test_guid_has_its_first_three_fields_little_endian():
    assert uefi_events.EFI_GLOBAL_VARIABLE.hex() == "61dfe48bca93d211aa0d00e098032b8c"
    assert uefi_events.EFI_IMAGE_SECURITY_DATABASE.hex() == "cbb219d73a3d9645a3bcdad00e67656f"


def test_variable_data_equals_the_secure_boot_event_of_a_real_machine():
    # the SecureBoot event of the go-eventlog rhel8 log, 53 bytes
    real = bytes.fromhex(
        "61dfe48bca93d211aa0d00e098032b8c0a00000000000000010000000000000053006500630075007200650042006f006f00740001"
    )
    assert uefi_events.variable_data("SecureBoot", b"\x01") == real


def test_db_lives_in_the_image_security_namespace_and_boot_order_in_the_global_one():
    assert uefi_events.variable_data("db", b"")[:16] == uefi_events.EFI_IMAGE_SECURITY_DATABASE
    assert uefi_events.variable_data("BootOrder", b"")[:16] == uefi_events.EFI_GLOBAL_VARIABLE


def test_image_load_event_carries_the_length_of_its_device_path():
    data = uefi_events.image_load(0x1000, 77, 0, b"path")
    assert struct.unpack_from("<QQQQ", data) == (0x1000, 77, 0, 4)
    assert data[32:] == b"path"


def test_option_rom_path_is_a_walk_from_the_root_bridge_to_the_bytes():
    path = uefi_events.option_rom_path(0x1000, 0x1FFF, bridge=3)
    nodes, at = [], 0
    while at < len(path):
        kind, subtype, size = struct.unpack_from("<BBH", path, at)
        nodes.append((kind, subtype, path[at + 4 : at + size]))
        at += size
    assert [node[:2] for node in nodes] == [(2, 1), (1, 1), (1, 1), (4, 8), (0x7F, 0xFF)]
    assert [node[2] for node in nodes[1:3]] == [b"\x00\x03", b"\x00\x00"]
    assert nodes[3][2] == struct.pack("<IQQ", 0, 0x1000, 0x1FFF)


def test_handoff_tables_are_counted_and_named_by_guid_and_address():
    guid = bytes.fromhex("4415fdf294972c4a992ee5bbcf20e394")
    assert guid == uefi_events.SMBIOS3_TABLE
    assert uefi_events.handoff_tables() == bytes(8)
    assert uefi_events.handoff_tables((guid, 0x1000), (bytes(16), 2)) == (
        struct.pack("<Q", 2) + guid + struct.pack("<Q", 0x1000) + bytes(16) + struct.pack("<Q", 2)
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (uefi_events.CALLING_BOOT_APPLICATION, 40),
        (uefi_events.RETURNING_FROM_BOOT_APPLICATION, 47),
        (uefi_events.EXIT_BOOT_SERVICES_STARTED, 29),
        (uefi_events.EXIT_BOOT_SERVICES_DONE, 40),
    ],
)
def test_action_texts_have_no_trailing_nul(text, size):
    assert len(text) == size
    assert not text.endswith(b"\0")


def test_partition_table_header_passes_both_of_its_checksums():
    table = partition_table("esx01")
    header = table.header()
    entries = b"".join(table.entries()).ljust(128 * 128, b"\0")
    assert len(header) == 92
    assert header[:8] == b"EFI PART"
    assert struct.unpack_from("<I", header, 88)[0] == zlib.crc32(entries)
    assert struct.unpack_from("<I", header, 16)[0] == zlib.crc32(header[:16] + bytes(4) + header[20:])


def test_partitions_do_not_overlap_and_stay_on_the_disk():
    table = partition_table("esx01")
    spans = [(part.first_lba, part.last_lba) for part in table.partitions]
    assert all(first <= last for first, last in spans)
    assert all(spans[index][1] < spans[index + 1][0] for index in range(len(spans) - 1))
    assert spans[-1][1] < table.disk_sectors


def test_partition_guids_belong_to_the_host_and_differ_from_each_other():
    one, other = partition_table("esx01"), partition_table("esx02")
    guids = [part.unique_guid for part in one.partitions] + [part.unique_guid for part in other.partitions]
    assert len(set(guids)) == len(guids)
    assert partition_table("esx01") == one


def test_load_option_of_the_firmware_parses_and_leads_to_the_loader():
    firmware = FirmwareSettings(FirmwareSpec(), Rng(1), Rng(1).child("esx01"))
    option = parse_load_option(firmware.variables["Boot0001"])
    assert option.active
    assert option.description == "VMware ESXi"
    assert option.file_path == "\\EFI\\VMware\\safeboot64.efi"
    assert option.path_of(option.file_path) == option.device_path
    assert len(option.partition_guid) == 16


def test_firmware_s_first_partition_is_where_its_boot_option_says():
    option = parse_load_option(
        FirmwareSettings(FirmwareSpec(), Rng(1), Rng(1).child("esx01")).variables["Boot0001"]
    )
    table = partition_table("esx01", esp_guid=option.partition_guid)
    number, first, sectors = struct.unpack_from("<IQQ", option.drive_node, 4)
    esp = table.partitions[number - 1]
    assert (esp.first_lba, esp.sectors, esp.unique_guid) == (first, sectors, option.partition_guid)


def test_every_truncation_of_a_load_option_is_refused_with_a_format_error():
    whole = FirmwareSettings(FirmwareSpec(), Rng(1), Rng(1).child("esx01")).variables["Boot0001"]
    for size in range(len(whole)):
        with pytest.raises(FormatError):
            parse_load_option(whole[:size])
