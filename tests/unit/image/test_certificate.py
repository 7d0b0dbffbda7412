"""A certificate is read strictly: each field out of form is refused where it stands."""

from datetime import UTC, datetime, timedelta

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from sim.core.rng import Stream
from sim.image import certificate, der
from sim.image.algorithms import key_problem, signature_identifier
from sim.image.bitflips import flip_bit
from sim.image.certificate import Certificate, load_certificate
from sim.image.issue import CertificateSpec, issue
from sim.image.trust import SignatureError

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
SPEC = CertificateSpec(
    organization="Intel",
    common_name="leaf",
    not_before=EPOCH,
    not_after=EPOCH + timedelta(days=1),
    path_length=None,
)
GOOD = issue(SPEC, source=Stream(b"certificate")).certificate_der
OUTER = der.elements(der.only(GOOD, der.SEQUENCE, "t"), "t")
BODY = [element[2] for element in der.elements(OUTER[0][1], "t")]
VERSION, SERIAL, ALGORITHM, ISSUER, VALIDITY, SUBJECT, KEY, EXTENSIONS = range(8)


def with_field(index: int, value: bytes) -> bytes:
    body = der.tlv(der.SEQUENCE, *BODY[:index], value, *BODY[index + 1 :])
    return der.tlv(der.SEQUENCE, body, OUTER[1][2], OUTER[2][2])


def with_extensions(*extensions: bytes) -> bytes:
    return with_field(EXTENSIONS, der.tlv(0xA3, der.tlv(der.SEQUENCE, *extensions)))


def extension(oid: str, value: bytes, *critical: bytes) -> bytes:
    return der.tlv(der.SEQUENCE, der.encode_oid(oid), *critical, der.tlv(der.OCTET_STRING, value))


def constraints(*fields: bytes) -> bytes:
    return with_extensions(extension("2.5.29.19", der.tlv(der.SEQUENCE, *fields)))


def usage(content: bytes) -> bytes:
    return with_extensions(extension("2.5.29.15", der.tlv(der.BIT_STRING, content)))


def name(tag: int, text: bytes) -> bytes:
    pair = der.tlv(der.SEQUENCE, der.encode_oid("2.5.4.10"), der.tlv(tag, text))
    return der.tlv(der.SEQUENCE, der.tlv(der.SET, pair))


def public_key(key: object) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]


TRUE = der.tlv(der.BOOLEAN, b"\xff")
TIMES = der.encode_time(EPOCH)


def test_the_helpers_of_this_file_change_nothing_by_themselves() -> None:
    assert with_field(SERIAL, BODY[SERIAL]) == GOOD
    assert load_certificate(GOOD).organization == "Intel"


@pytest.mark.parametrize(
    ("check", "data"),
    [
        ("certificate", b""),
        ("certificate", GOOD + b"\0"),
        ("certificate", der.tlv(der.SEQUENCE, OUTER[0][2], OUTER[1][2])),
        (
            "certificate",
            der.tlv(
                der.SEQUENCE, OUTER[0][2], OUTER[1][2], der.tlv(der.BIT_STRING, b"\x01" + OUTER[2][1][1:])
            ),
        ),
        ("certificate", der.tlv(der.SEQUENCE, OUTER[0][2], OUTER[1][2], der.tlv(der.BIT_STRING))),
        ("certificate", with_field(VERSION, der.tlv(0xA0, der.encode_integer(1)))),
        ("certificate", with_field(VERSION, b"")),
        ("certificate", with_field(EXTENSIONS, b"")),
        ("certificate", with_field(SERIAL, der.encode_integer(0))),
        ("certificate", with_field(SERIAL, der.tlv(der.INTEGER, b"\x80"))),
        ("certificate", with_field(SERIAL, der.tlv(der.INTEGER, b"\x00\x01"))),
        ("certificate-algorithm", with_field(ALGORITHM, signature_identifier("ec", "sha384"))),
        ("certificate", with_field(VALIDITY, der.tlv(der.SEQUENCE, TIMES))),
        ("certificate", with_field(VALIDITY, der.tlv(der.SEQUENCE, TIMES, TIMES, TIMES))),
        ("certificate", with_field(VALIDITY, der.tlv(der.SEQUENCE, TIMES, der.encode_integer(1)))),
        ("certificate", with_field(SUBJECT, der.tlv(der.SEQUENCE, der.encode_integer(1)))),
        ("certificate", with_field(SUBJECT, der.tlv(der.SEQUENCE, der.tlv(der.SET, der.encode_integer(1))))),
        (
            "certificate",
            with_field(SUBJECT, der.tlv(der.SEQUENCE, der.tlv(der.SET, der.tlv(der.SEQUENCE, TIMES)))),
        ),
        ("certificate", with_field(SUBJECT, name(der.UTF8_STRING, b"\xff"))),
        ("certificate", with_field(SUBJECT, name(der.PRINTABLE_STRING, b"\xc3\xa4"))),
        ("key", with_field(KEY, der.tlv(der.SEQUENCE))),
        ("key", with_field(KEY, public_key(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))))),
        ("key", with_field(KEY, public_key(ec.derive_private_key(7, ec.SECP256K1())))),
        (
            "certificate",
            with_extensions(
                extension("2.5.29.15", b"\x03\x02\x07\x80"), extension("2.5.29.15", b"\x03\x02\x07\x80")
            ),
        ),
        (
            "certificate",
            with_extensions(extension("2.5.29.15", b"\x03\x02\x07\x80", der.tlv(der.BOOLEAN, b"\0"))),
        ),
        (
            "certificate",
            with_extensions(extension("2.5.29.15", b"\x03\x02\x07\x80", der.tlv(der.BOOLEAN, b"\x01"))),
        ),
        ("certificate", with_extensions(der.tlv(der.SEQUENCE, der.encode_oid("2.5.29.15")))),
        ("certificate", with_extensions(der.tlv(der.SEQUENCE, der.encode_oid("2.5.29.15"), TIMES))),
        ("critical-extension", with_extensions(extension("1.2.3", b"", TRUE))),
        ("certificate", constraints(der.tlv(der.BOOLEAN, b"\0"))),
        ("certificate", constraints(der.encode_integer(0))),
        ("certificate", constraints(TRUE, der.tlv(der.INTEGER, b"\xff"))),
        ("certificate", constraints(TRUE, der.encode_integer(0), der.encode_integer(0))),
        ("certificate", usage(b"")),
        ("certificate", usage(b"\x00")),
        ("certificate", usage(b"\x08\x80")),
        ("certificate", usage(b"\x06\x80")),
        ("certificate", usage(b"\x07\xc0")),
        ("certificate", usage(b"\x00\x00")),
        ("certificate", usage(b"\x07\x80\x80\x80")),
        ("certificate", with_extensions(extension("2.5.29.37", der.tlv(der.SEQUENCE, TIMES)))),
    ],
)
def test_a_certificate_out_of_form_is_refused(check: str, data: bytes) -> None:
    with pytest.raises(SignatureError) as refusal:
        load_certificate(data)
    assert refusal.value.check == check, str(refusal.value)


PLACES = {
    "contents": "expected the fields of a version 3 certificate with extensions",
    "serial": "expected a positive number",
    "validity": "expected two times",
    "name": "expected pairs of type and value",
    "extensions": "expected each extension once, with identifier and value",
    "basic constraints": "expected an authority's mark and perhaps a path length",
    "key usage": "expected a bit string in its shortest form",
    "signature": "expected whole bytes",
}
BITS = der.tlv(der.BIT_STRING, b"\x01" + OUTER[2][1][1:])
UNSIGNED = der.tlv(der.SEQUENCE, OUTER[0][2], OUTER[1][2])
NO_PAIR = der.tlv(der.SEQUENCE, der.tlv(der.SET, der.tlv(der.SEQUENCE, TIMES)))
TYPELESS = der.tlv(der.SEQUENCE, der.tlv(der.SET, der.tlv(der.SEQUENCE, TIMES, TIMES)))
TWICE = with_extensions(*[extension("2.5.29.15", b"\x03\x02\x07\x80")] * 2)


@pytest.mark.parametrize(
    ("place", "data"),
    [
        ("contents", with_field(VERSION, der.tlv(0xA0, der.encode_integer(1)))),
        ("serial", with_field(SERIAL, der.encode_integer(0))),
        ("validity", with_field(VALIDITY, der.tlv(der.SEQUENCE, TIMES))),
        ("name", with_field(SUBJECT, NO_PAIR)),
        ("name", with_field(SUBJECT, TYPELESS)),
        ("extensions", TWICE),
        ("basic constraints", constraints(der.encode_integer(0))),
        ("basic constraints", constraints(TRUE, der.encode_integer(0), der.encode_integer(0))),
        ("key usage", usage(b"\x08\x80")),
        ("signature", der.tlv(der.SEQUENCE, OUTER[0][2], OUTER[1][2], BITS)),
    ],
)
def test_a_certificate_is_refused_by_place_and_reason(place: str, data: bytes) -> None:
    with pytest.raises(SignatureError) as refusal:
        load_certificate(data)
    assert refusal.value.message == f"certificate: {place}: {PLACES[place]}"


def refusal_of(data: bytes, **options: bool) -> tuple[str, str]:
    with pytest.raises(SignatureError) as refusal:
        load_certificate(data, **options)
    return (refusal.value.check, refusal.value.message)


