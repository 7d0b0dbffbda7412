"""Attacks on attestation: logs, quotes, keys and verdicts, one test each; `threats.py` says how a row is made."""

import json
import tracemalloc

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sim.attest.engines import AllowListEngine
from sim.attest.keys import read_public
from sim.attest.offline import Files, appraise_files
from sim.attest.survey import HandOver, survey
from sim.attest.verifier import Verifier
from sim.core.rng import Rng, Stream
from sim.errors import FormatError
from sim.image.bootcfg import format_boot_config, parse_boot_config
from sim.image.efi import build_efi
from sim.image.efi_lists import encode_signature_lists
from sim.image.pki import Pki
from sim.report.attest import verdict_sections
from sim.tpm.client import TpmClient
from sim.tpm.client_sessions import SessionClient, password
from sim.tpm.constants import PCR_COUNT, TPM_ALG, TPM_CC, TPM_RH
from sim.tpm.eventlog import EV, EventLogWriter, parse
from sim.tpm.keys import sign_ecdsa
from sim.tpm.tagged import EsxTag, decode_tagged
from sim.tpm.wire import TPM2B_PUBLIC, TPMS_ATTEST, TPMS_PCR_SELECTION, TPMT_SIG_SCHEME
from sim.vsphere.engagement import Action, Engagement
from sim.vsphere.faults import NoCompatibleHost
from tests.unit.attest.lab import (
    CORE,
    NONCE,
    Lab,
    Machine,
    Step,
    boot_steps,
    codes,
    exit_steps,
    module,
    replaced,
)
from tests.unit.tpm.test_eventlog import header, record
from tests.unit.vsphere.conftest import World
from tests.unit.vsphere.test_vcenter import ENDORSEMENT, LyingHost, Proxy, Tap, added

from .threats import threat

SHA1, SHA256 = TPM_ALG.SHA1.value, TPM_ALG.SHA256.value
MUST_MATCH = {
    EV.SEPARATOR,
    EV.EFI_ACTION,
    EV.S_CRTM_VERSION,
    EV.EFI_VARIABLE_DRIVER_CONFIG,
    EV.EFI_GPT_EVENT,
}
"""Types whose digest was over their data in every event of thirty real logs."""
DESCRIBED = {EV.EFI_BOOT_SERVICES_APPLICATION, EV.EFI_BOOT_SERVICES_DRIVER, EV.EFI_PLATFORM_FIRMWARE_BLOB}
"""Types whose data only describe what was measured."""
DESCRIBED_EVERYWHERE = {*DESCRIBED, EV.POST_CODE, EV.EFI_HANDOFF_TABLES, EV.IPL}


class Bench:
    """The evidence of a clean simulated host, as its vCenter judged it; `judge` judges it with another log."""

    def __init__(self):
        kept = []

        class Recorder(Verifier):
            def appraise(self, evidence, nonce, challenge, **known):
                kept.append((self.policy, evidence, nonce, challenge))
                return super().appraise(evidence, nonce, challenge, **known)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sim.vsphere.attestation_run.Verifier", Recorder)
            assert World().add().tpm_attestation.status == "accepted"
        ((self.policy, self.evidence, self.nonce, self.challenge),) = kept
        log = parse(self.evidence.event_log)
        self.events, self.banks = list(log.events), log.banks
        self.clean = self.judge(self.events)
        assert self.clean.accepted

    def judge(self, events):
        log = EventLogWriter(self.banks)
        for event in events:
            log.append(event.pcr, event.type, event.digests, event.data)
        evidence = attrs.evolve(self.evidence, event_log=log.to_bytes())
        return Verifier(self.policy).appraise(evidence, self.nonce, self.challenge)

    def with_event(self, number, **changes):
        """The events with one of them changed."""
        changed = attrs.evolve(self.events[number], **changes)
        return [*self.events[:number], changed, *self.events[number + 1 :]]


@pytest.fixture(scope="module")
def bench():
    return Bench()


@pytest.fixture
def lab():
    return Lab()


def flipped(data):
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if data else b"x"


def mismatches(verdict):
    """The PCRs that reasons of a replay name."""
    return [
        int(reason.message.partition("PCR ")[2].split()[0])
        for reason in verdict.reasons
        if reason.code == "replay"
    ]


def reasons(entry):
    return [reason.code for reason in entry.reasons]


