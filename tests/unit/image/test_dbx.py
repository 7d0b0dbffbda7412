"""What dbx forbids: every form of entry, where it reaches, and what it says."""

import hashlib
import struct
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from sim.image.certificate import load_certificate
from sim.image.dbx import forbid_certificate, forbid_image
from sim.image.efi import authenticode_digest, build_efi, verify_efi
from sim.image.efi_lists import ListEntry, encode_signature_lists, parse_signature_lists
from sim.image.trust import SignatureError

from .forge import EPOCH, WORLD, refused

LOADER = WORLD.signer("loader")
DB = WORLD.uefi_db
SIGNED = build_efi(b"\x31\xc0\xc3", LOADER, when=EPOCH)
OTHER = build_efi(b"\x90\xc3", LOADER, when=EPOCH)
DIGESTS = ("sha256", "sha384", "sha512")
OLDER = ", and no time stamp shows that the image is older"
PARTIES = {"signer": LOADER.certificate_der, "authority": DB[0]}
GUIDS = {
    "sha256": "c1c41626-504c-4092-aca9-41f936934328",
    "sha384": "ff3e5307-9fd0-48c9-85f1-8ad56c701e01",
    "sha512": "093e0fae-a6c4-4f50-9f1b-d41e2b89c19a",
    "certificate-sha256": "3bd2a492-96c0-4079-b420-fcf98ef103ed",
    "certificate-sha384": "7076876e-80c2-4ee6-aad2-28b349a6865b",
    "certificate-sha512": "446dbf63-2502-4cda-bcfa-2465d2b0fe9d",
}


def judged(*dbx, image=SIGNED, now=EPOCH):
    """Return name and words of the refusal under a dbx that went through its encoding."""
    stored = parse_signature_lists(encode_signature_lists(dbx))
    return refused(verify_efi, image, DB, stored, now)


def allowed(*dbx, image=SIGNED):
    return verify_efi(image, DB, parse_signature_lists(encode_signature_lists(dbx)), EPOCH) == DB[0]


@pytest.mark.parametrize("digest", DIGESTS)
def test_an_image_digest_forbids_that_image_and_no_other(digest):
    entry = forbid_image(SIGNED, digest)
    assert entry.data == authenticode_digest(SIGNED, digest)
    assert judged(entry) == ("dbx-image", "the image's digest is in dbx")
    assert allowed(entry, image=OTHER)


@pytest.mark.parametrize("digest", DIGESTS)
def test_a_digest_of_any_length_in_db_allows_an_unsigned_image(digest):
    plain = build_efi(b"\xc3")
    entry = forbid_image(plain, digest)
    assert verify_efi(plain, (*DB, entry), (), EPOCH) == entry.data
    with pytest.raises(SignatureError, match="in dbx"):
        verify_efi(plain, (*DB, entry), (entry,), EPOCH)


@pytest.mark.parametrize("who", PARTIES)
def test_a_whole_certificate_forbids_every_image_below_it(who):
    title = load_certificate(PARTIES[who]).title
    entry = forbid_certificate(PARTIES[who])
    for image in (SIGNED, OTHER):
        assert judged(entry, image=image) == ("revoked", f"the certificate of {title} is revoked")


@pytest.mark.parametrize("digest", DIGESTS)
@pytest.mark.parametrize("who", PARTIES)
def test_the_digest_of_a_certificate_forbids_like_the_certificate(who, digest):
    title = load_certificate(PARTIES[who]).title
    entry = forbid_certificate(PARTIES[who], digest)
    for image in (SIGNED, OTHER):
        text = f"the digest of the certificate of {title} is in dbx"
        assert judged(entry, image=image) == ("dbx-certificate", text)


def test_it_is_the_part_that_the_issuer_signed_that_is_hashed():
    certificate = load_certificate(LOADER.certificate_der)
    assert forbid_certificate(certificate.der, "sha256").data == (
        hashlib.sha256(certificate.body).digest() + bytes(16)
    )
    assert allowed(ListEntry(kind="certificate-sha256", data=certificate.fingerprint + bytes(16)))


