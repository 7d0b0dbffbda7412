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
        ({"kind": "memory_error", "at": "1s"}, "target"),
        ({"kind": "memory_error", "target": "vm/a"}, "at"),
        ({"kind": "memory_error", "target": "bootbank/s.v00", "at": "1s"}, "target"),
        ({"kind": "memory_error", "target": "vm/a", "at": "1s", "bits": 0}, "bits"),
        ({"kind": "memory_error", "target": "vm/a", "at": "1s", "bits": 9}, "bits"),
        ({"kind": "memory_error", "target": "vm/a", "at": "1s", "bit": 3}, "bit"),
        ({"kind": "memory_error", "target": "vm/a", "at": "1s", "found_by": "luck"}, "found_by"),
        ({"kind": "memory_error", "target": "dram", "at": "1s", "byte": 24 << 40}, "byte"),
        ({"kind": "flip_bit", "target": "vm/a"}, "target"),
        ({"kind": "flip_bit", "target": "bootbank/x", "byte": 1 << 31}, "byte"),
        ({"kind": "flip_bit", "target": "bootbank/x", "bits": 2}, "bits"),
        ({"kind": "reboot", "at": "1s", "found_by": "scrub"}, "found_by"),
        ({"kind": "stray_interrupts"}, "at"),
        ({"kind": "stray_interrupts", "at": "1s", "vector": 31}, "vector"),
        ({"kind": "stray_interrupts", "at": "1s", "vector": 256}, "vector"),
        ({"kind": "stray_interrupts", "at": "1s", "count": 0}, "count"),
        ({"kind": "stray_interrupts", "at": "1s", "target": "kernel"}, "target"),
        ({"kind": "reboot", "at": "1s", "vector": 80}, "vector"),
        ({"kind": "reboot", "at": "1s", "count": 2}, "count"),
        ({"kind": "sinit"}, "defect"),
        ({"kind": "sinit", "defect": "mle"}, "defect"),
        ({"kind": "launch_policy", "defect": "key"}, "defect"),
        ({"kind": "reboot", "at": "1s", "defect": "bit"}, "defect"),
        ({"kind": "suspend", "at": "1s"}, "sleep"),
        ({"kind": "suspend", "sleep": "5s"}, "at"),
        ({"kind": "suspend", "at": "1s", "sleep": "1ms"}, "sleep"),
        ({"kind": "reboot", "at": "1s", "sleep": "5s"}, "sleep"),
        ({"kind": "tpm_reset"}, "at"),
        ({"kind": "power_cycle"}, "at"),
        ({"kind": "alter_memory", "target": "bootbank/s.v00", "at": "1s"}, "target"),
        ({"kind": "alter_memory", "target": "kernel", "at": "1s", "bits": 2}, "bits"),
        ({"kind": "revoke"}, "target"),
        ({"kind": "revoke", "target": "bootbank/s.v00"}, "target"),
        ({"kind": "revoke", "target": "loader", "form": "list"}, "form"),
        ({"kind": "revoke", "target": "early/vmksim_esx80_k01", "form": "image"}, "form"),
        ({"kind": "revoke", "target": "signer/partner/Intel", "form": "certificate"}, "form"),
        ({"kind": "flip_bit", "target": "early/vmksim_esx80_k01"}, "target"),
        ({"kind": "flip_bit", "target": "loader", "form": "image"}, "form"),
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
    more = {
        "flip_bit": {"target": "bootbank/s.v00"},
        "remove_file": {"target": "bootbank/s.v00"},
        "memory_error": {"target": "vm/a"},
        "alter_memory": {"target": "kernel"},
        "unload_module": {"target": "module/lsi_mr3"},
        "sinit": {"defect": "chipset"},
        "launch_policy": {"defect": "mle"},
        "suspend": {"sleep_ns": 10**9},
        "revoke": {"target": "signer/partner/Intel"},
        "pcpu_offline": {"target": "pcpu/0"},
        "pcpu_online": {"target": "pcpu/0"},
        "frequency": {"target": "pcpu/0"},
    }
    for kind in FAULT_KINDS:
        assert FaultSpec(kind=kind, at_ns=5, **more.get(kind, {})).at_ns == 5
