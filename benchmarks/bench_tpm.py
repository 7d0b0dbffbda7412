"""The TPM against swtpm on the same machine, over its own socket: in process, and over TCP.

Both sides run the same commands, warm, in alternating rounds, and a ratio is of the best rounds.  A round is shorter
than a time slice of the system's, so that among many of them some are undisturbed on both sides, whatever else the
machine does; rounds are added until for a long while none was better than the best.  Over a socket the rate of small commands depends most of all on
whether client and server share a core: so both servers are put on the client's core, where the system lets us, and that
placement has the bar.  On another core the time is that of waking it, and half of the rounds take twice as long as the
other half: the median of that is printed, and has no bar.  Absent swtpm, there is nothing to compare with.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sim.tpm.constants import TPM_ALG, TPM_CC
from sim.tpm.device import Tpm
from sim.tpm.requests import CommandSpec
from sim.tpm.tables import COMMANDS
from sim.tpm.templates import ATTESTATION_KEY
from sim.tpm.wire import TPM2B_PUBLIC, TPMT_HA

ROUNDS_SETTLED = 150
ROUNDS_MAX = 1500
ROUNDS_APART = 100
BETTER = 1.01
"""What counts as better than the best rate so far."""
SMALL_COUNT = 80
QUOTE_COUNT = 8
BOOTS_ROUNDS = 7
BOOTS_EXTENDS = 3000
RSA_KEYS = 24
RETRY = 0x922
"""What swtpm answers once, before it first uses what guards against guessing."""
STARTUP = bytes.fromhex("80010000000c000001440000")
PASSWORD = bytes.fromhex("00000009400000090000000000")
SHA256 = TPM_ALG.SHA256.value


def packet(tag: int, code: int, body: bytes) -> bytes:
    return struct.pack(">HII", tag, 10 + len(body), code) + body


def extend(pcr: int, digest: bytes) -> bytes:
    body = struct.pack(">I", pcr) + PASSWORD + struct.pack(">IH", 1, SHA256) + digest
    return packet(0x8002, TPM_CC.PCR_Extend, body)


def create_primary(template: bytes) -> bytes:
    body = bytes.fromhex("40000001") + PASSWORD + bytes.fromhex("000400000000") + template
    return packet(0x8002, TPM_CC.CreatePrimary, body + b"\0\0" + bytes(4))


def flush(handle: int) -> bytes:
    return packet(0x8001, TPM_CC.FlushContext, struct.pack(">I", handle))


def quote(handle: int) -> bytes:
    selection = bytes.fromhex("00000001000b03ff0000")
    return packet(0x8002, TPM_CC.Quote, struct.pack(">I", handle) + PASSWORD + b"\0\5nonce\0\x10" + selection)


def reset(pcr: int) -> bytes:
    return packet(0x8002, TPM_CC.PCR_Reset, struct.pack(">I", pcr) + PASSWORD)


READ = packet(0x8001, TPM_CC.PCR_Read, bytes.fromhex("00000001000b03ff0000"))
EXTEND = extend(16, b"x" * 32)
RESET = reset(16)
"""Before each round: the event log beside our PCRs is then as short as it is in a machine."""
RSA_2048 = bytes.fromhex("0001000b0003007200000006008000430010080000000000")
KEY = TPM2B_PUBLIC.encode(ATTESTATION_KEY)


class OverTcp:
    """A TPM at a command port."""

    def __init__(self, port: int) -> None:
        for _ in range(300):
            try:
                self.connection = socket.create_connection(("127.0.0.1", port), timeout=60)
                break
            except OSError:
                time.sleep(0.02)
        else:
            raise SystemExit(f"nobody listens on port {port}")
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def execute(self, command: bytes) -> bytes:
        """Send a command and return the answer."""
        self.connection.sendall(command)
        answer = self.connection.recv(4096)
        while len(answer) < 10 or len(answer) < int.from_bytes(answer[2:6], "big"):
            answer += self.connection.recv(4096)
        return answer


def need(answer: bytes) -> bytes:
    rc = int.from_bytes(answer[6:10], "big")
    if rc:
        raise SystemExit(f"a benchmark's command was refused with 0x{rc:x}")
    return answer


def started(tpm: Tpm | OverTcp) -> Tpm | OverTcp:
    tpm.execute(STARTUP)
    for command in (create_primary(KEY), quote(0x80000000)):
        answer = tpm.execute(command)
        need(tpm.execute(command) if int.from_bytes(answer[6:10], "big") == RETRY else answer)
    return tpm


def rate(tpm: Tpm | OverTcp, command: bytes, count: int) -> float:
    execute = tpm.execute
    begin = time.perf_counter()
    for _ in range(count):
        execute(command)
    return count / (time.perf_counter() - begin)


def best_rates(sides: list[tuple[Tpm | OverTcp, bytes, int]]) -> list[float]:
    """Return the best rate of each side (a TPM, the command it runs, and how often in a round)."""
    best = [0.0] * len(sides)
    settled = rounds = 0
    while settled < ROUNDS_SETTLED and rounds < ROUNDS_MAX:
        rounds += 1
        settled += 1
        for number, (tpm, command, count) in enumerate(sides):
            need(tpm.execute(RESET))
            found = rate(tpm, command, count)
            if found > best[number] * BETTER:
                settled = 0
            best[number] = max(best[number], found)
    return best


def median_ratio(ours: Tpm | OverTcp, theirs: Tpm | OverTcp, command: bytes, count: int) -> float:
    return statistics.median(
        rate(ours, command, count) / rate(theirs, command, count) for _ in range(ROUNDS_APART)
    )


def rsa_template(number: int) -> bytes:
    """Return a template whose unique field makes it another key's."""
    area = RSA_2048 + struct.pack(">HI", 4, number)
    return struct.pack(">H", len(area)) + area


