"""Revocation lists: the strict reader, whom a list answers for, and what happens where the lists are silent."""

import subprocess
from datetime import timedelta

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sim.image import der
from sim.image.algorithms import signature_identifier
from sim.image.bitflips import flip_bits
from sim.image.certificate import load_certificate
from sim.image.cms import sign_detached, verify_detached
from sim.image.crl import CRL_BYTES_MAX, check_revocation, load_crl
from sim.image.crl_issue import CrlSpec, issue_crl
from sim.image.tool import read_crl
from sim.image.trust import RevocationPolicy, SignatureError

from .test_cms import AUTHORITY, EPOCH, world

DAY = timedelta(days=1)
REASON, INVALIDITY = "2.5.29.21", "2.5.29.24"
DISTRIBUTION_POINT, DELTA, CERTIFICATE_ISSUER = "2.5.29.28", "2.5.29.27", "2.5.29.29"


@pytest.fixture(scope="module")
def signer(world_pki):
    return world_pki.signer("partner")


@pytest.fixture(scope="module")
def serial(signer):
    return load_certificate(signer.certificate_der).serial


@pytest.fixture(scope="module")
def spec(epoch, serial):
    return CrlSpec(this_update=epoch - DAY, next_update=epoch + DAY, serials=(5, serial, 2**150))


@pytest.fixture(scope="module")
def issuer(world_pki):
    return world_pki.authorities["partner"]


@pytest.fixture(scope="module")
def judge(world_pki, signer, epoch):
    """A function that verifies a signature of the partner under the given lists."""

    signature = sign_detached(b"data", signer, epoch)

    def run(*crls, now=epoch, **policy):
        trust = world_pki.trust.with_crls(crls, RevocationPolicy(**policy))
        return verify_detached(b"data", signature, trust, now)

    return run


def refused(check, call, *arguments, **options):
    with pytest.raises(SignatureError) as caught:
        call(*arguments, **options)
    assert caught.value.check == check, str(caught.value)
    return str(caught.value)


def test_a_list_is_read_as_it_was_issued(spec, issuer):
    found = load_crl(issue_crl(spec, issuer))
    assert (found.this_update, found.next_update, found.number) == (spec.this_update, spec.next_update, 1)
    assert found.serials == set(spec.serials)
    assert found.issuer == load_certificate(issuer.certificate_der).subject
    assert found.is_signed_by(load_certificate(issuer.certificate_der))


def test_the_library_reads_our_list_and_agrees(spec, issuer):
    peer = x509.load_der_x509_crl(issue_crl(spec, issuer))
    assert peer.is_signature_valid(x509.load_der_x509_certificate(issuer.certificate_der).public_key())
    assert {entry.serial_number for entry in peer} == set(spec.serials)


def test_a_signer_on_its_issuers_list_is_refused(judge, spec, issuer):
    text = refused("revoked", judge, issue_crl(spec, issuer))
    assert "is revoked by PartnerSupported" in text


def test_a_signer_that_is_not_on_the_list_is_accepted(judge, spec, issuer):
    assert judge(issue_crl(attrs.evolve(spec, serials=(5,)), issuer)).level == "partner"
    assert judge(issue_crl(attrs.evolve(spec, serials=()), issuer)).level == "partner"


def test_an_authority_on_the_roots_list_is_refused(judge, spec, issuer, world_pki):
    number = load_certificate(issuer.certificate_der).serial
    refused("revoked", judge, issue_crl(attrs.evolve(spec, serials=(number,)), world_pki.root))


def test_a_list_answers_for_its_own_issuer_only(judge, spec, world_pki):
    assert judge(issue_crl(spec, world_pki.authorities["accepted"])).level == "partner"


def test_a_list_counts_from_its_first_second_to_its_last(judge, spec, issuer, serial):
    good = issue_crl(attrs.evolve(spec, serials=(5,)), issuer)
    assert judge(good, now=spec.this_update)
    assert judge(good, now=spec.next_update)
    refused("crl-validity", judge, good, now=spec.this_update - timedelta(seconds=1))
    refused("crl-validity", judge, good, now=spec.next_update + timedelta(seconds=1))


def test_an_expired_list_is_used_only_where_the_policy_says_so(judge, spec, issuer):
    later = spec.next_update + DAY
    assert judge(issue_crl(attrs.evolve(spec, serials=(5,)), issuer), now=later, stale="use")
    refused("revoked", judge, issue_crl(spec, issuer), now=later, stale="use")


def test_a_missing_list_is_refused_only_where_the_policy_says_so(judge, spec, issuer, world_pki):
    assert judge()
    own = issue_crl(attrs.evolve(spec, serials=()), issuer)
    roots = issue_crl(attrs.evolve(spec, serials=()), world_pki.root)
    assert judge(own, roots, missing="refuse")
    refused("crl-missing", judge, own, missing="refuse")
    refused("crl-missing", judge, roots, missing="refuse")


