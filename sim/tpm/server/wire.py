"""A client's connection, bounded in size and time.

Models: reading whole messages from a stream; a message that has begun must be complete within a time, a silent
connection is closed after a longer one.
Leaves out: encryption and authentication: the server listens on loopback only.
Source: for the acknowledgements, tcp(7), TCP_QUICKACK.
"""

from __future__ import annotations

import socket
import struct
import time

__all__ = ["IDLE_SECONDS_MAX", "MESSAGE_SECONDS_MAX", "HungUpError", "Wire"]

IDLE_SECONDS_MAX = 3600
MESSAGE_SECONDS_MAX = 10.0
SEND_SECONDS_MAX = 10
_PIECE_BYTES = 8192
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


class HungUpError(Exception):
    """The peer closed the connection, was too slow, or broke the protocol."""


class Wire:
    """One connection; `read` returns exactly what it is asked for."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._buffer = b""
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(True)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            seconds = IDLE_SECONDS_MAX if option == socket.SO_RCVTIMEO else SEND_SECONDS_MAX
            connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", seconds, 0))

    def first(self, count: int) -> bytes:
        """Wait for the first `count` bytes of a message, which stay unread; b"" at a clean end."""
        if len(self._buffer) < count:
            if not self._buffer:
                self._buffer = self._receive()
                if not self._buffer:
                    return b""
            self._fill(count)
        return self._buffer[:count]

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes of a message that has begun."""
        if len(self._buffer) < count:
            self._fill(count)
        data = self._buffer
        if len(data) == count:  # as nearly always: a client waits for the answer before it goes on
            self._buffer = b""
            return data
        self._buffer = data[count:]
        return data[:count]

    def u32(self) -> int:
        """Return the next four bytes as a number."""
        return int.from_bytes(self.read(4), "big")

    @property
    def waiting_bytes(self) -> int:
        """How many bytes have come and are not read yet."""
        return len(self._buffer)

    def send(self, data: bytes) -> None:
        """Send everything in one piece where the network allows."""
        try:
            self.connection.sendall(data)
        except OSError:
            raise HungUpError from None

    def acknowledge(self) -> None:
        """Acknowledge at once what has come: some clients send a message in two parts and wait in between."""
        if _QUICKACK is not None and self.connection.family == socket.AF_INET:
            self.connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def _fill(self, count: int) -> None:
        """Receive until `count` bytes are there, all within the time of one message."""
        if len(self._buffer) >= count:
            return
        deadline = time.monotonic() + MESSAGE_SECONDS_MAX
        try:
            while len(self._buffer) < count:
                self.connection.settimeout(max(0.001, deadline - time.monotonic()))
                piece = self._receive()
                if not piece or time.monotonic() > deadline:
                    raise HungUpError
                self._buffer += piece
        finally:
            self.connection.settimeout(None)

    def _receive(self) -> bytes:
        try:
            return self.connection.recv(_PIECE_BYTES)
        except OSError:
            raise HungUpError from None
