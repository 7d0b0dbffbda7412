"""Carrying out a fault on a machine: bits flipped on its disk, files removed, switches turned.

Models: what an attacker or bad luck does to stored bytes and firmware settings.  Every strike is traced.

Leaves out: reboots, which the host does itself (`sim.scenario.run`), memory (`sim.scenario.strike_memory`), modules
(`sim.scenario.strike_module`), and the late launch (`sim.scenario.strike_launch`).
"""

from __future__ import annotations

import difflib

from sim.boot.latelaunch import sinit_module
from sim.core.context import Sim
from sim.core.trace import record
from sim.errors import FormatError, ScenarioError
from sim.hw.board import Board
from sim.hw.disk import DiskError, Volume
from sim.image.imgdb import DATABASE_FILE, read_database
from sim.image.payload import GZIP_MAGIC, content_of, gzip_stored
from sim.scenario.faults import FaultSpec, FaultTarget
from sim.tpm.fault_spec import Fault, command_name

__all__ = ["TpmFaultWatch", "check_target", "strike"]

FAULT = record("fault.strike", kind=str, target=str, byte=int, bit=int)
"""A fault was carried out; byte and bit are -1 where they mean nothing."""
TPM_FAULT = record("fault.tpm", kind=str, command=str)
"""A fault of the TPM hit a command."""

_BANK = "bootbank"


class TpmFaultWatch:
    """Traces each fault of the TPM that hits a command."""

    def __init__(self, sim: Sim) -> None:
        self._sim = sim

    def note(self, fault: Fault, command: bytes) -> None:
        """Trace that `fault` hit `command`."""
        name = command_name(int.from_bytes(command[6:10], "big"))
        self._sim.trace.emit(TPM_FAULT, fault.kind, name)


def strike(fault: FaultSpec, number: int, board: Board) -> None:
    """Carry out fault `number` of the scenario on a board.

    Errors: `ScenarioError` when the target does not exist or is shorter than `byte`.
    """
    if fault.kind == "disable_tpm":
        board.firmware.tpm_enabled = False
    elif fault.kind == "disable_secure_boot":
        board.firmware.secure_boot = False
    elif fault.target is not None:
        try:
            _strike_file(fault, number, FaultTarget.parse(fault.target), board)
        except (DiskError, FormatError) as error:
            raise ScenarioError(f"faults[{number}].target", str(error)) from None
        return
    board.sim.trace.emit(FAULT, fault.kind, "", -1, -1)


def _strike_file(fault: FaultSpec, number: int, target: FaultTarget, board: Board) -> None:
    if target.place == "firmware":
        _strike_firmware(fault, number, target.name, board)
        return
    volume, path = _find(target, f"faults[{number}]", board)
    if fault.kind == "flip_bit":
        _flip(fault, number, volume, path, board)
        return
    volume.remove(path)
    board.sim.trace.emit(FAULT, fault.kind, f"{volume.name}/{path}", -1, -1)


def check_target(fault: FaultSpec, number: int, board: Board) -> None:
    """Raise `ScenarioError` unless the file that a fault strikes exists."""
    if fault.target is None or not fault.strikes_file:
        return
    if fault.target.startswith("firmware/"):
        _firmware_volume(fault.target.removeprefix("firmware/"), number, board)
    else:
        _find(FaultTarget.parse(fault.target), f"faults[{number}]", board)


def _strike_firmware(fault: FaultSpec, number: int, name: str, board: Board) -> None:
    """Flip a bit of a code volume of the flash; what is left open comes from the fault's own stream."""
    size = len(_firmware_volume(name, number, board))
    stream = board.sim.rng.stream(f"fault/{number}")
    byte = fault.byte if fault.byte is not None else stream.below(size)
    bit = fault.bit if fault.bit is not None else stream.below(8)
    if fault.kind != "flip_bit" or fault.unpacked:
        raise ScenarioError(f"faults[{number}].target", "firmware can only have its bits flipped")
    if byte >= size:
        raise ScenarioError(f"faults[{number}].byte", f"{name} has {size} bytes", got=byte)
    board.firmware.flip_bit(name, 8 * byte + bit)
    board.sim.trace.emit(FAULT, fault.kind, f"firmware/{name}", byte, bit)


def _firmware_volume(name: str, number: int, board: Board) -> bytes:
    sinit_module(board)  # the maker puts it there when somebody looks for it first
    volumes = board.firmware.volumes
    return volumes[_pick(name, {one: one for one in volumes}, f"faults[{number}]")]


def _flip(fault: FaultSpec, number: int, volume: Volume, path: str, board: Board) -> None:
    """Flip the bit that the fault names; byte and bit that it leaves open come from its own stream."""
    stored = volume.peek(path)
    try:
        data = bytearray(content_of(stored) if fault.unpacked else stored)
    except FormatError as error:
        raise ScenarioError(f"faults[{number}].unpacked", f"{path} cannot be unpacked: {error}") from error
    stream = board.sim.rng.stream(f"fault/{number}")
    byte = fault.byte if fault.byte is not None else stream.below(max(len(data), 1))
    bit = fault.bit if fault.bit is not None else stream.below(8)
    if byte >= len(data):
        raise ScenarioError(f"faults[{number}].byte", f"{path} has {len(data)} bytes", got=byte)
    data[byte] ^= 1 << bit
    packed = fault.unpacked and stored.startswith(GZIP_MAGIC)
    volume.write(path, gzip_stored(bytes(data)) if packed else bytes(data))
    board.sim.trace.emit(FAULT, fault.kind, f"{volume.name}/{path}", byte, bit)


def _find(target: FaultTarget, where: str, board: Board) -> tuple[Volume, str]:
    """Return volume and path of a target, with the nearest name when there is none."""
    if target.place == "loader":
        entry = board.spec.firmware.boot_path.replace("\\", "/").strip("/").lower()
        volume = board.disk.volume("esp")
        paths = {path.lower(): path for path in volume.paths()}
        return volume, _pick(entry, paths, where)
    if target.place == "vib":
        volume = board.disk.volume(_BANK)
        files = {name: path for name, path in _first_payloads(volume).items() if volume.exists(path)}
        return volume, _pick(target.name, files, where)
    volume = board.disk.volume(target.place)
    return volume, _pick(target.name, {path: path for path in volume.paths()}, where)


def _first_payloads(volume: Volume) -> dict[str, str]:
    """Return the first payload file of each installed VIB, by the VIB's name."""
    try:
        records = read_database(volume.peek(DATABASE_FILE)).records
    except (FormatError, DiskError):
        return {}
    return {one.descriptor.name: one.files[0] for one in records if one.files}


def _pick(name: str, known: dict[str, str], where: str) -> str:
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    raise ScenarioError(
        f"{where}.target", "there is no such file", got=name, nearest=near[0] if near else None
    )
