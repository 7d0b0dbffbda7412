"""The tool that switches checks off: what it takes for a check, and that it tells a guarded one from an unguarded one."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


@pytest.fixture
def ablation(package, monkeypatch):
    package("mutmut")
    monkeypatch.syspath_prepend(str(FOLDER))
    import ablation

    return ablation


def test_raising_statements_and_unused_calls_of_checks_are_found(ablation):
    found = ablation.checks_of(Path("sim/attest/keys.py"))
    texts = [check.text for check in found]
    assert any("the attestation key's name is not a SHA-256 name" in text for text in texts)
    assert not any("holds no usable key" in text for text in texts)  # it passes on another's refusal
    assert {check.function for check in found} >= {"check_ak_scheme", "_check_attributes", "read_public"}


def test_a_check_that_is_off_leaves_a_module_that_compiles(ablation):
    for area in ablation.AREAS:
        for path in ablation.files_of(area):
            for check in ablation.checks_of(path):
                compile(check.source(), str(path), "exec")


def test_a_guarded_check_is_told_from_one_that_is_not(ablation, tmp_path):
    state = tmp_path / "state.jsonl"
    done = subprocess.run(
        [
            sys.executable,
            FOLDER / "ablation.py",
            "--area",
            "verifier",
            "--file",
            "attest/uefi",
            "--state",
            state,
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert "every check is guarded by a test" in done.stdout, done.stdout + done.stderr[-500:]
    assert done.returncode == 0
