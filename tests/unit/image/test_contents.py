import attrs
import pytest

from sim.errors import FormatError
from sim.image.acceptance import AcceptanceLevel
from sim.image.contents import kernel_modules, open_archive, paths_of, payload_entries, without_trailer
from sim.image.payload import gzip_stored
from sim.image.recipes import Workshop
from sim.image.tar import EntryKind, TarEntry, with_parents, write_ustar
from sim.image.trailer import sign_module
from sim.image.vtar import write_vtar

TREE = with_parents(
    [
        TarEntry(path="usr/lib/vmware/vmkmod/one", data=b"1"),
        TarEntry(path="usr/lib/vmware/vmkmod/two", data=b"2"),
        TarEntry(path="etc/one.map", data=b"x"),
        TarEntry(path="etc/link", kind=EntryKind.SYMLINK, target="one.map"),
    ]
)


@pytest.mark.parametrize("write", [write_vtar, write_ustar])
def test_both_kinds_of_archive_are_opened_with_and_without_trailer(write, world_pki):
    content = write(TREE)
    signed = sign_module(content, world_pki.early_signers[0])
    assert open_archive(content) == open_archive(signed) == TREE
    assert without_trailer(signed) == content


def test_kernel_modules_are_those_of_the_module_folder():
    assert kernel_modules(write_vtar(TREE)) == (("one", b"1"), ("two", b"2"))


@pytest.mark.parametrize("content", [b"", b"\x7fELF" + bytes(600), b"microcode"])
def test_other_content_has_no_entries(content):
    assert open_archive(content) == ()
    assert kernel_modules(content) == ()


def test_only_archive_payloads_are_opened():
    data = gzip_stored(write_vtar(TREE))
    assert payload_entries("vgz", data) == TREE
    assert payload_entries("boot", data) == ()


def test_a_damaged_archive_is_a_format_error():
    with pytest.raises(FormatError):
        open_archive(write_vtar(TREE)[:600])


def test_paths_of_a_vib_are_files_and_links(small_image):
    (driver,) = (vib for vib in small_image.vibs if vib.descriptor.name == "ixgben")
    assert paths_of(driver) == driver.descriptor.files


def test_a_workshop_leaves_community_vibs_unsigned(small_image, world_pki, epoch):
    base = small_image.vibs[2]
    shop = Workshop(rng=world_pki.rng, pki=world_pki, epoch=epoch, module_bytes=64)
    spec = attrs.evolve(base.descriptor, level=AcceptanceLevel.COMMUNITY_SUPPORTED)
    assert shop.vib(spec, base.payloads, "VMware").signature == b""
    assert shop.vib(base.descriptor, base.payloads, "VMware") == base
