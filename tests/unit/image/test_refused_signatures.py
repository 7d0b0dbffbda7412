"""What the checks of signatures say of what they refuse; and checks that others stand behind, each seen alone."""

import struct
from datetime import timedelta

import attrs
import pytest

from sim.errors import FormatError, LimitError
from sim.image import der
from sim.image.algorithms import digest_identifier, signature_identifier
from sim.image.certificate import load_certificate
from sim.image.cms import verify_detached
from sim.image.efi import authenticode_digest, build_efi, verify_efi
from sim.image.efi_lists import OWNER, encode_signature_lists, parse_signature_lists
from sim.image.pe import attach_certificate, read_pe
from sim.image.signed_data import DATA, build_signed_data
from sim.image.trailer import MAGIC, sign_module, split_trailer, verify_module
from sim.image.trust import EarlyKey

from .forge import (
    CONTENT,
    DIGEST,
    EC_KEY,
    EPOCH,
    GOOD,
    LEAF,
    SHA1,
    SHA256,
    SIGNER,
    SOME_OID,
    TIME,
    TYPE,
    V3,
    WORLD,
    Forge,
    attribute,
    digest_attribute,
    judged,
    refused,
)

# ------------------------------------------------------------ detached signatures

UNSORTED = (DIGEST, TYPE, TIME)
NOT_DATA = attribute("3", SOME_OID)


@pytest.mark.parametrize(
    ("changes", "check", "words"),
    [
        ({"outer_type": SOME_OID}, "content-info", "the file is no SignedData"),
        ({"version": V3}, "version", "the version of the SignedData is not 1"),
        ({"signer_version": V3}, "version", "the version of the signer is not 1"),
        ({"crls": der.tlv(0xA1)}, "crls", "the signature carries CRLs"),
        ({"bag": b""}, "structure",
         "expected version, digest algorithm, content, certificates and signers"),
        ({"content": der.tlv(der.SEQUENCE)}, "structure", "expected a content type and perhaps content"),
        ({"content": der.tlv(der.SEQUENCE, SOME_OID), "attributes": (NOT_DATA, DIGEST, TIME)},
         "content-type", "the signature is over something else than plain data"),
        ({"content": der.tlv(der.SEQUENCE, DATA, der.tlv(0xA0, der.tlv(4, CONTENT)))},
         "embedded-content", "the signature carries content of its own"),
        ({"signers": 2}, "one-signer", "expected exactly one signer, found 2"),
        ({"signers": 0}, "one-signer", "expected exactly one signer, found 0"),
        ({"unsigned": der.tlv(0xA1, TIME)}, "unsigned-attributes",
         "the signature carries attributes that nothing covers"),
        ({"signature_tag": der.BIT_STRING}, "structure",
         "expected a signer by issuer and serial number, with signed attributes"),
        ({"digest": SHA1}, "digest-algorithm",
         "the digest algorithm is not one of SHA-256, SHA-384, SHA-512"),
        ({"digests": der.encode_set_of((digest_identifier("sha512"),))}, "digest-agreement",
         "the listed digest algorithm is not the signer's"),
        ({"algorithm": EC_KEY}, "signature-algorithm", "the signature algorithm is not allowed"),
        ({"algorithm": signature_identifier("ec", "sha384")}, "signature-algorithm",
         "the signature algorithm uses another digest than the signer names"),
        ({"algorithm": signature_identifier("rsa", "sha256")}, "signature-algorithm",
         f"the signature algorithm does not fit the key of {LEAF.title}"),
        ({"identity": WORLD.signer("certified")}, "signature",
         f"the signature was not made by the key of {LEAF.title}"),
        ({"attributes": UNSORTED, "sorted_attributes": False}, "attributes",
         "signature: attributes: not in ascending order"),
        ({"attributes": (TYPE, DIGEST, TIME, attribute("52", SOME_OID))}, "attributes",
         "signature: attributes: an attribute that is not allowed, or one twice"),
        ({"attributes": (TYPE, DIGEST, TIME, digest_attribute(b"other"))}, "attributes",
         "signature: attributes: an attribute that is not allowed, or one twice"),
        ({"attributes": (TYPE, DIGEST, attribute("5"))}, "attributes",
         "signature: attributes: an attribute without exactly one value"),
        ({"attributes": (TYPE, DIGEST)}, "attributes",
         "signature: attributes: content type, message digest or signing time is missing"),
        ({"attributes": (NOT_DATA, DIGEST, TIME)}, "content-type",
         "the signed content type is not that of the signature"),
        ({"attributes": (TYPE, digest_attribute(b"other"), TIME)}, "message-digest",
         "the signature belongs to other data (message digest differs)"),
        ({"attributes": (TYPE, DIGEST, attribute("5", der.encode_time(EPOCH + timedelta(days=9999))))},
         "signing-time", f"{LEAF.title} claims to have signed outside its validity"),
        ({"signer_id": load_certificate(SIGNER.chain[0]).signer_id[:-1] + b"\0"}, "signer-id",
         "the signer's certificate is not in the signature"),
        ({"bag": der.tlv(0xA0)}, "certificates", "expected 1 to 8 certificates, found 0"),
        ({"bag": der.tlv(0xA0, *[der.encode_integer(n) for n in range(9)])}, "certificates",
         "expected 1 to 8 certificates, found 9"),
        ({"bag": der.tlv(0xA0, *sorted((SIGNER.certificate_der, *SIGNER.chain), reverse=True))},
         "certificates", "the certificates are not in ascending order, each once"),
    ],
)  # fmt: skip
def test_a_signature_is_refused_by_rule_and_words(changes, check, words):
    assert judged(Forge(**changes).build()) == (check, words)


