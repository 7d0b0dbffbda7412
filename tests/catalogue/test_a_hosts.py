"""Attacks on images that a whole host has to answer: what is installed, booted and attested; rows as in `threats.py`."""

import random
import struct

import attrs
import pytest

from sim.attest.engines import AllowListEngine
from sim.boot.bootinfo import BootFailure, BootInfo
from sim.core.units import SECOND
from sim.errors import VerificationError
from sim.image.bankcheck import verify_bank
from sim.image.bitflips import flip_bit, flip_bits
from sim.image.bootbank import BootBank
from sim.image.bootcfg import parse_boot_config
from sim.image.certificate import load_certificate
from sim.image.contents import kernel_modules, paths_of
from sim.image.crl_issue import CrlSpec, issue_crl
from sim.image.dbx import forbid_certificate, forbid_image
from sim.image.efi_lists import encode_signature_lists
from sim.image.growth import GROWTH_FREE_BYTES
from sim.image.install import remove
from sim.image.manifest import ReferenceManifest
from sim.image.metadata import Descriptor, Relation
from sim.image.payload import gunzip
from sim.image.profile import ImageProfile, apply_profile
from sim.image.vib import Payload, build_vib, read_vib, write_vib
from sim.kernel.api import METHODS as CALLS
from sim.kernel.api import ApiError
from sim.kernel.host import HostState
from sim.kernel.loader import LoadRefused
from sim.scenario.faults import FaultSpec
from sim.scenario.run import Simulation
from sim.vsphere.engagement import Action, Engagement
from sim.vsphere.faults import PlatformConfigFault
from sim.vsphere.hostd import VPXUSER
from tests.unit.boot.test_refused_boots import repack, rewrite_config
from tests.unit.image import test_cms as chains
from tests.unit.image.test_payload import bomb
from tests.unit.vsphere.test_policy_engines import update

from .archives import (
    ACCEPTED,
    CERTIFIED,
    COMMUNITY,
    DAY,
    PARTNER,
    archive_of,
    as_vib,
    cheap,
    measured,
    members,
    packed,
    refused,
)
from .measure import cases
from .threats import threat


@threat(
    "A1",
    threat="a bit of a signed payload is changed",
    stopped_by="SHA-256 of each payload file in the signed descriptor (`sim.image.payload`)",
    evidence="the refusal names the payload and the digest; nothing is installed",
    not_covered="content of community VIBs, which anybody may make anew with matching checksums",
    anchor="Android Master Key class",
)
def test_a1_no_bit_of_a_signed_payload_can_change(make, judge, put):
    data = make(data=random.Random(1).randbytes(600))
    start = data.index(members(data)["tool"])
    step = cases(3, 1)
    report = flip_bits(data, judge, range(8 * start, 8 * (start + len(members(data)["tool"])), step))
    assert report.tried > 3000
    assert (report.accepted, report.escaped) == ((), ())
    assert "tool" in refused("payload.sha-256", read_vib, flip_bit(data, 8 * start + 8 * 300))
    with pytest.raises(VerificationError):
        put(flip_bit(data, 8 * start + 8 * 300))


def test_a1_no_bit_of_a_large_payload_can_change(make, judge):
    chance = random.Random(2)
    data = make(data=chance.randbytes(400 << 10))
    start, size = data.index(members(data)["tool"]), len(members(data)["tool"])
    bits = [8 * at + chance.randrange(8 * 4096) for at in range(start, start + size - 4096, 4096)]
    report = flip_bits(data, judge, bits)
    assert report.tried == len(bits) > 95
    assert (report.accepted, report.escaped) == ((), ())


