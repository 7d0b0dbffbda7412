"""What the verifier says of late launches: generations, launched code, launch policy, resumes and resets of the TPM."""

import hashlib
import struct

import attrs
import pytest

from sim.attest import launch
from sim.attest.verdict import AttestationError
from sim.image.manifest import ReferenceComponent, ReferenceManifest
from sim.tpm.client import TpmError
from sim.tpm.constants import TPM_SU
from sim.tpm.eventlog import EventLogWriter, parse
from sim.tpm.tagged import EsxTag

from .lab import (
    ALL_BANKS,
    COMMAND_LINE,
    CORE,
    OPTIONS,
    SHA256,
    STATIC,
    UPDATE,
    Lab,
    Step,
    codes,
    exit_steps,
    firmware_steps,
    launch_steps,
    manifest,
    module,
    tagged,
)

TBOOT = b"TBOOT code"
START = [*firmware_steps(), *exit_steps()]
PINNED = struct.pack("<III", 18, 0x10, 0) + bytes(6)


@pytest.fixture
def lab():
    return Lab()


def era_steps(tboot=TBOOT, policy=bytes(4) + bytes(32), said=b""):
    """A launch as a host of the TXT era measures it: tboot in 18, modules in 19, the VMkernel in 20."""
    steps = [
        Step(17, 0x403, b"everything combined" + policy + bytes(8), locality=3),
        Step(18, 0x404, said, tboot, locality=3),
        Step(17, 0x501, policy, locality=2),
        tagged(20, EsxTag.CMD_OPT, COMMAND_LINE, locality=2),
    ]
    steps += [module(20, name, content, locality=2) for name, content in CORE.items()]
    rest = {**UPDATE, **STATIC, **OPTIONS}
    return [*steps, *(module(19, name, content, locality=2) for name, content in rest.items())]


def with_tboot():
    digests = tuple(hashlib.new(kind, TBOOT).digest() for kind in ("sha256", "sha384"))
    component = ReferenceComponent(name="tboot.b00", digests=digests)
    return manifest().merged(ReferenceManifest(components=(component,)))


def era(lab, steps=None, **policy):
    lab.machine.boot(START, launch=era_steps() if steps is None else steps)
    wanted = {"launch_generation": "txt-era", "manifest": with_tboot(), **policy}
    return lab.appraise(lab.machine.evidence(), **wanted)


# ---------------------------------------------------------------- generations and launched code


def test_host_of_the_txt_era_is_accepted_under_its_own_map_alone(lab):
    verdict = era(lab)
    assert verdict.accepted, verdict.message
    assert ("tboot.b00", 18) in {(one.name, one.pcr) for one in verdict.components}
    strict = lab.appraise(lab.machine.evidence(), manifest=with_tboot())
    assert codes(strict) == ["pcr_unused"]


def test_modern_launch_is_refused_where_the_map_of_the_era_is_wanted(lab):
    lab.machine.boot(START, launch=launch_steps())
    assert lab.appraise(lab.machine.evidence()).accepted
    verdict = lab.appraise(lab.machine.evidence(), launch_generation="txt-era")
    assert set(codes(verdict)) == {"measurement_place"}


def test_tboot_that_nobody_published_is_named(lab):
    verdict = era(lab, era_steps(tboot=b"TBOOT patched"))
    assert codes(verdict)[0] == "launched_code"
    assert verdict.reasons[0].component == "launched code"


def test_published_file_that_is_no_launcher_cannot_be_the_launched_code(lab):
    """Else one could launch a driver of good name, and call that a measured launch."""
    assert "launched_code" in codes(era(lab, era_steps(tboot=STATIC["net.v00"])))


def test_event_of_the_launched_code_says_nothing(lab):
    """Whatever it said would be covered by no digest."""
    assert codes(era(lab, era_steps(said=b"tboot.b00"))) == ["launch_events"]


def test_launch_without_the_launched_code_misses_it(lab):
    steps = [step for step in era_steps() if step.type != 0x404]
    steps.insert(1, Step(18, 0x410, b"key", locality=3))
    assert "component_missing" in codes(era(lab, steps))


# ---------------------------------------------------------------- the launch control policy


def events_of(steps):
    writer = EventLogWriter(ALL_BANKS)
    for step in [Step(17, 0x402, bytes(4), b"SINIT"), *steps]:
        writer.measure(step.pcr, step.type, step.data, step.over)
    return parse(writer.to_bytes()).events


@pytest.mark.parametrize(
    ("control", "details", "good"),
    [(0, PINNED, True), (0, b"\0", False), (2, PINNED, False), (4, PINNED, True)],
)
def test_details_tell_whether_a_policy_pins_the_launch(control, details, good):
    events = events_of([Step(17, 0x40C, struct.pack("<I", control)), Step(17, 0x412, details)])
    if good:
        launch.check_launch_policy(events)
        return
    with pytest.raises(AttestationError) as caught:
        launch.check_launch_policy(events)
    assert caught.value.check == "launch_policy"