def test_the_signers_validity_counts_to_its_last_second_for_the_claimed_time_too():
    for when in (LEAF.not_before, LEAF.not_after):
        signed = Forge(attributes=(TYPE, DIGEST, attribute("5", der.encode_time(when)))).build()
        assert verify_detached(CONTENT, signed, WORLD.trust, EPOCH).signed_at == when


def test_a_size_a_time_and_an_unknown_issuer_are_told():
    assert judged(bytes((64 << 10) + 1)) == ("size", "a signature of 65537 bytes, at most 65536 are read")
    assert judged(bytes(64 << 10))[0] == "der"
    early, late = LEAF.not_before, LEAF.not_after
    second = timedelta(seconds=1)
    assert judged(GOOD, now=late + second) == (
        "validity", f"the certificate of {LEAF.title} expired at {late.isoformat()}",
    )  # fmt: skip
    assert judged(GOOD, now=early - second) == (
        "validity", f"the certificate of {LEAF.title} is not valid before {early.isoformat()}",
    )  # fmt: skip
    assert judged(GOOD, trust=attrs.evolve(WORLD.trust, issuers=())) == (
        "issuer-level", f"the issuer of {LEAF.title} stands for no acceptance level",
    )  # fmt: skip
    issuer = load_certificate(SIGNER.chain[0]).title
    assert judged(GOOD, trust=attrs.evolve(WORLD.trust, roots=())) == (
        "chain", f"no path from {LEAF.title} to a trusted root (stopped at {issuer})",
    )  # fmt: skip
    assert judged(GOOD, trust=WORLD.trust.revoking([SIGNER.chain[0]])) == (
        "revoked", f"the certificate of {issuer} is revoked",
    )  # fmt: skip


def test_who_signed_is_told_as_the_chain_proves_it():
    found = verify_detached(CONTENT, GOOD, WORLD.trust, EPOCH)
    assert (found.provider, found.level, found.serial) == (LEAF.organization, "partner", LEAF.serial)
    assert (found.issuer, found.certificate_der) == (load_certificate(SIGNER.chain[0]).title, LEAF.der)
    assert found.signed_at == EPOCH


# ------------------------------------------------------------ Authenticode

LOADER = WORLD.signer("loader")
PLAIN = build_efi(b"\xc3", data=b"x")
SIGNED = build_efi(b"\xc3", LOADER, when=EPOCH, data=b"x")
DB = WORLD.uefi_db
PE_DATA = der.encode_oid("1.3.6.1.4.1.311.2.1.15")
INDIRECT = der.encode_oid("1.3.6.1.4.1.311.2.1.4")
PE_ATTRIBUTE = der.tlv(der.SEQUENCE, PE_DATA)


def image_digest(algorithm=SHA256, tag=der.OCTET_STRING, name="sha256"):
    return der.tlv(der.SEQUENCE, algorithm, der.tlv(tag, authenticode_digest(PLAIN, name)))


def with_content(*parts, content_type=INDIRECT):
    content = b"".join(parts)
    signature = build_signed_data(
        LOADER, EPOCH, content=content, content_type=content_type, embedded=der.tlv(der.SEQUENCE, content)
    )
    return attach_certificate(PLAIN, signature)


def booted(image, db=DB, dbx=(), now=EPOCH):
    return refused(verify_efi, image, db, dbx, now)


def test_an_image_whose_digest_was_signed_with_any_allowed_hash_runs():
    for name in ("sha256", "sha384", "sha512"):
        image = with_content(PE_ATTRIBUTE, image_digest(digest_identifier(name), name=name))
        assert verify_efi(image, DB, (), EPOCH) == DB[0]


