"""Claims about a host's life: states, watchers, power cuts at any moment, refused boots."""

import pickle

import pytest

from sim.kernel.host import HostState
from sim.scenario.build import build
from sim.scenario.faults import FaultSpec
from sim.scenario.spec import ImageSpec, Scenario
from sim.scenario.strike import strike


class Watcher:
    def __init__(self):
        self.states = []

    def note(self, host):
        self.states.append(str(host.state))


def fresh():
    machinery = build(Scenario(image=ImageSpec(modules=2, module_size_bytes=1024)), 3)
    watcher = Watcher()
    machinery.host.watchers.append(watcher.note)
    return machinery, watcher


def test_a_host_boots_reboots_and_loses_power():
    machinery, watcher = fresh()
    host = machinery.host
    host.power_on()
    machinery.sim.engine.run()
    host.reboot()
    machinery.sim.engine.run()
    host.reset()
    machinery.sim.engine.run()
    host.power_off()
    assert watcher.states == ["booting", "running"] * 3 + ["off"]
    assert host.board.boot_count == 3
    assert machinery.sim.engine.idle


def test_a_tampered_driver_halts_a_host_with_secure_boot():
    machinery, watcher = fresh()
    fault = FaultSpec(kind="flip_bit", target="vib/vmkusb", unpacked=True, byte=0x2400, bit=0)
    strike(fault, 0, machinery.host.board)
    machinery.host.power_on()
    machinery.sim.engine.run()
    assert watcher.states == ["booting", "halted"]
    assert "UEFI Secure Boot failed" in machinery.host.failure.message
    assert "vmkusb" in machinery.host.failure.message


@pytest.mark.parametrize("part", range(0, 100, 9))
def test_power_may_fail_at_any_moment_of_a_boot(part):
    machinery, _ = fresh()
    host = machinery.host
    host.power_on()
    machinery.sim.engine.run(95 * 10**6 * part + 1)
    host.power_off()
    machinery.sim.engine.run()
    assert host.state is HostState.OFF
    assert host.kernel is None
    host.power_on()
    machinery.sim.engine.run()
    assert host.state is HostState.RUNNING
    assert host.call("host.info")["boot_count"] == 2
    host.check_invariants()


def test_a_running_host_pickles_and_goes_on_alike():
    machinery, _ = fresh()
    machinery.host.power_on()
    machinery.sim.engine.run()
    machinery.host.call(
        "vm.power_on", {"spec": {"name": "a", "memory": "64MiB", "workload": {"kind": "onoff"}}}
    )
    machinery.sim.engine.run(machinery.sim.now + 10**8)
    copy = pickle.loads(pickle.dumps(machinery))
    for one in (machinery, copy):
        one.sim.engine.run(one.sim.now + 10**9)
        one.host.call("host.reboot")
        one.sim.engine.run()
    assert copy.sim.trace.digest() == machinery.sim.trace.digest()


def running():
    machinery, _ = fresh()
    machinery.host.power_on()
    machinery.sim.engine.run()
    return machinery, machinery.host


def test_a_reboot_asked_for_many_times_is_one_reboot():
    machinery, host = running()
    for _ in range(5):
        host.call("host.reboot")
    machinery.sim.engine.run()
    assert host.call("host.info")["boot_count"] == 2
    host.call("host.reboot")
    machinery.sim.engine.run()
    assert host.call("host.info")["boot_count"] == 3


@pytest.mark.parametrize(
    ("press", "state"), [("power_off", "off"), ("reset", "running"), ("reboot", "running")]
)
def test_a_button_that_is_faster_than_the_asked_reboot_makes_it_void(press, state):
    machinery, host = running()
    host.call("host.reboot")
    getattr(host, press)()
    machinery.sim.engine.run()
    assert str(host.state) == state
    assert host.board.boot_count == (1 if press == "power_off" else 2)


def test_power_off_and_on_voids_the_asked_reboot_too():
    machinery, host = running()
    host.call("host.reboot")
    host.power_off()
    host.power_on()
    machinery.sim.engine.run()
    assert host.call("host.info")["boot_count"] == 2


def test_a_storm_of_resets_leaks_nothing():
    machinery, host = running()
    free = host.board.memory.frames_free
    for number in range(12):
        host.reset()
        machinery.sim.engine.run(machinery.sim.now + 900 * 10**6 * number)
    host.reset()
    machinery.sim.engine.run()
    assert host.state is HostState.RUNNING
    assert abs(host.board.memory.frames_free - free) < 64, "placement decides how many page tables there are"
    host.check_invariants()


def test_a_watcher_may_cut_the_power_at_once():
    machinery, _ = fresh()
    machinery.host.watchers.append(Cutter().note)
    machinery.host.power_on()
    machinery.sim.engine.run()
    assert machinery.host.state is HostState.OFF
    assert not machinery.host.board.powered


class Cutter:
    def note(self, host):
        if host.state is HostState.BOOTING:
            host.power_off()


def test_random_workloads_do_not_repeat_after_a_reboot():
    machinery, _ = fresh()
    machinery.host.power_on()
    machinery.sim.engine.run()
    spec = {"name": "a", "memory": "64MiB", "workload": {"kind": "onoff", "random": True}}
    drawn = []
    for _ in range(2):
        began = machinery.sim.now
        machinery.host.call("vm.power_on", {"spec": spec})
        machinery.sim.engine.run(began + 10**9)
        rows = machinery.sim.trace.select("sched.dispatch")
        drawn.append([row["time_ns"] - began for row in rows if row["time_ns"] > began])
        machinery.host.call("host.reboot")
        machinery.sim.engine.run()
    assert len(drawn[0]) > 20
    assert drawn[0] != drawn[1]
