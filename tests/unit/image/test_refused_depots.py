"""What the readers of depots and image profiles say of what they refuse, exactly, and where their limits are."""

import io
import zipfile
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from sim.errors import FormatError, LimitError
from sim.image import profile as profile_module
from sim.image.acceptance import AcceptanceLevel
from sim.image.boundedzip import read_zip, write_zip
from sim.image.bundle import (
    Depot,
    DepotError,
    DepotPolicy,
    check_depot,
    depot_of,
    read_bundle,
    read_declared,
    write_bundle,
)
from sim.image.install import InstallError
from sim.image.metadata import Descriptor
from sim.image.pathrules import PathRules
from sim.image.payload import gzip_stored
from sim.image.profile import ImageProfile, apply_profile, parse_profile, write_profile
from sim.image.tar import TarEntry, with_parents
from sim.image.vib import Payload, build_vib, read_vib
from sim.image.vtar import write_vtar

PARTNER = AcceptanceLevel.PARTNER_SUPPORTED
TOOL = "Example_bootbank_tool_1.0-1"
VIB = f"vib20/tool/{TOOL}.vib"
COPY = f"vibs/{TOOL}.xml"
PROFILE = ImageProfile(name="standard", vendor="Example", level=PARTNER, vib_ids=(TOOL,))
XML = write_profile(PROFILE)


@pytest.fixture(scope="module")
def make(world_pki, epoch):
    """A function that makes a VIB of one file."""

    def build(version="1.0-1", path="opt/tool/run", vendor="Example", **fields):
        spec = Descriptor(
            name="tool", version=version, vendor=vendor, level=PARTNER, **{"files": (path,), **fields}
        )
        packed = gzip_stored(write_vtar(with_parents([TarEntry(path=path, data=b"tool")])))
        payload = Payload(name="tool", kind="vgz", data=packed)
        return read_vib(build_vib(spec, [payload], world_pki.signer(PARTNER.xml_name), epoch))

    return build


@pytest.fixture(scope="module")
def depot(make, epoch):
    return depot_of([make()], vendor="Example", made_at=epoch, profiles=[PROFILE])


@pytest.fixture(scope="module")
def parts(depot):
    """The files of a bundle and those of its metadata."""
    files = read_zip(write_bundle(depot))
    return files, read_zip(files["metadata.zip"])


def bundle(parts, files=(), metadata=()):
    """Return a bundle with these files in place of its own; None takes one away."""
    inner = {**parts[1], **dict(metadata)}
    packed = write_zip({name: data for name, data in inner.items() if data is not None})
    outer = {**parts[0], "metadata.zip": packed, **dict(files)}
    return write_zip({name: data for name, data in outer.items() if data is not None})


def said(kind, call, *arguments, **options):
    with pytest.raises((FormatError, DepotError)) as caught:
        call(*arguments, **options)
    assert type(caught.value) is kind, str(caught.value)
    return str(caught.value)


