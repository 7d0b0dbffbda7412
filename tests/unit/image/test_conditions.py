"""Each half of a condition of the readers of signatures decides something of its own."""

import struct
from hashlib import sha256

import attrs
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from sim.core.keys import rsa_private_key
from sim.core.rng import Rng
from sim.errors import FormatError
from sim.image import algorithms, chain, der
from sim.image.certificate import load_certificate
from sim.image.crl import load_crl
from sim.image.crl_issue import CrlSpec, issue_crl
from sim.image.dbx import check_path_not_forbidden
from sim.image.efi_lists import ListEntry, parse_signature_lists
from sim.image.pe import attach_certificate, build_pe, read_pe
from sim.image.signature_layout import _OPENING, _SIGNER, _begin_of_signer, usual_layout
from sim.image.trailer import SCHEMAS, check_module_signature, sign_module, split_trailer

from .forge import EPOCH, GOOD, LEAF, SIGNER, WORLD, Forge, judged, refused

ISSUER = load_certificate(SIGNER.chain[0])

# ------------------------------------------------------------ signatures


def test_a_field_more_is_named_for_what_it_is_alone():
    structure = "expected version, digest algorithm, content, certificates and signers"
    assert judged(Forge(crls=der.tlv(der.SET)).build()) == ("structure", structure)
    check, words = judged(Forge(unsigned=der.tlv(der.SET)).build())
    assert check == "structure"
    assert "nothing covers" not in words


@pytest.fixture(scope="module")
def rsa_key():
    return rsa_private_key(Rng(5).stream("key"))


def test_a_signature_that_a_key_did_not_make_is_bad(rsa_key):
    by_ec = SIGNER.sign(b"data", "sha256"), LEAF.public_key
    by_rsa = algorithms.sign(rsa_key, b"data", "sha256"), rsa_key.public_key()
    for good, key in (by_ec, by_rsa):
        assert algorithms.verify(key, good, b"data", "sha256") is True
        assert algorithms.verify(key, good, b"date", "sha256") is False
        assert algorithms.verify(key, good[:-1] + bytes([good[-1] ^ 1]), b"data", "sha256") is False


def test_a_pss_signature_that_a_key_did_not_make_is_bad(rsa_key):
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    good = rsa_key.sign(b"data", scheme, hashes.SHA256())
    assert algorithms.verify_pss(rsa_key.public_key(), good, b"data", "sha256") is True
    assert algorithms.verify_pss(rsa_key.public_key(), good, b"date", "sha256") is False


def test_an_issuer_has_the_name_and_the_kind_of_key_that_a_certificate_says():
    assert LEAF.is_issued_by(ISSUER)
    assert not attrs.evolve(LEAF, issuer=b"another").is_issued_by(ISSUER)
    assert not attrs.evolve(LEAF, signature_algorithm=("rsa", "sha256")).is_issued_by(ISSUER)


def test_a_revocation_list_is_signed_by_the_kind_of_key_that_it_says():
    spec = CrlSpec(this_update=EPOCH, next_update=EPOCH, serials=(5,))
    listed = load_crl(issue_crl(spec, WORLD.authorities["partner"]))
    issuer = load_certificate(WORLD.authorities["partner"].certificate_der)
    assert listed.is_signed_by(issuer)
    assert not attrs.evolve(listed, signature_algorithm=("rsa", "sha256")).is_signed_by(issuer)


def test_a_module_is_signed_by_the_kind_of_key_that_its_schema_says():
    signer = WORLD.early_signers[0]
    trailer = split_trailer(sign_module(b"module", signer))
    assert SCHEMAS[signer.key.schema] == ("ec", "sha256")
    assert SCHEMAS[1] == ("rsa", "sha256")
    check_module_signature(trailer, signer.key)
    assert refused(check_module_signature, trailer, attrs.evolve(signer.key, schema=1))[0] == "signature"


def test_a_digest_of_a_certificate_revokes_it_whole_or_without_its_signature():
    for digest in (LEAF.fingerprint, sha256(LEAF.body).digest()):
        assert refused(chain.check_not_revoked, (LEAF,), (digest,))[0] == "revoked"
    chain.check_not_revoked((LEAF,), (sha256(b"another").digest(),))


