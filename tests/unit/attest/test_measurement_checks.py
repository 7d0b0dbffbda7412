"""Each check of ESXi's measurements alone: what passes, and the name, words and evidence of each refusal."""

import attrs
import pytest

from sim.attest import esx_events, software
from sim.attest.verdict import AttestationError, Component
from sim.errors import FormatError
from sim.image.manifest import ReferenceComponent, ReferenceManifest
from sim.tpm.eventlog import EV
from sim.tpm.hashing import hash_bytes
from sim.tpm.tagged import EsxTag, encode_tagged

from .alone import ONE, SHA1, SHA256, component, event, measurement, refused

# ------------------------------------------------------------ ESXi's measurements


PLACES = [
    (EsxTag.MOD, b"esxupdt.v00", 11, 19), (EsxTag.MOD, b"b.b00", 12, 17), (EsxTag.MOD, b"b.b00", 12, 19),
    (EsxTag.MOD, b"k", 12, 19), (EsxTag.MOD, b"s.v00", 12, 19), (EsxTag.MOD, b"sb.v00", 12, 19),
    (EsxTag.MOD, b"net.v00", 13, 20), (EsxTag.MOD, b"bb.v00", 13, 20), (EsxTag.VERSION, b"8.0", 13, 20),
    (EsxTag.BOOT_OPT, b"jumpstrt.gz", 14, 21), (EsxTag.CMD_OPT, b"b.b00", 14, 21),
    (EsxTag.SIGNER, b"certificate", 14, 21), (EsxTag.TAG, b"rack", 14, 22),
]  # fmt: skip


@pytest.mark.parametrize(("tag", "body", "loader", "launched"), PLACES)
def test_each_kind_of_measurement_has_its_pcr(tag, body, loader, launched):
    esx_events.check_place(measurement(tag, loader, body), launched=False)
    esx_events.check_place(measurement(tag, launched, body), launched=True)
    wrong = measurement(tag, 18, body)
    for after, pcr in ((False, loader), (True, 19 if tag is EsxTag.MOD and launched == 17 else launched)):
        words = f"{body.decode()} was measured into PCR 18 instead of {pcr}"
        assert refused(esx_events.check_place, wrong, launched=after) == (
            "measurement_place", words, body.decode(), "",
        )  # fmt: skip


@pytest.mark.parametrize("tag", [EsxTag.CMD_OPT, EsxTag.TAG, EsxTag.SIGNER, EsxTag.VERSION])
def test_text_that_was_not_measured_is_refused_in_any_bank(tag):
    good = {SHA1: hash_bytes(SHA1, b"text"), SHA256: hash_bytes(SHA256, b"text"), 0x12: b"not replayed"}
    text = esx_events.Measurement(tag=tag, pcr=14, body=b"text", digests=good)
    esx_events.check_tag_text(text)
    wrong = attrs.evolve(text, digests={**good, SHA1: bytes(20)})
    assert refused(esx_events.check_tag_text, wrong) == (
        "event_data", f"the text of the {tag.name} event in PCR 14 is not what was measured", None,
        f"sha1 digest {bytes(20).hex()}",
    )  # fmt: skip


def test_tagged_events_are_refused_by_pcr_and_reason():
    def read(tag, body, pcr=12):
        return esx_events.read_measurement(event(pcr, EV.EVENT_TAG, encode_tagged(tag, body)))

    assert read(EsxTag.MOD, b"n" * 255 + b"\0").body == b"n" * 255
    assert read(EsxTag.BOOT_OPT, b"a\0").title == "a"
    assert read(EsxTag.CMD_OPT, b"\xff" + b"x" * 100).title == "\\xff" + "x" * 59
    assert len(read(EsxTag.SIGNER, bytes(16 * 1024 - 8)).body) == 16 * 1024 - 8
    name = "a module's name must be text with one NUL at its end"
    for tag, body, words in (
        (EsxTag.MOD, b"n" * 256 + b"\0", name),
        (EsxTag.MOD, b"n", name),
        (EsxTag.BOOT_OPT, b"\0", name),
        (EsxTag.BOOT_OPT, b"a\0b\0", name),
        (5, b"", "tag 5 is not one of ESXi's"),
        (EsxTag.SIGNER, bytes(16 * 1024 - 7), "a tagged event of 16385 bytes"),
    ):
        with pytest.raises(FormatError) as caught:
            read(tag, body)
        assert str(caught.value) == f"ESXi event: PCR 12: {words}"


def test_only_tagged_events_of_esxis_pcrs_are_measurements():
    events = [event(pcr, EV.EVENT_TAG, encode_tagged(EsxTag.CMD_OPT, b"")) for pcr in range(24)]
    read = esx_events.read_measurements([*events, event(12, 0x401)])
    assert [one.pcr for one in read] == [*range(11, 15), *range(17, 23)]


