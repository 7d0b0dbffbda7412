"""The table of keys that a scenario file may have, read from the specs themselves.

Models nothing.  Leaves out the ranges: a wrong value is answered with the range that is wanted.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

import attrs

from sim.core.structure import plain
from sim.core.units import UNITS
from sim.report.key_meanings import meaning_of
from sim.report.table import Column, Section, Table
from sim.scenario.inputs import InputFile
from sim.scenario.plaintable import quantity_of, table_key
from sim.scenario.spec import Scenario

__all__ = ["keys_section", "scenario_keys"]

_UNITS = {"bytes": 'size ("4GiB")', "ns": 'duration ("30us")', "hz": 'frequency ("2.4GHz")'}
_WORDS = {int: "integer", str: "text", bool: "true or false"}


def scenario_keys() -> list[tuple[str, str, str]]:
    """Return key path, kind of value and default of everything a scenario file may say."""
    return list(_keys(Scenario, ""))


def keys_section() -> Section:
    """Return the keys as a table."""
    columns = (Column("KEY"), Column("VALUE"), Column("DEFAULT"), Column("MEANING"))
    rows = tuple((key, kind, default, meaning_of(key)) for key, kind, default in scenario_keys())
    return Section(title="Keys of a scenario file", table=Table(columns=columns, rows=rows))


def _keys(cls: type, path: str) -> Iterator[tuple[str, str, str]]:
    attrs.resolve_types(cls)
    for field in attrs.fields(cls):
        if field.metadata.get("internal"):
            continue
        key = f"{path}{table_key(field)}"
        inner, many = _inner(field.type)
        if attrs.has(inner) and inner is not InputFile:
            yield from _keys(inner, f"{key}[]." if many else f"{key}.")
        else:
            yield key, _kind(field, inner, many=many), _default(cls, field)


def _inner(kind: Any) -> tuple[Any, bool]:
    """Return the type inside Optional and tuple, and whether there was a tuple."""
    if get_origin(kind) in (Union, types.UnionType):
        rest = [one for one in get_args(kind) if one is not type(None)]
        return _inner(rest[0]) if len(rest) == 1 else (kind, False)
    if get_origin(kind) is tuple:
        return _inner(get_args(kind)[0])[0], True
    return kind, False


def _kind(field: attrs.Attribute[Any], inner: Any, *, many: bool) -> str:
    unit = quantity_of(field)
    if unit is not None:
        return _UNITS[unit]
    if inner is InputFile:
        word = "file name"
    elif get_origin(inner) is dict:
        word = "table of names and values"
    elif get_origin(inner) in (Union, types.UnionType):
        word = " or ".join(_WORDS.get(one, one.__name__) for one in get_args(inner))
    else:
        word = _WORDS.get(inner, "date and time")
    return f"list of: {word}" if many else word


def _default(cls: type, field: attrs.Attribute[Any]) -> str:
    default = field.default
    if default is attrs.NOTHING:
        return "(must be given)"
    factory = getattr(default, "factory", None)
    if factory is not None:  # one that takes the object follows its other fields: show what they make of it
        default = getattr(cls(), field.name) if getattr(default, "takes_self", False) else factory()
    if default in (None, (), {}, ""):
        return "-"
    unit = quantity_of(field)
    if unit is not None and default:
        return _with_unit(default, unit)
    return str(default).lower() if isinstance(default, bool) else str(plain(default))


def _with_unit(value: int, kind: str) -> str:
    """Write a quantity with the largest unit that needs no fraction."""
    name, factor = max(
        ((name, factor) for name, factor in UNITS[kind].items() if value % factor == 0),
        key=lambda unit: unit[1],
    )
    return f"{value // factor}{name}"