@threat(
    "B2",
    threat="a digest in the event log is changed, to hide what was measured",
    stopped_by="replay of the log against every quoted PCR, each judged by itself (`sim.attest.event_log`)",
    evidence="the one reason replay, which names the PCR of that event and no other",
    not_covered="digests of a bank that is not quoted, which nothing proves",
    anchor="go-attestation, ReplayError.InvalidPCRs",
)
def test_b2_a_changed_digest_is_named_by_its_pcr(bench):
    for number, event in enumerate(bench.events):
        digests = {**event.digests, SHA256: flipped(event.digests[SHA256])}
        verdict = bench.judge(bench.with_event(number, digests=digests))
        assert (codes(verdict), mismatches(verdict)) == (["replay"], [event.pcr]), number
    assert len({event.pcr for event in bench.events}) == 12


@threat(
    "B3",
    threat="the data of an event are rewritten where no digest covers them",
    stopped_by="only data that are re-hashed first are read (`sim.attest.firmware`, `sim.attest.survey`)",
    evidence="separators, actions, versions, variables and the partition table: check event_data; loaders and firmware "
    "volumes: the same verdict to the last field; names of modules: a name never makes a digest good",
    not_covered="a reader of the raw log, who believes what it says",
    anchor="thirty real logs; go-attestation, Event log disclosure",
)
def test_b3_data_that_no_digest_covers_decide_nothing(bench):
    seen = set()
    for number, event in enumerate(bench.events):
        verdict = bench.judge(bench.with_event(number, data=flipped(event.data)))
        seen.add(event.type)
        if event.type in MUST_MATCH:
            assert codes(verdict) == ["event_data"], number
        elif event.type in DESCRIBED:
            assert verdict == bench.clean, number
        elif event.pcr > 7:
            assert not verdict.accepted, number
        else:
            assert verdict == bench.clean or codes(verdict) == ["event_data"], number
    assert seen >= MUST_MATCH | DESCRIBED | {EV.EVENT_TAG}
    for number, event in enumerate(bench.events):
        tagged = decode_tagged(event.data) if event.type == EV.EVENT_TAG else None
        if tagged is not None and tagged.content == b"vmkusb.v00\0":
            renamed = event.data.replace(b"vmkusb.v00", b"ixgben.v00")
            other = attrs.evolve(event, digests={**event.digests, SHA256: bytes(32)}, data=renamed)
            assert tagged.id == EsxTag.MOD
            assert "component_name" in codes(bench.judge(bench.with_event(number, data=renamed)))
            assert "replay" in codes(bench.judge(bench.with_event(number, digests=other.digests)))


def test_b3_on_real_logs_the_same_types_are_read_and_the_same_are_not(vectors):
    folder = vectors / "eventlogs"
    expected = json.loads((folder / "expected.json").read_text())
    refused = unread = 0
    for name, each in expected.items():
        if each["must"] != "accept":
            continue
        log = parse((folder / name).read_bytes())
        honest = survey(log)
        assert "event_data" not in [finding.code for finding in honest.findings], name
        for number, event in enumerate(log.events):
            changed = attrs.evolve(event, data=flipped(event.data))
            events = (*log.events[:number], changed, *log.events[number + 1 :])
            if event.type in MUST_MATCH:
                found = survey(attrs.evolve(log, events=events))
                assert "event_data" in [finding.code for finding in found.findings], (name, number)
                refused += 1
            elif event.type in DESCRIBED_EVERYWHERE:
                assert survey(attrs.evolve(log, events=events)) == honest, (name, number)
                unread += 1
    assert refused > 150
    assert unread > 200


