"""The same commands, sent to swtpm and to the device, get the same codes, and the same bytes where nothing is secret.

The one difference that is accepted: a command with two faults at once, FlushContext of a slot that cannot exist and
bytes behind it, is blamed on the slot by swtpm and on the bytes here.
"""

import random
import socket
import struct
import subprocess
import time

import pytest

from sim.tpm.constants import TPM_CC, TPM_RC
from sim.tpm.device import Tpm
from sim.tpm.tables import COMMANDS

pytestmark = pytest.mark.client

COMMAND_COUNT = 6000
RETRY = TPM_RC.RETRY
EXACT = {
    TPM_CC.PCR_Extend,
    TPM_CC.PCR_Reset,
    TPM_CC.PCR_Event,
    TPM_CC.PCR_Read,
    TPM_CC.SelfTest,
    TPM_CC.Startup,
    TPM_CC.Shutdown,
    TPM_CC.StirRandom,
    TPM_CC.GetTestResult,
}
TOUCHES_DA = (TPM_CC.Quote, TPM_CC.CreatePrimary)


class Peer:
    """swtpm behind two sockets of the file system."""

    def __init__(self, program, folder):
        command, control = folder / "command", folder / "control"
        self.process = subprocess.Popen(
            [
                program,
                "socket",
                "--tpm2",
                "--tpmstate",
                f"dir={folder}",
                "--server",
                f"type=unixio,path={command}",
            ]
            + ["--ctrl", f"type=unixio,path={control}", "--flags", "not-need-init"],
            stderr=subprocess.DEVNULL,
        )
        self.command = self._connect(command)
        self.control = self._connect(control)

    def _connect(self, path):
        for _ in range(200):
            try:
                connection = socket.socket(socket.AF_UNIX)
                connection.settimeout(10)
                connection.connect(str(path))
            except OSError:
                connection.close()
                time.sleep(0.02)
            else:
                return connection
        pytest.fail("swtpm does not listen")

    def execute(self, command, locality):
        del locality
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

    def hash_sequence(self, data):
        self._tell(6)
        self._tell(7, struct.pack(">I", len(data)) + data)
        self._tell(8)

    def close(self):
        self.command.close()
        self.control.close()
        self.process.kill()
        self.process.wait()


class Ours(Tpm):
    """The device with the peer's face."""

    def set_locality(self, locality):
        """Nothing: the locality comes with each command."""

    def hash_sequence(self, data):
        """Drive a whole hash sequence."""
        self.hash_start()
        self.hash_data(data)
        self.hash_end()


