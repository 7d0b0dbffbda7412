"""A good boot: what is measured, in which order, into which PCR; recomputed from the stored bytes alone."""

from __future__ import annotations

import gzip
import hashlib
import struct

import attrs
import pytest

from sim.boot.bootinfo import BootInfo, StartupMode, TpmState
from sim.boot.context import BootPolicy
from sim.boot.measure import LOG_AREA_BYTES, Measurer
from sim.boot.smbios import smbios_table
from sim.image.pe import authenticode_digest
from sim.tpm.device import Tpm
from sim.tpm.eventlog import EV, parse, replay
from sim.tpm.nv import factory_index
from sim.tpm.profile import TpmProfile

SHA256 = 0x0B
BANKS = {0x04: "sha1", 0x0B: "sha256", 0x0C: "sha384", 0x0D: "sha512"}


def sha256(data):
    return hashlib.sha256(data).digest()


def content(data):
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def events_of(info):
    return parse(info.event_log).events


def tagged(event):
    kind, size = struct.unpack_from("<II", event.data)
    assert size == len(event.data) - 8
    return kind, event.data[8:]


@pytest.fixture(scope="module")
def booted(make_world):
    world = make_world(kernelopt="runweasel=1 quiet")
    info = world.boot()
    assert isinstance(info, BootInfo)
    return world, info


def test_log_replays_to_the_pcrs_in_every_bank(booted):
    world, info = booted
    replayed = replay(parse(info.event_log))
    for bank, name in BANKS.items():
        pcrs = world.pcrs(bank)
        found = replayed.get(bank) or replayed[name]
        for pcr in range(24):
            untouched = b"\xff" if 17 <= pcr <= 22 else b"\0"
            size = hashlib.new(name).digest_size
            assert pcrs[pcr] == found.get(pcr, untouched * size), (name, pcr)


def test_every_event_has_a_digest_in_every_bank(booted):
    _, info = booted
    for event in events_of(info):
        assert sorted(event.digests) == sorted(BANKS)


def test_firmware_events_come_in_the_order_of_the_specification(booted):
    _, info = booted
    firmware = [(event.pcr, event.type) for event in events_of(info) if event.pcr < 8]
    kind = EV
    assert firmware == [
        (0, kind.S_CRTM_VERSION),
        (0, kind.EFI_PLATFORM_FIRMWARE_BLOB),
        (0, kind.EFI_PLATFORM_FIRMWARE_BLOB),
        *[(7, kind.EFI_VARIABLE_DRIVER_CONFIG)] * 5,
        (7, kind.SEPARATOR),
        (1, kind.CPU_MICROCODE),
        (1, kind.PLATFORM_CONFIG_FLAGS),
        (2, kind.EFI_BOOT_SERVICES_DRIVER),
        (1, kind.EFI_HANDOFF_TABLES),
        (1, kind.EFI_VARIABLE_BOOT),
        (1, kind.EFI_VARIABLE_BOOT),
        (4, kind.EFI_ACTION),
        *[(pcr, kind.SEPARATOR) for pcr in range(7)],
        (7, kind.EFI_VARIABLE_AUTHORITY),
        (5, kind.EFI_GPT_EVENT),
        (4, kind.EFI_BOOT_SERVICES_APPLICATION),
        (4, kind.EFI_BOOT_SERVICES_APPLICATION),
        (5, kind.EFI_ACTION),
        (5, kind.EFI_ACTION),
    ]


def test_boot_services_end_after_the_last_module_and_before_nothing_else(booted):
    _, info = booted
    events = events_of(info)
    assert [event.data for event in events[-2:]] == [
        b"Exit Boot Services Invocation",
        b"Exit Boot Services Returned with Success",
    ]


def test_pcr_0_is_the_version_and_the_code_of_the_flash(booted, extend):
    world, _ = booted
    firmware = world.board.firmware
    digests = [
        sha256(firmware.spec.version.encode("utf-16-le") + b"\0\0"),
        sha256(firmware.volumes["SEC-PEI"]),
        sha256(firmware.volumes["DXE"]),
        sha256(bytes(4)),
    ]
    assert world.pcrs()[0] == extend(SHA256, bytes(32), digests)


