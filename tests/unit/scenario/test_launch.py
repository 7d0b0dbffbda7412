"""Late launches in scenarios: the owner's settings, their faults, and what vCenter says."""

import pytest
from attrs import evolve

from sim.attest.policy import LaunchRule
from sim.boot.launchspec import LaunchSpec
from sim.core.structure import FieldError
from sim.core.units import MIB, SECOND
from sim.errors import ScenarioError
from sim.hw.spec import CpuSpec, FirmwareSpec, HostSpec
from sim.scenario.faults import FaultSpec
from sim.scenario.load import parse_scenario
from sim.scenario.run import Simulation, simulate
from sim.scenario.spec import LAUNCH_RULES, ExpectSpec, ImageSpec, Scenario, TpmSpec, VCenterSpec
from sim.tpm.fault_spec import Fault

OFF = FaultSpec(kind="suspend", at_ns=5 * SECOND, sleep_ns=10 * SECOND)


@pytest.fixture
def launched():
    """A small host that is launched, and attested every twenty seconds."""
    return Scenario(
        name="launched",
        duration_ns=45 * SECOND,
        host=HostSpec(
            memory_bytes=2048 * MIB,
            cpu=CpuSpec(cores_per_node=2),
            firmware=FirmwareSpec(txt_enabled=True),
        ),
        image=ImageSpec(modules=2, module_size_bytes=2048),
        options={"enableTboot": True},
        vcenter=VCenterSpec(attest_every_ns=20 * SECOND, launch="required"),
    )


def codes(result):
    return [reason.code for reason in result.attestation.reasons]


def steps(simulation):
    return [row["what"] for row in simulation.sim.trace.select("scenario.step")]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"policy": "any"},
        {"policy": "list"},
        {"policy": "list", "signed": True, "sinit_version_min": 4},
        {"policy": "list", "state_pcrs": (0, 2, 7)},
        {"usage": "legacy", "policy": "list"},
        {"generation": "txt-era", "policy": "list"},
        {"generation": "txt-era", "usage": "details"},
    ],
)
def test_every_setting_launches_and_is_accepted(launched, spec):
    wanted = spec.get("policy") == "list"
    result = simulate(
        evolve(
            launched,
            duration_ns=2 * SECOND,
            launch=LaunchSpec(**spec),
            vcenter=VCenterSpec(launch="required", require_launch_policy=wanted),
        )
    )
    assert result.boot.drtm
    assert (result.attestation.status, codes(result)) == ("accepted", [])
    usage = spec.get("usage", "legacy" if spec.get("generation") == "txt-era" else "details")
    assert bool(result.attestation.unknown) == (wanted and usage == "legacy")
    assert result.txt.senter_done


PRELAUNCH = {"truncated", "chipset", "debug", "absent"}
DEFECTS = [
    *(("sinit", one) for one in ("bit", "key", "revoked", "old", *sorted(PRELAUNCH))),
    *(("launch_policy", one) for one in ("mle", "state", "data", "signature", "revoked", "format")),
]


@pytest.mark.parametrize("action", ["reset", "halt", "continue"])
@pytest.mark.parametrize(("kind", "defect"), DEFECTS)
def test_defect_follows_the_policy_s_action(launched, kind, defect, action):
    scenario = evolve(
        launched,
        duration_ns=2 * SECOND,
        launch=LaunchSpec(policy="list", on_failure=action, sinit_version_min=4),
        faults=(FaultSpec(kind=kind, defect=defect),),
    )
    result = simulate(scenario)
    early = kind == "sinit" and defect in PRELAUNCH
    assert not result.boot.drtm
    assert (result.txt.errorcode == 0) is early
    assert result.txt.txt_reset is not early
    assert result.boot.boots == (1 if early or action == "reset" else 2)
    if action == "continue":
        assert (result.boot.state, codes(result)) == ("ok", ["launch"])
    else:
        assert (result.boot.state, result.boot.stage) == ("refused", "tboot")
        assert f"policy action {action}" in result.boot.message or "TXT reset: " in result.boot.message


def test_policy_that_is_gone_lets_anything_launch_and_only_attestation_tells(launched):
    scenario = evolve(
        launched,
        launch=LaunchSpec(policy="list"),
        faults=(FaultSpec(kind="launch_policy", defect="absent"),),
    )
    assert simulate(scenario).attestation.status == "accepted"
    strict = simulate(evolve(scenario, vcenter=VCenterSpec(require_launch_policy=True)))
    assert (strict.boot.drtm, codes(strict)) == (True, ["launch_policy"])


