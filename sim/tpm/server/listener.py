"""The TCP server: two ports on loopback, a thread for each connection, one command at a time.

Models: both protocols on the same ports, found out from the first bytes of each connection.
Leaves out: other network addresses than loopback, since nobody is authenticated.
Source: the first words of the two protocols (`sim.tpm.server.swtpm`, `sim.tpm.server.mssim`): a bare command begins
with 0x8001 or 0x8002, a message of the reference simulator with a number below 32.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from sim.tpm.server import mssim, swtpm
from sim.tpm.server.platform import Platform
from sim.tpm.server.wire import HungUpError, Wire

__all__ = ["PROTOCOLS", "TpmServer"]

PROTOCOLS = ("auto", "swtpm", "mssim")
CONNECTIONS_MAX = 64
_PAUSE_SECONDS = 0.05
_WAKE_SECONDS_MAX = 5
_HOST = "127.0.0.1"
_MSSIM_WORD_MAX = 31


class TpmServer:
    """Serves one TPM on `port` (commands) and `control_port`; port 0 means any free one."""

    def __init__(
        self, platform: Platform, *, port: int = 0, control_port: int | None = None, protocol: str = "auto"
    ) -> None:
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol must be one of {PROTOCOLS}, got {protocol!r}")
        self.platform = platform
        self.protocol = protocol
        self._lock = threading.Lock()
        self._closed = False
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._places = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._commands, self._control = _listen(port, control_port)
        self._swtpm_control = swtpm.Control(platform)
        self._mssim_commands = mssim.Commands(platform, self._turn)
        self._mssim_signals = mssim.Signals(platform)

    @property
    def port(self) -> int:
        """The port of the commands."""
        return int(self._commands.getsockname()[1])

    @property
    def control_port(self) -> int:
        """The port of the control messages."""
        return int(self._control.getsockname()[1])

    def start(self) -> None:
        """Begin to accept connections, in threads that end with the process."""
        for listener, serve in ((self._commands, self._serve_commands), (self._control, self._serve_control)):
            thread = threading.Thread(target=self._accept, args=(listener, serve), daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until a client or `stop` ends the server; False when the time is over before."""
        return self._stopped.wait(seconds)

    def stop(self) -> None:
        """Stop: no command runs any more when this returns, and nobody listens on the ports.

        A thread in accept() keeps a closed socket listening, and may take a connection of whoever gets the same file
        descriptor next: so both threads end before their sockets are closed.
        """
        self._stopped.set()
        for listener in (self._commands, self._control) if self._threads else ():
            with contextlib.suppress(OSError):  # a full backlog wakes the thread as well
                socket.create_connection(listener.getsockname(), timeout=_WAKE_SECONDS_MAX).close()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        for listener in (self._commands, self._control):
            listener.close()
        with self._lock:
            self._closed = True

    def request_stop(self) -> None:
        """Make `wait` return; safe to call from a signal handler."""
        self._stopped.set()

    def _accept(self, listener: socket.socket, serve: Callable[[Wire], None]) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = listener.accept()
            except (
                OSError
            ):  # the client is gone already, or there is no descriptor left: the next may have more luck
                self._stopped.wait(_PAUSE_SECONDS)
                continue
            if self._stopped.is_set() or not self._admit(connection, serve):
                connection.close()

    def _admit(self, connection: socket.socket, serve: Callable[[Wire], None]) -> bool:
        """Give the connection a thread; False when there is no place for one more."""
        if not self._places.acquire(blocking=False):
            return False
        try:
            threading.Thread(target=self._attend, args=(connection, serve), daemon=True).start()
        except RuntimeError:  # the machine has no thread left
            self._places.release()
            return False
        return True

    def _attend(self, connection: socket.socket, serve: Callable[[Wire], None]) -> None:
        try:
            with connection:
                self._until_stopped(Wire(connection), serve)
        except (HungUpError, OSError):
            pass
        finally:
            self._places.release()

    def _until_stopped(self, wire: Wire, serve: Callable[[Wire], None]) -> None:
        try:
            serve(wire)
        except swtpm.StopServerError as stop:
            try:
                wire.send(stop.args[0])
            finally:
                self._stopped.set()

    def _serve_commands(self, wire: Wire) -> None:
        limit = self.platform.tpm.profile.command_bytes_max
        first = wire.first(4)
        if not first:
            return
        if self._is_mssim(int.from_bytes(first, "big") <= _MSSIM_WORD_MAX):
            while self._mssim_commands.serve(wire):
                pass
        else:
            while swtpm.serve_command(wire, self._execute, limit):
                pass

    def _serve_control(self, wire: Wire) -> None:
        first = wire.first(4)
        if not first:
            return
        alone = wire.waiting_bytes == swtpm.CONTROL_BYTES
        looks_mssim = alone and int.from_bytes(first, "big") in mssim.PLATFORM_ONLY
        handler: mssim.Signals | swtpm.Control = self._swtpm_control
        if self._is_mssim(looks_mssim):
            handler = self._mssim_signals
        while wire.first(4):
            message = handler.read(wire)
            with self._turn():
                answer = handler.apply(message)
            wire.send(answer)

    def _is_mssim(self, looks_so: bool) -> bool:  # noqa: FBT001 - what the first bytes say
        return looks_so if self.protocol == "auto" else self.protocol == "mssim"

    def _execute(self, command: bytes) -> bytes:
        with self._turn():
            return self.platform.execute(command)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Have the platform alone; once the server has stopped, the client is hung up on instead."""
        with self._lock:
            if self._closed:
                raise HungUpError
            yield


def _listen(port: int, control_port: int | None) -> tuple[socket.socket, socket.socket]:
    """Open both ports; with port 0 a pair of neighbours is searched, as libtss2 wants them."""
    if port or control_port is not None:
        control = port + 1 if control_port is None else control_port
        return _open(port), _open(control)
    for _ in range(100):
        try:
            commands = _open(0)
        except OSError:  # another process bound the same port, and was the first to listen
            continue
        try:
            return commands, _open(commands.getsockname()[1] + 1)
        except (OSError, OverflowError):
            commands.close()
    raise OSError("no two free neighbouring ports")


def _open(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener
