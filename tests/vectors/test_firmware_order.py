"""What the logs of eleven real machines have in common about the order of firmware events, the simulated log keeps."""

import json
import struct

import pytest

from sim.attest.firmware import DESCRIBED_TYPES, HASHED_TYPES, STRICT_TYPES
from sim.boot.logform import FORMS
from sim.boot.uefi_events import image_load, option_rom_path
from sim.tpm.eventlog import EV, parse
from sim.tpm.hashing import hash_bytes
from tests.unit.vsphere.conftest import World

LOGS_MIN = 3
"""An order counts as common if so many real logs have both events, and none of them has it the other way."""
RARE = {(1, EV.CPU_MICROCODE), (1, EV.EFI_HANDOFF_TABLES)}
"""In one each of thirty public logs, and in none of the eleven."""
SECOND_FORMS = {
    (0, EV.EFI_PLATFORM_FIRMWARE_BLOB2),
    (1, EV.EFI_HANDOFF_TABLES2),
    (1, EV.EFI_VARIABLE_BOOT2),
}
"""What the profile has in its edition 1.05 and none of the eleven, which are older."""


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


def booted(form):
    world = World(log_form=form)
    world.boot()
    return parse(world.host.boot.event_log)


@pytest.fixture(scope="module")
def logs():
    """The simulated log in each maker's form."""
    return {form: booted(form) for form in FORMS}


@pytest.fixture(scope="module")
def simulated(logs):
    return kinds(logs["generic"])


def common_orders(logs):
    names = sorted({kind for log in logs for kind in log})
    for first in names:
        for second in names:
            both = [log for log in logs if first in log and second in log] if first != second else []
            if len(both) >= LOGS_MIN and all(comes_before(first, second, log) for log in both):
                yield first, second


@pytest.mark.parametrize("form", FORMS)
def test_every_order_that_real_logs_share_is_kept(real, logs, form):
    kept, ours = 0, kinds(logs[form])
    for first, second in common_orders(real):
        if first in ours and second in ours:
            assert comes_before(first, second, ours), (first, second)
            kept += 1
    assert kept > 110


def test_each_kind_of_event_in_real_logs_is_in_one_of_our_forms_and_ours_are_real(real, logs):
    there = {(pcr, kind) for log in real for pcr, kind, _ in log}
    ours = {(pcr, kind) for log in logs.values() for pcr, kind, _ in kinds(log)}
    assert ours - there == RARE | SECOND_FORMS
    assert there - ours == set()


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("boot-guard", "go-attestation__crypto_agile_eventlog"),
        ("virtual", "go-eventlog__debian-10.bin"),
        ("edk2", "keylime__binary_bios_measurements-secureboot"),
    ],
)
def test_pcr_0_and_the_tables_are_told_as_a_machine_of_that_kind_does(vectors, logs, form, name):
    def shape(log):
        own = [event for event in log.events if event.type != EV.NO_ACTION and event.type != EV.SEPARATOR]
        firmware = [(event.type, len(event.data)) for event in own if event.pcr == 0]
        flags = [(event.pcr, event.data) for event in own if event.data == b"ACPI DATA"]
        return [kind for kind, _ in firmware], dict.fromkeys(flags), [size for _, size in firmware[1:]]

    theirs = shape(parse((vectors / "eventlogs" / name).read_bytes()))
    assert shape(logs[form]) == theirs


def test_real_digests_cover_the_data_of_hashed_types_and_never_those_of_described_ones(vectors, logs):
    folder = vectors / "eventlogs"
    expected = json.loads((folder / "expected.json").read_text())
    real = [
        parse((folder / name).read_bytes()) for name, each in expected.items() if each["must"] == "accept"
    ]
    assert not DESCRIBED_TYPES & STRICT_TYPES
    seen = set()
    for log in (*real, *logs.values()):
        for event in log.events:
            covered = any(
                hash_bytes(algorithm, event.data) == digest for algorithm, digest in event.digests.items()
            )
            if event.type in HASHED_TYPES or event.type == EV.NONHOST_INFO:
                assert covered
            elif event.type in DESCRIBED_TYPES:
                assert not covered
                seen.add(event.type)
    assert seen == DESCRIBED_TYPES - {EV.EFI_RUNTIME_SERVICES_DRIVER}


def test_an_order_that_is_broken_is_noticed(real, simulated):
    separator = (7, EV.SEPARATOR, b"")
    late = [kind for kind in simulated if kind != separator] + [separator]
    assert [pair for pair in common_orders(real) if pair[0] == separator and not comes_before(*pair, late)]
