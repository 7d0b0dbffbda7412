"""Plain data to specs: cattrs with strict types, units, and one clear error.

`structure` turns what a TOML or JSON parser returns into a tree of attrs classes.  Whatever is wrong becomes one
`ScenarioError` that names the key path, what was found, what is wanted and, for an unknown key, the nearest right
one.  A field with a unit (`quantity("bytes")` in its metadata) drops the suffix in the file: `memory_bytes` is the
key `memory` and takes an integer or a text such as "4GiB".

Leaves out defaults that depend on other fields: those belong to `build`.
"""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import attrs

from sim.core.units import UNITS, parse_quantity
from sim.errors import ScenarioError

if TYPE_CHECKING:
    import cattrs

__all__ = [
    "FieldError",
    "between",
    "in_choices",
    "matches",
    "plain",
    "quantity",
    "structure",
]

T = TypeVar("T")

_QUANTITY = "vmksim.quantity"
_ATTRS_MESSAGE = re.compile(r"'(\w+)' (must be .*)")


class FieldError(ValueError):
    """A validator's refusal: the attribute, the value found, what is wanted, and the nearest right spelling."""

    def __init__(self, name: str, got: object, wanted: str, nearest: str | None = None) -> None:
        self.name = name
        self.got = got
        self.wanted = wanted
        self.nearest = nearest
        super().__init__(f"{name}: got {got!r}, wanted {wanted}")


def quantity(kind: str) -> dict[str, str]:
    """Metadata of a field that holds a quantity of kind "bytes", "ns" or "hz"."""
    if kind not in UNITS:
        raise ValueError(f"unknown kind of quantity {kind!r}")
    return {_QUANTITY: kind}


