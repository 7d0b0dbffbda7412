"""Boot options (Boot####): what the firmware's boot manager reads from its variables.

Models: EFI_LOAD_OPTION with a device path of a GPT hard drive node and a file path node, parsed strictly from bytes that
anyone at the console could have written.

Leaves out: network, USB and firmware-volume paths, optional data, drivers (Driver####).

Sources: UEFI specification 2.10, sections 3.1.3 (load options) and 10.3 (device paths).
"""

from __future__ import annotations

import struct

import attrs

from sim.boot.uefi_events import ucs2
from sim.errors import FormatError, LimitError

__all__ = ["LoadOption", "parse_load_option"]

LOAD_OPTION_BYTES_MAX = 64 * 1024
PATH_NODES_MAX = 16

_HARD_DRIVE_NODE = (4, 1)
_FILE_NODE = (4, 4)
_END_NODE = (0x7F, 0xFF)
_HARD_DRIVE_BYTES = 42
_WHAT = "EFI load option"


@attrs.frozen(kw_only=True)
class LoadOption:
    """One parsed boot option."""

    active: bool
    description: str
    device_path: bytes
    drive_node: bytes
    file_path: str

    @property
    def partition_guid(self) -> bytes:
        """The GUID by which the option names its partition."""
        return self.drive_node[24:40]

    def path_of(self, file_path: str) -> bytes:
        """Return the device path of another file on the same partition."""
        name = ucs2(file_path)
        node = struct.pack("<BBH", *_FILE_NODE, 4 + len(name)) + name
        return self.drive_node + node + struct.pack("<BBH", *_END_NODE, 4)


def parse_load_option(data: bytes) -> LoadOption:
    """Parse the content of a Boot#### variable; `FormatError` when it is not one for a file on a disk."""
    if len(data) > LOAD_OPTION_BYTES_MAX:
        raise LimitError(_WHAT, "", f"at most {LOAD_OPTION_BYTES_MAX} bytes, got {len(data)}")
    if len(data) < 8:
        raise FormatError(_WHAT, "offset 0", "attributes, path length and a description")
    attributes, path_bytes = struct.unpack_from("<IH", data)
    description, start = _description(data)
    device_path = data[start : start + path_bytes]
    if len(device_path) != path_bytes:
        raise FormatError(_WHAT, f"offset {start}", f"a device path of {path_bytes} bytes")
    drive_node, file_path = _file_on_disk(device_path)
    return LoadOption(
        active=bool(attributes & 1),
        description=description,
        device_path=device_path,
        drive_node=drive_node,
        file_path=file_path,
    )


def _description(data: bytes) -> tuple[str, int]:
    for offset in range(6, len(data) - 1, 2):
        if data[offset : offset + 2] == b"\0\0":
            return _text(data[6:offset], "description"), offset + 2
    raise FormatError(_WHAT, "description", "a terminating NUL")


def _file_on_disk(device_path: bytes) -> tuple[bytes, str]:
    drive_node = b""
    file_path = ""
    offset = 0
    for _ in range(PATH_NODES_MAX):
        kind, body, offset = _node(device_path, offset)
        if kind == _END_NODE:
            break
        if kind == _HARD_DRIVE_NODE and len(body) == _HARD_DRIVE_BYTES - 4:
            drive_node = device_path[offset - _HARD_DRIVE_BYTES : offset]
        elif kind == _FILE_NODE:
            file_path = _text(body.removesuffix(b"\0\0"), "file path")
    if not drive_node or not file_path:
        raise FormatError(_WHAT, "device path", "a hard drive node and a file path node")
    return drive_node, file_path


def _node(device_path: bytes, offset: int) -> tuple[tuple[int, int], bytes, int]:
    header = device_path[offset : offset + 4]
    if len(header) != 4:
        raise FormatError(_WHAT, f"device path offset {offset}", "a node header")
    kind, subtype, length = struct.unpack("<BBH", header)
    body = device_path[offset + 4 : offset + length]
    if length < 4 or len(body) != length - 4:
        raise FormatError(_WHAT, f"device path offset {offset}", f"a node of {length} bytes")
    return (kind, subtype), body, offset + length


def _text(raw: bytes, where: str) -> str:
    try:
        text = raw.decode("utf-16-le")
    except UnicodeDecodeError:
        raise FormatError(_WHAT, where, "UCS-2 text") from None
    if not text.isprintable():
        raise FormatError(_WHAT, where, "printable text")
    return text
