from contextlib import suppress

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import FormatError, LimitError
from sim.image import imgdb
from sim.image.acceptance import AcceptanceLevel
from sim.image.descriptor_writer import write_descriptor
from sim.image.imgdb import VIBS_MAX, ImageDatabase, VibRecord, read_database, write_database
from sim.image.metadata import Descriptor
from sim.image.payload import describe_payload, gunzip, gzip_stored
from sim.image.tar import TarEntry, read_ustar, write_ustar


def record(name, signature=b"sig"):
    spec = Descriptor(
        name=name,
        version="1-1",
        vendor="Example",
        level=AcceptanceLevel.PARTNER_SUPPORTED,
        payloads=(describe_payload("a", "vgz", gzip_stored(b"x")), describe_payload("b", "boot", b"y")),
    )
    return VibRecord(
        descriptor_xml=write_descriptor(spec), signature=signature, files=(f"{name}.v00", f"{name}.b00")
    )


DATABASE = ImageDatabase(
    name="profile <1>",
    level=AcceptanceLevel.VMWARE_ACCEPTED,
    records=(record("one"), record("two", b"")),
    settings=(("title", "Loading & more"), ("prefix", "")),
)
FILE = write_database(DATABASE)


def repacked(change):
    entries = change(list(read_ustar(gunzip(FILE))))
    return gzip_stored(write_ustar(entries))


def edited(old, new):
    def change(entries):
        return [attrs.evolve(entry, data=entry.data.replace(old, new)) for entry in entries]

    changed = repacked(change)
    assert changed != FILE
    return changed


def test_reading_gives_back_what_was_written():
    assert read_database(FILE) == DATABASE
    assert DATABASE.record("two").signature == b""
    assert DATABASE.record("three") is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"profile", b"picture"),
        (b'acceptance-level="accepted"', b'acceptance-level="any"'),
        (b"Example_bootbank_one_1-1", b"Example_bootbank_uno_1-1"),
        (b"<file>one.v00</file>", b""),
        (b"<file>one.v00</file>", b"<file>../v00</file>"),
        (b"<file>one.v00</file>", b"<file></file>"),
        (b"</profile>", b"<more/></profile>"),
        (b"</profile>", b" </profile>"),
    ],
)
def test_a_profile_that_does_not_fit_is_refused(old, new):
    with pytest.raises(FormatError):
        read_database(edited(old, new))


def test_a_descriptor_under_another_id_is_named():
    with pytest.raises(FormatError, match="descriptor is that of Example_bootbank_one"):
        read_database(edited(b'<vib id="Example_bootbank_one_', b'<vib id="Example_bootbank_uno_'))


@pytest.mark.parametrize("lost", [".xml", "0001.p7s", "profile"])
def test_a_missing_file_is_refused(lost):
    with pytest.raises(FormatError):
        read_database(repacked(lambda entries: [entry for entry in entries if lost not in entry.path]))


def test_a_file_more_than_the_profile_says_is_refused():
    with pytest.raises(FormatError, match="holds more"):
        read_database(repacked(lambda entries: [*entries, TarEntry(path="zzz", data=b"stowaway")]))


def test_the_number_of_vibs_is_limited(monkeypatch):
    monkeypatch.setattr(imgdb, "VIBS_MAX", 1)
    with pytest.raises(LimitError):
        read_database(write_database(attrs.evolve(DATABASE, name="never read before")))


def test_no_single_bit_can_change_unseen():
    for bit in range(0, 8 * len(FILE), 11):
        changed = FILE[: bit // 8] + bytes([FILE[bit // 8] ^ 1 << bit % 8]) + FILE[bit // 8 + 1 :]
        with pytest.raises(FormatError):
            read_database(changed)


@given(st.data())
def test_damaged_content_is_read_or_refused_and_never_crashes(data):
    raw = bytearray(gunzip(FILE))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with suppress(FormatError):
        read_database(gzip_stored(bytes(raw)))


def test_versions_that_are_gone_are_kept_and_bounded(small_image):
    database = small_image.bank.database
    gone = tuple((f"n{number}", "1.0-1") for number in range(VIBS_MAX))
    kept = attrs.evolve(database, gone=gone)
    assert read_database(write_database(kept)) == kept
    with pytest.raises(LimitError, match="more than 1024 VIBs"):
        read_database(write_database(attrs.evolve(database, gone=(*gone, ("n", "1.0-1")))))
