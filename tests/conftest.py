"""What all tests share: the folder of outside vectors, the rule for absent programs, and Hypothesis profiles."""

import importlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from .replay import pytest_configure, pytest_runtest_makereport

__all__ = [
    "pytest_configure",
    "pytest_runtest_makereport",
]  # hooks: every failing property says how to repeat it

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=100,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
# Where `CI` is set, Hypothesis's own defaults draw the same examples every time; this profile is to draw new ones there too.
settings.register_profile("fresh", derandomize=False, deadline=None, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("VMKSIM_HYPOTHESIS_PROFILE", "repeatable"))


def absent(what: str) -> None:
    """Skip because a client is absent, or fail where all clients must be there."""
    if os.environ.get("VMKSIM_REQUIRE_CLIENTS") == "1":
        pytest.fail(f"{what} is absent, and VMKSIM_REQUIRE_CLIENTS=1 demands it")
    pytest.skip(f"{what} is absent")


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of vectors that nobody here wrote (VMKSIM_VECTORS overrides it)."""
    folder = Path(os.environ.get("VMKSIM_VECTORS", ROOT.parent / "shared" / "vectors"))
    if not folder.is_dir():
        pytest.skip(f"the vector folder {folder} is absent (set VMKSIM_VECTORS)")
    return folder


@pytest.fixture(scope="session")
def lacking():
    """A function that skips the test because something that it needs is absent."""
    return absent


@pytest.fixture(scope="session")
def program():
    """A function that returns the path of a program, or skips the test."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            absent(f"the program {name}")
        return str(path)

    return find


@pytest.fixture(scope="session")
def package():
    """A function that imports a Python package which is a real client, or skips the test."""

    def find(name: str):
        try:
            return importlib.import_module(name)
        except ImportError:
            absent(f"the Python package {name}")

    return find
