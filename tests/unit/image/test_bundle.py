"""Offline bundles, image profiles and the paths of each level: taken whole, or refused with nothing done."""

import io
import struct
import time
import tracemalloc
import zipfile
from datetime import timedelta

import attrs
import pytest

from sim.errors import FormatError, LimitError, VerificationError
from sim.image.acceptance import AcceptanceLevel
from sim.image.bitflips import flip_bit
from sim.image.boundedzip import ZIP_ENTRIES_MAX, read_zip, write_zip
from sim.image.bundle import (
    DepotError,
    DepotPolicy,
    check_depot,
    depot_of,
    read_bundle,
    read_declared,
    write_bundle,
)
from sim.image.install import InstallError, install
from sim.image.metadata import Descriptor, Relation
from sim.image.pathrules import PathRules
from sim.image.payload import gzip_stored
from sim.image.profile import ImageProfile, apply_profile, parse_profile, write_profile
from sim.image.tar import TarEntry, with_parents
from sim.image.vib import Payload, build_vib, read_vib
from sim.image.vtar import write_vtar

COMMUNITY, PARTNER, ACCEPTED, CERTIFIED = AcceptanceLevel


@pytest.fixture(scope="module")
def make(world_pki, epoch):
    """A function that makes a VIB of one file."""

    def build(name="tool", version="1.0-1", level=PARTNER, path=None, **fields):
        path = path or f"opt/{name}/run"
        spec = Descriptor(
            name=name, version=version, vendor="Example", level=level, **{"files": (path,), **fields}
        )
        archive = write_vtar(with_parents([TarEntry(path=path, data=name.encode())]))
        signer = world_pki.signer(level.xml_name) if level is not COMMUNITY else None
        payload = Payload(name=name[:8], kind="vgz", data=gzip_stored(archive))
        return read_vib(build_vib(spec, [payload], signer, epoch))

    return build


@pytest.fixture(scope="module")
def depot(make, epoch):
    vibs = [make(), make("other", level=CERTIFIED)]
    profile = ImageProfile(
        name="standard", vendor="Example", level=PARTNER, vib_ids=tuple(vib.vib_id for vib in vibs)
    )
    return depot_of(vibs, vendor="Example", made_at=epoch, profiles=[profile])


@pytest.fixture(scope="module")
def put(small_image, world_pki, epoch):
    def run(vibs, level=PARTNER, **options):
        return install(small_image.bank, vibs, level, world_pki.trust, epoch, **options)

    return run


def refused(kind, call, *arguments, check=None, **options):
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    if check is not None:
        assert caught.value.check == check, str(caught.value)
    return str(caught.value)


# -- zip


def test_a_zip_gives_back_its_files_in_order():
    files = {"b": b"1", "a/c": b"22"}
    assert list(read_zip(write_zip(files)).items()) == list(files.items())
    assert write_zip(files) == write_zip(files)


