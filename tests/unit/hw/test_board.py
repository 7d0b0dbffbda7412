"""The board and what sits on it: disk, NIC, firmware settings, TPM slot, power."""

import pickle
import struct

import pytest

from sim.core.context import Sim
from sim.core.procedure import CostMeter
from sim.core.units import MIB
from sim.errors import SimBug
from sim.hw.board import Board
from sim.hw.disk import Disk, DiskError
from sim.hw.firmware import variable_guid
from sim.hw.nic import LinkDown
from sim.hw.spec import DiskSpec, FirmwareSpec, HostSpec, NicSpec
from sim.hw.tpm_slot import TpmSlotError


class RecordingTpm:
    """A device that answers every command with success and remembers what reached it."""

    def __init__(self):
        self.calls = []
        self.last_latency_ns = 0

    def execute(self, command, locality=0):
        self.calls.append(("execute", command, locality))
        self.last_latency_ns = 1_000 * (locality + 1)
        return bytes.fromhex("80010000000a00000101")

    def in_words(self, command, response, locality):
        return f"{len(command)} bytes at locality {locality}"

    def init(self):
        self.calls.append(("init",))

    def hash_start(self):
        self.calls.append(("start",))

    def hash_data(self, data):
        self.calls.append(("data", data))

    def hash_end(self):
        self.calls.append(("end",))


@pytest.fixture
def board():
    return Board(Sim(seed=7), HostSpec(memory_bytes=64 * MIB), RecordingTpm())


# ---------------------------------------------------------------- disk


def test_a_read_costs_access_time_plus_transfer_rounded_up():
    meter = CostMeter()
    disk = Disk(meter, DiskSpec(read_bytes_per_s=3_000_000, access_ns=100))
    disk.volume("bootbank").write("s.v00", b"ab")
    assert disk.volume("bootbank").read("s.v00") == b"ab"
    assert meter.take() == 100 + 667
    disk.volume("bootbank").peek("s.v00")
    assert meter.take() == 0


def test_a_flipped_bit_is_one_bit_and_flips_back():
    volume = Disk(CostMeter()).volume("esp")
    volume.write("f", b"\x00\x00")
    volume.flip_bit("f", 9)
    assert volume.peek("f") == b"\x00\x02"
    volume.flip_bit("f", 9)
    assert volume.peek("f") == b"\x00\x00"
    with pytest.raises(DiskError):
        volume.flip_bit("f", 16)


def test_missing_files_and_volumes_are_named():
    disk = Disk(CostMeter())
    with pytest.raises(DiskError, match=r"store:x\.v00: no such file"):
        disk.volume("store").read("x.v00")
    with pytest.raises(DiskError, match="bootbank"):
        disk.volume("nowhere")
    with pytest.raises(DiskError):
        disk.volume("store").remove("x.v00")


def test_a_volume_lists_its_paths_in_order_and_keeps_its_limits():
    volume = Disk(CostMeter()).volume("store")
    volume.copy_from([("b", b"1"), ("a", b"2")])
    assert volume.paths() == ("a", "b")
    assert volume.exists("a")
    volume.remove("a")
    assert not volume.exists("a")
    volume.clear()
    assert volume.paths() == ()
    with pytest.raises(DiskError):
        volume.write("p" * 256, b"")
    volume.check_invariants()


# ---------------------------------------------------------------- firmware


def test_the_secure_boot_switch_is_the_variable(board):
    assert board.firmware.variables["SecureBoot"] == b"\x01"
    board.firmware.secure_boot = False
    assert board.firmware.variables["SecureBoot"] == b"\x00"
    assert not board.firmware.secure_boot


def test_equal_firmware_has_equal_code_on_every_host_and_each_host_its_own_addresses():
    sim = Sim(seed=3)
    one, two = (Board(sim, HostSpec(name=name, tpm_present=False)) for name in ("esx01", "esx02"))
    newer = Board(sim, HostSpec(name="esx03", tpm_present=False, firmware=FirmwareSpec(version="9")))
    assert one.firmware.volumes == two.firmware.volumes
    assert one.firmware.volumes != newer.firmware.volumes
    assert one.nic.mac != two.nic.mac
    assert one.firmware.variables["Boot0001"] != two.firmware.variables["Boot0001"]


def test_a_boot_option_is_a_load_option_with_drive_and_file(board):
    option = board.firmware.variables["Boot0001"]
    attributes, path_bytes = struct.unpack_from("<IH", option)
    description, _, rest = option[6:].partition(b"\x00\x00\x00")
    assert attributes == 1
    assert (description + b"\x00").decode("utf-16-le") == "VMware ESXi"
    assert len(rest) == path_bytes
    assert rest.endswith(b"\x7f\xff\x04\x00")
    assert "\\EFI\\VMware\\safeboot64.efi".encode("utf-16-le") in rest
    assert board.firmware.boot_order() == (1,)


