"""What the catalogue shares with the unit tests: their worlds, images and hosts."""

from tests.unit.boot.conftest import factory, make_world
from tests.unit.image.conftest import epoch, small_image, world_pki

__all__ = ["epoch", "factory", "make_world", "small_image", "world_pki"]