def deflated(files):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files:
            archive.writestr(zipfile.ZipInfo(path), data, compress_type=zipfile.ZIP_DEFLATED)
    return target.getvalue()


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a\\b", "a//b", "./a"])
def test_a_zip_entry_outside_the_root_is_refused(path):
    refused(FormatError, read_zip, write_zip([(path, b"x")]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_entry_twice_is_refused():
    assert "twice" in refused(FormatError, read_zip, write_zip([("a", b"1"), ("a", b"2")]))


def test_a_zip_with_more_around_it_is_refused():
    good = write_zip({"a": b"1"})
    for bad in (b"x" + good, good + b"x", good[:-1], good[4:], b"", good + good):
        refused(FormatError, read_zip, bad)
    commented = good[:-2] + b"\1\0c"
    refused(FormatError, read_zip, commented)


def test_an_encrypted_or_oddly_packed_entry_is_refused():
    good = bytearray(write_zip({"a": b"1"}))
    at = good.rindex(b"PK\1\2")
    encrypted, packed = bytearray(good), bytearray(good)
    encrypted[at + 8] |= 1
    packed[at + 10 : at + 12] = struct.pack("<H", 12)
    for bad in (encrypted, packed):
        assert "neither stored nor deflated" in refused(FormatError, read_zip, bytes(bad))


def test_a_declared_size_too_small_is_not_read_beyond():
    bomb = bytearray(deflated([("a", bytes(1 << 20))]))
    at = bomb.rindex(b"PK\1\2")
    bomb[at + 24 : at + 28] = struct.pack("<I", 100)
    refused(FormatError, read_zip, bytes(bomb))


def test_a_zip_bomb_costs_neither_time_nor_memory():
    bomb = deflated([(f"f{number}", bytes(64 << 20)) for number in range(10)])
    tracemalloc.start()
    begun = time.process_time()
    assert "declares more than" in refused(LimitError, read_zip, bomb)
    assert time.process_time() - begun < 1
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_too_many_entries_are_refused_before_they_are_read(monkeypatch):
    many = write_zip((f"f{number}", b"") for number in range(ZIP_ENTRIES_MAX + 1))
    monkeypatch.setattr(zipfile, "ZipFile", None)
    assert "more than" in refused(LimitError, read_zip, many)


# -- bundles


def test_a_bundle_gives_back_its_depot(depot):
    assert read_bundle(write_bundle(depot)) == depot
    assert write_bundle(depot) == write_bundle(depot)
    assert sorted(read_zip(write_bundle(depot)))[:3] == ["index.xml", "metadata.zip", "vendor-index.xml"]


def test_every_sampled_flip_of_a_bundle_is_refused_or_harmless(depot):
    data = write_bundle(depot)
    refusals = 0
    for bit in range(0, 8 * len(data), 211):
        try:
            found = read_bundle(flip_bit(data, bit))
        except (FormatError, VerificationError):
            refusals += 1
        else:
            assert found.vibs == depot.vibs
            assert found.profiles == depot.profiles
    assert refusals > 8 * len(data) // 211 // 2


def changed(depot, change):
    """Return the bundle with `change` applied to its files and the files of its metadata."""
    files = read_zip(write_bundle(depot))
    metadata = read_zip(files["metadata.zip"])
    change(files, metadata)
    files["metadata.zip"] = write_zip(metadata)
    return write_zip(files)


VIB = "vib20/tool/Example_bootbank_tool_1.0-1.vib"
COPY = "vibs/Example_bootbank_tool_1.0-1.xml"


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda files, _: files.update({"vib20/x.vib": b"x"}), "depot.unlisted"),
        (lambda _, metadata: metadata.update(other=b"x"), "depot.unlisted"),
        (lambda files, _: files.update({VIB: files[VIB] + b"\n"}), "depot.size"),
        (lambda files, _: files.update({VIB: files[VIB][:-1] + b"x"}), "depot.digest"),
        (
            lambda _, metadata: metadata.update({COPY: metadata[COPY].replace(b"1.0-1<", b"2.0-1<", 1)}),
            "depot.descriptor",
        ),
        (
            lambda _, metadata: metadata.update({"profiles/1.xml": metadata["profiles/0000.xml"]}),
            "depot.twice",
        ),
        (lambda _, metadata: metadata.update({"vibs/copy.xml": metadata[COPY]}), "depot.twice"),
        (lambda _, metadata: metadata.update({"vendor-index.xml": b"<a/>"}), "depot.index"),
        (
            lambda files, metadata: (
                files.update({"vib20/x.vib": files.pop(VIB)}),
                metadata.update({COPY: metadata[COPY].replace(VIB.encode(), b"vib20/x.vib")}),
            ),
            "depot.descriptor",
        ),
        (
            lambda files, metadata: (files.pop(VIB), metadata.pop(COPY)),
            "depot.profile",
        ),
    ],
)
def test_a_bundle_that_is_not_what_its_metadata_says_is_refused(depot, change, check):
    refused(DepotError, read_bundle, changed(depot, change), check=check)


@pytest.mark.parametrize("name", ["index.xml", "vendor-index.xml", "metadata.zip", VIB])
def test_a_missing_file_is_refused(depot, name):
    files = read_zip(write_bundle(depot))
    del files[name]
    assert "is missing" in refused(FormatError, read_bundle, write_zip(files))


def test_old_metadata_is_refused_at_the_policys_age(depot, epoch):
    policy = DepotPolicy(age_max=timedelta(days=30))
    check_depot(depot, policy, epoch + timedelta(days=30))
    refused(DepotError, check_depot, depot, policy, epoch + timedelta(days=30, seconds=1), check="depot.age")
    refused(DepotError, check_depot, depot, policy, epoch - timedelta(seconds=1), check="depot.future")
    check_depot(depot, DepotPolicy(), epoch + timedelta(days=3000))


def test_a_stream_is_read_to_its_declared_size_and_one_byte_beyond():
    asked = []

    def endless(count):
        asked.append(count)
        return bytes(count)

    assert "goes on" in refused(LimitError, read_declared, endless, 100_000, 1 << 20, "depot")
    assert sum(asked) == 100_001
    assert read_declared(io.BytesIO(b"abc").read, 3, 9, "depot") == b"abc"
    assert "ends 1 bytes" in refused(FormatError, read_declared, io.BytesIO(b"abc").read, 4, 9, "depot")
    refused(LimitError, read_declared, endless, 10, 9, "depot")
    refused(LimitError, read_declared, endless, -1, 9, "depot")


