"""The forms of makers: what stands in the log, what its digests are over, and what each form lets one see."""

import hashlib
import struct
import subprocess

import attrs
import pytest

from sim.attest.firmware import ALLOWED_TYPES
from sim.boot import uefi_events
from sim.boot.acpi import acpi_tables
from sim.boot.logform import ACPI_DATA, BOOT_GUARD, FORMS, NONHOST_INFO
from sim.boot.smbios import smbios_table
from sim.errors import ScenarioError
from sim.hw.spec import FIRMWARE_LOG_FORMS, CpuSpec, FirmwareSpec, HostSpec
from sim.scenario.load import parse_scenario
from sim.tpm.eventlog import EV, parse
from tests.unit.vsphere.conftest import World

SHA256 = 0x0B
FIRMWARE_PCRS = (0, 1)


def events_of(world):
    log = parse(world.host.boot.event_log)
    return [
        (event.pcr, EV(event.type), event.data, event.digests[SHA256])
        for event in log.events
        if event.pcr in FIRMWARE_PCRS and event.type != EV.NO_ACTION
    ]


def sha256(data):
    return hashlib.sha256(data).digest()


def test_a_scenario_names_each_form_and_no_other():
    assert tuple(FORMS) == FIRMWARE_LOG_FORMS
    for form in FORMS:
        text = f'[host.firmware]\nlog_form = "{form}"\n'
        assert parse_scenario(text).host.firmware.log_form == form
    with pytest.raises(ScenarioError) as caught:
        parse_scenario('[host.firmware]\nlog_form = "bootguard"\n')
    assert (caught.value.path, caught.value.nearest) == ("scenario: host.firmware.log_form", "boot-guard")


@pytest.mark.parametrize("form", FORMS)
def test_a_clean_host_is_accepted_in_every_form(form):
    world = World(log_form=form)
    entry = world.add()
    assert (entry.tpm_attestation.status, entry.reasons) == ("accepted", ())
    for pcr, kind, _, _ in events_of(world):
        assert kind in ALLOWED_TYPES[pcr]


def test_code_volumes_are_measured_whatever_the_form_calls_them():
    base = 0xFF00_0000
    for form, kind in (
        ("generic", EV.EFI_PLATFORM_FIRMWARE_BLOB),
        ("edk2", EV.EFI_PLATFORM_FIRMWARE_BLOB),
        ("pfp-1.05", EV.EFI_PLATFORM_FIRMWARE_BLOB2),
        ("boot-guard", EV.POST_CODE),
    ):
        world = World(log_form=form).boot()
        volumes = world.board.firmware.volumes
        size = len(volumes["DXE"])
        where = struct.pack("<QQ", base + len(volumes["SEC-PEI"]), size)
        found = [(data, digest) for _, each, data, digest in events_of(world) if each == kind]
        described = b"\x04DXE\0" + where if form == "pfp-1.05" else where
        assert found[-1] == (described, sha256(volumes["DXE"]))
        assert len(found) == (1 if form == "boot-guard" else 2)


def test_boot_guard_tells_of_the_contents_of_the_core_and_names_a_version_by_guid():
    world = World(log_form="boot-guard").boot()
    first, second = events_of(world)[:2]
    core = world.board.firmware.volumes["SEC-PEI"]
    assert first == (0, EV.S_CRTM_CONTENTS, BOOT_GUARD, sha256(core))
    pcr, kind, data, digest = second
    assert (pcr, kind, len(data), digest) == (0, EV.S_CRTM_VERSION, 16, sha256(data))


def test_a_cloud_s_firmware_measures_no_code_and_says_what_is_around_it():
    world = World(log_form="virtual").boot()
    own = [(kind, data, digest) for pcr, kind, data, digest in events_of(world) if pcr == 0]
    version = uefi_events.ucs2(FirmwareSpec().version)
    assert own[:2] == [
        (EV.S_CRTM_VERSION, version, sha256(version)),
        (EV.NONHOST_INFO, NONHOST_INFO, sha256(NONHOST_INFO)),
    ]
    assert [kind for kind, _, _ in own[2:]] == [EV.SEPARATOR]
    assert len(NONHOST_INFO) == 32


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("volume", ["SEC-PEI", "DXE"])
def test_a_flipped_bit_of_firmware_moves_pcr_0_unless_the_form_measures_no_code(form, volume):
    def pcr_0(flip):
        world = World(log_form=form)
        if flip:
            world.board.firmware.flip_bit(volume, 12_345)
        world.boot()
        return world.board.tpm.device.pcrs.values[SHA256][0]

    assert (pcr_0(False) == pcr_0(True)) is (form == "virtual")