@threat(
    "B4",
    threat="events of the log are dropped, put into another order, or repeated",
    stopped_by="replay (`sim.attest.event_log`); where the PCR was extended too, the rules of the firmware profile "
    "(`sim.attest.firmware`)",
    evidence="reason replay for the PCR of that event; a second separator that was also extended: reason separator",
    not_covered="the order of events of different PCRs, about which the values say nothing; what order they must have is row B29",
    anchor="go-eventlog, which refuses a second separator",
)
def test_b4_a_log_without_some_event_or_in_another_order_is_refused(bench, lab):
    for number, event in enumerate(bench.events):
        dropped = bench.judge([*bench.events[:number], *bench.events[number + 1 :]])
        assert mismatches(dropped) == [event.pcr], number
        repeated = bench.judge([*bench.events[: number + 1], *bench.events[number:]])
        assert mismatches(repeated) == [event.pcr], number
        later = next((each for each in range(number + 1, len(bench.events))
                      if bench.events[each].pcr == event.pcr
                      and bench.events[each].digests != event.digests), None)  # fmt: skip
        if later is not None:
            events = list(bench.events)
            events[number], events[later] = events[later], events[number]
            assert mismatches(bench.judge(events)) == [event.pcr], number
    for pcr in range(8):
        separator = next(step for step in boot_steps() if step.pcr == pcr and step.type == EV.SEPARATOR)
        lab.machine.boot([*boot_steps(), separator], orderly=pcr > 0)
        verdict = lab.appraise(lab.machine.evidence())
        assert "separator" in codes(verdict)
        assert f"PCR {pcr} has 2 separators" in verdict.message


@threat(
    "B5",
    threat="an event is appended to the log that was never extended",
    stopped_by="replay (`sim.attest.event_log`)",
    evidence="reason replay for that PCR; in a PCR outside the quote event_uncovered; in one that only a launch extends, launch",
    not_covered="events without action, which extend nothing and decide nothing",
    anchor="go-attestation",
)
def test_b5_an_event_that_was_never_extended_is_refused(bench):
    quoted = bench.evidence.pcr_values["sha256"]
    honest = bench.events[-1]
    for pcr in range(PCR_COUNT):
        invented = attrs.evolve(honest, pcr=pcr, type=EV.EVENT_TAG if pcr > 7 else EV.EFI_ACTION)
        verdict = bench.judge([*bench.events, invented])
        if pcr not in quoted:
            assert codes(verdict) == ["event_uncovered"], pcr
        elif pcr in range(17, 23):
            assert "launch" in codes(verdict), pcr
            assert pcr in mismatches(verdict)
        else:
            assert (codes(verdict), mismatches(verdict)) == (["replay"], [pcr]), pcr


@threat(
    "B6",
    threat="code that runs later extends PCR 12 without telling the log",
    stopped_by="replay: a value that no event explains is a mismatch (`sim.attest.event_log`)",
    evidence="reason replay for PCR 12 alone",
    not_covered="what it extended, which a PCR cannot tell; the simulator's own log beside the PCRs knows",
    anchor="measurement violations of IMA",
)
def test_b6_an_extend_that_the_log_does_not_know_is_named():
    world = World()
    world.add()
    TpmClient(world.board.tpm.transmit).pcr_extend(12, {SHA256: b"\x66" * 32})
    entry = world.attest_again()
    assert [reason.message for reason in entry.reasons] == [
        "the event log does not replay to PCR 12 of the sha256 bank"
    ]
    assert entry.alarm == "red"


@threat(
    "B8",
    threat="the quote of the last attestation is sent again",
    stopped_by="a nonce of 32 bytes drawn for each attestation, over which the TPM signs (`sim.attest.quote`)",
    evidence="reason nonce; no two nonces are the same",
    not_covered="a host that is attested, and changed a moment later: a verdict is about the time of its nonce",
    anchor="keylime CVE-2026-6420",
)
def test_b8_a_quote_answers_one_nonce():
    world = World()
    tap = world.agent._host = Tap(world.host)
    world.add()
    tap.old = world.host.call("tpm.quote", {"nonce": tap.nonces[0], "banks": ["sha256"]})
    assert reasons(world.attest_again()) == ["nonce"]
    tap.old = None
    assert world.attest_again().tpm_attestation.status == "accepted"
    assert len(set(tap.nonces)) == len(tap.nonces) == 3


@threat(
    "B9",
    threat="the endorsement certificate of a good TPM is shown with the keys and quotes of another",
    stopped_by="a credential for both keys, which only the TPM that holds both can open (`sim.attest.credential`)",
    evidence="refused at ActivateCredential (reason activation); where the good TPM opens it for its own key, the quote's "
    "signature is not by that key",
    not_covered="a certificate names a TPM and not a host: who moves a TPM to another board moves its identity",
    anchor="keylime CVE-2021-3406, CVE-2022-1053",
)
def test_b9_keys_of_two_tpms_do_not_go_together():
    good = World(serial="A").boot().host
    for fields, calls, code in [
        (ENDORSEMENT, (), "activation"),
        (ENDORSEMENT, ("tpm.activate",), "activation"),
        ((), ("tpm.identity",), "activation"),
        ((), ("tpm.identity", "tpm.activate"), "signature"),
    ]:
        world = World(serial="B").boot()
        world.agent._host = Proxy(world.host, good, calls, fields)
        entry = added(world)
        assert (entry.tpm_attestation.status, reasons(entry)) == ("notAccepted", [code]), (fields, calls)


