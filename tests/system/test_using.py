"""The commands of docs/using.md, run as they stand there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_command_of_the_page_ends_well_in_the_order_of_the_page(tmp_path):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    page = (ROOT / "docs" / "using.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ (.*)$", page, re.MULTILINE)
    assert len(commands) > 10
    for command in commands:
        line = re.sub("^vmksim", f'"{sys.executable}" -m sim', command)
        done = subprocess.run(
            ["bash", "-c", line],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), command
    assert (tmp_path / "out" / "result.json").read_bytes() == (
        tmp_path / "again" / "result.json"
    ).read_bytes()