def test_a1_of_a_changed_payload_nothing_is_stored_or_loaded(make, machinery):
    data = make()
    start = data.index(members(data)["tool"])
    disk = machinery.host.board.disk

    def banks():
        volumes = [disk.volume(name) for name in ("bootbank", "altbootbank")]
        return [{path: one.peek(path) for path in one.paths()} for one in volumes]

    before = banks()
    with pytest.raises(ApiError, match="payload tool has sha-256") as caught:
        machinery.host.call("image.install", {"archive": flip_bit(data, 8 * start + 2400), "force": True})
    assert caught.value.code == "payload.sha-256"
    assert banks() == before
    kernel = machinery.host.kernel
    stored = machinery.host.boot.module("vmkusb.v00")
    ((name, content),) = kernel_modules(stored.content)
    origin = kernel._origin(stored)
    loaded = [module.name for module in kernel.loader.modules()]
    kernel.loader.unload("vmkusb")
    for bit in random.Random(3).sample(range(8 * len(content)), 40):
        changed = flip_bit(content, bit)
        for held in (stored.content, stored.content.replace(content, changed)):
            with pytest.raises(LoadRefused):
                kernel.loader.load(name, changed, vib=attrs.evolve(origin, content=held))
    kernel.loader.load(name, content, vib=origin)
    assert sorted(module.name for module in kernel.loader.modules()) == sorted(loaded)


@threat(
    "A7",
    threat="a signer or a loader is revoked between installation and boot, and its work is still there",
    stopped_by="dbx for loaders (`sim.image.dbx`), lists and digests for signers of VIBs and early modules (`sim.image.crl`)",
    evidence="the firmware's refusal with dbx in its log, vCenter's with the reason; an expired list gives crl-validity",
    not_covered="how lists reach a host; a host whose trust store holds no list of an authority, unless the policy wants one",
    anchor="BootHole CVE-2020-10713, BlackLotus CVE-2022-21894",
)
def test_a7_what_was_revoked_after_installation_does_not_boot(
    make_world, factory, small_image, world_pki, epoch, make, put
):
    loader = factory.image.esp["EFI/VMware/safeboot64.efi"]
    signer_der = factory.pki.loader_signer.certificate_der
    assert isinstance(make_world().boot(), BootInfo)
    for entry in (
        forbid_image(loader),
        forbid_certificate(signer_der),
        forbid_certificate(signer_der, "sha256"),
    ):
        world = make_world()
        world.board.firmware.set_variable("dbx", encode_signature_lists([entry]))
        failure = world.boot()
        assert isinstance(failure, BootFailure)
        assert failure.message.startswith("UEFI0073")
        assert any("dbx" in line or "is revoked" in line for line in failure.messages)

    bank = put(make()).bank
    serial = load_certificate(world_pki.signer("partner").certificate_der).serial
    listed = CrlSpec(this_update=epoch - DAY, next_update=epoch + DAY, serials=(serial,))
    crl = issue_crl(listed, world_pki.authorities["partner"])
    before = verify_bank(bank.files, world_pki.trust, epoch, PARTNER, secure_boot=True)
    after = verify_bank(bank.files, world_pki.trust.with_crls([crl]), epoch, PARTNER, secure_boot=True)
    assert before.ok
    assert {(failure.vib, failure.check) for failure in after.failures} >= {("tool", "revoked")}
    stale = verify_bank(
        bank.files, world_pki.trust.with_crls([crl]), epoch + 2 * DAY, PARTNER, secure_boot=True
    )
    assert {failure.check for failure in stale.failures} == {"crl-validity"}

    world = make_world()
    signer = next(one for one in factory.pki.signers if one.level == "certified")
    world.trust = factory.pki.trust.revoking([signer.certificate_der])
    assert "Failed to verify signatures" in world.boot().message

    world = make_world()
    key = load_certificate(factory.pki.early_signers[0].identity.certificate_der)
    now = world.board.sim.utc_now()
    listed = CrlSpec(this_update=now - DAY, next_update=now + DAY, serials=(key.serial,))
    world.trust = factory.pki.trust.with_crls([issue_crl(listed, factory.pki.early_authority)])
    failure = world.boot()
    assert (failure.stage, failure.component) == ("mboot", "b.b00")
    assert any(f"{key.title} is revoked" in line for line in failure.messages)


@pytest.mark.parametrize("target", ["loader", "signer/certified/VMware", "early/vmksim_esx80_k01"])
def test_a7_vcenter_says_why_a_host_with_a_revoked_signer_is_gone(small, target):
    faults = (
        FaultSpec(kind="revoke", target=target, at_ns=3 * SECOND),
        FaultSpec(kind="reboot", at_ns=4 * SECOND),
    )
    simulation = Simulation(attrs.evolve(small, faults=faults, duration_ns=60 * SECOND))
    result = simulation.finish()
    assert result.boot.state == "refused"
    (host,) = simulation.machinery.vcenter.hosts()
    assert host.connection_state == "notResponding"
    assert any(
        result.boot.message in event.full_formatted_message for event in simulation.machinery.vcenter.events
    )


