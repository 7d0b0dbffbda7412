"""The SignedData of a signature: every field that is not as the profile wants it is refused."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import FormatError
from sim.image import der
from sim.image.algorithms import digest_identifier, signature_identifier
from sim.image.bitflips import flip_bit, flip_bits
from sim.image.certificate import load_certificate
from sim.image.cms import verify_detached
from sim.image.signed_data import DATA, SIGNATURE_FILE_BYTES_MAX

from .forge import (
    CONTENT,
    DIGEST,
    EC_KEY,
    ECDSA_SHA1,
    EPOCH,
    GOOD,
    MD5,
    MD5_RSA,
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
)


def check_of(signature: bytes, content: bytes = CONTENT) -> str:
    return judged(signature, content)[0]


def test_the_forge_without_changes_makes_our_own_signature() -> None:
    assert Forge().build() == GOOD


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("content-info", {"outer_type": DATA}),
        ("version", {"version": V3}),
        ("version", {"signer_version": V3}),
        ("crls", {"crls": der.tlv(0xA1)}),
        ("unsigned-attributes", {"unsigned": der.tlv(0xA1, TIME)}),
        ("one-signer", {"signers": 0}),
        ("one-signer", {"signers": 2}),
        ("embedded-content", {"content": der.tlv(der.SEQUENCE, DATA, der.tlv(0xA0, der.tlv(4, CONTENT)))}),
        ("embedded-content", {"content": der.tlv(der.SEQUENCE, DATA, der.tlv(0xA0, der.tlv(4, b"other")))}),
        ("content-type", {"content": der.tlv(der.SEQUENCE, SOME_OID)}),
        ("structure", {"content": der.tlv(der.SEQUENCE)}),
        ("structure", {"bag": b""}),
        ("certificates", {"bag": der.tlv(0xA0)}),
        ("certificates", {"bag": der.tlv(0xA0, *[der.encode_integer(n) for n in range(9)])}),
        ("certificate", {"bag": der.tlv(0xA0, der.encode_integer(1))}),
        ("signer-id", {"signer_id": load_certificate(SIGNER.chain[0]).signer_id[:-1] + b"\0"}),
        ("structure", {"signer_id": der.tlv(0x80, b"key id")}),
        ("digest-algorithm", {"digest": SHA1, "digests": der.encode_set_of((SHA1,))}),
        ("digest-algorithm", {"digest": MD5, "digests": der.encode_set_of((MD5,))}),
        ("digest-agreement", {"digests": der.encode_set_of((digest_identifier("sha512"),))}),
        ("digest-agreement", {"digests": der.encode_set_of((SHA256, SHA1))}),
        ("digest-agreement", {"digests": der.tlv(der.SET)}),
        (
            "digest-agreement",
            {"digests": der.encode_set_of((der.tlv(der.SEQUENCE, SHA256[2:], der.tlv(der.NULL)),))},
        ),
        ("signature-algorithm", {"algorithm": ECDSA_SHA1}),
        ("signature-algorithm", {"algorithm": MD5_RSA}),
        ("signature-algorithm", {"algorithm": EC_KEY}),
        ("signature-algorithm", {"algorithm": signature_identifier("ec", "sha384")}),
        ("signature-algorithm", {"algorithm": signature_identifier("rsa", "sha256")}),
        ("structure", {"signature_tag": der.BIT_STRING}),
        ("structure", {"signature_tag": der.OCTET_STRING | 0x20}),
        ("structure", {"attributes": ()}),
        ("attributes", {"attributes": (TYPE, DIGEST)}),
        ("attributes", {"attributes": (TYPE, TIME)}),
        ("attributes", {"attributes": (DIGEST, TIME)}),
        ("attributes", {"attributes": (TYPE, DIGEST, TIME, attribute("52", SOME_OID))}),
        ("attributes", {"attributes": (TYPE, DIGEST, TIME, TIME)}),
        ("attributes", {"attributes": (TYPE, DIGEST, TIME, digest_attribute(b"other"))}),
        ("attributes", {"attributes": (DIGEST, TYPE, TIME), "sorted_attributes": False}),
        ("attributes", {"attributes": (TYPE, DIGEST, attribute("5"))}),
        (
            "attributes",
            {"attributes": (TYPE, DIGEST, attribute("5", der.encode_time(EPOCH), der.tlv(der.NULL)))},
        ),
        ("attributes", {"attributes": (TYPE, DIGEST, attribute("5", der.tlv(der.UTC_TIME, b"2501010000Z")))}),
        ("content-type", {"attributes": (attribute("3", SOME_OID), DIGEST, TIME)}),
        ("message-digest", {"attributes": (TYPE, digest_attribute(b"other"), TIME)}),
        ("message-digest", {"attributes": (TYPE, attribute("4", der.tlv(der.OCTET_STRING)), TIME)}),
        ("signature", {"identity": WORLD.signer("certified")}),
        ("der", {"trailing": b"\0"}),
        ("der", {"trailing": b"\x05\x00"}),
    ],
)
def test_a_signature_that_leaves_the_profile_is_refused(check: str, changes: dict[str, object]) -> None:
    assert check_of(Forge(**changes).build()) == check


def test_signed_capabilities_are_allowed_and_change_nothing() -> None:
    capabilities = attribute("15", der.tlv(der.SEQUENCE))
    forged = Forge(attributes=(TYPE, DIGEST, TIME, capabilities)).build()
    assert verify_detached(CONTENT, forged, WORLD.trust, EPOCH).level == "partner"


def indefinite(data: bytes) -> bytes:
    return b"\x30\x80" + der.only(data, der.SEQUENCE, "t") + b"\0\0"


def long_length(data: bytes) -> bytes:
    content = der.only(data, der.SEQUENCE, "t")
    return b"\x30\x83" + len(content).to_bytes(3, "big") + content


@pytest.mark.parametrize("change", [indefinite, long_length])
def test_ber_is_not_der(change: Callable[[bytes], bytes]) -> None:
    assert check_of(change(GOOD)) == "der"


def test_a_signature_moved_to_another_file_is_refused() -> None:
    assert check_of(GOOD, content=b"<vib>other</vib>") == "message-digest"


@pytest.mark.parametrize(
    "signature", [b"", b"\0", b"-----BEGIN CMS-----", b"\x30\x00", b"\x30\x84\xff\xff\xff\xff"]
)
def test_what_is_no_signature_at_all_is_refused(signature: bytes) -> None:
    assert check_of(signature) == "der"


def test_a_huge_signature_file_is_refused_unread() -> None:
    assert check_of(bytes(SIGNATURE_FILE_BYTES_MAX + 1)) == "size"


def test_no_truncated_signature_is_accepted() -> None:
    checks = {check_of(GOOD[:length]) for length in range(0, len(GOOD), 3)}
    assert checks == {"der"}


def test_no_single_bit_of_a_signature_file_can_change() -> None:
    report = flip_bits(GOOD, lambda data: verify_detached(CONTENT, data, WORLD.trust, EPOCH))
    assert report.tried == 8 * len(GOOD)
    assert (report.accepted, report.escaped) == ((), ())
    assert sum(report.refused.values()) == report.tried


def test_no_single_bit_of_the_data_can_change() -> None:
    report = flip_bits(CONTENT, lambda data: verify_detached(data, GOOD, WORLD.trust, EPOCH))
    assert report.refused == {"message-digest": 8 * len(CONTENT)}


def test_a_flip_is_counted_where_a_verifier_accepts_or_breaks() -> None:
    def careless(data: bytes) -> None:
        if data[0] == 1:
            raise KeyError
        if data[0] == 2:
            raise FormatError("thing", "", "wrong")

    report = flip_bits(b"\0", careless)
    assert report.accepted == (2, 3, 4, 5, 6, 7)
    assert report.refused == {"thing": 1}
    assert report.escaped == ((0, "KeyError()"),)
    assert flip_bit(b"\0\0", 9) == b"\0\x02"


@settings(max_examples=150)
@given(st.data())
def test_no_mutant_of_a_signature_is_accepted(data: st.DataObject) -> None:
    mutant = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutant) - 1))
        what = data.draw(st.sampled_from(["set", "drop", "insert", "copy"]))
        if what == "set":
            mutant[at] = data.draw(st.integers(0, 255))
        elif what == "drop":
            del mutant[at : at + data.draw(st.integers(1, 16))]
        elif what == "insert":
            mutant[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            mutant[at:at] = mutant[at : at + 40]
        if not mutant:
            break
    if bytes(mutant) != GOOD:
        check_of(bytes(mutant))
