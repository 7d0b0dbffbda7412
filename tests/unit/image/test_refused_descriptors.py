"""What the readers of descriptors and manifests say of what they refuse: element, and what stands there."""

import json
from datetime import UTC, datetime

import attrs
import pytest

from sim.errors import FormatError, LimitError
from sim.image.acceptance import AcceptanceLevel
from sim.image.descriptor import parse_descriptor
from sim.image.descriptor_writer import write_descriptor
from sim.image.manifest import ReferenceManifest
from sim.image.metadata import Checksum, Descriptor, PayloadEntry, Platform, Relation
from sim.image.versions import satisfies, version_key

PLAIN = Checksum(algorithm="sha-256", digest=bytes(32))
SPEC = Descriptor(
    name="net",
    version="1.0-1",
    vendor="Example",
    level=AcceptanceLevel.PARTNER_SUPPORTED,
    depends=(Relation(name="base", operator=">=", version="8.0"),),
    files=("etc/a", "etc/b"),
    payloads=(
        PayloadEntry(name="net", kind="boot", size=12, checksums=(PLAIN,)),
        PayloadEntry(name="k", kind="boot", size=0, checksums=(PLAIN,)),
    ),
)
XML = write_descriptor(SPEC).decode()
ZEROS = "00" * 32
HEAD = '<payload name="net" type="boot" size="12">'


def said(read, data, kind=FormatError):
    with pytest.raises(FormatError) as caught:
        read(data)
    assert type(caught.value) is kind
    return str(caught.value)


def edited(old, new):
    assert old in XML
    return XML.replace(old, new, 1).encode()


def without(tag):
    start, end = XML.index(f"<{tag}>"), XML.index(f"</{tag}>") + len(tag) + 3
    return (XML[:start] + XML[end:]).encode()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('<vib version="5.0">', '<vib version="4.0">', 'element vib: root element is not <vib version="5.0">'),
        ("<type>bootbank", "<type>locker", "element type: 'locker' is not bootbank"),
        ("<name>net<", "<name>a b<", "element name: 'a b' is not 1 to 35 of [0-9a-zA-Z_.-]"),
        ("<name>net<", f"<name>{'n' * 61}<", f"element name: {'n' * 60!r} is not 1 to 35 of [0-9a-zA-Z_.-]"),
        ("<vendor>Example<", "<vendor>/<", "element vendor: '/' is not 1 to 35 of [0-9a-zA-Z_.-]"),
        ("<version>1.0-1<", "<version>1.0<",
         "element version: '1.0' is not version-release, both beginning with a digit"),
        (">partner<", ">best<", "acceptance level"),
        ("<overlay>false<", "<overlay>no<", "element overlay: 'no' is not true or false"),
        ("<overlay>", "<overlay/><overlay/><overlay>", "element overlay: stands 3 times, once is allowed"),
        (">1970-01-01T00:00:00+00:00<", ">1970-01-01<",
         "element release-date: '1970-01-01' is not an ISO 8601 time with a zone"),
        (">1970-01-01T00:00:00+00:00<", ">1970-02-30T00:00:00Z<",
         "element release-date: '1970-02-30T00:00:00Z' is not a date"),
        (">etc/b<", ">/b<", "file 1 of the file list: path '/b' is absolute"),
        (">etc/b<", ">etc/a<", "file list: names a file twice"),
        ('name="base"', 'name="b/"', "constraint 0 of depends: 'b/' is not the name of a VIB or feature"),
        ('relation="&gt;="', 'relation="~"',
         "constraint 0 of depends: relation '~' is not one of << <= = >= >>"),
        ('relation="&gt;=" ', "", "constraint 0 of depends: relation and version do not stand together"),
        ('version="8.0"', 'version="new"', "constraint 0 of depends: 'new' is not a version"),
        ('payload name="net"', 'payload name="a/b"',
         "payload a/b: name is not 1 to 15 of [0-9a-zA-Z_.-], or is reserved"),
        ('payload name="net"', 'payload name="descriptor.xml"',
         "payload descriptor.xml: name is not 1 to 15 of [0-9a-zA-Z_.-], or is reserved"),
        ('payload name="net"', f'payload name="{"p" * 25}"',
         f"payload {'p' * 20}: name is not 1 to 15 of [0-9a-zA-Z_.-], or is reserved"),
        ('payload name="net"', 'payload name="k"', "element payloads: names a payload twice"),
        ('type="boot"', 'type="exe"',
         "payload net: type 'exe' is not one of vgz, tgz, boot, bootloader, upgrade, bootisobios, bootisoefi"),
        ('size="12"', 'size="012"', "payload net: size '012' is not a plain decimal number"),
        (f">{ZEROS}<", ">00<", "payload net: sha-256 checksum is not 32 bytes in hex"),
        (f">{ZEROS}<", f">{'G' * 64}<", "payload net: sha-256 checksum is not 32 bytes in hex"),
        ('checksum-type="sha-256"', 'checksum-type="sha-1"',
         "payload net: sha-1 checksum is not 20 bytes in hex"),
        ('checksum-type="sha-256"', 'checksum-type="md5"',
         "payload net: checksum type 'md5' is not sha-256 or sha-1"),
        ('checksum-type="sha-256"', 'checksum-type="sha-256" verify-process="x"',
         "payload net: verify-process 'x' is not gunzip"),
        ('checksum-type="sha-256"', 'checksum-type="sha-256" verify-process="gunzip"',
         "payload net: has no sha-256 checksum of the file"),
        (HEAD, f'{HEAD}<checksum checksum-type="sha-256">{ZEROS}</checksum>',
         "payload net: has two checksums of one kind"),
    ],
)  # fmt: skip
def test_a_descriptor_is_refused_by_element_and_what_stands_there(old, new, words):
    if words == "acceptance level":
        assert "best" in said(parse_descriptor, edited(old, new))
    else:
        assert said(parse_descriptor, edited(old, new)) == f"VIB descriptor: {words}"