@threat(
    "A9",
    threat="the signature is taken away and the level left as it was",
    stopped_by="a level above community needs a signature of its authority (`sim.image.vib`)",
    evidence="check vib.signature-missing; VibSignatureError in esxcli's form",
    not_covered="a community VIB on a community host without Secure Boot: nobody vouches for it, by design",
    anchor="UNC3886, Mandiant 2022",
)
def test_a9_a_stripped_signature_is_refused(make, judge, put, world_pki, epoch):
    for level in (PARTNER, ACCEPTED, CERTIFIED):
        stripped = archive_of({**members(make(level=level)), "sig.pkcs7": b""})
        refused("vib.signature-missing", judge, stripped)
        refused("VibSignatureError", put, stripped)
    refused("AcceptanceConfigError", put, make(level=COMMUNITY))
    home = put(make(level=COMMUNITY), level=COMMUNITY).bank
    assert verify_bank(home.files, world_pki.trust, epoch, COMMUNITY).ok
    assert not verify_bank(home.files, world_pki.trust, epoch, COMMUNITY, secure_boot=True).ok


@threat(
    "A10",
    threat="somebody with root installs a forged VIB by force, or with the signature check switched off",
    stopped_by="two documented options that are noted (`sim.kernel.image_audit`), the next Secure Boot "
    "(`sim.image.bankcheck`), attestation",
    evidence="a SECURITY ALERT and a record for each rule set aside, beside the user's call; the purple screen names the VIB; "
    "without Secure Boot vCenter's verdict does",
    not_covered="a host without Secure Boot runs it, and its own log can be wiped; only attestation tells",
    anchor="Splunk rule ESXi Malicious VIB Forced Install",
)
@pytest.mark.parametrize("option", ["force", "no_sig_check"])
def test_a10_force_is_loud_and_does_not_survive_secure_boot(make, world, option):
    assert option in [each.name for each in CALLS["image.install"].parameters]
    forged = {"archive": make(sign=False)}
    w = world()
    assert w.add().tpm_attestation.status == "accepted"
    session = w.agent.login(*VPXUSER)
    with pytest.raises(PlatformConfigFault, match="VibSignatureError"):
        w.agent.call("InstallVib_Task", forged, session=session)
    assert len(w.sim.trace.select("image.waiver")) == 0
    answer = w.agent.call("InstallVib_Task", {**forged, option: True}, session=session)
    assert [text.split("]")[0] for text in answer["warnings"]] == [" [VibSignatureError"]
    (noted,) = w.sim.trace.select("image.waiver")
    name = option.replace("_", "-")
    assert (noted["host"], noted["vibs"], noted["option"], noted["rule"]) == (
        "esx01", "Example_bootbank_tool_1.0-1", name, "VibSignatureError",
    )  # fmt: skip
    calls = [row for row in w.sim.trace.select("api.call") if row["method"] == "InstallVib_Task"]
    assert [(row["user"], row["outcome"]) for row in calls] == [
        ("vpxuser", "PlatformConfigFault"), ("vpxuser", "ok"),
    ]  # fmt: skip
    assert calls[-1]["time_ns"] == noted["time_ns"]
    alerts = [row["text"] for row in w.sim.trace.select("log.line") if "SECURITY ALERT" in row["text"]]
    assert len(alerts) == 1
    assert f"--{name}" in alerts[0]

    w.reboot()
    assert w.host.state is HostState.HALTED
    assert (w.host.failure.stage, w.host.failure.component) == ("secureboot", "tool")
    assert "[tool]" in w.host.failure.message

    assert w.attest_again("on_host_rebooted").connection_state == "notResponding"
    w.board.firmware.secure_boot = False
    w.reboot()
    assert w.host.state is HostState.HALTED  # its configuration is sealed to Secure Boot
    assert w.attest_again().connection_state == "notResponding"