# -- bundles


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("index.xml", "</vendor>", "", "index.xml: line 1, column 97: not well-formed XML"),
        ("index.xml", "vendor>", "other>", "index.xml: vendor: stands 0 times, expected once"),
        ("index.xml", "</vendor>", "</vendor><vendor/>", "index.xml: vendor: stands 2 times, expected once"),
        ("index.xml", "indexfile>", "x>", "index.xml: indexfile: stands 0 times, expected once"),
        ("index.xml", "name>", "x>", "index.xml: name: stands 0 times, expected once"),
        ("index.xml", "code>", "x>", "index.xml: code: stands 0 times, expected once"),
        ("index.xml", "vendor-index", "v" * 70, f"offline bundle: {'v' * 60}: is missing"),
        ("vendor-index.xml", "</metaList>", "", "vendor-index.xml: line 1, column 54: not well-formed XML"),
        ("vendor-index.xml", "metadata>", "x>", "vendor-index.xml: metadata: stands 0 times, expected once"),
        ("vendor-index.xml", "url>", "x>", "vendor-index.xml: url: stands 0 times, expected once"),
    ],
)
def test_an_index_is_refused_by_file_and_element(parts, name, old, new, words):
    changed = parts[0][name].replace(old.encode(), new.encode())
    assert changed != parts[0][name]
    assert said(FormatError, read_bundle, bundle(parts, {name: changed})) == words


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("</metadataResponse>", "", "vmware.xml: line 1, column 88: not well-formed XML"),
        ("timestamp>", "x>", "vmware.xml: timestamp: stands 0 times, expected once"),
        ("+00:00", "", "vmware.xml: timestamp: has no time zone"),
        ("2024-03-01T", "x" * 50, f"vmware.xml: timestamp: {'x' * 40!r} is not a time"),
    ],
)
def test_the_time_of_metadata_is_refused_by_element(parts, old, new, words):
    changed = parts[1]["vmware.xml"].replace(old.encode(), new.encode())
    assert changed != parts[1]["vmware.xml"]
    assert said(FormatError, read_bundle, bundle(parts, metadata={"vmware.xml": changed})) == words


def test_metadata_without_a_time_is_refused(parts):
    data = bundle(parts, metadata={"vmware.xml": None})
    assert said(FormatError, read_bundle, data) == "offline bundle: vmware.xml: is missing"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("</checksum></checksum></vib>", "", "not well-formed XML"),
        ("relative-path>", "x>", "relative-path: stands 0 times, expected once"),
        ("packed-size>", "x>", "packed-size: stands 0 times, expected once"),
    ],
)
def test_a_copy_of_a_descriptor_is_refused_by_its_own_name(parts, old, new, words):
    changed = parts[1][COPY].replace(old.encode(), new.encode())
    assert changed != parts[1][COPY]
    text = said(FormatError, read_bundle, bundle(parts, metadata={COPY: changed}))
    assert text.startswith(f"{COPY}: ")
    assert text.endswith(words)


def test_a_copy_without_its_checksum_is_refused(parts):
    head, _, _ = parts[1][COPY].rpartition(b"<checksum><checksum-type>")
    for rest, words in (
        (b"</vib>", "stands 0 times, expected once"),
        (
            b"<checksum><checksum-type>sha-256</checksum-type></checksum></vib>",
            "stands 0 times, expected once",
        ),
    ):
        data = bundle(parts, metadata={COPY: head + rest})
        assert said(FormatError, read_bundle, data) == f"{COPY}: checksum: {words}"


def test_refusals_of_a_depot_say_what_differs(parts):
    long = parts[1][COPY].replace(b"<packed-size>", b"<packed-size>" + b"1" * 30)
    size = len(parts[0][VIB])
    for files, metadata, words in (
        ({}, {COPY: long}, f"{VIB} has {size} bytes, the metadata declares {'1' * 20}"),
        ({VIB: parts[0][VIB][:-1] + b"x"}, {}, f"{VIB} has another SHA-256 than the metadata says"),
        ({"vib20/x": b""}, {}, "vib20/x is in the bundle and in no list"),
        ({}, {"vendor-index.xml": b""}, "vendor-index.xml differs from the one in metadata.zip"),
        (
            {},
            {COPY: parts[1][COPY].replace(b"1.0-1<", b"2.0-1<", 1)},
            f"{COPY} is not the descriptor of {VIB}",
        ),
    ):
        assert said(DepotError, read_bundle, bundle(parts, files, metadata)).endswith(words)


def test_bulletins_are_passed_over(parts, depot):
    assert read_bundle(bundle(parts, metadata={"bulletins/b.xml": b"x"})) == depot


def test_a_broken_bundle_and_broken_metadata_are_told_apart(parts):
    words = "is not one zip archive from its first byte to its last"
    assert said(FormatError, read_bundle, b"x") == f"offline bundle: {words}"
    assert said(FormatError, read_bundle, bundle(parts, {"metadata.zip": b"x"})) == f"metadata.zip: {words}"


