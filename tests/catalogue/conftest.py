"""What the catalogue shares with the unit tests: their worlds, images and hosts."""

from tests.unit.boot.conftest import factory, make_world
from tests.unit.image.conftest import epoch, small_image, world_pki
from tests.unit.kernel.conftest import booted_image, machinery
from tests.unit.scenario.conftest import small
from tests.unit.vsphere.conftest import world

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
