"""What replacing all VIBs of a bank checks of the bank and of what is kept beside what comes."""

import struct

import pytest

from sim.errors import LimitError
from sim.image.acceptance import AcceptanceLevel
from sim.image.install import InstallError, install, replace_all
from sim.image.metadata import Descriptor
from sim.image.payload import gzip_stored
from sim.image.tar import EntryKind, TarEntry, with_parents
from sim.image.vib import Payload, build_vib, read_vib
from sim.image.vtar import write_vtar

PARTNER = list(AcceptanceLevel)[1]


@pytest.fixture(scope="module")
def bring(world_pki, epoch):
    def build(name, *entries):
        tree = with_parents(entries)
        files = tuple(entry.path for entry in tree if entry.kind is not EntryKind.DIRECTORY)
        spec = Descriptor(name=name, version="1.0-1", vendor="Example", level=PARTNER, files=files)
        payload = Payload(name="p0", kind="vgz", data=gzip_stored(write_vtar(tree)))
        return read_vib(build_vib(spec, [payload], world_pki.signer("partner"), epoch))

    return build


@pytest.fixture(scope="module")
def replace(small_image, world_pki, epoch):
    """A function that replaces all VIBs of a bank, in which `kept` lies already, by the image's, `kept` and `new`."""

    def run(kept, *new, files=()):
        bank = install(small_image.bank, kept, PARTNER, world_pki.trust, epoch).bank.with_files(dict(files))
        vibs = [*small_image.vibs, kept, *new]
        return replace_all(bank, vibs, PARTNER, world_pki.trust, epoch, name="profile")

    return run


def file(path):
    return TarEntry(path=path, data=path.encode())


def test_a_bank_that_declares_too_much_content_is_not_replaced(bring, replace):
    kept = bring("one", file("opt/x"))
    assert replace(kept).skipped
    bomb = b"\x1f\x8b\x08" + bytes(29) + struct.pack("<I", 600 << 20)
    with pytest.raises(LimitError, match=r"boot bank.*declares more than 536870912 bytes"):
        replace(kept, files={"bomb.v00": bomb})


def test_a_new_vib_does_not_take_a_file_of_a_kept_one(bring, replace):
    kept = bring("one", file("opt/x"))
    assert replace(kept, bring("two", file("opt/y"))).installed == ("Example_bootbank_two_1.0-1",)
    with pytest.raises(InstallError, match=r"File path opt/x is claimed by the VIBs .*_one_.* and .*_two_"):
        replace(kept, bring("two", file("opt/x")))


def test_a_kept_and_a_new_vib_are_one_tree(bring, replace):
    kept = bring("one", TarEntry(path="opt/up", kind=EntryKind.SYMLINK, target=".."))
    with pytest.raises(
        InstallError, match=r"link /opt/out of VIB Example_bootbank_two_1.0-1 .*leaves the root"
    ):
        replace(kept, bring("two", TarEntry(path="opt/out", kind=EntryKind.SYMLINK, target="up/..")))