def test_pcr_1_is_microcode_setup_hardware_and_boot_options(booted, extend):
    world, info = booted
    firmware = world.board.firmware
    variables = firmware.variables
    space = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
    options = [
        space
        + struct.pack("<QQ", len(name), len(variables[name]))
        + name.encode("utf-16-le")
        + variables[name]
        for name in ("BootOrder", "Boot0001")
    ]
    digests = [
        sha256(firmware.volumes["MICROCODE"]),
        sha256(b"tpm=1 txt=0"),
        sha256(smbios_table(world.board.spec)),
        *map(sha256, options),
        sha256(bytes(4)),
    ]
    assert world.pcrs()[1] == extend(SHA256, bytes(32), digests)
    tables = [event.data for event in events_of(info) if event.type == EV.EFI_HANDOFF_TABLES]
    guid = bytes.fromhex("4415fdf29497 2c4a992ee5bbcf20e394")
    assert tables == [struct.pack("<Q16sQ", 1, guid, 0x6F000000)]
    assert [event.data for event in events_of(info) if event.pcr == 1][3:5] == options


def test_other_hardware_shows_in_pcr_1_alone(make_world, booted):
    world = make_world(kernelopt="runweasel=1 quiet")
    board = world.board
    board.spec = attrs.evolve(board.spec, cpu=attrs.evolve(board.spec.cpu, packages=2))
    assert isinstance(world.boot(), BootInfo)
    before, after = booted[0].pcrs(), world.pcrs()
    assert [pcr for pcr in range(24) if before[pcr] != after[pcr]] == [1]


def test_pcr_2_is_the_option_rom_and_pcrs_3_and_6_hold_one_separator(booted, extend):
    world, _ = booted
    pcrs = world.pcrs()
    volume = world.board.firmware.volumes["OPTION-ROM"]
    rom = sha256(volume)
    (driver,) = [event.data for event in events_of(booted[1]) if event.type == EV.EFI_BOOT_SERVICES_DRIVER]
    assert struct.unpack_from("<QQQQ", driver) == (0xC0000000, len(volume), 0, 52)
    assert struct.unpack_from("<QQ", driver, 64) == (0, len(volume) - 1)
    assert pcrs[2] == extend(SHA256, bytes(32), [rom, sha256(bytes(4))])
    assert pcrs[3].hex().startswith("3d458cfe")
    assert pcrs[3].hex().endswith("7969")
    assert pcrs[6] == pcrs[3]


def test_pcr_4_is_the_attempt_and_the_authenticode_digests_of_both_loaders(booted, factory, extend):
    world, _ = booted
    loaders = [factory.image.esp[f"EFI/VMware/{name}.efi"] for name in ("safeboot64", "mboot64")]
    digests = [sha256(b"Calling EFI Application from Boot Option"), sha256(bytes(4))]
    digests += [authenticode_digest(loader) for loader in loaders]
    assert world.pcrs()[4] == extend(SHA256, bytes(32), digests)


def test_pcr_7_is_the_secure_boot_policy_and_its_one_authority(booted, factory, extend):
    world, info = booted
    variables = world.board.firmware.variables
    global_space = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
    database_space = bytes.fromhex("cbb219d73a3d9645a3bcdad00e67656f")

    def data(space, name, value):
        return space + struct.pack("<QQ", len(name), len(value)) + name.encode("utf-16-le") + value

    spaces = {"db": database_space, "dbx": database_space}
    digests = [
        sha256(data(spaces.get(name, global_space), name, variables[name]))
        for name in ("SecureBoot", "PK", "KEK", "db", "dbx")
    ]
    authority = [event for event in events_of(info) if event.type == EV.EFI_VARIABLE_AUTHORITY]
    (certificate,) = factory.pki.uefi_db
    assert len(authority) == 1
    assert authority[0].data.endswith(certificate)
    assert len(authority[0].data) == len(data(database_space, "db", b"")) + 16 + len(certificate)
    digests += [sha256(bytes(4)), sha256(authority[0].data)]
    assert world.pcrs()[7] == extend(SHA256, bytes(32), digests)


def test_pcrs_11_to_13_are_the_modules_of_their_class_in_load_order(booted, factory, extend):
    world, info = booted
    bank = factory.image.bank
    events = events_of(info)
    expected = {11: [], 12: [], 13: []}
    for name in bank.config.load_order:
        base, _, ending = name.rpartition(".")
        if ending == "gz":
            continue
        if base in ("b", "k"):
            expected[13] += [
                event.digests[SHA256]
                for event in events
                if event.pcr == 13 and tagged(event)[0] == 8 and name.encode() in event.data
            ]
        pcr = 11 if base == "esxupdt" else 12 if base in ("b", "k", "s", "sb") else 13
        expected[pcr].append(sha256(content(bank.files[name])))
    pcrs = world.pcrs()
    for pcr, digests in expected.items():
        assert digests
        assert pcrs[pcr] == extend(SHA256, bytes(32), digests), pcr