@pytest.mark.parametrize("days", [-400, 0, 400])
def test_no_time_of_revocation_lets_an_image_without_time_stamp_through(days):
    since = EPOCH + timedelta(days=days)
    entry = forbid_certificate(LOADER.certificate_der, "sha256", since=since)
    title = load_certificate(LOADER.certificate_der).title
    assert judged(entry) == (
        "dbx-certificate",
        f"the digest of the certificate of {title} is in dbx since {since.isoformat()}{OLDER}",
    )


def test_a_time_is_written_as_efi_time_in_utc():
    since = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    entry = forbid_certificate(LOADER.certificate_der, "sha256", since=since)
    assert entry.data[32:] == bytes.fromhex("ea070203040506000000000000000000")


@pytest.mark.parametrize(
    ("time", "words"),
    [
        (struct.pack("<HBBBBB9x", 2026, 13, 1, 0, 0, 0), "is of no time"),
        (struct.pack("<HBBBBB9x", 2026, 2, 30, 0, 0, 0), "is of no time"),
        (struct.pack("<HBBBBB9x", 0, 1, 1, 0, 0, 0), "is of no time"),
        (struct.pack("<HBBBBBBIhBB", 2026, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0), "not whole seconds of UTC"),
        (struct.pack("<HBBBBBBIhBB", 2026, 1, 1, 0, 0, 0, 0, 5, 0, 0, 0), "not whole seconds of UTC"),
        (struct.pack("<HBBBBBBIhBB", 2026, 1, 1, 0, 0, 0, 0, 0, 60, 0, 0), "not whole seconds of UTC"),
    ],
)
def test_an_entry_of_no_good_time_refuses_whomever_it_is_about(time, words):
    check, message = judged(ListEntry(kind="certificate-sha256", data=bytes(32) + time))
    assert check == "dbx-time"
    assert words in message
    assert time.hex() in message


def test_an_entry_of_an_unknown_type_forbids_everything():
    strange = bytes(range(16)) + struct.pack("<III", 28 + 36, 0, 36) + bytes(36)
    (entry,) = parse_signature_lists(strange)
    assert entry.kind == "other"
    with pytest.raises(SignatureError, match="not understood") as caught:
        verify_efi(SIGNED, DB, (entry,), EPOCH)
    assert caught.value.check == "dbx-type"
    with pytest.raises(ValueError, match="no type"):
        encode_signature_lists([entry])


def test_what_db_may_not_hold_allows_nothing_and_disturbs_nothing():
    strange = ListEntry(kind="other", data=b"data")
    by_digest = forbid_certificate(DB[0], "sha256")
    assert verify_efi(SIGNED, (strange, by_digest, *DB), (), EPOCH) == DB[0]
    for entry in (strange, by_digest):
        with pytest.raises(SignatureError, match="no path"):
            verify_efi(SIGNED, (entry,), (), EPOCH)


@pytest.mark.parametrize("kind", GUIDS)
def test_each_kind_has_the_type_and_length_of_the_specification(kind):
    name = kind.rpartition("-")[2]
    entry = forbid_certificate(DB[0], name) if "-" in kind else forbid_image(SIGNED, name)
    assert entry.kind == kind
    data = encode_signature_lists([entry, attrs.evolve(entry, owner=bytes(16))])
    first, second, third, *rest = (bytes.fromhex(part) for part in GUIDS[kind].split("-"))
    assert data[:16] == first[::-1] + second[::-1] + third[::-1] + b"".join(rest)
    length = hashlib.new(name).digest_size + 16 * ("-" in kind) + 16
    assert struct.unpack_from("<III", data, 16) == (28 + 2 * length, 0, length)
    assert parse_signature_lists(data) == (entry, attrs.evolve(entry, owner=bytes(16)))
