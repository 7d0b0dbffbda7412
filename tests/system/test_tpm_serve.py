"""`vmksim tpm serve` as a process: real clients, state that outlives it, and files that a crash cannot break."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from sim import cli
from sim.tpm.server.platform import Platform
from sim.tpm.state import load, save

STARTUP = bytes.fromhex("80010000000c000001440000")
GET_RANDOM = bytes.fromhex("80010000000c0000017b0008")
SHUTDOWN = bytes.fromhex("80010000000c000001450000")


def ask(port, command):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(command)
        return connection.recv(4096)


def stop(process):
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def define(index):
    """NV_DefineSpace of an ordinary 8-byte index for the owner, with an empty password."""
    public = bytes.fromhex("000e") + index.to_bytes(4, "big") + bytes.fromhex("000b0002000200000008")
    body = bytes.fromhex("40000001000000094000000900000000000000") + public
    return bytes.fromhex("8002") + (10 + len(body)).to_bytes(4, "big") + bytes.fromhex("0000012a") + body


def test_sigterm_saves_and_the_next_server_goes_on(serve_process, tmp_path):
    state = tmp_path / "tpm.state"
    process, port = serve_process("--state", state, "--seed", 5)
    assert ask(port, STARTUP)[6:10] == bytes(4)
    first = ask(port, GET_RANDOM)
    stop(process)
    _, port = serve_process("--state", state, "--seed", 99)
    ask(port, STARTUP)
    second = ask(port, GET_RANDOM)
    _, port = serve_process("--seed", 5)
    ask(port, STARTUP)
    assert [ask(port, GET_RANDOM), ask(port, GET_RANDOM)] == [first, second]


def test_a_kill_loses_nothing_that_was_confirmed(serve_process, tmp_path):
    state = tmp_path / "tpm.state"
    process, port = serve_process("--state", state)
    ask(port, STARTUP)
    for number in range(5):
        assert ask(port, define(0x01500001 + number))[6:10] == bytes(4)
    process.kill()
    process.wait()
    assert sorted(load(state).nv) == [0x01500001 + number for number in range(5)]


@pytest.mark.parametrize("moment", range(6))
def test_a_kill_at_any_moment_leaves_a_whole_file(serve_process, tmp_path, moment):
    state = tmp_path / "tpm.state"
    process, port = serve_process("--state", state)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(STARTUP)
        connection.recv(4096)
        connection.sendall(define(0x01500001))
        connection.recv(4096)
        for _ in range(3 + moment * 7):
            connection.sendall(SHUTDOWN)
            connection.recv(4096)
        connection.sendall(SHUTDOWN)
        time.sleep(moment * 0.0007)
        process.kill()
        process.wait()
    assert 0x01500001 in load(state).nv


COUNTER = 0x01500007
DEFINE_COUNTER = define(COUNTER).replace(bytes.fromhex("000b00020002"), bytes.fromhex("000b00020012"))
INCREMENT = bytes.fromhex("80020000001f00000134") + bytes.fromhex(
    "40000001" + f"{COUNTER:08x}" + "00000009" + "40000009" + "0000000000"
)


def count_until_killed(state, confirm):
    """Increment the counter and save, as the server does; tell each value once it is on the disk."""
    tpm = load(state)
    platform = Platform(tpm, on_write=lambda changed: save(changed, state))
    platform.execute(STARTUP)
    while True:
        assert platform.execute(INCREMENT)[6:10] == bytes(4)
        os.write(confirm, tpm.nv[COUNTER].content)


def test_forty_kills_at_random_moments_lose_nothing_that_was_confirmed(tmp_path, device):
    state, chance = tmp_path / "tpm.state", random.Random(4)
    device.init()
    for command in (STARTUP, DEFINE_COUNTER, INCREMENT):
        assert device.execute(command)[6:10] == bytes(4)
    save(device, state)
    value = int.from_bytes(device.nv[COUNTER].content, "big")
    for _ in range(40):
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                count_until_killed(state, writer)
            finally:
                os._exit(1)
        os.close(writer)
        with os.fdopen(reader, "rb") as confirmed:
            begun = confirmed.read(8 * chance.randrange(1, 5))
            time.sleep(chance.random() * 0.005)
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            told = int.from_bytes((begun + confirmed.read())[-8:], "big")
        assert os.WTERMSIG(status) == signal.SIGKILL
        kept = int.from_bytes(load(state).nv[COUNTER].content, "big")
        assert kept in (told, told + 1)
        assert kept > value
        value = kept


def test_a_damaged_file_is_named_and_left_alone(tmp_path, device, capsys):
    state = tmp_path / "tpm.state"
    save(device, state)
    damaged = bytearray(state.read_bytes())
    damaged[500] ^= 4
    state.write_bytes(bytes(damaged))
    for command in (["serve", "--port", "0", "--state", str(state)], ["inspect", str(state)]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["tpm", *command])
        assert ended.value.code == 2
        assert "corrupted" in capsys.readouterr().err
    assert state.read_bytes() == bytes(damaged)


def test_inspect_shows_what_is_in_a_file(tmp_path, device, capsys):
    older, newer = tmp_path / "older.state", tmp_path / "newer.state"
    device.init()
    device.execute(STARTUP)
    save(device, older)
    device.execute(define(0x01500001))
    save(device, newer)

    def shown(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["tpm", "inspect", *map(str, arguments)])
        assert ended.value.code == 0
        return capsys.readouterr().out

    text = shown(newer)
    assert "manufacturer IBM" in text
    assert "0x01500001" in text
    assert "PCRs, SHA256" in text
    assert "nv[0x01500001]" in shown(newer, "--against", older)
    assert "hierarchies[0x40000001].seed = " in shown(newer, "--raw")


def test_the_trace_is_in_plain_words(serve_process):
    process, port = serve_process("--trace")
    ask(port, STARTUP)
    assert process.stdout.readline().strip() == "locality 0: Startup: start (0): done"


def test_faults_can_be_ordered_on_the_command_line(serve_process, tmp_path):
    state = tmp_path / "tpm.state"
    index = 0x01500001
    process, port = serve_process(
        "--state",
        state,
        "--fault",
        "PCR_Extend#2=fail:0x101",
        "--fault",
        "NV_DefineSpace#2=power_loss",
        "--trace",
    )
    ask(port, STARTUP)
    codes = [ask(port, EXTEND)[6:10].hex() for _ in range(3)]
    assert codes == ["00000000", "00000101", "00000000"]
    assert ask(port, define(index))[6:10] == bytes(4)
    assert ask(port, define(index + 1)) == b"", "power went: no answer, and nothing written"
    assert ask(port, GET_RANDOM)[6:10].hex() == "00000100", "it waits for Startup"
    process.kill()
    process.wait()
    assert sorted(load(state).nv) == [index]
    assert "fault: fail hits PCR_Extend" in process.stdout.read()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("PCR_Extned=fail", "did you mean 'PCR_Extend'?"),
        ("Quote=delay:soon", "--fault.delay"),
        ("Quote", "COMMAND"),
    ],
)
def test_a_wrong_fault_is_refused_in_one_line(capsys, word, said):
    with pytest.raises(SystemExit) as ended:
        cli.main(["tpm", "serve", "--port", "0", "--fault", word])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_make_tells_its_name(serve_process):
    _, port = serve_process("--profile", "st33tp")
    ask(port, STARTUP)
    assert b"STM " in ask(port, bytes.fromhex("8001000000160000017a000000060000010500000001"))


def test_an_unknown_make_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["tpm", "serve", "--port", "0", "--profile", "acme"])
    assert ended.value.code == 2
    assert "slb9670" in capsys.readouterr().err


EXTEND = bytes.fromhex("80020000004100000182000000070000000940000009000000000000000001000b") + b"x" * 32
EVENT = bytes.fromhex("8002000000230000013c00000005000000094000000900000000000006") + b"secret"


def replayed_by_us(path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["eventlog", "replay", str(path), "--json"])
    assert ended.value.code == 0
    return json.loads(capsys.readouterr().out)


def replayed_by_the_tool(program, path):
    """Return {bank: {pcr: hex}} as tpm2_eventlog replays a log."""
    text = subprocess.run(
        [program("tpm2_eventlog"), str(path)], capture_output=True, text=True, check=True, timeout=60
    ).stdout.partition("\npcrs:")[2]
    banks = re.findall(r"\n  (sha\d+):((?:\n    .*)*)", text)
    return {bank: dict(re.findall(r"(\d+) *: 0x([0-9a-f]+)", values)) for bank, values in banks}


@pytest.mark.client
def test_the_event_log_is_written_with_the_state_and_read_by_both_tools(
    serve_process, program, tmp_path, capsys
):
    state, log = tmp_path / "tpm.state", tmp_path / "events.bin"
    process, port = serve_process("--state", state, "--event-log", log)
    for command in (STARTUP, EXTEND, EVENT):
        assert ask(port, command)[6:10] == bytes(4)
    assert ask(port, SHUTDOWN)[6:10] == bytes(4)
    assert log.read_bytes() == load(state).event_log
    ask(port, EXTEND)
    stop(process)
    values = load(state).pcrs.values
    again = tmp_path / "again.bin"
    with pytest.raises(SystemExit) as ended:
        cli.main(["tpm", "inspect", str(state), "--event-log", str(again)])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "TPM2_PCR_Extend at locality 0" in shown
    assert "EV_COMPACT_HASH" in shown
    assert again.read_bytes() == log.read_bytes()
    expected = {
        "sha256": {"5": values[11][5].hex(), "7": values[11][7].hex()},
        "sha1": {"5": values[4][5].hex()},
    }
    ours, theirs = replayed_by_us(log, capsys), replayed_by_the_tool(program, log)
    for bank, pcrs in expected.items():
        assert ours[bank] == pcrs
        assert theirs[bank] == pcrs


@pytest.mark.client
def test_the_control_client_of_swtpm_works(serve_process, program, tmp_path):
    ioctl = program("swtpm_ioctl")
    _, port = serve_process("--protocol", "swtpm")

    def run(*arguments):
        done = subprocess.run(
            [ioctl, "--tcp", f"127.0.0.1:{port + 1}", *arguments], capture_output=True, text=True, timeout=20
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "0x6fff" in run("-c")
    run("-i")
    run("-l", "3")
    run("-h", "measured")
    assert run("-e").strip().endswith("1")
    assert "vmksim" in run("--info", "1")
    ask(port, STARTUP)
    run("--save", "permanent", str(tmp_path / "blob"))
    first = ask(port, GET_RANDOM)
    run("--stop")
    run("--load", "permanent", str(tmp_path / "blob"))
    run("-i")
    run("-l", "0")
    ask(port, STARTUP)
    assert ask(port, GET_RANDOM) == first
    run("-s")


@pytest.mark.client
def test_tools_work_through_the_resource_manager(serve_process, program, tmp_path):
    """More objects than slots, through tpm2-abrmd on a message bus of its own."""
    bus = BusAndManager(serve_process, program, tmp_path)
    try:
        tool = bus.tool
        tool("createprimary -Q -C o -G ecc -c primary.ctx")
        for number in range(5):
            tool(f"create -Q -C primary.ctx -G ecc -u {number}.pub -r {number}.priv")
            tool(f"load -Q -C primary.ctx -u {number}.pub -r {number}.priv -c {number}.ctx")
        (tmp_path / "message").write_text("message")
        for number in range(5):
            tool(f"sign -Q -c {number}.ctx -g sha256 -o {number}.sig message")
            tool(f"verifysignature -Q -c {number}.ctx -g sha256 -m message -s {number}.sig")
        tool("startauthsession -Q --policy-session -S session")
        tool("policypcr -Q -S session -l sha256:0 -L policy")
        tool("flushcontext session")
        tool("clear -Q")
    finally:
        bus.close()


class BusAndManager:
    """A private message bus with tpm2-abrmd on it, and tools that use them."""

    def __init__(self, serve_process, program, folder):
        self.folder = folder
        self.program = program
        _, port = serve_process()
        daemon, abrmd = program("dbus-daemon"), program("tpm2-abrmd")
        config = folder / "bus.conf"
        config.write_text(
            "<!DOCTYPE busconfig PUBLIC '-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN'"
            " 'http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd'><busconfig><type>session</type>"
            f"<listen>unix:path={folder / 'bus'}</listen><auth>EXTERNAL</auth>"
            "<policy context='default'><allow send_destination='*' eavesdrop='true'/>"
            "<allow eavesdrop='true'/><allow own='*'/></policy></busconfig>"
        )
        self.bus = subprocess.Popen(
            [daemon, "--nofork", "--print-address", f"--config-file={config}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        address = self.bus.stdout.readline().strip()
        self.environment = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": address, "LC_ALL": "C"}
        options = ["--session", "--allow-root", f"--tcti=swtpm:host=127.0.0.1,port={port}"]
        self.manager = subprocess.Popen([abrmd, *options], env=self.environment, stderr=subprocess.PIPE)
        self.environment["TPM2TOOLS_TCTI"] = "tabrmd:bus_type=session"
        for _ in range(100):
            if self.try_tool("getrandom -Q 1").returncode == 0:
                return
            time.sleep(0.05)
        self.close()
        pytest.fail("tpm2-abrmd does not answer")

    def try_tool(self, line):
        name, *arguments = line.split()
        return subprocess.run(
            [self.program(f"tpm2_{name}"), *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def tool(self, line):
        done = self.try_tool(line)
        assert done.returncode == 0, f"{line}: {done.stderr}"

    def close(self):
        for process in (self.manager, self.bus):
            process.terminate()
            process.wait(10)
        self.manager.stderr.close()
        self.bus.stdout.close()


@pytest.mark.client
def test_a_client_of_one_protocol_sees_what_one_of_the_other_did(serve_process, program, tmp_path):
    _, port = serve_process()

    def tool(protocol, line):
        name, *arguments = line.split()
        environment = {**os.environ, "TPM2TOOLS_TCTI": f"{protocol}:host=127.0.0.1,port={port}"}
        return subprocess.run(
            [program(f"tpm2_{name}"), *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout

    tool("swtpm", "startup -c")
    tool("mssim", "pcrextend 7:sha256=" + "ab" * 32)
    assert tool("swtpm", "pcrread sha256:7") == tool("mssim", "pcrread sha256:7")
    assert "00000000" not in tool("swtpm", "pcrread sha256:7")
    tool("mssim", "createprimary -Q -C o -G ecc -c key.ctx")
    tool("swtpm", "flushcontext -t")
    tool("swtpm", "readpublic -Q -c key.ctx")


SERVERS_IN_TURN = """
import sys
from sim.tpm.device import Tpm
from sim.tpm.server.listener import TpmServer
from sim.tpm.server.platform import Platform

for number in range(3):
    server = TpmServer(Platform(Tpm(b"seed")))
    server.start()
    print(server.port, flush=True)
    sys.stdin.readline()
    server.stop()
"""


def test_a_stopped_server_takes_no_connection_of_the_next_one():
    """accept() begins anew after SIGCONT, on whatever has its descriptor now; under load the same happens by chance."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVERS_IN_TURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        for _ in range(3):
            port = int(process.stdout.readline())
            time.sleep(0.05)
            process.send_signal(signal.SIGSTOP)
            process.send_signal(signal.SIGCONT)
            ask(port, STARTUP)
            for _ in range(10):
                assert len(ask(port, GET_RANDOM)) == 20
            process.stdin.write("\n")
            process.stdin.flush()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_help_names_both_kinds_of_client(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["tpm", "serve", "--help"])
    assert ended.value.code == 0
    assert re.search(r"swtpm:host.*mssim:host", capsys.readouterr().out, re.DOTALL)
