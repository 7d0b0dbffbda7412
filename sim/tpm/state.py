"""The whole state of a TPM as one canonical file: save, load, fork, compare, and show.

Models: every attribute of the device, in a JSON text behind a header with magic, version and SHA-256; equal states
give equal bytes.  A file is written aside, synced and renamed, so that a crash at any moment leaves the old or the
new one whole.
Leaves out: encryption of the file, whose secrets are in the clear (a simulator has none), and the clock of a running
simulation: a loaded TPM has a stopped clock at the same time.
Sources: rename(2) and fsync(2) for the order of the steps; RFC 8259 for the text.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from sim.errors import FormatError, LimitError, SimBug
from sim.tpm.device import StoppedClock, Tpm

__all__ = [
    "apply_first_writes",
    "fork",
    "load",
    "restore",
    "save",
    "snapshot",
    "state_diff",
    "state_lines",
    "write_whole",
]

WHAT = "TPM state"
MAGIC = b"vmksim TPM state"
VERSION = 2
STATE_BYTES_MAX = 16 * 1024 * 1024
DEPTH_MAX = 40
LOST_WITH_POWER = frozenset(
    {
        "borrowed_slots",
        "clock",
        "failed",
        "h_crtm",
        "last_latency_ns",
        "locality",
        "objects",
        "random",
        "sessions",
        "started",
        "started_orderly",
        "untested",
        "_hash_sequence",
    }
)
"""Attributes of the device that are no part of what it writes into NV."""
_CLASSES_FROM = ("sim.tpm.", "sim.core.rng")
_BYTES, _ARRAY, _TUPLE, _MAP, _SET, _CLASS = "bytes", "bytearray", "tuple", "map", "set", "class"


def snapshot(tpm: Tpm) -> bytes:
    """Return the state as the bytes of a state file."""
    body = json.dumps(_tree(tpm), sort_keys=True, separators=(",", ":")).encode()
    return b"%s %d %s\n%s\n" % (MAGIC, VERSION, hashlib.sha256(body).hexdigest().encode(), body)


def restore(data: bytes) -> Tpm:
    """Return a TPM in the state that `snapshot` gave; `FormatError` names what is wrong with the bytes."""
    if len(data) > STATE_BYTES_MAX:
        raise LimitError(WHAT, "", f"{len(data)} bytes, at most {STATE_BYTES_MAX}")
    header, newline, body = data.partition(b"\n")
    words = header.rsplit(b" ", 2)
    if not newline or len(words) != 3 or words[0] != MAGIC:
        raise FormatError(WHAT, "first line", f"does not begin with {MAGIC.decode()!r}")
    if words[1] != b"%d" % VERSION:
        raise FormatError(
            WHAT, "first line", f"version {words[1][:20]!r}; this program reads version {VERSION}"
        )
    if not body.endswith(b"\n"):
        raise FormatError(WHAT, "end", "the file is cut off")
    body = body[:-1]
    if hashlib.sha256(body).hexdigest().encode() != words[2]:
        raise FormatError(WHAT, "body", "corrupted: its SHA-256 differs from the one in the first line")
    return _whole_tpm(body)


def _whole_tpm(body: bytes) -> Tpm:
    try:
        tpm = _value(json.loads(body), 0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ImportError) as error:
        raise FormatError(WHAT, "body", f"not a state of this program: {error}") from None
    if not isinstance(tpm, Tpm):
        raise FormatError(WHAT, "body", "not the state of a TPM")
    try:
        tpm.check_invariants()
    except (AssertionError, AttributeError, TypeError) as error:
        raise FormatError(WHAT, "body", f"not a state that a TPM can have: {error}") from None
    return tpm


def save(tpm: Tpm, path: Path) -> None:
    """Write the state into a file, whole or not at all."""
    write_whole(path, snapshot(tpm))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old or the new one whole: aside, synced, renamed."""
    aside = path.with_name(path.name + ".new")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path) -> Tpm:
    """Read a state file; `FormatError` if it is corrupted, which names the file's fault."""
    with path.open("rb") as file:
        return restore(file.read(STATE_BYTES_MAX + 1))


def fork(tpm: Tpm) -> Tpm:
    """Return a second TPM in the same state, which goes its own way."""
    return restore(snapshot(tpm))


def state_lines(tpm: Tpm) -> dict[str, str]:
    """Return every value of the state by its path, such as `pcrs.values[11][0]`, in order."""
    return dict(_lines(_tree(tpm), ""))


def state_diff(before: Tpm, after: Tpm) -> dict[str, tuple[str | None, str | None]]:
    """Return what differs between two states: by path, the value before and after (None where there is none)."""
    old, new = state_lines(before), state_lines(after)
    paths = [*old, *(path for path in new if path not in old)]
    return {path: (old.get(path), new.get(path)) for path in paths if old.get(path) != new.get(path)}


def apply_first_writes(tpm: Tpm, after: Tpm, writes: int) -> int:
    """Copy the first `writes` entries in which `after` differs into `tpm`; return how many there are.

    An entry is an attribute of the device, or one item of an attribute that is a dictionary; what is lost with the
    power anyway is none.  That a shutdown holds no longer is written first: else a resume could find what came after.
    """
    pending = _entries_that_differ(tpm, after)
    aside = vars(fork(after))
    for name, key in pending[:writes]:
        if key is None:
            setattr(tpm, name, aside[name])
            continue
        here, there = vars(tpm)[name], aside[name]
        if key in there:
            here[key] = there[key]
        else:
            del here[key]
    return len(pending)


