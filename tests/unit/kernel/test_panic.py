"""Claims about starts that cannot be done: a purple screen and a halted host, never a Python traceback."""

import pickle

import pytest
from attrs import evolve

from sim import Simulation, simulate
from sim.core.units import MIB, SECOND
from sim.errors import SimBug
from sim.hw.memory import OutOfMemory
from sim.hw.spec import CpuSpec, HostSpec
from sim.image.payload import gzip_stored
from sim.kernel.api import ApiError
from sim.kernel.host import HostState
from sim.kernel.vmkernel import START, VMkernel
from sim.scenario.build import build
from sim.scenario.faults import FaultSpec
from sim.scenario.spec import ExpectSpec, ImageSpec, Scenario, VCenterSpec

CRAMPED = Scenario(
    image=ImageSpec(modules=2, module_size_bytes=1024),
    host=HostSpec(memory_bytes=64 * MIB, cpu=CpuSpec(cores_per_node=40)),
    expect=ExpectSpec(boot="refused", component="set_up_processors"),
)
"""40 per-CPU areas of 2 MiB on a host with 64 MiB."""


def log(machinery):
    return [row["text"] for row in machinery.sim.trace.select("log.line") if row["source"] == "vmkernel"]


@pytest.mark.parametrize("step", START)
def test_a_step_that_cannot_be_done_halts_the_host_and_is_traced(boot, monkeypatch, step):
    def fail(_kernel):
        raise OutOfMemory("no\nframe is free")

    monkeypatch.setattr(VMkernel, step, fail)
    machinery = boot()
    host = machinery.host
    assert host.state is HostState.HALTED
    assert host.kernel is None
    assert (host.failure.stage, host.failure.component) == ("vmkernel", step)
    assert host.failure.message == "no\\nframe is free"
    assert host.failure.event_log
    assert log(machinery)[-1] == f"@BlueScreen: {step}: no\\nframe is free"
    (row,) = machinery.sim.trace.select("kernel.panic")
    assert row["step"] == step
    with pytest.raises(ApiError, match="halted"):
        host.call("host.info")
    host.check_invariants()


def test_a_halted_host_starts_again_when_the_cause_is_gone(boot, monkeypatch):
    def fail(_kernel):
        raise OutOfMemory("full")

    with monkeypatch.context() as patch:
        patch.setattr(VMkernel, "set_up_processors", fail)
        machinery = boot()
    free = machinery.host.board.memory.frames_free
    machinery.host.reset()
    machinery.sim.engine.run()
    assert machinery.host.state is HostState.RUNNING
    assert machinery.host.failure is None
    assert machinery.host.board.memory.frames_free < free
    machinery.host.check_invariants()


def test_a_mistake_of_ours_is_no_purple_screen(boot, monkeypatch):
    def fail(_kernel):
        raise SimBug("ours")

    monkeypatch.setattr(VMkernel, "start_scheduler", fail)
    with pytest.raises(SimBug, match="ours"):
        boot()


@pytest.mark.parametrize("content", [b"junk", b"", None])
def test_a_host_without_a_kernel_image_halts(boot, specs, content):
    def spoil(machinery):
        bank = machinery.host.board.disk.volume("bootbank")
        if content is not None:
            bank.write("k.b00", gzip_stored(content))
            return
        lines = bank.peek("boot.cfg").decode().splitlines()
        kept = ["modules=" if line.startswith("modules=") else line for line in lines]
        bank.write("boot.cfg", ("\n".join(kept) + "\n").encode())

    machinery = boot(before=spoil, host={"firmware": specs["firmware"](secure_boot=False)})
    assert machinery.host.state is HostState.HALTED
    assert machinery.host.failure.component == "place_kernel"


def test_a_kernel_that_was_changed_runs_without_secure_boot_and_is_marked_unverified(boot, specs):
    def tamper(machinery):
        bank = machinery.host.board.disk.volume("bootbank")
        from sim.image.payload import content_of

        content = bytearray(content_of(bank.peek("k.b00")))
        content[-1] ^= 1
        bank.write("k.b00", gzip_stored(bytes(content)))

    machinery = boot(before=tamper, host={"firmware": specs["firmware"](secure_boot=False)})
    kernel = machinery.host.call("module.list")[0]
    assert kernel["name"] == "vmkernel"
    assert kernel["signed"] == "Not verified (module.payload)"
    assert kernel["level"] == "CommunitySupported"


