"""Programs that somebody with a shell on the host starts: which, when, and where their bytes come from.

Models: a path and a moment; bytes that the installed VIBs hold under that path, that are a copy of another installed
program, or that a file beside the scenario holds.  What becomes of the program is the VMkernel's business
(`sim.kernel.execution`): `sim.scenario.start_program` hands it over.

Leaves out: arguments, what a program does, and its end.  Sources: none, a design of ours.
"""

from __future__ import annotations

from typing import Any

import attrs
from attrs import field, frozen

from sim.core.structure import FieldError, between, matches, quantity
from sim.scenario.inputs import InputFile

__all__ = ["PROGRAMS_MAX", "ProgramSpec"]

PROGRAMS_MAX = 1_000
_AT_NS_MAX = 366 * 86_400 * 10**9
_PART = r"[A-Za-z0-9_][\w.+-]{0,99}"
_path = matches(rf"{_PART}(/{_PART}){{0,15}}", "a path below the root, without a slash before it")


def _path_or_nothing(instance: object, attribute: attrs.Attribute[Any], value: str) -> None:
    if value != "":
        _path(instance, attribute, value)


@frozen(kw_only=True)
class ProgramSpec:
    """One start of a program; `at` counts from the end of the first boot.

    `path` is where it lies, such as "bin/sh".  Without more it is what the installed VIBs hold there; `copy_of` names
    another installed program that was copied to `path`, `file` a file whose bytes came in from elsewhere.
    """

    path: str = field(validator=_path)
    at_ns: int = field(metadata=quantity("ns"), validator=between(0, _AT_NS_MAX))
    copy_of: str = field(default="", validator=_path_or_nothing)
    file: InputFile | None = None

    def __attrs_post_init__(self) -> None:
        if self.copy_of and self.file is not None:
            raise FieldError("copy_of", self.copy_of, "either copy_of or file")