def host_key(machine):
    """Load the key that the host quotes with."""
    from sim.kernel.quoting import HOST_ATTESTATION_KEY

    return machine.client.create_primary(HOST_ATTESTATION_KEY)[0]


@threat(
    "B10",
    threat="something else that the attestation key signed is shown as a quote",
    stopped_by="magic and type in the signed structure (`sim.attest.quote`); restricted keys, which sign nothing that "
    "begins like a TPM's own structures unless it is one",
    evidence="reason magic, or attest_type with the type that was found",
    not_covered="a TPM that is broken by its maker",
    anchor="keylime tests; CVE-2024-29038",
)
def test_b10_what_is_no_quote_is_refused_though_the_key_signed_it(lab):
    lab.machine.boot()
    machine = lab.machine
    honest = machine.evidence()
    assert lab.appraise(honest).accepted
    key = host_key(machine)
    scheme = TPMT_SIG_SCHEME(scheme=TPM_ALG.NULL.value, details=None)
    talk = SessionClient(machine.tpm.execute, Stream(b"client"))
    attest, signature = talk.call(TPM_CC.Certify, (key, key), NONCE, scheme, auths=[password(), password()])
    certified = attrs.evolve(honest, attest=attest, signature=signature.encode())
    verdict = lab.appraise(certified)
    assert (codes(verdict), verdict.reasons[0].evidence) == (["attest_type"], "type 0x8017")
    (time, signature) = talk.call(
        TPM_CC.GetTime, (TPM_RH.ENDORSEMENT, key), NONCE, scheme, auths=[password(), password()]
    )
    timed = attrs.evolve(honest, attest=time, signature=signature.encode())
    assert codes(lab.appraise(timed)) == ["attest_type"]
    for magic in (0, 0xFF544346, 0x46414B45, 0x474354FF):
        forged = attrs.evolve(TPMS_ATTEST.decode(honest.attest), magic=magic).encode()
        private = machine.tpm.objects[key].private
        signed = attrs.evolve(honest, attest=forged, signature=sign_ecdsa(private, SHA256, forged).encode())
        assert codes(lab.appraise(signed)) == ["magic"], magic


def allocate(device, *banks):
    """Keep only these PCR banks, as someone with the platform's authorisation can."""
    TpmClient(device.execute).startup()
    selections = tuple(
        TPMS_PCR_SELECTION.of(bank, range(PCR_COUNT) if bank in banks else ())
        for bank in device.profile.banks
    )
    talk = SessionClient(device.execute, Stream(b"setup"))
    talk.call(TPM_CC.PCR_Allocate, (TPM_RH.PLATFORM,), selections, auths=[password()])


@threat(
    "B11",
    threat="the weaker bank: a log of SHA-1 under a quote of SHA-256, or a TPM whose SHA-256 bank is switched off",
    stopped_by="required banks, and a digest for each quoted bank in every event (`sim.attest.quote`, `sim.attest.event_log`)",
    evidence="reason log_banks or pcr_coverage; the message names the bank",
    not_covered="a policy that asks for SHA-1 gets SHA-1",
    anchor="go-attestation, VerifyAll; Dell's knowledge base on banks",
)
def test_b11_a_bank_that_is_missing_in_log_or_tpm_is_named(bench):
    weak = EventLogWriter((SHA1,))
    for event in bench.events:
        weak.append(event.pcr, event.type, event.digests, event.data)
    evidence = attrs.evolve(bench.evidence, event_log=weak.to_bytes())
    verdict = Verifier(bench.policy).appraise(evidence, bench.nonce, bench.challenge)
    assert codes(verdict) == ["log_banks"]
    assert verdict.message == "the event log has no sha256 digests, and the quote covers that bank"

    old_form = EventLogWriter((SHA1,), crypto_agile=False)
    for event in bench.events:
        old_form.append(event.pcr, event.type, event.digests, event.data)
    files = Files(
        attest=bench.evidence.attest,
        signature=bench.evidence.signature,
        key=bench.evidence.ak_public,
    )
    silent = EventLogWriter((SHA1,)), EventLogWriter((SHA1,), crypto_agile=False)
    for each in silent:
        each.startup_locality(3)
    for log in (each.to_bytes() for each in (old_form, *silent)):
        verdict = appraise_files(attrs.evolve(files, log=log))
        assert "no sha256 digests" in " ".join(reason.message for reason in verdict.reasons)
        evidence = attrs.evolve(bench.evidence, event_log=log)
        assert codes(Verifier(bench.policy).appraise(evidence, bench.nonce, bench.challenge)) == ["log_banks"]

    world = World()
    allocate(world.board.tpm.device, SHA1)
    entry = world.add()
    assert list(parse(world.host.boot.event_log).banks) == [SHA1]
    assert reasons(entry) == ["pcr_coverage"]
    assert "of the sha256 bank" in entry.tpm_attestation.message


