"""Boots that are refused or go on with a warning: Secure Boot on and off, damaged files, unbootable banks."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import attrs
import pytest

from sim.boot.bootinfo import BootFailure, BootInfo
from sim.boot.earlycheck import is_early
from sim.boot.loaded import LoadedModule
from sim.core.context import EPOCH
from sim.core.rng import Stream
from sim.image.certificate import load_certificate
from sim.image.crl_issue import CrlSpec, issue_crl
from sim.image.dbx import forbid_certificate, forbid_image
from sim.image.efi_lists import encode_signature_lists
from sim.image.issue import CertificateSpec, issue
from sim.image.payload import content_of, gzip_stored
from sim.image.pe import authenticode_digest
from sim.image.pki import EarlySigner
from sim.image.trailer import sign_module, split_trailer
from sim.image.trust import EarlyKey
from sim.tpm.eventlog import EV, parse, replay

FATAL_NOT_FOUND = "Fatal error: 15 (Not found)"
FATAL_INCONSISTENT = "Fatal error: 33 (Inconsistent data)"
FATAL_SECURE_BOOT = "Fatal error: 39 (Secure Boot Failed)"
VIBS_FAILED = "UEFI Secure Boot failed: Failed to verify signatures of the following vib(s): "


def repack(world, name, change):
    """Replace a gzip file of the bank by one whose content `change` made."""
    volume = world.board.disk.volume("bootbank")
    volume.write(name, gzip_stored(change(content_of(volume.peek(name)))))


def flipped(content, at=200):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def rewrite_config(world, **changes):
    from sim.image.bootcfg import format_boot_config, parse_boot_config

    volume = world.board.disk.volume("bootbank")
    config = attrs.evolve(parse_boot_config(volume.peek("boot.cfg")), **changes)
    volume.write("boot.cfg", format_boot_config(config))


def test_flipped_loader_is_refused_by_the_firmware_with_its_own_words(make_world):
    world = make_world()
    world.board.disk.volume("esp").flip_bit("EFI/VMware/safeboot64.efi", 8 * 1100)
    failure = world.boot()
    assert isinstance(failure, BootFailure)
    assert failure.stage == "firmware"
    assert failure.component == "\\EFI\\VMware\\safeboot64.efi"
    assert failure.message == "UEFI0073: Unable to boot VMware ESXi because of the Secure Boot policy."


def test_flipped_loader_boots_without_secure_boot_and_shows_in_pcr_4_alone(make_world):
    worlds = [make_world(secure_boot=False) for _ in range(2)]
    worlds[1].board.disk.volume("esp").flip_bit("EFI/VMware/safeboot64.efi", 8 * 1100)
    infos = [world.boot() for world in worlds]
    assert all(isinstance(info, BootInfo) for info in infos)
    before, after = (world.pcrs() for world in worlds)
    assert [pcr for pcr in range(24) if before[pcr] != after[pcr]] == [4]


def test_second_loader_is_verified_like_the_first(make_world):
    world = make_world()
    world.board.disk.volume("esp").flip_bit("EFI/VMware/mboot64.efi", 8 * 1100)
    failure = world.boot()
    assert (failure.stage, failure.component, failure.message) == (
        "safeboot",
        "mboot64.efi",
        FATAL_SECURE_BOOT,
    )


@pytest.mark.parametrize("secure_boot", [True, False])
def test_second_loader_that_is_missing_stops_the_boot(make_world, secure_boot):
    world = make_world(secure_boot=secure_boot)
    world.board.disk.volume("esp").remove("EFI/VMware/mboot64.efi")
    failure = world.boot()
    assert (failure.stage, failure.component, failure.message) == ("safeboot", "mboot64.efi", FATAL_NOT_FOUND)
    assert "mboot64.efi: EFI system partition: " in "".join(world.lines("safeboot"))


def test_loader_whose_image_digest_stands_in_dbx_is_refused(make_world, factory):
    world = make_world()
    loader = factory.image.esp["EFI/VMware/safeboot64.efi"]
    world.board.firmware.set_variable("dbx", encode_signature_lists([authenticode_digest(loader)]))
    failure = world.boot()
    assert isinstance(failure, BootFailure)
    assert any("dbx" in line for line in failure.messages)


def test_loader_whose_authority_stands_in_dbx_is_refused(make_world, factory):
    world = make_world()
    world.board.firmware.set_variable("dbx", encode_signature_lists(factory.pki.uefi_db))
    assert world.boot().stage == "firmware"


def dbx_forms(factory):
    """Every form in which dbx can forbid the first loader, and the words of its refusal."""
    signer = factory.pki.loader_signer.certificate_der
    forms = {"the image's digest is in dbx": [], "is revoked": [signer], "is in dbx": []}
    for name in ("sha256", "sha384", "sha512"):
        loader = factory.image.esp["EFI/VMware/safeboot64.efi"]
        forms["the image's digest is in dbx"].append(forbid_image(loader, name))
        forms["is in dbx"] += [forbid_certificate(one, name) for one in (signer, *factory.pki.uefi_db)]
        forms["is in dbx"].append(forbid_certificate(signer, name, since=EPOCH + timedelta(days=9)))
    return [(entry, words) for words, entries in forms.items() for entry in entries]


def test_every_form_of_revocation_in_dbx_stops_the_loader_under_secure_boot_alone(make_world, factory):
    forms = dbx_forms(factory)
    assert len(forms) == 13
    for entry, words in forms:
        for secure_boot in (True, False):
            world = make_world(secure_boot=secure_boot)
            world.board.firmware.set_variable("dbx", encode_signature_lists([entry]))
            outcome = world.boot()
            assert isinstance(outcome, BootFailure) == secure_boot, entry
            if secure_boot:
                assert (outcome.stage, outcome.message[:8]) == ("firmware", "UEFI0073")
                assert any(line.endswith(words) or f"{words} since" in line for line in outcome.messages)


@pytest.mark.parametrize("secure_boot", [True, False])
@pytest.mark.parametrize("form", ["list", "digest", "authority"])
def test_a_revoked_key_of_early_modules_stops_the_boot_under_secure_boot(make_world, form, secure_boot):
    world = make_world(secure_boot=secure_boot)
    key, authority = world.pki.early_signers[0].identity, world.pki.early_authority
    if form == "list":
        serial = load_certificate(key.certificate_der).serial
        times = {"this_update": EPOCH - timedelta(days=1), "next_update": EPOCH + timedelta(days=9)}
        world.trust = world.trust.with_crls([issue_crl(CrlSpec(serials=(serial,), **times), authority)])
    else:
        world.trust = world.trust.revoking([(key if form == "digest" else authority).certificate_der])
    outcome = world.boot()
    assert any("is revoked" in line for line in outcome.messages)
    assert isinstance(outcome, BootFailure) == secure_boot
    if secure_boot:
        assert (outcome.stage, outcome.component, outcome.message) == ("mboot", "b.b00", FATAL_SECURE_BOOT)


@pytest.mark.parametrize("db", [b"", b"not a signature list at all, but long enough"])
def test_empty_or_broken_db_allows_nothing(make_world, db):
    world = make_world()
    world.board.firmware.set_variable("db", db)
    assert world.boot().stage == "firmware"


def test_digest_in_db_allows_its_image_and_is_measured_as_the_authority(make_world, factory):
    world = make_world()
    loaders = [authenticode_digest(image) for image in factory.image.esp.values()]
    world.board.firmware.set_variable("db", encode_signature_lists(loaders))
    info = world.boot()
    assert isinstance(info, BootInfo)
    measured = [row for row in world.board.sim.trace.select("boot.measured") if row["type"] == 0x800000E0]
    assert len(measured) == 2


def test_broken_boot_option_is_passed_over_and_the_next_one_boots(make_world):
    world = make_world()
    firmware = world.board.firmware
    firmware.set_variable("Boot0007", b"\x01\x00")
    firmware.set_boot_option(3, "Gone", "\\EFI\\gone.efi")
    firmware.set_variable("BootOrder", b"\x07\x00\x09\x00\x03\x00\x01\x00")
    assert isinstance(world.boot(), BootInfo)
    assert any("Unable to boot Gone" in line for line in world.lines("firmware"))


def test_every_boot_attempt_after_the_first_is_announced_in_pcr_4(make_world):
    world = make_world()
    firmware = world.board.firmware
    firmware.set_boot_option(3, "Gone", "\\EFI\\gone.efi")
    firmware.set_boot_option(4, "Gone too", "\\EFI\\gone2.efi")
    firmware.set_variable("Boot0007", b"\x01\x00")
    firmware.set_variable("BootOrder", b"\x03\x00\x07\x00\x04\x00\x01\x00")
    events = [event for event in parse(world.boot().event_log).events if event.pcr == 4]
    calling = b"Calling EFI Application from Boot Option"
    returning = b"Returning from EFI Application from Boot Option"
    assert [event.data for event in events[:6]] == [calling, bytes(4), returning, calling, returning, calling]
    assert [event.type for event in events] == [
        EV.EFI_ACTION,
        EV.SEPARATOR,
        *[EV.EFI_ACTION] * 4,
        *[EV.EFI_BOOT_SERVICES_APPLICATION] * 2,
    ]
    assert replay(parse(world.board.tpm.device.event_log))[0x0B][4] == world.pcrs()[4]


def test_firmware_without_a_boot_option_finds_no_device(make_world):
    world = make_world()
    world.board.firmware.set_variable("BootOrder", b"")
    assert world.boot().message == "No bootable device was found."


@pytest.mark.parametrize("name", ["b.b00", "k.b00", "chardevs.b00", "s.v00", "sb.v00", "esxupdt.v00"])
def test_changed_early_module_is_a_security_violation(make_world, name):
    world = make_world()
    repack(world, name, flipped)
    failure = world.boot()
    assert (failure.stage, failure.component, failure.message) == ("mboot", name, FATAL_SECURE_BOOT)
    assert any("SECURITY VIOLATION" in line for line in failure.messages)
    assert any(line.endswith("Error verifying signature: -0x4380") for line in failure.messages)


def test_missing_trailer_of_the_kernel_is_told_in_the_loader_s_words(make_world):
    for secure_boot in (True, False):
        world = make_world(secure_boot=secure_boot)
        repack(world, "b.b00", lambda content: split_trailer(content).payload)
        outcome = world.boot()
        assert any("No signature found" in line for line in outcome.messages)
        assert isinstance(outcome, BootFailure) == secure_boot
        assert any("Boot modules are not signed" in line for line in outcome.messages) != secure_boot


def test_magic_removed_from_a_later_module_is_refused_or_logged(make_world):
    for secure_boot in (True, False):
        world = make_world(secure_boot=secure_boot)
        repack(world, "k.b00", lambda content: content[:-4] + bytes(4))
        outcome = world.boot()
        assert isinstance(outcome, BootFailure) == secure_boot
        assert any("Signature check failed on module 4 (k.b00)" in line for line in outcome.messages)


def test_broken_trailer_of_the_kernel_is_an_invalid_format(make_world):
    world = make_world()
    repack(world, "b.b00", lambda content: content[:-8] + b"\xff\xff\xff\xff" + content[-4:])
    assert any(
        "Invalid attached signature format on module 0 (b.b00)" in line for line in world.boot().messages
    )


@pytest.mark.parametrize("secure_boot", [True, False])
def test_an_early_module_signed_with_another_schema_than_the_kernel_s_is_told(make_world, secure_boot):
    world = make_world(secure_boot=secure_boot)
    spec = CertificateSpec(
        organization="VMware", common_name="k", not_before=EPOCH, not_after=EPOCH + timedelta(days=9)
    )
    identity = issue(spec, source=Stream(b"another schema"), algorithm="ec-p384")
    key = EarlyKey(key_id="another_schema_4", schema=4, certificate_der=identity.certificate_der)
    world.trust = attrs.evolve(world.trust, early_keys=(*world.trust.early_keys, key))
    signer = EarlySigner(key=key, identity=identity)
    repack(world, "s.v00", lambda content: sign_module(split_trailer(content).payload, signer))
    outcome = world.boot()
    assert isinstance(outcome, BootFailure) == secure_boot
    assert any(line.endswith("schema 4 instead of 3") for line in outcome.messages)
    assert any("Signature check failed on module" in line for line in outcome.messages)


@pytest.mark.parametrize("secure_boot", [True, False])
def test_two_early_modules_of_one_name_are_told(make_world, secure_boot):
    world = make_world(secure_boot=secure_boot)
    volume = world.board.disk.volume("bootbank")
    volume.write("s.b00", volume.peek("s.v00"))
    order = world.board.disk.volume("bootbank").peek("boot.cfg").decode()
    volume.write("boot.cfg", order.replace("--- s.v00", "--- s.v00 --- s.b00").encode())
    outcome = world.boot()
    assert isinstance(outcome, BootFailure) == secure_boot
    assert any("More than one module named s" in line for line in outcome.messages)
    assert any("Warning: Duplicate modules named s" in line for line in outcome.messages)


def test_changed_driver_is_named_with_its_vib_on_the_purple_screen(make_world):
    world = make_world()
    repack(world, "vmkusb.v00", lambda content: flipped(content, len(content) // 2))
    failure = world.boot()
    assert failure.stage == "secureboot"
    assert failure.component == "vmkusb.v00"
    assert failure.message == VIBS_FAILED + "[vmkusb]. Unrecognized tardisks: []"


def test_changed_driver_boots_without_secure_boot_and_its_vib_is_marked(make_world):
    world, clean = make_world(secure_boot=False), make_world(secure_boot=False)
    repack(world, "vmkusb.v00", lambda content: flipped(content, len(content) // 2))
    info = world.boot()
    clean.boot()
    assert isinstance(info, BootInfo)
    refused = [vib for vib in info.installed_vibs if vib.refused]
    assert [vib.vib_id.split("_")[2] for vib in refused] == ["vmkusb"]
    before, after = clean.pcrs(), world.pcrs()
    assert [pcr for pcr in range(24) if before[pcr] != after[pcr]] == [13]


@pytest.mark.parametrize("secure_boot", [True, False])
def test_file_that_no_vib_owns_is_an_unrecognized_tardisk(make_world, secure_boot):
    world = make_world(secure_boot=secure_boot)
    world.board.disk.volume("bootbank").write("implant.v00", b"implant")
    outcome = world.boot()
    assert isinstance(outcome, BootFailure) == secure_boot
    if secure_boot:
        assert outcome.message == VIBS_FAILED + "[]. Unrecognized tardisks: [implant.v00]"


def test_vib_of_another_authority_s_signature_is_refused(make_world, factory):
    world = make_world()
    other = factory.pki.authorities["accepted"].certificate_der
    world.trust = world.trust.revoking([other])
    failure = world.boot()
    assert failure.stage == "secureboot"
    assert "ixgben" in failure.message


@pytest.mark.parametrize("secure_boot", [True, False])
def test_missing_module_ends_the_boot(make_world, secure_boot):
    world = make_world(secure_boot=secure_boot)
    world.board.disk.volume("bootbank").remove("k.b00")
    failure = world.boot()
    assert (failure.stage, failure.component, failure.message) == ("mboot", "k.b00", FATAL_NOT_FOUND)


@pytest.mark.parametrize("secure_boot", [True, False])
def test_module_that_does_not_unpack_ends_the_boot(make_world, secure_boot):
    world = make_world(secure_boot=secure_boot)
    volume = world.board.disk.volume("bootbank")
    volume.write("vim.v00", volume.peek("vim.v00")[:-9])
    failure = world.boot()
    assert (failure.component, failure.message) == ("vim.v00", FATAL_INCONSISTENT)


def test_gzip_bomb_in_the_bank_ends_the_boot_as_inconsistent(make_world):
    import gzip

    world = make_world(secure_boot=False)
    world.board.disk.volume("bootbank").write("vim.v00", gzip.compress(bytes(80 << 20)))
    assert world.boot().message == FATAL_INCONSISTENT


def test_alternative_bank_is_the_fallback_and_the_newer_bank_wins(make_world, factory):
    def with_both(change):
        world = make_world(secure_boot=False)
        world.board.disk.volume("altbootbank").copy_from(sorted(factory.image.bank.files.items()))
        change(world)
        return world.boot()

    assert with_both(lambda world: None).bank == "bootbank"
    assert with_both(lambda world: rewrite_config(world, bootstate=2)).bank == "altbootbank"
    assert with_both(lambda world: rewrite_config(world, updated=0)).bank == "altbootbank"
    assert with_both(lambda world: rewrite_config(world, kernel="gone.b00")).bank == "altbootbank"
    assert with_both(lambda world: world.board.disk.volume("bootbank").write("boot.cfg", b"\xff")).bank == (
        "altbootbank"
    )
    assert with_both(lambda world: world.board.disk.volume("bootbank").clear()).bank == "altbootbank"


def test_no_bootable_bank_ends_the_boot(make_world):
    world = make_world()
    world.board.disk.volume("bootbank").clear()
    failure = world.boot()
    assert (failure.stage, failure.message) == ("safeboot", FATAL_NOT_FOUND)


def test_failure_carries_the_log_lines_and_the_log_of_what_was_measured(make_world):
    from sim.tpm.eventlog import parse, replay

    world = make_world()
    repack(world, "k.b00", flipped)
    failure = world.boot()
    replayed = replay(parse(failure.event_log))[0x0B]
    pcrs = world.pcrs()
    assert all(pcrs[pcr] == value for pcr, value in replayed.items())
    assert failure.finished_ns > failure.started_ns
    assert failure.messages[-1] == f"mboot: {failure.message}"
    (row,) = world.board.sim.trace.select("boot.done")
    assert (row["outcome"], row["component"]) == ("mboot", "k.b00")


def test_boot_with_secure_boot_off_measures_no_authority(make_world, factory):
    world = make_world(secure_boot=False)
    world.boot()
    kinds = [row["type"] for row in world.board.sim.trace.select("boot.measured") if row["pcr"] == 7]
    assert 0x800000E0 not in kinds
    assert kinds[-1] == 4
    (certificate,) = factory.image.early_certificates
    digests = [row["digest"] for row in world.board.sim.trace.select("boot.measured") if row["pcr"] == 14]
    assert hashlib.sha256(certificate).digest() in digests


def test_the_first_module_is_checked_by_the_loader_whatever_it_is():
    text = LoadedModule(name="notes.txt", data=b"text", content=b"text")
    elf = attrs.evolve(text, content=b"\x7fELF")
    named = attrs.evolve(text, name="/s.v00")
    assert [is_early(index, module) for index, module in ((0, text), (1, text), (1, elf), (1, named))] == [
        True,
        False,
        True,
        True,
    ]