# ------------------------------------------------------------ the short way through a signature file

BEGIN = _begin_of_signer(GOOD[: _OPENING.size], len(GOOD))
NAME_AT = BEGIN + _SIGNER.size
NAME_END = NAME_AT + len(LEAF.signer_id)
ALGORITHM_AT = GOOD.index(algorithms.signature_identifier("ec", "sha256"), NAME_END)


def with_lengths(opening, rest, signers_size=None):
    """A signature file of these bytes, whose long lengths all reach to its end."""
    size = len(opening) + len(rest)
    fields = list(_OPENING.unpack(opening[: _OPENING.size]))
    fields[1], fields[4], fields[6] = size - 4, size - 4 - 11 - 4, size - 4 - 11 - 8
    signers = list(_SIGNER.unpack(rest[: _SIGNER.size]))
    signers[1] = len(rest) - 4 if signers_size is None else signers_size
    signers[3] = signers[1] - 4
    return _OPENING.pack(*fields) + opening[_OPENING.size :] + _SIGNER.pack(*signers) + rest[_SIGNER.size :]


def test_lengths_that_reach_to_the_end_are_what_a_good_file_has():
    assert with_lengths(GOOD[:BEGIN], GOOD[BEGIN:]) == GOOD
    assert usual_layout(GOOD) is not None


def test_a_file_that_begins_with_its_signers_has_no_usual_layout():
    assert usual_layout(GOOD[BEGIN:]) is None


def test_a_file_whose_signer_has_no_name_has_no_usual_layout():
    nameless = GOOD[BEGIN:NAME_AT] + GOOD[NAME_END:]
    assert usual_layout(with_lengths(GOOD[:BEGIN], nameless, signers_size=len(nameless))) is None


@pytest.mark.parametrize("more", [0, 1])
def test_a_file_that_ends_where_its_algorithm_begins_has_no_usual_layout(more):
    assert usual_layout(with_lengths(GOOD[:BEGIN], GOOD[BEGIN : ALGORITHM_AT + more])) is None


def test_a_file_with_a_long_algorithm_has_no_usual_layout():
    identifier = b"\x30\x81\x80" + bytes(0x80)
    rest = GOOD[BEGIN:ALGORITHM_AT] + identifier + der.tlv(der.OCTET_STRING, b"signature")
    assert usual_layout(with_lengths(GOOD[:BEGIN], rest)) is None


# ------------------------------------------------------------ certificates


def subject(content):
    return der.tlv(der.SEQUENCE, der.tlv(der.SET, content))


def certificate_with(index, value):
    outer = der.elements(der.only(SIGNER.certificate_der, der.SEQUENCE, "t"), "t")
    body = [element[2] for element in der.elements(outer[0][1], "t")]
    body[index] = value
    return der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, *body), outer[1][2], outer[2][2])


SUBJECT, EXTENSIONS = 5, 7
COMMON = der.encode_oid("2.5.4.3")


@pytest.mark.parametrize("size", [1, 110, 117, 118, 119, 250, 600])
def test_a_common_name_is_read_whatever_its_size(size):
    pair = der.tlv(der.SEQUENCE, COMMON, der.tlv(0x0C, b"n" * size))
    assert load_certificate(certificate_with(SUBJECT, subject(pair))).common_name == "n" * size


@pytest.mark.parametrize("content", [b"\x30\x04\x06\x03\x55\x04", b"\x30\x06\x06\x03\x55\x04\x03\x0c"])
def test_a_name_that_is_cut_short_is_refused(content):
    assert refused(load_certificate, certificate_with(SUBJECT, subject(content)))[0] == "certificate"


def test_a_length_of_a_name_that_is_not_in_shortest_form_is_refused():
    content = bytes((0x30, 0x80)) + COMMON + bytes((0x0C, 121)) + b"n" * 121
    assert len(content) == 130
    assert refused(load_certificate, certificate_with(SUBJECT, subject(content)))[0] == "certificate"


