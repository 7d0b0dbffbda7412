"""A started TPM, and a client for it."""

import pytest

from sim.tpm.client import TpmClient
from sim.tpm.device import Tpm


@pytest.fixture
def tpm() -> Tpm:
    """A TPM that was powered on and started at locality 0."""
    device = Tpm(b"a seed for tests")
    device.init()
    TpmClient(device.execute).startup()
    return device


@pytest.fixture
def client(tpm: Tpm) -> TpmClient:
    """A client at locality 0 of the started TPM."""
    return TpmClient(tpm.execute)
