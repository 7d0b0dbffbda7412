"""Launches that fail: what is left in the registers, what outlives which reset, and what the policy makes of it."""

import hashlib

import attrs
import pytest

from sim.boot.acm import AcmRecipe, build_acm
from sim.boot.bootinfo import BootFailure, BootInfo
from sim.boot.context import BootPolicy
from sim.boot.latelaunch import LAUNCH_VOLUME, LAUNCHER_FILE, POLICY_FILE, LaunchEvent, sinit_module
from sim.boot.launchpolicy import LcpPolicy
from sim.boot.launchspec import LaunchSpec
from sim.boot.txt_errors import (
    ProcessorError,
    SinitError,
    describe_errorcode,
    processor_errorcode,
    sinit_errorcode,
)
from sim.core.structure import FieldError
from sim.hw.txt import TxtRegisters
from sim.image.payload import content_of, gzip_stored
from sim.scenario.launchwork import install_launcher, provision_policy, store_policy
from sim.tpm.constants import TPM_RC
from sim.tpm.device import Tpm
from sim.tpm.eventlog import parse, replay
from sim.tpm.fault_spec import Fault
from sim.tpm.faults import FaultyTpm

SHA256 = 0x0B
OPTION = "enableTboot=TRUE"
ONES = b"\xff" * 32
ZEROS_DIGEST = hashlib.sha256(bytes(32)).digest()
"""The digest over one PCR that nothing was extended into."""


def world_of(make_world, **spec):
    return make_world(txt=True, kernelopt=OPTION, policy=BootPolicy(launch=LaunchSpec(**spec)))


def again(world):
    """Reset the platform and boot once more."""
    world.board.reset()
    return world.boot()


def revoke(world):
    world.board.firmware.volumes["SINIT"] = build_acm(world.board.sim.rng, AcmRecipe(svn=1))


# ---------------------------------------------------------------- the registers


def test_error_outlives_resets_and_goes_with_the_power():
    txt = TxtRegisters()
    txt.note_launch()
    txt.note_error(0x80000007)
    assert (txt.sts, txt.ests & 1) == (0, 1)
    txt.reset()
    assert (txt.errorcode, txt.senter_disabled) == (0x80000007, True)
    txt.power_cycle()
    assert (txt.errorcode, txt.senter_disabled, txt.state().txt_reset) == (0, False, False)


def test_launch_shows_in_the_status_and_goes_with_any_reset():
    txt = TxtRegisters()
    txt.note_launch()
    state = txt.state()
    assert (state.sts, state.senter_done, state.secrets) == (0x18091, True, True)
    txt.reset()
    assert (txt.state().senter_done, txt.state().secrets) == (False, False)


def test_error_codes_have_the_layout_that_tboot_reads():
    assert [processor_errorcode(one) for one in ProcessorError] == [0x80000006, 0x80000007, 0x80000008]
    code = sinit_errorcode(SinitError.TPM)
    assert code >> 30 == 3
    assert (code & 0xF, code >> 4 & 0x3F, code >> 10 & 0x1F, code >> 15 & 1) == (1, 0x0D, 0x0A, 0)
    codes = [sinit_errorcode(one) for one in SinitError]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        (0, ["TXT.ERRORCODE: 0x0"]),
        (0x80000007, ["TXT.ERRORCODE: 0x80000007", "  processor error 0x7 (AUTHENTICATE_FAIL)"]),
        (0x8000000D, ["TXT.ERRORCODE: 0x8000000d", "  processor error 0xd"]),
        (
            0xC00028D1,
            ["TXT.ERRORCODE: 0xc00028d1", "  AC module error : acm_type=0x1, progress=0x0d, error=0xa (TPM)"],
        ),
        (
            0xC0000021,
            ["TXT.ERRORCODE: 0xc0000021", "  AC module error : acm_type=0x1, progress=0x02, error=0x0"],
        ),
    ],
)
def test_register_is_shown_as_tboot_shows_it(code, lines):
    assert list(describe_errorcode(code)) == lines


# ---------------------------------------------------------------- from boot to boot


def test_error_is_read_by_the_next_boot_which_cannot_launch(make_world):
    world = world_of(make_world)
    revoke(world)
    first = world.boot()
    assert (first.stage, first.component) == ("tboot", "SINIT")
    assert "TXT reset: security version 1 is revoked, 2 is the least" in first.message
    world.board.firmware.volumes.pop("SINIT")
    second = again(world)
    assert second.component == "TXT"
    assert "TXT_RESET.STS is set and SENTER is disabled (0x01)" in second.message
    lines = world.lines("tboot")
    assert lines.count("TXT.ERRORCODE: 0xc00004c1") == 2
    assert lines[-3].endswith("(REVOKED)")
    assert "TXT.ESTS: 0x1" in lines


def test_power_cycle_takes_the_error_away_and_the_repaired_host_launches(make_world):
    world = world_of(make_world)
    revoke(world)
    assert isinstance(world.boot(), BootFailure)
    world.board.firmware.volumes.pop("SINIT")
    world.board.power_off()
    info = world.boot()
    assert isinstance(info, BootInfo)
    assert info.drtm
    assert world.board.txt.errorcode == 0