def test_the_newest_list_decides(judge, spec, issuer):
    older = issue_crl(spec, issuer)
    newer = attrs.evolve(spec, serials=(5,), number=2, this_update=spec.this_update + DAY)
    assert judge(older, issue_crl(newer, issuer))
    same_time = attrs.evolve(newer, this_update=spec.this_update)
    assert judge(issue_crl(same_time, issuer), older)
    refused("revoked", judge, older, issue_crl(attrs.evolve(same_time, number=0), issuer))


def test_a_list_in_anothers_name_is_refused(judge, spec, issuer, world_pki):
    forger = attrs.evolve(issuer, private_key_der=world_pki.authorities["accepted"].private_key_der)
    refused("crl-signature", judge, issue_crl(attrs.evolve(spec, serials=()), forger))


def test_an_authority_that_may_not_sign_lists_is_no_issuer_of_one(epoch, spec):

    lame = world(issuer=attrs.evolve(AUTHORITY, key_usage=("key_cert_sign",)))
    path = tuple(
        load_certificate(one)
        for one in (lame.signer.certificate_der, lame.issuer.certificate_der, lame.root.certificate_der)
    )
    crl = issue_crl(attrs.evolve(spec, serials=()), lame.issuer)
    refused("crl-issuer", check_revocation, path, (crl,), RevocationPolicy(), epoch)


@pytest.mark.parametrize("oid", [DISTRIBUTION_POINT, DELTA, "1.2.3.4"])
def test_a_critical_extension_is_refused(spec, issuer, oid):
    value = der.encode_integer(1)
    crl = issue_crl(attrs.evolve(spec, extra=((oid, True, value),)), issuer)
    assert oid in refused("crl-critical-extension", load_crl, crl)
    assert load_crl(issue_crl(attrs.evolve(spec, extra=((oid, False, value),)), issuer)).number == 1


def test_an_entry_for_another_issuer_is_refused_and_a_reason_is_not(spec, issuer):
    indirect = attrs.evolve(spec, entry_extra=((CERTIFICATE_ISSUER, True, b"\x30\0"),))
    refused("crl-critical-extension", load_crl, issue_crl(indirect, issuer))
    reasons = attrs.evolve(spec, entry_extra=((REASON, False, b"\x0a\x01\x01"),))
    assert load_crl(issue_crl(reasons, issuer)).serials == set(spec.serials)


def test_malformed_lists_are_refused_by_one_error(spec, issuer):
    good = issue_crl(spec, issuer)
    for bad in (
        b"",
        b"\x30",
        good[:-1],
        good + b"\0",
        bytes(CRL_BYTES_MAX + 1),
        issue_crl(attrs.evolve(spec, serials=(5, 5)), issuer),
        issue_crl(attrs.evolve(spec, serials=(0,)), issuer),
        issue_crl(attrs.evolve(spec, next_update=spec.this_update - DAY), issuer),
        good.replace(der.encode_time(spec.next_update), b"", 1),
        b"\x30\x84" + len(good[4:]).to_bytes(4, "big") + good[4:],
    ):
        refused("crl", load_crl, bad)
    too_many = attrs.evolve(spec, serials=tuple(range(1, der.ELEMENTS_MAX + 2)))
    assert "more than" in refused("crl", load_crl, issue_crl(too_many, issuer))


def test_a_name_in_another_spelling_is_refused(spec, issuer):
    outer = der.elements(der.only(issue_crl(spec, issuer), der.SEQUENCE, "t"), "t")
    body = [element[2] for element in der.elements(outer[0][1], "t")]
    first, *rest = der.elements(der.only(body[2], der.SEQUENCE, "t"), "t")
    longer = bytes((der.SET, 0x81, len(first[1]))) + first[1]
    body[2] = der.tlv(der.SEQUENCE, longer, *(element[2] for element in rest))
    respelled = der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, *body), outer[1][2], outer[2][2])
    refused("crl", load_crl, respelled)


def rebuilt(crl, *, algorithm=None, outer_algorithm=None, entries=None):
    """Return a list with other fields; its signature is not made anew, which a reader does not look at."""
    outer = der.elements(der.only(crl, der.SEQUENCE, "t"), "t")
    body = [element[2] for element in der.elements(outer[0][1], "t")]
    body[1] = algorithm or body[1]
    body[5] = entries if entries is not None else body[5]
    return der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, *body), outer_algorithm or outer[1][2], outer[2][2])


def test_both_algorithms_must_be_one_that_is_allowed(spec, issuer):
    good = issue_crl(spec, issuer)
    assert rebuilt(good) == good
    other = signature_identifier("ec", "sha512")
    sha1 = der.tlv(der.SEQUENCE, der.encode_oid("1.2.840.10045.4.1"))
    refused("crl-algorithm", load_crl, rebuilt(good, outer_algorithm=other))
    refused("crl-algorithm", load_crl, rebuilt(good, algorithm=other))
    refused("crl-algorithm", load_crl, rebuilt(good, algorithm=sha1, outer_algorithm=sha1))


