"""What engines of third parties find, in words, components and evidence."""

import hashlib

import attrs
import pytest

from sim.attest.engines import AllowListEngine, Case, SealEngine
from sim.attest.engines.case import FINDINGS_MAX, Decision, Finding, decision, measured_files, unproven
from sim.attest.verdict import Reason, Verdict
from sim.core.rng import Rng
from sim.image.manifest import ReferenceLoader, ReferenceManifest
from sim.tpm.eventlog import EV, EventLogWriter
from sim.tpm.tagged import EsxTag

from .alone import SHA256, component, evidence, refused
from .lab import Step, boot_steps, tagged

LOADER = Step(4, EV.EFI_BOOT_SERVICES_APPLICATION, b"where it was loaded" + bytes(16), b"a loader")
PUBLISHED = (ReferenceLoader(name="mboot64.efi", digests=(hashlib.sha256(b"a loader").digest(),)),)


def case(steps=None, verdict=None, **values):
    writer = EventLogWriter((SHA256,))
    for step in boot_steps() if steps is None else steps:
        writer.measure(step.pcr, step.type, step.data, step.over)
    given = evidence(event_log=writer.to_bytes(), pcr_values=values)
    return Case(host="esx01", evidence=given, verdict=verdict or Verdict(status="accepted", replayed=True))


def test_an_engine_reads_nothing_that_is_not_proven():
    assert unproven(case()) is None
    reasons = (Reason(code="x", message="m" * 300),)
    finding = unproven(case(verdict=Verdict(status="notAccepted", reasons=reasons)))
    assert finding == Finding(
        rule="unproven",
        message="the measurements are not proven by a quote of a known TPM",
        evidence="m" * 200,
    )
    (only,) = (
        AllowListEngine(allowed=ReferenceManifest(components=(component(),)))
        .decide(case(verdict=Verdict(status="notAccepted")))
        .findings
    )
    assert only.rule == "unproven"


def test_measured_files_are_modules_and_option_files_in_their_order():
    files = measured_files(case([tagged(14, EsxTag.BOOT_OPT, b"a.gz\0"), tagged(12, EsxTag.MOD, b"b.b00\0"),
                                 tagged(14, EsxTag.CMD_OPT, b"text")]))  # fmt: skip
    assert [each.title for each in files] == ["a.gz", "b.b00"]
    assert refused(measured_files, case([tagged(14, EsxTag.CMD_OPT, b"text")]))[:2] == (
        "no_modules", "the event log names no boot module",
    )  # fmt: skip


def test_an_allow_list_refuses_an_unlisted_file_a_log_without_files_and_another_pcr():
    engine = AllowListEngine(
        allowed=ReferenceManifest(components=(component(),), loaders=PUBLISHED),
        reference_pcrs={"sha1": {0: (b"\x05",), 1: (b"\x01",)}},
    )
    digest = hashlib.sha256(b"net").digest()
    listed = attrs.evolve(
        engine, allowed=ReferenceManifest(components=(component(digest=digest),), loaders=PUBLISHED)
    )
    booted = case([LOADER, tagged(13, EsxTag.MOD, b"net.v00\0", b"net")], sha1={0: b"\x05", 1: b"\x02"})
    pcr = Finding(rule="reference_pcr", message="PCR 1 of the sha1 bank has no listed value", evidence="02")
    assert listed.decide(booted) == Decision(engine="allow-list", findings=(pcr,))
    unlisted = Finding(
        rule="unlisted",
        message="net.v00 is not on the list",
        component="net.v00",
        evidence=f"PCR 13, digest {digest.hex()}",
    )
    assert engine.decide(booted).findings == (unlisted, pcr)
    (unlisted_loader,) = (
        attrs.evolve(listed, allowed=attrs.evolve(listed.allowed, loaders=()), reference_pcrs={})
        .decide(booted)
        .findings
    )
    assert unlisted_loader.rule == "loader"
    assert unlisted_loader.message == "the boot loader is not one that its vendor published"
    (unreadable,) = engine.decide(case([tagged(14, EsxTag.CMD_OPT, b"")])).findings
    assert unreadable == Finding(
        rule="unreadable",
        message="what the host sent cannot be read: the event log names no boot module",
    )
    without = attrs.evolve(listed, reference_pcrs={"sha256": {0: (b"\x05",)}})
    assert without.decide(booted).findings[0].message == "PCR 0 of the sha256 bank has no listed value"


@pytest.mark.parametrize(("least", "trusted"), [("8.0-1", True), ("8.0-2", False), ("10.0-0", False)])
def test_an_allow_list_may_want_a_least_version(least, trusted):
    digest = hashlib.sha256(b"net").digest()
    allowed = ReferenceManifest(components=(component(digest=digest),), loaders=PUBLISHED)
    engine = AllowListEngine(allowed=allowed, least_versions={"esx-base": least, "other": "9"})
    found = engine.decide(case([LOADER, tagged(13, EsxTag.MOD, b"net.v00\0", b"net")]))
    assert found.trusted is trusted
    if not trusted:
        words = f"esx-base 8.0-1 is older than {least}"
        seen = f"digest {digest.hex()}"
        assert found.findings == (Finding(rule="too_old", message=words, component="net.v00", evidence=seen),)


def test_a_decision_lists_and_says_only_so_much():
    findings = [Finding(rule="x", message=f"m{number}") for number in range(FINDINGS_MAX + 1)]
    found = decision("engine", findings)
    assert found.findings == tuple(findings[:FINDINGS_MAX])
    assert found.message == "m0; m1; m2; m3; m4; m5"
    assert not found.trusted
    assert decision("engine", []) == Decision(engine="engine")
    assert (decision("engine", []).message, decision("engine", []).trusted) == ("", True)


def test_a_seal_trusts_the_enrolled_values_and_nothing_that_was_not_quoted():
    engine = SealEngine(Rng(1).stream("seal"), bank="sha1", pcrs=(0, 7))
    engine.enroll(case(sha1={0: b"a", 7: b"b", 9: b"c"}))
    assert engine.decide(case(sha1={7: b"b", 0: b"a"})) == Decision(engine="seal")
    composites = [hashlib.sha256(values).hexdigest() for values in (b"ax", b"ab")]
    assert engine.decide(case(sha1={0: b"a", 7: b"x"})).findings == (
        Finding(
            rule="other_state",
            message="esx01 is not in its known state",
            evidence=f"composite {composites[0]} instead of {composites[1]}",
        ),
    )
    missing = Finding(rule="seal_coverage", message="PCR 7 of the sha1 bank was not quoted")
    assert engine.decide(case(sha1={0: b"a"})).findings == (missing,)
    stranger = attrs.evolve(case(), host="esx02")
    unknown = Finding(rule="not_enrolled", message="no state of esx02 is known")
    assert engine.decide(stranger).findings == (unknown,)
    assert refused(engine.release, stranger)[:2] == ("key_withheld", "no state of esx02 is known")
    assert not engine.is_key_of("esx01", b"")
