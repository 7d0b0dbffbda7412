"""The factory: certificates that vouch for attestation keys."""

import pickle

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from sim.core.rng import Rng
from sim.tpm.client import TpmClient
from sim.tpm.manufacture import IAK_CERTIFICATE_INDEX, TpmVendor
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
