"""Attacks on the boot and its TPM, one test each; `threats.py` says how a row is made."""

import attrs
import pytest

from sim.attest.engines import AllowListEngine
from sim.boot.bootinfo import BootFailure, BootInfo, TpmFailureRule, TpmState
from sim.boot.context import BootPolicy
from sim.boot.modules import EMPTY_MODULE
from sim.boot.pcrmap import LOADER_MAP
from sim.image.bootcfg import parse_boot_config
from sim.image.payload import GZIP_MAGIC, content_of, gzip_stored
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.constants import TPM_CC, TPM_RC
from sim.tpm.eventlog import EV, parse
from sim.tpm.hashing import hash_bytes
from sim.tpm.tagged import EsxTag, decode_tagged
from sim.vsphere.attestation_run import TPM_UNREACHABLE
from sim.vsphere.engagement import Engagement
from tests.unit.boot.test_refused_boots import rewrite_config
from tests.unit.vsphere.conftest import World
from tests.unit.vsphere.test_vcenter import LyingHost

from .threats import threat

SHA256 = 0x0B
FAILURE_MODE = {TPM_CC.GetTestResult, TPM_CC.GetCapability}
OWN_FILES = {"features.gz", "jumpstrt.gz", "useropts.gz", "state.tgz"}
"""Files of a bank that belong to no VIB: they are the host's own, so nobody has signed them."""


def flipped(data):
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def flip_content(volume, name):
    """Flip a byte of what a file holds, and pack it again as an attacker would; return whether it holds any."""
    data = volume.peek(name)
    packed = data.startswith(GZIP_MAGIC)
    content = content_of(data) if packed else data
    if content:
        volume.write(name, gzip_stored(flipped(content)) if packed else flipped(content))
    return bool(content)


def moved(before, after):
    return [pcr for pcr in range(24) if before[pcr] != after[pcr]]


def tagged_events(info):
    """The loader's own events: PCR, tag, content, digest."""
    for event in parse(info.event_log).events:
        if event.type == EV.EVENT_TAG:
            tagged = decode_tagged(event.data)
            yield event.pcr, tagged.id, tagged.content, event.digests[SHA256]


def reasons(entry):
    return [reason.code for reason in entry.reasons]


@threat(
    "B1",
    threat="a byte of a file in the boot bank is changed",
    stopped_by="Secure Boot: signatures of early modules and of VIBs (`sim.boot.earlycheck`, `sim.boot.vibcheck`); "
    "without it the measurements and the vendor's manifest (`sim.attest.software`)",
    evidence="a failed boot that names the file or its VIB; without Secure Boot other PCRs, another log, a verdict "
    "notAccepted, and a finding of the policy engine, both of which name the file",
    not_covered="files that belong to no VIB (state, options), which Secure Boot lets pass and attestation names; the "
    "title in boot.cfg, which nothing measures",
    anchor="esx-boot, mboot/secure.c; VMware's Secure Boot guide",
)
def test_b1_no_byte_of_the_boot_bank_changes_unseen(make_world):
    clean = make_world(secure_boot=False)
    measured, before = clean.boot(), clean.pcrs()
    names = clean.board.disk.volume("bootbank").paths()
    assert len(names) > 20
    for name in names:
        raw = make_world(secure_boot=True)
        volume = raw.board.disk.volume("bootbank")
        volume.write(name, flipped(volume.peek(name)))
        assert isinstance(raw.boot(), BootFailure), name
        if name == "boot.cfg":
            continue
        guarded = make_world(secure_boot=True)
        if not flip_content(guarded.board.disk.volume("bootbank"), name):
            continue
        outcome = guarded.boot()
        assert isinstance(outcome, BootFailure) == (name not in OWN_FILES), name
        if isinstance(outcome, BootFailure) and name != "imgdb.tgz":
            assert outcome.component == name
        free = make_world(secure_boot=False)
        flip_content(free.board.disk.volume("bootbank"), name)
        info = free.boot()
        assert info.event_log != measured.event_log
        shown = {LOADER_MAP.module_pcr(name)}
        assert shown <= set(moved(before, free.pcrs())) <= shown | {LOADER_MAP.signer}, name


