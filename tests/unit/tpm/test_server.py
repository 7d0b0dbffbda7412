"""The TCP server: both protocols on the same ports, the platform's signals, and limits on every connection."""

import errno
import socket
import struct
import threading

import pytest

from sim.tpm.client import TpmClient
from sim.tpm.constants import TPM_ALG, TPM_RC
from sim.tpm.device import Tpm
from sim.tpm.faults import Fault, FaultyTpm
from sim.tpm.server import listener
from sim.tpm.server.listener import TpmServer
from sim.tpm.server.platform import Platform

STARTUP = bytes.fromhex("80010000000c000001440000")
GET_RANDOM = bytes.fromhex("80010000000c0000017b0008")
READ_CLOCK = bytes.fromhex("80010000000a00000181")
SHA256 = TPM_ALG.SHA256.value
OK = bytes(4)


class Server(TpmServer):
    """A server on free ports with a way to connect to them."""

    def open(self, *, control=False):
        connection = socket.create_connection(
            ("127.0.0.1", self.control_port if control else self.port), timeout=10
        )
        self.clients.append(connection)
        return connection

    def raw(self, command, connection=None):
        connection = connection or self.open()
        connection.sendall(command)
        return answer(connection)

    def tell(self, code, payload=b"", *, answer_bytes=4):
        """Send one message of swtpm's control channel."""
        connection = self.open(control=True)
        connection.sendall(struct.pack(">I", code) + payload)
        return read(connection, answer_bytes)

    def signal(self, connection, *codes):
        for code in codes:
            connection.sendall(struct.pack(">I", code))
            assert read(connection, 4) == OK