def test_tables_of_the_second_form_have_a_name_and_the_digest_of_what_they_point_to():
    world = World(log_form="pfp-1.05").boot()
    spec = world.board.spec
    tables = [(data, digest) for _, kind, data, digest in events_of(world) if kind == EV.EFI_HANDOFF_TABLES2]
    acpi = b"".join(table for _, table in acpi_tables(spec))
    guid = bytes.fromhex("71e86888f1e4d311bc220080c73c8881")
    assert tables == [
        (
            b"\x0cSmbiosTable\0" + uefi_events.handoff_tables((uefi_events.SMBIOS3_TABLE, 0x6F00_0000)),
            sha256(smbios_table(spec)),
        ),
        (
            b"\x0aAcpiTable\0" + struct.pack("<Q", 1) + guid + struct.pack("<Q", 0x6F10_0000),
            sha256(acpi),
        ),
    ]


def test_boot_options_are_of_the_second_form_where_the_tables_are():
    for form, kind in (("pfp-1.05", EV.EFI_VARIABLE_BOOT2), ("edk2", EV.EFI_VARIABLE_BOOT)):
        world = World(log_form=form).boot()
        options = world.board.firmware.variables
        found = [(each, data, digest) for pcr, each, data, digest in events_of(world) if pcr == 1]
        wanted = [uefi_events.variable_data(name, options[name]) for name in ("BootOrder", "Boot0001")]
        assert [one for one in found if one[0] == kind] == [(kind, data, sha256(data)) for data in wanted]


def test_edk2_measures_each_acpi_table_under_one_name():
    world = World(log_form="edk2").boot()
    flags = [(data, digest) for _, kind, data, digest in events_of(world) if kind == EV.PLATFORM_CONFIG_FLAGS]
    assert flags[1:] == [(ACPI_DATA, sha256(table)) for _, table in acpi_tables(world.board.spec)]
    assert len(flags) == 3


def test_what_is_said_of_the_platform_must_be_what_was_measured():
    from sim.attest.firmware import STRICT_TYPES, check_hashed_data
    from sim.attest.verdict import AttestationError

    event = next(
        one
        for one in parse(World(log_form="virtual").boot().host.boot.event_log).events
        if one.type == EV.NONHOST_INFO
    )
    check_hashed_data(event, STRICT_TYPES)
    with pytest.raises(AttestationError, match="are not what was measured"):
        check_hashed_data(attrs.evolve(event, data=event.data[:-1] + b"\1"), STRICT_TYPES)


BIG = HostSpec(cpu=CpuSpec(packages=2, nodes_per_package=2, cores_per_node=64, threads_per_core=2))


def test_acpi_tables_add_up_to_zero_and_count_the_processors():
    for spec in (HostSpec(), BIG):
        tables = dict(acpi_tables(spec))
        assert list(tables) == ["APIC", "TPM2"]
        for name, table in tables.items():
            assert table[:4].decode() == name
            assert struct.unpack_from("<I", table, 4) == (len(table),)
            assert sum(table) & 0xFF == 0
        at, ids, kinds = 44, [], []
        madt = tables["APIC"]
        while at < len(madt):
            kind, size = madt[at], madt[at + 1]
            if kind in (0, 9):
                ids.append(madt[at + 3] if kind == 0 else struct.unpack_from("<I", madt, at + 4)[0])
            kinds.append(kind)
            at += size
        assert at == len(madt)
        assert ids == list(range(spec.cpu.pcpus))
        assert kinds.count(1) == 1
        assert kinds.count(9) == max(0, spec.cpu.pcpus - 255)


@pytest.mark.parametrize("change", [{"tpm_present": False}, {"firmware": FirmwareSpec(tpm_enabled=False)}])
def test_a_tpm_that_is_not_in_use_has_no_table(change):
    assert [name for name, _ in acpi_tables(attrs.evolve(HostSpec(), **change))] == ["APIC"]


@pytest.mark.client
def test_iasl_reads_the_tables(program, tmp_path):
    iasl = program("iasl")
    for name, table in acpi_tables(BIG):
        path = tmp_path / f"{name}.dat"
        path.write_bytes(table)
        done = subprocess.run([iasl, "-d", str(path)], capture_output=True, text=True, check=False)
        text = (tmp_path / f"{name}.dsl").read_text()
        assert done.returncode == 0, done.stderr
        assert "Incorrect checksum" not in done.stdout + done.stderr + text
        assert "terminates in the middle" not in text
        if name == "APIC":
            assert text.count("[Processor Local APIC]") == 255
            assert text.count("[Processor Local x2APIC]") == BIG.cpu.pcpus - 255 == 257
        else:
            assert "07 [Command Response Buffer]" in text
