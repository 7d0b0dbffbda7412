"""What the catalogue shares with the unit tests: their worlds, images and hosts."""

import pytest

from sim.image.install import install
from sim.image.metadata import Descriptor
from sim.image.payload import gzip_stored
from sim.image.tar import EntryKind, TarEntry, with_parents
from sim.image.vib import Payload, build_vib, read_vib, verify_vib
from sim.image.vtar import write_vtar
from tests.unit.boot.conftest import factory, make_world
from tests.unit.image.conftest import epoch, small_image, world_pki
from tests.unit.kernel.conftest import booted_image, machinery
from tests.unit.scenario.conftest import small
from tests.unit.vsphere.conftest import world

from .archives import COMMUNITY, PARTNER

__all__ = [
    "booted_image",
    "epoch",
    "factory",
    "machinery",
    "make_world",
    "small",
    "small_image",
    "world",
    "world_pki",
]


@pytest.fixture(scope="module")
def make(world_pki, epoch):
    """A function that makes the archive of a VIB with one file in it."""

    def build(name="tool", version="1.0-1", level=PARTNER, sign=True, data=b"content", **fields):
        path = f"opt/{name}/run"
        spec = Descriptor(
            name=name, version=version, vendor="Example", level=level, **{"files": (path,), **fields}
        )
        archive = write_vtar(with_parents([TarEntry(path=path, data=data)]))
        signer = world_pki.signer(level.xml_name) if sign and level is not COMMUNITY else None
        return build_vib(spec, [Payload(name=name[:8], kind="vgz", data=gzip_stored(archive))], signer, epoch)

    return build


@pytest.fixture(scope="module")
def bring(world_pki, epoch):
    """A function that makes the archive of a VIB of payloads, each given by its entries."""

    def build(*payloads, name="tool", **fields):
        trees = [with_parents(entries) for entries in payloads]
        paths = [entry.path for tree in trees for entry in tree if entry.kind is not EntryKind.DIRECTORY]
        spec = Descriptor(
            name=name, version="1.0-1", vendor="Example", level=PARTNER, files=tuple(paths), **fields
        )
        files = [
            Payload(name=f"p{at}", kind="vgz", data=gzip_stored(write_vtar(tree)))
            for at, tree in enumerate(trees)
        ]
        return build_vib(spec, files, world_pki.signer("partner"), epoch)

    return build


@pytest.fixture(scope="module")
def judge(world_pki, epoch):
    return lambda data, trust=None: verify_vib(read_vib(data), trust or world_pki.trust, epoch)


@pytest.fixture(scope="module")
def put(small_image, world_pki, epoch):
    def run(*archives, level=PARTNER, on=None, **options):
        vibs = [read_vib(one) for one in archives]
        return install(on or small_image.bank, vibs, level, world_pki.trust, epoch, **options)

    return run
