"""S3: what the TPM keeps, the launch anew, and memory that must be what it was before anything runs."""

import pickle

import attrs
import pytest

from sim.boot.bootinfo import StartupMode
from sim.boot.latelaunch import LAUNCH_VOLUME, LAUNCHER_FILE
from sim.boot.launchspec import FAILURE_ACTIONS, LaunchSpec
from sim.boot.resume import ResumeSequence, kept_measurements
from sim.core.units import MIB, SECOND
from sim.errors import SimBug, VmksimError
from sim.hw.spec import FirmwareSpec
from sim.kernel.api import ApiError
from sim.kernel.host import HostState
from sim.kernel.standby import SEALED_PCRS, StandbyGuard
from sim.kernel.vmspec import VmSpec
from sim.scenario.faults import FaultSpec
from sim.scenario.plaintable import plain_table
from sim.scenario.strike_launch import strike_sinit
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.fault_spec import Fault

TXT = {"firmware": FirmwareSpec(txt_enabled=True)}
SHA256 = 0x0B
ONES, ZEROS = b"\xff" * 32, bytes(32)


@pytest.fixture(scope="session")
def launched_image(boot):
    """The pickled machinery of a small host that was launched and runs."""
    return pickle.dumps(boot(host=TXT, options={"enableTboot": True}))


@pytest.fixture
def launched(launched_image):
    return pickle.loads(launched_image)


def pcrs(machinery):
    return dict(enumerate(machinery.tpm.pcrs.values[SHA256]))


def sleep(machinery, seconds=30):
    machinery.host.suspend()
    machinery.sim.engine.run(machinery.sim.now + seconds * SECOND)
    return machinery


def wake(machinery):
    machinery.host.resume()
    machinery.sim.engine.run(machinery.sim.now + 20 * SECOND)
    return machinery.host


def alter(machinery, segment=0, offset=100):
    pa = machinery.host.kernel.memory.segments()[segment].extents[0].first_mpn * 4096 + offset
    memory = machinery.host.board.memory
    memory.write(pa, bytes([memory.read(pa, 1)[0] ^ 1]))


def lines(machinery, source):
    return [row["text"] for row in machinery.sim.trace.select("log.line") if row["source"] == source]


# ---------------------------------------------------------------- the TPM


def test_resume_keeps_0_to_15_and_loses_17_to_22_without_a_launch(machinery):
    before = pcrs(machinery)
    TpmClient(machinery.host.board.tpm.transmit).pcr_extend(16, {SHA256: b"x" * 32})
    assert wake(sleep(machinery)).state is HostState.RUNNING
    after = pcrs(machinery)
    assert all(after[pcr] == before[pcr] for pcr in range(16))
    assert (after[16], after[23]) == (ZEROS, ZEROS)
    assert all(after[pcr] == ONES for pcr in range(17, 23))


def test_resume_raises_the_restart_counter_and_the_clock_goes_on(machinery):
    client = TpmClient(machinery.host.board.tpm.transmit)
    before = client.read_clock().clockInfo
    wake(sleep(machinery))
    after = client.read_clock().clockInfo
    assert (after.resetCount, after.restartCount) == (before.resetCount, before.restartCount + 1)
    assert after.clock > before.clock
    assert after.safe


def test_launch_anew_brings_17_to_22_back_and_restarts_once_more(launched):
    client = TpmClient(launched.host.board.tpm.transmit)
    before, counts = pcrs(launched), client.read_clock().clockInfo
    sleep(launched)
    host = wake(launched)
    assert (host.state, host.resumes) == (HostState.RUNNING, 1)
    assert pcrs(launched) == before
    assert client.read_clock().clockInfo.restartCount == counts.restartCount + 2
    phases = [row["phase"] for row in launched.sim.trace.select("tpm.hash_sequence")]
    assert phases == ["start", "data", "end"] * 2


def test_kept_measurements_are_those_of_the_launched_code_alone(launched):
    kept = kept_measurements(launched.host.boot.event_log)
    assert {event.pcr for event in kept} == {19, 20, 21}
    assert len(kept) == len(launched.host.boot.modules)


@pytest.mark.parametrize("launch", [True, False])
def test_lost_shutdown_starts_the_tpm_anew_and_caps_its_first_pcrs(boot, launch, specs):
    faults = (Fault(kind="drop", command="Shutdown"),)
    machinery = boot(host=TXT, options={"enableTboot": launch}, tpm=specs["tpm"](faults=faults))
    before, counts = pcrs(machinery), machinery.tpm.time.reset_count
    host = wake(sleep(machinery))
    after = pcrs(machinery)
    assert host.state is HostState.RUNNING
    assert machinery.tpm.time.reset_count == counts + 1
    assert any("started anew, PCRs 0 to 7 are capped" in line for line in lines(machinery, "firmware"))
    assert all(after[pcr] not in (ZEROS, before[pcr]) for pcr in range(8))
    assert after[18] == before[18]
    assert any("TPM2_Shutdown(STATE) failed" in line for line in lines(machinery, "vmkernel"))


