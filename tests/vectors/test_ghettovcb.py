"""A real community VIB (lamw/ghettoVCB): read, refused by a partner host in ESXi's words, installed by a community one."""

from datetime import UTC, datetime

import pytest

from sim.core.rng import Rng
from sim.errors import FormatError, VerificationError
from sim.image.acceptance import AcceptanceLevel
from sim.image.ar import read_ar, write_ar
from sim.image.bankcheck import verify_bank
from sim.image.bitflips import flip_bits
from sim.image.catalog import standard_image
from sim.image.descriptor_writer import write_descriptor
from sim.image.inspection import inspect_vib
from sim.image.install import InstallError, install, set_acceptance
from sim.image.pki import Pki
from sim.image.vib import read_vib, verify_vib

COMMUNITY, PARTNER = AcceptanceLevel.COMMUNITY_SUPPORTED, AcceptanceLevel.PARTNER_SUPPORTED
EPOCH = datetime(2024, 3, 1, 12, tzinfo=UTC)
VIB_ID = "virtuallyGhetto_bootbank_ghettoVCB_1.0.0-0.0.0"

pytestmark = pytest.mark.vectors


@pytest.fixture(scope="module")
def data(vectors):
    return (vectors / "vibs" / "ghettoVCB.vib").read_bytes()


@pytest.fixture(scope="module")
def pki():
    return Pki.create(Rng(3), epoch=EPOCH)


@pytest.fixture(scope="module")
def image(pki):
    return standard_image(Rng(3), pki, epoch=EPOCH, modules=2, module_bytes=512)


def test_its_archive_and_descriptor_are_written_back_byte_for_byte(data):
    members = read_ar(data)
    assert [member.name for member in members] == ["descriptor.xml", "sig.pkcs7", "payload1"]
    assert write_ar(members) == data
    assert write_descriptor(read_vib(data).descriptor) == members[0].data


def test_all_six_payload_files_are_found_and_all_checksums_hold(data):
    shown = inspect_vib(data)
    (payload,) = shown.payloads
    assert [(file.path, file.size) for file in payload.files] == [
        ("etc/ghettovcb/ghettoVCB.conf", 797),
        ("etc/ghettovcb/ghettoVCB-vm_backup_configuration_template", 356),
        ("etc/ghettovcb/ghettoVCB-restore_vm_restore_configuration_template", 309),
        ("opt/ghettovcb/bin/ghettoVCB-restore.sh", 17742),
        ("opt/ghettovcb/bin/ghettoVCB-VMDKexclude.sh", 72682),
        ("opt/ghettovcb/bin/ghettoVCB.sh", 74668),
    ]
    assert payload.checksums == (("sha-256", True), ("sha-1 gunzip", True))
    assert (payload.size, payload.content_bytes) == (35315, 173484)
    assert shown.problems == ()


def test_the_one_wrong_header_checksum_of_eleven_is_reported(data):
    (payload,) = inspect_vib(data).payloads
    assert len(payload.entries) == 11
    assert [entry.path for entry in payload.entries if not entry.header_checksum_ok] == [
        "opt/ghettovcb/bin/ghettoVCB.sh"
    ]


def test_it_is_unsigned_and_so_proves_only_the_community_level(data, pki):
    identity = verify_vib(read_vib(data), pki.trust, EPOCH)
    assert (identity.vib_id, identity.level, identity.provider) == (VIB_ID, COMMUNITY, None)


def test_a_partner_host_refuses_it_in_esxcli_words(data, image, pki):
    with pytest.raises(InstallError) as caught:
        install(image.bank, read_vib(data), image.bank.database.level, pki.trust, EPOCH)
    reason = "which is not compliant with the ImageProfile acceptance level partner"
    assert caught.value.lines == (
        " [AcceptanceConfigError]",
        f" VIB {VIB_ID}'s acceptance level is community, {reason}",
        " To change the host acceptance level, use the 'esxcli software acceptance set' command.",
        " Please refer to the log file for more details.",
    )


def test_its_folder_below_etc_is_why_it_wants_force(data, image, pki):
    lowered = set_acceptance(image.bank, COMMUNITY)
    with pytest.raises(InstallError, match="may not write /etc/ghettovcb/") as caught:
        install(lowered, read_vib(data), COMMUNITY, pki.trust, EPOCH)
    assert caught.value.check == "VibValidationError"
    forced = install(lowered, read_vib(data), COMMUNITY, pki.trust, EPOCH, force=True)
    assert [text.split("]")[0] for text in forced.warnings] == [" [VibValidationError"]


def test_a_community_host_installs_it_into_bank_and_manifest(data, image, pki):
    lowered = set_acceptance(image.bank, COMMUNITY)
    bank = install(lowered, read_vib(data), COMMUNITY, pki.trust, EPOCH, force=True).bank
    assert bank.files["payload1.v00"] == read_ar(data)[2].data
    assert "payload1.v00" in bank.config.modules
    assert bank.descriptors[-1].vib_id == VIB_ID
    (component,) = image.with_bank(bank).manifest.named("payload1.v00")
    assert (component.vib_name, component.vib_vendor, component.level) == (
        "ghettoVCB",
        "virtuallyGhetto",
        "CommunitySupported",
    )
    assert verify_bank(bank.files, pki.trust, EPOCH, COMMUNITY).ok


def test_secure_boot_refuses_the_bank_that_holds_it(data, image, pki):
    lowered = set_acceptance(image.bank, COMMUNITY)
    bank = install(lowered, read_vib(data), COMMUNITY, pki.trust, EPOCH, force=True).bank
    report = verify_bank(bank.files, pki.trust, EPOCH, COMMUNITY, secure_boot=True)
    assert report.message == (
        "UEFI Secure Boot failed: Failed to verify signatures of the following vib(s): [ghettoVCB]. "
        "Unrecognized tardisks: []"
    )


def test_forging_its_level_does_not_help(data, image, pki):
    for word in (b"partner", b"accepted", b"certified"):
        members = list(read_ar(data))
        xml = members[0].data.replace(b">community<", b">" + word + b"<")
        forged = read_vib(write_ar([type(members[0])(name="descriptor.xml", data=xml), *members[1:]]))
        with pytest.raises(InstallError, match="has no signature"):
            install(image.bank, forged, PARTNER, pki.trust, EPOCH)


def test_sampled_bits_of_its_payload_cannot_change(data):
    start = data.index(read_ar(data)[2].data)
    report = flip_bits(data, read_vib, range(8 * start, 8 * (start + 35315), 4801))
    assert (report.accepted, report.escaped) == ((), ())
    assert report.tried > 50


def test_every_short_truncation_is_refused(data):
    for size in [*range(1700), *range(1700, len(data), 1009)]:
        with pytest.raises((FormatError, VerificationError)):
            read_vib(data[:size])