def test_flipped_bit_of_firmware_is_a_state_that_the_policy_does_not_allow(launched):
    scenario = evolve(
        launched,
        launch=LaunchSpec(policy="list", state_pcrs=(0,)),
        faults=(FaultSpec(kind="flip_bit", target="firmware/DXE", byte=100, bit=1),),
    )
    result = simulate(scenario)
    assert result.boot.component == "launch control policy"
    assert "no PCONF element" in result.boot.message
    assert simulate(evolve(scenario, launch=LaunchSpec(policy="list"))).boot.drtm


def test_error_stays_over_reboots_and_goes_with_a_power_cycle(launched):
    def run(last):
        faults = (
            FaultSpec(kind="sinit", defect="revoked", at_ns=2 * SECOND),
            FaultSpec(kind="reboot", at_ns=3 * SECOND),
            FaultSpec(kind="sinit", defect="repaired", at_ns=15 * SECOND),
            FaultSpec(kind=last, at_ns=20 * SECOND),
        )
        return simulate(evolve(launched, faults=faults))

    rebooted, cycled = run("reboot"), run("power_cycle")
    assert (rebooted.boot.state, rebooted.txt.errorcode) == ("refused", 0xC00004C1)
    assert (cycled.boot.state, cycled.boot.drtm, cycled.txt.errorcode) == ("ok", True, 0)
    assert cycled.attestation.status == "accepted"


def test_kernel_tells_of_a_launch_that_failed_before(launched):
    simulation = Simulation(
        evolve(
            launched,
            duration_ns=SECOND,
            launch=LaunchSpec(on_failure="continue"),
            faults=(FaultSpec(kind="sinit", defect="revoked"),),
        )
    )
    simulation.finish()
    lines = [row["text"] for row in simulation.sim.trace.select("log.line") if row["source"] == "vmkernel"]
    assert "TXT: a launch has failed since power-on: TXT.ERRORCODE: 0xc00004c1" in lines
    assert simulation.host.call("tpm.state")["txt_errorcode"] == 0xC00004C1


# ---------------------------------------------------------------- S3


def test_suspended_host_is_accepted_where_a_site_allows_it(launched):
    allowed = evolve(launched, vcenter=evolve(launched.vcenter, allow_resume=True), faults=(OFF,))
    simulation = Simulation(allowed)
    result = simulation.finish()
    assert (result.boot.state, result.boot.drtm, codes(result)) == ("ok", True, [])
    assert steps(simulation)[:4] == ["add host", "suspend", "wake", "attest again"]
    assert simulation.host.resumes == 1
    events = [row["type"] for row in simulation.sim.trace.select("vcenter.event")]
    assert events.index("HostConnectionLostEvent") < len(events) - 1 - events[::-1].index(
        "HostConnectedEvent"
    )
    refused = simulate(evolve(launched, faults=(OFF,)))
    assert codes(refused) == ["tpm_restart"]


@pytest.mark.parametrize("launch", [True, False])
def test_memory_written_in_the_sleep_stops_a_launched_host_alone(launched, launch):
    write = FaultSpec(kind="alter_memory", target="kernel", byte=5000, bit=2, at_ns=8 * SECOND)
    vcenter = VCenterSpec(allow_resume=True)
    result = simulate(evolve(launched, options={"enableTboot": launch}, faults=(OFF, write), vcenter=vcenter))
    assert result.boot.state == ("refused" if launch else "ok")
    assert ("memory integrity lost" in result.boot.message) is launch


def test_tpm_that_lost_its_state_in_the_sleep_is_refused_by_its_counter(launched):
    lost = TpmSpec(faults=(Fault(kind="drop", command="Shutdown"),))
    vcenter = evolve(launched.vcenter, allow_resume=True)
    result = simulate(evolve(launched, tpm=lost, faults=(OFF,), vcenter=vcenter))
    assert (result.boot.state, codes(result)) == ("ok", ["tpm_reset"])


def test_reboot_in_the_sleep_is_a_boot(launched):
    simulation = Simulation(evolve(launched, faults=(OFF, FaultSpec(kind="reboot", at_ns=8 * SECOND))))
    result = simulation.finish()
    assert (result.boot.boots, result.boot.drtm, codes(result)) == (2, True, [])
    assert "wake" not in steps(simulation)


def test_suspend_of_a_host_that_does_not_run_is_noted(launched):
    second = FaultSpec(kind="suspend", at_ns=6 * SECOND, sleep_ns=SECOND)
    simulation = Simulation(evolve(launched, faults=(OFF, second)))
    simulation.finish()
    assert "suspend refused" in steps(simulation)


