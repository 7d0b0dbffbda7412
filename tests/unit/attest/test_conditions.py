"""Each half of a condition of the verifier decides something of its own, and each stage asks every check."""

import attrs
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sim.attest import launch
from sim.attest.engines import Case, SignerEngine
from sim.attest.launch import LaunchEvent
from sim.attest.offline import appraise_files, read_pcr_file
from sim.attest.survey import survey
from sim.attest.verdict import Verdict
from sim.errors import FormatError
from sim.image.acceptance import AcceptanceLevel
from sim.image.imgdb import DATABASE_FILE, ImageDatabase, write_database
from sim.image.payload import content_of
from sim.image.trust import TrustStore
from sim.tpm.constants import TPM_ALG
from sim.tpm.eventlog import EV, EventLog, EventLogWriter
from sim.tpm.tagged import EsxTag, encode_tagged

from .alone import SHA256, event, evidence, log_of
from .lab import (
    COMMAND_LINE,
    LOADERS,
    NOW,
    Lab,
    Step,
    boot_steps,
    codes,
    exit_steps,
    find,
    firmware_steps,
    launch_steps,
    manifest,
    module,
    replaced,
    tagged,
)
from .test_offline import Booted, pcr_file, software_signature

SM3 = {TPM_ALG.SM3_256.value: bytes(32)}
"""A digest that nobody here can compute."""


def judged(steps, **policy):
    lab = Lab()
    lab.machine.boot(steps)
    return lab.appraise(lab.machine.evidence(), **policy)


# ------------------------------------------------------------ the verifier's stages


def test_a_verdict_holds_firmware_to_the_phases_of_a_boot():
    late = [*boot_steps(), Step(1, EV.EFI_VARIABLE_BOOT, b"late")]
    assert codes(judged(late)) == ["event_order"]


def test_a_verdict_misses_a_published_loader_that_was_not_started():
    steps = [step for step in boot_steps() if step.over != LOADERS["mboot64.efi"]]
    verdict = judged(steps)
    assert [(one.code, one.component) for one in verdict.reasons] == [("loader_missing", "mboot64.efi")]


def test_a_verdict_refuses_a_command_line_that_names_another_kernel():
    steps = boot_steps()
    other = replaced(steps, find(steps, COMMAND_LINE), tagged(14, EsxTag.CMD_OPT, b"k.b00 a=1"))
    assert codes(judged(other)) == ["kernel_name"]


def test_a_verdict_says_that_no_order_was_given():
    words = "the order in which components are loaded: the manifest gives none"
    assert words not in judged(boot_steps()).unknown
    verdict = judged(boot_steps(), manifest=attrs.evolve(manifest(), orders=()))
    assert verdict.accepted
    assert words in verdict.unknown


# ------------------------------------------------------------ launches


def test_only_a_combined_hash_makes_a_launch_a_legacy_one():
    start = event(17, LaunchEvent.HASH_START)
    assert not launch.is_legacy([start])
    assert launch.is_legacy([start, event(17, LaunchEvent.COMBINED_HASH)])


def test_a_digest_that_nobody_here_computes_says_nothing_against_a_launch_event():
    launch.check_launch_events(
        [event(17, LaunchEvent.HASH_START), event(17, LaunchEvent.LCP_CONTROL_HASH, bytes(4), digests=SM3)]
    )


def test_files_of_a_launched_host_are_replayed_as_such():
    start = [*firmware_steps(), *exit_steps()]
    verdict = Booted(start, launch=launch_steps()).judge()
    assert verdict.accepted, verdict.reasons
    assert verdict.log.launched


# ------------------------------------------------------------ files


def test_secure_boot_that_was_off_is_told_from_secure_boot_that_let_nobody_in():
    (reason,) = Booted(boot_steps(secure_boot=False)).judge(require_secure_boot=True).reasons
    assert reason.message == "nothing proves that Secure Boot was on"


def test_a_bare_key_is_told_to_be_one():
    booted = Booted()
    private = ec.derive_private_key(5, ec.SECP256R1())
    der = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    files = booted.files(key=der, signature=software_signature(booted.evidence.attest, private))
    verdict = appraise_files(files)
    assert verdict.accepted
    assert verdict.unchecked == (
        "the key is a bare public key: whether it is a TPM's restricted key is not known",
    )