def test_pcr_14_is_options_then_signers_then_command_line(booted, factory, extend):
    world, _ = booted
    files = factory.image.bank.files
    digests = [sha256(content(files[name])) for name in ("jumpstrt.gz", "useropts.gz", "features.gz")]
    digests += [sha256(certificate) for certificate in factory.image.early_certificates]
    digests.append(sha256(b"b.b00 runweasel=1 quiet"))
    assert world.pcrs()[14] == extend(SHA256, bytes(32), digests)


def test_module_events_name_the_files_in_the_order_of_boot_cfg(booted, factory):
    _, info = booted
    loader = [event for event in events_of(info) if event.type == EV.EVENT_TAG]
    named = [tagged(event) for event in loader if tagged(event)[0] in (2, 3)]
    assert [body for _, body in named] == [
        name.encode() + b"\0" for name in factory.image.bank.config.load_order
    ]
    for kind, body in named:
        assert kind == (3 if body.endswith(b".gz\0") else 2)


def test_version_record_of_b_and_k_stands_directly_before_the_module(booted):
    _, info = booted
    loader = [tagged(event) for event in events_of(info) if event.type == EV.EVENT_TAG]
    versions = [index for index, (kind, _) in enumerate(loader) if kind == 8]
    assert [loader[index + 1][1] for index in versions] == [b"b.b00\0", b"k.b00\0"]


def test_signer_is_measured_once_though_it_signed_many_modules(booted, factory):
    world, info = booted
    signers = [tagged(event)[1] for event in events_of(info) if event.pcr == 14 and tagged(event)[0] == 7]
    assert signers == list(factory.image.early_certificates)
    passed = [line for line in world.lines("mboot") if line.startswith("Signature check passed")]
    assert len(passed) > len(signers)


def test_command_line_event_shows_the_text_without_nul_and_moves_only_pcr_14_and_the_database(
    make_world, booted
):
    world, info = booted
    plain = make_world()
    plain.boot()
    text = [tagged(event)[1] for event in events_of(info) if event.pcr == 14 and tagged(event)[0] == 4]
    assert text == [b"b.b00 runweasel=1 quiet"]
    before, after = plain.pcrs(), world.pcrs()
    assert [pcr for pcr in range(24) if before[pcr] != after[pcr]] == [14]


def test_pcrs_that_nobody_uses_keep_their_start_values(booted):
    world, _ = booted
    pcrs = world.pcrs()
    for pcr in (8, 9, 10, 15, 16, 23):
        assert pcrs[pcr] == bytes(32)
    for pcr in range(17, 23):
        assert pcrs[pcr] == b"\xff" * 32


def test_boot_info_says_what_was_booted(booted, factory):
    world, info = booted
    config = factory.image.bank.config
    assert info.tpm_state is TpmState.ENABLED
    assert (info.secure_boot, info.drtm, info.log_truncated) == (True, False, False)
    assert info.command_line == "b.b00 runweasel=1 quiet"
    assert info.kernel_options == (("runweasel", "1"), ("quiet", ""))
    assert [module.name for module in info.modules] == list(config.load_order)
    for module in info.modules:
        assert module.data == world.board.disk.volume("bootbank").peek(module.name)
        assert module.content == content(module.data)
        assert module.digest == sha256(module.content)
    assert info.module("k.b00").vib.startswith("VMware_bootbank_esx-base_")
    assert info.module("state.tgz").vib == ""
    assert [vib.vib_id for vib in info.installed_vibs] == [vib.vib_id for vib in factory.image.vibs]
    assert not any(vib.refused for vib in info.installed_vibs)


def test_boot_takes_the_time_that_its_parts_charged(make_world):
    world = make_world()
    info = world.boot()
    totals = world.board.meter.totals_ns
    assert info.finished_ns - info.started_ns == sum(totals.values())
    for kind in (
        "hash sha1",
        "hash sha256",
        "hash sha384",
        "hash sha512",
        "gunzip",
        "tpm",
        "verify signature",
    ):
        assert totals[kind] > 0


def test_two_boots_of_one_seed_give_the_same_trace(make_world):
    digests = []
    for _ in range(2):
        world = make_world()
        world.boot()
        digests.append(world.board.sim.trace.digest())
    assert digests[0] == digests[1]


def test_second_boot_after_a_reset_measures_the_same_but_has_its_own_id(make_world):
    world = make_world()
    first = world.boot()
    pcrs = world.pcrs()
    world.board.reset()
    second = world.boot()
    assert world.pcrs() == pcrs
    assert second.event_log == first.event_log
    assert second.boot_id != first.boot_id
    assert second.started_ns >= first.finished_ns


