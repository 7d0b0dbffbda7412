"""What the readers of XML, boot.cfg, VIBs and image databases say of what they refuse: place and reason, exactly."""

import attrs
import pytest

from sim.errors import FormatError, LimitError
from sim.image import bootcfg, boundedxml
from sim.image.acceptance import AcceptanceLevel
from sim.image.ar import read_ar, write_ar
from sim.image.bootcfg import BootConfig, format_boot_config, parse_boot_config
from sim.image.boundedxml import Node, escape, parse_xml
from sim.image.descriptor_writer import write_descriptor
from sim.image.imgdb import ImageDatabase, VibRecord, read_database, write_database
from sim.image.metadata import Descriptor
from sim.image.payload import describe_payload, gunzip, gzip_stored
from sim.image.tar import read_ustar, write_ustar
from sim.image.vib import Payload, Vib, VibError, build_vib, parse_vib, read_vib, verify_vib


def said(read, *data, kind=FormatError):
    with pytest.raises(FormatError) as caught:
        read(*data)
    assert type(caught.value) is kind
    return str(caught.value)


def put(data, at, new):
    return data[:at] + new + data[at + len(new) :]


# ------------------------------------------------------------ XML


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE a><a/>", "a document type or entity declaration is not allowed"),
        (b"<a>\n <b></a>", "line 2, column 6: not well-formed XML"),
        (b"", "line 1, column 0: not well-formed XML"),
        (b"<a><b/>text</a>", "element a: text between elements"),
        (b"<" + b"n" * 50 + b"><b/>x</" + b"n" * 50 + b">", f"element {'n' * 40}: text between elements"),
    ],
)
def test_xml_is_refused_by_place_and_reason(data, words):
    assert said(parse_xml, data, "thing") == f"thing: {words}"


def test_limits_of_xml_are_exact(monkeypatch):
    monkeypatch.setattr(boundedxml, "ELEMENTS_MAX", 2)
    monkeypatch.setattr(boundedxml, "DEPTH_MAX", 2)
    monkeypatch.setattr(boundedxml, "ATTRIBUTES_MAX", 1)
    monkeypatch.setattr(boundedxml, "XML_BYTES_MAX", 30)
    good = b"<a p='1'><b q='2'>t</b></a>   "
    assert parse_xml(good, "x") == Node("a", {"p": "1"}, "", [Node("b", {"q": "2"}, "t")])
    for data, words in (
        (good + b" ", "x: more than 30 bytes of XML"),
        (b"<a><b/><" + b"c" * 9 + b"/></a>", "x: element ccccccccc: more than 2 elements"),
        (b"<a><b p='1' q='2'/></a>", "x: element b: more than 1 attributes"),
    ):
        assert said(parse_xml, data, "x", kind=LimitError) == words
    monkeypatch.setattr(boundedxml, "DEPTH_MAX", 1)
    assert said(parse_xml, b"<a><b/></a>", "x", kind=LimitError) == "x: element b: nested deeper than 1"


def test_text_is_that_before_the_first_child_and_runs_are_joined():
    root = parse_xml(b"<a>one &amp; two<!-- three --> four<b/> </a>", "x")
    assert (root.text, root.named("b"), root.named("c")) == ("one & two four", [Node("b", {})], [])
    assert escape("<&>\"'") == "&lt;&amp;&gt;&quot;'"


# ------------------------------------------------------------ boot.cfg


def config(*lines):
    return "\n".join(("kernel=b.b00", *lines)).encode()


KEYS = "bootstate, title, timeout, prefix, kernel, kernelopt, modules, build, updated"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (config("titel=x"), f"line 2: 'titel=x' is not one of {KEYS} with a value"),
        (config("", "title" + "x" * 50), f"line 3: {'title' + 'x' * 35!r} is not one of {KEYS} with a value"),
        (config("kernel=c"), "line 2: kernel stands twice"),
        (config("title=\xe9"), "is not plain ASCII"),
        (config("title=a\tb"), "line 2: holds a control character"),
        (config("bootstate=01"), "bootstate: '01' is not a plain number"),
        (config("timeout=" + "9" * 30), f"timeout: {'9' * 20!r} is not a plain number"),
        (config("updated=x"), "updated: 'x' is not a plain number"),
        (b"", "kernel: '' is not a file name"),
        (b"kernel=.b00", "kernel: '.b00' is not a file name"),
        (b"kernel=" + b"k" * 65, f"kernel: {'k' * 40!r} is not a file name"),
        (config("modules=a --- b/c"), "modules: 'b/c' is not a file name"),
    ],
)
def test_a_boot_configuration_is_refused_by_line_or_key(data, words):
    assert said(parse_boot_config, data) == f"boot.cfg: {words}"