def test_too_little_memory_ends_in_a_result_not_in_a_traceback():
    result = simulate(CRAMPED)
    assert result.expectation.met, result.expectation.differences
    assert result.boot.state == "refused"
    assert "wants 512 frames" in result.boot.message
    assert result.modules == ()
    assert result.event_log


def test_an_agent_that_finds_no_memory_is_refused_and_leaves_none_taken():
    host = evolve(CRAMPED.host, cpu=CpuSpec(cores_per_node=29))
    simulation = Simulation(evolve(CRAMPED, host=host, expect=ExpectSpec()))
    result = simulation.finish()
    assert result.boot.state == "ok"
    assert result.modules_refused == ("s.v00",)
    memory = simulation.host.board.memory
    assert memory.frames_of("user:hostd") == 0
    simulation.check_invariants()


def test_vcenter_notices_a_host_that_panics_after_a_reboot():
    roomy = Scenario(
        duration_ns=20 * SECOND,
        image=CRAMPED.image,
        host=HostSpec(memory_bytes=2048 * MIB, cpu=CpuSpec(cores_per_node=2)),
        vcenter=VCenterSpec(),
        faults=(
            FaultSpec(kind="disable_secure_boot", at_ns=3 * SECOND),
            FaultSpec(
                kind="flip_bit", target="bootbank/k.b00", unpacked=True, byte=0, bit=0, at_ns=3 * SECOND
            ),
            FaultSpec(kind="reboot", at_ns=4 * SECOND),
        ),
        expect=ExpectSpec(boot="refused", component="place_kernel"),
    )
    simulation = Simulation(roomy)
    result = simulation.finish()
    assert result.expectation.met, result.expectation.differences
    (entry,) = simulation.machinery.vcenter.hosts()
    assert entry.connection_state == "notResponding"
    assert simulation.sim.trace.select("vcenter.event")[-1]["type"] == "HostConnectionLostEvent"


class FailingTpm:
    """A TPM that answers `sound` commands and after that `answer`, for good."""

    def __init__(self, device, sound, answer):
        self._device = device
        self._sound = sound
        self._answer = answer
        self.execute_sound = device.execute

    def execute(self, command, locality=0):
        if self._sound:
            self._sound -= 1
            return self.execute_sound(command, locality)
        return self._answer


ANSWERS = (bytes.fromhex("80010000000a00000101"), b"", b"\x80\x01", bytes.fromhex("80010000000a00000000"))


@pytest.mark.parametrize("answer", ANSWERS, ids=["failure", "silence", "stump", "empty success"])
@pytest.mark.parametrize("sound", [*range(8), 30, 50, 60, 70, 80])
def test_a_tpm_that_fails_at_any_command_ends_in_a_state_of_the_host(sound, answer):
    machinery = build(Scenario(image=ImageSpec(modules=2, module_size_bytes=1024)), 3)
    failing = FailingTpm(machinery.tpm, sound, answer)
    machinery.tpm.execute = failing.execute
    host = machinery.host
    host.power_on()
    machinery.sim.engine.run()
    if host.state is HostState.HALTED:
        assert host.failure.message
        return
    assert host.state is HostState.RUNNING
    failing._sound = 0
    credential = {"credential_blob": b"", "encrypted_secret": b""}
    for call, params in (
        ("tpm.identity", {}),
        ("tpm.activate", credential),
        ("tpm.quote", {"nonce": b"n"}),
    ):
        with pytest.raises(ApiError) as caught:
            host.call(call, params)
        assert caught.value.code in ("InvalidState", "PlatformConfigFault")
        assert machinery.sim.trace.select("api.kernel_call")[-1]["outcome"] == caught.value.code


def test_a_panicked_run_goes_on_from_a_checkpoint():
    whole = simulate(CRAMPED)
    simulation = Simulation(CRAMPED)
    simulation.run(whole.simulated_ns - 1)
    assert pickle.loads(pickle.dumps(simulation)).finish() == whole
