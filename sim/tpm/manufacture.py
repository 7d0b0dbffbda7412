"""The factory: a vendor that makes TPMs and vouches for them.

Models: a vendor's root certificate, and TPMs whose seeds come from a random stream and whose initial attestation key
(IAK) has a certificate of that vendor in NV.  The IAK is the P-256 primary of `sim.tpm.templates.ATTESTATION_KEY` in the
endorsement hierarchy, so software gets it back with CreatePrimary at any time.
Leaves out: endorsement keys and their certificates, intermediate authorities, revocation.
Sources: TCG "TPM 2.0 Keys for Device Identity and Attestation" (IAK, its NV index range); RFC 5280.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sim.core.facts import fact
from sim.core.keys import ec_private_key
from sim.core.rng import Rng
from sim.tpm.constants import TPM_RH
from sim.tpm.creation import derive_primary
from sim.tpm.device import Clock, Tpm
from sim.tpm.nv import factory_index
from sim.tpm.profile import TpmProfile
from sim.tpm.templates import ATTESTATION_KEY
from sim.tpm.wire import TPMS_ECC_POINT

__all__ = ["IAK_CERTIFICATE_INDEX", "TpmVendor"]

IAK_CERTIFICATE_INDEX = fact(
    "tpm.iak_certificate_index",
    0x01C9_0000,
    unit="NV index",
    source="TCG registry of reserved TPM 2.0 handles, range of IDevID and IAK certificates",
    kind="spec",
).value

_ROOT_LABEL = "vendor/root"
_NOT_BEFORE = datetime(2020, 1, 1, tzinfo=UTC)
_NOT_AFTER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_ROOT_NAME = x509.Name(
    [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Simulated TPM Vendor"),
        x509.NameAttribute(NameOID.COMMON_NAME, "Simulated TPM Root CA"),
    ]
)


class TpmVendor:
    """Makes TPMs; keys and certificates depend on `rng` alone."""

    def __init__(self, rng: Rng) -> None:
        key = ec_private_key(rng.stream(_ROOT_LABEL))
        self._private_der = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._rng = rng
        self.root_certificate_der = _sign(
            _builder(_ROOT_NAME, key.public_key(), self._serial_number("root"))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True), critical=True),
            key,
        )

    def make(
        self, serial: str, rng: Rng, profile: TpmProfile | None = None, clock: Clock | None = None
    ) -> Tpm:
        """Make the TPM with that serial number; its seeds come from `rng`."""
        tpm = Tpm(rng.stream(f"{serial}/seeds"), profile, clock)
        seed = tpm.hierarchies[TPM_RH.ENDORSEMENT].seed
        public, _ = derive_primary(seed, ATTESTATION_KEY, b"")
        assert isinstance(public.unique, TPMS_ECC_POINT)
        numbers = ec.EllipticCurvePublicNumbers(
            int.from_bytes(public.unique.x, "big"), int.from_bytes(public.unique.y, "big"), ec.SECP256R1()
        )
        tpm.provision_nv(factory_index(IAK_CERTIFICATE_INDEX, self._certify(serial, numbers.public_key())))
        return tpm

    def _certify(self, serial: str, key: ec.EllipticCurvePublicKey) -> bytes:
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Simulated TPM Vendor"),
                x509.NameAttribute(NameOID.COMMON_NAME, "TPM initial attestation key"),
                x509.NameAttribute(NameOID.SERIAL_NUMBER, serial),
            ]
        )
        root = serialization.load_der_private_key(self._private_der, None)
        assert isinstance(root, ec.EllipticCurvePrivateKey)
        builder = (
            _builder(name, key, self._serial_number(f"iak/{serial}"))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False
            )
        )
        return _sign(builder, root)

    def _serial_number(self, label: str) -> int:
        return 1 + self._rng.stream(f"vendor/serial/{label}").below(2**159)


def _builder(subject: x509.Name, key: ec.EllipticCurvePublicKey, serial: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_ROOT_NAME)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _sign(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    certificate = builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    return certificate.public_bytes(serialization.Encoding.DER)