# -- profiles


def test_a_profile_has_one_spelling(depot):
    (profile,) = depot.profiles
    xml = write_profile(profile)
    assert parse_profile(xml) == profile
    for bad in (xml + b" ", xml.replace(b"<name>", b"<x/><name>"), xml.replace(b"partner", b"best")):
        refused(FormatError, parse_profile, bad)
    refused(FormatError, parse_profile, write_profile(attrs.evolve(profile, vib_ids=("a", "a"))))


@pytest.fixture(scope="module")
def onto(small_image, world_pki, epoch):
    """A function that puts a profile of the standard image's VIBs and others on its bank."""

    def run(*more, level=PARTNER, without=(), bank=small_image.bank, **options):
        vibs = [vib for vib in small_image.vibs if vib.descriptor.name not in without] + list(more)
        profile = ImageProfile(
            name="new", vendor="Example", level=level, vib_ids=tuple(vib.vib_id for vib in vibs)
        )
        return apply_profile(bank, profile, vibs, world_pki.trust, epoch, **options)

    return run


def test_a_profile_makes_the_bank_hold_exactly_its_vibs(onto, make, small_image):
    result = onto(make())
    assert result.installed == (make().vib_id,)
    assert result.bank.database.name == "new"
    assert result.bank.descriptors == (*small_image.bank.descriptors, make().descriptor)
    back = onto(bank=result.bank, removals=True)
    assert back.removed == (make().vib_id,)
    assert refused(InstallError, onto, bank=result.bank, check="ProfileVibRemoval")


def test_a_profile_never_takes_half_of_what_it_names(onto, make, small_image):
    before = dict(small_image.bank.files)
    needs = make("needs", depends=(Relation(name="tool", operator=">=", version="2.0"),))
    for vibs, check in (
        ((needs, make()), "DependencyError"),
        ((make(), make(version="1.0-2")), "DependencyError"),
        ((make(), make("foe", conflicts=(Relation(name="tool"),))), "DependencyError"),
        ((make(level=COMMUNITY),), "AcceptanceConfigError"),
        ((make(path="etc/passwd"),), "VibValidationError"),
    ):
        refused(InstallError, onto, *vibs, check=check)
    assert dict(small_image.bank.files) == before
    assert onto(needs, make(version="2.0-1")).installed


def test_a_profile_goes_back_only_when_told_to(onto, make):
    bank = onto(make(version="2.0-1")).bank
    refused(InstallError, onto, make(), bank=bank, check="DowngradeError")
    assert onto(make(), bank=bank, downgrades=True).removed == ("Example_bootbank_tool_2.0-1",)


def test_a_profile_with_a_vib_that_no_depot_holds_is_refused(small_image, world_pki, epoch):
    profile = ImageProfile(name="new", vendor="Example", level=PARTNER, vib_ids=("a",))
    refused(
        InstallError,
        apply_profile,
        small_image.bank,
        profile,
        [],
        world_pki.trust,
        epoch,
        check="NoMatchError",
    )


# -- paths by level


def test_each_level_writes_where_it_may(put, make):
    for path, lowest in (
        ("opt/tool/run", COMMUNITY),
        ("etc/vmware/firewall/tool.xml", COMMUNITY),
        ("etc/init.d/tool", PARTNER),
        ("etc/vmware/oem.xml", PARTNER),
        ("etc/passwd", ACCEPTED),
        ("etc/vmware/oem.xml.d", ACCEPTED),
        ("options/x", ACCEPTED),
    ):
        for level in AcceptanceLevel:
            vib = make(level=level, path=path)
            if level >= lowest:
                assert put(vib, COMMUNITY).installed
            else:
                text = refused(InstallError, put, vib, COMMUNITY, check="VibValidationError")
                assert f"{level.xml_name} may not write /{path}" in text


def test_the_places_are_a_parameter(put, make):
    vib = make(level=COMMUNITY, path="etc/passwd")
    assert put(vib, COMMUNITY, paths=PathRules(community=("etc/",))).installed


def test_a_path_that_is_held_and_not_listed_counts_too(put, make):
    vib = make(level=COMMUNITY, path="etc/passwd", files=("opt/x",))
    refused(InstallError, put, vib, COMMUNITY, check="VibValidationError")


def test_an_installation_goes_back_only_when_told_to(put, make, world_pki, epoch):
    newer = put(make(version="2.0-1")).bank
    refused(InstallError, install, newer, make(), PARTNER, world_pki.trust, epoch, check="DowngradeError")
    back = install(newer, make(), PARTNER, world_pki.trust, epoch, downgrades=True)
    assert (back.removed, back.warnings) == (("Example_bootbank_tool_2.0-1",), ())