def test_b1_the_policy_engine_names_the_file():
    files = World().bank.paths()
    named = set()
    for name in files:
        world = World(secure_boot=False, require_secure_boot=False)
        world.vcenter.engagements = (Engagement(engine=AllowListEngine(allowed=world.image.manifest)),)
        if name == "boot.cfg" or not flip_content(world.bank, name):
            continue
        entry = world.add()
        assert entry.tpm_attestation.status == "notAccepted"
        assert name in entry.tpm_attestation.message
        assert [finding.component for each in entry.decisions for finding in each.findings] == [name]
        named.add(name)
    assert set(files) - named == {"boot.cfg", "features.gz"}, "B22 has the former, the latter is empty"


@threat(
    "B14",
    threat="power is cut in the middle of a boot, and the log of that half boot is shown later",
    stopped_by="a fresh start of TPM and log at each reset; replay (`sim.attest.event_log`)",
    evidence="Startup(CLEAR) works after a cut at any step, resetCount is one higher, the next boot measures what a boot "
    "without cuts measures, and each half log is refused: replay, or no event log",
    not_covered="a power cut inside a TPM command: that is `sim.tpm.faults`, with tests of its own",
    anchor="TPM 2.0 Library part 1, chapter on Startup",
)
def test_b14_a_power_cut_at_any_step_leaves_no_trace_and_no_half_log(make_world):
    cuts, halves, resets, outcome = 0, {}, 0, None
    world = make_world()
    while True:
        sequence, outcome = world.sequence()
        sequence.start()
        while sequence.running and sequence.steps_done <= cuts:
            world.board.sim.engine.step()
        if not sequence.running:
            break
        device = world.board.tpm.device
        if device.started:
            now = TpmClient(world.board.tpm.transmit).read_clock().clockInfo.resetCount
            assert now == resets + 1
            resets = now
            halves[len(device.event_log)] = device.event_log
        sequence.stop()
        world.board.power_off()
        world.board.sim.engine.run()
        cuts += 1
    assert cuts > 40
    untouched = make_world()
    assert outcome.value.event_log == untouched.boot().event_log
    assert world.pcrs() == untouched.pcrs()

    full = outcome.value.event_log
    assert len(halves) > 25
    host = World()
    host.add()
    real = host.agent._host
    for half in halves.values():
        assert full.startswith(half)
        lie = {"tpm.event_log": lambda answer, half=half: {**answer, "event_log": half}}
        host.agent._host = LyingHost(real, lie)
        entry = host.attest_again()
        assert entry.tpm_attestation.status == "notAccepted"
        assert set(reasons(entry)) <= {"replay", "event_log", "pcr_unused"}


def fail_at_step(world, step):
    """Boot a host whose TPM's self-test fails after `step` steps of the boot."""
    world.host.power_on()
    sequence = world.host._sequence
    while sequence.running and sequence.steps_done < step:
        world.sim.engine.step()
    world.board.tpm.device.enter_failure_mode()
    world.run(60)
    return world


def steps_of_a_boot():
    world = World()
    world.host.power_on()
    sequence = world.host._sequence
    world.run(60)
    return sequence.steps_done