@pytest.mark.parametrize(
    ("parts", "check", "words"),
    [
        ((PE_ATTRIBUTE,), "content", "Authenticode content: expected an attribute and a digest"),
        ((PE_ATTRIBUTE, image_digest(), PE_ATTRIBUTE), "content",
         "Authenticode content: expected an attribute and a digest"),
        ((der.tlv(der.SET, PE_DATA), image_digest()), "content",
         "Authenticode content: expected an attribute and a digest"),
        ((PE_ATTRIBUTE, der.tlv(der.SEQUENCE, SHA256)), "content",
         "Authenticode content: digest: expected an algorithm and a digest"),
        ((PE_ATTRIBUTE, image_digest(tag=der.BIT_STRING)), "content",
         "Authenticode content: digest: expected an algorithm and a digest"),
        ((der.tlv(der.SEQUENCE, SOME_OID), image_digest()), "content",
         "Authenticode content: attribute: expected the data of a PE image"),
        ((PE_ATTRIBUTE, image_digest(SHA1)), "digest-algorithm",
         "the image's digest is not one of SHA-256, SHA-384, SHA-512"),
        ((PE_ATTRIBUTE, der.tlv(der.SEQUENCE, SHA256, der.tlv(der.OCTET_STRING, bytes(32)))), "image-digest",
         "the image is not the one that was signed (digest differs)"),
    ],
)  # fmt: skip
def test_signed_content_that_is_no_digest_of_this_image_is_refused(parts, check, words):
    assert booted(with_content(*parts)) == (check, words)


def test_an_attribute_that_is_not_canonical_to_its_depth_is_refused():
    long_length = b"\x30\x81\x00"
    image = with_content(der.tlv(der.SEQUENCE, PE_DATA, long_length), image_digest())
    assert booted(image)[0] == "content"


def test_a_signature_by_another_key_is_refused_though_the_checksum_is_right():
    signature = read_pe(SIGNED).certificate
    for at in (-1, -20):
        broken = bytearray(signature)
        broken[at] ^= 1
        image = attach_certificate(PLAIN, bytes(broken))
        assert booted(image) == ("signature", f"the signature was not made by the key of {title(LOADER)}")
    assert verify_efi(attach_certificate(PLAIN, signature), DB, (), EPOCH) == DB[0]


def title(identity):
    return load_certificate(identity.certificate_der).title


def test_an_image_is_refused_by_rule_and_words():
    digest = authenticode_digest(SIGNED)
    assert booted(SIGNED, dbx=(digest,)) == ("dbx-image", "the image's digest is in dbx")
    assert booted(PLAIN) == ("no-signature", "the image is not signed and its digest is not in db")
    at = read_pe(SIGNED).checksum_at
    assert booted(SIGNED[:at] + b"\0\0\0\0" + SIGNED[at + 4 :]) == (
        "checksum", "the image's checksum is wrong",
    )  # fmt: skip
    assert booted(b"MZ") == ("image-format", "PE image: headers: the file ends inside its headers")
    other = with_content(PE_ATTRIBUTE, image_digest(), content_type=SOME_OID)
    assert booted(other) == ("content-type", "the signature is not over an image digest")
    detached = build_signed_data(LOADER, EPOCH, content=b"x", content_type=INDIRECT)
    assert booted(attach_certificate(PLAIN, detached)) == (
        "content-type", "the signature is not over an image digest",
    )  # fmt: skip


def test_only_zeros_that_pad_it_may_follow_a_signature():
    signature = read_pe(SIGNED).certificate
    for zeros in range(8):
        image = attach_certificate(PLAIN, signature + bytes(zeros))
        assert verify_efi(image, DB, (), EPOCH) == DB[0]
    for rest in (bytes(8), b"\x01", b"\0\x01"):
        assert booted(attach_certificate(PLAIN, signature + rest)) == (
            "der", "the signature is followed by other bytes",
        )  # fmt: skip


# ------------------------------------------------------------ the lists of firmware

CERTIFICATE_LIST = encode_signature_lists([b"certificate"])
DIGEST_LIST = encode_signature_lists([bytes(32), b"\1" * 32])


def put(data, at, new):
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"x", "offset 0: the data ends inside a list's header"),
        (DIGEST_LIST + bytes(27), f"offset {len(DIGEST_LIST)}: the data ends inside a list's header"),
        (put(DIGEST_LIST, 16, struct.pack("<I", 27)),
         "offset 0: the sizes of the list do not fit each other or the data"),
        (DIGEST_LIST[:-1], "offset 0: the sizes of the list do not fit each other or the data"),
        (put(DIGEST_LIST, 24, struct.pack("<I", 16)),
         "offset 0: the sizes of the list do not fit each other or the data"),
        (put(DIGEST_LIST, 24, struct.pack("<I", 47)),
         "offset 0: the sizes of the list do not fit each other or the data"),
        (put(DIGEST_LIST, 24, struct.pack("<I", 96)),
         "offset 0: an entry of type sha256 that is not 32 bytes long"),
    ],
)  # fmt: skip
def test_a_signature_variable_is_refused_by_offset_and_reason(data, words):
    with pytest.raises(FormatError) as caught:
        parse_signature_lists(data)
    assert str(caught.value) == f"EFI signature list: {words}"


