"""The factory: a vendor that makes TPMs and vouches for them.

Models: a vendor's root certificate, and TPMs whose seeds come from a random stream and whose initial attestation key
(IAK) and endorsement keys have certificates of that vendor in NV.  The keys are primaries of the templates of
`sim.tpm.templates` in the endorsement hierarchy, so software gets them back with CreatePrimary at any time.
Leaves out: intermediate authorities, revocation, platform certificates.
Sources: TCG "TPM 2.0 Keys for Device Identity and Attestation" (IAK, its NV index range); TCG EK Credential Profile
2.3 (endorsement certificates, their NV indices); RFC 5280.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from sim.core.facts import fact
from sim.core.keys import ec_private_key
from sim.core.rng import Rng
from sim.tpm.constants import TPM_RH
from sim.tpm.creation import derive_primary
from sim.tpm.device import Clock, Tpm
from sim.tpm.keys import rsa_numbers
from sim.tpm.nv import factory_index
from sim.tpm.profile import TpmProfile
from sim.tpm.templates import ATTESTATION_KEY, EK_ECC, EK_RSA
from sim.tpm.wire import TPMS_ECC_POINT, TPMT_PUBLIC

__all__ = ["EK_ECC_CERTIFICATE_INDEX", "EK_RSA_CERTIFICATE_INDEX", "IAK_CERTIFICATE_INDEX", "TpmVendor"]

IAK_CERTIFICATE_INDEX = fact(
    "tpm.iak_certificate_index",
    0x01C9_0000,
    unit="NV index",
    source="TCG registry of reserved TPM 2.0 handles, range of IDevID and IAK certificates",
    kind="spec",
).value

EK_RSA_CERTIFICATE_INDEX = fact(
    "tpm.ek_rsa_certificate_index",
    0x01C0_0002,
    unit="NV index",
    source="TCG EK Credential Profile 2.3, 2.2.1.4 (RSA 2048 EK certificate)",
    kind="spec",
).value
EK_ECC_CERTIFICATE_INDEX = fact(
    "tpm.ek_ecc_certificate_index",
    0x01C0_000A,
    unit="NV index",
    source="TCG EK Credential Profile 2.3, 2.2.1.4 (ECC NIST P256 EK certificate)",
    kind="spec",
).value

_ENDORSEMENT = {"rsa": (EK_RSA_CERTIFICATE_INDEX, EK_RSA), "ecc": (EK_ECC_CERTIFICATE_INDEX, EK_ECC)}
_PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
_OID_MANUFACTURER = x509.ObjectIdentifier("2.23.133.2.1")
_OID_MODEL = x509.ObjectIdentifier("2.23.133.2.2")
_OID_VERSION = x509.ObjectIdentifier("2.23.133.2.3")
_OID_EK_CERTIFICATE = x509.ObjectIdentifier("2.23.133.8.1")
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
        self,
        serial: str,
        rng: Rng,
        profile: TpmProfile | None = None,
        clock: Clock | None = None,
        endorsement_keys: tuple[str, ...] = ("ecc",),
    ) -> Tpm:
        """Make the TPM with that serial number; its seeds come from `rng`.

        `endorsement_keys` says which endorsement keys get a certificate: "ecc", "rsa" (which costs real time), both
        or none.  Software makes any of them again with CreatePrimary.
        """
        tpm = Tpm(rng.stream(f"{serial}/seeds"), profile, clock)
        iak = _primary_key(tpm, ATTESTATION_KEY)
        tpm.provision_nv(factory_index(IAK_CERTIFICATE_INDEX, self._certify_iak(serial, iak)))
        for kind in endorsement_keys:
            index, template = _ENDORSEMENT[kind]
            key = _primary_key(tpm, template)
            tpm.provision_nv(factory_index(index, self._certify_ek(f"{serial}/{kind}", key, tpm.profile)))
        return tpm

    def _certify_iak(self, serial: str, key: _PublicKey) -> bytes:
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Simulated TPM Vendor"),
                x509.NameAttribute(NameOID.COMMON_NAME, "TPM initial attestation key"),
                x509.NameAttribute(NameOID.SERIAL_NUMBER, serial),
            ]
        )
        builder = _builder(name, key, self._serial_number(f"iak/{serial}"))
        return self._issue(builder.add_extension(_usage(digital_signature=True), critical=True))

    def _certify_ek(self, label: str, key: _PublicKey, profile: TpmProfile) -> bytes:
        """Return an endorsement certificate: the subject is empty, the alternative name tells the make of the TPM."""
        is_rsa = isinstance(key, rsa.RSAPublicKey)
        make = x509.Name(
            [
                x509.NameAttribute(_OID_MANUFACTURER, f"id:{profile.manufacturer_id:08X}"),
                x509.NameAttribute(_OID_MODEL, "".join(profile.vendor_strings).strip()),
                x509.NameAttribute(_OID_VERSION, f"id:{profile.firmware_version:016X}"),
            ]
        )
        builder = (
            _builder(x509.Name([]), key, self._serial_number(f"ek/{label}"))
            .add_extension(_usage(key_encipherment=is_rsa, key_agreement=not is_rsa), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DirectoryName(make)]), critical=True)
            .add_extension(x509.ExtendedKeyUsage([_OID_EK_CERTIFICATE]), critical=False)
        )
        return self._issue(builder)

    def _issue(self, builder: x509.CertificateBuilder) -> bytes:
        root = serialization.load_der_private_key(self._private_der, None)
        assert isinstance(root, ec.EllipticCurvePrivateKey)
        return _sign(
            builder.add_extension(
                x509.BasicConstraints(ca=False, path_length=None), critical=True
            ).add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False
            ),
            root,
        )

    def _serial_number(self, label: str) -> int:
        return 1 + self._rng.stream(f"vendor/serial/{label}").below(2**159)


def _primary_key(tpm: Tpm, template: TPMT_PUBLIC) -> _PublicKey:
    """Return the public key of a primary of the endorsement hierarchy."""
    public, _ = derive_primary(tpm.hierarchies[TPM_RH.ENDORSEMENT].seed, template, b"")
    if isinstance(public.unique, TPMS_ECC_POINT):
        x, y = (int.from_bytes(each, "big") for each in (public.unique.x, public.unique.y))
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    n, e = rsa_numbers(public)
    return rsa.RSAPublicNumbers(e, n).public_key()


def _builder(subject: x509.Name, key: _PublicKey, serial: int) -> x509.CertificateBuilder:
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


def _usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_agreement: bool = False,
    key_cert_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=key_agreement,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _sign(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    certificate = builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    return certificate.public_bytes(serialization.Encoding.DER)