@pytest.mark.parametrize(
    ("policy", "good"),
    [
        (bytes(4) + b"\1" * 32, True),
        (bytes(36), False),
        (struct.pack("<I", 2) + b"\1" * 32, False),
    ],
)
def test_legacy_use_tells_it_by_tboot_s_event(lab, policy, good):
    verdict = era(lab, era_steps(policy=policy), require_launch_policy=True)
    assert codes(verdict) == ([] if good else ["launch_policy"])


ELEMENT = struct.pack("<III", 16, 0x11, 0) + bytes(4)


@pytest.mark.parametrize("details", [
    ELEMENT, b"", PINNED[:-1], PINNED + b"\0", struct.pack("<III", 11, 0x10, 0), struct.pack("<III", 0, 0x10, 0) * 2,
])  # fmt: skip
def test_details_without_an_element_on_the_launched_code_pin_nothing(details):
    events = events_of([Step(17, 0x40C, bytes(4)), Step(17, 0x412, details)])
    with pytest.raises(AttestationError, match="no launch control policy pins"):
        launch.check_launch_policy(events)
    launch.check_launch_policy(events_of([Step(17, 0x40C, bytes(4)), Step(17, 0x412, ELEMENT + PINNED)]))


PINS = bytes(4) + b"\1" * 32


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (
            Step(17, 0x412, PINNED, locality=2),
            "launch event 0x412 on the policy stands behind the launched code",
        ),
        (
            Step(17, 0x501, PINS, locality=2),
            "launch event 0x501 on the policy stands behind the launched code",
        ),
        (Step(17, 0x403, PINS + bytes(8), locality=2), "launch event 0x403 on the policy stands behind"),
    ],
)
def test_what_is_said_behind_the_launched_code_is_no_word_on_the_policy(lab, lie, words):
    lab.machine.boot(START, launch=[*launch_steps(), lie])
    assert lab.appraise(lab.machine.evidence()).accepted
    verdict = lab.appraise(lab.machine.evidence(), require_launch_policy=True)
    assert codes(verdict) == ["launch_policy"]
    assert words in verdict.message


def test_tboot_s_word_on_the_policy_must_be_sinit_s():
    told = [Step(17, 0x403, b"all" + PINS + bytes(8)), Step(17, 0x501, PINS)]
    launch.check_launch_policy(events_of(told))
    for steps, words in (
        ([told[0], Step(17, 0x501, bytes(4) + b"\2" * 32)], "is not what SINIT combined"),
        ([Step(17, 0x403, b"all" + bytes(44)), told[1]], "is not what SINIT combined"),
        ([told[0]], "is not what SINIT combined"),
        ([told[0], Step(17, 0x501, PINS[:3])], "is not what SINIT combined"),
        ([told[1]], "stands alone"),
    ):
        with pytest.raises(AttestationError, match=words):
            launch.check_launch_policy(events_of(steps))


def test_legacy_use_leaves_open_what_the_lists_are_about(lab):
    verdict = era(lab, era_steps(policy=PINS), require_launch_policy=True)
    assert "whether the launch control policy is about the launched code: legacy use" in verdict.unknown
    assert not any("launch control" in one for one in era(Lab()).unknown)


def test_launch_without_any_word_on_a_policy_has_none(lab):
    lab.machine.boot(START, launch=launch_steps())
    assert codes(lab.appraise(lab.machine.evidence(), require_launch_policy=True)) == ["launch_policy"]


# ---------------------------------------------------------------- resets, restarts, resumes


def restart(machine, startup, *, shutdown=TPM_SU.STATE):
    """Let the TPM go through _TPM_Init, told before by a Shutdown or not."""
    if shutdown is not None:
        machine.client.shutdown(shutdown)
    machine.tpm.clock.now += 5_000_000_000
    machine.tpm.init()
    machine.client.startup(startup)


def replay_log(machine, pcrs=range(24)):
    """Extend every event of the machine's log again, from locality 0; return the PCRs that refused."""
    refused = []
    for event in parse(machine.log).events:
        if event.pcr in pcrs:
            try:
                machine.client.pcr_extend(event.pcr, event.digests)
            except TpmError:
                refused.append(event.pcr)
    return refused


def test_resume_keeps_the_static_pcrs_and_is_accepted_where_it_is_known_and_allowed(lab):
    lab.machine.boot()
    last = lab.appraise(lab.machine.evidence()).clock
    restart(lab.machine, TPM_SU.STATE)
    evidence = lab.machine.evidence()
    judge = {"last": last, "rebooted": False}
    assert lab.appraise(evidence, **judge, resumes=1, allow_resume=True).accepted
    for resumes, allow in ((0, True), (1, False), (2, True)):
        verdict = lab.appraise(evidence, **judge, resumes=resumes, allow_resume=allow)
        assert codes(verdict) == ["tpm_restart"], (resumes, allow)