def test_databases_and_global_variables_have_their_own_guids():
    assert variable_guid("db") == variable_guid("dbx") != variable_guid("PK") == variable_guid("SecureBoot")


def test_an_implant_changes_one_bit_of_firmware_code(board):
    before = board.firmware.volumes["DXE"]
    board.firmware.flip_bit("DXE", 8 * 100 + 3)
    after = board.firmware.volumes["DXE"]
    assert [
        (at, old ^ new) for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new
    ] == [(100, 8)]


# ---------------------------------------------------------------- NIC


def test_transfer_time_is_latency_plus_serialisation():
    sim = Sim(seed=1)
    spec = HostSpec(tpm_present=False, nic=NicSpec(bits_per_s=1_000_000_000, latency_ns=500))
    nic = Board(sim, spec).nic
    assert nic.send_ns(1_000) == 500 + 8_000
    assert nic.receive_ns(1) == 508
    assert (nic.sent_bytes, nic.received_bytes) == (1_000, 1)
    assert nic.mac[0] & 3 == 2
    assert len(nic.mac_text) == 17
    nic.link_up = False
    with pytest.raises(LinkDown):
        nic.send_ns(1)


# ---------------------------------------------------------------- TPM slot


def test_a_command_is_charged_and_traced_with_code_and_response(board):
    command = bytes.fromhex("80010000000c000001440000")
    assert board.tpm.transmit(command, locality=2) == bytes.fromhex("80010000000a00000101")
    assert board.meter.take() == 3_000
    (traced,) = board.sim.trace.select("tpm.command")
    assert (traced["locality"], traced["code"], traced["rc"]) == (2, 0x144, 0x101)
    assert (traced["command_bytes"], traced["response_bytes"], traced["latency_ns"]) == (12, 10, 3_000)
    (words,) = board.sim.trace.select("tpm.words")
    assert words["text"] == "12 bytes at locality 2"


def test_a_packet_too_short_for_a_code_is_traced_as_such(board):
    board.tpm.transmit(b"\x80\x01")
    assert board.sim.trace.select("tpm.command")[0]["code"] == -1


def test_a_disabled_tpm_answers_nothing_but_is_reset_with_the_platform(board):
    board.firmware.tpm_enabled = False
    board.power_on()
    with pytest.raises(TpmSlotError):
        board.tpm.transmit(bytes(10))
    with pytest.raises(TpmSlotError):
        board.tpm.hash_start()
    assert board.tpm.device.calls == [("init",)]


def test_there_is_no_locality_5(board):
    with pytest.raises(SimBug):
        board.tpm.transmit(bytes(10), locality=5)


def test_the_hash_sequence_reaches_the_device_in_order(board):
    board.tpm.hash_start()
    board.tpm.hash_data(b"SINIT")
    board.tpm.hash_end()
    assert board.tpm.device.calls == [("start",), ("data", b"SINIT"), ("end",)]
    assert [each["phase"] for each in board.sim.trace.select("tpm.hash_sequence")] == ["start", "data", "end"]


# ---------------------------------------------------------------- power


def test_reset_keeps_the_disk_frees_memory_and_reinitialises_the_tpm(board):
    board.disk.volume("store").write("f", b"kept")
    board.power_on()
    board.memory.allocate(10, "vmkernel")
    board.meter.charge(5)
    board.reset()
    assert board.boot_count == 2
    assert board.memory.owners() == {"firmware": 512}
    assert board.disk.volume("store").peek("f") == b"kept"
    assert board.tpm.device.calls == [("init",), ("init",)]
    assert board.meter.take() == 0
    assert [each["change"] for each in board.sim.trace.select("hw.power")] == ["power on", "reset"]
    board.check_invariants()


def test_power_off_forgets_memory(board):
    board.power_on()
    pa = board.low_memory[0].first_mpn << 12
    board.memory.write(pa, b"x")
    board.power_off()
    assert board.memory.read(pa, 1) == b"\0"
    assert not board.powered


def test_the_power_switch_knows_its_state(board):
    with pytest.raises(SimBug):
        board.reset()
    with pytest.raises(SimBug):
        board.power_off()
    board.power_on()
    with pytest.raises(SimBug):
        board.power_on()


def test_a_board_needs_a_tpm_exactly_when_its_spec_says_so():
    with pytest.raises(SimBug):
        Board(Sim(seed=1), HostSpec(tpm_present=False), RecordingTpm())
    with pytest.raises(SimBug):
        Board(Sim(seed=1), HostSpec(), None)


def test_a_board_pickles(board):
    board.power_on()
    copy = pickle.loads(pickle.dumps(board))
    copy.check_invariants()
    assert copy.firmware.volumes == board.firmware.volumes
    copy.tpm.transmit(bytes(10))
    assert copy.meter.pending_ns == 1_000
    assert board.meter.pending_ns == 0
