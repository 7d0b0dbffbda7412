import pytest

from sim.core.structure import FieldError, structure
from sim.errors import ScenarioError
from sim.scenario.faults import FAULT_KINDS, FaultSpec, FaultTarget


def test_a_target_names_volume_and_file_or_vib_or_loader():
    assert FaultTarget.parse("bootbank/s.v00") == FaultTarget(place="bootbank", name="s.v00")
    assert FaultTarget.parse("esp/EFI/BOOT/x.efi") == FaultTarget(place="esp", name="EFI/BOOT/x.efi")
    assert FaultTarget.parse("loader") == FaultTarget(place="loader", name="")


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        ({"kind": "melt"}, "kind"),
        ({"kind": "flip_bit"}, "target"),
        ({"kind": "flip_bit", "target": "disk/x"}, "target"),
        ({"kind": "flip_bit", "target": "bootbank/../x"}, "target"),
        ({"kind": "flip_bit", "target": "bootbank/x", "bit": 8}, "bit"),
        ({"kind": "remove_file", "target": "bootbank/x", "bit": 1}, "bit"),
        ({"kind": "disable_tpm", "target": "bootbank/x"}, "target"),
        ({"kind": "reboot"}, "at"),
        ({"kind": "disable_tpm", "at": "-1s"}, "at"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_at_its_key(keys, wrong):
    with pytest.raises(ScenarioError) as caught:
        structure(keys, FaultSpec)
    assert caught.value.path == wrong


def test_python_users_get_the_same_check():
    with pytest.raises(FieldError):
        FaultSpec(kind="reboot")


def test_every_kind_can_be_written():
    for kind in FAULT_KINDS:
        target = "bootbank/s.v00" if kind in ("flip_bit", "remove_file") else None
        assert FaultSpec(kind=kind, target=target, at_ns=5).at_ns == 5