TWO_BANKS = header(((SHA1, 20), (SHA256, 32)))
HOSTILE_LOGS = [
    (header(count=0xFFFFFFFF), "algorithms"),
    (header() + record(size=3 * 2**30), "event size"),
    (header() + record(count=0xFFFFFFFF), "digests"),
    (header() + record(digests=((SHA256, bytes(32)), (SHA1, bytes(20)))), "2 digests, but the log has 1"),
    (TWO_BANKS + record(digests=((SHA256, bytes(32)),) * 3), "3 digests, but the log has 2"),
    (header(((0x99, 32),)), "algorithm 0x0099"),
    (header() + record(digests=((0x99, bytes(32)),)), "not announced"),
    (header() + record(kind=EV.NO_ACTION, data=b"short"), "shorter than its signature"),
    (header(vendor=b"\x04"), "cut short"),
    (header(vendor=b"\xff" + bytes(8)), "cut short"),
    (header() + record() + b"\0" * 7, "cut short"),
]


@threat(
    "B20",
    threat="a log that lies about its sizes and counts, to exhaust or crash the verifier",
    stopped_by="named limits before any allocation, and one strict reader (`sim.tpm.eventlog`)",
    evidence="a format or limit error that names the place, with less than 10 MB of memory; a verdict, never an exception; "
    "events without data are accepted, as the standard has it",
    not_covered="nothing known",
    anchor="go-attestation 31ad4f5, f365b32, f0e8d0f",
)
def test_b20_a_log_that_lies_about_sizes_is_refused_cheaply(bench):
    for data, said in HOSTILE_LOGS:
        tracemalloc.start()
        try:
            with pytest.raises(FormatError, match=said):
                parse(data)
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak_bytes < 10_000_000
        evidence = attrs.evolve(bench.evidence, event_log=data)
        verdict = Verifier(bench.policy).appraise(evidence, bench.nonce, bench.challenge)
        assert codes(verdict) == ["event_log"]
    empty = parse(
        header() + record(pcr=3, kind=EV.EFI_ACTION, data=b"") + record(kind=EV.NO_ACTION, data=b"")
    )
    assert [event.data for event in empty.events] == [b"", b""]


@threat(
    "B24",
    threat="a log without the pair of events about the exit from boot services, so that firmware seems to run for ever",
    stopped_by="the verifier wants the pair, once, at the end of PCR 5 (`sim.attest.firmware`)",
    evidence="reason exit_boot_services; for files from anywhere the hand-over is told as failed or unknown, never as clean",
    not_covered="files from anywhere are not refused for it: some real firmware writes no pair, so it is told and not judged",
    anchor="go-attestation, which has a workaround",
)
def test_b24_a_boot_that_firmware_never_left_is_refused_and_told(lab):
    started, done = exit_steps()
    whole = boot_steps()
    for without, told in (
        (replaced(whole, done, []), HandOver.FAILED),
        (replaced(replaced(whole, done, []), started, []), HandOver.UNKNOWN),
    ):
        lab.machine.boot(without)
        evidence = lab.machine.evidence()
        assert codes(lab.appraise(evidence)) == ["exit_boot_services"]
        files = Files(
            attest=evidence.attest,
            signature=evidence.signature,
            key=evidence.ak_public,
            nonce=NONCE,
            log=evidence.event_log,
        )
        verdict = appraise_files(files)
        assert verdict.log.hand_over is told
        page = "\n".join(str(section) for section in verdict_sections(verdict))
        assert f"hand-over to the operating system: {told}" in page
    backwards = [*boot_steps()[:-2], done, started]
    lab.machine.boot(backwards)
    assert codes(lab.appraise(lab.machine.evidence())) == ["exit_boot_services"]
    assert survey(parse(lab.machine.log)).findings[0].code == "exit_boot_services"


