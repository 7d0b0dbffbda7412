"""The protocol of the TCG reference simulator: enveloped commands on one port, platform signals on the next.

Models: what clients of that simulator send (libtss2's mssim, TSS.MSR, IBM's TSS, wolfTPM); a client may end a
connection by SESSION_END or by closing it.
Leaves out: alternative results, and the signals of authenticated countdown timers and firmware updates.
Source: TPM 2.0 Library part 4, simulator protocol of the reference code (numbers and order); measured with libtss2.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import AbstractContextManager

from sim.tpm.server.platform import LOCALITY_MAX, Platform
from sim.tpm.server.swtpm import HASH_DATA_BYTES_MAX, Message, StopServerError
from sim.tpm.server.wire import HungUpError, Wire

__all__ = ["PLATFORM_ONLY", "Commands", "Signals"]

HASH_START, HASH_DATA, HASH_END, SEND_COMMAND = 5, 6, 7, 8
REMOTE_HANDSHAKE, SESSION_END, STOP = 15, 20, 21
_SERVER_VERSION = 1
_AVAILABLE_RAW_PRESENCE = 0x0D
_DONE = struct.pack(">I", 0)
_WORD = struct.Struct(">I")


class Commands:
    """The command port: `serve` answers one message."""

    def __init__(self, platform: Platform, turn: Callable[[], AbstractContextManager[None]]) -> None:
        self.platform = platform
        self._turn = turn

    def serve(self, wire: Wire) -> bool:
        """Answer one message; False when the connection is to be closed."""
        if not wire.first(4):
            return False
        code = wire.u32()
        if code == SEND_COMMAND:
            return self._send_command(wire)
        if code == STOP:
            raise StopServerError(b"")
        if code == REMOTE_HANDSHAKE:
            wire.u32()
            wire.send(struct.pack(">II", _SERVER_VERSION, _AVAILABLE_RAW_PRESENCE) + _DONE)
            return True
        if code not in (HASH_START, HASH_DATA, HASH_END) or not self._hash(code, wire):
            return False
        wire.send(_DONE)
        return True

    def _send_command(self, wire: Wire) -> bool:
        envelope = wire.read(5)
        locality, size = envelope[0], _WORD.unpack_from(envelope, 1)[0]
        if locality > LOCALITY_MAX or size > self.platform.tpm.profile.command_bytes_max:
            return False
        if wire.waiting_bytes < size:
            wire.acknowledge()
        command = wire.read(size)
        with self._turn():
            response = self.platform.execute(command, locality)
        if not response:
            return False
        wire.send(_WORD.pack(len(response)) + response + _DONE)
        return True

    def _hash(self, code: int, wire: Wire) -> bool:
        length = wire.u32() if code == HASH_DATA else 0
        if length > HASH_DATA_BYTES_MAX:
            return False
        data = wire.read(length)
        with self._turn():
            if code == HASH_START:
                self.platform.hash_start()
            elif code == HASH_END:
                self.platform.hash_end()
            else:
                return self.platform.hash_data(data)
        return True


class Signals:
    """The platform port: `read` takes one signal from a wire, `apply` gives it to the platform and answers."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    @staticmethod
    def read(wire: Wire) -> Message:
        """Take one signal from the wire."""
        return wire.u32(), b""

    def apply(self, message: Message) -> bytes:
        """Apply a signal and return the answer."""
        code, _ = message
        platform = self.platform
        match code:
            case 1:
                platform.power_on()
            case 2:
                platform.power_off()
            case 3 | 4:
                platform.set_presence(code == 3)
            case 17 | 18:
                platform.reset()
            case 21:
                raise StopServerError(b"")
            case 30:
                platform.enter_failure_mode()
            case 9 | 10 | 11 | 12 | 13 | 14:
                pass
            case _:
                raise HungUpError
        return _DONE


PLATFORM_ONLY = frozenset({1, 2, 11, 12, 13, 17, 18, 20, 21, 25, 30})
"""First messages of exactly four bytes on the control port that only a client of this protocol sends."""
