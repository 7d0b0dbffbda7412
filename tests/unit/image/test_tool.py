import os

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from sim.errors import FormatError, LimitError, VerificationError
from sim.image import tool
from sim.image.acceptance import AcceptanceLevel
from sim.image.contents import kernel_modules
from sim.image.metadata import Descriptor
from sim.image.payload import content_of
from sim.image.tar import EntryKind, TarEntry
from sim.image.tool import (
    build_archive,
    module_entry,
    read_bank,
    read_folder,
    read_signer,
    read_trust,
    sign_archive,
    trust_as_pem,
    verify_archive,
)
from sim.image.vib import VibError, read_vib

COMMUNITY, PARTNER, ACCEPTED, CERTIFIED = AcceptanceLevel
SPEC = Descriptor(name="tool", version="1.0-1", vendor="Example", level=COMMUNITY)
FILES = (TarEntry(path="opt/tool/run", data=b"#!/bin/sh\n", mode=0o755),)


def certificates_pem(*ders):
    return b"".join(
        x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM) for der in ders
    )


@pytest.fixture(scope="session")
def partner_pem(world_pki):
    """Key and certificates of a partner in PEM: its own, its authority's, the root's."""
    signer = world_pki.signer("partner", "Marvell")
    key = signer.private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return key, certificates_pem(signer.certificate_der, *signer.chain, world_pki.root.certificate_der)


@pytest.fixture(scope="session")
def pem_trust(world_pki):
    return read_trust(*trust_as_pem(world_pki.trust))


def test_a_folder_becomes_a_vib_that_lists_its_files(tmp_path, epoch):
    (tmp_path / "opt/tool").mkdir(parents=True)
    (tmp_path / "opt/tool/run").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "opt/tool/run").chmod(0o755)
    (tmp_path / "opt/tool/link").symlink_to("run")
    entries = read_folder(tmp_path)
    assert [(entry.path, entry.kind, entry.mode) for entry in entries] == [
        ("opt/tool/link", EntryKind.SYMLINK, 0o777),
        ("opt/tool/run", EntryKind.FILE, 0o755),
    ]
    vib = read_vib(build_archive(SPEC, entries, when=epoch))
    assert vib.descriptor.files == ("opt/tool/link", "opt/tool/run")
    assert vib.signature == b""


def test_a_pipe_in_a_folder_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="no file"):
        read_folder(tmp_path)


def test_a_link_out_of_the_folder_cannot_be_packed(tmp_path, epoch):
    (tmp_path / "link").symlink_to("../../etc/passwd")
    with pytest.raises(FormatError, match="leaves the root"):
        build_archive(SPEC, read_folder(tmp_path), when=epoch)


def test_too_many_or_too_large_files_pass_named_limits(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"12345")
    monkeypatch.setattr(tool, "CONTENT_BYTES_MAX", 4)
    with pytest.raises(LimitError, match="bytes"):
        read_folder(tmp_path)
    monkeypatch.setattr(tool, "CONTENT_BYTES_MAX", 5)
    monkeypatch.setattr(tool, "FOLDER_FILES_MAX", 0)
    with pytest.raises(LimitError, match="files"):
        read_folder(tmp_path)


def test_pem_key_and_roots_sign_and_verify(partner_pem, pem_trust, epoch):
    data = build_archive(
        attrs.evolve(SPEC, level=PARTNER), FILES, when=epoch, signer=read_signer(*partner_pem)
    )
    identity = verify_archive(data, pem_trust, epoch)
    assert (identity.level, identity.provider) == (PARTNER, "Marvell")


def test_a_trust_store_survives_pem(world_pki, pem_trust):
    assert (pem_trust.roots, pem_trust.issuers) == (world_pki.trust.roots, world_pki.trust.issuers)


def test_signing_sets_the_level_and_keeps_everything_else(partner_pem, pem_trust, epoch):
    unsigned = build_archive(SPEC, FILES, when=epoch)
    signed = sign_archive(unsigned, read_signer(*partner_pem), epoch, PARTNER)
    assert verify_archive(signed, pem_trust, epoch).level is PARTNER
    before, after = read_vib(unsigned), read_vib(signed)
    assert after.payloads == before.payloads
    assert after.descriptor_xml == before.descriptor_xml.replace(b">community<", b">partner<")


def test_signing_again_replaces_the_signature(partner_pem, world_pki, pem_trust, epoch):
    first = sign_archive(build_archive(SPEC, FILES, when=epoch), read_signer(*partner_pem), epoch, PARTNER)
    again = sign_archive(first, world_pki.signer("certified"), epoch)
    assert verify_archive(again, pem_trust, epoch).provider == "VMware"


def test_a_partner_cannot_sign_a_higher_level(partner_pem, pem_trust, epoch):
    signed = sign_archive(build_archive(SPEC, FILES, when=epoch), read_signer(*partner_pem), epoch, CERTIFIED)
    with pytest.raises(VibError) as caught:
        verify_archive(signed, pem_trust, epoch)
    assert caught.value.check == "vib.level"


def test_a_level_without_signer_is_refused_unless_forgery_is_the_point(pem_trust, epoch):
    spec = attrs.evolve(SPEC, level=PARTNER)
    with pytest.raises(VibError):
        build_archive(spec, FILES, when=epoch)
    with pytest.raises(VerificationError):
        verify_archive(build_archive(spec, FILES, when=epoch, forge=True), pem_trust, epoch)


def test_a_descriptor_without_a_plain_level_cannot_be_relabelled(partner_pem, epoch):
    vib = read_vib(build_archive(SPEC, FILES, when=epoch))
    odd = vib.descriptor_xml.replace(b"<acceptance-level>", b"<acceptance-level >")
    data = tool.write_vib(attrs.evolve(vib, descriptor_xml=odd))
    with pytest.raises(FormatError, match="acceptance-level"):
        sign_archive(data, read_signer(*partner_pem), epoch, PARTNER)


def test_a_bad_name_in_the_metadata_is_refused_when_building(epoch):
    with pytest.raises(FormatError, match="name"):
        build_archive(attrs.evolve(SPEC, name="two words"), FILES, when=epoch)


def test_a_module_entry_is_found_as_a_kernel_module(epoch):
    vib = read_vib(build_archive(SPEC, [module_entry("example", b"\x7fELF")], when=epoch))
    assert kernel_modules(content_of(vib.payloads[0].data)) == (("example", b"\x7fELF"),)


def test_a_key_that_does_not_belong_to_its_certificate_is_refused(partner_pem, world_pki):
    stranger = world_pki.signer("accepted")
    with pytest.raises(FormatError, match="belong"):
        read_signer(partner_pem[0], certificates_pem(stranger.certificate_der))


@pytest.mark.parametrize(
    "broken", [b"", b"junk", b"-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----\n"]
)
def test_broken_pem_is_a_format_error(partner_pem, broken):
    with pytest.raises(FormatError):
        read_signer(broken, partner_pem[1])
    with pytest.raises(FormatError):
        read_signer(partner_pem[0], broken)
    with pytest.raises(FormatError):
        read_trust(broken, {})


def test_a_bank_is_read_from_a_folder(small_image, tmp_path):
    for name, data in small_image.bank.files.items():
        (tmp_path / name).write_bytes(data)
    assert read_bank(tmp_path) == small_image.bank