@threat(
    "B25",
    threat="a host is changed and rebooted, and nobody attests it again: its old verdict goes on shining",
    stopped_by="a verdict carries its time and its boot, and is held against the host's own word about its boot "
    "(`sim.vsphere.freshness`)",
    evidence="the entry shows time and boot of the verdict and why it is stale; policy engines that are engaged refuse with "
    "the rule stale, so that no virtual machine is placed there until the next attestation",
    not_covered="a host that lies about its boot: the next attestation shows it by the reset counter of its TPM",
    anchor="VMware's guide: attestation on add, reboot and reconnect",
)
def test_b25_a_verdict_about_an_earlier_boot_is_stale():
    world = World(secure_boot=False, require_secure_boot=False)
    engine = AllowListEngine(allowed=world.image.manifest)
    world.vcenter.engagements = (Engagement(engine=engine, actions=(Action.ALARM, Action.QUARANTINE)),)
    entry = world.add()
    first = (entry.tpm_attestation.time, entry.boot_id)
    assert entry.boot_id == world.host.boot.boot_id
    assert world.vcenter.place_vm({"name": "before", "memory": 64 << 20}) == "esx01"
    world.flip_content_bit("vmkusb.v00")
    world.reboot()

    with pytest.raises(NoCompatibleHost, match="esx01: in quarantine"):
        world.vcenter.place_vm({"name": "after", "memory": 64 << 20})
    entry = world.vcenter.host("esx01")
    assert (entry.tpm_attestation.time, entry.boot_id) == first
    assert entry.tpm_attestation.status == "accepted"
    assert entry.boot_id in entry.stale
    assert world.host.boot.boot_id in entry.stale
    assert [finding.rule for decision in entry.decisions for finding in decision.findings] == ["stale"]

    entry = world.attest_again("on_host_rebooted")
    assert (entry.stale, entry.tpm_attestation.status) == ("", "notAccepted")
    lied = World()
    honest = lied.add()
    lied.reboot()
    old = honest.boot_id
    lied.agent._host = LyingHost(lied.host, {"host.info": lambda answer: {**answer, "boot_id": old}})
    assert lied.vcenter.check_freshness("esx01") == ""
    assert reasons(lied.attest_again()) == ["tpm_reset"]


@threat(
    "B26",
    threat="a golden value is declared for a PCR or a bank that the quote leaves out, so that it is compared with nothing",
    stopped_by="a host is asked for every PCR that has a reference value, and a quote without one of them is refused "
    "(`sim.attest.quote`)",
    evidence="reason pcr_coverage, which names PCR and bank; reason reference_pcr where the value differs",
    not_covered="PCRs for which a policy gives no value, and whether the values given are good ones",
    anchor="checks that fail open; CVE-2024-29039",
)
def test_b26_a_golden_value_is_compared_or_the_host_refused(bench):
    other = b"\1" * 48
    for bank, pcr in (("sha384", 0), ("sha256", 9), ("sha512", 0)):
        policy = attrs.evolve(bench.policy, reference_pcrs={bank: {pcr: (other,)}})
        verdict = Verifier(policy).appraise(bench.evidence, bench.nonce, bench.challenge)
        assert codes(verdict) == ["pcr_coverage"]
        assert f"PCR {pcr} of the {bank} bank" in verdict.message
    world = World(reference_pcrs={"sha384": {0: (other,)}, "sha256": {9: (bytes(32),)}})
    assert reasons(world.add()) == ["reference_pcr"], "asked for, and compared"
    world = World(reference_pcrs={"sha384": {9: (bytes(48),)}, "sha256": {9: (bytes(32),)}})
    assert world.add().tpm_attestation.status == "accepted"