@pytest.mark.parametrize("name", ["index.xml", "vendor-index.xml"])
def test_an_index_has_at_most_one_mebibyte(parts, depot, name):
    padded = parts[0][name].ljust(1 << 20)
    inner = {name: padded} if name == "vendor-index.xml" else {}
    assert read_bundle(bundle(parts, {name: padded}, inner)) == depot
    words = f"offline bundle: {name}: declares more than 1048576 bytes"
    assert said(LimitError, read_bundle, bundle(parts, {name: padded + b" "}, inner)) == words


def test_metadata_has_at_most_sixteen_mebibytes(parts, depot):
    room = (16 << 20) - sum(map(len, parts[1].values()))
    packed_room = (16 << 20) - len(write_zip({**parts[1], "bulletins/b": b""}))
    assert read_bundle(bundle(parts, metadata={"bulletins/b": bytes(packed_room)})) == depot
    words = "offline bundle: metadata.zip: declares more than 16777216 bytes"
    data = bundle(parts, metadata={"bulletins/b": bytes(packed_room + 1)})
    assert said(LimitError, read_bundle, data) == words
    deflated = io.BytesIO()
    with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**parts[1], "bulletins/b": bytes(room + 1)}.items():
            archive.writestr(name, content)
    data = bundle(parts, {"metadata.zip": deflated.getvalue()})
    words = "metadata.zip: declares more than 16777216 bytes of content"
    assert said(LimitError, read_bundle, data) == words


def test_a_depot_gives_its_profile_by_name_or_says_that_it_has_none(depot):
    assert depot.profile("standard") is PROFILE
    with pytest.raises(DepotError) as caught:
        depot.profile("n" * 90)
    words = f"the depot holds no image profile {'n' * 80!r}"
    assert (caught.value.check, caught.value.message) == ("depot.profile", words)


def test_a_depot_has_the_first_letters_of_its_vendor_and_profiles_if_any(make, epoch):
    made = depot_of([make("2.0-1"), make()], vendor="Example", made_at=epoch, profiles=[PROFILE])
    assert (made.code, made.profiles) == ("exa", (PROFILE,))
    assert [vib.descriptor.version for vib in made.vibs] == ["1.0-1", "2.0-1"]
    assert Depot(vendor="e", code="e", made_at=epoch, vibs=()).profiles == ()


def test_two_vibs_of_one_path_make_no_bundle(make, epoch):
    with pytest.raises(ValueError, match="zip"):
        write_bundle(depot_of([make(), make()], vendor="Example", made_at=epoch))


def test_the_age_of_metadata_is_said_in_days(depot, epoch):
    policy = DepotPolicy(age_max=timedelta(days=3))
    check_depot(depot, policy, epoch)
    words = said(DepotError, check_depot, depot, policy, epoch + timedelta(days=5))
    assert words.endswith("metadata of 2024-03-01T12:00:00+00:00 is 5 days old, at most 3 are allowed")
    words = said(DepotError, check_depot, depot, policy, datetime(2024, 2, 1, tzinfo=UTC))
    assert words.endswith("metadata of 2024-03-01T12:00:00+00:00 is from the future")


# -- streams


@pytest.mark.parametrize(
    ("data", "declared", "kind", "words"),
    [
        (b"", -1, LimitError, "declares -1 bytes, at most 9 are read"),
        (bytes(10), 10, LimitError, "declares 10 bytes, at most 9 are read"),
        (b"abc", 5, FormatError, "ends 2 bytes before its declared size"),
        (b"abc", 2, LimitError, "goes on after the 2 bytes that it declares"),
        (b"a", 0, LimitError, "goes on after the 0 bytes that it declares"),
    ],
)
def test_a_stream_is_refused_by_reason(data, declared, kind, words):
    with pytest.raises(FormatError) as caught:
        read_declared(io.BytesIO(data).read, declared, 9, "depot")
    assert type(caught.value) is kind
    assert (caught.value.what, caught.value.where, caught.value.message) == ("depot", "", words)