def test_values_of_pcrs_that_no_tpm_has_are_refused():
    with pytest.raises(FormatError, match="fewer values than PCRs"):
        read_pcr_file(pcr_file({"sha256": {24: bytes(32)}}, size=32))


def test_more_lists_than_a_file_of_values_has_are_refused_though_all_are_empty():
    def with_lists(count):
        return pcr_file({})[:-4] + count.to_bytes(4, "little") + bytes(4 + 8 * 66) * count

    assert read_pcr_file(with_lists(64)) == {}
    with pytest.raises(FormatError, match="do not fill"):
        read_pcr_file(with_lists(65))


# ------------------------------------------------------------ surveys


def test_a_survey_passes_over_digests_that_nobody_here_computes():
    one = event(4, EV.EFI_ACTION, b"text", digests={**SM3, SHA256: bytes(32)})
    assert survey(EventLog(events=(one,), spec_id=None, banks=(*SM3, SHA256))).described == 1


@pytest.mark.parametrize(
    ("step", "system"),
    [
        (Step(8, EV.EVENT_TAG, b"?"), "unknown"),
        (Step(12, EV.IPL, b"?"), "unknown"),
        (Step(12, EV.IPL, encode_tagged(EsxTag.TAG, b"rack")), "unknown"),
        (Step(12, EV.EVENT_TAG, encode_tagged(0x1234, b"rack")), "windows"),
    ],
)
def test_only_a_systems_own_kind_of_event_in_its_pcr_names_it(step, system):
    assert survey(log_of([*firmware_steps(), step])).system == system


# ------------------------------------------------------------ the engine of signers

DATABASE = write_database(ImageDatabase(name="image", level=AcceptanceLevel.PARTNER_SUPPORTED, records=()))
NOBODY = TrustStore(roots=(), issuers=())
INVENTORY = module(13, DATABASE_FILE, content_of(DATABASE))


def findings(*more, secure_boot=False, now=NOW, left_out=(), **engine):
    """What the engine finds on a host that booted the inventory and `more`; without Secure Boot, nobody wants it."""
    writer = EventLogWriter((SHA256,))
    for step in (*firmware_steps(secure_boot), INVENTORY, *more):
        if step.type not in left_out:
            writer.measure(step.pcr, step.type, step.data, step.over)
    given = Case(
        host="esx01",
        evidence=evidence(event_log=writer.to_bytes()),
        verdict=Verdict(status="accepted", replayed=True, secure_boot=secure_boot),
        image_database=DATABASE,
        now=now,
    )
    wants = {"trust": NOBODY, "boot_signers": (), "require_secure_boot": False, **engine}
    return [(one.rule, one.message) for one in SignerEngine(**wants).decide(given).findings]


def test_signers_are_judged_at_a_time_that_somebody_knows():
    assert findings() == []
    assert findings(now=None) == [("no_time", "nobody knows when this was appraised")]


def test_who_let_a_loader_in_counts_only_where_secure_boot_is_wanted():
    assert findings(secure_boot=True) == []
    assert findings(secure_boot=True, require_secure_boot=True) == [
        ("authority", "a boot loader was let in by a key that is not trusted")
    ]


def test_secure_boot_that_let_nobody_in_is_a_finding():
    found = findings(secure_boot=True, require_secure_boot=True, left_out=[EV.EFI_VARIABLE_AUTHORITY])
    assert found == [("authority", "nobody vouched for a boot loader")]


def test_a_file_that_belongs_to_the_host_is_there_once():
    state = module(13, "state.tgz", b"state")
    assert findings(state) == []
    assert findings(state, state) == [("unsigned", "state.tgz is in no VIB that somebody trusted has signed")]


def test_an_inventory_that_was_measured_twice_is_none():
    (found,) = findings(module(13, DATABASE_FILE, b"another"))
    assert found[0] == "unreadable"
    assert "the image database offered is not the one that was booted" in found[1]
