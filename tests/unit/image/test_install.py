import attrs
import pytest

from sim.image.acceptance import AcceptanceLevel
from sim.image.bankcheck import verify_bank
from sim.image.imgdb import write_database
from sim.image.install import InstallError, install, remove, set_acceptance
from sim.image.metadata import Descriptor, Relation
from sim.image.payload import gzip_stored
from sim.image.tar import TarEntry, with_parents
from sim.image.vib import Payload, build_vib, read_vib
from sim.image.vtar import write_vtar

COMMUNITY, PARTNER, ACCEPTED, CERTIFIED = AcceptanceLevel


@pytest.fixture(scope="session")
def bank(small_image):
    return small_image.bank


@pytest.fixture(scope="session")
def make(world_pki, epoch):
    """A function that makes a VIB which holds one file; further arguments are fields of its descriptor."""

    def build(name="tool", version="1.0-1", level=PARTNER, path=None, sign=True, provider=None, **fields):
        path = path or f"opt/{name}/run"
        fields = {"files": (path,), "vendor": "Example", **fields}
        spec = Descriptor(name=name, version=version, level=level, **fields)
        archive = write_vtar(with_parents([TarEntry(path=path, data=name.encode())]))
        payload = Payload(name=name[:8], kind="vgz", data=gzip_stored(archive))
        signer = world_pki.signer(level.xml_name, provider) if level is not COMMUNITY and sign else None
        return read_vib(build_vib(spec, [payload], signer, epoch))

    build.provider = world_pki.signer("accepted").provider
    return build


@pytest.fixture(scope="session")
def put(bank, world_pki, epoch):
    def run(vibs, level=PARTNER, on=bank, **options):
        return install(on, vibs, level, world_pki.trust, epoch, **options)

    return run


def refusal(call, *args, **options):
    with pytest.raises(InstallError) as caught:
        call(*args, **options)
    return caught.value


def test_an_installed_vib_is_in_the_bank_the_database_and_the_load_order(put, make, bank):
    vib = make()
    result = put(vib)
    assert (result.installed, result.removed, result.warnings) == ((vib.vib_id,), (), ())
    assert result.bank.files["tool.v00"] == vib.payloads[0].data
    assert result.bank.descriptors[-1] == vib.descriptor
    assert result.bank.config.modules[-3:] == ("tool.v00", "imgdb.tgz", "state.tgz")
    assert result.bank.config.updated == bank.config.updated + 1


def test_the_bank_after_an_installation_passes_secure_boot(put, make, world_pki, epoch):
    result = put([make(), make("other", level=CERTIFIED)])
    assert verify_bank(result.bank.files, world_pki.trust, epoch, PARTNER, secure_boot=True).ok


def test_the_old_bank_is_never_touched(put, make, bank):
    before = dict(bank.files)
    put(make())
    refusal(put, make(level=COMMUNITY))
    assert bank.files == before


def test_a_level_below_the_host_is_refused_in_esxcli_words(put, make):
    error = refusal(put, make(level=COMMUNITY))
    assert error.check == "AcceptanceConfigError"
    vib = "Example_bootbank_tool_1.0-1"
    reason = "which is not compliant with the ImageProfile acceptance level partner"
    assert str(error).split("\n") == [
        " [AcceptanceConfigError]",
        f" VIB {vib}'s acceptance level is community, {reason}",
        " To change the host acceptance level, use the 'esxcli software acceptance set' command.",
        " Please refer to the log file for more details.",
    ]
    assert put(make(level=COMMUNITY), COMMUNITY).installed


def test_a_forged_level_is_refused(put, make):
    error = refusal(put, make(sign=False))
    assert error.check == "VibSignatureError"
    assert "claims PartnerSupported and has no signature" in str(error)


def test_force_installs_with_warnings_and_secure_boot_refuses_later(put, make, world_pki, epoch):
    forged = make(sign=False)
    result = put([forged, make("home", level=COMMUNITY)], force=True)
    assert len(result.installed) == 2
    assert [warning.split("]")[0].strip(" [") for warning in result.warnings] == [
        "VibSignatureError",
        "AcceptanceConfigError",
    ]
    report = verify_bank(result.bank.files, world_pki.trust, epoch, PARTNER, secure_boot=True)
    assert [failure.vib for failure in report.failures] == ["tool", "home"]


def test_force_does_not_help_a_damaged_payload(put, make):
    vib = make()
    damaged = attrs.evolve(vib, payloads=(attrs.evolve(vib.payloads[0], data=b"other"),))
    assert refusal(put, damaged, force=True).check == "VibPayloadError"


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"force": True}, "force"),
        ({"no_sig_check": True}, "no-sig-check"),
        ({"force": True, "no_sig_check": True}, "no-sig-check"),
    ],
)
def test_each_rule_that_an_option_sets_aside_is_kept_in_the_result(put, make, options, option):
    result = put([make(sign=False), make("home", level=COMMUNITY)], **options)
    assert [(one.option, one.rule) for one in result.waivers] == [
        (option, "VibSignatureError"),
        (option, "AcceptanceConfigError"),
    ]
    assert result.warnings == tuple(one.text for one in result.waivers)
    assert put(make(), **options).waivers == ()