def read(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        assert piece, "the server hung up"
        data += piece
    return data


def answer(connection):
    header = read(connection, 10)
    return header + read(connection, int.from_bytes(header[2:6], "big") - 10)


def enveloped(connection, command, locality=0):
    connection.sendall(struct.pack(">IBI", 8, locality, len(command)))
    connection.sendall(command)
    response = read(connection, struct.unpack(">I", read(connection, 4))[0])
    assert read(connection, 4) == OK
    return response


def rc(response):
    return int.from_bytes(response[6:10], "big")


@pytest.fixture
def start():
    """A function that starts a server on a new TPM."""
    servers = []

    def make(**options):
        made = Server(Platform(Tpm(b"a seed for tests"), **options.pop("platform", {})), **options)
        made.clients = []
        made.start()
        servers.append(made)
        return made

    yield make
    for each in servers:
        each.stop()
        for connection in each.clients:
            connection.close()


@pytest.fixture
def server(start):
    """A server whose TPM was not yet started."""
    return start()


def test_many_bare_commands_run_on_one_connection_and_on_many(server):
    assert rc(server.raw(GET_RANDOM)) == TPM_RC.INITIALIZE
    connection = server.open()
    assert rc(server.raw(STARTUP, connection)) == 0
    first = server.raw(GET_RANDOM, connection)
    assert first != server.raw(GET_RANDOM, connection) != server.raw(GET_RANDOM)


def test_both_protocols_work_side_by_side(server):
    mssim_commands, mssim_signals = server.open(), server.open(control=True)
    server.signal(mssim_signals, 1, 11)
    assert rc(enveloped(mssim_commands, STARTUP)) == 0
    assert rc(server.raw(GET_RANDOM)) == 0
    assert server.tell(5, b"\2") == OK
    server.signal(mssim_signals, 1, 11)
    assert rc(enveloped(mssim_commands, GET_RANDOM)) == 0


def test_a_connection_that_says_nothing_is_no_error(server):
    server.open().close()
    assert rc(server.raw(STARTUP)) == 0


def test_bytes_may_come_one_by_one(server):
    connection = server.open()
    for octet in STARTUP:
        connection.sendall(bytes([octet]))
    assert rc(answer(connection)) == 0


def test_power_on_of_a_running_tpm_changes_nothing(server):
    signals = server.open(control=True)
    server.raw(STARTUP)
    server.signal(signals, 1, 11, 1, 11)
    assert rc(server.raw(GET_RANDOM)) == 0


def test_power_off_and_on_demand_a_new_start(server):
    signals = server.open(control=True)
    server.raw(STARTUP)
    server.signal(signals, 2)
    silent = server.open()
    silent.sendall(GET_RANDOM)
    assert silent.recv(1) == b""
    server.signal(signals, 1)
    assert rc(server.raw(GET_RANDOM)) == TPM_RC.INITIALIZE


@pytest.mark.parametrize("code", [17, 18])
def test_reset_demands_a_new_start(server, code):
    signals = server.open(control=True)
    server.raw(STARTUP)
    server.signal(signals, code)
    assert rc(server.raw(GET_RANDOM)) == TPM_RC.INITIALIZE


def test_init_demands_a_new_start(server):
    server.raw(STARTUP)
    assert server.tell(2, bytes(4)) == OK
    assert rc(server.raw(GET_RANDOM)) == TPM_RC.INITIALIZE


def pcr_reset(pcr):
    return (
        bytes.fromhex("80020000001b0000013d")
        + pcr.to_bytes(4, "big")
        + bytes.fromhex("00000009400000090000000000")
    )


def test_the_locality_of_the_control_channel_holds_for_bare_commands(server):
    server.raw(STARTUP)
    assert rc(server.raw(pcr_reset(20))) == TPM_RC.LOCALITY
    assert server.tell(5, b"\2") == OK
    assert rc(server.raw(pcr_reset(20))) == 0
    assert server.tell(5, b"\5") != OK
    assert rc(server.raw(pcr_reset(20))) == 0


def test_each_enveloped_command_brings_its_own_locality(server):
    connection = server.open()
    enveloped(connection, STARTUP)
    assert rc(enveloped(connection, pcr_reset(20))) == TPM_RC.LOCALITY
    assert rc(enveloped(connection, pcr_reset(20), locality=2)) == 0
    assert rc(enveloped(connection, pcr_reset(20))) == TPM_RC.LOCALITY


def test_a_hash_sequence_before_startup_is_the_root_of_trust(server):
    for code, payload in ((6, b""), (7, struct.pack(">I", 4) + b"code"), (8, b"")):
        assert server.tell(code, payload) == OK
    assert server.tell(4, answer_bytes=8) == OK + b"\1\0\0\0"
    server.raw(STARTUP)
    expected = Tpm(b"another seed")
    expected.init()
    expected.hash_start()
    expected.hash_data(b"code")
    expected.hash_end()
    TpmClient(expected.execute).startup()
    assert server.platform.tpm.pcrs.values[SHA256][0] == expected.pcrs.values[SHA256][0] != bytes(32)
    assert server.tell(0xB, b"\0") != OK
    assert server.tell(0xB, b"\3") == OK
    assert server.tell(4, answer_bytes=8) == OK + bytes(4)


def test_a_hash_sequence_over_the_command_port_is_a_launch(server):
    connection = server.open()
    enveloped(connection, STARTUP)
    for message in (b"\0\0\0\5", b"\0\0\0\6\0\0\0\4code", b"\0\0\0\7"):
        connection.sendall(message)
        assert read(connection, 4) == OK
    assert server.platform.tpm.pcrs.values[SHA256][17] not in (bytes(32), b"\xff" * 32)


def test_control_messages_tell_what_there_is(server):
    capabilities = server.tell(1, b"", answer_bytes=4)  # alone, it is the other protocol's power-on
    assert capabilities == OK
    assert server.tell(0xF, answer_bytes=8) == OK + bytes(4)
    assert server.tell(0x11, struct.pack(">I", 0), answer_bytes=16) == struct.pack(
        ">IIII", 0, 4096, 4096, 4096
    )
    assert struct.unpack(">I", server.tell(0x55))[0] != 0
    assert server.tell(9) == OK


def test_a_chosen_protocol_is_not_guessed(start):
    server = start(protocol="swtpm")
    assert server.tell(1, answer_bytes=8)[4:] == (0x6FFF).to_bytes(4, "big")
    server = start(protocol="mssim")
    connection = server.open()
    connection.sendall(STARTUP)
    assert connection.recv(1) == b""


def test_the_handshake_of_other_clients_is_answered(server):
    connection = server.open()
    connection.sendall(struct.pack(">II", 15, 1))
    assert read(connection, 12) == struct.pack(">III", 1, 0x0D, 0)
    connection.sendall(struct.pack(">I", 20))
    assert connection.recv(1) == b""


def test_failure_mode_is_forced_from_outside(server):
    server.raw(STARTUP)
    signals = server.open(control=True)
    server.signal(signals, 1, 30)
    assert rc(server.raw(GET_RANDOM)) == TPM_RC.FAILURE
    server.signal(signals, 17)
    assert rc(server.raw(STARTUP)) == 0


@pytest.mark.parametrize("codes", [(1, 25), (1, 20), (1, 99)])
def test_signals_without_an_answer_end_the_connection(server, codes):
    signals = server.open(control=True)
    server.signal(signals, *codes[:-1])
    signals.sendall(struct.pack(">I", codes[-1]))
    assert signals.recv(1) == b""


def test_the_make_is_told_as_text(server):
    answer = server.tell(0x12, struct.pack(">QII", 1, 0, 0), answer_bytes=12)
    total = int.from_bytes(answer[4:8], "big")
    text = server.tell(0x12, struct.pack(">QII", 1, 0, 0), answer_bytes=12 + total)[12:]
    assert b"id:49424D00" in text
    assert server.tell(0x12, struct.pack(">QII", 1, total + 1, 0), answer_bytes=12)[:4] != OK


def test_state_that_cannot_be_is_refused(server):
    assert server.tell(0xC, struct.pack(">III", 0, 9, 0), answer_bytes=16)[:4] != OK
    assert server.tell(0xD, struct.pack(">III", 0, 9, 0)) != OK
    assert server.tell(0xD, struct.pack(">III", 0, 1, 0)) == OK
    connection = server.open(control=True)
    connection.sendall(struct.pack(">IIII", 0xD, 0, 1, 2**31))
    assert connection.recv(1) == b""


def test_a_dropped_command_ends_the_connection():
    tpm = Tpm(b"a seed for tests")
    plan = FaultyTpm(tpm, (Fault(kind="drop", command="GetRandom"),))
    server = Server(Platform(tpm, faults=plan))
    server.clients = []
    server.start()
    connection = server.open()
    server.raw(STARTUP, connection)
    connection.sendall(GET_RANDOM)
    assert connection.recv(1) == b""
    assert rc(server.raw(GET_RANDOM)) == 0
    server.stop()
    for each in server.clients:
        each.close()


def test_physical_presence_follows_the_button(server):
    signals = server.open(control=True)
    server.signal(signals, 1, 3)
    assert server.platform.tpm.physical_presence
    server.signal(signals, 4)
    assert not server.platform.tpm.physical_presence


def test_state_travels_from_one_tpm_to_another(start):
    first, second = start(), start()
    first.raw(STARTUP)
    first.raw(GET_RANDOM)
    request = struct.pack(">III", 0, 1, 0)
    header = first.tell(0xC, request, answer_bytes=16)
    blob = first.tell(0xC, request, answer_bytes=16 + int.from_bytes(header[12:], "big"))[16:]
    assert second.tell(0xD, struct.pack(">III", 0, 1, len(blob)) + blob) == OK
    assert second.tell(2, bytes(4)) == OK
    for server in (first, second):
        assert server.tell(2, bytes(4)) == OK
        server.raw(STARTUP)
    assert first.raw(GET_RANDOM) == second.raw(GET_RANDOM)


def test_broken_state_is_refused_at_init(server):
    assert server.tell(0xD, struct.pack(">III", 0, 2, 3) + b"bad") == OK
    assert server.tell(2, bytes(4)) != OK
    assert server.tell(2, bytes(4)) == OK


@pytest.mark.parametrize(
    "message",
    [
        bytes.fromhex("8001ffffffff00000144"),
        bytes.fromhex("80010000000900000144"),
    ],
)
def test_a_size_that_cannot_be_ends_the_connection(server, message):
    connection = server.open()
    connection.sendall(message)
    assert rc(answer(connection)) == TPM_RC.COMMAND_SIZE
    assert connection.recv(1) == b""


@pytest.mark.parametrize(
    "message",
    [
        struct.pack(">IBI", 8, 0, 4097),
        struct.pack(">IBI", 8, 5, 10),
        struct.pack(">I", 19),
        struct.pack(">II", 6, 4097),
    ],
)
def test_an_envelope_that_cannot_be_ends_the_connection(server, message):
    connection = server.open()
    connection.sendall(message)
    assert connection.recv(1) == b""


def test_a_client_that_stops_in_a_message_is_dropped(server, monkeypatch):
    monkeypatch.setattr("sim.tpm.server.wire.MESSAGE_SECONDS_MAX", 0.05)
    connection = server.open()
    connection.sendall(STARTUP[:5])
    assert connection.recv(1) == b""
    assert rc(server.raw(STARTUP)) == 0


def test_a_slow_control_message_stops_nobody_else(server):
    slow = server.open(control=True)
    slow.sendall(struct.pack(">III", 7, 100, 0))
    assert rc(server.raw(STARTUP)) == 0


def test_too_many_connections_are_turned_away(server):
    held = [server.open() for _ in range(listener.CONNECTIONS_MAX)]
    for connection in held:
        connection.sendall(STARTUP)
        answer(connection)
    extra = server.open()
    assert extra.recv(1) == b""
    assert rc(server.raw(GET_RANDOM, held[0])) == 0


@pytest.mark.parametrize("code", [3, 21])
def test_a_client_may_stop_the_server(server, code):
    connection = server.open(control=True)
    connection.sendall(struct.pack(">I", code))
    assert server.wait(10)


def test_a_stopped_server_leaves_nobody_listening(start):
    server = start()
    ports = server.port, server.control_port
    server.stop()
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)
    server.stop()