@pytest.mark.parametrize("tag", ["type", "name", "version", "vendor", "release-date", "acceptance-level"])
def test_a_missing_element_is_named(tag):
    assert said(parse_descriptor, without(tag)) == f"VIB descriptor: element vib: has no {tag}"


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "n" * 35, "vendor": "v" * 35},
        {"version": "1" * 35 + "-" + "2" * 35},
        {"summary": "s" * 80},
        {"payloads": (attrs.evolve(SPEC.payloads[0], name="p" * 15, size=9_999_999_999),)},
        {"depends": (Relation(name="f" * 100), Relation(name="x", operator="=", version="1-2"))},
        {"release_date": datetime(2024, 2, 29, 1, 2, 3, 456000, tzinfo=UTC)},
        {"platforms": (Platform(product_line="esx", version="8", locale="en"), Platform(product_line="x"))},
        {"urls": (("kb", "https://example.com"), ("", "x"))},
        {"maintenance_mode": True, "overlay": True, "stateless_ready": False},
        {"live_install_allowed": True},
        {"live_remove_allowed": True},
        {"cimom_restart": True},
    ],
)
def test_values_at_their_very_bound_are_kept(changes):
    spec = attrs.evolve(SPEC, **changes)
    assert parse_descriptor(write_descriptor(spec)) == spec


def test_values_behind_their_bound_are_refused():
    for spec in (
        attrs.evolve(SPEC, version="1" * 36 + "-2"),
        attrs.evolve(SPEC, depends=(Relation(name="f" * 101),)),
        attrs.evolve(SPEC, payloads=(attrs.evolve(SPEC.payloads[0], name="p" * 16),)),
    ):
        with pytest.raises(FormatError):
            parse_descriptor(raw(spec))
    words = said(parse_descriptor, edited("<summary/>", f"<summary>{'s' * 81}</summary>"), LimitError)
    assert words == "VIB descriptor: element summary: longer than 80 characters"


def raw(spec):
    """The XML of a descriptor whose writer does not look at its values."""
    text = XML.replace("<version>1.0-1<", f"<version>{spec.version}<")
    text = text.replace('name="base"', f'name="{spec.depends[0].name}"')
    return text.replace('payload name="net"', f'payload name="{spec.payloads[0].name}"').encode()


