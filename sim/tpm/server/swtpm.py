"""swtpm's protocol: bare commands on one port, control messages on the next.

Models: the control commands of swtpm that make sense over TCP.  State blobs hold this project's own state format, for
each of the three types the whole state.
Leaves out: passing file descriptors, encrypted state, cancelling (accepted, without effect), and freezing volatile
state by GET_STATEBLOB's flags.
Sources: swtpm_ioctls(3) and swtpm(8) of swtpm 0.7.1; the order and the sizes were measured on it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable

from sim.errors import FormatError
from sim.tpm.constants import TPM_RC
from sim.tpm.server.platform import LOCALITY_MAX, Platform
from sim.tpm.server.wire import HungUpError, Wire

__all__ = ["CONTROL_BYTES", "HASH_DATA_BYTES_MAX", "Control", "Message", "StopServerError", "serve_command"]

_HEADER_BYTES = 10
_TOO_LONG = struct.pack(">HII", 0x8001, _HEADER_BYTES, TPM_RC.COMMAND_SIZE)
HASH_DATA_BYTES_MAX = 4096
STATE_BYTES_MAX = 16 * 1024 * 1024
BUFFER_BYTES = (4096, 4096, 4096)
"""Size of the command buffer now, at least and at most."""

_OK = 0
_FAIL = 9  # TPM_FAIL of TPM 1.2, which swtpm's control channel uses
_BAD_PARAMETER = 3
_BAD_ORDINAL = 10
_STATE_TYPES = (1, 2, 3)


_BAD_LOCALITY = 0x3D
_PAYLOAD_BYTES = {0x02: 4, 0x05: 1, 0x07: 4, 0x0B: 1, 0x0C: 12, 0x0D: 12, 0x11: 4, 0x12: 16}
_DATA_BYTES_MAX = {0x07: HASH_DATA_BYTES_MAX, 0x0D: STATE_BYTES_MAX}
"""Commands whose payload ends in a length, which that many bytes follow."""
_THREE_WORDS = struct.Struct(">III")

Message = tuple[int, bytes]
"""Code and payload of a control message."""


class StopServerError(Exception):
    """The client asked the whole server to stop; its argument is the last answer."""


def serve_command(wire: Wire, execute: Callable[[bytes], bytes], command_bytes_max: int) -> bool:
    """Answer one bare command; False when the connection is to be closed."""
    header = wire.first(_HEADER_BYTES)
    if not header:
        return False
    size = int.from_bytes(header[2:6], "big")
    if not _HEADER_BYTES <= size <= command_bytes_max:
        wire.send(_TOO_LONG)
        return False
    response = execute(wire.read(size))
    if not response:
        return False
    wire.send(response)
    return True


class Control:
    """swtpm's control channel: `read` takes one message from a wire, `apply` does what it says and answers."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self._actions: dict[int, Callable[[bytes], bytes]] = {
            0x01: self._get_capability,
            0x02: self._init,
            0x03: self._shutdown,
            0x04: self._get_established,
            0x05: self._set_locality,
            0x06: self._hash_start,
            0x07: self._hash_data,
            0x08: self._hash_end,
            0x09: self._nothing,
            0x0A: self._nothing,
            0x0B: self._reset_established,
            0x0C: self._get_state,
            0x0D: self._set_state,
            0x0E: self._stop,
            0x0F: self._get_config,
            0x11: self._set_buffer_size,
            0x12: self._get_info,
        }

    @staticmethod
    def read(wire: Wire) -> Message:
        """Take one whole message from the wire."""
        code = wire.u32()
        payload = wire.read(_PAYLOAD_BYTES.get(code, 0))
        limit = _DATA_BYTES_MAX.get(code)
        if limit is not None:
            count = int.from_bytes(payload[-4:], "big")
            if count > limit:
                raise HungUpError
            payload += wire.read(count)
        return code, payload

    def apply(self, message: Message) -> bytes:
        """Do what the message says and return the answer to it."""
        code, payload = message
        action = self._actions.get(code)
        return _result(_BAD_ORDINAL) if action is None else action(payload)

    def _get_capability(self, _: bytes) -> bytes:
        return _result(_OK) + struct.pack(">I", CAPABILITIES)

    def _init(self, _: bytes) -> bytes:
        try:
            self.platform.reset()
        except FormatError:
            return _result(_FAIL)
        return _result(_OK)

    def _stop(self, _: bytes) -> bytes:
        self.platform.power_off()
        return _result(_OK)

    def _shutdown(self, _: bytes) -> bytes:
        raise StopServerError(_result(_OK))

    def _get_established(self, _: bytes) -> bytes:
        return _result(_OK) + bytes([self.platform.established, 0, 0, 0])

    def _set_locality(self, payload: bytes) -> bytes:
        if payload[0] > LOCALITY_MAX:
            return _result(_BAD_LOCALITY)
        self.platform.locality = payload[0]
        return _result(_OK)

    def _hash_start(self, _: bytes) -> bytes:
        self.platform.hash_start()
        return _result(_OK)

    def _hash_data(self, payload: bytes) -> bytes:
        return _result(_OK if self.platform.hash_data(payload[4:]) else _FAIL)

    def _hash_end(self, _: bytes) -> bytes:
        self.platform.hash_end()
        return _result(_OK)

    def _nothing(self, _: bytes) -> bytes:
        return _result(_OK)

    def _reset_established(self, payload: bytes) -> bytes:
        return _result(_OK if self.platform.reset_established(payload[0]) else _BAD_LOCALITY)

    def _get_state(self, payload: bytes) -> bytes:
        _, kind, offset = _THREE_WORDS.unpack(payload)
        blob = self.platform.state_blob()
        if kind not in _STATE_TYPES or offset > len(blob):
            return _result(_BAD_PARAMETER) + bytes(12)
        return struct.pack(">IIII", _OK, 0, len(blob), len(blob) - offset) + blob[offset:]

    def _set_state(self, payload: bytes) -> bytes:
        _, kind, length = _THREE_WORDS.unpack_from(payload)
        if kind not in _STATE_TYPES:
            return _result(_BAD_PARAMETER)
        if length:
            self.platform.put_state_blob(kind, payload[_THREE_WORDS.size :])
        return _result(_OK)

    def _get_config(self, _: bytes) -> bytes:
        return _result(_OK) + bytes(4)

    def _set_buffer_size(self, _: bytes) -> bytes:
        return _result(_OK) + struct.pack(">III", *BUFFER_BYTES)

    def _get_info(self, payload: bytes) -> bytes:
        _, offset, _ = struct.unpack(">QII", payload)
        profile = self.platform.tpm.profile
        facts = {
            "TPMSpecification": {"family": "2.0", "level": 0, "revision": 164},
            "TPMAttributes": {
                "manufacturer": f"id:{profile.manufacturer_id:08X}",
                "version": f"id:{profile.firmware_version >> 32:08X}",
                "model": "vmksim",
            },
        }
        text = json.dumps(facts).encode() + b"\0"
        if offset > len(text):
            return _result(_BAD_PARAMETER) + bytes(8)
        return struct.pack(">III", _OK, len(text), len(text) - offset) + text[offset:]


_PASSES_DESCRIPTOR, _FRAMES_COMMANDS = 1 << 12, 1 << 15
CAPABILITIES = 0xFFFF & ~(_PASSES_DESCRIPTOR | _FRAMES_COMMANDS)
"""The answer to GET_CAPABILITY: all that swtpm 0.7.1 offers but for these two."""

CONTROL_BYTES = 4


def _result(code: int) -> bytes:
    return struct.pack(">I", code)
