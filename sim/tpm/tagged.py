"""Tagged events: what ESXi's boot loader puts into EV_EVENT_TAG events.

Models: the frame (id, size, content; little-endian) and the contents of ESXi's ids.
Leaves out: ids of other loaders, which are read but not interpreted.
Source: vmware/esx-boot, uefi/efiutils/tpm.c (the numbers and layouts only); TCG PC Client Platform Firmware Profile,
TCG_PCClientTaggedEvent.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from attrs import frozen

from sim.errors import FormatError

__all__ = ["EsxTag", "TaggedEvent", "decode_tagged", "encode_tagged"]

_FRAME = struct.Struct("<II")
_WHAT = "tagged event"


class EsxTag(IntEnum):
    """Ids of ESXi's tagged events."""

    MOD = 2
    BOOT_OPT = 3
    CMD_OPT = 4
    TAG = 6
    SIGNER = 7
    VERSION = 8


@frozen(kw_only=True)
class TaggedEvent:
    """A decoded tagged event."""

    id: int
    content: bytes

    @property
    def text(self) -> str:
        """The content as text: a file name without its NUL, or a command line; other bytes become U+FFFD."""
        return self.content.removesuffix(b"\0").decode("utf-8", "replace")


def encode_tagged(tag_id: int, content: bytes) -> bytes:
    """Return the data of an EV_EVENT_TAG event."""
    return _FRAME.pack(tag_id, len(content)) + content


def decode_tagged(data: bytes) -> TaggedEvent:
    """Read the data of an EV_EVENT_TAG event; `FormatError` unless the size is exactly that of the content."""
    if len(data) < _FRAME.size:
        raise FormatError(_WHAT, "", f"{len(data)} bytes are too few for id and size")
    tag_id, size = _FRAME.unpack_from(data)
    if size != len(data) - _FRAME.size:
        raise FormatError(_WHAT, f"id {tag_id}", f"size {size}, but {len(data) - _FRAME.size} bytes follow")
    return TaggedEvent(id=tag_id, content=data[_FRAME.size :])
