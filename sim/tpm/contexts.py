"""Saved contexts: a loaded object, sequence or session as bytes that only this TPM reads again, and only in time.

Models: a compact form of the values of a slot, encrypted and authenticated under the proof of its hierarchy.  A TPM
reset voids all contexts; a restart those of objects with stClear; a session's is good once.
Leaves out: vendors' own forms; no TPM reads the contexts of another make.
Sources: TPM 2.0 Library part 1, chapter 30 "Context Management"; part 3, 28.2 and 28.3.
"""

from __future__ import annotations

import hmac
import importlib
from enum import Enum
from typing import Any

import attrs
from attrs import frozen

from sim.errors import SimBug
from sim.tpm.codec import Structure, wire
from sim.tpm.constants import TPM_ALG
from sim.tpm.crypto.kdf import kdf_a
from sim.tpm.crypto.symmetric import cfb_decrypt, cfb_encrypt
from sim.tpm.wire import TPM2B_DIGEST, UINT64

__all__ = ["ContextBinding", "open_context", "seal_context"]

_PACKAGE = "sim.tpm."
_KEY_BITS, _VECTOR_BITS = 256, 128
_DEPTH_MAX = 12


@frozen(kw_only=True)
class ContextBinding(Structure):
    """What a context is bound to: its place in the order of contexts, its handle, and the period it is good for."""

    sequence: int = wire(UINT64)
    handle: int = wire(UINT64)
    epoch: int = wire(UINT64)


def seal_context(proof: bytes, binding: ContextBinding, value: Any) -> bytes:
    """Return the blob of a value of a slot."""
    key, vector = _cipher(proof, binding)
    body = cfb_encrypt(TPM_ALG.AES, key, vector, _pack(value))
    return TPM2B_DIGEST.encode(_integrity(proof, binding, body)) + body


def open_context(proof: bytes, binding: ContextBinding, blob: bytes) -> Any:
    """Return the value of a blob, or None if it is not whole or not bound so; `WireError` if it has no digest."""
    found, at = TPM2B_DIGEST.decode(blob, 0, len(blob))
    body = blob[at:]
    if not hmac.compare_digest(found, _integrity(proof, binding, body)):
        return None
    key, vector = _cipher(proof, binding)
    value, after = _unpack(cfb_decrypt(TPM_ALG.AES, key, vector, body), 0)
    assert after == len(body)
    return value


def _cipher(proof: bytes, binding: ContextBinding) -> tuple[bytes, bytes]:
    derived = kdf_a(TPM_ALG.SHA512, proof, b"CONTEXT", binding.encode(), _KEY_BITS + _VECTOR_BITS)
    return derived[: _KEY_BITS // 8], derived[_KEY_BITS // 8 :]


def _integrity(proof: bytes, binding: ContextBinding, body: bytes) -> bytes:
    return hmac.digest(proof, b"CONTEXT" + binding.encode() + body, "sha512")


def _pack(value: Any, depth: int = 0) -> bytes:
    """Return a value as a letter for its kind, a length where needed, and its content."""
    if depth > _DEPTH_MAX:
        raise SimBug(f"a slot is nested more than {_DEPTH_MAX} deep")
    match value:
        case None:
            return b"N"
        case bool():
            return b"T" if value else b"F"
        case Enum():
            return b"E" + _name(type(value)) + _pack(value.value)
        case int():
            return b"I" + _sized(value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
        case bytes():
            return b"B" + _sized(value)
        case bytearray():
            return b"A" + _sized(value)
        case tuple() | list():
            letter = b"U" if isinstance(value, tuple) else b"L"
            return letter + _count(len(value)) + b"".join(_pack(each, depth + 1) for each in value)
    if not attrs.has(type(value)):
        raise SimBug(f"a slot holds a {type(value).__name__}, which has no form in a context")
    fields = [_pack(getattr(value, field.name), depth + 1) for field in attrs.fields(type(value))]
    return b"C" + _name(type(value)) + b"".join(fields)


def _unpack(data: bytes, at: int) -> tuple[Any, int]:
    kind, at = data[at : at + 1], at + 1
    if kind in _CONSTANTS:
        return _CONSTANTS[kind], at
    size, start = int.from_bytes(data[at : at + 2], "big"), at + 2
    content, after = data[start : start + size], start + size
    match kind:
        case b"I":
            return int.from_bytes(content, "big", signed=True), after
        case b"B":
            return content, after
        case b"A":
            return bytearray(content), after
        case b"U" | b"L":
            values = []
            for _ in range(size):
                value, start = _unpack(data, start)
                values.append(value)
            return (tuple(values) if kind == b"U" else values), start
        case b"E":
            value, after = _unpack(data, after)
            return _class(content)(value), after
    cls = _class(content)
    fields: dict[str, Any] = {}
    for field in attrs.fields(cls):
        fields[field.alias], after = _unpack(data, after)
    return cls(**fields), after


_CONSTANTS: dict[bytes, Any] = {b"N": None, b"T": True, b"F": False}


def _count(count: int) -> bytes:
    return count.to_bytes(2, "big")


def _sized(content: bytes | bytearray) -> bytes:
    return _count(len(content)) + content


def _name(cls: type) -> bytes:
    name = f"{cls.__module__}:{cls.__qualname__}"
    if not name.startswith(_PACKAGE):
        raise SimBug(f"a slot holds a {name}")
    return _sized(name.removeprefix(_PACKAGE).encode())


def _class(name: bytes) -> Any:
    module, _, cls = (_PACKAGE + name.decode()).partition(":")
    return getattr(importlib.import_module(module), cls)
