"""Claims about the written pages: generated ones are current, commands and files that pages name exist."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md"))


def generator():
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name",
    [
        "facts.md",
        "fixtures.md",
        "management-interface.md",
        "scenario-keys.md",
        "threats.md",
        "trace-records.md",
    ],
)
def test_a_generated_page_is_current(name):
    module = generator()
    assert name in module.PAGES
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    rows = [
        row
        for row in module.PAGES[name]().splitlines()
        if not row.startswith(("| `test.", "| `unit.", "| `elsewhere."))
    ]
    assert written.splitlines() == rows, "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:sim|docs|examples|tests|benchmarks)/[\w./-]*)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_that_a_page_names_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)`", page.read_text(encoding="utf-8")))
    named |= set(re.findall(r"^    make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert named - targets == set()


ROWS = {"A": 30, "B": 25, "C": 9, "D": 5, "E": 7}
"""How many rows the groups have."""


def test_the_rows_of_each_group_of_threats_are_whole():
    from tests.catalogue.threats import all_threats

    rows = sorted(one.row for one in all_threats())
    assert rows == sorted(f"{group}{number + 1}" for group, count in ROWS.items() for number in range(count))


def test_the_page_on_testing_schedulers_shows_what_its_example_prints():
    printed = (ROOT / "examples" / "known_violators.out").read_text(encoding="utf-8")
    assert printed in (ROOT / "docs" / "testing-schedulers.md").read_text(encoding="utf-8")
