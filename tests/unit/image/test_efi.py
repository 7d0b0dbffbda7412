import hashlib
import struct
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from sim.core.rng import Rng, Stream
from sim.errors import FormatError, LimitError
from sim.image.bitflips import flip_bits
from sim.image.efi import authenticode_digest, build_efi, sign_efi, verify_efi
from sim.image.efi_lists import (
    ENTRIES_MAX,
    OWNER,
    VARIABLE_BYTES_MAX,
    encode_signature_lists,
    parse_signature_lists,
)
from sim.image.issue import AUTHORITY_USAGE, CertificateSpec, issue
from sim.image.pe import IMAGE_BYTES_MAX, attach_certificate, build_pe, checksum, read_pe
from sim.image.pki import Pki
from sim.image.trust import SignatureError

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
PKI = Pki.create(Rng(9), epoch=EPOCH)
LOADER = PKI.signer("loader")
PLAIN = build_efi(b"\x31\xc0\xc3", data=b"settings")
SIGNED = build_efi(b"\x31\xc0\xc3", LOADER, when=EPOCH, data=b"settings")
DB = PKI.uefi_db


def check_of(
    image: bytes, db: tuple[bytes, ...] = DB, dbx: tuple[bytes, ...] = (), now: datetime = EPOCH
) -> str:
    with pytest.raises(SignatureError) as refusal:
        verify_efi(image, db, dbx, now)
    return refusal.value.check


def test_the_authority_is_the_entry_of_db_that_the_chain_ends_in() -> None:
    other = PKI.key_exchange.certificate_der
    assert verify_efi(SIGNED, (other, *DB), (), EPOCH) == DB[0]
    assert verify_efi(SIGNED, (LOADER.certificate_der,), (), EPOCH) == LOADER.certificate_der


def test_an_unsigned_image_runs_only_if_its_digest_is_in_db() -> None:
    digest = authenticode_digest(PLAIN)
    assert verify_efi(PLAIN, (*DB, digest), (), EPOCH) == digest
    assert check_of(PLAIN) == "no-signature"


def test_signing_does_not_change_the_digest() -> None:
    for algorithm in ("sha1", "sha256", "sha384", "sha512"):
        assert authenticode_digest(PLAIN, algorithm) == authenticode_digest(SIGNED, algorithm)


def test_the_digest_covers_all_but_checksum_and_certificate_entry() -> None:
    image = read_pe(PLAIN)
    parts = (
        PLAIN[: image.checksum_at],
        PLAIN[image.checksum_at + 4 : image.security_entry_at],
        PLAIN[image.security_entry_at + 8 :],
    )
    assert authenticode_digest(PLAIN) == hashlib.sha256(b"".join(parts)).digest()


def test_signing_twice_gives_the_same_image() -> None:
    assert sign_efi(PLAIN, LOADER, EPOCH) == SIGNED
    with pytest.raises(ValueError, match="signed already"):
        sign_efi(SIGNED, LOADER, EPOCH)
    with pytest.raises(ValueError, match="time"):
        build_efi(b"\xc3", LOADER)


def test_dbx_wins_over_db() -> None:
    digest = authenticode_digest(SIGNED)
    assert check_of(SIGNED, dbx=(digest,)) == "dbx-image"
    assert check_of(SIGNED, db=(*DB, digest), dbx=(digest,)) == "dbx-image"
    assert check_of(SIGNED, dbx=DB) == "revoked"
    assert check_of(SIGNED, dbx=(LOADER.certificate_der,)) == "revoked"


def test_an_image_of_another_authority_is_refused() -> None:
    assert check_of(SIGNED, db=(PKI.key_exchange.certificate_der,)) == "chain"
    assert check_of(SIGNED, db=()) == "chain"
    assert check_of(SIGNED, db=Pki.create(Rng(10), epoch=EPOCH).uefi_db) == "chain"
    partner = attrs.evolve(PKI.signer("partner"), chain=())
    assert check_of(sign_efi(PLAIN, partner, EPOCH)) == "chain"


