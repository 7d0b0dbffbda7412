"""The endorsement key's certificate, which ties that key to a TPM that a known vendor made.

Models: a strictly read certificate, issued by one of the pinned vendor roots, valid at the (simulated) time of the
appraisal, for an endorsement key (TCG purpose and key usage) and not for issuing, naming the TPM's manufacturer.
Rules of reading and of chains are those of `sim.image`.  What the certificate says of the attestation key is nothing:
that takes a credential (`sim.attest.credential`).

Leaves out: intermediate authorities, CRLs, platform certificates.

Sources: RFC 5280, section 6.1; TCG EK Credential Profile 2.3, chapter 3.2; VMware's vSphere Security guide,
troubleshooting of TPM attestation (the message about a missing certificate, which there names RSA keys).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from sim.attest.verdict import AttestationError
from sim.errors import FormatError
from sim.image.certificate import Certificate, load_certificate, read_directory_name
from sim.image.chain import check_authority, check_validity, find_path
from sim.image.trust import SignatureError
from sim.tpm.constants import TPM_ALG
from sim.tpm.wire import TPMT_PUBLIC

__all__ = ["check_ek_certificate", "check_ek_certificate_present"]

CHECK: Final = "ek_certificate"
_EK_PURPOSE: Final = "2.23.133.8.1"
_MANUFACTURER: Final = "2.23.133.2.1"


def check_ek_certificate_present(public: TPMT_PUBLIC, certificate_der: bytes) -> None:
    """Demand that there is a certificate at all; VMware's words say of which kind of key it is missing."""
    if not certificate_der:
        kind = "RSA" if public.type == TPM_ALG.RSA else "ECC"
        raise AttestationError(
            CHECK,
            f"Unable to provision Endorsement Key on TPM 2.0 device: No {kind} Endorsement Key certificate found "
            "in TPM 2.0 device's non-volatile memory.",
        )


def check_ek_certificate(
    certificate_der: bytes, vendor_roots: tuple[bytes, ...], now: datetime
) -> Certificate:
    """Return the certificate if a pinned vendor root issued it for an endorsement key; AttestationError otherwise."""
    try:
        leaf = load_certificate(certificate_der, alternative_names=True)
        path = find_path(leaf, [leaf], vendor_roots)
        for authority in path[
            1:
        ]:  # at most the root, below which stands no other that its path length could bound
            check_authority(authority)
        check_validity(path, now)
    except SignatureError as error:
        raise AttestationError(
            CHECK,
            f"the endorsement key's certificate is not from a known TPM vendor: {error}",
            evidence=f"{error.check}, certificate of {len(certificate_der)} bytes",
        ) from error
    may_wrap = leaf.key_encipherment if isinstance(leaf.public_key, rsa.RSAPublicKey) else leaf.key_agreement
    is_signer = leaf.is_ca or leaf.key_cert_sign or leaf.digital_signature or len(path) == 1
    if is_signer or not may_wrap or _EK_PURPOSE not in leaf.extended_usages:
        raise AttestationError(CHECK, "the endorsement key's certificate is not that of an endorsement key")
    if not _manufacturer(leaf):
        raise AttestationError(
            CHECK, "the endorsement key's certificate does not name the TPM's manufacturer"
        )
    return leaf


def _manufacturer(leaf: Certificate) -> str:
    try:
        return read_directory_name(leaf.alternative_name, _MANUFACTURER) if leaf.alternative_name else ""
    except FormatError as error:
        raise AttestationError(CHECK, f"the endorsement key's certificate cannot be read: {error}") from error
