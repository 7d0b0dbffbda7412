"""The examples do what they say: each prints its `.out` file, from any folder.

With VMKSIM_UPDATE_EXAMPLES=1 the files are written anew instead of compared.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = sorted(path for path in EXAMPLES.glob("*.py") if path.name != "demo.py")
LINES_MAX = 45


def _run(path, cwd):
    return subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_prints_its_out_file(path, tmp_path):
    done = _run(path, tmp_path)
    assert done.returncode == 0, done.stderr
    expected = path.with_suffix(".out")
    if os.environ.get("VMKSIM_UPDATE_EXAMPLES") == "1":
        expected.write_text(done.stdout)
    assert done.stdout == expected.read_text()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_fits_one_screen_and_begins_with_its_question(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LINES_MAX
    assert "?" in ast.get_docstring(ast.parse(text)).splitlines()[0]


def test_every_out_file_belongs_to_a_script():
    assert {path.stem for path in EXAMPLES.glob("*.out")} == {path.stem for path in SCRIPTS}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_scenario_file_begins_with_its_question(path):
    assert "?" in path.read_text().splitlines()[0]


def test_the_demo_tells_the_whole_story(tmp_path):
    done = _run(EXAMPLES / "demo.py", tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    clean, refused, found_out = done.stdout.split("$ vmksim run ")[1:]
    assert "\nAttestation\n-----------\naccepted\n" in clean
    assert "refused at secureboot" in refused
    assert "vib(s): [nvme-pcie]" in refused
    assert "\nok, in " in found_out
    assert "component nvme_pci.v00 of nvme-pcie is not as its vendor published it" in found_out
    assert done.stdout.endswith("All three ended as expected.\n")
