"""Facts: every number from outside the project, with its unit, its source and how sure it is.

A module that needs such a number declares it beside its use, `NAME = fact("tpm.pcr_extend_ns", 5_000_000, ...)`, and
`vmksim facts` prints all of them.  Leaves out our own choices of structure (limits, buffer sizes).
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Literal, get_args

import attrs

from sim.errors import SimBug

__all__ = ["Fact", "Kind", "all_facts", "fact"]

Kind = Literal["spec", "vendor", "measured", "inferred", "assumed"]
"""spec: a published standard; vendor: VMware or a maker says so; measured: run on real software or hardware;
inferred: our conclusion from the others; assumed: our choice, a parameter."""

_registry: dict[str, Fact] = {}


@attrs.frozen(kw_only=True)
class Fact:
    """One number (or text, or table) of the outside world."""

    name: str
    value: int
    unit: str
    source: str
    kind: Kind = attrs.field(validator=attrs.validators.in_(get_args(Kind)))


def fact(name: str, value: int, *, unit: str, source: str, kind: Kind) -> Fact:
    """Declare a fact and enter it in the list; a name is declared once."""
    made = Fact(name=name, value=value, unit=unit, source=source, kind=kind)
    known = _registry.get(name)
    if known is not None and known != made:
        raise SimBug(f"fact {name} is declared twice with different content")
    _registry[name] = made
    return made


def all_facts() -> list[Fact]:
    """Import every module of the package and return all declared facts, sorted by name."""
    root = importlib.import_module("sim")
    for module in pkgutil.walk_packages(root.__path__, "sim."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return [_registry[name] for name in sorted(_registry)]
