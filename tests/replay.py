"""A pytest plugin: each property that fails says with which seed and version, and the command that fails again.

In the profile "repeatable" a property draws the same examples every time; in any other one, this plugin draws one seed for
the whole run of pytest, so that `--hypothesis-seed` repeats any one of its properties alone.
"""

import os
import secrets
import shlex
import sys

import pytest
from hypothesis import core, settings

PROFILE = "VMKSIM_HYPOTHESIS_PROFILE"
SEED_OPTION = "--hypothesis-seed"


def pytest_configure(config):
    """Give the whole run one seed, unless it draws nothing or was given one."""
    if not settings().derandomize and core.global_force_seed is None:
        core.global_force_seed = secrets.randbits(63)


def is_property(item):
    """Tell whether a test is driven by Hypothesis: a function under `given`, or a state machine."""
    return bool(getattr(getattr(item, "obj", None), "is_hypothesis_test", False))


def command(item):
    """Return the shell command that runs this test alone in the same way."""
    words = [sys.executable, "-m", "pytest", item.nodeid]
    if core.global_force_seed is not None:
        words.append(f"{SEED_OPTION}={core.global_force_seed}")
    profile = os.environ.get(PROFILE)
    return (f"{PROFILE}={shlex.quote(profile)} " if profile else "") + shlex.join(words)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Add to the report of a property that has failed what is needed to see it fail again."""
    outcome = yield
    report = outcome.get_result()
    if report.when != "call" or not report.failed or not is_property(item):
        return
    from sim import __version__  # not above: campaigns fork a pytest that has not imported the package yet

    seed = core.global_force_seed
    drawn = "the test's own (derandomized)" if seed is None else str(seed)
    lines = [
        f"version {__version__}, Python {sys.version.split()[0]}, seed: {drawn}",
        f"replay (in {item.config.rootpath}): {command(item)}",
    ]
    report.sections.append(("how to see this again", "\n".join(lines)))