def test_policy_continue_boots_without_a_launch_and_measures_as_an_ordinary_boot(make_world):
    world = world_of(make_world, on_failure="continue")
    revoke(world)
    first = world.boot()
    assert first.resets
    info = again(world)
    assert isinstance(info, BootInfo)
    assert not info.drtm
    pcrs = world.pcrs()
    assert all(pcrs[pcr] == ONES for pcr in range(17, 23))
    assert all(pcrs[pcr] != bytes(32) for pcr in (11, 12, 13, 14))
    assert any("policy action continue, no measured launch" in line for line in world.lines("tboot"))


@pytest.mark.parametrize("action", ["reset", "halt"])
def test_other_policies_never_boot_without_a_launch(make_world, action):
    world = world_of(make_world, on_failure=action)
    revoke(world)
    assert world.boot().resets is (action == "halt")
    for _ in range(3):
        failure = again(world)
        assert isinstance(failure, BootFailure)
        assert failure.message.startswith(f"policy action {action}: ")
        assert not failure.resets


@pytest.mark.parametrize("action", ["reset", "halt", "continue"])
@pytest.mark.parametrize("what", ["chipset", "absent", "short"])
def test_module_that_tboot_itself_refuses_leaves_no_error_code(make_world, action, what):
    world = world_of(make_world, on_failure=action)
    good = sinit_module(world.board)
    other = build_acm(world.board.sim.rng, AcmRecipe(device=0xB000))
    world.board.firmware.volumes["SINIT"] = {"chipset": other, "absent": b"", "short": good[:-4]}[what]
    outcome = world.boot()
    assert isinstance(outcome, BootInfo) is (action == "continue")
    assert (world.board.txt.errorcode, world.board.txt.ests) == (0, 0)
    assert world.pcrs()[17] == ONES


def test_launch_goes_into_the_trace_with_its_error_code(make_world):
    world = world_of(make_world)
    revoke(world)
    world.boot()
    (row,) = world.board.sim.trace.select("boot.launch")
    assert (row["outcome"], row["errorcode"]) == ("txt reset", sinit_errorcode(SinitError.REVOKED))


def test_tpm_that_does_not_give_the_policy_out_stops_the_launch(make_world):
    """Else whoever sits on the bus could make a policy vanish."""
    tpm = Tpm(b"seed of a test TPM")
    device = FaultyTpm(tpm, (Fault(kind="fail", command="NV_Read", rc=TPM_RC.FAILURE.value, count=9),))
    world = make_world(
        txt=True, kernelopt=OPTION, device=device, policy=BootPolicy(launch=LaunchSpec(policy="any"))
    )
    provision_policy(world.board, tpm, LaunchSpec(policy="any"))
    failure = world.boot()
    assert isinstance(failure, BootFailure)
    assert "the policy cannot be read" in failure.message
    assert world.board.txt.errorcode == 0xC00028D1


# ---------------------------------------------------------------- the launch control policy, end to end


def test_list_with_the_launched_code_launches_and_shows_in_both_pcrs(make_world):
    spec = LaunchSpec(policy="list")
    plain = world_of(make_world)
    plain.boot()
    world = world_of(make_world, policy="list")
    provision_policy(world.board, world.board.tpm.device, spec)
    info = world.boot()
    assert isinstance(info, BootInfo)
    assert [pcr for pcr in range(24) if world.pcrs()[pcr] != plain.pcrs()[pcr]] == [17, 18]
    events = {(one.pcr, one.type): one.data for one in parse(info.event_log).events}
    assert len(events[17, LaunchEvent.LCP_DETAILS_HASH]) == 12 + 6 + 32
    assert len(events[18, LaunchEvent.LCP_AUTHORITIES_HASH]) == 32
    assert events[17, LaunchEvent.NV_INFO_HASH].startswith(bytes.fromhex("01c10106000b2204000a"))


def test_changed_kernel_is_launched_without_a_policy_and_not_with_one(make_world):
    for policy, launched in (("none", True), ("list", False)):
        world = make_world(
            secure_boot=False,
            txt=True,
            kernelopt=OPTION,
            policy=BootPolicy(launch=LaunchSpec(policy=policy)),
        )
        provision_policy(world.board, world.board.tpm.device, LaunchSpec(policy=policy))
        volume = world.board.disk.volume("bootbank")
        code = bytearray(content_of(volume.peek("b.b00")))
        code[300] ^= 1
        volume.write("b.b00", gzip_stored(bytes(code)))
        assert isinstance(world.boot(), BootInfo) is launched


def test_new_signed_list_leaves_pcr_18_alone_and_an_unsigned_one_does_not(make_world):
    changed = {}
    for signed in (True, False):
        values = []
        for version in (0, 1):
            world = world_of(make_world, policy="list", signed=signed)
            spec = LaunchSpec(policy="list", signed=signed)
            states = () if version == 0 else (((9,), ZEROS_DIGEST),)
            provision_policy(world.board, world.board.tpm.device, spec, states)
            assert isinstance(world.boot(), BootInfo)
            values.append(world.pcrs())
        changed[signed] = [pcr for pcr in (17, 18) if values[0][pcr] != values[1][pcr]]
    assert changed == {True: [17], False: [17, 18]}