class Maker:
    """Makes commands, mostly right, from a seeded generator."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def one_of(self, *values):
        return self.random.choice(values)

    def handle(self, *values):
        return struct.pack(">I", self.one_of(*values))

    def sized(self, *contents):
        content = self.one_of(*contents)
        return struct.pack(">H", len(content)) + content

    def sessions(self):
        if self.random.random() < 0.8:
            area = bytes.fromhex("400000090000000000")
        else:
            area = b"".join(
                self.handle(*[0x40000009] * 5, 0x02000000, 0x40000001)
                + self.sized(b"", b"", b"", b"x")
                + bytes([self.one_of(0, 0, 1, 0x20, 8)])
                + self.sized(b"", b"\0", b"pw")
                for _ in range(self.one_of(1, 1, 2, 3, 4))
            )
        return struct.pack(">I", len(area)) + area

    def selection(self):
        count = self.one_of(0, 1, 1, 2, 4, 5)
        return struct.pack(">I", count) + b"".join(
            struct.pack(">HB", self.one_of(4, 11, 11, 12, 13, 0x12), self.one_of(*[3] * 9, 2))
            + self.one_of(self.random.randbytes(3), b"\1\0\0")
            for _ in range(count)
        )

    def digests(self):
        count = self.one_of(0, 1, 1, 2, 4, 5)
        sizes = {4: 20, 11: 32, 12: 48, 13: 64}
        banks = [self.one_of(4, 11, 12, 13) for _ in range(count)]
        return struct.pack(">I", count) + b"".join(
            struct.pack(">H", bank) + self.random.randbytes(sizes[bank]) for bank in banks
        )

    def template(self):
        attributes = self.one_of(
            0x50072, 0x40072, 0x30072, 0x20072, 0x60072, 0x50472, 0x70072, self.random.getrandbits(20)
        )
        area = struct.pack(">HHI", 0x23, self.one_of(4, 11, 11, 12, 13, 0x10), attributes | 0x400)
        area += self.sized(b"", b"", b"p" * 32, b"p" * 20, b"p" * 65)
        area += self.one_of(
            b"\0\x10", b"\0\x10", bytes.fromhex("000600800043"), bytes.fromhex("000600c00043")
        )
        area += self.one_of(
            b"\0\x10", bytes.fromhex("0018000b"), bytes.fromhex("00180004"), bytes.fromhex("0019000b")
        )
        area += self.one_of(b"\0\3", b"\0\3", b"\0\3", b"\0\0") + self.one_of(
            b"\0\x10", b"\0\x10", bytes.fromhex("0022000b")
        )
        return area + self.sized(b"", b"1" * 32) + self.sized(b"", b"1" * 32)

    def body(self, code):
        pcr = self.handle(*range(24), 0x40000007, 24, 0x80000000)
        key = self.handle(0x80000000, 0x80000001, 0x80000002, 0x81000000, 0x02000000)
        primary = [self.handle(0x4000000B, 0x40000001, 0x40000007, 0x4000000C, 0x4000000A), self.sessions()]
        secrets = self.sized(b"", b"pw", b"a" * 32, b"a" * 33) + self.sized(b"", b"data")
        bodies = {
            TPM_CC.PCR_Extend: [pcr, self.sessions(), self.digests()],
            TPM_CC.PCR_Reset: [pcr, self.sessions()],
            TPM_CC.PCR_Event: [pcr, self.sessions(), self.sized(b"", b"event", b"e" * 1024, b"e" * 1025)],
            TPM_CC.PCR_Read: [self.selection()],
            TPM_CC.CreatePrimary: [
                *primary,
                self.sized(secrets),
                self.sized(self.template()),
                self.sized(b"", b"o" * 67),
                self.selection(),
            ],
            TPM_CC.FlushContext: [key],
            TPM_CC.ReadPublic: [key],
            TPM_CC.Quote: [
                key,
                self.sessions(),
                self.sized(b"n", b"n" * 67),
                self.one_of(b"\0\x10", bytes.fromhex("0018000b")),
                self.selection(),
            ],
            TPM_CC.GetCapability: [
                struct.pack(
                    ">III",
                    self.random.randrange(12),
                    self.one_of(0, 1, 0x100, 0x40000000, 0x80000000),
                    self.one_of(0, 1, 300),
                )
            ],
            TPM_CC.NV_ReadPublic: [self.handle(0x01C90000, 0x40000001)],
            TPM_CC.NV_Read: [
                self.handle(0x01C90000, 0x40000001),
                self.handle(0x01C90000),
                self.sessions(),
                bytes(4),
            ],
        }
        return b"".join(bodies.get(code, [self.random.randbytes(self.random.randrange(4))]))

    def command(self):
        code = self.one_of(*COMMANDS, TPM_CC.CreatePrimary, TPM_CC.CreatePrimary, TPM_CC.Quote)
        body = bytearray(self.body(code))
        if body and self.random.random() < 0.2:
            at = self.random.randrange(len(body))
            if self.random.random() < 0.5:
                body[at] = self.random.randrange(256)
            else:
                del body[at:]
        with_sessions = {
            TPM_CC.PCR_Extend,
            TPM_CC.PCR_Reset,
            TPM_CC.PCR_Event,
            TPM_CC.CreatePrimary,
            TPM_CC.Quote,
            TPM_CC.NV_Read,
        }
        return struct.pack(">HII", 0x8002 if code in with_sessions else 0x8001, 10 + len(body), code) + bytes(
            body
        )


@pytest.fixture
def both(program, tmp_path):
    ours = Ours(b"seed")
    ours.init()
    peer = Peer(program("swtpm"), tmp_path)
    yield peer, ours
    peer.close()


def startup(kind):
    return struct.pack(">HIIH", 0x8001, 12, TPM_CC.Startup, kind)


def shutdown(kind):
    return struct.pack(">HIIH", 0x8001, 12, TPM_CC.Shutdown, kind)


def code_of(response):
    return int.from_bytes(response[6:10], "big")


def execute(both, command, locality):
    """Run a command on both; swtpm may ask once for a retry."""
    peer, ours = both
    theirs = peer.execute(command, locality)
    if code_of(theirs) == RETRY:
        theirs = peer.execute(command, locality)
    return theirs, ours.execute(command, locality)


def test_random_commands_get_the_same_answers(both):
    maker = Maker(2)
    execute(both, startup(0), 0)
    reached = set()
    locality = 0
    for number in range(COMMAND_COUNT):
        if number % 12 == 0:
            locality = maker.one_of(0, 0, 1, 2, 3, 4)
            both[0].set_locality(locality)
        command = maker.command()
        code = int.from_bytes(command[6:10], "big")
        theirs, mine = execute(both, command, locality)
        assert code_of(mine) == code_of(theirs), (number, locality, command.hex())
        if code in EXACT:
            assert mine == theirs, (number, locality, command.hex())
        elif code != TPM_CC.GetCapability:
            assert len(mine) == len(theirs), (number, locality, command.hex())
        reached.add((code, code_of(mine)))

    assert len(reached) > 100


def test_random_power_cycles_leave_the_same_pcrs_and_counters(both):
    maker = Maker(2)
    execute(both, startup(0), 0)
    everything = bytes.fromhex("80010000001400000 17e00000001000b03".replace(" ", ""))
    clock = struct.pack(">HII", 0x8001, 10, TPM_CC.ReadClock)
    for _ in range(60):
        shutdown_type, startup_type = maker.one_of(None, 0, 1, 1), maker.one_of(0, 1, 1)
        locality, sequence = maker.one_of(0, 0, 3, 1), maker.one_of(None, None, b"h-crtm")
        if shutdown_type is not None:
            assert len(set(execute(both, shutdown(shutdown_type), 0))) == 1
        for tpm in both:
            tpm.init()
            if sequence is not None:
                tpm.hash_sequence(sequence)
            tpm.set_locality(locality)
        theirs, mine = execute(both, startup(startup_type), locality)
        assert theirs == mine, (shutdown_type, startup_type, locality, sequence)
        for tpm in both:
            tpm.set_locality(0)
        if code_of(mine):
            assert len(set(execute(both, startup(0), 0))) == 1
        theirs, mine = execute(both, clock, 0)
        assert theirs[26:] == mine[26:]  # resetCount, restartCount, safe
        if maker.one_of(True, False):
            for tpm in both:
                tpm.hash_sequence(b"launch")
        for mask in (b"\xff\0\0", b"\0\xff\0", b"\0\0\xff"):
            theirs, mine = execute(both, everything + mask, 0)
            assert theirs == mine
