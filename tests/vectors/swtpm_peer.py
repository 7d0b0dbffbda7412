"""swtpm as a peer, our device with the same face, and the building of raw commands, for the differential tests."""

import socket
import struct
import subprocess
import time

import pytest

from sim.tpm.constants import TPM_CC, TPM_RC
from sim.tpm.device import Tpm

OWNER, PLATFORM, ENDORSEMENT, NULL, LOCKOUT = 0x40000001, 0x4000000C, 0x4000000B, 0x40000007, 0x4000000A


class Peer:
    """swtpm behind two sockets of the file system."""

    def __init__(self, program, folder):
        command, control = folder / "command", folder / "control"
        self.process = subprocess.Popen(
            [program, "socket", "--tpm2", "--tpmstate", f"dir={folder}"]
            + ["--server", f"type=unixio,path={command}", "--ctrl", f"type=unixio,path={control}"]
            + ["--flags", "not-need-init"],
            stderr=subprocess.DEVNULL,
        )
        self.command = self._connect(command)
        self.control = self._connect(control)

    def _connect(self, path):
        for _ in range(200):
            try:
                connection = socket.socket(socket.AF_UNIX)
                connection.settimeout(20)
                connection.connect(str(path))
            except OSError:
                connection.close()
                time.sleep(0.02)
            else:
                return connection
        pytest.fail("swtpm does not listen")

    def execute(self, command, locality=0):
        """Run a command at the locality that was set; a request to retry is followed."""
        del locality
        response = self._execute(command)
        return self._execute(command) if code_of(response) == TPM_RC.RETRY else response

    def _execute(self, command):
        self.command.sendall(command)
        response = self._read(10)
        return response + self._read(struct.unpack(">I", response[2:6])[0] - 10)

    def _read(self, count):
        data = b""
        while len(data) < count:
            piece = self.command.recv(count - len(data))
            if not piece:
                pytest.fail("swtpm hung up")
            data += piece
        return data

    def _tell(self, code, payload=b""):
        self.control.sendall(struct.pack(">I", code) + payload)
        assert self.control.recv(64)[:4] == bytes(4)

    def set_locality(self, locality):
        self._tell(5, bytes([locality]))

    def init(self):
        self._tell(2, bytes(4))

    def close(self):
        self.command.close()
        self.control.close()
        self.process.kill()
        self.process.wait()


class Ours:
    """Our device with the peer's face."""

    def __init__(self, seed=b"seed", **settings):
        self.tpm = Tpm(seed, **settings)
        self.tpm.init()
        self.locality = 0

    def execute(self, command, locality=0):
        return self.tpm.execute(command, self.locality or locality)

    def set_locality(self, locality):
        self.locality = locality

    def init(self):
        self.tpm.init()


def password(value=b""):
    return struct.pack(">IHBH", 0x40000009, 0, 0, len(value)) + value


def command(code, handles=(), parameters=b"", passwords=None):
    """Build a command; `passwords` (one a session) makes it one with sessions."""
    body = b"".join(struct.pack(">I", handle) for handle in handles)
    if passwords is not None:
        area = b"".join(map(password, passwords))
        body += struct.pack(">I", len(area)) + area
    body += parameters
    tag = 0x8001 if passwords is None else 0x8002
    return struct.pack(">HII", tag, 10 + len(body), code) + body


def sized(content):
    return struct.pack(">H", len(content)) + content


def code_of(response):
    return int.from_bytes(response[6:10], "big")


def startup(kind=0):
    return command(TPM_CC.Startup, parameters=struct.pack(">H", kind))


def shutdown(kind=0):
    return command(TPM_CC.Shutdown, parameters=struct.pack(">H", kind))
