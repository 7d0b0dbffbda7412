"""What the maker of a server publishes of one model: its firmware's code and its Secure Boot keys, as digests and entries.

Models: for each code that the firmware measures the PCR and the digests of what is measured, whether a boot must have
measured it, and the entries that PK, KEK and db may hold and dbx must hold.  It is part of the reference manifest, and
holds nothing secret.

Leaves out: a signature over it, as with the manifest; settings and tables, which differ from host to host.

Sources: TCG PC Client Reference Integrity Manifest Specification 1.04 (what a maker publishes, by PCR and event); UEFI
specification 2.10, section 32.4.1 (entries of signature lists).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import asdict, field, fields, frozen

from sim.errors import FormatError

__all__ = ["ReferenceCode", "ReferencePlatform", "platform_from_plain", "platform_to_plain"]

_WHAT: Final = "reference platform"
_PCRS: Final = range(8)


@frozen(kw_only=True)
class ReferenceCode:
    """A piece of firmware: its name, the PCR that takes it, the digests of what is measured (one of each kind)."""

    name: str
    pcr: int
    digests: tuple[bytes, ...] = field(repr=False)
    required: bool = True
    """Whether every boot measures it; code of a plug-in card may be missing."""


@frozen(kw_only=True)
class ReferencePlatform:
    """One model: its name with the firmware's version, its code, and the contents of its Secure Boot variables.

    The entries are the data of signature lists: certificates in DER, or digests.
    """

    model: str
    code: tuple[ReferenceCode, ...] = field(default=(), repr=False)
    platform_keys: tuple[bytes, ...] = field(default=(), repr=False)
    """The entries that PK may hold."""
    exchange_keys: tuple[bytes, ...] = field(default=(), repr=False)
    """The entries that KEK may hold."""
    allowed: tuple[bytes, ...] = field(default=(), repr=False)
    """The entries that db may hold."""
    forbidden: tuple[bytes, ...] = field(default=(), repr=False)
    """The entries that dbx must hold; it may hold more."""


_KEYS: Final = ("platform_keys", "exchange_keys", "allowed", "forbidden")


def platform_to_plain(platform: ReferencePlatform) -> dict[str, object]:
    """Return a platform as JSON takes it, bytes in hexadecimal."""
    plain: dict[str, object] = {key: [one.hex() for one in getattr(platform, key)] for key in _KEYS}
    plain["model"] = platform.model
    plain["code"] = [
        {**asdict(one), "digests": [each.hex() for each in one.digests]} for one in platform.code
    ]
    return plain


def platform_from_plain(value: object, where: str) -> ReferencePlatform:
    """Return the platform that `platform_to_plain` wrote; FormatError for anything else."""
    plain = _object(value, {one.name for one in fields(ReferencePlatform)}, where)
    return ReferencePlatform(
        model=_text(plain["model"], where),
        code=tuple(_code(one, where) for one in _list(plain["code"], where)),
        **{key: _entries(plain[key], where) for key in _KEYS},
    )


def _code(value: object, where: str) -> ReferenceCode:
    plain = _object(value, {one.name for one in fields(ReferenceCode)}, where)
    pcr, required = plain["pcr"], plain["required"]
    if not isinstance(pcr, int) or pcr not in _PCRS or not isinstance(required, bool):
        raise FormatError(_WHAT, where, "code needs a PCR from 0 to 7, and required true or false")
    digests = _entries(plain["digests"], where)
    return ReferenceCode(name=_text(plain["name"], where), pcr=pcr, digests=digests, required=required)


def _object(value: object, keys: set[str], where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or set(value) != keys:
        raise FormatError(_WHAT, where, f"is not an object of {', '.join(sorted(keys))}")
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise FormatError(_WHAT, where, "is not a list")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise FormatError(_WHAT, where, "is not a text")
    return value


def _entries(value: object, where: str) -> tuple[bytes, ...]:
    try:
        return tuple(bytes.fromhex(_text(one, where)) for one in _list(value, where))
    except ValueError:
        raise FormatError(_WHAT, where, "holds something that is not hex") from None
