from datetime import timedelta

import attrs
import pytest

from sim.image.acceptance import AcceptanceLevel
from sim.image.bankcheck import BankVerificationError, verify_bank
from sim.image.bitflips import flip_bit
from sim.image.bootbank import SYSTEM_FILES
from sim.image.bootcfg import format_boot_config
from sim.image.imgdb import write_database
from sim.image.install import install
from sim.image.manifest import measured_digests
from sim.image.metadata import Descriptor
from sim.image.payload import gzip_stored
from sim.image.vib import Payload, build_vib, read_vib

COMMUNITY, PARTNER, ACCEPTED, CERTIFIED = AcceptanceLevel


@pytest.fixture(scope="session")
def check(world_pki, epoch):
    def run(files, level=PARTNER, **options):
        return verify_bank(files, world_pki.trust, options.pop("now", epoch), level, **options)

    return run


@pytest.fixture(scope="session")
def community_bank(small_image, world_pki, epoch):
    spec = Descriptor(name="tool", version="1-1", vendor="home", level=COMMUNITY)
    vib = read_vib(build_vib(spec, [Payload(name="tool", kind="boot", data=b"x")], None, epoch))
    return install(small_image.bank, vib, COMMUNITY, world_pki.trust, epoch).bank


def with_database(bank, **changes):
    return bank.with_files({"imgdb.tgz": write_database(attrs.evolve(bank.database, **changes))})


def checks(report):
    return {failure.check for failure in report.failures}


def test_the_standard_image_is_verified_with_every_provider(check, small_image):
    report = check(small_image.bank.files, secure_boot=True)
    assert report.ok
    assert report.message == ""
    report.raise_for_failures()
    providers = {vib.descriptor.name: vib.identity.provider for vib in report.vibs}
    assert providers["esx-base"] == "VMware"
    assert providers["nmlx5-core"] == "Mellanox"
    assert {vib.identity.level for vib in report.vibs} == {PARTNER, ACCEPTED, CERTIFIED}


def test_each_bank_file_is_owned_by_its_vib(check, small_image):
    report = check(small_image.bank.files)
    assert report.owner("k.b00").descriptor.name == "esx-base"
    assert report.owner("nmlx5_co.v00").descriptor.name == "nmlx5-core"
    assert report.owner("state.tgz") is None


def test_one_changed_bit_names_vib_and_file(check, small_image):
    files = dict(small_image.bank.files)
    files["nmlx5_co.v00"] = flip_bit(files["nmlx5_co.v00"], 5000)
    report = check(files)
    assert report.message == (
        "UEFI Secure Boot failed: Failed to verify signatures of the following vib(s): [nmlx5-core]. "
        "Unrecognized tardisks: []"
    )
    (failure,) = report.failures
    assert (failure.vib, failure.tardisk, failure.check) == ("nmlx5-core", "nmlx5_co.v00", "bank.digest")
    assert report.owner("nmlx5_co.v00").identity is None
    with pytest.raises(BankVerificationError, match="nmlx5-core") as caught:
        report.raise_for_failures()
    assert caught.value.check == "bank.digest"


