"""Specs back to plain tables, with the keys that a scenario file has: what a management call takes.

Models nothing.  Leaves out nothing: `sim.core.structure.structure` gives the same spec back.
"""

from __future__ import annotations

from typing import Any

import attrs

from sim.core.structure import quantity

__all__ = ["plain_table", "quantity_of", "table_key"]

(_QUANTITY_MARK,) = quantity("ns")


def plain_table(spec: Any) -> Any:
    """Return tables, lists and plain values; a field with a unit loses the unit in its key."""
    if attrs.has(type(spec)):
        return {
            table_key(field): plain_table(getattr(spec, field.name)) for field in attrs.fields(type(spec))
        }
    if isinstance(spec, tuple):
        return [plain_table(item) for item in spec]
    return spec


def table_key(field: attrs.Attribute[Any]) -> str:
    """Return the key that a field has in a scenario file."""
    return field.name.removesuffix(f"_{quantity_of(field)}")


def quantity_of(field: attrs.Attribute[Any]) -> str | None:
    """Return the kind of quantity that a field holds ("bytes", "ns", "hz"), or None."""
    kind: str | None = field.metadata.get(_QUANTITY_MARK)
    return kind
