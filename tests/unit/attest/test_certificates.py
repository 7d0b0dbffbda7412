"""The certificate of the endorsement key: who may vouch for it, when, for what, and what else is refused."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sim.attest.certificates import check_ek_certificate, check_ek_certificate_present
from sim.attest.verdict import AttestationError
from sim.core.keys import ec_private_key, rsa_private_key
from sim.core.rng import Rng
from sim.image.certificate import load_certificate, read_directory_name
from sim.image.issue import AUTHORITY_USAGE, CertificateSpec, issue
from sim.image.trust import SignatureError
from sim.tpm.templates import EK_ECC, EK_RSA

from .lab import NOW

YEAR = timedelta(days=365)
EK_PURPOSE = x509.ObjectIdentifier("2.23.133.8.1")
MANUFACTURER = x509.ObjectIdentifier("2.23.133.2.1")
KEY = ec_private_key(Rng(1).stream("leaf"))
MAKE = x509.SubjectAlternativeName(
    [x509.DirectoryName(x509.Name([x509.NameAttribute(MANUFACTURER, "id:56534D00")]))]
)


def authority(name, seed=1, **changes):
    fields = {
        "organization": "TPM maker",
        "common_name": name,
        "not_before": NOW - YEAR,
        "not_after": NOW + YEAR,
        "extended_usages": (),
        "is_authority": True,
        "path_length": 0,
        "key_usage": AUTHORITY_USAGE,
    }
    return issue(CertificateSpec(**(fields | changes)), source=Rng(seed).stream(name))


ROOT = authority("root")


def leaf(
    issuer=ROOT,
    usages=("key_agreement",),
    purposes=(EK_PURPOSE,),
    make=MAKE,
    key=KEY,
    is_authority=False,
    extra=None,
    critical=True,
):
    """An endorsement certificate, made by a library that this project does not read certificates with."""
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    above = x509.load_der_x509_certificate(issuer.certificate_der)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(above.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - YEAR)
        .not_valid_after(NOW + YEAR)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{name: name in usages for name in names}), critical=True)
    )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    for extension in (make, extra):
        if extension is not None:
            builder = builder.add_extension(extension, critical=critical)
    signed = builder.sign(issuer.private_key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


def refusal(certificate, roots=(ROOT.certificate_der,), now=NOW):
    with pytest.raises(AttestationError) as caught:
        check_ek_certificate(certificate, roots, now)
    assert caught.value.check == "ek_certificate"
    return caught.value.message


def test_an_endorsement_certificate_of_a_pinned_root_is_accepted_while_valid():
    for now in (NOW - YEAR, NOW, NOW + YEAR):
        found = check_ek_certificate(leaf(), (ROOT.certificate_der,), now)
        assert found.public_key == KEY.public_key()
        assert read_directory_name(found.alternative_name, MANUFACTURER.dotted_string) == "id:56534D00"


def test_an_rsa_key_is_for_encipherment():
    key = rsa_private_key(Rng(1).stream("rsa"))
    check_ek_certificate(leaf(key=key, usages=("key_encipherment",)), (ROOT.certificate_der,), NOW)
    assert "endorsement key" in refusal(leaf(key=key))


def test_it_is_refused_before_and_after_its_time():
    assert "not valid before" in refusal(leaf(), now=NOW - YEAR - timedelta(seconds=1))
    assert "expired" in refusal(leaf(), now=NOW + YEAR + timedelta(seconds=1))


def test_a_root_of_the_same_name_with_another_key_does_not_vouch():
    impostor = authority("root", seed=2)
    assert impostor.certificate_der != ROOT.certificate_der
    assert "known TPM vendor" in refusal(leaf(impostor))
    assert "known TPM vendor" in refusal(leaf(), roots=(impostor.certificate_der,))
    assert "known TPM vendor" in refusal(leaf(), roots=())


def test_a_root_that_is_no_authority_does_not_vouch():
    for changes in ({"is_authority": False, "path_length": None}, {"key_usage": ("digital_signature",)}):
        weak = authority("weak", **changes)
        refusal(leaf(weak), roots=(weak.certificate_der,))


def test_a_root_that_has_expired_does_not_vouch():
    old = authority("old", not_after=NOW - timedelta(days=1))
    assert "expired" in refusal(leaf(old), roots=(old.certificate_der,))


@pytest.mark.parametrize("changes", [
    {"is_authority": True},
    {"usages": ("key_agreement", "key_cert_sign")},
    {"usages": ("key_agreement", "digital_signature")},
    {"usages": ("key_encipherment",)},
    {"purposes": ()},
    {"purposes": (ExtendedKeyUsageOID.SERVER_AUTH,)},
])  # fmt: skip
def test_a_certificate_for_anything_else_is_no_endorsement_key_s(changes):
    assert "not that of an endorsement key" in refusal(leaf(**changes))


def test_the_root_s_own_certificate_is_no_endorsement_key_s():
    assert "not that of an endorsement key" in refusal(ROOT.certificate_der)


def test_a_pinned_certificate_does_not_vouch_for_its_own_key():
    plain = leaf(critical=False)
    check_ek_certificate(plain, (ROOT.certificate_der,), NOW)
    assert "not that of an endorsement key" in refusal(plain, roots=(plain,))


def test_a_certificate_that_does_not_name_the_manufacturer_is_refused():
    other = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "someone")])
    for make in (
        None,
        x509.SubjectAlternativeName([x509.DNSName("tpm")]),
        x509.SubjectAlternativeName([x509.DirectoryName(other)]),
    ):
        assert "manufacturer" in refusal(leaf(make=make))


def test_an_alternative_name_that_cannot_be_read_is_refused():
    garbage = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x30\x03\xa4\x05\x00")
    assert "cannot be read" in refusal(leaf(make=garbage))


def test_critical_names_are_for_endorsement_keys_alone_and_other_critical_extensions_for_nobody():
    with pytest.raises(SignatureError) as caught:
        load_certificate(leaf())
    assert caught.value.check == "critical-extension"
    assert "critical extension" in refusal(
        leaf(extra=x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"))
    )


@pytest.mark.parametrize("data", [b"", b"0", b"0\x80\0\0", bytes(100), b"0" * 9000])
def test_what_is_no_certificate_is_refused(data):
    refusal(data)


def test_trailing_bytes_are_refused():
    refusal(leaf() + b"\0")


def test_a_missing_certificate_is_told_apart_by_the_kind_of_key():
    for public, kind in ((EK_RSA, "RSA"), (EK_ECC, "ECC")):
        with pytest.raises(AttestationError) as caught:
            check_ek_certificate_present(public, b"")
        assert caught.value.message == (
            f"Unable to provision Endorsement Key on TPM 2.0 device: No {kind} Endorsement Key certificate found "
            "in TPM 2.0 device's non-volatile memory."
        )
        check_ek_certificate_present(public, b"anything")
