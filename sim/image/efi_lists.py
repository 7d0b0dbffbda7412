"""EFI_SIGNATURE_LIST: the form in which the variables PK, KEK, db and dbx hold their entries.

Models: lists of X.509 certificates, of image digests (SHA-256, SHA-384, SHA-512), and of certificates by the digest of
what their issuer signed, with the time from which they are revoked; each entry with its owner's GUID.

Leaves out: the other list types (RSA keys, SHA-1, SHA-224), whose entries have the kind "other": who reads one says what
that means.

Sources: UEFI Specification 2.10, sections 32.4.1 (lists and their types) and 8.3 (EFI_TIME).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import groupby

from attrs import evolve, frozen

from sim.errors import FormatError, LimitError

__all__ = [
    "CERTIFICATE_DIGESTS",
    "IMAGE_DIGESTS",
    "OWNER",
    "ListEntry",
    "as_entry",
    "encode_signature_lists",
    "parse_signature_lists",
]


def _guid(text: str) -> bytes:
    """Encode a GUID with its first three fields little-endian, as UEFI does."""
    first, second, third, *rest = (bytes.fromhex(part) for part in text.split("-"))
    return first[::-1] + second[::-1] + third[::-1] + b"".join(rest)


OWNER = _guid("c6b0d9a2-5f0e-4bd5-9d0b-3d6f8a7c1e52")
"""The owner written beside our entries; an arbitrary constant of this project."""

VARIABLE_BYTES_MAX = 1024 * 1024
ENTRIES_MAX = 4096

_WHAT = "EFI signature list"
_TYPES = {
    "certificate": _guid("a5c059a1-94e4-4aa7-87b5-ab155c2bf072"),
    "sha256": _guid("c1c41626-504c-4092-aca9-41f936934328"),
    "sha384": _guid("ff3e5307-9fd0-48c9-85f1-8ad56c701e01"),
    "sha512": _guid("093e0fae-a6c4-4f50-9f1b-d41e2b89c19a"),
    "certificate-sha256": _guid("3bd2a492-96c0-4079-b420-fcf98ef103ed"),
    "certificate-sha384": _guid("7076876e-80c2-4ee6-aad2-28b349a6865b"),
    "certificate-sha512": _guid("446dbf63-2502-4cda-bcfa-2465d2b0fe9d"),
}
_KINDS = {guid: kind for kind, guid in _TYPES.items()}
IMAGE_DIGESTS = {"sha256": 32, "sha384": 48, "sha512": 64}
"""Kinds of entries that hold an image's Authenticode digest, with its length."""
CERTIFICATE_DIGESTS = {f"certificate-{name}": (name, length) for name, length in IMAGE_DIGESTS.items()}
"""Kinds that hold the digest of a certificate's signed part and a time -> the digest's name and its length."""
TIME_BYTES = 16
_SIZES = IMAGE_DIGESTS | {kind: length + TIME_BYTES for kind, (_, length) in CERTIFICATE_DIGESTS.items()}
_HEADER = struct.Struct("<16sIII")
_OWNER_BYTES = 16
_DIGEST_BYTES = 32


@frozen(kw_only=True)
class ListEntry:
    """One entry of a signature variable: its kind, owner GUID, and the data.

    The kind is "certificate", one of `IMAGE_DIGESTS` or `CERTIFICATE_DIGESTS`, or "other".
    """

    kind: str
    data: bytes
    owner: bytes = OWNER

    @property
    def signature_data(self) -> bytes:
        """Return the EFI_SIGNATURE_DATA, owner and data, as an authority event records it."""
        return self.owner + self.data


def as_entry(entry: bytes | ListEntry) -> ListEntry:
    """Return an entry as it is; 32 bytes become that of a SHA-256 image digest, other bytes that of a certificate."""
    if isinstance(entry, ListEntry):
        return entry
    return ListEntry(kind="sha256" if len(entry) == _DIGEST_BYTES else "certificate", data=entry)


def encode_signature_lists(entries: Iterable[bytes | ListEntry], owner: bytes = OWNER) -> bytes:
    """Encode entries: one list for each certificate, one for each run of another kind.

    Bare bytes are a certificate (DER) or a SHA-256 image digest, of `owner`.  ValueError for an entry of kind "other".
    """
    lists = []
    known = [evolve(as_entry(one), owner=owner) if isinstance(one, bytes) else one for one in entries]
    if any(entry.kind not in _TYPES for entry in known):
        raise ValueError("an entry of another kind has no type to write")
    for kind, group in groupby(known, key=lambda entry: entry.kind):
        members = [entry.signature_data for entry in group]
        for run in [[member] for member in members] if kind == "certificate" else [members]:
            body = b"".join(run)
            lists.append(_HEADER.pack(_TYPES[kind], _HEADER.size + len(body), 0, len(run[0])) + body)
    return b"".join(lists)


def parse_signature_lists(data: bytes) -> tuple[ListEntry, ...]:
    """Decode the content of a signature variable."""
    if len(data) > VARIABLE_BYTES_MAX:
        raise LimitError(_WHAT, "", f"{len(data)} bytes, at most {VARIABLE_BYTES_MAX} are read")
    entries: list[ListEntry] = []
    position = 0
    while position < len(data):
        position = _parse_list(data, position, entries)
    return tuple(entries)


def _parse_list(data: bytes, position: int, entries: list[ListEntry]) -> int:
    where = f"offset {position}"
    if len(data) - position < _HEADER.size:
        raise FormatError(_WHAT, where, "the data ends inside a list's header")
    kind, list_bytes, header_bytes, entry_bytes = _HEADER.unpack_from(data, position)
    body = list_bytes - _HEADER.size - header_bytes
    end: int = position + list_bytes
    if body < 0 or end > len(data) or entry_bytes <= _OWNER_BYTES or body % entry_bytes:
        raise FormatError(_WHAT, where, "the sizes of the list do not fit each other or the data")
    if len(entries) + body // entry_bytes > ENTRIES_MAX:
        raise LimitError(_WHAT, where, f"more than {ENTRIES_MAX} entries")
    name = _KINDS.get(kind, "other")
    if entry_bytes != _OWNER_BYTES + _SIZES.get(name, entry_bytes - _OWNER_BYTES):
        raise FormatError(_WHAT, where, f"an entry of type {name} that is not {_SIZES[name]} bytes long")
    for at in range(end - body, end, entry_bytes):
        owner, content = data[at : at + _OWNER_BYTES], data[at + _OWNER_BYTES : at + entry_bytes]
        entries.append(ListEntry(kind=name, owner=owner, data=content))
    return end
