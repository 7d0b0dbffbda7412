import attrs
import pytest

from sim.errors import FormatError
from sim.image.acceptance import AcceptanceLevel
from sim.image.contents import kernel_modules, open_archive, paths_of, payload_entries, without_trailer
from sim.image.descriptor import PAYLOAD_KINDS
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


@pytest.mark.parametrize("kind", [kind for kind in PAYLOAD_KINDS if kind not in ("tgz", "bootloader")])
def test_an_archive_is_opened_whatever_its_payload_is_called(kind):
    """A kernel opens every archive, so nothing may be hidden in a payload of another kind."""
    assert payload_entries(kind, gzip_stored(write_vtar(TREE))) == TREE


@pytest.mark.parametrize("kind", ["boot", "upgrade", "bootisobios", "bootisoefi"])
def test_a_payload_that_need_not_be_an_archive_may_be_none(kind):
    assert payload_entries(kind, gzip_stored(b"microcode")) == payload_entries(kind, b"microcode") == ()


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("vgz", write_ustar(TREE)),
        ("vgz", b"junk" * 300),
        ("vgz", b""),
        ("tgz", write_vtar(TREE)),
        ("tgz", b"junk" * 300),
        ("bootloader", b"junk"),
    ],
)
def test_a_payload_that_is_not_the_archive_of_its_kind_is_a_format_error(kind, content):
    with pytest.raises(FormatError):
        payload_entries(kind, gzip_stored(content))


@pytest.mark.parametrize("kind", ["tgz", "bootloader"])
def test_an_archive_without_files_is_one(kind):
    assert payload_entries(kind, gzip_stored(write_ustar(()))) == ()


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
