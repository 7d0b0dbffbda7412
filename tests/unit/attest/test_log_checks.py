"""Each check of a log alone: at its very bound it passes, behind it it refuses by name, words and evidence."""

import hashlib
import struct

import pytest

from sim.attest import esx_events, event_log, firmware, launch, phases
from sim.attest.uefi import GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, UefiVariable, read_variable
from sim.attest.verdict import AttestationError
from sim.errors import FormatError
from sim.image.manifest import ReferenceLoader
from sim.tpm.constants import TPM_ALG
from sim.tpm.eventlog import EV, EventLog, EventLogWriter

from .alone import ONE, SHA1, SHA256, event, log_of, refused
from .lab import Step, launch_steps, variable

SM3 = TPM_ALG.SM3_256.value

# ------------------------------------------------------------ the log


def test_a_log_is_refused_by_bank_event_and_pcr():
    assert refused(event_log.check_not_truncated, truncated=True) == (
        "log_truncated", "the boot loader says that its event log is not complete", None, "",
    )  # fmt: skip
    both = EventLog(events=(event(), event(pcr=3)), spec_id=None, banks=(SHA256, SHA1))
    assert refused(event_log.check_banks, both, [SHA256, SHA1]) == (
        "log_banks", "the event log has no sha1 digests, and the quote covers that bank", None, "event 0, PCR 4",
    )  # fmt: skip
    with pytest.raises(AttestationError, match=r"^the event log cannot be read: "):
        event_log.read_event_log(b"?")
    assert refused(event_log.read_event_log, EventLogWriter((SHA256,)).to_bytes()) == (
        "event_log", "the event log has no events", None, "",
    )  # fmt: skip


def test_a_pcr_is_held_to_the_replay_and_the_evidence_shows_both_values():
    event_log.check_pcr_replay("sha256", 7, ONE, ONE, events=0)
    seen = f"quoted {ONE.hex()}, replayed {bytes(32).hex()} from"
    for count, words in ((2, "does not replay to"), (0, "has no event for")):
        assert refused(event_log.check_pcr_replay, "sha256", 7, ONE, bytes(32), events=count) == (
            "replay", f"the event log {words} PCR 7 of the sha256 bank", None, f"{seen} {count} event(s)",
        )  # fmt: skip


def test_events_must_be_covered_and_required_pcrs_used():
    values = {"sha256": {4: ONE}, "sha1": {3: b""}}
    event_log.check_covered(event(), {"sha256": {4: ONE}})
    assert refused(event_log.check_covered, event(), values) == (
        "event_uncovered", "the event log extends PCR 4, which the quote does not cover (sha1)", None, "",
    )  # fmt: skip
    event_log.check_extended([event()], [4])
    assert refused(event_log.check_extended, [event()], [4, 5]) == (
        "pcr_unused", "nothing was measured into PCR 5", None, "",
    )  # fmt: skip


def test_a_bank_that_no_event_has_or_nobody_can_replay_is_refused_though_no_event_lacks_it():
    silent = event(pcr=0, kind=EV.NO_ACTION, digests={SHA1: bytes(20)})
    for banks, quoted, words in (
        ((SHA1,), SHA256, "sha256 digests"),
        ((SHA256, SM3), SM3, "sm3_256 digests that can be replayed"),
        ((), 0x77, "0x0077 digests"),
    ):
        log = EventLog(events=(silent,), spec_id=None, banks=banks)
        assert refused(event_log.check_banks, log, [*banks[:1], quoted])[:2] == (
            "log_banks",
            f"the event log has no {words}, and the quote covers that bank",
        )


def test_the_startup_locality_is_that_of_pcr_0():
    for pcr, found in ((0, 3), (1, 0)):
        said = event(pcr, EV.NO_ACTION, b"StartupLocality\0\3", {SHA256: bytes(32)})
        assert event_log.startup_locality(EventLog(events=(said,), spec_id=None, banks=(SHA256,))) == found
        hcrtm = event(pcr, EV.EFI_HCRTM_EVENT, b"HCRTM")
        assert event_log.startup_locality(EventLog(events=(hcrtm,), spec_id=None, banks=())) == 4 * (not pcr)


