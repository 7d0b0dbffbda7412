"""Checks of the verifier that others stand behind: each is seen alone, so that it cannot go unnoticed."""

import attrs
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sim.attest.engines import Case, SealEngine
from sim.attest.engines.case import IMAGE_DATABASE_BYTES_MAX, measured_files
from sim.attest.firmware import secure_boot_state
from sim.attest.keys import public_key, read_public
from sim.attest.offline import Files, appraise_files, read_key, read_pcr_file
from sim.attest.quote import check_pcr_selection
from sim.attest.survey import survey
from sim.attest.uefi import GLOBAL_VARIABLE, UefiVariable
from sim.attest.verdict import AttestationError, Verdict
from sim.core.rng import Rng
from sim.errors import LimitError
from sim.tpm.eventlog import EV, EventLogWriter, parse
from sim.tpm.wire import TPMS_ATTEST

from .lab import ALL_BANKS, QUOTED, Lab, Step, boot_steps, codes, replaced


@pytest.fixture(scope="module")
def booted():
    lab = Lab()
    lab.machine.boot()
    return lab


def changed_log(log, change):
    writer = EventLogWriter(ALL_BANKS)
    for event in change(parse(log).events):
        writer.append(event.pcr, event.type, event.digests, event.data)
    return writer.to_bytes()


def case(booted, **changes):
    evidence = booted.machine.evidence()
    given = {"host": "esx01", "evidence": evidence, "verdict": booted.appraise(evidence)}
    return Case(**{**given, **changes})


@pytest.mark.parametrize("content", [b"\x02", b"\x00\x00", b"\xff"])
def test_a_secure_boot_variable_is_on_or_off(content):
    variable = UefiVariable(namespace=GLOBAL_VARIABLE, name="SecureBoot", content=content)
    with pytest.raises(AttestationError, match="neither on nor off"):
        secure_boot_state([variable])


def test_a_bank_that_is_selected_twice_is_refused(booted):
    info = TPMS_ATTEST.decode(booted.machine.evidence().attest).attested
    twice = attrs.evolve(info, pcrSelect=info.pcrSelect * 2)
    values = {"sha256": dict.fromkeys(QUOTED, bytes(32))}
    with pytest.raises(AttestationError, match="selects the bank sha256 twice"):
        check_pcr_selection(twice, values, (), ())


def test_small_files_have_a_limit():
    for name in ("attest", "signature", "key"):
        files = attrs.evolve(Files(attest=b"", signature=b"", key=b""), **{name: bytes(64 * 1024 + 1)})
        (reason,) = appraise_files(files).reasons
        assert reason.message == f"{name}: more than 65536 bytes"


def test_a_key_that_is_too_weak_is_refused_as_a_bare_key_too():
    numbers = rsa.RSAPublicNumbers(65537, (1 << 1023) + 1)
    der = numbers.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(AttestationError, match="an RSA key of 1024 bits"):
        read_key(der)


def test_a_file_of_values_has_at_most_sixteen_selections():
    with pytest.raises(LimitError, match="17 selections"):
        read_pcr_file((17).to_bytes(4, "little") + bytes(132))


def test_a_public_area_without_a_public_key_is_refused(booted):
    public = attrs.evolve(read_public(booted.machine.evidence().ak_public), unique=b"a digest and no point")
    with pytest.raises(AttestationError, match="neither RSA nor ECC"):
        public_key(public, "ak_public")


def test_a_log_without_one_separator_is_a_finding(booted):
    log = changed_log(
        booted.machine.log, lambda events: [e for e in events if (e.pcr, e.type) != (3, EV.SEPARATOR)]
    )
    (finding,) = survey(parse(log)).findings
    assert finding.message == "PCR 3 has no separator, though others have"


def test_only_an_accepted_state_is_enrolled(booted):
    engine = SealEngine(Rng(1).stream("seal"))
    refused = case(booted, verdict=Verdict(status="notAccepted", replayed=True))
    with pytest.raises(AttestationError, match="is not accepted, so its state is not enrolled"):
        engine.enroll(refused)
    assert not engine.knows("esx01")


def test_an_inventory_has_a_limit(booted):
    with pytest.raises(LimitError, match="bytes"):
        case(booted, image_database=bytes(IMAGE_DATABASE_BYTES_MAX + 1))


def test_a_log_without_a_module_is_no_host_of_ours(booted):
    log = changed_log(booted.machine.log, lambda events: [e for e in events if e.type != EV.EVENT_TAG])
    with pytest.raises(AttestationError, match="names no boot module"):
        measured_files(case(booted, evidence=booted.machine.evidence(event_log=log)))


# ------------------------------------------------------------ a stage with a reason ends the appraisal


def test_values_are_not_judged_behind_a_quote_that_answers_another_nonce(booted):
    values = {"sha256": dict.fromkeys(QUOTED, bytes(32))}
    evidence = booted.machine.evidence(nonce=bytes(32), pcr_values=values)
    assert codes(booted.appraise(evidence)) == ["nonce"]


def test_events_are_not_judged_behind_a_log_that_does_not_replay(booted):
    log = changed_log(booted.machine.log, lambda events: [events[0], *events[2:]])
    assert set(codes(booted.appraise(booted.machine.evidence(event_log=log)))) == {"replay"}


def test_events_are_not_judged_behind_one_that_no_quote_covers(booted):
    log = changed_log(booted.machine.log, lambda events: [*events, attrs.evolve(events[0], pcr=16)])
    assert codes(booted.appraise(booted.machine.evidence(event_log=log))) == ["event_uncovered"]


def test_a_replay_is_not_judged_behind_a_log_that_its_own_writer_calls_cut_off(booted):
    log = changed_log(booted.machine.log, lambda events: [events[0], *events[2:]])
    evidence = booted.machine.evidence(event_log=log, log_truncated=True)
    assert codes(booted.appraise(evidence)) == ["log_truncated"]


def test_no_event_is_read_behind_a_pcr_that_differs_from_its_golden_value():
    lab = Lab()
    lab.machine.boot([*boot_steps(), Step(4, EV.IPL, b"an unknown kind")])
    evidence = lab.machine.evidence()
    assert codes(lab.appraise(evidence)) == ["event_type"]
    verdict = lab.appraise(evidence, reference_pcrs={"sha256": {0: (bytes(32),)}})
    assert codes(verdict) == ["reference_pcr"]
    assert not verdict.replayed


def test_secure_boot_is_not_judged_behind_an_event_of_an_unknown_kind():
    lab = Lab()
    steps = boot_steps(secure_boot=False)
    action = next(step for step in steps if step.type == EV.EFI_ACTION)
    lab.machine.boot(replaced(steps, action, attrs.evolve(action, type=EV.IPL)))
    assert codes(lab.appraise(lab.machine.evidence())) == ["event_type"]