def test_policy_without_its_data_file_is_refused(make_world):
    world = world_of(make_world, policy="list")
    provision_policy(world.board, world.board.tpm.device, LaunchSpec(policy="list"))
    world.board.disk.volume(LAUNCH_VOLUME).remove(POLICY_FILE)
    world.boot()
    assert world.board.txt.errorcode == sinit_errorcode(SinitError.POLICY_FORMAT)


def test_debug_module_on_a_debug_chipset_runs_under_a_policy_that_allows_it(make_world):
    for control, launched in ((0, False), (2, True)):
        world = world_of(make_world, policy="any", allow_debug=bool(control))
        world.board.txt.production = False
        world.board.firmware.volumes["SINIT"] = build_acm(world.board.sim.rng, AcmRecipe(flags=1 << 15))
        store_policy(world.board, world.board.tpm.device, LcpPolicy(control=control))
        assert isinstance(world.boot(), BootInfo) is launched
        assert world.board.txt.errorcode == (0 if launched else sinit_errorcode(SinitError.NOT_PRODUCTION))


# ---------------------------------------------------------------- generations and uses


def era_world(make_world, **spec):
    world = world_of(make_world, generation="txt-era", **spec)
    install_launcher(world.board, world.board.sim.rng)
    return world


def test_host_of_the_txt_era_has_its_own_map(make_world, factory, extend):
    world = era_world(make_world)
    info = world.boot()
    tboot = world.board.disk.volume(LAUNCH_VOLUME).peek(LAUNCHER_FILE)
    digests = {
        name: hashlib.sha256(content_of(data)).digest() for name, data in factory.image.bank.files.items()
    }
    pcrs = world.pcrs()
    core = [
        name for name in factory.image.bank.config.load_order if name.split(".")[0] in ("b", "k", "s", "sb")
    ]
    line = hashlib.sha256(f"b.b00 {OPTION}".encode()).digest()
    assert info.pcr_map.name == "txt-era"
    assert pcrs[18] == extend(SHA256, bytes(32), [hashlib.sha256(tboot).digest()])
    assert pcrs[20] == extend(SHA256, bytes(32), [line, *(digests[name] for name in core)])
    assert pcrs[21] == pcrs[22] == bytes(32)
    assert all(pcrs[pcr] == bytes(32) for pcr in range(11, 15))
    nineteen = [one.data[8:-1].decode() for one in parse(info.event_log).events if one.pcr == 19]
    assert sorted(nineteen) == sorted(set(factory.image.bank.config.load_order) - set(core))


@pytest.mark.parametrize("usage", ["legacy", "details"])
@pytest.mark.parametrize("generation", ["esxi-6.7", "txt-era"])
def test_log_of_each_form_replays_to_the_pcrs_in_every_bank(make_world, generation, usage):
    world = world_of(make_world, generation=generation, usage=usage)
    install_launcher(world.board, world.board.sim.rng)
    info = world.boot()
    log = parse(info.event_log)
    for bank in (0x04, 0x0B, 0x0C, 0x0D):
        pcrs = world.pcrs(bank)
        assert all(pcrs[pcr] == value for pcr, value in replay(log)[bank].items())
    types = [event.type for event in log.events if event.pcr in (17, 18)]
    assert (LaunchEvent.COMBINED_HASH in types) is (usage == "legacy")
    assert (LaunchEvent.LCP_AUTHORITIES_HASH in types) is (usage == "details")


def test_legacy_use_puts_one_digest_of_all_and_tboot_s_policy_into_17_and_the_code_into_18(make_world):
    info = era_world(make_world).boot()
    events = [(one.pcr, one.type) for one in parse(info.event_log).events if one.pcr in (17, 18)]
    assert events == [(17, 0x402), (17, 0x403), (18, 0x404), (17, 0x501)]
    policy = next(one.data for one in parse(info.event_log).events if one.type == 0x501)
    assert policy[:4] == bytes(4)
    assert not any(policy[4:])


def test_missing_launcher_stops_the_boot(make_world):
    world = world_of(make_world, generation="txt-era")
    failure = world.boot()
    assert (failure.stage, failure.component) == ("tboot", LAUNCHER_FILE)


@pytest.mark.parametrize(
    "wrong",
    [
        {"generation": "5.0"},
        {"usage": "both"},
        {"on_failure": "cry"},
        {"policy": "some"},
        {"signed": True},
        {"policy": "any", "state_pcrs": (0,)},
        {"policy": "list", "state_pcrs": (0, 0)},
        {"policy": "list", "state_pcrs": (17,)},
        {"sinit_version_min": 3},
        {"allow_debug": True},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(FieldError):
        LaunchSpec(**wrong)


def test_defaults_are_those_of_the_real_host():
    spec = LaunchSpec()
    assert (spec.pcr_map.name, spec.form, spec.own_launcher) == ("late-launch", "details", False)
    assert attrs.evolve(spec, generation="txt-era").form == "legacy"