@pytest.mark.parametrize("pcr", range(17, 23))
def test_a_launch_is_told_by_each_of_its_pcrs(pcr):
    ones = {"sha256": {pcr: b"\xff" * 32}}
    other = {"sha256": {pcr: ONE}}
    event_log.check_dynamic_launch(ones, launched=False, required=False, forbidden=True)
    event_log.check_dynamic_launch(other, launched=True, required=True, forbidden=False)
    words = f"the event log tells of a dynamic launch that PCR {pcr} (sha256) never saw"
    assert refused(event_log.check_dynamic_launch, ones, launched=True, required=False, forbidden=False) == (
        "launch",
        words,
        None,
        "",
    )
    words = f"PCR {pcr} (sha256) was cleared by a dynamic launch that the event log does not have"
    assert refused(
        event_log.check_dynamic_launch, other, launched=False, required=False, forbidden=False
    ) == ("launch", words, None, "")


@pytest.mark.parametrize("pcr", [16, 23])
def test_pcrs_beside_those_of_a_launch_tell_nothing_of_it(pcr):
    for value in (ONE, b"\xff" * 32):
        for launched in (True, False):
            values = {"sha256": {pcr: value}}
            event_log.check_dynamic_launch(values, launched=launched, required=False, forbidden=False)


def test_a_policy_may_want_a_launch_or_none():
    given = {"required": True, "forbidden": False}
    assert refused(event_log.check_dynamic_launch, {}, launched=False, **given)[1] == (
        "the host was booted without the dynamic launch that the policy requires"
    )
    given = {"required": False, "forbidden": True}
    assert refused(event_log.check_dynamic_launch, {}, launched=True, **given)[1] == (
        "the host was booted with a dynamic launch that the policy forbids"
    )


def test_a_start_and_a_golden_value_are_held_to_the_policy():
    event_log.check_startup_locality(3, None)
    event_log.check_startup_locality(0, 0)
    assert refused(event_log.check_startup_locality, 3, 0) == (
        "startup_locality", "the TPM was started from locality 3 instead of 0", None, "",
    )  # fmt: skip
    event_log.check_golden_value("sha256", 0, ONE, (bytes(32), ONE))
    assert refused(event_log.check_golden_value, "sha256", 0, ONE, ()) == (
        "reference_pcr", "PCR 0 of the sha256 bank differs from its reference value", None, ONE.hex(),
    )  # fmt: skip


def test_pcrs_without_an_event_keep_what_they_start_with():
    log = log_of([Step(0, EV.SEPARATOR, bytes(4))])
    for launched, high in ((False, b"\xff" * 32), (True, bytes(32))):
        values = event_log.replay_all(log, launched=launched)[SHA256]
        assert sorted(values) == list(range(24))
        assert [values[pcr] for pcr in (16, 17, 22, 23)] == [bytes(32), high, high, bytes(32)]


# ------------------------------------------------------------ firmware


def test_an_event_that_firmware_may_not_write_is_refused_with_its_size():
    assert refused(firmware.check_event_type, event(7, EV.IPL, b"abc")) == (
        "event_type", "the event log has an event of type 0xd in PCR 7, where none belongs", None, "3 bytes of data",
    )  # fmt: skip
    assert refused(esx_events.check_event_belongs, event(9, EV.IPL))[1] == (
        "the event log has an event of type 0xd in PCR 9, where none belongs"
    )


@pytest.mark.parametrize("pcr", range(8))
def test_each_firmware_pcr_takes_its_types_and_no_other(pcr):
    taken = {kind for kind in EV if kind in firmware.ALLOWED_TYPES[pcr]}
    assert EV.SEPARATOR in taken
    assert EV.NO_ACTION not in taken
    for kind in EV:
        if kind in taken:
            esx_events.check_event_belongs(event(pcr, kind))
        else:
            assert refused(esx_events.check_event_belongs, event(pcr, kind))[0] == "event_type"


def test_tagged_and_launch_events_belong_into_their_pcrs_alone():
    tagged_pcrs = {*range(11, 15), *range(17, 23)}
    for pcr in range(24):
        for kind, pcrs in ((EV.EVENT_TAG, tagged_pcrs), (0x402, {17, 18}), (0x414, {17, 18})):
            if pcr in pcrs:
                esx_events.check_event_belongs(event(pcr, kind))
            else:
                assert refused(esx_events.check_event_belongs, event(pcr, kind))[0] == "event_type"


def test_data_that_were_not_measured_are_refused_with_bank_and_digest():
    firmware.check_hashed_data(event(kind=EV.EFI_ACTION, data=b"abc"))
    firmware.check_hashed_data(event(kind=EV.IPL, data=b"abc", digests={SHA256: ONE}))
    wrong = event(kind=EV.EFI_ACTION, data=b"abc", digests={0x12: bytes(32), SHA256: ONE})
    assert refused(firmware.check_hashed_data, wrong) == (
        "event_data", "the data of an event of type 0x80000007 in PCR 4 are not what was measured", None,
        f"sha256 digest {ONE.hex()}, data of 3 bytes",
    )  # fmt: skip


