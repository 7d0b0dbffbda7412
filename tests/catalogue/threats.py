"""The mechanism of the threat catalogue: a test that carries what it proves, and the page that is written from it.

Each row of the catalogue is one test, named `test_a13_...` after its row, under the decorator `threat`:

    @threat(
        "A13",
        threat="a payload's path leaves the folder that it is unpacked in",
        stopped_by="...",      what refuses it, by module
        evidence="...",        what one sees: exception, check, log line, event
        not_covered="...",     what remains, honestly; never empty
        anchor="...",          the incident or suite that the row comes from
    )
    def test_a13_payload_paths_do_not_leave_the_root(...): ...

The test injects the attack and asserts the evidence.  To add rows B to E, add a file `test_b_boot.py` (or another name
that begins with test_) beside this one and use the same decorator; the title of its group goes into `GROUPS`.
`docs/generate.py` writes `docs/threats.md` from all test files of this folder, and the tidy tests demand that the page
is current and that the rows of each group are whole, from 1 on.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import attrs

GROUPS = {
    "A": "Signed modules and VIBs",
    "B": "Boot, TPM, attestation",
    "C": "Scheduler and memory",
    "D": "Management interface",
    "E": "The simulator itself",
}
FOLDER = Path(__file__).resolve().parent

_ROW = re.compile(r"([A-E])([1-9][0-9]?)")
_F = TypeVar("_F", bound=Callable[..., object])


def _said(_instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not value.strip() or value.strip().endswith("."):
        raise ValueError(f"{attribute.name} must be a phrase without full stop")


@attrs.frozen(kw_only=True)
class Threat:
    """One row: what is attempted, what stops it, what one sees, what is left, and where it was seen first."""

    row: str = attrs.field(validator=attrs.validators.matches_re(_ROW))
    threat: str = attrs.field(validator=_said)
    stopped_by: str = attrs.field(validator=_said)
    evidence: str = attrs.field(validator=_said)
    not_covered: str = attrs.field(validator=_said)
    anchor: str = attrs.field(validator=_said)
    test: str = ""

    @property
    def order(self) -> tuple[str, int]:
        """Group and number, for sorting."""
        return self.row[0], int(self.row[1:])


def threat(row: str, **words: str) -> Callable[[_F], _F]:
    """Mark a test as the proof of a row; its name must say which."""

    def mark(function: _F) -> _F:
        if not function.__name__.startswith(f"test_{row.lower()}_"):
            raise ValueError(f"the test of {row} is named {function.__name__}")
        path = Path(function.__code__.co_filename).name
        function.proves = Threat(row=row, test=f"{path}::{function.__name__}", **words)
        return function

    return mark


def all_threats() -> list[Threat]:
    """Return the rows of all test files of this folder, in order; a row that stands twice is an error."""
    found: list[Threat] = []
    for path in sorted(FOLDER.glob("test_*.py")):
        module = importlib.import_module(f"tests.catalogue.{path.stem}")
        found += [
            value.proves
            for value in vars(module).values()
            if isinstance(getattr(value, "proves", None), Threat)
        ]
    rows = [one.row for one in found]
    twice = {row for row in rows if rows.count(row) > 1}
    if twice:
        raise ValueError(f"rows that stand twice: {sorted(twice)}")
    return sorted(found, key=lambda one: one.order)
