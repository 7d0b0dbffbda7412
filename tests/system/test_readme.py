"""What the README shows is what the commands beside it print, line by line."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"`vmksim (run examples/\S+\.toml)`(.*?)```text\n(.*?)```", README, re.S)


def test_the_readme_shows_two_runs():
    assert [command for command, _, _ in BLOCKS] == [
        "run examples/demo.toml",
        "run examples/demo_tampered_nosb.toml",
    ]


@pytest.mark.parametrize(("command", "shown"), [(command, shown) for command, _, shown in BLOCKS])
def test_every_line_that_the_readme_shows_is_printed(command, shown, vmksim, monkeypatch):
    monkeypatch.chdir(ROOT)
    status, printed, _ = vmksim(*command.split(), "--all-log-lines")
    lines = printed.splitlines()
    assert status == 0
    assert [line for line in shown.splitlines() if line and line not in lines] == []


def test_every_command_in_the_table_exists_and_every_command_is_in_the_table():
    from sim.cli import cli

    named = set(re.findall(r"^\| `vmksim (\w+)", README, re.M))
    assert named == set(cli.commands)