def test_a_boot_configuration_may_leave_out_all_but_its_kernel():
    assert parse_boot_config(b"kernel=" + b"k" * 64) == BootConfig(
        kernel="k" * 64, modules=(), title="", updated=0, bootstate=0, timeout=0
    )
    full = parse_boot_config(config("# x=1", " ", "title=a=b", "prefix=p", "build=8", "updated=999999999"))
    assert (full.title, full.prefix, full.build, full.updated) == ("a=b", "p", "8", 999_999_999)


def test_limits_of_a_boot_configuration_are_exact(monkeypatch):
    line = "title=" + "t" * 4090
    assert parse_boot_config(config(line)).title == "t" * 4090
    words = said(parse_boot_config, config(line + "t"), kind=LimitError)
    assert words == "boot.cfg: line 2: longer than 4096 characters"
    many = config("modules=" + " --- ".join(["m"] * 1024))
    assert len(parse_boot_config(many).modules) == 1024
    words = said(parse_boot_config, many + b" --- m", kind=LimitError)
    assert words == "boot.cfg: modules: more than 1024 modules"
    monkeypatch.setattr(bootcfg, "CONFIG_BYTES_MAX", len(many))
    assert parse_boot_config(many)
    words = said(parse_boot_config, many + b"\n", kind=LimitError)
    assert words == f"boot.cfg: more than {len(many)} bytes"


def test_a_value_that_is_more_than_a_line_is_refused_when_written():
    smuggled = BootConfig(kernel="k", modules=(), title="a\nprefix=b")
    assert said(format_boot_config, smuggled).startswith("boot.cfg: line ")
    words = said(format_boot_config, BootConfig(kernel="k", modules=(), title="\xe9"))
    assert words == "boot.cfg: a value does not fit on one line of plain ASCII"


# ------------------------------------------------------------ VIB and image database

PAYLOAD = Payload(name="net", kind="boot", data=b"driver")
SPEC = Descriptor(name="net", version="1-1", vendor="Example", level=AcceptanceLevel.COMMUNITY_SUPPORTED)


@pytest.fixture(scope="module")
def vib(epoch):
    return build_vib(SPEC, [PAYLOAD], None, epoch)


def test_a_vib_is_refused_by_member_and_reason(vib):
    descriptor, signature, payload = read_ar(vib)
    for members, words in (
        ([], "members: the first two are not descriptor.xml and sig.pkcs7"),
        ([descriptor], "members: the first two are not descriptor.xml and sig.pkcs7"),
        ([signature, descriptor, payload], "members: the first two are not descriptor.xml and sig.pkcs7"),
        ([descriptor, signature], "member 2: is None, the descriptor lists 'net'"),
        ([descriptor, signature, attrs.evolve(payload, name="x")],
         "member 2: is 'x', the descriptor lists 'net'"),
        ([descriptor, signature, payload, attrs.evolve(payload, name="x")],
         "member 3: 'x' is not in the descriptor"),
    ):  # fmt: skip
        assert said(parse_vib, write_ar(members)) == f"VIB archive: {words}"


def test_limits_of_a_vib_are_exact(vib, monkeypatch):
    descriptor, signature, payload = read_ar(vib)

    def signed(size):
        return write_ar([descriptor, attrs.evolve(signature, data=bytes(size)), payload])

    assert parse_vib(signed(1 << 16)).signature == bytes(1 << 16)
    words = said(parse_vib, signed((1 << 16) + 1), kind=LimitError)
    assert words == "VIB archive: sig.pkcs7: more than 65536 bytes"
    monkeypatch.setattr("sim.image.vib.VIB_CONTENT_BYTES_MAX", 6)
    assert read_vib(vib).payloads == (PAYLOAD,)
    monkeypatch.setattr("sim.image.vib.VIB_CONTENT_BYTES_MAX", 5)
    words = said(read_vib, vib, kind=LimitError)
    assert words == ("VIB archive: Example_bootbank_net_1-1: declares more than 5 bytes of content")


def test_what_a_vib_claims_without_a_signature_is_named(vib, world_pki, epoch):
    community = read_vib(vib)
    identity = verify_vib(community, world_pki.trust, epoch)
    assert (identity.vib_id, identity.provider) == ("Example_bootbank_net_1-1", None)
    claimed = attrs.evolve(
        SPEC, level=AcceptanceLevel.PARTNER_SUPPORTED, payloads=community.descriptor.payloads
    )
    forged = Vib(descriptor_xml=write_descriptor(claimed), signature=b"", payloads=(PAYLOAD,))
    with pytest.raises(VibError) as caught:
        verify_vib(forged, world_pki.trust, epoch)
    assert caught.value.check == "vib.signature-missing"
    assert caught.value.message == (
        "VIB Example_bootbank_net_1-1 claims PartnerSupported and has no signature"
    )
    with pytest.raises(VibError) as caught:
        verify_vib(attrs.evolve(community, payloads=()), world_pki.trust, epoch)
    assert caught.value.check == "vib.payloads"
    assert caught.value.message == (
        "VIB Example_bootbank_net_1-1 does not hold the payloads that its descriptor lists"
    )