@pytest.mark.parametrize("option", ["force", "no_sig_check"])
def test_a10_without_secure_boot_attestation_names_what_was_forced_in(make, world, option):
    w = world(secure_boot=False, require_secure_boot=False)
    assert w.add().tpm_attestation.status == "accepted"
    w.host.call("image.install", {"archive": make(sign=False), option: True})
    w.reboot()
    entry = w.attest_again("on_host_rebooted")
    assert entry.tpm_attestation.status == "notAccepted"
    assert [(reason.code, reason.component) for reason in entry.reasons] == [
        ("component_unknown", "tool.v00"),
        ("component_digest", "imgdb.tgz"),
    ]
    assert entry.alarm == "red"


def test_a10_neither_option_takes_a_damaged_payload_and_one_is_for_signatures_alone(make, put):
    damaged = flip_bit(make(), 8 * make().index(members(make())["tool"]) + 8 * 300)
    for option in ({"force": True}, {"no_sig_check": True}, {"force": True, "no_sig_check": True}):
        refused("payload.sha-256", lambda options=option: put(damaged, **options))
    missing = make(depends=(Relation(name="nothing", operator=">=", version="1.0"),))
    refused("DependencyError", put, missing, no_sig_check=True)
    low = put(make(level=COMMUNITY), no_sig_check=True)
    assert [(one.option, one.rule) for one in low.waivers] == [("no-sig-check", "AcceptanceConfigError")]
    assert put(missing, force=True).waivers[0].option == "force"


@threat(
    "A14",
    threat="a payload unpacks to a thousand times its size, in layers, or a thousand payloads do so together",
    stopped_by="the size declared in the gzip trailer, limits, and unpacking piece by piece (`sim.image.payload`); what all members of "
    "a VIB, bundle or boot bank declare together (`sim.image.growth`)",
    evidence="a limit error or check payload.format in less than a second and 64 MiB",
    not_covered="time for honest large images",
    anchor="gzip bombs, ratio 1,028",
)
def test_a14_bombs_stay_packed():
    one = bomb(200)
    assert len(one) == 203_860
    assert (200 << 20) // len(one) == 1028
    for size in (None, 64 << 20, 1000, 9):
        lying = one if size is None else one[:-4] + struct.pack("<I", size)
        cheap(None, gunzip, lying)
        declared_too_much = size is None or size > GROWTH_FREE_BYTES
        cheap(None if declared_too_much else "payload.sha-256.gunzip", read_vib, as_vib({"bomb": lying}))


def test_a14_only_the_outermost_layer_is_ever_unpacked(make_world):
    one = bomb(200)
    many = packed(one * 400)
    assert len(many) < 200_000
    cheap(None, gunzip, many)
    assert "more than 16 times" in cheap(None, read_vib, as_vib({"bomb": many}))
    cheap("payload.sha-256.gunzip", read_vib, as_vib({"bomb": packed(packed(one))[:-4] + bytes(4)}))
    spec = Descriptor(name="layers", version="1-1", vendor="E", level=COMMUNITY)

    def layered(kind):
        return read_vib(
            build_vib(spec, [Payload(name="layers", kind=kind, data=packed(one))], None, chains.EPOCH)
        )

    cheap(None, paths_of, layered("vgz"))
    boot = layered("boot")
    paths, seconds, peak = measured(lambda: paths_of(boot))
    assert paths == ()
    assert seconds < 1
    assert peak < 64 << 20
    world = make_world(secure_boot=False)
    world.board.disk.volume("bootbank").write("s.v00", packed(one))
    outcome, seconds, peak = measured(world.boot)
    assert isinstance(outcome, BootInfo)
    assert outcome.module("s.v00").content == one


def test_a14_a_bomb_among_the_boot_files_ends_the_boot(make_world):
    world = make_world(secure_boot=False)
    world.board.disk.volume("bootbank").write("s.v00", bomb(200))
    failure, seconds, peak = measured(world.boot)
    assert (failure.stage, failure.component) == ("mboot", "s.v00")
    assert seconds < 1
    assert peak < 64 << 20


