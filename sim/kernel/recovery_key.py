"""The recovery key of a host's configuration: a 32-byte key as 16 groups of 6 digits, to be typed by a human.

Models: 16 bits a group, as a multiple of 11, so that a digit typed wrong, or two neighbours swapped, is noticed in
its group.

Leaves out: other lengths.  Sources: ESXi's documentation for the 16 groups of 6 digits; what the digits mean is not
public, and ours is the scheme that another vendor's recovery passwords use.
"""

from __future__ import annotations

import re

from sim.core.facts import fact
from sim.errors import FormatError

__all__ = ["KEY_BYTES", "format_recovery_key", "parse_recovery_key"]

GROUPS = fact(
    "kernel.recovery_key_groups",
    16,
    unit="groups of 6 digits",
    source="esxcli system settings encryption recovery list (documentation)",
    kind="vendor",
)
KEY_BYTES = 2 * GROUPS.value
_CHECK = 11
_TEXT = re.compile(r"[0-9]{6}(-[0-9]{6}){" + str(GROUPS.value - 1) + "}")


def format_recovery_key(key: bytes) -> str:
    """Return the digits of a key of 32 bytes."""
    if len(key) != KEY_BYTES:
        raise FormatError("configuration key", "length", f"want {KEY_BYTES} bytes, got {len(key)}")
    words = (int.from_bytes(key[at : at + 2], "big") for at in range(0, KEY_BYTES, 2))
    return "-".join(f"{word * _CHECK:06d}" for word in words)


def parse_recovery_key(text: str) -> bytes:
    """Return the key that the digits stand for; `FormatError` says which group is wrong, and shows no digits."""
    if _TEXT.fullmatch(text) is None:
        raise FormatError(
            "recovery key", "form", f"want {GROUPS.value} groups of 6 digits with hyphens between"
        )
    key = b""
    for number, group in enumerate(text.split("-"), 1):
        word, rest = divmod(int(group), _CHECK)
        if rest or word > 0xFFFF:
            raise FormatError("recovery key", f"group {number}", "a digit is wrong")
        key += word.to_bytes(2, "big")
    return key