def _entries_that_differ(before: Tpm, after: Tpm) -> list[tuple[str, Any]]:
    entries: list[tuple[str, Any]] = []
    for name, old in sorted(vars(before).items(), key=lambda item: item[0] != "shutdown_type"):
        new = vars(after)[name]
        if name in LOST_WITH_POWER or _tree(old) == _tree(new):
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            keys = [*old, *(key for key in new if key not in old)]
            entries += [
                (name, key)
                for key in keys
                if key not in old or key not in new or _tree(old[key]) != _tree(new[key])
            ]
        else:
            entries.append((name, None))
    return entries


def _tree(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON data; whatever JSON has no form for becomes {kind: ...}."""
    if depth > DEPTH_MAX:
        raise SimBug(f"the state of a TPM is nested more than {DEPTH_MAX} deep")
    match value:
        case Enum():
            return {_CLASS: _name_of(type(value)), "value": value.value}
        case None | bool() | int() | str():
            return value
        case bytes():
            return {_BYTES: value.hex()}
        case bytearray():
            return {_ARRAY: value.hex()}
        case tuple():
            return {_TUPLE: [_tree(each, depth + 1) for each in value]}
        case list():
            return [_tree(each, depth + 1) for each in value]
        case set() | frozenset():
            return {_SET: sorted((_tree(each, depth + 1) for each in value), key=_order)}
        case dict():
            pairs = [[_tree(key, depth + 1), _tree(each, depth + 1)] for key, each in value.items()]
            return {_MAP: sorted(pairs, key=lambda pair: _order(pair[0]))}
    fields = _fields(value)
    if isinstance(value, Tpm):
        fields["clock"] = _stopped_at(value.clock.now)
    return {
        _CLASS: _name_of(type(value)),
        "fields": {name: _tree(each, depth + 1) for name, each in fields.items()},
    }


def _stopped_at(now_ns: int) -> StoppedClock:
    clock = StoppedClock()
    clock.now = now_ns
    return clock


def _order(tree: Any) -> tuple[bool, int, str]:
    is_number = isinstance(tree, int)
    return (not is_number, tree if is_number else 0, "" if is_number else json.dumps(tree, sort_keys=True))


def _fields(value: Any) -> dict[str, Any]:
    """Return the attributes of an object, from its dictionary or its slots."""
    if hasattr(value, "__dict__"):
        return dict(vars(value))
    names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    return {name: getattr(value, name) for name in names if name != "__weakref__" and hasattr(value, name)}


def _name_of(kind: type) -> str:
    name = f"{kind.__module__}:{kind.__qualname__}"
    if not kind.__module__.startswith(_CLASSES_FROM):
        raise SimBug(f"the state of a TPM holds a {name}")
    return name


def _class_named(name: str) -> type:
    module, _, qualified = name.partition(":")
    if not module.startswith(_CLASSES_FROM) or "." in qualified:
        raise ValueError(f"no class of a TPM: {name[:80]!r}")
    kind = getattr(importlib.import_module(module), qualified)
    if not isinstance(kind, type) or kind.__module__ != module:
        raise ValueError(f"no class of a TPM: {name[:80]!r}")
    return kind


def _value(tree: Any, depth: int) -> Any:
    """Return the value that `_tree` turned into this JSON data."""
    if depth > DEPTH_MAX:
        raise ValueError(f"nested more than {DEPTH_MAX} deep")
    if isinstance(tree, list):
        return [_value(each, depth + 1) for each in tree]
    if not isinstance(tree, dict):
        return tree
    if _CLASS in tree:
        return _instance(tree, depth)
    ((kind, content),) = tree.items()
    match kind:
        case "bytes":
            return bytes.fromhex(content)
        case "bytearray":
            return bytearray.fromhex(content)
        case "tuple":
            return tuple(_value(each, depth + 1) for each in content)
        case "set":
            return {_value(each, depth + 1) for each in content}
        case "map":
            return {_value(key, depth + 1): _value(each, depth + 1) for key, each in content}
    raise ValueError(f"unknown kind of value: {kind[:80]!r}")


def _instance(tree: dict[str, Any], depth: int) -> Any:
    kind = _class_named(tree[_CLASS])
    if issubclass(kind, Enum):
        return kind(tree["value"])
    instance = kind.__new__(kind)
    for name, each in tree["fields"].items():
        object.__setattr__(instance, name, _value(each, depth + 1))
    return instance


def _lines(tree: Any, path: str) -> Iterator[tuple[str, str]]:
    """Return the leaves of JSON data of `_tree` with their paths."""
    if isinstance(tree, dict) and "fields" in tree:
        for name, each in tree["fields"].items():
            yield from _lines(each, f"{path}.{name}" if path else name)
    elif isinstance(tree, dict) and _MAP in tree:
        for key, each in tree[_MAP]:
            yield from _lines(each, f"{path}[{_key_text(key)}]")
    elif isinstance(tree, dict) and (_TUPLE in tree or _SET in tree):
        yield from _lines(tree.get(_TUPLE, tree.get(_SET)), path)
    elif isinstance(tree, list):
        for number, each in enumerate(tree):
            yield from _lines(each, f"{path}[{number}]")
    else:
        yield path, _leaf_text(tree)


def _leaf_text(tree: Any) -> str:
    if isinstance(tree, dict):
        if "value" in tree:
            return f"{tree[_CLASS].rpartition(':')[2]} {tree['value']}"
        return str(next(iter(tree.values())))
    return json.dumps(tree)


def _key_text(tree: Any) -> str:
    if isinstance(tree, int) and tree > 0xFFFF:
        return f"0x{tree:08x}"
    return _leaf_text(tree)