def test_a_level_above_that_of_the_signature_is_refused_with_both(world_pki, epoch):
    claimed = attrs.evolve(SPEC, level=AcceptanceLevel.VMWARE_CERTIFIED)
    signer = world_pki.signer("partner")
    with pytest.raises(VibError) as caught:
        verify_vib(read_vib(build_vib(claimed, [PAYLOAD], signer, epoch)), world_pki.trust, epoch)
    assert caught.value.message == (
        f"VIB Example_bootbank_net_1-1 claims VMwareCertified, its signature by {signer.provider} "
        "gives PartnerSupported"
    )


def record(name, **changes):
    payloads = (describe_payload("a", "boot", b"x"),)
    spec = attrs.evolve(SPEC, name=name, payloads=payloads)
    fields = {"descriptor_xml": write_descriptor(spec), "signature": b"", "files": (f"{name}.v00",)}
    return VibRecord(**fields | changes)


DATABASE = ImageDatabase(
    name="profile", level=AcceptanceLevel.COMMUNITY_SUPPORTED, records=(record("one"), record("two"))
)
PROFILE = "var/db/esximg/profile.xml"


def repacked(change):
    entries = [change(entry) for entry in read_ustar(gunzip(write_database(DATABASE)))]
    return gzip_stored(write_ustar([entry for entry in entries if entry is not None]))


def edited(old, new):
    def change(entry):
        return attrs.evolve(entry, data=entry.data.replace(old, new)) if entry.path == PROFILE else entry

    assert repacked(change) != write_database(DATABASE)
    return repacked(change)


def without(name):
    return repacked(lambda entry: None if entry.path.endswith(name) else entry)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (without("profile.xml"), f"{PROFILE}: is missing"),
        (edited(b"profile", b"picture"), f"{PROFILE}: root element is not profile"),
        (without("0001.xml"), "VIB Example_bootbank_two_1-1: has no descriptor or no signature file"),
        (without("0000.p7s"), "VIB Example_bootbank_one_1-1: has no descriptor or no signature file"),
        (edited(b'id="Example_bootbank_two', b'id="' + b"E" * 90 + b"two"),
         f"VIB {'E' * 80}: its descriptor is that of Example_bootbank_two_1-1"),
        (edited(b"<file>two.v00</file>", b""),
         "VIB Example_bootbank_two_1-1: number of files and number of payloads differ"),
        (edited(b"two.v00", b"/" + b"x" * 50),
         f"VIB Example_bootbank_two_1-1: {'/' + 'x' * 39!r} is not a file name"),
        (edited(b"</profile>", b" </profile>"), "holds more than its profile says, or another spelling of it"),
    ],
)  # fmt: skip
def test_an_image_database_is_refused_by_file_or_vib(data, words):
    assert said(read_database, data) == f"image database: {words}"


def test_the_number_of_vibs_of_a_database_is_exact(monkeypatch):
    monkeypatch.setattr("sim.image.imgdb.VIBS_MAX", 2)
    data = write_database(attrs.evolve(DATABASE, name="two of two"))
    assert len(read_database(data).records) == 2
    monkeypatch.setattr("sim.image.imgdb.VIBS_MAX", 1)
    words = said(read_database, write_database(attrs.evolve(DATABASE, name="two of one")), kind=LimitError)
    assert words == f"image database: {PROFILE}: more than 1 VIBs"


def test_a_database_of_more_bytes_than_the_limit_packed_or_not_is_refused(monkeypatch):
    data = write_database(attrs.evolve(DATABASE, name="of many bytes"))
    monkeypatch.setattr("sim.image.imgdb.DATABASE_BYTES_MAX", len(data) - 1)
    assert said(read_database, data, kind=LimitError) == f"image database: more than {len(data) - 1} bytes"
    growing = data[:-4] + len(data).to_bytes(4, "little")
    assert said(read_database, growing, kind=LimitError) == f"image database: more than {len(data) - 1} bytes"
    monkeypatch.setattr("sim.image.imgdb.DATABASE_BYTES_MAX", len(data))
    assert read_database(data).name == "of many bytes"


def test_a_key_of_boot_cfg_without_an_equals_sign_is_refused():
    words = said(parse_boot_config, b"kernel=k\ntitle\n")
    assert words.startswith("boot.cfg: line 2: 'title' is not one of bootstate, ")