def test_an_extension_without_an_identifier_is_refused():
    one = der.tlv(der.SEQUENCE, der.encode_integer(5), der.tlv(der.OCTET_STRING, b""))
    check, words = refused(
        load_certificate, certificate_with(EXTENSIONS, der.tlv(0xA3, der.tlv(der.SEQUENCE, one)))
    )
    assert check == "certificate"
    assert "with identifier and value" in words


def test_a_key_usage_leaves_at_most_seven_bits_unused():
    value = der.tlv(der.BIT_STRING, b"\x08\x01\x00")
    one = der.tlv(der.SEQUENCE, der.encode_oid("2.5.29.15"), der.tlv(der.OCTET_STRING, value))
    _, words = refused(
        load_certificate, certificate_with(EXTENSIONS, der.tlv(0xA3, der.tlv(der.SEQUENCE, one)))
    )
    assert "shortest form" in words


def test_a_revocation_list_without_its_second_time_lacks_a_field():
    spec = CrlSpec(this_update=EPOCH, next_update=EPOCH, serials=(5,))
    good = issue_crl(spec, WORLD.authorities["partner"])
    outer = [element[2] for element in der.elements(der.only(good, der.SEQUENCE, "t"), "t")]
    body = [element[2] for element in der.elements(der.only(outer[0], der.SEQUENCE, "t"), "t")]
    data = der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, *body[:4], body[-1]), *outer[1:])
    assert refused(load_crl, data)[1] == (
        "revocation list: contents: expected the fields of a version 2 list with extensions"
    )


def test_only_an_entry_of_a_whole_certificate_forbids_by_its_bytes():
    entry = ListEntry(kind="certificate", data=LEAF.der)
    assert refused(check_path_not_forbidden, (LEAF,), (entry,))[0] == "revoked"
    check_path_not_forbidden((LEAF,), (attrs.evolve(entry, kind="other"),))
    check_path_not_forbidden((LEAF,), (attrs.evolve(entry, data=b"no certificate"),))


# ------------------------------------------------------------ images and signature lists

PLAIN = build_pe(b"\xc3" * 700, b"data")
SIGNED = attach_certificate(PLAIN, b"12345678")
OPTIONAL = 0x40 + 24
SECURITY = OPTIONAL + 112 + 32
TABLE = read_pe(SIGNED).table_at
ONE = "exactly one certificate, padded with zeros"
AT_END = "at the end of the file, aligned to 8 bytes"


def put(image, at, form, *values):
    new = struct.pack(form, *values)
    return image[:at] + new + image[at + len(new) :]


def certificate_of(image):
    return read_pe(image).certificate


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (put(SIGNED + bytes(8), SECURITY, "<II", TABLE, 24), ONE),
        (put(put(SIGNED[: TABLE + 8], SECURITY, "<II", TABLE, 8), TABLE, "<I", 8), ONE),
        (put(SIGNED[: TABLE + 4], SECURITY, "<II", TABLE, 4), AT_END),
        (put(PLAIN, SECURITY, "<II", 8, 0), AT_END),
        (put(PLAIN, SECURITY, "<II", 0, 8), AT_END),
    ],
)
def test_a_certificate_table_is_all_there_or_not_at_all(image, words):
    with pytest.raises(FormatError, match=words):
        certificate_of(image)


@pytest.mark.parametrize("count", [4, 17])
def test_an_image_with_a_consistent_but_unusual_number_of_directories_is_refused(count):
    moved = 8 * (count - 16)
    head, rest = PLAIN[: OPTIONAL + 112], PLAIN[OPTIONAL + 112 :]
    tables = rest[: 8 * min(count, 16)].ljust(8 * count, b"\0") + rest[128 : 0x400 - len(head)]
    image = (head + tables).ljust(len(PLAIN), b"\0")
    image = image[:0x200] + PLAIN[0x200:] if len(head + tables) <= 0x200 else image
    image = put(put(image, OPTIONAL + 108, "<I", count), 0x54, "<H", 240 + moved)
    with pytest.raises(FormatError, match=f"{count} data directories do not fit"):
        read_pe(image)


def test_a_list_that_is_shorter_than_its_own_header_is_refused_as_such():
    header = struct.pack("<16sIII", b"\0" * 16, 11, 0, 17)
    with pytest.raises(FormatError, match="do not fit each other"):
        parse_signature_lists(header + bytes(40))