def between(low: int, high: int) -> Callable[[Any, attrs.Attribute[int], int], None]:
    """Make a validator: an integer from `low` to `high`, both included."""

    def check(_instance: object, attribute: attrs.Attribute[int], value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise FieldError(attribute.name, value, f"an integer from {low} to {high}")

    return check


def matches(pattern: str, wanted: str) -> Callable[[Any, attrs.Attribute[str], str], None]:
    """Make a validator: a text that the whole pattern matches; `wanted` says it in words."""
    compiled = re.compile(pattern)

    def check(_instance: object, attribute: attrs.Attribute[str], value: str) -> None:
        if not isinstance(value, str) or compiled.fullmatch(value) is None:
            raise FieldError(attribute.name, value, wanted)

    return check


def in_choices(*choices: str) -> Callable[[Any, attrs.Attribute[str], str], None]:
    """Make a validator: one of the given words."""

    def check(_instance: object, attribute: attrs.Attribute[str], value: str) -> None:
        if value not in choices:
            near = difflib.get_close_matches(value, choices, n=1) if isinstance(value, str) else []
            raise FieldError(attribute.name, value, "one of " + ", ".join(choices), near[0] if near else None)

    return check


def structure(data: object, cls: type[T], path: str = "") -> T:
    """Make a `cls` from plain data.

    Errors: `ScenarioError`, whose path begins with `path`.
    """
    if not isinstance(data, Mapping):
        raise ScenarioError(path, "wrong type", got=data, wanted="a table")
    try:
        return _converter().structure(data, cls)
    except Exception as error:
        raise _first_error(error, path, cls) from None


def plain(value: Any) -> Any:
    """Return plain data (dict, list, int, str, bool, None) of a spec: fields by their full names, in their order."""
    if attrs.has(type(value)):
        return {field.name: plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value


def _key_of(field: attrs.Attribute[Any]) -> str:
    kind = field.metadata.get(_QUANTITY)
    return field.name.removesuffix(f"_{kind}") if kind else field.name


@lru_cache(maxsize=1)
def _converter() -> cattrs.Converter:
    import cattrs

    converter = cattrs.Converter(detailed_validation=True, forbid_extra_keys=True)
    for kind, words in ((int, "an integer"), (str, "a text"), (bool, "true or false")):
        converter.register_structure_hook(kind, _strict(kind, words))
    converter.register_structure_hook(int | str, _int_or_text)
    converter.register_structure_hook(datetime, _as_datetime)
    converter.register_structure_hook_factory(attrs.has, lambda cls: _attrs_hook(cls, converter))
    converter.register_structure_hook_factory(_is_tuple, lambda cls: _tuple_hook(cls, converter))
    converter.register_structure_hook(Any, lambda value, _: value)
    return converter


def _strict(kind: type, words: str) -> Callable[[object, object], object]:
    def hook(value: object, _: object) -> object:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise FieldError("", value, words)
        return value

    return hook


def _int_or_text(value: object, _: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise FieldError("", value, "an integer or a text")
    return value


def _as_datetime(value: object, _: object) -> datetime:
    when = value
    if isinstance(value, str):
        try:
            when = datetime.fromisoformat(value)
        except ValueError:
            when = None
    if not isinstance(when, datetime):
        raise FieldError("", value, "a date and time such as 2026-01-01T00:00:00Z")
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def _is_tuple(cls: Any) -> bool:
    return getattr(cls, "__origin__", None) is tuple


def _tuple_hook(cls: Any, converter: cattrs.Converter) -> Callable[[object, object], object]:
    list_type: Any = list.__class_getitem__(get_args(cls)[0])
    inner: Callable[[object, object], list[object]] = converter.get_structure_hook(list_type)

    def hook(value: object, _: object) -> object:
        if not isinstance(value, list):
            raise FieldError("", value, "a list")
        return tuple(inner(value, list_type))

    return hook


def _attrs_hook(cls: type, converter: cattrs.Converter) -> Callable[[object, object], object]:
    from cattrs.gen import make_dict_structure_fn, override

    overrides: dict[str, Any] = {}
    for field in attrs.fields(cls):
        kind = field.metadata.get(_QUANTITY)
        if kind:
            overrides[field.name] = override(rename=_key_of(field), struct_hook=_quantity_hook(kind))
    inner: Any = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True, **overrides)

    def hook(value: object, target: object) -> object:
        if not isinstance(value, Mapping):
            raise FieldError("", value, "a table")
        return inner(value, target)

    return hook


def _quantity_hook(kind: str) -> Callable[[object, object], object]:
    def hook(value: object, _: object) -> object:
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        wanted = f"an integer of {kind} or a text with a unit ({', '.join(UNITS[kind])})"
        if isinstance(value, str):
            try:
                return parse_quantity(value, kind)
            except ValueError as error:
                wanted = str(error)
        raise FieldError("", value, wanted)

    return hook


def _first_error(error: BaseException, path: str, cls: type) -> ScenarioError:
    """Walk cattrs' tree of errors down to the first leaf, collecting the key path."""
    from cattrs.errors import ForbiddenExtraKeysError

    while isinstance(error, BaseExceptionGroup):
        cls = getattr(error, "cl", None) or cls
        error, path = _choose(error, path, cls)
    if isinstance(error, ForbiddenExtraKeysError):
        return _unknown_key(error, path)
    if isinstance(error, ScenarioError):
        return error
    if isinstance(error, FieldError):
        return ScenarioError(
            _join(path, _field_key(cls, error.name)) if error.name else path,
            "wrong value",
            got="nothing" if error.got is None else error.got,
            wanted=error.wanted,
            nearest=error.nearest,
        )
    if isinstance(error, KeyError):
        return ScenarioError(path, "this key is missing")
    text = str(error)
    match = _ATTRS_MESSAGE.match(text)
    if match is not None:
        return ScenarioError(_join(path, _field_key(cls, match[1])), match[2])
    return ScenarioError(path, text or type(error).__name__)


def _choose(group: BaseExceptionGroup[BaseException], path: str, cls: type) -> tuple[BaseException, str]:
    from cattrs.errors import AttributeValidationNote, ForbiddenExtraKeysError, IterableValidationNote

    unknown = [error for error in group.exceptions if isinstance(error, ForbiddenExtraKeysError)]
    error = unknown[0] if unknown else group.exceptions[0]
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return error, _join(path, _field_key(cls, note.name))
        if isinstance(note, IterableValidationNote):
            return error, f"{path}[{note.index}]"
    return error, path


def _unknown_key(error: Any, path: str) -> ScenarioError:
    known = [_key_of(field) for field in attrs.fields(error.cl)]
    name = sorted(error.extra_fields)[0]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    wanted = None if near else "one of " + ", ".join(known)
    return ScenarioError(_join(path, name), "unknown key", wanted=wanted, nearest=near[0] if near else None)


def _field_key(cls: type, name: str) -> str:
    if attrs.has(cls):
        for field in attrs.fields(cls):
            if field.name == name:
                return _key_of(field)
    return name


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