# ------------------------------------------------------------ software


MANIFEST = ReferenceManifest(components=(component(), component("alone.v00", b"\x02" * 32, "")))


def test_a_component_is_what_its_digest_says():
    found = software.check_component(measurement(), SHA256, MANIFEST)
    assert (found.name, found.pcr, found.digest) == ("net.v00", 13, ONE)
    assert (found.vib_name, found.vib_version, found.vib_vendor, found.level) == (
        "esx-base", "8.0-1", "VMware", "certified",
    )  # fmt: skip
    assert software.check_component(measurement(body=b"net"), SHA256, MANIFEST) == found


@pytest.mark.parametrize(
    ("body", "digest", "name", "words"),
    [
        (b"scsi.v00", ONE, "component_name", "component scsi.v00 is in truth net.v00"),
        (b"net.v00", bytes(32), "component_digest",
         "component net.v00 of esx-base is not as its vendor published it"),
        (b"alone", bytes(32), "component_digest", "component alone.v00 is not as its vendor published it"),
        (b"evil.v00", bytes(32), "component_unknown", "component evil.v00 is not known to any vendor"),
    ],
)  # fmt: skip
def test_a_component_that_is_not_published_is_told_by_how_it_differs(body, digest, name, words):
    got = refused(software.check_component, measurement(body=body, digest=digest), SHA256, MANIFEST)
    assert got == (name, words, words.split()[1], f"PCR 13, digest {digest.hex()}")


def loaded(*names, pcr=13):
    return [Component(name=name, pcr=pcr, digest=ONE) for name in names]


def test_a_component_is_measured_once():
    software.check_once(loaded("a.v00", "b.v00"))
    assert refused(software.check_once, loaded("a.v00", "b.v00", "a.v00")) == (
        "component_twice", "component a.v00 was measured twice", "a.v00", "",
    )  # fmt: skip


def test_components_of_a_pcr_are_loaded_in_the_order_of_one_bank():
    orders = [("b", "k", "o.gz", "x", "y"), ("b", "k", "o.gz", "y", "x", "z")]
    software.check_load_order(loaded("b", "k", "x", "y"), orders)
    software.check_load_order(loaded("b", "k", "y", "x"), orders)
    software.check_load_order(loaded("x", "o.gz", "y"), orders)
    software.check_load_order([*loaded("k"), *loaded("b", pcr=12)], orders)
    software.check_load_order(loaded("y", "unknown", "x", "z"), orders)
    software.check_load_order(loaded("y", "x"), [])
    software.check_load_order([], orders)
    for names, which in ((("k", "b"), "b"), (("x", "y", "z"), "y"), (("y", "z", "x"), "x")):
        assert refused(software.check_load_order, loaded(*names), orders) == (
            "component_order", f"component {which} was not loaded at its place in the published order", which, "PCR 13",
        )  # fmt: skip


def file_of(vib, version, content, name="net.v00"):
    return ReferenceComponent(name=name, digests=(content,), vib_name=vib, vib_version=version)


def test_what_was_booted_is_of_one_release():
    releases = (
        (("base", "1"), ("net", "1"), ("imgdb.tgz", b"d1".hex())),
        (("base", "2"), ("net", "2"), ("imgdb.tgz", b"d2".hex())),
        (("base", "2"), ("imgdb.tgz", b"d3".hex())),
    )
    published = ReferenceManifest(
        components=(
            file_of("base", "1", b"same", "base.v00"), file_of("base", "2", b"same", "base.v00"),
            file_of("base", "2", b"b2", "base.v01"), file_of("net", "1", b"n1"), file_of("net", "2", b"n2"),
            *(file_of("", "", each, "imgdb.tgz") for each in (b"d1", b"d2", b"d3")),
            file_of("", "", b"state", "state.tgz"), file_of("alone", "7", b"a7", "alone.v00"),
        ),
        releases=releases,
    )  # fmt: skip

    def judge(*contents, manifest=published):
        found = []
        for content in contents:
            known = published.with_digest(content)[0]
            found.append(
                Component(name=known.name, pcr=13, digest=content, vib_name=known.vib_name, vib_version=known.vib_version)
            )  # fmt: skip
        return software.check_release(found, manifest)

    for good in (
        (b"same", b"n1", b"d1"),
        (b"same", b"b2", b"n2", b"d2"),
        (b"b2", b"d3", b"state", b"a7"),
        (),
    ):
        judge(*good)
    for mixed, name, words in (
        ((b"b2", b"n1", b"d2"), "net.v00", "is of net 1, published beside the others is 2"),
        ((b"same", b"b2", b"d1"), "base.v01", "is of base 2, published beside the others is 1"),
        ((b"b2", b"n2", b"d3"), "net.v00", "is of net 2, published beside the others is none"),
        ((b"same", b"n1", b"d2"), "net.v00", "is of net 1, published beside the others is 2"),
        ((b"d1", b"d2"), "imgdb.tgz", "is of another release than the others"),
    ):
        with pytest.raises(AttestationError) as caught:
            judge(*mixed)
        assert (caught.value.check, caught.value.component) == ("release_mix", name)
        assert caught.value.message == f"component {name} {words}"
        judge(*mixed, manifest=attrs.evolve(published, releases=()))


