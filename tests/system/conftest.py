"""A TPM behind its TCP server, and tpm2-tools that talk to it.

VMKSIM_CLIENTS_AGAINST=swtpm runs the same tests on swtpm instead, which shows that it is the tests that are right.
"""

import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sim import cli
from sim.core.rng import Rng
from sim.tpm.device import Tpm
from sim.tpm.profile import TpmProfile
from sim.tpm.server.listener import TpmServer
from sim.tpm.server.platform import Platform
from sim.tpm.words import in_words

TOOL_SECONDS_MAX = 60
SLOTS = 16
LINES_SHOWN = 12
POWER_CYCLES = {
    "swtpm": [bytes.fromhex("0000000200000000")],
    "mssim": [b"\0\0\0\2", b"\0\0\0\1", b"\0\0\0\x0b"],
}


class Tools:
    """Runs tpm2-tools and other programs in one folder, against one TPM; a failure shows what the TPM was asked."""

    def __init__(self, folder, tcti, find, trace):
        self.folder = folder
        self.trace = trace
        self.frugal = False
        self._find = find
        self._environment = {**os.environ, "TPM2TOOLS_TCTI": tcti, "TSS2_LOG": "all+NONE", "LC_ALL": "C"}

    def __call__(self, line, *, fails=False):
        """Run a tool, such as `tools("pcrread sha256:7")`, and return its output."""
        name, *arguments = shlex.split(line)
        done = self._run([self._find(f"tpm2_{name}"), *arguments])
        self._check(line, done, fails)
        if self.frugal and name != "flushcontext":
            self("flushcontext -t")
        return done.stdout.decode(errors="replace") if not fails else done.stderr.decode(errors="replace")

    def run(self, line, *, fails=False, stdin=None):
        """Run any other program, such as openssl, and return what it printed."""
        name, *arguments = shlex.split(line)
        done = self._run([self._find(name), *arguments], stdin)
        self._check(line, done, fails)
        return done.stdout

    def _run(self, command, stdin=None):
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            input=stdin if stdin is not None else b"",
            capture_output=True,
            timeout=TOOL_SECONDS_MAX,
        )

    def _check(self, line, done, fails):
        if bool(done.returncode) != fails:
            asked = "\n".join(self.trace[-LINES_SHOWN:])
            pytest.fail(f"{line}: exit status {done.returncode}\n{done.stderr.decode()}\n{asked}")

    def power_cycle(self):
        """Reset the TPM through its control port, as the machine's reset line does."""
        port = int(self._environment["TPM2TOOLS_TCTI"].rpartition("=")[2]) + 1
        message = POWER_CYCLES[self._environment["TPM2TOOLS_TCTI"].partition(":")[0]]
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            for each in message:
                connection.sendall(each)
                assert connection.recv(64) == bytes(4)

    def write(self, name, content):
        """Write a file into the folder."""
        data = content if isinstance(content, bytes) else content.encode()
        (self.folder / name).write_bytes(data)
        return name

    def read(self, name):
        """Return the content of a file of the folder."""
        return (self.folder / name).read_bytes()


def served(tpm, trace):
    platform = Platform(
        tpm, running=tpm.started, on_command=lambda *command: trace.append(in_words(*command))
    )
    server = TpmServer(platform)
    server.start()
    return server


@pytest.fixture
def vmksim(capsys):
    """A function that runs the command and returns (exit status, standard output, standard error)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture
def device():
    """The TPM that the tools talk to, new and not yet started."""
    return Tpm(Rng(7).stream("tpm"), TpmProfile(transient_slots=SLOTS))


@pytest.fixture
def protocol(request):
    """Which of the two protocols the clients of a test module speak (its PROTOCOL)."""
    return getattr(request.module, "PROTOCOL", "swtpm")


@pytest.fixture
def tools(program, tmp_path, device, protocol):
    """tpm2-tools with a TPM that was started."""
    program("tpm2_startup")
    if os.environ.get("VMKSIM_CLIENTS_AGAINST") == "swtpm":
        yield from tools_of_swtpm(program, tmp_path)
        return
    trace = []
    server = served(device, trace)
    tools = Tools(tmp_path, f"{protocol}:host=127.0.0.1,port={server.port}", program, trace)
    tools("startup -c")
    yield tools
    server.stop()


def tools_of_swtpm(program, folder):
    """Yield tpm2-tools with swtpm, which has three slots and one protocol."""
    port = 20000 + os.getpid() % 10000 * 2
    (folder / "state").mkdir()
    command = [program("swtpm"), "socket", "--tpm2", "--tpmstate", f"dir={folder / 'state'}"]
    command += ["--server", f"type=tcp,port={port}", "--ctrl", f"type=tcp,port={port + 1}"]
    peer = subprocess.Popen([*command, "--flags", "not-need-init,startup-clear"], stderr=subprocess.DEVNULL)
    time.sleep(0.3)
    tools = Tools(folder, f"swtpm:host=127.0.0.1,port={port}", program, [])
    tools.frugal = True
    yield tools
    peer.kill()
    peer.wait()


@pytest.fixture
def serve_process():
    """A function that starts `vmksim tpm serve` with options and returns the process and its port."""
    processes = []

    def start(*options):
        process = subprocess.Popen(
            [sys.executable, "-m", "sim", "tpm", "serve", "--port", "0", *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        processes.append(process)
        line = process.stdout.readline()
        if "commands " not in line:
            pytest.fail(f"no server: {line}{process.stderr.read()}")
        return process, int(line.split("commands ")[1].split(",")[0])

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