@pytest.mark.parametrize("mode", list(StartupMode))
def test_pcr_0_survives_however_the_platform_starts_its_tpm(boot, mode):
    def before(machinery):
        machinery.host.policy = attrs.evolve(machinery.host.policy, startup=mode)

    machinery = boot(before=before)
    values = pcrs(machinery)
    assert wake(sleep(machinery)).state is HostState.RUNNING
    assert "TPM: resumed" in lines(machinery, "firmware")
    assert [pcrs(machinery)[pcr] for pcr in range(16)] == [values[pcr] for pcr in range(16)]


def test_host_of_the_txt_era_launches_the_tboot_that_lies_in_its_memory(boot):
    machinery = boot(host=TXT, options={"enableTboot": True}, launch=LaunchSpec(generation="txt-era"))
    values = pcrs(machinery)
    sleep(machinery)
    machinery.host.board.disk.volume(LAUNCH_VOLUME).write(LAUNCHER_FILE, b"another tboot, for the next boot")
    assert wake(machinery).state is HostState.RUNNING
    assert pcrs(machinery) == values


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("segment", [0, 5, -1])
def test_altered_memory_halts_a_launched_host(launched, segment):
    sleep(launched)
    alter(launched, segment)
    host = wake(launched)
    assert host.state is HostState.HALTED
    assert host.kernel is None
    assert (host.failure.stage, host.failure.component) == ("tboot", "memory")
    assert (
        host.failure.message == "memory integrity lost on S3 resume: the kernel's memory is not what it was"
    )


def test_without_a_launch_nobody_notices_altered_memory(machinery):
    sleep(machinery)
    alter(machinery)
    assert wake(machinery).state is HostState.RUNNING


def test_every_boot_page_of_the_kernel_is_covered(launched):
    """The check is over all segments: the first and the last byte of each is enough to be refused."""
    host = launched.host
    stream = launched.sim.rng.stream("test")
    guard = StandbyGuard.close(host.board, host.kernel.memory, stream)
    guard.check(host.board, host.kernel.memory, stream)
    for segment in host.kernel.memory.segments():
        for pa in (segment.extents[0].first_mpn * 4096, segment.extents[-1].first_mpn * 4096 + 4095):
            old = host.board.memory.read(pa, 1)
            host.board.memory.write(pa, bytes([old[0] ^ 0x80]))
            with pytest.raises(VmksimError, match="memory integrity lost"):
                guard.check(host.board, host.kernel.memory, stream)
            host.board.memory.write(pa, old)
    guard.check(host.board, host.kernel.memory, stream)


def test_key_over_memory_comes_out_after_the_launch_and_at_its_locality_alone(launched):
    from sim.kernel.sealing import Sealer

    host = launched.host
    stream = launched.sim.rng.stream("test")
    sealed = StandbyGuard.close(host.board, host.kernel.memory, stream).sealed
    assert sealed.pcrs == SEALED_PCRS
    transmit = host.board.tpm.transmit
    assert len(Sealer(transmit, stream, 2, only_there=True).unseal(sealed)) == 32
    for locality in (0, 1, 3):
        with pytest.raises(TpmError):
            Sealer(transmit, stream, locality, only_there=True).unseal(sealed)
    with pytest.raises(TpmError):
        Sealer(transmit, stream, 2).unseal(sealed)
    TpmClient(transmit, locality=2).pcr_extend(22, {SHA256: b"x" * 32})
    with pytest.raises(TpmError):
        Sealer(transmit, stream, 2, only_there=True).unseal(sealed)


def test_other_sealed_key_and_mac_do_not_help_who_writes_memory(launched):
    """The forger seals a key of his own over the memory that he has changed, but only before a launch, at locality 0."""
    from sim.kernel.sealing import Sealer
    from sim.kernel.standby import memory_mac

    sleep(launched)
    alter(launched)
    host = launched.host
    host.board.asleep = False
    stream = launched.sim.rng.stream("forger")
    key = bytes(32)
    sealed = Sealer(host.board.tpm.transmit, stream).seal(key, SEALED_PCRS)
    host._guard = StandbyGuard(sealed=sealed, mac=memory_mac(host.board, host.kernel.memory, key))
    host.board.asleep = True
    assert "the key cannot be unsealed" in wake(launched).failure.message