def test_the_kernel_is_the_first_file_of_a_published_bank():
    software.check_kernel("b.b00 x=1", [("k.b00",), ("b.b00", "k.b00")])
    software.check_kernel("any", [])
    assert refused(software.check_kernel, "k.b00 x=1", [(), ("b.b00", "k.b00")]) == (
        "kernel_name", "'k.b00' was booted as the kernel, which no published bank does", "command line", "k.b00 x=1",
    )  # fmt: skip


@pytest.mark.parametrize("name", [b"b.b00", b"k.b00"])
def test_a_version_record_stands_before_its_module(name):
    record, module = measurement(EsxTag.VERSION, body=b"8.0" + name + b"\0"), measurement(body=name)
    software.check_versions([measurement(), record, module])
    for wrong in (
        [record], [record, measurement()], [module, record], [record, measurement(EsxTag.CMD_OPT, body=name)],
        [measurement(EsxTag.VERSION, body=b"8.0" + name), module],
        [measurement(EsxTag.VERSION, body=b"8.0net.v00\0"), measurement()],
    ):  # fmt: skip
        check, words, about, _ = refused(software.check_versions, wrong)
        assert (check, words) == ("version_record", "a version record was measured that belongs to no module")
        assert about.startswith("8.0")


def test_an_asset_tag_is_one_and_allowed():
    tag = measurement(EsxTag.TAG, body=b"rack 7")
    software.check_asset_tags([tag], (b"rack 7",))
    software.check_asset_tags([], ())
    assert refused(software.check_asset_tags, [tag], ())[:2] == (
        "asset_tag", "the asset tag 'rack 7' is not an allowed one",
    )  # fmt: skip
    assert refused(software.check_asset_tags, [tag, tag], None)[:2] == (
        "asset_tag", "2 asset tags were measured where one may be",
    )  # fmt: skip


def test_a_missing_component_and_an_unknown_signer_are_named():
    software.check_present("net.v00", [measurement(body=b"net")], MANIFEST)
    for name, words in (
        ("net.v00", "component net.v00 of esx-base was not booted"),
        ("alone.v00", "component alone.v00 was not booted"),
        ("else", "component else was not booted"),
    ):
        assert refused(software.check_present, name, [measurement(body=b"nets")], MANIFEST) == (
            "component_missing", words, name, "",
        )  # fmt: skip
    signer = measurement(EsxTag.SIGNER, body=b"certificate")
    software.check_signer(signer, attrs.evolve(MANIFEST, signers=(b"certificate",)))
    assert refused(software.check_signer, signer, MANIFEST) == (
        "signer", "something was booted that an unknown signer signed", "signer", "certificate of 11 bytes",
    )  # fmt: skip


def test_a_command_line_is_one_line_of_printable_ascii():
    def line(body):
        return measurement(EsxTag.CMD_OPT, body=body)

    assert software.read_command_line([measurement(), line(b"b.b00 a=1")]) == "b.b00 a=1"
    for count in (0, 2):
        assert refused(software.read_command_line, [line(b"b.b00")] * count)[:2] == (
            "command_line", f"{count} command lines were measured where one must be",
        )  # fmt: skip
    for body, words in ((b"b\xff", "byte 1: not ASCII"), (b"\x7f", "characters that cannot be printed")):
        with pytest.raises(FormatError) as caught:
            software.read_command_line([line(body)])
        assert str(caught.value) == f"command line: {words}"


def test_a_command_line_and_its_options_are_held_to_the_policy():
    text = "b.b00 one=1  two three=a=b " + "x" * 90
    software.check_command_line(text, None)
    software.check_command_line(text, (text,))
    assert refused(software.check_command_line, text, ()) == (
        "command_line", f"the command line {text[:80]!r} is not a known one", "command line", text,
    )  # fmt: skip
    names = ("one", "two", "three", "x" * 90)
    software.check_boot_options(text, names, (("one", "1"), ("two", ""), ("three", "a=b")))
    software.check_boot_options(text, None, ())
    for allowed, required, words in (
        (names[:3], (), f"{'x' * 60} is not allowed"),
        (None, (("two", "2"),), "two=2 is missing"),
        (None, (("b.b00", ""),), "b.b00= is missing"),
        (names, (("four", "4"),), "four=4 is missing"),
    ):
        assert refused(software.check_boot_options, text, allowed, required) == (
            "boot_option", f"the boot option {words}", "command line", text,
        )  # fmt: skip
