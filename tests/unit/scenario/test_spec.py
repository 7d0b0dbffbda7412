import json

import pytest
from attrs import evolve

from sim.core.structure import FieldError, structure
from sim.core.units import SECOND
from sim.hw.spec import FirmwareSpec, HostSpec
from sim.kernel.vm import CpuAllocation, VmSpec
from sim.kernel.workload import WorkloadSpec
from sim.scenario.inputs import InputFile
from sim.scenario.plaintable import plain_table
from sim.scenario.spec import ImageSpec, Scenario, TpmSpec, VmEntry


def test_the_id_is_the_digest_of_canonical_json_and_moves_with_every_field():
    scenario = Scenario()
    assert json.loads(scenario.canonical())["name"] == "scenario"
    assert scenario.canonical() == json.dumps(
        json.loads(scenario.canonical()), sort_keys=True, separators=(",", ":")
    )
    others = [
        evolve(scenario, seed=1),
        evolve(scenario, duration_ns=SECOND),
        evolve(scenario, host=HostSpec(name="other")),
        evolve(scenario, options={"a": 1}),
        evolve(scenario, image=ImageSpec(vibs=(InputFile(name="a", data=b"x"),))),
        evolve(scenario, image=ImageSpec(vibs=(InputFile(name="a", data=b"y"),))),
    ]
    assert len({one.id for one in [scenario, *others]}) == 7
    assert Scenario().id == scenario.id


def test_a_count_of_one_keeps_the_name_and_more_are_numbered():
    assert [spec.name for spec in VmEntry(name="a").expand()] == ["a"]
    many = list(VmEntry(name="a", count=2, vcpus=3).expand())
    assert many == [VmSpec(name="a-1", vcpus=3), VmSpec(name="a-2", vcpus=3)]


@pytest.mark.parametrize(
    ("host", "tpm", "state", "fitted", "enabled"),
    [
        (HostSpec(), TpmSpec(), "present", True, True),
        (HostSpec(), TpmSpec(state="disabled"), "disabled", True, False),
        (HostSpec(), TpmSpec(state="damaged"), "damaged", True, True),
        (HostSpec(), TpmSpec(state="absent"), "absent", False, False),
        (HostSpec(tpm_present=False), TpmSpec(), "absent", False, False),
        (HostSpec(firmware=FirmwareSpec(tpm_enabled=False)), TpmSpec(), "disabled", True, False),
    ],
)
def test_the_state_of_the_tpm_reaches_the_board(host, tpm, state, fitted, enabled):
    scenario = Scenario(host=host, tpm=tpm)
    assert scenario.tpm_state == state
    assert scenario.board_spec.tpm_present is fitted
    assert scenario.board_spec.firmware.tpm_enabled is enabled


def test_two_different_states_of_the_tpm_are_refused():
    with pytest.raises(FieldError):
        Scenario(host=HostSpec(tpm_present=False), tpm=TpmSpec(state="disabled"))
    with pytest.raises(FieldError):
        Scenario(host=HostSpec(firmware=FirmwareSpec(tpm_enabled=False)), tpm=TpmSpec(state="present"))
    with pytest.raises(FieldError):
        Scenario(host=HostSpec(tpm_present=False), tpm=TpmSpec(state="damaged"))
    with pytest.raises(FieldError):
        Scenario(host=HostSpec(firmware=FirmwareSpec(tpm_enabled=False)), tpm=TpmSpec(state="damaged"))


@pytest.mark.parametrize(
    "spec",
    [
        VmSpec(name="a"),
        VmSpec(
            name="b",
            vcpus=2,
            memory_bytes=1 << 30,
            cpu=CpuAllocation(shares=7, reservation_hz=5, limit_hz=9),
            workload=WorkloadSpec(kind="trace", demand=(1, 2), period_ns=10**9),
        ),
    ],
)
def test_a_plain_table_gives_the_same_spec_back(spec):
    assert structure(plain_table(spec), VmSpec) == spec