def test_separators_are_refused_by_pcr():
    good = [event(pcr, EV.SEPARATOR, bytes(4)) for pcr in range(8)]
    firmware.check_separators([*good, event(8, EV.SEPARATOR)])
    assert refused(firmware.check_separators, good[:7]) == (
        "separator", "PCR 7 has 0 separators where it must have one", None, "",
    )  # fmt: skip
    assert refused(firmware.check_separators, [*good, good[0]])[1] == (
        "PCR 0 has 2 separators where it must have one"
    )
    failed = event(2, EV.SEPARATOR, b"\x01" * 20)
    assert refused(firmware.check_separators, [*good[:2], failed, *good[3:]]) == (
        "separator", "the separator of PCR 2 reports a firmware error", None, "01" * 16,
    )  # fmt: skip


def secure_boot_events(*names, authorities=0):
    spaces = {"db": IMAGE_SECURITY_DATABASE, "dbx": IMAGE_SECURITY_DATABASE}
    data = [variable(name, b"", spaces.get(name, GLOBAL_VARIABLE)) for name in names]
    events = [event(7, EV.EFI_VARIABLE_DRIVER_CONFIG, each) for each in data]
    events.append(event(7, EV.SEPARATOR, bytes(4)))
    return [*events, *[event(7, EV.EFI_VARIABLE_AUTHORITY)] * authorities]


def test_pcr_7_has_one_order():
    order = ("SecureBoot", "PK", "KEK", "db", "dbx")
    variables, authorities = firmware.check_pcr7_order(
        [event(6), *secure_boot_events(*order, authorities=2), event(5)]
    )
    assert [each.name for each in variables] == list(order)
    assert [each.type for each in authorities] == [EV.EFI_VARIABLE_AUTHORITY] * 2
    assert firmware.check_pcr7_order(secure_boot_events(*order))[1] == ()
    words = "the Secure Boot events of PCR 7 are not in their order"
    for wrong in (order[:4], (*order, "dbt"), ()):
        assert refused(firmware.check_pcr7_order, secure_boot_events(*wrong)) == (
            "pcr7_order", words, None, "",
        )  # fmt: skip
    late = [*secure_boot_events(*order), event(7, EV.EFI_ACTION)]
    assert refused(firmware.check_pcr7_order, late)[1] == words


@pytest.mark.parametrize("place", range(5))
def test_each_variable_of_pcr_7_has_its_place(place):
    order = ["SecureBoot", "PK", "KEK", "db", "dbx"]
    name, order[place] = order[place], "x" * 50
    assert refused(firmware.check_pcr7_order, secure_boot_events(*order)) == (
        "pcr7_order", f"PCR 7 has {'x' * 40!r} where the variable {name} belongs", None, "",
    )  # fmt: skip


def test_a_variable_of_another_namespace_is_another_variable():
    events = secure_boot_events("SecureBoot", "PK", "KEK", "db", "dbx")
    events[0] = event(7, EV.EFI_VARIABLE_DRIVER_CONFIG, variable("SecureBoot", b"", IMAGE_SECURITY_DATABASE))
    assert refused(firmware.check_pcr7_order, events)[1] == (
        "PCR 7 has 'SecureBoot' where the variable SecureBoot belongs"
    )
    events[0] = event(7, EV.EFI_VARIABLE_DRIVER_CONFIG, b"?")
    assert refused(firmware.check_pcr7_order, events)[1] == (
        "PCR 7 has an event that holds no variable: UEFI variable event: offset 1: expected 32 bytes of header"
    )


@pytest.mark.parametrize(("content", "on"), [(b"", False), (b"\x00", False), (b"\x01", True)])
def test_secure_boot_is_what_its_variable_says(content, on):
    variables = [UefiVariable(namespace=GLOBAL_VARIABLE, name="SecureBoot", content=content)]
    assert firmware.secure_boot_state(variables) is on


def test_secure_boot_is_demanded_with_an_authority_only_where_the_policy_wants_it():
    firmware.check_secure_boot(enabled=False, authorities=0, required=False)
    firmware.check_secure_boot(enabled=True, authorities=1, required=True)
    assert refused(firmware.check_secure_boot, enabled=False, authorities=1, required=True)[:2] == (
        "secure_boot", "Host secure boot was disabled",
    )  # fmt: skip
    assert refused(firmware.check_secure_boot, enabled=True, authorities=0, required=True)[:2] == (
        "secure_boot", "Secure Boot was on, yet no authority vouched for a boot loader",
    )  # fmt: skip
    two = UefiVariable(namespace=GLOBAL_VARIABLE, name="SecureBoot", content=b"\x02")
    assert refused(firmware.secure_boot_state, [two]) == (
        "secure_boot", "the SecureBoot variable is neither on nor off", None, "02",
    )  # fmt: skip