@threat(
    "B27",
    threat="an implant in the firmware: a bit of its first code, of its drivers, of microcode or of a card's ROM",
    stopped_by="the digests that the maker publishes of each code of a model, which vCenter holds against the events of "
    "PCR 0 to 2 (`sim.attest.platform`)",
    evidence="reason firmware_code, with the PCR and the digest, and firmware_missing, which names the code",
    not_covered="code that firmware runs and does not measure, and a first code that lies about itself; a model of which "
    "nobody gave a reference is accepted, and the verdict lists it under what is not known",
    anchor="LoJax 2018, MoonBounce 2022",
)
def test_b27_changed_firmware_is_refused_by_the_makers_reference():
    for volume, pcr in (("SEC-PEI", 0), ("DXE", 0), ("MICROCODE", 1), ("OPTION-ROM", 2)):
        world = World()
        world.board.firmware.flip_bit(volume, 5)
        entry = world.add()
        assert entry.reasons[0].code == "firmware_code", volume
        assert f"in PCR {pcr} " in entry.reasons[0].message
        named = [reason.component for reason in entry.reasons if reason.code == "firmware_missing"]
        assert named == ([] if volume == "OPTION-ROM" else [volume])
        assert entry.alarm == "red"
    assert World().add().case.verdict.unknown == ()
    without = World(manifest=World().image.manifest)
    without.board.firmware.flip_bit("DXE", 5)
    entry = without.add()
    assert entry.tpm_attestation.status == "accepted"
    assert "firmware code" in " ".join(entry.case.verdict.unknown)


@threat(
    "B28",
    threat="Secure Boot is on and means nothing: an own key in db, an emptied dbx, firmware in setup mode, an authority that "
    "vouched and is in no db",
    stopped_by="the entries of PK, KEK, db and dbx, and the authorities after them, against each other and against what the "
    "maker published (`sim.attest.firmware`, `sim.attest.platform`)",
    evidence="reason secure_boot_keys, which names the variable; reason authority",
    not_covered="a key in db that its maker published and that was stolen; a signature's time",
    anchor="BlackLotus CVE-2022-21894; PKfail CVE-2024-8105",
)
def test_b28_the_contents_of_secure_boot_variables_decide():
    own = Pki.create(Rng(999), epoch=World().sim.epoch)
    hole = b"\7" * 32
    for name, change, words in [
        (
            "db",
            lambda honest: honest + encode_signature_lists(own.uefi_db),
            "db holds an entry that the maker",
        ),
        ("PK", lambda _: encode_signature_lists([own.platform.certificate_der]), "PK holds an entry"),
        ("KEK", lambda honest: honest + encode_signature_lists([own.platform.certificate_der]), "KEK holds"),
        ("dbx", lambda _: b"", "dbx lacks 1 of the entries"),
        ("PK", lambda _: b"", "PK is empty"),
        ("KEK", lambda _: b"", "KEK is empty"),
    ]:
        world = World(dbx=(hole,))
        honest = world.board.firmware.variables[name]
        world.board.firmware.set_variable(name, change(honest))
        entry = world.add()
        assert reasons(entry) == ["secure_boot_keys"], (name, entry.reasons)
        assert words in entry.tpm_attestation.message
    world = World(dbx=(hole,))
    assert world.add().tpm_attestation.status == "accepted"
    world = World()
    world.board.firmware.set_variable("db", encode_signature_lists((*world.pki.uefi_db, *own.uefi_db)))
    path = next(one for one in world.image.esp if "mboot" in one)
    evil = build_efi(b"evil loader" * 30, own.loader_signer, when=world.sim.epoch)
    world.board.disk.volume("esp").write(path, evil)
    assert set(reasons(world.add())) == {"boot_loader", "secure_boot_keys"}


def ordered(config, **changes):
    """A world whose boot.cfg is changed, by a function of its modules or by other fields."""
    world = World()
    before = parse_boot_config(world.bank.peek("boot.cfg"))
    modules = config(list(before.modules)) if config is not None else before.modules
    world.bank.write("boot.cfg", format_boot_config(attrs.evolve(before, modules=tuple(modules), **changes)))
    return world


def drivers_reversed(modules):
    drivers = [
        name
        for name in modules
        if name.endswith(".v00") and name.partition(".")[0] not in {"s", "sb", "esxupdt"}
    ]
    turned = iter(reversed(drivers))
    return [next(turned) if name in drivers else name for name in modules]