def test_the_check_of_signatures_alone_does_not_lift_other_rules(put, make):
    newer = put(make(version="2.0-1")).bank
    older = make(version="1.9-9", sign=False)
    assert refusal(put, older, on=newer, no_sig_check=True).check == "DowngradeError"
    assert refusal(put, older, on=newer, downgrades=True).check == "VibSignatureError"
    both = put(older, on=newer, no_sig_check=True, downgrades=True)
    assert [(one.option, one.rule) for one in both.waivers] == [
        ("no-sig-check", "VibSignatureError"),
        ("allow-downgrades", "DowngradeError"),
    ]
    assert both.warnings == (both.waivers[0].text,)


def test_installing_what_is_there_changes_nothing(put, make):
    first = put(make())
    again = put(make(), on=first.bank)
    assert (again.installed, again.skipped, again.bank) == ((), (make().vib_id,), first.bank)


def test_a_newer_version_replaces_the_older(put, make):
    result = put(make(version="1.0-2"), on=put(make()).bank)
    assert result.removed == ("Example_bootbank_tool_1.0-1",)
    assert [d.version for d in result.bank.descriptors if d.name == "tool"] == ["1.0-2"]
    assert result.bank.files["tool.v00"] == make(version="1.0-2").payloads[0].data


def test_an_older_version_is_refused_and_force_takes_it(put, make):
    newer = put(make(version="2.0-1")).bank
    assert refusal(put, make(version="1.9-9"), on=newer).check == "DowngradeError"
    assert put(make(version="1.9-9"), on=newer, force=True).installed


def test_an_unmet_dependency_is_refused(put, make):
    needs = (Relation(name="library", operator=">=", version="2.0"),)
    tool = make(depends=needs)
    assert "requires library >= 2.0" in str(refusal(put, tool))
    assert refusal(put, [tool, make("library", version="1.9-1")]).check == "DependencyError"
    assert len(put([tool, make("library", version="2.0-1")]).installed) == 2


def test_a_provided_feature_meets_a_dependency(put, make):
    tool = make(depends=(Relation(name="feature"),))
    assert put([tool, make("other", provides=(Relation(name="feature"),))]).installed


def test_two_versions_of_one_library_do_not_mix(put, make):
    """The tool needs version 2 of a library, something installed needs version 1: nothing is installed."""
    old = Relation(name="library", operator="=", version="1.0")
    start = put([make("library"), make("keeper", depends=(old,))]).bank
    tool = make(depends=(Relation(name="library", operator=">=", version="2.0"),))
    error = refusal(put, [tool, make("library", version="2.0-1")], on=start)
    assert "keeper" in str(error)


def test_a_conflict_is_refused(put, make):
    rival = make("rival", conflicts=(Relation(name="tool", operator="<<", version="2.0"),))
    assert "conflicts" in str(refusal(put, rival, on=put(make()).bank))
    assert put(rival, on=put(make(version="2.0-1")).bank).installed


def test_a_replaced_vib_goes(put, make):
    result = put(make("successor", replaces=(Relation(name="tool"),)), on=put(make()).bank)
    assert result.removed == ("Example_bootbank_tool_1.0-1",)
    assert "tool.v00" not in result.bank.files


def test_a_file_has_one_owner_unless_an_overlay_says_so(put, make):
    start = put(make(path="opt/shared")).bank
    error = refusal(put, make("other", path="opt/shared"), on=start)
    assert error.check == "ProfileValidationError"
    assert "opt/shared" in str(error)
    assert put(make("other", path="opt/shared", overlay=True), on=start).installed


def test_a_file_that_the_descriptor_does_not_list_is_refused(put, make):
    error = refusal(put, make(files=("opt/other",)))
    assert (error.check, "opt/tool/run" in str(error)) == ("VibFormatError", True)


def test_two_vibs_of_one_name_in_one_call_are_refused(put, make):
    assert "More than one VIB" in str(refusal(put, [make(), make(version="1.1-1")]))


def test_removing_takes_files_and_modules_away(put, make, bank):
    result = remove(put(make()).bank, "tool")
    assert result.removed == ("Example_bootbank_tool_1.0-1",)
    assert set(result.bank.files) == set(bank.files)
    assert result.bank.config.modules == bank.config.modules


def test_removing_what_others_need_or_nobody_knows_is_refused(bank):
    assert "requires esx-base" in str(refusal(remove, bank, "esx-base"))
    assert refusal(remove, bank, "absent").check == "NoMatchError"
    assert remove(bank, "esx-base", force=True).warnings