def test_changed_list_of_kept_measurements_leaves_the_key_sealed(launched):
    from sim.tpm.eventlog import EventLogWriter, parse

    sleep(launched)
    writer = EventLogWriter(tuple(parse(launched.host.boot.event_log).spec_id.algorithms))
    for event in parse(launched.host.boot.event_log).events:
        if event.pcr != 20:
            writer.append(event.pcr, event.type, event.digests, event.data)
    launched.host.boot = attrs.evolve(launched.host.boot, event_log=writer.to_bytes())
    assert "the key cannot be unsealed" in wake(launched).failure.message


def test_memory_that_cannot_be_read_is_lost(launched):
    sleep(launched)
    pa = launched.host.kernel.memory.segments()[0].extents[0].first_mpn * 4096
    launched.host.board.memory.errors.inject(pa, (1, 2))
    assert "memory cannot be read: machine check" in wake(launched).failure.message


# ---------------------------------------------------------------- the host


def test_sinit_that_changed_in_the_sleep_resets_the_platform(launched):
    sleep(launched)
    strike_sinit(FaultSpec(kind="sinit", defect="revoked"), launched.host.board)
    host = wake(launched)
    assert (host.state, host.board.txt.errorcode) == (HostState.HALTED, 0xC00004C1)


@pytest.mark.parametrize("action", FAILURE_ACTIONS)
def test_host_that_cannot_launch_anew_does_not_go_on_whatever_the_policy(boot, action):
    machinery = boot(host=TXT, options={"enableTboot": True}, launch=LaunchSpec(on_failure=action))
    sleep(machinery)
    strike_sinit(FaultSpec(kind="sinit", defect="absent"), machinery.host.board)
    host = wake(machinery)
    assert (host.state, host.kernel) == (HostState.HALTED, None)
    wanted = "the key cannot be unsealed" if action == "continue" else f"policy action {action}"
    assert wanted in host.failure.message


def test_virtual_machines_stand_still_and_go_on(launched):
    host = launched.host
    host.call("vm.power_on", {"spec": plain_table(VmSpec(name="a", memory_bytes=64 * MIB))})
    launched.sim.engine.run(launched.sim.now + SECOND)
    vm = host.kernel.vms.get("a")
    before = sum(world.times(launched.sim.now).run_ns for world in vm.vcpus)
    assert before > 0
    sleep(launched)
    assert (vm.state, sum(world.times(launched.sim.now).run_ns for world in vm.vcpus)) == (
        "suspended",
        before,
    )
    wake(launched)
    assert vm.state == "poweredOn"
    assert sum(world.times(launched.sim.now).run_ns for world in vm.vcpus) > before


def test_suspended_host_answers_no_call_and_a_running_one_cannot_be_woken(launched):
    with pytest.raises(ApiError):
        launched.host.resume()
    sleep(launched)
    for call in (lambda: launched.host.call("host.info"), launched.host.suspend):
        with pytest.raises(ApiError, match="suspended"):
            call()
    wake(launched)
    assert launched.host.call("host.info")["resumes"] == 1
    assert launched.host.call("tpm.state")["txt_errorcode"] == 0


def test_reset_in_the_sleep_boots_anew(launched):
    sleep(launched)
    launched.host.reset()
    launched.sim.engine.run(launched.sim.now + 60 * SECOND)
    assert (launched.host.state, launched.host.resumes) == (HostState.RUNNING, 0)
    assert not launched.host.board.asleep


def test_reset_on_the_way_out_of_s3_ends_the_resume(launched):
    sleep(launched)
    launched.host.resume()
    launched.host.reset()
    launched.sim.engine.run(launched.sim.now + 60 * SECOND)
    assert (launched.host.state, launched.host.board.boot_count) == (HostState.RUNNING, 2)


def test_host_that_cannot_seal_stays_awake(launched):
    launched.tpm.failed = True
    with pytest.raises(ApiError, match="cannot be sealed"):
        launched.host.suspend()
    assert launched.host.state is HostState.RUNNING


def test_host_without_a_tpm_suspends_and_resumes(boot, specs):
    machinery = boot(tpm=specs["tpm"](state="absent"))
    assert wake(sleep(machinery)).state is HostState.RUNNING


def test_bug_of_ours_on_the_way_out_of_s3_is_not_taken_for_a_failure_of_the_host(machinery):
    def check():
        raise SimBug("ours")

    sleep(machinery)
    host = machinery.host
    host.board.resume()
    ResumeSequence(host.board, host.trust, host.boot, check=check, on_done=print).start()
    with pytest.raises(SimBug, match="ours"):
        machinery.sim.engine.run(machinery.sim.now + 20 * SECOND)


def test_sleeping_host_pickles_and_wakes_elsewhere(launched):
    sleep(launched)
    copy = pickle.loads(pickle.dumps(launched))
    assert wake(copy).state is wake(launched).state is HostState.RUNNING
    assert copy.sim.trace.digest() == launched.sim.trace.digest()
