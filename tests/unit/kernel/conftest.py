"""Hosts for the tests of the kernel: small, booted once a session, copied for each test."""

import pickle

import pytest

from sim.hw.spec import CpuSpec, FirmwareSpec, HostSpec
from sim.scenario.build import build
from sim.scenario.spec import ImageSpec, Scenario, TpmSpec


def small(**changes):
    host = HostSpec(cpu=CpuSpec(cores_per_node=2), memory_bytes=4 << 30, **changes.pop("host", {}))
    return Scenario(image=ImageSpec(modules=4, module_size_bytes=2048), host=host, **changes)


@pytest.fixture(scope="session")
def booted_image():
    """The pickled machinery of a small host whose kernel runs."""
    machinery = build(small(), 1)
    machinery.host.power_on()
    machinery.sim.engine.run()
    return pickle.dumps(machinery)


@pytest.fixture
def machinery(booted_image):
    """A small running host, its own copy for each test."""
    return pickle.loads(booted_image)


@pytest.fixture(scope="session")
def boot():
    """A function that builds and boots a small host: keyword arguments of `Scenario`, before= a change before power."""

    def make(before=None, **changes):
        machinery = build(small(**changes), 1)
        if before is not None:
            before(machinery)
        machinery.host.power_on()
        machinery.sim.engine.run()
        return machinery

    return make


@pytest.fixture(scope="session")
def specs():
    """The spec classes that a test needs to describe a host."""
    return {"firmware": FirmwareSpec, "tpm": TpmSpec}
