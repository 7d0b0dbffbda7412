import pytest

from sim.errors import FormatError
from sim.image.bitflips import flip_bit
from sim.image.inspection import inspect_bank, inspect_vib
from sim.image.vib import write_vib


def test_a_good_vib_is_shown_whole(small_image):
    vib = next(vib for vib in small_image.vibs if vib.descriptor.name == "nmlx5-core")
    shown = inspect_vib(write_vib(vib))
    assert shown.descriptor == vib.descriptor
    assert [name for name, _ in shown.members] == ["descriptor.xml", "sig.pkcs7", "nmlx5-co"]
    assert shown.signature_bytes == len(vib.signature)
    (payload,) = shown.payloads
    assert payload.checksums == (("sha-256", True), ("sha-256 gunzip", True), ("sha-1 gunzip", True))
    assert [file.path for file in payload.files] == [
        "etc/vmware/default.map.d/nmlx5_core.map",
        "usr/lib/vmware/vmkmod/nmlx5_core",
    ]
    assert shown.problems == ()


def test_payloads_that_are_no_archives_have_no_entries(small_image):
    shown = inspect_vib(write_vib(small_image.vibs[0]))
    kinds = {payload.name: len(payload.entries) > 0 for payload in shown.payloads}
    assert kinds["k"] is False
    assert kinds["s"] is True
    assert kinds["btldr"] is True


def test_wrong_checksums_are_lines_and_not_errors(small_image):
    data = write_vib(small_image.vibs[2])
    shown = inspect_vib(flip_bit(data, 8 * (len(data) - 700)))
    (payload,) = shown.payloads
    assert dict(payload.checksums)["sha-256"] is False
    assert any("has sha-256" in problem for problem in shown.problems)


def test_a_file_list_that_does_not_fit_is_a_problem(small_image):
    vib = small_image.vibs[2]
    xml = vib.descriptor_xml.replace(b"<file>etc/", b"<file>opt/")
    shown = inspect_vib(
        write_vib(type(vib)(descriptor_xml=xml, signature=vib.signature, payloads=vib.payloads))
    )
    assert len(shown.problems) == 2


def test_what_is_no_vib_raises():
    with pytest.raises(FormatError):
        inspect_vib(b"junk")


def test_a_good_bank_is_shown_whole(small_image):
    shown = inspect_bank(small_image.bank.files)
    assert (shown.level, shown.problems) == ("PartnerSupported", ())
    assert [vib.descriptor.name for vib in shown.vibs][:3] == ["esx-base", "esx-update", "vmkusb"]
    assert {file.name for file in shown.unowned} == {
        "boot.cfg", "imgdb.tgz", "state.tgz", "jumpstrt.gz", "useropts.gz", "features.gz",
    }  # fmt: skip
    kernel = next(file for vib in shown.vibs for file in vib.files if file.name == "k.b00")
    assert (kernel.payload, kernel.size, kernel.as_described) == (
        "k",
        len(small_image.bank.files["k.b00"]),
        True,
    )


def test_damaged_and_missing_bank_files_are_lines(small_image):
    files = dict(small_image.bank.files)
    files["k.b00"] = flip_bit(files["k.b00"], 3)
    del files["s.v00"]
    files["useropts.gz"] = files["useropts.gz"][:-1]
    problems = inspect_bank(files).problems
    assert [
        word for word in ("k.b00", "s.v00", "useropts.gz") if not any(word in line for line in problems)
    ] == []
