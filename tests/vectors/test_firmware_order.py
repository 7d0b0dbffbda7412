"""What the logs of eleven real machines have in common about the order of firmware events, the simulated log keeps."""

import json
import struct

import pytest

from sim.boot.uefi_events import image_load, option_rom_path
from sim.tpm.eventlog import EV, parse
from tests.unit.vsphere.conftest import World

LOGS_MIN = 3
"""An order counts as common if so many real logs have both events, and none of them has it the other way."""
RARE = {(1, EV.CPU_MICROCODE), (1, EV.EFI_HANDOFF_TABLES)}
"""In one each of thirty public logs, and in none of the eleven."""
OTHER_MAKERS = {(0, EV.POST_CODE), (0, EV.S_CRTM_CONTENTS), (0, EV.NONHOST_INFO)}
"""What other makers write into PCR 0: POST_CODE is an older name of the firmware blob."""


def kinds(log):
    """What the firmware events are about: PCR and type, and the text of an action."""
    return [
        (event.pcr, EV(event.type), event.data.rstrip(b"\0") if event.type == EV.EFI_ACTION else b"")
        for event in log.events
        if event.pcr < 8 and event.type != EV.NO_ACTION
    ]


def comes_before(first, second, events):
    """Whether all events of one kind stand before all of another."""
    last = max(number for number, kind in enumerate(events) if kind == first)
    return last < min(number for number, kind in enumerate(events) if kind == second)


@pytest.fixture(scope="module")
def real(vectors):
    folder = vectors / "eventlogs"
    expected = json.loads((folder / "expected.json").read_text())
    return [
        kinds(parse((folder / name).read_bytes()))
        for name, each in expected.items()
        if each["must"] == "accept"
    ]


def test_the_path_of_an_option_rom_is_that_of_a_real_card(vectors):
    log = parse((vectors / "eventlogs" / "keylime__binary_bios_measurements-secureboot").read_bytes())
    (driver,) = [event.data for event in log.events if event.type == EV.EFI_BOOT_SERVICES_DRIVER]
    base, length, link, size = struct.unpack_from("<QQQQ", driver)
    first, last = struct.unpack_from("<QQ", driver, 32 + 32)
    assert driver == image_load(base, length, link, option_rom_path(first, last, bridge=2))
    assert size == 52


@pytest.fixture(scope="module")
def simulated():
    world = World()
    world.boot()
    return kinds(parse(world.host.boot.event_log))


def common_orders(logs):
    names = sorted({kind for log in logs for kind in log})
    for first in names:
        for second in names:
            both = [log for log in logs if first in log and second in log] if first != second else []
            if len(both) >= LOGS_MIN and all(comes_before(first, second, log) for log in both):
                yield first, second


def test_every_order_that_real_logs_share_is_kept(real, simulated):
    kept = 0
    for first, second in common_orders(real):
        if first in simulated and second in simulated:
            assert comes_before(first, second, simulated), (first, second)
            kept += 1
    assert kept > 120


def test_every_kind_of_event_is_one_of_real_logs_and_only_those_of_other_makers_are_missing(real, simulated):
    there = {(pcr, kind) for log in real for pcr, kind, _ in log}
    ours = {(pcr, kind) for pcr, kind, _ in simulated}
    assert ours - there == RARE
    assert there - ours == OTHER_MAKERS


def test_an_order_that_is_broken_is_noticed(real, simulated):
    separator = (7, EV.SEPARATOR, b"")
    late = [kind for kind in simulated if kind != separator] + [separator]
    assert [pair for pair in common_orders(real) if pair[0] == separator and not comes_before(*pair, late)]