def test_signature_lists_are_laid_out_as_firmware_does_and_others_are_told():
    x509 = bytes.fromhex("a159c0a5e494a74a87b5ab155c2bf072")
    assert x509 + struct.pack("<III", 28 + 27, 0, 27) + OWNER + b"certificate" == CERTIFICATE_LIST
    sha256 = bytes.fromhex("2616c4c14c509240aca941f936934328")
    assert DIGEST_LIST[:28] == sha256 + struct.pack("<III", 28 + 96, 0, 48)
    other = put(CERTIFICATE_LIST, 0, bytes(16))
    header = bytes(16) + struct.pack("<III", 28 + 3 + 17, 3, 17) + b"abc" + OWNER + b"x"
    kinds = [(one.kind, one.data) for one in parse_signature_lists(CERTIFICATE_LIST + other + header)]
    assert kinds == [("certificate", b"certificate"), ("other", b"certificate"), ("other", b"x")]
    empty = sha256 + struct.pack("<III", 28, 0, 48)
    assert parse_signature_lists(empty) == ()


def test_limits_of_a_signature_variable_are_exact():
    full = encode_signature_lists([bytes(32)] * 4096)
    assert len(parse_signature_lists(full)) == 4096
    with pytest.raises(LimitError, match=f"offset {len(full)}: more than 4096 entries"):
        parse_signature_lists(full + DIGEST_LIST)
    with pytest.raises(LimitError, match="1048577 bytes, at most 1048576 are read"):
        parse_signature_lists(bytes((1 << 20) + 1))


# ------------------------------------------------------------ trailers of early modules

EARLY = WORLD.early_signers[0]
KEYS = WORLD.trust.early_keys
MODULE = sign_module(b"module", EARLY)
LENGTH_AT = len(MODULE) - 8


def trailer(length, before=b""):
    return before + struct.pack("<II", length, MAGIC)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (struct.pack("<I", MAGIC), "offset 4: the module is shorter than its trailer"),
        (b"ab" + trailer(0), "offset 10: the module is shorter than its trailer"),
        (trailer(0, b"abcd"), "offset 4: a signature of 0 bytes does not fit"),
        (trailer(16, bytes(64)), "offset 64: a signature of 16 bytes does not fit"),
        (trailer(61, bytes(64)), "offset 64: a signature of 61 bytes does not fit"),
        (trailer(1025, bytes(2000)), "offset 2000: a signature of 1025 bytes, at most 1024"),
    ],
)
def test_a_trailer_is_refused_by_offset_and_reason(data, words):
    assert refused(verify_module, data, KEYS) == ("trailer-format", f"module signature: {words}")
    with pytest.raises(LimitError if "at most" in words else FormatError):
        split_trailer(data)


def test_a_trailer_may_leave_no_module_and_the_longest_signature():
    data = struct.pack("<I", 7) + b"k" * 16 + b"s" * 1008 + trailer(1024)
    found = split_trailer(data)
    assert (found.payload, found.covered, found.schema) == (b"", data[:4], 7)
    assert (found.key_id, found.signature) == (b"k" * 16, b"s" * 1008)
    assert split_trailer(struct.pack("<I", 7) + bytes(17) + trailer(17)).signature == b"\0"


def test_a_module_is_refused_by_rule_and_words():
    assert refused(verify_module, b"module", KEYS) == ("no-signature", "no signature found")
    assert refused(verify_module, MODULE, ()) == ("key-id", f"no key has the id {KEYS[0].key_id.encode()!r}")
    another = attrs.evolve(KEYS[0], schema=4)
    assert refused(verify_module, MODULE, (another,)) == (
        "schema", f"key {KEYS[0].key_id} signs with schema 4, not 3",
    )  # fmt: skip
    impostor = EarlyKey(key_id=KEYS[0].key_id, schema=3, certificate_der=SIGNER.certificate_der)
    assert refused(verify_module, MODULE, (impostor,)) == (
        "signature", f"the signature was not made by key {KEYS[0].key_id}",
    )  # fmt: skip
    assert verify_module(MODULE, KEYS).payload == b"module"
    assert MODULE[LENGTH_AT : LENGTH_AT + 4] == struct.pack("<I", len(MODULE) - 6 - 4 - 8)
