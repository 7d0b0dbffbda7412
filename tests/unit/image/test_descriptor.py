from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import FormatError, LimitError
from sim.image import descriptor
from sim.image.acceptance import AcceptanceLevel
from sim.image.descriptor import parse_descriptor
from sim.image.descriptor_writer import write_descriptor
from sim.image.metadata import OPERATORS, Checksum, Descriptor, PayloadEntry, Platform, Relation

SHA256 = Checksum(algorithm="sha-256", digest=bytes(range(32)))
FULL = Descriptor(
    name="net-example",
    version="1.2.3-4vmw.802",
    vendor="Example",
    level=AcceptanceLevel.PARTNER_SUPPORTED,
    summary="an <example> & more",
    description='with "quotes"',
    release_date=datetime(2023, 5, 6, 7, 8, 9, tzinfo=timezone(timedelta(hours=2))),
    urls=(("kb", "https://example.com/?a=1&b=2"),),
    depends=(Relation(name="esx-base", operator=">=", version="8.0.2"), Relation(name="vmkapi_2_9_0_0")),
    conflicts=(Relation(name="old", operator="<<", version="1.0-1"),),
    replaces=(Relation(name="older"),),
    provides=(Relation(name="feature", operator="=", version="3"),),
    compatible_with=(Relation(name="esx-version", operator=">>", version="7.0"),),
    software_tags=("driver", "module"),
    maintenance_mode=True,
    platforms=(Platform(product_line="embeddedEsx", version="8.*"),),
    files=("etc/example.conf", "usr/lib/vmware/vmkmod/example"),
    live_install_allowed=True,
    live_remove_allowed=True,
    cimom_restart=True,
    stateless_ready=False,
    overlay=True,
    payloads=(
        PayloadEntry(name="example", kind="boot", size=12, checksums=(SHA256,)),
        PayloadEntry(
            name="k",
            kind="boot",
            size=0,
            checksums=(
                SHA256,
                Checksum(algorithm="sha-256", digest=bytes(32), process="gunzip"),
                Checksum(algorithm="sha-1", digest=bytes(20), process="gunzip"),
            ),
        ),
    ),
)
XML = write_descriptor(FULL).decode()


def edited(old, new, count=1):
    assert old in XML
    return XML.replace(old, new, count).encode()


def test_writing_and_reading_keep_every_field():
    assert parse_descriptor(XML.encode()) == FULL


def test_writing_a_parsed_descriptor_again_gives_the_same_bytes():
    assert write_descriptor(parse_descriptor(XML.encode())) == XML.encode()


def test_the_id_is_vendor_type_name_version():
    assert FULL.vib_id == "Example_bootbank_net-example_1.2.3-4vmw.802"
    assert FULL.payload("k").sha256 == SHA256.digest
    assert FULL.payload("absent") is None