# ---------------------------------------------------------------- the TPM reset attack


@pytest.mark.parametrize(("launch", "refused"), [(True, 34), (False, 0)])
def test_reset_of_the_tpm_alone_is_refused_with_its_reason(launched, launch, refused):
    attack = FaultSpec(kind="tpm_reset", at_ns=5 * SECOND)
    simulation = Simulation(
        evolve(
            launched,
            options={"enableTboot": launch},
            faults=(attack,),
            vcenter=VCenterSpec(attest_every_ns=20 * SECOND),
        )
    )
    result = simulation.finish()
    (row,) = simulation.sim.trace.select("fault.tpm_reset")
    assert row["refused"] == refused
    assert row["replayed"] > 20
    assert codes(result) == ["tpm_reset"]
    static = [result.pcrs["sha256"][str(pcr)] for pcr in range(16)]
    clean = simulate(evolve(launched, options={"enableTboot": launch}, duration_ns=2 * SECOND))
    assert static == [clean.pcrs["sha256"][str(pcr)] for pcr in range(16)]


def test_reset_without_a_tpm_in_use_does_nothing(launched):
    attack = FaultSpec(kind="tpm_reset", at_ns=5 * SECOND)
    simulation = Simulation(
        evolve(launched, tpm=TpmSpec(state="absent"), faults=(attack,), vcenter=None, expect=ExpectSpec())
    )
    simulation.finish()
    kinds = [row["kind"] for row in simulation.sim.trace.select("fault.strike")]
    assert kinds == ["tpm_reset (nothing there)"]


# ---------------------------------------------------------------- what is refused


def test_scenarios_know_the_launch_rules_of_the_verifier():
    assert list(LAUNCH_RULES) == [rule.value for rule in LaunchRule]


def test_policy_needs_a_tpm(launched):
    with pytest.raises(FieldError, match="launch"):
        evolve(launched, tpm=TpmSpec(state="absent"), launch=LaunchSpec(policy="any"))


@pytest.mark.parametrize(
    ("fault", "path"),
    [
        ({"kind": "launch_policy", "defect": "data"}, "faults[0].defect"),
        ({"kind": "flip_bit", "target": "firmware/SNIT"}, "faults[0].target"),
        ({"kind": "flip_bit", "target": "firmware/SINIT", "unpacked": True}, "faults[0].target"),
        ({"kind": "remove_file", "target": "firmware/SINIT"}, "faults[0].target"),
        ({"kind": "flip_bit", "target": "firmware/DXE", "byte": 70_000}, "faults[0].byte"),
    ],
)
def test_fault_that_has_no_target_is_refused_before_the_run(launched, fault, path):
    with pytest.raises(ScenarioError) as caught:
        Simulation(evolve(launched, faults=(FaultSpec(**fault),)))
    assert caught.value.path == path


def test_policy_fault_without_a_tpm_is_refused(launched):
    fault = FaultSpec(kind="launch_policy", defect="mle")
    with pytest.raises(ScenarioError, match="there is none"):
        Simulation(evolve(launched, tpm=TpmSpec(state="absent"), faults=(fault,), vcenter=None))


def test_scenario_file_can_say_all_of_it():
    scenario = parse_scenario(
        """
duration = "60s"
options = { enableTboot = true }
[host.firmware]
txt_enabled = true
debug_chipset = true
[launch]
generation = "txt-era"
usage = "details"
on_failure = "continue"
policy = "list"
state_pcrs = [0, 7]
signed = true
sinit_version_min = 3
allow_debug = true
[[faults]]
kind = "suspend"
at = "10s"
sleep = "20s"
[[faults]]
kind = "sinit"
defect = "debug"
[vcenter]
attest_every = "15s"
launch = "required"
require_launch_policy = true
allow_resume = true
"""
    )
    assert scenario.launch.state_pcrs == (0, 7)
    assert scenario.vcenter.attest_every_ns == 15 * SECOND
    assert scenario.faults[0].sleep_ns == 20 * SECOND


def test_golden_values_of_the_platform_come_from_a_clean_boot_in_spite_of_faults(launched):
    spec = LaunchSpec(policy="list", state_pcrs=(7,))
    scenario = evolve(launched, launch=spec, faults=(FaultSpec(kind="disable_secure_boot"),))
    result = simulate(scenario)
    assert result.boot.component == "launch control policy"