def test_the_host_level_rises_only_as_far_as_every_vib_allows(bank, put, make):
    lowered = set_acceptance(bank, COMMUNITY)
    assert lowered.database.level is COMMUNITY
    assert set_acceptance(lowered, PARTNER).database.level is PARTNER
    error = refusal(set_acceptance, bank, CERTIFIED)
    assert error.check == "AcceptanceConfigError"
    home = put(make(level=COMMUNITY), COMMUNITY, on=lowered).bank
    assert "is community" in str(refusal(set_acceptance, home, PARTNER))


def test_an_edited_record_is_not_taken_for_an_installed_vib(put, make, bank):
    vib = make()
    start = put(vib).bank
    records = start.database.records
    edited = attrs.evolve(
        records[-1], descriptor_xml=records[-1].descriptor_xml.replace(b"<overlay>", b"<x/><overlay>")
    )
    database = attrs.evolve(start.database, records=(*records[:-1], edited))
    repaired = put(vib, on=start.with_files({"imgdb.tgz": write_database(database)}))
    assert repaired.installed == (vib.vib_id,)
    assert repaired.bank.database.records[-1].descriptor_xml == vib.descriptor_xml


def test_a_version_that_was_removed_does_not_come_back_older(put, make):
    gone = remove(put(make(version="2.0-1")).bank, "tool").bank
    assert gone.database.gone == (("tool", "2.0-1"),)
    error = refusal(put, make(), on=gone)
    assert (error.check, "older than tool 2.0-1" in str(error)) == ("DowngradeError", True)
    again = put(make(version="2.0-1"), on=gone).bank
    assert again.database.gone == ()
    back = put(make(), on=gone, downgrades=True)
    assert [(one.option, one.rule) for one in back.waivers] == [("allow-downgrades", "DowngradeError")]
    assert back.bank.database.gone == ()


def test_what_was_removed_before_is_remembered_beside_what_goes_now(put, make):
    bank = put([make(version="2.0-1"), make("other", version="3.0-1")]).bank
    for name in ("tool", "other"):
        bank = remove(bank, name).bank
    assert bank.database.gone == (("other", "3.0-1"), ("tool", "2.0-1"))
    assert refusal(put, make("other"), on=bank).check == "DowngradeError"


def test_a_successor_of_another_name_is_not_older_than_what_it_replaces(put, make):
    old = put(make(version="9.0-1")).bank
    relation = (Relation(name="tool"),)
    assert refusal(put, make("next", version="8.9-9", replaces=relation), on=old).check == "DowngradeError"
    result = put(make("next", version="9.0-1", replaces=relation), on=old)
    assert result.removed == ("Example_bootbank_tool_9.0-1",)
    assert result.bank.database.gone == (("tool", "9.0-1"),)
    assert refusal(put, make(version="8.9-9"), on=result.bank).check == "DowngradeError"
    without = remove(old, "tool").bank
    assert (
        refusal(put, make("next", version="8.9-9", replaces=relation), on=without).check == "DowngradeError"
    )


@pytest.mark.parametrize("name", ["esx-base", "successor"])
def test_nobody_takes_the_place_of_another_vendors_vib(put, make, bank, name):
    """A partner's key signs a newer version of the base, or a VIB that replaces it and provides its name."""
    old = bank.database.record("esx-base").descriptor
    names = {
        "replaces": (Relation(name="esx-base"),),
        "provides": (Relation(name="esx-base", operator="=", version="99.0-1"),),
    }
    for vendor in ("Evil", old.vendor):
        vib = make(name, version="99.0-1", vendor=vendor, **names)
        error = refusal(put, vib)
        assert (error.check, "cannot take the place of VMware_bootbank_esx-base" in str(error)) == (
            "VendorChangeError",
            True,
        )
        for option in ("no_sig_check", "downgrades"):
            assert refusal(put, vib, **{option: True}).check == "VendorChangeError"
        result = put(vib, vendor_changes=True)
        assert result.removed == (old.vib_id,)
        assert {one.option for one in result.waivers} == {"allow-vendor-change"}
        assert result.warnings == ()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"vendor": "Other"}, "it is of vendor Other, not Example"),
        ({"level": PARTNER}, "it is PartnerSupported, not VMwareAccepted"),
        ({"provider": "Somebody"}, "it is signed by Somebody, not by"),
    ],
)
def test_vendor_level_and_provider_each_bind_a_successor(put, make, fields, words):
    start = put(make(level=ACCEPTED)).bank
    assert put(make(level=ACCEPTED, version="2.0-1"), on=start).removed
    assert put(make(level=CERTIFIED, version="2.0-1", provider=make.provider), on=start).removed
    error = refusal(put, make(**{"level": ACCEPTED, "version": "2.0-1", **fields}), on=start)
    assert (error.check, words in str(error)) == ("VendorChangeError", True), str(error)


def test_a_vib_whose_signature_was_lost_may_be_replaced_by_its_vendor(put, make):
    forged = put(make(sign=False), force=True).bank
    assert put(make(version="1.0-2"), on=forged).removed
    assert refusal(put, make(version="1.0-2", vendor="Other"), on=forged).check == "VendorChangeError"