def test_optional_fields_may_be_absent():
    short = (
        '<vib version="5.0"><type>bootbank</type><name>a</name><version>1-1</version><vendor>v</vendor>'
        "<release-date>2020-01-01T00:00:00Z</release-date><acceptance-level>community</acceptance-level></vib>"
    )
    read = parse_descriptor(short.encode())
    assert (read.payloads, read.files, read.stateless_ready) == ((), (), False)
    assert read.release_date == datetime(2020, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("tag", ["name", "version", "vendor", "release-date", "acceptance-level", "type"])
def test_each_needed_element_must_be_there_once(tag):
    start, end = XML.index(f"<{tag}>"), XML.index(f"</{tag}>") + len(tag) + 3
    with pytest.raises(FormatError, match=tag):
        parse_descriptor((XML[:start] + XML[end:]).encode())
    with pytest.raises(FormatError, match="2 times"):
        parse_descriptor((XML[:end] + XML[start:end] + XML[end:]).encode())


@pytest.mark.parametrize("tag", ["payloads", "file-list", "relationships", "system-requires", "overlay"])
def test_a_second_list_cannot_hide_beside_the_first(tag):
    with pytest.raises(FormatError, match="2 times"):
        parse_descriptor(edited("</vib>", f"<{tag}></{tag}></vib>"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('<vib version="5.0">', '<vib version="6.0">'),
        ("<type>bootbank<", "<type>locker<"),
        ("<name>net-example<", "<name>net example<"),
        ("<name>net-example<", f"<name>{'n' * 36}<"),
        ("<vendor>Example<", "<vendor>Ex/../ample<"),
        ("<version>1.2.3-4vmw.802<", "<version>1.2.3<"),
        ("<version>1.2.3-4vmw.802<", "<version>v1-2<"),
        (">partner<", ">Partner<"),
        ("T07:08:09+02:00", "T07:08:09"),
        ("2023-05-06T", "2023-13-06T"),
        ("+02:00", "+99:00"),
        ("<cimom-restart>true<", "<cimom-restart>yes<"),
        (">etc/example.conf<", ">../etc/passwd<"),
        (">etc/example.conf<", ">/etc/passwd<"),
        (">etc/example.conf<", ">usr/lib/vmware/vmkmod/example<"),
        ('relation="&gt;="', 'relation="~"'),
        (' version="8.0.2"', ""),
        ('version="8.0.2"', 'version="latest"'),
        ('constraint name="older"', 'constraint name=""'),
        ('payload name="example"', 'payload name="sig.pkcs7"'),
        ('payload name="example"', 'payload name="k"'),
        ('payload name="example"', 'payload name="a/b"'),
        ('type="boot"', 'type="exe"'),
        ('size="12"', 'size="-1"'),
        ('size="12"', 'size="0x12"'),
        ('size="12"', 'size="99999999999"'),
        ('checksum-type="sha-1"', 'checksum-type="md5"'),
        ('verify-process="gunzip"', 'verify-process="unzip"'),
        ("000102030405060708090a", "0001020304050607080g0a"),
        ("000102030405060708090a", "00"),
    ],
)
def test_a_word_that_is_not_understood_is_refused(old, new):
    with pytest.raises(FormatError):
        parse_descriptor(edited(old, new))


def test_a_payload_without_sha256_of_the_file_is_refused():
    only_sha1 = edited('checksum-type="sha-256">', 'checksum-type="sha-256" verify-process="gunzip">')
    with pytest.raises(FormatError, match="no sha-256"):
        parse_descriptor(only_sha1)


def test_two_checksums_of_one_kind_are_refused():
    with pytest.raises(FormatError, match="one kind"):
        parse_descriptor(
            edited('checksum-type="sha-256" verify-process="gunzip">', 'checksum-type="sha-256">')
        )


def test_unknown_elements_are_named_and_nothing_else_changes():
    changed = parse_descriptor(
        edited("<overlay>", "<future><deep/></future><overlay>").replace(b"<url ", b"<x/><url ")
    )
    assert changed.unknown == ("vib/urls/x", "vib/future")
    assert attrs.evolve(changed, unknown=()) == FULL


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("<vib ", '<vib install="evil" ', "vib/@install"),
        ("<payload ", '<payload execute="true" ', "vib/payloads/payload/@execute"),
        ("<checksum ", '<checksum salt="1" ', "vib/payloads/payload/checksum/@salt"),
        ("<constraint ", '<constraint strict="no" ', "vib/relationships/depends/constraint/@strict"),
        ("<softwarePlatform ", '<softwarePlatform name="x" ', "vib/system-requires/softwarePlatform/@name"),
        ("<url ", '<url name="x" ', "vib/urls/url/@name"),
        ("<overlay>", '<overlay mode="all">', "vib/overlay/@mode"),
        ("<file>", '<file mode="4755">', "vib/file-list/file/@mode"),
        ("<payloads>", '<payloads version="2">', "vib/payloads/@version"),
    ],
)
def test_unknown_attributes_are_named_like_elements(old, new, path):
    changed = parse_descriptor(edited(old, new))
    assert set(changed.unknown) == {path}
    assert attrs.evolve(changed, unknown=()) == FULL


def test_limits_have_names(monkeypatch):
    with pytest.raises(LimitError, match="80"):
        parse_descriptor(edited("an &lt;example&gt; &amp; more", "x" * 81))
    monkeypatch.setattr(descriptor, "PAYLOADS_MAX", 1)
    with pytest.raises(LimitError, match="payloads"):
        parse_descriptor(edited(">driver<", ">drivers<"))


versions = st.builds("{}.{}-{}vmw.{}".format, *[st.integers(0, 999)] * 4)
relations = st.builds(
    Relation,
    name=st.text("abcz09_.-", min_size=1, max_size=20),
    operator=st.sampled_from(OPERATORS),
    version=versions,
)
descriptors = st.builds(
    Descriptor,
    name=st.text("abcXYZ09_.-", min_size=1, max_size=35),
    version=versions,
    vendor=st.text("abcXYZ09_.-", min_size=1, max_size=35),
    level=st.sampled_from(AcceptanceLevel),
    summary=st.text("abc <>&\"'é", max_size=40).map(str.strip),
    depends=st.lists(relations, max_size=3).map(tuple),
    conflicts=st.lists(relations, max_size=3).map(tuple),
    files=st.lists(
        st.text("abc.", min_size=3, max_size=9).map("etc/f{}".format), unique=True, max_size=4
    ).map(tuple),
    overlay=st.booleans(),
)


@given(descriptors)
def test_every_descriptor_survives_its_xml(value):
    assert parse_descriptor(write_descriptor(value)) == value


@given(st.data())
def test_a_damaged_descriptor_is_read_or_refused_and_never_crashes(data):
    raw = bytearray(XML.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with suppress(FormatError):
        assert parse_descriptor(bytes(raw)).name


@pytest.mark.parametrize(("old", "new"), [('<vib version="5.0">', '<vib version="5.1">'), ("vib ", "vob ")])
def test_a_root_element_of_another_name_or_version_is_refused(old, new):
    changed = XML.replace(old, new, 1).replace("</vib>", f"</{new.strip('<').split()[0]}>")
    with pytest.raises(FormatError, match=r'root element is not <vib version="5\.0">'):
        parse_descriptor(changed.encode())