def test_a_stream_that_gives_more_than_it_is_asked_for_is_refused():
    with pytest.raises(LimitError) as caught:
        read_declared(lambda count: bytes(count + 1), 3, 9, "depot")
    words = "gives more than the 3 bytes that it declares"
    assert (caught.value.what, caught.value.where, caught.value.message) == ("depot", "", words)


def test_a_stream_of_no_bytes_or_of_the_most_is_read_in_pieces():
    assert read_declared(io.BytesIO(b"").read, 0, 9, "depot") == b""
    asked = []
    stream = io.BytesIO(bytes(range(100)) * 1000)

    def read(count):
        asked.append(count)
        return stream.read(count)

    assert read_declared(read, 100_000, 100_000, "depot") == stream.getvalue()
    assert asked == [65_536, 34_464, 1]


# -- profiles


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("</viblist>", "", "image profile: line 1, column 171: not well-formed XML"),
        ("name>", "x>", "image profile: name: '' is not a name"),
        ("standard", "n" * 101, f"image profile: name: {'n' * 40!r} is not a name"),
        ("creator>", "x>", "image profile: creator: '' is not a name"),
        (TOOL, "a b", "image profile: vib-id: 'a b' is not a name"),
        (
            "acceptance-level>",
            "x>",
            "acceptance level: '' is not one of community, partner, accepted, certified",
        ),
        (
            "<name>",
            "<x/><name>",
            "image profile: standard: holds more than a profile, or another spelling of one",
        ),
    ],
)
def test_a_profile_is_refused_by_place_and_reason(old, new, words):
    changed = XML.replace(old.encode(), new.encode())
    assert changed != XML
    assert said(FormatError, parse_profile, changed) == words


def test_a_profile_names_each_vib_once_and_at_most_as_many_as_an_image_holds(monkeypatch):
    twice = write_profile(attrs.evolve(PROFILE, vib_ids=("a", "a")))
    assert said(FormatError, parse_profile, twice) == "image profile: standard: names a VIB twice"
    monkeypatch.setattr(profile_module, "VIBS_MAX", 2)
    two = attrs.evolve(PROFILE, vib_ids=("a", "b"))
    assert parse_profile(write_profile(two)) == two
    three = write_profile(attrs.evolve(PROFILE, vib_ids=("a", "b", "c")))
    assert said(LimitError, parse_profile, three) == "image profile: standard: more than 2 VIBs"


@pytest.fixture(scope="module")
def onto(small_image, world_pki, epoch):
    """A function that puts a profile of the standard image's VIBs and one other on a bank."""

    def run(vib, bank=small_image.bank, **options):
        vibs = [*small_image.vibs, vib]
        named = attrs.evolve(PROFILE, vib_ids=tuple(vib.vib_id for vib in vibs))
        return apply_profile(bank, named, vibs, world_pki.trust, epoch, **options)

    return run


def test_a_profile_lets_another_vendor_take_over_only_when_told_to(onto, make):
    bank = onto(make()).bank
    other = make("2.0-1", vendor="Other")
    with pytest.raises(InstallError) as caught:
        onto(other, bank)
    assert caught.value.check == "VendorChangeError"
    assert onto(other, bank, vendor_changes=True).removed == (TOOL,)


def test_a_profile_is_held_to_the_places_that_it_is_given(onto, make):
    vib = make(path="etc/tool.conf")
    with pytest.raises(InstallError) as caught:
        onto(vib)
    assert caught.value.check == "VibValidationError"
    anywhere = PathRules(community=("",), partner=())
    assert onto(vib, paths=anywhere).installed == (TOOL,)