@threat(
    "B15",
    threat="the TPM's self-test fails in the middle of a boot",
    stopped_by="failure mode (`sim.tpm.failure`); the platform's and the loader's rules about a TPM that fails "
    "(`sim.boot.measure`, `sim.boot.mboot`); vCenter, which takes no host without evidence",
    evidence="TPM_RC_FAILURE 0x101 to every command but GetTestResult and GetCapability; the boot goes on without "
    "measurements or stops, as the policy says; notAccepted, with VMware's message about an unreachable TPM",
    not_covered="a TPM that answers wrongly instead of failing: only the verifier's checks stand against that",
    anchor="TPM 2.0 Library part 1, failure mode",
)
def test_b15_a_tpm_that_fails_at_any_step_never_makes_a_trusted_host():
    steps = steps_of_a_boot()
    seen = set()
    for step in range(1, steps + 1):
        world = fail_at_step(World(), step)
        for code in TPM_CC:
            command = b"\x80\x01" + (10).to_bytes(4, "big") + code.to_bytes(4, "big")
            works = world.board.tpm.device.execute(command)[6:10] != TPM_RC.FAILURE.to_bytes(4, "big")
            assert not works or code in FAILURE_MODE, code
        assert TpmClient(world.board.tpm.transmit).test_result() == TPM_RC.FAILURE
        if world.host.state == "halted":
            assert world.host.failure.message == "Fatal error: 8 (Device Error)"
            seen.add("stopped by the loader")
            continue
        world.vcenter.add_host(world.agent, on_error=world.errors.append)
        world.run()
        entry = world.vcenter.host("esx01")
        assert (entry.tpm_attestation.status, entry.tpm_attestation.message) == (
            "notAccepted",
            TPM_UNREACHABLE,
        )
        assert entry.alarm == "red"
        seen.add(world.host.boot.tpm_state)
    assert seen == {"stopped by the loader", TpmState.FAILED, TpmState.ENABLED}


def test_b15_the_platform_s_policy_decides_about_a_tpm_that_fails_under_the_firmware():
    policy = BootPolicy(tpm_failure=TpmFailureRule.STOP)
    world = World()
    world.host.policy = policy
    fail_at_step(world, 3)
    assert world.host.state == "halted"
    assert (world.host.failure.stage, world.host.failure.component) == ("firmware", "TPM")
    going_on = fail_at_step(World(), 3)
    assert going_on.host.state == "running"
    assert going_on.host.boot.tpm_state is TpmState.FAILED


@threat(
    "B16",
    threat="the TPM is switched off in the firmware's setup, so that nothing is measured",
    stopped_by="nothing stops it, by design: without a TPM there is no claim (`sim.boot.firmware`, `sim.vsphere.vcenter`)",
    evidence="the boot goes on; TPM not present in the loader's log, Error loading TPM in the VMkernel's; attestation "
    "N/A, never accepted",
    not_covered="who wants to insist on a TPM must refuse hosts whose column says N/A: vCenter raises no alarm for them",
    anchor="Dell and VMware knowledge bases on Error loading TPM",
)
@pytest.mark.parametrize("tpm", ["disabled", "absent"])
def test_b16_a_tpm_that_is_off_is_no_obstacle_and_no_pass(tpm):
    world = World(tpm=tpm)
    entry = world.add()
    assert world.host.state == "running"
    assert world.errors == []
    boot = world.host.boot
    assert (boot.tpm_state, boot.event_log) == (tpm, b"")
    assert f"mboot: TPM not present ({tpm}): nothing is measured" in boot.messages
    lines = [row["text"] for row in world.sim.trace.select("log.line") if row["source"] == "vmkernel"]
    assert ("Error loading TPM" in lines) == (tpm == "disabled")
    assert (entry.attestation_column, entry.tpm_attestation, entry.alarm) == ("N/A", None, "gray")
    assert entry.report.tpm_pcr_values == ()


@threat(
    "B22",
    threat="a kernel option is added to boot.cfg or typed at the loader",
    stopped_by="the measured command line (`sim.boot.mboot`), and a policy about options (`sim.attest.software`)",
    evidence="PCR 14 alone changes; an event in it has the text; a policy that knows the options refuses with the text",
    not_covered="a policy that knows nothing of options takes any: the default one does",
    anchor="esx-boot, uefi/efiutils/tpm.c",
)
def test_b22_a_changed_command_line_shows_in_pcr_14_with_its_text(make_world):
    plain, changed = make_world(kernelopt="quiet"), make_world(kernelopt="quiet")
    rewrite_config(changed, kernelopt="quiet execInstalledOnly=FALSE")
    infos = [world.boot() for world in (plain, changed)]
    assert moved(plain.pcrs(), changed.pcrs()) == [14]
    texts = [
        content for info in infos for pcr, tag, content, _ in tagged_events(info) if tag == EsxTag.CMD_OPT
    ]
    assert texts == [b"b.b00 quiet", b"b.b00 quiet execInstalledOnly=FALSE"]

    host = World(command_lines=("b.b00 quiet",), kernelopt="quiet")
    assert host.add().tpm_attestation.status == "accepted"
    config = parse_boot_config(host.bank.peek("boot.cfg"))
    host.bank.write(
        "boot.cfg",
        host.bank.peek("boot.cfg").replace(b"kernelopt=quiet", b"kernelopt=quiet debugLogToSerial=1"),
    )
    assert parse_boot_config(host.bank.peek("boot.cfg")) == attrs.evolve(
        config, kernelopt="quiet debugLogToSerial=1"
    )
    host.reboot()
    entry = host.attest_again("on_host_rebooted")
    assert reasons(entry) == ["command_line"]
    assert "debugLogToSerial=1" in "".join(reason.message + reason.evidence for reason in entry.reasons)


