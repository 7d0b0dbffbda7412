import pytest
from attrs import evolve

from sim import simulate
from sim.errors import ScenarioError
from sim.image.payload import content_of
from sim.scenario.build import build
from sim.scenario.faults import FaultSpec


@pytest.fixture
def files(small):
    """A function that builds the machine with one fault and returns the files of all volumes, and the machine."""

    def make(*faults):
        machinery = build(evolve(small, faults=faults), seed=1)
        board = machinery.host.board
        found = {
            f"{volume.name}/{path}": volume.peek(path)
            for volume in board.disk.volumes()
            for path in volume.paths()
        }
        return found, machinery

    return make


def _changed(before, after):
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def _bits(left, right):
    return sum((one ^ other).bit_count() for one, other in zip(left, right, strict=True))


@pytest.mark.parametrize(
    ("target", "struck"),
    [
        ("bootbank/s.v00", "bootbank/s.v00"),
        ("vib/vmkusb", "bootbank/vmkusb.v00"),
        ("loader", "esp/EFI/VMware/safeboot64.efi"),
        ("esp/EFI/VMware/mboot64.efi", "esp/EFI/VMware/mboot64.efi"),
    ],
)
def test_one_bit_of_the_named_file_is_flipped_and_nothing_else(files, target, struck):
    clean, _ = files()
    hit, _ = files(FaultSpec(kind="flip_bit", target=target, byte=100, bit=3))
    assert _changed(clean, hit) == {struck}
    assert clean[struck][100] ^ hit[struck][100] == 8
    assert _bits(clean[struck], hit[struck]) == 1


def test_an_unpacked_flip_is_one_bit_of_the_content_in_a_file_that_still_unpacks(files):
    clean, _ = files()
    hit, _ = files(FaultSpec(kind="flip_bit", target="vib/vmkusb", unpacked=True))
    before, after = content_of(clean["bootbank/vmkusb.v00"]), content_of(hit["bootbank/vmkusb.v00"])
    assert _bits(before, after) == 1


def test_a_drawn_bit_is_the_same_for_the_same_seed_and_is_traced(files):
    fault = FaultSpec(kind="flip_bit", target="bootbank/s.v00")
    first, machinery = files(fault)
    second, _ = files(fault)
    assert first == second
    (row,) = machinery.sim.trace.select("fault.strike")
    assert (row["kind"], row["target"]) == ("flip_bit", "bootbank/s.v00")
    assert row["byte"] >= 0


def test_a_removed_file_is_gone(files):
    clean, _ = files()
    hit, _ = files(FaultSpec(kind="remove_file", target="bootbank/vmkusb.v00"))
    assert _changed(clean, hit) == {"bootbank/vmkusb.v00"}


def test_switches_are_turned_off(files):
    _, machinery = files(FaultSpec(kind="disable_tpm"), FaultSpec(kind="disable_secure_boot"))
    firmware = machinery.host.board.firmware
    assert not firmware.tpm_enabled
    assert not firmware.secure_boot


@pytest.mark.parametrize(
    ("fault", "path", "nearest"),
    [
        (FaultSpec(kind="flip_bit", target="bootbank/s.v01"), "faults[0].target", "s.v00"),
        (FaultSpec(kind="flip_bit", target="vib/vmkusd"), "faults[0].target", "vmkusb"),
        (FaultSpec(kind="remove_file", target="altbootbank/s.v00"), "faults[0].target", None),
        (FaultSpec(kind="flip_bit", target="bootbank/s.v00", byte=2**30), "faults[0].byte", None),
    ],
)
def test_a_target_that_is_not_there_is_refused_before_power_on(files, fault, path, nearest):
    with pytest.raises(ScenarioError) as caught:
        files(fault)
    assert caught.value.path == path
    assert caught.value.nearest == nearest


def test_a_target_that_is_gone_by_then_is_an_error_at_its_key(small):
    faults = (
        FaultSpec(kind="remove_file", target="vib/vmkusb", at_ns=1),
        FaultSpec(kind="flip_bit", target="vib/vmkusb", at_ns=2),
    )
    with pytest.raises(ScenarioError) as caught:
        simulate(evolve(small, faults=faults))
    assert caught.value.path == "faults[1].target"


REMOVE = FaultSpec(kind="remove_file", target="vib/vmkusb", at_ns=1)


@pytest.mark.parametrize(
    ("first", "second", "where"),
    [
        (REMOVE, FaultSpec(kind="flip_bit", target="vib/vmkusb", at_ns=2), r"faults\[1\]\.target"),
        (REMOVE, REMOVE, r"faults\[1\]\.target"),
        (
            FaultSpec(kind="remove_file", target="bootbank/imgdb.tgz", at_ns=1),
            FaultSpec(kind="flip_bit", target="vib/vmkusb", at_ns=2),
            r"faults\[1\]\.target",
        ),
        (
            FaultSpec(kind="flip_bit", target="vib/vmkusb", byte=3, bit=7, at_ns=1),
            FaultSpec(kind="flip_bit", target="vib/vmkusb", unpacked=True, at_ns=2),
            r"faults\[1\]\.unpacked",
        ),
    ],
)
def test_a_fault_that_an_earlier_one_made_impossible_is_named(small, first, second, where):
    with pytest.raises(ScenarioError, match=where):
        simulate(evolve(small, faults=(first, second)))
