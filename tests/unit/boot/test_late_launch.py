"""The late launch: PCRs 17 to 22, who extends them from where, and when there is none."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct

import pytest

from sim.boot.acm import HEADER_BYTES, USER_AREA, AcmError, authenticate, build_acm, chipset_key_digest
from sim.boot.bootinfo import BootFailure, BootInfo
from sim.boot.latelaunch import LaunchEvent, sinit_module
from sim.core.keys import rsa_private_key
from sim.core.rng import Rng
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.eventlog import EV, parse, replay

SHA256 = 0x0B
OPTION = "enableTboot=TRUE"


def sha256(data):
    return hashlib.sha256(data).digest()


def content(data):
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def launched(make_world, **options):
    world = make_world(txt=True, kernelopt=OPTION, **options)
    return world, world.boot()


def test_launch_measures_into_17_to_21_and_leaves_11_to_14_zero(make_world):
    world, info = launched(make_world)
    pcrs = world.pcrs()
    assert isinstance(info, BootInfo)
    assert info.drtm
    assert [pcr for pcr in range(8, 24) if pcrs[pcr] != bytes(32)] == [17, 18, 19, 20, 21]


@pytest.mark.parametrize("bank", [0x04, 0x0B, 0x0C, 0x0D])
def test_log_of_a_launch_replays_to_the_pcrs_in_every_bank(make_world, bank):
    world, info = launched(make_world)
    replayed = replay(parse(info.event_log))[bank]
    pcrs = world.pcrs(bank)
    assert {17, 18, 19, 20, 21} <= set(replayed)
    assert all(pcrs[pcr] == value for pcr, value in replayed.items())


def test_pcr_17_begins_with_the_hash_sequence_over_sinit_and_ends_around_the_kernel(
    make_world, factory, extend
):
    world, info = launched(make_world)
    sinit = world.board.firmware.volumes["SINIT"]
    kernel = content(factory.image.bank.files["b.b00"])
    events = [event for event in parse(info.event_log).events if event.pcr == 17]
    digests = [event.digests[SHA256] for event in events]
    assert len(events) == 9
    assert digests[0] == sha256(sinit + bytes(4))
    assert digests[7] == sha256(kernel)
    assert events[7].data == struct.pack("<II", 2, 6) + b"b.b00\0"
    assert world.pcrs()[17] == extend(SHA256, bytes(32), digests)


def test_modules_and_options_follow_in_the_pcrs_of_their_class(make_world, factory, extend):
    world, _ = launched(make_world)
    bank = factory.image.bank
    options = [name for name in bank.config.load_order if name.endswith(".gz")]
    core = [name for name in bank.config.modules if name.split(".")[0] in ("k", "s", "sb", "esxupdt")]
    others = [name for name in bank.config.modules if name not in options + core]

    def digests(names):
        return [sha256(content(bank.files[name])) for name in names]

    pcrs = world.pcrs()
    assert pcrs[19] == extend(SHA256, bytes(32), digests(core))
    assert pcrs[20] == extend(SHA256, bytes(32), digests(others))
    assert pcrs[21] == extend(SHA256, bytes(32), [sha256(f"b.b00 {OPTION}".encode()), *digests(options)])
    assert pcrs[22] == bytes(32)


def test_shape_and_fixed_digests_are_those_of_a_real_host_with_txt(make_world, vectors):
    report = json.loads((vectors / "esxi_txt_report.json").read_text())
    groups = {g["pcr_index"]: g for g in report["pcr_manifest"]["pcr_event_log_map"]["SHA256"]}
    _, info = launched(make_world)
    ours = parse(info.event_log).events
    for pcr, places in ((17, (2, 3, 4, 5, 6)), (18, (1, 2, 3, 4))):
        real = [event["value"] for event in groups[f"pcr_{pcr}"]["event_log"]]
        made = [event.digests[SHA256].hex() for event in ours if event.pcr == pcr]
        assert len(made) == len(real)
        assert [made[place] for place in places] == [real[place] for place in places]
    assert groups["pcr_17"]["event_log"][7]["label"] == "b"


def test_launch_events_come_in_the_order_of_a_real_host(make_world):
    _, info = launched(make_world)
    order = [event.pcr for event in parse(info.event_log).events if event.pcr >= 17]
    assert order[:15] == [17] * 9 + [18] * 6
    assert order[15:19] == [21] * 4
    assert set(order[19:]) == {19, 20}


def test_who_measures_works_at_the_locality_of_its_role(make_world):
    world, _ = launched(make_world)
    commands = world.board.sim.trace.select("tpm.command")
    extends = [row["locality"] for row in commands if row["code"] == 0x182]
    acm = [row for row in extends if row == 3]
    assert len(acm) == 8 + 6
    assert extends == sorted(extends, key={0: 0, 3: 1, 2: 2}.get)
    phases = [row["phase"] for row in world.board.sim.trace.select("tpm.hash_sequence")]
    assert phases == ["start", "data", "end"]


def test_nobody_below_locality_2_can_extend_what_the_launch_measured(make_world):
    world, _ = launched(make_world)
    before = world.pcrs()
    for pcr in range(17, 23):
        for locality in (0, 1):
            if (pcr, locality) == (20, 1):
                continue
            client = TpmClient(world.board.tpm.transmit, locality)
            with pytest.raises(TpmError) as refusal:
                client.pcr_extend(pcr, {SHA256: bytes(32)})
            assert refusal.value.rc == 0x907
    assert world.pcrs() == before


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"txt": False}, "enableTboot is set, but TXT is disabled in the BIOS: ordinary launch"),
        ({"txt": True, "tpm": False}, "enableTboot is set, but the TPM is absent: ordinary launch"),
        ({"txt": True, "tpm_enabled": False}, "enableTboot is set, but the TPM is disabled: ordinary launch"),
    ],
)
def test_launch_that_is_not_possible_is_logged_and_the_boot_is_an_ordinary_one(make_world, options, line):
    world = make_world(kernelopt=OPTION, **options)
    info = world.boot()
    assert isinstance(info, BootInfo)
    assert not info.drtm
    assert line in world.lines("mboot")
    if world.board.tpm is not None and world.board.tpm.enabled:
        assert world.pcrs()[12] != bytes(32)
        assert world.pcrs()[17] == b"\xff" * 32


@pytest.mark.parametrize("kernelopt", ["", "enableTboot=FALSE", "enableTboot", "enabletboot=TRUE"])
def test_launch_is_off_unless_the_option_says_true(make_world, kernelopt):
    world = make_world(txt=True, kernelopt=kernelopt)
    assert not world.boot().drtm


def test_changed_kernel_changes_pcr_17_and_a_changed_driver_pcr_20(make_world):
    clean, _ = launched(make_world, secure_boot=False)
    for name, changed in (("b.b00", [17]), ("vmkusb.v00", [20])):
        world = make_world(secure_boot=False, txt=True, kernelopt=OPTION)
        data = world.board.disk.volume("bootbank").peek(name)
        from sim.image.payload import gzip_stored

        plain = bytearray(content(data))
        plain[300] ^= 1
        world.board.disk.volume("bootbank").write(name, gzip_stored(bytes(plain)))
        world.boot()
        before, after = clean.pcrs(), world.pcrs()
        assert [pcr for pcr in range(24) if before[pcr] != after[pcr]] == changed


def test_any_changed_sinit_module_resets_the_platform_before_the_tpm_is_touched(make_world):
    world = make_world(txt=True, kernelopt=OPTION)
    sinit_module(world.board)
    world.board.firmware.flip_bit("SINIT", 8 * 5000)
    failure = world.boot()
    assert isinstance(failure, BootFailure)
    assert (failure.stage, failure.component) == ("tboot", "SINIT")
    assert any("TXT.ERRORCODE: 0x80000007" in line for line in failure.messages)
    assert world.pcrs()[17] == b"\xff" * 32


def test_every_sampled_bit_of_sinit_is_covered_by_its_check():
    acm, digest = build_acm(Rng(3)), chipset_key_digest()
    authenticate(acm, digest)
    header, table = range(0, 8 * HEADER_BYTES, 5), range(8 * USER_AREA, 8 * (USER_AREA + 72))
    for bit in [*range(8 * 128), *header, *table, *range(8 * USER_AREA, 8 * len(acm), 8191)]:
        flipped = bytearray(acm)
        flipped[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(AcmError):
            authenticate(bytes(flipped), digest)


def test_scratch_space_is_no_part_of_what_is_signed_as_in_real_modules():
    acm = bytearray(build_acm(Rng(3)))
    acm[HEADER_BYTES : HEADER_BYTES + 4] = b"work"
    authenticate(bytes(acm), chipset_key_digest())


def test_sinit_of_another_maker_and_every_truncation_are_refused():
    acm, digest = build_acm(Rng(3)), chipset_key_digest()
    forged = build_acm(Rng(3), key=rsa_private_key(Rng(4).stream("forger")))
    with pytest.raises(AcmError, match="key is not the chipset's"):
        authenticate(forged, digest)
    for size in range(0, len(acm), 997):
        with pytest.raises(AcmError):
            authenticate(acm[:size], digest)


def test_launch_is_told_in_the_log_by_its_own_event_types(make_world):
    _, info = launched(make_world)
    launch = [event.type for event in parse(info.event_log).events if event.pcr in (17, 18)]
    assert launch.count(EV.EVENT_TAG) == 1
    assert launch[0] == LaunchEvent.HASH_START
    assert launch[9] == LaunchEvent.SINIT_PUBKEY_HASH


def test_empty_option_file_has_the_digest_of_nothing_as_on_a_real_host(make_world, vectors):
    report = json.loads((vectors / "esxi_txt_report.json").read_text())
    groups = {g["pcr_index"]: g for g in report["pcr_manifest"]["pcr_event_log_map"]["SHA256"]}
    real = {event["label"]: event["value"] for event in groups["pcr_21"]["event_log"]}
    _, info = launched(make_world)
    made = {
        event.data[8:-1]: event.digests[SHA256].hex()
        for event in parse(info.event_log).events
        if event.pcr == 21
    }
    for name in ("useropts.gz", "features.gz"):
        assert made[name.encode()] == real[name]


def test_asset_tag_of_a_launched_host_goes_into_pcr_22(make_world, extend):
    from sim.tpm.device import Tpm
    from sim.tpm.nv import factory_index

    device = Tpm(b"seed of a test TPM")
    device.nv[0x01C10110] = factory_index(0x01C10110, b"rack 7, slot 3")
    world, _ = launched(make_world, device=device)
    assert world.pcrs()[22] == extend(SHA256, bytes(32), [sha256(b"rack 7, slot 3")])


@pytest.mark.parametrize("extends", [35, 40, 50])
def test_launch_that_the_tpm_refuses_to_record_resets_the_platform(make_world, extends):
    from sim.tpm.device import Tpm

    class FailingTpm(Tpm):
        seen = 0

        def execute(self, command, locality=0):
            self.seen += command[6:10] == b"\x00\x00\x01\x82"
            if self.seen > extends:
                return b"\x80\x01\x00\x00\x00\x0a\x00\x00\x01\x01"
            return super().execute(command, locality)

    _, failure = launched(make_world, device=FailingTpm(b"seed of a test TPM"))
    assert isinstance(failure, BootFailure)
    assert (failure.stage, failure.component) == ("tboot", "TPM")