@pytest.mark.parametrize(
    ("mode", "start", "first"),
    [
        (StartupMode.LOCALITY_0, bytes(32), None),
        (StartupMode.LOCALITY_3, bytes(31) + b"\x03", None),
        (StartupMode.H_CRTM, bytes(31) + b"\x04", "SEC-PEI"),
    ],
)
def test_pcr_0_starts_as_the_core_root_of_trust_started_the_tpm(make_world, extend, mode, start, first):
    world = make_world(policy=BootPolicy(startup=mode))
    info = world.boot()
    volumes = world.board.firmware.volumes
    digests = [sha256(volumes[first])] if first else []
    digests.append(sha256(world.board.firmware.spec.version.encode("utf-16-le") + b"\0\0"))
    digests += [sha256(volumes["SEC-PEI"]), sha256(volumes["DXE"]), sha256(bytes(4))]
    assert world.pcrs()[0] == extend(SHA256, start, digests)
    replayed = replay(parse(info.event_log))
    assert (replayed.get(SHA256) or replayed["sha256"])[0] == world.pcrs()[0]
    assert world.pcrs()[17] == b"\xff" * 32


@pytest.mark.parametrize("mode", list(StartupMode))
@pytest.mark.parametrize("launch", [False, True])
def test_the_log_beside_the_pcrs_is_byte_for_byte_the_one_of_an_honest_firmware(make_world, mode, launch):
    world = make_world(
        policy=BootPolicy(startup=mode), txt=launch, kernelopt="enableTboot=TRUE" if launch else None
    )
    info = world.boot()
    assert info.drtm == launch
    assert world.board.tpm.device.event_log == info.event_log


@pytest.mark.parametrize("limit", [3_000, 5_432])
def test_both_logs_are_cut_off_at_the_same_event(make_world, monkeypatch, limit):
    monkeypatch.setattr("sim.boot.measure.LOG_AREA_BYTES", attrs.evolve(LOG_AREA_BYTES, value=limit))
    device = Tpm(b"seed of a test TPM", TpmProfile(event_log_bytes_max=limit))
    info = make_world(device=device).boot()
    assert info.log_truncated
    assert device.pcrs.log.truncated
    assert device.event_log == info.event_log


def test_a_firmware_that_leaves_an_event_out_of_its_log_is_shown_by_the_other(make_world, monkeypatch):
    world = make_world(kernelopt="quiet")
    honest = Measurer.log

    def lying(self, pcr, kind, data, digests, *, name):
        if name != "command line":
            honest(self, pcr, kind, data, digests, name=name)

    monkeypatch.setattr(Measurer, "log", lying)
    info = world.boot()
    reported, kept = parse(info.event_log).events, parse(world.board.tpm.device.event_log).events
    (missing,) = [event for event in kept if event.digests not in [each.digests for each in reported]]
    assert missing.pcr == 14
    assert missing.data == b"TPM2_PCR_Extend at locality 0"


def test_asset_tag_is_measured_when_the_owner_has_written_one(make_world, booted):
    device = Tpm(b"seed of a test TPM")
    device.nv[0x01C10110] = factory_index(0x01C10110, b"rack 7, slot 3")
    world = make_world(device=device, kernelopt="runweasel=1 quiet")
    info = world.boot()
    tags = [event for event in events_of(info) if event.type == EV.EVENT_TAG and tagged(event)[0] == 6]
    assert [(event.pcr, tagged(event)[1]) for event in tags] == [(14, b"rack 7, slot 3")]
    assert tags[0].digests[SHA256] == sha256(b"rack 7, slot 3")
    before, after = booted[0].pcrs(), world.pcrs()
    assert [pcr for pcr in range(24) if before[pcr] != after[pcr]] == [14]
    assert not [event for event in events_of(booted[1]) if event.pcr == 14 and tagged(event)[0] == 6]


def test_full_log_area_sets_the_flag_and_the_extends_go_on(make_world, booted, monkeypatch):
    import sim.boot.measure as measure
    from sim.core.facts import Fact

    small = Fact(name="test.log_area", value=6000, unit="byte", source="test", kind="assumed")
    monkeypatch.setattr(measure, "LOG_AREA_BYTES", small)
    world = make_world(kernelopt="runweasel=1 quiet")
    info = world.boot()
    assert info.log_truncated
    assert len(info.event_log) < 6200
    assert len(events_of(info)) < len(events_of(booted[1]))
    assert world.pcrs() == booted[0].pcrs()


def test_empty_module_is_measured_as_one_zero_byte(make_world):
    world = make_world(secure_boot=False)
    volume = world.board.disk.volume("bootbank")
    volume.write("vim.v00", b"")
    info = world.boot()
    digests = {tagged(e)[1]: e.digests[SHA256] for e in events_of(info) if e.pcr == 13 and tagged(e)[0] == 2}
    assert digests[b"vim.v00\0"] == sha256(b"\0")
    assert info.module("vim.v00").digest == sha256(b"")