def primary_seconds(tpm: Tpm | OverTcp) -> float:
    """Mean time of RSA-2048 primaries, all of them different keys."""
    total = 0.0
    for number in range(RSA_KEYS):
        command = create_primary(rsa_template(number))
        begin = time.perf_counter()
        answer = need(tpm.execute(command))
        total += time.perf_counter() - begin
        need(tpm.execute(flush(int.from_bytes(answer[10:14], "big"))))
    return total / RSA_KEYS


def boots_against_the_floor() -> float:
    """Time of the extends of 20 boots, against hashing and marshalling alone."""
    digests = [hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(BOOTS_EXTENDS)]
    spec = COMMANDS[TPM_CC.PCR_Extend]
    best = []
    for _ in range(BOOTS_ROUNDS):
        tpm = started(fresh())
        begin = time.perf_counter()
        for digest in digests:
            tpm.execute(extend(7, digest))
        spent = time.perf_counter() - begin
        best.append((spent, floor(spec, digests)))
    return min(spent for spent, _ in best) / min(bare for _, bare in best)


def floor(spec: CommandSpec, digests: list[bytes]) -> float:
    codec, value = spec.parameters[0], bytes(32)
    begin = time.perf_counter()
    for digest in digests:
        command = extend(7, digest)
        struct.unpack_from(">HII", command)
        decoded, _ = codec.decode(command, 27, len(command))
        value = hashlib.sha256(value + decoded[0].digest).digest()
        codec.encode((TPMT_HA(hashAlg=SHA256, digest=digest),))
        struct.pack(">HIIIHBH", 0x8002, 19, 0, 0, 0, 1, 0)
    return time.perf_counter() - begin


def fresh() -> Tpm:
    tpm = Tpm(b"benchmark")
    tpm.init()
    return tpm


def figure(name: str, value: float, bar: float, sense: str = ">=") -> dict[str, object]:
    against = "swtpm over its socket" if "floor" not in name else "hashing and marshalling alone"
    return {
        "name": f"tpm: {name}",
        "value": value,
        "unit": "x",
        "against": against,
        "bar": bar,
        "sense": sense,
        "wording": f"{name}: {value:.2f} x {against}",
    }


def run() -> list[dict[str, object]]:
    figures = [figure("extends of 20 boots, time over the floor", boots_against_the_floor(), 3, "<=")]
    if shutil.which("swtpm") is None:
        print("  swtpm is absent: nothing to compare with")
        return figures
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}", "--flags", "not-need-init"]
        command += ["--server", f"type=tcp,port={port}", "--ctrl", f"type=tcp,port={port + 1}"]
        peer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        server = subprocess.Popen(
            [sys.executable, "-m", "sim", "tpm", "serve", "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parent.parent,
        )
        try:
            assert server.stdout is not None
            ours_port = int(server.stdout.readline().split("commands ")[1].split(",")[0])
            tcp, swtpm = started(OverTcp(ours_port)), started(OverTcp(port))
            figures += compared(started(fresh()), tcp, swtpm, lambda core: pin((server.pid, peer.pid), core))
        finally:
            for process in (peer, server):
                process.kill()
                process.wait()
    return figures


def free_port() -> int:
    """Return a port that is free together with the one after it."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = int(listener.getsockname()[1]) - 1
            try:
                socket.create_server(("127.0.0.1", port)).close()
            except OSError:
                continue
            return port


def cores() -> list[int]:
    """Return the cores that this process may run on; none where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def pin(servers: tuple[int, ...], core: int) -> None:
    """Keep every thread of the servers on one core."""
    for server in servers:
        for thread in Path(f"/proc/{server}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


def compared(
    inside: Tpm | OverTcp, tcp: Tpm | OverTcp, peer: Tpm | OverTcp, put: Callable[[int], None]
) -> list[dict[str, object]]:
    allowed = cores()
    figures = []
    if allowed:
        os.sched_setaffinity(0, {allowed[0]})
        put(allowed[0])
    figures += rates("in process", inside, peer, 1.0, 2.0)
    figures += rates("over TCP" + (", one core" if allowed else ""), tcp, peer, 0.5, 1.0)
    if len(allowed) > 1:
        put(allowed[1])
        for what, command, count in (("PCR_Extend", EXTEND, SMALL_COUNT), ("PCR_Read", READ, SMALL_COUNT)):
            print(
                f"  tpm: {what} over TCP, two cores, rate: {median_ratio(tcp, peer, command, count):.3f} x (no bar)"
            )
    if allowed:
        os.sched_setaffinity(0, set(allowed))
    theirs = primary_seconds(peer)
    first = primary_seconds(inside)
    again = primary_seconds(inside)
    figures.append(figure("CreatePrimary RSA-2048 the first time, time", first / theirs, 12, "<="))
    figures.append(figure("CreatePrimary RSA-2048 again, rate", theirs / again, 1))
    return figures


def rates(
    where: str, door: Tpm | OverTcp, peer: Tpm | OverTcp, small_bar: float, quote_bar: float
) -> list[dict[str, object]]:
    asked = (
        ("PCR_Extend", EXTEND, SMALL_COUNT, small_bar),
        ("PCR_Read", READ, SMALL_COUNT, small_bar),
        ("Quote P-256", quote(0x80000000), QUOTE_COUNT, quote_bar),
    )
    best = best_rates([(tpm, command, count) for _, command, count, _ in asked for tpm in (door, peer)])
    return [
        figure(f"{what} {where}, rate", best[2 * n] / best[2 * n + 1], bar)
        for n, (what, _, _, bar) in enumerate(asked)
    ]
