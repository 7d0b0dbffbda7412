"""EFI_SIGNATURE_LIST: the form in which the variables PK, KEK, db and dbx hold their entries.

Models: lists of X.509 certificates and of SHA-256 image digests, each entry with its owner's GUID.

Leaves out: the other list types (RSA keys, SHA-1, certificate digests), which a reader skips over but reports.

Sources: UEFI Specification 2.10, section 32.4.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import groupby

from attrs import frozen

from sim.errors import FormatError, LimitError

__all__ = ["OWNER", "ListEntry", "encode_signature_lists", "parse_signature_lists"]


def _guid(text: str) -> bytes:
    """Encode a GUID with its first three fields little-endian, as UEFI does."""
    first, second, third, *rest = (bytes.fromhex(part) for part in text.split("-"))
    return first[::-1] + second[::-1] + third[::-1] + b"".join(rest)


OWNER = _guid("c6b0d9a2-5f0e-4bd5-9d0b-3d6f8a7c1e52")
"""The owner written beside our entries; an arbitrary constant of this project."""

VARIABLE_BYTES_MAX = 1024 * 1024
ENTRIES_MAX = 4096

_WHAT = "EFI signature list"
_X509 = _guid("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
_SHA256 = _guid("c1c41626-504c-4092-aca9-41f936934328")
_KINDS = {_X509: "certificate", _SHA256: "sha256"}
_HEADER = struct.Struct("<16sIII")
_OWNER_BYTES = 16
_DIGEST_BYTES = 32


@frozen(kw_only=True)
class ListEntry:
    """One entry of a signature variable: kind "certificate", "sha256" or "other", owner GUID, and the data."""

    kind: str
    owner: bytes
    data: bytes

    @property
    def signature_data(self) -> bytes:
        """Return the EFI_SIGNATURE_DATA, owner and data, as an authority event records it."""
        return self.owner + self.data


def encode_signature_lists(entries: Iterable[bytes], owner: bytes = OWNER) -> bytes:
    """Encode certificates (DER) and SHA-256 digests: one list for each certificate, one for each run of digests."""
    lists = []
    for is_digest, group in groupby(entries, key=lambda entry: len(entry) == _DIGEST_BYTES):
        members = list(group)
        runs = [members] if is_digest else [[member] for member in members]
        for run in runs:
            size = _OWNER_BYTES + len(run[0])
            body = b"".join(owner + member for member in run)
            lists.append(
                _HEADER.pack(_SHA256 if is_digest else _X509, _HEADER.size + len(body), 0, size) + body
            )
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
    if kind == _SHA256 and entry_bytes != _OWNER_BYTES + _DIGEST_BYTES:
        raise FormatError(_WHAT, where, "a SHA-256 entry that is not 32 bytes long")
    for at in range(end - body, end, entry_bytes):
        owner, content = data[at : at + _OWNER_BYTES], data[at + _OWNER_BYTES : at + entry_bytes]
        entries.append(ListEntry(kind=_KINDS.get(kind, "other"), owner=owner, data=content))
    return end
