"""The certificate of the attestation key: who may vouch for it, when, and what else is refused."""

from datetime import timedelta

import pytest

from sim.attest.certificates import check_ak_certificate
from sim.attest.verdict import AttestationError
from sim.core.rng import Rng
from sim.image.issue import AUTHORITY_USAGE, CertificateSpec, issue

from .lab import NOW

YEAR = timedelta(days=365)


def spec(name, **changes):
    fields = {
        "organization": "TPM maker",
        "common_name": name,
        "not_before": NOW - YEAR,
        "not_after": NOW + YEAR,
        "extended_usages": (),
    }
    return CertificateSpec(**(fields | changes))


def authority(name, issuer=None, **changes):
    fields = {"is_authority": True, "path_length": 0, "key_usage": AUTHORITY_USAGE}
    return issue(spec(name, **(fields | changes)), source=Rng(1).stream(name), issuer=issuer)


ROOT = authority("root")


def leaf(issuer=ROOT, **changes):
    return issue(
        spec("attestation key", **changes), source=Rng(1).stream("leaf"), issuer=issuer
    ).certificate_der


def refusal(certificate, roots=(ROOT.certificate_der,), now=NOW):
    with pytest.raises(AttestationError) as caught:
        check_ak_certificate(certificate, roots, now)
    assert caught.value.check == "ak_certificate"
    return caught.value.message


def test_a_signing_certificate_of_a_pinned_root_is_accepted_while_valid():
    for now in (NOW - YEAR, NOW, NOW + YEAR):
        assert check_ak_certificate(leaf(), (ROOT.certificate_der,), now).common_name == "attestation key"


def test_it_is_refused_before_and_after_its_time():
    assert "not valid before" in refusal(leaf(), now=NOW - YEAR - timedelta(seconds=1))
    assert "expired" in refusal(leaf(), now=NOW + YEAR + timedelta(seconds=1))


def test_a_root_of_the_same_name_with_another_key_does_not_vouch():
    same_name = spec("root", is_authority=True, path_length=0, key_usage=AUTHORITY_USAGE)
    impostor = issue(same_name, source=Rng(2).stream("root"))
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


def test_a_certificate_that_may_do_more_than_sign_is_no_attestation_key_s():
    for changes in (
        {"is_authority": True, "path_length": 0, "key_usage": AUTHORITY_USAGE},
        {"key_usage": ("digital_signature", "key_cert_sign")},
        {"key_usage": ("key_encipherment",)},
    ):
        assert "signing key" in refusal(leaf(**changes))


def test_the_root_s_own_certificate_is_no_attestation_key_s():
    assert "signing key" in refusal(ROOT.certificate_der)


@pytest.mark.parametrize("data", [b"", b"0", b"0\x80\0\0", bytes(100), b"0" * 9000])
def test_what_is_no_certificate_is_refused(data):
    refusal(data)


def test_trailing_bytes_are_refused():
    refusal(leaf() + b"\0")