def test_who_is_still_connected_when_the_server_stops_is_hung_up_on(start):
    server = start()
    bare, mssim, control = server.open(), server.open(), server.open(control=True)
    server.raw(STARTUP, bare)
    enveloped(mssim, GET_RANDOM)
    control.sendall(struct.pack(">IB", 5, 3))
    assert read(control, 4) == OK
    server.stop()
    late = [(bare, GET_RANDOM), (mssim, struct.pack(">IBI", 8, 0, 12) + GET_RANDOM), (control, b"\0\0\0\5\0")]
    for connection, message in late:
        connection.sendall(message)
        assert connection.recv(1) == b""


def test_a_connection_that_cannot_be_taken_does_not_end_the_server(start, monkeypatch):
    accept, start_thread, left = socket.socket.accept, threading.Thread.start, [2]

    def failing(listener):
        connection = accept(listener)
        if left[0]:
            left[0] -= 1
            connection[0].close()
            raise OSError(errno.EMFILE, "Too many open files")
        return connection

    monkeypatch.setattr(socket.socket, "accept", failing)
    server = start()
    for _ in range(2):
        assert server.open().recv(1) == b""
    assert rc(server.raw(STARTUP)) == 0

    def no_thread(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert server.open().recv(1) == b""
    monkeypatch.setattr(threading.Thread, "start", start_thread)
    assert rc(server.raw(GET_RANDOM)) == 0


def test_what_may_have_been_written_is_announced(start):
    written = []
    server = start(platform={"on_write": written.append})
    server.raw(STARTUP)
    server.raw(GET_RANDOM)
    server.raw(pcr_reset(16))
    assert written == []
    server.raw(bytes.fromhex("80010000000c000001450000"))
    assert written == [server.platform.tpm]


def test_simulated_time_passes_by_the_commands_alone(server):
    server.raw(STARTUP)
    before = server.platform.tpm.clock.now
    server.raw(READ_CLOCK)
    assert server.platform.tpm.clock.now == before + server.platform.tpm.profile.other_latency_ns


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match="protocol"):
        TpmServer(Platform(Tpm(b"seed")), protocol="http")


def test_ports_are_neighbours_and_a_taken_one_is_refused(server):
    assert server.control_port == server.port + 1
    with pytest.raises(OSError, match="Address already"):
        TpmServer(server.platform, port=server.port)
