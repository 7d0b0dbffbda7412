"""One seeded world for the tests of the image layer: its authorities and a small standard image."""

from datetime import UTC, datetime

import pytest

from sim.core.rng import Rng
from sim.image.catalog import Image, standard_image
from sim.image.pki import Pki


@pytest.fixture(scope="session")
def epoch() -> datetime:
    return datetime(2024, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def world_pki(epoch: datetime) -> Pki:
    return Pki.create(Rng(7), epoch=epoch)


@pytest.fixture(scope="session")
def small_image(epoch: datetime, world_pki: Pki) -> Image:
    return standard_image(Rng(7), world_pki, epoch=epoch, modules=8, module_bytes=1024)
