"""What the log of any machine says, and which findings contradict the firmware profile."""

import attrs
import pytest

from sim.attest.survey import FINDINGS_MAX as SURVEY_FINDINGS_MAX
from sim.attest.survey import HandOver, survey
from sim.attest.verdict import Reason
from sim.tpm.eventlog import EV
from sim.tpm.hashing import hash_bytes
from sim.tpm.tagged import EsxTag

from .alone import SHA256, log_of
from .lab import Step, boot_steps, exit_steps, firmware_steps, tagged


def test_a_survey_says_what_each_system_wrote():
    for steps, system in (
        (boot_steps(), "esxi"),
        ([*firmware_steps(), Step(8, EV.IPL, b"grub")], "linux"),
        ([*firmware_steps(), Step(9, EV.IPL, b"grub")], "linux"),
        ([*firmware_steps(), Step(10, EV.IPL, b"grub")], "unknown"),
        ([*firmware_steps(), Step(11, EV.EVENT_TAG, b"a tag of its own")], "windows"),
        ([*firmware_steps(), Step(13, EV.EVENT_TAG, b"?")], "windows"),
        ([*firmware_steps(), Step(14, EV.EVENT_TAG, b"?")], "unknown"),
        ([*firmware_steps(), tagged(12, EsxTag.MOD, b"no NUL")], "windows"),
        ([*firmware_steps(), tagged(20, EsxTag.MOD, b"net.v00\0")], "esxi"),
        ([*firmware_steps(), tagged(14, EsxTag.TAG, b"rack")], "esxi"),
        ([*firmware_steps(), tagged(10, EsxTag.TAG, b"rack")], "unknown"),
        (firmware_steps(), "unknown"),
    ):  # fmt: skip
        assert survey(log_of(steps)).system == system


def test_a_survey_counts_what_digests_cover_and_lists_what_was_started():
    log = log_of(boot_steps())
    found = survey(log)
    assert found.covered + found.described == found.events == len(log.events)
    described = [one for one in log.events if hash_bytes(SHA256, one.data) != one.digests[SHA256]]
    assert found.described == len(described) > 10
    assert (found.banks, found.startup_locality, found.launched) == (("sha256",), 0, False)
    assert (found.secure_boot, found.authorities, found.findings) == (True, 1, ())
    started = [n for n, one in enumerate(log.events) if one.type == EV.EFI_BOOT_SERVICES_APPLICATION]
    assert [(one.event, one.pcr) for one in found.applications] == [(number, 4) for number in started]
    assert found.applications[0].digests == {"sha256": log.events[started[0]].digests[SHA256].hex()}
    assert survey(log_of([*boot_steps(), tagged(17, EsxTag.MOD, b"b.b00\0")])).launched


def test_a_survey_looks_at_the_named_pcrs_alone():
    found = survey(log_of(boot_steps()), pcrs={4, 5})
    assert found.events == sum(step.pcr in {4, 5} for step in boot_steps())
    assert (found.secure_boot, found.authorities, found.findings) == (None, 0, ())


def exits(*actions):
    texts = {"start": b"Exit Boot Services Invocation", "done": b"Exit Boot Services Returned with Success"}
    steps = [Step(5, EV.EFI_ACTION, texts.get(action, b"other")) for action in actions]
    return survey(log_of([*firmware_steps(), *steps]))


@pytest.mark.parametrize(
    ("actions", "hand_over", "wrong"),
    [
        ((), HandOver.UNKNOWN, False), (("other",), HandOver.UNKNOWN, False),
        (("start",), HandOver.FAILED, False), (("start", "other", "start", "done"), HandOver.CLEAN, False),
        (("done",), HandOver.CLEAN, True), (("start", "done", "done"), HandOver.CLEAN, True),
        (("start", "done", "start"), HandOver.CLEAN, True), (("start", "done", "other"), HandOver.CLEAN, True),
    ],
)  # fmt: skip
def test_a_survey_tells_how_firmware_gave_up_the_machine(actions, hand_over, wrong):
    found = exits(*actions)
    assert found.hand_over is hand_over
    words = Reason(code="exit_boot_services", message="the exit from boot services stands in a wrong place")
    assert found.findings == ((words,) if wrong else ())


def test_what_contradicts_the_profile_is_a_finding_with_its_evidence():
    failed = [
        Step(2, EV.SEPARATOR, b"\x01" * 20) if s == Step(2, EV.SEPARATOR, bytes(4)) else s
        for s in boot_steps()
    ]
    assert survey(log_of(failed)).findings == (
        Reason(
            code="separator", message="the separator of PCR 2 reports a firmware error", evidence="01" * 16
        ),
    )
    ones = [attrs.evolve(s, data=b"\xff" * 4) if s.type == EV.SEPARATOR else s for s in boot_steps()]
    assert survey(log_of(ones)).findings == ()
    (twice,) = survey(log_of([*boot_steps(), Step(0, EV.SEPARATOR, bytes(4))])).findings
    assert twice == Reason(code="separator", message="PCR 0 has 2 separators where one may be")
    assert survey(log_of([Step(8, EV.SEPARATOR, b"?"), *boot_steps()])).findings == ()
    none = [step for step in boot_steps() if step.type != EV.SEPARATOR or step.pcr == 7]
    missing = survey(log_of(none), pcrs=range(7))
    assert missing.findings == ()
    (order,) = survey(log_of([s for s in boot_steps() if s.pcr != 7 or s.type == EV.SEPARATOR])).findings
    assert order == Reason(
        code="pcr7_order", message="the Secure Boot events of PCR 7 are not in their order"
    )


def test_a_survey_lists_only_so_many_findings():
    lies = [Step(4, EV.EFI_ACTION, b"said", b"measured")] * (SURVEY_FINDINGS_MAX + 1)
    assert len(survey(log_of([*firmware_steps(), *lies, *exit_steps()])).findings) == SURVEY_FINDINGS_MAX