TABLE = {
    "esxupdt.v00": 11,
    "b.b00": 12,
    "k.b00": 12,
    "s.v00": 12,
    "sb.v00": 12,
    "jumpstrt.gz": 14,
    "useropts.gz": 14,
    "features.gz": 14,
}
"""The exceptions; every other module is static, in PCR 13."""


@threat(
    "B23",
    threat="a module is measured into another PCR than its own, where nobody looks for it",
    stopped_by="one table from base names to PCRs in the loader (`sim.boot.pcrmap`), and the same rule in the verifier, "
    "written a second time (`sim.attest.esx_events`)",
    evidence="esxupdt in PCR 11; b, k, s and sb in 12; each .gz in 14; all others in 13; a report that says otherwise has "
    "the reason measurement_place",
    not_covered="TPM 1.2 hosts, whose two public tables contradict each other",
    anchor="esx-boot, uefi/efiutils/tpm.c",
)
def test_b23_every_module_is_measured_into_the_pcr_of_its_class(make_world, factory):
    bank = factory.image.bank
    info = make_world().boot()
    found = {
        content.rstrip(b"\0").decode(): (pcr, digest)
        for pcr, tag, content, digest in tagged_events(info)
        if tag in {EsxTag.MOD, EsxTag.BOOT_OPT}
    }
    assert list(found) == list(bank.config.load_order)
    assert set(TABLE) <= set(found)
    for name, (pcr, digest) in found.items():
        content = content_of(bank.files[name]) or (b"" if name.endswith(".gz") else EMPTY_MODULE)
        assert (pcr, digest) == (TABLE.get(name, 13), hash_bytes(SHA256, content)), name
    versions = [pcr for pcr, tag, _, _ in tagged_events(info) if tag == EsxTag.VERSION]
    assert versions == [13, 13]
    others = {pcr for pcr, tag, _, _ in tagged_events(info) if tag in {EsxTag.CMD_OPT, EsxTag.SIGNER}}
    assert others == {14}


@pytest.mark.parametrize(
    ("kind", "elsewhere", "code", "said"),
    [
        ("static", 12, "measurement_place", "vmkusb.v00 was measured into PCR 12 instead of 13"),
        ("option", 13, "measurement_place", "useropts.gz was measured into PCR 13 instead of 14"),
        ("core", 13, "pcr_unused", "nothing was measured into PCR 12"),
        ("update", 13, "pcr_unused", "nothing was measured into PCR 11"),
    ],
)
def test_b23_a_loader_that_measures_elsewhere_is_refused(kind, elsewhere, code, said):
    world = World()
    world.host.policy = BootPolicy(loader_map=attrs.evolve(LOADER_MAP, **{kind: elsewhere}))
    entry = world.add()
    assert isinstance(world.host.boot, BootInfo)
    assert entry.tpm_attestation.status == "notAccepted"
    assert said in [reason.message for reason in entry.reasons if reason.code == code]


def test_b23_nobody_can_reset_what_was_measured(make_world):
    world = make_world()
    world.boot()
    for pcr in (11, 12, 13, 14):
        with pytest.raises(TpmError) as refusal:
            TpmClient(world.board.tpm.transmit).pcr_reset(pcr)
        assert refusal.value.rc == TPM_RC.LOCALITY