def test_the_signers_validity_is_judged_at_the_simulated_time() -> None:
    assert check_of(SIGNED, now=EPOCH + timedelta(days=6 * 365)) == "validity"
    assert check_of(SIGNED, now=EPOCH - timedelta(days=2 * 365)) == "validity"


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"extended_usages": ("1.3.6.1.5.5.7.3.1",)}, "extended-key-usage"),
        ({"extended_usages": ()}, "extended-key-usage"),
        ({"key_usage": ("key_encipherment",)}, "key-usage"),
        ({"is_authority": True, "key_usage": AUTHORITY_USAGE}, "basic-constraints"),
    ],
)
def test_only_a_code_signer_of_an_authority_in_db_signs_images(
    changes: dict[str, object], check: str
) -> None:
    spec = CertificateSpec(
        organization="VMware", common_name="x", not_before=EPOCH, not_after=EPOCH + timedelta(days=9)
    )
    assert signed_by(attrs.evolve(spec, organization="good")) == DB[0]
    with pytest.raises(SignatureError) as refusal:
        signed_by(attrs.evolve(spec, **changes))
    assert refusal.value.check == check


def signed_by(spec: CertificateSpec) -> bytes:
    identity = issue(spec, source=Stream(b"efi signer"), issuer=PKI.uefi_authority)
    signer = attrs.evolve(
        LOADER, certificate_der=identity.certificate_der, private_key_der=identity.private_key_der
    )
    return verify_efi(sign_efi(PLAIN, signer, EPOCH), DB, (), EPOCH)


def test_a_signature_moved_to_another_image_is_refused() -> None:
    signature = read_pe(SIGNED).certificate
    assert signature is not None
    other = attach_certificate(build_efi(b"\x90\xc3"), signature)
    assert check_of(other) == "image-digest"


def test_a_signature_over_plain_data_is_no_image_signature() -> None:
    from sim.image.cms import sign_detached

    assert check_of(attach_certificate(PLAIN, sign_detached(PLAIN, LOADER, EPOCH))) == "content-type"


def test_no_single_bit_of_a_signed_image_can_change() -> None:
    sample = range(0, 8 * len(SIGNED), 3)
    report = flip_bits(SIGNED, lambda data: verify_efi(data, DB, (), EPOCH), sample)
    assert (report.accepted, report.escaped) == ((), ())
    assert report.tried == len(sample)
    assert report.refused["checksum"] > 0


def test_no_truncated_or_prolonged_image_is_accepted() -> None:
    for length in range(0, len(SIGNED), 7):
        check_of(SIGNED[:length])
    assert check_of(SIGNED + b"\0") == "image-format"


def patched(image: bytes, offset: int, value: bytes) -> bytes:
    return image[:offset] + value + image[offset + len(value) :]


SECTIONS_AT = 0x40 + 24 + 240
OPTIONAL_AT = 0x40 + 24


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, b"ZM"),
        (0x3C, struct.pack("<I", 0xFFFFFFF0)),
        (0x40, b"NE"),
        (0x44, struct.pack("<H", 0x14C)),
        (0x46, struct.pack("<H", 0)),
        (0x46, struct.pack("<H", 97)),
        (OPTIONAL_AT, struct.pack("<H", 0x10B)),
        (OPTIONAL_AT + 60, struct.pack("<I", 0x10)),
        (OPTIONAL_AT + 60, struct.pack("<I", 0xFFFFFFFF)),
        (OPTIONAL_AT + 108, struct.pack("<I", 4)),
        (OPTIONAL_AT + 108, struct.pack("<I", 0xFFFFFFFF)),
        (SECTIONS_AT + 20, struct.pack("<I", 0x600)),
        (SECTIONS_AT + 16, struct.pack("<I", 0x10000)),
        (OPTIONAL_AT + 112 + 32, struct.pack("<II", 0, 8)),
        (OPTIONAL_AT + 112 + 32, struct.pack("<II", 8, 16)),
        (OPTIONAL_AT + 112 + 32, struct.pack("<II", 0xFFFFFFF8, 16)),
    ],
)
def test_an_image_with_impossible_headers_is_refused(offset: int, value: bytes) -> None:
    broken = patched(SIGNED, offset, value)
    assert broken != SIGNED
    with pytest.raises(FormatError):
        read_pe(broken)
    assert check_of(broken) == "image-format"


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, struct.pack("<I", 8)), (0, struct.pack("<I", 100)), (4, b"\x00\x01"), (6, b"\x01\x00")],
)
def test_a_certificate_table_must_hold_exactly_one_pkcs7_certificate(offset: int, value: bytes) -> None:
    assert check_of(patched(SIGNED, read_pe(SIGNED).table_at + offset, value)) == "image-format"