@pytest.mark.parametrize("kind", [EV.EFI_BOOT_SERVICES_APPLICATION, EV.EFI_BOOT_SERVICES_DRIVER])
def test_every_image_in_pcr_4_must_be_a_published_boot_loader(kind):
    good, bad = event(4, kind, digests={SHA256: ONE}), event(4, kind, digests={SHA256: bytes(32)})
    known = frozenset({ONE})
    firmware.check_boot_loaders([good, event(2, kind, digests={SHA256: bytes(32)})], SHA256, known)
    assert refused(firmware.check_boot_loaders, [good, bad], SHA256, known) == (
        "boot_loader", "the boot loader is not one that its vendor published", "boot loader",
        f"Authenticode digest {bytes(32).hex()}",
    )  # fmt: skip
    assert refused(firmware.check_boot_loaders, [event(4)], SHA256, known) == (
        "boot_loader", "the event log names no boot loader", "boot loader", "",
    )  # fmt: skip
    assert refused(firmware.check_boot_loaders, [event(4, kind, digests={})], SHA256, known)[3] == (
        "Authenticode digest "
    )


def test_firmware_gives_up_the_machine_once_and_last():
    started = event(5, EV.EFI_ACTION, b"Exit Boot Services Invocation")
    done = event(5, EV.EFI_ACTION, b"Exit Boot Services Returned with Success")
    again = event(5, EV.EFI_ACTION, b"Exit Boot Services Returned with Failure")
    firmware.check_exit_boot_services(
        [event(5), started, again, started, done, event(4), event(5, EV.SEPARATOR)]
    )
    for wrong in (
        [],
        [started],
        [done],
        [done, started],
        [started, done, started, done],
        [started, done, event(5)],
    ):
        assert refused(firmware.check_exit_boot_services, wrong) == (
            "exit_boot_services", "the event log does not end with the exit from boot services", None, "",
        )  # fmt: skip


def test_a_variable_is_refused_by_place_and_reason():
    longest = variable("n" * 256, b"")
    assert read_variable(longest).name == "n" * 256
    for data, words in (
        (longest[:31], "offset 31: expected 32 bytes of header"),
        (variable("n" * 257, b""), "name length: more than 256 characters"),
        (longest + b"\0", f"lengths: name and content do not fill the {len(longest) + 1} bytes"),
        (struct.pack("<16sQQ", GLOBAL_VARIABLE, 1, 0) + b"\0\xd8", "name: not UTF-16"),
    ):
        with pytest.raises(FormatError) as caught:
            read_variable(data)
        assert str(caught.value) == f"UEFI variable event: {words}"


# ------------------------------------------------------------ launch


def launch_events(*more):
    steps = [Step(17, 0x402, bytes(4), b"SINIT"), *launch_steps(), *more]
    return log_of(steps).events


def test_a_launch_is_refused_by_event_and_pcr():
    launch.check_launch_events(launch_events(Step(17, 0x414, b"x" * 1024)))
    words = "the dynamic launch does not begin with its hash sequence"
    assert refused(launch.check_launch_events, launch_events()[1:]) == ("launch_events", words, None, "")
    for step, words in (
        (Step(17, 0x414, b"x" * 1025), "launch event 0x414 carries 1025 bytes"),
        (Step(17, 0x40B, b""), "launch event 0x40b stands twice in PCR 17"),
        (Step(18, 0x402, b""), "a hash sequence stands in PCR 18"),
    ):
        assert refused(launch.check_launch_events, launch_events(step)) == ("launch_events", words, None, "")
    hidden = Step(18, 0x412, b"", b"code")
    assert refused(launch.check_launch_events, launch_events(hidden)) == (
        "event_data", "the data of launch event 0x412 in PCR 18 are not what was measured", None,
        f"sha256 digest {hashlib.sha256(b'code').hexdigest()}",
    )  # fmt: skip


def test_a_boot_variable_that_cannot_be_read_counts_as_it_stands():
    firmware.check_hashed_data(event(1, EV.EFI_VARIABLE_BOOT, b"no variable"), firmware.STRICT_TYPES)
    wrong = event(1, EV.EFI_VARIABLE_BOOT, b"no variable", {SHA256: ONE})
    assert refused(firmware.check_hashed_data, wrong, firmware.STRICT_TYPES)[0] == "event_data"