def test_the_number_of_payloads_is_exact(monkeypatch):
    monkeypatch.setattr("sim.image.descriptor.PAYLOADS_MAX", 2)
    assert len(parse_descriptor(edited("<name>net<", "<name>two<")).payloads) == 2
    monkeypatch.setattr("sim.image.descriptor.PAYLOADS_MAX", 1)
    words = said(parse_descriptor, edited("<name>net<", "<name>one<"), LimitError)
    assert words == "VIB descriptor: element payloads: more than 1 payloads"


def test_unknown_elements_are_told_by_their_path_at_any_depth():
    text = XML.replace("<constraint", "<x/><constraint", 1).replace("<checksum", "<y/><checksum", 1)
    assert parse_descriptor(text.encode()).unknown == (
        "vib/relationships/depends/x",
        "vib/payloads/payload/y",
    )


# ------------------------------------------------------------ versions


@pytest.mark.parametrize(
    ("low", "high"),
    [("1.9-1", "1.10-1"), ("1.0-1", "1.0-2"), ("1.0-9", "1.1-1"), ("1.0a-1", "1.01-1"), ("1.0a-1", "1.0b-1"),
     ("1.0-1", "1.0.0-1"), ("8.0.2-0.0.9", "8.0.2-0.0.10")],
)  # fmt: skip
def test_versions_are_ordered_by_numbers_then_release(low, high):
    assert version_key(low) < version_key(high)
    assert not version_key(high) < version_key(low)


@pytest.mark.parametrize(
    ("operator", "bound", "holds"),
    [
        ("<<", "1.0-1", False), ("<<", "1.0-2", True), ("<=", "1.0-1", True), ("<=", "0.9-9", False),
        ("=", "1.0-1", True), ("=", "1.0", True), ("=", "1.0-2", False), (">=", "1.0", True),
        (">=", "1.0-2", False), (">>", "1.0-0", True), (">>", "1.0", False),
    ],
)  # fmt: skip
def test_a_relation_bounds_the_version_of_a_vib_or_of_what_it_provides(operator, bound, holds):
    by_name = Relation(name="net", operator=operator, version=bound)
    assert satisfies(SPEC, by_name) is holds
    provider = attrs.evolve(
        SPEC, name="other", provides=(Relation(name="net", operator="=", version="1.0-1"),)
    )
    assert satisfies(provider, by_name) is holds
    assert not satisfies(attrs.evolve(provider, provides=()), by_name)
    assert satisfies(provider, Relation(name="net"))
    assert str(by_name) == f"net {operator} {bound}"


# ------------------------------------------------------------ manifests


def manifest(**changes):
    component = {
        "name": "a",
        "digests": ["00"],
        "vib_name": "",
        "vib_version": "",
        "vib_vendor": "",
        "level": "",
    }
    plain = {"components": [component], "loaders": [{"name": "b", "digests": []}], "signers": ["ff"]}
    return json.dumps(plain | changes)


COMPONENT = "is not an object of name, vib_name, vib_version, vib_vendor, level, digests"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("?", "not acceptable as JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[]", "root: is not an object of components, loaders, signers, orders, releases, platforms"),
        ("{}", "root: is not an object of components, loaders, signers, orders, releases, platforms"),
        (manifest(components={}), "components: is not a list"),
        (manifest(loaders=1), "loaders: is not a list"),
        (manifest(signers=""), "signers: is not a list"),
        (manifest(signers=["0"]), "signers: holds something that is not hex"),
        (manifest(signers=[1]), "signers: holds something that is not hex"),
        (manifest(components=[1]), f"component 0: {COMPONENT}"),
        (manifest(components=[{"name": "a", "digests": []}]), f"component 0: {COMPONENT}"),
        (manifest(loaders=[{"name": "a", "digests": []}, []]),
         "loader 1: is not an object of name, digests"),
        (manifest(loaders=[{"name": 1, "digests": []}]), "loader 0: name is not a text"),
        (manifest(loaders=[{"name": "a", "digests": ""}]), "loader 0: is not a list"),
        (manifest(loaders=[{"name": "a", "digests": ["x"]}]), "loader 0: holds something that is not hex"),
        (manifest(orders=1), "orders: is not a list"),
        (manifest(orders=["a"]), "orders: is not a list"),
        (manifest(orders=[["a", 1]]), "orders: hold something that is not a name"),
        (manifest(releases=1), "releases: is not a list"),
        (manifest(releases=["a"]), "releases: is not a list"),
        (manifest(releases=[["a"]]), "releases: is not a list"),
        (manifest(releases=[[["a", 1]]]), "releases: hold something that is not a name"),
        (manifest(releases=[[["a"]]]), "releases: hold something that is not a name and a version"),
        (manifest(releases=[[["a", "1", "2"]]]), "releases: hold something that is not a name and a version"),
        (manifest(platforms={}), "platforms: is not a list"),
    ],
)  # fmt: skip
def test_a_manifest_is_refused_by_place_and_reason(text, words):
    assert said(ReferenceManifest.from_json, text) == f"reference manifest: {words}"


