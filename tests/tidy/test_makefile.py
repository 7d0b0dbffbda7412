"""The Makefile says once what its targets are, and each of them does something."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def phony_blocks() -> list[list[str]]:
    found = re.findall(r"^\.PHONY:((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    return [block.replace("\\", " ").split() for block in found]


def test_the_phony_targets_are_listed_in_one_place_each_once():
    (names,) = phony_blocks()
    assert len(names) == len(set(names))


def test_each_phony_target_has_one_rule_and_a_line_of_help():
    (names,) = phony_blocks()
    rules = re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE)
    assert sorted(rules) == sorted(names)


def test_each_script_that_a_target_runs_exists():
    scripts = re.findall(r"\$\(BIN\)/python (\S+\.py)", MAKEFILE)
    assert len(scripts) > 5
    assert [script for script in scripts if not (ROOT / script).is_file()] == []


def test_make_can_plan_every_target():
    (names,) = phony_blocks()
    for name in names:
        plan = subprocess.run(
            ["make", "-n", name], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert plan.returncode == 0, plan.stderr