# ------------------------------------------------------------ the phases of a boot


def placed(*kinds):
    """Events by (PCR, kind), a text standing for an action."""
    return [
        event(pcr, EV.EFI_ACTION, kind.encode()) if isinstance(kind, str) else event(pcr, kind)
        for pcr, kind in kinds
    ]


DONE = "Exit Boot Services Returned with Success"
APPLICATION, DRIVER = EV.EFI_BOOT_SERVICES_APPLICATION, EV.EFI_BOOT_SERVICES_DRIVER


def test_kinds_that_belong_behind_a_separator_may_stand_there():
    phases.check_phases(placed(*((pcr, EV.SEPARATOR) for pcr in range(8)), (1, EV.EFI_VARIABLE_BOOT), (4, APPLICATION),
                               (4, DRIVER), (4, "x"), (5, EV.EFI_GPT_EVENT), (7, EV.EFI_VARIABLE_AUTHORITY),
                               (5, DONE), (8, EV.IPL), (12, EV.EVENT_TAG), (17, 0x402)))  # fmt: skip
    phases.check_phases(placed((4, APPLICATION), (7, EV.EFI_VARIABLE_AUTHORITY), (5, EV.EFI_GPT_EVENT)))
    phases.check_phases(placed((4, DRIVER), (4, "x"), (4, EV.SEPARATOR), (5, DONE)))


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([(0, EV.SEPARATOR), (0, EV.EFI_PLATFORM_FIRMWARE_BLOB)],
         "PCR 0 has an event of type EV_EFI_PLATFORM_FIRMWARE_BLOB behind its separator"),
        ([(2, EV.SEPARATOR), (2, DRIVER)], "PCR 2 has an event of type EV_EFI_BOOT_SERVICES_DRIVER behind its separator"),
        ([(1, EV.SEPARATOR), (1, EV.CPU_MICROCODE)], "PCR 1 has an event of type EV_CPU_MICROCODE behind its separator"),
        ([(6, EV.SEPARATOR), (6, "x")], "PCR 6 has an event of type EV_EFI_ACTION behind its separator"),
        ([(7, EV.SEPARATOR), (7, EV.EFI_VARIABLE_DRIVER_CONFIG)],
         "PCR 7 has an event of type EV_EFI_VARIABLE_DRIVER_CONFIG behind its separator"),
        ([(4, APPLICATION), (4, EV.SEPARATOR)],
         "PCR 4 has an event of type EV_EFI_BOOT_SERVICES_APPLICATION before its separator"),
        ([(7, EV.EFI_VARIABLE_AUTHORITY), (7, EV.SEPARATOR)],
         "PCR 7 has an event of type EV_EFI_VARIABLE_AUTHORITY before its separator"),
        ([(5, DONE), (5, EV.EFI_GPT_EVENT)],
         "PCR 5 has an event of type EV_EFI_GPT_EVENT behind the exit from boot services"),
        ([(5, DONE), (7, EV.EFI_VARIABLE_AUTHORITY)],
         "PCR 7 has an event of type EV_EFI_VARIABLE_AUTHORITY behind the exit from boot services"),
        ([(5, DONE + "\0"), (0, EV.SEPARATOR), (5, "x"), (0, EV.POST_CODE)],
         "PCR 0 has an event of type EV_POST_CODE behind the exit from boot services"),
    ],
)  # fmt: skip
def test_an_event_of_another_phase_is_refused_by_pcr_kind_and_place(kinds, words):
    assert refused(phases.check_phases, placed(*kinds)) == ("event_order", words, None, "")


def test_every_published_loader_is_started_in_one_of_its_versions():
    loaders = [
        ReferenceLoader(name=name, digests=(digest, bytes(48)))
        for name, digest in (("first", ONE), ("second", bytes(32)), ("second", b"\2" * 32))
    ]
    started = [event(4, APPLICATION, digests={SHA256: digest}) for digest in (ONE, b"\2" * 32)]
    firmware.check_loaders_present(started, SHA256, loaders)
    firmware.check_loaders_present([], SHA256, [])
    elsewhere = event(2, APPLICATION, digests={SHA256: bytes(32)})
    for events, name in (([started[0], elsewhere], "second"), (started[1:], "first"), ([], "first")):
        assert refused(firmware.check_loaders_present, events, SHA256, loaders) == (
            "loader_missing", f"the boot loader {name} was not started", name, "",
        )  # fmt: skip
