"""The factory: certificates that vouch for attestation keys."""

import pickle
from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from sim.core.rng import Rng
from sim.tpm.client import TpmClient
from sim.tpm.constants import TPM_CC, TPM_RH
from sim.tpm.manufacture import (
    EK_ECC_CERTIFICATE_INDEX,
    EK_RSA_CERTIFICATE_INDEX,
    IAK_CERTIFICATE_INDEX,
    TpmVendor,
)
from sim.tpm.templates import EK_ECC, EK_POLICY, EK_RSA
from sim.tpm.wire import TPM2B_PUBLIC


def started(tpm):
    tpm.init()
    client = TpmClient(tpm.execute)
    client.startup()
    return client


@pytest.fixture(scope="module")
def vendor():
    return TpmVendor(Rng(7))


def test_the_certificate_in_nv_belongs_to_the_attestation_key(vendor):
    client = started(vendor.make("SN-1", Rng(7).child("esx01")))
    certificate = x509.load_der_x509_certificate(client.nv_read(IAK_CERTIFICATE_INDEX))
    _, public, _ = client.create_primary_ak()
    point = TPM2B_PUBLIC.decode(public, 0, len(public))[0].unique
    numbers = certificate.public_key().public_numbers()

    assert numbers.x.to_bytes(32, "big") == point.x
    assert numbers.y.to_bytes(32, "big") == point.y
    assert "SN-1" in certificate.subject.rfc4514_string()


def test_the_vendor_signed_the_certificate_and_another_vendor_did_not(vendor):
    client = started(vendor.make("SN-1", Rng(7)))
    certificate = x509.load_der_x509_certificate(client.nv_read(IAK_CERTIFICATE_INDEX))
    root = x509.load_der_x509_certificate(vendor.root_certificate_der)

    root.verify_directly_issued_by(root)
    certificate.verify_directly_issued_by(root)
    other = x509.load_der_x509_certificate(TpmVendor(Rng(8)).root_certificate_der)
    with pytest.raises(Exception):  # noqa: B017 - InvalidSignature or ValueError, as the library likes
        certificate.verify_directly_issued_by(other)


def test_the_root_may_sign_certificates_and_the_leaf_may_not(vendor):
    root = x509.load_der_x509_certificate(vendor.root_certificate_der)
    client = started(vendor.make("SN-1", Rng(7)))
    leaf = x509.load_der_x509_certificate(client.nv_read(IAK_CERTIFICATE_INDEX))

    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    assert isinstance(root.public_key(), ec.EllipticCurvePublicKey)


def test_the_same_seed_makes_the_same_factory_and_serials_differ():
    def made(seed, serial):
        vendor = TpmVendor(Rng(seed))
        client = started(vendor.make(serial, Rng(seed)))
        return vendor.root_certificate_der, client.nv_read(IAK_CERTIFICATE_INDEX)

    assert made(1, "A") == made(1, "A")
    assert made(1, "A")[1] != made(1, "B")[1]
    assert made(1, "A")[0] != made(2, "A")[0]


def test_the_vendor_pickles(vendor):
    twin = pickle.loads(pickle.dumps(vendor))

    assert twin.root_certificate_der == vendor.root_certificate_der
    assert started(twin.make("X", Rng(3))).get_random(8) == started(vendor.make("X", Rng(3))).get_random(8)


@pytest.mark.parametrize(
    ("kind", "index", "template"),
    [("ecc", EK_ECC_CERTIFICATE_INDEX, EK_ECC), ("rsa", EK_RSA_CERTIFICATE_INDEX, EK_RSA)],
)
def test_an_endorsement_certificate_belongs_to_the_key_of_its_template(vendor, kind, index, template):
    client = started(vendor.make("SN-1", Rng(7), endorsement_keys=(kind,)))
    certificate = x509.load_der_x509_certificate(client.nv_read(index))
    _, public, _ = client.create_primary(template, TPM_RH.ENDORSEMENT)
    unique = TPM2B_PUBLIC.decode(public, 0, len(public))[0].unique
    numbers = certificate.public_key().public_numbers()

    if kind == "ecc":
        assert (numbers.x, numbers.y) == (int.from_bytes(unique.x, "big"), int.from_bytes(unique.y, "big"))
    else:
        assert (numbers.n, numbers.e) == (int.from_bytes(unique, "big"), 65537)
    certificate.verify_directly_issued_by(x509.load_der_x509_certificate(vendor.root_certificate_der))


def test_an_endorsement_certificate_says_what_it_is_for_and_who_made_the_tpm(vendor):
    client = started(vendor.make("SN-1", Rng(7), endorsement_keys=("ecc", "rsa")))
    for index in (EK_ECC_CERTIFICATE_INDEX, EK_RSA_CERTIFICATE_INDEX):
        extensions = x509.load_der_x509_certificate(client.nv_read(index)).extensions
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        make = {each.oid.dotted_string: each.value for each in names[0].value}

        is_ecc = index == EK_ECC_CERTIFICATE_INDEX
        assert (usage.key_agreement, usage.key_encipherment) == (is_ecc, not is_ecc)
        assert not usage.digital_signature
        assert make["2.23.133.2.1"] == "id:49424D00"
        purpose = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert [each.dotted_string for each in purpose] == ["2.23.133.8.1"]


def test_a_tpm_has_only_the_endorsement_certificates_that_its_vendor_made(vendor):
    assert EK_RSA_CERTIFICATE_INDEX not in vendor.make("SN-1", Rng(7)).nv
    assert vendor.make("SN-1", Rng(7), endorsement_keys=()).nv.keys() == {IAK_CERTIFICATE_INDEX}


def test_the_endorsement_policy_is_the_digest_of_the_hierarchys_secret():
    extended = sha256(
        bytes(32) + TPM_CC.PolicySecret.to_bytes(4, "big") + TPM_RH.ENDORSEMENT.to_bytes(4, "big")
    )

    assert sha256(extended.digest()).digest() == EK_POLICY
