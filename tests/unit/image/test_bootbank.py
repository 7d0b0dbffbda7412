import attrs
import pytest

from sim.errors import FormatError
from sim.image.bootbank import BootBank, bank_file_name, config_settings, record_vib


@pytest.mark.parametrize(
    ("payload", "kind", "file"),
    [
        ("k", "boot", "k.b00"),
        ("net-e1000", "vgz", "net_e100.v00"),
        ("lsi-mr3", "vgz", "lsi_mr3.v00"),
        ("btldr", "bootloader", "btldr.t00"),
        ("weaselin", "tgz", "weaselin.t00"),
        ("CHARDEVS", "boot", "chardevs.b00"),
    ],
)
def test_file_names_are_those_of_a_real_bank(payload, kind, file):
    assert bank_file_name(payload, kind, ()) == file


def test_a_taken_name_is_counted_up():
    assert bank_file_name("net-e1000e", "vgz", {"net_e100.v00", "net_e100.v01"}) == "net_e100.v02"
    with pytest.raises(FormatError):
        bank_file_name("a", "vgz", {f"a.v{number:02d}" for number in range(1000)})


def test_the_payloads_of_a_vib_get_names_of_their_own(small_image):
    base = small_image.vibs[0]
    again = record_vib(base, small_image.bank.files)
    assert len(set(again.files)) == len(base.payloads)
    assert not set(again.files) & set(small_image.bank.files)


def test_a_bank_is_a_value(small_image):
    bank = small_image.bank
    changed = bank.with_files({"new.v00": b"x"}, removed={"k.b00"})
    assert "k.b00" in bank.files
    assert "new.v00" not in bank.files
    assert set(changed.files) == set(bank.files) - {"k.b00"} | {"new.v00"}


def test_a_missing_file_is_named():
    with pytest.raises(FormatError) as caught:
        BootBank(files={}).config  # noqa: B018 - the property raises
    assert caught.value.where == "boot.cfg"


def test_the_database_repeats_the_unmeasured_settings(small_image):
    bank = small_image.bank
    changed = bank.with_config(attrs.evolve(bank.config, title="Other", kernelopt="a=1"))
    assert changed.database.settings == config_settings(changed.config)
    assert ("title", "Other") in changed.database.settings
    assert not any("kernelopt" in key for key, _ in changed.database.settings)


def test_a_missing_file_and_a_full_series_of_names_are_refused_in_exact_words():
    with pytest.raises(FormatError) as caught:
        BootBank(files={}).file("k.b00")
    assert str(caught.value) == str(FormatError("boot bank", "k.b00", "is missing"))
    taken = {f"long_nam.v{number:02d}" for number in range(999)}
    assert bank_file_name("long-name", "vgz", taken) == "long_nam.v999"
    with pytest.raises(FormatError) as caught:
        bank_file_name("long-name", "vgz", taken | {"long_nam.v999"})
    words = "more than 1000 payloads begin with this name"
    assert str(caught.value) == str(FormatError("boot bank", "long_nam", words))


def test_a_bank_does_not_change_with_the_mapping_it_was_made_from():
    files = {"k.b00": b"kernel"}
    bank = BootBank(files=files)
    files["k.b00"] = b"other"
    assert bank.file("k.b00") == b"kernel"