def test_a14_a_thousand_payloads_are_no_way_round_the_limits():
    from sim.image import vib as vib_module

    many = as_vib({f"p{number}": bomb(1) for number in range(300)})
    assert str(vib_module.VIB_CONTENT_BYTES_MAX) in cheap(None, read_vib, many)
    thousand = as_vib(dict.fromkeys([f"p{number}" for number in range(1000)], bomb(20)))
    assert "512" in cheap(None, read_vib, thousand)


def test_a14_a_boot_bank_of_many_small_bombs_ends_the_boot(make_world):
    world = make_world(secure_boot=True)
    volume = world.board.disk.volume("bootbank")
    bank = BootBank(files={path: volume.peek(path) for path in volume.paths()})
    names = tuple(f"bomb{number}.v00" for number in range(8))
    config = attrs.evolve(bank.config, modules=(*bank.config.modules, *names))
    volume.copy_from(bank.with_config(config).with_files(dict.fromkeys(names, bomb(63))).files.items())
    failure, seconds, peak = measured(world.boot)
    assert (failure.stage, failure.component) == ("mboot", "bomb0.v00")
    assert seconds < 1
    assert peak < 64 << 20


@threat(
    "A23",
    threat="an older version with a good signature brings its faults back",
    stopped_by="no downgrade without --allow-downgrades, under another name or after a removal neither, and no other maker in a "
    "VIB's place (`sim.image.succession`); a least version in attestation (`sim.attest.engines.allow_list`), and one "
    "published release (`sim.attest.software`)",
    evidence="DowngradeError or VendorChangeError; with the flag the older VIB comes and a record says so; the policy engine finds it too_old and "
    "puts the host into quarantine; one old driver among newer ones is reason release_mix",
    not_covered="an attacker with root, who may give the flag or write a whole older bank, which passes Secure Boot: no counter in "
    "the TPM forbids it, and without a least version nobody tells; a mix where the manifest names no releases",
    anchor="replay tests of TUF",
)
def test_a23_there_is_no_way_back_without_the_flag(make, put, small_image, world_pki, epoch):
    newer = put(make(version="2.0-1")).bank
    refused("DowngradeError", put, make(), on=newer)
    back = put(make(), on=newer, downgrades=True)
    assert back.removed == ("Example_bootbank_tool_2.0-1",)
    assert [(one.option, one.rule) for one in back.waivers] == [("allow-downgrades", "DowngradeError")]
    assert back.warnings == ()
    assert verify_bank(back.bank.files, world_pki.trust, epoch, PARTNER, secure_boot=True).ok
    vibs = [*small_image.vibs, read_vib(make())]
    ids = tuple(vib.vib_id for vib in vibs)
    profile = ImageProfile(name="older", vendor="Example", level=PARTNER, vib_ids=ids)
    refused("DowngradeError", apply_profile, newer, profile, vibs, world_pki.trust, epoch)
    older = apply_profile(newer, profile, vibs, world_pki.trust, epoch, downgrades=True)
    assert [one.option for one in older.waivers] == ["allow-downgrades"]


def test_a23_no_way_back_leads_round_the_versions(make, put):
    newer = put(make(version="2.0-1")).bank
    renamed = make("renamed", replaces=(Relation(name="tool"),))
    refused("DowngradeError", put, renamed, on=newer)
    without = remove(newer, "tool").bank
    for archive in (make(), renamed):
        refused("DowngradeError", put, archive, on=without)
    assert put(make(version="2.0-1"), on=without).installed
    base = make("esx-base", version="99.0-1")
    refused("VendorChangeError", put, base)
    assert {one.option for one in put(base, vendor_changes=True).waivers} == {"allow-vendor-change"}


