"""Write the generated pages of docs/: facts, fixtures, management interface, records of the trace, threats.

`make docs` runs it; the tests check that the pages in the tree are what it writes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sim.core.facts import all_facts
from sim.core.trace import record_types
from sim.kernel.api import METHODS

FOLDER = Path(__file__).resolve().parent
NOTICE = "This page is written by `make docs`; change the source, not the page.\n"


def facts_page() -> str:
    rows = [
        f"| `{fact.name}` | {fact.value} | {fact.unit} | {fact.kind} | {_cell(fact.source)} |"
        for fact in all_facts()
    ]
    return _page("Facts", "| name | value | unit | kind | source |\n|---|---:|---|---|---|", rows)


def interface_page() -> str:
    rows = []
    for method in METHODS.values():
        arguments = ", ".join(
            f"{one.name}: {one.kind.__name__}{'' if one.required else ' (optional)'}"
            for one in method.parameters
        )
        changes = "yes" if method.changes else ""
        rows.append(f"| `{method.name}` | {arguments} | {changes} | {_cell(method.purpose)} |")
    return _page(
        "The management interface", "| call | arguments | changes state | purpose |\n|---|---|---|---|", rows
    )


def keys_page() -> str:
    from sim.report.keys import keys_section

    table = keys_section().table
    assert table is not None
    rows = [
        f"| `{key}` | {kind} | {_cell(default)} | {_cell(meaning)} |"
        for key, kind, default, meaning in table.rows
    ]
    return _page("Keys of a scenario file", "| key | value | default | meaning |\n|---|---|---|---|", rows)


def trace_page() -> str:
    all_facts()  # imports every module, and with it every record type
    rows = []
    for kind in record_types():
        fields = ", ".join(f"{name}: {field.__name__}" for name, field in kind.fields)
        rows.append(f"| `{kind.name}` | {fields} |")
    return _page("Records of the trace", "| record | fields |\n|---|---|", rows)


def threats_page() -> str:
    """Return the page of the threat catalogue, from the tests of tests/catalogue."""
    sys.path.insert(0, str(FOLDER.parent))
    from tests.catalogue.threats import GROUPS, all_threats

    lines = []
    group = ""
    for one in all_threats():
        if one.row[0] != group:
            group = one.row[0]
            lines += [f"\n## {group}: {GROUPS[group]}\n"]
            lines += [
                "| row | threat | what stops it | evidence | not covered | seen in |",
                "|---|---|---|---|---|---|",
            ]
        words = (one.threat, one.stopped_by, one.evidence, one.not_covered, one.anchor)
        lines.append(f"| {one.row} | {' | '.join(map(_cell, words))} |")
    intro = "Each row is a test of `tests/catalogue/` that makes the attack and demands the evidence."
    return f"# Threats\n\n{NOTICE}\n{intro}\n" + "\n".join(lines) + "\n"


def fixtures_page() -> str:
    """Return the table of `vmksim fixtures`: every published example is run."""
    from sim.labs.cpu_fixtures import run_fixtures
    from sim.labs.disk_fixtures import run_disk_fixtures
    from sim.labs.policy_fixtures import run_policy_fixtures
    from sim.report.fixtures import fixtures_section

    section = fixtures_section([*run_fixtures(), *run_policy_fixtures(), *run_disk_fixtures()])
    if section.table is None:
        raise ValueError("no table of fixtures")
    names = [column.name.lower() for column in section.table.columns]
    marks = ["---:" if column.right else "---" for column in section.table.columns]
    head = f"`vmksim fixtures` prints this table: {section.title}.\n\n"
    head += f"| {' | '.join(names)} |\n|{'|'.join(marks)}|"
    return _page(
        "Published examples of CPU and disk scheduling",
        head,
        [f"| {' | '.join(map(_cell, row))} |" for row in section.table.rows],
    )


PAGES = {
    "fixtures.md": fixtures_page,
    "facts.md": facts_page,
    "management-interface.md": interface_page,
    "trace-records.md": trace_page,
    "threats.md": threats_page,
    "scenario-keys.md": keys_page,
}


def main() -> int:
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
        sys.stdout.write(f"docs/{name}\n")
    return 0


def _page(title: str, head: str, rows: list[str]) -> str:
    return f"# {title}\n\n{NOTICE}\n{head}\n" + "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