@threat(
    "B29",
    threat="the order of a boot is another: firmware code after the separator, loaders before it or left out, modules in another "
    "order or as the kernel",
    stopped_by="the phases of the firmware profile (`sim.attest.phases`), and the load order that a manifest publishes of "
    "each bank (`sim.attest.software`)",
    evidence="reason event_order with PCR and kind; reason component_order or kernel_name with the component; a loader that is "
    "left out stops the boot, or is reason loader_missing",
    not_covered="the order between PCRs, which no value holds; modules where a manifest gives no order, which the verdict lists "
    "under what is not known",
    anchor="measured on eleven real logs",
)
def test_b29_events_and_modules_have_their_order(lab):
    steps = boot_steps()
    started = [step for step in steps if step.type == EV.EFI_BOOT_SERVICES_APPLICATION]
    vouched = [step for step in steps if step.type == EV.EFI_VARIABLE_AUTHORITY]
    for pcr, changed in [
        (0, [*steps, Step(0, EV.EFI_PLATFORM_FIRMWARE_BLOB, bytes(16), b"evil")]),
        (2, [*steps, Step(2, EV.EFI_BOOT_SERVICES_DRIVER, b"x", b"evil ROM")]),
        (5, [*steps, Step(5, EV.EFI_GPT_EVENT, b"another table")]),
        (7, [*(step for step in steps if step not in vouched), *vouched]),
        (4, [*started, *(step for step in steps if step not in started)]),
    ]:
        machine = Machine(lab.vendor, f"order {pcr}")
        verdict = lab.appraise(machine.boot(changed).evidence())
        assert "event_order" in codes(verdict), pcr
        assert f"PCR {pcr} has an event of type" in verdict.message
    for world, code in [
        (ordered(drivers_reversed), "component_order"),
        (ordered(lambda modules: [*modules[:3], "state.tgz", *(m for m in modules[3:] if m != "state.tgz")]), "component_order"),
        (ordered(lambda modules: ["b.b00" if name == "k.b00" else name for name in modules], kernel="k.b00"), "kernel_name"),
    ]:  # fmt: skip
        assert code in reasons(world.add()), code
    for place in (0, 1):
        alone = [step for step in steps if step != started[place]]
        verdict = lab.appraise(Machine(lab.vendor, f"loader {place}").boot(alone).evidence())
        assert codes(verdict) == ["loader_missing"]
    titled = [*steps, module(12, "k", CORE["k.b00"])]
    assert "component_twice" in codes(lab.appraise(Machine(lab.vendor, "twice").boot(titled).evidence()))


@threat(
    "B31",
    threat="files of a quote that a program signed, with a public area made by hand, are shown as those of a TPM",
    stopped_by="`vmksim attest` claims only what signature, nonce and log prove (`sim.attest.offline`); vCenter wants a "
    "credential opened (`sim.attest.credential`)",
    evidence="under what is not known: that a TPM holds the key, and whether the quote means it; a quote over SHA-1 alone is told, "
    "and Secure Boot without an authority is refused where it is demanded",
    not_covered="files alone never prove a TPM: the command says so and accepts what they explain",
    anchor="CVE-2024-29038",
)
def test_b31_files_without_a_credential_are_not_said_to_be_a_tpms(bench):
    private = ec.derive_private_key(77, ec.SECP256R1())
    point = private.public_key().public_numbers()
    public = read_public(bench.evidence.ak_public)
    unique = attrs.evolve(public.unique, x=point.x.to_bytes(32, "big"), y=point.y.to_bytes(32, "big"))
    attest = bench.evidence.attest
    files = Files(
        attest=attest,
        signature=sign_ecdsa(
            private.private_numbers().private_value.to_bytes(32, "big"), SHA256, attest
        ).encode(),
        key=TPM2B_PUBLIC.encode(attrs.evolve(public, unique=unique)),
        nonce=bench.nonce,
        log=bench.evidence.event_log,
    )
    verdict = appraise_files(files)
    page = "\n".join(str(section) for section in verdict_sections(verdict))
    assert verdict.accepted
    assert not any("TPM" in text for text in verdict.proven)
    for text in ("no credential proves that a TPM holds it", "the quote names no primary key"):
        assert any(text in one for one in verdict.unchecked)
        assert text in page
    honest = appraise_files(
        attrs.evolve(files, key=bench.evidence.ak_public, signature=bench.evidence.signature)
    )
    assert any("the quote names this key" in text for text in honest.proven)
    assert any("no credential proves" in text for text in honest.unchecked)