def test_a23_attestation_refuses_what_is_older_than_its_least_version(world):
    w = world()
    older = next(vib for vib in w.image.vibs if vib.descriptor.name == "vmkusb")
    published = w.image.manifest.merged(update(w))

    def publish(manifest):
        w.vcenter.policy = attrs.evolve(w.vcenter.policy, manifest=manifest)
        engine = AllowListEngine(allowed=manifest, least_versions={"vmkusb": "9.9-1"})
        w.vcenter.engagements = (Engagement(engine=engine, actions=(Action.ALARM, Action.QUARANTINE)),)

    publish(published)
    entry = w.add()
    assert (entry.tpm_attestation.status, entry.policy_alarm, entry.quarantined) == (
        "accepted",
        "green",
        False,
    )

    archive = {"archive": write_vib(older)}
    with pytest.raises(ApiError, match="is older than the installed") as caught:
        w.host.call("image.install", archive)
    assert caught.value.code == "DowngradeError"
    w.host.call("image.install", {**archive, "allow_downgrades": True})
    (noted,) = w.sim.trace.select("image.waiver")
    assert (noted["option"], noted["rule"]) == ("allow-downgrades", "DowngradeError")
    staged = w.board.disk.volume("altbootbank")
    stored = BootBank(files={path: staged.peek(path) for path in staged.paths()})
    publish(published.merged(ReferenceManifest.from_bank(stored, w.image.esp)))
    w.reboot()
    assert w.host.state is HostState.RUNNING
    entry = w.attest_again("on_host_rebooted")
    assert entry.tpm_attestation.status == "accepted"
    found = [finding for decision in entry.decisions for finding in decision.findings]
    assert [(one.rule, one.component) for one in found] == [("too_old", "vmkusb.v00")]
    assert "is older than 9.9-1" in found[0].message
    assert (entry.policy_alarm, entry.quarantined) == ("red", True)


def test_a23_an_old_driver_among_newer_ones_is_no_release(world):
    w = world(secure_boot=False, require_secure_boot=False)
    older = w.bank.read("vmkusb.v00")
    published = w.manifest.merged(update(w))
    w.vcenter.policy = attrs.evolve(w.vcenter.policy, manifest=published)
    assert w.add().tpm_attestation.status == "accepted"
    w.bank.write("vmkusb.v00", older)
    w.reboot()
    entry = w.attest_again("on_host_rebooted")
    assert entry.tpm_attestation.status == "notAccepted"
    assert [(one.code, one.component) for one in entry.reasons] == [("release_mix", "vmkusb.v00")]
    for path, data in w.image.bank.files.items():
        w.bank.write(path, data)
    w.reboot()
    assert w.attest_again("on_host_rebooted").tpm_attestation.status == "accepted"  # a whole older bank


@threat(
    "A27",
    threat="the mark of an early module's signature is removed",
    stopped_by="the boot loader wants a trailer on every early module (`sim.boot.earlycheck`)",
    evidence="SECURITY VIOLATION with Secure Boot; without it, Boot modules are not signed, and the boot goes on",
    not_covered="hosts without Secure Boot, where only the measurements tell",
    anchor="esx-boot, mboot/secure.c",
)
@pytest.mark.parametrize("secure_boot", [True, False])
def test_a27_an_early_module_without_its_mark(make_world, secure_boot):
    world = make_world(secure_boot=secure_boot)
    repack(world, "b.b00", lambda content: content[:-4] + b"\0\0\0\0")
    outcome = world.boot()
    lines = world.lines("mboot") + list(outcome.messages)
    if secure_boot:
        assert any("SECURITY VIOLATION" in line for line in lines)
        assert isinstance(outcome, BootFailure)
    else:
        assert any("Boot modules are not signed" in line for line in lines)
        assert isinstance(outcome, BootInfo)


@threat(
    "A28",
    threat="a second early module of the same name stands in for the first",
    stopped_by="names of early modules must be unique (`sim.boot.earlycheck`)",
    evidence="More than one module named s",
    not_covered="hosts without Secure Boot boot on, with the line in the log",
    anchor="esx-boot, mboot/secure.c",
)
@pytest.mark.parametrize("secure_boot", [True, False])
def test_a28_two_modules_of_one_name(make_world, secure_boot):
    world = make_world(secure_boot=secure_boot)
    volume = world.board.disk.volume("bootbank")
    volume.write("s.b00", volume.peek("s.v00"))
    modules = parse_boot_config(volume.peek("boot.cfg")).modules
    rewrite_config(world, modules=(*modules[:-1], "s.b00", modules[-1]))
    outcome = world.boot()
    assert isinstance(outcome, BootFailure if secure_boot else BootInfo)
    assert any("More than one module named s" in line for line in outcome.messages)