def test_a_manifest_is_read_field_by_field():
    read = ReferenceManifest.from_json(manifest())
    (component,) = read.components
    assert (component.name, component.digests, component.level) == ("a", (b"\0",), "")
    assert [(loader.name, loader.digests) for loader in read.loaders] == [("b", ())]
    assert read.signers == (b"\xff",)


def test_the_size_of_a_manifest_is_exact(monkeypatch):
    text = manifest()
    monkeypatch.setattr("sim.image.manifest.MANIFEST_BYTES_MAX", len(text))
    assert ReferenceManifest.from_json(text)
    words = said(ReferenceManifest.from_json, text + " ", LimitError)
    assert words == f"reference manifest: more than {len(text)} characters"


def test_a_manifest_has_one_spelling_in_json():
    plain = ReferenceManifest.from_json(manifest(components=[], loaders=[]))
    assert (
        plain.to_json()
        == '{\n "components": [],\n "loaders": [],\n "orders": [],\n "platforms": [],\n "releases": [],\n "signers": [\n  "ff"\n ]\n}\n'
    )


def test_the_sha256_of_a_payload_is_that_of_the_stored_file_wherever_it_stands():
    unpacked = Checksum(algorithm="sha-256", digest=b"\1" * 32, process="gunzip")
    other = Checksum(algorithm="sha-1", digest=b"\2" * 20)
    entry = PayloadEntry(name="a", kind="boot", size=1, checksums=(unpacked, other, PLAIN))
    assert entry.sha256 == PLAIN.digest
    assert (unpacked.label, unpacked.check) == ("sha-256 gunzip", "payload.sha-256.gunzip")
    assert (other.label, other.check) == ("sha-1", "payload.sha-1")


PLATFORM = {
    "model": "m",
    "code": [],
    **{key: [] for key in ("platform_keys", "exchange_keys", "allowed", "forbidden")},
}
CODE = {"name": "DXE", "pcr": 0, "digests": ["00"], "required": True}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"more": 1}, "is not an object of allowed, code, exchange_keys, forbidden, model, platform_keys"),
        ({"model": 1}, "is not a text"),
        ({"code": {}}, "is not a list"),
        ({"allowed": ["0"]}, "holds something that is not hex"),
        ({"forbidden": [0]}, "is not a text"),
        ({"code": [{}]}, "is not an object of digests, name, pcr, required"),
        ({"code": [CODE | {"pcr": 8}]}, "code needs a PCR from 0 to 7, and required true or false"),
        ({"code": [CODE | {"pcr": "0"}]}, "code needs a PCR from 0 to 7, and required true or false"),
        ({"code": [CODE | {"required": 1}]}, "code needs a PCR from 0 to 7, and required true or false"),
        ({"code": [CODE | {"digests": "00"}]}, "is not a list"),
    ],
)
def test_a_platform_is_refused_by_place_and_reason(changes, words):
    text = manifest(platforms=[PLATFORM | {"code": [CODE]}, PLATFORM | changes])
    assert said(ReferenceManifest.from_json, text) == f"reference platform: platform 1: {words}"