def test_sampled_bits_of_every_file_are_refused_or_measured(check, small_image):
    """What no check refuses must be a kernel option or module order, or change a measured digest."""
    files = small_image.bank.files
    for name, data in files.items():
        stride = max(1, 8 * len(data) // 24)
        for bit in range(0, 8 * len(data), stride):
            changed = flip_bit(data, bit)
            report = check({**files, name: changed})
            if not report.ok:
                continue
            assert name in SYSTEM_FILES, (name, bit)
            if name == "boot.cfg":
                line = data[: bit // 8].decode().rpartition("\n")[2]
                assert line.startswith("kernelopt="), (bit, line)
            else:
                assert measured_digests(name, changed) != measured_digests(name, data), (name, bit)


def test_bits_of_each_byte_of_boot_cfg_are_refused_or_in_the_kernel_options(check, small_image):
    bank = small_image.bank.with_config(attrs.evolve(small_image.bank.config, kernelopt="a=TRUE"))
    data = bank.files["boot.cfg"]
    start = data.index(b"kernelopt=") + len(b"kernelopt=")
    for index in range(len(data)):
        for bit in (0, 5):
            report = check({**bank.files, "boot.cfg": flip_bit(data, 8 * index + bit)})
            assert not report.ok or start <= index < start + len("a=TRUE"), (index, bit)


def test_a_file_that_no_vib_owns_is_an_unrecognized_tardisk(check, small_image):
    report = check({**small_image.bank.files, "evil.v00": b"x"})
    assert report.message.endswith("following vib(s): []. Unrecognized tardisks: [evil.v00]")


def test_a_missing_file_is_reported(check, small_image):
    files = {name: data for name, data in small_image.bank.files.items() if name != "s.v00"}
    assert checks(check(files)) == {"bank.file-missing", "bank.config-missing"}


def test_files_of_two_vibs_cannot_be_swapped(check, small_image):
    files = dict(small_image.bank.files)
    files["vmkusb.v00"], files["ixgben.v00"] = files["ixgben.v00"], files["vmkusb.v00"]
    report = check(files)
    assert {failure.vib for failure in report.failures} == {"vmkusb", "ixgben"}


def test_a_stripped_signature_is_reported(check, small_image):
    records = tuple(
        attrs.evolve(record, signature=b"") if record.descriptor.name == "lsi-mr3" else record
        for record in small_image.bank.database.records
    )
    report = check(with_database(small_image.bank, records=records).files)
    assert [(failure.vib, failure.check) for failure in report.failures] == [
        ("lsi-mr3", "vib.signature-missing")
    ]


def test_a_broken_signature_file_is_reported(check, small_image):
    first, *rest = small_image.bank.database.records
    report = check(
        with_database(small_image.bank, records=(attrs.evolve(first, signature=b"junk"), *rest)).files
    )
    assert [failure.vib for failure in report.failures] == ["esx-base"]


def test_one_file_cannot_serve_two_vibs(check, small_image):
    records = list(small_image.bank.database.records)
    records[3] = attrs.evolve(records[3], files=records[2].files)
    report = check(with_database(small_image.bank, records=tuple(records)).files)
    assert {"bank.file-shared", "bank.digest", "bank.unrecognized"} <= checks(report)


def test_a_vib_cannot_be_installed_twice(check, small_image):
    records = small_image.bank.database.records
    report = check(with_database(small_image.bank, records=(*records, records[-1])).files)
    assert "bank.vib-twice" in checks(report)


def test_levels_below_the_host_are_reported(check, small_image):
    report = check(small_image.bank.files, ACCEPTED)
    assert checks(report) == {"vib.host-level"}
    assert {failure.vib for failure in report.failures} == {"nmlx5-core", "qlnativefc", "nenic", "smartpqi"}


def test_a_community_vib_passes_on_a_community_host_without_secure_boot(check, community_bank):
    assert check(community_bank.files, COMMUNITY).ok
    report = check(community_bank.files, COMMUNITY, secure_boot=True)
    assert [(failure.vib, failure.check) for failure in report.failures] == [("tool", "vib.host-level")]


def test_an_expired_signer_is_reported(check, small_image, epoch):
    report = check(small_image.bank.files, now=epoch + timedelta(days=6 * 365))
    assert checks(report) == {"validity"}
    assert len(report.failures) == len(report.vibs)


@pytest.mark.parametrize("name", ["useropts.gz", "state.tgz", "jumpstrt.gz"])
def test_files_without_owner_must_be_packed_our_way(check, small_image, name):
    assert checks(check({**small_image.bank.files, name: b"raw"})) == {"bank.spelling"}
    assert check({**small_image.bank.files, name: gzip_stored(b"other content")}).ok


@pytest.mark.parametrize("data", [None, b"", b"junk", gzip_stored(b"junk")])
def test_a_bank_without_a_database_is_refused_whole(check, small_image, data):
    files = {name: content for name, content in small_image.bank.files.items() if name != "imgdb.tgz"}
    report = check(files if data is None else {**files, "imgdb.tgz": data})
    assert (report.vibs, checks(report)) == ((), {"bank.database"})
    assert "imgdb.tgz" in report.message


@pytest.mark.parametrize(
    ("change", "check_name"),
    [
        ({"title": "Loading something else"}, "bank.config-settings"),
        ({"updated": 9}, "bank.config-settings"),
        ({"bootstate": 1}, "bank.config-state"),
    ],
)
def test_settings_that_nothing_measures_are_held_against_the_database(check, small_image, change, check_name):
    bank = small_image.bank
    changed = bank.with_files({"boot.cfg": format_boot_config(attrs.evolve(bank.config, **change))})
    assert checks(check(changed.files)) == {check_name}


def test_an_administrator_may_change_kernel_options(check, small_image):
    bank = small_image.bank
    config = attrs.evolve(bank.config, kernelopt="enableTboot=TRUE")
    assert check({**bank.files, "boot.cfg": format_boot_config(config)}).ok


def test_a_module_left_out_or_loaded_twice_is_reported(check, small_image):
    bank = small_image.bank
    modules = bank.config.modules
    for changed, expected in (
        (modules[1:], "bank.config-omits"),
        ((*modules, modules[0]), "bank.config-twice"),
    ):
        data = format_boot_config(attrs.evolve(bank.config, modules=changed))
        assert checks(check({**bank.files, "boot.cfg": data})) == {expected}


def test_an_unreadable_boot_cfg_is_reported(check, small_image):
    assert checks(check({**small_image.bank.files, "boot.cfg": b"kernel"})) == {"bank.config"}


def sentences(report):
    return {failure.check: (failure.vib, failure.tardisk, failure.message) for failure in report.failures}


def test_a_fault_of_a_vib_is_a_sentence_about_vib_and_file(check, small_image):
    files = dict(small_image.bank.files)
    record = small_image.bank.database.record("vmkusb")
    vib, (name,) = record.descriptor.vib_id, record.files
    payload = record.descriptor.payloads[0].name
    changed = check({**files, name: b"other"})
    assert sentences(changed) == {
        "bank.digest": (
            "vmkusb",
            name,
            f"VIB {vib}, file {name}: payload {payload} has another sha-256 than the descriptor says",
        )
    }
    with pytest.raises(BankVerificationError) as caught:
        changed.raise_for_failures()
    assert caught.value.message == f"{changed.message} ({changed.failures[0].message})"
    del files[name]
    missing = sentences(check(files))
    assert missing["bank.file-missing"] == (
        "vmkusb",
        name,
        f"VIB {vib}, file {name}: payload {payload} is not in the bank",
    )
    assert missing["bank.config-missing"] == (
        "",
        "boot.cfg",
        f"boot.cfg: loads {name}, which is not in the bank",
    )
    below = check(small_image.bank.files, ACCEPTED).failures[0]
    assert below.message.endswith(": its acceptance level PartnerSupported is below VMwareAccepted")
    broken = with_database(
        small_image.bank,
        records=tuple(
            attrs.evolve(each, signature=b"junk") if each == record else each
            for each in small_image.bank.database.records
        ),
    )
    (failure,) = check(broken.files).failures
    assert (failure.check, failure.tardisk) == ("der", "")
    assert failure.message.startswith(f"VIB {vib}: signature: ")


def test_shared_foreign_and_repeated_files_are_told(check, small_image):
    bank = small_image.bank
    records = bank.database.records
    twice = sentences(check(with_database(bank, records=(*records, records[-1])).files))
    last = records[-1].descriptor
    assert twice["bank.vib-twice"][2] == f"VIB {last.vib_id}: a VIB of this name is installed twice"
    shared = f"VIB {last.vib_id}, file {records[-1].files[0]}: the file belongs to somebody else too"
    assert twice["bank.file-shared"][2] == shared
    stolen = attrs.evolve(records[-1], files=("state.tgz",))
    report = sentences(check(with_database(bank, records=(*records[:-1], stolen)).files))
    assert report["bank.file-shared"][1] == "state.tgz"
    foreign = sentences(check({**bank.files, "evil.v00": b"x"}))
    assert foreign == {"bank.unrecognized": ("", "evil.v00", "file evil.v00 belongs to no installed VIB")}
    two = check({**bank.files, "b.v00": b"", "a.v00": b"", "vmkusb.v00": b"", "ixgben.v00": b""})
    assert two.message == (
        "UEFI Secure Boot failed: Failed to verify signatures of the following vib(s): [vmkusb, ixgben]. "
        "Unrecognized tardisks: [a.v00, b.v00]"
    )


def test_a_fault_of_boot_cfg_is_told(check, small_image):
    bank = small_image.bank

    def told(**changes):
        data = format_boot_config(attrs.evolve(bank.config, **changes))
        return sentences(check({**bank.files, "boot.cfg": data}))

    words = "boot.cfg: its settings are not those of the image database"
    assert told(title="x") == {"bank.config-settings": ("", "boot.cfg", words)}
    assert told(bootstate=2) == {"bank.config-state": ("", "boot.cfg", "boot.cfg: bootstate is 2, not 0")}
    first, *rest = bank.config.modules
    assert told(modules=tuple(rest)) == {
        "bank.config-omits": ("", "boot.cfg", f"boot.cfg: does not load {first}")
    }
    assert told(modules=(first, first, first, *rest)) == {
        "bank.config-twice": ("", "boot.cfg", f"boot.cfg: loads {first} twice")
    }
    broken = sentences(check({**bank.files, "boot.cfg": b"?"}))
    assert broken["bank.config"][2].startswith("boot.cfg: boot.cfg: line 1: ")
    tried = format_boot_config(attrs.evolve(bank.config, bootstate=1))
    assert check({**bank.files, "boot.cfg": tried}, bootstate=1).ok


def test_a_bank_without_a_file_that_nobody_owns_is_reported_by_boot_cfg_alone(check, small_image):
    files = {path: data for path, data in small_image.bank.files.items() if path != "useropts.gz"}
    (only,) = check(files).failures
    assert (only.check, only.message) == (
        "bank.config-missing",
        "boot.cfg: loads useropts.gz, which is not in the bank",
    )