def test_the_checksum_is_the_documented_folded_sum() -> None:
    image = read_pe(PLAIN)
    total = 0
    for at in range(0, len(PLAIN), 2):
        word = (
            0
            if image.checksum_at <= at < image.checksum_at + 4
            else int.from_bytes(PLAIN[at : at + 2], "little")
        )
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    assert image.stated_checksum == checksum(image) == total + len(PLAIN)


@given(st.binary(min_size=1, max_size=5000), st.binary(max_size=700))
def test_every_built_image_reads_back_unsigned(code: bytes, data: bytes) -> None:
    image = read_pe(build_pe(code, data))
    assert image.certificate is None
    assert image.stated_checksum == checksum(image)


@given(st.lists(st.tuples(st.integers(0, len(PLAIN) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_mutated_images_raise_format_errors_only(changes: list[tuple[int, int]]) -> None:
    mutant = bytearray(PLAIN)
    for at, value in changes:
        mutant[at % 0x180] = value
    try:
        authenticode_digest(bytes(mutant))
    except FormatError:
        return


def test_signature_lists_survive_the_round_trip() -> None:
    entries = (DB[0], bytes(32), b"\x01" * 32, LOADER.certificate_der)
    parsed = parse_signature_lists(encode_signature_lists(entries))
    assert tuple(entry.data for entry in parsed) == entries
    assert [entry.kind for entry in parsed] == ["certificate", "sha256", "sha256", "certificate"]
    assert parsed[0].signature_data == OWNER + DB[0]
    assert parse_signature_lists(b"") == ()


@given(st.binary(max_size=120))
def test_junk_in_a_signature_variable_is_refused_or_reported_whole(data: bytes) -> None:
    try:
        entries = parse_signature_lists(encode_signature_lists((bytes(32),)) + data)
    except FormatError:
        return
    assert entries[0].data == bytes(32)


@given(st.integers(0, 27), st.integers(0, 255))
def test_a_changed_list_header_never_escapes(offset: int, value: int) -> None:
    try:
        parse_signature_lists(patched(encode_signature_lists((bytes(32), DB[0])), offset, bytes((value,))))
    except FormatError:
        return


def test_what_is_too_large_is_refused_unread() -> None:
    with pytest.raises(LimitError):
        read_pe(bytes(IMAGE_BYTES_MAX + 1))
    with pytest.raises(LimitError):
        parse_signature_lists(bytes(VARIABLE_BYTES_MAX + 1))
    with pytest.raises(LimitError):
        parse_signature_lists(encode_signature_lists([bytes(32)] * (ENTRIES_MAX + 1)))


@pytest.mark.client
def test_sbverify_accepts_our_signature(program: Callable[[str], str], tmp_path: Path) -> None:
    sbverify = program("sbverify")
    authority = x509.load_der_x509_certificate(DB[0])
    (tmp_path / "db.pem").write_bytes(authority.public_bytes(Encoding.PEM))
    (tmp_path / "good.efi").write_bytes(SIGNED)
    at = read_pe(SIGNED).table_at - 1
    (tmp_path / "bad.efi").write_bytes(patched(SIGNED, at, bytes((SIGNED[at] ^ 1,))))
    results = {
        name: subprocess.run(
            [sbverify, "--cert", "db.pem", name], cwd=tmp_path, capture_output=True
        ).returncode
        for name in ("good.efi", "bad.efi")
    }
    assert results == {"good.efi": 0, "bad.efi": 1}
