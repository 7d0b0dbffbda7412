"""The boot with a TPM that is absent, disabled, broken, or cut off in the middle."""

from __future__ import annotations

import struct

import pytest

from sim.boot.bootinfo import BootFailure, BootInfo, TpmFailureRule, TpmState
from sim.boot.context import BootPolicy
from sim.hw.tpm_slot import TpmSlot
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.constants import TPM_CC, TPM_SU
from sim.tpm.device import Tpm

REFUSED = struct.pack(">HII", 0x8001, 10, 0x101)


class BrokenTpm(Tpm):
    """Refuses the commands of one code from the n-th on."""

    def __init__(self, code, working=0, last=10**9):
        super().__init__(b"seed of a test TPM")
        self.code, self.working, self.last, self.seen = code, working, last, 0

    def execute(self, command, locality=0):
        if int.from_bytes(command[6:10], "big") == self.code:
            self.seen += 1
            if self.working < self.seen <= self.last:
                return REFUSED
        return super().execute(command, locality)


def count_extends(make_world):
    device = BrokenTpm(TPM_CC.PCR_Extend, working=10**9)
    make_world(device=device).boot()
    return device.seen


def test_absent_tpm_is_no_obstacle_and_leaves_no_log(make_world):
    world = make_world(tpm=False)
    info = world.boot()
    assert isinstance(info, BootInfo)
    assert (info.tpm_state, info.event_log, info.log_truncated) == (TpmState.ABSENT, b"", False)
    assert "TPM not present (absent): nothing is measured" in world.lines("mboot")
    assert all(module.digest for module in info.modules)


def test_disabled_tpm_gets_no_command_and_the_boot_goes_on(make_world):
    world = make_world(tpm_enabled=False)
    info = world.boot()
    assert isinstance(info, BootInfo)
    assert (info.tpm_state, info.event_log) == ("disabled", b"")
    assert "TPM: present, disabled in setup" in world.lines("firmware")
    assert world.board.sim.trace.select("tpm.command") == []


def test_disabled_tpm_changes_nothing_but_the_measurements(make_world):
    with_tpm, without = make_world().boot(), make_world(tpm_enabled=False).boot()
    assert [module.digest for module in with_tpm.modules] == [module.digest for module in without.modules]
    assert with_tpm.installed_vibs == without.installed_vibs
    assert with_tpm.finished_ns - with_tpm.started_ns > without.finished_ns - without.started_ns


@pytest.mark.parametrize("code", [TPM_CC.Startup, TPM_CC.SelfTest, TPM_CC.GetCapability])
def test_tpm_that_does_not_start_is_given_up_and_the_boot_goes_on(make_world, code):
    info = make_world(device=BrokenTpm(code)).boot()
    assert isinstance(info, BootInfo)
    assert (info.tpm_state, info.event_log) == (TpmState.FAILED, b"")
    assert any("TPM: given up" in line for line in info.messages)


def test_tpm_that_fails_a_firmware_measurement_is_given_up_and_no_half_log_remains(make_world):
    for working in (0, 1, 15, 20):
        info = make_world(device=BrokenTpm(TPM_CC.PCR_Extend, working=working)).boot()
        assert isinstance(info, BootInfo)
        assert (info.tpm_state, info.event_log) == (TpmState.FAILED, b"")


@pytest.mark.parametrize(
    ("code", "working"),
    [(TPM_CC.Startup, 0), (TPM_CC.SelfTest, 0), (TPM_CC.PCR_Extend, 0), (TPM_CC.PCR_Extend, 20)],
)
def test_a_platform_may_refuse_to_boot_with_a_failed_tpm(make_world, code, working):
    policy = BootPolicy(tpm_failure=TpmFailureRule.STOP)
    failure = make_world(device=BrokenTpm(code, working), policy=policy).boot()
    assert isinstance(failure, BootFailure)
    assert (failure.stage, failure.component, failure.event_log) == ("firmware", "TPM", b"")
    assert failure.message.startswith("TPM: failed: ")


def test_that_policy_is_about_failed_tpms_alone(make_world):
    policy = BootPolicy(tpm_failure=TpmFailureRule.STOP)
    for options in ({}, {"tpm": False}, {"tpm_enabled": False}):
        assert isinstance(make_world(policy=policy, **options).boot(), BootInfo)


def test_failed_module_measurement_ends_the_boot(make_world):
    platform = 27  # extends before the first module
    for working in (platform, platform + 3, platform + 20):
        failure = make_world(device=BrokenTpm(TPM_CC.PCR_Extend, working=working)).boot()
        assert isinstance(failure, BootFailure)
        assert failure.stage == "mboot"
        assert failure.message == "Fatal error: 8 (Device Error)"


def test_failed_command_line_measurement_is_only_a_warning(make_world):
    total = count_extends(make_world)
    command_line = total - 2  # two events of ExitBootServices follow it
    device = BrokenTpm(TPM_CC.PCR_Extend, working=command_line - 1, last=command_line)
    info = make_world(device=device).boot()
    assert isinstance(info, BootInfo)
    assert info.tpm_state is TpmState.ENABLED
    assert any("Warning: cannot extend PCR 14 with command line" in line for line in info.messages)


def test_boot_after_an_orderly_shutdown_or_a_power_cut_starts_the_tpm_afresh(make_world):
    world = make_world()
    world.boot()
    pcrs = world.pcrs()
    client = TpmClient(world.board.tpm.transmit)
    resets = client.read_clock().clockInfo.resetCount
    client.shutdown(TPM_SU.CLEAR)
    world.board.power_off()
    assert isinstance(world.boot(), BootInfo)
    assert client.read_clock().clockInfo.resetCount == resets + 1
    assert world.pcrs() == pcrs


def test_power_cut_after_any_step_leaves_nothing_that_a_later_boot_sees(make_world):
    clean, world = make_world(), make_world()
    clean.boot()
    cuts = 0
    while True:
        sequence, outcome = world.sequence()
        sequence.start()
        while sequence.running and sequence.steps_done <= cuts:
            world.board.sim.engine.step()
        if not sequence.running:
            break
        sequence.stop()
        world.board.power_off()
        world.board.sim.engine.run()
        assert outcome.value is None
        cuts += 1
    assert cuts > 40
    assert isinstance(outcome.value, BootInfo)
    assert world.pcrs() == clean.pcrs()
    assert reset_count(world) == reset_count(clean) + startups(world) - 1


def startups(world):
    commands = world.board.sim.trace.select("tpm.command")
    return sum(1 for row in commands if row["code"] == TPM_CC.Startup and row["rc"] == 0)


def reset_count(world):
    return TpmClient(world.board.tpm.transmit).read_clock().clockInfo.resetCount


def test_measured_pcrs_cannot_be_reset_by_anybody(make_world):
    world = make_world()
    world.boot()
    before = world.pcrs()
    for pcr in range(16):
        for locality in range(5):
            with pytest.raises(TpmError) as refusal:
                TpmClient(world.board.tpm.transmit, locality).pcr_reset(pcr)
            assert refusal.value.rc == 0x907
    assert world.pcrs() == before


def test_resume_keeps_the_measurements_of_the_boot(make_world):
    world = make_world()
    world.boot()
    before = world.pcrs()
    slot = world.board.tpm
    assert isinstance(slot, TpmSlot)
    TpmClient(slot.transmit).shutdown(TPM_SU.STATE)
    slot.power_cycle()
    TpmClient(slot.transmit).startup(TPM_SU.STATE)
    after = world.pcrs()
    assert [after[pcr] for pcr in range(16)] == [before[pcr] for pcr in range(16)]