def test_resume_with_a_launch_restarts_twice(lab):
    lab.machine.boot(START, launch=launch_steps())
    last = lab.appraise(lab.machine.evidence()).clock
    restart(lab.machine, TPM_SU.STATE)
    lab.machine.tpm.hash_start()
    lab.machine.tpm.hash_data(b"SINIT")
    lab.machine.tpm.hash_end()
    for step in launch_steps():
        lab.machine.extend(step.pcr, step.data if step.over is None else step.over, step.locality)
    verdict = lab.appraise(lab.machine.evidence(), last=last, rebooted=False, resumes=1, allow_resume=True)
    assert verdict.accepted, verdict.message
    assert (verdict.clock.reset_count, verdict.clock.restart_count) == (
        last.reset_count,
        last.restart_count + 2,
    )


def test_launched_host_that_resumed_without_a_launch_is_refused(lab):
    lab.machine.boot(START, launch=launch_steps())
    last = lab.appraise(lab.machine.evidence()).clock
    restart(lab.machine, TPM_SU.STATE)
    verdict = lab.appraise(lab.machine.evidence(), last=last, rebooted=False, resumes=1, allow_resume=True)
    assert "launch" in codes(verdict)


@pytest.mark.parametrize("shutdown", [None, TPM_SU.CLEAR])
def test_replay_after_a_reset_of_the_tpm_alone_shows_in_the_reset_counter(lab, shutdown):
    lab.machine.boot()
    last = lab.appraise(lab.machine.evidence()).clock
    before = lab.machine.client.pcr_read({SHA256: tuple(range(16))})
    restart(lab.machine, TPM_SU.CLEAR, shutdown=shutdown)
    assert replay_log(lab.machine) == []
    assert lab.machine.client.pcr_read({SHA256: tuple(range(16))}) == before
    evidence = lab.machine.evidence()
    for resumes in (0, 1):
        verdict = lab.appraise(evidence, last=last, rebooted=False, resumes=resumes, allow_resume=True)
        assert codes(verdict) == ["tpm_reset"]
    reason = verdict.reasons[0]
    assert f"reset_count={last.reset_count + 1}" in reason.evidence
    assert "restart_count=0" in reason.evidence


def test_replay_after_an_orderly_restart_shows_in_the_restart_counter(lab):
    """Shutdown(STATE), then Startup(CLEAR): the PCRs begin anew and resetCount stays."""
    lab.machine.boot()
    last = lab.appraise(lab.machine.evidence()).clock
    restart(lab.machine, TPM_SU.CLEAR)
    replay_log(lab.machine)
    evidence = lab.machine.evidence()
    assert codes(lab.appraise(evidence, last=last, rebooted=False)) == ["tpm_restart"]


def test_lie_about_a_reboot_hides_a_reset_of_static_measurements(lab):
    """What nothing here can see: whoever says that the host was rebooted may replay what a clean boot measures."""
    lab.machine.boot()
    last = lab.appraise(lab.machine.evidence()).clock
    restart(lab.machine, TPM_SU.CLEAR, shutdown=None)
    replay_log(lab.machine)
    assert lab.appraise(lab.machine.evidence(), last=last, rebooted=True).accepted


def test_lie_about_a_reboot_cannot_bring_a_launch_back(lab):
    """The answer to it: what a launch measures no software at locality 0 can extend."""
    lab.machine.boot(START, launch=launch_steps())
    last = lab.appraise(lab.machine.evidence(), launch="required").clock
    restart(lab.machine, TPM_SU.CLEAR, shutdown=None)
    assert set(replay_log(lab.machine)) == {17, 18, 19, 20, 21}
    verdict = lab.appraise(lab.machine.evidence(), last=last, rebooted=True, launch="required")
    assert "launch" in codes(verdict)


def test_replay_cannot_fake_a_platform_that_starts_its_tpm_from_locality_3(lab):
    lab.machine.boot(locality=3)
    last = lab.appraise(lab.machine.evidence()).clock
    restart(lab.machine, TPM_SU.CLEAR, shutdown=None)
    replay_log(lab.machine)
    verdict = lab.appraise(lab.machine.evidence(), last=last, rebooted=True)
    assert codes(verdict) == ["replay"]
    assert "PCR 0" in verdict.message


def test_clock_that_went_back_is_refused_whatever_the_counters_say(lab):
    lab.machine.boot()
    last = lab.appraise(lab.machine.evidence()).clock
    later = attrs.evolve(last, clock=last.clock + 10**9)
    assert codes(lab.appraise(lab.machine.evidence(), last=later, rebooted=False)) == ["clock"]