def test_an_empty_sequence_of_entries_and_a_negative_number_are_refused(spec, issuer):
    good = issue_crl(spec, issuer)
    refused("crl", load_crl, rebuilt(good, entries=der.tlv(der.SEQUENCE)))
    number = der.tlv(der.OCTET_STRING, der.encode_integer(1))
    assert good.count(number) == 1
    refused("crl", load_crl, good.replace(number, number[:-1] + b"\xff"))


def test_a_list_with_a_field_too_many_or_a_broken_signature_string_is_refused(spec, issuer):
    good = issue_crl(spec, issuer)
    outer = der.elements(der.only(good, der.SEQUENCE, "t"), "t")
    body = [element[2] for element in der.elements(outer[0][1], "t")]
    more = der.tlv(der.SEQUENCE, *body[:6], body[5], *body[6:])
    refused("crl", load_crl, der.tlv(der.SEQUENCE, more, outer[1][2], outer[2][2]))
    ragged = der.tlv(der.BIT_STRING, b"\1", outer[2][1][1:])
    refused("crl", load_crl, der.tlv(der.SEQUENCE, outer[0][2], outer[1][2], ragged))


def test_an_extension_twice_is_refused(spec, issuer):
    reason = (REASON, False, b"\x0a\x01\x01")
    refused("crl", load_crl, issue_crl(attrs.evolve(spec, extra=(reason, reason)), issuer))
    refused("crl", load_crl, issue_crl(attrs.evolve(spec, entry_extra=(reason, reason)), issuer))


def test_no_flipped_bit_of_a_list_takes_a_signer_off_it(judge, spec, issuer, world_pki):
    crl = issue_crl(spec, issuer)
    roots = issue_crl(attrs.evolve(spec, serials=()), world_pki.root)
    assert judge(issue_crl(attrs.evolve(spec, serials=()), issuer), roots, missing="refuse")
    report = flip_bits(crl, lambda data: judge(data, roots, missing="refuse"))
    assert (report.accepted, report.escaped) == ((), ())
    assert report.tried == 8 * len(crl)


CONFIG = """
[ca]
default_ca=one
[one]
database=index.txt
crlnumber=number
default_md=sha256
crl_extensions=ext
[ext]
authorityKeyIdentifier=keyid
"""


@pytest.mark.client
@pytest.mark.parametrize("algorithm", ["ec-p256", "rsa-2048"])
def test_openssl_makes_lists_that_count_and_reads_ours(program, tmp_path, algorithm, epoch):

    made = world(algorithm=algorithm)
    openssl = program("openssl")
    leaf = load_certificate(made.signer.certificate_der)
    key = made.issuer.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "issuer.key").write_bytes(key)
    for name, one in (("issuer", made.issuer), ("root", made.root), ("leaf", made.signer)):
        pem = x509.load_der_x509_certificate(one.certificate_der).public_bytes(Encoding.PEM)
        (tmp_path / f"{name}.pem").write_bytes(pem)
    (tmp_path / "ca.cnf").write_text(CONFIG)
    (tmp_path / "number").write_text("07\n")
    text = f"{leaf.serial:X}"
    text = text if len(text) % 2 == 0 else "0" + text
    (tmp_path / "index.txt").write_text(f"R\t490101000000Z\t241231000000Z\t{text}\tunknown\t/CN=leaf\n")

    def run(*arguments):
        return subprocess.run([openssl, *arguments], cwd=tmp_path, capture_output=True, timeout=60)

    times = ("-crl_lastupdate", "241231000000Z", "-crl_nextupdate", "250110000000Z")
    done = run(
        *("ca", "-gencrl", "-config", "ca.cnf", "-keyfile", "issuer.key", "-cert", "issuer.pem"),
        *("-out", "made.pem", *times),
    )
    assert done.returncode == 0, done.stderr.decode()

    theirs = read_crl((tmp_path / "made.pem").read_bytes())
    assert (load_crl(theirs).serials, load_crl(theirs).number) == ({leaf.serial}, 7)
    trust = made.trust.with_crls([theirs])
    refused("revoked", verify_detached, b"data", made.sign(), trust, EPOCH)

    spec = CrlSpec(this_update=EPOCH - DAY, next_update=EPOCH + DAY, serials=(leaf.serial,))
    (tmp_path / "ours.der").write_bytes(issue_crl(spec, made.issuer))
    done = run("crl", "-inform", "DER", "-in", "ours.der", "-CAfile", "issuer.pem", "-noout", "-text")
    assert b"verify OK" in done.stderr
    assert text.encode() in done.stdout
    run("crl", "-inform", "DER", "-in", "ours.der", "-out", "ours.pem")
    done = run(
        *("verify", "-CAfile", "root.pem", "-untrusted", "issuer.pem", "-CRLfile", "ours.pem"),
        *("-crl_check", "-attime", str(int(EPOCH.timestamp())), "leaf.pem"),
    )
    assert b"certificate revoked" in done.stderr