def test_other_refusals_of_a_certificate_are_told() -> None:
    assert refusal_of(UNSIGNED) == (
        "certificate",
        "certificate: expected contents, algorithm and signature",
    )
    assert refusal_of(constraints(TRUE, der.tlv(der.INTEGER, b"\xff"))) == (
        "certificate",
        "certificate: basic constraints: a negative path length",
    )
    assert refusal_of(bytes(8193)) == (
        "certificate",
        "8193 bytes in a certificate, at most 8192 are read",
    )
    assert refusal_of(bytes(8192))[1].startswith("certificate: ")
    assert refusal_of(with_field(ALGORITHM, signature_identifier("ec", "sha384"))) == (
        "certificate-algorithm",
        "a certificate is signed with an algorithm that is not allowed",
    )
    assert refusal_of(with_extensions(extension("1.2.3", b"", TRUE))) == (
        "critical-extension",
        "a certificate has the critical extension 1.2.3, not understood here",
    )
    alternative = with_extensions(extension("2.5.29.17", b"0\0", TRUE))
    assert refusal_of(alternative)[0] == "critical-extension"
    assert load_certificate(alternative, alternative_names=True).alternative_name == b"0\0"
    assert refusal_of(with_field(KEY, der.tlv(der.SEQUENCE))) == (
        "key",
        "a certificate carries a key that cannot be read",
    )
    other_curve = public_key(ec.derive_private_key(7, ec.SECP256K1()))
    assert refusal_of(with_field(KEY, other_curve)) == (
        "key",
        "a certificate carries an EC key on curve secp256k1",
    )


@pytest.mark.parametrize("bit", [0, 2, 4, 5, 6])
def test_each_bit_of_a_key_usage_stands_for_one_right(bit: int) -> None:
    rights = {
        0: "digital_signature",
        2: "key_encipherment",
        4: "key_agreement",
        5: "key_cert_sign",
        6: "crl_sign",
    }
    read = load_certificate(usage(bytes((7 - bit, 0x80 >> bit))))
    assert [number for number, right in rights.items() if getattr(read, right)] == [bit]


def test_a_certificate_without_extensions_of_ours_is_for_nothing() -> None:
    bare = load_certificate(with_extensions())
    assert (
        bare.is_ca,
        bare.path_length,
        bare.digital_signature,
        bare.key_cert_sign,
        bare.extended_usages,
    ) == (
        *(False, None, False, False),
        (),
    )
    assert not load_certificate(constraints()).is_ca
    assert load_certificate(constraints(TRUE)).path_length is None
    assert load_certificate(constraints(TRUE, der.encode_integer(3))).path_length == 3


def test_a_name_in_an_old_alphabet_is_compared_but_not_shown() -> None:
    old = load_certificate(with_field(SUBJECT, name(0x14, b"Teletex")))
    assert old.organization == ""
    assert old.subject == name(0x14, b"Teletex")
    assert old.title == f"serial {old.serial:x}"


def test_key_usage_bits_are_read_from_both_bytes() -> None:
    everything = load_certificate(usage(b"\x07\xff\x80"))
    assert everything.digital_signature
    assert everything.key_cert_sign
    assert everything.crl_sign
    assert not load_certificate(usage(b"\x07\x00\x80")).digital_signature


def test_the_policy_refuses_weak_and_strange_keys() -> None:
    assert key_problem(rsa.RSAPublicNumbers(65537, (1 << 2047) + 1).public_key()) is None
    assert "1024 bits" in str(key_problem(rsa.RSAPublicNumbers(65537, (1 << 1023) + 1).public_key()))
    assert "8192 bits" in str(key_problem(rsa.RSAPublicNumbers(65537, (1 << 8191) + 1).public_key()))
    assert "exponent 3" in str(key_problem(rsa.RSAPublicNumbers(3, (1 << 2047) + 1).public_key()))
    assert "type int" in str(key_problem(5))


def test_a_certificate_from_2050_on_uses_the_long_time() -> None:
    late = attrs.evolve(SPEC, not_after=datetime(2075, 6, 1, tzinfo=UTC))
    data = issue(late, source=Stream(b"late")).certificate_der
    assert load_certificate(data).not_after == datetime(2075, 6, 1, tzinfo=UTC)


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=5))
def test_mutated_certificates_are_refused_or_differ_but_nothing_escapes(
    changes: list[tuple[int, int]],
) -> None:
    mutant = bytearray(GOOD)
    for at, value in changes:
        mutant[at] = value
    try:
        read = load_certificate(bytes(mutant))
    except SignatureError:
        return
    assert read.der == bytes(mutant)
    assert bytes(mutant) == GOOD or not read.is_issued_by(load_certificate(GOOD))


def test_parts_at_fixed_places_are_read_as_anywhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and extensions of the usual shape are cut out at fixed places: no changed bit may make a difference."""
    mutants = [GOOD, *(flip_bit(GOOD, bit) for bit in range(8 * len(GOOD)))]

    def outcomes() -> list[object]:
        found: list[object] = []
        for mutant in mutants:
            try:
                found.append(load_certificate.__wrapped__(mutant))
            except SignatureError as error:
                found.append(error.check)
        return found

    short = outcomes()
    assert sum(isinstance(one, Certificate) for one in short) > 100
    monkeypatch.setattr(certificate, "_common_extension", lambda *_: (b"", None))
    monkeypatch.setattr(certificate, "_is_common_name", lambda _: False)
    assert outcomes() == short
